"""The times that ``--since`` and ``--until`` understand.

=====================================  ================================================================================
text                                   what it means
=====================================  ================================================================================
``2025-01-15T10:30:00Z``               that moment (RFC 3339; a space may stand for the T)
``2025-01-15T10:30``, ``2025-01-15``   local time, or UTC with ``--utc``; a date is its midnight
``10:30``                              today at that time
``now``, ``today``, ``yesterday``      now; the last midnight; the one before it (also ``tomorrow``)
``1h``, ``-1h``, ``30m``, ``1h30m``    so long ago: s, m, h, d (24 hours) and w
=====================================  ================================================================================

Ranges are half-open: ``--until`` is the first moment that no longer counts.
"""

from __future__ import annotations

import datetime as dt
import re

from structlog_audit.cli.exit_codes import UsageError, did_you_mean
from structlog_audit.events.event import utc

_AGO = re.compile(r"-?((?:\d+[smhdw])+)")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DAYS = {"today": 0, "yesterday": -1, "tomorrow": 1}
_FORMS = "use RFC 3339, a date, 'today', 'yesterday', 'now', or how long ago, such as '1h', '30m' or '7d'"


def moment(option: str, text: str, now: dt.datetime, *, in_utc: bool = False) -> dt.datetime:
    """The moment that *text* means, in UTC.

    Args:
        option: What it was given for; for the message of an error.
        text: What was given.
        now: The time, aware.
        in_utc: Whether a time without an offset is UTC, and not local.

    Raises:
        UsageError: It means none.
    """
    word = text.strip().lower()
    try:
        found = _ago(word, now) or _by_calendar(word, now if in_utc else now.astimezone())
    except (ValueError, OverflowError):
        hint = did_you_mean(word, ["now", *_DAYS]) or f" {_FORMS[0].upper()}{_FORMS[1:]}."
        raise UsageError(f"{option}={text!r} is no time.{hint}") from None
    return utc(found.replace(tzinfo=dt.UTC) if found.tzinfo is None and in_utc else found)


def _ago(word: str, now: dt.datetime) -> dt.datetime | None:
    if word == "now":
        return now
    found = _AGO.fullmatch(word)
    if found is None:
        return None
    parts = re.findall(r"(\d+)([smhdw])", found[1])
    return now - dt.timedelta(seconds=sum(int(count) * _SECONDS[unit] for count, unit in parts))


def _by_calendar(word: str, now: dt.datetime) -> dt.datetime:
    """The moment of a date, a time, or both, given *now* in the time zone that is meant. Naive, if it names no offset."""
    if word in _DAYS:
        return dt.datetime.combine(now.date() + dt.timedelta(days=_DAYS[word]), dt.time())
    if ":" in word[:3]:
        return dt.datetime.combine(now.date(), dt.time.fromisoformat(word.upper()))
    return dt.datetime.fromisoformat(word.upper())


def time_range(
    since: str | None, until: str | None, now: dt.datetime, *, in_utc: bool = False
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """The range from *since* to *until*, None where there is no bound.

    Raises:
        UsageError: One of them is no time, or the range is reversed.
    """
    start = None if since is None else moment("--since", since, now, in_utc=in_utc)
    end = None if until is None else moment("--until", until, now, in_utc=in_utc)
    if start is not None and end is not None and start > end:
        raise UsageError(f"--since={since!r} lies after --until={until!r}: exchange them")
    return start, end
