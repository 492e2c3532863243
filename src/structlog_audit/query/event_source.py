"""The questions that a handler, a logger and a trail answer alike."""

from __future__ import annotations

import datetime as dt
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Unpack

from structlog_audit._validation import require_integer
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import INTENT_ID, AuditEvent, Kind
from structlog_audit.exceptions import AuditTypeError
from structlog_audit.export import export
from structlog_audit.query.filters import ORDINARY, Conditions, Filters, conditions, with_filter_signature
from structlog_audit.query.statistics import statistics, user_statistics


class EventSource:
    """Answers questions about events. `structlog_audit.query.filters` says what the filters mean.

    Every method that takes filters raises `AuditTypeError` for an unknown one or a value of a type that it can't have, and
    `AuditValueError` for a reversed range or an unknown status or kind.
    """

    @abstractmethod
    def select(self, asked: Conditions, *, newest_first: bool, at_most: int | None = None) -> Iterator[StoredEvent]:
        """The events that match *asked*, in the order of commit or against it; *at_most* so many will be taken."""

    @property
    @abstractmethod
    def complete_since(self) -> dt.datetime | None:
        """From when on the answers are complete, in UTC; None means since the beginning."""

    @property
    def problems(self) -> Mapping[str, int]:
        """What was wrong in what the answers come from, counted by its code; empty if nothing was."""
        return {}

    def _counters(self) -> dict[str, int]:
        """What the statistics tell beyond the events themselves."""
        return {}

    def _now(self) -> dt.datetime:
        return dt.datetime.now(dt.UTC)

    @with_filter_signature
    def query_events(
        self, *, newest_first: bool = True, limit: int | None = None, offset: int = 0, **filters: Unpack[Filters]
    ) -> list[AuditEvent]:
        """The events that match all *filters*, in the order of commit, the newest first unless told otherwise.

        Args:
            newest_first: The order.
            limit: How many at most; None means all.
            offset: How many to leave out first.
            filters: What is asked for; none means every ordinary event.
        """
        require_integer("offset", offset, least=0)
        stop = None if limit is None else offset + require_integer("limit", limit, least=0)
        found = self.select(conditions(**filters), newest_first=newest_first, at_most=stop)
        return [stored.event() for stored in islice(found, offset, stop)]

    @with_filter_signature
    def iter_events(self, **filters: Unpack[Filters]) -> Iterator[AuditEvent]:
        """The events that match all *filters*, one by one, the oldest first."""
        found = self.select(conditions(**filters), newest_first=False)
        return (stored.event() for stored in found)

    @with_filter_signature
    def count_events(self, **filters: Unpack[Filters]) -> int:
        """How many events match all *filters*."""
        return sum(1 for _ in self.select(conditions(**filters), newest_first=False))

    def get_event(self, event_id: str) -> AuditEvent | None:
        """The event with this id, of whatever kind, or None."""
        asked = conditions(event_id=event_id, kind=[None, *Kind])
        return next((stored.event() for stored in self.select(asked, newest_first=True, at_most=1)), None)

    def open_intents(self) -> list[AuditEvent]:
        """The intents without an outcome, the oldest first: of operations that are under way, or ended by a crash. O(n)."""
        intents = {found.event_id: found for found in self.iter_events(kind=Kind.INTENT)}
        if intents:
            for event in self.select(ORDINARY, newest_first=False):
                intent_id = event.metadata.get(INTENT_ID)
                if isinstance(intent_id, str):  # an application may mean something else by that name
                    intents.pop(intent_id, None)
        return list(intents.values())

    @with_filter_signature
    def get_statistics(self, **filters: Unpack[Filters]) -> dict[str, Any]:
        """The statistics of the events that match all *filters*.

        The keys are those of `structlog_audit.query.statistics.statistics`, and ``complete_since``. A handler adds the counters
        of its lifetime: ``accepted recorded pending raised lost evicted``.
        """
        return {**self._statistics(conditions(**filters)), "complete_since": self.complete_since, **self._counters()}

    def _statistics(self, asked: Conditions) -> dict[str, Any]:
        """The statistics of the events that match *asked*."""
        return statistics(self.select(asked, newest_first=False))

    def get_user_statistics(self, user_id: str | None) -> dict[str, Any]:
        """The statistics of one user, with the keys of `structlog_audit.query.statistics.user_statistics`.

        None means the events without a user.
        """
        if isinstance(user_id, (list, tuple, set, frozenset)):
            raise AuditTypeError(f"user_id={user_id!r}: give one user")
        return user_statistics(self.select(conditions(user_id=user_id), newest_first=False))

    @with_filter_signature
    def export_to_file(
        self, path: str | os.PathLike[str], *, format: str | None = None, **filters: Unpack[Filters]
    ) -> int:
        """Write the events that match all *filters* to *path*, the oldest first; the number of events.

        Args:
            path: Where to. Missing folders are created; an existing file is replaced when the new one is whole.
            format: ``json``, ``jsonl``, ``csv``, or that of another system: ``ecs``, ``ocsf``, ``cadf``, ``cef``, ``otlp``
                (`structlog_audit.formats`). None means that of the suffix.
            filters: What is asked for.

        Raises:
            AuditValueError: Also for an unknown format, and a path that is a folder or no regular file.
            OSError: The system could not write it; what was there is still there.
        """
        return self.export_events(self.iter_events(**filters), path, format=format)

    def export_events(
        self, events: Iterable[AuditEvent], path: str | os.PathLike[str], *, format: str | None = None
    ) -> int:
        """Write *events* to *path* in the order in which they come; the number of events. Otherwise as `export_to_file`."""
        return export(events, path, format=format, now=self._now())
