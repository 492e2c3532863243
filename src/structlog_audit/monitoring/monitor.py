"""`Monitor`: evaluates rules over sliding windows for events as they are recorded, and raises alerts.

**Semantics**: `structlog_audit.monitoring.rules` defines the rules, `structlog_audit.monitoring.windows` how a window counts,
`structlog_audit.monitoring.trackers` when a value is new and when nothing came.
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
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from structlog_audit._failures import describe_failure, report_on_stderr
from structlog_audit._timers import CallLater, cancel, try_call_later
from structlog_audit.events.codec import StoredEvent, decode
from structlog_audit.events.event import AuditEvent, EventStatus, operation_of
from structlog_audit.events.operation_classes import OperationClasses, registered_operations
from structlog_audit.exceptions import AuditTypeError
from structlog_audit.monitoring.alerts import Alert
from structlog_audit.monitoring.rules import DEFAULT_RULES, Rule, rules_of
from structlog_audit.monitoring.trackers import (
    DISPATCH,
    Crossing,
    FirstSeenTracker,
    Silence,
    SilenceTracker,
    Tracker,
    tracker_of,
)
from structlog_audit.query.field_tests import FieldTest, OneOf
from structlog_audit.query.filters import microseconds
from structlog_audit.query.times import Time, resolve_time

ALERTS_LOGGER = "structlog_audit.alerts"
"""The logger of alerts. Without a handler on it or its parents, `logging` writes alerts to stderr."""

_MAX_WAITING = 10_000
"""Alerts that may wait to be logged. Beyond, the newest is lost and counted."""

_LOG_TIMEOUT_SECONDS = 1.0
"""Seconds to wait for another thread that is logging alerts."""

_MOST_PER_EVENT = 20
"""Subjects that an event checks for silence at most. A timer checks as many at a time, so that no event waits for all."""

_AT_ONCE = -1
"""The time of a timer that checks the subjects that an event left."""

_MAX_TIMER_SECONDS = 86_400.0
"""The longest time of a timer, which a thread may wait."""

_MAX_CACHED_NAMES = 1_024
"""Combinations of operation, status and kind whose trackers are cached."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class WatchedLine(msgspec.Struct, gc=False):
    """The members of a line that most rules need. Decoding the others takes longer than all rules together."""

    operation: str
    user_id: str | None = None
    session_id: str | None = None
    status: str = EventStatus.SUCCESS.value
    duration_ms: float | None = None
    kind: str | None = None


_decode_watched = msgspec.json.Decoder(WatchedLine).decode


class WatchedEvent(WatchedLine):
    """The same with the id, which rules on silence need."""

    event_id: str | None = None


_decode_with_id = msgspec.json.Decoder(WatchedEvent).decode

Crossings = list[tuple[Tracker, Crossing]]
_NONE: Crossings = []


