"""What the doctor finds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from structlog_audit.cli.options import Severity
from structlog_audit.recording import health_checks as check


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong: a ``code`` to test for, how bad it is, where, a ``message`` to read, and the ``fix``."""

    code: str
    severity: Severity
    where: str
    message: str
    fix: str

    def to_dict(self) -> dict[str, Any]:
        """The finding in JSON."""
        return asdict(self)


_NOTES = ("unbounded", "re-entrancy")
_ERRORS = (
    "detached", "disabled", "level", "handler-level", "target-level", "logging-disable", "propagate", "lost", "raised",
)  # fmt: skip


def of_check(found: check.Finding, where: str) -> Finding:
    """What `AuditHandler.check` found, with how bad it is: what surely drops events is an error."""
    severity = Severity.ERROR if found.code in _ERRORS else Severity.WARNING
    return Finding(found.code, Severity.NOTE if found.code in _NOTES else severity, where, found.message, found.fix)
