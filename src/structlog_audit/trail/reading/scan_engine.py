"""What answers a question from files: an engine. This one scans; it needs nothing but the files.

Rules:

* An engine gets the trails and the conditions, and gives the events that match, each trail in its own order. Several trails are
  merged by time, as far as their own orders allow; where a clock was set back, how they interleave may differ between
  the two directions.
* Memory is bounded by a block of lines per trail. What can't be read backwards (packed data, documents, streams) is read
  forwards for the newest events, which keeps as many as were asked for.
* What is wrong with a file is counted (`problems`) and never ends an answer; only what can't be read at all does.
"""

from __future__ import annotations

import datetime as dt
import heapq
import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import BinaryIO, cast

from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import Kind
from structlog_audit.query.engine import Progress
from structlog_audit.query.filters import Conditions
from structlog_audit.trail.reading.decoder import Batch, Line, LineDecoder, Matcher
from structlog_audit.trail.reading.decompression import unpacked
from structlog_audit.trail.reading.discovery import AnyTrail, Segment, Trail
from structlog_audit.trail.reading.line_blocks import (
    Block,
    Rest,
    Seekable,
    backwards,
    end_of_events,
    forwards,
    skip,
)
from structlog_audit.trail.reading.open_segment import WHOLLY, OpenSegment
from structlog_audit.trail.reading.problems import Problems, Report
from structlog_audit.trail.reading.time_ranges import FOR_EVER, first_moments, has_none, is_outside, sampled, span_of
from structlog_audit.trail.segment_names import ACTIVE, rollover_time

RETENTION = "retention"
"""The act (`structlog_audit.recording.trail_events`) that says which segments retention deletes."""


_RETENTION = f'"{RETENTION}"'.encode()


