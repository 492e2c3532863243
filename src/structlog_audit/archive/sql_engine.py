"""The engine that answers queries from the data files of an archive by SQL, in whatever database reads them.

**Guarantees.** Events come in the order of the archive or its exact reverse: by the greatest timestamp of their trail so far,
then by trail, then by their number in it. Each trail thus keeps its order of commit, however its clock was set.

**Performance.** The catalogue leaves out files by time and event id. The others are read a few at a time, as far as they do not
overlap in the order, so that a caller who takes the newest events reads no more files than necessary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple, Protocol

from structlog_audit.archive.actions import DataFile
from structlog_audit.archive.delta_log import Snapshot
from structlog_audit.archive.dialects import Dialect, where
from structlog_audit.archive.promotion import promoted_columns
from structlog_audit.archive.rows import FETCHED_COLUMNS, stored_event
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import EventStatus
from structlog_audit.query.engine import Progress
from structlog_audit.query.filters import Conditions, microseconds
from structlog_audit.query.statistics import LOG_GROWTH


class Files(NamedTuple):
    """Data files with the same columns: their paths in the archive, and the promoted columns that they have."""

    paths: tuple[str, ...]
    promoted: frozenset[str]


class UndecidedError(Exception):
    """The database cannot parse the metadata of a row: only Python can decide if it matches."""


class SQLDatabase(Protocol):
    """A connection to a database that reads the data files of one archive."""

    @property
    def dialect(self) -> Dialect:
        """The SQL that it takes."""
        ...

    def query(self, sql: str, parameters: Mapping[str, Any], tables: Mapping[str, Files]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query. Several queries may be under way at once.

        Args:
            sql: The query, in which ``{name}`` stands for a table.
            parameters: The values of its parameters.
            tables: The files of each table, by its name.

        Raises:
            AuditReadError: A file is missing or damaged, or the database fails.
            UndecidedError: The database cannot parse the metadata of a row; raised before the first row.
        """
        ...

    def close(self) -> None:
        """Close the connection."""
        ...


class Found(NamedTuple):
    """An event, and its place in the order of the archive."""

    at: int
    trail: str
    number: int
    event: StoredEvent


class Counts(NamedTuple):
    """What statistics count, in SQL."""

    operations: Counter[str]
    statuses: Counter[str]
    users: Counter[str | None]
    buckets: Counter[int]
    total_ms: float


class _Union(NamedTuple):
    """A query over files with different columns, its parameters and tables, and whether it selects only matching events."""

    sql: str
    parameters: dict[str, Any]
    tables: dict[str, Files]
    is_exact: bool


