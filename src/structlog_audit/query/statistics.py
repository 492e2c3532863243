"""Statistics of a set of events, computed alike by every event source.

**Definitions**

* ``success_rate`` is SUCCESS / total. Without events it is 1.0, and durations are 0.0.
* Durations are averaged over the events that have one, in milliseconds. Their sum is exact, in any order.
* Percentiles come from a histogram with logarithmic buckets, as in DDSketch (Masson, Rim and Lee, VLDB 2019): buckets grow
  by 2 %, so the error is at most 1 %. Histograms can be added, and any engine computes the same bucket:
  ⌈ln(max(d, 10⁻⁶)) / ln 1.02⌉. Percentile p of n durations is the one of rank ⌈p·n/100⌉ (nearest rank).
* Each of the memory SDK's six operations and each status is counted, if only as zero.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import ceil, log
from operator import itemgetter
from typing import Any, NotRequired, Protocol, TypedDict

from structlog_audit.events.event import EventStatus, Operation, OperationType, operation_of
from structlog_audit.events.event_lists import lists_of

_BATCH = 64
"""The events that are counted at once, if they come one by one: they fit into the cache of a processor."""

LOG_GROWTH = math.log(1.02)
"""The logarithm of the ratio between neighbouring buckets."""

_SHARED_NAMES = 1_024
"""The operations whose texts the statistics of users share."""

_SHORTEST_MS = 1e-6
_SMALLEST_EXPONENT = 1_074
"""The smallest positive float is 2⁻¹⁰⁷⁴ (IEEE 754, binary64)."""


class Statistics(TypedDict):
    """The statistics of a set of events. Times are in UTC, durations in milliseconds."""

    total_events: int
    success_rate: float
    avg_duration_ms: float
    p50_duration_ms: float
    p95_duration_ms: float
    p99_duration_ms: float
    by_operation: dict[str, int]
    by_status: dict[str, int]
    by_user: dict[str, int]
    without_user: int
    first_event: dt.datetime | None
    last_event: dt.datetime | None
    complete_since: dt.datetime | None

    # The counters of a handler's lifetime; other sources have none.
    accepted: NotRequired[int]
    recorded: NotRequired[int]
    pending: NotRequired[int]
    raised: NotRequired[int]
    lost: NotRequired[int]
    evicted: NotRequired[int]


class UserStatistics(TypedDict):
    """The statistics of one user's events."""

    total_operations: int
    last_activity: dt.datetime | None
    most_common_operation: str | None
    success_rate: float
    by_operation: dict[str, int]


class Countable(Protocol):
    """The members of an event that statistics read."""

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
    """Return the bucket of a duration. Zero and negative durations count as a nanosecond."""
    return ceil(log(duration_ms if duration_ms > _SHORTEST_MS else _SHORTEST_MS) / LOG_GROWTH)


class Histogram:
    """Durations by logarithmic bucket; the module's documentation defines the buckets."""

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()

    def add(self, duration_ms: float) -> None:
        """Count a duration."""
        self.buckets[bucket_of(duration_ms)] += 1

    def add_all(self, durations: Iterable[float]) -> None:
        """Count *durations*: `bucket_of` each, without a call."""
        growth = LOG_GROWTH
        least = _SHORTEST_MS
        self.buckets.update([ceil(log(each if each > least else least) / growth) for each in durations])

    def percentile(self, percent: float) -> float:
        """Return the duration that *percent* (0 to 100) of all do not exceed, or 0.0 without any. O(buckets)."""
        rank = max(1, math.ceil(percent * self.buckets.total() / 100))
        for bucket in sorted(self.buckets):
            rank -= self.buckets[bucket]
            if rank <= 0:
                return math.exp((bucket - 0.5) * LOG_GROWTH)
        return 0.0


class Sum:
    """An exact sum of durations in bounded memory: an integer in units of 2⁻¹⁰⁷⁴ ms."""

    def __init__(self, durations: Iterable[float] = ()) -> None:
        # The sums of the numerators, which stay short numbers, by denominator.
        self._numerators: defaultdict[int, int] = defaultdict(int)
        self.add_all(durations)

    def add(self, duration_ms: float) -> None:
        """Add a duration."""
        self.add_all((duration_ms,))

    def add_all(self, durations: Iterable[float]) -> None:
        """Add *durations*."""
        numerators = self._numerators
        for duration in durations:
            numerator, denominator = duration.as_integer_ratio()
            numerators[denominator] += numerator

    def add_scaled(self, numerator: int, denominator: int) -> None:
        """Add a sum of durations, *numerator* / *denominator* ms. The denominator is a power of two up to 2¹⁰⁷⁴."""
        self._numerators[denominator] += numerator

    def merge(self, other: Sum) -> None:
        """Add the durations of *other*."""
        for denominator, numerator in other._numerators.items():
            self._numerators[denominator] += numerator

    @property
    def _units(self) -> int:
        # The denominator of a float is a power of two, so scaling it to the unit is a shift.
        units = 0
        for denominator, numerator in self._numerators.items():
            units += numerator << (_SMALLEST_EXPONENT - denominator.bit_length() + 1)
        return units

    def average(self, count: int) -> float:
        """Return the average of *count* durations, or 0.0 if *count* is 0."""
        if not count:
            return 0.0

        units = self._units
        try:
            return units / (1 << _SMALLEST_EXPONENT) / count
        except OverflowError:
            # The sum exceeds the range of a float; the average does not.
            return units / (count << _SMALLEST_EXPONENT)


def average(durations: Iterable[float], count: int) -> float:
    """Return the exact average of *durations*, an iterable that can be read twice."""
    if not count:
        return 0.0
    try:
        return math.fsum(durations) / count
    except OverflowError:
        return Sum(durations).average(count)


