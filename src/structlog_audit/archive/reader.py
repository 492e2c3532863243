"""`ArchiveReader`: queries answered from archives, and from the later events of live trails.

**Guarantees.** An `ArchiveReader` is an `EventSource`: it gives the same answers as the files. For each
query the live files and the logs of the archives are read anew. While segments are archived or deleted, nothing is missing
and nothing comes twice, also if several archives have a segment. Several trails are merged by time, each in its own order.
Backwards is the exact reverse, unless a clock was set back within the live files of one of several trails.

**Failure handling.** Damage in live files is counted. A missing or damaged file of the archive raises an `AuditReadError`.

**Concurrency.** One thread at a time.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import heapq
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property, partial
from hashlib import blake2b
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple, TypeVar, Unpack

import msgspec

from structlog_audit._validation import require_integer
from structlog_audit.archive.database import Database
from structlog_audit.archive.delta_log import DeltaLog
from structlog_audit.archive.evidence import ArchivedPart, archived_evidence
from structlog_audit.archive.last_lines import last_lines
from structlog_audit.archive.live_trails import HeldTrail, LiveTrail
from structlog_audit.archive.rows import time_of
from structlog_audit.archive.several import disjoint, joined
from structlog_audit.archive.sql_counts import Counts, Places, SQLCounts
from structlog_audit.archive.sql_engine import Found, Place, SQLDatabase, SQLEngine, UndecidedError
from structlog_audit.archive.user_totals import statistics_by_user, users_by_month
from structlog_audit.events.codec import StoredEvent, decode, to_json
from structlog_audit.events.event import AuditEvent, Kind
from structlog_audit.events.operation_classes import OperationClasses
from structlog_audit.exceptions import AuditReadError, AuditTypeError, AuditValueError
from structlog_audit.query import filters as query_filters
from structlog_audit.query.absent_values import EXPLAINED, absent_of_counted, warn_of_pseudonyms
from structlog_audit.query.activity import Activity, CountedEvents, count_unknown_status
from structlog_audit.query.completeness import Completeness, Doubt, Reason, Source
from structlog_audit.query.event_source import HARMLESS_PROBLEMS, EventSource, period_of_times
from structlog_audit.query.field_tests import AnyTest, FieldConditions, FieldTest
from structlog_audit.query.filters import Conditions, Filters, microseconds, with_filter_signature
from structlog_audit.query.statistics import Histogram, Sum, UserStatistics, summary
from structlog_audit.redaction.vault import SubjectVault
from structlog_audit.reports.period import floor
from structlog_audit.trail.reading.discovery import StreamTrail, Trail
from structlog_audit.trail.reading.evidence import TrailEvidence, read_evidence
from structlog_audit.trail.reading.judgement import judge_evidence
from structlog_audit.trail.reading.pagination import Page
from structlog_audit.trail.reading.problems import SEEN_IN_LINES, Problem
from structlog_audit.trail.reading.reader import TrailReader
from structlog_audit.trail.reading.repeated_lines import REMEMBERED
from structlog_audit.trail.reading.scan_engine import ScanEngine
from structlog_audit.trail.reading.segment_scanner import RETENTION, SegmentScanner
from structlog_audit.trail.segment_names import base_of, rollover_time

_AFTER_ARCHIVE = "\U0010ffff"
"""A name after those of all trails."""

_BEFORE_ALL = -(2**63)
"""Before the order keys of all events."""

_REMEMBERED = 100_000
"""The number of events among which one that is followed is recognized as known."""


Answer = TypeVar("Answer")


class _Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The last event of a page. Its place is looked up again: it may be archived by then."""

    newest_first: bool
    event_id: str
    trail: str
    """The digest of the name of its trail: events of other trails may have the same id."""
    number: int
    """The number of the event in its trail. Of a live event, the number of events that are archived before it."""
    nth: int
    """0 for an archived event; of a live one, which of the events beyond `number` with this id it is, in the order of pages."""


class _Placed(NamedTuple):
    """An event, its place in the order of all events, in microseconds since 1970, and where it is.

    The number is that in the trail. It is negative for a live event: −1 for the first one that was found.
    """

    at: int
    event: StoredEvent
    trail: str
    number: int


