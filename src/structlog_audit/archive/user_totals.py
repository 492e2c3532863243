"""The counts of each user in archives and live trails, merged in the order of the archive."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from structlog_audit.archive.rows import time_of
from structlog_audit.archive.sql_counts import Moment, SQLCounts, UserPart
from structlog_audit.archive.sql_engine import Found, Place
from structlog_audit.events.event import EventStatus, operation_of
from structlog_audit.query.activity import UserActivity
from structlog_audit.query.filters import microseconds
from structlog_audit.query.statistics import UserStatistics, user_summary
from structlog_audit.reports.period import month_of

_AFTER_ALL: Moment = (2**63, "", 0), 0
_BEFORE_ALL: Moment = (-(2**63), "", 0), 0


class UserTotals:
    """The counts of one user so far."""

    __slots__ = ("_failures", "_last", "_months", "_places", "_succeeded", "first")

    def __init__(self) -> None:
        self.first = _AFTER_ALL
        self._last = _BEFORE_ALL
        self._succeeded = 0
        self._failures = 0

        # How often each operation occurred by month, and the place of its first time.
        self._months: dict[str, dict[str, int]] = {}
        self._places: dict[str, Place] = {}

    def add(self, part: UserPart, month: str = "") -> None:
        """Add the counts of *part*, which are of this *month*; without a month, the order of operations counts."""
        self.first = min(self.first, part.first)
        self._last = max(self._last, part.last)
        self._succeeded += part.succeeded
        self._failures += part.failures

        counts = self._months.setdefault(month, {})
        for operation, place, count in part.operations:
            counts[operation] = counts.get(operation, 0) + count
            if not month:
                known = self._places.get(operation, place)
                self._places[operation] = min(known, place)

    def activity(self) -> UserActivity:
        """Return the counts for a report."""
        first = _time(self.first)
        last = _time(self._last)

        return UserActivity(self._months, self._succeeded, self._failures, first, last)

    def statistics(self) -> UserStatistics:
        """Return the statistics. Among equally common operations the one that occurred first counts."""
        counts = self._months.get("", {})
        ordered = {name: counts[name] for name in sorted(counts, key=self._places.__getitem__)}

        return user_summary(ordered, self._succeeded, _time(self._last))


def users_by_month(
    archived: Iterable[SQLCounts], others: Iterable[Found], zone: dt.tzinfo
) -> Iterator[tuple[str | None, UserActivity]]:
    """Return the counts of each user in each month of *zone*, after reading *others*, the events that SQL does not count."""
    users: defaultdict[str | None, UserTotals] = defaultdict(UserTotals)

    for counts in archived:
        for month, part in counts.users_by_month(zone):
            users[part.user_id].add(part, month)

    for found in others:
        event = found.event
        name = operation_of(event.operation).value
        users[event.user_id].add(part_of(found, name), month_of(event.timestamp, zone))

    # The counts and a report of them together would take twice the memory.
    return ((user, users.pop(user).activity()) for user in list(users))


def statistics_by_user(
    archived: Sequence[SQLCounts], others: Iterable[Found]
) -> Iterator[tuple[str | None, UserStatistics]]:
    """Yield the statistics of each user, by the first event. *others* are the events that SQL does not count."""
    users: defaultdict[str | None, UserTotals] = defaultdict(UserTotals)

    for found in others:
        users[found.event.user_id].add(part_of(found, found.event.operation))

    queries = [(counts, operations) for counts in archived for operations in counts.operations(counts.files)]
    if not users and len(queries) == 1 and queries[0][0].has_one_trail:
        # Each user is one row.
        yield from _of_rows(*queries[0])
        return

    for counts, operations in queries:
        for part in counts.users(counts.files, operations, operations, is_placed=True):
            users[part.user_id].add(part)

    for user in sorted(users, key=lambda user: users[user].first):
        yield user, users.pop(user).statistics()


def _of_rows(counts: SQLCounts, operations: Sequence[str]) -> Iterator[tuple[str | None, UserStatistics]]:
    for part in counts.users(counts.files, operations, operations, is_placed=False):
        totals = UserTotals()
        totals.add(part)
        yield part.user_id, totals.statistics()


def part_of(found: Found, operation: str) -> UserPart:
    """Return the counts of one event, whose *operation* is called so."""
    event = found.event
    place: Place = found.at, found.trail, found.number
    moment = place, found.at - microseconds(event.timestamp)
    succeeded = int(event.status is EventStatus.SUCCESS)
    failures = int(event.status is EventStatus.FAILURE)

    return UserPart(event.user_id, succeeded, failures, moment, moment, [(operation, place, 1)])


def _time(moment: Moment) -> dt.datetime:
    place, late_us = moment

    return time_of(place[0] - late_us)
