"""Events on stdout.

=========  ===========================================================================================================
output     content
=========  ===========================================================================================================
``text``   for people: time, operation, status, user, and everything else as NAME=value; two lines in a narrow terminal
``json``   one document, as an export has it
``jsonl``  the lines of a trail
``csv``    a table for spreadsheets, as an export has it
=========  ===========================================================================================================

Events are written as they arrive, in constant memory. A table therefore takes the widths of its columns from its first
events, and later ones may shift a line to the right. Its times are local with their offset, or UTC with ``--utc``; ``--since``
accepts both. The other outputs are for programs and always use UTC.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice

from rich.cells import cell_len, set_cell_size

from structlog_audit.cli.choices import Output
from structlog_audit.cli.conditions import text_of
from structlog_audit.cli.tables import NOTHING, clean_rows, quoted, time_text
from structlog_audit.cli.terminal import clean, has_colours, is_terminal, put, width
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import AuditEvent, EventStatus
from structlog_audit.export import WRITERS

_SAMPLE = 50
"""The number of events that determine the widths of the columns."""

_HEAD = ("TIME", "OPERATION", "STATUS", "USER", "DETAILS")
_LEAST_WIDTHS = (9, 7, 8)
"""The least widths of the columns between time and details."""

_GREATEST_WIDTH = 24
_NARROW = 90
"""The columns of a terminal below which an event takes two lines."""

_MOST_ENTRIES = 5
_COLOURS = {EventStatus.FAILURE: "31", EventStatus.PARTIAL: "33"}

Row = tuple[str, ...]


def put_events(
    events: Iterable[StoredEvent],
    output: Output,
    now: dt.datetime,
    *,
    zone: dt.tzinfo | None,
    first: int | None = None,
    at_once: bool = False,
) -> int:
    """Write *events* to stdout as they arrive, and return their number.

    Args:
        events: The events, taken one by one.
        output: The output format.
        now: The time of a document.
        zone: The zone in which a table shows times; None is local time.
        first: The number of events that arrive without waiting, if each one is to be visible at once.
        at_once: Whether events may arrive slowly, so that none waits for others.
    """
    count = 0
    is_live = first is not None

    def counted() -> Iterator[StoredEvent]:
        nonlocal count
        for event in events:
            count += 1
            yield event

    chunks: Iterable[str | bytes]
    if output == "text":
        sample = min(_SAMPLE, first or 1) if is_live else _SAMPLE
        chunks = _table((stored.event() for stored in counted()), zone, sample)
    elif output == "csv" and is_terminal():
        chunks = (clean_rows(chunk.decode()) for chunk in WRITERS[output](counted(), now, is_live or at_once))
    else:
        chunks = WRITERS[output](counted(), now, is_live or at_once)

    for chunk in chunks:
        put(chunk)
        if is_live:
            sys.stdout.flush()
    return count


def _table(events: Iterator[AuditEvent], zone: dt.tzinfo | None, sample: int) -> Iterator[str]:
    """Yield the lines of a table, its head first; no line without events. *sample* events determine the widths."""
    beginning = list(islice(events, sample))
    if not beginning:
        return

    columns = width()
    is_narrow = columns is not None and columns < _NARROW
    has_colour = has_colours()
    rows = [_row(event, zone) for event in beginning]
    widths = _widths(rows)

    # In a narrow terminal the details have a line of their own.
    head = (*_HEAD[:-1], "") if is_narrow else _HEAD
    for line in _lines(head, widths, columns, is_narrow):
        yield f"{line}\n"

    first = zip(beginning, rows, strict=True)
    remaining = ((event, _row(event, zone)) for event in events)
    for event, row in chain(first, remaining):
        colour = _COLOURS.get(event.status) if has_colour else None
        for line in _lines(row, widths, columns, is_narrow):
            yield f"{_coloured(line, colour)}\n"


def _coloured(line: str, colour: str | None) -> str:
    return line if colour is None else f"\x1b[{colour}m{line}\x1b[0m"


def _widths(rows: list[Row]) -> list[int]:
    """Return the widths of all columns but the details."""
    # All times have the same width.
    widths = [len(rows[0][0])]
    for number, least in enumerate(_LEAST_WIDTHS, start=1):
        widest = max(cell_len(row[number]) for row in rows)
        needed = min(widest, _GREATEST_WIDTH)
        widths.append(max(least, needed))
    return widths


def _row(event: AuditEvent, zone: dt.tzinfo | None) -> Row:
    time = time_text(event.timestamp, zone=zone)
    operation = event.operation.value
    user = NOTHING if event.user_id is None else quoted(event.user_id)
    details = " ".join(_details(event))

    return (
        time,
        clean(operation),
        event.status.value,
        clean(user),
        clean(details),
    )


def _details(event: AuditEvent) -> Iterator[str]:
    """Yield the fields that have no column, as NAME=value."""
    if event.kind is not None:
        yield f"kind={event.kind}"
    if event.error_message is not None:
        yield f"error={quoted(event.error_message)}"
    if event.entry_ids:
        entries = ",".join(map(quoted, event.entry_ids[:_MOST_ENTRIES]))
        more = "…" if len(event.entry_ids) > _MOST_ENTRIES else ""
        yield f"entries={entries}{more}"
    if event.duration_ms is not None:
        yield f"ms={event.duration_ms:.6g}"
    if event.session_id is not None:
        yield f"session={quoted(event.session_id)}"

    for key, value in event.metadata.items():
        text = quoted(text_of(value))
        yield f"{quoted(key)}={text}"


def _lines(cells: Row, widths: list[int], columns: int | None, is_narrow: bool) -> list[str]:
    """Return one line, or in a narrow terminal two: the details below the rest."""
    padded = []
    for cell, column in zip(cells, widths, strict=False):
        missing = column - cell_len(cell)
        padded.append(cell + " " * missing)
    details = cells[-1]

    if not is_narrow:
        return [_cut("  ".join([*padded, details]), columns)]
    lines = [_cut("  ".join(padded), columns)]
    if details:
        lines.append(_cut(f"    {details}", columns))
    return lines


def _cut(line: str, columns: int | None) -> str:
    line = line.rstrip()
    if columns is None or cell_len(line) <= columns:
        return line
    return f"{set_cell_size(line, columns - 1)}…"
