"""Sliding windows: whether what lies in the last so many minutes is beyond a bound, asked with each event that comes.

Rules:

* Time is what the events say, in microseconds. Of a window's events those count whose time lies within its length of the
  time of the event that comes, before it or, after the clock was set back, behind it: no step of a clock makes a window blind
  or blocks it for longer than its length.
* Beyond the bound for the first time is a *crossing*, and told once. The window is armed again when, at the coming of an
  event, what lies in it is not beyond the bound any more. Nothing happens between events.
* A count keeps the times of its newest *bound* + 1 events and is exact. A mean keeps 60 slices with a count and a sum each; its
  window is up to a sixtieth shorter than its length. Sums are of whole numbers, so nothing drifts.
* O(1) amortised per event; memory is bounded by the bound of a count, and by the slices of a mean.
"""

from __future__ import annotations

from collections import deque

SLICES = 60
"""Into which the window of a mean is divided."""


class Window:
    """What is common to windows: when a crossing is told.

    Args:
        within: The length in microseconds.
        quiet: Microseconds after a crossing was told in which no other is; the next event after them tells it.
    """

    __slots__ = ("_armed", "_quiet", "_told", "_within")

    def __init__(self, within: int, quiet: int) -> None:
        self._within = within
        self._quiet = quiet
        self._armed = True
        self._told: int | None = None

    def _crosses(self, moment: int) -> bool:
        """Whether being beyond the bound at *moment* is to be told."""
        if self._told is not None and 0 <= moment - self._told < self._quiet:
            return False
        self._armed, self._told = False, moment
        return True


class CountWindow(Window):
    """Tells when there are more than *bound* events in it. Other arguments as of `Window`."""

    __slots__ = ("_moments", "size")

    def __init__(self, within: int, quiet: int, bound: int) -> None:
        super().__init__(within, quiet)
        self.size = bound + 1
        """How many events there are in it, at least, when it tells a crossing."""
        self._moments: deque[int] = deque(maxlen=self.size)

    def add(self, moment: int, value: int = 1) -> bool:
        """Take an event; whether that is a crossing to be told."""
        moments, within = self._moments, self._within
        if len(moments) == self.size:  # beyond the bound, if the oldest of them lies in the window
            if not self._armed and not -within <= moment - moments[0] <= within:
                self._armed = True
            moments.append(moment)
        else:
            moments.append(moment)
            if len(moments) != self.size:
                return False
        return self._armed and -within <= moment - moments[0] <= within and self._crosses(moment)

    def is_over(self, moment: int) -> bool:
        """Whether nothing in it counts any more at *moment*."""
        return not self._moments or abs(moment - self._moments[-1]) > max(self._within, self._quiet)


class MeanWindow(Window):
    """Tells when the mean of whole numbers lies beyond *bound*. Other arguments as of `Window`.

    Args:
        bound: What the mean may be.
        below: Whether a mean less than the bound is beyond it, and not one that is more.
        min_events: Events that there must be for the mean to say anything.
    """

    __slots__ = ("_below", "_bound", "_min_events", "_slices", "_sum", "_width", "size")

    def __init__(self, within: int, quiet: int, bound: float, below: bool, min_events: int) -> None:
        super().__init__(within, quiet)
        self._bound = bound
        self._below = below
        self._min_events = min_events
        self._width = within // SLICES
        self._slices: deque[list[int]] = deque()  # the number, the count and the sum of each, in order of coming
        self.size = 0
        self._sum = 0

    def add(self, moment: int, value: int = 1) -> bool:
        """Take an event with *value*; whether that is a crossing to be told."""
        number = moment // self._width
        slices = self._slices
        if not slices or slices[-1][0] != number:
            self._begin_slice(number)
        if not self._armed and not self._is_beyond():
            self._armed = True
        last = slices[-1]
        last[1] += 1
        last[2] += value
        self.size += 1
        self._sum += value
        return self._armed and self.size >= self._min_events and self._is_beyond() and self._crosses(moment)

    def _begin_slice(self, number: int) -> None:
        """Begin the slice *number*, and let go of those that lie too far from it; a clock that oscillates makes no more."""
        slices = self._slices
        while slices and (abs(number - slices[0][0]) >= SLICES or len(slices) >= SLICES):
            _, count, total = slices.popleft()
            self.size -= count
            self._sum -= total
        slices.append([number, 0, 0])

    def _is_beyond(self) -> bool:
        if self.size < self._min_events:
            return False
        mean = self._sum / self.size
        return mean < self._bound if self._below else mean > self._bound

    def is_over(self, moment: int) -> bool:
        """Whether nothing in it counts any more at *moment*."""
        return not self._slices or abs(moment // self._width - self._slices[-1][0]) * self._width > max(
            self._within, self._quiet
        )

    @property
    def mean(self) -> float:
        """The mean of the numbers in it, of which there is at least one."""
        return self._sum / self.size
