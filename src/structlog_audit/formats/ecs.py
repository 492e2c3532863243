"""Elastic Common Schema: https://www.elastic.co/guide/en/ecs/current/, version 8.11 and later.

**Mapping**

* ECS has no field for entry ids, application sessions, a third outcome and free metadata. They are below ``audit``, a name
  that ECS does not use, as its page "Custom fields in ECS" recommends.
* An event has no log level. ``log.level``, which ecs-logging requires, follows the status.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from structlog_audit.events.event import AuditEvent, rfc3339
from structlog_audit.events.operation_classes import OperationClass
from structlog_audit.formats import field_mapping as t

CATEGORIES = {
    OperationClass.LOGIN: ["api", "authentication"],
    OperationClass.PERMISSION: ["api", "iam"],
    OperationClass.CONFIGURATION: ["api", "configuration"],
}
"""The values of ``event.category`` beyond ``api``, by the class of the operation."""

TYPES = {
    OperationClass.CREATE: ["creation"],
    OperationClass.READ: ["access"],
    OperationClass.EXPORT: ["access"],
    OperationClass.UPDATE: ["change"],
    OperationClass.PERMISSION: ["change"],
    OperationClass.CONFIGURATION: ["change"],
    OperationClass.DELETE: ["deletion"],
}
"""The values of ``event.type`` that ECS allows with these categories, by the class of the operation."""

ECS: t.FieldTable = {
    "@timestamp": lambda event: rfc3339(event.timestamp),
    "log.level": t.by_outcome("info", "error", "warn", "info"),
    "message": t.operation,
    "ecs.version": t.constant("8.11.0"),
    "event.id": attrgetter("event_id"),
    "event.kind": t.constant("event"),
    "event.category": t.by_class(CATEGORIES, ["api"]),
    "event.type": t.by_class(TYPES, ["info"]),
    "event.action": t.operation,
    "event.outcome": t.by_outcome("success", "failure", "unknown", "unknown"),
    "event.duration": t.duration(1_000_000),
    "event.provider": t.constant(t.PRODUCT),
    "user.id": attrgetter("user_id"),
    "related.user": t.users,
    "source.ip": t.address,
    "error.message": attrgetter("error_message"),
    "trace.id": t.trace_id,
    "span.id": t.span_id,
    "audit.session_id": attrgetter("session_id"),
    "audit.entry_ids": attrgetter("entry_ids"),
    "audit.metadata": attrgetter("metadata"),
    "audit.status": attrgetter("status.value"),
    "audit.duration_ms": attrgetter("duration_ms"),
    "audit.kind": attrgetter("kind"),
}


def to_ecs(event: AuditEvent) -> dict[str, Any]:
    """Return *event* as a document of the Elastic Common Schema."""
    return t.build_record(event, ECS)
