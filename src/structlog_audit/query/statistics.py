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
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, Protocol

from structlog_audit.events.event import EventStatus, OperationType, operation_of

_GROWTH = math.log(1.02)
_LEAST = 1e-6
_LEAST_EXPONENT = 1_074


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


class Sum:
    """The exact sum of durations, in bounded memory: in whole units of the least number there is, 2⁻¹⁰⁷⁴."""

    def __init__(self, durations: Iterable[float] = ()) -> None:
        self._units = 0
        for duration in durations:
            self.add(duration)

    def add(self, duration_ms: float) -> None:
        """Add a duration."""
        numerator, denominator = duration_ms.as_integer_ratio()  # the latter is a power of two
        self._units += numerator << (_LEAST_EXPONENT - denominator.bit_length() + 1)

    def average(self, count: int) -> float:
        """The average of *count* durations; 0.0 if there are none."""
        try:
            return self._units / (1 << _LEAST_EXPONENT) / count if count else 0.0
        except OverflowError:  # the sum is no float; the average is
            return self._units / (count << _LEAST_EXPONENT)


def average(durations: Iterable[float], count: int) -> float:
    """The same average at once, of *durations* that can be gone through twice."""
    try:
        return math.fsum(durations) / count if count else 0.0
    except OverflowError:
        return Sum(durations).average(count)


def statistics(events: Iterable[Countable]) -> dict[str, Any]:
    """The statistics of *events*, which come in the order of commit. O(number of events).

    ``total_events``, ``success_rate``, ``avg_duration_ms``, ``p50_duration_ms``, ``p95_duration_ms``,
    ``p99_duration_ms``, ``by_operation``, ``by_status``, ``by_user`` (events without a user are left out of it and
    counted in ``without_user``), ``first_event`` and ``last_event`` (times in UTC, or None).
    """
    operations, statuses, users = Counter[str](), Counter[str](), Counter[str | None]()
    histogram, total_ms = Histogram(), Sum()
    first = last = None
    for event in events:
        operations[event.operation] += 1
        statuses[event.status] += 1
        users[event.user_id] += 1
        if event.duration_ms is not None:
            histogram.add(event.duration_ms)
            total_ms.add(event.duration_ms)
        first, last = first or event.timestamp, event.timestamp
    average_ms = total_ms.average(histogram.buckets.total())
    return summary(operations, statuses, users, histogram, average_ms, first, last)


def summary(
    operations: Counter[str],
    statuses: Counter[str],
    users: Counter[str | None],
    histogram: Histogram,
    average_ms: float,
    first: dt.datetime | None,
    last: dt.datetime | None,
) -> dict[str, Any]:
    """The statistics that `statistics` gives, of events that were counted already."""
    total = statuses.total()
    without_user = users.pop(None, 0)
    return {
        "total_events": total,
        "success_rate": statuses[EventStatus.SUCCESS] / total if total else 1.0,
        "avg_duration_ms": average_ms,
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
