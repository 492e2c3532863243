"""Events on stdout.

=========  ============================================================================================================
output     what it is
=========  ============================================================================================================
``table``  for people: time, operation, status, user, and everything else as NAME=value; two lines in a narrow terminal
``json``   one document, as an export has it
``jsonl``  the lines of a trail
``csv``    a table for spreadsheets, as an export has it
=========  ============================================================================================================

Rules:

* Events are written as they come: memory does not grow with their number. So a table takes the widths of its columns from its
  first events, and later ones may push a line to the right.
* Times in a table are local, with their offset, or UTC with ``--utc``; each can be given to ``--since`` as it stands. The
  other outputs are for machines, and always in UTC.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from rich.cells import cell_len, set_cell_size

from structlog_audit.cli.conditions import text_of
from structlog_audit.cli.options import Output
from structlog_audit.cli.tables import clean_rows, quoted, time_text
from structlog_audit.cli.terminal import clean, has_colours, is_terminal, put, width
from structlog_audit.events.event import AuditEvent, EventStatus
from structlog_audit.export import FORMATS

_FIRST = 50
"""Events that the widths of the columns are taken from."""

_HEAD = ("TIME", "OPERATION", "STATUS", "USER", "DETAILS")
_LEAST, _WIDEST = (9, 7, 8), 24
_NARROW = 90
_COLOURS = {EventStatus.FAILURE: "31", EventStatus.PARTIAL: "33"}


def put_events(
    events: Iterable[AuditEvent], output: Output, now: dt.datetime, *, in_utc: bool, first: int | None = None
) -> int:
    """Write *events* to stdout as they come; how many.

    Args:
        events: Taken one by one.
        output: How.
        now: The time that the document is made.
        in_utc: Whether a table has its times in UTC.
        first: If each event is to be seen at once: how many come without waiting.
    """
    count = 0
    live = first is not None

    def counted() -> Iterator[AuditEvent]:
        nonlocal count
        for event in events:
            count += 1
            yield event

    chunks: Iterable[str | bytes]
    if output == Output.TABLE:
        chunks = _table(counted(), in_utc, min(_FIRST, first or 1) if live else _FIRST)
    elif output == Output.CSV and is_terminal():
        chunks = (clean_rows(chunk.decode()) for chunk in FORMATS[output](counted(), now))
    else:
        chunks = FORMATS[output](counted(), now)
    for chunk in chunks:
        put(chunk)
        if live:
            sys.stdout.flush()
    return count


def _table(events: Iterator[AuditEvent], in_utc: bool, first: int) -> Iterator[str]:
    """The lines of a table, its head first, with widths for the *first* events. Nothing at all without events."""
    beginning = list(islice(events, max(1, first)))
    if not beginning:
        return
    columns, colours = width(), has_colours()
    rows = [_row(event, in_utc) for event in beginning]
    widths = [
        max(least, min(_WIDEST, max(cell_len(row[number]) for row in rows)))
        for number, least in enumerate((len(rows[0][0]), *_LEAST))
    ]
    head = _HEAD if columns is None or columns >= _NARROW else (*_HEAD[:-1], "")
    yield from (f"{line}\n" for line in _lines(head, widths, columns))
    for event, row in chain(zip(beginning, rows, strict=True), ((event, _row(event, in_utc)) for event in events)):
        colour = _COLOURS.get(event.status) if colours else None
        for line in _lines(row, widths, columns):
            yield f"\x1b[{colour}m{line}\x1b[0m\n" if colour else f"{line}\n"


def _row(event: AuditEvent, in_utc: bool) -> tuple[str, ...]:
    time = time_text(event.timestamp, in_utc=in_utc)
    user = "-" if event.user_id is None else quoted(event.user_id)
    return time, clean(event.operation.value), event.status.value, clean(user), clean(" ".join(_details(event)))


def _details(event: AuditEvent) -> Iterator[str]:
    """What the other columns do not say, as NAME=value."""
    if event.kind is not None:
        yield f"kind={event.kind}"
    if event.error_message is not None:
        yield f"error={quoted(event.error_message)}"
    if event.entry_ids:
        yield f"entries={','.join(map(quoted, event.entry_ids[:5]))}{'…' if len(event.entry_ids) > 5 else ''}"
    if event.duration_ms is not None:
        yield f"ms={event.duration_ms:.6g}"
    if event.session_id is not None:
        yield f"session={quoted(event.session_id)}"
    for key, value in event.metadata.items():
        yield f"{quoted(key)}={quoted(text_of(value))}"


def _lines(cells: tuple[str, ...], widths: list[int], columns: int | None) -> Iterator[str]:
    """One line, or in a narrow terminal two: the details below the rest."""
    padded = [cell + " " * (wide - cell_len(cell)) for cell, wide in zip(cells, widths, strict=False)]
    if columns is None or columns >= _NARROW:
        yield _cut("  ".join([*padded, cells[-1]]), columns)
    else:
        yield _cut("  ".join(padded), columns)
        if cells[-1]:
            yield _cut(f"    {cells[-1]}", columns)


def _cut(line: str, columns: int | None) -> str:
    line = line.rstrip()
    return line if columns is None or cell_len(line) <= columns else f"{set_cell_size(line, columns - 1)}…"
