"""`Monitor`: evaluates rules over sliding windows for events as they are recorded, and raises alerts.

**Semantics**: `structlog_audit.monitoring.rules` defines the rules, `structlog_audit.monitoring.windows` how a window counts.
``AuditHandler(monitor=…)`` watches accepted events, recorded or pending, after redaction and in the order of commit. Each
process watches its own events and starts anew in a forked child; `replay` reads the files for the whole picture.

**Guarantees**: one alert per crossing, as a record on the logger ``structlog_audit.alerts``. It is logged from another thread,
never while a record is handled: Python 3.13.4 discards such records (CPython issue 91555). ``flush`` and ``close`` log the
alerts that are still waiting. The same line twice in a row is one event, because a commit that a signal handler interrupted
may repeat it.

**Performance**: a handler without rules pays nothing. Windows per subject are bounded by ``max_subjects``: the one longest
without an event is dropped, and counted in `Monitor.forgotten` if it still counted.
"""

from __future__ import annotations

import datetime as dt
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import msgspec

from structlog_audit._failures import describe_failure, report_on_stderr
from structlog_audit._timers import CallLater
from structlog_audit.events.codec import StoredEvent, decode
from structlog_audit.events.event import AuditEvent, EventStatus, operation_of
from structlog_audit.monitoring.alerts import MEASURES, Alert, AnyWindow
from structlog_audit.monitoring.rules import DEFAULT_RULES, Rule, rules_of
from structlog_audit.query.field_tests import FieldTest, OneOf
from structlog_audit.query.filters import Conditions, microseconds

ALERTS_LOGGER = "structlog_audit.alerts"
"""The logger of alerts. Without a handler on it or its parents, `logging` writes alerts to stderr."""

_MAX_WAITING = 10_000
"""Alerts that may wait to be logged. Beyond, the newest is lost and counted."""

_LOG_TIMEOUT_SECONDS = 1.0
"""Seconds to wait for another thread that is logging alerts."""

_MAX_CACHED_NAMES = 1_024
"""Combinations of operation, status and kind whose trackers are cached."""

_DISPATCH = ("operation", "status", "kind")
"""The members by which an event is dispatched to rules."""

_MICROSECOND = dt.timedelta(microseconds=1)


class WatchedLine(msgspec.Struct, gc=False):
    """The members of a line that most rules need. Decoding the others takes longer than all rules together."""

    operation: str
    user_id: str | None = None
    session_id: str | None = None
    status: str = EventStatus.SUCCESS.value
    duration_ms: float | None = None
    kind: str | None = None


_decode_watched = msgspec.json.Decoder(WatchedLine).decode