class Archive(NamedTuple):
    """An archive that is open: its log, DuckDB, which reads the catalogue, and the engine that reads the data files."""

    log: DeltaLog
    database: Database
    source: SQLDatabase
    engine: SQLEngine


class ArchiveReader(EventSource):
    """Answers queries from archives and live trails. `open_archive` makes it.

    The methods of `EventSource` may raise `AuditReadError` if the archive is damaged, or a live trail may not be read.

    Args:
        archives: The archives.
        live: The reader of the live trails.
        trails: The live trails.
        scanner: Reads the segments of the live trails, and holds the problems found.
        host: The name of this host in the archives.
        vault: Finds the tokens of clear users, sessions and entry ids.
    """

    def __init__(
        self,
        archives: Sequence[Archive],
        live: TrailReader,
        trails: Sequence[Trail | StreamTrail],
        scanner: SegmentScanner,
        host: str,
        vault: SubjectVault | None = None,
    ) -> None:
        self._vault = vault
        self._archives = archives
        self._host = host
        self._live = live
        self._trails = trails
        self._scanner = scanner

    @property
    def problems(self) -> Mapping[str, int]:
        """The number of problems in the live files read so far, by code."""
        return dict(self._scanner.problems.counts)

    @property
    def examples(self) -> Sequence[Problem]:
        """The first hundred problems: code, path, offset and reason."""
        return tuple(self._scanner.problems.examples)

    @property
    def paths(self) -> Sequence[str]:
        """The archives, and the active files of the live trails."""
        return *(archive.log.storage.root for archive in self._archives), *(trail.path for trail in self._trails)

    def size(self) -> int:
        """Return the number of bytes to read now: of the archives, and of the live trails."""
        snapshots = disjoint([archive.log.require() for archive in self._archives])

        return sum(file.size for snapshot in snapshots for file in snapshot.files.values()) + self._live.size()

    @property
    def complete_since(self) -> dt.datetime | None:
        """The time since which the answers are complete, in UTC; None means since the beginning.

        Days that were pruned, and segments that retention deleted before they were archived, are missing. Trails of other
        hosts are complete as far as they are archived.
        """
        snapshots = [archive.log.require() for archive in self._archives]
        archived = {coverage.name for ranges in joined(snapshots).segments.values() for coverage in ranges}
        times = [snapshot.pruned_before for snapshot in snapshots if snapshot.pruned_before is not None]

        deletions = query_filters.conditions(kind=Kind.TRAIL, operation=RETENTION)

        for event in self.select(deletions, newest_first=False):
            names = event.metadata.get("segments")
            for name in names if isinstance(names, list) else ():
                rolled_at = rollover_time(base_of(name), name) if isinstance(name, str) else None
                if rolled_at is not None and name.removesuffix(".gz").removesuffix(".zst") not in archived:
                    times.append(rolled_at)

        return max(times, default=None)

    def close(self) -> None:
        """Close the connections to the databases."""
        for archive in self._archives:
            archive.source.close()
            archive.database.close()

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def select(
        self, conditions: Conditions, *, newest_first: bool, at_most: int | None = None
    ) -> Iterator[StoredEvent]:
        conditions = self._with_tokens(conditions)
        with self._view() as view:
            for placed in view.select(conditions, newest_first=newest_first, at_most=at_most):
                yield placed.event

    def _with_tokens(self, conditions: Conditions) -> Conditions:
        return conditions if self._vault is None else self._vault.with_tokens(conditions)

    def _paths(self) -> tuple[str, ...]:
        return tuple(self.paths)

    @property
    def complete_until(self) -> dict[str, dt.datetime | None]:
        """The time of the last archived event of each trail, ``host:path``; None for a trail whose live files are read, too."""
        with self._view() as view:
            return view.complete_until()

    def completeness(self, start_time: dt.datetime | None = None, end_time: dt.datetime | None = None) -> Completeness:
        """Return the verdict on whether each trail has every event from *start_time* to *end_time*. O(number of events).

        The evidence is that of `TrailReader.completeness`, in the rows of the archives and in the live files. The time after
        the last archived event of a trail whose live files are not read is in doubt.
        """
        start, end = period_of_times(start_time, end_time)

        with self._view() as view:
            evidence, doubts = view.evidence()

        source = Source(type=type(self).__name__, paths=self._paths())
        verdict = judge_evidence(evidence, source, start, end, self._now(), doubts)

        for code, count in self.problems.items():
            if code not in (*HARMLESS_PROBLEMS, *SEEN_IN_LINES):
                verdict = verdict.with_doubt(Doubt(reason=Reason.PROBLEM, count=count, names=(code,)))

        return verdict

    @contextmanager
    def _view(self) -> Iterator[_View]:
        """Take a state of the archives and the later events of the live trails, for the duration of a ``with`` block."""
        with ExitStack() as stack:
            known = joined([archive.log.require() for archive in self._archives])
            held = [
                trail if isinstance(trail, StreamTrail) else HeldTrail(trail, known, stack, self._host)
                for trail in self._trails
            ]

            snapshots = [archive.log.update().copy() for archive in self._archives]
            covered = joined(snapshots)
            live = [trail.beyond(covered, self._scanner) if isinstance(trail, HeldTrail) else trail for trail in held]
            archived = [
                ArchivedPart(archive.log.storage, archive.database, archive.engine, snapshot)
                for archive, snapshot in zip(self._archives, disjoint(snapshots), strict=True)
            ]

            yield _View(archived, live, self._scanner)

    def _count(self, conditions: Conditions) -> int:
        with self._view() as view:
            return _decided(view.count, self._with_tokens(conditions))

    def _statistics(self, conditions: Conditions) -> dict[str, Any]:
        with self._view() as view:
            return _decided(view.statistics, self._with_tokens(conditions))

    def _statistics_by_user(self, conditions: Conditions) -> dict[str | None, UserStatistics]:
        with self._view() as view:
            return _decided(view.statistics_by_user, self._with_tokens(conditions))

    def _statistics_and_unknown_status(self, conditions: Conditions) -> dict[str, Any]:
        return {**self._statistics(conditions), "unknown_status": count_unknown_status(self.select, conditions)}

    @contextmanager
    def _counted_events(self, conditions: Conditions, zone: dt.tzinfo = dt.UTC) -> Iterator[CountedEvents | None]:
        with self._view() as view:

            def select(
                conditions: Conditions, *, newest_first: bool, at_most: int | None = None
            ) -> Iterator[StoredEvent]:
                found = view.select(self._with_tokens(conditions), newest_first=newest_first, at_most=at_most)
                return (placed.event for placed in found)

            yield CountedEvents(_decided(partial(view.activity, zone), self._with_tokens(conditions)), select)

    def _narrowed(self, conditions: Conditions, *tests: FieldTest) -> Conditions:
        return FieldConditions.of(conditions, AnyTest(tests))

    def _absent_values(
        self, conditions: Conditions, wanted: Mapping[str, Iterable[str]], classes: OperationClasses | None = None
    ) -> list[str]:
        # The values of the metadata are not counted in SQL.
        if not all(name in EXPLAINED for name in wanted):
            return super()._absent_values(conditions, wanted, classes)

        with self._view() as view:
            columns = {name: "operation" if name == "operation_class" else name for name in wanted}
            counted = {name: view.values(column, self._with_tokens(conditions)) for name, column in columns.items()}
            return absent_of_counted(counted, wanted, classes)

    def _explain_absence(self, conditions: Conditions) -> None:
        # Only the redactor of the application has the key of pseudonyms.
        warn_of_pseudonyms(self.select, conditions)

    @with_filter_signature
    def page(
        self, cursor: str | None = None, *, limit: int = 100, newest_first: bool = False, **filters: Unpack[Filters]
    ) -> Page:
        """Return a page of the events that match all *filters*, with the cursor of the next page.

        Args:
            cursor: The cursor of the previous page; None for the first page. A cursor stays valid when events are added, and
                when its event is archived; it is opaque and safe in a URL.
            limit: The largest number of events, at least 1.
            newest_first: The order; the same for all pages.
            filters: The filters; the same for all pages.

        Raises:
            AuditReadError: Also for a stream, which has no pages.
            AuditValueError: Also for a cursor of the other order, or of another form.
        """
        require_integer("limit", limit, least=1)
        if any(isinstance(trail, StreamTrail) for trail in self._trails):
            raise AuditReadError("a stream has no pages: save it to a file")

        conditions = self._with_tokens(query_filters.conditions(self._now, **filters))
        after = None if cursor is None else _decode_cursor(cursor, newest_first)
        next_cursor = None

        with self._view() as view:
            # One event more than the page has shows whether there is a next page.
            found = list(islice(view.select_after(after, conditions, newest_first, limit + 1), limit + 1))
            if len(found) > limit:
                next_cursor = _encode_cursor(view.cursor_after(found[limit - 1], conditions, newest_first))

        return Page([placed.event.event() for placed in found[:limit]], next_cursor)

    @with_filter_signature
    def follow(
        self,
        *,
        since_now: bool = True,
        stop: Callable[[], bool],
        wait: Callable[[float], None],
        **filters: Unpack[Filters],
    ) -> Iterator[AuditEvent]:
        """Yield the events of the live trails that match all *filters* as they are recorded.

        As `TrailReader.follow`; without *since_now*, all existing events come first, those of the archive included.
        """
        conditions = query_filters.conditions(self._now, **filters)
        found = self.follow_matching(conditions, since_now=since_now, stop=stop, wait=wait)

        return (stored.event() for stored in found)

    def follow_matching(
        self, conditions: Conditions, *, since_now: bool, stop: Callable[[], bool], wait: Callable[[float], None]
    ) -> Iterator[StoredEvent]:
        """Yield the events that match ready-made *conditions* as they are recorded. Otherwise as `follow`."""
        if not self._trails:
            raise AuditReadError("an archive is not followed: name the live trail beside it")

        coming = self._live.follow_matching(conditions, since_now=True, stop=stop, wait=wait)

        return coming if since_now else self._existing_and(coming, conditions)

    def _existing_and(self, coming: Iterator[StoredEvent], conditions: Conditions) -> Iterator[StoredEvent]:
        # Following has begun, so no event is missed in between; some are seen twice.
        known: deque[int] = deque(maxlen=_REMEMBERED)

        for event in self.select(conditions, newest_first=False):
            known.append(_content(event))
            yield event

        is_known = frozenset(known).__contains__
        yield from (event for event in coming if not is_known(_content(event)))


