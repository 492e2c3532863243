"""Aggregates for a report, computed in one pass over the events in the order of commit.

**Performance**

* Memory grows with the number of distinct users, operations, months and hours, and of open intents, not with the number
  of events. Lists keep the newest `NEWEST` events.
* Texts in lists are cut to `LONGEST` characters, and the entry ids of an event to `MOST_ENTRIES`. The full event can be
  found by its id.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.conversion import has_unknown_status
from structlog_audit.events.event import INTENT_ID, EventStatus, Kind, operation_of, rfc3339
from structlog_audit.events.operation_classes import UNCLASSIFIED, OperationClass, OperationClasses
from structlog_audit.query.activity import Activity, moment_of, time_in
from structlog_audit.query.filters import microseconds
from structlog_audit.query.statistics import Countable, Histogram, Sum
from structlog_audit.reports.formatting import shorten
from structlog_audit.reports.period import floor, month_of

NEWEST = 50
"""Maximum events in a list of a report."""

NEWEST_OF_USER = 200
"""Maximum events in the list of one user's activity. An export has all of them."""

LONGEST = 500
"""Maximum characters of a text in a list of events."""

MOST_ENTRIES = 10
"""Maximum entry ids of an event in a list."""

PERCENTILES = (50, 95, 99)

CLASS_NAMES = (*(found.value for found in OperationClass), UNCLASSIFIED)
"""The classes of operations in figures, in order."""


class OperationAggregate:
    """The outcomes and durations of one operation."""

    __slots__ = ("durations", "statuses", "total_ms")

    def __init__(self) -> None:
        self.statuses: Counter[EventStatus] = Counter()
        self.durations = Histogram()
        self.total_ms = Sum()

    def add(self, event: Countable) -> None:
        """Count *event*."""
        self.statuses[event.status] += 1
        if event.duration_ms is not None:
            self.durations.add(event.duration_ms)
            self.total_ms.add(event.duration_ms)

    def to_dict(self, operation: str, class_name: str) -> dict[str, Any]:
        """Return the row of *operation*, with the names of `query.statistics`."""
        total = self.statuses.total()
        timed = self.durations.buckets.total()
        succeeded = self.statuses[EventStatus.SUCCESS]
        percentiles = {f"p{percent}_duration_ms": self.durations.percentile(percent) for percent in PERCENTILES}
        return {
            "operation": operation,
            "class": class_name,
            "total_events": total,
            "by_status": counts_by_status(self.statuses),
            "success_rate": succeeded / total if total else 1.0,
            "timed_events": timed,
            "avg_duration_ms": self.total_ms.average(timed),
            **percentiles,
        }


def operation_aggregates(activity: Activity) -> defaultdict[str, OperationAggregate]:
    """Return the aggregates of the operations in *activity*, with the six in any case as one."""
    aggregates: defaultdict[str, OperationAggregate] = defaultdict(OperationAggregate)

    for (operation, status), count in activity.outcomes.items():
        aggregates[operation_of(operation).value].statuses[status] += count

    for operation, histogram in activity.durations.items():
        aggregates[operation_of(operation).value].durations.buckets.update(histogram.buckets)

    for operation, total_ms in activity.totals_ms.items():
        aggregates[operation_of(operation).value].total_ms.merge(total_ms)

    return aggregates


