"""Which segments of a trail may go.

Rules:

* Whole segments only, and only rolled ones, the oldest first: what is left is a stretch of the trail without holes.
* A segment's age is the time since its rollover: every event in it is at least that old. An active segment that was begun
  more than a tenth of ``max_age_days`` ago, and more than an hour, is rolled over at the next write, so that no event
  outlives that bound by more than a tenth or an hour, as long as there are writes.
* A segment goes if it is older than ``max_age_days``, if the trail would be larger than ``max_bytes`` with it, or if there are
  more than ``max_segments`` rolled ones. It never goes before it is ``min_age_days`` old (PCI DSS 10.5.1: keep a year).
* None goes in the second after its rollover: another writer may be about to write into it (`active.CHECK_SECONDS`).
* No segment was rolled over after the one that follows it, nor after now. A name that says so comes from a clock that was
  ahead; then the file's own time counts, or else that of the one that follows.
* A clock that leaps forward makes everything look old. So after a gap of more than 30 days between rollovers, or since the
  newest, ages are measured by the time before the gap, until the trail has gone on for a week behind it. A clock that is
  put right within a week has let nothing go by its age, nor before ``min_age_days``; one that leaps by less than 30 days
  makes ages wrong by so much. A process that really was idle for so long keeps what is too old for a week more.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from structlog_audit._validation import require_integer
from structlog_audit.exceptions import AuditTypeError, AuditValueError

DAY = dt.timedelta(days=1)

GRACE_SECONDS = 1.0
"""After a rollover, in which a writer that has not noticed may still write into the segment: it looks every 0.05 s."""

LEAP = 30 * DAY
"""Between two rollovers, or since the newest: beyond this the clock may have been wrong."""

SETTLED = 7 * DAY
"""After a leap: if the trail went on for so long, the clock was right."""


class Rolled(NamedTuple):
    """A rolled segment: the time in its name, when its file last changed (``st_ctime``), and its size in bytes."""

    named: dt.datetime
    changed: dt.datetime
    size: int


class Retention(msgspec.Struct, frozen=True):
    """How long segments are kept. None means without bound.

    Attributes:
        max_age_days: Days after its rollover when a segment goes.
        max_bytes: Bytes of all segments, the active one included.
        max_segments: Rolled segments.
        min_age_days: Days before which no segment goes, whatever the others say.
    """

    max_age_days: float | None = None
    max_bytes: int | None = None
    max_segments: int | None = None
    min_age_days: float = 0

    @property
    def bounds(self) -> bool:
        """Whether there is any bound."""
        return (self.max_age_days, self.max_bytes, self.max_segments) != (None, None, None)

    @property
    def begin_anew_days(self) -> float | None:
        """Days after which an active segment is rolled over, lest its events outlive ``max_age_days``; None: never."""
        return None if self.max_age_days is None else max(self.max_age_days / 10, 1 / 24)

    def due(self, rolled: Sequence[Rolled], active_bytes: int, now: dt.datetime) -> int:
        """How many of the *rolled* segments, the oldest first, may go. O(n)."""
        times = rollovers(rolled, now)
        today = believed(times, now)
        total = active_bytes + sum(segment.size for segment in rolled)
        for gone, (time, segment) in enumerate(zip(times, rolled, strict=True)):
            age = max(0.0, (today - time) / DAY)
            too_old = self.max_age_days is not None and age > self.max_age_days
            too_large = self.max_bytes is not None and total > self.max_bytes
            too_many = self.max_segments is not None and len(rolled) - gone > self.max_segments
            too_fresh = (now - time).total_seconds() < GRACE_SECONDS or age < self.min_age_days
            if too_fresh or not (too_old or too_large or too_many):
                return gone
            total -= segment.size
        return len(rolled)


def rollovers(rolled: Sequence[Rolled], now: dt.datetime) -> list[dt.datetime]:
    """When each of the *rolled* segments was rolled over, as far as can be told: ascending, none after *now*."""
    times = [now]
    for segment in reversed(rolled):
        times.append(next((time for time in (segment.named, segment.changed) if time <= times[-1]), times[-1]))
    return times[:0:-1]


def believed(times: Sequence[dt.datetime], now: dt.datetime) -> dt.datetime:
    """The time that ages are measured by, given the *times* of the rollovers: *now*, or the one before a recent leap."""
    after = now
    for time in reversed(times):
        if now - after >= SETTLED:
            break
        if after - time > LEAP:
            return time
        after = time
    return now


def retention_of(value: Any, max_segments: int) -> Retention:
    """The retention that the parameters ``retention`` and ``backupCount`` of a file handler mean together.

    Raises:
        AuditTypeError: *value* is neither None nor a mapping, or has an unknown name or a wrong type in it.
        AuditValueError: A negative number, or a minimum age above the maximum.
    """
    if value is None:
        value = {}
    if isinstance(value, Retention):
        value = msgspec.structs.asdict(value)
    names = Retention.__struct_fields__
    if not isinstance(value, Mapping) or not set(value) <= set(names):
        raise AuditTypeError(f"retention={value!r}: give a mapping with {', '.join(names)}")
    for name, number in value.items():
        if number is None and name != "min_age_days":
            continue
        if name in ("max_bytes", "max_segments"):
            require_integer(f"retention: {name}", number, least=0)
        elif isinstance(number, bool) or not isinstance(number, (int, float)):
            raise AuditTypeError(f"retention: {name}={number!r}: give a number of days")
        elif not number >= 0:
            raise AuditValueError(f"retention: {name}={number!r}: give at least 0")
    made = Retention(**{"max_segments": max_segments or None, **value})
    if made.max_age_days is not None and made.min_age_days > made.max_age_days:
        raise AuditValueError(f"retention: min_age_days={made.min_age_days} is above max_age_days={made.max_age_days}")
    return made
