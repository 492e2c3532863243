"""The counts of each user in archives and live trails, merged in the order of the archive.

**Performance.** The counts of archives are read user by user, from a few queries at once. Memory holds the answer, and the
counts of live events, of those that SQL does not count, and of further queries. Many users are counted in shares.
"""

from __future__ import annotations

import datetime as dt
import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from operator import attrgetter, itemgetter

from structlog_audit.archive.sql_counts import Places, SQLCounts, UserPart, UserShare, shares_of
from structlog_audit.archive.sql_engine import Found
from structlog_audit.events.event import EventStatus, operation_of
from structlog_audit.query.activity import UserActivity, moment_of, time_in
from structlog_audit.query.filters import microseconds
from structlog_audit.query.statistics import UserStatistics, user_summary
from structlog_audit.reports.period import month_of

_MOST_OPEN = 4
"""The queries of users that are open at once."""

_AFTER_ALL = moment_of(2**127, 0)
_BEFORE_ALL = moment_of(-(2**127), 0)


class UserTotals:
    """The counts of one user so far."""

    __slots__ = ("_counts", "_failures", "_last", "_places", "_succeeded", "first")

    def __init__(self, parts: Iterable[UserPart] = ()) -> None:
        self.first = _AFTER_ALL
        self._last = _BEFORE_ALL
        self._succeeded = 0
        self._failures = 0

        # How often each operation occurred, and the place of its first time.
        self._counts: dict[str, int] = {}
        self._places: dict[str, int] = {}

        for part in parts:
            self.add(part)

    def add(self, part: UserPart) -> None:
        """Add the counts of *part*."""
        self.first = min(self.first, part.first)
        self._last = max(self._last, part.last)
        self._succeeded += part.succeeded
        self._failures += part.failures

        for operation, place, count in part.operations:
            self._counts[operation] = self._counts.get(operation, 0) + count
            self._places[operation] = min(self._places.get(operation, place), place)

    def activity(self, user: str | None, month: str) -> UserActivity:
        """Return the counts for a report, of *user* in *month*."""
        return UserActivity(user, month, self._counts, self._failures, self.first, self._last)

    def statistics(self) -> UserStatistics:
        """Return the statistics. Among equally common operations the one that occurred first counts."""
        ordered = {name: self._counts[name] for name in sorted(self._counts, key=self._places.__getitem__)}

        return user_summary(ordered, self._succeeded, time_in(self._last))


def users_by_month(
    archived: Iterable[SQLCounts], others: Iterable[Found], places: Places, zone: dt.tzinfo
) -> Iterator[UserActivity]:
    """Return the counts of users by month of *zone*, after reading *others*, the events that SQL does not count."""
    users: defaultdict[tuple[str | None, str], UserTotals] = defaultdict(UserTotals)

    for found in others:
        part = part_of(found, operation_of(found.event.operation).value, places)
        users[part.user_id, month_of(found.event.timestamp, zone)].add(part)

    # The counts and a report of them together would take twice the memory.
    of_others = (users.pop(key).activity(*key) for key in list(users))
    of_archived = (
        UserTotals([part]).activity(part.user_id, month)
        for counts in archived
        for month, part in counts.users_by_month(zone)
    )

    return chain(of_others, of_archived)


def statistics_by_user(
    archived: Sequence[SQLCounts], others: Iterable[Found], places: Places
) -> dict[str | None, UserStatistics]:
    """Return the statistics of each user, by the first event. *others* are the events that SQL does not count."""
    users: defaultdict[str | None, UserTotals] = defaultdict(UserTotals)

    for found in others:
        users[found.event.user_id].add(part_of(found, found.event.operation, places))

    queries = [(counts, operations) for counts in archived for operations in counts.operations()]
    answers: list[tuple[int, str | None, UserStatistics]] = []

    # The queries that are open at once, or one alone.
    together = [queries[-_MOST_OPEN:], *([query] for query in queries[:-_MOST_OPEN])]
    shares = max(map(shares_of, together), key=len)

    for share in shares:
        # Each open query has buffers: of many, all but the last are read one after the other.
        for counts, operations in queries[:-_MOST_OPEN]:
            for part in counts.users(operations, operations, share, is_ordered=False):
                users[part.user_id].add(part)

        for user, parts in groupby(_merged(queries[-_MOST_OPEN:], share), attrgetter("user_id")):
            totals = users.pop(user, None) or UserTotals()
            for part in parts:
                totals.add(part)
            answers.append((totals.first, user, totals.statistics()))

    while users:
        user, totals = users.popitem()
        answers.append((totals.first, user, totals.statistics()))

    answers.sort(key=itemgetter(0))

    return {user: statistics for _, user, statistics in answers}


def _merged(queries: Sequence[tuple[SQLCounts, Sequence[str]]], share: UserShare) -> Iterator[UserPart]:
    """Yield the counts of the operations in *queries*, all open at once, those of a user in *share* one after the other."""
    is_ordered = len(queries) > 1
    answers = [counts.users(operations, operations, share, is_ordered=is_ordered) for counts, operations in queries]

    return heapq.merge(*answers, key=_by_user)


def _by_user(part: UserPart) -> tuple[bool, str]:
    return part.user_id is not None, part.user_id or ""


def part_of(found: Found, operation: str, places: Places) -> UserPart:
    """Return the counts of one event, whose *operation* is called so."""
    event = found.event
    place = places.place(found)
    moment = moment_of(place, microseconds(event.timestamp))
    succeeded = int(event.status is EventStatus.SUCCESS)
    failures = int(event.status is EventStatus.FAILURE)

    return UserPart(event.user_id, succeeded, failures, moment, moment, [(operation, place, 1)])
