"""Times as people write them, for ``since`` and ``until`` in queries and on the command line.

=================================================  ===================================================================
text                                               time
=================================================  ===================================================================
``2025-01-15T10:30:00Z``                           that timestamp (RFC 3339; a space may replace the T)
``2025-01-15T10:30``                               that time in the zone
``2025-01-15``, ``2025-W03``, ``2025-01``          the first instant of that day, week or month in the zone
``today``, ``yesterday``, ``tomorrow``             the first instant of that day
``monday``, ``last monday``                        the newest Monday, today included or not
``this week``, ``last month``, ``last year``       the first instant of that week (from Monday on), month or year
``9:00``, ``yesterday 9:00``, ``monday 14:30``     that day, or today, at that time
``now``, ``1h``, ``-1h``, ``30m``, ``1h30m``       now, or that long ago, in s, m, h, d (24 hours) and w
=================================================  ===================================================================

A day begins at midnight, or later if the clock skips midnight. Ranges are half-open: ``until`` is the first timestamp outside.
"""

from __future__ import annotations

import datetime as dt
import re
from difflib import get_close_matches

from structlog_audit._durations import parse_duration
from structlog_audit.events.event import utc
from structlog_audit.exceptions import AuditTypeError, AuditValueError

Time = dt.datetime | dt.date | dt.timedelta | str
"""A time in a query: a datetime, the beginning of a date, a time that long ago, or a text as `parse_time` reads it."""

_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_PERIODS = ("this week", "last week", "this month", "last month", "this year", "last year")
_WORDS = ("now", *_DAYS, *_WEEKDAYS, *_PERIODS)

_LEAST_LIKENESS = 0.75
"""The likeness (of `difflib`) from which on a word is suggested: with less, Mars would be near Paris."""

_MONTH = re.compile("([0-9]{4})-([0-9]{2})")
_DAY_AND_TIME = re.compile(r"(?:(?P<day>.+) )?(?P<time>\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?)")
_SECOND = dt.timedelta(seconds=1)
_FORMS = (
    "RFC 3339, a date, '9:00', 'yesterday 9:00', 'monday', 'last week', '2025-01', "
    "or how long ago, such as '1h', '30m' or '7d'"
)


def checked_zone(name: str, value: dt.tzinfo | str) -> dt.tzinfo:
    """Return the time zone *value*, or the one with that name.

    Args:
        name: The name of the parameter, for an error message.
        value: A `datetime.tzinfo`, or the name of a zone in the database of IANA, such as ``Europe/Berlin``.

    Raises:
        AuditTypeError: *value* has another type.
        AuditValueError: There is no such zone, or no database.
    """
    if isinstance(value, dt.tzinfo):
        return value

    if not isinstance(value, str):
        expected = "a tzinfo or the name of a time zone, such as 'Europe/Berlin'"
        raise AuditTypeError(f"{name}={value!r}: expected {expected}, got {type(value).__name__}")

    # UTC needs no database.
    if value == "UTC":
        return dt.UTC

    # Imported lazily: it delays the import of the library.
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(value)
    except (KeyError, OSError, ValueError):
        # An unknown name is a KeyError, the name of a folder an OSError, and a path that leads elsewhere a ValueError.
        raise AuditValueError(f"{name}={value!r}: {_zone_expected(value)}") from None


def _zone_expected(name: str) -> str:
    """Return what is expected in place of the zone *name*."""
    # Imported lazily, as above.
    from zoneinfo import available_timezones

    known = available_timezones()
    if not known:
        return "this machine has no time zones: pip install tzdata, or use UTC"

    # Most mistakes are about upper case, spaces, or the part before the slash.
    wanted = name.strip().replace(" ", "_").lower()
    by_word = {word: zone for zone in sorted(known) for word in (zone.lower(), zone.rpartition("/")[2].lower())}
    similar = get_close_matches(wanted, by_word, 1, cutoff=_LEAST_LIKENESS)
    hint = f"Did you mean {by_word[similar[0]]!r}?" if similar else "The list is zoneinfo.available_timezones()"

    return f"expected the name of a time zone, such as 'Europe/Berlin'. {hint}"


def zone_name(zone: dt.tzinfo) -> str:
    """Return the name of *zone*: that of the database, or its offset, such as ``UTC+02:00``."""
    key = getattr(zone, "key", None)
    return key if isinstance(key, str) else str(zone)


def resolve_time(name: str, time: Time | None, now: dt.datetime, zone: dt.tzinfo | None = None) -> dt.datetime | None:
    """Return *time* in UTC; None for None.

    Args:
        name: The name of the parameter, for an error message.
        time: The time as it was given.
        now: The time now, aware.
        zone: The zone of times without an offset; None is local time.

    Raises:
        AuditTypeError: *time* has another type.
        AuditValueError: The text is not a time.
    """
    if time is None:
        return None

    if isinstance(time, str):
        return parse_time(name, time, now, zone)

    if isinstance(time, dt.datetime):
        return utc(time) if time.tzinfo is not None else _from_zone(time, zone)

    if isinstance(time, dt.date):
        return start_of_day(time, zone)

    if isinstance(time, dt.timedelta):
        try:
            return utc(now - abs(time))
        except OverflowError:
            raise AuditValueError(f"{name}={time!r}: expected a time since the year 1") from None

    expected = "a datetime, a date, a timedelta or a text such as '7d' or 'yesterday 9:00'"
    raise AuditTypeError(f"{name}={time!r}: expected {expected}")