class SQLEngine:
    """Queries of the archive that a snapshot describes.

    Args:
        database: Reads the data files.
        progress: Called with the bytes of the data files read so far for the current query.
    """

    def __init__(self, database: SQLDatabase, progress: Progress | None = None) -> None:
        self._database = database
        self._dialect = database.dialect
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
        most = self._dialect.most_selected_rows if is_selective else self._dialect.most_rows
        steps = _steps(files, newest_first=newest_first, first=self._dialect.first_rows, most=most)
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

    def _in_files(
        self,
        snapshot: Snapshot,
        conditions: Conditions,
        files: Sequence[DataFile],
        newest_first: bool,
        at_most: int | None,
    ) -> Iterator[Found]:
        stored = FETCHED_COLUMNS.format(us=self._dialect.fetched_time.format(column="timestamp"))
        columns = f"{self._place} AS place, trail, n, {stored}"
        direction = "DESC" if newest_first else "ASC"
        order = ""
        if newest_first or len(files) > 1 or not self._dialect.keeps_order:
            order = f" ORDER BY place {direction}, trail {direction}, n {direction}"

        source = self._union(snapshot, conditions, files, columns)
        try:
            yield from self._matching(source, conditions, order, at_most)
        except UndecidedError:
            source = self._union(snapshot, conditions, files, columns, reads_json=False)
            yield from self._matching(source, conditions, order, at_most)

    def _matching(self, source: _Union, conditions: Conditions, order: str, at_most: int | None) -> Iterator[Found]:
        """Yield the rows of *source* that match *conditions*."""
        limit = f" LIMIT {at_most}" if source.is_exact and at_most is not None else ""
        matches = conditions.matches
        for row in self._rows(source.sql + order + limit, source):
            event = stored_event(row[3:])
            if source.is_exact or matches(event):
                yield Found(row[0], row[1], row[2], event)

    @property
    def _place(self) -> str:
        return self._dialect.fetched_time.format(column="timestamp") + " + late_us"

    def _rows(self, sql: str, source: _Union) -> Iterator[tuple[Any, ...]]:
        return self._database.query(sql, source.parameters, source.tables)

    def _union(
        self,
        snapshot: Snapshot,
        conditions: Conditions,
        files: Iterable[DataFile],
        columns: str,
        *,
        reads_json: bool = True,
    ) -> _Union:
        """Return a query of *columns* over *files*.

        Files with the same promoted columns are read together. A file without one would have NULL there, and lose events.
        """
        names = {path: name for name, path in promoted_columns(snapshot.configuration).items()}
        groups: dict[frozenset[str], list[str]] = {}
        for file in files:
            groups.setdefault(file.promoted, []).append(file.path)

        queries: list[str] = []
        parameters: dict[str, Any] = {}
        tables: dict[str, Files] = {}
        is_exact = True
        for promoted, paths in groups.items():
            table = f"g{len(tables)}"
            tables[table] = Files(tuple(paths), promoted)
            known = {path: name for path, name in names.items() if name in promoted}

            condition = where(conditions, self._dialect, known, table, reads_json=reads_json)
            parameters |= condition.parameters
            is_exact &= condition.is_exact
            queries.append(f"SELECT {columns} FROM {{{table}}} WHERE {condition.sql}")
        return _Union(" UNION ALL ".join(queries), parameters, tables, is_exact)

    def count(self, snapshot: Snapshot, conditions: Conditions) -> int | None:
        """Return the number of matching events; None if SQL alone cannot tell."""
        files = _candidates(snapshot, conditions)
        if not files:
            return 0

        source = self._union(snapshot, conditions, files, "1")
        if not source.is_exact:
            return None

        try:
            [(count,)] = self._rows(f"SELECT count(*) FROM ({source.sql})", source)
        except UndecidedError:
            return None
        return int(count)

    def counts(self, snapshot: Snapshot, conditions: Conditions) -> Counts | None:
        """Return what statistics of the matching events count; None if SQL alone cannot tell."""
        counts = Counts(Counter(), Counter(), Counter(), Counter(), 0.0)
        files = _candidates(snapshot, conditions)
        if not files:
            return counts

        bucket = self._dialect.bucket.format(growth=LOG_GROWTH)
        columns = f"operation, status, user_id, {bucket} AS bucket, duration_ms, {self._place} AS place, n"
        source = self._union(snapshot, conditions, files, columns)
        if not source.is_exact:
            return None

        grouping = self._dialect.grouping.format(columns="operation, status, user_id, bucket")
        total = self._dialect.total.format(column="duration_ms")

        sql = (
            f"SELECT {grouping}, operation, status, user_id, bucket, count(*), {total} FROM ({source.sql}) "
            "GROUP BY GROUPING SETS ((operation), (status), (user_id), (bucket), ()) ORDER BY min(place), min(n)"
        )
        try:
            rows = list(self._rows(sql, source))
        except UndecidedError:
            return None

        total_ms = 0.0
        for group, operation, status, user, bucket_number, count, duration in rows:
            # A bit is set for each column that the row does not group by.
            if group == 0b0111:
                counts.operations[operation] += count
            elif group == 0b1011:
                counts.statuses[EventStatus(status)] += count
            elif group == 0b1101:
                counts.users[user] += count
            elif group == 0b1110 and bucket_number is not None:
                counts.buckets[bucket_number] += count
            elif group == 0b1111:
                total_ms = duration or 0.0
        return counts._replace(total_ms=total_ms)


def _has_other(conditions: Conditions) -> bool:
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


def _steps(files: Sequence[DataFile], *, newest_first: bool, first: int, most: int) -> Iterator[list[DataFile]]:
    """Yield the files that are read together, in the order of the answer.

    Args:
        files: The files by their places.
        newest_first: The order of the answer.
        first: The rows of the first files. Each further step has four times as many.
        most: The rows of a step at most.
    """
    clusters = list(_clusters(files))
    if newest_first:
        clusters.reverse()

    wanted = first
    step: list[DataFile] = []
    rows = 0
    for cluster in clusters:
        step += cluster
        rows += sum(file.rows for file in cluster)
        if rows >= wanted:
            yield step
            step, rows = [], 0
            wanted = min(4 * wanted, most)
    if step:
        yield step
