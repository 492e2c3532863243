"""Audit events as Prometheus metrics. Takes the package prometheus-client: ``pip install structlog-audit[prometheus]``.

Rules:

* Everything is read from the handlers when Prometheus asks; the way of an event pays nothing.
* The counters of a handler (``recorded``, ``lost``, …) are its own and complete. What events were about (operation, status,
  duration) is read from the buffer: the events since the last scrape. If more came than the buffer holds, those in between
  are in no such series; ``structlog_audit_unseen_events_total`` counts them. A buffer that holds a minute's events and a
  scrape every 15 seconds miss none.
* Cardinality is bounded: the six operations and the first others, up to ``max_operations``, have their own label; all later
  ones are ``other``. No label comes from a user, a session or metadata.
* It counts one process. A forked child begins at zero.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any
from weakref import WeakKeyDictionary

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from structlog_audit._validation import require_integer
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import Kind, OperationType
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.loggers.unheard import unheard_events
from structlog_audit.query.filters import conditions
from structlog_audit.recording.fork_safety import register_fork_reset
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.handler_lookup import find_audit_handlers
from structlog_audit.recording.logger_tree import all_loggers

OTHER = "other"
"""The label of operations beyond the bound."""

DEFAULT_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the buckets of durations, in seconds."""

_LONGEST_LABEL = 100  # characters

_FAMILIES: dict[str, tuple[type[Metric], str, list[str]]] = {
    "accepted_events": (CounterMetricFamily, "Events that the handler took on.", ["handler"]),
    "recorded_events": (CounterMetricFamily, "Events that the target has written.", ["handler"]),
    "raised_events": (CounterMetricFamily, "Events that were given back to their callers as errors.", ["handler"]),
    "lost_events": (CounterMetricFamily, "Events lost, as the target failed and too many were pending.", ["handler"]),
    "evicted_events": (CounterMetricFamily, "Events that made room for newer ones in the buffer.", ["handler"]),
    "pending_events": (GaugeMetricFamily, "Events that wait in memory for the target to recover.", ["handler"]),
    "buffered_events": (GaugeMetricFamily, "Events in the buffer, those of the trail itself included.", ["handler"]),
    "events": (CounterMetricFamily, "Events by operation and status.", ["handler", "operation", "status"]),
    "duration_seconds": (HistogramMetricFamily, "How long operations took.", ["handler", "operation"]),
    "unseen_events": (CounterMetricFamily, "Events that left the buffer between two scrapes.", ["handler"]),
    "alerts": (CounterMetricFamily, "Alerts of the rules of the handler.", ["handler", "rule"]),
    "unheard_events": (CounterMetricFamily, "Events that reached no handler, as far as doors know.", ["cause"]),
}
"""The metrics by name, without ``structlog_audit_`` before it; what they are, and their labels."""

_COUNTED = conditions(kind=[None, Kind.INTENT])  # the events that the counters of a handler count


class Seen:
    """What the events of one handler were about, as far as they were seen."""

    def __init__(self) -> None:
        self.last_id = ""  # of the newest event that was seen; ids increase
        self.total = self.unseen = 0
        self.events: Counter[tuple[str, str]] = Counter()  # by operation and status
        self.durations: dict[str, list[int]] = {}  # by operation, a number for each bucket
        self.seconds: defaultdict[str, float] = defaultdict(float)  # by operation


