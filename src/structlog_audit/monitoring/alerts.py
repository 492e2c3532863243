"""Alerts, and the measures that rules compare with their thresholds."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from structlog_audit.events.event import EventStatus, rfc3339
from structlog_audit.monitoring.rules import Rule, duration_text
from structlog_audit.monitoring.windows import CountWindow, MeanWindow

_LONGEST_SUBJECT = 200  # characters of a subject in a message


Window = CountWindow | MeanWindow


class Watched(Protocol):
    """What rules look at: anything with the members of an event."""

    @property
    def operation(self) -> str: ...
    @property
    def status(self) -> str: ...
    @property
    def kind(self) -> str | None: ...
    @property
    def duration_ms(self) -> float | None: ...


class Measure(NamedTuple):
    """What is measured for a bound: the number that an event contributes, the window, and the words for it."""

    value: Callable[[Watched, Rule], int | None] | None
    window: Callable[[Rule, int, int], Window]
    said: Callable[[Window], float]
    text: str


def _duration(event: Watched, rule: Rule) -> int | None:
    return None if event.duration_ms is None else int(event.duration_ms * 1_000)


def _slow(event: Watched, rule: Rule) -> int | None:
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
        "{value:.1%} of {events} events within {within} succeeded, less than {threshold:.1%}",
    ),
    "avg_duration_ms_above": Measure(
        _duration,
        lambda rule, within, quiet: MeanWindow(within, quiet, rule.threshold * 1_000, False, rule.min_events),
        lambda window: window.mean / 1_000,  # type: ignore[union-attr]
        "{events} events within {within} took {value:.1f} ms on the average, more than {threshold:g} ms",
    ),
    "p95_duration_ms_above": Measure(
        _slow,
        lambda rule, within, quiet: MeanWindow(within, quiet, 0.05, False, rule.min_events),
        lambda window: window.mean,  # type: ignore[union-attr]
        "{value:.1%} of {events} events within {within} took more than {threshold:g} ms, more than 5%",
    ),
}
"""By the names of bounds. The 95th percentile lies above a time when more than 5 % of the events took longer than it."""


@dataclass(frozen=True, slots=True)
class Alert:
    """A crossing of a rule's bound.

    Attributes:
        rule: The rule.
        subject: Whose window it is, by the rule's ``per``; None if it has none, or for events without one.
        events: How many events lie in the window; of a rule with ``more_than``, at least.
        value: What was measured: that number, the share that succeeded, the average in milliseconds, or the share that took
            longer.
        timestamp: The time of the event that crossed the bound, in UTC.
        event_id: The id of that event.
    """

    rule: Rule
    subject: str | None
    events: int
    value: float
    timestamp: dt.datetime
    event_id: str

    def __str__(self) -> str:
        rule = self.rule
        within = duration_text(rule.within)
        text = MEASURES[rule.bound].text
        said = text.format(value=self.value, events=self.events, within=within, threshold=rule.threshold)
        whose = f", {rule.per} {_short(self.subject)}" if rule.per else ""
        return f"{rule.name}: {said}{whose}"

    def to_dict(self) -> dict[str, Any]:
        """The alert as plain JSON values. They are the attributes of its log record as well."""
        return {
            "rule": self.rule.name,
            "bound": self.rule.bound,
            "threshold": self.rule.threshold,
            "value": self.value,
            "events": self.events,
            "within_seconds": self.rule.within.total_seconds(),
            "per": self.rule.per,
            "subject": self.subject,
            "timestamp": rfc3339(self.timestamp),
            "event_id": self.event_id,
        }


def _short(subject: str | None) -> str:
    text = repr(subject)
    return text if len(text) <= _LONGEST_SUBJECT else f"{text[:_LONGEST_SUBJECT]}…"