class _View:
    """A state of archives, and the live events beyond it."""

    def __init__(
        self, archived: Sequence[ArchivedPart], live: Sequence[LiveTrail | StreamTrail], scanner: SegmentScanner
    ) -> None:
        self._archived = archived
        self._live = live
        self._scanner = scanner
        self._last_ids: dict[LiveTrail, str] = {}
        self._last_lines: dict[LiveTrail, dict[str, bytes]] = {}

    def select(
        self, conditions: Conditions, *, newest_first: bool, at_most: int | None, bound: int | None = None
    ) -> Iterator[_Placed]:
        """Yield the matching events with their places.

        Args:
            conditions: The conditions.
            newest_first: The order.
            at_most: The number of events that are taken at most.
            bound: A place of the archives, before which (in the order of the answer) their files are left out.
        """
        answers = [
            engine.select(snapshot, conditions, newest_first=newest_first, at_most=at_most, bound=bound)
            for _, _, engine, snapshot in self._archived
        ]

        archived = answers[0] if len(answers) == 1 else heapq.merge(*answers, key=_place, reverse=newest_first)
        streams: list[Iterator[_Placed]] = [
            (_Placed(found.at, found.event, found.trail, found.number) for found in archived)
        ]
        streams += [self._of_live(trail, conditions, newest_first, at_most) for trail in self._live]
        if len(streams) == 1:
            return streams[0]

        if newest_first:
            # Events with equal places then come in the reverse of the other direction's order.
            streams.reverse()

        return heapq.merge(*streams, key=lambda placed: placed.at, reverse=newest_first)

    def _of_live(
        self, trail: LiveTrail | StreamTrail, conditions: Conditions, newest_first: bool, at_most: int | None
    ) -> Iterator[_Placed]:
        engine = ScanEngine([trail], self._scanner)
        if isinstance(trail, StreamTrail):
            for event in engine.select(conditions, newest_first=newest_first, at_most=at_most):
                yield _Placed(microseconds(event.timestamp), event, trail.path, -1)
            return

        most = None if at_most is None else at_most + REMEMBERED
        name = _name_of(trail)
        number = 0

        for event in engine.select(conditions, newest_first=newest_first, at_most=most):
            if not self._is_repeated(trail, event):
                at = microseconds(event.timestamp)
                number -= 1
                yield _Placed(at if trail.seed is None else max(at, trail.seed), event, name, number)

    def _is_repeated(self, trail: LiveTrail, event: StoredEvent) -> bool:
        """Return whether *event* repeats one of the last archived lines, as a writer does after a failed fsync."""
        last_id = self._last_ids.get(trail)
        if last_id is None:
            files = (file for part in self._archived for file in part.snapshot.files.values())
            ids = (file.ids[1] for file in files if file.trail in trail.archived_names)
            last_id = self._last_ids[trail] = max(ids, default="")
        # Ids increase with the time, so an event after the archived ones is no repetition.
        if event.event_id > last_id:
            return False

        line = self._lines_before(trail).get(event.event_id)

        return line is not None and decode(line).event() == event.event()

    def _lines_before(self, trail: LiveTrail) -> dict[str, bytes]:
        """Return the last archived lines of a live trail by the ids of their events, in order."""
        found = self._last_lines.get(trail)
        if found is None:
            found = self._last_lines[trail] = {}
            for storage, database, _, snapshot in self._archived:
                for name in sorted(trail.archived_names):
                    found |= last_lines(database, storage, snapshot, name)

        return found

    def _others(self, conditions: Conditions) -> Iterator[Found]:
        """Yield the matching events that SQL does not count, trail by trail."""
        for _, _, engine, snapshot in self._archived:
            yield from engine.undecided(snapshot, conditions)

        for number, trail in enumerate(self._live):
            name = _live_name(number)
            at = _BEFORE_ALL
            for n, placed in enumerate(self._of_live(trail, conditions, False, None)):
                # Each trail keeps its order, also if the clock was set back.
                at = max(at, placed.at)
                yield Found(at, name, n, placed.event)

    def cursor_after(self, placed: _Placed, conditions: Conditions, newest_first: bool) -> _Cursor:
        """Return the cursor of the page that begins after an event, which matches *conditions*."""
        event_id, name, number = placed.event.event_id, placed.trail, placed.number
        if number >= 0:
            return _Cursor(newest_first, event_id, _digest(name), number, 0)

        live = (trail for trail in self._live if isinstance(trail, LiveTrail))
        trail = next(trail for trail in live if _name_of(trail) == name)
        nth = self._occurrence(trail, event_id, -number, conditions, newest_first)

        return _Cursor(newest_first, event_id, _digest(name), self._archived_lines(trail), nth)

    def _occurrence(
        self, trail: LiveTrail, event_id: str, count: int, conditions: Conditions, newest_first: bool
    ) -> int:
        """Return which of the live events with this id the last one is among the first *count* that match *conditions*."""
        with_id = query_filters.conditions(event_id=event_id, kind=[None, *Kind])
        found = self._of_live(trail, with_id, newest_first, None)
        number = sum(1 for _ in islice(found, 2))
        is_repeated = number > 1
        if not is_repeated:
            return number

        before = islice(self._of_live(trail, conditions, newest_first, None), count)

        return sum(1 for other in before if other.event.event_id == event_id)

    def _archived_lines(self, trail: LiveTrail) -> int:
        """Return the number of lines of a trail that are archived."""
        most = 0

        for part in self._archived:
            for ranges in part.snapshot.segments.values():
                for coverage in ranges:
                    if coverage.trail in trail.archived_names:
                        most = max(most, coverage.stop_number)

        return most

    def select_after(
        self, cursor: _Cursor | None, conditions: Conditions, newest_first: bool, at_most: int
    ) -> Iterator[_Placed]:
        """Yield the matching events after the one that *cursor* names; from the first one on without it."""
        if cursor is None:
            return self.select(conditions, newest_first=newest_first, at_most=at_most)

        live = (trail.archived_names for trail in self._live if isinstance(trail, LiveTrail))
        names = [frozenset(map(_digest, of_trail)) for of_trail in live]
        trails = frozenset({cursor.trail}).union(*(found for found in names if cursor.trail in found))

        def is_named(found: Found | _Placed) -> bool:
            if found.event.event_id != cursor.event_id or _digest(found.trail) not in trails:
                return False
            if cursor.nth == 0:
                return found.number == cursor.number
            return found.number < 0 or found.number >= cursor.number

        following = self._after(cursor, conditions, newest_first, is_named)
        if following is None and cursor.nth > 0:
            # Meanwhile the event was archived under the name of another host.
            following = self._after(cursor, conditions, newest_first, lambda f: f.event.event_id == cursor.event_id)

        return iter(()) if following is None else following

    def _after(
        self,
        cursor: _Cursor,
        conditions: Conditions,
        newest_first: bool,
        is_named: Callable[[Found | _Placed], bool],
    ) -> Iterator[_Placed] | None:
        """Return the matching events after the one that *cursor* names; None if there is no such event."""
        by_id = query_filters.conditions(event_id=cursor.event_id, kind=[None, *Kind])
        places = []

        for _, _, engine, snapshot in self._archived:
            archived = engine.select(snapshot, by_id, newest_first=newest_first, at_most=None)
            places += [found.at for found in archived if is_named(found) and conditions.matches(found.event)]

        choose = max if newest_first else min
        bound = choose(places, default=None)
        found = self.select(conditions, newest_first=newest_first, at_most=None, bound=bound)

        nth = max(cursor.nth, 1)
        named = next(islice(filter(is_named, found), nth - 1, None), None)

        # The search has stopped at the event: the others follow.
        return None if named is None else found

    def count(self, conditions: Conditions) -> int:
        """Return the number of matching events."""
        archived = sum(engine.count(snapshot, conditions) for _, _, engine, snapshot in self._archived)

        return archived + sum(1 for trail in self._live for _ in self._of_live(trail, conditions, False, None))

    def statistics(self, conditions: Conditions) -> dict[str, Any]:
        """Return the statistics of the matching events."""
        counts = Counts()

        for archived in self._counts(conditions):
            archived.add_to(counts)

        histogram = Histogram()
        histogram.buckets = counts.buckets
        total_ms = Sum()

        for of_operation in counts.totals_ms.values():
            total_ms.merge(of_operation)

        for found in self._others(conditions):
            event = found.event
            counts.operations[event.operation] += 1
            counts.statuses[event.status] += 1
            counts.users[event.user_id] += 1
            if event.duration_ms is not None:
                histogram.add(event.duration_ms)
                total_ms.add(event.duration_ms)

        average_ms = total_ms.average(histogram.buckets.total())
        first = self._end(conditions, newest_first=False)
        last = self._end(conditions, newest_first=True)

        return summary(counts.operations, counts.statuses, counts.users, histogram, average_ms, first, last)

    def statistics_by_user(self, conditions: Conditions) -> dict[str | None, UserStatistics]:
        """Return the statistics of each user among the matching events."""
        return statistics_by_user(self._counts(conditions), self._others(conditions), self._places)

    def activity(self, zone: dt.tzinfo, conditions: Conditions) -> Activity:
        """Return the counts of the matching events for a report, by the hours and months of *zone*."""
        archived = self._counts(conditions)
        activity = Activity()

        for counts in archived:
            counts.add_outcomes_to(activity, zone)

        def others() -> Iterator[Found]:
            for found in self._others(conditions):
                activity.add(found.event, floor(found.event.timestamp, "hour", zone))
                yield found

        activity.users = users_by_month(archived, others(), self._places, zone)

        return activity

    def values(self, name: str, conditions: Conditions) -> Iterator[tuple[str | None, int]]:
        """Yield the values of a member and how many of the matching events have them, in the order of the first.

        A value may come again with a further number of events. *conditions* have no tests.
        """
        streams: list[Iterator[tuple[Any, ...]]] = [counts.values(name) for counts in self._counts(conditions)]
        for trail in self._live:
            live = self._of_live(trail, conditions, False, None)
            streams.append((placed.at, getattr(placed.event, name), 1) for placed in live)

        for _, value, count in heapq.merge(*streams, key=itemgetter(0)):
            yield value, count

    def _counts(self, conditions: Conditions) -> list[SQLCounts]:
        return [SQLCounts(engine, snapshot, conditions, self._places) for _, _, engine, snapshot in self._archived]

    @cached_property
    def _places(self) -> Places:
        """The places of archived events, and of live ones after them."""
        archived = {file.trail for part in self._archived for file in part.snapshot.files.values()}

        return Places([*archived, *map(_live_name, range(len(self._live)))])

    def _live_by_name(self) -> dict[str, LiveTrail]:
        live = (trail for trail in self._live if isinstance(trail, LiveTrail))
        return {name: trail for trail in live for name in trail.archived_names}

    def complete_until(self) -> dict[str, dt.datetime | None]:
        """As `ArchiveReader.complete_until`."""
        live = self._live_by_name()
        highs: dict[str, int] = {}

        for _, _, _, snapshot in self._archived:
            for trail, high in snapshot.highs.items():
                highs[trail] = max(high, highs.get(trail, high))

        return {trail: None if trail in live else time_of(high) for trail, high in sorted(highs.items())}

    def evidence(self) -> tuple[list[TrailEvidence], list[Doubt]]:
        """Return the evidence of each trail, and the doubts about streams."""
        live = self._live_by_name()
        names = {
            found.trail for part in self._archived for ranges in part.snapshot.segments.values() for found in ranges
        }
        evidence = []

        for name in sorted(names):
            trail = live.get(name)
            before = () if trail is None else tuple(self._lines_before(trail).values())
            evidence.append(archived_evidence(name, self._archived, trail, before))

        doubts = []
        archived_live = [live[name] for name in names if name in live]

        for other in self._live:
            if isinstance(other, StreamTrail) and not other.is_seekable:
                doubts.append(Doubt(reason=Reason.READ_ONCE, trail=other.path))
            elif other not in archived_live:
                evidence.append(read_evidence(other))

        return evidence, doubts

    def _end(self, conditions: Conditions, *, newest_first: bool) -> dt.datetime | None:
        found = self.select(conditions, newest_first=newest_first, at_most=1)
        return next((placed.event.timestamp for placed in found), None)


