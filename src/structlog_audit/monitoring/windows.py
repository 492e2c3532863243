"""Sliding windows: whether the events of the last minutes exceed a bound, evaluated with each event.

**Semantics**

* Time is the time of the events, in microseconds. An event counts if its time lies within the window's length of the newest
  event's, before it or, after the clock was set back, after it: a clock step blocks a window no longer than its length.
* Exceeding the bound for the first time is a *crossing*, reported once. The window is armed again when, at a later event, its
  content no longer exceeds the bound. Nothing happens between events.
* A count keeps the times of its newest *bound* + 1 events and is exact. A mean keeps 60 slices, each with a count and a sum, so
  its window is up to a sixtieth shorter than its length. Sums are of integers, so no rounding error accumulates.

**Performance**: O(1) amortised per event. Memory is bounded by the bound of a count, and by the slices of a mean.
"""

from __future__ import annotations

from collections import deque

SLICES = 60
"""The number of slices of a mean's window."""


class Window:
    """The part that all windows share: when a crossing is reported.

    Args:
        within: The length in microseconds.
        quiet: Microseconds after a reported crossing in which no other is reported; the next event after them reports it.
    """

    __slots__ = ("_armed", "_quiet", "_reported_at", "_within")

    def __init__(self, within: int, quiet: int) -> None:
        self._within = within
        self._quiet = quiet
        self._armed = True
        self._reported_at: int | None = None

    def _report_crossing(self, timestamp: int) -> bool:
        """Return whether exceeding the bound at *timestamp* is to be reported, and note that it is."""
        if self._reported_at is not None and 0 <= timestamp - self._reported_at < self._quiet:
            return False

        self._armed = False
        self._reported_at = timestamp
        return True


class CountWindow(Window):
    """A window that reports more than *bound* events. The other arguments are those of `Window`."""

    __slots__ = ("_timestamps", "size")

    def __init__(self, within: int, quiet: int, bound: int) -> None:
        super().__init__(within, quiet)
        self.size = bound + 1
        """The number of events, at least, when the window reports a crossing."""
        self._timestamps: deque[int] = deque(maxlen=self.size)

    def add(self, timestamp: int, value: int = 1) -> bool:
        """Add an event and return whether it is a crossing to report."""
        timestamps = self._timestamps
        within = self._within

        if len(timestamps) == self.size:
            # The bound is exceeded while the oldest of the kept events lies in the window.
            if not self._armed and not -within <= timestamp - timestamps[0] <= within:
                self._armed = True
            timestamps.append(timestamp)
        else:
            timestamps.append(timestamp)
            if len(timestamps) != self.size:
                return False

        exceeds = -within <= timestamp - timestamps[0] <= within
        return self._armed and exceeds and self._report_crossing(timestamp)

    def is_over(self, timestamp: int) -> bool:
        """Return whether no event in the window counts any more at *timestamp*."""
        if not self._timestamps:
            return True
        return abs(timestamp - self._timestamps[-1]) > max(self._within, self._quiet)


class MeanWindow(Window):
    """A window that reports a mean of integers beyond *bound*. The other arguments are those of `Window`.

    Args:
        bound: The limit of the mean.
        below: Whether a mean less than the bound is reported; otherwise a greater one.
        min_events: The number of events needed before the mean is compared.
    """

    __slots__ = ("_below", "_bound", "_min_events", "_slice_width", "_slices", "_sum", "size")

    def __init__(self, within: int, quiet: int, bound: float, below: bool, min_events: int) -> None:
        super().__init__(within, quiet)
        self._bound = bound
        self._below = below
        self._min_events = min_events
        self._slice_width = within // SLICES
        # The number, the count and the sum of each slice, in order of arrival.
        self._slices: deque[list[int]] = deque()
        self.size = 0
        self._sum = 0

    def add(self, timestamp: int, value: int = 1) -> bool:
        """Add an event with *value* and return whether it is a crossing to report."""
        number = timestamp // self._slice_width
        slices = self._slices
        if not slices or slices[-1][0] != number:
            self._begin_slice(number)

        if not self._armed and not self._exceeds_bound():
            self._armed = True

        newest = slices[-1]
        newest[1] += 1
        newest[2] += value
        self.size += 1
        self._sum += value

        return self._armed and self._exceeds_bound() and self._report_crossing(timestamp)

    def _begin_slice(self, number: int) -> None:
        """Begin the slice *number* and drop those too far from it; an oscillating clock cannot make more."""
        slices = self._slices
        while slices and (abs(number - slices[0][0]) >= SLICES or len(slices) >= SLICES):
            _, count, total = slices.popleft()
            self.size -= count
            self._sum -= total
        slices.append([number, 0, 0])

    def _exceeds_bound(self) -> bool:
        if self.size < self._min_events:
            return False

        mean = self._sum / self.size
        return mean < self._bound if self._below else mean > self._bound

    def is_over(self, timestamp: int) -> bool:
        """Return whether no event in the window counts any more at *timestamp*."""
        if not self._slices:
            return True

        distance = abs(timestamp // self._slice_width - self._slices[-1][0]) * self._slice_width
        return distance > max(self._within, self._quiet)

    @property
    def mean(self) -> float:
        """The mean of the values in the window, which holds at least one."""
        return self._sum / self.size
