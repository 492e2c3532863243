"""The comparison of a catalogue with the events of a trail.

**Guarantees**

* Only the events of the application count by default; the library's events of other kinds are left out.
* Operations are compared by name. An operation that appears as undeclared may come from a place that computes its operation.
* The changes of tracked models are named by their tables, which the source need not state. If the source tracks models, events
  in the form of such changes count as theirs.

**Performance**

The source is read once, event by event: O(events) time, O(operations) memory. At most `MOST_UNDECLARED` undeclared operations
are listed by name; the events of further ones are counted together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from structlog_audit.catalogue.declarations import TRACK
from structlog_audit.catalogue.inventory import Catalogue
from structlog_audit.events.event import AuditEvent, EventStatus
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import Filters, with_filter_signature

MOST_UNDECLARED = 1_000
"""The maximum number of undeclared operations that are listed by name."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The differences between a `Catalogue` and a trail.

    Operations are sorted by name. Counts are numbers of events.

    Attributes:
        events: The number of compared events.
        recorded: The events of each declared operation that was recorded.
        never_recorded: The declared operations without an event.
        never_failed: The declared operations with events that are all SUCCESS.
        without_user: The events without a user of each declared operation that has any.
        tracked: The events of each operation that tracked models recorded; empty if the source tracks none.
        undeclared: The events of each other recorded operation that is not declared.
        undeclared_beyond: The events beyond the first `MOST_UNDECLARED` operations of ``tracked`` and of ``undeclared``.
        computed: The number of declarations that compute their operation, and may account for some of ``undeclared``.
    """

    events: int
    recorded: Mapping[str, int]
    never_recorded: tuple[str, ...]
    never_failed: tuple[str, ...]
    without_user: Mapping[str, int]
    tracked: Mapping[str, int]
    undeclared: Mapping[str, int]
    undeclared_beyond: int
    computed: int

    @property
    def is_declared(self) -> bool:
        """Whether every recorded operation is declared."""
        return not self.undeclared

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as JSON-compatible values."""
        return {
            "events": self.events,
            "recorded": dict(self.recorded),
            "never_recorded": list(self.never_recorded),
            "never_failed": list(self.never_failed),
            "without_user": dict(self.without_user),
            "tracked": dict(self.tracked),
            "undeclared": dict(self.undeclared),
            "undeclared_beyond": self.undeclared_beyond,
            "computed": self.computed,
        }


@with_filter_signature
def compare(declared: Catalogue, source: EventSource, **filters: Unpack[Filters]) -> Comparison:
    """Compare the events of *source* with *declared*.

    Args:
        declared: The catalogue.
        source: A trail, a handler, a logger, or another source of events.
        filters: Filters that the events must match, as of ``iter_events``.

    Raises:
        AuditTypeError, AuditValueError: A filter has the wrong type or an invalid value; the message names it.
        AuditReadError: A file of the trail cannot be read.
    """
    return compare_events(declared, source.iter_events(**filters))


def compare_events(declared: Catalogue, events: Iterable[AuditEvent]) -> Comparison:
    """Compare *events*, which may be any selection, with *declared*. Otherwise as `compare`."""
    names = set(declared.operations)
    recorded = Counter[str]()
    succeeded = Counter[str]()
    without_user = Counter[str]()
    tracked = Counter[str]()
    undeclared = Counter[str]()
    compared = 0
    undeclared_beyond = 0

    computing = [declaration.entry_point for declaration in declared.computed]
    has_models = TRACK in computing

    for event in events:
        compared += 1
        name = event.operation.value
        others = tracked if has_models and _is_change(event) else undeclared
        if name in names:
            recorded[name] += 1
            succeeded[name] += event.status == EventStatus.SUCCESS
            without_user[name] += not event.user_id
        elif name in others or len(others) < MOST_UNDECLARED:
            others[name] += 1
        else:
            # Memory stays bounded for trails of other applications.
            undeclared_beyond += 1

    never_recorded = sorted(names - recorded.keys())
    never_failed = sorted(name for name, count in recorded.items() if count == succeeded[name])
    return Comparison(
        events=compared,
        recorded=_sorted_by_name(recorded),
        never_recorded=tuple(never_recorded),
        never_failed=tuple(never_failed),
        without_user=_sorted_by_name(without_user),
        tracked=_sorted_by_name(tracked),
        undeclared=_sorted_by_name(undeclared),
        undeclared_beyond=undeclared_beyond,
        computed=len(computing) - computing.count(TRACK),
    )


def _is_change(event: AuditEvent) -> bool:
    """Return whether *event* has the form in which the trackers of `structlog_audit.contrib` record a change."""
    _, _, verb = event.operation.value.rpartition(".")
    changes = event.metadata.get("changes")
    return verb in ("create", "update", "delete") and isinstance(changes, Mapping)


def _sorted_by_name(counts: Counter[str]) -> dict[str, int]:
    """Return the non-zero *counts*, sorted by name."""
    by_name = sorted(counts.items())
    return {name: count for name, count in by_name if count}
