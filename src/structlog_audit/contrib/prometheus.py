"""`AuditCollector`: audit events as Prometheus metrics. ``pip install structlog-audit[prometheus]``.

**Guarantees.** The counters of a handler (``recorded``, ``lost``, …) are complete. The series by operation, status and duration
come from the buffer: they cover the events since the last scrape. If more events came than the buffer holds,
``structlog_audit_unseen_events_total`` counts those that these series miss. A buffer that holds the events of a minute and a
scrape every 15 seconds miss none.

**Series.** Each status of an operation that was observed, each rule and each cause has a series, from zero.

**Cardinality.** The six operations and the first others, up to ``max_operations``, have a label each; later ones are ``other``.
Users, sessions and metadata never become labels.

**Concurrency.** It covers one process. A forked child begins at zero.

**Performance.** Handlers are read only during a scrape; recording an event costs nothing more.
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

from structlog_audit._version import check_versions

try:
    check_versions("prometheus")
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import Collector
    from prometheus_client.utils import floatToGoString
except ModuleNotFoundError as error:
    message = "structlog_audit.contrib.prometheus needs prometheus-client: pip install 'structlog-audit[prometheus]'"
    raise ModuleNotFoundError(message, name=error.name) from error

from structlog_audit._validation import require_integer
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import EventStatus, Kind, OperationType
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.loggers.unheard import CAUSES, unheard_events
from structlog_audit.query.filters import conditions
from structlog_audit.recording.fork_safety import register_fork_reset
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.handler_lookup import find_audit_handlers
from structlog_audit.recording.logger_tree import all_loggers

OTHER = "other"
"""The label of operations beyond the bound."""

DEFAULT_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper ends of the buckets of durations, in seconds."""

_MAX_LABEL_CHARACTERS = 100

_FAMILIES: dict[str, tuple[type[Metric], str, list[str]]] = {
    "accepted_events": (CounterMetricFamily, "Events that the handler accepted.", ["handler"]),
    "recorded_events": (CounterMetricFamily, "Events that the target has written.", ["handler"]),
    "raised_events": (CounterMetricFamily, "Events that were returned to their callers as errors.", ["handler"]),
    "lost_events": (
        CounterMetricFamily,
        "Events lost because too many were pending while the target failed, or because it refused them.",
        ["handler"],
    ),
    "evicted_events": (CounterMetricFamily, "Events that made room for newer ones in the buffer.", ["handler"]),
    "pending_events": (GaugeMetricFamily, "Events that wait in memory for the target to recover.", ["handler"]),
    "buffered_events": (GaugeMetricFamily, "Events in the buffer, trail events included.", ["handler"]),
    "events": (CounterMetricFamily, "Events by operation and status.", ["handler", "operation", "status"]),
    "duration_seconds": (HistogramMetricFamily, "Duration of operations in seconds.", ["handler", "operation"]),
    "unseen_events": (CounterMetricFamily, "Events that left the buffer between two scrapes.", ["handler"]),
    "alerts": (CounterMetricFamily, "Alerts raised by the rules of the handler.", ["handler", "rule"]),
    "unheard_events": (CounterMetricFamily, "Events that no handler accepted, by cause.", ["cause"]),
}
"""The metrics by name without the prefix ``structlog_audit_``: type, description and labels."""

_COUNTED = conditions(kind=[None, Kind.INTENT])
"""Selects the events that the counters of a handler count."""


class ObservedEvents:
    """Totals over the events of one handler that the scrapes have observed.

    Attributes:
        last_id: The id of the newest observed event. Ids increase.
        total: The number of observed events.
        unseen: The number of events that left the buffer between two scrapes.
        events: The number of events by operation and status.
        durations: By operation, the number of events in each bucket.
        seconds: By operation, the sum of the durations.
    """

    def __init__(self) -> None:
        self.last_id = ""
        self.total = self.unseen = 0
        self.events: Counter[tuple[str, str]] = Counter()
        self.durations: dict[str, list[int]] = {}
        self.seconds: defaultdict[str, float] = defaultdict(float)