class Tracker:
    """The windows of one rule."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.alerts = 0
        self.forgotten = 0
        self._measure = MEASURES[rule.bound]
        self._value = self._measure.value
        self._within_us = rule.within // _MICROSECOND
        self._quiet_us = rule.quiet // _MICROSECOND

        # The dispatch members are checked by `accepts`, once per combination; the rest with each event.
        names = dict(rule.conditions.names)
        self._accepted = [names.pop(name, None) for name in _DISPATCH]
        remaining = msgspec.structs.replace(rule.conditions, names=tuple(names.items()))
        self._conditions = None if remaining == Conditions(()) else remaining
        self.needs_whole_event = remaining.entry_ids is not None or remaining.metadata is not None

        self._only = self._new_window()
        self._windows: OrderedDict[str | None, AnyWindow] = OrderedDict()

    def _new_window(self) -> AnyWindow:
        return self._measure.window(self.rule, self._within_us, self._quiet_us)

    def accepts(self, names: tuple[str | None, ...]) -> bool:
        """Return whether the rule may concern events with these `_DISPATCH` members."""
        return all(accepted is None or name in accepted for name, accepted in zip(names, self._accepted, strict=True))

    def add(self, event: Any, timestamp: int) -> tuple[str | None, AnyWindow] | None:
        """Add *event*, whose names the rule `accepts`, and return subject and window if that is a crossing."""
        if self._conditions is not None and not self._conditions.matches(event):
            return None

        value = 1 if self._value is None else self._value(event, self.rule)
        if value is None:
            return None

        per = self.rule.per
        if per is None:
            subject, window = None, self._only
        else:
            subject = getattr(event, per)
            if per == "operation":
                subject = operation_of(subject)
            window = self._window_of(subject, timestamp)

        if not window.add(timestamp, value):
            return None
        self.alerts += 1
        return subject, window

    def _window_of(self, subject: str | None, timestamp: int) -> AnyWindow:
        """Return the window of *subject*; if it is new and there are too many, another is dropped."""
        found = self._windows.get(subject)
        if found is not None:
            self._windows.move_to_end(subject)
            return found

        if len(self._windows) >= self.rule.max_subjects:
            _, oldest = self._windows.popitem(last=False)
            self.forgotten += not oldest.is_over(timestamp)

        window = self._windows[subject] = self._new_window()
        return window

    def alert(self, subject: str | None, window: AnyWindow, event: StoredEvent | AuditEvent) -> Alert:
        """Return the alert for *event*, which brought the *window* of *subject* beyond the bound."""
        value = self._measure.result(window)
        return Alert(self.rule, subject, window.size, value, event.timestamp, event.event_id)


Crossings = list[tuple[Tracker, str | None, AnyWindow]]
_NONE: Crossings = []


class Monitor:
    """Evaluates rules for events. ``AuditHandler(monitor=…)`` makes one; make one by hand for other events.

    It is not safe for several threads to add events at the same time.

    Args:
        rules: A list of rules or of mappings of their arguments, or the path of a file; see `rules_of`.

    Raises:
        AuditTypeError, AuditValueError: The rules are invalid; the message names the rule and the parameter.
    """

    def __init__(self, rules: Any = DEFAULT_RULES) -> None:
        self.rules = rules_of(rules)
        self.lost = 0
        """Alerts that were not logged, because too many waited or because logging them failed."""
        self._trackers = [Tracker(rule) for rule in self.rules]
        self._by_names: dict[tuple[str | None, ...], list[Tracker]] = {}
        needs_whole_event = any(tracker.needs_whole_event for tracker in self._trackers)
        self._decode: Callable[[bytes], Any] = decode if needs_whole_event else _decode_watched
        self._last_line = b""
        self._waiting: deque[Alert] = deque()
        self._logging = threading.RLock()
        self._is_scheduled = False

    @property
    def alerts(self) -> dict[str, int]:
        """The number of alerts so far, by the name of the rule."""
        return {tracker.rule.name: tracker.alerts for tracker in self._trackers}

    @property
    def forgotten(self) -> dict[str, int]:
        """The number of windows that were dropped although they still counted, by the name of the rule."""
        return {tracker.rule.name: tracker.forgotten for tracker in self._trackers}

    def see(self, event: AuditEvent | StoredEvent) -> list[Alert]:
        """Add the next event and return the alerts that it causes. O(rules that concern it)."""
        crossings = self._crossings(event, microseconds(event.timestamp))
        return [tracker.alert(subject, window, event) for tracker, subject, window in crossings]

    def _crossings(self, event: Any, timestamp: int) -> Crossings:
        names = (event.operation, event.status, event.kind)
        trackers = self._by_names.get(names)
        if trackers is None:
            trackers = self._cache_trackers(names)

        crossings = _NONE
        for tracker in trackers:
            found = tracker.add(event, timestamp)
            if found is not None:
                crossings = [*crossings, (tracker, *found)]
        return crossings

    def _cache_trackers(self, names: tuple[str | None, ...]) -> list[Tracker]:
        if len(self._by_names) >= _MAX_CACHED_NAMES:
            self._by_names.clear()

        # A stored event of another writer may have one of the six operations in any case.
        operation, *others = names
        canonical = (operation_of(operation or ""), *others)
        found = self._by_names[names] = [tracker for tracker in self._trackers if tracker.accepts(canonical)]
        return found

    def watching(self, accept: Callable[[bytes, int], None], call_later: CallLater) -> Callable[[bytes, int], None]:
        """Return *accept*, which a commit calls with each accepted event, followed by the rules.

        Alerts are logged through *call_later*.
        """

        def accept_and_watch(line: bytes, timestamp: int) -> None:
            accept(line, timestamp)
            if line is self._last_line:
                return
            self._last_line = line

            try:
                event = self._decode(line)
            except msgspec.MsgspecError:
                # An event in parts, which only the whole decoder puts together.
                event = decode(line)

            for tracker, subject, window in self._crossings(event, timestamp):
                self._schedule(tracker.alert(subject, window, decode(line)), call_later)

        return accept_and_watch

    def _schedule(self, alert: Alert, call_later: CallLater) -> None:
        """Log *alert* after the event has been handled."""
        if len(self._waiting) >= _MAX_WAITING:
            self.lost += 1
            return

        self._waiting.append(alert)
        if not self._is_scheduled:
            self._is_scheduled = True
            call_later(0.0, self.log_waiting)

    def log_waiting(self) -> None:
        """Log the alerts that wait. Another thread that is logging them gets a second: the process may end next."""
        self._is_scheduled = False

        # The wait is bounded: code that configures logging may hold a lock that the other thread waits for.
        if self._logging.acquire(timeout=_LOG_TIMEOUT_SECONDS):
            try:
                self._log_all()
            finally:
                self._logging.release()

    def _log_all(self) -> None:
        logger = logging.getLogger(ALERTS_LOGGER)
        # A dictConfig that does not mention the logger disables it.
        logger.disabled = False

        while True:
            try:
                alert = self._waiting.popleft()
            except IndexError:
                # None is left, or a signal handler logged the last one.
                return

            try:
                logger.log(alert.rule.level, str(alert), extra=alert.to_dict())
            except Exception as error:
                self.lost += 1
                report_on_stderr(
                    f"an alert of the rule {alert.rule.name!r} could not be logged ({describe_failure(error)})"
                )


def relevant_events(rules: Iterable[Rule]) -> list[FieldTest]:
    """Return tests that each event of a trail passes that any of *rules* may count: a source need not give the others."""
    names = [dict(rule.conditions.names) for rule in rules]
    tests = []
    for member in _DISPATCH:
        wanted = [accepted[member] for accepted in names if member in accepted]
        if names and len(wanted) == len(names):
            tests.append(FieldTest(member, (OneOf(frozenset().union(*wanted)),)))
    return tests


def replay(rules: Any, events: Iterable[AuditEvent | StoredEvent]) -> Iterator[Alert]:
    """Yield the alerts that *events*, in order, cause by *rules*. O(1) memory beyond the windows.

    Args:
        rules: As for `Monitor`.
        events: From any source: ``iter_events()`` of a handler or a trail, or an endless stream.

    Raises:
        AuditTypeError, AuditValueError: The rules are invalid.
    """
    monitor = Monitor(rules)
    return (alert for event in events for alert in monitor.see(event))
