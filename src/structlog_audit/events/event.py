"""The event: `AuditEvent` and the vocabulary of its members.

**Guarantees**

* An operation is a name. Six names are members of `OperationType` and match in any case; any other string is an operation
  too and stays as written. Both compare equal to their string and have ``.value`` and ``.name``.
* An application event has no kind. An event of the library itself has one of `Kind`.
* An `AuditEvent` is an immutable value, and its containers are not shared with the application.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

Identifier = object
"""An id as applications have it: text, an integer, a UUID, an Enum, or an object whose text is an id, such as a ULID.

A value that is none, such as a list, is kept in the metadata and marked."""

OperationName = str | Enum
"""The name of an operation as applications have it; an Enum counts by its value."""

INTENT_ID = "intent_id"
"""The metadata member that links an outcome to the event of its intent."""

EVENT_ID_PATTERN = re.compile(r"evt_[0-9a-f]{32}")
"""The form of the ids that the recorder assigns."""


class OperationType(StrEnum):
    """The six operations of a memory system. Any other string is an operation as well."""

    STORE = "STORE"
    RECALL = "RECALL"
    FORGET = "FORGET"
    COMPACT = "COMPACT"
    EXPORT = "EXPORT"
    IMPORT = "IMPORT"


class EventStatus(StrEnum):
    """The outcome of an operation: success, failure or partial success."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    PARTIAL = "PARTIAL"


class Kind(StrEnum):
    """The kinds of the events of the library.

    Queries omit these unless ``kind=`` selects them.
    """

    INTENT = "intent"
    """An operation that is about to start, recorded before it does."""

    GAP = "gap"
    """The number of events that were lost, in their place."""

    CHECKPOINT = "checkpoint"
    """A signed statement about the trail so far."""

    PART = "part"
    """Further entry ids of the preceding event, which did not fit into its line."""

    TRAIL = "trail"
    """An action of the library on the trail itself."""


class Operation(str):
    """The name of an operation outside the six, with ``.value`` and ``.name``."""

    __slots__ = ()

    @property
    def value(self) -> str:
        """The name, as for a member of `OperationType`."""
        return str.__str__(self)

    @property
    def name(self) -> str:
        """The name, as for a member of `OperationType`."""
        return str.__str__(self)


_OPERATIONS = {member.value: member for member in OperationType}
_STATUSES = {member.value: member for member in EventStatus}


def operation_of(name: str) -> OperationType | Operation:
    """Return the operation called *name*: one of the six in any case, or a new one.

    A name outside the six stays as written.
    """
    return _OPERATIONS.get(name) or _OPERATIONS.get(name.upper()) or Operation(name)


def status_of(name: str) -> EventStatus | None:
    """Return the status called *name* in any case, or None."""
    return _STATUSES.get(name) or _STATUSES.get(name.upper())


def utc(timestamp: dt.datetime) -> dt.datetime:
    """Return *timestamp* in UTC. A naive datetime is local time, as in Python itself.

    ``datetime.min`` and ``datetime.max`` stand for an open end: where local time would exceed the calendar, they are
    taken as UTC.
    """
    try:
        return timestamp.astimezone(dt.UTC)
    except (OverflowError, ValueError):
        return timestamp.replace(tzinfo=dt.UTC)


def rfc3339(timestamp: dt.datetime) -> str:
    """Format *timestamp* in UTC as ``2025-01-15T10:30:45.123456Z``.

    The text always has 27 characters (RFC 3339 §5.6).
    """
    # msgspec omits a fraction of zero; otherwise its text is the same, in a quarter of the time.
    if timestamp.tzinfo is dt.UTC and timestamp.microsecond:
        return msgspec.json.encode(timestamp)[1:-1].decode()

    text = utc(timestamp).isoformat(timespec="microseconds")
    return text[:26] + "Z"


if TYPE_CHECKING:
    AnyOperation = OperationType | Operation
else:
    # msgspec has no schema for a union with a class of ours. A schema of an event is one of its JSON.
    AnyOperation = str


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded fact: a user's operation on entries, its time and its outcome.

    The attributes are those of the export format. ``timestamp`` is aware UTC with microseconds, ``duration_ms`` is in
    milliseconds. Absent members are None, ``[]`` or ``{}``.

    An event is a mapping as well, of the plain JSON values of `to_dict`: for ``json.dumps(events, default=dict)``, pandas,
    pydantic and the encoders of web frameworks.
    """

    event_id: str
    timestamp: dt.datetime
    operation: AnyOperation
    user_id: str | None = None
    session_id: str | None = None
    entry_ids: list[str] = []
    metadata: dict[str, Any] = {}
    status: EventStatus = EventStatus.SUCCESS
    error_message: str | None = None
    duration_ms: float | None = None
    kind: str | None = None

    def __hash__(self) -> int:
        return hash(self.event_id)

    def __getitem__(self, name: str) -> Any:
        return self.to_dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.to_dict())

    def __len__(self) -> int:
        return len(self.to_dict())

    def __contains__(self, name: object) -> bool:
        return name in self.to_dict()

    def keys(self) -> KeysView[str]:
        """Return the names of the members that `to_dict` has."""
        return self.to_dict().keys()

    def items(self) -> ItemsView[str, Any]:
        """Return the names and the plain JSON values of the members."""
        return self.to_dict().items()

    def values(self) -> ValuesView[Any]:
        """Return the plain JSON values of the members."""
        return self.to_dict().values()

    def get(self, name: str, default: Any = None) -> Any:
        """Return the plain JSON value of a member, or *default* if there is none of this name."""
        return self.to_dict().get(name, default)

    def to_dict(self) -> dict[str, Any]:
        """Return the event as a dictionary of plain JSON values, absent members included.

        ``kind`` is present only for the events of the library. The containers are those of the event, not copies.
        """
        members: dict[str, Any] = {
            "event_id": self.event_id,
            "timestamp": rfc3339(self.timestamp),
            "operation": str(self.operation),
            "user_id": self.user_id,
            "session_id": self.session_id,
            "entry_ids": self.entry_ids,
            "metadata": self.metadata,
            "status": str(self.status),
            "error_message": self.error_message,
            "duration_ms": self.duration_ms,
        }
        if self.kind is not None:
            members["kind"] = self.kind

        return members

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: Any) -> Any:
        """Return the schema with which pydantic takes an event as it is, and writes the plain JSON values of `to_dict`."""
        # No dependency of this library: pydantic alone calls this.
        from pydantic_core import core_schema

        fields = {
            name: core_schema.typed_dict_field(handler.generate_schema(kind), required=name != "kind")
            for name, kind in _PLAIN_VALUES.items()
        }
        members = core_schema.typed_dict_schema(fields)
        writer = core_schema.plain_serializer_function_ser_schema(cls.to_dict, return_schema=members)
        return core_schema.is_instance_schema(cls, serialization=writer)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        """Return the JSON schema of the plain values, whichever direction pydantic asks for."""
        return handler(schema["serialization"]["return_schema"])


_PLAIN_VALUES: dict[str, Any] = {
    "event_id": str,
    "timestamp": str,
    "operation": str,
    "user_id": str | None,
    "session_id": str | None,
    "entry_ids": list[str],
    "metadata": dict[str, Any],
    "status": str,
    "error_message": str | None,
    "duration_ms": float | None,
    "kind": str,
}
"""The types of the values in `AuditEvent.to_dict`."""

Mapping.register(AuditEvent)
