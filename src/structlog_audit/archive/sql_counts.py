"""Counts of archived events in SQL, for statistics, the statistics of users, and reports.

**Guarantees.** They are those that Python would count. Where the database has integers of 128 bits, sums of durations are
exact: SQL adds multiples of 2⁻⁷³ ms, and Python the few durations that are no such multiple, or reach 2²⁴ ms.

**Performance.** A user is one row, of any number of trails, with columns for each operation: Python takes longer to fetch a row
for each user and operation than the database to count them, and more memory to merge rows of each trail. The database has all
these columns in memory, and does not spill them, so many users are counted in several shares.
"""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgspec

from structlog_audit.archive.delta_log import Snapshot
from structlog_audit.archive.dialects import SCALE
from structlog_audit.archive.local_days import LocalDays, LocalMonth
from structlog_audit.archive.rows import time_of
from structlog_audit.archive.sql_engine import Found, SQLEngine, candidates
from structlog_audit.events.event import EventStatus, operation_of
from structlog_audit.query.activity import Activity, moment_of
from structlog_audit.query.filters import Conditions
from structlog_audit.query.statistics import LOG_GROWTH, Sum

_MOST_OPERATIONS = 32
"""The operations that have columns in one query."""

_COUNT_BYTES = 24
"""The memory that a database takes for one count or place of a user."""

MOST_TRAILS = 2**20
MOST_IN_TRAIL = 2**48
"""The trails, and the events of one, that a place has room for. With the times of the calendar it has 127 bits at most."""


class Places:
    """The places of events in the order of archives, each as one integer: SQL and Python compare those of any trails.

    Args:
        trails: The names of all trails.
    """

    def __init__(self, trails: Iterable[str]) -> None:
        self.trails = sorted(frozenset(trails))
        self._numbers = {trail: number for number, trail in enumerate(self.trails)}

    def place(self, found: Found) -> int:
        """Return the place of an event."""
        return (found.at * MOST_TRAILS + self._numbers[found.trail]) * MOST_IN_TRAIL + found.number


class UserShare(NamedTuple):
    """One of the shares in which users are counted, one after the other: its number, and how many there are."""

    number: int
    of: int


ALL_USERS = UserShare(0, 1)


