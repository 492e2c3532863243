"""The trails of an archive as the verifier reads them: their lines from the rows, and their seals from the copies.

**Guarantees.** The verifier is that of a trail, so its findings are the same. Lines of segments that are not archived yet are
counted. Archived ones that are missing are only excused by days that were pruned, not by the deletion of their segment.

**Failure handling.** A row that somebody changed gives another line, a lost file leaves its lines out: both are findings.

**Performance.** Lines are read as a stream. The copy of a seal, 32 bytes per line, goes to a scratch folder (``TMPDIR``).
"""

from __future__ import annotations

import datetime as dt
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from structlog_audit.archive.actions import Coverage, SealCopy
from structlog_audit.archive.database import Database, parquet
from structlog_audit.archive.delta_log import DeltaLog, Snapshot
from structlog_audit.archive.seal_copies import CHANGED, CHECKPOINT, CopiedSeal, head_of, read_copy, write_seal
from structlog_audit.archive.segment_content import data_files_of, is_pruned, provable_segment_bytes
from structlog_audit.exceptions import AuditReadError
from structlog_audit.integrity.standalone.verify_trail import (
    Checkpoint,
    HashFiles,
    Run,
    SealedSegment,
    SealError,
    SegmentFile,
    SegmentReader,
    TrailFolder,
    leaf_hashes,
    match_segments,
    read_checkpoint,
    read_segments,
    rebuild_segments,
    runs_of_lines,
)
from structlog_audit.trail.segment_names import base_of, rollover_time

_BLOCK_BYTES = 1 << 18


class ArchivedSegment(SegmentFile):
    """A segment whose lines are in an archive."""

    ranges: list[Coverage]
    _content: _Content

    @classmethod
    def of(cls, content: _Content, order: int) -> ArchivedSegment:
        """Return the segment with *content*, at the place *order* of its trail."""
        segment = cls(content.ranges[0].name, (1, order))
        segment.ranges = content.ranges
        segment._content = content

        return segment

    def chunks(self) -> Iterator[bytes]:
        """Return the lines that the archive gives back."""
        return self._content.chunks()

    @property
    def damage(self) -> str:
        """The first file that could not be read."""
        return self._content.damage

    def changed_at(self) -> dt.datetime:
        """Return the time of the newest event of the trail up to these lines."""
        newest = self.ranges[-1].high or 0
        return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=newest)

    @property
    def lines(self) -> int:
        """The number of lines that were archived."""
        return sum(coverage.lines for coverage in self.ranges)


class _Content:
    """The lines of the ranges of one segment."""

    def __init__(self, log: DeltaLog, database: Database, ranges: list[Coverage]) -> None:
        self.ranges = ranges
        self.damage = ""
        self._log = log
        self._database = database

    def chunks(self) -> Iterator[bytes]:
        pieces = []
        size = 0

        for data in self._lines():
            pieces.append(data)
            size += len(data)

            if size >= _BLOCK_BYTES:
                yield b"".join(pieces)
                pieces.clear()
                size = 0

        yield b"".join(pieces)

    def _lines(self) -> Iterator[bytes]:
        for coverage in self.ranges:
            yield from provable_segment_bytes(self._log, self._database, coverage, self._note_damage)

    def _note_damage(self, error: Exception) -> None:
        self.damage = self.damage or str(error)

    def is_empty(self) -> bool:
        return not any(self.chunks())


