"""`compliance_report`: the report of a month, or of any time, as data and as documents.

Rules:

* Its figures are those of the queries: totals, rates and percentiles come from `structlog_audit.query.statistics`, and the figures of
  a month have the names that the memory SDK's page gives them.
* One pass over the events, the oldest first; `structlog_audit.reports.aggregation` says what is bounded. A report of one user takes a
  second pass, over the library's own events. If intents are left without an outcome, which may have come after the period or
  from another user, there is one more, from the first of them on.
* It says what it does not know: from when on it is complete, what was lost, and what no report can show.
* Months without events are there too, unless there would be more than `MOST_MONTHS`: a clock that was wrong once can make a
  range of centuries.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import msgspec

from structlog_audit._version import __version__
from structlog_audit.events.codec import escape, to_json
from structlog_audit.events.event import AuditEvent, EventStatus, Kind, rfc3339
from structlog_audit.events.json_safe import identifier_text
from structlog_audit.exceptions import AuditError, AuditTypeError
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.statistics import statistics
from structlog_audit.reports.aggregation import NEWEST, Figures, activity, brief, by_status, cut, lost_in
from structlog_audit.reports.clauses import CLAUSES, NOT_SHOWN
from structlog_audit.reports.formatting import count, second
from structlog_audit.reports.markdown import markdown
from structlog_audit.reports.period import Period, floor, month_of, months_between, period_of, steps, time_text
from structlog_audit.reports.sections import document

MOST_MONTHS = 240
"""Months of a report, at most, if there are some without events among them."""

MOST_FAILING = 10
"""Users of the list of those with the most failures, at most."""

_OWN = (Kind.GAP, Kind.TRAIL)

_EXTRA = ("jinja2", "markupsafe", "pygal")


@dataclass(frozen=True, slots=True, repr=False)
class Report:
    """A compliance report. Made by `compliance_report`; nothing changes it."""

    _members: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values; times are RFC 3339 in UTC, durations milliseconds.

        ================  =============================================================================================
        member            what it is
        ================  =============================================================================================
        ``period``        ``start``, ``end`` and ``month``, as asked for; None means without bound
        ``user_id``       the user whom the report is about, or None
        ``generated_at``  when it was made; by what says ``software``, from what ``source``
        ``summary``       as `EventSource.get_statistics`, with the number of ``users`` in place of their counts
        ``completeness``  ``complete``, and if not the ``reasons``; ``complete_since``; ``gaps``, and how many were ``lost``
                          in them; ``counters`` of the handler's life; ``problems`` of the files, counted by code
        ``months``        the memory SDK's report of each month: ``period total_events users operations user_activity``,
                          the latter with ``total stores recalls deletions`` of every user
        ``over_time``     the ``unit`` (hour to century), and ``steps`` with their ``start``, ``total`` and statuses
        ``operations``    of each operation ``total_events by_status success_rate timed_events`` and durations
        ``users``         ``total``; the 50 ``most_active``; the 10 with ``most_failures``
        ``failures``      ``total``, the number of ``entries`` named, and the 50 ``newest``; likewise ``deletions`` and
                          ``exports``, and, with the 200 newest, the ``activity`` of the user
        ``open_intents``  ``total``, ``entries``, and the 50 ``oldest`` without an outcome that is known
        ``own_acts``      of the library on the trail: ``total``, ``by_act``, the 50 ``newest``
        ``clauses``       what of this serves which clause
        ``not_shown``     what no report shows
        ================  =============================================================================================
        """
        return copy.deepcopy(self._members)

    def to_json(self) -> str:
        """The report as JSON text, with the characters escaped that terminals and lines do not bear."""
        return msgspec.json.format(escape(msgspec.json.encode(self._members)), indent=2).decode()

    def to_markdown(self) -> str:
        """The report as Markdown with tables (GitHub's). Texts of events are escaped: they are shown, and nothing else."""
        return markdown(document(self._members))

    def to_html(self) -> str:
        """The report as one HTML document, which asks nothing of anybody: styles and charts are in it, scripts are not.

        Raises:
            AuditError: The extra ``reports`` is not installed.
        """
        try:
            from structlog_audit.reports.html import html
        except ModuleNotFoundError as error:
            if error.name not in _EXTRA:
                raise
            fix = "pip install 'structlog-audit[reports]'"
            raise AuditError(f"to_html needs {error.name}, which is not installed: {fix}") from error
        return html(document(self._members), self._members)

    def __repr__(self) -> str:
        period = self._members["period"]
        return f"<Report of {period['month'] or (period['start'], period['end'])}>"


