"""OpenTelemetry log records, as OTLP in JSON: https://opentelemetry.io/docs/specs/otel/logs/data-model/.

**Mapping**

* One event is one ``LogsData``, so a file of them is in the form that OpenTelemetry's file exporter writes and the collector's
  ``otlpjsonfile`` receiver reads.
* The JSON is that of protobuf, except for hexadecimal ids and numeric enums: 64-bit integers are strings, and values name their
  type (OTLP specification, "JSON Protobuf Encoding").
* Attributes have the names of the semantic conventions where they exist; the others begin with ``audit.``.
* The resource is empty: only the application knows its ``service.name``. The collector can add it.
"""

from __future__ import annotations

import math
from operator import attrgetter
from typing import Any

from structlog_audit._version import __version__
from structlog_audit.events.event import AuditEvent, rfc3339
from structlog_audit.formats import field_mapping as t

_INT64_END = 2**63
_FIXED64 = range(2**64)


def _nanoseconds(event: AuditEvent) -> str | None:
    """Return the time, if an unsigned 64-bit integer holds it: from 1970 to 2554."""
    value = t.timestamp_us(event) * 1_000
    return str(value) if value in _FIXED64 else None


def _time_beyond_64_bits(event: AuditEvent) -> str | None:
    """Return the time as text if the record has no member that holds it."""
    return rfc3339(event.timestamp) if _nanoseconds(event) is None else None


RECORD: t.FieldTable = {
    "timeUnixNano": _nanoseconds,
    "observedTimeUnixNano": _nanoseconds,
    "severityNumber": t.by_outcome(9, 17, 13, 9),
    "severityText": t.by_outcome("INFO", "ERROR", "WARN", "INFO"),
    "eventName": t.operation,
    "body.stringValue": t.operation,
    "traceId": t.trace_id,
    "spanId": t.span_id,
}

ATTRIBUTES: dict[str, t.Value] = {
    "log.record.uid": attrgetter("event_id"),
    "user.id": attrgetter("user_id"),
    "session.id": attrgetter("session_id"),
    "client.address": t.address,
    "exception.message": attrgetter("error_message"),
    "audit.entry_ids": attrgetter("entry_ids"),
    "audit.metadata": attrgetter("metadata"),
    "audit.status": attrgetter("status.value"),
    "audit.duration_ms": attrgetter("duration_ms"),
    "audit.kind": attrgetter("kind"),
    "audit.timestamp": _time_beyond_64_bits,
}


def _any_value(value: Any) -> dict[str, Any]:
    """Return *value* as an ``AnyValue``."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and -_INT64_END <= value < _INT64_END:
        return {"intValue": str(int(value))}
    if isinstance(value, float) and math.isfinite(value):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_any_value(item) for item in value]}}
    if isinstance(value, dict):
        return {"kvlistValue": {"values": _key_values(value)}}
    return {"stringValue": str(value)}


def _key_values(members: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _any_value(value)} for key, value in members.items()]


def to_otlp(event: AuditEvent) -> dict[str, Any]:
    """Return *event* as an OTLP ``LogsData`` with one log record."""
    found = {name: value(event) for name, value in ATTRIBUTES.items()}
    attributes = {name: value for name, value in found.items() if value not in (None, [], {})}
    record = {**t.build_record(event, RECORD), "attributes": _key_values(attributes)}

    scope = {"name": "structlog_audit", "version": __version__}
    scope_logs = {"scope": scope, "logRecords": [record]}
    resource_logs = {"resource": {}, "scopeLogs": [scope_logs]}
    return {"resourceLogs": [resource_logs]}
