"""The completeness of a report: the verdict on its source for the period, and the figures behind it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from structlog_audit.query.completeness import Completeness
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.seal_verdict import SealVerdict
from structlog_audit.reports.aggregation import ReportAggregates, lost_count
from structlog_audit.reports.period import Period, rfc3339_or_none


def assess_completeness(
    source: EventSource,
    period: Period,
    user_id: str | None,
    aggregates: ReportAggregates,
    seals: Iterable[SealVerdict],
) -> Completeness:
    """Return the verdict for a report, with *seals* as evidence. A user who never occurs leaves it in doubt."""
    verdict = source.completeness(period.start, period.end).with_seals(seals)
    if user_id is None or aggregates.activity.total:
        return verdict
    return verdict.with_users(source.users_without_events([user_id]))


def completeness_members(source: EventSource, verdict: Completeness, aggregates: ReportAggregates) -> dict[str, Any]:
    """Return the member ``completeness`` of a report: the verdict, and the counts of the source."""
    members = verdict.to_dict(aggregates.zone)
    del members["source"], members["seals"]
    return {
        **members,
        "headline": verdict.headline(aggregates.zone),
        "complete_since": rfc3339_or_none(source.complete_since),
        "lost": aggregates.lost,
        "gaps": _gaps(aggregates),
        "counters": source._counters(),
        "problems": dict(source.problems),
    }


def _gaps(aggregates: ReportAggregates) -> dict[str, Any]:
    newest = []
    for row, gap in aggregates.gaps.rows():
        lost = lost_count(gap)
        newest.append({**row, "lost": lost})
    return {"total": aggregates.gaps.total, "newest": newest}
