"""Checks of the contents of a trail: one pass over its events of every kind."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator

from structlog_audit.cli.choices import Severity
from structlog_audit.cli.conditions import EVERY_KIND
from structlog_audit.cli.doctor.diagnosis import Diagnosis, RatedFinding, error, located, note, warning
from structlog_audit.events.conversion import has_unknown_status
from structlog_audit.events.event import AuditEvent, Kind, rfc3339
from structlog_audit.query.completeness import Cause
from structlog_audit.query.plurals import counted
from structlog_audit.recording.health_checks import UNKNOWN_STATUS_FIX, Finding
from structlog_audit.trail.reading.reader import TrailReader

_STEP_TOLERANCE = dt.timedelta(seconds=1)
_FUTURE_TOLERANCE = dt.timedelta(minutes=1)

_TRAIL_EVENTS = {
    "truncated": (
        Severity.ERROR,
        "the file was truncated while in use, as by logrotate's copytruncate",
        "leave rotation to AuditFileHandler (maxBytes)",
    ),
    "replaced": (
        Severity.ERROR,
        "the file was removed or replaced while in use",
        "let only this library rename or delete the file",
    ),
    "fault": (
        Severity.WARNING,
        "the trail could not be written",
        "check the disk, and the events with kind=trail",
    ),
    "retention failed": (
        Severity.WARNING,
        "retention could not delete segments",
        "check the events with kind=trail",
    ),
}
"""Operations of trail events that report trouble: severity, message, fix."""

_PROBLEMS = {
    "unfinished": (
        Severity.NOTE,
        "none while a process is writing; after a crash, the next writer ends the line and records a quarantine event",
    ),
    "bom": (Severity.NOTE, "none: the byte order mark is ignored"),
    "drift": (Severity.WARNING, "none if another program wrote these lines: their other members are in the metadata"),
    "repeated": (Severity.NOTE, "none: the line was written again after a failed fsync and counts once"),
    "copy": (Severity.NOTE, "move the copy to another folder, or name the file instead of the folder"),
    "vanished": (Severity.NOTE, "none if retention deleted the segment"),
    "torn": (Severity.WARNING, "none: a writer died here or the disk was full; the event was not acknowledged"),
    "unreadable": (Severity.ERROR, "run the doctor as a user with read permission"),
}
"""Problems by code, as in `structlog_audit.trail.reading.problems`: severity, fix. All others use `_OTHER_PROBLEM`."""

_OTHER_PROBLEM = (Severity.WARNING, "inspect the file; the doctor has not changed it")


def check_history(trail: TrailReader, where: str, now: dt.datetime) -> Iterator[Diagnosis]:
    """Yield diagnoses of the events of *trail*, and of the problems met while they are read.

    Args:
        trail: The trail. All its events are read.
        where: The place for the diagnoses.
        now: The present time, for events in the future.
    """
    history = History()
    for event in trail.iter_events(kind=EVERY_KIND):
        history.add(event)

    checks = (
        _check_problems(trail),
        _check_trail_events(history),
        _check_outcomes(history),
        _check_statuses(history),
        _check_clock(history, now),
        _check_completeness(trail),
    )
    for check in checks:
        yield from located(where, check)


class History:
    """Counters over the events of a trail, which are added in the order of recording."""

    def __init__(self) -> None:
        self.trail_events: Counter[str] = Counter()
        self.open_intents: dict[str, AuditEvent] = {}
        self.gaps = 0
        self.lost = 0
        self.unknown_status = 0

        self.newest: dt.datetime | None = None
        self.backward_steps = 0
        self.largest_step = dt.timedelta(0)
        self._previous: dt.datetime | None = None

    def add(self, event: AuditEvent) -> None:
        """Count *event*."""
        self._count_kind(event)
        self._compare_time(event.timestamp)

    def _count_kind(self, event: AuditEvent) -> None:
        if event.kind == Kind.INTENT:
            self.open_intents[event.event_id] = event
        elif event.kind == Kind.GAP:
            self._add_gap(event)
        elif event.kind == Kind.TRAIL:
            self.trail_events[event.operation.value] += 1
        elif event.kind is None:
            intent_id = str(event.metadata.get("intent_id"))
            self.open_intents.pop(intent_id, None)
            self.unknown_status += has_unknown_status(event.metadata)

    def _add_gap(self, event: AuditEvent) -> None:
        self.gaps += 1

        lost = event.metadata.get("lost")
        if isinstance(lost, int):
            self.lost += lost

    def _compare_time(self, timestamp: dt.datetime) -> None:
        if self._previous is not None:
            step = self._previous - timestamp
            if step > _STEP_TOLERANCE:
                self.backward_steps += 1
                self.largest_step = max(self.largest_step, step)

        self._previous = timestamp
        self.newest = timestamp if self.newest is None else max(self.newest, timestamp)


def _check_problems(trail: TrailReader) -> Iterator[RatedFinding]:
    for code, count in sorted(trail.problems.items()):
        severity, fix = _PROBLEMS.get(code, _OTHER_PROBLEM)

        # The reader keeps a limited number of examples, so there may be none for this code.
        message = f"{count} × {code}"
        example = next((problem for problem in trail.examples if problem.code == code), None)
        if example is not None:
            message += f", first in {example.path} at byte {example.offset}: {example.reason}"

        yield severity, Finding(code.replace("_", "-"), message, fix)


def _check_trail_events(history: History) -> Iterator[RatedFinding]:
    for operation, (severity, message, fix) in _TRAIL_EVENTS.items():
        count = history.trail_events[operation]
        if not count:
            continue

        code = operation.replace(" ", "-")
        counted_message = f"{message} ({count} ×)"
        yield severity, Finding(code, counted_message, fix)


def _check_outcomes(history: History) -> Iterator[RatedFinding]:
    if history.gaps:
        message = f"{counted(history.lost, 'event')} lost, as recorded in {counted(history.gaps, 'gap event')}"
        yield error("gaps", message, "check the disk; raise max_pending; query kind=gap for the times")

    if history.open_intents:
        oldest = min(history.open_intents.values(), key=lambda intent: intent.timestamp)
        message = (
            f"{counted(len(history.open_intents), 'operation')} started without an outcome: still running, or "
            f"interrupted by a crash; the oldest is {oldest.operation.value} at {rfc3339(oldest.timestamp)}"
        )
        yield warning("open-intents", message, f"find out how it ended; query event_id={oldest.event_id} --all")


def _check_completeness(trail: TrailReader) -> Iterator[RatedFinding]:
    verdict = trail.completeness()
    missing = [item for item in verdict.missing if item.cause != Cause.GAP]
    sentences = " ".join(verdict.sentences())

    if missing:
        yield error(
            "incomplete", f"{verdict.headline()}: {sentences}", "find out who removed lines or files; restore them"
        )
    elif not verdict.is_acceptable:
        yield note("completeness-unknown", f"{verdict.headline()}: {sentences}", "look for the missing evidence")


def _check_statuses(history: History) -> Iterator[RatedFinding]:
    if history.unknown_status:
        message = f"{counted(history.unknown_status, 'event')} with a status that states neither success nor failure"
        yield note("unknown-status", message, UNKNOWN_STATUS_FIX)


def _check_clock(history: History, now: dt.datetime) -> Iterator[RatedFinding]:
    if history.newest is not None and history.newest - now > _FUTURE_TOLERANCE:
        message = f"the newest event is from {rfc3339(history.newest)}, which is in the future"
        yield warning("clock-ahead", message, "synchronize the clocks (NTP) of this machine and of the writers")

    if history.backward_steps:
        steps = counted(history.backward_steps, "time")
        message = f"the timestamps go back by more than a second {steps}, by {history.largest_step} at most"
        yield note("clock-steps", message, "synchronize the clock (NTP); the order of lines is the order of recording")
