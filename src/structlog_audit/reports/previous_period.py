"""The comparison of the period of a report with the period before: its section "Since last month"."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from structlog_audit.query.completeness import Completeness, Verdict
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.seal_verdict import SealVerdict
from structlog_audit.reports.aggregation import ReportAggregates
from structlog_audit.reports.comparison import GROUPS, Side, compare, read_side
from structlog_audit.reports.period import Period, period_before

_NO_PERIOD = "No period before: the report begins with the first event, or its period is empty."

_NO_TIME = "The source has no event from before the end of the period before."


def compare_with_period_before(
    source: EventSource,
    period: Period,
    user_id: str | None,
    aggregates: ReportAggregates,
    verdict: Completeness,
    seals: Iterable[SealVerdict],
) -> dict[str, Any]:
    """Return the member ``comparison`` of a report: what changed since the period before. One pass over that period.

    Args:
        source: The source of the events.
        period: The period of the report.
        user_id: The user that the report is limited to, or None.
        aggregates: The figures of the period.
        verdict: The verdict on its completeness.
        seals: The verdicts on the seals of the trails.

    Returns:
        The members of `structlog_audit.reports.comparison.compare` and ``reasons``: sentences on why nothing can be compared.
        With such a reason, the others are None, except ``before``, which has the period.
    """
    now = source._now()
    earlier = period_before(period, now)
    if earlier is None:
        return _without_comparison(None, [_NO_PERIOD])

    of_earlier = source.completeness(earlier.start, earlier.end).with_seals(seals)
    if of_earlier.verdict == Verdict.UNKNOWN:
        return _without_comparison(earlier, of_earlier.sentences(period.zone))

    before = read_side(source, earlier, of_earlier, now, user_id)
    if not before.seconds:
        return _without_comparison(earlier, [_NO_TIME])

    users = Counter({user: found.total for user, found in aggregates.users.items()})
    present = Side.of(period, aggregates.operations, users, verdict, now)
    return {"reasons": [], **compare(before, present)}


def _without_comparison(earlier: Period | None, reasons: list[str]) -> dict[str, Any]:
    before = None if earlier is None else earlier.to_dict()
    return {"reasons": reasons, "before": before, "now": None, "comparisons": 0, **dict.fromkeys(GROUPS)}
