"""The period of a report, and its division into months and into the steps of a time axis.

**Guarantees**

* Everything is in UTC and half-open: a month begins at its first instant and ends before the first instant of the next.
* Events are counted by the hour. A chart uses the smallest unit that needs at most `MOST_STEPS` steps. Units range up to
  the century, so any two times fit.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from structlog_audit.events.event import rfc3339, utc
from structlog_audit.exceptions import AuditTypeError, AuditValueError

MOST_STEPS = 100
"""Maximum steps of a chart over time: 31 days must be visible one by one, the days of a year need not be."""

_MONTH = re.compile("([0-9]{4})-([0-9]{2})")
_HOURS_PER_UNIT = {"hour": 1, "day": 24, "week": 7 * 24}
_MONTHS_PER_UNIT = {"month": 1, "year": 12, "decade": 120, "century": 1_200}


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open range in UTC.

    A bound of None is open. ``month`` is set if the range is exactly that month.
    """

    start: dt.datetime | None = None
    end: dt.datetime | None = None
    month: str | None = None

    def __str__(self) -> str:
        if self.month is not None:
            return self.month
        start, end = (None if bound is None else rfc3339(bound) for bound in (self.start, self.end))
        return f"{start or 'the beginning'} to {end or 'now'}"

    def to_dict(self) -> dict[str, Any]:
        """Return the period as JSON values."""
        return {"start": rfc3339_or_none(self.start), "end": rfc3339_or_none(self.end), "month": self.month}


def rfc3339_or_none(time: dt.datetime | None) -> str | None:
    """Return *time* as RFC 3339 in UTC, or None for None."""
    return None if time is None else rfc3339(time)


def period_of(month: Any, start_time: Any, end_time: Any) -> Period:
    """Return the period that the parameters of a report describe.

    Raises:
        AuditTypeError: The month is not a string, or a time is not a datetime.
        AuditValueError: The month is invalid or combined with a time, or the range is reversed.
    """
    if month is None:
        return _period_of_range(start_time, end_time)
    if start_time is not None or end_time is not None:
        raise AuditValueError(f"month={month!r}: expected either a month or a start_time and end_time, got both")
    return _period_of_month(month)


def _period_of_range(start_time: Any, end_time: Any) -> Period:
    start = _bound("start_time", start_time)
    end = _bound("end_time", end_time)
    if start is not None and end is not None and start > end:
        raise AuditValueError(
            f"start_time={start_time!r}, end_time={end_time!r}: expected a start_time that is not later than end_time"
        )
    return Period(start, end)


def _bound(name: str, value: Any) -> dt.datetime | None:
    if value is None:
        return None
    if not isinstance(value, dt.datetime):
        kind = type(value).__name__
        raise AuditTypeError(f"{name}={value!r}: expected a datetime (a naive one is local time), got {kind}")
    return utc(value)


def _period_of_month(month: Any) -> Period:
    if not isinstance(month, str):
        raise AuditTypeError(f"month={month!r}: expected a string such as '2025-01', got {type(month).__name__}")

    try:
        match = _MONTH.fullmatch(month)
        if match is None:
            raise ValueError(month)
        start = dt.datetime(int(match[1]), int(match[2]), 1, tzinfo=dt.UTC)
        return Period(start, _add_months(start, 1), month)
    except (ValueError, OverflowError):
        raise AuditValueError(f"month={month!r}: expected a month such as '2025-01'") from None


def _add_months(time: dt.datetime, months: int) -> dt.datetime:
    years, month_index = divmod(time.month - 1 + months, 12)
    year = time.year + years
    return time.replace(year=year, month=month_index + 1)


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
            return _period_of_month(month_of(_add_months(period.start, -1)))
        length = (period.end or now) - period.start
        return Period(period.start - length, period.start)
    except (ValueError, OverflowError):
        return None


def month_of(time: dt.datetime) -> str:
    """Return the month of *time*, which is in UTC, as ``2025-01``."""
    return f"{time.year:04}-{time.month:02}"


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


def steps(first: dt.datetime, last: dt.datetime) -> tuple[str, list[dt.datetime]]:
    """Return the unit of a time axis, and the starts of its steps.

    Args:
        first, last: The ends of the axis in UTC, both included.
    """
    for unit in (*_HOURS_PER_UNIT, *_MONTHS_PER_UNIT):
        starts = [floor(first, unit)]
        while len(starts) <= MOST_STEPS:
            following = _next_step(starts[-1], unit)
            if following is None or following > last:
                return unit, starts
            starts.append(following)

    raise AssertionError("unreachable: Python's calendar has a hundred centuries")


def floor(time: dt.datetime, unit: str) -> dt.datetime:
    """Return the start of the *unit* that contains *time*, in UTC.

    Weeks begin on Monday (ISO 8601).
    """
    hour = time.replace(minute=0, second=0, microsecond=0)
    if unit == "hour":
        return hour

    day = hour.replace(hour=0)
    if unit == "day":
        return day
    if unit == "week":
        # This never underflows: the first day of the calendar is a Monday.
        return day - dt.timedelta(days=day.weekday())

    size = _MONTHS_PER_UNIT[unit]
    months = (day.year * 12 + day.month - 1) // size * size
    year, month_index = divmod(months, 12)
    return day.replace(year=max(1, year), month=month_index + 1, day=1)


def _next_step(start: dt.datetime, unit: str) -> dt.datetime | None:
    """Return the start of the next *unit*, or None at the end of the calendar."""
    try:
        if unit in _HOURS_PER_UNIT:
            following = start + dt.timedelta(hours=_HOURS_PER_UNIT[unit])
        else:
            following = _add_months(start, _MONTHS_PER_UNIT[unit])
    except (ValueError, OverflowError):
        return None
    return floor(following, unit)
