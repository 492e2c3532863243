"""The period of a report, and its division into months and into the steps of a time axis.

**Guarantees**

* A range is half-open: a month begins at its first instant in the zone and ends before the first instant of the next. Bounds
  and steps are instants in UTC; which they are follows from the zone, whose days may have 23 or 25 hours.
* Events are counted by the hour. A chart uses the smallest unit that needs at most `MOST_STEPS` steps. Units range up to
  the century, so any two times fit.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from structlog_audit.events.event import rfc3339
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.times import checked_zone, month_range, resolve_time, start_of_day, zone_name

MOST_STEPS = 100
"""Maximum steps of a chart over time: 31 days must be visible one by one, the days of a year need not be."""

_DAYS_PER_UNIT = {"day": 1, "week": 7}
_MONTHS_PER_UNIT = {"month": 1, "year": 12, "decade": 120, "century": 1_200}
_HOUR = dt.timedelta(hours=1)
_NO_TIME = dt.timedelta(0)


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open range.

    A bound of None is open. ``month`` is set if the range is exactly that month of the zone.
    """

    start: dt.datetime | None = None
    end: dt.datetime | None = None
    month: str | None = None
    zone: dt.tzinfo = dt.UTC

    @property
    def is_open(self) -> bool:
        """Whether there is no bound."""
        return self.start is None and self.end is None

    def __str__(self) -> str:
        if self.month is not None:
            return self.month

        start, end = (None if bound is None else rfc3339(bound) for bound in (self.start, self.end))

        return f"{start or 'the beginning'} to {end or 'now'}"

    def to_dict(self) -> dict[str, Any]:
        """Return the period as JSON values: instants in UTC, and the name of the zone."""
        return {
            "start": rfc3339_or_none(self.start),
            "end": rfc3339_or_none(self.end),
            "month": self.month,
            "time_zone": zone_name(self.zone),
        }


def rfc3339_or_none(time: dt.datetime | None) -> str | None:
    """Return *time* as RFC 3339 in UTC, or None for None."""
    return None if time is None else rfc3339(time)


def period_of(
    month: Any,
    start_time: Any,
    end_time: Any,
    now: dt.datetime,
    tz: Any = None,
    *,
    since: Any = None,
    until: Any = None,
    prefix: str = "",
) -> Period:
    """Return the period that the parameters of a report describe.

    Args:
        month: A month such as ``2025-01``, ``this`` or ``last``; None for a range.
        start_time, end_time: The range; None is an open bound. A naive time is in the zone, or local without one.
        now: The time now.
        tz: The zone, or its name; None is UTC.
        since, until: The same bounds as people say them; days and weeks are those of the zone.
        prefix: The beginning of the names of these parameters in error messages.

    Raises:
        AuditTypeError: The month is not a string, a time is not a datetime, or the zone is neither a tzinfo nor a string.
        AuditValueError: The month is invalid or combined with a time, the range is reversed, or there is no such zone.
    """
    given = None if tz is None else checked_zone("tz", tz)
    zone = given or dt.UTC
    first = _either(f"{prefix}start_time", start_time, f"{prefix}since", since)
    last = _either(f"{prefix}end_time", end_time, f"{prefix}until", until)
    if month is None:
        return _period_of_range(first, last, now, given)

    if first.value is not None or last.value is not None:
        raise AuditValueError(f"month={month!r}: expected either a month or a start_time and end_time, got both")

    if not isinstance(month, str):
        raise AuditTypeError(f"month={month!r}: expected a string such as '2025-01', got {type(month).__name__}")

    start, end = month_range(month, now, zone)

    return Period(start, end, month_of(start, zone), zone)


class _Bound(NamedTuple):
    """A bound as it was given: its parameter and its value."""

    name: str
    value: Any

    def __str__(self) -> str:
        return f"{self.name}={self.value!r}"


def _either(name: str, exact: Any, spoken: str, time: Any) -> _Bound:
    """Return the bound *exact*, or else the *time* as people say it."""
    if exact is not None and time is not None:
        raise AuditTypeError(f"{name}={exact!r}, {spoken}={time!r}: expected one of them")

    if exact is not None and not isinstance(exact, dt.datetime):
        kind = type(exact).__name__
        raise AuditTypeError(
            f"{name}={exact!r}: expected a datetime (a naive one is local time), got {kind};"
            f" a date, a timedelta or a text belongs to {spoken}="
        )
    return _Bound(name, exact) if time is None else _Bound(spoken, time)


def _period_of_range(first: _Bound, last: _Bound, now: dt.datetime, given: dt.tzinfo | None) -> Period:
    zone = given or dt.UTC
    start = _resolved(first, now, given)
    end = _resolved(last, now, given)
    if start is None or end is None:
        return Period(start, end, None, zone)

    if start > end:
        raise AuditValueError(f"{first}, {last}: expected {first.name} not to be later than {last.name}")

    month = month_of(start, zone)

    try:
        is_month = (start, end) == month_range(month, start, zone)
    except AuditValueError:
        # The last month of the calendar has no month after it.
        is_month = False

    return Period(start, end, month if is_month else None, zone)


