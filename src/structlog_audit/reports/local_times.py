"""The data of a report with times of its zone, from which its documents are made.

**Guarantees**

* A time keeps its instant: it is RFC 3339 with the offset that the zone has then, which documents state with each time.
* Sentences are made in the zone, with the offset of each time, and stay as they are.
* Only members that the library makes are changed, never names or texts of events.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from structlog_audit.reports.period import in_zone

_BOUNDS = ("start", "end", "since", "until", "complete_since", "sealed_until")
_OF_EVENTS = ("timestamp", "first", "last", "first_event", "last_event", "first_activity", "last_activity")
_TIMES = frozenset((*_BOUNDS, *_OF_EVENTS, "generated_at"))
"""The members that are a time, at any depth."""

_NAMED_BY_EVENTS = frozenset(
    ("operations", "user_activity", "by_operation", "by_user", "unclassified_operations", "metadata")
)
"""The members whose own members have names of events, if they are objects."""


def localized(members: dict[str, Any], zone: dt.tzinfo) -> dict[str, Any]:
    """Return *members*, the data of a report with times in UTC, with the times of *zone*."""
    if zone is dt.UTC:
        return members

    found: dict[str, Any] = _localized(members, zone)

    return found


def _localized(value: Any, zone: dt.tzinfo) -> Any:
    if isinstance(value, list):
        return [_localized(item, zone) for item in value]

    if not isinstance(value, dict):
        return value

    found: dict[str, Any] = {}

    for name, item in value.items():
        if name in _TIMES and isinstance(item, str):
            found[name] = in_zone(dt.datetime.fromisoformat(item), zone).isoformat(timespec="microseconds")
        elif name == "segments" or (name in _NAMED_BY_EVENTS and isinstance(item, dict)):
            # The first and the last segment are files.
            found[name] = item
        else:
            found[name] = _localized(item, zone)

    return found
