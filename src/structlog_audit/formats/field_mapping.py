"""Building blocks of formats: a format is a table from the paths of its record to functions of an event.

**Guarantees**

* A record is a pure function of its event and of the registered classes of operations: the same event gives the same record at
  any time, on any host and any Python.
* A member that has a name in the other system gets that name; the others keep a name of this library. No member is dropped.
* Operations have the classes of `structlog_audit.events.operation_classes`. An operation without a class, and the library's
  own events, are "other"; an intent has no outcome yet.
* Three members of the metadata get the fields that other systems have for them: ``trace_id``, ``span_id`` (OpenTelemetry,
  "Trace Context in non-OTLP Log Formats") and the client address, under one of `ADDRESSES`. The metadata is kept whole, too.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Mapping
from typing import Any

from structlog_audit.events.addresses import address_text
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import AuditEvent, Kind, utc
from structlog_audit.events.operation_classes import OperationClass, registered_operations

Value = Callable[[AuditEvent], Any]
FieldTable = Mapping[str, Value]
"""Values by path; a dot in a path enters an object. None, ``[]`` and ``{}`` are left out of the record."""

PRODUCT = "structlog-audit"
"""The name of the product in records."""

ADDRESSES = ("client_address", "ip", "client_ip", "remote_addr")
"""The members of the metadata that may hold the client address, in order of preference."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_INT64_LIMIT = 2.0**63


def build_record(event: AuditEvent, table: FieldTable) -> dict[str, Any]:
    """Return the record of *event* that *table* describes. O(members)."""
    record: dict[str, Any] = {}
    for path, value in table.items():
        found = value(event)
        if found is None or found == [] or found == {}:
            continue

        *steps, name = path.split(".")
        parent = record
        for step in steps:
            parent = parent.setdefault(step, {})
        parent[name] = found

    return record


def constant(value: Any) -> Value:
    """Return a value that is *value* for every event."""
    return lambda event: value


def operation(event: AuditEvent) -> str:
    """Return the name of the operation, of exactly type str."""
    return event.operation.value


def class_of(event: AuditEvent) -> OperationClass | None:
    """Return the class of the operation; None if it has none, and for the events of the library."""
    return registered_operations().class_of(event.operation.value) if event.kind is None else None


def by_class(values: Mapping[OperationClass, Any], other: Any) -> Value:
    """Return a value that depends on the class of the operation; *other* for the classes that are not in *values*."""

    def found(event: AuditEvent) -> Any:
        operation_class = class_of(event)
        return other if operation_class is None else values.get(operation_class, other)

    return found


def by_outcome(success: Any, failure: Any, partial: Any, pending: Any) -> Value:
    """Return a value that depends on the status; *pending* for an intent, which has no outcome yet."""
    values = {"SUCCESS": success, "FAILURE": failure, "PARTIAL": partial}
    return lambda event: pending if event.kind == Kind.INTENT else values[event.status.value]


def users(event: AuditEvent) -> list[str]:
    """Return the user as a list of one item or none."""
    return [] if event.user_id is None else [event.user_id]


def address(event: AuditEvent | StoredEvent) -> str | None:
    """Return the client address, if the metadata has an IP address under one of `ADDRESSES`."""
    for name in ADDRESSES:
        value = event.metadata.get(name)
        found = address_text(value) if isinstance(value, str) else None
        if found is not None:
            return found
    return None


def hexadecimal(name: str, digits: int) -> Value:
    """Return a value: the metadata's *name*, if it is an id of *digits* hexadecimal digits, not all zero (W3C)."""
    form = re.compile(f"(?!0*$)[0-9a-f]{{{digits}}}")

    def found(event: AuditEvent) -> str | None:
        value = event.metadata.get(name)
        if isinstance(value, str) and form.fullmatch(value):
            return value
        return None

    return found


trace_id = hexadecimal("trace_id", 32)
span_id = hexadecimal("span_id", 16)


def duration(per_ms: int) -> Value:
    """Return a value: the duration in units of 1/*per_ms* ms, rounded; None beyond 64 bits."""

    def found(event: AuditEvent) -> int | None:
        if event.duration_ms is None:
            return None

        value = event.duration_ms * per_ms
        if not -_INT64_LIMIT < value < _INT64_LIMIT:
            return None
        return round(value)

    return found


def timestamp_us(event: AuditEvent) -> int:
    """Return the time of the event in microseconds since 1970, exactly."""
    return (utc(event.timestamp) - _EPOCH) // dt.timedelta(microseconds=1)


def timestamp_ms(event: AuditEvent) -> int:
    """Return the time of the event in whole milliseconds since 1970."""
    return timestamp_us(event) // 1_000