class ClassCounts(dict[str, int]):
    """The number of events of each class of operations."""

    __slots__ = ()

    def add(self, counts: Mapping[str, int]) -> None:
        """Add the *counts* of classes."""
        for name, count in counts.items():
            self[name] = self.get(name, 0) + count

    @property
    def total(self) -> int:
        """The number of events."""
        return sum(self.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the number of events, and those of each class that occurs, in the order of classes."""
        by_class = {name: self[name] for name in CLASS_NAMES if name in self}
        return {"total": self.total, "by_class": by_class}


class MonthAggregate:
    """The counts of one month: of each operation, and of each user by the classes of operations."""

    __slots__ = ("operations", "users")

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.users: defaultdict[str | None, ClassCounts] = defaultdict(ClassCounts)


class UserAggregate:
    """The number of a user's events and failures, and the first and the last activity."""

    __slots__ = ("_first", "_last", "failures", "total")

    def __init__(self) -> None:
        self.total = 0
        self.failures = 0
        self._first: int | None = None
        self._last: int | None = None

    def add(self, total: int, failures: int, first: int, last: int) -> None:
        """Count *total* events; *first* and *last* are the `moment_of` two of them."""
        self.total += total
        self.failures += failures
        self._first = first if self._first is None else min(self._first, first)
        self._last = last if self._last is None else max(self._last, last)

    def to_dict(self, user_id: str, counts: Iterable[ClassCounts]) -> dict[str, Any]:
        """Return the row of the user *user_id*, with the *counts* of all months."""
        together = ClassCounts()
        for of_month in counts:
            together.add(of_month)

        return {
            "user_id": user_id,
            **together.to_dict(),
            "failures": self.failures,
            "first_activity": None if self._first is None else rfc3339(time_in(self._first)),
            "last_activity": None if self._last is None else rfc3339(time_in(self._last)),
        }


class RecentEvents:
    """The number of events of a list, and the newest of them."""

    __slots__ = ("entries", "events", "failed", "total")

    def __init__(self, limit: int = NEWEST) -> None:
        self.total = 0
        self.failed = 0
        self.entries = 0
        self.events: deque[StoredEvent] = deque(maxlen=limit)

    def add(self, event: StoredEvent) -> None:
        """Count *event*, and keep it while it is among the newest."""
        self.total += 1
        self.failed += event.status is EventStatus.FAILURE
        self.entries += len(event.entry_ids)
        self.events.append(event)

    def rows(self) -> list[tuple[dict[str, Any], StoredEvent]]:
        """Return the kept events, newest first, each with its row."""
        return [(event_row(event), event) for event in reversed(self.events)]

    def to_dict(self) -> dict[str, Any]:
        """Return the totals of events, failures and entry ids, and the rows of the newest events."""
        newest = [row for row, _ in self.rows()]
        return {"total": self.total, "failed": self.failed, "entries": self.entries, "newest": newest}


class ReportAggregates:
    """All aggregates of a report, with operations in *classes*, and hours and months of *zone*."""

    def __init__(self, classes: OperationClasses, zone: dt.tzinfo = dt.UTC) -> None:
        self.classes = classes
        self.zone = zone
        self.hours: defaultdict[dt.datetime, Counter[EventStatus]] = defaultdict(Counter)

        self.months: defaultdict[str, MonthAggregate] = defaultdict(MonthAggregate)
        self.operations: defaultdict[str, OperationAggregate] = defaultdict(OperationAggregate)
        self.users: defaultdict[str | None, UserAggregate] = defaultdict(UserAggregate)
        self._places = itertools.count()

        self.failures = RecentEvents()
        self.deletions = RecentEvents()
        self.exports = RecentEvents()
        self.activity = RecentEvents(NEWEST_OF_USER)

        self.unknown_status = 0

        self.open_intents: dict[str, StoredEvent] = {}

        self.gaps = RecentEvents()
        self.lost = 0

        self.trail_events = RecentEvents()
        self.trail_operations: Counter[str] = Counter()

    def aggregate(self, events: Iterable[StoredEvent]) -> Iterator[StoredEvent]:
        """Count *events* of any kind, and yield the application events among them."""
        for event in events:
            if event.kind is None:
                self._add(event)
                yield event
            elif event.kind == Kind.INTENT:
                self.open_intents[event.event_id] = event
            elif event.kind == Kind.GAP:
                self.gaps.add(event)
                self.lost += lost_count(event)
            elif event.kind == Kind.TRAIL:
                self.trail_events.add(event)
                self.trail_operations[operation_of(event.operation).value] += 1

    def _add(self, event: StoredEvent) -> None:
        operation = operation_of(event.operation).value
        user_id = event.user_id
        hour = floor(event.timestamp, "hour", self.zone)
        month = self.months[month_of(event.timestamp, self.zone)]
        is_failure = event.status is EventStatus.FAILURE
        moment = moment_of(next(self._places), microseconds(event.timestamp))
        operation_class = self.classes.class_of(operation)

        self.hours[hour][event.status] += 1
        month.operations[operation] += 1
        month.users[user_id].add({operation_class or UNCLASSIFIED: 1})
        self.operations[operation].add(event)
        self.users[user_id].add(1, int(is_failure), moment, moment)

        self.activity.add(event)
        if is_failure:
            self.failures.add(event)
        self.unknown_status += has_unknown_status(event.metadata)

        if operation_class is OperationClass.DELETE:
            self.deletions.add(event)
        elif operation_class is OperationClass.EXPORT:
            self.exports.add(event)

        self.close_intent(event)

    def add_activity(self, activity: Activity) -> None:
        """Add counts of application events; their lists are added one by one."""
        for (hour, status), count in activity.hours.items():
            self.hours[floor(hour, "hour", self.zone)][status] += count

        self.operations = operation_aggregates(activity)

        for counts in activity.users:
            month = self.months[counts.month]
            month.operations.update(counts.operations)
            classes = month.users[counts.user_id]
            for operation, count in counts.operations.items():
                classes.add({class_name(operation, self.classes): count})

            self.users[counts.user_id].add(counts.total, counts.failures, counts.first, counts.last)

    def close_intent(self, event: StoredEvent) -> None:
        """Remove the intent that *event* completes, if any, from the open intents."""
        if not self.open_intents:
            return

        # An application may use this name for a value of another type.
        intent_id = event.metadata.get(INTENT_ID)
        if isinstance(intent_id, str):
            self.open_intents.pop(intent_id, None)


def lost_count(gap: StoredEvent) -> int:
    """Return the number of lost events in *gap*, or 0 if it has no valid number."""
    lost = gap.metadata.get("lost")
    return max(0, lost) if isinstance(lost, int) else 0


def counts_by_status(statuses: Counter[EventStatus]) -> dict[str, int]:
    """Return the count of every status by its name."""
    return {status.value: statuses[status] for status in EventStatus}


def class_name(operation: str, classes: OperationClasses) -> str:
    """Return the class of *operation*, or `UNCLASSIFIED`."""
    return classes.class_of(operation) or UNCLASSIFIED


def event_row(event: StoredEvent) -> dict[str, Any]:
    """Return *event* as a row of a list, with long texts cut.

    ``entries`` is the number of all its entry ids.
    """
    return {
        "event_id": event.event_id,
        "timestamp": rfc3339(event.timestamp),
        "operation": truncated(operation_of(event.operation).value),
        "user_id": truncated(event.user_id),
        "session_id": truncated(event.session_id),
        "status": event.status.value,
        "duration_ms": event.duration_ms,
        "error_message": truncated(event.error_message),
        "entry_ids": [truncated(entry_id) for entry_id in event.entry_ids[:MOST_ENTRIES]],
        "entries": len(event.entry_ids),
    }


def truncated(text: str | None) -> str | None:
    """Return at most `LONGEST` characters of *text*, or None for None."""
    return None if text is None else shorten(text, LONGEST)
