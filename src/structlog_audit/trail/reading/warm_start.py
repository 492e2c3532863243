"""The newest events of a trail, with which a buffer begins (``warm_start=True``).

**Guarantees.** Segments are read from the newest on, compressed ones included, until there are enough events. Of several events
with one id, the last counts. Events that exceed the size of the buffer, and segments that retention deleted or that cannot be
read, make the buffer's answers incomplete: `NewestEvents.missing_until` states up to which time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

from structlog_audit.query.filters import microseconds
from structlog_audit.trail.reading.decoder import LineDecoder
from structlog_audit.trail.reading.discovery import Trail
from structlog_audit.trail.reading.open_segment import OpenSegment
from structlog_audit.trail.reading.problems import Problems
from structlog_audit.trail.reading.segment_scanner import SegmentScan, SegmentScanner

_NO_LINE_LEFT_OUT = ("unfinished", "repeated", "drift", "bom", "invalid_utf8", "vanished", "unreadable")
"""The codes of findings other than a line that is left out."""

_EVENTS_MISSING = ("vanished", "unreadable", "truncated")
"""The codes of findings after which events of a segment are missing."""


class NewestEvents(NamedTuple):
    """The initial content of a buffer."""

    events: list[tuple[bytes, int]]
    """Lines and timestamps (microseconds since 1970), oldest first."""
    missing_until: int | None
    """The latest timestamp, in microseconds since 1970, of an event that may be missing; None if none is."""
    unreadable: int
    """The number of lines that are not events."""


def newest_events(path: str | os.PathLike[str], count: int) -> NewestEvents:
    """Return the newest *count* events of the trail at *path*.

    O(count), plus the rest of the oldest segment that is read.

    Raises:
        AuditReadError: There is no trail, or it cannot be read.
    """
    folder, base = os.path.split(os.fspath(path))
    trail = Trail(folder or ".", base)
    scanner = SegmentScanner()
    problems = scanner.problems
    decoder = LineDecoder()
    collector = _NewestCollector(count)

    with trail.segments() as segments:
        for segment in reversed(segments):
            missing_before = _total(problems, _EVENTS_MISSING)
            with scanner.open(segment) as opened:
                if opened is not None:
                    collector.add_segment(scanner, opened, decoder)

            is_incomplete = _total(problems, _EVENTS_MISSING) > missing_before
            if is_incomplete and segment.rolled_at is not None:
                collector.mark_missing(microseconds(segment.rolled_at))
            if collector.is_full:
                break

    if not collector.is_full:
        deleted_until = scanner.deleted_until(trail)
        if deleted_until is not None:
            collector.mark_missing(microseconds(deleted_until))

    events = list(collector.events.values())[::-1]
    unreadable = problems.counts.total() - _total(problems, _NO_LINE_LEFT_OUT)
    return NewestEvents(events, collector.missing_until, unreadable)


class _NewestCollector:
    """The newest *count* events of the segments that are added, the newest segment first."""

    def __init__(self, count: int) -> None:
        self.events: dict[str, tuple[bytes, int]] = {}
        """Lines and timestamps by event id, newest first."""
        self.missing_until: int | None = None
        self.is_full = False
        """Whether an event was left out because there were enough."""
        self._count = count

    def mark_missing(self, timestamp: int) -> None:
        """Record that an event of this *timestamp* is missing."""
        if self.missing_until is None or timestamp > self.missing_until:
            self.missing_until = timestamp

    def add_segment(self, scanner: SegmentScanner, opened: OpenSegment, decoder: LineDecoder) -> None:
        """Add the events of a segment."""
        if opened.is_plain:
            self._add_plain(scanner, opened, decoder)
        else:
            self._add_packed(scanner, opened, decoder)

    def _add_plain(self, scanner: SegmentScanner, opened: OpenSegment, decoder: LineDecoder) -> None:
        backwards = SegmentScan(newest_first=True)
        for batch in scanner.batches(opened, decoder, backwards):
            numbers = range(len(batch.events))
            for number in reversed(numbers):
                event = batch.events[number]
                timestamp = microseconds(event.timestamp)
                lines = partial(batch.stored_lines, number)
                self._add(event.event_id, timestamp, lines)

    def _add_packed(self, scanner: SegmentScanner, opened: OpenSegment, decoder: LineDecoder) -> None:
        """Add the events of a segment that can only be read forwards, keeping no more than are needed."""
        kept: dict[str, tuple[int, bytes]] = {}
        for batch in scanner.batches(opened, decoder, SegmentScan()):
            for number, event in enumerate(batch.events):
                event_id = event.event_id
                timestamp = microseconds(event.timestamp)
                # A later event with the same id moves to the end.
                kept.pop(event_id, None)
                kept[event_id] = timestamp, batch.stored_lines(number)

                if len(kept) > self._count:
                    oldest_id = next(iter(kept))
                    oldest_timestamp, _ = kept.pop(oldest_id)
                    self.mark_missing(oldest_timestamp)
                    self.is_full = True

        newest_first = reversed(kept.items())
        for event_id, (timestamp, lines) in newest_first:
            self._add(event_id, timestamp, partial(bytes, lines))

    def _add(self, event_id: str, timestamp: int, lines: Callable[[], bytes]) -> None:
        if event_id in self.events:
            return
        if len(self.events) < self._count:
            self.events[event_id] = lines(), timestamp
        else:
            self.mark_missing(timestamp)
            self.is_full = True


def _total(problems: Problems, codes: Iterable[str]) -> int:
    return sum(problems.counts[code] for code in codes)
