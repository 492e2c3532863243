"""`compliance_report`: the report of a month, or of any time, as data and as documents.

Rules:

* Its figures are those of the queries: totals, rates and percentiles come from `structlog_audit.statistics`, and the figures of
  a month have the names that the memory SDK's page gives them.
* One pass over the events, the oldest first; `structlog_audit.reports.tally` says what is bounded. A report of one user takes a
  second pass, over the library's own events, and so does one that finds intents without an outcome: it may come later.
* It says what it does not know: from when on it is complete, what was lost, and what no report can show.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import msgspec

import structlog_audit.codec as codec
from structlog_audit.event import AuditEvent, Kind
from structlog_audit.exceptions import AuditTypeError
from structlog_audit.plain import identity_text
from structlog_audit.reports.period import Period, floor, months_between, period_of, steps, time_text
from structlog_audit.reports.tally import NEWEST, Figures, activity, brief, by_status
from structlog_audit.source import EventSource
from structlog_audit.statistics import statistics

_OWN = (Kind.GAP, Kind.TRAIL, Kind.CHECKPOINT)


@dataclass(frozen=True, slots=True)
class Report:
    """A compliance report. Made by `compliance_report`; nothing changes it."""

    _members: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values; times are RFC 3339 in UTC, durations milliseconds."""
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self._members))
        return found

    def to_json(self) -> str:
        """The report as JSON text, with the characters escaped that terminals and lines do not bear."""
        return msgspec.json.format(codec.to_json(self._members), indent=2)


def compliance_report(
    source: EventSource,
    *,
    month: str | None = None,
    start_time: dt.datetime | None = None,
    end_time: dt.datetime | None = None,
    user_id: str | None = None,
) -> Report:
    """The report of the events of *source* in a time.

    Args:
        source: What answers: an `AuditHandler`, an `AuditLogger`, or the reader of a trail.
        month: A month in UTC, such as ``"2025-01"``.
        start_time, end_time: A range instead, half-open; None means no bound.
        user_id: The user whom the report is about; None means everybody.

    Raises:
        AuditTypeError, AuditValueError: A parameter can't be meant; the message says which and why.
    """
    period = period_of(month, start_time, end_time)
    if user_id is not None and identity_text(user_id) is None:
        raise AuditTypeError(f"user_id={user_id!r}: give one user, or leave it out for everybody")
    figures = Figures()
    found = statistics(figures.counted(_events(source, period, user_id)))
    if figures.intents:
        first = min(intent.timestamp for intent in figures.intents.values())
        for event in source.iter_events(start_time=first):
            figures.outcome(event)
    return Report(_members(source, period, user_id, figures, found))


def _events(source: EventSource, period: Period, user_id: str | None) -> Iterator[AuditEvent]:
    """The events of the period: of one user the ordinary ones and the intents, then the library's own of whomever."""
    bounds: Any = {"start_time": period.start, "end_time": period.end}
    if user_id is None:
        return source.iter_events(kind=[None, Kind.INTENT, *_OWN], **bounds)
    of_user = source.iter_events(user_id=user_id, kind=[None, Kind.INTENT], **bounds)
    return chain(of_user, source.iter_events(kind=_OWN, **bounds))


def _members(
    source: EventSource, period: Period, user_id: str | None, figures: Figures, found: dict[str, Any]
) -> dict[str, Any]:
    return {
        "period": period.to_dict(),
        "user_id": user_id,
        "generated_at": time_text(source._now()),
        "summary": _summary(found, figures),
        "completeness": _completeness(source, period, figures),
        "months": _months(figures, period, found),
        "over_time": _over_time(figures, period, found),
        "operations": _operations(figures),
        "users": _users(figures),
        "failures": figures.failures.to_dict(),
        "deletions": figures.deletions.to_dict(),
        "exports": figures.exports.to_dict(),
        "activity": None if user_id is None else figures.everything.to_dict(),
        "open_intents": _open_intents(figures),
        "own_acts": {"by_act": dict(figures.acts.most_common()), **figures.own_acts.to_dict()},
    }


def _summary(found: dict[str, Any], figures: Figures) -> dict[str, Any]:
    names = ("total_events", "success_rate", "avg_duration_ms", "p50_duration_ms", "p95_duration_ms", "p99_duration_ms")
    return {
        **{name: found[name] for name in names},
        "by_status": found["by_status"],
        "by_operation": found["by_operation"],
        "users": len(figures.users.keys() - {None}),
        "without_user": found["without_user"],
        "first_event": time_text(found["first_event"]),
        "last_event": time_text(found["last_event"]),
    }


def _completeness(source: EventSource, period: Period, figures: Figures) -> dict[str, Any]:
    since = source.complete_since
    return {
        "complete": since is None or (period.start is not None and since <= period.start),
        "complete_since": time_text(since),
        "counters": source._counters(),
        "lost": figures.lost,
        "gaps": figures.gaps.to_dict(),
    }


def _months(figures: Figures, period: Period, found: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures of the memory SDK's monthly report, for every month from the first with an event to the last."""
    if period.month is not None:
        first = last = period.month
    elif figures.months:
        first, last = min(figures.months), max(figures.months)
    else:
        return []
    rows = []
    for month in months_between(first, last):
        users: Mapping[str, Counter[str]] = figures.months.get(month, {})
        operations = sum(users.values(), Counter[str]())
        rows.append(
            {
                "period": month,
                "total_events": operations.total(),
                "users": len(users),
                "operations": dict(operations.most_common()),
                "user_activity": {user_id: activity(done) for user_id, done in _most_active(users)},
            }
        )
    return rows


def _most_active(users: Mapping[str, Counter[str]]) -> list[tuple[str, Counter[str]]]:
    return sorted(users.items(), key=lambda pair: (-pair[1].total(), pair[0]))


def _over_time(figures: Figures, period: Period, found: dict[str, Any]) -> dict[str, Any]:
    if period.start is not None and period.end is not None:
        first, last = period.start, max(period.start, period.end - dt.timedelta(microseconds=1))
    elif figures.hours:
        first, last = min(figures.hours), max(figures.hours)
    else:
        return {"unit": "day", "steps": []}
    unit, begins = steps(first, last)
    counts = {begin: Counter[Any]() for begin in begins}
    for hour, statuses in figures.hours.items():
        counts[floor(hour, unit)].update(statuses)
    rows = [{"start": time_text(begin), "total": done.total(), **by_status(done)} for begin, done in counts.items()]
    return {"unit": unit, "steps": rows}


def _operations(figures: Figures) -> list[dict[str, Any]]:
    rows = [tally.to_dict(operation) for operation, tally in figures.operations.items()]
    return sorted(rows, key=lambda row: (-row["total_events"], row["operation"]))


def _users(figures: Figures) -> dict[str, Any]:
    rows = [tally.to_dict(user_id) for user_id, tally in figures.users.items() if user_id is not None]
    rows.sort(key=lambda row: (-row["total"], row["user_id"]))
    return {"total": len(rows), "most_active": rows[:NEWEST]}


def _open_intents(figures: Figures) -> dict[str, Any]:
    intents = list(figures.intents.values())
    return {"total": len(intents), "oldest": [brief(intent) for intent in intents[:NEWEST]]}
