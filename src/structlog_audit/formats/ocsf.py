"""Open Cybersecurity Schema Framework: https://schema.ocsf.io, class API Activity (6003).

**Mapping**

* The version is 1.8.0; the records are valid in every version since 1.1.0.
* API Activity requires an actor and a source. Without a user, the actor is named "unknown", of type Unknown; for the library's
  own events it is the library, of type System. A source without an address is named "unknown".
* OCSF has ``time`` and ``duration`` in whole milliseconds. ``metadata.original_time`` and ``unmapped`` have the exact values.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from structlog_audit._version import __version__
from structlog_audit.events.event import AuditEvent, rfc3339
from structlog_audit.events.operation_classes import OperationClass
from structlog_audit.formats import field_mapping as t

_UNKNOWN = "unknown"

_ACTIVITIES = {
    OperationClass.CREATE: (1, "Create"),
    OperationClass.READ: (2, "Read"),
    OperationClass.EXPORT: (2, "Read"),
    OperationClass.UPDATE: (3, "Update"),
    OperationClass.PERMISSION: (3, "Update"),
    OperationClass.CONFIGURATION: (3, "Update"),
    OperationClass.DELETE: (4, "Delete"),
}
"""The activities of the class API Activity: an export reads, and a change of rights or settings updates."""

_activity = t.by_class({found: number for found, (number, _) in _ACTIVITIES.items()}, 99)
_caption = t.by_class({found: caption for found, (_, caption) in _ACTIVITIES.items()}, None)


def _activity_name(event: AuditEvent) -> str:
    """Return the caption of the activity; for "Other", its name in the source, as OCSF requires."""
    return _caption(event) or t.operation(event)


def _resources(event: AuditEvent) -> list[dict[str, str]]:
    return [{"uid": entry_id} for entry_id in event.entry_ids]


def _without_user(unknown: Any, library: Any) -> t.Value:
    """Return a value for events without a user: *library* for the events of the library, else *unknown*."""

    def found(event: AuditEvent) -> Any:
        if event.user_id is not None:
            return None
        return unknown if event.kind is None else library

    return found


OCSF: t.FieldTable = {
    "activity_id": _activity,
    "activity_name": _activity_name,
    "category_uid": t.constant(6),
    "category_name": t.constant("Application Activity"),
    "class_uid": t.constant(6003),
    "class_name": t.constant("API Activity"),
    "type_uid": lambda event: 600300 + _activity(event),
    "type_name": lambda event: f"API Activity: {_caption(event) or 'Other'}",
    "time": t.timestamp_ms,
    "severity_id": t.by_outcome(1, 3, 2, 1),
    "severity": t.by_outcome("Informational", "Medium", "Low", "Informational"),
    "status_id": t.by_outcome(1, 2, 99, 0),
    "status": t.by_outcome("Success", "Failure", "Partial", "Unknown"),
    "status_detail": attrgetter("error_message"),
    "duration": t.duration(1),
    "metadata.version": t.constant("1.8.0"),
    "metadata.product.name": t.constant(t.PRODUCT),
    "metadata.product.vendor_name": t.constant(t.PRODUCT),
    "metadata.product.version": t.constant(__version__),
    "metadata.uid": attrgetter("event_id"),
    "metadata.event_code": t.operation,
    "metadata.original_time": lambda event: rfc3339(event.timestamp),
    "metadata.correlation_uid": t.trace_id,
    "actor.user.uid": attrgetter("user_id"),
    "actor.user.name": _without_user(_UNKNOWN, t.PRODUCT),
    "actor.user.type_id": _without_user(0, 3),
    "actor.session.uid": attrgetter("session_id"),
    "api.operation": t.operation,
    "src_endpoint.ip": t.address,
    "src_endpoint.name": lambda event: None if t.address(event) else _UNKNOWN,
    "resources": _resources,
    "unmapped.metadata": attrgetter("metadata"),
    "unmapped.status": attrgetter("status.value"),
    "unmapped.duration_ms": attrgetter("duration_ms"),
    "unmapped.kind": attrgetter("kind"),
}


def to_ocsf(event: AuditEvent) -> dict[str, Any]:
    """Return *event* as an OCSF event of the class API Activity."""
    return t.build_record(event, OCSF)