class AuditCollector(Collector):
    """A collector for ``REGISTRY.register(AuditCollector())``.

    Args:
        handlers: The handlers to read; by default those that are attached to loggers at the time of a scrape.
        max_operations: The number of operations with a separate label; at least the six of `OperationType`.
        buckets: Upper ends of the buckets of durations, in seconds, increasing.

    Raises:
        AuditTypeError, AuditValueError: A parameter has the wrong type or an invalid value; the message names it.
    """

    def __init__(
        self, *handlers: AuditHandler, max_operations: int = 50, buckets: Sequence[float] = DEFAULT_BUCKETS
    ) -> None:
        for handler in handlers:
            if not isinstance(handler, AuditHandler):
                raise AuditTypeError(f"handlers: expected an AuditHandler, got {handler!r}")

        self._max_operations = require_integer("max_operations", max_operations, least=len(OperationType))
        if not buckets or list(buckets) != sorted(set(buckets)):
            raise AuditValueError(f"buckets={buckets!r}: expected increasing numbers of seconds")

        self._handlers = handlers
        self._ends = [float(end) for end in buckets if end != math.inf]
        self.after_fork()
        register_fork_reset(self)

    def after_fork(self) -> None:
        """Start at zero in a forked child."""
        self._lock = threading.Lock()
        self._operations = {member.value for member in OperationType}
        self._observed: WeakKeyDictionary[AuditHandler, ObservedEvents] = WeakKeyDictionary()

    def describe(self) -> Iterable[Metric]:
        """Return the metrics without values, so that registration reads no handler."""
        return self._families().values()

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of all handlers. O(events since the last scrape)."""
        families = self._families()
        with self._lock:
            for name, handler in self._named():
                self._read(handler, name, families)

        causes = Counter(dict.fromkeys(CAUSES, 0))
        for (_, cause), count in unheard_events().items():
            causes[cause] += count
        for cause, count in causes.items():
            families["unheard_events"].add_metric([cause], count)

        return families.values()

    def _families(self) -> dict[str, Any]:
        families: dict[str, Any] = {}
        for name, (kind, text, labels) in _FAMILIES.items():
            families[name] = kind(f"structlog_audit_{name}", text, labels=labels)  # type: ignore[call-arg]
        return families

    def _named(self) -> Iterator[tuple[str, AuditHandler]]:
        """Yield the handlers with distinct names.

        A name that is missing or taken gets the number of the handler.
        """
        taken: set[str] = set()
        handlers = self._handlers or find_audit_handlers(all_loggers())
        for number, handler in enumerate(handlers):
            name = handler.name or "audit"
            if name in taken:
                name = f"{name}#{number}"
            taken.add(name)
            yield name, handler

    def _read(self, handler: AuditHandler, name: str, families: dict[str, Any]) -> None:
        """Add the metrics of *handler* to *families* under the label *name*."""
        observed = self._observed.setdefault(handler, ObservedEvents())

        # Read the counters first: events that arrive meanwhile must not count as unseen.
        counters = handler._counters()
        self._observe_new_events(handler, observed)
        unseen = _committed(counters) - observed.total
        observed.unseen = max(observed.unseen, unseen)

        for counter in ("accepted", "recorded", "raised", "lost", "evicted", "pending"):
            family = families[f"{counter}_events"]
            family.add_metric([name], counters[counter])
        families["buffered_events"].add_metric([name], len(handler))
        families["unseen_events"].add_metric([name], observed.unseen)

        self._add_observed(observed, name, families)

        if handler.monitor is not None:
            for rule, count in handler.monitor.alerts.items():
                families["alerts"].add_metric([name, rule], count)

    def _add_observed(self, observed: ObservedEvents, name: str, families: dict[str, Any]) -> None:
        """Add the series by operation."""
        # A series that begins later than the operation would hide its first event from `rate` and `increase`.
        operations = dict.fromkeys(operation for operation, _ in observed.events)
        for operation in operations:
            for status in EventStatus:
                count = observed.events[operation, status.value]
                families["events"].add_metric([name, operation, status.value], count)

        ends = [*map(floatToGoString, self._ends), "+Inf"]
        for operation, counts in observed.durations.items():
            cumulative = accumulate(counts)
            buckets = list(zip(ends, cumulative, strict=True))
            seconds = observed.seconds[operation]
            families["duration_seconds"].add_metric([name, operation], buckets, seconds)

    def _observe_new_events(self, handler: AuditHandler, observed: ObservedEvents) -> None:
        """Add the events of *handler* since the last scrape to *observed*.

        Those of a warm start are not added.
        """
        newest: list[StoredEvent] = []
        for event in handler.select(_COUNTED, newest_first=True):
            if event.event_id == observed.last_id:
                break
            newest.append(event)

        # Events beyond the handler's own count come from a warm start, and are the oldest.
        counters = handler._counters()
        not_observed = _committed(counters) - observed.total
        del newest[max(0, not_observed) :]

        for event in reversed(newest):
            observed.total += 1
            observed.last_id = event.event_id
            if event.kind is None:
                self._count(event, observed)

    def _count(self, event: StoredEvent, observed: ObservedEvents) -> None:
        operation = self._label(str(event.operation))
        observed.events[operation, str(event.status)] += 1
        if event.duration_ms is None:
            return

        seconds = event.duration_ms / 1_000
        no_events = [0] * (len(self._ends) + 1)
        counts = observed.durations.setdefault(operation, no_events)
        bucket = bisect_left(self._ends, seconds)
        counts[bucket] += 1
        observed.seconds[operation] += seconds

    def _label(self, operation: str) -> str:
        """Return the label of *operation*: its name, or `OTHER` beyond the bound."""
        if operation in self._operations:
            return operation

        if len(self._operations) >= self._max_operations or len(operation) > _MAX_LABEL_CHARACTERS:
            return OTHER

        self._operations.add(operation)
        return operation


def _committed(counters: dict[str, int]) -> int:
    """Return how many events were recorded or are pending.

    These are the events that the buffer has received.
    """
    return counters["recorded"] + counters["pending"]