def moment_at(place: int, late_us: int) -> int:
    """Return the `moment_of` an event at this place that is *late_us* earlier than its order key."""
    return moment_of(place, place // (MOST_TRAILS * MOST_IN_TRAIL) - late_us)


class Counts:
    """The counts of statistics."""

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.users: Counter[str | None] = Counter()
        self.buckets: Counter[int] = Counter()
        self.totals_ms: defaultdict[str, Sum] = defaultdict(Sum)


class UserPart(NamedTuple):
    """The counts of a user, one event or many.

    Attributes:
        user_id: The user, or None for the events without one.
        succeeded: The number of events with success.
        failures: The number of failures.
        first: The `moment_of` the first event.
        last: The `moment_of` the last event.
        operations: Each operation, the place of its first event, and the number of its events.
    """

    user_id: str | None
    succeeded: int
    failures: int
    first: int
    last: int
    operations: Sequence[tuple[str, int, int]]


class SQLCounts:
    """Counts the events of one archive that match conditions and are not `SQLEngine.undecided`.

    The methods may raise `UndecidedError`.

    Args:
        engine: Queries the archive.
        snapshot: The state of the archive.
        conditions: The conditions.
        places: The places of its events among those of all sources.
    """

    def __init__(self, engine: SQLEngine, snapshot: Snapshot, conditions: Conditions, places: Places) -> None:
        self._engine = engine
        self._snapshot = snapshot
        self._conditions = conditions
        self._places = places
        self._dialect = engine.dialect
        self._bucket = self._dialect.bucket.format(growth=LOG_GROWTH)
        self.files = candidates(snapshot, conditions)

    def _rows(
        self,
        columns: str,
        selected: str,
        groups: str,
        values: Mapping[str, object] | None = None,
        source: str = "{events}",
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query; its arguments are those of `SQLEngine.grouped`."""
        bound = values or {}

        return self._engine.grouped(
            self._snapshot, self._conditions, self.files, columns, selected, groups, bound, source
        )

    def values(self, column: str) -> Iterator[tuple[Any, ...]]:
        """Yield the values of a column in each trail, in the order of their first events: its place, the value, the number."""
        yield from self._rows(
            f"{column}, trail, n, {self._engine.place} AS place",
            f"min(place), {column}, count(*)",
            # The places of a trail ascend with its numbers.
            f"GROUP BY {column}, trail ORDER BY min(place), trail, min(n)",
        )

    def add_to(self, counts: Counts) -> None:
        """Add the counts of statistics to *counts*."""
        names = "operation, status, user_id, bucket"
        rows = self._rows(
            f"operation, status, user_id, {self._bucket} AS bucket",
            f"{self._dialect.grouping.format(columns=names)}, {names}, count(*)",
            "GROUP BY GROUPING SETS ((operation), (status), (user_id), (bucket))",
        )

        for group, operation, status, user, bucket, count in rows:
            # A bit is set for each column that the row does not group by.
            if group == 0b0111:
                counts.operations[operation] += count
            elif group == 0b1011:
                counts.statuses[EventStatus(status)] += count
            elif group == 0b1101:
                counts.users[user] += count
            elif bucket is not None:
                counts.buckets[bucket] += count

        self._add_totals(counts.totals_ms)

    def _local_days(self, zone: dt.tzinfo) -> LocalDays:
        return LocalDays(zone, (file.date for file in self.files))

    def add_outcomes_to(self, activity: Activity, zone: dt.tzinfo) -> None:
        """Add the counts of a report, without those of users, to *activity*, by the hours of *zone*."""
        if not self.files:
            return

        hour = self._local_days(zone).hour(self._engine.microseconds)
        entries = self._dialect.length.format(column="entry_ids")

        # Spark wants them as the grouping sets name them first.
        names = "hour, status, operation, bucket"
        rows = self._rows(
            f"{hour} AS hour, status, operation, {self._bucket} AS bucket, {entries} AS entries",
            f"{self._dialect.grouping.format(columns=names)}, {names}, count(*), sum(entries)",
            "GROUP BY GROUPING SETS ((hour, status), (operation, status), (operation, bucket))",
        )

        for group, hour_us, status, operation, bucket, count, entry_ids in rows:
            if group == 0b0011:
                activity.hours[time_of(hour_us), EventStatus(status)] += count
            elif group == 0b1001:
                outcome = operation, EventStatus(status)
                activity.outcomes[outcome] += count
                activity.entries[outcome] += int(entry_ids or 0)
            elif bucket is not None:
                activity.durations[operation].buckets[bucket] += count

        self._add_totals(activity.totals_ms)

    def _add_totals(self, totals_ms: defaultdict[str, Sum]) -> None:
        """Add the sums of the durations by operation."""
        scaled = (self._dialect.scaled or "{column}").format(column="duration_ms")
        rows = self._rows(
            f"operation, duration_ms, {scaled} AS scaled",
            "operation, CASE WHEN scaled IS NULL THEN duration_ms END AS rest, count(*), sum(scaled)",
            "GROUP BY operation, CASE WHEN scaled IS NULL THEN duration_ms END",
        )

        for operation, rest, count, sum_ms in rows:
            total = totals_ms[operation]
            if rest is not None:
                numerator, denominator = rest.as_integer_ratio()
                total.add_scaled(count * numerator, denominator)
            elif isinstance(sum_ms, int):
                total.add_scaled(sum_ms, SCALE)
            elif sum_ms is not None:
                total.add(sum_ms)

    def users_by_month(self, zone: dt.tzinfo) -> Iterator[tuple[str, UserPart]]:
        """Yield the counts of users in each month of *zone*, in any order, with the six operations by their names."""
        for month in self._local_days(zone).months():
            counts = self._within(month)
            for operations in counts.operations():
                names = [operation_of(operation).value for operation in operations]
                for share in shares_of([(counts, operations)]):
                    for part in counts.users(operations, names, share, is_ordered=False):
                        yield month.name, part

    def _within(self, month: LocalMonth) -> SQLCounts:
        """Return the counts of the events in *month*."""
        start, end = self._conditions.start_time, self._conditions.end_time
        if month.start is not None:
            first = time_of(month.start)
            start = first if start is None else max(start, first)
        if month.stop is not None:
            stop = time_of(month.stop)
            end = stop if end is None else min(end, stop)

        narrowed = msgspec.structs.replace(self._conditions, start_time=start, end_time=end)

        return SQLCounts(self._engine, self._snapshot, narrowed, self._places)

    def operations(self) -> list[tuple[str, ...]]:
        """Return the operations of the events, as many at a time as have columns in one query."""
        names = sorted(name for (name,) in self._rows("operation", "DISTINCT operation", ""))

        return [tuple(names[start : start + _MOST_OPERATIONS]) for start in range(0, len(names), _MOST_OPERATIONS)]

    def memory_for(self, operations: Sequence[str]) -> float:
        """Return the share of the database's memory that the counts of all users take, about, or 0 if it has no limit."""
        memory = self._engine.memory
        if memory is None:
            return 0.0
        bytes_per_user = _COUNT_BYTES * (6 + 2 * len(operations))

        # Of few events there cannot be many users.
        users = sum(file.rows for file in self.files)
        if users * bytes_per_user > memory // 8:
            users = self._users
        return users * bytes_per_user / memory

    @cached_property
    def _users(self) -> int:
        """About how many users there are."""
        ((users,),) = self._rows("user_id", "approx_count_distinct(user_id)", "")

        return int(users)

    def users(
        self, operations: Sequence[str], names: Sequence[str], share: UserShare = ALL_USERS, *, is_ordered: bool
    ) -> Iterator[UserPart]:
        """Yield the counts of users.

        Args:
            operations: The operations that count, at most `_MOST_OPERATIONS`.
            names: What each of them is called in the answer.
            share: The share of the users that count.
            is_ordered: Whether the users come in the order of their ids, None first.
        """
        late = ("min_by(late_us, place)", "max_by(late_us, place)") if self._has_late_events() else ("0", "0")
        values = {f"o{number}": name for number, name in enumerate(operations)}
        parameters = [self._dialect.parameter.format(name=name) for name in values]
        trails = self._dialect.parameter.format(name="trails")

        # Places are fetched as text: the client of DuckDB takes twice as long for integers of 128 bits.
        selected = (
            "user_id, count(*) FILTER (WHERE status = 'SUCCESS'), count(*) FILTER (WHERE status = 'FAILURE'), "
            f"cast(min(place) AS STRING), {late[0]}, cast(max(place) AS STRING), {late[1]}"
        )
        for parameter in parameters:
            only = f"FILTER (WHERE operation = {parameter})"
            selected += f", count(*) {only}, cast(min(place) {only} AS STRING)"

        groups = f"AND operation IN ({', '.join(parameters)})"
        if share.of > 1:
            groups += f" AND {self._dialect.in_share.format(column='user_id', **share._asdict())}"
        groups += " GROUP BY user_id"
        if is_ordered:
            groups += " ORDER BY user_id NULLS FIRST"

        at = f"cast({self._engine.place} AS {self._dialect.wide})"
        placed = f"({at} * {MOST_TRAILS} + number) * {MOST_IN_TRAIL} + n"
        source = (
            f"(SELECT user_id, operation, status, late_us, is_doubtful, {placed} AS place FROM {{events}} "
            f"JOIN ({self._dialect.numbered.format(value=trails)}) ON trail = name)"
        )
        columns = "user_id, operation, status, timestamp, late_us, trail, n"
        bound = {**values, "trails": self._dialect.list_of(self._places.trails)}

        for user, succeeded, failures, *row in self._rows(columns, selected, groups, bound, source):
            first = moment_at(int(row[0]), row[1])
            last = moment_at(int(row[2]), row[3])
            found = zip(names, row[4::2], row[5::2], strict=True)
            counted = [(operation, int(place), count) for operation, count, place in found if count]

            yield UserPart(user, succeeded, failures, first, last, counted)

    def _has_late_events(self) -> bool:
        """Return whether an event is earlier than one before it in its trail."""
        ((late_us,),) = self._rows("late_us", "coalesce(max(late_us), 0)", "")

        return bool(late_us)


def shares_of(queries: Sequence[tuple[SQLCounts, Sequence[str]]]) -> list[UserShare]:
    """Return the shares in which the users of *queries*, all open at once, are counted: as few as memory allows."""
    memory = sum(counts.memory_for(operations) for counts, operations in queries)
    # The other half is for the rows on their way.
    of = max(1, math.ceil(2 * memory))

    return [UserShare(number, of) for number in range(of)]
