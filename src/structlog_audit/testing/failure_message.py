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
    return ", ".join(_argument(name, value) for name, value in filters.items())


def explain_mismatch(source: EventSource, filters: Mapping[str, Any], found: Sequence[AuditEvent]) -> str:
    """Return a description of the events of *source*. O(events · filters).

    *found* are those that fulfil the *filters*.
    """
    events = source.query_events(newest_first=False, kind=_ANY_KIND)
    if not events:
        return "nothing was recorded"

    if found:
        marked = {event.event_id for event in found}
        lines = [
            f"{len(events)} recorded, the oldest first (> marks a match):",
            *_event_lines(events, marked),
        ]
        return "\n".join(lines)

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
        # The filter for the kind is one of them, so any kind counts for all others.
        matching = source.iter_events(**{"kind": _ANY_KIND, name: value})
        fulfilled[name] = {event.event_id for event in matching}

    return fulfilled


def _nearest(events: Sequence[AuditEvent], fulfilled: Mapping[str, set[str]]) -> tuple[int, AuditEvent]:
    """Return the number and the newest of the *events* that fulfil most filters.

    Numbers are counted from 1.
    """
    best_score = -1
    best_number = 0

    for number, event in enumerate(events, 1):
        score = sum(event.event_id in ids for ids in fulfilled.values())
        if score >= best_score:
            best_score = score
            best_number = number

    return best_number, events[best_number - 1]


def _comparison_lines(event: AuditEvent, filters: Mapping[str, Any], differing: set[str]) -> list[str]:
    """Return a line for each member of *event* that *filters* apply to.

    Members of *differing* filters are marked.
    """
    members = event.to_dict()
    lines = []

    for name, expected in filters.items():
        member = _FILTERED_MEMBERS.get(name, name)
        value = _short(members.get(member))

        if name in differing:
            line = f"  ! {name:<15} {value}    expected {_short(expected)}"
            lines.append(_cut(line))
        elif name != "kind":
            line = f"    {name:<15} {value}"
            lines.append(_cut(line))

    return lines


def _event_lines(events: Sequence[AuditEvent], marked: set[str]) -> list[str]:
    """Return a line for each *marked* event and for the newest others.

    The last line has the number of events that are left out.
    """
    matches: list[tuple[int, AuditEvent]] = []
    others: list[tuple[int, AuditEvent]] = []
    for number, event in enumerate(events, 1):
        group = matches if event.event_id in marked else others
        group.append((number, event))

    # Marked events come first; others fill the remaining lines.
    shown = matches[-_MAX_EVENTS:]
    remaining = _MAX_EVENTS - len(shown)
    if remaining:
        shown += others[-remaining:]
    shown.sort(key=_number_of)

    lines: list[str] = []
    for number, event in shown:
        is_marked = event.event_id in marked
        lines.append(_event_line(number, event, is_marked))

    left_out = len(events) - len(shown)
    if left_out:
        lines.append(f"  … and {left_out} more")
    return lines


def _number_of(numbered: tuple[int, AuditEvent]) -> int:
    return numbered[0]


def _event_line(number: int, event: AuditEvent, is_marked: bool) -> str:
    members = event.to_dict()
    arguments = [_argument(name, members[name]) for name in _SHOWN_MEMBERS if members.get(name)]

    mark = ">" if is_marked else " "
    line = f"  {mark} {number:>3} {event.operation} {event.status} {' '.join(arguments)}"
    return _cut(line)


def _argument(name: str, value: Any) -> str:
    return f"{name}={_short(value)}"


def _short(value: Any) -> str:
    text = repr(value)
    if len(text) <= _MAX_VALUE_CHARACTERS:
        return text
    return f"{text[: _MAX_VALUE_CHARACTERS - 1]}…"


def _cut(line: str) -> str:
    line = line.rstrip()
    if len(line) <= _MAX_LINE_CHARACTERS:
        return line
    return f"{line[: _MAX_LINE_CHARACTERS - 1]}…"
