"""Helpers for tests of applications that record audit events, and of target handlers."""

from structlog_audit.testing.capture import AuditTrail, capture_events
from structlog_audit.testing.conformance import Promise, TargetReport, check_target
from structlog_audit.testing.doubles import FailingTarget, FrozenClock, seeded_randbits

__all__ = [
    "AuditTrail",
    "FailingTarget",
    "FrozenClock",
    "Promise",
    "TargetReport",
    "capture_events",
    "check_target",
    "seeded_randbits",
]
