"""The time that a report is about, and how it is divided.

Rules:

* Everything is in UTC, and half-open: a month begins with its first instant and ends before the first of the next.
* Events over time are counted by the hour; a chart shows them by the smallest unit of which at most `MOST_STEPS` are needed.
  The units go up to the century, so that this holds for any two times there are.
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
"""Steps of a chart over time, at most. A year of days is too fine to see, 31 days must be."""

_MONTH = re.compile("([0-9]{4})-([0-9]{2})")
_HOURS = {"hour": 1, "day": 24, "week": 7 * 24}
_MONTHS = {"month": 1, "year": 12, "decade": 120, "century": 1_200}


@dataclass(frozen=True, slots=True)
class Period:
    """From *start* up to but not including *end*, in UTC; None means without bound. *month* if it is exactly that month."""

    start: dt.datetime | None = None
    end: dt.datetime | None = None
    month: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The period in JSON."""
        return {"start": time_text(self.start), "end": time_text(self.end), "month": self.month}


def time_text(moment: dt.datetime | None) -> str | None:
    """*moment* as RFC 3339 in UTC, or None."""
    return None if moment is None else rfc3339(moment)


def period_of(month: Any, start_time: Any, end_time: Any) -> Period:
    """The period that the parameters of a report mean together.

    Raises:
        AuditTypeError: A month that is no text, a time that is no datetime.
        AuditValueError: Text that is no month, a month beside a time, a reversed range.
    """
    if month is None:
        for name, value in (("start_time", start_time), ("end_time", end_time)):
            if value is not None and not isinstance(value, dt.datetime):
                raise AuditTypeError(f"{name}={value!r}: give a datetime; a naive one is local time")
        start, end = (None if value is None else utc(value) for value in (start_time, end_time))
        if start is not None and end is not None and start > end:
            raise AuditValueError(f"start_time={start_time!r} lies after end_time={end_time!r}: exchange them")
        return Period(start, end)
    if start_time is not None or end_time is not None:
        raise AuditValueError(f"month={month!r} beside start_time or end_time: give the one or the other")
    if not isinstance(month, str):
        raise AuditTypeError(f"month={month!r}: give a text such as '2025-01'")
    found = _MONTH.fullmatch(month)
    try:
        if found is None:
            raise ValueError(month)
        start = dt.datetime(int(found[1]), int(found[2]), 1, tzinfo=dt.UTC)
        return Period(start, _months_later(start, 1), month)
    except (ValueError, OverflowError):
        raise AuditValueError(f"month={month!r} is no month: give a text such as '2025-01'") from None


def _months_later(moment: dt.datetime, months: int) -> dt.datetime:
    years, month = divmod(moment.month - 1 + months, 12)
    return moment.replace(year=moment.year + years, month=month + 1)


def month_of(moment: dt.datetime) -> str:
    """The month of *moment*, which is in UTC, as ``2025-01``."""
    return f"{moment.year:04}-{moment.month:02}"


def months_between(first: str, last: str) -> Iterator[str]:
    """The months from *first* to *last*, both included."""
    for number in range(_number(first), _number(last) + 1):
        yield f"{number // 12:04}-{number % 12 + 1:02}"


def _number(month: str) -> int:
    return int(month[:4]) * 12 + int(month[5:]) - 1


def steps(first: dt.datetime, last: dt.datetime) -> tuple[str, list[dt.datetime]]:
    """The unit that suits the time from *first* to *last*, both in UTC and included; the beginnings of its steps."""
    for unit in (*_HOURS, *_MONTHS):
        begin = floor(first, unit)
        found = [begin]
        while len(found) <= MOST_STEPS:
            following = _next(found[-1], unit)
            if following is None or following > last:
                return unit, found
            found.append(following)
    raise AssertionError("the calendar of Python has a hundred centuries")


def floor(moment: dt.datetime, unit: str) -> dt.datetime:
    """The beginning of the *unit* that *moment*, which is in UTC, lies in. Weeks begin on Monday (ISO 8601)."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    if unit == "hour":
        return hour
    day = hour.replace(hour=0)
    if unit == "day":
        return day
    if unit == "week":
        return day - dt.timedelta(days=day.weekday())  # the first day of the calendar is a Monday
    number = (day.year * 12 + day.month - 1) // _MONTHS[unit] * _MONTHS[unit]
    return day.replace(year=max(1, number // 12), month=number % 12 + 1, day=1)


def _next(moment: dt.datetime, unit: str) -> dt.datetime | None:
    """The beginning of the *unit* after that which begins at *moment*; None after the end of the calendar."""
    try:
        if unit in _HOURS:
            return floor(moment + dt.timedelta(hours=_HOURS[unit]), unit)
        return floor(_months_later(moment, _MONTHS[unit]), unit)
    except (ValueError, OverflowError):
        return None
