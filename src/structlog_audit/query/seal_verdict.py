"""`SealVerdict`: the result of the verification of a trail's seal, as a value for verdicts, statistics and reports.

`structlog_audit.integrity.seal_verdicts` makes them. A seal that was not verified is one, too, with the reason.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from structlog_audit.events.event import rfc3339
from structlog_audit.query.plurals import counted

NOT_VERIFIED = "NOT VERIFIED"
"""The verdict on a seal that was not, or could not be, verified."""

LOSSES = frozenset({"MISSING", "MISSING_SEGMENT", "TRUNCATED", "ROLLED_BACK"})
"""The codes of findings that show that lines are missing."""

_MEANINGS = {
    "INTACT": "Every line up to the checkpoint is as it was sealed, and none is missing.",
    "NOT COVERED": "Every line up to the checkpoint is as it was sealed, but a part is not covered.",
    "CHANGED": "The trail is not as it was sealed.",
    NOT_VERIFIED: "Nothing shows whether lines were changed or removed.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SealVerdict:
    """The result of the verification of one trail, and its evidence."""

    trail: str
    """The active segment of the trail."""
    verdict: str
    """``INTACT``, ``CHANGED``, ``NOT COVERED`` or `NOT_VERIFIED`."""
    findings: tuple[str, ...] = ()
    """The findings in words; if nothing was verified, the reason."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """The number of findings of each code."""
    keys: tuple[str, ...] = ()
    """The verifier keys that were given."""
    signed_by: tuple[str, ...] = ()
    """Those of them that have signed the newest checkpoint."""
    size: int = 0
    """The number of lines that the newest checkpoint covers."""
    root: str | None = None
    """The root of the tree in the newest checkpoint, in base64."""
    sealed_until: dt.datetime | None = None
    """The time of the newest line that is sealed."""
    unsealed: int = 0
    """The number of lines after the checkpoint, which nothing proves."""
    pruned: int = 0
    """The number of sealed lines that retention has deleted."""
    anchors: tuple[str, ...] = ()
    """The files with checkpoints from outside of the host that were given."""
    anchored: int | None = None
    """The number of lines that anchors or witnesses cover; None if there were none."""

    @property
    def is_proof(self) -> bool:
        """Whether all lines up to the checkpoint are proved."""
        return self.verdict in ("INTACT", "NOT COVERED")

    @property
    def has_losses(self) -> bool:
        """Whether the verification shows that lines are missing."""
        return any(self.counts.get(code) for code in LOSSES)

    def sentence(self) -> str:
        """Return the verdict in words, without the findings."""
        return f"{self.trail}: {self.verdict}. {_MEANINGS[self.verdict]}"

    def evidence(self, zone: dt.tzinfo | None = dt.UTC) -> list[tuple[str, str]]:
        """Return the evidence of the verdict, as names and texts, with times of *zone*; None is local time."""
        if self.root is None:
            return [("Keys given", ", ".join(self.keys) or "none")]

        until = ""
        if self.sealed_until is not None:
            newest = self.sealed_until.astimezone(zone).isoformat(timespec="microseconds")
            until = f", the newest of {rfc3339(self.sealed_until) if zone is dt.UTC else newest}"

        anchored = "none: a trail that was rolled back together with its seal would not show"
        if self.anchored is not None:
            files = f" ({', '.join(self.anchors)})" if self.anchors else ""
            anchored = f"{self.anchored:,} of {counted(self.size, 'line')}{files}"

        return [
            ("Keys given", ", ".join(self.keys)),
            ("Signed by", ", ".join(self.signed_by)),
            ("Checkpoint", f"{counted(self.size, 'line')}{until}; root {self.root}"),
            ("Lines not sealed", f"{self.unsealed:,}"),
            ("Deleted by retention", f"{self.pruned:,}"),
            ("Checkpoints outside of the host", anchored),
        ]

    def to_dict(self, zone: dt.tzinfo = dt.UTC) -> dict[str, Any]:
        """Return the members as JSON values, with the evidence in times of *zone*."""
        return {
            "trail": self.trail,
            "verdict": self.verdict,
            "findings": list(self.findings),
            "counts": dict(self.counts),
            "keys": list(self.keys),
            "signed_by": list(self.signed_by),
            "size": self.size,
            "root": self.root,
            "sealed_until": None if self.sealed_until is None else rfc3339(self.sealed_until),
            "unsealed": self.unsealed,
            "pruned": self.pruned,
            "anchors": list(self.anchors),
            "anchored": self.anchored,
            "sentence": self.sentence(),
            "evidence": [list(pair) for pair in self.evidence(zone)],
        }
