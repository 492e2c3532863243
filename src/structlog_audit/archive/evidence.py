"""The evidence about completeness in the rows of archives and in the live trails beyond them.

**Guarantees.** It is the evidence that the files of a trail had (`structlog_audit.trail.reading.evidence`): the sequence
numbers of the rows in the order of commit, the trail events, and the lines in the quarantine. The segments that `compact`
deleted are not missing. Days that were pruned leave the time before them in doubt, and a trail whose live files were not read
the time after its last row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from structlog_audit.archive.actions import Coverage
from structlog_audit.archive.archived_bytes import archived_bytes, decode_gaps
from structlog_audit.archive.database import Database
from structlog_audit.archive.delta_log import Snapshot
from structlog_audit.archive.last_lines import last_lines
from structlog_audit.archive.live_trails import LiveTrail
from structlog_audit.archive.rows import time_of
from structlog_audit.archive.sql_engine import SQLEngine
from structlog_audit.archive.storage import Storage
from structlog_audit.trail.reading.discovery import Segment
from structlog_audit.trail.reading.evidence import Collector, NumberedLine, TrailEvidence, read_segment
from structlog_audit.trail.reading.line_blocks import LineBlock
from structlog_audit.trail.reading.segment_scanner import SegmentScanner
from structlog_audit.trail.segment_names import ACTIVE, order_of

_BATCH = 1_000
"""The rows that are added to the evidence at once."""

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

    # A segment without any event is not archived, also if it is the oldest.
    archived = sorted(parts, key=lambda part: _begin(part.snapshot, trail))
    earlier, later = _split_at_archived(trail, archived, live)
    _add_live(live, earlier, collector)

    for part in archived:
        _Reading(trail, part, collector).add()
        if part.snapshot.pruned_before is not None:
            pruned.append(part.snapshot.pruned_before)

    evidence.pruned_before = max(pruned, default=None)

    if live is not None:
        collector.remember(before)
        _add_live(live, later, collector)

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


def _split_at_archived(
    trail: str, parts: Iterable[ArchivedPart], live: LiveTrail | None
) -> tuple[list[Segment], list[Segment]]:
    """Return the live segments before the first archived one, and those after it."""
    if live is None:
        return [], []

    orders = []
    for part in parts:
        for ranges in part.snapshot.segments.values():
            orders += [order_of(live.base, found.name) or ACTIVE for found in ranges if found.trail == trail]

    first = min(orders, default=ACTIVE)
    with live.segments() as segments:
        earlier = [segment for segment in segments if segment.order < first]
        return earlier, segments[len(earlier) :]


def _add_live(live: LiveTrail | None, segments: Iterable[Segment], collector: Collector) -> None:
    """Add the evidence in *segments* of *live*, which are open."""
    if live is None:
        return

    scanner = SegmentScanner()
    for segment in segments:
        name = segment.path.rpartition("/")[2].removesuffix(".gz").removesuffix(".zst")
        collector.segment = _index_of(name, collector.evidence, live.base)

        with scanner.open(segment) as opened:
            if opened is not None:
                read_segment(scanner, opened, collector)

        collector.take_problems(scanner.problems.counts)
        scanner.problems.counts.clear()


class _Reading:
    """The rows of a trail in one archive, in the order of commit, and the lines in its quarantine."""

    def __init__(self, trail: str, part: ArchivedPart, collector: Collector) -> None:
        self._trail = trail
        self._part = part
        self._collector = collector

        every = (coverage for ranges in part.snapshot.segments.values() for coverage in ranges)
        self._ranges = sorted(
            (found for found in every if found.trail == trail), key=lambda found: (found.first, found.stop_number)
        )
        base = trail.rpartition("/")[2]
        self._indexes = [_index_of(found.name, collector.evidence, base) for found in self._ranges]

    def add(self) -> None:
        """Add everything to the evidence."""
        starts = [found.first for found in self._ranges]
        rows = self._part.engine.lines(self._part.snapshot, self._trail)
        groups = groupby(rows, key=lambda row: max(bisect_right(starts, row[0]) - 1, 0))
        pending = next(groups, None)

        # Ranges without rows may have lines in the quarantine.
        for number, coverage in enumerate(self._ranges):
            self._collector.segment = self._indexes[number]
            is_here = pending is not None and pending[0] == number
            if coverage.quarantine is not None:
                self._add_bytes(coverage, coverage.quarantine)
            elif is_here and pending is not None:
                self._add_rows(pending[1])

            if is_here:
                pending = next(groups, None)

    def _add_rows(self, rows: Iterator[tuple[Any, ...]]) -> None:
        batch: list[NumberedLine] = []

        for _, line, *members in rows:
            if line is None:
                batch.append(_line_of(*members))

            if batch and (line is not None or len(batch) >= _BATCH):
                self._collector.add_lines(batch)
                batch = []
            # The parts of an event have numbers of their own.
            for one in () if line is None else line.splitlines():
                self._collector.add_bytes(one)

        if batch:
            self._collector.add_lines(batch)

    def _add_bytes(self, coverage: Coverage, quarantine: str) -> None:
        """Add a range with lines that are not events: all of its bytes, as they were in the segment."""
        gaps = decode_gaps(self._part.storage.read(quarantine))
        snapshot, storage = self._part.snapshot, self._part.storage
        files = (file for file in snapshot.files.values() if file.trail == self._trail)
        locations = [storage.location(file.path) for file in files]
        database = self._part.database
        before = last_lines(database, storage, snapshot, self._trail, coverage.first)
        self._collector.remember(list(before.values()))

        rest = b""

        for data in archived_bytes(database, locations, coverage, gaps):
            rest += data
            if len(rest) >= _BLOCK_BYTES:
                stop = rest.rfind(b"\n") + 1
                self._add_block(rest[:stop])
                rest = rest[stop:]

        self._add_block(rest if rest.endswith(b"\n") or not rest else rest + b"\n")

    def _add_block(self, data: bytes) -> None:
        if data:
            self._collector.add_block(LineBlock(0, data))


def _line_of(event_id: str, us: int, kind: str | None, operation: str | None, metadata: str | None) -> NumberedLine:
    """Return the members of a row that are evidence; operation and metadata are those of the library's own events."""
    named = _NULL if operation is None else msgspec.Raw(_encode(operation))
    stated = _NULL if metadata is None else msgspec.Raw(metadata.encode())

    return NumberedLine(event_id, time_of(us), kind, named, stated)
