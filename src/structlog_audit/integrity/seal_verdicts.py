"""The verdicts on the seals of trails, for completeness, statistics and reports.

**Performance.** Each trail is read once more: about 1.7 µs of CPU per line, in constant memory.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Sequence

from structlog_audit.exceptions import AuditValueError
from structlog_audit.integrity.errors import raising
from structlog_audit.integrity.notes import Policy
from structlog_audit.integrity.standalone.verify_trail import Report, load_policies, verify
from structlog_audit.query.seal_verdict import NOT_VERIFIED, SealVerdict


def verify_seals(
    trails: Iterable[str | os.PathLike[str]],
    keys: Sequence[str],
    *,
    anchors: Sequence[str | os.PathLike[str]] = (),
    max_age: float | None = None,
) -> list[SealVerdict]:
    """Return the verdict on the seal of each of *trails*.

    Args:
        trails: The paths of active segments.
        keys: Verifier keys, or files with one or with a policy. Without any, nothing is verified, which the verdicts state.
        anchors: Files from outside of the host that have checkpoints in any form.
        max_age: The age in seconds from which on lines that are not sealed or anchored are findings; None for never.

    Raises:
        AuditValueError: A key cannot be used.
    """
    if not keys:
        return [_not_verified(os.fspath(trail)) for trail in trails]
    with raising(AuditValueError):
        policy = load_policies(keys)

    verdicts = []
    files = tuple(os.fspath(anchor) for anchor in anchors)
    for trail in trails:
        report = verify(os.fspath(trail), policy, anchors=files, max_age=max_age)
        verdicts.append(seal_verdict(report, policy, files))
    return verdicts


def _not_verified(trail: str) -> SealVerdict:
    is_sealed = os.path.isdir(f"{trail}.seal")
    reason = "Not verified: no key given." if is_sealed else "Not verified: no key given, and no seal beside the trail."
    return SealVerdict(trail=trail, verdict=NOT_VERIFIED, findings=(reason,))


def seal_verdict(report: Report, policy: Policy, anchors: tuple[str, ...]) -> SealVerdict:
    """Return the *report* of a verification by *policy* and *anchors* as a verdict."""
    until = report.sealed_until
    return SealVerdict(
        trail=report.trail,
        verdict=report.verdict,
        findings=tuple(report.lines_of_findings()),
        counts=report.counts,
        keys=tuple(map(str, policy.logs)),
        signed_by=tuple(report.signed_by),
        size=report.size,
        root=report.root,
        sealed_until=None if until is None else dt.datetime.fromisoformat(until),
        unsealed=report.unsealed,
        pruned=report.pruned,
        anchors=anchors,
        anchored=report.anchored,
    )
