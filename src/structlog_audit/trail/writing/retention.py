"""Retention: decides which segments of a trail are due for deletion.

**Guarantees.** Only whole rolled segments are deleted, oldest first, so the rest of the trail has no holes. A segment is due
if it is older than ``max_age_days``, if the trail would exceed ``max_bytes`` with it, or if there are more than
``max_segments`` rolled segments. It is never due before ``min_age_days`` (PCI DSS 10.5.1 requires one year), nor within
`GRACE_SECONDS` of its rollover. Age counts from the rollover, so every event in the segment is at least that old. An active
segment is rolled over after a tenth of ``max_age_days``, but at least an hour, so that its events do not stay much longer.

**Failure handling.** The order of the segments corrects clocks that were ahead: a segment was not rolled over after its
successor, nor in the future. If its name contradicts that, its ``st_ctime`` counts, or the time of its successor. After a gap
of more than `CLOCK_LEAP` between rollovers the clock may have leapt forward. Ages are then measured by the time before the
gap until the trail has continued for `CLOCK_TRUSTED_AFTER`. A process that was really idle keeps old segments that much
longer. Leaps shorter than `CLOCK_LEAP` are not detected.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from structlog_audit._references import resolve_references
from structlog_audit._validation import require_integer
from structlog_audit.exceptions import AuditTypeError, AuditValueError

DAY = dt.timedelta(days=1)

GRACE_SECONDS = 1.0
"""Seconds after a rollover in which another process may still append to the segment: it checks the path every 0.05 s."""

CLOCK_LEAP = 30 * DAY
"""The gap between two rollovers, or since the newest, beyond which the clock may have leapt forward."""

CLOCK_TRUSTED_AFTER = 7 * DAY
"""The time after a leap for which the trail must have continued before the clock is trusted."""


class RolledSegment(NamedTuple):
    """A rolled segment.

    Attributes:
        named_at: The time in its name, in UTC.
        changed_at: The time at which its file last changed (``st_ctime``), in UTC; of several copies, the earliest.
        size: Its size in bytes, with that of its copies.
    """

    named_at: dt.datetime
    changed_at: dt.datetime
    size: int


class Retention(msgspec.Struct, frozen=True):
    """The bounds of a trail. None stands for no bound.

    Attributes:
        max_age_days: Days after its rollover when a segment is due.
        max_bytes: Bytes of all segments, including the active one.
        max_segments: Number of rolled segments.
        min_age_days: Days after its rollover before which a segment is never due, whatever the other bounds.
    """

    max_age_days: float | None = None
    max_bytes: int | None = None
    max_segments: int | None = None
    min_age_days: float = 0

    @property
    def is_bounded(self) -> bool:
        """Whether any bound is set."""
        return (self.max_age_days, self.max_bytes, self.max_segments) != (None, None, None)

    @property
    def rollover_age_days(self) -> float | None:
        """The age in days at which an active segment is rolled over, or None if it has no maximum age."""
        if self.max_age_days is None:
            return None
        return max(self.max_age_days / 10, 1 / 24)

    def count_due(self, rolled: Sequence[RolledSegment], active_bytes: int, now: dt.datetime) -> int:
        """Return how many of the *rolled* segments are due, counted from the first.

        Args:
            rolled: All rolled segments, oldest first.
            active_bytes: Size of the active segment in bytes.
            now: The current time in UTC.
        """
        times = rollover_times(rolled, now)
        reference = trusted_now(times, now)
        total_bytes = active_bytes + sum(segment.size for segment in rolled)

        for count, (rolled_at, segment) in enumerate(zip(times, rolled, strict=True)):
            # Another process may still append to a segment that was rolled over just now.
            if (now - rolled_at).total_seconds() < GRACE_SECONDS:
                return count

            age_days = max(0.0, (reference - rolled_at) / DAY)
            if age_days < self.min_age_days:
                return count
            if not self._is_exceeded(age_days, total_bytes, len(rolled) - count):
                return count

            total_bytes -= segment.size

        return len(rolled)

    def _is_exceeded(self, age_days: float, total_bytes: int, segments: int) -> bool:
        """Return whether any bound is exceeded by the oldest of this number of rolled *segments*."""
        if self.max_age_days is not None and age_days > self.max_age_days:
            return True
        if self.max_bytes is not None and total_bytes > self.max_bytes:
            return True
        return self.max_segments is not None and segments > self.max_segments


def rollover_times(rolled: Sequence[RolledSegment], now: dt.datetime) -> list[dt.datetime]:
    """Return the most plausible rollover time of each of the *rolled* segments: ascending, and none after *now*."""
    times = []
    latest = now

    for segment in reversed(rolled):
        if segment.named_at <= latest:
            latest = segment.named_at
        elif segment.changed_at <= latest:
            latest = segment.changed_at
        times.append(latest)

    times.reverse()
    return times


def trusted_now(times: Sequence[dt.datetime], now: dt.datetime) -> dt.datetime:
    """Return the time by which ages are measured: *now*, or the last rollover before a recent leap of the clock.

    Args:
        times: The rollover times, ascending.
        now: The current time in UTC.
    """
    next_time = now
    for time in reversed(times):
        if now - next_time >= CLOCK_TRUSTED_AFTER:
            break
        if next_time - time > CLOCK_LEAP:
            return time
        next_time = time

    return now


def make_retention(value: Any, max_segments: int) -> Retention:
    """Return the retention that the parameters ``retention`` and ``backupCount`` of a file handler describe.

    Args:
        value: A `Retention`, a mapping of its attributes, or None.
        max_segments: The default for the attribute of that name; 0 for no bound.

    Raises:
        AuditTypeError: *value* has the wrong type, an unknown key, or a member of the wrong type.
        AuditValueError: A number is negative, or the minimum age exceeds the maximum age.
    """
    if value is None:
        value = {}
    if isinstance(value, Retention):
        value = msgspec.structs.asdict(value)
    value = resolve_references("retention", value)

    names = Retention.__struct_fields__
    if not isinstance(value, Mapping) or not set(value) <= set(names):
        raise AuditTypeError(f"retention={value!r}: expected a mapping with keys from {', '.join(names)}")
    for name, number in value.items():
        _check_bound(name, number)

    members = {"max_segments": max_segments or None, **value}
    retention = Retention(**members)

    maximum, minimum = retention.max_age_days, retention.min_age_days
    if maximum is not None and minimum > maximum:
        raise AuditValueError(f"retention: min_age_days={minimum}: expected at most max_age_days={maximum}")
    return retention


def _check_bound(name: str, number: Any) -> None:
    """Raise an error that names the attribute if *number* is invalid for the attribute *name* of a `Retention`."""
    if number is None and name != "min_age_days":
        return

    if name in ("max_bytes", "max_segments"):
        require_integer(f"retention: {name}", number, least=0)
    elif isinstance(number, bool) or not isinstance(number, (int, float)):
        raise AuditTypeError(f"retention: {name}={number!r}: expected a number of days")
    elif not number >= 0:
        # Written this way round, NaN is refused too.
        raise AuditValueError(f"retention: {name}={number!r}: expected at least 0")
