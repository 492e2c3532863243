"""Queries, with the values that applications have."""

from __future__ import annotations

import datetime as dt
import enum
import json
import uuid
from collections.abc import Iterable
from typing import Unpack

from structlog_audit import (
    ANY,
    AuditEvent,
    EventSource,
    EventStatus,
    Filters,
    OperationClass,
    OperationType,
    Statistics,
    get_audit_handler,
    open_trail,
)
from structlog_audit.reports import compliance_report


class Kind(enum.Enum):
    """Operations that are not text."""

    MOVE = "document.move"


def ids(events: Iterable[AuditEvent]) -> set[str]:
    """Return the ids of events."""
    return {event.event_id for event in events}


def search(source: EventSource, users: set[uuid.UUID], since: dt.datetime | None = None) -> list[AuditEvent]:
    """Search with every kind of value."""
    found = source.query_events(user_id=users, operation=OperationType.STORE, start_time=since, limit=10)
    found += source.query_events(user_id=7, entry_ids=uuid.uuid4(), metadata={"a": 1}, kind=ANY)
    found += source.query_events(user_id=None, status=EventStatus.FAILURE, min_duration_ms=3)
    found += source.query_events(operation_class=[OperationClass.DELETE, "export", None])
    found += source.query_events(operation=("a", "b"))
    found += source.query_events(operation=Kind.MOVE, user_id={"ann": 1}.keys(), since=dt.timedelta(days=1))
    return found


def count(path: str, **filters: Unpack[Filters]) -> int:
    """Pass filters on."""
    return open_trail(path).count_events(**filters)


def success_rate(statistics: Statistics) -> float:
    """Return a member of the statistics, which are typed."""
    failures: int = statistics["by_status"]["FAILURE"]
    first: dt.datetime | None = statistics["first_event"]
    return statistics["success_rate"] if failures and first else 1.0


def summary(path: str) -> float:
    """Return a figure of all events of this process and of a file."""
    handler = get_audit_handler()
    rates = [success_rate(source.get_statistics()) for source in (handler, open_trail(path))]
    by_user = handler.get_statistics_by_user()
    report = compliance_report(handler, user_id=7, since="7d", until=dt.date.today())
    rates.append(report.to_dict()["summary"]["success_rate"])
    total: int = sum(of_user["total_operations"] for of_user in by_user.values())
    return sum(rates) / total


def as_json(event: AuditEvent) -> str:
    """Return an event as JSON, as a mapping and by its attributes."""
    members = dict(event)
    assert members["event_id"] == event["event_id"] == event.event_id
    duration: float = event.duration_ms or 0.0
    return json.dumps({**event.to_dict(), "duration": duration, "operation": event.operation.value})
