"""The aggregates of a report of a source that counts its events itself, such as an archive.

**Guarantees.** They are those of one pass over the events (`ReportAggregates.aggregate`). Read one by one are only the events
of lists, those of the library, and intents with their outcomes.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from structlog_audit.events.event import INTENT_ID, EventStatus, Kind, operation_of
from structlog_audit.events.operation_classes import OperationClass, OperationClasses
from structlog_audit.query.activity import CountedEvents, Outcome, count_unknown_status
from structlog_audit.query.field_tests import Absent, AnyTest, FieldConditions, FieldTest, OneOf
from structlog_audit.query.filters import Conditions, conditions
from structlog_audit.query.statistics import Histogram, Sum, summary
from structlog_audit.reports.aggregation import NEWEST, OperationAggregate, RecentEvents, ReportAggregates
from structlog_audit.reports.period import Period

HAS_INTENT = FieldTest(f"metadata.{INTENT_ID}", (Absent(),), is_negated=True)
"""Passed by the outcomes of intents, and by few others."""

_IS_INTENT = FieldTest("kind", (OneOf(frozenset((str(Kind.INTENT),))),))


def add_counted(counted: CountedEvents, period: Period, aggregates: ReportAggregates) -> dict[str, Any]:
    """Add the events of *period* to *aggregates*, and return the statistics of the application events."""
    bounds: Any = {"start_time": period.start, "end_time": period.end}
    ordinary = conditions(**bounds)
    aggregates.add_activity(counted.activity)
    aggregates.unknown_status = count_unknown_status(counted.select, ordinary)

    of_library = conditions(kind=[Kind.GAP, Kind.TRAIL], **bounds)
    for _ in aggregates.aggregate(counted.select(of_library, newest_first=False)):
        # Events of these kinds are only counted.
        pass

    _add_lists(counted, ordinary, aggregates)
    _add_intents(counted, bounds, aggregates)

    return _statistics(counted, ordinary, aggregates)


def _add_lists(counted: CountedEvents, ordinary: Conditions, aggregates: ReportAggregates) -> None:
    """Add the newest failures, deletions and exports."""
    outcomes = counted.activity.outcomes
    deletions = _of_class(OperationClass.DELETE, outcomes, aggregates.classes)
    exports = _of_class(OperationClass.EXPORT, outcomes, aggregates.classes)

    for recent, name, values in (
        (aggregates.failures, "status", {EventStatus.FAILURE.value}),
        (aggregates.deletions, "operation", deletions),
        (aggregates.exports, "operation", exports),
    ):
        _add_list(recent, counted, ordinary, name, values)


def _of_class(wanted: OperationClass, outcomes: Iterable[Outcome], classes: OperationClasses) -> set[str]:
    """Return the operations of one class, as events have them."""
    return {name for name, _ in outcomes if classes.class_of(operation_of(name).value) is wanted}


def _add_list(
    recent: RecentEvents, counted: CountedEvents, ordinary: Conditions, name: str, values: Collection[str]
) -> None:
    """Add the events of which the member *name* is one of *values*."""
    place = {"operation": 0, "status": 1}[name]
    outcomes, entries = counted.activity.outcomes, counted.activity.entries
    matching = [outcome for outcome in outcomes if outcome[place] in values]
    if not matching:
        return

    recent.total = sum(outcomes[outcome] for outcome in matching)
    recent.failed = sum(outcomes[outcome] for outcome in matching if outcome[1] is EventStatus.FAILURE)
    recent.entries = sum(entries[outcome] for outcome in matching)

    narrowed = Conditions(
        (*ordinary.names, (name, frozenset(values))), start_time=ordinary.start_time, end_time=ordinary.end_time
    )
    newest = list(counted.select(narrowed, newest_first=True, at_most=NEWEST))
    recent.events.extend(reversed(newest[:NEWEST]))


def _add_intents(counted: CountedEvents, bounds: Any, aggregates: ReportAggregates) -> None:
    """Add the intents, and remove those with an outcome after them."""
    intents = conditions(kind=Kind.INTENT, **bounds)
    if next(iter(counted.select(intents, newest_first=False, at_most=1)), None) is None:
        return

    of_intents = FieldConditions.of(conditions(kind=[None, Kind.INTENT], **bounds), AnyTest((_IS_INTENT, HAS_INTENT)))
    for event in counted.select(of_intents, newest_first=False):
        if event.kind is None:
            aggregates.close_intent(event)
        else:
            aggregates.open_intents[event.event_id] = event


def _statistics(counted: CountedEvents, ordinary: Conditions, aggregates: ReportAggregates) -> dict[str, Any]:
    """Return the statistics, as `structlog_audit.query.statistics.statistics` has them."""
    operations, statuses = Counter[str](), Counter[str]()
    for (operation, status), count in counted.activity.outcomes.items():
        operations[operation] += count
        statuses[status] += count

    users = Counter({user: counts.total for user, counts in aggregates.users.items()})
    histogram, total_ms = _durations(aggregates.operations.values())
    average_ms = total_ms.average(histogram.buckets.total())

    def end(*, newest_first: bool) -> dt.datetime | None:
        found = counted.select(ordinary, newest_first=newest_first, at_most=1)
        return next((event.timestamp for event in found), None)

    first, last = end(newest_first=False), end(newest_first=True)

    return summary(operations, statuses, users, histogram, average_ms, first, last)


def _durations(aggregates: Iterable[OperationAggregate]) -> tuple[Histogram, Sum]:
    """Return all durations together, and their sum."""
    histogram, total_ms = Histogram(), Sum()

    for aggregate in aggregates:
        histogram.buckets.update(aggregate.durations.buckets)
        total_ms.merge(aggregate.total_ms)

    return histogram, total_ms
