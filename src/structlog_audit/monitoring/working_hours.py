"""`WorkingHours`: business days and hours in a time zone, by which rules select events and measure silence.

**Semantics.** A day and a time of day are those that a clock in the zone shows, so hours follow each change of the clock. Hours
are half-open: ``09:00-17:00`` includes 09:00 and excludes 17:00. A holiday has none.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection, Iterator, Mapping
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, NamedTuple

from structlog_audit.exceptions import AuditError, AuditTypeError, AuditValueError
from structlog_audit.query.filters import microseconds
from structlog_audit.query.times import checked_zone, zone_name

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"([0-2]?[0-9]):([0-5][0-9])-([0-2]?[0-9]):([0-5][0-9])")
_MINUTES_PER_DAY = 24 * 60
_MOST_DAYS = 366
"""Days in which a working time must have passed."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class Hours(NamedTuple):
    """Hours of a day, in minutes since midnight; the end is excluded."""

    begin: int
    end: int


class WorkingHours:
    """Business days and hours.

    ``WorkingHours(days="mon-fri", hours="09:00-17:00", tz="Europe/Berlin", holidays=["2025-12-25"])``

    Args:
        days: Days and ranges of days: ``"mon-fri"``, ``"mon, wed"`` or ``["mon", "thu-fri"]``.
        hours: The hours of each of these days: ``"09:00-17:00"``, or a list of several. ``24:00`` is the end of a day.
        tz: The time zone, or its name, such as ``"Europe/Berlin"``.
        holidays: Dates without working hours: a `datetime.date`, or a text such as ``"2025-12-25"``.

    Raises:
        AuditTypeError, AuditValueError: A parameter has the wrong type or an invalid value; the message names it.
    """

    __slots__ = ("days", "holidays", "hours", "zone")

    def __init__(
        self,
        *,
        days: str | Collection[str] = "mon-fri",
        hours: str | Collection[str],
        tz: dt.tzinfo | str,
        holidays: Collection[dt.date | str] = (),
    ) -> None:
        self.days = _days(days)
        """The days of the week, from 0 for Monday."""
        self.hours = _hours(hours)
        self.zone = checked_zone("tz", tz)
        self.holidays = _holidays(holidays)

    def contains(self, timestamp: int) -> bool:
        """Return whether *timestamp*, in microseconds since 1970, is in the working hours."""
        local = _local(timestamp, self.zone)
        if local.weekday() not in self.days or local.date() in self.holidays:
            return False

        minute = local.hour * 60 + local.minute

        return any(begin <= minute < end for begin, end in self.hours)

    def time_after(self, timestamp: int, duration: int) -> int | None:
        """Return when *duration* of working time has passed since *timestamp*, in microseconds; None if not in a year."""
        remaining = duration
        first = _local(timestamp, self.zone).date()

        for number in range(_MOST_DAYS):
            try:
                day = first + dt.timedelta(days=number)
                spans = list(self._spans(day))
            except OverflowError:
                return None

            for begin, end in spans:
                begins = max(begin, timestamp)
                passed = max(0, end - begins)
                if remaining <= passed:
                    return begins + remaining
                remaining -= passed

        return None

    def _spans(self, day: dt.date) -> Iterator[tuple[int, int]]:
        """Yield the beginning and the end of the working hours of *day*, in microseconds since 1970."""
        if day.weekday() not in self.days or day in self.holidays:
            return

        midnight = dt.datetime.combine(day, dt.time(), self.zone)

        for hours in self.hours:
            begin, end = (
                microseconds((midnight + dt.timedelta(minutes=minute)).astimezone(dt.UTC)) for minute in hours
            )
            yield begin, end

    def _key(self) -> tuple[Any, ...]:
        return self.days, self.hours, zone_name(self.zone), self.holidays

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WorkingHours) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        days = ", ".join(_DAYS[number] for number in sorted(self.days))
        hours = ", ".join(f"{_time_text(begin)}-{_time_text(end)}" for begin, end in self.hours)

        return f"<WorkingHours {days} {hours} {zone_name(self.zone)}, {len(self.holidays)} holidays>"


_KEYS = ("days", "hours", "tz", "holidays")


