"""The rows of an archive: the contents of each column, and the exact line of each row.

**Guarantees.** A row encodes to the bytes of its event in the segment; where it would not, the column ``line`` holds them.
Nothing is decided by DuckDB: it only stores columns. ``metadata`` is the JSON text of the line.

**Performance.** Most lines are canonical. Their metadata is copied, not encoded again.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import msgspec

from structlog_audit.events.codec import StoredEvent, escape, safe_json, to_json
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

STORED_COLUMNS = (
    "event_id, epoch_us(timestamp), operation, user_id, session_id, entry_ids, metadata, status, error_message, "
    "duration_ms, kind"
)
"""The columns that make a `StoredEvent` of a row; its line needs ``chain`` as well."""


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


class _MetadataOnly(msgspec.Struct, gc=False):
    metadata: msgspec.Raw = _NO_METADATA


_encode = msgspec.json.Encoder().encode
_decode_metadata = msgspec.json.Decoder(dict[str, Any]).decode
_metadata_of_lines = msgspec.json.Decoder(_MetadataOnly).decode_lines
_metadata_of_line = msgspec.json.Decoder(_MetadataOnly).decode


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
    """Return the event of a row; *columns* are `STORED_COLUMNS`."""
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

    raw = _raw_metadata(batch)
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
        metadata = _metadata_in(stored) if raw is None else raw[number]
        found.append(_event_bytes(event, start, stop, stored, metadata))
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


def _raw_metadata(batch: Batch) -> list[str | None] | None:
    """Return the metadata of each line as it is there, if each line is an event."""
    if len(batch.events) != len(batch.lines):
        return None
    try:
        members = _metadata_of_lines(batch.block.data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return [_text(member) for member in members] if len(members) == len(batch.lines) else None


def _metadata_in(line: bytes) -> str | None:
    """Return the metadata of a line as it is there; None without any, or if the line is not one of this library."""
    try:
        return _text(_metadata_of_line(line))
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _text(member: _MetadataOnly) -> str | None:
    return bytes(member.metadata).decode() or None


def _event_bytes(event: Line, start: int, stop: int, stored: bytes, metadata: str | None) -> EventBytes:
    """Return *event* with its bytes *stored*; *metadata* is the text in them."""
    us = microseconds(event.timestamp)
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
    if encoded == stored:
        return EventBytes(event, start, stop, us, metadata, None)

    # A reader may have changed members of a line that is not canonical: what it makes of them is what queries find.
    return EventBytes(event, start, stop, us, _encode_metadata(event.metadata), stored)


def _encode_metadata(metadata: dict[str, Any]) -> str | None:
    if not metadata:
        return None
    try:
        return escape(_encode(metadata)).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return to_json(metadata)
