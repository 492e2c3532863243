"""`comparison_report`: what appeared, vanished or changed between two periods, or between two trails.

**Guarantees**

* A difference is listed as a change only if it is unlikely by chance, after a correction for the number of comparisons.
* A report states the completeness of both sides: missing events look like a change.

**Performance.** One pass over the events of each side. Memory grows with the number of distinct operations and users.
"""

from __future__ import annotations

import copy
import datetime as dt
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from structlog_audit._version import __version__
from structlog_audit.events.event import EventStatus, operation_of, rfc3339
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.completeness import Completeness, Source
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import conditions
from structlog_audit.query.times import Time
from structlog_audit.reports import formatting
from structlog_audit.reports.aggregation import OperationAggregate, operation_aggregates, truncated
from structlog_audit.reports.comparison_document import build_comparison_document
from structlog_audit.reports.document import Document
from structlog_audit.reports.period import Period, period_before, period_of
from structlog_audit.reports.report_forms import ReportForms
from structlog_audit.reports.significance import (
    LIMIT,
    adjusted,
    chance_of_counts,
    chance_of_durations,
    chance_of_rates,
    in_words,
)

MOST_CHANGES = 50
"""Maximum rows of a list of changes. The rest is counted."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, repr=False)
class ComparisonReport(ReportForms):
    """An immutable comparison of two periods or trails, made by `comparison_report`."""

    completeness: Completeness
    """The verdict on the later period."""

    completeness_before: Completeness
    """The verdict on the period or trail that it is compared with."""

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain JSON values. Times are RFC 3339 in UTC.

        ``before`` and ``now`` have ``start end month time_zone seconds total failures users source completeness``.
        ``operations``, ``failures``, ``durations`` and ``users`` have the number ``compared``, of ``changes``, and the
        ``most`` significant of these, each with its ``name``, ``state`` (``appeared vanished changed``), the values ``before``
        and ``now``, the ``chance`` of such a difference if nothing had changed, and a ``sentence``.
        """
        return copy.deepcopy(self._members)

    def _document(self, members: dict[str, Any]) -> Document:
        return build_comparison_document(members)

    def __repr__(self) -> str:
        return f"<ComparisonReport of {self._members['before']['total']} and {self._members['now']['total']} events>"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two periods that are compared.

    Attributes:
        period: The period.
        operations: The outcomes and durations of each operation.
        users: The number of events of each user.
        verdict: The verdict on the completeness of the period.
        seconds: For how long events can be in the period.
    """

    period: Period
    operations: Mapping[str, OperationAggregate]
    users: Counter[str | None]
    verdict: Completeness
    seconds: float

    @classmethod
    def of(
        cls,
        period: Period,
        operations: Mapping[str, OperationAggregate],
        users: Counter[str | None],
        verdict: Completeness,
        now: dt.datetime,
    ) -> Side:
        """Return the side with these figures, whose seconds are those from the first event of the source until *now*."""
        return cls(period, operations, users, verdict, _seconds(period, verdict.source, now))

    @property
    def total(self) -> int:
        """The number of events."""
        return self.users.total()

    def failures(self, operation: str) -> tuple[int, int]:
        """Return the numbers of failures and of events of *operation*."""
        found = self.operations.get(operation)
        return (0, 0) if found is None else (found.statuses[EventStatus.FAILURE], found.statuses.total())

    def to_dict(self) -> dict[str, Any]:
        """Return the figures and the verdict."""
        failed = sum(each.statuses[EventStatus.FAILURE] for each in self.operations.values())
        users = [user for user in self.users if user is not None]

        verdict = self.verdict.to_dict(self.period.zone)
        completeness = {name: verdict[name] for name in ("verdict", "sentences")}

        return {
            **self.period.to_dict(),
            "seconds": self.seconds,
            "total": self.total,
            "failures": failed,
            "users": len(users),
            "source": self.verdict.source.to_dict(),
            "completeness": {**completeness, "headline": self.verdict.headline(self.period.zone)},
        }


def _seconds(period: Period, source: Source, now: dt.datetime) -> float:
    """Return for how long events can be in *period*: since the first one of the source, and until *now*."""
    if source.first_event is None or source.last_event is None:
        return 0.0

    # A whole trail ends with its last event; a period without an end has passed until now.
    end = period.end or (source.last_event if period.start is None else now)
    end = min(now, end)

    begin = source.first_event if period.start is None else max(period.start, source.first_event)
    seconds = (end - begin).total_seconds()
    return max(0.0, seconds)


def read_side(
    source: EventSource, period: Period, verdict: Completeness, now: dt.datetime, user_id: str | None = None
) -> Side:
    """Return the figures of *period*, of all users or of one. One pass over its events, unless the source counts them.

    Args:
        source: The source of the events.
        period: The period.
        verdict: The verdict on its completeness.
        now: The present time.
        user_id: The user; None for all users.
    """
    operations: defaultdict[str, OperationAggregate] = defaultdict(OperationAggregate)
    users: Counter[str | None] = Counter()

    of_user = {} if user_id is None else {"user_id": user_id}
    of_period = conditions(start_time=period.start, end_time=period.end, **of_user)

    with source._counted_events(of_period) as counted:
        if counted is not None:
            operations = operation_aggregates(counted.activity)
            for found in counted.activity.users:
                users[found.user_id] += found.total
            return Side.of(period, operations, users, verdict, now)

    for event in source.select(of_period, newest_first=False):
        operation = operation_of(event.operation).value
        operations[operation].add(event)
        users[event.user_id] += 1
    return Side.of(period, operations, users, verdict, now)


def comparison_report(
    source: EventSource,
    *,
    month: str | None = None,
    start_time: dt.datetime | None = None,
    end_time: dt.datetime | None = None,
    since: Time | None = None,
    until: Time | None = None,
    against: EventSource | None = None,
    against_start_time: dt.datetime | None = None,
    against_end_time: dt.datetime | None = None,
    against_since: Time | None = None,
    against_until: Time | None = None,
    tz: dt.tzinfo | str | None = None,
) -> ComparisonReport:
    """Return what appeared, vanished or changed in a period of *source*. O(number of events).

    Args:
        source: An `AuditHandler`, an `AuditLogger`, or the reader of a trail or an archive.
        month: A month such as ``"2025-01"``, ``"this"`` or ``"last"``. It is compared with the month before.
        start_time, end_time: A half-open range in place of the month. It is compared with a range of the same length just
            before, or with the month before if it is a month.
        since, until: The same range as people say it: a date, a timedelta (that long ago), or a text such as ``"7d"``.
        against: Another source to compare with, by default for the same period.
        against_start_time, against_end_time: The range to compare with, in place of the one just before. In the same source,
            it must not overlap the other one, and ends where that begins unless an end is given.
        against_since, against_until: The same range as people say it.
        tz: The time zone of months, and of the times in documents, such as ``"Europe/Berlin"``; None is UTC.

    Raises:
        AuditTypeError, AuditValueError: A parameter has the wrong type or an invalid value; the message names it.
    """
    for name, value in (("source", source), ("against", source if against is None else against)):
        if not isinstance(value, EventSource):
            expected = "an AuditHandler, an AuditLogger or the reader of a trail"
            raise AuditTypeError(f"{name}={value!r}: expected {expected}, got {type(value).__name__}")

    clock = source._now()
    period = period_of(month, start_time, end_time, clock, tz, since=since, until=until)
    spoken: Any = {"since": against_since, "until": against_until, "prefix": "against_"}
    earlier = period_of(None, against_start_time, against_end_time, clock, tz, **spoken)
    if against is None:
        earlier = _earlier_period(period, earlier, clock)
    elif earlier.is_open:
        earlier = period
    _require_time("start_time, end_time", period, clock)
    _require_time("against_start_time, against_end_time", earlier, clock)

    now, before = (
        read_side(read, of, read.completeness(of.start, of.end), clock)
        for read, of in ((source, period), (source if against is None else against, earlier))
    )
    members = {"generated_at": rfc3339(clock), "software": f"structlog-audit {__version__}", **compare(before, now)}
    return ComparisonReport(members, period.zone, now.verdict, before.verdict)


def _earlier_period(period: Period, given: Period, now: dt.datetime) -> Period:
    """Return the time of the same source to compare *period* with: the *given* one, or the one just before."""
    if given.is_open:
        before = period_before(period, now)
        if before is None:
            raise AuditValueError(
                f"start_time, end_time: {period}: expected a period with as much time before it: "
                "give a later start_time, or another source as against"
            )
        return before

    # A period from the first event on has nothing before it.
    has_earlier_start = period.start is not None and _is_before(given.start, period.start)
    if given.end is None and has_earlier_start:
        return Period(given.start, period.start, zone=period.zone)
    if _is_before(given.start, period.end) and _is_before(period.start, given.end):
        raise AuditValueError(
            f"against_start_time, against_end_time: {given}: expected a period that does not overlap {period}"
        )
    return given


def _is_before(start: dt.datetime | None, end: dt.datetime | None) -> bool:
    """Return whether a start is before an end; None is open."""
    return start is None or end is None or start < end


def _require_time(names: str, period: Period, now: dt.datetime) -> None:
    """Raise an error that has the *names* of the parameters if *period* has no time in which events can be."""
    if period.start is not None and period.start >= min(now, period.end or now):
        raise AuditValueError(f"{names}: {period}: expected a period that is not empty, and has begun")


GROUPS = ("operations", "failures", "durations", "users")
"""The groups of differences, by their names in the data."""


def compare(before: Side, now: Side) -> dict[str, Any]:
    """Return both sides, and what appeared, vanished or changed."""
    groups = (_operations, _failures, _durations, _users)
    rows = {name: list(find(before, now)) for name, find in zip(GROUPS, groups, strict=True)}

    # The number of all tests counts, whichever they are.
    tested = [row for group in rows.values() for row in group if row["chance"] is not None]
    chances = [row["chance"] for row in tested]

    for row, chance in zip(tested, adjusted(chances), strict=True):
        row["chance"] = chance

    return {
        "before": before.to_dict(),
        "now": now.to_dict(),
        "comparisons": len(tested),
        **{name: _changes(group) for name, group in rows.items()},
    }


def _changes(rows: list[Row]) -> dict[str, Any]:
    """Return the number of *rows*, and those that appeared, vanished or changed: the least likely ones first."""
    changed = [row for row in rows if _is_change(row)]
    changed.sort(key=_rank)
    shown = changed[:MOST_CHANGES]

    most = []
    for row in shown:
        name = truncated(row["name"])
        words = in_words(row["chance"])
        sentence = f"{row['sentence']}: {words}"
        most.append({**row, "name": name, "sentence": sentence})

    return {"compared": len(rows), "changes": len(changed), "most": most}


def _is_change(row: Row) -> bool:
    """Return whether a side lacks what *row* is about, or its difference is unlikely by chance."""
    if row["state"] != "changed":
        return True

    chance = row["chance"]
    return chance is not None and chance < LIMIT


def _rank(row: Row) -> tuple[float, bool, str]:
    """Return the place of *row* in a list: by its chance, those without one last, then by name, None first."""
    chance = row["chance"]
    name = row["name"]

    return math.inf if chance is None else chance, name is not None, name or ""


def _counts(name: str | None, before: int, now: int, seconds: tuple[float, float]) -> Row:
    """Return the comparison of two numbers of events in periods of so many *seconds*."""
    state = "changed"
    if not before:
        state = "appeared"
    elif not now:
        state = "vanished"

    sentence = f"{formatting.number(before)} before, {formatting.number(now)} now"
    chance = None
    if all(seconds):
        share = seconds[1] / sum(seconds)
        chance = chance_of_counts(before, now, share)
        expected = _rounded(before * seconds[1] / seconds[0])
        if expected != before:
            sentence += f", {f'{expected:,.1f}'.removesuffix('.0')} expected"

    return {
        "name": name,
        "state": state,
        "before": before,
        "now": now,
        "chance": chance,
        "sentence": sentence,
    }


def _rounded(count: float) -> float:
    """Return an expected number of events: a whole one, or with a decimal if it is small."""
    return round(count, 1) if count < 10 else round(count)


def _operations(before: Side, now: Side) -> Iterator[Row]:
    """Yield the comparison of the numbers of events of each operation."""
    seconds = before.seconds, now.seconds
    for name in before.operations.keys() | now.operations.keys():
        _, total_before = before.failures(name)
        _, total_now = now.failures(name)
        yield _counts(name, total_before, total_now, seconds)


def _users(before: Side, now: Side) -> Iterator[Row]:
    """Yield the comparison of the numbers of events of each user."""
    seconds = before.seconds, now.seconds
    for user in before.users.keys() | now.users.keys():
        yield _counts(user, before.users[user], now.users[user], seconds)


def _failures(before: Side, now: Side) -> Iterator[Row]:
    """Yield the comparison of the failure rates of each operation of both sides."""
    for name in before.operations.keys() & now.operations.keys():
        failed_before, total_before = before.failures(name)
        failed_now, total_now = now.failures(name)

        if not failed_before + failed_now:
            continue

        failures = failed_before, failed_now
        totals = total_before, total_now
        counts = [formatting.number(count) for count in (failed_before, total_before, failed_now, total_now)]

        yield {
            "name": name,
            "state": "changed",
            "before": failed_before / total_before,
            "now": failed_now / total_now,
            "chance": chance_of_rates(failures, totals),
            "sentence": "{} of {} failed before, {} of {} now".format(*counts),
        }


def _durations(before: Side, now: Side) -> Iterator[Row]:
    """Yield the comparison of the durations of each operation of both sides."""
    for name in before.operations.keys() & now.operations.keys():
        earlier = before.operations[name].durations
        later = now.operations[name].durations
        if not earlier.buckets or not later.buckets:
            continue

        median, later_median = earlier.percentile(50), later.percentile(50)
        slow = formatting.milliseconds(earlier.percentile(95))
        later_slow = formatting.milliseconds(later.percentile(95))

        chance = chance_of_durations(earlier.buckets, later.buckets)
        medians = f"{formatting.milliseconds(median)} ms before, {formatting.milliseconds(later_median)} ms now"
        yield {
            "name": name,
            "state": "changed",
            "before": median,
            "now": later_median,
            "chance": chance,
            "sentence": f"half took at most {medians}, and 95 of 100 at most {slow} and {later_slow} ms",
        }
