"""Pages of trails that are still being written.

**Guarantees.** A cursor holds the segment and the offset, in each trail, at which the next page begins. A segment is identified
by its first line and offsets count decompressed bytes, so a cursor stays valid when its segment is rolled over or compressed,
and when events are added. With the newest first, the first cursor also fixes the end: later events are on no later page. A
cursor is opaque, safe in a URL, and contains nothing of an event but a digest.

**Failure handling.** Where the segment of a cursor was deleted, everything before it was, too. With the oldest first, the next
page begins with the remaining events and the finding ``vanished`` is counted; with the newest first, nothing is left.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import msgspec

from structlog_audit.events.event import AuditEvent
from structlog_audit.exceptions import AuditReadError, AuditTypeError, AuditValueError
from structlog_audit.query.filters import Conditions
from structlog_audit.trail.reading.candidate_lines import CandidateSearch
from structlog_audit.trail.reading.decoder import Batch, Line, LineDecoder, Matcher
from structlog_audit.trail.reading.discovery import AnyTrail, Segment, StreamTrail, rollover_before
from structlog_audit.trail.reading.open_segment import END_OF_PACKED, OpenSegment
from structlog_audit.trail.reading.segment_scanner import SegmentScan, SegmentScanner


class Page(msgspec.Struct, frozen=True):
    """Some events, and the cursor of the page after them; None after the last event so far."""

    events: list[AuditEvent]
    cursor: str | None


class Position(msgspec.Struct, frozen=True, array_like=True):
    """A position in a trail."""

    segment: str
    """The identity of the segment; empty if nothing is left."""
    offset: int
    rolled_at: dt.datetime | None = None
    """The rollover of the segment when the position was taken; a segment of this time is tried first."""
    later: int = 0
    """The number of later segments with the same identity, if names have no time: copies of a numbered file."""


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    newest_first: bool
    positions: list[Position | None]
    """The position in each trail; None stands for its beginning."""


class _Found(NamedTuple):
    """A matching event, and the position after it."""

    event: Line
    trail: int
    position: Position


def page_of(
    scanner: SegmentScanner,
    trails: Sequence[AnyTrail],
    conditions: Conditions,
    cursor: str | None,
    limit: int,
    newest_first: bool,
) -> Page:
    """Return the next *limit* events that match *conditions*.

    Raises as `structlog_audit.trail.reading.reader.TrailReader.page`.
    """
    positions = _decode_cursor(cursor, trails, newest_first)

    # Only from their beginnings on are several trails merged in one order, whatever their clocks did.
    reads_forwards = not newest_first or len(trails) > 1
    answers = []
    for number, trail in enumerate(trails):
        # One event more than the page has shows whether there is a next page.
        pager = _TrailPager(scanner, number, trail, conditions, newest_first, reads_forwards, limit + 1)
        answers.append(pager.events_from(positions))

    merged = heapq.merge(*answers, key=lambda found: found.event.timestamp, reverse=not reads_forwards)
    found = list(_last(merged, limit + 1) if newest_first and reads_forwards else islice(merged, limit + 1))

    events = []
    for item in found[:limit]:
        positions[item.trail] = item.position
        events.append(item.event.event())

    if len(found) <= limit:
        return Page(events, None)
    next_cursor = _Cursor(newest_first, positions)
    return Page(events, _encode_cursor(next_cursor))


def _last(found: Iterator[_Found], count: int) -> Iterator[_Found]:
    """Return the last *count* of *found*, in reverse."""
    return reversed(deque(found, count))


def _decode_cursor(cursor: str | None, trails: Sequence[AnyTrail], newest_first: bool) -> list[Position | None]:
    """Return the position in each trail that *cursor* holds."""
    if any(isinstance(trail, StreamTrail) for trail in trails):
        raise AuditReadError("a stream has no pages: save it to a file")
    if cursor is None:
        return [None] * len(trails)
    if not isinstance(cursor, str):
        raise AuditTypeError(f"cursor={cursor!r}: expected the cursor of a page or None, got {type(cursor).__name__}")

    try:
        padding = b"=" * (-len(cursor) % 4)
        padded = cursor.encode("ascii") + padding
        packed = base64.b64decode(padded, b"-_", validate=True)
        decoded = msgspec.msgpack.decode(packed, type=_Cursor)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise AuditValueError(f"cursor={cursor!r}: expected the cursor of a page, got other text") from None

    if decoded.newest_first != newest_first or len(decoded.positions) != len(trails):
        raise AuditValueError(
            f"cursor={cursor!r}: expected a cursor of the same trails and order, got one of other trails or the other order"
        )
    return list(decoded.positions)


def _encode_cursor(cursor: _Cursor) -> str:
    packed = msgspec.msgpack.encode(cursor)
    text = base64.urlsafe_b64encode(packed).decode()
    return text.rstrip("=")


class _TrailPager:
    """Continues one trail from a position."""

    def __init__(
        self,
        scanner: SegmentScanner,
        number: int,
        trail: AnyTrail,
        conditions: Conditions,
        newest_first: bool,
        reads_forwards: bool,
        at_most: int,
    ) -> None:
        self._scanner = scanner
        self._number = number
        self._trail = trail
        self._conditions = conditions
        self._newest_first = newest_first
        self._reads_forwards = reads_forwards
        self._at_most = at_most
        self._decoder = LineDecoder()
        self._matcher = Matcher(conditions)
        self._search = CandidateSearch.of(conditions)

    def events_from(self, positions: list[Position | None]) -> Iterator[_Found]:
        """Yield the matching events from this trail's place in *positions* on, or up to it with the newest first.

        With the newest first, that place is filled in if it is None: it fixes the end for later pages.
        """
        with self._trail.segments() as segments:
            position = positions[self._number]
            if position is None and self._newest_first:
                position = self._end(segments)
                positions[self._number] = position

            current = None
            if position is not None:
                current = self._find(segments, position)
                is_deleted = current is None
                if is_deleted and self._newest_first:
                    return
                if is_deleted:
                    self._report_deleted(position)
                    segments = _remaining(segments, position)

            for number in self._numbers_to_read(len(segments), current):
                offset = None
                if position is not None and number == current:
                    offset = position.offset
                previous_rollover = rollover_before(segments, number)

                with self._scanner.open(segments[number]) as opened:
                    if opened is None:
                        continue

                    is_outside = self._scanner.is_outside(opened, previous_rollover, self._conditions)
                    if not is_outside:
                        later = self._copies_after(segments, number, opened)
                        yield from self._in_segment(opened, offset, later)

    def _report_deleted(self, position: Position) -> None:
        """Count that the segment of *position* was deleted, once for each position."""
        reason = "deleted between two pages"
        self._scanner.problems.add_once("vanished", self._trail.path, position.offset, reason)

    def _end(self, segments: list[Segment]) -> Position:
        """Return the position of the end of the trail."""
        for segment in reversed(segments):
            with self._scanner.open(segment) as opened:
                if opened is None or opened.identity is None:
                    continue
                end = self._scanner.end_of_events(opened)
                return Position(opened.identity, end, segment.rolled_at)
        return Position("", 0)

    def _find(self, segments: list[Segment], position: Position) -> int | None:
        """Return the number of the segment of *position*; None if it was deleted."""

        def is_unlikely(number: int) -> bool:
            return segments[number].rolled_at != position.rolled_at

        later = position.later
        newest_first = reversed(range(len(segments)))
        for number in sorted(newest_first, key=is_unlikely):
            if not self._is_identified(segments[number], position.segment):
                continue
            if later == 0:
                return number
            later -= 1
        return None

    def _is_identified(self, segment: Segment, identity: str | None) -> bool:
        with self._scanner.open(segment) as opened:
            return opened is not None and opened.identity == identity

    def _copies_after(self, segments: list[Segment], number: int, opened: OpenSegment) -> int:
        """Return `Position.later` of the segment of this *number*."""
        # A time in the name tells copies apart.
        if segments[number].rolled_at is not None:
            return 0
        return sum(self._is_identified(segment, opened.identity) for segment in segments[number + 1 :])

    def _numbers_to_read(self, count: int, current: int | None) -> Iterator[int]:
        """Yield the numbers of *count* segments from the *current* one on, or up to it, in the order of reading."""
        if not self._newest_first:
            return iter(range(current or 0, count))

        last = count - 1 if current is None else current
        numbers = range(last + 1)
        return iter(numbers) if self._reads_forwards else reversed(numbers)

    def _in_segment(self, opened: OpenSegment, offset: int | None, later: int) -> Iterator[_Found]:
        """Yield the matching events of a segment from *offset* on, or up to it, in the order of reading."""
        start: int = 0
        stop: int | None = None
        if not self._newest_first:
            start = offset or 0
        elif offset != END_OF_PACKED:
            stop = offset

        reads_backwards = opened.is_plain and not self._reads_forwards
        scan = SegmentScan(
            start=start, stop=stop, newest_first=reads_backwards, conditions=self._conditions, search=self._search
        )
        batches = self._scanner.batches(opened, self._decoder, scan)
        lists = (self._in_batch(opened, batch, reads_backwards, later) for batch in batches)
        found = chain.from_iterable(lists)

        if not reads_backwards and not self._reads_forwards:
            newest = deque(found, self._at_most)
            yield from reversed(newest)
        else:
            yield from found

    def _in_batch(self, opened: OpenSegment, batch: Batch, newest_first: bool, later: int) -> list[_Found]:
        """Return the matching events of a batch in the order of reading, each with the position after it."""
        events: list[Line] = self._matcher(batch)
        if not events:
            return []
        if newest_first:
            events = events[::-1]

        offsets = batch.offsets()
        numbers = {id(event): number for number, event in enumerate(batch.events)}
        identity = opened.identity or ""
        rolled_at = opened.segment.rolled_at

        found = []
        for event in events:
            number = numbers[id(event)]
            # With the newest first, the next page ends where this event begins.
            offset = offsets[number] if self._newest_first else offsets[number + 1]
            position = Position(identity, offset, rolled_at, later)
            found.append(_Found(event, self._number, position))
        return found


def _remaining(segments: list[Segment], position: Position) -> list[Segment]:
    """Return the *segments* after *position*, given that the segment of the position was deleted."""
    rolled_at = position.rolled_at
    if rolled_at is None:
        return segments
    return [segment for segment in segments if segment.rolled_at is None or segment.rolled_at > rolled_at]
