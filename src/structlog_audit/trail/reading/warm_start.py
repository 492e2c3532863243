"""The newest events of a trail, for a buffer that begins with them (``warm_start=True``).

Rules:

* Segments are read from the newest on, packed ones too, until there are enough events.
* Of several events with one id the last counts.
* What the buffer then does not have makes its answers incomplete: events that there was no room for, segments that were
  deleted by retention or can't be read.
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
from structlog_audit.trail.reading.scan_engine import ScanEngine

_READ_ALL_THE_SAME = ("unfinished", "repeated", "bom", "invalid_utf8", "vanished", "unreadable")
"""Findings that are about no line that is left out."""

_MISSING = ("vanished", "unreadable", "truncated")
"""Findings after which events of a segment are missing."""


class Newest(NamedTuple):
    """What a buffer begins with."""

    events: list[tuple[bytes, int]]
    """Lines and moments, the oldest first."""
    missing_until: int | None
    """The latest moment, in microseconds since 1970, of which something may be missing; None if nothing is."""
    unreadable: int
    """Lines that are no events."""


def newest_events(path: str | os.PathLike[str], count: int) -> Newest:
    """The newest *count* events of the trail at *path*. O(count), and what else is in the oldest segment that is read.

    Raises:
        AuditReadError: There is no trail, or it can't be read.
    """
    folder, base = os.path.split(os.fspath(path))
    trail = Trail(folder or ".", base)
    problems = Problems()
    engine, scanner = ScanEngine([trail], problems), LineDecoder()
    found = _Found(count)
    with trail.segments() as segments:
        for segment in reversed(segments):
            before = _total(problems, _MISSING)
            with engine.opened(segment) as opened:
                if opened is not None:
                    found.add(engine, opened, scanner)
            if _total(problems, _MISSING) > before and segment.rolled_at is not None:
                found.miss(microseconds(segment.rolled_at))
            if found.is_full:
                break
    if not found.is_full:
        deleted_until = engine.deleted_until(trail)
        if deleted_until is not None:
            found.miss(microseconds(deleted_until))
    unreadable = problems.counts.total() - _total(problems, _READ_ALL_THE_SAME)
    return Newest(list(found.events.values())[::-1], found.missing_until, unreadable)


class _Found:
    """The newest *count* events of what was added, which comes segment by segment, the newest first."""

    def __init__(self, count: int) -> None:
        self.events: dict[str, tuple[bytes, int]] = {}  # by id, the newest first
        self.missing_until: int | None = None
        self.is_full = False
        """Whether there was no room for an event."""
        self._count = count

    def miss(self, moment: int) -> None:
        """Say that something of this *moment* is missing."""
        self.missing_until = moment if self.missing_until is None else max(self.missing_until, moment)

    def add(self, engine: ScanEngine, opened: OpenSegment, scanner: LineDecoder) -> None:
        """Add the events of a segment."""
        if opened.is_plain:
            for batch in engine.batches(opened, scanner, newest_first=True):
                for number in reversed(range(len(batch.events))):
                    event = batch.events[number]
                    self._add(event.event_id, microseconds(event.timestamp), partial(batch.stored, number))
            return
        own: dict[str, tuple[int, bytes]] = {}  # the oldest first
        for batch in engine.batches(opened, scanner):
            for number, event in enumerate(batch.events):
                own.pop(event.event_id, None)
                own[event.event_id] = microseconds(event.timestamp), batch.stored(number)
                if len(own) > self._count:
                    self.miss(own.pop(next(iter(own)))[0])
                    self.is_full = True
        for event_id, (moment, lines) in reversed(own.items()):
            self._add(event_id, moment, partial(bytes, lines))

    def _add(self, event_id: str, moment: int, lines: Callable[[], bytes]) -> None:
        if event_id in self.events:
            return
        if len(self.events) < self._count:
            self.events[event_id] = lines(), moment
        else:
            self.miss(moment)
            self.is_full = True


def _total(problems: Problems, codes: Iterable[str]) -> int:
    return sum(problems.counts[code] for code in codes)