class ArchivedTrail(TrailFolder):
    """One sealed trail of an archive.

    Args:
        sealed: The trail, and the copy of its seal.
        log: The log of the archive.
        database: Reads its data files.
        folder: The folder in which the files of the seal are.

    Attributes:
        unarchived: The leaves that are not in the archive yet.
    """

    def __init__(self, sealed: SealedTrail, log: DeltaLog, database: Database, folder: str) -> None:
        super().__init__(f"{log.storage.root} {sealed.copy.trail}")
        self.seal = folder
        self._log = log
        self._database = database
        self._trails = sealed.trails
        self._unarchived: list[Run] = []

        # Archived segments that give no line: because their days were pruned, or because their rows are lost.
        self._pruned_names: set[str] = set()
        self._lost_names: set[str] = set()
        self._archived_lines = 0

        # The leaves that are or were in the archive, and those of them that were pruned.
        self._covered: list[Run] = []
        self._pruned: list[Run] = []

    def files(self) -> list[SegmentFile]:
        """As `TrailFolder.files`."""
        files: list[SegmentFile] = []
        self._pruned_names.clear()
        self._lost_names.clear()
        self._archived_lines = 0

        for ranges in segments_of(self._log.snapshot, self._trails):
            name = ranges[0].name
            content = _Content(self._log, self._database, ranges)
            self._archived_lines += sum(coverage.lines for coverage in ranges)

            if not content.is_empty():
                files.append(ArchivedSegment.of(content, len(files)))
            elif is_pruned(ranges, self._log.snapshot) and self._has_all_rows(ranges):
                self._pruned_names.add(name)
            else:
                self._lost_names.add(name)

        return files

    def complete_size(self, hashes: HashFiles) -> int:
        """Return the number of lines up to the first one that is not archived yet.

        Raises:
            SealError: The copy of the seal cannot be read.
        """
        size = Checkpoint.parse(read_checkpoint(self.seal).text).size
        files = self.files()

        segments = read_segments(self.seal, size)
        if segments is None:
            segments = rebuild_segments(files, hashes, size)

        self.present(files, segments, hashes, size)
        return min((run.first for run in self.unarchived), default=size)

    def present(
        self, files: Sequence[SegmentFile], segments: list[SealedSegment], hashes: HashFiles, size: int
    ) -> list[SealedSegment]:
        """As `TrailFolder.present`: without what is not archived yet, and without pruned lines."""
        matched = match_segments(files, segments, hashes)
        places = {segment.number: place for place, segment in enumerate(matched) if segment is not None}

        # The archive has or had these; the others were not archived yet, or deleted before they were.
        without_lines = self._pruned_names | self._lost_names
        known = {segment.number for segment in segments if segment.name in without_lines}
        known |= places.keys()
        newest = max(known, default=-1)

        self._pruned = []
        self._covered = [run for segment in segments if segment.number in known for run in segment.runs]

        # Segments that were found again from the archived lines end with them.
        ends = (run.first + run.lines for segment in segments for run in segment.runs)
        # Of as many lines as the log states, none is taken for one that the archive never had.
        end = max(max(ends, default=0), self._archived_lines)
        self._unarchived = [Run(end, size - end)] if end < size else []

        present = []
        for segment in segments:
            place = places.get(segment.number)

            if place is not None:
                present.append(self._archived_part(files[place], segment, hashes))
            elif segment.number > newest:
                self._unarchived += segment.runs
            else:
                present.append(segment)

            if segment.name in self._pruned_names:
                self._pruned += segment.runs

        self.unarchived = self._unarchived
        return [segment for segment in present if segment.runs]

    def _archived_part(self, file: SegmentFile, segment: SealedSegment, hashes: HashFiles) -> SealedSegment:
        """Return the lines of *segment* that the archive should have in *file*."""
        assert isinstance(file, ArchivedSegment)  # noqa: S101 (for the type checker)

        archived, later = _split(segment.runs, file.lines)
        self._unarchived += later
        segment = segment._replace(runs=archived)
        if not archived or not is_pruned(file.ranges, self._log.snapshot):
            return segment

        leaves = map(leaf_hashes, SegmentReader(file).blocks())
        present = runs_of_lines(leaves, hashes, segment)
        if not present or not self._has_all_rows(file.ranges):
            return segment

        gone = _difference(archived, present)
        self._pruned += gone
        return segment._replace(runs=present, is_cut=bool(gone))

    def _has_all_rows(self, ranges: Sequence[Coverage]) -> bool:
        """Return whether the data files that may have lines of *ranges* have as many rows as when they were written."""
        snapshot = self._log.snapshot
        files = {file for coverage in ranges for file in data_files_of(snapshot, coverage)}

        for file in files:
            location = self._log.storage.location(file.path)
            counted = f"SELECT count(*) FROM {parquet([location])}"
            try:
                found = list(self._database.rows(counted))
            except (AuditReadError, OSError):
                return False

            if found != [(file.rows,)]:
                return False

        return True

    def reason(self, number: int | None, run: Run, pruned: Sequence[tuple[int, int]]) -> str | None:
        """As `TrailFolder.reason`: archived lines may only be pruned."""
        if not _difference((run,), self._pruned):
            return "archive prune"

        # Without the hint of the seal, nobody knows whether the archive had these lines.
        never_archived = sum(other.lines for other in _difference((run,), self._covered))
        if number is None or never_archived < run.lines:
            return None

        return super().reason(number, run, pruned)


