"""The time range that the options ``--since``, ``--until``, ``--month``, ``--tz`` and ``--utc`` give."""

from __future__ import annotations

import datetime as dt

from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.exceptions import AuditValueError
from structlog_audit.query.times import checked_zone, month_range, parse_time


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
        return checked_zone("--tz", name)
    except AuditValueError as error:
        raise UsageError(str(error)) from None


def time_range(
    since: str | None,
    until: str | None,
    month: str | None,
    now: dt.datetime,
    zone: dt.tzinfo | None = None,
    *,
    prefix: str = "--",
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Return the start and the end of the time range; None for no bound.

    Args:
        since: The start as text.
        until: The end as text.
        month: The month as text.
        now: The time now.
        zone: The zone in which times are read; None is local time.
        prefix: The beginning of the options' names, for error messages.

    Raises:
        UsageError: A text is not a time or a month, the range is reversed, or a month is given beside another bound.
    """
    if month is not None and (since is not None or until is not None):
        raise UsageError("--month cannot be combined with --since or --until")
    try:
        if month is not None:
            return month_range(month, now, zone, name=f"{prefix}month")

        start = None if since is None else parse_time(f"{prefix}since", since, now, zone)
        end = None if until is None else parse_time(f"{prefix}until", until, now, zone)
    except AuditValueError as error:
        raise UsageError(str(error)) from None

    if start is not None and end is not None and start > end:
        raise UsageError(f"{prefix}since={since!r} must not be later than {prefix}until={until!r}")
    return start, end
