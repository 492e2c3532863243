"""Events from lines in another form than that of this library: their content is kept, and changes are reported.

**Guarantees**

* Unknown members, among them an unknown ``kind``, move to the metadata; a member that is null counts as absent.
* A value of a wrong type moves to the metadata and is marked, as in recording. Existing marks stay.
* A time without a zone is UTC.
* A line without a status is a FAILURE if one of its other members says so: under any name with the name of a status, or as an
  outcome, an error or a level. No failure becomes a success because a member was renamed.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from structlog_audit.events.codec import MARKS, StoredEvent, sanitize_payload
from structlog_audit.events.conversion import convert
from structlog_audit.events.event import EventStatus, Kind, utc
from structlog_audit.events.payload import Payload
from structlog_audit.events.status_words import is_status_name, stated_status

_MEMBERS = frozenset(StoredEvent.__struct_fields__)
_KINDS = frozenset(Kind)
_PAYLOAD_MEMBERS = frozenset(Payload.__struct_fields__)

_OUTCOME_NAMES = frozenset(("outcome", "result", "success"))
_ERROR_NAMES = frozenset(("error", "exception", "exc_info", "exc_text"))
_LEVEL_NAMES = frozenset(("level", "levelname", "log.level", "severity"))
_FAILURE_LEVELS = frozenset(("ERR", "ERROR", "EXCEPTION", "CRITICAL", "FATAL", "ALERT", "EMERG", "EMERGENCY", "PANIC"))

_encode = msgspec.json.Encoder().encode
_LINK = re.compile("[0-9a-f]{64}")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Adaptation(NamedTuple):
    """The members of an event, and the changes in them."""

    members: dict[str, Any]
    changes: str
    """A description of the changes; empty if there are none."""


def has_only_members(line: Any) -> bool:
    """Return whether *line*, a decoded JSON object, has no other members than events have, and at most a link of a chain."""
    return _MEMBERS.issuperset(line) or (_is_link(line.get("chain")) and _MEMBERS.issuperset(line.keys() - {"chain"}))


def adapt(line: Any) -> Adaptation | None:
    """Return the members of the event in *line*, a decoded JSON value, or None if it is not an event.

    An event has an id that is text, and a time.
    """
    if not isinstance(line, dict):
        return None

    present = {name: value for name, value in line.items() if value is not None}
    event_id = present.pop("event_id", None)
    timestamp = _parse_time(present.pop("timestamp", None))
    if timestamp is None or not _is_text(event_id):
        return None

    changes = []
    if timestamp.tzinfo is None:
        changes.append("a time without a zone")
        timestamp = timestamp.replace(tzinfo=dt.UTC)
    own = {"event_id": event_id, "timestamp": utc(timestamp)} | _take_own_members(present)

    others = {name: value for name, value in present.items() if name not in _PAYLOAD_MEMBERS}
    if others:
        changes.append(f"unknown members: {', '.join(others)}")
    if "status" not in present and others:
        present["status"] = _stated_by(others)

    payload, marks = _payload_of(present)
    if marks:
        changes.append(f"unusable members: {', '.join(marks)}")
    own["status"] = EventStatus(payload.status or "SUCCESS")
    return Adaptation(msgspec.structs.asdict(payload) | own, "; ".join(changes))


def _take_own_members(present: dict[str, Any]) -> dict[str, Any]:
    """Remove the members that only the library assigns from *present*, and return them, if their values are such."""
    own = {}
    kind = present.get("kind")
    if isinstance(kind, str) and kind in _KINDS:
        own["kind"] = present.pop("kind")
    if _is_text(present.get("part_of")):
        own["part_of"] = present.pop("part_of")
    if _is_link(present.get("chain")):
        own["chain"] = present.pop("chain")
    return own


def _is_link(value: Any) -> bool:
    """Return whether *value* is a link of a chain (`structlog_audit.integrity.chain_link`)."""
    return isinstance(value, str) and _LINK.fullmatch(value) is not None


def _payload_of(members: dict[str, Any]) -> tuple[Payload, Mapping[str, Any]]:
    """Return *members* as a payload, and the marks of those that are not used as they are."""
    metadata = members.get("metadata")
    existing = {}

    # Conversion takes marks that it did not make for an application's own key, and renames it.
    if isinstance(metadata, dict) and isinstance(metadata.get(MARKS), dict):
        unmarked = dict(metadata)
        existing = unmarked.pop(MARKS)
        members = {**members, "metadata": unmarked}

    payload = convert(members)
    try:
        _encode(payload)
    except (TypeError, ValueError, RecursionError):
        payload = sanitize_payload(payload)

    marks = payload.metadata.pop(MARKS, {})
    if existing or marks:
        payload.metadata[MARKS] = {**existing, **marks}
    return payload, marks


def _stated_by(others: Mapping[str, Any]) -> str | None:
    """Return the status that the *others*, members under names that events do not have, state; the worst of several."""
    stated = {_stated_by_member(name.lower(), value) for name, value in others.items()}
    for status in (EventStatus.FAILURE, EventStatus.PARTIAL):
        if status in stated:
            return status.value
    return None


def _stated_by_member(name: str, value: Any) -> EventStatus | None:
    if name in _OUTCOME_NAMES or is_status_name(value):
        return stated_status(value)

    is_failure_level = name in _LEVEL_NAMES and isinstance(value, str) and value.upper() in _FAILURE_LEVELS
    is_error = name in _ERROR_NAMES and bool(value)
    return EventStatus.FAILURE if is_failure_level or is_error else None


def _parse_time(value: Any) -> dt.datetime | None:
    """Return the RFC 3339 time in *value*, whose zone may be missing; None if it is not one.

    ``datetime.fromisoformat`` accepts more, and something else in each version of Python.
    """
    # A lone surrogate, which JSON can have as an escape, makes msgspec raise a UnicodeEncodeError.
    try:
        return msgspec.convert(value, dt.datetime)
    except (msgspec.ValidationError, ValueError):
        return None


def _is_text(value: Any) -> bool:
    """Return whether *value* is a text that UTF-8 can encode."""
    return isinstance(value, str) and _SURROGATE.search(value) is None
