"""How a format of another system is said: a table from the paths in its record to functions of our event.

Rules:

* A record is a pure function of an event: the same event gives the same record, whenever and wherever.
* Whatever of an event has a name in the other system has that name; the rest is kept under a name of ours. Nothing of an event
  is left out, but what it does not have.
* What is read out of the operation is read conservatively: only names that say one thing are a creation, a read, an update or
  a deletion, any other is "other". An event of the library's own is none of these; an intent has no outcome yet.
* Of the metadata three things are understood, which other systems have a place for: ``trace_id``, ``span_id`` (OpenTelemetry,
  "Trace Context in non-OTLP Log Formats") and the address of the client, under one of `ADDRESSES`. All metadata is there as a
  whole, too.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

from structlog_audit.events.event import AuditEvent, Kind, utc

Value = Callable[[AuditEvent], Any]
Table = Mapping[str, Value]
"""By the path of a member, whose dots are steps into objects: what it is. None, ``[]`` and ``{}`` are left out."""

PRODUCT = "structlog-audit"
"""What other systems are told of where an event comes from."""

ADDRESSES = ("client_address", "ip", "client_ip", "remote_addr")
"""The members of the metadata in which an address of the client is looked for, in this order."""

CREATE, READ, UPDATE, DELETE, OTHER = "create", "read", "update", "delete", "other"

VERBS = {
    CREATE: ("create", "store", "insert", "add", "import", "upload"),
    READ: ("read", "recall", "get", "query", "search", "export", "download"),
    UPDATE: ("update", "compact", "edit", "modify", "change"),
    DELETE: ("delete", "forget", "remove", "erase", "purge"),
}
"""The operations that say what they do, in any case, alone or as the last word of a name such as ``user.delete``."""

_VERB = {name: verb for verb, names in VERBS.items() for name in names}
_WORD = re.compile("[^.:/]*$")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_LONG = 2.0**63


def record_of(event: AuditEvent, table: Table) -> dict[str, Any]:
    """The record of *event* that *table* describes. O(members)."""
    record: dict[str, Any] = {}
    for path, value in table.items():
        found = value(event)
        if found is None or found == [] or found == {}:
            continue
        *steps, name = path.split(".")
        at = record
        for step in steps:
            at = at.setdefault(step, {})
        at[name] = found
    return record


def constant(value: Any) -> Value:
    """*value*, whatever the event."""
    return lambda event: value


def operation(event: AuditEvent) -> str:
    """The name of the operation, of exactly type str."""
    return event.operation.value


def verb_of(event: AuditEvent) -> str:
    """What the operation does: `CREATE`, `READ`, `UPDATE`, `DELETE` or `OTHER`."""
    found = _WORD.search(event.operation.value)
    return OTHER if event.kind is not None or not found else _VERB.get(found[0].lower(), OTHER)


def by_verb(create: Any, read: Any, update: Any, delete: Any, other: Any) -> Value:
    """One of these, by `verb_of`."""
    values = {CREATE: create, READ: read, UPDATE: update, DELETE: delete, OTHER: other}
    return lambda event: values[verb_of(event)]


def by_outcome(success: Any, failure: Any, partial: Any, pending: Any) -> Value:
    """One of these, by the status; *pending* for an intent, which has no outcome yet."""
    values = {"SUCCESS": success, "FAILURE": failure, "PARTIAL": partial}
    return lambda event: pending if event.kind == Kind.INTENT else values[event.status.value]


def users(event: AuditEvent) -> list[str]:
    """The user, as a list of one or none."""
    return [] if event.user_id is None else [event.user_id]


def address(event: AuditEvent) -> str | None:
    """The address of the client, if the metadata has an IP address in one of `ADDRESSES`."""
    for name in ADDRESSES:
        value = event.metadata.get(name)
        if isinstance(value, str):
            try:
                return str(ipaddress.ip_address(value))
            except ValueError:
                continue
    return None


def hexadecimal(name: str, digits: int) -> Value:
    """The member *name* of the metadata, if it is an id of so many hexadecimal digits that are not all zero (W3C)."""
    form = re.compile(f"(?!0*$)[0-9a-f]{{{digits}}}")

    def found(event: AuditEvent) -> str | None:
        value = event.metadata.get(name)
        return value if isinstance(value, str) and form.fullmatch(value) else None

    return found


trace_id = hexadecimal("trace_id", 32)
span_id = hexadecimal("span_id", 16)


def duration(per_ms: int) -> Value:
    """The duration as a whole number, *per_ms* of whose unit are a millisecond; None if 64 bits do not hold it."""

    def found(event: AuditEvent) -> int | None:
        if event.duration_ms is None:
            return None
        value = event.duration_ms * per_ms
        return round(value) if -_LONG < value < _LONG else None

    return found


def microseconds(event: AuditEvent) -> int:
    """The time of the event in microseconds since 1970. Exact."""
    return (utc(event.timestamp) - _EPOCH) // dt.timedelta(microseconds=1)


def milliseconds(event: AuditEvent) -> int:
    """The time of the event in whole milliseconds since 1970."""
    return microseconds(event) // 1_000
