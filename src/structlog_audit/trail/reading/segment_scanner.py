"""The operations on single segments that the scan engine, pagination, follow and warm start share.

**Failure handling.** A segment that was deleted, or that the system refuses to open, is counted in `SegmentScanner.problems`
and left out. Damage inside a segment is counted too, and reading continues after it.

**Performance.** Memory is bounded by one block of lines per segment. A time range skips whole segments and blocks.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from structlog_audit.events.event import Kind
from structlog_audit.query.engine import Progress
from structlog_audit.query.filters import Conditions
from structlog_audit.trail.reading.candidate_lines import CandidateSearch
from structlog_audit.trail.reading.decoder import Batch, LineDecoder
from structlog_audit.trail.reading.decompression import SNIFFED_BYTES, Stream, unpack
from structlog_audit.trail.reading.discovery import Segment, Trail
from structlog_audit.trail.reading.last_line import TerminatedFile, needs_line_end, terminated
from structlog_audit.trail.reading.line_blocks import (
    LineBlock,
    ReportRest,
    Seekable,
    end_of_events,
    read_at,
    read_backwards,
    read_forwards,
    skip,
)
from structlog_audit.trail.reading.open_segment import END_OF_PACKED, OpenSegment
from structlog_audit.trail.reading.problems import ProblemCallback, Problems
from structlog_audit.trail.reading.time_ranges import (
    NO_END,
    first_timestamps,
    is_block_outside,
    is_range_outside,
    sample_timestamps,
    time_range_of,
)
from structlog_audit.trail.segment_names import ACTIVE, rollover_time

RETENTION = "retention"
"""The operation of the trail event (`structlog_audit.recording.trail_events`) that names the segments retention deletes."""

_RETENTION_JSON = f'"{RETENTION}"'.encode()


class ProgressMeter:
    """Adds up the bytes that one query has read of all segments."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._bytes_read: dict[str, int] = {}

    def advance(self, path: str, bytes_read: int) -> None:
        """Report that *bytes_read* bytes of the segment at *path* have been read, unless that was reported before."""
        if self._progress is None or bytes_read <= self._bytes_read.get(path, 0):
            return
        self._bytes_read[path] = bytes_read
        self._progress(sum(self._bytes_read.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentScan:
    """Which part of a segment to read, and how."""

    start: int = 0
    """The offset in the decompressed lines at which to begin."""
    stop: int | None = None
    """The offset at which to end; None means the end of the segment."""
    newest_first: bool = False
    """Whether to read from the end to the beginning. Only a plain segment can be read so."""
    conditions: Conditions | None = None
    """If given, blocks outside their time range are skipped. The other conditions are not applied."""
    search: CandidateSearch | None = None
    """If given, lines that it excludes may be left out."""
    is_followed: bool = False
    """Whether the segment will be read again, so that an unfinished end of an open segment is not a finding."""
    meter: ProgressMeter | None = None
    """Receives the number of bytes read."""

    @property
    def covers_segment(self) -> bool:
        """Whether the scan goes from the beginning of the segment to its end."""
        return self.start == 0 and self.stop is None


class SegmentScanner:
    """Opens and reads single segments, and counts the findings.

    Args:
        problems: Collects the findings; a new collection by default.
    """

    def __init__(self, problems: Problems | None = None) -> None:
        self.problems = Problems() if problems is None else problems

        # By key of a segment that no longer changes.
        self._deleted_names: dict[str, list[str]] = {}

    @contextmanager
    def open(self, segment: Segment) -> Iterator[OpenSegment | None]:
        """Open *segment* for the duration of a ``with`` block; None, after counting the cause, if that fails."""
        with ExitStack() as stack:
            yield self._try_to_open(segment, stack)

    def _try_to_open(self, segment: Segment, stack: ExitStack) -> OpenSegment | None:
        try:
            raw = stack.enter_context(segment.opened())
            return self._unpack(segment, raw)
        except FileNotFoundError:
            self.problems.add_once("vanished", segment.path, 0, "deleted before it was read")
        except OSError as error:
            self.problems.add_once("unreadable", segment.path, 0, str(error))
        return None

    def _unpack(self, segment: Segment, raw: BinaryIO) -> OpenSegment:
        def report(code: str, offset: int, reason: str) -> None:
            self.problems.add_once(code, segment.path, offset, reason)

        is_seekable = raw.seekable() and raw.tell() == 0

        # The size from when the set was taken holds only for a file that was kept open: another path may lead to a
        # compressed or decompressed copy by now.
        size = 0 if segment.file is None else segment.size

        if is_seekable and not size:
            size = raw.seek(0, os.SEEK_END)
            raw.seek(0)

        stream, holds_lines, head = unpack(raw, segment.path, report)
        if holds_lines and is_seekable:
            return _open_plain(segment, raw, size, head[:size])

        if len(head) < SNIFFED_BYTES and not head.endswith(b"\n"):
            head += b"\n"
        lines = Stream(b"", terminated(stream))
        return OpenSegment(segment, raw, lines, False, size, head)

    def batches(self, opened: OpenSegment, decoder: LineDecoder, scan: SegmentScan) -> Iterator[Batch]:
        """Yield the events of the part of a segment that *scan* describes, a block at a time.

        A system error ends the segment and is counted.
        """
        findings = _ScanFindings(self.problems, opened, scan)
        bytes_read = 0
        is_whole = scan.covers_segment
        deleted_names: list[str] = []

        try:
            for block in _blocks(opened, scan, findings.report, findings.report_rest):
                bytes_read += len(block.data)
                if scan.meter is not None:
                    stored = bytes_read if opened.is_plain else opened.stored_bytes_read()
                    scan.meter.advance(opened.segment.path, stored)

                if scan.conditions is not None and is_block_outside(block, scan.conditions):
                    is_whole = False
                    continue

                batch = decoder.decode_block(block, findings.report, scan.search)
                findings.mark_checked(batch.block)
                is_whole = is_whole and batch.block.selected is None
                deleted_names += _deleted_by(batch)
                yield batch

                # The next block is decoded into the memory of this one, which the cache of the processor holds.
                del batch, block
        except OSError as error:
            self.problems.add_once("unreadable", opened.segment.path, bytes_read, str(error))
            return

        if is_whole and not opened.is_open:
            self._deleted_names[findings.key] = deleted_names

    def blocks(self, opened: OpenSegment, report: ProblemCallback, report_rest: ReportRest) -> Iterator[LineBlock]:
        """Yield all lines of a segment without decoding them, a block at a time, oldest first."""
        return _blocks(opened, SegmentScan(), report, report_rest)

    def deleted_segments(self, opened: OpenSegment) -> list[str]:
        """Return the names of the segments that trail events in this segment report as deleted. O(n), then cached."""
        key = opened.key
        names = self._deleted_names.get(key)
        if names is not None:
            return names

        names = []
        for block in _blocks(opened, SegmentScan(), _ignore, _ignore):
            if _RETENTION_JSON in block.data:
                batch = LineDecoder().decode_block(block, _ignore)
                names += _deleted_by(batch)
        if not opened.is_open:
            self._deleted_names[key] = names
        return names

    def deleted_until(self, trail: Trail) -> dt.datetime | None:
        """Return the rollover time of the newest segment of *trail* that retention deleted, or None.

        Trail events are the only source: other deletions are unknown.
        """
        with trail.segments() as segments:
            existing = {segment.rolled_at for segment in segments}
            for segment in reversed(segments):
                with self.open(segment) as opened:
                    names = [] if opened is None else self.deleted_segments(opened)

                # A name that was announced may still be there, compressed or not.
                rollovers = {rollover_time(trail.base, name) for name in names} - existing
                if rollovers:
                    return max(rolled_at for rolled_at in rollovers if rolled_at is not None)
        return None

    def end_of_events(self, opened: OpenSegment) -> int:
        """Return the offset after the last whole event; `END_OF_PACKED` for compressed data."""
        if not opened.is_plain:
            return END_OF_PACKED
        return end_of_events(cast(Seekable, opened.file), 0, opened.size, is_open=opened.is_open)

    def is_outside(self, opened: OpenSegment, previous_rollover: dt.datetime | None, conditions: Conditions) -> bool:
        """Return whether a segment cannot hold an event in the time range of *conditions*.

        Args:
            opened: The segment.
            previous_rollover: When the segment before it was rolled over, if known.
            conditions: The conditions of the query.
        """
        if conditions.start_time is None and conditions.end_time is None:
            return False

        segment = opened.segment
        if opened.is_plain:
            timestamps = sample_timestamps(cast(Seekable, opened.file), opened.size)
        elif segment.rolled_at is not None:
            timestamps = first_timestamps(opened.head)
        else:
            timestamps = []
        if not timestamps:
            return False

        end = NO_END if segment.order == ACTIVE else segment.rolled_at
        return is_range_outside(time_range_of(timestamps, previous_rollover, end), conditions)


class _ScanFindings:
    """Counts the findings of one scan of a segment, each once however often its place is read."""

    def __init__(self, problems: Problems, opened: OpenSegment, scan: SegmentScan) -> None:
        self.key = opened.key
        """The key of the segment."""
        self._problems = problems
        self._path = opened.segment.path

        # The offsets of the findings of one block.
        self._reported: list[int] = []

        # A later scan continues where this one stops, or where a followed segment is unfinished.
        will_continue = scan.is_followed and opened.is_open
        self._counts_rest = scan.stop is None and not will_continue

    def report(self, code: str, offset: int, reason: str) -> None:
        """Count a finding, unless its place was read before."""
        self._reported.append(offset)
        if self._problems.is_new(self.key, offset):
            self._problems.add(code, self._path, offset, reason)

    def report_rest(self, offset: int, size: int) -> None:
        """Count *size* bytes at *offset* that follow the last whole event, unless more is expected there."""
        if not self._counts_rest:
            return
        if self._problems.is_new(self.key, offset):
            reason = f"{size} bytes after the last whole event"
            self._problems.add_once("unfinished", self._path, offset, reason, segment=self.key)

    def mark_checked(self, block: LineBlock) -> None:
        """Record that the findings of *block* have been counted."""
        if block.selected is None:
            self._problems.mark_checked(self.key, block.start, block.stop)
        else:
            # Lines that are left out are checked when another query reads them.
            for offset in self._reported:
                self._problems.mark_checked(self.key, offset, offset + 1)
        self._reported.clear()


def _open_plain(segment: Segment, raw: BinaryIO, size: int, head: bytes) -> OpenSegment:
    """Return the open segment of a file of lines, whose last one may lack its LF."""
    if not needs_line_end(raw, size, is_open=segment.is_open):
        return OpenSegment(segment, raw, raw, True, size, head)

    file = TerminatedFile(raw, size)
    head = read_at(file, 0, min(size + 1, SNIFFED_BYTES))
    return OpenSegment(segment, raw, file, True, size + 1, head)


def _blocks(
    opened: OpenSegment, scan: SegmentScan, report: ProblemCallback, report_rest: ReportRest
) -> Iterator[LineBlock]:
    is_open = opened.is_open
    start = scan.start
    stop = scan.stop

    if not opened.is_plain:
        skip(opened.file, start)
        if stop is not None:
            stop = max(start, stop)
        return read_forwards(opened.file, start, stop, report, report_rest, is_open=is_open)

    file = cast(Seekable, opened.file)
    stop = opened.size if stop is None else min(stop, opened.size)
    if scan.newest_first:
        return read_backwards(file, start, stop, report, report_rest, is_open=is_open)

    file.seek(start)
    return read_forwards(file, start, stop, report, report_rest, is_open=is_open)


def _deleted_by(batch: Batch) -> list[str]:
    """Return the names of the segments that retention events in *batch* announce."""
    deleted: list[str] = []
    if batch.is_ordinary:
        return deleted

    for event in batch.events:
        if event.kind != Kind.TRAIL or event.operation != RETENTION:
            continue
        names = event.metadata.get("segments")
        if isinstance(names, list):
            deleted += [name for name in names if isinstance(name, str)]
    return deleted


def _ignore(*finding: object) -> None:
    """Count nothing: the finding is counted when the segment is read for a query."""
