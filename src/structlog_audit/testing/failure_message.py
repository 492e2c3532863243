"""The message of a failed expectation: the recorded events, and where the nearest one differs. It fits on a screen.

**Guarantees.** The nearest event is the one that fulfils most of the filters; of several, the newest. The event source itself
evaluates each filter, so redaction and equivalent forms of values count as in any query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from structlog_audit.events.event import AuditEvent, Kind
from structlog_audit.query.event_source import EventSource

_MAX_LINE_CHARACTERS = 110
_MAX_VALUE_CHARACTERS = 48
_MAX_EVENTS = 8

_ANY_KIND = [None, *Kind]

_FILTERED_MEMBERS = {
    "start_time": "timestamp",
    "end_time": "timestamp",
    "min_duration_ms": "duration_ms",
    "max_duration_ms": "duration_ms",
}
"""The member of an event that a filter of another name applies to."""

_SHOWN_MEMBERS = ("kind", "user_id", "session_id", "entry_ids", "metadata", "error_message")


def format_filters(filters: Mapping[str, Any]) -> str:
    """Return the *filters* as keyword arguments."""
    return ", ".join(f"{name}={_short(value)}" for name, value in filters.items())


def explain_mismatch(source: EventSource, filters: Mapping[str, Any], found: Sequence[AuditEvent]) -> str:
    """Return a description of the events of *source*, of which *found* fulfil the *filters*. O(events · filters)."""
    events = source.query_events(newest_first=False, kind=_ANY_KIND)
    if not events:
        return "nothing was recorded"

    if found:
        marked = {event.event_id for event in found}
        head = [f"{len(events)} recorded, the oldest first (> marks a match):"]
        return "\n".join([*head, *_event_lines(events, marked)])

    # Without kind= a query returns events without a kind only.
    filters = {"kind": None, **filters}
    fulfilled = _ids_by_filter(source, filters)
    number, nearest = _nearest(events, fulfilled)
    differing = {name for name, ids in fulfilled.items() if nearest.event_id not in ids}
    lines = [
        f"nearest is number {number}:",
        *_comparison_lines(nearest, filters, differing),
        "",
        f"{len(events)} recorded, the oldest first (> marks the nearest):",
        *_event_lines(events, {nearest.event_id}),
    ]
    return "\n".join(lines)


def _ids_by_filter(source: EventSource, filters: Mapping[str, Any]) -> dict[str, set[str]]:
    """Return the ids of the events that fulfil each single filter."""
    fulfilled: dict[str, set[str]] = {}
    for name, value in filters.items():
        matching = source.iter_events(**{"kind": _ANY_KIND, name: value})
        fulfilled[name] = {event.event_id for event in matching}
    return fulfilled


def _nearest(events: Sequence[AuditEvent], fulfilled: Mapping[str, set[str]]) -> tuple[int, AuditEvent]:
    """Return the newest of the *events* that fulfil most filters, and its number, counted from 1."""
    best_score, best_number = -1, 0
    for number, event in enumerate(events, 1):
        score = sum(event.event_id in ids for ids in fulfilled.values())
        if score >= best_score:
            best_score, best_number = score, number
    return best_number, events[best_number - 1]


def _comparison_lines(event: AuditEvent, filters: Mapping[str, Any], differing: set[str]) -> list[str]:
    """Return a line for each member of *event* that *filters* apply to; those of *differing* filters are marked."""
    members = event.to_dict()
    lines = []
    for name, expected in filters.items():
        value = _short(members.get(_FILTERED_MEMBERS.get(name, name)))
        if name in differing:
            lines.append(_cut(f"  ! {name:<15} {value}    expected {_short(expected)}"))
        elif name != "kind":
            lines.append(_cut(f"    {name:<15} {value}"))
    return lines


def _event_lines(events: Sequence[AuditEvent], marked: set[str]) -> list[str]:
    """Return a line for each *marked* event and for the newest others, and the number of events that are left out."""
    numbered = list(enumerate(events, 1))
    shown = [pair for pair in numbered if pair[1].event_id in marked][-_MAX_EVENTS:]

    remaining = _MAX_EVENTS - len(shown)
    if remaining:
        shown += [pair for pair in numbered if pair[1].event_id not in marked][-remaining:]
    shown.sort(key=lambda pair: pair[0])

    lines = [_event_line(number, event, event.event_id in marked) for number, event in shown]
    left_out = len(events) - len(lines)
    if left_out:
        lines.append(f"  … and {left_out} more")
    return lines


def _event_line(number: int, event: AuditEvent, is_marked: bool) -> str:
    members = event.to_dict()
    shown = [f"{name}={_short(members[name])}" for name in _SHOWN_MEMBERS if members.get(name)]
    mark = ">" if is_marked else " "
    return _cut(f"  {mark} {number:>3} {event.operation} {event.status} {' '.join(shown)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_VALUE_CHARACTERS else f"{text[: _MAX_VALUE_CHARACTERS - 1]}…"


def _cut(line: str) -> str:
    line = line.rstrip()
    return line if len(line) <= _MAX_LINE_CHARACTERS else f"{line[: _MAX_LINE_CHARACTERS - 1]}…"