def _split(runs: Sequence[Run], lines: int) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """Return the first *lines* of *runs*, and the others."""
    before, after = [], []
    for run in runs:
        taken = min(lines, run.lines)
        lines -= taken

        if taken == run.lines:
            before.append(run)
            continue

        if taken:
            before.append(Run(run.first, taken))
        after.append(Run(run.first + taken, run.lines - taken))

    return tuple(before), tuple(after)


def _difference(runs: Sequence[Run], others: Sequence[Run]) -> list[Run]:
    """Return the leaves of *runs* that are in none of *others*."""
    ordered = sorted(others, key=lambda other: other.first)
    left = []

    for run in runs:
        begin = run.first
        end = run.first + run.lines

        for other in ordered:
            if other.first >= end:
                break
            if other.first > begin:
                left.append(Run(begin, other.first - begin))
            begin = max(begin, other.first + other.lines)

        if begin < end:
            left.append(Run(begin, end - begin))

    return left


class SealedTrail(NamedTuple):
    """A sealed trail of an archive.

    Attributes:
        copy: The newest copy of its seal.
        copied: The files in it.
        origin: The origin in its checkpoint.
        trails: Its names, ``host:path``: several if hosts share its folder.
        error: Why the copy cannot be read, or that it was changed; empty for one as it was written.
    """

    copy: SealCopy
    copied: CopiedSeal
    origin: str
    trails: tuple[str, ...]
    error: str = ""


def sealed_trails(log: DeltaLog) -> list[SealedTrail]:
    """Return the sealed trails of an archive."""
    groups: defaultdict[tuple[str, str], list[SealedTrail]] = defaultdict(list)
    for name in sorted(log.snapshot.seals):
        sealed = _sealed_trail(log, log.snapshot.seals[name])

        # Hosts with the same path and the same origin share a folder.
        path = name.partition(":")[2]
        groups[path, sealed.origin or name].append(sealed)

    found = []
    for group in groups.values():
        newest = max(group, key=lambda sealed: sealed.copy.size)
        trails = tuple(sealed.copy.trail for sealed in group)
        found.append(newest._replace(trails=trails))

    return found


def _sealed_trail(log: DeltaLog, copy: SealCopy) -> SealedTrail:
    trails = (copy.trail,)
    try:
        copied = read_copy(log.storage, copy, is_strict=False)
        origin = head_of(copied.files.get(CHECKPOINT, b"")).origin
    except (AuditReadError, SealError) as error:
        return SealedTrail(copy, CopiedSeal({}, [], 1), "", trails, str(error))

    return SealedTrail(copy, copied, origin, trails, "" if copied.is_as_stated(copy) else CHANGED)


def segments_of(snapshot: Snapshot, trails: Collection[str]) -> list[list[Coverage]]:
    """Return the coverage of each segment of *trails*, oldest first."""

    def place(ranges: list[Coverage]) -> tuple[str, int]:
        # Numbers are those of one host; names with a time are those of all.
        name = ranges[0].name
        has_time = rollover_time(base_of(name), name) is not None
        is_shared = len(trails) > 1

        return (name if is_shared and has_time else "", ranges[0].first)

    found = [ranges for ranges in snapshot.segments.values() if ranges[0].trail in trails]
    return sorted(found, key=place)


@contextmanager
def opened_trail(sealed: SealedTrail, log: DeltaLog, database: Database) -> Iterator[ArchivedTrail]:
    """Provide one trail of an archive, with its seal in a scratch folder, for the duration of a ``with`` block.

    Raises:
        AuditReadError: The copy of its seal cannot be read, or was changed.
    """
    if sealed.error:
        raise AuditReadError(sealed.error)

    with tempfile.TemporaryDirectory(prefix="structlog-audit-") as folder:
        write_seal(log.storage, sealed.copied, folder, size=sealed.copy.size, is_strict=False)
        yield ArchivedTrail(sealed, log, database, folder)