def statistics(events: Iterable[Countable]) -> dict[str, Any]:
    """Return the statistics of *events*, which are in the order of commit. O(number of events).

    The keys are ``total_events``, ``success_rate``, ``avg_duration_ms``, ``p50_duration_ms``, ``p95_duration_ms``,
    ``p99_duration_ms``, ``by_operation``, ``by_status``, ``by_user`` (without the events that have no user, which
    ``without_user`` counts), ``first_event`` and ``last_event`` (times in UTC, or None).
    """
    operations: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    users: Counter[str | None] = Counter()
    histogram = Histogram()
    total_ms = Sum()
    first = last = None

    # Members are counted a batch at a time: to count a list takes a fraction of the time of a loop.
    for batch in filter(None, lists_of(events, _BATCH)):
        operations.update([event.operation for event in batch])
        users.update([event.user_id for event in batch])
        _count_statuses(statuses, [event.status for event in batch])

        durations = [duration for event in batch if (duration := event.duration_ms) is not None]
        histogram.add_all(durations)
        total_ms.add_all(durations)

        last = batch[-1].timestamp
        if first is None:
            first = batch[0].timestamp

        # Not kept while the next ones are decoded, which reuses their memory.
        del batch

    average_ms = total_ms.average(histogram.buckets.total())
    return summary(operations, statuses, users, histogram, average_ms, first, last)


def _count_statuses(statuses: Counter[str], found: list[EventStatus]) -> None:
    """Add the statuses *found*. They are compared and not hashed: the hash of an Enum's member is a call."""
    unknown = len(found)
    for status in EventStatus:
        count = found.count(status)
        statuses[status] += count
        unknown -= count

    # An application may have made an event with another text.
    if unknown:
        statuses.update([status for status in found if status not in frozenset(EventStatus)])


def canonical_counts(operations: Mapping[str, int]) -> Counter[str]:
    """Return the counts of *operations*, which may be one of the six in any case, by their names."""
    counts: Counter[str] = Counter()
    for name, count in operations.items():
        counts[operation_of(name)] += count
    return counts


def summary(
    operations: Counter[str],
    statuses: Counter[str],
    users: Counter[str | None],
    histogram: Histogram,
    average_ms: float,
    first: dt.datetime | None,
    last: dt.datetime | None,
) -> dict[str, Any]:
    """Return the dictionary of `statistics` for events that are counted already."""
    total = statuses.total()
    without_user = users.pop(None, 0)
    percentiles = {f"p{percent}_duration_ms": histogram.percentile(percent) for percent in (50, 95, 99)}
    return {
        "total_events": total,
        "success_rate": statuses[EventStatus.SUCCESS] / total if total else 1.0,
        "avg_duration_ms": average_ms,
        **percentiles,
        "by_operation": {member.value: 0 for member in OperationType} | counts_by_text(canonical_counts(operations)),
        "by_status": {member.value: statuses[member] for member in EventStatus},
        "by_user": counts_by_text(users),
        "without_user": without_user,
        "first_event": first,
        "last_event": last,
    }


class UserCounts:
    """The counts of one user's events."""

    __slots__ = ("last", "operations", "succeeded")

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.succeeded = 0
        self.last: dt.datetime | None = None

    def add(self, event: Countable) -> None:
        """Count *event*, the newest of the user so far."""
        self.operations[event.operation] += 1
        self.succeeded += event.status is EventStatus.SUCCESS
        self.last = event.timestamp

    def statistics(self) -> UserStatistics:
        """Return the dictionary of `user_statistics`."""
        return user_summary(self.operations, self.succeeded, self.last)


def user_summary(counted: Mapping[str, int], succeeded: int, last: dt.datetime | None) -> UserStatistics:
    """Return the dictionary of `user_statistics` for events that are counted already, operations by their first time."""
    counts: dict[str, int] = {}
    for name, count in counted.items():
        text, _ = _shared(name)
        counts[text] = counts.get(text, 0) + count

    ranked = sorted(counts.items(), key=_count, reverse=True)
    total = sum(counts.values())
    return {
        "total_operations": total,
        "last_activity": last,
        "most_common_operation": _shared(ranked[0][0])[1] if ranked else None,
        "success_rate": succeeded / total if total else 1.0,
        "by_operation": dict(ranked),
    }


_count = itemgetter(1)


@lru_cache(_SHARED_NAMES)
def _shared(name: str) -> tuple[str, OperationType | Operation]:
    """Return the text and the operation of a name, the same objects for all users: copies would be most of an answer."""
    operation = operation_of(name)

    return operation.value, operation


def user_statistics(events: Iterable[Countable]) -> UserStatistics:
    """Return the statistics of one user's *events*.

    The keys are ``total_operations``, ``last_activity``, ``most_common_operation``, ``success_rate`` and
    ``by_operation``. An unknown user has 0, None, None, 1.0 and {}. Among equally common operations the one that
    occurred first counts.
    """
    user = UserCounts()
    for event in events:
        user.add(event)
    return user.statistics()


def statistics_by_user(events: Iterable[Countable]) -> dict[str | None, UserStatistics]:
    """Return the statistics of each user, as `user_statistics` has them; the key None is for events without a user.

    One pass over *events*. Memory grows with the number of users and of their operations.
    """
    users: defaultdict[str | None, UserCounts] = defaultdict(UserCounts)
    for event in events:
        users[event.user_id].add(event)

    # The counts and the answer together would take twice the memory.
    return {name: users.pop(name).statistics() for name in list(users)}


def counts_by_text(counted: Mapping[Any, int]) -> dict[str, int]:
    """Return the counts by plain text, the most common first, and equally common ones by name."""
    rows = [(str(name), count) for name, count in counted.items()]
    rows.sort()
    rows.sort(key=_count, reverse=True)

    return dict(rows)
