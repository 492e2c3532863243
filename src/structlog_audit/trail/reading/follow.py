"""The events that come, as ``tail -F``: across rollovers and from many writers, each once.

Rules:

* Time and again the set of segments is taken. A segment is known by its first line, and how far it was read is remembered; what
  is behind that is new, and so is a segment that is not known.
* A writer may notice a rollover late: `LATE` segments are looked at again each time, not only the active one.
* An event is given when it is whole: a line without its LF, or an event without its parts, waits.
* A stream is read to its end, from where it is.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence

from structlog_audit.query.filters import Conditions
from structlog_audit.trail.reading.decoder import Line, LineDecoder, Matcher
from structlog_audit.trail.reading.discovery import AnyTrail, Segment, StreamTrail
from structlog_audit.trail.reading.open_segment import WHOLLY, OpenSegment
from structlog_audit.trail.reading.scan_engine import ScanEngine

POLL_SECONDS = 0.25
"""Between two looks."""

LATE = 32
"""Segments that are looked at again, from the newest on."""


def follow(
    engine: ScanEngine,
    trails: Sequence[AnyTrail],
    asked: Conditions,
    since_now: bool,
    stop: Callable[[], bool],
    wait: Callable[[float], None],
) -> Iterator[Line]:
    """The events that match *asked* as they come, from this call on. As `structlog_audit.trail.reading.reader.TrailReader.follow`."""
    tails = [_Tail(engine, trail, asked) for trail in trails]
    if since_now:
        for tail in tails:
            tail.go_to_end()
    return _looks(tails, stop, wait)


def _looks(tails: list[_Tail], stop: Callable[[], bool], wait: Callable[[float], None]) -> Iterator[Line]:
    while True:
        is_last = stop()
        yield from heapq.merge(*(tail.new_events() for tail in tails), key=lambda event: event.timestamp)
        if is_last or all(tail.has_ended for tail in tails):
            return
        wait(POLL_SECONDS)


class _Tail:
    """The end of one trail."""

    def __init__(self, engine: ScanEngine, trail: AnyTrail, asked: Conditions) -> None:
        self._engine = engine
        self._trail = trail
        self._matching = Matcher(asked)
        self._scanner = LineDecoder()
        self._read: dict[str, int] = {}  # by segment, the oldest first: up to where it was read
        self.has_ended = False
        """Whether nothing more can come."""

    def go_to_end(self) -> None:
        """Take what there is for known."""
        if isinstance(self._trail, StreamTrail):
            return
        with self._trail.segments() as segments:
            for segment in segments[-LATE:]:
                with self._engine.opened(segment) as opened:
                    if opened is not None and opened.identity is not None:
                        self._read[opened.identity] = self._engine.end_of(opened)

    def new_events(self) -> Iterator[Line]:
        """What has come since the last time."""
        if self.has_ended:
            return
        with self._trail.segments() as segments:
            for segment in self._to_look_at(segments):
                with self._engine.opened(segment) as opened:
                    if opened is not None:
                        yield from self._in_segment(opened)
        self.has_ended = isinstance(self._trail, StreamTrail)
        for identity in list(self._read)[: -2 * LATE]:
            del self._read[identity]

    def _to_look_at(self, segments: list[Segment]) -> list[Segment]:
        """The known ones, as far back as a writer may be late for, and what comes behind them."""
        if isinstance(self._trail, StreamTrail):
            return segments
        known: dict[str, int] = {}
        for number in reversed(range(len(segments))):
            if len(known) in (LATE, len(self._read)):
                break
            with self._engine.opened(segments[number]) as opened:
                if opened is not None and opened.identity in self._read:
                    known[opened.identity] = number
        return segments[min(known.values(), default=0) :]

    def _in_segment(self, opened: OpenSegment) -> Iterator[Line]:
        identity = opened.identity
        if identity is None:
            return
        start = self._read.setdefault(identity, 0)
        if start == WHOLLY:
            return
        for batch in self._engine.batches(opened, self._scanner, start=start, is_followed=True):
            self._read[identity] = batch.block.stop
            yield from self._matching(batch.events)
        if not opened.is_plain:  # packed: nobody writes to it any more
            self._read[identity] = WHOLLY
