"""CSV tables of events, for spreadsheets and programs.

**Safe cells.** A spreadsheet evaluates a cell that begins with a formula sign (OWASP, CSV injection). It may split a line at
semicolons or tabs and ignore the quotes that only commas need. So a formula sign at the start of a cell, and one after a
character that may begin a cell or a row, gets an apostrophe in front, or in JSON the escape of the same character. Apostrophes
that stand there already get another one, so removing one from each restores the text.

**Long cells.** No cell exceeds `MAX_CELL_CHARACTERS`. The rest of a longer one follows in rows of kind ``part`` with the same
event id; the cells of a column, joined, are the whole value.
"""

from __future__ import annotations

import csv
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, Final, Literal, TypeGuard

import msgspec

from structlog_audit.events.characters import (
    BIDIRECTIONAL,
    INVISIBLE_FORMATTING,
    JOINERS,
    SEPARATORS,
    ZERO_WIDTH,
)
from structlog_audit.events.codec import StoredEvent, safe_json, to_json
from structlog_audit.events.event import AuditEvent, Kind, rfc3339
from structlog_audit.events.event_lists import EventList
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.formats import spreadsheet_columns

COLUMNS: Final = AuditEvent.__struct_fields__
"""The columns of a table, unless others are selected."""

Cells = Literal["safe", "text", "raw"]
"""How texts are written: safe from formulas; also safe from conversion to numbers and dates; unchanged, for programs only."""

CELLS: Final[tuple[Cells, ...]] = ("safe", "text", "raw")

MAX_CELL_CHARACTERS: Final = 32_000
"""The limit of a cell in UTF-16 code units: Excel takes 32,767 of them, Python's csv module 131,072 characters."""

_LINE_END = "\r\n"
METADATA: Final = "metadata."
"""The beginning of the name of a column of one value in the metadata."""

_FIXED_FORM = frozenset(("timestamp", "status", "kind", "duration_ms"))
"""The columns without text of the application. No spreadsheet changes them."""

_WORDS = frozenset(("operation", "status"))
"""The columns whose values are members of an Enum, or text in an event that an application made."""

_EXACT_INTEGERS_END = 10**15
"""The first integer whose digits a spreadsheet does not all keep."""

_SIGNS = "=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"
"""The signs that begin a formula, with their full-width and small forms."""

_CONTROL_BREAKS = f"\t-\r\x1c-\x1e\x85{SEPARATORS}"
_BREAKS = f"{_CONTROL_BREAKS};"
"""The characters at which a program may begin a new cell or row."""

_SPACES = "\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_INVISIBLE = f"{BIDIRECTIONAL}{INVISIBLE_FORMATTING}{JOINERS}{ZERO_WIDTH}"
_SKIPPED = f"\x00-\x08\x0e-\x1b\x1f \x7f-\x84\x86-\x9f{_SPACES}{_INVISIBLE}'\""
"""The characters that a program may remove from the start of a cell. They contain no break, so that matching is linear."""

# A text that begins with a tab or a line break is escaped, too (OWASP).
_STARTS_FORMULA = re.compile(f"[{_SKIPPED}{_CONTROL_BREAKS}]*[{_SIGNS}]|'*[\t\r\n]")
_INNER_FORMULA = re.compile(f"(?<=[{_BREAKS}])(?=[{_SKIPPED}]*[{_SIGNS}])")
_FORMULA_IN_JSON = re.compile(f"(?<=[{_BREAKS}])([{_SKIPPED}]*)([{_SIGNS}])")
_HARMLESS = re.compile("[A-Za-z0-9_][A-Za-z0-9_ .,:/@+-]*")
"""Texts that no spreadsheet changes, for nearly all cells: the other patterns take much longer."""

_RISKY_START = re.compile(f"[{_SIGNS}{_SKIPPED}{_BREAKS}]")


def checked_columns(columns: Sequence[str] | None) -> tuple[str, ...]:
    """Return *columns*, or `COLUMNS` for None.

    Raises:
        AuditTypeError: *columns* is not a sequence of names.
        AuditValueError: A name is unknown or occurs twice, or there is none.
    """
    if columns is None:
        return COLUMNS
    if isinstance(columns, (str, bytes)) or not isinstance(columns, Sequence):
        raise AuditTypeError(f"columns={columns!r}: expected a list of names, got {type(columns).__name__}")
    if not columns:
        raise AuditValueError(f"columns={columns!r}: expected at least one name")

    for name in columns:
        if not isinstance(name, str) or not (name in COLUMNS or name.startswith(METADATA)):
            known = ", ".join(COLUMNS)
            raise AuditValueError(f"columns: expected {known} or metadata.KEY, got {name!r}")
        if list(columns).count(name) > 1:
            raise AuditValueError(f"columns: expected each name once, got {name!r} twice")
    return tuple(columns)


