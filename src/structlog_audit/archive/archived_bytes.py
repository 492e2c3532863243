"""The bytes of a segment from its rows and its quarantine: compaction verifies them, `restore` and `verify` read them."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import msgspec

from structlog_audit.archive.actions import Coverage
from structlog_audit.archive.database import Database, parquet
from structlog_audit.archive.rows import STORED_COLUMNS, columns_of, encode_line
from structlog_audit.exceptions import AuditReadError

QUARANTINE_FOLDER = "_quarantine"

_MOST_CURSORS = 16
"""The number of data files that are read side by side. More are sorted by DuckDB."""


class Gap(msgspec.Struct):
    """Bytes of a segment that are not an event: a line of ``_quarantine``.

    *offset* is their place in the segment; *number* is that of the next event, in front of which they belong.
    """

    offset: int
    number: int
    data: bytes


_encode = msgspec.json.Encoder().encode
_decode_lines = msgspec.json.Decoder(Gap).decode_lines


def encode_gap(gap: Gap) -> bytes:
    """Return *gap* as a line; its data is in Base64."""
    return _encode(gap) + b"\n"


def decode_gaps(data: bytes) -> list[Gap]:
    """Return the gaps in the content of a quarantine file."""
    return _decode_lines(data)


OnDamage = Callable[[AuditReadError | OSError], None]
"""Called with the reason why the rest of a data file cannot be read."""

_Row = Sequence[Any]
"""The number, the line or None, the columns of the line, and whether the promoted columns have its members."""


def archived_bytes(
    database: Database, locations: Sequence[str], coverage: Coverage, gaps: Iterable[Gap]
) -> Iterator[bytes]:
    """Yield the bytes that *coverage* describes, from the first to the last.

    Args:
        database: Reads the data files.
        locations: The data files that may hold rows of it.
        coverage: The range of the segment, and the numbers of its events.
        gaps: The bytes that are not events, by offset.
    """
    if coverage.first == coverage.stop_number or not locations:
        rows: Iterator[_Row] = iter(())
    elif len(locations) > _MOST_CURSORS:
        rows = _rows(database, locations, coverage, order=" ORDER BY n")
    else:
        rows = _by_number([_rows(database, [location], coverage) for location in locations])
    return _with_gaps(rows, gaps, line_of)


def provable_bytes(
    database: Database, checks: Mapping[str, str], coverage: Coverage, gaps: Iterable[Gap], on_damage: OnDamage
) -> Iterator[bytes]:
    """Yield the bytes that *coverage* describes as far as they can be read, to be compared with a seal.

    A row whose columns are not those of its line gives an empty line: what queries find is not what was sealed.

    Args:
        database: Reads the data files.
        checks: For each data file, an SQL condition that its rows meet.
        coverage: The range of the segment, and the numbers of its events.
        gaps: The bytes that are not events, by offset.
        on_damage: Takes the errors of data files, whose other rows are left out.
    """

    def readable(location: str, check: str) -> Iterator[_Row]:
        try:
            yield from _rows(database, [location], coverage, check)
        except (AuditReadError, OSError) as error:
            on_damage(error)

    return _with_gaps(_by_number([readable(*item) for item in checks.items()]), gaps, _provable_line_of)


def _rows(
    database: Database, locations: Sequence[str], coverage: Coverage, check: str = "true", order: str = ""
) -> Iterator[_Row]:
    parameters = {"trail": coverage.trail, "first": coverage.first, "stop": coverage.stop_number}
    sql = (
        f"SELECT n, line, {STORED_COLUMNS}, chain, {check} FROM {parquet(locations)} "
        f"WHERE trail = $trail AND n >= $first AND n < $stop{order}"
    )
    return database.rows(sql, parameters)


def _by_number(rows: Iterable[Iterator[_Row]]) -> Iterator[_Row]:
    return heapq.merge(*rows, key=lambda row: row[0])


def _with_gaps(rows: Iterator[_Row], gaps: Iterable[Gap], encode: Callable[[_Row], bytes]) -> Iterator[bytes]:
    """Yield the lines of *rows*, and *gaps* in their places."""
    remaining = iter(gaps)
    gap = next(remaining, None)

    # A last step without a row yields the bytes behind the last event.
    for row in chain(rows, [None]):
        while gap is not None and (row is None or gap.number <= row[0]):
            yield gap.data
            gap = next(remaining, None)
        if row is not None:
            yield encode(row)


def line_of(row: _Row) -> bytes:
    """Return the line of *row*.

    Raises:
        AuditReadError: It has none, because somebody changed it.
    """
    try:
        data: bytes = encode_line(*row[2:-1]) if row[1] is None else row[1]
    except (TypeError, ValueError, OverflowError) as error:
        raise AuditReadError(f"the row {row[0]} of the archive is not an event: {error}") from error
    return data


def _provable_line_of(row: _Row) -> bytes:
    """Return the line of *row*, or an empty one if the columns differ from it."""
    try:
        line = line_of(row)
    except AuditReadError:
        return b"\n"
    has_columns = row[1] is None or columns_of(line) == tuple(row[2:-1])
    return line if has_columns and row[-1] else b"\n"
