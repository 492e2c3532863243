"""The hours and months of a time zone on the days of an archive, as SQL counts by them.

**Guarantees.** They are those of Python's time zones: `structlog_audit.reports.period` names the hour and the month of a time,
and SQL gets only the instants between which that name stays the same. A day has at most one change of the offset; those of the
database of IANA are days apart.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from structlog_audit.archive.rows import time_of
from structlog_audit.query.filters import microseconds
from structlog_audit.reports.period import in_zone, month_of

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US


class _Stretch(NamedTuple):
    """From *start* on, to the next one, local time is later than UTC by *offset*; both in microseconds."""

    start: int
    offset: int


class LocalMonth(NamedTuple):
    """A month such as ``2025-01``, and the times in microseconds from *start* to before *stop*; None is an open bound."""

    name: str
    start: int | None
    stop: int | None


class LocalDays:
    """Some days of UTC, as a time zone divides them.

    Args:
        zone: The zone.
        days: The days, ``2025-01-15``.
    """

    def __init__(self, zone: dt.tzinfo, days: Iterable[str]) -> None:
        self._zone = zone
        self._days = [microseconds(dt.datetime.fromisoformat(f"{day}T00:00+00:00")) for day in sorted(set(days))]
        self._stretches: list[_Stretch] = []

        for day in self._days:
            self._add(day, self._offset(day))
            last = day + _DAY_US - 1
            if self._offset(last) != self._stretches[-1].offset:
                self._add(*self._change(day, last))

    def _add(self, start: int, offset: int) -> None:
        if not self._stretches or self._stretches[-1].offset != offset:
            self._stretches.append(_Stretch(start, offset))

    def _offset(self, us: int) -> int:
        """Return how much later than UTC local time is."""
        time = time_of(us)

        return microseconds(in_zone(time, self._zone).replace(tzinfo=dt.UTC)) - us

    def _change(self, before: int, after: int) -> _Stretch:
        """Return the stretch that begins between two times with different offsets."""
        offset = self._offset(after)

        while after - before > 1:
            middle = (before + after) // 2
            if self._offset(middle) == offset:
                after = middle
            else:
                before = middle

        return _Stretch(after, offset)

    def hour(self, us: str) -> str:
        """Return, in SQL, the first time in the part of an hour that has the time *us*; both in microseconds.

        An hour has several parts if the clock is changed in it.
        """
        branches: list[_Stretch] = []

        for start, offset in self._stretches:
            shift = offset % _HOUR_US
            # Other changes are where hours begin.
            if not branches or shift != branches[-1].offset or (start + shift) % _HOUR_US:
                branches.append(_Stretch(start, shift))

        *earlier, last = [_hour(us, branch) for branch in branches]
        cases = [
            f"WHEN {us} < {following.start} THEN {hour}" for hour, following in zip(earlier, branches[1:], strict=True)
        ]

        return f"CASE {' '.join(cases)} ELSE {last} END" if cases else last

    def months(self) -> Iterator[LocalMonth]:
        """Yield the months in the order of time. A month comes again if the clock is set back from the next one to it."""
        name = ""
        begin: int | None = None

        for start in self._midnights():
            following = month_of(time_of(start), self._zone)
            if following == name:
                continue

            if name:
                yield LocalMonth(name, begin, start)
                begin = start

            name = following

        if name:
            yield LocalMonth(name, begin, None)

    def _midnights(self) -> Iterator[int]:
        """Yield the times, in order, at which a day of the zone may begin."""
        starts = [stretch.start for stretch in self._stretches]

        for day in self._days:
            number = bisect_right(starts, day) - 1
            found = {day}

            for start, offset in self._stretches[number : number + 2]:
                if start < day + _DAY_US:
                    midnight = day + -(day + offset) % _DAY_US
                    found |= {max(day, start), midnight}

            yield from sorted(found)


def _hour(us: str, branch: _Stretch) -> str:
    """Return, in SQL, the beginning of the hour of *us* in *branch*, whose hours begin *offset* before those of UTC."""
    # Before 1970 a remainder is negative.
    begin = f"{us} - (({us} + {branch.offset}) % {_HOUR_US} + {_HOUR_US}) % {_HOUR_US}"

    return f"greatest({begin}, {branch.start})"
