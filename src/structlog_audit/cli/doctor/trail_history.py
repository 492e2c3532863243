"""What a trail says of its own past: one pass over all its events, of every kind."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator

from structlog_audit.cli.conditions import EVERY_KIND
from structlog_audit.cli.doctor.findings import Finding
from structlog_audit.cli.options import Severity
from structlog_audit.events.event import AuditEvent, Kind, rfc3339
from structlog_audit.trail.reading.reader import TrailReader

_STEP = dt.timedelta(seconds=1)
_AHEAD = dt.timedelta(minutes=1)

_ACTS = {
    "truncated": (Severity.ERROR, "times the file was cut off under its writer, as logrotate's copytruncate does",
                  "leave rotation to maxBytes"),
    "replaced": (Severity.ERROR, "times the file was taken away or replaced under its writer",
                 "let nothing but the library rename or delete it"),
    "fault": (Severity.WARNING, "outages: the trail could not be written to", "look at the disk, and at kind=trail"),
    "retention failed": (Severity.WARNING, "segments could not be deleted by retention", "look at kind=trail"),
}  # fmt: skip


_PROBLEMS = {
    "unfinished": (Severity.NOTE, "nothing, if a writer is at it; after a crash, the next writer quarantines it"),
    "bom": (Severity.NOTE, "nothing: it is ignored"),
    "repeated": (Severity.NOTE, "nothing: it was written again after an fsync that failed, and counts once"),
    "vanished": (Severity.NOTE, "nothing, if retention deleted it"),
    "torn": (Severity.WARNING, "nothing: a writer died there, or the disk was full, and no event was acknowledged"),
    "unreadable": (Severity.ERROR, "run the doctor as a user who may read it"),
}
"""What the reader found, as `structlog_audit.trail.reading.problems` calls it. What is not here deserves a look."""


class History:
    """What is counted in the pass."""

    def __init__(self) -> None:
        self.acts: Counter[str] = Counter()
        self.intents: dict[str, AuditEvent] = {}
        self.gaps = self.lost = self.steps = 0
        self.largest = dt.timedelta(0)
        self.last: dt.datetime | None = None
        self.latest: dt.datetime | None = None

    def add(self, event: AuditEvent) -> None:
        """Count *event*, which comes after those before."""
        if event.kind == Kind.INTENT:
            self.intents[event.event_id] = event
        elif event.kind == Kind.GAP:
            lost = event.metadata.get("lost")
            self.gaps += 1
            self.lost += lost if isinstance(lost, int) else 0
        elif event.kind == Kind.TRAIL:
            self.acts[event.operation.value] += 1
        elif event.kind is None:
            self.intents.pop(str(event.metadata.get("intent_id")), None)
        if self.last is not None and self.last - event.timestamp > _STEP:
            self.steps += 1
            self.largest = max(self.largest, self.last - event.timestamp)
        self.last = event.timestamp
        self.latest = event.timestamp if self.latest is None else max(self.latest, event.timestamp)


def of_history(trail: TrailReader, where: str, now: dt.datetime) -> Iterator[Finding]:
    """What is to be found in the events of *trail*, which is called *where*."""
    history = History()
    for event in trail.iter_events(kind=EVERY_KIND):
        history.add(event)
    for looks in (_of_problems(trail), _of_acts(history), _of_loss(history), _of_clock(history, now)):
        for code, severity, message, fix in looks:
            yield Finding(code, severity, where, message, fix)


Said = tuple[str, Severity, str, str]


def _of_problems(trail: TrailReader) -> Iterator[Said]:
    for code, count in sorted(trail.problems.items()):
        example = next((problem for problem in trail.examples if problem.code == code), None)
        at = "" if example is None else f"; the first is in {example.path} at byte {example.offset}: {example.reason}"
        severity, fix = _PROBLEMS.get(code, (Severity.WARNING, "look at the place; nothing was changed"))
        yield code.replace("_", "-"), severity, f"{count} × {code} in what was read{at}", fix


def _of_acts(history: History) -> Iterator[Said]:
    for act, (severity, what, fix) in _ACTS.items():
        if history.acts[act]:
            yield act.replace(" ", "-"), severity, f"{history.acts[act]} {what}", fix


def _of_loss(history: History) -> Iterator[Said]:
    if history.gaps:
        message = f"{history.lost} events were lost, in {history.gaps} gaps that the trail has for them"
        yield "gaps", Severity.ERROR, message, "see to the disk; raise max_pending; ask for kind=gap to see when"
    if history.intents:
        oldest = min(history.intents.values(), key=lambda intent: intent.timestamp)
        message = (
            f"{len(history.intents)} operations were begun and have no outcome: under way, or ended by a crash; the oldest is "
            f"{oldest.operation.value} of {rfc3339(oldest.timestamp)}"
        )
        yield "open-intents", Severity.WARNING, message, f"find out what became of it: event_id={oldest.event_id} --all"


def _of_clock(history: History, now: dt.datetime) -> Iterator[Said]:
    if history.latest is not None and history.latest - now > _AHEAD:
        message = f"its newest event is of {rfc3339(history.latest)}, which is still to come"
        yield "clock-ahead", Severity.WARNING, message, "keep the clocks in step (NTP), here and where it was written"
    if history.steps:
        message = (
            f"{history.steps} events are more than a second earlier than the one before, the most {history.largest}"
        )
        fix = "keep the clock in step (NTP); the order of lines is that of recording"
        yield "clock-steps", Severity.NOTE, message, fix
