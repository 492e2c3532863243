"""The evidence about completeness in the rows of archives and in the live trails beyond them.

**Guarantees.** It is the evidence that the files of a trail had (`structlog_audit.trail.reading.evidence`): the sequence
numbers of the rows in the order of commit, the trail events, and the lines in the quarantine. The segments that `compact`
deleted are not missing. Days that were pruned leave the time before them in doubt, and a trail whose live files were not read
the time after its last row.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, NamedTuple

import msgspec

from structlog_audit.archive.actions import Coverage
from structlog_audit.archive.archived_bytes import archived_bytes
from structlog_audit.archive.database import Database
from structlog_audit.archive.delta_log import Snapshot
from structlog_audit.archive.last_lines import last_lines
from structlog_audit.archive.live_trails import LiveTrail
from structlog_audit.archive.rows import time_of
from structlog_audit.archive.segment_content import gaps_of, is_pruned
from structlog_audit.archive.sql_engine import SQLEngine
from structlog_audit.archive.storage import Storage
from structlog_audit.events.event_id import parse_event_id
from structlog_audit.exceptions import AuditReadError
from structlog_audit.trail.reading.discovery import Segment
from structlog_audit.trail.reading.evidence import Collector, NumberedLine, TrailEvidence, read_segment
from structlog_audit.trail.reading.line_blocks import LineBlock
from structlog_audit.trail.reading.segment_scanner import SegmentScanner
from structlog_audit.trail.segment_names import ACTIVE, SegmentOrder, order_of

_BATCH = 1_000
"""The rows that are added to the evidence at once."""

_FEWEST_FOR_RUNS = 5_000
"""The rows of a range from which one query for it pays."""

_MOST_ROWS_OF_RUNS = 10_000
"""The rows of a range that are not within runs. Of more, Python reads all of the range."""

_BLOCK_BYTES = 1_048_576

_encode = msgspec.json.Encoder().encode
_NULL = msgspec.Raw(b"null")


class ArchivedPart(NamedTuple):
    """One archive: its files, the engine and the database that read them, and the state it is in."""

    storage: Storage
    database: Database
    engine: SQLEngine
    snapshot: Snapshot


def archived_evidence(
    trail: str, parts: Iterable[ArchivedPart], live: LiveTrail | None, before: Sequence[bytes]
) -> TrailEvidence:
    """Return the evidence of a trail in archives, and in its live files.

    Args:
        trail: Its name in the archives, ``host:path``.
        parts: Its parts in the archives.
        live: Its live files beyond them; None if they were not read.
        before: The last archived lines, some of which the live files may repeat.

    Raises:
        AuditReadError: An archive is damaged.
    """
    evidence = TrailEvidence(trail, is_whole=True)
    evidence.is_archived = live is None
    collector = Collector(evidence)
    pruned = []

    pending = _PendingSegments(live, collector)

    for part in sorted(parts, key=lambda part: _begin(part.snapshot, trail)):
        _Reading(trail, part, collector, pending).add()
        if part.snapshot.pruned_before is not None:
            pruned.append(part.snapshot.pruned_before)

    evidence.pruned_before = max(pruned, default=None)

    collector.remember(before)
    pending.add_rest()
    collector.finish()

    return evidence


def _begin(snapshot: Snapshot, trail: str) -> int:
    return min((file.order[0] for file in snapshot.files.values() if file.trail == trail), default=0)


def _index_of(name: str, evidence: TrailEvidence, base: str) -> int:
    """Return the index of the segment *name*, which is added unless it is known."""
    for index, segment in enumerate(evidence.segments):
        if segment.path == name:
            return index

    evidence.segments.append(Segment(name, order_of(base, name) or ACTIVE))

    return len(evidence.segments) - 1


class _PendingSegments:
    """The live segments whose evidence is not added yet, in their order; none without live files."""

    def __init__(self, live: LiveTrail | None, collector: Collector) -> None:
        self._base = "" if live is None else live.base
        self._collector = collector
        self._scanner = SegmentScanner()
        self._segments: deque[Segment] = deque()
        if live is not None:
            with live.segments() as segments:
                self._segments.extend(segments)

    def precede(self, order: SegmentOrder) -> bool:
        """Return whether a segment is before one of *order*. A segment without any event is not archived."""
        return bool(self._segments) and self._segments[0].order < order

    def add_before(self, order: SegmentOrder) -> None:
        """Add the evidence of the segments before one of *order*."""
        while self.precede(order):
            self._add(self._segments.popleft())

    def add_rest(self) -> None:
        """Add the evidence of all segments that are left."""
        while self._segments:
            self._add(self._segments.popleft())

    def _add(self, segment: Segment) -> None:
        name = segment.path.rpartition("/")[2].removesuffix(".gz").removesuffix(".zst")
        self._collector.segment = _index_of(name, self._collector.evidence, self._base)

        with self._scanner.open(segment) as opened:
            if opened is not None:
                read_segment(self._scanner, opened, self._collector)

        self._collector.take_problems(self._scanner.problems.counts)
        self._scanner.problems.counts.clear()


class _RunRow(NamedTuple):
    """A row of `SQLEngine.runs`."""

    continues: bool
    writer: str
    number: int
    has_line: bool
    earliest: int
    latest: int

    event_id: str
    us: int
    kind: str | None
    operation: str | None
    metadata: str | None


class _Reading:
    """The rows of a trail in one archive, in the order of commit, and the lines in its quarantine."""

    def __init__(self, trail: str, part: ArchivedPart, collector: Collector, pending: _PendingSegments) -> None:
        self._trail = trail
        self._part = part
        self._collector = collector
        self._pending = pending
        self._base = trail.rpartition("/")[2]

        every = (coverage for ranges in part.snapshot.segments.values() for coverage in ranges)
        self._ranges = sorted(
            (found for found in every if found.trail == trail), key=lambda found: (found.first, found.stop_number)
        )

    def add(self) -> None:
        """Add everything to the evidence."""
        small: list[int] = []

        for number, coverage in enumerate(self._ranges):
            order = order_of(self._base, coverage.name) or ACTIVE
            if self._pending.precede(order):
                self._add_lines(small)
                small.clear()
                self._pending.add_before(order)

            is_small = coverage.stop_number - coverage.first < _FEWEST_FOR_RUNS
            if coverage.quarantine is None and is_small:
                small.append(number)
                continue

            self._add_lines(small)
            small.clear()
            self._begin_range(number)

            if coverage.quarantine is not None:
                self._add_bytes(coverage)
            elif not self._add_runs(coverage):
                self._add_lines([number])

        self._add_lines(small)

    def _begin_range(self, number: int) -> None:
        """Let what is added be of the segment of a range."""
        self._collector.segment = _index_of(self._ranges[number].name, self._collector.evidence, self._base)

    def _add_lines(self, numbers: Sequence[int]) -> None:
        """Add the rows of neighbouring ranges one by one."""
        if not numbers:
            return

        starts = [self._ranges[number].first for number in numbers]
        stop = self._ranges[numbers[-1]].stop_number
        rows = self._part.engine.lines(self._part.snapshot, self._trail, starts[0], stop)

        for place, group in groupby(rows, key=lambda row: bisect_right(starts, row[0]) - 1):
            self._begin_range(numbers[place])
            self._add_rows(group)

    def _add_runs(self, coverage: Coverage) -> bool:
        """Add the rows of a range, run by run; return False, with nothing added, if they must be added one by one."""
        rows = self._part.engine.runs(self._part.snapshot, self._trail, coverage.first, coverage.stop_number)
        if rows is None:
            return False

        found = [_RunRow(*row) for row in islice(rows, _MOST_ROWS_OF_RUNS + 1)]
        if len(found) > _MOST_ROWS_OF_RUNS or not self._are_plain(found):
            return False

        for row in found:
            if row.continues:
                self._collector.add_run(row.writer, row.number, time_of(row.us))
            else:
                self._collector.add_lines([_line_of(*row[6:])])

        if found:
            self._collector.extend_range(time_of(found[0].earliest), time_of(found[0].latest))

        return True

    def _are_plain(self, rows: Sequence[_RunRow]) -> bool:
        """Return whether the rows between *rows* continue their writers, and nothing else."""
        is_expected = self._collector.is_expected
        begun: set[str] = set()

        for row in rows:
            if row.continues:
                continue
            # The first row of a writer follows those that were added, and each other one has an id of the library.
            is_known = row.writer in begun and parse_event_id(row.event_id) is not None
            if row.has_line or not (is_known or is_expected(row.event_id)):
                return False
            begun.add(row.writer)

        return True

    def _add_rows(self, rows: Iterator[tuple[Any, ...]]) -> None:
        batch: list[NumberedLine] = []

        for _, line, *members in rows:
            if line is None:
                batch.append(_line_of(*members))

            if batch and (line is not None or len(batch) >= _BATCH):
                self._collector.add_lines(batch)
                batch = []
            # The parts of an event have numbers of their own, and its lines may be there twice.
            lines = [] if line is None else line.splitlines()
            self._collector.remember(lines)
            for one in lines:
                self._collector.add_bytes(one)

        if batch:
            self._collector.add_lines(batch)

    def _add_bytes(self, coverage: Coverage) -> None:
        """Add a range with lines that are not events: all of its bytes, as they were in the segment.

        Raises:
            AuditReadError: They are not those that were archived.
        """
        gaps = gaps_of(self._part.storage, coverage)
        snapshot, storage = self._part.snapshot, self._part.storage
        files = (file for file in snapshot.files.values() if file.trail == self._trail)
        locations = [storage.location(file.path) for file in files]
        database = self._part.database
        before = last_lines(database, storage, snapshot, self._trail, coverage.first)
        self._collector.remember(list(before.values()))

        rest = b""
        digest = hashlib.sha256()

        for data in archived_bytes(database, locations, coverage, gaps):
            digest.update(data)
            rest += data
            if len(rest) >= _BLOCK_BYTES:
                stop = rest.rfind(b"\n") + 1
                self._add_block(rest[:stop])
                rest = rest[stop:]

        self._add_block(rest if rest.endswith(b"\n") or not rest else rest + b"\n")

        if digest.hexdigest() != coverage.sha256 and not is_pruned([coverage], snapshot):
            raise AuditReadError(
                f"{storage.root}: bytes {coverage.start} to {coverage.stop} of {coverage.name} are damaged; "
                "structlog-audit archive verify shows all damage"
            )

    def _add_block(self, data: bytes) -> None:
        if data:
            self._collector.add_block(LineBlock(0, data))


def _line_of(event_id: str, us: int, kind: str | None, operation: str | None, metadata: str | None) -> NumberedLine:
    """Return the members of a row that are evidence; operation and metadata are those of the library's own events."""
    named = _NULL if operation is None else msgspec.Raw(_encode(operation))
    stated = _NULL if metadata is None else msgspec.Raw(metadata.encode())

    return NumberedLine(event_id, time_of(us), kind, named, stated)
