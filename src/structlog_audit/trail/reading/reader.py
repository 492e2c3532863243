"""`TrailReader`: the questions asked of the files.

Rules:

* What is asked of a handler can be asked of files: `TrailReader` is an `EventSource`, with the same filters and answers.
* Files are looked for anew for each question, and read up to the size that they have then. Reading never writes.
* What is found wrong is counted and told (`structlog_audit.trail.reading.problems`), and never ends an answer. Only a trail that can't
  be read at all is an `AuditReadError`.
* Memory stays bounded, whatever the files hold, but for what is asked for: a list, or counts by user.
* One thread at a time.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import BinaryIO, Unpack

from structlog_audit._validation import require_integer
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import AuditEvent, Kind
from structlog_audit.events.event_id import millisecond_of
from structlog_audit.query.engine import Progress
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import Conditions, Filters, conditions, with_filter_signature
from structlog_audit.trail.reading.discovery import Trail, find_trails
from structlog_audit.trail.reading.follow import follow
from structlog_audit.trail.reading.pagination import Page, page_of
from structlog_audit.trail.reading.problems import Problem, Problems
from structlog_audit.trail.reading.scan_engine import ScanEngine
from structlog_audit.trail.reading.time_ranges import SLACK


class TrailReader(EventSource):
    """Answers questions from the files of trails. `open_trail` makes it.

    The methods of `EventSource` may raise `AuditReadError`, when there is no trail any more, or no right to read it.
    """

    def __init__(self, paths: Sequence[str | os.PathLike[str] | BinaryIO], progress: Progress | None = None) -> None:
        self._trails = find_trails(paths)
        self._problems = Problems()
        self._engine = ScanEngine(self._trails, self._problems, progress)

    @property
    def problems(self) -> Mapping[str, int]:
        """What was found wrong in what was read so far, counted by its code: see `structlog_audit.trail.reading.problems`."""
        return dict(self._problems.counts)

    @property
    def examples(self) -> Sequence[Problem]:
        """The first hundred findings: code, path, offset and reason."""
        return tuple(self._problems.examples)

    @property
    def paths(self) -> Sequence[str]:
        """The active files of the trails that are read."""
        return tuple(trail.path for trail in self._trails)

    def size(self) -> int:
        """How many bytes there are to read now, packed or not. Those of a stream are not known, and not counted."""
        total = 0
        for trail in self._trails:
            if isinstance(trail, Trail):
                with trail.segments() as segments:
                    total += sum(segment.size for segment in segments)
        return total

    @property
    def complete_since(self) -> dt.datetime | None:
        """From when on the answers are complete, in UTC; None means since the beginning.

        That is the rollover of the newest segment that retention deleted, as far as the trail says so itself. What somebody
        deleted otherwise, or a `logging.handlers.RotatingFileHandler` dropped, is not known. O(n) the first time.
        """
        moments = [self._engine.deleted_until(trail) for trail in self._trails if isinstance(trail, Trail)]
        return max((moment for moment in moments if moment is not None), default=None)

    def get_event(self, event_id: str) -> AuditEvent | None:
        """The event with this id, of whatever kind, or None.

        An id of ours says its time: segments of that time are read first, the others only if it isn't there.
        """
        millisecond = millisecond_of(event_id)
        if millisecond is not None:
            about = dt.datetime.fromtimestamp(millisecond / 1_000, dt.UTC)
            asked = conditions(event_id=event_id, kind=[None, *Kind], start_time=about - SLACK, end_time=about + SLACK)
            for stored in self.select(asked, newest_first=True, at_most=1):
                return stored.event()
        return super().get_event(event_id)

    @with_filter_signature
    def page(
        self, cursor: str | None = None, *, limit: int = 100, newest_first: bool = False, **filters: Unpack[Filters]
    ) -> Page:
        """A page of the events that match all *filters*: its events, and the cursor of the next one.

        Args:
            cursor: Of the page before; None for the first page. A cursor stays true across rollovers, when a segment is
                compressed, and when events come; it is opaque, and may stand in a URL.
            limit: How many events at most, at least 1.
            newest_first: The order; the same for all pages.
            filters: What is asked for; the same for all pages.

        Raises:
            AuditReadError: Also of a stream, which has no pages.
            AuditValueError: Also for what is not the cursor of such a page.
        """
        require_integer("limit", limit, least=1)
        return page_of(self._engine, self._trails, conditions(**filters), cursor, limit, newest_first)

    @with_filter_signature
    def follow(
        self,
        *,
        since_now: bool = True,
        stop: Callable[[], bool],
        wait: Callable[[float], None],
        **filters: Unpack[Filters],
    ) -> Iterator[AuditEvent]:
        """The events that match all *filters* as they come, each once, across rollovers and from all writers.

        Args:
            since_now: Whether to begin with what comes from now on, that is after this call; else with everything there is.
            stop: Asked before each look; when it says yes, that look is the last.
            wait: Given the seconds to wait until the next look, such as `time.sleep`.
            filters: What is asked for.
        """
        found = self.follow_matching(conditions(**filters), since_now=since_now, stop=stop, wait=wait)
        return (stored.event() for stored in found)

    def follow_matching(
        self, conditions: Conditions, *, since_now: bool, stop: Callable[[], bool], wait: Callable[[float], None]
    ) -> Iterator[StoredEvent]:
        """Yield the events that match ready-made *conditions* as they come. Otherwise as `follow`."""
        return follow(self._engine, self._trails, conditions, since_now, stop, wait)

    def select(self, asked: Conditions, *, newest_first: bool, at_most: int | None = None) -> Iterator[StoredEvent]:
        return self._engine.select(asked, newest_first=newest_first, at_most=at_most)
