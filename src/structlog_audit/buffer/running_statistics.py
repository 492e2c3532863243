"""What the events held amount to, kept up to date as they come and go.

Rules:

* The answers are those of `statistics.statistics`: there they are counted from the events, here from a few numbers of each,
  8 bytes for its duration and 4 for each of the rest. What leaves is subtracted, and never decoded again.
* Nothing is counted before somebody asks for the first time.
* Users, and pairs of an operation and a status, have numbers here. When most of the numbers stand for nobody that is held
  any more, they are given anew: memory stays bounded by the events held.
"""

from __future__ import annotations

import datetime as dt
from array import array
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

from structlog_audit.events.codec import StoredEvent
from structlog_audit.query.statistics import Histogram, average, bucket_of, summary

T = TypeVar("T", bound=Hashable)

_UNTIMED = -(2**31)
"""The bucket of an event without a duration."""


class DictionaryColumn(Generic[T]):
    """A value of each event, told by its number; and how many events have it."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self._values: list[T] = []
        self.each = array("I")
        self.count: Counter[int] = Counter()

    def extend(self, values: Sequence[T]) -> None:
        """Add the *values* of the next events."""
        numbers, known = self._numbers, self._values
        for value in values:
            number = numbers.setdefault(value, len(known))
            if number == len(known):
                known.append(value)
            self.each.append(number)
        self.count.update(self.each[len(self.each) - len(values) :])

    def drop(self, events: int) -> None:
        """Subtract the oldest *events*."""
        self.count.subtract(self.each[:events])
        del self.each[:events]
        self.count = +self.count
        if len(self._values) > 1_000 + 2 * len(self.count):
            values = [self._values[number] for number in self.each]
            self.__init__()  # type: ignore[misc]  # begins anew
            self.extend(values)

    def counted(self) -> Counter[T]:
        """How many events have each value."""
        return Counter({self._values[number]: count for number, count in self.count.items()})

    def value(self, number: int) -> T:
        """The value with this *number*."""
        return self._values[number]


class RunningStatistics:
    """The figures of the events at the positions ``start <= position < stop``. Not thread-safe."""

    def __init__(self) -> None:
        self.start = self.stop = 0
        self._outcomes: DictionaryColumn[tuple[str, str] | None] = (
            DictionaryColumn()
        )  # of an event that is not ordinary: None
        self._users: DictionaryColumn[str | None] = DictionaryColumn()
        self._buckets = array("i")
        self._histogram: Counter[int] = Counter()
        self._durations = array("d")

    def forget(self, first: int) -> None:
        """Drop the events before *first*."""
        gone = min(first, self.stop) - self.start
        if gone > 0:
            self._outcomes.drop(gone)
            self._users.drop(gone)
            self._histogram.subtract(self._buckets[:gone])
            del self._buckets[:gone], self._durations[:gone]
        self.start, self.stop = max(self.start, first), max(self.stop, first)

    def extend(self, start: int, events: Sequence[StoredEvent]) -> None:
        """Count *events*, the first of which is at *start*, which is `stop`."""
        counted = [event.kind is None for event in events]
        pairs = list(zip(events, counted, strict=True))
        self._outcomes.extend([(event.operation, event.status) if counts else None for event, counts in pairs])
        self._users.extend([event.user_id if counts else None for event, counts in pairs])
        durations = [event.duration_ms if counts else None for event, counts in pairs]
        buckets = [_UNTIMED if duration is None else bucket_of(duration) for duration in durations]
        self._durations.extend([duration or 0.0 for duration in durations])
        self._buckets.extend(buckets)
        self._histogram.update(buckets)
        self.stop = start + len(events)

    def statistics(self, time_at: Callable[[int], dt.datetime]) -> dict[str, Any]:
        """The statistics of the ordinary events; *time_at* tells the time of the event at a position. O(n) additions."""
        outcomes = self._outcomes.counted()
        left_out = outcomes.pop(None, 0)
        operations, statuses = Counter[str](), Counter[str]()
        for outcome, count in outcomes.items():
            if outcome is not None:
                operations[outcome[0]] += count
                statuses[outcome[1]] += count
        users = self._users.counted()
        users[None] -= left_out
        histogram = Histogram()
        histogram.buckets = +self._histogram
        histogram.buckets.pop(_UNTIMED, None)
        places = [place for order in (1, -1) if (place := self._first_counted(order)) is not None]
        times: list[dt.datetime | None] = [time_at(place) for place in places]
        times = times or [None]
        average_ms = average(self._durations, histogram.buckets.total())
        return summary(operations, statuses, users, histogram, average_ms, times[0], times[-1])

    def _first_counted(self, order: int) -> int | None:
        """The position of the first ordinary event, or by an *order* of -1 of the last."""
        each = self._outcomes.each
        for place in range(len(each))[::order]:
            if self._outcomes.value(each[place]) is not None:
                return self.start + place
        return None
