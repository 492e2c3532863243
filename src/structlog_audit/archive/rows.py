"""The rows of an archive: the contents of each column, and the exact line of each row.

**Guarantees.** A row encodes to the bytes of its event in the segment; where it would not, the column ``line`` holds them.
Nothing is decided by DuckDB: it only stores columns. ``metadata`` is canonical JSON, as the library writes it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec

from structlog_audit.events.codec import StoredEvent, safe_json, to_json
from structlog_audit.events.event import EventStatus
from structlog_audit.query.filters import microseconds
from structlog_audit.trail.reading.decoder import Batch, Line, LineDecoder
from structlog_audit.trail.reading.line_blocks import LineBlock, is_part

COLUMNS = (
    ("event_id", "string"),
    ("timestamp", "timestamp"),
    ("operation", "string"),
    ("user_id", "string"),
    ("session_id", "string"),
    ("entry_ids", "[string]"),
    ("metadata", "string"),
    ("status", "string"),
    ("error_message", "string"),
    ("duration_ms", "double"),
    ("kind", "string"),
    ("chain", "string"),
    ("trail", "string"),
    ("n", "long"),
    ("late_us", "long"),
    ("line", "binary"),
)
"""The columns of a data file with their types in Delta; promoted columns follow."""

_NO_METADATA = msgspec.Raw(b"")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_STATUSES = {status.value: status for status in EventStatus}


class Row(msgspec.Struct, omit_defaults=True, gc=False):
    """A row as DuckDB reads it from a line of JSON.

    *us* is the timestamp in microseconds since 1970, *n* the number of the event in its trail, *late_us* how much earlier the
    event is than the latest one before it. *line* is encoded in Base64.
    """

    event_id: str
    us: int
    operation: str
    user_id: str | None
    session_id: str | None
    entry_ids: list[str] | None
    metadata: str | None
    status: str
    error_message: str | None
    duration_ms: float | None
    kind: str | None
    chain: str | None
    n: int
    late_us: int
    line: bytes | None


SPOOL_COLUMNS = """{event_id: 'VARCHAR', us: 'BIGINT', operation: 'VARCHAR', user_id: 'VARCHAR', session_id: 'VARCHAR',
    entry_ids: 'VARCHAR[]', metadata: 'VARCHAR', status: 'VARCHAR', error_message: 'VARCHAR', duration_ms: 'DOUBLE',
    kind: 'VARCHAR', chain: 'VARCHAR', n: 'BIGINT', late_us: 'BIGINT', line: 'VARCHAR'}"""
"""The types of the members of `Row` for DuckDB's ``read_json``."""

FETCHED_COLUMNS = (
    "event_id, {us}, operation, user_id, session_id, entry_ids, metadata, status, error_message, duration_ms, kind"
)
"""The columns that make a `StoredEvent` of a row; ``{us}`` is the timestamp in microseconds, as the database writes it."""

STORED_COLUMNS = FETCHED_COLUMNS.format(us="epoch_us(timestamp)")
"""The same for DuckDB; a line needs ``chain`` as well."""


class _Members(msgspec.Struct, omit_defaults=True, gc=False):
    """The members of a line after its time, in their order. Absent ones are omitted; the metadata is JSON already."""

    operation: str
    user_id: str | None = None
    session_id: str | None = None
    entry_ids: list[str] = []
    metadata: msgspec.Raw = _NO_METADATA
    status: str | None = None
    error_message: str | None = None
    duration_ms: float | None = None
    kind: str | None = None
    chain: str | None = None


_encode = msgspec.json.Encoder().encode
_decode_metadata = msgspec.json.Decoder(dict[str, Any]).decode


def encode_line(
    event_id: str,
    us: int,
    operation: str,
    user_id: str | None,
    session_id: str | None,
    entry_ids: list[str] | None,
    metadata: str | None,
    status: str,
    error_message: str | None,
    duration_ms: float | None,
    kind: str | None,
    chain: str | None,
) -> bytes:
    """Return the line, with its LF, of a row with these columns."""
    members = _Members(
        operation,
        user_id,
        session_id,
        entry_ids or [],
        _NO_METADATA if metadata is None else msgspec.Raw(metadata.encode()),
        status,
        error_message,
        duration_ms,
        kind,
        chain,
    )
    head = b'{"event_id":%b,"timestamp":"%b",' % (_encode(event_id), timestamp_text(us))
    line = head + _encode(members)[1:]
    return safe_json(line) + b"\n"


