"""The engine that answers queries from the data files of an archive by SQL, in whatever database reads them.

**Guarantees.** Events come in the order of the archive or its exact reverse: by the greatest timestamp of their trail so far,
then by trail, then by their number in it. Each trail thus keeps its order of commit, however its clock was set.

**Performance.** The catalogue leaves out files by time and event id. The others are read a few at a time, as far as they do not
overlap in the order, so that a caller who takes the newest events reads no more files than necessary.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice, pairwise
from operator import itemgetter
from typing import Any, NamedTuple, Protocol

from structlog_audit.archive.actions import DataFile, Range
from structlog_audit.archive.delta_log import Snapshot
from structlog_audit.archive.dialects import Dialect, where
from structlog_audit.archive.field_sql import FALSE, MOST_DISTINCT, TRUE
from structlog_audit.archive.promotion import promoted_columns
from structlog_audit.archive.rows import FETCHED_COLUMNS, stored_event
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import Kind
from structlog_audit.exceptions import AuditReadError
from structlog_audit.query.engine import Progress
from structlog_audit.query.field_tests import FieldConditions
from structlog_audit.query.filters import Conditions, conditions, microseconds

ANY_KIND = conditions(kind=[None, *Kind])
"""The conditions of all events."""

_SORTED_STEPS = 4
"""How many times the usual rows of a step are sorted at once, if they cannot be read apart."""

_BLOCK_ROWS = 8_192
"""The rows whose places are looked up together, to divide many."""


_EVIDENCE = (
    "event_id, {us} AS us, kind, CASE WHEN kind IS NOT NULL THEN operation END AS operation, "
    "CASE WHEN kind IS NOT NULL THEN metadata END AS metadata"
)
"""The columns that are evidence of completeness: operation and metadata only of the library's own events."""


class Files(NamedTuple):
    """Data files with the same columns: their paths in the archive, and the promoted columns that they have."""

    paths: tuple[str, ...]
    promoted: frozenset[str]


class UndecidedError(Exception):
    """The database cannot parse the metadata of a row: only Python can decide if it matches. The message is the database's."""


class SQLDatabase(Protocol):
    """A connection to a database that reads the data files of one archive."""

    @property
    def dialect(self) -> Dialect:
        """The SQL that it takes."""
        ...

    @property
    def memory(self) -> int | None:
        """The bytes of memory for all queries; None if the database is not in this process."""
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


Place = tuple[int, str, int]
"""The place of an event in the order of the archive: its order key, its trail, and its number in it."""


class _Union(NamedTuple):
    """SQL over several files, its parameters and tables, and of how many queries it consists.

    `is_exact` states whether all its rows match, and `reads_json` whether the database parses the metadata for it.
    """

    sql: str
    parameters: dict[str, Any]
    tables: dict[str, Files]
    queries: int
    is_exact: bool
    reads_json: bool


class _Part(NamedTuple):
    """The rows of a step whose places are from *start* to before *stop*; None means no limit.

    `numbers` has the range of the numbers in each trail that may be in it, so that other row groups are not read.
    """

    start: int | None
    stop: int | None
    numbers: dict[str, Range]


