"""The times that ``--since`` and ``--until`` accept.

=====================================  ================================================================================
text                                   time
=====================================  ================================================================================
``2025-01-15T10:30:00Z``               that timestamp (RFC 3339; a space may replace the T)
``2025-01-15T10:30``                   local time, or UTC with ``--utc``
``2025-01-15``                         the first instant of that day: midnight, or later if the clock skips midnight
``10:30``                              today at that time
``now``, ``today``, ``yesterday``      now; the beginning of that day (also ``tomorrow``)
``1h``, ``-1h``, ``30m``, ``1h30m``    that long ago, in s, m, h, d (24 hours) and w
=====================================  ================================================================================

Ranges are half-open: ``--until`` is the first timestamp outside.
"""

from __future__ import annotations

import datetime as dt

from structlog_audit._durations import parse_duration
from structlog_audit.cli.exit_codes import UsageError, did_you_mean
from structlog_audit.events.event import utc

_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1}
_SECOND = dt.timedelta(seconds=1)
_FORMS = "RFC 3339, a date, 'today', 'yesterday', 'now', or how long ago, such as '1h', '30m' or '7d'"


def parse_time(option: str, text: str, now: dt.datetime, *, in_utc: bool = False) -> dt.datetime:
    """Return the timestamp that *text* stands for, in UTC.

    Args:
        option: The name of the option, for an error message.
        text: The value of the option.
        now: The time, aware.
        in_utc: Whether a time without an offset is UTC instead of local time.

    Raises:
        UsageError: *text* is not a time.
    """
    word = text.strip().lower()
    try:
        time_ago = _time_ago(word, now)
        if time_ago is not None:
            return utc(time_ago)

        today = now.date() if in_utc else now.astimezone().date()
        day = _day(word, today)
        if day is not None:
            return start_of_day(day, in_utc=in_utc)

        time = _clock_time(word, today)
    except (ValueError, OverflowError):
        hint = did_you_mean(word, ["now", *_DAYS]) or f" Use {_FORMS}."
        raise UsageError(f"{option}={text!r}: expected a time.{hint}") from None

    if time.tzinfo is not None:
        return utc(time)
    return time.replace(tzinfo=dt.UTC) if in_utc else _from_local(time)


def _time_ago(word: str, now: dt.datetime) -> dt.datetime | None:
    """Return the time for ``now`` and for durations; None for anything else."""
    if word == "now":
        return now
    duration = parse_duration(word.removeprefix("-"))
    return None if duration is None else now - duration


def _day(word: str, today: dt.date) -> dt.date | None:
    """Return the day that *word* names, or None if it is not a day."""
    if word in _DAYS:
        return today + dt.timedelta(days=_DAYS[word])
    try:
        return dt.date.fromisoformat(word.upper())
    except ValueError:
        return None


def _clock_time(word: str, today: dt.date) -> dt.datetime:
    """Return the time of a date with a time of day, or of one of *today*; naive without an offset."""
    # Python accepts the Z of RFC 3339 in upper case only.
    text = word.upper()
    if ":" in text[:3]:
        time = dt.time.fromisoformat(text)
        return dt.datetime.combine(today, time)
    return dt.datetime.fromisoformat(text)


def start_of_day(day: dt.date, *, in_utc: bool) -> dt.datetime:
    """Return the first instant of *day* in local time or in UTC, as a timestamp in UTC.

    It is midnight, except where a change of the clock skips midnight: in Havana a day of March begins at 01:00. For a day
    that does not exist, such as 2011-12-30 in Samoa, it is the beginning of the next.
    """
    midnight = dt.datetime.combine(day, dt.time())
    if in_utc:
        return midnight.replace(tzinfo=dt.UTC)

    # Of a midnight that occurs twice, `after` is the first. Of one that is skipped, `after` is the later reading, by the clock
    # before the change (PEP 495), and the change lies between both: search it by bisection.
    after = _from_local(midnight)
    before = _from_local(midnight.replace(fold=1))
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        if middle.astimezone().replace(tzinfo=None) < midnight:
            before = middle
        else:
            after = middle
    return after.replace(microsecond=0)


def _from_local(time: dt.datetime) -> dt.datetime:
    """Return the local *time* in UTC. A time that a change of the clock skips counts as if the clock had not changed yet.

    Where local time exceeds the calendar, *time* is taken as UTC, as by `utc`.
    """
    # `astimezone` takes a skipped time for an hour earlier, before Python 3.12.
    try:
        seconds = int(time.replace(microsecond=0).timestamp())
        return dt.datetime.fromtimestamp(seconds, dt.UTC).replace(microsecond=time.microsecond)
    except (OverflowError, ValueError):
        return time.replace(tzinfo=dt.UTC)


def time_range(
    since: str | None, until: str | None, now: dt.datetime, *, in_utc: bool = False
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Return the start and the end of the range from *since* to *until*; None for no bound.

    Raises:
        UsageError: One of them is not a time, or the range is reversed.
    """
    start = end = None
    if since is not None:
        start = parse_time("--since", since, now, in_utc=in_utc)
    if until is not None:
        end = parse_time("--until", until, now, in_utc=in_utc)

    if start is not None and end is not None and start > end:
        raise UsageError(f"--since={since!r} must not be later than --until={until!r}")
    return start, end