def _decided(answer: Callable[[Conditions], Answer], conditions: Conditions) -> Answer:
    """Return an answer; if a database cannot parse the metadata of a row, that of Python, which then parses all of it."""
    while True:
        # An engine says so at most once, as it parses no metadata in SQL from then on.
        with suppress(UndecidedError):
            return answer(conditions)


def _content(event: StoredEvent) -> int:
    """Return a hash of *event*: another event may have its id."""
    ids = event.event_id, event.user_id, event.session_id, tuple(event.entry_ids)
    outcome = event.status, event.error_message, event.duration_ms

    return hash((ids, event.timestamp, event.operation, event.kind, outcome, to_json(event.metadata)))


def _place(found: Found) -> Place:
    return found.at, found.trail, found.number


def _live_name(number: int) -> str:
    """Return what a live trail is called in the order: its events follow archived ones with the same key."""
    return f"{_AFTER_ARCHIVE}{number:06}"


def _name_of(trail: LiveTrail) -> str:
    """Return the name of a live trail in cursors, one of those that it has in archives."""
    return max(trail.archived_names, default=trail.path)


def _digest(name: str) -> str:
    return blake2b(os.fsencode(name), digest_size=9).hexdigest()


def _encode_cursor(cursor: _Cursor) -> str:
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).decode().rstrip("=")


def _decode_cursor(cursor: Any, newest_first: bool) -> _Cursor:
    if not isinstance(cursor, str):
        raise AuditTypeError(f"cursor={cursor!r}: expected the cursor of a page or None, got {type(cursor).__name__}")

    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        packed = base64.b64decode(padded, b"-_", validate=True)
        decoded = msgspec.msgpack.decode(packed, type=_Cursor)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        raise AuditValueError(f"cursor={cursor!r}: expected the cursor of a page, got other text") from None

    if decoded.newest_first != newest_first:
        raise AuditValueError(f"cursor={cursor!r}: expected a cursor of the same order, got one of the other order")

    return decoded
