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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from rich.cells import cell_len, set_cell_size

from structlog_audit.cli.choices import Output
from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.cli.tables import NOTHING, clean_rows, quoted, time_text
from structlog_audit.cli.terminal import clean, has_colours, is_terminal, put, width
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import AuditEvent, EventStatus
from structlog_audit.events.event_lists import lists_of
from structlog_audit.exceptions import AuditValueError
from structlog_audit.export import CHUNK, WRITERS
from structlog_audit.query.field_tests import text_of

_SAMPLE = 50
"""The number of events that determine the widths of the columns."""

_HEAD = ("TIME", "OPERATION", "STATUS", "USER", "DETAILS")
_LEAST_WIDTHS = (24, 9, 7, 8)
"""The least widths of the columns before the details."""

_GREATEST_WIDTH = 29
"""The width of a time with its offset. A longer operation or user shifts its line."""

_GREATEST_WIDTH_OF_NAMED = 40
"""An id of an event has 36 characters."""

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
    columns: Sequence[str] | None = None,
    first: int | None = None,
    at_once: bool = False,
) -> int:
    """Write *events* to stdout as they arrive, and return their number.

    Args:
        events: The events, taken one by one.
        output: The output format.
        now: The time of a document.
        zone: The zone in which a table shows times; None is local time.
        columns: The names of the columns of ``text`` or ``csv``; None stands for all.
        first: The number of events that arrive without waiting, if each one is to be visible at once.
        at_once: Whether events may arrive slowly, so that none waits for others.

    Raises:
        UsageError: An event does not fit into *columns*.
    """
    count = 0
    is_live = first is not None

    def counted() -> Iterator[Sequence[StoredEvent]]:
        nonlocal count
        for some in lists_of(events, 1 if is_live or at_once else CHUNK):
            count += len(some)
            yield some

            # Not kept while the next ones are decoded, which reuses their memory.
            del some

    chunks: Iterable[str | bytes]
    if output == "text":
        sample = min(_SAMPLE, first or 1) if is_live else _SAMPLE
        stored_events = chain.from_iterable(counted())
        form = _form(zone) if columns is None else _form_of_columns(columns, zone)
        chunks = _table((stored.event() for stored in stored_events), form, sample)
    else:
        written = WRITERS[output](counted(), now) if columns is None else _sheet(counted(), columns)
        is_sheet = output == "csv" and is_terminal()
        chunks = (clean_rows(chunk.decode()) for chunk in written) if is_sheet else written

    try:
        for chunk in chunks:
            put(chunk)
            if is_live:
                sys.stdout.flush()
    except AuditValueError as error:
        if columns is None:
            raise
        raise UsageError(f"--{error}") from None
    return count


def _sheet(lists: Iterable[Sequence[StoredEvent]], columns: Sequence[str]) -> Iterator[bytes]:
    # Imported lazily: only needed for CSV.
    from structlog_audit.formats.spreadsheet import table

    return table(lists, columns)


@dataclass(frozen=True, slots=True)
class _Form:
    """The form of a table.

    Attributes:
        head: The names of the columns.
        row: Returns the cells of an event, clean.
        least: The least widths of all columns but the last, which needs none.
        greatest: The width beyond which a column is not widened, unless its least width is greater.
        has_details: Whether the last column has a line of its own in a narrow terminal.
    """

    head: Row
    row: Callable[[AuditEvent], Row]
    least: tuple[int, ...]
    greatest: int
    has_details: bool


def _form(zone: dt.tzinfo | None) -> _Form:
    return _Form(
        _HEAD,
        row=lambda event: _row(event, zone),
        least=_LEAST_WIDTHS,
        greatest=_GREATEST_WIDTH,
        has_details=True,
    )


def _form_of_columns(names: Sequence[str], zone: dt.tzinfo | None) -> _Form:
    from structlog_audit.cli.columns import cell_reader

    readers = [cell_reader(name, zone) for name in names]
    return _Form(
        tuple(map(clean, names)),
        row=lambda event: tuple(read(event) for read in readers),
        least=tuple(cell_len(clean(name)) for name in names[:-1]),
        greatest=_GREATEST_WIDTH_OF_NAMED,
        has_details=False,
    )


def _table(events: Iterator[AuditEvent], form: _Form, sample: int) -> Iterator[str]:
    """Yield the lines of a table, its head first; no line without events. *sample* events determine the widths."""
    beginning = list(islice(events, sample))
    if not beginning:
        return

    columns = width()
    is_narrow = form.has_details and columns is not None and columns < _NARROW
    has_colour = has_colours()
    rows = [form.row(event) for event in beginning]
    widths = _widths(form, rows)

    # In a narrow terminal the details have a line of their own.
    head = (*form.head[:-1], "") if is_narrow else form.head
    for line in _lines(head, widths, columns, is_narrow):
        yield f"{line}\n"

    first = zip(beginning, rows, strict=True)
    remaining = ((event, form.row(event)) for event in events)
    for event, row in chain(first, remaining):
        colour = _COLOURS.get(event.status) if has_colour else None
        for line in _lines(row, widths, columns, is_narrow):
            yield f"{_coloured(line, colour)}\n"


def _coloured(line: str, colour: str | None) -> str:
    return line if colour is None else f"\x1b[{colour}m{line}\x1b[0m"


def _widths(form: _Form, rows: list[Row]) -> list[int]:
    """Return the widths of all columns but the last."""
    widths = []
    for number, least in enumerate(form.least):
        widest = max(cell_len(row[number]) for row in rows)
        needed = min(widest, form.greatest)
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