def working_hours_of(name: str, value: Any) -> WorkingHours:
    """Return the working hours that *value* holds: `WorkingHours`, or a mapping of their arguments.

    Args:
        name: The name of the parameter, for an error message.
        value: The value.

    Raises:
        AuditTypeError, AuditValueError: It holds none; the message names the parameter and the key.
    """
    if isinstance(value, WorkingHours):
        return value

    if not isinstance(value, Mapping):
        raise AuditTypeError(
            f"{name}={value!r}: expected a mapping with {', '.join(_KEYS)}, got {type(value).__name__}"
        )

    for key in value:
        if key not in _KEYS:
            similar = get_close_matches(str(key), _KEYS, 1)
            hint = f" Did you mean {similar[0]!r}?" if similar else ""
            raise AuditTypeError(f"{name}: unknown key {key!r}: expected one of {', '.join(_KEYS)}.{hint}")

    for key, example in (("hours", "'09:00-17:00'"), ("tz", "'Europe/Berlin'")):
        if key not in value:
            raise AuditTypeError(f"{name}: {key!r} is missing: expected it, such as {example}")

    try:
        return WorkingHours(**value)
    except AuditError as error:
        raise type(error)(f"{name}: {error}") from None


def _days(value: Any) -> frozenset[int]:
    expected = f"days={value!r}: expected days such as 'mon-fri' or ['mon', 'wed'], of {', '.join(_DAYS)}"
    found: set[int] = set()

    for word in _words("days", value, expected):
        first, _, last = word.partition("-")
        names = [_DAYS.index(name) for name in (first, last or first) if name in _DAYS]
        if len(names) < 2:
            raise AuditValueError(f"{expected}, got {word!r}")
        if names[0] > names[1]:
            raise AuditValueError(f"{expected}; {word!r} ends before it begins")
        found.update(range(names[0], names[1] + 1))

    if not found:
        raise AuditValueError(f"{expected}, got none")

    return frozenset(found)


def _hours(value: Any) -> tuple[Hours, ...]:
    expected = f"hours={value!r}: expected hours such as '09:00-17:00'"
    found = []

    for word in _words("hours", value, expected):
        match = _HOURS.fullmatch(word)
        if match is None:
            raise AuditValueError(f"{expected}, got {word!r}")

        begin, end = (int(match[number]) * 60 + int(match[number + 1]) for number in (1, 3))
        if end > _MINUTES_PER_DAY:
            raise AuditValueError(f"{expected}, up to 24:00, got {word!r}")
        if end <= begin:
            raise AuditValueError(
                f"{expected}; {word!r} ends before it begins: state hours past midnight as two ranges"
            )
        found.append(Hours(begin, end))

    found.sort()

    for earlier, later in pairwise(found):
        if later.begin < earlier.end:
            raise AuditValueError(f"{expected}, none of which overlap")

    if not found:
        raise AuditValueError(f"{expected}, got none")

    return tuple(found)


def _holidays(value: Any) -> frozenset[dt.date]:
    expected = f"holidays={value!r}: expected a list of dates such as '2025-12-25'"
    if isinstance(value, (str, Mapping)) or not isinstance(value, Collection):
        raise AuditTypeError(f"{expected}, got {type(value).__name__}")

    found = set()

    for item in value:
        # A datetime is a date to isinstance, but has a time of day.
        if isinstance(item, dt.date) and not isinstance(item, dt.datetime):
            found.add(item)
            continue
        try:
            found.add(dt.date.fromisoformat(item))
        except (TypeError, ValueError):
            raise AuditValueError(f"{expected}, got {item!r}") from None

    return frozenset(found)


def _words(name: str, value: Any, expected: str) -> list[str]:
    """Return the words of a text or of a list of texts, in lower case."""
    texts = value.split(",") if isinstance(value, str) else value
    if isinstance(texts, Mapping) or not isinstance(texts, Collection):
        raise AuditTypeError(f"{expected}, got {type(value).__name__}")

    words = []

    for text in texts:
        if not isinstance(text, str):
            raise AuditTypeError(f"{expected}, got {text!r} in the list")
        words.append("".join(text.lower().split()))

    return [word for word in words if word]


def _local(timestamp: int, zone: dt.tzinfo) -> dt.datetime:
    """Return *timestamp* in *zone*, or in UTC where that would exceed the calendar."""
    time = _EPOCH + dt.timedelta(microseconds=timestamp)
    try:
        return time.astimezone(zone)
    except OverflowError:
        return time


def _time_text(minute: int) -> str:
    hour, minute = divmod(minute, 60)
    return f"{hour:02}:{minute:02}"