def checked_cells(cells: Cells) -> Cells:
    """Return *cells* if it is one of `CELLS`; otherwise raise an `AuditValueError`."""
    if cells not in CELLS:
        raise AuditValueError(f"cells={cells!r}: expected one of {', '.join(CELLS)}")
    return cells


def table(
    lists: Iterable[Sequence[AuditEvent | StoredEvent]], columns: Sequence[str] = COLUMNS, cells: Cells = "safe"
) -> Iterator[bytes]:
    """Yield the header and the rows of a CSV table, in UTF-8.

    Args:
        lists: The events, in lists; the rows of a list come at once.
        columns: The columns in their order, as `checked_columns` returns them.
        cells: How texts are written.

    Raises:
        AuditValueError: An event needs further rows, and *columns* lacks the two that mark them.
    """
    write: Callable[[Iterable[Any]], str] = csv.writer(_Echo(), lineterminator=_LINE_END).writerow
    header = [safe_cell(name) for name in columns]
    yield _encoded(write(header))

    row_by_row = _RowByRow(columns, cells, write)
    by_columns = [_column(name, cells) for name in columns]
    for events in lists:
        rows = _rows_by_columns(events, by_columns)
        if rows is None:
            yield from map(_encoded, map(row_by_row, events))
        elif rows:
            yield _encoded(_LINE_END.join([*rows, ""]))

        # Not kept while the next ones are decoded, which reuses their memory.
        del events, rows


def _rows_by_columns(
    events: Sequence[AuditEvent | StoredEvent], columns: Sequence[spreadsheet_columns.Column]
) -> list[str] | None:
    """Return the rows of *events*; None if they have to be made one by one."""
    # The csv module quotes a single empty cell. An event that an application made may hold any value.
    if len(columns) == 1 or not _are_stored(events):
        return None

    try:
        rows = spreadsheet_columns.rows(events, columns)
    except RecursionError:
        return None

    # No cell of a short row is long.
    longest = max(map(len, rows), default=0)
    return rows if longest <= MAX_CELL_CHARACTERS // 2 else None


def _are_stored(events: Sequence[AuditEvent | StoredEvent]) -> TypeGuard[Sequence[StoredEvent]]:
    return isinstance(events, EventList) or all(isinstance(event, StoredEvent) for event in events)


class _RowByRow:
    """Makes the rows of one event at a time."""

    def __init__(self, columns: Sequence[str], cells: Cells, write: Callable[[Iterable[Any]], str]) -> None:
        self._columns = columns
        self._cells = cells
        self._write = write
        self._readers = [_reader(name, cells, _cell) for name in columns]
        self._readers_of_stored = [_reader(name, cells, _stored_cell) for name in columns]
        self._has_paths = any(name.startswith(METADATA) for name in columns)

    def __call__(self, event: AuditEvent | StoredEvent) -> str:
        """Return the row of *event*, and those of its long cells."""
        if isinstance(event, StoredEvent):
            source = event.event()
            row = [read(source) for read in self._readers_of_stored]
        else:
            source = _with_plain_metadata(event) if self._has_paths else event
            row = [read(source) for read in self._readers]
        text = self._write(row)

        # No cell of a short row is long.
        if len(text) > MAX_CELL_CHARACTERS // 2:
            parts = _rows_of_parts(row, self._columns, self._cells)
            text = "".join([self._write(one) for one in parts])
        return text


class _Echo:
    """A file whose ``write`` returns the text, so that a writer of rows returns each of them."""

    def write(self, text: str) -> str:
        return text


def safe_cell(value: str | float | None) -> str | float | None:
    """Return *value* as it is, or a text so that no spreadsheet evaluates it or a part of it as a formula. O(characters)."""
    return _text_cell(value, "safe") if isinstance(value, str) else value


def _encoded(row: str) -> bytes:
    # An event that an application made may contain lone surrogates.
    return row.encode("utf-8", "backslashreplace")


def _text_cell(text: str, cells: Cells) -> str:
    if cells == "raw" or (cells == "safe" and _HARMLESS.fullmatch(text)):
        return text

    inner = _INNER_FORMULA.sub("'", text)
    is_escaped = (cells == "text" and text) or _STARTS_FORMULA.match(text)
    return f"'{inner}" if is_escaped else inner


def _json_cell(text: str, cells: Cells) -> str:
    """Return the cell with the JSON *text*."""
    # Of the characters at which a cell may begin, JSON escapes all but one itself.
    if cells == "raw" or ";" not in text:
        return text

    # Compact JSON has these characters in its strings only, where an escape means the same.
    return _FORMULA_IN_JSON.sub(lambda found: f"{found[1]}\\u{ord(found[2]):04x}", text)


def _with_plain_metadata(event: AuditEvent) -> AuditEvent:
    """Return *event* with the metadata of its JSON: one that an application made may hold any value."""
    return msgspec.structs.replace(event, metadata=msgspec.json.decode(to_json(event.metadata)))


