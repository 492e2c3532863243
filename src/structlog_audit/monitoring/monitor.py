"""Alerts about many deletions, many failures, slow operations: rules over sliding windows, for events as they come.

Rules:

* `structlog_audit.monitoring.rules` says what can be watched for, `structlog_audit.monitoring.windows` how a window counts. Time is the time of the
  events; they are seen in the order of commit.
* ``AuditHandler(monitor=…)`` watches what it accepts, recorded or pending, as it was written: redacted. A handler without
  rules pays nothing. Each process watches its own events, and begins anew when it starts and in a forked child. For the
  whole picture `replay` reads the files.
* The same line twice in a row is one event: a commit that a signal handler interrupted says again what it has said.
* There is one alert per crossing. It is a record on the logger ``structlog_audit.alerts``, logged from another thread, never
  while a record is handled: Python 3.13.4 and newer discard what is logged then. What could not be logged yet is logged by
  ``flush`` and ``close``, so also when the interpreter ends.
* Windows per user are bounded: beyond ``max_subjects`` of a rule, the one longest without an event makes room. If it still
  counted, that is counted in `Monitor.forgotten`.
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
from structlog_audit.events.event import AuditEvent, EventStatus
from structlog_audit.monitoring.alerts import (
    MEASURES,
    Alert,
    Window,
)
from structlog_audit.monitoring.rules import DEFAULT_RULES, Rule, rules_of
from structlog_audit.query.filters import Conditions, microseconds

LOGGER = "structlog_audit.alerts"
"""The logger of alerts. Give it handlers, or let it propagate; without any, `logging` writes alerts to stderr."""

_MOST_UNTOLD = 10_000  # alerts that wait to be logged; beyond, the newest is lost and counted
_LONGEST_TELLING = 1.0  # seconds to wait for another thread that logs alerts
_MOST_NAMES = 1_024  # operations whose rules are remembered
_DISPATCH = ("operation", "status", "kind")

_MICROSECOND = dt.timedelta(microseconds=1)


class Seen(msgspec.Struct, gc=False):
    """What most rules look at, of a line: decoding the rest takes longer than all rules together."""

    operation: str
    user_id: str | None = None
    session_id: str | None = None
    status: str = EventStatus.SUCCESS.value
    duration_ms: float | None = None
    kind: str | None = None


_decode_seen = msgspec.json.Decoder(Seen).decode


class Tracker:
    """The windows of one rule."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.alerts = self.forgotten = 0
        self._measure = measure = MEASURES[rule.bound]
        self._value = measure.value
        self._times = (rule.within // _MICROSECOND, rule.quiet // _MICROSECOND)
        names = dict(rule.conditions.names)
        self._wanted = [names.pop(name, None) for name in _DISPATCH]
        asked = msgspec.structs.replace(rule.conditions, names=tuple(names.items()))
        self._asked = None if asked == Conditions(()) else asked
        self.needs_whole = asked.entry_ids is not None or asked.metadata is not None
        self._only = measure.window(rule, *self._times)
        self._windows: OrderedDict[str | None, Window] = OrderedDict()

    def wants(self, names: tuple[str | None, ...]) -> bool:
        """Whether events with these `_DISPATCH` members are the rule's, as far as that goes."""
        return all(wanted is None or name in wanted for name, wanted in zip(names, self._wanted, strict=True))

    def see(self, event: Any, moment: int) -> tuple[str | None, Window] | None:
        """Take *event*, which the rule `wants`; the subject and the window, if that is a crossing."""
        if self._asked is not None and not self._asked.matches(event):
            return None
        value = 1 if self._value is None else self._value(event, self.rule)
        if value is None:
            return None
        per = self.rule.per
        if per is None:
            subject, window = None, self._only
        else:
            subject = getattr(event, per)
            found = self._windows.get(subject)
            if found is None:
                window = self._begin(subject, moment)
            else:
                window = found
                self._windows.move_to_end(subject)
        if window.add(moment, value):
            self.alerts += 1
            return subject, window
        return None

    def _begin(self, subject: str | None, moment: int) -> Window:
        """A window for *subject*, for which another makes room if there are too many."""
        if len(self._windows) >= self.rule.max_subjects:
            _, oldest = self._windows.popitem(last=False)
            self.forgotten += not oldest.is_over(moment)
        window = self._windows[subject] = self._measure.window(self.rule, *self._times)
        return window

    def alert(self, subject: str | None, window: Window, event: StoredEvent | AuditEvent) -> Alert:
        """The alert about *subject*, whose *window* the *event* has brought beyond the bound."""
        value = self._measure.said(window)
        return Alert(self.rule, subject, window.size, value, event.timestamp, event.event_id)


Crossings = list[tuple[Tracker, str | None, Window]]
_NONE: Crossings = []


class Monitor:
    """Watches events by rules. Made by ``AuditHandler(monitor=…)``, which has it under ``monitor``; or for other events.

    One thread at a time may show it events.

    Args:
        rules: As of `structlog_audit.monitoring.rules.rules_of`: a list of rules or of mappings, or the path of a file.

    Raises:
        AuditTypeError, AuditValueError: The rules can't be meant.
    """

    def __init__(self, rules: Any = DEFAULT_RULES) -> None:
        self.rules = rules_of(rules)
        self.lost = 0
        """Alerts that were not logged, because too many waited or because logging them failed."""
        self._trackers = [Tracker(rule) for rule in self.rules]
        self._by_names: dict[tuple[str | None, ...], list[Tracker]] = {}
        whole = any(tracker.needs_whole for tracker in self._trackers)
        self._decode: Callable[[bytes], Any] = decode if whole else _decode_seen
        self._last = b""
        self._untold: deque[Alert] = deque()
        self._telling = threading.RLock()
        self._is_called = False  # whether somebody is about to tell them

    @property
    def alerts(self) -> dict[str, int]:
        """How many alerts there were, by the name of the rule."""
        return {tracker.rule.name: tracker.alerts for tracker in self._trackers}

    @property
    def forgotten(self) -> dict[str, int]:
        """How many windows made room though they still counted, by the name of the rule."""
        return {tracker.rule.name: tracker.forgotten for tracker in self._trackers}

    def see(self, event: AuditEvent) -> list[Alert]:
        """Take the next event; the alerts that it brings. O(rules that want it)."""
        found = self._see(event, microseconds(event.timestamp))
        return [tracker.alert(subject, window, event) for tracker, subject, window in found]

    def _see(self, event: Any, moment: int) -> Crossings:
        names = (event.operation, event.status, event.kind)
        trackers = self._by_names.get(names)
        if trackers is None:
            trackers = self._remember(names)
        crossed = _NONE
        for tracker in trackers:
            found = tracker.see(event, moment)
            if found is not None:
                crossed = [*crossed, (tracker, *found)]
        return crossed

    def _remember(self, names: tuple[str | None, ...]) -> list[Tracker]:
        if len(self._by_names) >= _MOST_NAMES:
            self._by_names.clear()
        found = self._by_names[names] = [tracker for tracker in self._trackers if tracker.wants(names)]
        return found

    def watching(self, accept: Callable[[bytes, int], None], call_later: CallLater) -> Callable[[bytes, int], None]:
        """*accept*, which a commit calls with each event that it accepts, and then a look at the event.

        Alerts are logged through *call_later*.
        """

        def accept_and_watch(line: bytes, moment: int) -> None:
            accept(line, moment)
            if line is self._last:
                return
            self._last = line
            try:
                event = self._decode(line)
            except msgspec.MsgspecError:  # an event in parts, which only the whole decoder puts together
                event = decode(line)
            for tracker, subject, window in self._see(event, moment):
                self._note(tracker.alert(subject, window, decode(line)), call_later)

        return accept_and_watch

    def _note(self, alert: Alert, call_later: CallLater) -> None:
        """Have *alert* logged when the event has been handled."""
        if len(self._untold) >= _MOST_UNTOLD:
            self.lost += 1
            return
        self._untold.append(alert)
        if not self._is_called:
            self._is_called = True
            call_later(0.0, self.tell)

    def tell(self) -> None:
        """Log the alerts that were not logged yet. Wait a second for another thread that does: the process may end next."""
        self._is_called = False
        # not for ever: who configures logging may hold what that thread waits for
        if self._telling.acquire(timeout=_LONGEST_TELLING):
            try:
                self._tell_all()
            finally:
                self._telling.release()

    def _tell_all(self) -> None:
        logger = logging.getLogger(LOGGER)
        logger.disabled = False  # as a configuration that does not mention it leaves it
        while True:
            try:
                alert = self._untold.popleft()
            except IndexError:  # none is left, or a signal handler was faster
                return
            try:
                logger.log(alert.rule.level, str(alert), extra=alert.to_dict())
            except Exception as error:
                self.lost += 1
                report_on_stderr(
                    f"an alert of the rule {alert.rule.name!r} could not be logged ({describe_failure(error)})"
                )


def replay(rules: Any, events: Iterable[AuditEvent]) -> Iterator[Alert]:
    """The alerts that *events*, which come in order, bring by *rules*, one by one. O(1) memory beyond the windows.

    Args:
        rules: As of `Monitor`.
        events: From any source: ``iter_events()`` of a handler or of a trail, or what goes on for ever.

    Raises:
        AuditTypeError, AuditValueError: The rules can't be meant.
    """
    monitor = Monitor(rules)
    return (alert for event in events for alert in monitor.see(event))
