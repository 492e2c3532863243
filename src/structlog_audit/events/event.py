"""What an event is.

Rules:

* An operation is a name. Six of them are members of `OperationType`; any other string is an operation too. Both
  compare equal to their string and have ``.value`` and ``.name``.
* The six match in any case, so the lower-case enums of other systems fit. Every other name stays as it is written.
* An ordinary event has no kind. The library's own events have one of `Kind`.
* An `AuditEvent` is a value: changing it is an error, and what its ``metadata`` holds is nobody else's.
"""

from __future__ import annotations

import datetime as dt
import re
from enum import StrEnum
from typing import Any

import msgspec

INTENT_ID = "intent_id"
"""The member of the metadata that says whose outcome an event is."""

EVENT_ID_PATTERN = re.compile(r"evt_[0-9a-f]{32}")
"""The ids that events get from us."""


class OperationType(StrEnum):
    """The six operations of a memory system. Any other string is an operation as well."""

    STORE = "STORE"
    RECALL = "RECALL"
    FORGET = "FORGET"
    COMPACT = "COMPACT"
    EXPORT = "EXPORT"
    IMPORT = "IMPORT"


class EventStatus(StrEnum):
    """The outcome of an operation: it succeeded, failed, or succeeded for a part of what it was asked to do."""

    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    PARTIAL = "PARTIAL"


class Kind(StrEnum):
    """The kinds of the library's own events. Queries leave these out unless asked for them by ``kind=``."""

    INTENT = "intent"
    """What is about to be done, recorded before it is."""

    GAP = "gap"
    """How many events were lost, standing where they would have stood."""

    CHECKPOINT = "checkpoint"
    """A signed statement about the trail so far."""

    PART = "part"
    """More entry ids of the event before it, whose line would have grown too long."""

    TRAIL = "trail"
    """An act of the library on the trail itself."""


class Operation(str):
    """The name of an operation that is not one of the six: a string with ``.value`` and ``.name``."""

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
    """The operation called *name*: one of the six in any case, otherwise the name as it is written."""
    return _OPERATIONS.get(name) or _OPERATIONS.get(name.upper()) or Operation(name)


def status_of(name: str) -> EventStatus | None:
    """The status called *name* in any case, or None if there is none of that name."""
    return _STATUSES.get(name) or _STATUSES.get(name.upper())


def utc(moment: dt.datetime) -> dt.datetime:
    """*moment* in UTC. A naive datetime is local time, as in Python itself.

    The ends of the calendar, where local time would leave it, count as UTC: they are meant as "ever".
    """
    try:
        return moment.astimezone(dt.UTC)
    except (OverflowError, ValueError):
        return moment.replace(tzinfo=dt.UTC)


def rfc3339(moment: dt.datetime) -> str:
    """*moment* in UTC as ``2025-01-15T10:30:45.123456Z``, always 27 characters (RFC 3339 §5.6)."""
    return utc(moment).isoformat(timespec="microseconds")[:26] + "Z"


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded fact: who did which operation on what, when, and how it ended.

    Attributes are those of the export format. ``timestamp`` is aware UTC with microseconds, ``duration_ms``
    milliseconds. Absent members are None, ``[]`` or ``{}``.
    """

    event_id: str
    timestamp: dt.datetime
    operation: OperationType | Operation
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

    def to_dict(self) -> dict[str, Any]:
        """The event as a dictionary of plain JSON values, absent members included.

        ``kind`` is there only for the library's own events. The containers are the event's own, not copies.
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
