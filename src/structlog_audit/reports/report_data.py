"""The data of a report, made of the aggregates and statistics of its events.

**Guarantees**

* Totals, rates and percentiles equal those of `structlog_audit.query.statistics`. The monthly figures have the names of the
  memory SDK's page, except that the activity of users is counted by the classes of operations, and events
  without a user are counted apart.
* Months without events are included, unless the report would have more than `MOST_MONTHS`: a single event with a wrong time
  can stretch the range to centuries.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from itertools import islice
from typing import Any

from structlog_audit._version import __version__
from structlog_audit.events.codec import to_json
from structlog_audit.events.event import EventStatus, rfc3339
from structlog_audit.events.operation_classes import UNCLASSIFIED, OperationClass
from structlog_audit.query.completeness import Completeness
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.statistics import counts_by_text
from structlog_audit.reports.aggregation import (
    NEWEST,
    ClassCounts,
    MonthAggregate,
    ReportAggregates,
    class_name,
    counts_by_status,
    event_row,
    truncated,
)
from structlog_audit.reports.clauses import CLAUSES, NOT_SHOWN
from structlog_audit.reports.completeness import completeness_members
from structlog_audit.reports.period import Period, floor, month_of, months_between, rfc3339_or_none, steps

MOST_MONTHS = 240
"""Maximum months of a report that includes months without events."""

MOST_FAILING = 10
"""Maximum users in the list of those with the most failures."""

_MICROSECOND = dt.timedelta(microseconds=1)


def build_data(
    source: EventSource,
    period: Period,
    user_id: str | None,
    aggregates: ReportAggregates,
    statistics: dict[str, Any],
    hints: list[str],
    verdict: Completeness,
    comparison: dict[str, Any],
) -> dict[str, Any]:
    """Return the members of a report (`Report.to_dict`).

    Args:
        source: The source of the events.
        period: The period of the report.
        user_id: The user that the report is limited to, or None.
        aggregates: The aggregates of all events of the period.
        statistics: The statistics of its application events (`structlog_audit.query.statistics.statistics`).
        hints: Why there may be no events of the user.
        verdict: The verdict on the completeness of the period.
        comparison: The comparison with the period before.
    """
    now = source._now()
    span = _span(aggregates, period, now)
    # Before the months, which take the counts of their users.
    users = _users(aggregates)
    return {
        "period": period.to_dict(),
        "user_id": None if user_id is None else _encodable(user_id),
        "generated_at": rfc3339(now),
        "software": f"structlog-audit {__version__}",
        "source": verdict.source.to_dict(),
        "summary": _summary(statistics),
        "completeness": completeness_members(source, verdict, aggregates),
        "integrity": [seal.to_dict(aggregates.zone) for seal in verdict.seals],
        "months": _months(aggregates, span),
        "over_time": _over_time(aggregates, span),
        "comparison": comparison,
        "operations": _operations(aggregates),
        "classes": _classes(aggregates),
        "users": users,
        "unknown_status": aggregates.unknown_status,
        "failures": aggregates.failures.to_dict(),
        "deletions": aggregates.deletions.to_dict(),
        "exports": aggregates.exports.to_dict(),
        "activity": None if user_id is None else {**aggregates.activity.to_dict(), "hints": hints},
        "open_intents": open_intents(aggregates),
        "trail_events": _trail_events(aggregates),
        "clauses": [{**clause._asdict(), "sections": list(clause.sections)} for clause in CLAUSES],
        "not_shown": list(NOT_SHOWN),
    }


def _encodable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _summary(statistics: dict[str, Any]) -> dict[str, Any]:
    """Return the statistics, with the number of users in place of their counts."""
    by_user = statistics["by_user"]
    first = statistics["first_event"]
    last = statistics["last_event"]

    summary = {name: value for name, value in statistics.items() if name != "by_user"}
    summary["first_event"] = rfc3339_or_none(first)
    summary["last_event"] = rfc3339_or_none(last)
    summary["users"] = len(by_user)
    return summary


Span = tuple[dt.datetime, dt.datetime]
"""The first and the last instant of a range, both included."""


def _span(aggregates: ReportAggregates, period: Period, now: dt.datetime) -> Span | None:
    """Return the elapsed part of a bounded period, or else the range of the events."""
    hours = aggregates.hours

    if period.start is not None and period.end is not None and period.start < period.end:
        # Events may lie in the future if a clock was wrong.
        elapsed = max([now, *hours])
        last = min(period.end - _MICROSECOND, elapsed)
        return period.start, max(period.start, last)

    if not hours:
        return None
    return min(hours), max(hours)


def _months(aggregates: ReportAggregates, span: Span | None) -> list[dict[str, Any]]:
    """Return the memory SDK's monthly report of every month of the span."""
    months = _months_of_report(aggregates, span)

    return [_month(month, aggregates.months.get(month) or MonthAggregate()) for month in months]


