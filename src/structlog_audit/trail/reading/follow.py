"""New events as they are recorded, as by ``tail -F``: across rollovers and from several writers, each event once.

**Guarantees.** At each poll the set of segments is taken again. A segment is identified by its first line, and the offset up to
which it was read is kept; later lines are new, and so is an unknown segment. Writers may notice a rollover late, so the
last `LATE_SEGMENTS` segments are checked at each poll. An event is yielded when it is whole: an unfinished line, or
an event without all of its parts, waits. A stream is read from its current position to its end.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

from structlog_audit.query.filters import Conditions
from structlog_audit.trail.reading.candidate_lines import CandidateSearch
from structlog_audit.trail.reading.decoder import Line, LineDecoder, Matcher
from structlog_audit.trail.reading.discovery import AnyTrail, Segment, StreamTrail
from structlog_audit.trail.reading.open_segment import END_OF_PACKED, OpenSegment
from structlog_audit.trail.reading.segment_scanner import SegmentScan, SegmentScanner

POLL_SECONDS = 0.25
"""The time between two polls."""

LATE_SEGMENTS = 32
"""The number of segments that are checked for late lines, counted from the newest."""


def follow(
    scanner: SegmentScanner,
    trails: Sequence[AnyTrail],
    conditions: Conditions,
    since_now: bool,
    stop: Callable[[], bool],
    wait: Callable[[float], None],
) -> Iterator[Line]:
    """Yield the events that match *conditions* as they are recorded.

    The current end of the trails is taken at this call. Otherwise as `structlog_audit.trail.reading.reader.TrailReader.follow`.
    """
    tails = [_Tail(scanner, trail, conditions) for trail in trails]
    if since_now:
        for tail in tails:
            tail.skip_to_end()
    return _poll(tails, stop, wait)


def _poll(tails: list[_Tail], stop: Callable[[], bool], wait: Callable[[float], None]) -> Iterator[Line]:
    while True:
        is_last = stop()
        new_events = [tail.new_events() for tail in tails]
        yield from heapq.merge(*new_events, key=lambda event: event.timestamp)
        if is_last or all(tail.has_ended for tail in tails):
            return
        wait(POLL_SECONDS)


class _Tail:
    """The growing end of one trail."""

    def __init__(self, scanner: SegmentScanner, trail: AnyTrail, conditions: Conditions) -> None:
        self.has_ended = False
        """Whether no more events can come."""
        self._scanner = scanner
        self._trail = trail
        self._matcher = Matcher(conditions)
        self._search = CandidateSearch.of(conditions)
        self._decoder = LineDecoder()

        # By identity of a segment, the oldest first: the offset up to which it was read.
        self._offsets: dict[str, int] = {}

    def skip_to_end(self) -> None:
        """Treat all existing events as read."""
        if isinstance(self._trail, StreamTrail):
            return

        with self._trail.segments() as segments:
            for segment in segments[-LATE_SEGMENTS:]:
                with self._scanner.open(segment) as opened:
                    if opened is None or opened.identity is None:
                        continue
                    end = self._scanner.end_of_events(opened)
                    self._offsets[opened.identity] = end

    def new_events(self) -> Iterator[Line]:
        """Yield the matching events that were added since the last call."""
        if self.has_ended:
            return
        with self._trail.segments() as segments:
            for segment in self._segments_to_check(segments):
                with self._scanner.open(segment) as opened:
                    if opened is not None:
                        yield from self._in_segment(opened)

        self.has_ended = isinstance(self._trail, StreamTrail)

        # Segments this old are not checked again.
        identities = list(self._offsets)
        for identity in identities[: -2 * LATE_SEGMENTS]:
            del self._offsets[identity]

    def _segments_to_check(self, segments: list[Segment]) -> list[Segment]:
        """Return the known segments to which a late writer may append, and all segments after them."""
        if isinstance(self._trail, StreamTrail):
            return segments

        oldest = 0
        known: set[str] = set()
        for number in reversed(range(len(segments))):
            if len(known) in (LATE_SEGMENTS, len(self._offsets)):
                break
            with self._scanner.open(segments[number]) as opened:
                if opened is not None and opened.identity in self._offsets:
                    known.add(opened.identity)
                    oldest = number
        return segments[oldest:]

    def _in_segment(self, opened: OpenSegment) -> Iterator[Line]:
        identity = opened.identity
        if identity is None:
            return
        start = self._offsets.setdefault(identity, 0)
        if start == END_OF_PACKED:
            return

        scan = SegmentScan(start=start, is_followed=True, search=self._search)
        for batch in self._scanner.batches(opened, self._decoder, scan):
            self._offsets[identity] = batch.block.stop
            yield from self._matcher(batch)
        if not opened.is_plain:
            # Writers never append to compressed data.
            self._offsets[identity] = END_OF_PACKED