class AuditCollector(Collector):
    """A collector for ``REGISTRY.register(AuditCollector())``.

    Args:
        handlers: The handlers to read; without any, those that are attached to loggers at the time of a scrape.
        max_operations: Operations that have a label of their own; at least the six of `OperationType`.
        buckets: Upper ends of the buckets of durations, in seconds, increasing.

    Raises:
        AuditTypeError, AuditValueError: A parameter can't be meant.
    """

    def __init__(
        self, *handlers: AuditHandler, max_operations: int = 50, buckets: Sequence[float] = DEFAULT_BUCKETS
    ) -> None:
        for handler in handlers:
            if not isinstance(handler, AuditHandler):
                raise AuditTypeError(f"handlers: {handler!r} is no AuditHandler")
        self._max_operations = require_integer("max_operations", max_operations, least=len(OperationType))
        if not buckets or list(buckets) != sorted(set(buckets)):
            raise AuditValueError(f"buckets={buckets!r}: give numbers of seconds that increase")
        self._handlers = handlers
        self._ends = [float(end) for end in buckets if end != math.inf]
        self.after_fork()
        register_fork_reset(self)

    def after_fork(self) -> None:
        """Begin anew in a forked child."""
        self._lock = threading.Lock()
        self._operations = {member.value for member in OperationType}
        self._seen: WeakKeyDictionary[AuditHandler, Seen] = WeakKeyDictionary()

    def describe(self) -> Iterable[Metric]:
        """The metrics without values: to register reads no handler."""
        return self._families().values()

    def collect(self) -> Iterable[Metric]:
        """The metrics of all handlers. O(events since the last scrape)."""
        families = self._families()
        with self._lock:
            for name, handler in self._named():
                self._read(handler, name, families)
        causes: Counter[str] = Counter()
        for (_, cause), count in unheard_events().items():
            causes[cause] += count
        for cause, count in causes.items():
            families["unheard_events"].add_metric([cause], count)
        return families.values()

    def _families(self) -> dict[str, Any]:
        return {
            name: kind(f"structlog_audit_{name}", text, labels=labels)  # type: ignore[call-arg]
            for name, (kind, text, labels) in _FAMILIES.items()
        }

    def _named(self) -> Iterator[tuple[str, AuditHandler]]:
        """The handlers by name; one without a name, or with one that is taken, is called by its number as well."""
        taken: set[str] = set()
        for number, handler in enumerate(self._handlers or find_audit_handlers(all_loggers())):
            name = handler.name or "audit"
            if name in taken:
                name = f"{name}#{number}"
            taken.add(name)
            yield name, handler

    def _read(self, handler: AuditHandler, name: str, families: dict[str, Any]) -> None:
        """Add the metrics of *handler*, which is called *name*, to *families*."""
        seen = self._seen.setdefault(handler, Seen())
        before = handler._counters()
        self._catch_up(handler, seen)
        seen.unseen = max(seen.unseen, before["recorded"] + before["pending"] - seen.total)
        for what in ("accepted", "recorded", "raised", "lost", "evicted", "pending"):
            families[f"{what}_events"].add_metric([name], before[what])
        families["buffered_events"].add_metric([name], len(handler))
        families["unseen_events"].add_metric([name], seen.unseen)
        for (operation, status), count in seen.events.items():
            families["events"].add_metric([name, operation, status], count)
        for operation, counts in seen.durations.items():
            ends = [*map(floatToGoString, self._ends), "+Inf"]
            buckets = list(zip(ends, accumulate(counts), strict=True))
            families["duration_seconds"].add_metric([name, operation], buckets, seen.seconds[operation])
        if handler.monitor is not None:
            for rule, count in handler.monitor.alerts.items():
                families["alerts"].add_metric([name, rule], count)

    def _catch_up(self, handler: AuditHandler, seen: Seen) -> None:
        """See the events of *handler* that came since the last time. Those of a warm start came before it."""
        newest = []
        for event in handler.select(_COUNTED, newest_first=True):
            if event.event_id <= seen.last_id:
                break
            newest.append(event)
        after = handler._counters()
        del newest[max(0, after["recorded"] + after["pending"] - seen.total) :]
        for event in reversed(newest):
            seen.total += 1
            seen.last_id = event.event_id
            if event.kind is None:
                self._count(event, seen)

    def _count(self, event: StoredEvent, seen: Seen) -> None:
        operation = self._label(str(event.operation))
        seen.events[operation, str(event.status)] += 1
        if event.duration_ms is not None:
            seconds = event.duration_ms / 1_000
            counts = seen.durations.setdefault(operation, [0] * (len(self._ends) + 1))
            counts[bisect_left(self._ends, seconds)] += 1
            seen.seconds[operation] += seconds

    def _label(self, operation: str) -> str:
        """The label of *operation*: itself, as long as there are not too many."""
        if operation not in self._operations:
            if len(self._operations) >= self._max_operations or len(operation) > _LONGEST_LABEL:
                return OTHER
            self._operations.add(operation)
        return operation
