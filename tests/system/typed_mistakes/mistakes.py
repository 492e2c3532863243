"""Mistakes of users. Each line that ends in ``# mistake`` is reported by every type checker, and no other line."""

from __future__ import annotations

from structlog_audit import AuditEvent, AuditLogger, EventSource, OperationScope, audited


def misspell_a_filter(source: EventSource) -> int:
    """A filter that does not exist."""
    return source.count_events(user="ann")  # mistake


def misspell_a_statistic(source: EventSource) -> float:
    """A key that the statistics do not have."""
    return source.get_statistics()["sucess_rate"]  # mistake


def expect_text_for_a_time(event: AuditEvent) -> str:
    """An attribute of another type."""
    return event.timestamp  # mistake


def change_an_event(event: AuditEvent) -> None:
    """An event is immutable."""
    event.user_id = "ann"  # mistake


def give_an_unknown_member(audit: AuditLogger) -> None:
    """A parameter that does not exist."""
    audit.record("x", user="ann")  # mistake


def give_a_number_of_entries(audit: AuditLogger) -> None:
    """A parameter of another type."""
    audit.record("x", entry_ids=3)  # mistake


def give_a_reason_that_is_no_text(scope: OperationScope) -> None:
    """A parameter of another type."""
    scope.fail(404)  # mistake


@audited("document.load")
def load(key: str) -> int:
    """Return a number."""
    return len(key)


def call_with_another_type() -> int:
    """The decorated function keeps its signature."""
    return load(3)  # mistake
