"""`EventSource`: the queries that a handler, a logger and a trail answer alike."""

from __future__ import annotations

import datetime as dt
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Unpack, cast

from structlog_audit._validation import require_integer
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.conversion import has_unknown_status
from structlog_audit.events.event import INTENT_ID, AuditEvent, Identifier, Kind, rfc3339
from structlog_audit.events.operation_classes import OperationClasses
from structlog_audit.exceptions import AuditTypeError
from structlog_audit.export import export
from structlog_audit.query.completeness import Cause, Completeness, Doubt, Missing, Reason, Source, begins_before
from structlog_audit.query.filters import ORDINARY, Conditions, Filters, conditions, with_filter_signature
from structlog_audit.query.statistics import (
    Statistics,
    UserStatistics,
    statistics,
    statistics_by_user,
    user_statistics,
)

if TYPE_CHECKING:
    from structlog_audit.formats.spreadsheet import Cells
    from structlog_audit.query.activity import CountedEvents
    from structlog_audit.query.field_tests import FieldTest

_COUNTED = {"lost": Cause.LOST, "raised": Cause.RAISED, "pending": Cause.PENDING}
"""Counters of a handler that are zero if nothing is missing."""

_DAMAGE = frozenset(("truncated", "replaced", "quarantine"))
"""The operations of trail events that report damage to the files."""

HARMLESS_PROBLEMS = frozenset(("unfinished", "bom", "repeated"))
"""The codes of problems of files that lose nothing of an acknowledged event."""


