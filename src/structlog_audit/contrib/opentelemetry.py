"""Audit events as log records of OpenTelemetry. ``pip install structlog-audit[opentelemetry]``.

**Handler.** Use OpenTelemetry's ``opentelemetry.instrumentation.logging.handler.LoggingHandler``. As a second handler of the
audit logger it exports every field unredacted. As the ``target`` of an `AuditHandler` it exports the event as recorded:
redacted, with its id.

**Processor.** `AuditRecordProcessor` removes this library's internal attributes from a log record, and sets the name of the
operation, the exact time and the span of the event. The handler takes the span of the thread that runs it, which may be
another one than the caller's: threads share writes, and queues have separate threads.

**Limits.** OpenTelemetry drops the first attributes beyond ``OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT``, and counts them. Of a
recorded event, the processor keeps the actor before all others. A value that OTLP cannot encode becomes text.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping
from typing import Any

from structlog_audit._version import check_versions

try:
    check_versions("opentelemetry")
    from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
except ModuleNotFoundError as error:
    message = (
        "structlog_audit.contrib.opentelemetry needs OpenTelemetry's SDK: pip install 'structlog-audit[opentelemetry]'"
    )
    raise ModuleNotFoundError(message, name=error.name) from error

from structlog_audit.events.codec import decode_event
from structlog_audit.events.event import AuditEvent
from structlog_audit.events.handoff import HANDOFF
from structlog_audit.exceptions import AuditDecodeError
from structlog_audit.formats.field_mapping import timestamp_us
from structlog_audit.recording.formatter import LINE

_TRACE_ID = re.compile("[0-9a-f]{32}")
_SPAN_ID = re.compile("[0-9a-f]{16}")

_KEPT = (
    "metadata",
    "entry_ids",
    "duration_ms",
    "timestamp",
    "kind",
    "error_message",
    "session_id",
    "event_id",
    "status",
    "operation",
    "user_id",
)
"""The members of an event as attributes, in the order in which a limit drops them: the actor is the last."""


def _id_number(value: Any, form: re.Pattern[str]) -> int:
    """Return the number of the id *value*.

    It is 0, the invalid id, if the value does not have the *form*.
    """
    if isinstance(value, str) and form.fullmatch(value):
        return int(value, 16)
    return 0


class AuditRecordProcessor(LogRecordProcessor):
    """Gives log records of audit events the content of the events; leaves all other records unchanged.

    Add it to the ``LoggerProvider`` before the processor that exports.
    """

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Remove the internal attributes, and set the name, the time and the span of the event."""
        record = log_record.log_record
        attributes: Any = record.attributes
        if not attributes or (HANDOFF not in attributes and LINE not in attributes):
            return

        # Internal attributes do not count as dropped.
        total = len(attributes) + log_record.dropped_attributes
        fields = _take_out(attributes, HANDOFF)
        line = _take_out(attributes, LINE)
        total -= (fields is not None) + (line is not None)

        event = _event_of(line)
        if event is not None:
            _restore_members(attributes, event)
            record.timestamp = _nanoseconds(event, record.timestamp)

        _make_encodable(attributes)
        record.body = encodable(record.body)
        if hasattr(attributes, "dropped"):
            attributes.dropped = total - len(attributes)

        name = attributes.get("operation")
        if record.event_name is None and isinstance(name, str):
            record.event_name = name

        # A recorded event holds the ids in its metadata; the record of another handler has them as attributes.
        details: Any = attributes if event is None else event.metadata
        trace_id = _id_number(details.get("trace_id"), _TRACE_ID)
        span_id = _id_number(details.get("span_id"), _SPAN_ID)
        if (trace_id and span_id) or event is not None:
            record.trace_id, record.span_id = trace_id, span_id

    def shutdown(self) -> None:
        """Do nothing: the processor holds no records."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Do nothing: the processor holds no records."""
        return True


def _take_out(attributes: Any, name: str) -> Any:
    """Remove and return the attribute *name*, or None."""
    return attributes.pop(name) if name in attributes else None


def _event_of(line: Any) -> AuditEvent | None:
    """Return the event of *line*, or None if an application used the name of the attribute for a value of its own."""
    if not isinstance(line, bytes):
        return None
    try:
        return decode_event(line)
    except AuditDecodeError:
        return None


def _restore_members(attributes: Any, event: AuditEvent) -> None:
    """Make the members of *event* the last attributes, also those that the limit dropped."""
    limit = getattr(attributes, "maxlen", None)
    members = event.to_dict()
    for name in _KEPT:
        value = members.get(name)
        if value in (None, [], {}):
            continue

        if name in attributes:
            value = attributes.pop(name)
        elif limit is not None and len(attributes) >= limit:
            del attributes[next(iter(attributes))]
        attributes[name] = value


def _nanoseconds(event: AuditEvent, otherwise: int | None) -> int | None:
    """Return the time of *event* in nanoseconds since 1970, or *otherwise* if 64 bits cannot hold it."""
    value = timestamp_us(event) * 1_000
    return value if 0 <= value < 2**64 else otherwise


def _make_encodable(attributes: Any) -> None:
    """Replace the *attributes* that OTLP cannot encode."""
    for name, value in list(attributes.items()):
        key = _in_utf8(name)
        changed = encodable(value)
        if key is name and changed is value:
            continue

        del attributes[name]
        attributes[key] = changed


def encodable(value: Any) -> Any:
    """Return *value*, the cleaned value of an attribute, so that OTLP can encode it; itself if it can.

    An integer beyond 64 bits becomes text, as in `structlog_audit.formats.otlp`, and a lone surrogate its escape.
    """
    if isinstance(value, str):
        return _in_utf8(value)
    if isinstance(value, int):
        is_64_bits = -(2**63) <= value < 2**63
        return value if is_64_bits else str(value)

    if isinstance(value, (tuple, list)):
        items = tuple(map(encodable, value))
        is_same = all(map(operator.is_, items, value))
        return value if is_same else items

    if isinstance(value, Mapping):
        keys = tuple(map(_in_utf8, value))
        items = tuple(map(encodable, value.values()))
        is_same = all(map(operator.is_, keys + items, (*value, *value.values())))
        return value if is_same else dict(zip(keys, items, strict=True))

    return value


def _in_utf8(text: str) -> str:
    """Return *text* itself, or with escapes for the lone surrogates that UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        escaped = text.encode("utf-8", "backslashreplace")
        return escaped.decode()
    return text
