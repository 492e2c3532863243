"""The bytes of a segment from its rows and its quarantine: what compaction verifies, and what `restore` and `verify` read."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from structlog_audit.archive.actions import Coverage
from structlog_audit.archive.database import Database, parquet
from structlog_audit.archive.rows import STORED_COLUMNS, encode_line

QUARANTINE_FOLDER = "_quarantine"

_MOST_CURSORS = 16
"""The number of data files that are read side by side. More are sorted by DuckDB."""


class Gap(msgspec.Struct):
    """Bytes of a segment that are not an event: a line of ``_quarantine``, with the offset in the segment."""

    offset: int
    data: bytes


_encode = msgspec.json.Encoder().encode
_decode_lines = msgspec.json.Decoder(Gap).decode_lines


def encode_gap(gap: Gap) -> bytes:
    """Return *gap* as a line; its data is in Base64."""
    return _encode(gap) + b"\n"


def decode_gaps(data: bytes) -> list[Gap]:
    """Return the gaps in the content of a quarantine file."""
    return _decode_lines(data)


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
    offset = coverage.start
    remaining = iter(gaps)
    gap = next(remaining, None)

    # A last step without a row yields what follows the last event.
    for row in chain(_rows(database, locations, coverage), [None]):
        while gap is not None and (row is None or gap.offset == offset):
            yield gap.data
            offset += len(gap.data)
            gap = next(remaining, None)
        if row is not None:
            line = row[1]
            data: bytes = encode_line(*row[2:]) if line is None else line
            yield data
            offset += len(data)


def _rows(database: Database, locations: Sequence[str], coverage: Coverage) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of *coverage* by number."""
    if coverage.first == coverage.stop_number or not locations:
        return iter(())

    parameters = {"trail": coverage.trail, "first": coverage.first, "stop": coverage.stop_number}
    condition = "trail = $trail AND n >= $first AND n < $stop"

    def query(names: Sequence[str], order: str = "") -> Iterator[tuple[Any, ...]]:
        sql = f"SELECT n, line, {STORED_COLUMNS}, chain FROM {parquet(names)} WHERE {condition}{order}"
        return database.rows(sql, parameters)

    if len(locations) > _MOST_CURSORS:
        return query(locations, " ORDER BY n")

    return heapq.merge(*(query([location]) for location in locations), key=lambda row: row[0])
