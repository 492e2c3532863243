"""The state of each rule of a monitor: windows, the values seen so far, or the times since which nothing came.

**Semantics**

* Time is the time of the events, in microseconds. A value counts as seen, or a subject as silent, by the distance of two times:
  a clock that was set delays an alert no longer than it was set by.
* An event may come `LATENESS` after others with later times without a false alert of silence.
* Silence is found at the next event of any kind, or when the monitor is told the time: both give the same alert, whose time is
  the end of the silent time.

**Performance**: O(1) per event; O(log n) for each subject that is due. Memory is bounded by ``max_subjects`` of the rule.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from structlog_audit.events.event import operation_of
from structlog_audit.events.operation_classes import OperationClasses
from structlog_audit.monitoring.alerts import MEASURES, AnyWindow, Subject
from structlog_audit.monitoring.rules import Rule
from structlog_audit.query.field_tests import METADATA, text_of, values_at
from structlog_audit.query.filters import Conditions

DISPATCH = ("operation", "status", "kind")
"""The members by which an event is dispatched to rules."""

LATENESS = 5_000_000
"""Microseconds by which an event may come after others with later times: writers commit at the same time."""

_MICROSECOND = dt.timedelta(microseconds=1)
_MAX_KEY = 200
"""Characters of a value of the metadata that is kept as it is. Of a longer one, a hash is kept."""


class Crossing(NamedTuple):
    """What an alert states beside its rule and its event."""

    subject: Subject
    events: int
    value: float


class Silence(NamedTuple):
    """A subject without an event for the time of a rule."""

    subject: Subject
    timestamp: int
    """The end of that time."""
    event_id: str | None
    """The last event before it, if there was one."""


class Tracker:
    """The part that all trackers share: which events count, and for which subject."""

    def __init__(self, rule: Rule, classes: OperationClasses | None) -> None:
        self.rule = rule
        self.alerts = 0
        self.forgotten = 0
        self._of_class = rule.conditions.operation_class
        if self._of_class is not None and classes is not None:
            self._of_class = replace(self._of_class, classes=classes)

        # The dispatch members are checked by `accepts`, once per combination; the rest with each event.
        names = dict(rule.conditions.names)
        self._accepted = [names.pop(name, None) for name in DISPATCH]
        remaining = msgspec.structs.replace(rule.conditions, names=tuple(names.items()), operation_class=None)
        self._conditions = None if remaining == Conditions(()) else remaining

        fields = (rule.per,) if isinstance(rule.per, str) else rule.per or ()
        reads_metadata = any(name.startswith(METADATA) for name in fields)
        self._subject_of = _subject_reader(rule.per)
        self.needs_whole_event = remaining.entry_ids is not None or remaining.metadata is not None or reads_metadata
        self._hours = None if rule.bound == "no_event_for" else rule.during or rule.outside
        self._is_during = rule.during is not None

    def accepts(self, names: tuple[str | None, ...]) -> bool:
        """Return whether the rule may concern events with these `DISPATCH` members."""
        if self._of_class is not None and not self._of_class.matches((names[0] or "",)):
            return False

        return all(accepted is None or name in accepted for name, accepted in zip(names, self._accepted, strict=True))

    def add(self, event: Any, timestamp: int) -> Crossing | None:
        """Add *event*, whose names the rule `accepts`, and return the crossing that it causes, if any."""
        if self._conditions is not None and not self._conditions.matches(event):
            return None

        if self._hours is not None and not self._is_in_hours(timestamp):
            return None

        return self._add(event, timestamp)

    def _is_in_hours(self, timestamp: int) -> bool:
        """Return whether *timestamp* is in the hours in which events count."""
        return self._hours is None or self._hours.contains(timestamp) is self._is_during

    def _add(self, event: Any, timestamp: int) -> Crossing | None:
        raise NotImplementedError


class WindowTracker(Tracker):
    """The windows of a rule that counts or averages."""

    def __init__(self, rule: Rule, classes: OperationClasses | None) -> None:
        super().__init__(rule, classes)
        self._measure = MEASURES[rule.bound]
        self._value = self._measure.value
        self._within_us = (rule.within or dt.timedelta()) // _MICROSECOND
        self._quiet_us = rule.quiet // _MICROSECOND
        self._only = self._new_window()
        self._windows: OrderedDict[Subject, AnyWindow] = OrderedDict()

    def _new_window(self) -> AnyWindow:
        return self._measure.window(self.rule, self._within_us, self._quiet_us)

    def add(self, event: Any, timestamp: int) -> Crossing | None:
        """Add *event* as `Tracker.add`, in one call."""
        if self._conditions is not None and not self._conditions.matches(event):
            return None

        if self._hours is not None and not self._is_in_hours(timestamp):
            return None

        value = 1 if self._value is None else self._value(event, self.rule)
        if value is None:
            return None

        if self.rule.per is None:
            subject: Subject = None
            window = self._only
        else:
            subject = self._subject_of(event)
            window = self._window_of(subject, timestamp)

        if not window.add(timestamp, value):
            return None

        return Crossing(subject, window.size, self._measure.result(window))

    def _window_of(self, subject: Subject, timestamp: int) -> AnyWindow:
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


class FirstSeenTracker(Tracker):
    """The values that a rule has seen, with the time of the last event of each."""

    def __init__(self, rule: Rule, classes: OperationClasses | None) -> None:
        super().__init__(rule, classes)
        self._within_us = None if rule.within is None else rule.within // _MICROSECOND
        self._seen: OrderedDict[Subject, int] = OrderedDict()

    def _add(self, event: Any, timestamp: int) -> Crossing | None:
        subject = self._subject_of(event)
        if subject is None or (isinstance(subject, tuple) and None in subject):
            return None

        seen = self._seen
        last = seen.get(subject)
        seen[subject] = timestamp
        if last is not None:
            seen.move_to_end(subject)
            return None if self._still_counts(last, timestamp) else Crossing(subject, 1, 1)

        if len(seen) > self.rule.max_subjects:
            _, oldest = seen.popitem(last=False)
            self.forgotten += self._still_counts(oldest, timestamp)

        return Crossing(subject, 1, 1)

    def _still_counts(self, last: int, timestamp: int) -> bool:
        return self._within_us is None or abs(timestamp - last) <= self._within_us


class SilenceTracker(Tracker):
    """The subjects of a rule that are watched for silence, each with its last event and the time at which it is due."""

    def __init__(self, rule: Rule, classes: OperationClasses | None) -> None:
        super().__init__(rule, classes)
        self._duration = int(rule.threshold * 1_000_000)
        self._last: dict[Subject, tuple[int, str | None]] = {}

        # One entry for each watched subject, with a time at which to check it: its deadline, or an earlier one.
        # A silence whose subject had its next event before the check is an entry of its own.
        self._checks: list[tuple[int, int, Subject, Silence | None]] = []
        self._number = 0

    def _add(self, event: Any, timestamp: int) -> Crossing | None:
        self._watch(self._subject_of(event), timestamp, event.event_id)
        return None

    def begin(self, timestamp: int) -> None:
        """Watch from *timestamp* on, if there is one subject: with several, which they are is not known yet."""
        if self.rule.per is None:
            self._watch(None, timestamp, None)

    def stop(self) -> None:
        """Forget all subjects."""
        self._last.clear()
        self._checks.clear()

    def _watch(self, subject: Subject, timestamp: int, event_id: str | None) -> None:
        known = self._last.get(subject)
        if known is not None:
            last, _ = known
            if self._checks[0][0] + LATENESS <= timestamp:
                self._note_end_of_silence(subject, timestamp)
            # An event that is only late does not make the last one earlier.
            if not 0 < last - timestamp <= LATENESS:
                self._last[subject] = timestamp, event_id
            return

        if len(self._last) >= self.rule.max_subjects:
            self.forgotten += 1
            return

        deadline = self._deadline(timestamp)
        if deadline is not None:
            self._last[subject] = timestamp, event_id
            self._push(deadline, subject)

    def _deadline(self, last: int) -> int | None:
        """Return when the time without an event is over after *last*; None for never."""
        if self.rule.during is not None:
            return self.rule.during.time_after(last, self._duration)
        return last + self._duration

    def _push(self, time: int, subject: Subject, ended: Silence | None = None) -> None:
        self._number += 1
        heapq.heappush(self._checks, (time, self._number, subject, ended))

    def _note_end_of_silence(self, subject: Subject, timestamp: int) -> None:
        """Keep the silence of *subject* before its event at *timestamp*, if it was due and has not been found."""
        last, event_id = self._last[subject]
        deadline = self._deadline(last)
        if deadline is not None and deadline + LATENESS <= timestamp:
            self._push(deadline, subject, Silence(subject, deadline, event_id))

    @property
    def next_check(self) -> int | None:
        """The earliest time at which a subject may be due; None if none is watched."""
        return self._checks[0][0] + LATENESS if self._checks else None

    def check(self) -> Silence | None:
        """Check the subject of `next_check`; return its silence, if no event came. Its next event counts again."""
        checked, number, subject, ended = heapq.heappop(self._checks)
        if ended is not None:
            return ended

        last, event_id = self._last[subject]
        deadline = self._deadline(last)

        # The subject had events since the check was noted.
        if deadline is not None and deadline != checked:
            heapq.heappush(self._checks, (deadline, number, subject, None))
            return None

        del self._last[subject]

        return None if deadline is None else Silence(subject, deadline, event_id)


def tracker_of(rule: Rule, classes: OperationClasses | None) -> Tracker:
    """Return a new tracker for *rule*, with *classes* of operations; None stands for the registered ones."""
    kinds = {"first_seen": FirstSeenTracker, "no_event_for": SilenceTracker}
    return kinds.get(rule.bound, WindowTracker)(rule, classes)


def _subject_reader(per: str | tuple[str, ...] | None) -> Callable[[Any], Subject]:
    """Return a function that returns the subject of an event: the value of a field, or those of several."""
    if per is None:
        return lambda event: None

    if isinstance(per, str):
        return _field_reader(per)

    readers = [_field_reader(name) for name in per]

    return lambda event: tuple(read(event) for read in readers)


def _field_reader(name: str) -> Callable[[Any], str | None]:
    if name == "operation":
        return lambda event: operation_of(event.operation)

    if name.startswith(METADATA):
        path = name.removeprefix(METADATA)
        return lambda event: _metadata_text(event.metadata, path)

    return attrgetter(name)


def _metadata_text(metadata: dict[str, Any], path: str) -> str | None:
    """Return the value at *path* as text, several as a JSON list; None without one."""
    values = [value for value in values_at(metadata, path) if value is not None]
    if not values:
        return None

    text = text_of(values[0] if len(values) == 1 else values)
    if len(text) <= _MAX_KEY:
        return text

    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    return f"{text[:_MAX_KEY]}… (sha256 {digest})"