def _resolved(bound: _Bound, now: dt.datetime, given: dt.tzinfo | None) -> dt.datetime | None:
    """Return a bound in UTC. Without a zone, days are those of UTC, but a naive datetime is local time."""
    zone = given if isinstance(bound.value, dt.datetime) else given or dt.UTC
    return resolve_time(bound.name, bound.value, now, zone)


def period_before(period: Period, now: dt.datetime) -> Period | None:
    """Return the month before a month, or else the time of the same length before *period*.

    Args:
        period: The period. Without an end it lasts until *now*.
        now: The present time.

    Returns:
        The period before; None if *period* has no start or no length, or the calendar has no such time.
    """
    if period.start is None or period.start >= (period.end or now):
        return None

    try:
        if period.month is not None:
            last_day = dt.date.fromisoformat(f"{period.month}-01") - dt.timedelta(days=1)
            month = f"{last_day.year:04}-{last_day.month:02}"
            return Period(*month_range(month, now, period.zone), month, period.zone)
        length = (period.end or now) - period.start
        return Period(period.start - length, period.start, zone=period.zone)
    except (AuditValueError, OverflowError):
        return None


def month_of(time: dt.datetime, zone: dt.tzinfo = dt.UTC) -> str:
    """Return the month of *time* in *zone*, as ``2025-01``."""
    local = in_zone(time, zone)
    return f"{local.year:04}-{local.month:02}"


def in_zone(time: dt.datetime, zone: dt.tzinfo) -> dt.datetime:
    """Return *time* in *zone*; unchanged where that would exceed the calendar."""
    if time.tzinfo is zone:
        return time
    try:
        return time.astimezone(zone)
    except OverflowError:
        return time


def months_between(first: str, last: str) -> Iterator[str]:
    """Yield the months from *first* to *last*, both included."""
    start = _month_index(first)
    stop = _month_index(last) + 1

    for index in range(start, stop):
        year, month_index = divmod(index, 12)
        yield f"{year:04}-{month_index + 1:02}"


def _month_index(month: str) -> int:
    year = int(month[:4])
    return year * 12 + int(month[5:]) - 1


def steps(first: dt.datetime, last: dt.datetime, zone: dt.tzinfo = dt.UTC) -> tuple[str, list[dt.datetime]]:
    """Return the unit of a time axis, and the starts of its steps, in UTC.

    Args:
        first, last: The ends of the axis, both included.
        zone: The zone in which hours, days and months begin.
    """
    for unit in ("hour", *_DAYS_PER_UNIT, *_MONTHS_PER_UNIT):
        starts = [floor(first, unit, zone)]
        while len(starts) <= MOST_STEPS:
            following = _next_step(starts[-1], unit, zone)
            if following is None or following > last:
                return unit, starts
            starts.append(following)

    raise AssertionError("unreachable: Python's calendar has a hundred centuries")


def floor(time: dt.datetime, unit: str, zone: dt.tzinfo = dt.UTC) -> dt.datetime:
    """Return the start of the *unit* of *zone* that contains *time*, in UTC.

    Weeks begin on Monday (ISO 8601). Where a change of the clock repeats an hour, there are two hours of one name.
    """
    local = in_zone(time, zone)
    if unit == "hour":
        return in_zone(_start_of_hour(local), dt.UTC)

    return start_of_day(_first_day(local.date(), unit), zone)


def _start_of_hour(local: dt.datetime) -> dt.datetime:
    start = local.replace(minute=0, second=0, microsecond=0)
    # After the repeated part of an hour, a time has no fold, but the beginning of its hour has (PEP 495).
    is_earlier = (start.utcoffset() or _NO_TIME) > (local.utcoffset() or _NO_TIME)

    return start.replace(fold=1) if is_earlier else start


def _first_day(day: dt.date, unit: str) -> dt.date:
    """Return the first day of the *unit* that contains *day*."""
    if unit == "day":
        return day

    if unit == "week":
        # This never underflows: the first day of the calendar is a Monday.
        return day - dt.timedelta(days=day.weekday())

    size = _MONTHS_PER_UNIT[unit]
    months = (day.year * 12 + day.month - 1) // size * size
    year, month_index = divmod(months, 12)

    return day.replace(year=max(1, year), month=month_index + 1, day=1)


def _next_step(start: dt.datetime, unit: str, zone: dt.tzinfo) -> dt.datetime | None:
    """Return the start of the next *unit*, or None at the end of the calendar."""
    try:
        if unit == "hour":
            following = floor(start + _HOUR, unit, zone)

            # A change of the clock by less than an hour makes one that is longer.
            return following if following > start else floor(start + 2 * _HOUR, unit, zone)

        day = in_zone(start, zone).date()
        following_day = _day_of_next(day, unit)
        return start_of_day(following_day, zone)
    except (ValueError, OverflowError):
        return None


def _day_of_next(day: dt.date, unit: str) -> dt.date:
    """Return the first day of the *unit* after the one that begins with *day*."""
    if unit in _DAYS_PER_UNIT:
        return day + dt.timedelta(days=_DAYS_PER_UNIT[unit])

    years, month_index = divmod(day.month - 1 + _MONTHS_PER_UNIT[unit], 12)
    following = day.replace(year=day.year + years, month=month_index + 1)

    return _first_day(following, unit)
