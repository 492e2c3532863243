"""The counting behind a report: one pass over events, the oldest first.

Rules:

* Memory grows with the number of distinct users, operations, months and hours, and with the intents that are open at once; not
  with the number of events. Of failures, deletions, exports and own acts the newest are kept, `NEWEST` of each.
* Texts of events that are kept are cut to `LONGEST` characters, and the entries of one to `MOST_ENTRIES`. The id of the event
  leads to the whole.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from typing import Any

from structlog_audit.events.event import INTENT_ID, AuditEvent, EventStatus, Kind, OperationType, rfc3339
from structlog_audit.query.statistics import Histogram, Sum
from structlog_audit.reports.formatting import shortened
from structlog_audit.reports.period import month_of

NEWEST = 50
"""Events of one list of a report, at most: what a person reads."""

NEWEST_OF_USER = 200
"""Events of the user whom a report is about, at most. The whole is an export's."""

LONGEST = 500
"""Characters of a text of an event in a list."""

MOST_ENTRIES = 10
"""Entry ids of an event in a list."""

ANONYMOUS = "anonymous"
"""Whom the monthly figures count events without a user to, as the memory SDK's page does."""


class OperationTally:
    """Counts of one operation."""

    __slots__ = ("durations", "statuses", "total_ms")

    def __init__(self) -> None:
        self.statuses: Counter[EventStatus] = Counter()
        self.durations = Histogram()
        self.total_ms = Sum()

    def add(self, event: AuditEvent) -> None:
        """Count *event*."""
        self.statuses[event.status] += 1
        if event.duration_ms is not None:
            self.durations.add(event.duration_ms)
            self.total_ms.add(event.duration_ms)

    def to_dict(self, operation: str) -> dict[str, Any]:
        """The row of *operation*: its name, and members as in `structlog_audit.query.statistics`."""
        total, timed = self.statuses.total(), self.durations.buckets.total()
        return {
            "operation": operation,
            "total_events": total,
            "by_status": by_status(self.statuses),
            "success_rate": self.statuses[EventStatus.SUCCESS] / total if total else 1.0,
            "timed_events": timed,
            "avg_duration_ms": self.total_ms.average(timed),
            **{f"p{percent}_duration_ms": self.durations.percentile(percent) for percent in (50, 95, 99)},
        }


class UserTally:
    """Counts of one user."""

    __slots__ = ("failures", "first", "last", "operations")

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.failures = 0
        self.first: dt.datetime | None = None
        self.last: dt.datetime | None = None

    def add(self, event: AuditEvent) -> None:
        """Count *event*."""
        self.operations[event.operation.value] += 1
        self.failures += event.status is EventStatus.FAILURE
        self.first = self.first or event.timestamp
        self.last = event.timestamp

    def to_dict(self, user_id: str | None) -> dict[str, Any]:
        """The row of the user *user_id*."""
        return {
            "user_id": user_id,
            **activity(self.operations),
            "failures": self.failures,
            "first_activity": None if self.first is None else rfc3339(self.first),
            "last_activity": None if self.last is None else rfc3339(self.last),
        }


class Newest:
    """How many events there were, and the newest of them."""

    __slots__ = ("entries", "events", "total")

    def __init__(self, most: int = NEWEST) -> None:
        self.total = 0
        self.entries = 0
        self.events: deque[AuditEvent] = deque(maxlen=most)

    def add(self, event: AuditEvent) -> None:
        """Count *event*, and keep it for as long as it is among the newest."""
        self.total += 1
        self.entries += len(event.entry_ids)
        self.events.append(event)

    def rows(self) -> list[tuple[dict[str, Any], AuditEvent]]:
        """The newest events, the newest first, each as a row too."""
        return [(brief(event), event) for event in reversed(self.events)]

    def to_dict(self) -> dict[str, Any]:
        """The numbers of events and of the entries they name, and the newest events."""
        return {"total": self.total, "entries": self.entries, "newest": [row for row, _ in self.rows()]}


class Figures:
    """Everything that is counted in the pass."""

    def __init__(self) -> None:
        self.hours: defaultdict[dt.datetime, Counter[EventStatus]] = defaultdict(Counter)
        self.months: defaultdict[str, defaultdict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
        self.operations: defaultdict[str, OperationTally] = defaultdict(OperationTally)
        self.users: defaultdict[str | None, UserTally] = defaultdict(UserTally)
        self.failures, self.deletions, self.exports = Newest(), Newest(), Newest()
        self.everything = Newest(NEWEST_OF_USER)
        self.intents: dict[str, AuditEvent] = {}
        self.gaps, self.own_acts = Newest(), Newest()
        self.acts: Counter[str] = Counter()
        self.lost = 0

    def counted(self, events: Iterable[AuditEvent]) -> Iterator[AuditEvent]:
        """Count *events*, of whatever kind, and hand on the ordinary ones."""
        for event in events:
            if event.kind is None:
                self._add(event)
                yield event
            elif event.kind == Kind.INTENT:
                self.intents[event.event_id] = event
            elif event.kind == Kind.GAP:
                self.gaps.add(event)
                self.lost += lost_in(event)
            elif event.kind == Kind.TRAIL:
                self.own_acts.add(event)
                self.acts[event.operation.value] += 1

    def _add(self, event: AuditEvent) -> None:
        moment, operation, user_id = event.timestamp, event.operation.value, event.user_id
        self.hours[moment.replace(minute=0, second=0, microsecond=0)][event.status] += 1
        self.months[month_of(moment)][user_id or ANONYMOUS][operation] += 1
        self.operations[operation].add(event)
        self.users[user_id].add(event)
        self.everything.add(event)
        if event.status is EventStatus.FAILURE:
            self.failures.add(event)
        if operation == OperationType.FORGET:
            self.deletions.add(event)
        elif operation == OperationType.EXPORT:
            self.exports.add(event)
        if self.intents:
            self.outcome(event)

    def outcome(self, event: AuditEvent) -> None:
        """Close the intent whose outcome *event* is, if it is one."""
        intent_id = event.metadata.get(INTENT_ID)
        if isinstance(intent_id, str):  # an application may mean something else by that name
            self.intents.pop(intent_id, None)


def lost_in(gap: AuditEvent) -> int:
    """How many events *gap* stands for; 0 if it does not say."""
    lost = gap.metadata.get("lost")
    return max(0, lost) if isinstance(lost, int) else 0


def by_status(statuses: Counter[EventStatus]) -> dict[str, int]:
    """The count of every status, by its name."""
    return {member.value: statuses[member] for member in EventStatus}


def activity(operations: Counter[str]) -> dict[str, int]:
    """What somebody did, by the names of the memory SDK's page."""
    return {
        "total": operations.total(),
        "stores": operations[OperationType.STORE],
        "recalls": operations[OperationType.RECALL],
        "deletions": operations[OperationType.FORGET],
    }


def brief(event: AuditEvent) -> dict[str, Any]:
    """*event* as a row of a list: cut, as the rules of this module say. ``entries`` says how many entries it names."""
    return {
        "event_id": event.event_id,
        "timestamp": rfc3339(event.timestamp),
        "operation": cut(event.operation.value),
        "user_id": cut(event.user_id),
        "session_id": cut(event.session_id),
        "status": event.status.value,
        "duration_ms": event.duration_ms,
        "error_message": cut(event.error_message),
        "entry_ids": [cut(entry_id) for entry_id in event.entry_ids[:MOST_ENTRIES]],
        "entries": len(event.entry_ids),
    }


def cut(text: str | None) -> str | None:
    """*text*, of at most `LONGEST` characters."""
    return None if text is None else shortened(text, LONGEST)
