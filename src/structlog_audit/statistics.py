"""What a set of events amounts to.

Rules:

* ``success_rate`` is SUCCESS / total; without events it is 1.0 and durations are 0.0.
* Durations are averaged over the events that have one, in milliseconds; their sum is exact, whatever their order.
* Percentiles come from a histogram whose buckets grow by 2 %: the error is at most 1 %, two histograms add up to that of
  both, and any engine computes the same one (bucket = ⌈ln(max(d, 10⁻⁶)) / ln 1.02⌉). A percentile p of n durations is
  the one of rank ⌈p·n/100⌉ (nearest rank).
* Every one of the six operations and every status is counted, if only as zero.
"""

from __future__ import annotations

import datetime as dt
import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Protocol

from structlog_audit.event import EventStatus, OperationType, operation_of

_GROWTH = math.log(1.02)
_LEAST = 1e-6


class Countable(Protocol):
    """What is counted: anything with the members of an event."""

    @property
    def timestamp(self) -> dt.datetime: ...
    @property
    def operation(self) -> str: ...
    @property
    def status(self) -> EventStatus: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def duration_ms(self) -> float | None: ...


def bucket_of(duration_ms: float) -> int:
    """The bucket of a duration. Zero and less count as a nanosecond."""
    return math.ceil(math.log(max(duration_ms, _LEAST)) / _GROWTH)


class Histogram:
    """Durations by bucket. See the rules of this module."""

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()

    def add(self, duration_ms: float) -> None:
        """Count a duration."""
        self.buckets[bucket_of(duration_ms)] += 1

    def percentile(self, percent: float) -> float:
        """The duration of which *percent* (0 to 100) of all are not longer; 0.0 if there are none. O(buckets)."""
        rank = max(1, math.ceil(percent * self.buckets.total() / 100))
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                return math.exp((bucket - 0.5) * _GROWTH)
        return 0.0


def statistics(events: Iterable[Countable]) -> dict[str, Any]:
    """The statistics of *events*, which come in the order of commit. O(number of events).

    ``total_events``, ``success_rate``, ``avg_duration_ms``, ``p50_duration_ms``, ``p95_duration_ms``,
    ``p99_duration_ms``, ``by_operation``, ``by_status``, ``by_user`` (events without a user are left out of it and
    counted in ``without_user``), ``first_event`` and ``last_event`` (times in UTC, or None).
    """
    operations, statuses, users = Counter[str](), Counter[str](), Counter[str | None]()
    histogram, durations = Histogram(), array("d")
    first = last = None
    for event in events:
        operations[event.operation] += 1
        statuses[event.status] += 1
        users[event.user_id] += 1
        if event.duration_ms is not None:
            histogram.add(event.duration_ms)
            durations.append(event.duration_ms)
        first, last = first or event.timestamp, event.timestamp
    return summary(operations, statuses, users, histogram, durations, first, last)


def summary(
    operations: Counter[str],
    statuses: Counter[str],
    users: Counter[str | None],
    histogram: Histogram,
    durations: Iterable[float],
    first: dt.datetime | None,
    last: dt.datetime | None,
) -> dict[str, Any]:
    """The statistics that `statistics` gives, of events that were counted already."""
    total, timed = statuses.total(), histogram.buckets.total()
    without_user = users.pop(None, 0)
    return {
        "total_events": total,
        "success_rate": statuses[EventStatus.SUCCESS] / total if total else 1.0,
        "avg_duration_ms": math.fsum(durations) / timed if timed else 0.0,
        **{f"p{percent}_duration_ms": histogram.percentile(percent) for percent in (50, 95, 99)},
        "by_operation": {member.value: 0 for member in OperationType} | _texts(operations),
        "by_status": {member.value: statuses[member] for member in EventStatus},
        "by_user": _texts(users),
        "without_user": without_user,
        "first_event": first,
        "last_event": last,
    }


class _User:
    """Counts the events of one user."""

    __slots__ = ("last", "operations", "succeeded")

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.succeeded = 0
        self.last: dt.datetime | None = None

    def add(self, event: Countable) -> None:
        self.operations[event.operation] += 1
        self.succeeded += event.status is EventStatus.SUCCESS
        self.last = event.timestamp

    def statistics(self) -> dict[str, Any]:
        total = self.operations.total()
        most_common = self.operations.most_common(1)
        return {
            "total_operations": total,
            "last_activity": self.last,
            "most_common_operation": operation_of(most_common[0][0]) if most_common else None,
            "success_rate": self.succeeded / total if total else 1.0,
            "by_operation": _texts(self.operations),
        }


def user_statistics(events: Iterable[Countable]) -> dict[str, Any]:
    """The statistics of one user's *events*: ``total_operations``, ``last_activity`` and ``most_common_operation``.

    Beyond: ``success_rate`` and ``by_operation``. An unknown user has 0, None and None. Of operations equally common
    the one that came first counts.
    """
    user = _User()
    for event in events:
        user.add(event)
    return user.statistics()


def statistics_by_user(events: Iterable[Countable]) -> dict[str | None, dict[str, Any]]:
    """The statistics of each user in *events*, as `user_statistics` has them; None is for the events without one.

    One pass; memory grows with the number of users and of their operations.
    """
    users: defaultdict[str | None, _User] = defaultdict(_User)
    for event in events:
        users[event.user_id].add(event)
    return {name: user.statistics() for name, user in users.items()}


def _texts(counted: Counter[Any]) -> dict[str, int]:
    """The counts by plain text, the most common first."""
    return {str(name): count for name, count in counted.most_common()}
