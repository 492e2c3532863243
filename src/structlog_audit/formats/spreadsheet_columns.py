"""The rows of a table for many stored events at once, column by column; `spreadsheet` defines the cells.

**Guarantees.** The rows are those that Python's csv module writes for the same cells (RFC 4180).

**Performance.** Most columns are checked, encoded and quoted by a constant number of calls, whatever the number of events.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from structlog_audit.events.codec import StoredEvent, safe_json
from structlog_audit.events.event import operation_of, rfc3339

Events = Sequence[StoredEvent]
Column = Callable[[Events], Iterable[str]]
"""Returns the fields of a column, quoted where necessary."""

MakeCell = Callable[[Any], Any]
"""Returns the cell of a value: a text, a number, or None for an empty cell."""

_encode_lines = msgspec.json.Encoder().encode_lines

_NEEDS_QUOTES = re.compile('[,"\r\n]')

_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_ .:/@+-\n"
_RISKY_START = re.compile(r"\n[ .:/@+-]")
_TIMESTAMP_BYTES = len('"2025-01-15T10:30:45.123456Z"\n')


def field(cell: Any) -> str:
    """Return *cell* as a field of a row."""
    if cell is None:
        return ""

    text = cell if isinstance(cell, str) else str(cell)
    if _NEEDS_QUOTES.search(text) is None:
        return text
    doubled = text.replace('"', '""')
    return f'"{doubled}"'


def other(read: Callable[[StoredEvent], Any]) -> Column:
    """Return a column of any cells, each of which *read* returns."""
    return lambda events: [field(read(event)) for event in events]


def texts(name: str, make_cell: MakeCell, *, is_marked: bool) -> Column:
    """Return the column of a text that may be absent.

    Args:
        name: The member.
        make_cell: Returns the cell of a text.
        is_marked: Whether `make_cell` changes every text.
    """
    read = operator.attrgetter(name)

    def column(events: Events) -> list[str]:
        found = [text or "" for text in map(read, events)]
        if not any(found) or (not is_marked and _are_plain(found)):
            return found
        return [text and field(make_cell(text)) for text in found]

    return column


def words(name: str, make_cell: MakeCell) -> Column:
    """Return the column of a member with few different texts."""
    read = operator.attrgetter(name)

    def column(events: Events) -> list[str]:
        found = [text or "" for text in map(read, events)]
        if not any(found):
            return found
        cell_of = {word: field(make_cell(word)) for word in set(found)}
        return [cell_of[word] for word in found]

    return column


def operations(make_cell: MakeCell) -> Column:
    """Return the column of the operation."""
    return words("operation", lambda name: make_cell(str(operation_of(name))))


def statuses(events: Events) -> list[str]:
    """Return the column of the status."""
    return [str(event.status) for event in events]


def durations(events: Events) -> list[str]:
    """Return the column of the duration."""
    found = [event.duration_ms for event in events]
    data = _encode_lines(found)

    # Python writes very small and very large numbers in another form.
    if b"e" in data or b"0.0000" in data:
        return [field(duration) for duration in found]
    return data.replace(b"null", b"").decode().split("\n")[:-1]


def timestamps(events: Events) -> list[str]:
    """Return the column of the timestamp."""
    times = [event.timestamp for event in events]
    data = _encode_lines(times)

    # msgspec omits a fraction of zero; an offset is longer.
    if len(data) != _TIMESTAMP_BYTES * len(times) or data.count(b'Z"') != len(times):
        return [rfc3339(time) for time in times]
    return data.replace(b'"', b"").decode().split("\n")[:-1]


def containers(name: str, make_cell: MakeCell, *, is_raw: bool) -> Column:
    """Return the column of a list or an object, as JSON.

    Args:
        name: The member.
        make_cell: Returns the cell of a value.
        is_raw: Whether a semicolon needs no care.
    """
    read = operator.attrgetter(name)

    def column(events: Events) -> list[str]:
        found = list(map(read, events))
        data = safe_json(_encode_lines(found))
        if b";" in data and not is_raw:
            return [field(make_cell(value)) for value in found]

        # JSON of a list of texts or an object that is not empty has quotes, and no line breaks.
        doubled = data.decode().replace('"', '""')
        quoted = '"' + doubled.replace("\n", '"\n"')
        fields = quoted.split("\n")[:-1]
        return fields if all(found) else [text if value else "" for text, value in zip(fields, found, strict=True)]

    return column


def _are_plain(found: list[str]) -> bool:
    """Return whether no text of *found* needs quotes, and a spreadsheet changes none."""
    # An LF before each: a pattern that begins with a character is searched fast.
    joined = "\n".join(["", *found])
    if not joined.isascii() or joined.count("\n") > len(found):
        return False
    return not joined.encode().translate(None, _PLAIN) and _RISKY_START.search(joined) is None


def rows(events: Events, columns: Sequence[Column]) -> list[str]:
    """Return the rows of *events*, without line ends."""
    fields = [column(events) for column in columns]
    return list(map(",".join, zip(*fields, strict=True)))