def _months_of_report(aggregates: ReportAggregates, span: Span | None) -> list[str]:
    """Return all months of the span, or only those with events if it has too many."""
    if span is not None:
        first, last = span
        months = months_between(month_of(first, aggregates.zone), month_of(last, aggregates.zone))
        bounded = list(islice(months, MOST_MONTHS + 1))
        if len(bounded) <= MOST_MONTHS:
            return bounded

    return sorted(aggregates.months)


def _month(month: str, found: MonthAggregate) -> dict[str, Any]:
    """Return the row of a month. The counts of its users are taken: those and the report together take twice the memory."""
    without_user = found.users.pop(None, ClassCounts())

    totals = {user_id: counts.total for user_id, counts in found.users.items() if user_id is not None}
    most_active = sorted(totals, key=lambda user_id: (-totals[user_id], user_id))

    return {
        "period": month,
        "total_events": found.operations.total(),
        "users": len(totals),
        "operations": counts_by_text(found.operations),
        "user_activity": {user_id: found.users.pop(user_id).to_dict() for user_id in most_active},
        "without_user": without_user.total,
    }


def _over_time(aggregates: ReportAggregates, span: Span | None) -> dict[str, Any]:
    """Return the counts by status in each step of the span."""
    if span is None:
        return {"unit": "day", "steps": []}

    unit, starts = steps(*span, aggregates.zone)
    counts: dict[dt.datetime, Counter[EventStatus]] = {start: Counter() for start in starts}
    for hour, statuses in aggregates.hours.items():
        counts[floor(hour, unit, aggregates.zone)].update(statuses)

    rows = []
    for start, statuses in counts.items():
        row = {
            "start": rfc3339(start),
            "total": statuses.total(),
            **counts_by_status(statuses),
        }
        rows.append(row)
    return {"unit": unit, "steps": rows}


def _operations(aggregates: ReportAggregates) -> list[dict[str, Any]]:
    rows = []
    for operation, aggregate in aggregates.operations.items():
        name = class_name(operation, aggregates.classes)
        rows.append(aggregate.to_dict(operation, name))

    # The most frequent first; equally frequent ones by name.
    rows.sort(key=lambda row: row["operation"])
    rows.sort(key=lambda row: row["total_events"], reverse=True)
    return rows


def _classes(aggregates: ReportAggregates) -> dict[str, Any]:
    """Return the counts of every class, and the operations without one."""
    operations: defaultdict[str, Counter[str]] = defaultdict(Counter)
    statuses: defaultdict[str, Counter[EventStatus]] = defaultdict(Counter)
    for operation, aggregate in aggregates.operations.items():
        name = class_name(operation, aggregates.classes)
        operations[name][operation] += aggregate.statuses.total()
        statuses[name].update(aggregate.statuses)

    rows = {}
    for operation_class in OperationClass:
        name = operation_class.value
        rows[name] = {
            "total_events": statuses[name].total(),
            "operations": len(operations[name]),
            "by_status": counts_by_status(statuses[name]),
        }

    unclassified = statuses[UNCLASSIFIED].total()
    return {
        "classified": sum(row["total_events"] for row in rows.values()),
        "by_class": rows,
        "unclassified": unclassified,
        "unclassified_operations": counts_by_text(operations[UNCLASSIFIED]),
    }


def _users(aggregates: ReportAggregates) -> dict[str, Any]:
    users = {user_id: aggregate for user_id, aggregate in aggregates.users.items() if user_id is not None}
    failing = [user_id for user_id, aggregate in users.items() if aggregate.failures]

    most_active = sorted(users, key=lambda user_id: (-users[user_id].total, user_id))[:NEWEST]
    most_failures = sorted(failing, key=lambda user_id: (-users[user_id].failures, user_id))[:MOST_FAILING]

    def row(user_id: str) -> dict[str, Any]:
        counts = [month.users[user_id] for month in aggregates.months.values() if user_id in month.users]
        return users[user_id].to_dict(user_id, counts)

    return {
        "total": len(users),
        "most_active": list(map(row, most_active)),
        "most_failures": list(map(row, most_failures)),
    }


def open_intents(aggregates: ReportAggregates) -> dict[str, Any]:
    """Return the number of intents without an outcome, and the oldest of them."""
    intents = list(aggregates.open_intents.values())
    entries = sum(len(intent.entry_ids) for intent in intents)
    oldest = [event_row(intent) for intent in intents[:NEWEST]]
    return {
        "total": len(intents),
        "entries": entries,
        "oldest": oldest,
    }


def _trail_events(aggregates: ReportAggregates) -> dict[str, Any]:
    newest = []
    for row, event in aggregates.trail_events.rows():
        metadata = truncated(to_json(event.metadata))
        newest.append({**row, "metadata": metadata})

    by_operation = dict(aggregates.trail_operations.most_common())
    return {
        "by_operation": by_operation,
        "total": aggregates.trail_events.total,
        "newest": newest,
    }
