"""The names of the files of a trail.

Rules:

* The active segment has the name of the trail. Rollover renames it to ``NAME.20250115T103045.123456Z``: the UTC time of
  the rollover. A log shipper that reads ``*.jsonl`` does not read it again under that name.
* The names sort by time. A new one is the time of the rollover, or, if the clock went back or another writer was faster,
  the newest existing one plus a microsecond; so no name is ever used twice. After the last moment of the year 9999 there is
  none: a file of that name, which only somebody else can have made, ends rollover, not writing.
* Names are read without ``strptime``: that takes a lock of its own, and a forked child can inherit it taken.
* A segment may be compressed later; ``.gz`` and ``.zst`` may follow its name.
* The files of a `logging.handlers.RotatingFileHandler` can be read too: ``NAME.1`` is newer than ``NAME.2``.
"""

from __future__ import annotations

import datetime as dt
import errno
import re
from collections.abc import Iterable

_STAMP = "%Y%m%dT%H%M%S.%fZ"
_SUFFIX = re.compile(r"\.(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)\.(\d{6})Z(?:\.gz|\.zst)?", re.ASCII)
_NUMBER = re.compile(r"\.(\d{1,3})(?:\.gz|\.zst)?", re.ASCII)
_BASE = re.compile(r"(.+?)\.(?:\d{8}T\d{6}\.\d{6}Z|\d{1,3})(?:\.gz|\.zst)?", re.ASCII | re.DOTALL)

PACKED = (".gz", ".zst")
"""What may follow the name of a segment that was compressed."""

SegmentOrder = tuple[int, dt.datetime | int]
"""Where a segment stands in its trail; places sort as their segments do."""

ACTIVE: SegmentOrder = (2, 0)
"""The place of the active segment."""


def base_of(name: str) -> str:
    """The name of the trail that the file called *name* is a segment of."""
    found = _BASE.fullmatch(name)
    return found[1] if found else name


def order_of(base: str, name: str) -> SegmentOrder | None:
    """Where the file called *name* stands in the trail called *base*; None if it is no segment of it."""
    if name == base:
        return ACTIVE
    time = rollover_time(base, name)
    if time is not None:
        return 1, time
    number = _NUMBER.fullmatch(name, len(base)) if name.startswith(base) else None
    return None if number is None else (0, -int(number[1]))


def rollover_time(base: str, name: str) -> dt.datetime | None:
    """When the file called *name* was rolled over, if it is a segment of the trail called *base*, otherwise None."""
    found = _SUFFIX.fullmatch(name, len(base)) if name.startswith(base) else None
    if found is None:
        return None
    try:
        return dt.datetime(*map(int, found.groups()), tzinfo=dt.UTC)  # type: ignore[misc, arg-type]
    except ValueError:  # such as a month 13: not a name of ours
        return None


def rolled(base: str, names: Iterable[str]) -> list[str]:
    """Those of *names* that are rolled segments of *base*, the oldest first."""
    times = ((rollover_time(base, name), name) for name in names)
    return [name for _, name in sorted((time, name) for time, name in times if time is not None)]


def next_name(base: str, names: Iterable[str], now: dt.datetime) -> str:
    """The name that the active segment of *base* gets in a rollover at *now*, given the *names* that are in its folder.

    Raises:
        OSError: There is a segment that has the last name there can be.
    """
    existing = [time for name in names if (time := rollover_time(base, name)) is not None]
    newest = max(existing, default=None)
    if newest is not None and now <= newest:
        try:
            now = newest + dt.timedelta(microseconds=1)
        except OverflowError:
            raise OSError(errno.EOVERFLOW, "there is a segment of the year 9999: move it away") from None
    return f"{base}.{now.strftime(_STAMP)}"
