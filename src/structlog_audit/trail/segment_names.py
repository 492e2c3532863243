"""The names of the files of a trail.

**Format.** The active segment has the name of the trail. Rollover renames it to ``NAME.20250115T103045.123456Z``, the
UTC time of the rollover, so a log shipper that reads ``*.jsonl`` does not read it a second time. A compressed segment has
``.gz`` or ``.zst`` after its name. The files of other programs are recognized too: those of a
`logging.handlers.RotatingFileHandler` and of logrotate, of which ``NAME.1`` is newer than ``NAME.2``, and those of a
`logging.handlers.TimedRotatingFileHandler` and of logrotate's ``dateext``, such as ``NAME-20250115`` or ``NAME.2025-01-15``.

**Guarantees.** Names sort by time and are never reused. A new name is the time of the rollover; if the clock went back, or
another process was faster, it is the newest existing name plus one microsecond. The last possible name is that of the end
of the year 9999. If a file with that name exists, rollover fails and the active segment stays in use.

**Concurrency.** Names are parsed without ``strptime``, which takes a lock that a forked child can inherit locked.
"""

from __future__ import annotations

import datetime as dt
import errno
import re
from collections.abc import Iterable

_TIME_FORMAT = "%Y%m%dT%H%M%S.%fZ"
_TIME_SUFFIX = re.compile(r"\.(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)\.(\d{6})Z(?:\.gz|\.zst)?", re.ASCII)
_NUMBER_SUFFIX = re.compile(r"\.(\d{1,3})(?:\.gz|\.zst)?", re.ASCII)
_DATE = r"(?:(?:19|20)\d\d-?(?:0[1-9]|1[0-2])-?(?:0[1-9]|[12]\d|3[01])(?:[-_T.]?[0-2]\d(?:[-:]?[0-5]\d){0,2})?|\d{10})"
_DATE_SUFFIX = re.compile(rf"[-._]({_DATE})(?:\.gz|\.zst)?", re.ASCII)
_SEGMENT_NAME = re.compile(
    rf"(.+?)(?:\.(?:\d{{8}}T\d{{6}}\.\d{{6}}Z|\d{{1,3}})|[-._]{_DATE})(?:\.gz|\.zst)?", re.ASCII | re.DOTALL
)

COMPRESSED_SUFFIXES = (".gz", ".zst")
"""The suffixes of compressed segments."""

SegmentOrder = tuple[int, dt.datetime | int]
"""The place of a segment in its trail. Places sort in the order of the segments, oldest first."""

ACTIVE: SegmentOrder = (2, 0)
"""The place of the active segment."""


def base_of(name: str) -> str:
    """Return the name of the trail that has a segment called *name*."""
    match = _SEGMENT_NAME.fullmatch(name)
    return match[1] if match else name


def order_of(base: str, name: str) -> SegmentOrder | None:
    """Return the place of the file *name* in the trail *base*, or None if it is not a segment of that trail."""
    if name == base:
        return ACTIVE
    if not name.startswith(base):
        return None

    time = rollover_time(base, name)
    if time is not None:
        return 1, time

    # Files of other programs come before timed ones: numbered ones, of which a higher number is older, and dated ones.
    match = _NUMBER_SUFFIX.fullmatch(name, len(base))
    if match is not None:
        return 0, -int(match[1])

    match = _DATE_SUFFIX.fullmatch(name, len(base))
    return None if match is None else (0, _date_number(match[1]))


def is_numbered(order: SegmentOrder) -> bool:
    """Return whether a segment with this place has a numbered name, which changes at each rollover."""
    _, number = order
    return isinstance(number, int) and number <= 0 and order != ACTIVE


def _date_number(date: str) -> int:
    """Return a positive number that sorts as *date*, which may have a time."""
    digits = re.sub(r"\D", "", date)
    return int(digits.ljust(14, "0"))


def rollover_time(base: str, name: str) -> dt.datetime | None:
    """Return the UTC time at which the segment *name* of the trail *base* was rolled over.

    Returns:
        None if *name* is not the name of a rolled segment of that trail.
    """
    if not name.startswith(base):
        return None
    match = _TIME_SUFFIX.fullmatch(name, len(base))
    if match is None:
        return None

    parts = map(int, match.groups())
    try:
        return dt.datetime(*parts, tzinfo=dt.UTC)  # type: ignore[misc, arg-type]
    except ValueError:
        # Digits that are not a date, such as month 13.
        return None


def rolled_segments(base: str, names: Iterable[str]) -> list[str]:
    """Return those of *names* that are rolled segments of the trail *base*, oldest first."""
    found = []
    for name in names:
        time = rollover_time(base, name)
        if time is not None:
            found.append((time, name))

    return [name for _, name in sorted(found)]


def next_name(base: str, names: Iterable[str], now: dt.datetime) -> str:
    """Return the name that the active segment of the trail *base* gets in a rollover.

    Args:
        base: The name of the trail.
        names: The names of all files in its folder.
        now: The current time in UTC.

    Raises:
        OSError: A segment has the last possible name.
    """
    times = (rollover_time(base, name) for name in names)
    newest = max((time for time in times if time is not None), default=None)

    if newest is not None and now <= newest:
        try:
            now = newest + dt.timedelta(microseconds=1)
        except OverflowError:
            message = "a segment is named after the end of the year 9999, so no later name exists: move it away"
            raise OSError(errno.EOVERFLOW, message) from None

    return f"{base}.{now.strftime(_TIME_FORMAT)}"
