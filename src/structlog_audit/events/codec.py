"""Between events and lines.

Rules:

* A line is JSON in UTF-8, ends in LF, and is at most ``max_event_bytes`` long. It is made of a *head*, which the commit
  gives (id and time, so they lie within the first 200 bytes of every line), and a *body*, which is encoded here, once, without
  the brace that the head begins with.
* Encoding is total: what is not plain is made plain (`plain`), what is too large is cut or continued (`fit`), and what
  was changed is marked under ``metadata._audit``.
* Nothing in a line can break it or a terminal: besides what JSON escapes, DEL, the C1 controls (U+0085 ends a line for
  many readers), the line and paragraph separators and the bidirectional controls (CVE-2021-42574) are escaped.
* Absent and empty members are left out. Members come in the order of `Payload`.
* An event that goes on in parts is several lines, the first and its parts, and is decoded as one.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Protocol

import msgspec

from structlog_audit.events.event import AuditEvent, EventStatus, operation_of, rfc3339
from structlog_audit.events.json_safe import JsonSanitizer
from structlog_audit.events.payload import Metadata, Payload, TrailPayload
from structlog_audit.events.truncation import encode, fit
from structlog_audit.exceptions import AuditDecodeError

MARKS = "_audit"
"""The member of the metadata that says which values were changed, and how."""

MIN_EVENT_BYTES = 4_096
"""The least that ``max_event_bytes`` may be: what an event needs whose every value has been cut."""

HEAD_BYTES = len('{"event_id":"evt_0197f3a0c1d27d1e9b0c5d8e2f4a6b7c","timestamp":"2025-01-15T10:30:45.123456Z",')
"""The length of every head."""

_OVERHEAD = 400
"""Bytes of a line that are not its body: head 93, the name of the first part 47, writer, seq and prev of a chain."""

_DANGEROUS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class Redacts(Protocol):
    """What takes out of a body, which is plain, what must not be written."""

    @property
    def may_contain_secrets(self) -> Callable[[Mapping[str, Any], bytes], bool]:
        """Tells, by a first look that costs little, whether the body with this metadata needs a closer one.

        The second argument is the body's JSON without its opening brace.
        """

    def redact(self, body: Payload) -> Payload:
        """The body that may be written; *body* itself if that is it."""


def encode_payload(body: Payload, max_event_bytes: int, redactor: Redacts | None = None) -> bytes:
    """*body* as JSON, but for the opening brace, in whose place the head goes. Never raises on account of a value.

    If its entry ids need parts, these follow, each behind an LF and without its brace.
    """
    try:
        data = encode(body)[1:]
    except (TypeError, ValueError, RecursionError):  # lone surrogates, subclasses of str, nesting
        body = _plain_body(body)
        data = encode(body)[1:]
    if redactor is not None:
        may_contain_secrets = redactor.may_contain_secrets
        try:
            suspected = may_contain_secrets(body.metadata, data)
        except Exception:  # a key that can't be compared
            suspected = True
        if suspected:
            body = redactor.redact(_with_plain_keys(body, data))
            data = encode(body)[1:]
    if not data.isascii() or 0x7F in data:
        data = escape(data)
    if len(data) < max_event_bytes - _OVERHEAD:  # less, since it has a brace more
        return data
    body = _with_plain_keys(body, data)
    return b"\n".join([escape(part)[1:] for part in fit(body, max_event_bytes - _OVERHEAD, MARKS, escape)])


def _with_plain_keys(body: Payload, data: bytes) -> Payload:
    """*body* with the metadata that its JSON, *data*, has: msgspec lets keys pass whose class is derived from str."""
    return msgspec.structs.replace(body, metadata=msgspec.json.decode(b"{" + data).get("metadata", {}))


def escape(data: bytes) -> bytes:
    """JSON *data* with the characters escaped that JSON allows and lines and terminals do not bear."""
    return _DANGEROUS.sub(lambda found: f"\\u{ord(found[0]):04x}", data.decode()).encode()


def _plain_body(body: Payload) -> Payload:
    """*body* with everything plain, and marked where that changed it."""
    sanitizer = JsonSanitizer()
    texts = {
        name: sanitizer.sanitize_text(getattr(body, name), name)
        for name in ("operation", "user_id", "session_id", "error_message")
        if getattr(body, name) is not None
    }
    ids = [sanitizer.sanitize_text(entry_id, f"entry_ids[{number}]") for number, entry_id in enumerate(body.entry_ids)]
    metadata = sanitizer.sanitize_members(body.metadata)
    if sanitizer.marks:
        marks = metadata.get(MARKS)
        metadata[MARKS] = {**marks, **sanitizer.marks} if isinstance(marks, dict) else sanitizer.marks
    return msgspec.structs.replace(body, **texts, entry_ids=ids, metadata=metadata)


class StoredEvent(msgspec.Struct, gc=False):
    """A line as it was read: what conditions are matched against, cheaper than an `AuditEvent`."""

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
        """The event that this line records."""
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


_decode = msgspec.json.Decoder(StoredEvent).decode
_INDEXED: Mapping[str, tuple[Any, Any]] = {
    "operation": (str, ""),
    "user_id": (str | None, None),
    "session_id": (str | None, None),
    "entry_ids": (list[str], []),
    "status": (str, EventStatus.SUCCESS.value),
    "kind": (str | None, None),
}
"""What an index can have of a line: of each member the type, and what it is where the line has none."""


@functools.cache
def _decoder(members: tuple[str, ...]) -> Callable[[bytes], list[Any]]:
    """Decodes *members* only: the rest is passed over, which takes half the time."""
    only = msgspec.defstruct("IndexedEvent", [(member, *_INDEXED[member]) for member in members], gc=False)
    return msgspec.json.Decoder(only).decode_lines


def decode_members(members: Iterable[str], lines: bytes) -> list[Any]:
    """Objects with *members* of what is in *lines*: an event, or the part of one, for each."""
    return _decoder(tuple(sorted(members)))(lines)


def decode(lines: bytes | bytearray, *, where: str = "") -> StoredEvent:
    """The event in *lines*: one line, or a first line and its parts.

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


