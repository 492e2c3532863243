"""The engine that answers queries from the data files of an archive with DuckDB, in this process.

**Guarantees.** Events come in the order of the archive or its exact reverse: by the greatest timestamp of their trail so far,
then by trail, then by their number in it. Each trail thus keeps its order of commit, however its clock was set.

**Performance.** The catalogue leaves out files by time and event id. The others are read a few at a time, as far as they do not
overlap in the order, so that a caller who takes the newest events reads no more files than necessary.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

from structlog_audit.archive.actions import DataFile, Range
from structlog_audit.archive.database import Database, parquet
from structlog_audit.archive.delta_log import Snapshot
from structlog_audit.archive.dialects import DUCKDB, where
from structlog_audit.archive.field_sql import FALSE, MOST_DISTINCT, TRUE
from structlog_audit.archive.promotion import promoted_columns
from structlog_audit.archive.rows import STORED_COLUMNS, stored_event
from structlog_audit.archive.storage import Storage
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import EventStatus, Kind
from structlog_audit.query.engine import Progress
from structlog_audit.query.field_tests import FieldConditions
from structlog_audit.query.filters import Conditions, conditions, microseconds
from structlog_audit.query.statistics import LOG_GROWTH

_FIRST_ROWS = 60_000
"""The rows of the first files that are read together. Each further step has four times as many."""

_MOST_ROWS = 60_000
"""The rows that are read together if a query selects nearly all of them. To sort more takes memory."""

_MOST_SELECTED_ROWS = 50_000_000
"""The rows that are searched together if a query selects few of them."""

ANY_KIND = conditions(kind=[None, *Kind])
"""The conditions of all events."""

_ORDER = "epoch_us(timestamp) + late_us"


class Found(NamedTuple):
    """An event, and its place in the order of the archive."""

    at: int
    trail: str
    number: int
    event: StoredEvent


class Counts:
    """What statistics count, in SQL."""

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.users: Counter[str | None] = Counter()
        self.buckets: Counter[int] = Counter()
        self.totals_ms: list[float] = []

    def add(self, other: Counts) -> None:
        """Add the counts of other events."""
        for name in ("operations", "statuses", "users", "buckets"):
            getattr(self, name).update(getattr(other, name))

        self.totals_ms += other.totals_ms


Place = tuple[int, str, int]
"""The place of an event in the order of the archive: its order key, its trail, and its number in it."""


UserOperation = tuple[str | None, str, int, int, int, str, int, int, int, int]
"""How often a user did an operation in a trail: the user, the operation, how often, how often with success; the order key of
the first time, the trail, and the number of the first time in it; the order key and the number of the last time; and how much
earlier than its order key the last time is, in µs. A plain tuple, since there are as many as users times operations."""


class _Union(NamedTuple):
    """SQL over several files, its parameters, of how many queries it consists, and whether it selects only matching rows."""

    sql: str
    parameters: dict[str, Any]
    queries: int
    is_exact: bool


class DuckDBEngine:
    """Queries of the archive that a snapshot describes.

    Args:
        storage: The files of the archive.
        database: Reads them.
        progress: Called with the bytes of the data files read so far for the current query.
    """

    def __init__(self, storage: Storage, database: Database, progress: Progress | None = None) -> None:
        self._storage = storage
        self._database = database
        self._progress = progress

    def select(
        self,
        snapshot: Snapshot,
        conditions: Conditions,
        *,
        newest_first: bool,
        at_most: int | None,
        bound: int | None = None,
    ) -> Iterator[Found]:
        """Yield the events that match *conditions* in the order of the archive, or its reverse.

        Args:
            snapshot: The state of the archive.
            conditions: The conditions.
            newest_first: The order.
            at_most: The number of events that are taken at most; None means all.
            bound: A place in the order, before which (in the order of the answer) whole files are left out.
        """
        files = _candidates(snapshot, conditions)
        if bound is not None:
            files = [f for f in files if (f.order[0] <= bound if newest_first else f.order[1] >= bound)]

        is_selective = len(conditions.names) > 1 or conditions.names[0][0] != "kind" or _has_other(conditions)
        steps = _steps(files, newest_first=newest_first, is_selective=is_selective)
        done = 0
        taken = 0

        for step in steps:
            rest = None if at_most is None else at_most - taken
            if rest is not None and rest <= 0:
                return

            for found in islice(self._in_files(snapshot, conditions, step, newest_first, rest), rest):
                taken += 1
                yield found

            done += sum(file.size for file in step)
            if self._progress is not None:
                self._progress(done)

    def undecided(self, snapshot: Snapshot, conditions: Conditions) -> Iterator[Found]:
        """Yield the matching events among those about which SQL cannot decide, in any order. `counts` has the others."""
        files = _candidates(snapshot, conditions)
        if files:
            yield from self._in_files(snapshot, conditions, files, False, None, where="WHERE is_doubtful")

    def _in_files(
        self,
        snapshot: Snapshot,
        conditions: Conditions,
        files: Sequence[DataFile],
        newest_first: bool,
        at_most: int | None,
        where: str = "",
    ) -> Iterator[Found]:
        columns = f"{_ORDER} AS place, trail, n, {STORED_COLUMNS}"
        source = self._union(snapshot, conditions, files, columns)
        if source is None or (where and source.is_exact):
            return

        sql = f"SELECT * FROM ({source.sql}) {where}" if where else source.sql
        # The rows of one file are in order already.
        if newest_first or len(files) > 1 or source.queries > 1:
            direction = "DESC" if newest_first else "ASC"
            sql += f" ORDER BY place {direction}, trail {direction}, n {direction}"

        if source.is_exact and at_most is not None:
            sql += f" LIMIT {at_most}"

        matches = conditions.matches

        for row in self._database.rows(sql, source.parameters):
            event = stored_event(row[3:-1])
            if not row[-1] or matches(event):
                yield Found(row[0], row[1], row[2], event)

    def _union(
        self, snapshot: Snapshot, conditions: Conditions, files: Iterable[DataFile], columns: str
    ) -> _Union | None:
        """Return a query of *columns*, and ``is_doubtful``, over *files*; None if no row can match.

        Files with the same promoted columns are read together. A file without one would have NULL there, and lose events.
        """
        names = {path: name for name, path in promoted_columns(snapshot.configuration).items()}
        groups: defaultdict[tuple[frozenset[str], tuple[Range, ...]], list[str]] = defaultdict(list)

        for file in files:
            skipped = snapshot.skipped.get(file.path, ())
            groups[file.promoted, skipped].append(self._storage.location(file.path))

        queries: list[str] = []
        parameters: dict[str, Any] = {}
        is_exact = True

        for number, ((promoted, skipped), locations) in enumerate(groups.items()):
            known = {path: name for path, name in names.items() if name in promoted}
            source = parquet(locations)
            distinct = partial(self._distinct, source)
            condition = where(conditions, DUCKDB, known, distinct, f"g{number}")
            parameters |= condition.parameters
            is_exact &= condition.doubtful == FALSE
            kept = "".join(f" AND NOT (n >= {first} AND n < {stop})" for first, stop in skipped)

            for found, is_doubtful in ((condition.certain, FALSE), (condition.doubtful, TRUE)):
                if found != FALSE:
                    queries.append(f"SELECT {columns}, {is_doubtful} AS is_doubtful FROM {source} WHERE {found}{kept}")

        return _Union(" UNION ALL ".join(queries), parameters, len(queries), is_exact) if queries else None

    def _distinct(self, source: str, expression: str, condition: str, parameters: dict[str, Any]) -> list[str] | None:
        """As `structlog_audit.archive.field_sql.Distinct`."""
        sql = f"SELECT DISTINCT {expression} FROM {source} WHERE {condition} LIMIT {MOST_DISTINCT + 1}"
        values = [value for (value,) in self._database.rows(sql, parameters)]

        return values if len(values) <= MOST_DISTINCT else None

    def count(self, snapshot: Snapshot, conditions: Conditions) -> int:
        """Return the number of matching events."""
        files = _candidates(snapshot, conditions)
        source = self._union(snapshot, conditions, files, "1") if files else None
        if source is None:
            return 0

        sql = f"SELECT is_doubtful, count(*) FROM ({source.sql}) GROUP BY is_doubtful"
        counts = dict(self._database.rows(sql, source.parameters))
        count = int(counts.get(False, 0))

        return count + sum(1 for _ in self.undecided(snapshot, conditions)) if counts.get(True) else count

    def counts(self, snapshot: Snapshot, conditions: Conditions) -> Counts:
        """Return what statistics count of the matching events that are not `undecided`."""
        counts = Counts()
        files = _candidates(snapshot, conditions)
        bucket = DUCKDB.bucket.format(growth=LOG_GROWTH)
        columns = f"operation, status, user_id, {bucket} AS bucket, duration_ms"
        source = self._union(snapshot, conditions, files, columns) if files else None
        if source is None:
            return counts

        sql = (
            "SELECT grouping(operation, status, user_id, bucket), operation, status, user_id, bucket, count(*), "
            f"fsum(duration_ms) FROM ({source.sql}) WHERE NOT is_doubtful "
            "GROUP BY GROUPING SETS ((operation), (status), (user_id), (bucket), ())"
        )

        rows = self._database.rows(sql, source.parameters)

        for grouping, operation, status, user, bucket_number, count, duration in rows:
            # A bit is set for each column that the row does not group by.
            if grouping == 0b0111:
                counts.operations[operation] += count
            elif grouping == 0b1011:
                counts.statuses[EventStatus(status)] += count
            elif grouping == 0b1101:
                counts.users[user] += count
            elif grouping == 0b1110 and bucket_number is not None:
                counts.buckets[bucket_number] += count
            elif grouping == 0b1111:
                counts.totals_ms.append(duration or 0.0)

        return counts

    def lines(self, snapshot: Snapshot, trail: str) -> Iterator[tuple[Any, ...]]:
        """Yield what the rows of a trail show about completeness, in the order of commit.

        Yields:
            The number in the trail, the column ``line``, the event id, the timestamp in µs, the kind, and, of the library's own
            events, the operation and the metadata.
        """
        own = ", ".join(f"CASE WHEN kind IS NOT NULL THEN {name} END" for name in ("operation", "metadata"))
        files = [file for file in snapshot.files.values() if file.trail == trail]
        files.sort(key=lambda file: file.numbers)
        groups: list[list[DataFile]] = []
        last = -1

        for file in files:
            # Late events of one file may stand between those of another.
            if not groups or file.numbers[0] > last:
                groups.append([])

            groups[-1].append(file)
            last = max(last, file.numbers[1])

        for group in groups:
            columns = f"n, line, event_id, epoch_us(timestamp), kind, {own}"
            source = self._union(snapshot, ANY_KIND, group, columns)
            if source is not None:
                order = " ORDER BY n" if len(group) > 1 else ""
                yield from (row[:-1] for row in self._database.rows(source.sql + order, source.parameters))

    def counts_by_user(self, snapshot: Snapshot, conditions: Conditions) -> Iterator[UserOperation]:
        """Yield the counts of each user, operation and trail of the matching events that are not `undecided`, by the first."""
        files = _candidates(snapshot, conditions)
        columns = f"user_id, operation, status, trail, n, {_ORDER} AS place, late_us"
        source = self._union(snapshot, conditions, files, columns) if files else None
        if source is None:
            return
        # The places of a trail ascend with its numbers.
        sql = (
            "SELECT user_id, operation, count(*), count(*) FILTER (status = 'SUCCESS'), min(place), trail, min(n), max(place), "
            f"max(n), CASE WHEN max(late_us) > 0 THEN arg_max(late_us, n) ELSE 0 END FROM ({source.sql}) "
            "WHERE NOT is_doubtful GROUP BY user_id, operation, trail ORDER BY min(place), trail, min(n)"
        )

        yield from self._database.rows(sql, source.parameters)


def _has_other(conditions: Conditions) -> bool:
    if isinstance(conditions, FieldConditions):
        return True
    return (conditions.entry_ids, conditions.metadata, conditions.min_duration_ms, conditions.max_duration_ms) != (
        None,
        None,
        None,
        None,
    )


def _candidates(snapshot: Snapshot, conditions: Conditions) -> list[DataFile]:
    """Return the files that may have matching events, by their places in the order."""
    start = None if conditions.start_time is None else microseconds(conditions.start_time)
    end = None if conditions.end_time is None else microseconds(conditions.end_time)
    ids = next((values for name, values in conditions.names if name == "event_id"), None)

    files = []

    for file in snapshot.files.values():
        least, greatest = file.times
        if (start is not None and greatest < start) or (end is not None and least >= end):
            continue

        if ids is not None and not any(id is not None and file.ids[0] <= id <= file.ids[1] for id in ids):
            continue

        files.append(file)

    files.sort(key=lambda file: (file.order, file.trail, file.numbers))

    return files


def _clusters(files: Sequence[DataFile]) -> Iterator[list[DataFile]]:
    """Yield groups of *files*, which are in order: all events of a group precede those of the next."""
    cluster: list[DataFile] = []
    last = 0

    for file in files:
        if cluster and file.order[0] > last:
            yield cluster
            cluster = []

        last = file.order[1] if not cluster else max(last, file.order[1])
        cluster.append(file)

    if cluster:
        yield cluster


def _steps(files: Sequence[DataFile], *, newest_first: bool, is_selective: bool) -> Iterator[list[DataFile]]:
    """Yield the files that are read together, in the order of the answer."""
    clusters = list(_clusters(files))
    if newest_first:
        clusters.reverse()

    most = _FIRST_ROWS
    step: list[DataFile] = []
    rows = 0

    for cluster in clusters:
        step += cluster
        rows += sum(file.rows for file in cluster)
        if rows >= most:
            yield step
            step, rows = [], 0
            most = min(4 * most, _MOST_SELECTED_ROWS if is_selective else _MOST_ROWS)

    if step:
        yield step