def time_of(us: int) -> dt.datetime:
    """Return the time that is *us* microseconds after 1970, in UTC."""
    return _EPOCH + dt.timedelta(microseconds=us)


def timestamp_text(us: int) -> bytes:
    """Return a time in microseconds since 1970 as lines have it."""
    text = time_of(us).isoformat(timespec="microseconds")
    return text[:26].encode() + b"Z"


def stored_event(columns: Sequence[Any]) -> StoredEvent:
    """Return the event of a row; *columns* are `FETCHED_COLUMNS`."""
    event_id, us, operation, user_id, session_id, entry_ids, metadata, status, error_message, duration_ms, kind = (
        columns
    )
    return StoredEvent(
        event_id,
        _EPOCH + dt.timedelta(microseconds=us),
        operation,
        user_id,
        session_id,
        entry_ids or [],
        {} if metadata is None else _decode_metadata(metadata),
        _STATUSES[status],
        error_message,
        duration_ms,
        kind,
    )


class EventBytes(msgspec.Struct, gc=False):
    """An event, where its bytes are in the segment, and the columns that are expensive to find."""

    event: Line
    start: int
    stop: int
    us: int
    metadata: str | None
    line: bytes | None
    """The bytes, if the row does not encode to them."""


def events_in(batch: Batch, size: int) -> list[EventBytes]:
    """Return the events of *batch* with their bytes, in order.

    The bytes of an event reach from its first line to its last part, up to *size*, the end of the file: the scanner adds an LF
    that the file lacks.
    """
    block = batch.block
    starts = [*block.offsets(batch.lines), block.stop]

    next_firsts = [*batch.first_lines[1:], len(batch.lines)]
    found = []
    for number, event in enumerate(batch.events):
        first = batch.first_lines[number]
        last = first
        for later in range(first + 1, next_firsts[number]):
            if is_part(batch.lines[later]) and event.event_id.encode() in batch.lines[later]:
                last = later

        start, stop = starts[first], min(starts[last + 1], size)
        stored = block.data[start - block.start : stop - block.start]
        found.append(_event_bytes(event, start, stop, stored))
    return found


def columns_of(line: bytes) -> tuple[Any, ...] | None:
    """Return the columns of the event in *line*, `STORED_COLUMNS` and ``chain``; None if it is not one event."""
    data = line if line.endswith(b"\n") else line + b"\n"
    batch = LineDecoder().decode_block(LineBlock(0, data), lambda code, offset, reason: None)
    found = events_in(batch, len(line))
    if len(found) != 1:
        return None

    event, metadata = found[0].event, found[0].metadata
    return (
        event.event_id,
        found[0].us,
        event.operation,
        event.user_id,
        event.session_id,
        event.entry_ids or None,
        metadata,
        str(event.status),
        event.error_message,
        event.duration_ms,
        event.kind,
        event.chain,
    )


def _event_bytes(event: Line, start: int, stop: int, stored: bytes) -> EventBytes:
    """Return *event* with its bytes *stored*."""
    us = microseconds(event.timestamp)
    # Spaces, escapes and the like are not copied: queries compare the text of canonical JSON.
    metadata = metadata_text(event.metadata)
    encoded = encode_line(
        event.event_id,
        us,
        event.operation,
        event.user_id,
        event.session_id,
        event.entry_ids,
        metadata,
        str(event.status),
        event.error_message,
        event.duration_ms,
        event.kind,
        event.chain,
    )
    return EventBytes(event, start, stop, us, metadata, None if encoded == stored else stored)


def metadata_text(metadata: dict[str, Any]) -> str | None:
    """Return *metadata* as the JSON text of a row; None without any."""
    if not metadata:
        return None
    try:
        return safe_json(_encode(metadata)).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return to_json(metadata)
