"""The data of a report with times of its zone, from which its documents are made.

**Guarantees**

* A time keeps its instant: it is RFC 3339 with the offset that the zone has then, which documents state with each time.
* Only members that the library makes are changed, never names or texts of events.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

from structlog_audit.query.completeness import Completeness
from structlog_audit.reports.period import in_zone

_BOUNDS = ("start", "end", "since", "until", "complete_since", "sealed_until")
_OF_EVENTS = ("timestamp", "first", "last", "first_event", "last_event", "first_activity", "last_activity")
_TIMES = frozenset((*_BOUNDS, *_OF_EVENTS, "generated_at"))
"""The members that are a time, at any depth."""

_NAMED_BY_EVENTS = frozenset(
    ("operations", "user_activity", "by_operation", "by_user", "unclassified_operations", "metadata")
)
"""The members whose own members have names of events, if they are objects."""


def localized(members: dict[str, Any], zone: dt.tzinfo, verdicts: Mapping[str, Completeness]) -> dict[str, Any]:
    """Return *members* with the times of *zone*.

    Args:
        members: The data of a report, with times in UTC.
        zone: The zone.
        verdicts: The verdicts of the report by the names of the members that contain their sentences.
    """
    if zone is dt.UTC:
        return members

    found: dict[str, Any] = _localized(members, zone)
    for name, verdict in verdicts.items():
        part = found[name]
        completeness = part.get("completeness", part)
        completeness["sentences"] = verdict.sentences(zone)
        completeness["headline"] = verdict.headline(zone)
        for seal, members_of_seal in zip(verdict.seals, found.get("integrity", ()), strict=False):
            members_of_seal["evidence"] = [list(pair) for pair in seal.evidence(zone)]
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
