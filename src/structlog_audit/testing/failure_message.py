"""What a failed expectation says: what was recorded instead, and where the nearest event differs. It fits on a screen.

Rules:

* The nearest event is the one that fulfils most of the filters; of several, the newest.
* The source itself is asked which events fulfil a filter, so redaction and the forms of values count as in any query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from structlog_audit.events.event import AuditEvent, Kind
from structlog_audit.query.event_source import EventSource

_WIDTH = 110
_ROWS = 8
_ANY_KIND = [None, *Kind]
_MEMBERS = {
    "start_time": "timestamp",
    "end_time": "timestamp",
    "min_duration_ms": "duration_ms",
    "max_duration_ms": "duration_ms",
}
"""The members of an event that filters of another name are about."""


def told(filters: Mapping[str, Any]) -> str:
    """The *filters* as they were written."""
    return ", ".join(f"{name}={_short(value)}" for name, value in filters.items()) or "any"


def mismatch(source: EventSource, filters: Mapping[str, Any], found: Sequence[AuditEvent]) -> str:
    """What *source* has recorded instead of exactly what the *filters* ask for, which *found* fulfils. O(events · filters)."""
    events = source.query_events(newest_first=False, kind=_ANY_KIND)
    if not events:
        return "nothing was recorded"
    matching = {event.event_id for event in found}
    nearest = None
    parts = []
    if not found:
        fulfilled = {
            name: {event.event_id for event in source.iter_events(**{"kind": _ANY_KIND, name: value})}
            for name, value in {"kind": None, **filters}.items()
        }
        scores = [sum(event.event_id in ids for ids in fulfilled.values()) for event in events]
        place = max(range(len(events)), key=lambda number: (scores[number], number))
        nearest = events[place]
        differing = {name for name, ids in fulfilled.items() if nearest.event_id not in ids}
        parts = [f"nearest is number {place + 1}:", *_compared(nearest, {"kind": None, **filters}, differing), ""]
    parts.append(f"{len(events)} recorded, the oldest first (> marks {'the nearest' if nearest else 'a match'}):")
    marked = matching or {nearest.event_id if nearest else ""}
    return "\n".join([*parts, *_rows(events, marked)])


def _compared(event: AuditEvent, filters: Mapping[str, Any], differing: set[str]) -> list[str]:
    """The members of *event* that *filters* ask for, those *differing* marked."""
    lines = []
    for name, wanted in filters.items():
        if name == "kind" and name not in differing:
            continue
        value = event.to_dict().get(_MEMBERS.get(name, name))
        mark, asked = ("!", f"    asked for {_short(wanted)}") if name in differing else (" ", "")
        lines.append(_cut(f"  {mark} {name:<15} {_short(value)}{asked}"))
    return lines


def _rows(events: Sequence[AuditEvent], marked: set[str]) -> list[str]:
    """A line for each of the newest *events*, and for those *marked*; how many there are besides."""
    numbered = list(enumerate(events, 1))
    shown = [pair for pair in numbered if pair[1].event_id in marked][-_ROWS:]
    room = _ROWS - len(shown)
    shown += [pair for pair in numbered if pair[1].event_id not in marked][-room:] if room else []
    lines = [_row(number, event, event.event_id in marked) for number, event in sorted(shown, key=lambda pair: pair[0])]
    left_out = len(events) - len(lines)
    return [*lines, f"  … and {left_out} more"] if left_out else lines


def _row(number: int, event: AuditEvent, is_marked: bool) -> str:
    members = event.to_dict()
    wanted = ("kind", "user_id", "session_id", "entry_ids", "metadata", "error_message")
    said = [f"{name}={_short(members[name])}" for name in wanted if members.get(name)]
    return _cut(f"  {'>' if is_marked else ' '} {number:>3} {event.operation} {event.status} {' '.join(said)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 48 else f"{text[:47]}…"


def _cut(line: str) -> str:
    line = line.rstrip()
    return line if len(line) <= _WIDTH else f"{line[: _WIDTH - 1]}…"