class SQLEngine:
    """Queries of the archive that a snapshot describes.

    Each method but `select` may raise `UndecidedError`. Earlier results are void then, and are computed again.

    Args:
        database: Reads the data files.
        progress: Called with the bytes of the data files read so far for the current query.
    """

    def __init__(self, database: SQLDatabase, progress: Progress | None = None) -> None:
        self._database = database
        self._dialect = database.dialect
        self._progress = progress
        self._reads_json = True

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
        files = candidates(snapshot, conditions)
        if bound is not None:
            files = [f for f in files if (f.order[0] <= bound if newest_first else f.order[1] >= bound)]

        is_selective = len(conditions.names) > 1 or conditions.names[0][0] != "kind" or _has_other(conditions)
        most = self._dialect.most_selected_rows if is_selective else self._dialect.most_rows
        steps = _steps(files, newest_first=newest_first, first=self._dialect.first_rows, most=most)
        done = 0
        taken = 0

        for step in steps:
            for part in self._parts(step, most, newest_first, bound):
                rest = None if at_most is None else at_most - taken
                if rest is not None and rest <= 0:
                    return
                for found in islice(self._in_step(snapshot, conditions, step, newest_first, rest, part), rest):
                    taken += 1
                    yield found

            done += sum(file.size for file in step)
            if self._progress is not None:
                self._progress(done)

    def undecided(self, snapshot: Snapshot, conditions: Conditions) -> Iterator[Found]:
        """Yield the matching events among those about which SQL cannot decide, in any order. `counts` has the others."""
        files = candidates(snapshot, conditions)
        if files:
            yield from self._in_files(snapshot, conditions, files, False, None, where="WHERE is_doubtful")

    def _parts(
        self, files: Sequence[DataFile], most: int, newest_first: bool, bound: int | None
    ) -> Iterator[_Part | None]:
        """Yield parts of *files* that can be sorted in little memory, in the order of the answer; None for all rows.

        The files of a busy day, or of several trails, overlap in the order.
        """
        is_sorted = len(files) == 1 and self._dialect.keeps_order and not newest_first
        if is_sorted or sum(file.rows for file in files) <= _SORTED_STEPS * most:
            yield None
            return

        sql = (
            f"SELECT trail, min(n), max(n), min({self.place}), max({self.place}), count(*) FROM {{files}} "
            f"GROUP BY trail, floor(n / {_BLOCK_ROWS})"
        )
        tables = {"files": Files(tuple(file.path for file in files), frozenset())}
        blocks = sorted(self._database.query(sql, {}, tables), key=itemgetter(3))
        cuts: list[int] = []
        rows = 0

        for _, _, _, least, _, count in blocks:
            if rows >= _SORTED_STEPS * most and least > (cuts[-1] if cuts else blocks[0][3]):
                cuts.append(least)
                rows = 0

            rows += count

        ranges = list(pairwise([None, *cuts, None]))

        for start, stop in reversed(ranges) if newest_first else ranges:
            if bound is not None and (_is_after(start, bound) if newest_first else _is_before(stop, bound)):
                continue

            numbers: dict[str, Range] = {}
            for trail, first, last, least, greatest, _ in blocks:
                if not _is_before(stop, least) and not _is_after(start, greatest):
                    known = numbers.get(trail, (first, last))
                    numbers[trail] = min(known[0], first), max(known[1], last)

            yield _Part(start, stop, numbers)

    def _in_step(
        self,
        snapshot: Snapshot,
        conditions: Conditions,
        files: Sequence[DataFile],
        newest_first: bool,
        at_most: int | None,
        part: _Part | None,
    ) -> Iterator[Found]:
        """As `_in_files`, again if the database cannot parse a row: it says so before the first one."""
        try:
            yield from self._in_files(snapshot, conditions, files, newest_first, at_most, part)
        except UndecidedError:
            yield from self._in_files(snapshot, conditions, files, newest_first, at_most, part)

    def _in_files(
        self,
        snapshot: Snapshot,
        conditions: Conditions,
        files: Sequence[DataFile],
        newest_first: bool,
        at_most: int | None,
        part: _Part | None = None,
        where: str = "",
    ) -> Iterator[Found]:
        stored = FETCHED_COLUMNS.format(us=self.microseconds)
        source = self._union(snapshot, conditions, files, f"{self.place} AS place, trail, n, {stored}", part)
        if source is None or (where and source.is_exact):
            return

        sql = f"SELECT * FROM ({source.sql}) {where}" if where else source.sql
        if newest_first or len(files) > 1 or source.queries > 1 or not self._dialect.keeps_order:
            direction = "DESC" if newest_first else "ASC"
            sql += f" ORDER BY place {direction}, trail {direction}, n {direction}"

        if source.is_exact and at_most is not None:
            sql += f" LIMIT {at_most}"

        matches = conditions.matches
        for row in self._rows(sql, source):
            event = stored_event(row[3:-1])
            if not row[-1] or matches(event):
                yield Found(row[0], row[1], row[2], event)

    @property
    def dialect(self) -> Dialect:
        """The SQL that the database takes."""
        return self._dialect

    @property
    def memory(self) -> int | None:
        """The bytes of memory that the database has, as `SQLDatabase.memory`."""
        return self._database.memory

    @property
    def microseconds(self) -> str:
        """The timestamp in microseconds since 1970, in SQL."""
        return self._dialect.fetched_time.format(column="timestamp")

    @property
    def place(self) -> str:
        """The order key, in SQL."""
        return self.microseconds + " + late_us"

    def _rows(self, sql: str, source: _Union) -> Iterator[tuple[Any, ...]]:
        try:
            yield from self._database.query(sql, source.parameters, source.tables)
        except UndecidedError as error:
            # Without JSON in it, the query failed for another reason, and would fail again.
            if not source.reads_json:
                raise AuditReadError(str(error)) from error

            # Python parses the metadata from now on.
            self._reads_json = False
            raise

    def _union(
        self,
        snapshot: Snapshot,
        conditions: Conditions,
        files: Iterable[DataFile],
        columns: str,
        part: _Part | None = None,
    ) -> _Union | None:
        """Return a query of *columns*, and ``is_doubtful``, over *files*; None if no row can match.

        Files with the same promoted columns are read together. A file without one would have NULL there, and lose events.
        """
        names = {path: name for name, path in promoted_columns(snapshot.configuration).items()}
        groups: defaultdict[tuple[frozenset[str], str], list[str]] = defaultdict(list)

        for file in files:
            skipped = snapshot.skipped.get(file.path, ())
            kept = "".join(f" AND NOT (n >= {first} AND n < {stop})" for first, stop in skipped)
            groups[file.promoted, kept + self._within(file, part)].append(file.path)

        reads_json = self._reads_json
        queries: list[str] = []
        parameters: dict[str, Any] = {}
        tables: dict[str, Files] = {}
        is_exact = True
        for (promoted, kept), paths in groups.items():
            table = f"g{len(tables)}"
            tables[table] = Files(tuple(paths), promoted)
            known = {path: name for path, name in names.items() if name in promoted}
            distinct = partial(self._distinct, tables[table], reads_json)
            condition = where(conditions, self._dialect, known, distinct, table, reads_json=reads_json)
            parameters |= condition.parameters
            is_exact &= condition.doubtful == FALSE

            for found, is_doubtful in ((condition.certain, FALSE), (condition.doubtful, TRUE)):
                if found != FALSE:
                    queries.append(
                        f"SELECT {columns}, {is_doubtful} AS is_doubtful FROM {{{table}}} WHERE {found}{kept}"
                    )
        if not queries:
            return None

        return _Union(" UNION ALL ".join(queries), parameters, tables, len(queries), is_exact, reads_json)

    def _within(self, file: DataFile, part: _Part | None) -> str:
        """Return the condition, after others, that a row of *file* is in *part*."""
        if part is None:
            return ""

        # Without a number in it, the range is empty.
        first, last = part.numbers.get(file.trail, (0, -1))
        within = f" AND n BETWEEN {first} AND {last}"
        if part.start is not None:
            within += f" AND {self.place} >= {part.start}"

        return within if part.stop is None else f"{within} AND {self.place} < {part.stop}"

    def _distinct(
        self, files: Files, reads_json: bool, expression: str, condition: str, parameters: dict[str, Any]
    ) -> list[str] | None:
        """As `structlog_audit.archive.field_sql.Distinct`."""
        sql = f"SELECT DISTINCT {expression} FROM {{files}} WHERE {condition} LIMIT {MOST_DISTINCT + 1}"
        source = _Union(sql, parameters, {"files": files}, 1, True, reads_json)
        values = [value for (value,) in self._rows(sql, source)]

        return values if len(values) <= MOST_DISTINCT else None

    def count(self, snapshot: Snapshot, conditions: Conditions) -> int:
        """Return the number of matching events."""
        files = candidates(snapshot, conditions)
        source = self._union(snapshot, conditions, files, "1") if files else None
        if source is None:
            return 0

        sql = f"SELECT is_doubtful, count(*) FROM ({source.sql}) GROUP BY is_doubtful"
        counts = dict(self._rows(sql, source))
        count = int(counts.get(False, 0))

        return count + sum(1 for _ in self.undecided(snapshot, conditions)) if counts.get(True) else count

    def grouped(
        self,
        snapshot: Snapshot,
        conditions: Conditions,
        files: Iterable[DataFile],
        columns: str,
        selected: str,
        groups: str,
        values: Mapping[str, object],
        source: str = "{events}",
    ) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query of the matching events that are not `undecided`.

        Args:
            snapshot: The state of the archive.
            conditions: The conditions.
            files: The data files.
            columns: What is computed of each event.
            selected: What is selected of these columns.
            groups: The rest of the query, after its conditions.
            values: The values of the parameters in it.
            source: The table that is selected from, of ``{events}``, which have these columns and ``is_doubtful``.
        """
        union = self._union(snapshot, conditions, files, columns)
        if union is None:
            return

        union.parameters.update(values)
        # The names of tables stay to be replaced.
        table = source.replace("{events}", f"({union.sql})")
        sql = f"SELECT {selected} FROM {table} WHERE NOT is_doubtful {groups}"
        yield from self._rows(sql, union)

    def lines(self, snapshot: Snapshot, trail: str, first: int, stop: int) -> Iterator[tuple[Any, ...]]:
        """Yield the evidence of completeness in the rows of a trail from *first* up to *stop*, in the order of commit.

        Yields:
            The number in the trail, the column ``line``, and the columns of `_EVIDENCE`.
        """
        files = _numbered_files(snapshot, trail, first, stop)
        groups: list[list[DataFile]] = []
        last = -1

        for file in files:
            # Late events of one file may stand between those of another.
            if not groups or file.numbers[0] > last:
                groups.append([])

            groups[-1].append(file)
            last = max(last, file.numbers[1])

        for group in groups:
            columns = f"n, line, {_EVIDENCE.format(us=self.microseconds)}"
            source = self._union(snapshot, ANY_KIND, group, columns)
            if source is not None:
                sql = f"SELECT * FROM ({source.sql}) WHERE n >= {first} AND n < {stop}"
                order = " ORDER BY n" if len(group) > 1 or not self._dialect.keeps_order else ""
                yield from (row[:-1] for row in self._rows(sql + order, source))

    def runs(self, snapshot: Snapshot, trail: str, first: int, stop: int) -> Iterator[tuple[Any, ...]] | None:
        """Yield the evidence of lines of a trail, without the inner ones of runs. A run has the next numbers of one writer.

        None means that the database does not find runs.

        Yields:
            Whether the line continues a run, whose last one it is, the writer and the sequence number, or None; whether the
            column ``line`` is there; the least and the greatest time of all lines; and the columns of `_EVIDENCE`.
        """
        sequence = self._dialect.sequence
        if sequence is None:
            return None

        files = _numbered_files(snapshot, trail, first, stop)
        columns = f"n, line, substr(event_id, 18, 11) AS writer, {sequence} AS number, {_EVIDENCE.format(us=self.microseconds)}"
        source = self._union(snapshot, ANY_KIND, files, columns)
        if source is None:
            return iter(())

        numbered = (
            "SELECT *, min(us) OVER () AS earliest, max(us) OVER () AS latest, "
            "line IS NULL AND kind IS NULL AND coalesce(number = 1 + max(number) OVER (PARTITION BY writer ORDER BY n "
            "ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), false) AS continues "
            f"FROM ({source.sql}) WHERE n >= {first} AND n < {stop}"
        )
        followed = f"SELECT *, lead(continues) OVER (PARTITION BY writer ORDER BY n) AS is_followed FROM ({numbered})"
        sql = (
            "SELECT continues, writer, number, line IS NOT NULL, earliest, latest, event_id, us, kind, operation, metadata "
            f"FROM ({followed}) WHERE NOT continues OR NOT coalesce(is_followed, false) ORDER BY n"
        )

        return self._rows(sql, source)


def _numbered_files(snapshot: Snapshot, trail: str, first: int, stop: int) -> list[DataFile]:
    """Return the files that may have rows of a trail from *first* up to *stop*."""
    files = [
        file
        for file in snapshot.files.values()
        if file.trail == trail and file.numbers[0] < stop and file.numbers[1] >= first
    ]

    return sorted(files, key=lambda file: file.numbers)


def _is_before(stop: int | None, place: int) -> bool:
    """Return whether a range that ends before *stop* ends before *place*."""
    return stop is not None and stop <= place


def _is_after(start: int | None, place: int) -> bool:
    """Return whether a range begins after *place*."""
    return start is not None and start > place


def _has_other(conditions: Conditions) -> bool:
    if isinstance(conditions, FieldConditions):
        return True

    others = (
        conditions.operation_class,
        conditions.entry_ids,
        conditions.metadata,
        conditions.min_duration_ms,
        conditions.max_duration_ms,
    )
    return any(condition is not None for condition in others)


def candidates(snapshot: Snapshot, conditions: Conditions) -> list[DataFile]:
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