class Monitor:
    """Evaluates rules for events. ``AuditHandler(monitor=…)`` makes one; make one by hand for other events.

    It is not safe for several threads to add events at the same time.

    Args:
        rules: A list of rules or of mappings of their arguments, or the path of a file; see `rules_of`.
        operations: Classes of operations beyond the registered ones, by name: ``{"settle": "update"}``.

    Raises:
        AuditTypeError, AuditValueError: The rules are invalid; the message names the rule and the parameter.
    """

    def __init__(
        self, rules: Any = DEFAULT_RULES, *, operations: Mapping[str, str] | OperationClasses | None = None
    ) -> None:
        self.rules = rules_of(rules)
        self.lost = 0
        """Alerts that were not logged, because too many waited or because logging them failed."""
        classes = None if operations is None else registered_operations().extended(operations)
        self._trackers = [tracker_of(rule, classes) for rule in self.rules]
        self._silences = [tracker for tracker in self._trackers if isinstance(tracker, SilenceTracker)]
        self._by_names: dict[tuple[str | None, ...], list[Tracker]] = {}
        self._decode: Callable[[bytes], Any] = _decode_watched
        if any(tracker.needs_whole_event for tracker in self._trackers):
            self._decode = decode
        elif self._silences:
            self._decode = _decode_with_id

        self._last_line = b""
        self._waiting: deque[Alert] = deque()
        self._logging = threading.RLock()
        self._is_scheduled = False
        self._changing = threading.RLock()
        # The time, in microseconds, at which the timer is set, and what `call_later` returned for it.
        self._timer_at: int | None = None
        self._timer: Any = None

    @property
    def alerts(self) -> dict[str, int]:
        """The number of alerts so far, by the name of the rule."""
        return {tracker.rule.name: tracker.alerts for tracker in self._trackers}

    @property
    def forgotten(self) -> dict[str, int]:
        """The numbers of windows and values that were dropped although they counted, and of events not watched, by rule."""
        return {tracker.rule.name: tracker.forgotten for tracker in self._trackers}

    def see(self, event: AuditEvent | StoredEvent) -> list[Alert]:
        """Add the next event and return the alerts that it causes. O(rules that concern it)."""
        timestamp = microseconds(event.timestamp)
        alerts = self._silent(timestamp) if self._silences else []

        for tracker, crossing in self._crossings(event, timestamp):
            alerts.append(_alert(tracker, crossing, event))

        return alerts

    def learn(self, event: AuditEvent | StoredEvent) -> None:
        """Note that the values of an earlier event are not new, for rules with ``first_seen``. It causes no alert."""
        names = (event.operation, event.status, event.kind)
        timestamp = microseconds(event.timestamp)

        for tracker in self._by_names.get(names) or self._cache_trackers(names):
            if isinstance(tracker, FirstSeenTracker):
                tracker.add(event, timestamp)

    def learn_lines(self, lines: Iterable[bytes]) -> None:
        """Decode each of *lines* and `learn` it, if any rule needs that."""
        if any(rule.bound == "first_seen" for rule in self.rules):
            for line in lines:
                self.learn(decode(line))

    def begin(self, time: dt.datetime) -> None:
        """Let rules with ``no_event_for`` and without ``per`` count from *time* on, not from their first event on."""
        for tracker in self._silences:
            tracker.begin(microseconds(time))

    def advance(self, now: dt.datetime) -> list[Alert]:
        """Return the alerts of rules with ``no_event_for`` at the time *now*, if all events until then were added."""
        return self._silent(microseconds(now))

    def _silent(self, now: int, most: int = sys.maxsize) -> list[Alert]:
        """Return the alerts of *most* checks for silence at *now*, in the order of their times."""
        alerts = []

        for _ in range(most):
            check, tracker = self._next_check()
            if tracker is None or check > now:
                break

            silence = tracker.check()
            if silence is not None:
                alerts.append(_alert_of_silence(tracker, silence))

        return alerts

    def _next_check(self) -> tuple[int, SilenceTracker | None]:
        """Return the earliest time at which a subject may be due, and its tracker; None if none is watched."""
        first, found = 0, None

        for tracker in self._silences:
            check = tracker.next_check
            if check is not None and (found is None or check < first):
                first, found = check, tracker

        return first, found

    def _crossings(self, event: Any, timestamp: int) -> Crossings:
        names = (event.operation, event.status, event.kind)
        trackers = self._by_names.get(names)
        if trackers is None:
            trackers = self._cache_trackers(names)

        crossings = _NONE

        for tracker in trackers:
            found = tracker.add(event, timestamp)
            if found is not None:
                crossings = [*crossings, (tracker, found)]

        return crossings

    def _cache_trackers(self, names: tuple[str | None, ...]) -> list[Tracker]:
        if len(self._by_names) >= _MAX_CACHED_NAMES:
            self._by_names.clear()

        # A stored event of another writer may have one of the six operations in any case.
        operation, *others = names
        canonical = (operation_of(operation or ""), *others)
        found = self._by_names[names] = [tracker for tracker in self._trackers if tracker.accepts(canonical)]

        return found

    def watching(
        self, accept: Callable[[bytes, int], None], call_later: CallLater, clock: Callable[[], int]
    ) -> Callable[[bytes, int], None]:
        """Return *accept*, which a commit calls with each accepted event, followed by the rules.

        Args:
            accept: Called with a line and its timestamp.
            call_later: Calls functions later: those that log alerts, and that look for silence.
            clock: Returns nanoseconds since 1970, by the clock of the events.
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

            for tracker, crossing in self._crossings(event, timestamp):
                self._schedule(_alert(tracker, crossing, decode(line)), call_later)

        if not self._silences:
            return accept_and_watch

        def accept_and_watch_silence(line: bytes, timestamp: int) -> None:
            # The timer runs in another thread.
            with self._changing:
                self._schedule_silent(timestamp, call_later)
                accept_and_watch(line, timestamp)
                self._set_timer(timestamp, call_later, clock)

        return accept_and_watch_silence

    def _schedule_silent(self, now: int, call_later: CallLater) -> None:
        """Log the first alerts about silence at *now*."""
        for alert in self._silent(now, _MOST_PER_EVENT):
            self._schedule(alert, call_later)

    def _set_timer(self, now: int, call_later: CallLater, clock: Callable[[], int]) -> None:
        """Look for silence at the time at which a subject may be due, unless the timer that is set will do so."""
        first, tracker = self._next_check()
        at = first if first > now else _AT_ONCE
        if tracker is None or (self._timer_at is not None and self._timer_at <= at):
            return

        def check() -> None:
            with self._changing:
                # Another one may be set, if this one could not be cancelled.
                if self._timer_at == at:
                    self._timer_at = None
                now = clock() // 1_000
                self._schedule_silent(now, call_later)
                self._set_timer(now, call_later, clock)

        cancel(self._timer)
        self._timer_at = at
        seconds = max(0.0, (first - clock() // 1_000) / 1e6)

        try:
            self._timer = call_later(min(seconds, _MAX_TIMER_SECONDS), check)
        except RuntimeError:
            # Without a thread, the next event tries again.
            self._timer_at = None

    def close(self) -> None:
        """Log the alerts that wait, and watch no subject for silence until its next event."""
        with self._changing:
            for tracker in self._silences:
                tracker.stop()
            cancel(self._timer)
            self._timer = self._timer_at = None
        self.log_waiting()

    def _schedule(self, alert: Alert, call_later: CallLater) -> None:
        """Log *alert* after the event has been handled."""
        if len(self._waiting) >= _MAX_WAITING:
            self.lost += 1
            return

        self._waiting.append(alert)
        if not self._is_scheduled:
            # Set before: the other thread resets it. Without a thread, the next alert, flush or close logs those that wait.
            self._is_scheduled = True
            if not try_call_later(call_later, 0.0, self.log_waiting):
                self._is_scheduled = False

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


def _alert(tracker: Tracker, crossing: Crossing, event: StoredEvent | AuditEvent) -> Alert:
    """Return the alert for *event*, which caused the *crossing*, and count it."""
    tracker.alerts += 1
    return Alert(tracker.rule, *crossing, event.timestamp, event.event_id)


def _alert_of_silence(tracker: Tracker, silence: Silence) -> Alert:
    tracker.alerts += 1

    try:
        time = _EPOCH + dt.timedelta(microseconds=silence.timestamp)
    except OverflowError:
        # The last event is at the end of the calendar.
        time = dt.datetime.max.replace(tzinfo=dt.UTC)

    return Alert(tracker.rule, silence.subject, 0, tracker.rule.threshold, time, silence.event_id)


def relevant_events(rules: Iterable[Rule]) -> list[FieldTest]:
    """Return tests that each event of a trail passes that any of *rules* needs: a source need not give the others."""
    # Silence shows by the times of all events.
    if any(rule.bound == "no_event_for" for rule in rules):
        return []

    names = [dict(rule.conditions.names) for rule in rules]
    tests = []

    for member in DISPATCH:
        wanted = [accepted[member] for accepted in names if member in accepted]
        if names and len(wanted) == len(names):
            tests.append(FieldTest(member, (OneOf(frozenset().union(*wanted)),)))

    return tests


def _require_events(name: str, value: Any) -> None:
    if isinstance(value, (str, bytes, AuditEvent)) or not isinstance(value, Iterable):
        raise AuditTypeError(
            f"{name}={value!r}: expected events, such as those of open_trail(path).iter_events(), got {type(value).__name__}"
        )


def replay(
    rules: Any,
    events: Iterable[AuditEvent | StoredEvent],
    *,
    earlier: Iterable[AuditEvent | StoredEvent] = (),
    since: Time | None = None,
    now: Time | None = None,
    operations: Mapping[str, str] | OperationClasses | None = None,
) -> Iterator[Alert]:
    """Yield the alerts that *events*, in order, cause by *rules*. O(1) memory beyond the state of the rules.

    Args:
        rules: As for `Monitor`.
        events: From any source: ``iter_events()`` of a handler or a trail, or an endless stream.
        earlier: Events before these, whose values are not new for rules with ``first_seen``. They cause no alert.
        since: The time from which rules with ``no_event_for`` and without ``per`` count; None is that of their first event.
        now: The time up to which all events are given. Without it, nothing is known about the time after the last one.
        operations: As for `Monitor`.

    Both times may be text, as in queries: ``"yesterday"``, ``"2025-01-15"``. A naive datetime is local time.

    Raises:
        AuditTypeError, AuditValueError: The rules, the events or a time are invalid; the message names the parameter.
    """
    monitor = Monitor(rules, operations=operations)
    current = dt.datetime.now(dt.UTC)
    first, last = resolve_time("since", since, current), resolve_time("now", now, current)
    for name, value in (("events", events), ("earlier", earlier)):
        _require_events(name, value)

    def alerts() -> Iterator[Alert]:
        for event in earlier:
            monitor.learn(event)

        if first is not None:
            monitor.begin(first)

        for event in events:
            yield from monitor.see(event)

        if last is not None:
            yield from monitor.advance(last)

    return alerts()
