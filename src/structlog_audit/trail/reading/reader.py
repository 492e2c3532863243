"""`TrailReader`: queries answered from the files of trails.

**Guarantees.** A `TrailReader` is an `EventSource`: it takes the same filters and gives the same answers as a handler. For each
query the files are listed again and read up to their present size. Reading never writes. Memory stays bounded, whatever the
files hold, except for the answer itself: a list, or counts by user.

**Failure handling.** Damage is counted (`structlog_audit.trail.reading.problems`) and never ends an answer. Only a trail that
cannot be read at all raises an `AuditReadError`.

**Concurrency.** One thread at a time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Unpack

from structlog_audit._validation import require_integer
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import AuditEvent, Kind
from structlog_audit.events.event_id import millisecond_of
from structlog_audit.query import filters as query_filters
from structlog_audit.query.absent_values import warn_of_pseudonyms
from structlog_audit.query.completeness import Completeness, Doubt, Reason
from structlog_audit.query.engine import Engine
from structlog_audit.query.event_source import HARMLESS_PROBLEMS, EventSource, period_of_times
from structlog_audit.query.filters import Conditions, Filters, with_filter_signature
from structlog_audit.redaction.vault import SubjectVault
from structlog_audit.trail.reading.discovery import AnyTrail, Trail
from structlog_audit.trail.reading.follow import follow
from structlog_audit.trail.reading.judgement import judge_trails
from structlog_audit.trail.reading.pagination import Page, page_of
from structlog_audit.trail.reading.problems import SEEN_IN_LINES, Problem
from structlog_audit.trail.reading.segment_scanner import SegmentScanner
from structlog_audit.trail.reading.time_ranges import SLACK


class TrailReader(EventSource):
    """Answers queries from the files of trails. `open_trail` makes it.

    The methods of `EventSource` may raise `AuditReadError` if a trail no longer exists or may not be read.

    Args:
        trails: The trails to read.
        engine: Answers queries of these trails.
        scanner: Reads single segments for pages, following and `complete_since`, and holds the problems found.
        vault: Finds the tokens of clear users, sessions and entry ids.
    """

    def __init__(
        self,
        trails: Sequence[AnyTrail],
        engine: Engine,
        scanner: SegmentScanner,
        vault: SubjectVault | None = None,
    ) -> None:
        self._trails = trails
        self._engine = engine
        self._scanner = scanner
        self._vault = vault

    @property
    def problems(self) -> Mapping[str, int]:
        """The number of problems in the files read so far, by code: see `structlog_audit.trail.reading.problems`."""
        return dict(self._scanner.problems.counts)

    @property
    def examples(self) -> Sequence[Problem]:
        """The first hundred problems: code, path, offset and reason."""
        return tuple(self._scanner.problems.examples)

    @property
    def paths(self) -> Sequence[str]:
        """The active files of the trails."""
        return tuple(trail.path for trail in self._trails)

    def size(self) -> int:
        """Return the number of bytes to read now, compressed or not. Streams are not counted: their size is unknown."""
        total = 0
        for trail in self._trails:
            if isinstance(trail, Trail):
                with trail.segments() as segments:
                    total += sum(segment.size for segment in segments)
        return total

    @property
    def complete_since(self) -> dt.datetime | None:
        """The time since which the answers are complete, in UTC; None means since the beginning.

        This is the rollover of the newest segment that retention deleted, according to the trail's own events. Other
        deletions, such as those of a `logging.handlers.RotatingFileHandler`, are unknown. O(n) the first time.
        """
        newest = None
        for trail in self._trails:
            deleted_until = self._scanner.deleted_until(trail) if isinstance(trail, Trail) else None
            if deleted_until is not None and (newest is None or deleted_until > newest):
                newest = deleted_until
        return newest

    def completeness(self, start_time: dt.datetime | None = None, end_time: dt.datetime | None = None) -> Completeness:
        """Return the verdict on whether the trails have every event from *start_time* to *end_time*. O(bytes).

        The evidence is in all segments: the sequence numbers of the writers, and the events about the trail itself. Without
        *end_time* the period reaches beyond the last line, which nothing shows to be the last: the verdict is never complete.
        """
        start, end = period_of_times(start_time, end_time)
        verdict = judge_trails(self._trails, type(self).__name__, start, end, self._now())

        # Problems that only whole events show, such as a key that occurs twice, were found by queries.
        found = {doubt.names for doubt in verdict.doubts if doubt.reason == Reason.PROBLEM}
        for code, count in self._scanner.problems.counts.items():
            if code not in (*HARMLESS_PROBLEMS, *SEEN_IN_LINES) and (code,) not in found:
                doubt = Doubt(reason=Reason.PROBLEM, count=count, names=(code,))
                verdict = verdict.with_doubt(doubt)
        return verdict

    def get_event(self, event_id: str) -> AuditEvent | None:
        """Return the event with this id, of any kind, or None.

        An id that this library generated contains its time: segments of that time are read first, and the others only
        if the event is not there.
        """
        millisecond = millisecond_of(event_id)
        if millisecond is not None:
            time = dt.datetime.fromtimestamp(millisecond / 1_000, dt.UTC)
            near_that_time = query_filters.conditions(
                event_id=event_id,
                kind=[None, *Kind],
                start_time=time - SLACK,
                end_time=time + SLACK,
            )
            for stored in self.select(near_that_time, newest_first=True, at_most=1):
                return stored.event()
        return super().get_event(event_id)

    def _explain_absence(self, conditions: Conditions) -> None:
        # Only the redactor of the application has the key of pseudonyms.
        warn_of_pseudonyms(self.select, conditions)

    @with_filter_signature
    def page(
        self, cursor: str | None = None, *, limit: int = 100, newest_first: bool = False, **filters: Unpack[Filters]
    ) -> Page:
        """Return a page of the events that match all *filters*, with the cursor of the next page.

        Args:
            cursor: The cursor of the previous page; None for the first page. A cursor stays valid across rollovers, when
                a segment is compressed, and when events are added; it is opaque and safe in a URL.
            limit: The largest number of events, at least 1.
            newest_first: The order; the same for all pages.
            filters: The filters; the same for all pages.

        Raises:
            AuditReadError: Also for a stream, which has no pages.
            AuditValueError: Also for a cursor of other trails, of the other order, or of another form.
        """
        require_integer("limit", limit, least=1)
        conditions = self._with_tokens(query_filters.conditions(self._now, **filters))
        return page_of(self._scanner, self._trails, conditions, cursor, limit, newest_first)

    @with_filter_signature
    def follow(
        self,
        *,
        since_now: bool = True,
        stop: Callable[[], bool],
        wait: Callable[[float], None],
        **filters: Unpack[Filters],
    ) -> Iterator[AuditEvent]:
        """Yield the events that match all *filters* as they are recorded, each once, across rollovers and from all writers.

        Args:
            since_now: Whether to begin with the events recorded after this call, rather than with all existing events.
            stop: Called before each poll; if it returns true, that poll is the last.
            wait: Called with the seconds until the next poll, such as `time.sleep`.
            filters: The filters.
        """
        conditions = query_filters.conditions(self._now, **filters)
        events = self.follow_matching(conditions, since_now=since_now, stop=stop, wait=wait)
        return (stored.event() for stored in events)

    def follow_matching(
        self, conditions: Conditions, *, since_now: bool, stop: Callable[[], bool], wait: Callable[[float], None]
    ) -> Iterator[StoredEvent]:
        """Yield the events that match ready-made *conditions* as they are recorded. Otherwise as `follow`."""
        conditions = self._with_tokens(conditions)
        return follow(self._scanner, self._trails, conditions, since_now, stop, wait)

    def select(
        self, conditions: Conditions, *, newest_first: bool, at_most: int | None = None
    ) -> Iterator[StoredEvent]:
        conditions = self._with_tokens(conditions)
        return self._engine.select(conditions, newest_first=newest_first, at_most=at_most)

    def _count(self, conditions: Conditions) -> int:
        return self._engine.count(self._with_tokens(conditions))

    def _with_tokens(self, conditions: Conditions) -> Conditions:
        return conditions if self._vault is None else self._vault.with_tokens(conditions)