def parse_time(name: str, text: str, now: dt.datetime, zone: dt.tzinfo | None = None) -> dt.datetime:
    """Return the timestamp that *text* stands for, in UTC. The module's documentation lists the forms.

    Args:
        name: The name of the parameter, for an error message.
        text: The text.
        now: The time now, aware.
        zone: The zone of days and of times without an offset; None is local time.

    Raises:
        AuditValueError: *text* is not a time.
    """
    word = " ".join(text.lower().split())

    try:
        time_ago = _time_ago(word, now)
        if time_ago is not None:
            return utc(time_ago)

        today = now.astimezone(zone).date()
        day = _day(word, today) or _first_day(word, today)
        if day is not None:
            return start_of_day(day, zone)

        time = _day_and_time(word, today) or dt.datetime.fromisoformat(word.upper())
    except (ValueError, OverflowError):
        similar = get_close_matches(word, _WORDS, 1, cutoff=_LEAST_LIKENESS)
        hint = f" Did you mean {similar[0]!r}?" if similar else f" Use {_FORMS}."
        raise AuditValueError(f"{name}={text!r}: expected a time.{hint}") from None

    return utc(time) if time.tzinfo is not None else _from_zone(time, zone)


def _time_ago(word: str, now: dt.datetime) -> dt.datetime | None:
    """Return the time for ``now`` and for durations; None for anything else."""
    if word == "now":
        return now

    duration = parse_duration(word.removeprefix("-"))

    return None if duration is None else now - duration


def _day(word: str, today: dt.date) -> dt.date | None:
    """Return the day that *word* names, or None if it names none."""
    if word in _DAYS:
        return today + dt.timedelta(days=_DAYS[word])

    weekday = word.removeprefix("last ")
    if weekday in _WEEKDAYS:
        newest = today if weekday == word else today - dt.timedelta(days=1)
        return newest - dt.timedelta(days=(newest.weekday() - _WEEKDAYS.index(weekday)) % 7)

    try:
        return dt.date.fromisoformat(word.upper())
    except ValueError:
        return None


def _first_day(word: str, today: dt.date) -> dt.date | None:
    """Return the first day of the week, month or year that *word* names, or None if it names none."""
    month = _MONTH.fullmatch(word)
    if month is not None:
        return dt.date(int(month[1]), int(month[2]), 1)

    if word not in _PERIODS:
        return None

    # A day of the period before is the day before its first one.
    which, unit = word.split()
    first = _first_day_of(unit, today)

    return first if which == "this" else _first_day_of(unit, first - dt.timedelta(days=1))


def _first_day_of(unit: str, day: dt.date) -> dt.date:
    """Return the first day of the week, month or year of *day*."""
    if unit == "week":
        return day - dt.timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day.replace(month=1, day=1)


def _day_and_time(word: str, today: dt.date) -> dt.datetime | None:
    """Return the time of a day with a time of day, or of today; None for anything else."""
    match = _DAY_AND_TIME.fullmatch(word)
    if match is None:
        return None

    day = today if match["day"] is None else _day(match["day"], today)
    if day is None:
        return None

    hour, rest = match["time"].split(":", 1)

    return dt.datetime.combine(day, dt.time.fromisoformat(f"{hour:0>2}:{rest}"))


def month_range(
    month: str, now: dt.datetime, zone: dt.tzinfo | None = None, *, name: str = "month"
) -> tuple[dt.datetime, dt.datetime]:
    """Return the first instant of a month, and that of the next month, in UTC.

    Args:
        month: The month as ``2025-01``, or ``this`` or ``last``.
        now: The time now, aware.
        zone: The zone in which the month begins; None is local time.
        name: The name of the parameter, for an error message.

    Raises:
        AuditValueError: *month* is no month.
    """
    word = month.strip().lower()
    if word in ("this", "last"):
        word += " month"

    try:
        first = _first_day(word, now.astimezone(zone).date())
        if first is None or not (_MONTH.fullmatch(word) or word.endswith(" month")):
            raise ValueError(month)
        following = _first_day_of("month", first + dt.timedelta(days=31))
        return start_of_day(first, zone), start_of_day(following, zone)
    except (ValueError, OverflowError):
        raise AuditValueError(f"{name}={month!r}: expected a month such as '2025-01', 'this' or 'last'") from None


def start_of_day(day: dt.date, zone: dt.tzinfo | None = None) -> dt.datetime:
    """Return the first instant of *day* in *zone*, or in local time, as a timestamp in UTC.

    It is midnight, except where a change of the clock skips midnight: in Havana a day of March begins at 01:00. For a day
    that does not exist, such as 2011-12-30 in Samoa, it is the beginning of the next.
    """
    midnight = dt.datetime.combine(day, dt.time())

    # Of a midnight that occurs twice, `after` is the first. Of one that is skipped, `after` is the later reading, by the clock
    # before the change (PEP 495), and the change lies between both: search it by bisection.
    after = _from_zone(midnight, zone)
    before = _from_zone(midnight.replace(fold=1), zone)

    while after - before > _SECOND:
        middle = before + (after - before) // 2
        if middle.astimezone(zone).replace(tzinfo=None) < midnight:
            before = middle
        else:
            after = middle

    return after.replace(microsecond=0)


def _from_zone(time: dt.datetime, zone: dt.tzinfo | None) -> dt.datetime:
    """Return the *time* of *zone* in UTC. A time that a change of the clock skips counts as if the clock had not changed yet.

    Where the time of the zone exceeds the calendar, *time* is taken as UTC, as by `utc`.
    """
    try:
        if zone is not None:
            return time.replace(tzinfo=zone).astimezone(dt.UTC)

        # `astimezone` takes a skipped local time for an hour earlier, before Python 3.12.
        seconds = int(time.replace(microsecond=0).timestamp())
        return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=time.microsecond)
    except (OverflowError, ValueError):
        return time.replace(tzinfo=dt.UTC)
