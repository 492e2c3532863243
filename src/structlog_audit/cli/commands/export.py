"""``export``: events in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.output_files import refusing_to_replace, require_free
from structlog_audit.cli.terminal import put_line
from structlog_audit.cli.trail_options import All, Force, Record, Since, Strict, Until, Utc, Words, request_of
from structlog_audit.exceptions import AuditValueError
from structlog_audit.export import checked_place
from structlog_audit.export import export as export_to

if TYPE_CHECKING:
    from structlog_audit.cli.reading import Reading

EXAMPLE = "export logs/audit.jsonl status=FAILURE --to failures.csv"


def export(
    to: Annotated[str, typer.Option("--to", metavar="FILE", help="The file; its suffix names the format.")],
    words: Words = None,
    since: Since = None,
    until: Until = None,
    format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="The format, if not that of the suffix.")
    ] = None,
    force: Force = False,
    utc: Utc = False,
    every_kind: All = False,
    record: Record = False,
    strict: Strict = False,
) -> int:
    """Write events to a file, whole or not at all."""
    from structlog_audit.cli.reading import read

    request = request_of(
        "export", words, since=since, until=until, in_utc=utc, every_kind=every_kind, record=record, strict=strict
    )
    if to == "-":
        raise UsageError("--to -: an export is a file; for stdout use query with -o json, jsonl or csv")
    try:
        path, format_name = checked_place(to, format)
    except AuditValueError as error:
        raise UsageError(str(error)) from None
    require_free(to, force=force)

    def write(reading: Reading) -> Exit:
        events = reading.source.iter_events(**reading.filters)
        with refusing_to_replace(to):
            count = export_to(events, path, format=format_name, now=reading.now, replace=force)
        put_line(f"{count} events in {to}")
        return Exit.DONE

    return read(request, write, quietly=True)