def compliance_report(
    source: EventSource,
    *,
    month: str | None = None,
    start_time: dt.datetime | None = None,
    end_time: dt.datetime | None = None,
    user_id: str | None = None,
) -> Report:
    """The report of the events of *source* in a time. O(number of events).

    Args:
        source: What answers: an `AuditHandler`, an `AuditLogger`, or the reader of a trail.
        month: A month in UTC, such as ``"2025-01"``.
        start_time, end_time: A range instead, half-open; None means no bound.
        user_id: The user whom the report is about (GDPR art. 15); None means everybody.

    Raises:
        AuditTypeError, AuditValueError: A parameter can't be meant; the message says which and why.
    """
    if not isinstance(source, EventSource):
        raise AuditTypeError(f"source={source!r}: give an AuditHandler, an AuditLogger or the reader of a trail")
    period = period_of(month, start_time, end_time)
    user = None if user_id is None else identifier_text(user_id)
    if user_id is not None and user is None:
        raise AuditTypeError(f"user_id={user_id!r}: give one user, or leave it out for everybody")
    figures = Figures()
    found = statistics(figures.counted(_events(source, period, user)))
    if figures.intents and (period.end is not None or user is not None):
        for event in source.iter_events(start_time=min(intent.timestamp for intent in figures.intents.values())):
            figures.outcome(event)
    return Report(_members(source, period, user, figures, found))


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
    now = source._now()
    return {
        "period": period.to_dict(),
        "user_id": None if user_id is None else user_id.encode("utf-8", "backslashreplace").decode(),
        "generated_at": time_text(now),
        "software": f"structlog-audit {__version__}",
        "source": type(source).__name__,
        "summary": _summary(found, figures),
        "completeness": _completeness(source, period, figures),
        "months": _months(figures, period, now),
        "over_time": _over_time(figures, period, now),
        "operations": _operations(figures),
        "users": _users(figures),
        "failures": figures.failures.to_dict(),
        "deletions": figures.deletions.to_dict(),
        "exports": figures.exports.to_dict(),
        "activity": None if user_id is None else figures.everything.to_dict(),
        "open_intents": _open_intents(figures),
        "own_acts": _own_acts(figures),
        "clauses": [{**clause._asdict(), "sections": list(clause.sections)} for clause in CLAUSES],
        "not_shown": list(NOT_SHOWN),
    }


def _summary(found: dict[str, Any], figures: Figures) -> dict[str, Any]:
    """The statistics, with the number of users in place of the counts of each."""
    times = {name: time_text(found[name]) for name in ("first_event", "last_event")}
    return {**{name: found[name] for name in found if name != "by_user"}, **times, "users": len(found["by_user"])}


def _completeness(source: EventSource, period: Period, figures: Figures) -> dict[str, Any]:
    since, counters, problems = source.complete_since, source._counters(), dict(source.problems)
    gaps = [{**row, "lost": lost_in(gap)} for row, gap in figures.gaps.rows()]
    reasons = []
    if since is not None and (period.start is None or since > period.start):
        reasons.append(f"What came before {second(rfc3339(since))} UTC is not known to the source.")
    if figures.gaps.total:
        reasons.append(
            f"Lost, as {count(figures.gaps.total, 'gap')} in the trail told: {count(figures.lost, 'event')}."
        )
    reasons += [f"{what}: {count(counters[name], 'event')}." for name, what in _LOSSES.items() if counters.get(name)]
    reasons += [
        f"{what} ({act}, {count(figures.acts[act], 'time')})." for act, what in _DAMAGE.items() if figures.acts[act]
    ]
    for code, found in problems.items():
        if code not in _HARMLESS:
            reasons.append(f"Not everything in the files could be read ({code}, {count(found, 'time')}).")
    return {
        "complete": not reasons,
        "reasons": reasons,
        "complete_since": time_text(since),
        "lost": figures.lost,
        "gaps": {"total": figures.gaps.total, "newest": gaps},
        "counters": counters,
        "problems": problems,
    }


