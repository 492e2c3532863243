"""Statistics of the events in the buffer, updated as events come and go.

**Guarantees**: the results equal those of `structlog_audit.query.statistics.statistics`.

**Performance**: the first query counts all events; later ones decode only new events. An event takes 8 bytes for its duration
and 4 for each other value. Evicted events are subtracted without decoding. Users, and pairs of an operation and a status,
are numbered; when most numbers are unused, they are assigned anew, so memory is bounded by the events in the buffer.
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

_UNUSED_LIMIT = 1_000


class DictionaryColumn(Generic[T]):
    """A dictionary-encoded column: the number of a value for each event.

    It counts the events with each number.
    """

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self._values: list[T] = []
        self.encoded = array("I")
        self._counts: Counter[int] = Counter()

    def extend(self, values: Sequence[T]) -> None:
        """Append the *values* of the next events."""
        numbers, known = self._numbers, self._values
        first = len(self.encoded)
        for value in values:
            number = numbers.setdefault(value, len(known))

            # A new value has the next free number.
            if number == len(known):
                known.append(value)
            self.encoded.append(number)

        added = self.encoded[first:]
        self._counts.update(added)

    def drop(self, events: int) -> None:
        """Remove the oldest *events*."""
        self._counts.subtract(self.encoded[:events])
        del self.encoded[:events]

        # Unary plus removes the numbers without events.
        self._counts = +self._counts
        if len(self._values) > _UNUSED_LIMIT + 2 * len(self._counts):
            self._renumber()

    def _renumber(self) -> None:
        """Encode the values anew, without those that have no events."""
        values = [self._values[number] for number in self.encoded]
        self.__init__()  # type: ignore[misc]
        self.extend(values)

    def counts(self) -> Counter[T]:
        """Return the number of events with each value."""
        counts = Counter[T]()
        for number, count in self._counts.items():
            counts[self._values[number]] = count

        return counts

    def value(self, number: int) -> T:
        """Return the value with this *number*."""
        return self._values[number]


class RunningStatistics:
    """The statistics of the events at ``start <= position < stop``.

    Not thread-safe.
    """

    def __init__(self) -> None:
        self.start = self.stop = 0

        # The operation and status of an application event; None for an event of the library itself.
        self._outcomes: DictionaryColumn[tuple[str, str] | None] = DictionaryColumn()
        self._users: DictionaryColumn[str | None] = DictionaryColumn()

        self._buckets = array("i")
        self._bucket_counts: Counter[int] = Counter()
        self._durations = array("d")

    def drop_before(self, first: int) -> None:
        """Remove the events before position *first*."""
        dropped = min(first, self.stop) - self.start
        if dropped > 0:
            self._outcomes.drop(dropped)
            self._users.drop(dropped)

            # Negative counts cannot occur; zero counts remain and are removed by the next query.
            self._bucket_counts.subtract(self._buckets[:dropped])
            del self._buckets[:dropped]
            del self._durations[:dropped]

        self.start = max(self.start, first)
        self.stop = max(self.stop, first)

    def extend(self, start: int, events: Sequence[StoredEvent]) -> None:
        """Count *events*, the first of which is at position *start*, which equals `stop`."""
        outcomes: list[tuple[str, str] | None] = []
        users: list[str | None] = []
        buckets: list[int] = []
        durations: list[float] = []

        for event in events:
            # Events of the library itself are not counted, but keep the columns aligned.
            is_counted = event.kind is None
            outcomes.append((event.operation, event.status) if is_counted else None)
            users.append(event.user_id if is_counted else None)

            duration_ms = event.duration_ms if is_counted else None
            buckets.append(_UNTIMED if duration_ms is None else bucket_of(duration_ms))
            durations.append(duration_ms or 0.0)

        self._outcomes.extend(outcomes)
        self._users.extend(users)
        self._buckets.extend(buckets)
        self._bucket_counts.update(buckets)
        self._durations.extend(durations)
        self.stop = start + len(events)

    def statistics(self, time_at: Callable[[int], dt.datetime]) -> dict[str, Any]:
        """Return the statistics of the application events. O(n) additions.

        Args:
            time_at: Returns the time of the event at a position.
        """
        outcomes = self._outcomes.counts()
        library_events = outcomes.pop(None, 0)

        operations = Counter[str]()
        statuses = Counter[str]()
        for outcome, count in outcomes.items():
            if outcome is not None:
                operation, status = outcome
                operations[operation] += count
                statuses[status] += count

        # The column of users has None for events of the library itself, too.
        users = self._users.counts()
        users[None] -= library_events

        histogram = Histogram()
        histogram.buckets = +self._bucket_counts
        histogram.buckets.pop(_UNTIMED, None)
        average_ms = average(self._durations, histogram.buckets.total())

        positions = [self._outermost_position(step) for step in (1, -1)]
        first, last = [None if position is None else time_at(position) for position in positions]
        return summary(operations, statuses, users, histogram, average_ms, first, last)

    def _outermost_position(self, step: int) -> int | None:
        """Return the position of the first or last application event.

        The last with a *step* of -1, otherwise the first.
        """
        encoded = self._outcomes.encoded
        for offset in range(len(encoded))[::step]:
            if self._outcomes.value(encoded[offset]) is not None:
                return self.start + offset

        return None
