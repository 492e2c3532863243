r"""Encoding of events as lines of JSON, and decoding of lines.

A line is a *head* (event id and timestamp, see `structlog_audit.events.event_id`) and a *payload*, which is encoded here,
once, without its opening brace.

**Guarantees**

* Encoding is total: unsupported values are sanitized (`json_safe`), oversized ones truncated or continued in parts
  (`truncation`), and each change is marked under ``metadata._audit``.
* A line is UTF-8, ends in LF and has at most ``max_event_bytes``. DEL, C1 controls, separators and bidirectional controls
  are escaped, so no text breaks a line or deceives a terminal (`characters`).
* Members have the order of `Payload`; absent and empty ones are omitted.
* An event whose entry ids need parts is several lines and decodes as one event.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Protocol

import msgspec

from structlog_audit.events.characters import BIDIRECTIONAL, DELETE_AND_C1, SEPARATORS, matching, unicode_escape
from structlog_audit.events.event import AuditEvent, EventStatus, operation_of, rfc3339
from structlog_audit.events.json_safe import JsonSanitizer
from structlog_audit.events.payload import Metadata, Payload, TrailPayload
from structlog_audit.events.truncation import encode, truncate
from structlog_audit.exceptions import AuditDecodeError

MARKS = "_audit"
"""The metadata member that lists the values that were changed, and how."""

MIN_EVENT_BYTES = 4_096
"""The lower bound of ``max_event_bytes``: an event with every value truncated fits into it."""

HEAD_BYTES = len('{"event_id":"evt_0197f3a0c1d27d1e9b0c5d8e2f4a6b7c","timestamp":"2025-01-15T10:30:45.123456Z",')
"""The length of every head."""

_OVERHEAD = 400
"""Bytes of a line outside its payload: head 93, ``part_of`` 47; the rest is room for members to come, such as a hash."""

_UNSAFE = matching(DELETE_AND_C1, SEPARATORS, BIDIRECTIONAL)

_DELETE = 0x7F


class PayloadRedactor(Protocol):
    """A component that removes secrets from payloads."""

    @property
    def redact_keys(self) -> Callable[[dict[str, Any], bytes], dict[str, Any] | None]:
        """A cheap first pass, a function of the metadata and of the encoded payload without its opening brace.

        It returns the same metadata if the event has nothing to redact, the redacted metadata if nothing else is to be
        redacted, or None if the event needs `redact`.
        """

    def redact(self, payload: Payload) -> Payload:
        """Return the redacted payload; *payload* itself if it has nothing to redact."""


def encode_payload(payload: Payload, max_event_bytes: int, redactor: PayloadRedactor | None = None) -> bytes:
    """Encode *payload* as JSON without the opening brace, which the head supplies.

    Args:
        payload: The members of the event.
        max_event_bytes: The limit of a line in bytes, at least `MIN_EVENT_BYTES`.
        redactor: It removes secrets before anything is truncated.

    Returns:
        The payload. If its entry ids need parts, these follow, each after an LF and without its opening brace.
    """
    # Lone surrogates, subclasses of str and deep nesting make msgspec raise.
    try:
        data = encode(payload)[1:]
    except (TypeError, ValueError, RecursionError):
        payload = sanitize_payload(payload)
        data = encode(payload)[1:]

    if redactor is not None:
        metadata = payload.metadata
        redact_keys = redactor.redact_keys
        # A key whose class overrides comparison may raise.
        try:
            redacted = redact_keys(metadata, data)
        except Exception:
            redacted = None

        if redacted is not metadata:
            if redacted is None:
                payload = redactor.redact(_with_plain_keys(payload, data))
            else:
                payload = msgspec.structs.replace(payload, metadata=redacted)
            data = encode(payload)[1:]

    # As `safe_json`, without a call.
    if _DELETE in data or not (data.isascii() or _is_safe(data)):
        data = escape(data)

    # "Less than", not "at most": the complete payload has one more byte, its brace.
    if len(data) < max_event_bytes - _OVERHEAD:
        return data

    payload = _with_plain_keys(payload, data)
    parts = truncate(payload, max_event_bytes - _OVERHEAD, MARKS, escape)
    return b"\n".join([escape(part)[1:] for part in parts])


def _with_plain_keys(payload: Payload, data: bytes) -> Payload:
    """Replace the metadata of *payload* by that of its JSON, *data*.

    msgspec encodes keys of subclasses of str; those in the result have exactly type str.
    """
    members = msgspec.json.decode(b"{" + data)
    return msgspec.structs.replace(payload, metadata=members.get("metadata", {}))


def safe_json(data: bytes) -> bytes:
    """Return encoded JSON with unsafe characters escaped."""
    return escape(data) if _DELETE in data or not (data.isascii() or _is_safe(data)) else data


def _is_safe(data: bytes) -> bool:
    """Return False if *data* may contain a character beyond ASCII that `escape` escapes."""
    # The first bytes in UTF-8 of all characters that `_UNSAFE` matches.
    return 0xC2 not in data and 0xD8 not in data and 0xE2 not in data


def escape(data: bytes) -> bytes:
    """Escape characters that are valid in JSON but unsafe in log lines or terminals."""
    return _UNSAFE.sub(unicode_escape, data.decode()).encode()


def sanitize_payload(payload: Payload) -> Payload:
    """Return *payload* with every member sanitized and the changes marked. Its metadata may be sanitized already."""
    sanitizer = JsonSanitizer(is_recorded=True)

    texts = {}
    for name in ("operation", "user_id", "session_id", "error_message"):
        text = getattr(payload, name)
        if text is not None:
            texts[name] = sanitizer.sanitize_text(text, name)

    entry_ids = []
    for number, entry_id in enumerate(payload.entry_ids):
        entry_ids.append(sanitizer.sanitize_text(entry_id, f"entry_ids[{number}]"))

    metadata = sanitizer.sanitize_members(payload.metadata)
    if sanitizer.marks:
        existing = metadata.get(MARKS)
        known_marks = existing if isinstance(existing, dict) else {}
        metadata[MARKS] = {**known_marks, **sanitizer.marks}

    return msgspec.structs.replace(payload, **texts, entry_ids=entry_ids, metadata=metadata)


class StoredEvent(msgspec.Struct, gc=False):
    """A decoded line. Queries match these: they are cheaper than `AuditEvent` objects."""

    event_id: str
    timestamp: Annotated[dt.datetime, msgspec.Meta(tz=True)]
    operation: str
    user_id: str | None = None
    session_id: str | None = None
    entry_ids: list[str] = []
    metadata: dict[str, Any] = {}
    status: EventStatus = EventStatus.SUCCESS
    error_message: str | None = None
    duration_ms: float | None = None
    kind: str | None = None
    part_of: str | None = None

    def event(self) -> AuditEvent:
        """Return this event as an `AuditEvent`."""
        return AuditEvent(
            event_id=self.event_id,
            timestamp=self.timestamp,
            operation=operation_of(self.operation),
            user_id=self.user_id,
            session_id=self.session_id,
            entry_ids=self.entry_ids,
            metadata=self.metadata,
            status=self.status,
            error_message=self.error_message,
            duration_ms=self.duration_ms,
            kind=self.kind,
        )

    @staticmethod
    def lines(events: Sequence[Any]) -> bytes:
        """Return *events* of this class as lines of an export, one each."""
        return b"".join([encode_event(stored.event()) + b"\n" for stored in events])


_decoder = msgspec.json.Decoder(StoredEvent)
_decode = _decoder.decode
_decode_lines = _decoder.decode_lines

_INDEXED: Mapping[str, tuple[Any, Any]] = {
    "operation": (str, ""),
    "user_id": (str | None, None),
    "session_id": (str | None, None),
    "entry_ids": (list[str], []),
    "status": (str, EventStatus.SUCCESS.value),
    "kind": (str | None, None),
}
"""The members that an index can hold: the type of each, and its value where a line omits it."""


@functools.cache
def _decoder_of(members: tuple[str, ...]) -> Callable[[bytes], list[Any]]:
    """Return a decoder of *members* only. Skipping the others halves the time."""
    fields = [(member, *_INDEXED[member]) for member in members]
    struct = msgspec.defstruct("IndexedEvent", fields, gc=False)
    return msgspec.json.Decoder(struct).decode_lines


def decode_members(members: Iterable[str], lines: bytes) -> list[Any]:
    """Decode *members* of each of *lines*, without joining the parts of an event."""
    return _decoder_of(tuple(sorted(members)))(lines)


def decode(lines: bytes | bytearray, *, where: str = "") -> StoredEvent:
    """Decode one event: a single line, or a first line and its parts.

    Args:
        lines: The bytes, with or without a final LF.
        where: The position of the line, for the message of an error.

    Raises:
        AuditDecodeError: The bytes are not an event; the message names *where*, the member and the reason.
    """
    try:
        return _decode(lines)
    except msgspec.MsgspecError as error:
        if lines.count(b"\n", 0, -1):
            return _decode_parts(lines, where)
        raise _decode_error(error, where) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise _decode_error(error, where) from error


def decode_all(events: Sequence[bytes]) -> list[StoredEvent]:
    """Decode each of *events*, the lines of one event with LF, as `decode` does. One call for all saves a quarter."""
    try:
        found = _decode_lines(b"".join(events))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        found = []

    # An event in parts is several lines.
    return found if len(found) == len(events) else [decode(lines) for lines in events]


def _decode_parts(lines: bytes | bytearray, where: str) -> StoredEvent:
    """Decode a first line and its parts, and join their entry ids."""
    first, *parts = (decode(line, where=where) for line in lines.splitlines())

    for part in parts:
        if part.part_of != first.event_id:
            raise AuditDecodeError(f"{where or 'line'}: part {part.event_id} does not belong to {first.event_id}")
        first.entry_ids += part.entry_ids

    return first


def _decode_error(error: Exception, where: str) -> AuditDecodeError:
    """Return an error that names the line, the member and the reason."""
    # msgspec appends the path: "Expected `str`, got `int` - at `$.operation`".
    reason, _, path = str(error).partition(" - at ")
    member = path.strip("`").removeprefix("$.")

    explanation = f"member {member!r}: {reason}" if member else reason
    return AuditDecodeError(f"{where or 'line'} is not an event: {explanation}")


def decode_event(lines: bytes, *, where: str = "") -> AuditEvent:
    """Decode one event as an `AuditEvent`. The errors are those of `decode`."""
    return decode(lines, where=where).event()


def encode_event(event: AuditEvent) -> bytes:
    """Encode *event* as one line without the LF. Nothing is truncated."""
    # The status of an event that an application constructed may be text.
    payload: Payload = TrailPayload(
        str(event.operation),
        event.user_id,
        event.session_id,
        event.entry_ids,
        event.metadata,
        event.status,  # type: ignore[arg-type]
        event.error_message,
        event.duration_ms,
        event.kind,
    )

    # Values of an application's classes may raise anything.
    try:
        msgspec.convert((payload.metadata,), _PlainMetadata)
        data = encode(payload)
    except Exception:
        data = encode(sanitize_payload(payload))

    event_id = encode_text(event.event_id)
    timestamp = rfc3339(event.timestamp)
    head = f'{{"event_id":{event_id},"timestamp":"{timestamp}",'
    return head.encode() + safe_json(data)[1:]


def join_parts(lines: bytes) -> bytes:
    """Return an event in parts as one line of any length, with LF and without the mark that announces the parts."""
    event = decode_event(lines)

    marks = dict(event.metadata[MARKS])
    others = [mark for mark in marks.pop("entry_ids").split("; ") if not mark.startswith("continued in ")]
    if others:
        marks["entry_ids"] = "; ".join(others)

    metadata = {name: value for name, value in event.metadata.items() if name != MARKS}
    if marks:
        metadata[MARKS] = marks
    return encode_event(msgspec.structs.replace(event, metadata=metadata)) + b"\n"


def encode_text(text: str) -> str:
    """Encode *text* as a JSON string."""
    return safe_json(msgspec.json.encode(text)).decode()


class _PlainMetadata(msgspec.Struct, array_like=True):
    """Metadata in a struct, whose type msgspec compiles once; a union it would compile at each conversion."""

    metadata: Metadata


class _PlainValue(msgspec.Struct, array_like=True):
    """A list of texts or metadata, as a struct for the same reason."""

    value: list[str] | Metadata


def to_json(value: Mapping[str, Any] | list[Any]) -> str:
    """Encode *value*, sanitized if necessary, as JSON text on one line.

    A list of strings may have any length.
    """
    # Values of an application's classes may raise anything.
    try:
        data = encode(msgspec.convert((value,), _PlainValue).value)
    except Exception:
        data = encode(JsonSanitizer(is_recorded=True).sanitize(value, ""))

    return safe_json(data).decode()
