"""The engine that answers queries by reading every segment that may match. It needs only the files.

**Guarantees.** Each trail keeps its own order. Several trails are merged by time, as far as their orders allow. The newest
first are the exact reverse of the oldest first, also where a clock was set back.

**Failure handling.** Damage in a file is counted and never ends an answer.

**Performance.** Memory is bounded by a block of lines per trail. Compressed segments, documents and streams can only be read
forwards: for the newest events they are read whole, and at most the requested number of events is kept. So are several
trails, since a step of a clock anywhere before an event can change its place among the events of the others.
"""

from __future__ import annotations

import datetime as dt
import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain

from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event_lists import SelectedEvents
from structlog_audit.query.engine import Progress
from structlog_audit.query.filters import Conditions
from structlog_audit.trail.reading.candidate_lines import CandidateSearch
from structlog_audit.trail.reading.decoder import LineDecoder, LineList, Matcher
from structlog_audit.trail.reading.discovery import AnyTrail, rollover_before
from structlog_audit.trail.reading.open_segment import OpenSegment
from structlog_audit.trail.reading.segment_scanner import ProgressMeter, SegmentScan, SegmentScanner


class ScanEngine:
    """An `structlog_audit.query.engine.Engine` that reads the files of its trails.

    Args:
        trails: The trails to read.
        scanner: Reads their segments and counts the findings.
        progress: Called with the number of bytes read so far for the current query.
    """

    def __init__(self, trails: Sequence[AnyTrail], scanner: SegmentScanner, progress: Progress | None = None) -> None:
        self._trails = trails
        self._scanner = scanner
        self._progress = progress

    def select(self, conditions: Conditions, *, newest_first: bool, at_most: int | None) -> Iterator[StoredEvent]:
        """As `structlog_audit.query.engine.Engine.select`."""
        if newest_first and len(self._trails) > 1:
            merged = self.select(conditions, newest_first=False, at_most=None)
            return _newest_first(merged, at_most)

        lists = self._event_lists(conditions, newest_first, at_most)
        answers = [SelectedEvents(of_trail) for of_trail in lists]
        if len(answers) == 1:
            return answers[0]
        return heapq.merge(*answers, key=_timestamp)

    def count(self, conditions: Conditions) -> int:
        """As `structlog_audit.query.engine.Engine.count`."""
        lists = self._event_lists(conditions, False, None)
        return sum(map(len, chain.from_iterable(lists)))

    def _event_lists(self, conditions: Conditions, newest_first: bool, at_most: int | None) -> list[Iterator[LineList]]:
        """Return for each trail its matching events, in lists."""
        meter = ProgressMeter(self._progress)
        queries = [
            _TrailQuery(self._scanner, trail, conditions, newest_first, at_most, meter) for trail in self._trails
        ]
        return [query.event_lists() for query in queries]


class _TrailQuery:
    """One query of one trail."""

    def __init__(
        self,
        scanner: SegmentScanner,
        trail: AnyTrail,
        conditions: Conditions,
        newest_first: bool,
        at_most: int | None,
        meter: ProgressMeter,
    ) -> None:
        self._scanner = scanner
        self._trail = trail
        self._conditions = conditions
        self._newest_first = newest_first
        self._at_most = at_most
        self._meter = meter
        self._decoder = LineDecoder()
        self._matcher = Matcher(conditions)
        self._search = CandidateSearch.of(conditions)

    def event_lists(self) -> Iterator[LineList]:
        """Yield the matching events, in lists."""
        with self._trail.segments() as segments:
            numbers = list(range(len(segments)))
            if self._newest_first:
                numbers.reverse()

            for number in numbers:
                segment = segments[number]
                previous_rollover = rollover_before(segments, number)

                with self._scanner.open(segment) as opened:
                    if opened is None:
                        continue

                    is_outside = self._scanner.is_outside(opened, previous_rollover, self._conditions)
                    if not is_outside:
                        yield from self._in_segment(opened)
                    self._meter.advance(segment.path, segment.size)

    def _in_segment(self, opened: OpenSegment) -> Iterator[LineList]:
        reads_backwards = self._newest_first and opened.is_plain
        scan = SegmentScan(
            newest_first=reads_backwards, conditions=self._conditions, search=self._search, meter=self._meter
        )
        batches = self._scanner.batches(opened, self._decoder, scan)
        lists = map(self._matcher, batches)

        if not self._newest_first:
            yield from lists
        elif reads_backwards:
            for events in lists:
                yield LineList(reversed(events))
        else:
            newest = deque(chain.from_iterable(lists), self._at_most)
            newest.reverse()
            yield LineList(newest)


def _newest_first(events: Iterator[StoredEvent], at_most: int | None) -> Iterator[StoredEvent]:
    """Yield the last *at_most* of *events* in reverse."""
    newest = deque(events, at_most)
    while newest:
        yield newest.pop()


def _timestamp(event: StoredEvent) -> dt.datetime:
    return event.timestamp
