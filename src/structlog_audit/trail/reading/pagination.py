"""Page by page through trails that go on being written.

Rules:

* A cursor says, for every trail, in which segment and at which offset to go on. A segment is known by its first line, and an
  offset counts unpacked bytes; so a cursor stays true when the segment is rolled over or compressed, and when events come.
* Going back in time, the first cursor also says where the end was: events that come later are on no later page.
* Where the segment of a cursor was deleted, so were all before it: going forwards the next page begins with what is left,
  and a finding ``vanished`` says so; going back nothing is left.
* A cursor is opaque, safe in a URL, and holds nothing of an event but a digest.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import heapq
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from structlog_audit.events.event import AuditEvent
from structlog_audit.exceptions import AuditReadError, AuditTypeError, AuditValueError
from structlog_audit.query.filters import Conditions
from structlog_audit.trail.reading.decoder import Batch, Line, LineDecoder, Matcher
from structlog_audit.trail.reading.discovery import AnyTrail, Segment, StreamTrail
from structlog_audit.trail.reading.open_segment import WHOLLY, OpenSegment
from structlog_audit.trail.reading.scan_engine import ScanEngine


class Page(msgspec.Struct, frozen=True):
    """Some events, and the cursor of the page after them; None when there are no more events now."""

    events: list[AuditEvent]
    cursor: str | None


class Position(msgspec.Struct, frozen=True, array_like=True):
    """Where to go on in a trail."""

    segment: str
    """What identifies the segment; empty if there is nothing left."""
    offset: int
    rolled_at: dt.datetime | None = None
    """When the segment had been rolled over, if it had: where to look for it first."""


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    newest_first: bool
    positions: list[Position | None]
    """By trail; None means at its beginning."""


class _Placed(NamedTuple):
    """An event, and where to go on after it."""

    event: Line
    trail: int
    position: Position


def page_of(
    engine: ScanEngine,
    trails: Sequence[AnyTrail],
    asked: Conditions,
    cursor: str | None,
    limit: int,
    newest_first: bool,
) -> Page:
    """The next *limit* events that match *asked*. Raises as `structlog_audit.trail.reading.reader.TrailReader.page`."""
    positions = _positions(cursor, trails, newest_first)
    walks = [
        _Walk(engine, number, trail, asked, newest_first, limit + 1).placed(positions)
        for number, trail in enumerate(trails)
    ]
    merged = heapq.merge(
        *(walks[::-1] if newest_first else walks), key=lambda placed: placed.event.timestamp, reverse=newest_first
    )
    found = list(islice(merged, limit + 1))
    for placed in found[:limit]:
        positions[placed.trail] = placed.position
    events = [placed.event.event() for placed in found[:limit]]
    return Page(events, _text(_Cursor(newest_first, positions)) if len(found) > limit else None)


def _positions(cursor: str | None, trails: Sequence[AnyTrail], newest_first: bool) -> list[Position | None]:
    if any(isinstance(trail, StreamTrail) for trail in trails):
        raise AuditReadError("a stream has no pages: save it to a file")
    if cursor is None:
        return [None] * len(trails)
    if not isinstance(cursor, str):
        raise AuditTypeError(f"cursor={cursor!r}: give the cursor of a page, or None for the first page")
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        meant = msgspec.msgpack.decode(base64.b64decode(padded, b"-_", validate=True), type=_Cursor)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise AuditValueError(f"cursor={cursor!r}: not the cursor of a page") from None
    if meant.newest_first != newest_first or len(meant.positions) != len(trails):
        raise AuditValueError(f"cursor={cursor!r}: from a page of other trails, or in the other order")
    return list(meant.positions)


def _text(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).decode().rstrip("=")


class _Walk:
    """Goes on in one trail."""

    def __init__(
        self,
        engine: ScanEngine,
        number: int,
        trail: AnyTrail,
        asked: Conditions,
        newest_first: bool,
        at_most: int,
    ) -> None:
        self._engine = engine
        self._number = number
        self._trail = trail
        self._asked = asked
        self._matching = Matcher(asked)
        self._newest_first = newest_first
        self._at_most = at_most

    def placed(self, positions: list[Position | None]) -> Iterator[_Placed]:
        """The events from this trail's place in *positions* on. Going back, that is filled in if it is None."""
        newest_first = self._newest_first
        with self._trail.segments() as segments:
            position = positions[self._number]
            if position is None and newest_first:
                position = positions[self._number] = self._end(segments)
            at = None if position is None else self._find(segments, position)
            if position is not None and at is None:
                if newest_first:
                    return
                self._engine.problems.add_once("vanished", self._trail.path, position.offset, "deleted between pages")
                segments = [
                    s for s in segments if not (s.rolled_at and position.rolled_at) or s.rolled_at > position.rolled_at
                ]
            scanner = LineDecoder()
            for number in _order(len(segments), at, newest_first):
                offset = position.offset if position is not None and number == at else None
                before = segments[number - 1].rolled_at if number else None
                with self._engine.opened(segments[number]) as opened:
                    if opened is not None and not self._engine.is_outside(opened, before, self._asked):
                        yield from self._in_segment(opened, scanner, offset)

    def _end(self, segments: list[Segment]) -> Position:
        """Where the trail ends now."""
        for segment in reversed(segments):
            with self._engine.opened(segment) as opened:
                if opened is not None and opened.identity is not None:
                    return Position(opened.identity, self._engine.end_of(opened), segment.rolled_at)
        return Position("", 0)

    def _find(self, segments: list[Segment], position: Position) -> int | None:
        """The number of the segment of *position*."""
        numbers = range(len(segments) - 1, -1, -1)
        likely_first = sorted(numbers, key=lambda number: segments[number].rolled_at != position.rolled_at)
        for number in likely_first:
            with self._engine.opened(segments[number]) as opened:
                if opened is not None and opened.identity == position.segment:
                    return number
        return None

    def _in_segment(self, opened: OpenSegment, scanner: LineDecoder, offset: int | None) -> Iterator[_Placed]:
        newest_first = self._newest_first
        backwards = newest_first and opened.is_plain
        start, stop = (0, offset) if newest_first else (offset or 0, None)
        if stop == WHOLLY:
            stop = None
        batches = self._engine.batches(
            opened, scanner, newest_first=backwards, asked=self._asked, start=start, stop=stop
        )
        if newest_first and not backwards:
            kept = deque(
                (placed for batch in batches for placed in self._in_batch(opened, batch, False)), self._at_most
            )
            yield from reversed(kept)
        else:
            for batch in batches:
                yield from self._in_batch(opened, batch, newest_first)

    def _in_batch(self, opened: OpenSegment, batch: Batch, newest_first: bool) -> list[_Placed]:
        found = self._matching(batch.events)
        if not found:
            return []
        offsets = batch.offsets()
        numbers = {id(event): number for number, event in enumerate(batch.events)}
        identity, rolled_at = opened.identity or "", opened.segment.rolled_at
        placed = []
        for event in reversed(found) if newest_first else found:
            number = numbers[id(event)]
            offset = offsets[number if self._newest_first else number + 1]
            placed.append(_Placed(event, self._number, Position(identity, offset, rolled_at)))
        return placed


def _order(count: int, at: int | None, newest_first: bool) -> Iterator[int]:
    """The numbers of *count* segments to read, from the one at *at* on."""
    if newest_first:
        return reversed(range(count if at is None else at + 1))
    return iter(range(at or 0, count))