def _decode_parts(lines: bytes | bytearray, where: str) -> StoredEvent:
    first, *parts = (decode(line, where=where) for line in lines.splitlines())
    for part in parts:
        if part.part_of != first.event_id:
            raise AuditDecodeError(f"{where or 'line'}: part {part.event_id} does not belong to {first.event_id}")
        first.entry_ids += part.entry_ids
    return first


def _decode_error(error: Exception, where: str) -> AuditDecodeError:
    reason, _, member = str(error).partition(" - at ")
    member = member.strip("`").removeprefix("$.")
    what = f"member {member!r}: {reason}" if member else reason
    return AuditDecodeError(f"{where or 'line'} is not an event: {what}")


def decode_event(lines: bytes, *, where: str = "") -> AuditEvent:
    """The `AuditEvent` in *lines*. Raises as `decode` does."""
    return decode(lines, where=where).event()


def encode_event(event: AuditEvent) -> bytes:
    """*event* as one JSON object in the form of a line, however long, without the LF."""
    body: Payload = TrailPayload(
        str(event.operation),
        event.user_id,
        event.session_id,
        event.entry_ids,
        event.metadata,
        event.status,  # type: ignore[arg-type]  # of an event that somebody made it may also be text, which is as good
        event.error_message,
        event.duration_ms,
        event.kind,
    )
    try:
        msgspec.convert(body.metadata, Metadata)
        data = encode(body)
    except Exception:  # a hostile value may raise anything
        data = encode(_plain_body(body))
    head = f'{{"event_id":{encode_text(event.event_id)},"timestamp":"{rfc3339(event.timestamp)}",'
    return head.encode() + escape(data)[1:]


def encode_text(text: str) -> str:
    """*text* as a JSON string."""
    return escape(msgspec.json.encode(text)).decode()


_USUAL: Any = list[str] | Metadata


def to_json(value: Mapping[str, Any] | list[Any]) -> str:
    """*value*, made plain if it is not, as JSON text on one line. A list of texts may be of any length."""
    try:
        data = encode(msgspec.convert(value, _USUAL))
    except Exception:  # a hostile value may raise anything
        data = encode(JsonSanitizer().sanitize(value, ""))
    return escape(data).decode()
