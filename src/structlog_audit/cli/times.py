"""The time range that the options ``--since``, ``--until``, ``--month``, ``--tz`` and ``--utc`` give."""

from __future__ import annotations

import datetime as dt
from zoneinfo import ZoneInfo

from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.exceptions import AuditValueError
from structlog_audit.query.times import month_range, parse_time


def zone_of(name: str | None, *, utc: bool) -> dt.tzinfo | None:
    """Return the zone in which times are read and shown; None is local time.

    Args:
        name: The name of a zone, such as ``Europe/Berlin``.
        utc: Whether it is UTC.

    Raises:
        UsageError: There is no such zone, or two zones are given.
    """
    if name is None:
        return dt.UTC if utc else None
    if utc:
        raise UsageError("--tz cannot be combined with --utc")
    try:
        return ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        # An unknown name is a KeyError, the name of a folder an OSError, and a path that leads elsewhere a ValueError.
        raise UsageError(f"--tz={name!r}: expected the name of a time zone, such as Europe/Berlin") from None


def time_range(
    since: str | None, until: str | None, month: str | None, now: dt.datetime, zone: dt.tzinfo | None = None
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Return the start and the end of the time range; None for no bound.

    Raises:
        UsageError: A text is not a time or a month, the range is reversed, or a month is given beside another bound.
    """
    try:
        if month is not None:
            if since is not None or until is not None:
                raise UsageError("--month cannot be combined with --since or --until")
            return month_range(month, now, zone)

        start = None if since is None else parse_time("--since", since, now, zone)
        end = None if until is None else parse_time("--until", until, now, zone)
    except AuditValueError as error:
        text = str(error)
        raise UsageError(f"--{text}" if text.startswith("month=") else text) from None

    if start is not None and end is not None and start > end:
        raise UsageError(f"--since={since!r} must not be later than --until={until!r}")
    return start, end
