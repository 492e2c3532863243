"""The times that ``--since`` and ``--until`` accept.

=====================================  ================================================================================
text                                   time
=====================================  ================================================================================
``2025-01-15T10:30:00Z``               that timestamp (RFC 3339; a space may replace the T)
``2025-01-15T10:30``, ``2025-01-15``   local time, or UTC with ``--utc``; a date is its midnight
``10:30``                              today at that time
``now``, ``today``, ``yesterday``      now; the last midnight; the one before it (also ``tomorrow``)
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
        found = _time_ago(word, now)
        if found is None:
            found = _calendar_time(word, now if in_utc else now.astimezone())
    except (ValueError, OverflowError):
        hint = did_you_mean(word, ["now", *_DAYS]) or f" Use {_FORMS}."
        raise UsageError(f"{option}={text!r}: expected a time.{hint}") from None

    if found.tzinfo is None and in_utc:
        found = found.replace(tzinfo=dt.UTC)
    return utc(found)


def _time_ago(word: str, now: dt.datetime) -> dt.datetime | None:
    """Return the time for ``now`` and for durations; None for anything else."""
    if word == "now":
        return now
    duration = parse_duration(word.removeprefix("-"))
    return None if duration is None else now - duration


def _calendar_time(word: str, now: dt.datetime) -> dt.datetime:
    """Return the time of a date, a time of day, or both; naive without an offset. *now* is in the zone of the result."""
    today = now.date()
    if word in _DAYS:
        days = dt.timedelta(days=_DAYS[word])
        return dt.datetime.combine(today + days, dt.time())

    # Python accepts the Z of RFC 3339 in upper case only.
    text = word.upper()
    if ":" in text[:3]:
        time = dt.time.fromisoformat(text)
        return dt.datetime.combine(today, time)
    return dt.datetime.fromisoformat(text)


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
