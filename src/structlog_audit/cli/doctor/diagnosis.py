"""The results of the doctor: a finding, its severity, and the file, trail or machine that it concerns.

A check yields findings rated by `error`, `warning` or `note`; `located` adds the place, which is the same for a whole check.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from structlog_audit.cli.choices import Severity
from structlog_audit.recording.health_checks import Finding

RatedFinding = tuple[Severity, Finding]

_NOTE_CODES = frozenset(("unbounded", "re-entrancy", "root", "no-anchor", "key-in-process"))
_ERROR_CODES = frozenset(
    (
        *("detached", "disabled", "level", "handler-level", "target-level", "logging-disable", "propagate"),
        *("structlog-level", "recorded-twice", "lost", "raised", "anchor-refused"),
    )
)
"""Codes of health checks for settings that certainly drop or repeat events."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One result of the doctor: how severe a finding is, and where it applies."""

    severity: Severity
    where: str
    finding: Finding

    def to_dict(self) -> dict[str, str]:
        """Return the diagnosis as a flat JSON object."""
        return {
            "code": self.finding.code,
            "severity": self.severity.value,
            "where": self.where,
            "message": self.finding.message,
            "fix": self.finding.fix,
        }

    @classmethod
    def from_dict(cls, members: Mapping[str, str]) -> Diagnosis:
        """Return the diagnosis of which `to_dict` returned *members*."""
        finding = Finding(members["code"], members["message"], members["fix"])
        return cls(Severity(members["severity"]), members["where"], finding)


def error(code: str, message: str, fix: str) -> RatedFinding:
    """Return a finding of severity error: events are lost."""
    return Severity.ERROR, Finding(code, message, fix)


def warning(code: str, message: str, fix: str) -> RatedFinding:
    """Return a finding of severity warning: events may be lost, delayed, or read by others."""
    return Severity.WARNING, Finding(code, message, fix)


def note(code: str, message: str, fix: str) -> RatedFinding:
    """Return a finding of severity note: for information."""
    return Severity.NOTE, Finding(code, message, fix)


def located(where: str, findings: Iterable[RatedFinding]) -> Iterator[Diagnosis]:
    """Yield a diagnosis at *where* for each of *findings*."""
    for severity, finding in findings:
        yield Diagnosis(severity, where, finding)


def from_health_check(where: str, finding: Finding) -> Diagnosis:
    """Return the diagnosis of a *finding* of `AuditHandler.check`, which has no severity."""
    if finding.code in _ERROR_CODES:
        severity = Severity.ERROR
    elif finding.code in _NOTE_CODES:
        severity = Severity.NOTE
    else:
        severity = Severity.WARNING

    return Diagnosis(severity, where, finding)