def _reader(name: str, cells: Cells, make_cell: Callable[[Any, Cells], Any]) -> Callable[[AuditEvent], Any]:
    """Return the function that reads the cell of the column *name*, which *make_cell* makes of its value, from an event."""
    if name.startswith(METADATA):
        path = name.removeprefix(METADATA)
        return lambda event: make_cell(value_at(event.metadata, path), cells)

    # These need no further apostrophe.
    form: Cells = "safe" if cells == "text" and name in _FIXED_FORM else cells
    read = operator.attrgetter(name)
    if name == "timestamp":
        return lambda event: rfc3339(event.timestamp)
    if name in _WORDS:
        return lambda event: _text_cell(str(read(event)), form)
    return lambda event: make_cell(read(event), form)


def _column(name: str, cells: Cells) -> spreadsheet_columns.Column:
    """Return the column *name* of many stored events: the cells of `_reader`."""
    if name.startswith(METADATA):
        path = name.removeprefix(METADATA)
        return spreadsheet_columns.other(lambda event: _stored_cell(value_at(event.metadata, path), cells))

    def make_cell(value: Any) -> Any:
        return _stored_cell(value, cells)

    if name == "operation":
        return spreadsheet_columns.operations(make_cell)
    if name in ("entry_ids", "metadata"):
        return spreadsheet_columns.containers(name, make_cell, is_raw=cells == "raw")
    return _FIXED_COLUMNS.get(name) or spreadsheet_columns.texts(name, make_cell, is_marked=cells == "text")


_FIXED_COLUMNS: Final[Mapping[str, spreadsheet_columns.Column]] = {
    "timestamp": spreadsheet_columns.timestamps,
    "status": spreadsheet_columns.statuses,
    "duration_ms": spreadsheet_columns.durations,
    "kind": spreadsheet_columns.words("kind", str),
}
"""The columns in `_FIXED_FORM`."""


def _cell(value: Any, cells: Cells) -> Any:
    """Return the cell of any value."""
    if value is None:
        return None
    if isinstance(value, str):
        return _text_cell(value, cells)
    if isinstance(value, (dict, list)):
        return _json_cell(to_json(value), cells) if value else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if cells == "text" and isinstance(value, int) and abs(value) >= _EXACT_INTEGERS_END:
        return f"'{value}"
    return value


def _stored_cell(value: Any, cells: Cells) -> Any:
    """Return the cell of a value of a stored event, which is plain JSON already."""
    if not isinstance(value, (dict, list)):
        return _cell(value, cells)
    if not value:
        return None

    try:
        text = safe_json(msgspec.json.encode(value)).decode()
    except RecursionError:
        text = to_json(value)
    return _json_cell(text, cells)


def value_at(members: Mapping[str, Any], path: str) -> Any:
    """Return the value at *path* in the metadata *members*, or None. A key may contain dots itself."""
    if path in members:
        return members[path]

    for key, inner in members.items():
        if isinstance(inner, dict) and path.startswith(f"{key}."):
            found = value_at(inner, path[len(key) + 1 :])
            if found is not None:
                return found
    return None


def _rows_of_parts(row: Sequence[Any], columns: Sequence[str], cells: Cells) -> Iterator[list[Any]]:
    """Yield *row* with the beginning of each long cell, then the rows of kind ``part`` with the rest."""
    pieces = [_pieces(cell, cells) if isinstance(cell, str) else [cell] for cell in row]
    count = max(map(len, pieces))
    if count == 1:
        yield list(row)
        return

    if "event_id" not in columns or "kind" not in columns:
        longest = max(len(cell) for cell in row if isinstance(cell, str))
        raise AuditValueError(
            f"columns: a cell of {longest} characters needs rows of kind 'part'; add event_id and kind to the columns"
        )

    first, *parts = zip_longest(*pieces)
    yield list(first)

    id_column = columns.index("event_id")
    kind_column = columns.index("kind")
    for part in map(list, parts):
        part[id_column] = part[id_column] or first[id_column]
        part[kind_column] = Kind.PART.value
        yield part


def _pieces(cell: str, cells: Cells) -> list[str]:
    """Return *cell* in pieces that are not too long. O(characters)."""
    # A character beyond U+FFFF is two code units.
    limit = MAX_CELL_CHARACTERS if max(cell, default="") <= "\uffff" else MAX_CELL_CHARACTERS // 2

    pieces: list[str] = []
    start = 0
    while start < len(cell) or not pieces:
        end = _end_of_piece(cell, start, limit)
        piece = cell[start:end]
        # Only a run of signs that fills a whole piece leaves no better place to cut.
        is_risky = start and cells != "raw" and _STARTS_FORMULA.match(piece)
        pieces.append(f"'{piece}" if is_risky else piece)
        start = end
    return pieces


def _end_of_piece(cell: str, start: int, limit: int) -> int:
    """Return where the piece from *start* ends: if possible, where the next one does not begin as a formula may."""
    most = start + limit
    if most >= len(cell):
        return len(cell)

    for end in range(most, start, -1):
        if not _RISKY_START.match(cell, end):
            return end
    return most
