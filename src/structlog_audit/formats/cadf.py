"""Cloud Auditing Data Federation (DMTF DSP0262 1.0): https://www.dmtf.org/standards/cadf.

**Mapping**

* CADF identifiers are globally unique. An event id maps to the UUID that it contains, an id that is a UUID maps to itself, and
  any other id maps to the UUIDv5 of its text, so the same text gives the same identifier. The text itself is the ``name``.
* A CADF event has one target. The target of an event with several entries is all of them together, without a name.
* Members without a counterpart in CADF are attachments.
"""

from __future__ import annotations

import re
import uuid
from operator import attrgetter
from typing import Any

from structlog_audit.events.event import EVENT_ID_PATTERN, AuditEvent, rfc3339
from structlog_audit.events.operation_classes import OperationClass
from structlog_audit.formats import field_mapping as t

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:structlog-audit")
"""The namespace of the identifiers made from text."""

# Not `uuid.UUID` alone: it also accepts underscores, and the decimal digits that the Unicode of this Python knows.
_UUID = re.compile("[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}\\1[0-9a-fA-F]{4}\\1[0-9a-fA-F]{4}\\1[0-9a-fA-F]{12}")

_ATTACHED = ("event_id", "session_id", "entry_ids", "metadata", "status", "kind")


ACTIONS = {
    OperationClass.CREATE: "create",
    OperationClass.READ: "read",
    OperationClass.EXPORT: "read",
    OperationClass.UPDATE: "update",
    OperationClass.PERMISSION: "update",
    OperationClass.CONFIGURATION: "configure",
    OperationClass.DELETE: "delete",
    OperationClass.LOGIN: "authenticate",
}
"""The actions of the CADF action taxonomy by the class of the operation."""


def identifier(resource: str, text: str | None) -> str:
    """Return the identifier of the *resource* with the id *text*, or None if unknown."""
    if text is None:
        return str(uuid.uuid5(NAMESPACE, resource))
    if _UUID.fullmatch(text):
        return str(uuid.UUID(text))
    return str(uuid.uuid5(NAMESPACE, f"{resource}:{text}"))


def _event_id(event: AuditEvent) -> str:
    is_uuid = EVENT_ID_PATTERN.fullmatch(event.event_id)
    return identifier("event", event.event_id.removeprefix("evt_") if is_uuid else event.event_id)


def _entry(event: AuditEvent) -> str | None:
    """Return the entry id if there is exactly one."""
    return event.entry_ids[0] if len(event.entry_ids) == 1 else None


def _target_id(event: AuditEvent) -> str:
    if len(event.entry_ids) > 1:
        return identifier("entries", "\0".join(event.entry_ids))
    return identifier("entry", _entry(event))


def _measurements(event: AuditEvent) -> list[dict[str, Any]]:
    if event.duration_ms is None:
        return []

    metric = {"metricId": identifier("metric", "duration_ms"), "unit": "ms", "name": "duration_ms"}
    return [{"result": event.duration_ms, "metric": metric}]


def _attachments(event: AuditEvent) -> list[dict[str, Any]]:
    members = event.to_dict()
    attachments = []
    for name in _ATTACHED:
        value = members.get(name)
        if value not in (None, [], {}):
            attachments.append({"typeURI": "application/json", "name": name, "content": value})
    return attachments


CADF: t.FieldTable = {
    "typeURI": t.constant("http://schemas.dmtf.org/cloud/audit/1.0/event"),
    "eventType": t.constant("activity"),
    "id": _event_id,
    "eventTime": lambda event: rfc3339(event.timestamp).replace("Z", "+00:00"),
    "name": t.operation,
    "action": t.by_class(ACTIONS, "unknown"),
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
    """Return *event* as a CADF event record."""
    return t.build_record(event, CADF)