class EventSource:
    """Answers queries about events. `structlog_audit.query.filters` defines the filters.

    A method that takes filters raises `AuditTypeError` for an unknown filter or a value of a wrong type, and
    `AuditValueError` for a reversed range or an unknown status or kind.

    A subclass implements `select` and `complete_since`; every other method is built on them.
    """

    @abstractmethod
    def select(
        self, conditions: Conditions, *, newest_first: bool, at_most: int | None = None
    ) -> Iterator[StoredEvent]:
        """Yield the events that match *conditions*, in the order of commit or its reverse.

        Args:
            conditions: The filters, as `structlog_audit.query.filters.conditions` returns them.
            newest_first: The order.
            at_most: The number of events that the caller will read at most; None if it may read all.
        """

    @property
    @abstractmethod
    def complete_since(self) -> dt.datetime | None:
        """The time, in UTC, since which answers are complete; None means since the beginning."""

    def completeness(self, start_time: dt.datetime | None = None, end_time: dt.datetime | None = None) -> Completeness:
        """Return the verdict on whether the source has every event from *start_time* to *end_time*, with its evidence.

        A handler judges the events of its own process, by `complete_since`, gap events and the counters of its lifetime.

        Args:
            start_time, end_time: The half-open period; None is the beginning of the source, and an open end.
        """
        start, end = period_of_times(start_time, end_time)
        missing: list[Missing] = []
        source = self._description()
        doubts = list(self._doubts(source, start, end))

        for event in self.select(conditions(kind=[Kind.GAP, Kind.TRAIL]), newest_first=False):
            time = event.timestamp
            if event.kind == Kind.GAP:
                missing.append(Missing(cause=Cause.GAP, count=lost_count(event.metadata), after=time, before=time))
            elif event.operation in _DAMAGE:
                doubts.append(Doubt(reason=Reason.DAMAGE, count=1, names=(event.operation,), since=time, until=time))

        missing += self._counted_losses(sum(gap.count or 0 for gap in missing))
        return Completeness.of(source, start, end, missing, doubts)

    def _description(self) -> Source:
        """Return the description of this source."""
        any_kind = conditions(kind=[None, *Kind])
        oldest = list(islice(self.select(any_kind, newest_first=False, at_most=1), 1))
        newest = list(islice(self.select(any_kind, newest_first=True, at_most=1), 1))
        return Source(
            type=type(self).__name__,
            paths=self._paths(),
            hosts=(os.uname().nodename,),
            first_event=oldest[0].timestamp if oldest else None,
            last_event=newest[0].timestamp if newest else None,
        )

    def users_without_events(self, users: Iterable[str]) -> tuple[str, ...]:
        """Return those of *users* of whom the source has no event, in whatever period: their names may be misspelt."""
        unknown = []
        for user in users:
            of_user = conditions(user_id=user, kind=[None, Kind.INTENT])
            found = self.select(of_user, newest_first=True, at_most=1)
            if next(iter(found), None) is None:
                unknown.append(user)
        return tuple(unknown)

    def _paths(self) -> tuple[str, ...]:
        """Return the paths of the files that the events are written to or read from."""
        return ()

    def _counted_losses(self, in_gaps: int) -> Iterator[Missing]:
        """Yield the losses of the handler's lifetime, except those that gap events state: *in_gaps* events."""
        counters = dict(self._counters())
        counters["lost"] = counters.get("lost", 0) - in_gaps
        for name, cause in _COUNTED.items():
            if counters.get(name, 0) > 0:
                yield Missing(cause=cause, count=counters[name])

    def _doubts(self, source: Source, start: dt.datetime | None, end: dt.datetime | None) -> Iterator[Doubt]:
        now = self._now()
        if end is not None and end > now:
            yield Doubt(reason=Reason.NOT_OVER, since=now)

        since = self.complete_since
        if since is not None:
            yield Doubt(reason=Reason.BUFFER, until=since)
        elif source.first_event is None and start is not None:
            yield Doubt(reason=Reason.NO_EVENTS)
        elif source.first_event is not None and begins_before(start, end, source.first_event):
            yield Doubt(reason=Reason.BEFORE_FIRST, until=source.first_event)
        for code, count in self.problems.items():
            if code not in HARMLESS_PROBLEMS:
                yield Doubt(reason=Reason.PROBLEM, count=count, names=(code,))

    @property
    def problems(self) -> Mapping[str, int]:
        """The number of problems found in the data behind the answers, by code; empty without problems."""
        return {}

    def _counters(self) -> dict[str, int]:
        """Return the statistics beyond those of the events themselves."""
        return {}

    def _explain_absence(self, conditions: Conditions) -> None:
        """Warn the caller of a query if there is a known reason why *conditions* match no event."""

    def _now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    @with_filter_signature
    def query_events(
        self, *, newest_first: bool = True, limit: int | None = None, offset: int = 0, **filters: Unpack[Filters]
    ) -> list[AuditEvent]:
        """Return the events that match all *filters*, newest first by default.

        Args:
            newest_first: Whether the order is the reverse of the order of commit.
            limit: The maximum number of events; None means all.
            offset: The number of matching events to skip first.
            filters: The filters; without any, all application events match.
        """
        require_integer("offset", offset, least=0)
        stop = None if limit is None else offset + require_integer("limit", limit, least=0)

        wanted = conditions(self._now, **filters)
        found = self.select(wanted, newest_first=newest_first, at_most=stop)
        events = [stored.event() for stored in islice(found, offset, stop)]
        if not events and stop != 0:
            self._explain_absence(wanted)
        return events

    @with_filter_signature
    def iter_events(self, **filters: Unpack[Filters]) -> Iterator[AuditEvent]:
        """Yield the events that match all *filters*, oldest first."""
        found = self.select(conditions(self._now, **filters), newest_first=False)
        return (stored.event() for stored in found)

    @with_filter_signature
    def count_events(self, **filters: Unpack[Filters]) -> int:
        """Return the number of events that match all *filters*."""
        wanted = conditions(self._now, **filters)
        count = self._count(wanted)
        if not count:
            self._explain_absence(wanted)
        return count

    def _count(self, conditions: Conditions) -> int:
        """Return the number of events that match *conditions*."""
        return sum(1 for _ in self.select(conditions, newest_first=False))

    def get_event(self, event_id: str) -> AuditEvent | None:
        """Return the event with this id, of any kind, or None."""
        any_kind = conditions(event_id=event_id, kind=[None, *Kind])
        for stored in self.select(any_kind, newest_first=True, at_most=1):
            return stored.event()
        return None

    def open_intents(self) -> list[AuditEvent]:
        """Return the intents without an outcome, oldest first. O(n).

        Their operations are under way, or were ended by a crash.
        """
        intents = {intent.event_id: intent for intent in self.iter_events(kind=Kind.INTENT)}
        if not intents:
            return []

        for event in self.select(ORDINARY, newest_first=False):
            intent_id = event.metadata.get(INTENT_ID)
            # An application may use the name for any other value.
            if isinstance(intent_id, str):
                intents.pop(intent_id, None)
        return list(intents.values())

    @with_filter_signature
    def get_statistics(self, **filters: Unpack[Filters]) -> Statistics:
        """Return the statistics of the events that match all *filters*.

        The keys are those of `structlog_audit.query.statistics.statistics`, and ``complete_since``. A handler adds the
        counters of its lifetime: ``accepted recorded pending raised lost evicted``.
        """
        found = self._statistics(conditions(self._now, **filters))
        members = {**found, "complete_since": self.complete_since, **self._counters()}
        return cast("Statistics", members)

    def _statistics(self, conditions: Conditions) -> dict[str, Any]:
        """Return the statistics of the events that match *conditions*."""
        return statistics(self.select(conditions, newest_first=False))

    def _statistics_and_unknown_status(self, conditions: Conditions) -> dict[str, Any]:
        """Return the statistics of the events that match *conditions*, and ``unknown_status``, in one pass.

        ``unknown_status`` is the number of those whose status states neither success nor failure.
        """
        unknown_status = 0

        def counted() -> Iterator[StoredEvent]:
            nonlocal unknown_status
            for event in self.select(conditions, newest_first=False):
                unknown_status += has_unknown_status(event.metadata)
                yield event

        found = statistics(counted())
        return {**found, "unknown_status": unknown_status}

    @contextmanager
    def _counted_events(self, conditions: Conditions, zone: dt.tzinfo = dt.UTC) -> Iterator[CountedEvents | None]:
        """Provide the counts of the events that match *conditions*, by hours and months of *zone*, for a ``with`` block.

        None means that the source must read each event for them.
        """
        yield None

    def _narrowed(self, conditions: Conditions, *tests: FieldTest) -> Conditions:
        """Return *conditions*, and that one of *tests* passes if the source then reads fewer events.

        The caller ignores the events that pass none of them.
        """
        return conditions

    def _absent_values(
        self, conditions: Conditions, wanted: Mapping[str, Iterable[str]], classes: OperationClasses | None = None
    ) -> list[str]:
        """Return a sentence for each of the values *wanted*, by member, that no event has that matches *conditions*."""
        # Imported lazily: it delays the import of the library.
        from structlog_audit.query.absent_values import absent_values

        return absent_values(self.select(conditions, newest_first=False), wanted, classes)

    @with_filter_signature
    def get_statistics_by_user(self, **filters: Unpack[Filters]) -> dict[str | None, UserStatistics]:
        """Return the statistics of each user among the events that match all *filters*; the key None is for no user.

        The values are those of `get_user_statistics`. One pass; memory grows with the number of users.
        """
        wanted = conditions(self._now, **filters)
        found = self._statistics_by_user(wanted)
        if not found:
            self._explain_absence(wanted)
        return found

    def _statistics_by_user(self, conditions: Conditions) -> dict[str | None, UserStatistics]:
        """Return the statistics of each user among the events that match *conditions*."""
        return statistics_by_user(self.select(conditions, newest_first=False))

    def get_user_statistics(self, user_id: Identifier | None) -> UserStatistics:
        """Return the statistics of one user, with the keys of `structlog_audit.query.statistics.user_statistics`.

        None selects the events without a user.
        """
        if isinstance(user_id, (list, tuple, set, frozenset)):
            raise AuditTypeError(f"user_id={user_id!r}: expected one user, got {type(user_id).__name__}")
        wanted = conditions(user_id=user_id)
        found = user_statistics(self.select(wanted, newest_first=False))
        if not found["total_operations"]:
            self._explain_absence(wanted)
        return found

    @with_filter_signature
    def export_to_file(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        columns: Sequence[str] | None = None,
        cells: Cells = "safe",
        full_text: bool = False,
        **filters: Unpack[Filters],
    ) -> int:
        """Write the events that match all *filters* to *path*, oldest first, and return their number.

        Args:
            path: The file. Missing folders are created; an existing file is replaced once the new one is complete.
            format: ``json``, ``jsonl``, ``csv``, ``sqlite``, or the format of another system (`structlog_audit.formats`):
                ``ecs``, ``ocsf``, ``cadf``, ``cef``, ``otlp``. None selects it by the suffix of *path*.
            columns: For ``csv``, the columns in their order: names of members, or ``metadata.KEY``. None selects all members.
            cells: For ``csv``: ``safe`` from formulas, ``text`` (nor converted to numbers and dates) or ``raw``.
            full_text: For ``sqlite``, whether the database gets a full-text index.
            filters: The filters; without any, all application events are exported.

        Raises:
            AuditValueError: Also if the format, a column or *cells* is unknown, or *path* is a folder or not a regular file.
            OSError: The system could not write the file; the previous file is unchanged.
        """
        wanted = conditions(self._now, **filters)
        return export(
            self.select(wanted, newest_first=False),
            path,
            format=format,
            columns=columns,
            cells=cells,
            full_text=full_text,
            inform=lambda: export_information(self.completeness(wanted.start_time, wanted.end_time), filters),
            now=self._now(),
        )

    def export_events(
        self,
        events: Iterable[AuditEvent],
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        columns: Sequence[str] | None = None,
        cells: Cells = "safe",
        full_text: bool = False,
    ) -> int:
        """Write *events* to *path* in their order and return their number. Otherwise as `export_to_file`."""
        return export(events, path, format=format, columns=columns, cells=cells, full_text=full_text, now=self._now())