class _Meter:
    """Tells how many bytes were read of all segments."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._read: dict[str, int] = {}

    def at(self, path: str, read: int) -> None:
        """Say that *read* bytes were read of the segment at *path*."""
        if self._progress is not None and read > self._read.get(path, 0):
            self._read[path] = read
            self._progress(sum(self._read.values()))


class ScanEngine:
    """Reads every line that may matter.

    Args:
        trails: What to read.
        problems: Where to count what is wrong.
        progress: Told how many bytes were read.
    """

    def __init__(self, trails: Sequence[AnyTrail], problems: Problems, progress: Progress | None = None) -> None:
        self.problems = problems
        self._trails = trails
        self._progress = progress
        self._deleted: dict[str, list[str]] = {}  # by segment that can't change any more: what its acts say was deleted

    def select(self, asked: Conditions, *, newest_first: bool, at_most: int | None) -> Iterator[StoredEvent]:
        """As `Engine.select`."""
        meter = _Meter(self._progress)
        found = [chain.from_iterable(self._lists(trail, asked, newest_first, at_most, meter)) for trail in self._trails]
        if len(found) == 1:
            return found[0]
        return heapq.merge(*(found[::-1] if newest_first else found), key=_timestamp, reverse=newest_first)

    def _lists(
        self, trail: AnyTrail, asked: Conditions, newest_first: bool, at_most: int | None, meter: _Meter
    ) -> Iterator[list[Line]]:
        """The events of one *trail* that match, in lists."""
        matching, scanner = Matcher(asked), LineDecoder()
        with trail.segments() as segments:
            numbered = list(enumerate(segments))
            for number, segment in reversed(numbered) if newest_first else numbered:
                with self.opened(segment) as opened:
                    if opened is None:
                        continue
                    before = segments[number - 1].rolled_at if number else None
                    if not self.is_outside(opened, before, asked):
                        backwards = newest_first and opened.is_plain
                        batches = self.batches(opened, scanner, newest_first=backwards, asked=asked, meter=meter)
                        lists = (matching(batch.events) for batch in batches)
                        if newest_first and not backwards:
                            yield list(deque(chain.from_iterable(lists), at_most))[::-1]
                        elif newest_first:
                            yield from (found[::-1] for found in lists)
                        else:
                            yield from lists
                    meter.at(segment.path, segment.size)

    @contextmanager
    def opened(self, segment: Segment) -> Iterator[OpenSegment | None]:
        """The *segment*, open; None, after counting that, if it can't be."""
        with ExitStack() as stack:
            try:
                raw = stack.enter_context(segment.opened())
                opened = self._begun(segment, raw)
            except FileNotFoundError:
                self.problems.add_once("vanished", segment.path, 0, "deleted before it was read")
                yield None
            except OSError as error:
                self.problems.add_once("unreadable", segment.path, 0, str(error))
                yield None
            else:
                yield opened

    def _begun(self, segment: Segment, raw: BinaryIO) -> OpenSegment:
        def report(code: str, offset: int, reason: str) -> None:
            self.problems.add_once(code, segment.path, offset, reason)

        is_seekable = raw.seekable() and raw.tell() == 0
        size = 0 if segment.file is None else segment.size  # else it may be another file by now, packed or unpacked
        if is_seekable and not size:
            size = raw.seek(0, os.SEEK_END)
            raw.seek(0)
        stream, is_plain, head = unpacked(raw, segment.path, report)
        if is_plain and is_seekable:
            return OpenSegment(segment, raw, raw, True, size, head[:size])
        return OpenSegment(segment, raw, stream, False, size, head)

    def batches(
        self,
        opened: OpenSegment,
        scanner: LineDecoder,
        *,
        newest_first: bool = False,
        asked: Conditions | None = None,
        start: int = 0,
        stop: int | None = None,
        is_followed: bool = False,
        meter: _Meter | None = None,
    ) -> Iterator[Batch]:
        """The events of a segment, in order or, where it is plain, against it, between two offsets in its lines.

        Blocks without an event of the time that is *asked* for are left out. If it *is followed*, what is not whole yet at
        its end is no finding.
        """
        segment, problems = opened.segment, self.problems
        known = opened.identity or segment.path

        def report(code: str, offset: int, reason: str) -> None:
            if problems.is_new(known, offset):
                problems.add(code, segment.path, offset, reason)

        def rest(offset: int, size: int) -> None:
            if stop is None and not (is_followed and opened.is_open) and problems.is_new(known, offset):
                code = "unfinished" if opened.is_open else "torn"
                reason = f"{size} bytes at the end that are no whole event"
                problems.add_once(code, segment.path, offset, reason, of=known)

        read = 0
        is_whole = start == 0 and stop is None
        deleted: list[str] = []
        try:
            for block in self._blocks(opened, newest_first, start, stop, report, rest):
                read += len(block.data)
                if meter is not None:
                    meter.at(segment.path, read if opened.is_plain else _packed_read(opened.raw))
                if asked is not None and has_none(block, asked):
                    is_whole = False
                    continue
                batch = scanner.batch(block, report)
                problems.looked_at(known, block.start, block.stop)
                deleted += [name for event in batch.events if event.kind is not None for name in _deleted_by(event)]
                yield batch
        except OSError as error:
            problems.add_once("unreadable", segment.path, read, str(error))
        else:
            if is_whole and not opened.is_open:
                self._deleted[known] = deleted

    def _blocks(
        self, opened: OpenSegment, newest_first: bool, start: int, stop: int | None, report: Report, rest: Rest
    ) -> Iterator[Block]:
        if opened.is_plain:
            file = cast(Seekable, opened.file)
            stop = opened.size if stop is None else min(stop, opened.size)
            if newest_first:
                return backwards(file, start, stop, report, rest, is_open=opened.is_open)
            file.seek(start)
        else:
            skip(opened.file, start)
            stop = None if stop is None else max(start, stop)
        return forwards(opened.file, start, stop, report, rest, is_open=opened.is_open)

    def deleted(self, opened: OpenSegment) -> list[str]:
        """The names of the segments of which this one's acts say that retention deletes them. O(n), once for each segment."""
        known = opened.identity or opened.segment.path
        found = self._deleted.get(known)
        if found is None:
            found = []
            for block in self._blocks(opened, False, 0, None, _ignore, _ignore):
                if _RETENTION in block.data:
                    for event in LineDecoder().batch(block, _ignore).events:
                        found += _deleted_by(event)
            if not opened.is_open:
                self._deleted[known] = found
        return found

    def deleted_until(self, trail: Trail) -> dt.datetime | None:
        """The rollover of the newest segment of *trail* that retention deleted, as its acts say; None if none was."""
        with trail.segments() as segments:
            there = {segment.rolled_at for segment in segments}  # packed or not
            for segment in reversed(segments):
                with self.opened(segment) as opened:
                    names = [] if opened is None else self.deleted(opened)
                gone = {rollover_time(trail.base, name) for name in names} - there
                if gone:
                    return max(moment for moment in gone if moment is not None)
        return None

    def end_of(self, opened: OpenSegment) -> int:
        """The offset behind the last whole event; of packed data `WHOLLY`."""
        if not opened.is_plain:
            return WHOLLY
        return end_of_events(cast(Seekable, opened.file), 0, opened.size, is_open=opened.is_open)

    def is_outside(self, opened: OpenSegment, before: dt.datetime | None, asked: Conditions) -> bool:
        """Whether no event of a segment can be *asked* for; the one *before* it was rolled over then."""
        if asked.start_time is None and asked.end_time is None:
            return False
        segment = opened.segment
        if opened.is_plain:
            moments = sampled(cast(Seekable, opened.file), opened.size)
        else:
            moments = first_moments(opened.head) if segment.rolled_at is not None else []
        until = FOR_EVER if segment.place == ACTIVE else segment.rolled_at
        return bool(moments) and is_outside(span_of(moments, before, until), asked)


def _deleted_by(event: StoredEvent) -> list[str]:
    """The names of segments that *event* says are deleted."""
    if event.kind != Kind.TRAIL or event.operation != RETENTION:
        return []
    names = event.metadata.get("segments")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _ignore(*of_what: object) -> None:
    """Tell nobody: it is told when the segment is read."""


def _timestamp(event: StoredEvent) -> dt.datetime:
    return event.timestamp


def _packed_read(raw: BinaryIO) -> int:
    return raw.tell() if raw.seekable() else 0
