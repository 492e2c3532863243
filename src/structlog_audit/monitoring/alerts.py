"""Alerts, and the measures that rules compare with their bounds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from structlog_audit._durations import format_duration
from structlog_audit.events.event import EventStatus, rfc3339
from structlog_audit.monitoring.rules import Rule
from structlog_audit.monitoring.windows import CountWindow, MeanWindow
from structlog_audit.query.plurals import counted

_MAX_SUBJECT_CHARACTERS = 200
"""Characters of a subject in an alert's message."""

AnyWindow = CountWindow | MeanWindow

Subject = str | None | tuple[str | None, ...]
"""The value of the field of a rule's ``per`` or ``first_seen`` in an event, or those of several fields."""


class Watchable(Protocol):
    """The members of an event that measures read."""

    @property
    def operation(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def kind(self) -> str | None: ...
    @property
    def duration_ms(self) -> float | None: ...


class Measure(NamedTuple):
    """How a bound is measured.

    Attributes:
        value: Returns the number that an event contributes, or None to leave it out; None if every event counts 1.
        window: Makes a window from a rule, its length and its quiet time in microseconds.
        result: Returns the measured value of a window.
        text: The message of an alert, a format string.
    """

    value: Callable[[Watchable, Rule], int | None] | None
    window: Callable[[Rule, int, int], AnyWindow]
    result: Callable[[AnyWindow], float]
    text: str


def _duration_us(event: Watchable, rule: Rule) -> int | None:
    return None if event.duration_ms is None else int(event.duration_ms * 1_000)


def _exceeds_threshold(event: Watchable, rule: Rule) -> int | None:
    return None if event.duration_ms is None else int(event.duration_ms > rule.threshold)


MEASURES = {
    "more_than": Measure(
        None,
        lambda rule, within, quiet: CountWindow(within, quiet, int(rule.threshold)),
        lambda window: window.size,
        "more than {threshold:g} events within {within}",
    ),
    "success_rate_below": Measure(
        lambda event, rule: int(event.status == EventStatus.SUCCESS),
        lambda rule, within, quiet: MeanWindow(within, quiet, rule.threshold, True, rule.min_events),
        lambda window: window.mean,  # type: ignore[union-attr]
        "{value:.1%} of {events} within {within} succeeded, less than {threshold:.1%}",
    ),
    "avg_duration_ms_above": Measure(
        _duration_us,
        lambda rule, within, quiet: MeanWindow(within, quiet, rule.threshold * 1_000, False, rule.min_events),
        lambda window: window.mean / 1_000,  # type: ignore[union-attr]
        "{events} within {within} took {value:.1f} ms on average, more than {threshold:g} ms",
    ),
    "p95_duration_ms_above": Measure(
        _exceeds_threshold,
        lambda rule, within, quiet: MeanWindow(within, quiet, 0.05, False, rule.min_events),
        lambda window: window.mean,  # type: ignore[union-attr]
        "{value:.1%} of {events} within {within} took more than {threshold:g} ms, more than 5%",
    ),
}
"""The measures by the name of their bound. The 95th percentile exceeds a time if more than 5 % of the events took longer."""

_TEXTS = {
    **{bound: measure.text for bound, measure in MEASURES.items()},
    "first_seen": "first event",
    "no_event_for": "no event for {duration}",
}
"""The messages of alerts by the name of the bound, format strings."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A crossing of a rule's bound.

    Attributes:
        rule: The rule.
        subject: The value of the rule's ``per`` or ``first_seen``, or a tuple of those of several fields; None without
            ``per``, and for events without a value.
        events: The number of events in the window; for ``more_than``, at least so many.
        value: The measured value: a number of events, the share that succeeded, the average in milliseconds, the share
            that took longer, or the seconds without an event.
        timestamp: The time of the event that crossed the bound, or the end of the time without an event, in UTC.
        event_id: The id of that event, or of the last one before the time without an event; None if there was none.
    """

    rule: Rule
    subject: Subject
    events: int
    value: float
    timestamp: dt.datetime
    event_id: str | None

    def __str__(self) -> str:
        rule = self.rule
        text = _TEXTS[rule.bound].format(
            value=self.value,
            events=counted(self.events, "event"),
            within="" if rule.within is None else format_duration(rule.within),
            threshold=rule.threshold,
            duration=format_duration(dt.timedelta(seconds=rule.threshold if rule.bound == "no_event_for" else 0)),
        )
        if rule.bound == "first_seen" and rule.within is not None:
            text += f" within {format_duration(rule.within)}"

        if rule.during is not None:
            text += " in working hours"
        elif rule.outside is not None:
            text += " outside working hours"

        subjects = "".join(f", {name} {_shortened(value)}" for name, value in self._named_subjects())

        return f"{rule.name}: {text}{subjects}"

    def _named_subjects(self) -> list[tuple[str, str | None]]:
        """Return the fields of the rule with their values."""
        if isinstance(self.rule.per, tuple) and isinstance(self.subject, tuple):
            return list(zip(self.rule.per, self.subject, strict=True))

        if isinstance(self.rule.per, str) and not isinstance(self.subject, tuple):
            return [(self.rule.per, self.subject)]

        return []

    def to_dict(self) -> dict[str, Any]:
        """Return the alert as plain JSON values, which are also the attributes of its log record."""
        return {
            "rule": self.rule.name,
            "bound": self.rule.bound,
            "threshold": self.rule.threshold,
            "value": self.value,
            "events": self.events,
            "within_seconds": None if self.rule.within is None else self.rule.within.total_seconds(),
            "per": _plain(self.rule.per),
            "subject": _plain(self.subject),
            "timestamp": rfc3339(self.timestamp),
            "event_id": self.event_id,
        }


def _plain(value: Subject) -> str | list[str | None] | None:
    """Return the values of several fields as JSON has them."""
    return list(value) if isinstance(value, tuple) else value


def _shortened(subject: str | None) -> str:
    text = repr(subject)
    if len(text) <= _MAX_SUBJECT_CHARACTERS:
        return text

    return f"{text[:_MAX_SUBJECT_CHARACTERS]}…"