def export_information(verdict: Completeness, filters: Mapping[str, Any], zone: dt.tzinfo = dt.UTC) -> dict[str, Any]:
    """Return the facts of a source about an export: itself, the period, the *filters* and the *verdict* on completeness.

    Sentences have the times of *zone*.
    """
    source = verdict.source.sentence()
    # The sentence of trails names their files.
    if verdict.source.paths and not verdict.source.segments:
        source = f"{', '.join(verdict.source.paths)}: {source}"
    return {
        "source": source,
        "period_start": None if verdict.start is None else rfc3339(verdict.start),
        "period_end": None if verdict.end is None else rfc3339(verdict.end),
        "filters": dict(filters),
        "completeness": verdict.verdict.value,
        "completeness_report": verdict.to_dict(zone),
    }


def period_of_times(
    start_time: dt.datetime | None, end_time: dt.datetime | None
) -> tuple[dt.datetime | None, dt.datetime | None]:
    """Return the bounds of a period in UTC.

    Raises:
        AuditTypeError: A bound is not a datetime.
        AuditValueError: The period is reversed.
    """
    bounds = conditions(start_time=start_time, end_time=end_time)
    return bounds.start_time, bounds.end_time


def lost_count(metadata: Mapping[str, Any]) -> int | None:
    """Return the number of lost events in the metadata of a gap event, or None if it has no valid number."""
    lost = metadata.get("lost")
    return lost if isinstance(lost, int) and lost > 0 else None
