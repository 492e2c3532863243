"""``export`` and ``report``: files made of a trail."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.reading import Reading, Request, read
from structlog_audit.cli.terminal import put, put_line
from structlog_audit.exceptions import AuditValueError
from structlog_audit.export import checked_destination, export, write_atomically


def export_events(request: Request, to: str, format: str | None, *, force: bool) -> Exit:
    """Write the events that *request* asks for to the file *to*, which is not replaced unless by *force*."""
    if to == "-":
        raise UsageError("--to -: an export is a file; for stdout use query with -o json, jsonl or csv")
    try:
        place, name = checked_destination(to, format)
    except AuditValueError as error:
        raise UsageError(str(error)) from None
    _see_that_it_is_free(to, force)

    def act(reading: Reading) -> Exit:
        events = reading.source.iter_events(**reading.filters)
        with _left_as_it_is(to):
            count = export(events, place, format=name, now=reading.now, replace=force)
        put_line(f"{count} events in {to}")
        return Exit.DONE

    return read(request, act, quietly=True)


def report(
    request: Request, month: str | None, user_id: str | None, places: dict[str, str | None], *, force: bool
) -> Exit:
    """Write the report of what *request* asks for to *places*, by the name of its form; ``-`` means stdout."""
    from structlog_audit.reports import compliance_report
    from structlog_audit.reports.period import period_of

    if month is not None and (request.since or request.until):
        raise UsageError("--month beside --since or --until: give the one or the other")
    try:
        period_of(month, None, None)
    except AuditValueError as error:
        raise UsageError(f"--{error}") from None
    wanted = {form: to for form, to in places.items() if to is not None} or {"markdown": "-"}
    if list(wanted.values()).count("-") > 1:
        raise UsageError("more than one document to -: give files to all but one")
    for to in wanted.values():
        _see_that_it_is_free(to, force)

    def act(reading: Reading) -> Exit:
        if reading.sought.tests or reading.filters.keys() - {"start_time", "end_time"}:
            raise UsageError("a report is about everything in its time, or about --user: leave out the conditions")
        made = compliance_report(reading.trail, month=month, user_id=user_id, **reading.filters)
        for form, to in wanted.items():
            text = getattr(made, f"to_{form}")()
            if to == "-":
                put(text if text.endswith("\n") else f"{text}\n")
                continue
            with _left_as_it_is(to):
                write_atomically(Path(to), [text.encode()], replace=force)
        return Exit.DONE

    return read(request, act, quietly=True)


def _see_that_it_is_free(to: str, force: bool) -> None:
    if to != "-" and not force and os.path.lexists(to):
        raise in_the_way(to)


@contextmanager
def _left_as_it_is(to: str) -> Iterator[None]:
    """Say so if there is a file by now."""
    try:
        yield
    except FileExistsError:
        if not os.path.lexists(to):  # it is the folder that is no folder
            raise
        raise in_the_way(to) from None


def in_the_way(to: str) -> UsageError:
    """What to say when there is a file already."""
    return UsageError(f"{to} is there already, and was left as it is: give another name, or --force to replace it")
