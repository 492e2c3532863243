"""`check_target`: what a handler is worth as the target of an `AuditHandler`, found out by trying.

Rules:

* The target is used as an application uses it: through an `AuditHandler`, and read back. Faults are real ones: a limit on
  the size of files in a process of its own, a process that is killed, or an outage that the caller makes.
* Each check says passed, failed (a finding with its name) or not checked (and why). Nothing is inferred from the class.
* What passed is what was tried: a target may have faults that need more events, or other ones, to show.
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
from structlog_audit.testing.forked_child import ChildFailed, run_in_forked_child
from structlog_audit.testing.target_trial import (
    Failed,
    Make,
    NotChecked,
    Outage,
    Read,
    Trial,
    events_from,
    events_of,
    record,
    told_of,
)

_LESSER = {"once", "fork", "processes"}
"""The checks that a target may fail and still promise something."""


class Promise(StrEnum):
    """What becomes of an event that was acknowledged."""

    EXACTLY_ONCE = "exactly once"
    """It is written once, whatever was tried."""

    AT_LEAST_ONCE = "at least once"
    """It is written, after an outage perhaps twice, with the same id."""

    NONE = "nothing"
    """It may be lost or unreadable, and nobody is told."""

    UNKNOWN = "not known"
    """Nothing speaks against it, but what it takes to say more was not checked."""


@dataclass(frozen=True, slots=True)
class TargetReport:
    """What `check_target` found.

    Attributes:
        target: The handler that was checked, as text.
        passed: The names of the checks that it passed.
        findings: What it failed: the name of the check under ``code``, what happened, and what to do.
        not_checked: Why a check was not made, by its name.
    """

    target: str
    passed: tuple[str, ...]
    findings: tuple[Finding, ...]
    not_checked: dict[str, str]

    @property
    def promise(self) -> Promise:
        """What the target promises."""
        failed = {finding.code for finding in self.findings}
        if failed - _LESSER:
            return Promise.NONE
        if self.not_checked.keys() - _LESSER:
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
        lines += [f"  FAILED       {found.code}: {found.message}; {found.fix}" for found in self.findings]
        lines += [f"  not checked  {name}: {why}" for name, why in self.not_checked.items()]
        return "\n".join(lines)


def check_target(
    target: logging.Handler | Make, *, read: Read | None = None, outage: Outage | None = None
) -> TargetReport:
    """Try out *target* as the target of an `AuditHandler`. Takes a second or two, and forks.

    Args:
        target: A function that makes the handler, each time for the same place; or one handler, which leaves out the check
            that needs two of them. Its formatter is usually an `AuditJsonFormatter`.
        read: Everything that was written so far, the oldest first: lines, or ids of events. For a handler of files (with
            ``baseFilename``) the lines of its files are read, if this is not given.
        outage: A context manager that has the target's writes fail. For a handler of files the size of files is limited, if
            this is not given.

    Raises:
        AuditTypeError: *target* is, or makes, no handler, or one that can't be chained to.
    """
    trial = Trial(target, read, outage)
    passed: list[str] = []
    findings: list[Finding] = []
    not_checked: dict[str, str] = {}
    for name, (check, fix) in _CHECKS.items():
        try:
            check(trial)
        except NotChecked as why:
            not_checked[name] = str(why)
        except (Failed, ChildFailed) as what:
            findings.append(Finding(name, str(what), fix))
        except Exception as error:
            findings.append(Finding(name, f"it raised {error!r}", fix))
        else:
            passed.append(name)
    trial.end()
    return TargetReport(repr(trial.first), tuple(passed), tuple(findings), not_checked)


def _recorded(trial: Trial) -> None:
    """Events are written, so that they can be read back."""
    with trial.handler() as handler:
        record(handler, 10)
        events = events_of(handler)
    trial.all_found(events)


def _whole(trial: Trial) -> None:
    """Whatever an event contains, it is written as it is: one whole line, or one line and its parts."""
    with trial.handler() as handler:
        record(handler, 1, text="a\nb\r\x00\u2028\u202e\x85", surrogate="\ud800", nested={"a": [1, {"b": None}]})
        record(handler, 1, long="x" * 25_000)
        record(handler, 1, entry_ids=[f"entry_{number}" for number in range(5_000)])
        record(handler, 1)
        events = events_of(handler)
    trial.all_found(events)


def _order(trial: Trial) -> None:
    """Events are written in the order of commit."""
    with trial.handler() as handler:
        record(handler, 50)
        events = events_of(handler)
    if trial.all_found(events) != [event.event_id for event in events]:
        raise Failed("events were written in another order than they were committed in")


def _threads(trial: Trial) -> None:
    """Threads that record at the same time lose nothing."""
    with trial.handler() as handler:
        threads = [threading.Thread(target=record, args=(handler, 50)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        events = events_of(handler)
    trial.all_found(events)


def _reopened(trial: Trial) -> None:
    """A handler that was closed, perhaps twice, takes events again: every later dictConfig closes handlers."""
    with trial.handler() as handler:
        record(handler, 1)
        handler.close()
        handler.close()
        record(handler, 1)
        events = events_of(handler)
        counts = handler.get_statistics()
    if counts["pending"]:
        raise Failed("it takes no event after it was closed")
    trial.all_found(events)


def _survives(trial: Trial) -> None:
    """What was acknowledged is there though the process is killed the moment after."""

    def child(say: Callable[[Any], None]) -> None:  # in a forked child
        handler = AuditHandler(target=trial._make())
        record(handler, 23)
        say(told_of(handler))
        os.kill(os.getpid(), signal.SIGKILL)

    trial.all_found(events_from(run_in_forked_child(child)))


def _failure(trial: Trial) -> None:
    """A failure is raised, or given to handleError, so that what was not written is pending and not acknowledged."""
    _, acknowledged, written, _ = trial.outcome_of_outage()
    if acknowledged > written:
        raise Failed(f"{acknowledged - written} events were acknowledged in an outage and not written")
    if acknowledged == 3:
        raise NotChecked("it wrote in spite of the outage; give outage=, with one that it feels")


def _recovery(trial: Trial) -> None:
    """When an outage is over, what was pending is written, before what comes later."""
    events, acknowledged, _, left = trial.outcome_of_outage()
    if acknowledged == 3:
        raise NotChecked("nothing was pending, see the check of failure")
    if left:
        raise Failed(f"{left} events are pending though the outage is over")
    if trial.all_found(events) != [event.event_id for event in events]:
        raise Failed("events that were pending were not written before later ones")


def _fork(trial: Trial) -> None:
    """A forked child and its parent, who share the handler, lose nothing and write nothing twice."""
    with trial.handler() as handler:
        record(handler, 5)

        def child(say: Callable[[Any], None]) -> None:  # in a forked child
            record(handler, 20)
            handler.close()
            say(told_of(handler))

        theirs = run_in_forked_child(child, meanwhile=lambda: record(handler, 20))
        events = events_of(handler)
    _each_once(trial, [events, events_from(theirs)])


def _processes(trial: Trial) -> None:
    """Processes, each with a handler of its own for the same place, lose nothing and write nothing twice, and none fails."""
    if not trial.is_factory:
        raise NotChecked("one handler was given; give a function that makes them")

    def writer(others: int) -> list[Any]:
        """Record in this process and in so many *others*; the events and failures of all."""
        failures: list[str] = []
        with trial.handler(on_failure=lambda error: failures.append(repr(error))) as handler:
            if others:
                theirs = run_in_forked_child(
                    lambda say: say(writer(others - 1)), meanwhile=lambda: record(handler, 500)
                )
            else:
                theirs = []
                record(handler, 500)
        return [[told_of(handler), failures], *theirs]

    found = writer(3)
    _each_once(trial, [events_from(told) for told, _ in found])
    failures = [failure for _, failures in found for failure in failures]
    if failures:
        raise Failed(f"it failed {len(failures)} times when others wrote as well, such as with {failures[0]}")


def _each_once(trial: Trial, written: list[list[AuditEvent]]) -> None:
    """Raise `Failed` unless the events of each process can be read, and once."""
    before = set(trial.duplicates)
    for events in written:
        trial.all_found(events)
    twice = trial.duplicates - before
    if twice:
        raise Failed(f"{len(twice)} events were written by two processes")


def _once(trial: Trial) -> None:
    """No event was written twice, in any of the checks."""
    if trial._read is None:
        raise NotChecked("what was written can't be read; give read=")
    if trial.duplicates:
        raise Failed(f"{len(trial.duplicates)} events were written twice")


_CHECKS: dict[str, tuple[Callable[[Trial], None], str]] = {
    "recorded": (
        _recorded,
        "give it an AuditJsonFormatter, write what it formats and an LF behind it, and nothing else",
    ),
    "whole": (_whole, "write the text that the formatter gives as it is, line breaks and all"),
    "order": (_order, "write in emit, or keep one queue"),
    "threads": (_threads, "keep to the lock of the handler: emit is called under it"),
    "reopened": (_reopened, "let emit open again what close has closed"),
    "survives": (_survives, "hand an event over to the system before emit returns: flush, or do not buffer"),
    "failure": (_failure, "let emit raise, or call handleError, when an event can't be written"),
    "recovery": (_recovery, "let emit work again by itself once the cause is gone: open or connect anew"),
    "fork": (_fork, "keep nothing buffered that a child would inherit, and let it open what it needs by itself"),
    "processes": (_processes, "use it from one process only, or append each event in one write (O_APPEND)"),
    "once": (_once, "after a failure, write an event wholly or not at all; or know that readers see some twice"),
}
"""The checks by name, and what to do about a failure. The last looks back at all others."""
