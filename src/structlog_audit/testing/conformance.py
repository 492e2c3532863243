"""`check_target`: the promise of a handler as the target of an `AuditHandler`, determined by trial.

**Guarantees.** The target is used as an application uses it, through an `AuditHandler`, and read back. Each check passed,
failed (a finding with its name) or was not made (with the reason). No result is inferred from the class of the target.

**Faults.** They are real ones: a limit on the size of files in a separate process, a killed process, or an outage that the
caller causes.

**Limits.** A passed check covers only the events that it recorded. A target may have faults that need more events, or other
ones, to show.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from structlog_audit.events.event import AuditEvent
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.health_checks import Finding
from structlog_audit.testing.forked_child import ChildFailed, Send, run_in_forked_child
from structlog_audit.testing.target_trial import (
    Failed,
    Make,
    NotChecked,
    Outage,
    Read,
    TargetTrial,
    accepted_events,
    event_dicts,
    events_from_dicts,
    record_events,
)

_OPTIONAL_CHECKS = {"once", "fork", "processes"}
"""The checks that a target may fail and still promise at-least-once delivery."""

_OUTAGE_EVENTS = 3
"""Events that are recorded during an outage."""


class Promise(StrEnum):
    """The fate of an acknowledged event."""

    EXACTLY_ONCE = "exactly once"
    """It is written once, whatever was tried."""

    AT_LEAST_ONCE = "at least once"
    """It is written; after an outage perhaps twice, with the same id."""

    NONE = "nothing"
    """It may be lost or unreadable, without any report."""

    UNKNOWN = "not known"
    """No check failed, but checks that a promise requires were not made."""


@dataclass(frozen=True, slots=True)
class TargetReport:
    """The result of `check_target`.

    Attributes:
        target: The checked handler, as text.
        passed: The names of the passed checks.
        findings: The failed checks: the name under ``code``, a message, and a fix.
        not_checked: The reasons why checks were not made, by their names.
    """

    target: str
    passed: tuple[str, ...]
    findings: tuple[Finding, ...]
    not_checked: dict[str, str]

    @property
    def promise(self) -> Promise:
        """The promise of the target."""
        failed = {finding.code for finding in self.findings}
        if failed - _OPTIONAL_CHECKS:
            return Promise.NONE

        if self.not_checked.keys() - _OPTIONAL_CHECKS:
            return Promise.UNKNOWN

        return Promise.AT_LEAST_ONCE if "once" in failed else Promise.EXACTLY_ONCE

    @property
    def several_processes(self) -> bool:
        """Whether several processes may write to the same place."""
        return {"fork", "processes"} <= set(self.passed)

    def __str__(self) -> str:
        processes = "several processes" if self.several_processes else "one process"
        lines = [f"{self.target}: {self.promise}, {processes}"]
        lines += [f"  passed       {name}" for name in self.passed]
        lines += [f"  FAILED       {finding.code}: {finding.message}; {finding.fix}" for finding in self.findings]
        lines += [f"  not checked  {name}: {reason}" for name, reason in self.not_checked.items()]
        return "\n".join(lines)


def check_target(
    target: logging.Handler | Make, *, read: Read | None = None, outage: Outage | None = None
) -> TargetReport:
    """Check *target* as the target of an `AuditHandler`.

    Takes a second or two, and forks.

    Args:
        target: A function that makes the handler, each time for the same place; or a single handler, which skips the check
            that needs two of them. Its formatter is usually an `AuditJsonFormatter`.
        read: Returns everything written so far, the oldest first: lines, or ids of events. By default the lines of the
            files are read, if the handler has a ``baseFilename``.
        outage: A context manager during which the target's writes fail. By default the size of files is limited, if the
            handler has a ``baseFilename``.

    Raises:
        AuditTypeError: *target* neither is nor makes a handler that can be the target of an `AuditHandler`.
    """
    trial = TargetTrial(target, read, outage)
    passed: list[str] = []
    findings: list[Finding] = []
    not_checked: dict[str, str] = {}

    for name, (check, fix) in _CHECKS.items():
        try:
            check(trial)
        except NotChecked as reason:
            not_checked[name] = str(reason)
        except (Failed, ChildFailed) as failure:
            findings.append(Finding(name, str(failure), fix))
        except Exception as error:
            findings.append(Finding(name, f"it raised {error!r}", fix))
        else:
            passed.append(name)

    trial.end()
    return TargetReport(repr(trial.first), tuple(passed), tuple(findings), not_checked)


def _recorded(trial: TargetTrial) -> None:
    """Check that events are written and can be read back."""
    with trial.handler() as handler:
        record_events(handler, 10)
        events = accepted_events(handler)
    trial.all_found(events)


def _whole(trial: TargetTrial) -> None:
    """Check that events of any content are written unchanged.

    Each must be one whole line, or one line and its parts.
    """
    with trial.handler() as handler:
        record_events(handler, 1, text="a\nb\r\x00\u2028\u202e\x85", surrogate="\ud800", nested={"a": [1, {"b": None}]})
        record_events(handler, 1, long="x" * 25_000)
        record_events(handler, 1, entry_ids=[f"entry_{number}" for number in range(5_000)])
        record_events(handler, 1)
        events = accepted_events(handler)
    trial.all_found(events)


def _order(trial: TargetTrial) -> None:
    """Check that events are written in the order of commit."""
    with trial.handler() as handler:
        record_events(handler, 50)
        events = accepted_events(handler)

    if trial.all_found(events) != [event.event_id for event in events]:
        raise Failed("events were written in another order than they were committed in")


def _threads(trial: TargetTrial) -> None:
    """Check that threads that record at the same time lose no event."""
    with trial.handler() as handler:
        threads = [threading.Thread(target=record_events, args=(handler, 50)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        events = accepted_events(handler)
    trial.all_found(events)


def _reopened(trial: TargetTrial) -> None:
    """Check that a handler accepts events again after it was closed, even twice.

    Every later ``dictConfig`` closes handlers.
    """
    with trial.handler() as handler:
        record_events(handler, 1)
        handler.close()
        handler.close()
        record_events(handler, 1)
        events = accepted_events(handler)
        counts = handler.get_statistics()

    if counts["pending"]:
        raise Failed("it accepts no event after it was closed")
    trial.all_found(events)


def _survives(trial: TargetTrial) -> None:
    """Check that acknowledged events survive an immediate end of the process."""

    def child(send: Send) -> None:  # in a forked child
        handler = AuditHandler(target=trial.make())
        record_events(handler, 23)
        send(event_dicts(handler))
        os.kill(os.getpid(), signal.SIGKILL)

    dicts = run_in_forked_child(child)
    trial.all_found(events_from_dicts(dicts))


def _failure(trial: TargetTrial) -> None:
    """Check that a failure is raised or passed to ``handleError``.

    Then an event that was not written is pending, and not acknowledged.
    """
    outcome = trial.outcome_of_outage()
    if outcome.acknowledged > outcome.written:
        unwritten = outcome.acknowledged - outcome.written
        raise Failed(f"{unwritten} events were acknowledged in an outage and not written")

    if outcome.acknowledged == _OUTAGE_EVENTS:
        raise NotChecked("it wrote in spite of the outage; pass an outage= that makes its writes fail")


def _recovery(trial: TargetTrial) -> None:
    """Check that pending events are written after an outage, before later ones."""
    outcome = trial.outcome_of_outage()
    if outcome.acknowledged == _OUTAGE_EVENTS:
        raise NotChecked("nothing was pending, see the check of failure")

    if outcome.pending:
        raise Failed(f"{outcome.pending} events are pending though the outage is over")

    if trial.all_found(outcome.events) != [event.event_id for event in outcome.events]:
        raise Failed("events that were pending were not written before later ones")


def _fork(trial: TargetTrial) -> None:
    """Check a forked child and its parent, which share a handler.

    They must lose no event and write none twice.
    """
    with trial.handler() as handler:
        record_events(handler, 5)

        def child(send: Send) -> None:  # in a forked child
            record_events(handler, 20)
            handler.close()
            send(event_dicts(handler))

        dicts = run_in_forked_child(child, in_parent=lambda: record_events(handler, 20))
        events = accepted_events(handler)

    _check_each_once(trial, [events, events_from_dicts(dicts)])


def _processes(trial: TargetTrial) -> None:
    """Check processes that each have a handler for the same place.

    They must lose no event, write none twice, and not fail.
    """
    if not trial.is_factory:
        raise NotChecked("it needs several handlers; pass a function that makes them")

    def record_in_processes(child_count: int) -> list[Any]:
        """Record in this process and in *child_count* child processes.

        Return the events and the failures of each.
        """
        failures: list[str] = []
        with trial.handler(on_failure=lambda error: failures.append(repr(error))) as handler:
            if child_count == 0:
                record_events(handler, 500)
                results = []
            else:
                results = run_in_forked_child(
                    lambda send: send(record_in_processes(child_count - 1)),
                    in_parent=lambda: record_events(handler, 500),
                )
        return [[event_dicts(handler), failures], *results]

    results = record_in_processes(3)
    _check_each_once(trial, [events_from_dicts(dicts) for dicts, _ in results])

    failures = [failure for _, failures in results for failure in failures]
    if failures:
        raise Failed(f"it failed {len(failures)} times when others wrote as well, such as with {failures[0]}")


def _check_each_once(trial: TargetTrial, written: list[list[AuditEvent]]) -> None:
    """Raise `Failed` unless each process has written its events exactly once."""
    before = set(trial.duplicates)
    for events in written:
        trial.all_found(events)

    twice = trial.duplicates - before
    if twice:
        raise Failed(f"{len(twice)} events were written by two processes")


def _once(trial: TargetTrial) -> None:
    """Check that no event was written twice, in any of the checks."""
    if not trial.is_readable:
        raise NotChecked("the written events can't be read; pass read=")
    if trial.duplicates:
        raise Failed(f"{len(trial.duplicates)} events were written twice")


_CHECKS: dict[str, tuple[Callable[[TargetTrial], None], str]] = {
    "recorded": (
        _recorded,
        "use an AuditJsonFormatter, and write its output followed by LF and nothing else",
    ),
    "whole": (_whole, "write the text of the formatter unchanged, including its line breaks"),
    "order": (_order, "write in emit, or keep a single queue"),
    "threads": (_threads, "use no lock but the handler's: emit is called under it"),
    "reopened": (_reopened, "let emit reopen what close has closed"),
    "survives": (_survives, "pass each event to the system before emit returns: flush, or do not buffer"),
    "failure": (_failure, "let emit raise, or call handleError, when an event can't be written"),
    "recovery": (_recovery, "let emit work again once the cause is gone: reopen or reconnect"),
    "fork": (_fork, "keep no buffer that a child would inherit, and let the child open its own resources"),
    "processes": (_processes, "use it from one process only, or append each event in one write (O_APPEND)"),
    "once": (_once, "after a failure, write an event wholly or not at all; or accept that readers see some twice"),
}
"""The checks by name, each with the fix of a failure. The last one covers the events of all others."""
