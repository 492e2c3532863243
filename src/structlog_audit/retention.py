"""Which segments of a trail may go.

Rules:

* Whole segments only, and only rolled ones, the oldest first: what is left is a stretch of the trail without holes.
* A segment's age is the time since its rollover: every event in it is at least that old.
* A segment goes if it is older than ``max_age_days``, if the trail would be larger than ``max_bytes`` with it, or if there are
  more than ``max_segments`` rolled ones. It never goes before it is ``min_age_days`` old (PCI DSS 10.5.1: keep a year).
* A clock that jumped forward makes everything look old; who keeps by age alone should have ``min_age_days`` and a clock that
  is kept in step.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query import whole_number


@dataclass(frozen=True, slots=True)
class Retention:
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

    def due(self, rolled: Sequence[tuple[dt.datetime, int]], active_bytes: int, now: dt.datetime) -> int:
        """How many of the *rolled* segments, the oldest first, may go: each with its rollover and its size in bytes."""
        total = active_bytes + sum(size for _, size in rolled)
        for gone, (time, size) in enumerate(rolled):
            age = (now - time) / dt.timedelta(days=1)
            too_old = self.max_age_days is not None and age > self.max_age_days
            too_large = self.max_bytes is not None and total > self.max_bytes
            too_many = self.max_segments is not None and len(rolled) - gone > self.max_segments
            if age < self.min_age_days or not (too_old or too_large or too_many):
                return gone
            total -= size
        return len(rolled)


def retention_of(value: Any, max_segments: int) -> Retention:
    """The retention that the parameters ``retention`` and ``backupCount`` of a file handler mean together.

    Raises:
        AuditTypeError: *value* is neither None nor a mapping, or has an unknown name or a wrong type in it.
        AuditValueError: A negative number, or a minimum age above the maximum.
    """
    if value is None:
        value = {}
    if isinstance(value, Retention):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    names = [field.name for field in fields(Retention)]
    if not isinstance(value, Mapping) or not set(value) <= set(names):
        raise AuditTypeError(f"retention={value!r}: give a mapping with {', '.join(names)}")
    for name, number in value.items():
        if number is None and name != "min_age_days":
            continue
        if name in ("max_bytes", "max_segments"):
            whole_number(f"retention: {name}", number, least=0)
        elif isinstance(number, bool) or not isinstance(number, (int, float)):
            raise AuditTypeError(f"retention: {name}={number!r}: give a number of days")
        elif not number >= 0:
            raise AuditValueError(f"retention: {name}={number!r}: give at least 0")
    made = Retention(**{"max_segments": max_segments or None, **value})
    if made.max_age_days is not None and made.min_age_days > made.max_age_days:
        raise AuditValueError(f"retention: min_age_days={made.min_age_days} is above max_age_days={made.max_age_days}")
    return made
