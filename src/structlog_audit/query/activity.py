"""Counts of many events for a report, as a source gives them that need not read each event."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from structlog_audit.events.codec import MARKS, StoredEvent
from structlog_audit.events.conversion import has_unknown_status
from structlog_audit.events.event import EventStatus
from structlog_audit.query.field_tests import Absent, FieldConditions, FieldTest
from structlog_audit.query.filters import Conditions
from structlog_audit.query.statistics import Histogram, Sum, bucket_of

Outcome = tuple[str, EventStatus]
"""An operation, as events have it, and a status."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_US_BITS = 64
_US_LEAST = -(2**63)


class UserActivity(NamedTuple):
    """Counts of one user in one month, of which there may be several.

    Attributes:
        user_id: The user, or None for the events without one.
        month: The month in the time zone that was asked for, such as ``2025-01``.
        operations: How often the user did each operation. The six are called by their names.
        failures: The number of failures.
        first: The `moment_of` the first event, in the order of commit.
        last: The `moment_of` the last event.
    """

    user_id: str | None
    month: str
    operations: Mapping[str, int]
    failures: int
    first: int
    last: int

    @property
    def total(self) -> int:
        """The number of events."""
        return sum(self.operations.values())


def moment_of(place: int, us: int) -> int:
    """Return one integer, which takes little memory, of an event's place in an order and its time in µs since 1970.

    It has the order of the places.
    """
    return (place << _US_BITS) + us - _US_LEAST


def time_in(moment: int) -> dt.datetime:
    """Return the time in a `moment_of` an event, in UTC."""
    us = moment % (1 << _US_BITS) + _US_LEAST

    return _EPOCH + dt.timedelta(microseconds=us)


@dataclass(slots=True)
class Activity:
    """The counts of a set of events.

    Attributes:
        hours: The number of events by a time in the hour and the status.
        outcomes: The number of events by operation and status.
        entries: The number of their entry ids, alike.
        durations: The durations of each operation.
        totals_ms: Their sums.
        users: The counts of users by month, and of the events without one; read once.
    """

    hours: Counter[tuple[dt.datetime, EventStatus]] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    entries: Counter[Outcome] = field(default_factory=Counter)
    durations: defaultdict[str, Histogram] = field(default_factory=lambda: defaultdict(Histogram))
    totals_ms: defaultdict[str, Sum] = field(default_factory=lambda: defaultdict(Sum))
    users: Iterable[UserActivity] = ()

    def add(self, event: StoredEvent, hour: dt.datetime) -> None:
        """Count *event*, which is in this *hour*, but for its user."""
        outcome = event.operation, event.status
        self.hours[hour, event.status] += 1
        self.outcomes[outcome] += 1
        self.entries[outcome] += len(event.entry_ids)

        if event.duration_ms is not None:
            self.durations[event.operation].buckets[bucket_of(event.duration_ms)] += 1
            self.totals_ms[event.operation].add(event.duration_ms)


class CountedEvents(NamedTuple):
    """One state of a source, of which all answers are.

    Attributes:
        activity: The counts of the application events that were asked for.
        select: Yields the events that match conditions; the arguments are those of `EventSource.select`.
    """

    activity: Activity
    select: Callable[..., Iterator[StoredEvent]]


def count_unknown_status(select: Callable[..., Iterator[StoredEvent]], conditions: Conditions) -> int:
    """Return the number of events whose status states neither success nor failure, of those that match *conditions*."""
    is_marked = FieldTest(f"metadata.{MARKS}.status", (Absent(),), is_negated=True)
    marked = select(FieldConditions.of(conditions, is_marked), newest_first=False)

    return sum(has_unknown_status(event.metadata) for event in marked)