_LOSSES = {
    "lost": "Lost in the life of the handler, because its target failed and too many were pending",
    "raised": "Not recorded in the life of the handler; their callers got an error",
    "pending": "Waiting in memory, and not in the trail yet",
}
"""Counters of a handler that must be zero."""

_DAMAGE = {
    "truncated": "The file of the trail was found shorter than it was left",
    "replaced": "The file of the trail was found replaced or removed",
    "quarantine": "A line was found that a crash had left half written",
}
"""Acts on the trail that tell of something missing in it."""

_HARMLESS = {"unfinished", "bom", "repeated"}
"""Problems of files that lose nothing of an event that was acknowledged: see the reader of trails."""


def _months(figures: Figures, period: Period, now: dt.datetime) -> list[dict[str, Any]]:
    """The figures of the memory SDK's monthly report, for every month of the period that has begun."""
    wanted = sorted(figures.months)
    span = _span(figures, period, now)
    if (
        span is not None
        and len(every := list(islice(months_between(*map(month_of, span)), MOST_MONTHS + 1))) <= MOST_MONTHS
    ):
        wanted = every
    rows = []
    for month in wanted:
        users: Mapping[str, Counter[str]] = figures.months.get(month, {})
        operations = Counter[str]()
        for done in users.values():
            operations.update(done)
        most_active = sorted(users.items(), key=lambda pair: (-pair[1].total(), pair[0]))
        rows.append(
            {
                "period": month,
                "total_events": operations.total(),
                "users": len(users),
                "operations": dict(operations.most_common()),
                "user_activity": {user_id: activity(done) for user_id, done in most_active},
            }
        )
    return rows


def _over_time(figures: Figures, period: Period, now: dt.datetime) -> dict[str, Any]:
    span = _span(figures, period, now)
    if span is None:
        return {"unit": "day", "steps": []}
    unit, begins = steps(*span)
    counts = {begin: Counter[EventStatus]() for begin in begins}
    for hour, statuses in figures.hours.items():
        counts[floor(hour, unit)].update(statuses)
    rows = [{"start": rfc3339(begin), "total": done.total(), **by_status(done)} for begin, done in counts.items()]
    return {"unit": unit, "steps": rows}


def _span(figures: Figures, period: Period, now: dt.datetime) -> tuple[dt.datetime, dt.datetime] | None:
    """The time that there is something to say of, both ends included: the period as far as it has passed, or the events."""
    if period.start is not None and period.end is not None and period.start < period.end:
        last = min(period.end - dt.timedelta(microseconds=1), max([now, *figures.hours]))
        return period.start, max(period.start, last)
    return (min(figures.hours), max(figures.hours)) if figures.hours else None


def _operations(figures: Figures) -> list[dict[str, Any]]:
    rows = [tally.to_dict(operation) for operation, tally in figures.operations.items()]
    return sorted(rows, key=lambda row: (-row["total_events"], row["operation"]))


def _users(figures: Figures) -> dict[str, Any]:
    named = [(user_id, tally) for user_id, tally in figures.users.items() if user_id is not None]
    active = sorted(named, key=lambda pair: (-pair[1].operations.total(), pair[0]))[:NEWEST]
    failing = sorted((pair for pair in named if pair[1].failures), key=lambda pair: (-pair[1].failures, pair[0]))
    return {
        "total": len(named),
        "most_active": [tally.to_dict(user_id) for user_id, tally in active],
        "most_failures": [tally.to_dict(user_id) for user_id, tally in failing[:MOST_FAILING]],
    }


def _open_intents(figures: Figures) -> dict[str, Any]:
    intents = list(figures.intents.values())
    entries = sum(len(intent.entry_ids) for intent in intents)
    return {"total": len(intents), "entries": entries, "oldest": [brief(intent) for intent in intents[:NEWEST]]}


def _own_acts(figures: Figures) -> dict[str, Any]:
    newest = [{**row, "said": cut(to_json(act.metadata))} for row, act in figures.own_acts.rows()]
    return {"by_act": dict(figures.acts.most_common()), "total": figures.own_acts.total, "newest": newest}
