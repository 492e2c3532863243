"""Cloud Auditing Data Federation (DMTF DSP0262 1.0): https://www.dmtf.org/standards/cadf.

Rules:

* Identifiers of CADF are globally unique. An event id of ours is the UUID that it holds, an id that is a UUID is itself, and
  any other is the UUIDv5 of its text: the same text, the same identifier. The text itself is the ``name``.
* An event has one target. Of several entries the target is all of them together, and has no name.
* What CADF has no member for is an attachment.
"""

from __future__ import annotations

import uuid
from operator import attrgetter
from typing import Any

from structlog_audit.events.event import EVENT_ID_PATTERN, AuditEvent, rfc3339
from structlog_audit.formats import field_mapping as t

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://pypi.org/project/structlog-audit/")
"""The namespace of the identifiers that are made of texts."""

_KEPT = ("event_id", "session_id", "entry_ids", "metadata", "status", "kind")


def identifier(what: str, text: str | None) -> str:
    """The identifier of the *what* that is called *text*; without a text, of an unknown one."""
    if text is None:
        return str(uuid.uuid5(NAMESPACE, what))
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return str(uuid.uuid5(NAMESPACE, f"{what}:{text}"))


def _event_id(event: AuditEvent) -> str:
    return identifier("event", event.event_id[4:] if EVENT_ID_PATTERN.fullmatch(event.event_id) else event.event_id)


def _entry(event: AuditEvent) -> str | None:
    """The one entry; None if there is none, or several."""
    return event.entry_ids[0] if len(event.entry_ids) == 1 else None


def _target_id(event: AuditEvent) -> str:
    several = len(event.entry_ids) > 1
    return identifier("entries", "\0".join(event.entry_ids)) if several else identifier("entry", _entry(event))


def _measurements(event: AuditEvent) -> list[dict[str, Any]]:
    if event.duration_ms is None:
        return []
    metric = {"metricId": identifier("metric", "duration_ms"), "unit": "ms", "name": "duration_ms"}
    return [{"result": event.duration_ms, "metric": metric}]


def _attachments(event: AuditEvent) -> list[dict[str, Any]]:
    members = event.to_dict()
    kept = {name: members.get(name) for name in _KEPT}
    return [
        {"typeURI": "application/json", "name": name, "content": value}
        for name, value in kept.items()
        if value not in (None, [], {})
    ]


CADF: t.Table = {
    "typeURI": t.constant("http://schemas.dmtf.org/cloud/audit/1.0/event"),
    "eventType": t.constant("activity"),
    "id": _event_id,
    "eventTime": lambda event: rfc3339(event.timestamp).replace("Z", "+00:00"),
    "name": t.operation,
    "action": t.by_verb("create", "read", "update", "delete", "unknown"),
    "outcome": t.by_outcome("success", "failure", "unknown", "pending"),
    "initiator.typeURI": lambda event: "unknown" if event.user_id is None else "service/security/account/user",
    "initiator.id": lambda event: identifier("user", event.user_id),
    "initiator.name": attrgetter("user_id"),
    "initiator.host.address": t.address,
    "target.typeURI": t.constant("data"),
    "target.id": _target_id,
    "target.name": _entry,
    "observer.typeURI": t.constant("service/security"),
    "observer.id": t.constant(identifier("observer", t.PRODUCT)),
    "observer.name": t.constant(t.PRODUCT),
    "reason.reasonType": lambda event: None if event.error_message is None else "error_message",
    "reason.reasonCode": attrgetter("error_message"),
    "measurements": _measurements,
    "attachments": _attachments,
}


def to_cadf(event: AuditEvent) -> dict[str, Any]:
    """*event* as a CADF event record."""
    return t.record_of(event, CADF)
