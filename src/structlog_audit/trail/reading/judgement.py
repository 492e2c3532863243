"""The verdict of completeness for a period, from the evidence of trails.

**Guarantees**

* Missing numbers are a loss, unless a ``retention`` event shows that this library deleted the segments that had them. Then the
  time before is in doubt.
* A writer without ``closed`` as its last line leaves the time after that line in doubt; so does the end of a trail. Several
  trails are judged one by one, and each loss and doubt names its own.
* A verified seal is further evidence, which `Completeness.with_seals` adds: verifying needs keys, and `integrity/`.
* A loss that appears in one reading only is not reported: files changed while they were read (`steady_evidence`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from structlog_audit.query.completeness import (
    Cause,
    Completeness,
    Doubt,
    Missing,
    Reason,
    SegmentRange,
    Source,
    begins_before,
)
from structlog_audit.trail.reading.discovery import AnyTrail, StreamTrail
from structlog_audit.trail.reading.evidence import Hole, Place, Statement, TrailEvidence, read_evidence
from structlog_audit.trail.segment_names import SegmentOrder, rollover_time

MOST_READINGS = 5
"""The number of readings of a trail that changes, until two show the same losses."""

_Files = list[tuple[str, int]]
"""The paths and sizes of the segments of a trail."""

_Loss = tuple[Cause, str | None, int | None, dt.datetime | None]
"""The identity of a loss, even after its segments got other names."""


def judge_trails(
    trails: Sequence[AnyTrail], source_type: str, start: dt.datetime | None, end: dt.datetime | None, now: dt.datetime
) -> Completeness:
    """Return the verdict for the period from *start* to *end* of *trails*. O(bytes).

    Args:
        trails: The trails.
        source_type: The name of the class that reads them.
        start, end: The half-open period; None is open.
        now: The present time.

    Raises:
        AuditReadError: A trail cannot be read.
    """
    read_once = [trail for trail in trails if isinstance(trail, StreamTrail) and not trail.is_seekable]
    evidence = [steady_evidence(trail) for trail in trails if trail not in read_once]
    doubts = [Doubt(reason=Reason.READ_ONCE, trail=trail.path) for trail in read_once]
    paths = tuple(trail.path for trail in trails)

    return judge_evidence(evidence, Source(type=source_type, paths=paths), start, end, now, doubts)


def judge_evidence(
    all_evidence: Sequence[TrailEvidence],
    source: Source,
    start: dt.datetime | None,
    end: dt.datetime | None,
    now: dt.datetime,
    doubts: Iterable[Doubt] = (),
) -> Completeness:
    """Return the verdict for the period from *start* to *end* that the evidence of each trail shows.

    Args:
        all_evidence: The evidence of each trail.
        source: The source; its hosts, segments and times are taken from the evidence.
        start, end: The half-open period; None is open.
        now: The present time.
        doubts: Further doubts.
    """
    missing: list[Missing] = []
    all_doubts = list(doubts)
    if end is not None and end > now:
        all_doubts.insert(0, Doubt(reason=Reason.NOT_OVER, since=now))

    for evidence in all_evidence:
        judgement = _Judgement(evidence)
        missing += judgement.missing()
        all_doubts += judgement.doubts(start, end)

    return Completeness.of(_described(source, all_evidence), start, end, missing, all_doubts)


def steady_evidence(trail: AnyTrail) -> TrailEvidence:
    """Return evidence of *trail* whose losses do not stem from changes during the reading.

    A trail that shows no loss, or did not change, is read once. Otherwise it is read until two readings show the same losses.
    """
    files = _files(trail)
    evidence = read_evidence(trail)
    losses = _losses(evidence)

    for _ in range(MOST_READINGS - 1):
        if not losses and "vanished" not in evidence.problems and evidence.has_active_segment:
            break

        files_before, files = files, _files(trail)
        if files == files_before:
            break

        evidence = read_evidence(trail)
        losses_before, losses = losses, _losses(evidence)
        if losses == losses_before:
            break

    return evidence


def _files(trail: AnyTrail) -> _Files:
    with trail.segments() as segments:
        return [(segment.path, segment.size) for segment in segments]


def _losses(evidence: TrailEvidence) -> list[_Loss]:
    missing = _Judgement(evidence).missing()
    return [(item.cause, item.writer, item.count, item.after) for item in missing]


class _Horizon(NamedTuple):
    """The part of a trail that retention left.

    Attributes:
        pruned: The orders of the deleted segments.
        since: The time from which the evidence is whole.
        lost_segment: The statement about the oldest kept segment, if that one is missing.
    """

    pruned: frozenset[SegmentOrder]
    since: dt.datetime | None
    lost_segment: Statement | None


class _Judgement:
    """The losses and doubts that the evidence of one trail shows."""

    def __init__(self, evidence: TrailEvidence) -> None:
        self._evidence = evidence
        self._base = evidence.path.rpartition("/")[2]
        self._path = evidence.path
        self._horizon = self._find_horizon()

    def missing(self) -> Iterator[Missing]:
        """Yield the losses, those of sequence numbers first."""
        yield from self._holes()
        yield from self._beginnings()
        yield from self._predecessors()

        lost = self._horizon.lost_segment
        if lost is not None:
            yield Missing(
                cause=Cause.SEGMENT,
                count=None,
                trail=self._path,
                after=self._horizon.since,
                before=lost.time,
                segment_after=lost.value,
            )

        for statement in self._evidence.gaps:
            is_number = isinstance(statement.value, int) and statement.value > 0
            count = statement.value if is_number else None
            yield self._stated(Cause.GAP, statement, count)

        for statement in self._evidence.raised:
            yield self._stated(Cause.RAISED, statement, statement.value)

    def _stated(self, cause: Cause, statement: Statement, count: int | None) -> Missing:
        time = statement.time
        return Missing(cause=cause, count=count, trail=self._path, after=time, before=time)

    def _holes(self) -> Iterator[Missing]:
        further = self._evidence.further_holes

        for hole in self._evidence.holes:
            count = hole.count - self._refused_between(hole)
            if count and not self._is_explained(hole.before.segment, hole.after.segment, hole.before.time):
                yield self._numbers(hole.writer, count, hole.before, hole.after)

        if further.count:
            yield Missing(
                cause=Cause.NUMBERS,
                count=further.count,
                trail=self._path,
                writer="(several)",
                after=further.since,
                before=further.until,
            )

    def _refused_between(self, hole: Hole) -> int:
        """Return how many of the missing numbers belong to events that gap events name, and count already."""
        low, high = hole.before.number, hole.after.number
        refused = (number for writer, number in self._evidence.refused if writer == hole.writer)

        return sum(low < number < high and number not in hole.found for number in refused)

    def _beginnings(self) -> Iterator[Missing]:
        for writer_id, writer in self._evidence.writers.items():
            count = writer.first.number
            if count and not self._is_explained(None, writer.first.segment, None):
                yield self._numbers(writer_id, count, None, writer.first)

    def _numbers(self, writer_id: str, count: int, before: Place | None, after: Place) -> Missing:
        return Missing(
            cause=Cause.NUMBERS,
            count=count,
            trail=self._path,
            writer=writer_id,
            host=self._evidence.writers[writer_id].host,
            after=None if before is None else before.time,
            before=after.time,
            segment_before=None if before is None else self._evidence.name_of(before.segment),
            segment_after=self._evidence.name_of(after.segment),
        )

    def _predecessors(self) -> Iterator[Missing]:
        """Yield the lines that ``opened`` events name as the last ones before them, and that are not there."""
        for writer_id, statement in self._evidence.predecessors.items():
            writer = self._evidence.writers.get(writer_id)
            highest = -1 if writer is None else writer.number
            before = None if writer is None else writer.segment
            time = None if writer is None else writer.time
            if statement.value <= highest or self._is_explained(before, statement.segment, time):
                continue

            yield Missing(
                cause=Cause.PREDECESSOR,
                count=statement.value - highest,
                is_least=True,
                trail=self._path,
                writer=writer_id,
                host=None if writer is None else writer.host,
                after=None if writer is None else writer.time,
                before=statement.time,
                segment_before=None if before is None else self._evidence.name_of(before),
                segment_after=self._evidence.name_of(statement.segment),
            )

    def _is_explained(self, before: int | None, after: int, time: dt.datetime | None) -> bool:
        """Return whether lines between two segments, by index, after *time*, may have been left out on purpose."""
        pruned_before = self._evidence.pruned_before
        if pruned_before is not None and (time is None or time < pruned_before):
            return True

        if before == after:
            return False

        if not self._evidence.is_whole:
            return True

        lower = (-1, 0) if before is None else self._order(before)
        upper = self._order(after)

        return any(lower < order < upper for order in self._horizon.pruned)

    def _order(self, segment: int) -> SegmentOrder:
        return self._evidence.segments[segment].order

    def _find_horizon(self) -> _Horizon:
        evidence = self._evidence
        existing = {segment.order for segment in evidence.segments}
        pruned: dict[SegmentOrder, Statement] = {}

        for name, statement in evidence.pruned.items():
            rolled_at = rollover_time(self._base, name)
            if rolled_at is not None and (1, rolled_at) not in existing:
                pruned[(1, rolled_at)] = statement

        newest = max(pruned, default=None)
        if newest is None:
            return _Horizon(frozenset(), None, None)

        remaining = [index for index, segment in enumerate(evidence.segments) if segment.order > newest]
        oldest = remaining[0] if remaining else None
        rolled_at = newest[1] if isinstance(newest[1], dt.datetime) else None
        orders = frozenset(pruned)

        kept = pruned[newest]
        kept_at = rollover_time(self._base, kept.value) if isinstance(kept.value, str) else None
        if kept_at is not None:
            # A segment that retention kept, and did not delete later, must be there.
            is_there = (1, kept_at) in existing
            return _Horizon(orders, rolled_at, None if is_there else kept)

        # Retention kept the active segment only. It is the oldest one now if it has the event that states so.
        if kept.value == self._base and kept.segment == oldest:
            return _Horizon(orders, rolled_at, None)

        first = None if oldest is None else evidence.first_of_segment.get(oldest)

        return _Horizon(orders, first or rolled_at, None)

    def doubts(self, start: dt.datetime | None, end: dt.datetime | None) -> Iterator[Doubt]:
        """Yield the doubts. Those about the ends of the trail depend on the period from *start* to *end*."""
        evidence = self._evidence
        if evidence.first is None and not evidence.problems:
            yield self._doubt(Reason.NO_EVENTS)

        if not evidence.is_whole:
            yield self._doubt(Reason.PARTIAL_SOURCE, names=(self._segment_names(),))
        elif evidence.is_archived:
            yield self._doubt(Reason.NOT_ARCHIVED, since=evidence.last)
        elif not evidence.has_active_segment:
            yield self._doubt(Reason.NO_ACTIVE_SEGMENT, since=evidence.last)

        if evidence.pruned_before is not None:
            yield self._doubt(Reason.ARCHIVE_PRUNED, until=evidence.pruned_before)

        if self._horizon.pruned:
            yield self._doubt(Reason.PRUNED, until=self._horizon.since)
        elif evidence.first is not None and begins_before(start, end, evidence.first):
            yield self._doubt(Reason.BEFORE_FIRST, until=evidence.first)

        yield from self._doubts_after(end)
        yield from self._doubtful_lines()

    def _segment_names(self) -> str:
        segments = self._evidence.segments
        return self._evidence.name_of(0) if len(segments) == 1 else f"{len(segments)} segments"

    def _doubts_after(self, end: dt.datetime | None) -> Iterator[Doubt]:
        """Yield the doubts about the time after the last lines."""
        evidence = self._evidence
        if evidence.last is None:
            return

        open_writers = {}

        for writer_id, writer in evidence.writers.items():
            if not writer.is_closed and (end is None or writer.time < end):
                open_writers[writer_id] = writer.time

        if open_writers:
            names = tuple(sorted(open_writers, key=lambda name: (open_writers[name], name)))
            earliest = min(open_writers.values())
            yield self._doubt(Reason.NOT_CLOSED, count=len(names), names=names, since=earliest)
        else:
            yield self._doubt(Reason.AFTER_LAST, since=evidence.last)

    def _doubtful_lines(self) -> Iterator[Doubt]:
        evidence = self._evidence
        tallies = {
            Reason.NO_NUMBER: evidence.unnumbered,
            Reason.REPEATED_NUMBER: evidence.repeated,
            Reason.MOVED: evidence.moved,
        }

        for reason, tally in tallies.items():
            if tally.count:
                yield self._doubt(reason, count=tally.count, since=tally.since, until=tally.until)

        groups = {Reason.PROBLEM: evidence.problems, Reason.DAMAGE: evidence.damage}

        for reason, by_code in groups.items():
            for code, tally in by_code.items():
                yield self._doubt(reason, count=tally.count, names=(code,), since=tally.since, until=tally.until)

    def _doubt(
        self,
        reason: Reason,
        *,
        count: int = 0,
        names: tuple[str, ...] = (),
        since: dt.datetime | None = None,
        until: dt.datetime | None = None,
    ) -> Doubt:
        return Doubt(reason=reason, count=count, names=names, trail=self._path, since=since, until=until)


def _described(source: Source, all_evidence: Sequence[TrailEvidence]) -> Source:
    hosts = {writer.host for evidence in all_evidence for writer in evidence.writers.values() if writer.host}
    segments = []

    for evidence in all_evidence:
        names = [evidence.name_of(index) for index in range(len(evidence.segments))]
        first, last = (names[0], names[-1]) if names else (None, None)
        segments.append(SegmentRange(trail=evidence.path, number=len(names), first=first, last=last))

    first_times = [evidence.first for evidence in all_evidence if evidence.first is not None]
    last_times = [evidence.last for evidence in all_evidence if evidence.last is not None]

    return replace(
        source,
        hosts=tuple(sorted(hosts)),
        segments=tuple(segments),
        first_event=min(first_times, default=None),
        last_event=max(last_times, default=None),
    )
