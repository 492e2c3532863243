"""The completeness of a report: every known reason why its figures may be too low."""

from __future__ import annotations

import datetime as dt
from typing import Any

from structlog_audit.events.event import rfc3339
from structlog_audit.query.event_source import EventSource
from structlog_audit.reports.aggregation import ReportAggregates, lost_count
from structlog_audit.reports.formatting import count, timestamp
from structlog_audit.reports.period import Period, rfc3339_or_none

_LOSSES = {
    "lost": "Lost while the target failed and too many events were pending, or because the target refused them",
    "raised": "Not recorded during the lifetime of the handler; the callers received an error",
    "pending": "Pending in memory, not yet in the trail",
}
"""Counters of a handler that are zero if nothing is missing."""

_DAMAGE = {
    "truncated": "The trail file was found shorter than expected",
    "replaced": "The trail file was found replaced or removed",
    "quarantine": "A line was found that a crash had left incomplete",
}
"""Trail events that show that part of the trail is missing."""

_HARMLESS = {"unfinished", "bom", "repeated"}
"""Problems of files that lose nothing of an acknowledged event (`structlog_audit.trail.reading.problems`)."""


def assess_completeness(source: EventSource, period: Period, aggregates: ReportAggregates) -> dict[str, Any]:
    """Return the member ``completeness`` of a report."""
    since = source.complete_since
    counters = source._counters()
    problems = dict(source.problems)
    reasons = [
        *_unknown_before(since, period),
        *_losses(aggregates, counters),
        *_damage(aggregates),
        *_unreadable(problems),
    ]
    return {
        "complete": not reasons,
        "reasons": reasons,
        "complete_since": rfc3339_or_none(since),
        "lost": aggregates.lost,
        "gaps": _gaps(aggregates),
        "counters": counters,
        "problems": problems,
    }


def _unknown_before(since: dt.datetime | None, period: Period) -> list[str]:
    if since is None or (period.start is not None and since <= period.start):
        return []
    return [f"The source has no complete record of events before {timestamp(rfc3339(since))} UTC."]


def _losses(aggregates: ReportAggregates, counters: dict[str, int]) -> list[str]:
    reasons = []

    if aggregates.gaps.total:
        gaps = count(aggregates.gaps.total, "gap")
        lost = count(aggregates.lost, "event")
        reasons.append(f"{gaps} in the trail: {lost} lost.")

    for name, description in _LOSSES.items():
        if counters.get(name):
            reasons.append(f"{description}: {count(counters[name], 'event')}.")
    return reasons


def _damage(aggregates: ReportAggregates) -> list[str]:
    reasons = []
    for operation, description in _DAMAGE.items():
        times = aggregates.trail_operations[operation]
        if times:
            reasons.append(f"{description} ({operation}, {count(times, 'time')}).")
    return reasons


def _unreadable(problems: dict[str, int]) -> list[str]:
    reasons = []
    for code, times in problems.items():
        if code not in _HARMLESS:
            reasons.append(f"Part of the files could not be read ({code}, {count(times, 'time')}).")
    return reasons


def _gaps(aggregates: ReportAggregates) -> dict[str, Any]:
    newest = []
    for row, gap in aggregates.gaps.rows():
        lost = lost_count(gap)
        newest.append({**row, "lost": lost})
    return {"total": aggregates.gaps.total, "newest": newest}
