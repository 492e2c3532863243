"""`TargetTrial`: a target under trial, used through an `AuditHandler`, read back, and exposed to a real outage.

**Guarantees.** Events are recognized by their ids among any other content, so a target need not be empty. A line that a fault
tore does not fail a check, unless another line is glued to it: readers skip it.

**Outages.** The outage of a handler of files is a limit on the size of files, in a separate process.
"""

from __future__ import annotations

import logging
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from structlog_audit.events.codec import decode
from structlog_audit.events.event import AuditEvent
from structlog_audit.exceptions import AuditDecodeError, AuditTypeError
from structlog_audit.loggers.bound_logger import AuditBoundLogger
from structlog_audit.recording.file_handler import AuditFileHandler
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.testing.forked_child import Send, run_in_forked_child

Make = Callable[[], logging.Handler]
Read = Callable[[], Iterable[bytes | str]]
Outage = Callable[[], AbstractContextManager[Any]]


class OutageOutcome(NamedTuple):
    """The course of an outage, with two events recorded before it, three in it, and two after it."""

    events: list[AuditEvent]
    """All events, in the order of commit."""

    acknowledged: int
    """How many events of the outage were acknowledged as recorded while it lasted."""

    written: int
    """How many events of the outage were written while it lasted."""

    pending: int
    """How many events were still pending after it."""


class Failed(Exception):  # noqa: N818 (a result more than an error)
    """The target failed a check; the text describes how."""


class NotChecked(Exception):  # noqa: N818
    """A check can't be made; the text states why."""


class TargetTrial:
    """The target under trial, and access to everything that was written to it."""

    def __init__(self, target: logging.Handler | Make, read: Read | None, outage: Outage | None) -> None:
        self.is_factory = not isinstance(target, logging.Handler)
        if self.is_factory and not callable(target):
            raise AuditTypeError(f"target={target!r}: expected a handler, or a function that makes one")

        self._make: Make = target if self.is_factory else lambda: target  # type: ignore[assignment, return-value]
        self.first = self._make()
        if not isinstance(self.first, logging.Handler):
            raise AuditTypeError(
                f"target={target!r}: expected a function that makes a logging.Handler, got {self.first!r}"
            )

        self._own_methods = {name: vars(self.first).get(name) for name in ("handleError", "getConnection")}
        # Raises if it cannot be the target of an AuditHandler.
        AuditHandler(target=self.first)

        self.outage = outage
        self.file: str = getattr(self.first, "baseFilename", "")
        self._read = read or (self._lines_of_files if self.file else None)
        self._outcome: OutageOutcome | None = None

        self.duplicates: set[str] = set()
        """The ids that any check found more than once."""

    def end(self) -> None:
        """Restore a handler that was passed in, and close one that was made."""
        # An AuditHandler intercepts these methods.
        for name, own in self._own_methods.items():
            vars(self.first).pop(name, None)
            if own is not None:
                vars(self.first)[name] = own

        if self.is_factory:
            with suppress(Exception):
                self.first.close()

    def make(self) -> logging.Handler:
        """Return a handler for the place under trial.

        It is a new one, or the one that was passed in.
        """
        return self._make()

    def outcome_of_outage(self) -> OutageOutcome:
        """Return the outcome of an outage, which is caused once.

        Raises:
            NotChecked: No outage can be caused, or the written events can't be read.
        """
        if self._outcome is None:
            self._outcome = self._cause_outage()
        return self._outcome

    def _cause_outage(self) -> OutageOutcome:
        if self.outage is not None:
            return record_during_outage(self)

        if not self.file:
            raise NotChecked("no way to make it fail is known; pass outage=")

        def child(send: Send) -> None:  # in a forked child
            try:
                events, *counts = record_during_outage(self)
            except NotChecked as reason:
                send(str(reason))
            else:
                send([[event.to_dict() for event in events], *counts])

        result = run_in_forked_child(child)
        if isinstance(result, str):
            raise NotChecked(result)
        dicts, *counts = result
        return OutageOutcome(events_from_dicts(dicts), *counts)

    @contextmanager
    def handler(self, **options: Any) -> Iterator[AuditHandler]:
        """Yield an `AuditHandler` with *options* that records to the target.

        It is closed at the end.
        """
        made = AuditHandler(target=self._make(), call_later=lambda seconds, function: None, **options)
        try:
            yield made
        finally:
            made.close()

    @property
    def is_readable(self) -> bool:
        """Whether the written events can be read back."""
        return self._read is not None

    def found(self, expected: Iterable[AuditEvent]) -> list[str]:
        """Return the ids of the *expected* events that were written.

        They are in the order of their first occurrence.

        Raises:
            Failed: An event was written as another.
            NotChecked: The written events can't be read.
        """
        if self._read is None:
            raise NotChecked("the written events can't be read; pass read=")

        events = {event.event_id: event for event in expected}
        counts: Counter[str] = Counter()
        self._unreadable: list[bytes] = []
        for event_id, lines in group_events(self._read(), self._unreadable):
            if event_id not in events:
                continue
            counts[event_id] += 1
            if lines and decode(lines).event() != events[event_id]:
                raise Failed(f"event {event_id} was written as another: {lines[:200]!r}")

        self.duplicates |= {event_id for event_id, count in counts.items() if count > 1}
        return list(counts)

    def all_found(self, expected: list[AuditEvent]) -> list[str]:
        """Return the ids of the *expected* events, in the order of writing.

        Raises:
            Failed: One was not written, or as another.
            NotChecked: The written events can't be read.
        """
        found = self.found(expected)
        missing = len(expected) - len(found)
        if missing:
            message = f"{missing} of {len(expected)} events that were acknowledged can't be read"
            if self._unreadable:
                message += f"; {len(self._unreadable)} lines are not events, such as {self._unreadable[-1][:60]!r}"
            raise Failed(message)
        return found

    def _lines_of_files(self) -> Iterator[bytes]:
        for path in segments(self.first):
            yield from path.read_bytes().splitlines(keepends=True)


def segments(handler: Any) -> list[Path]:
    """Return the files of a *handler* of files, the oldest first.

    Rolled over files, by number or date, are followed by the active one.
    """
    if isinstance(handler, AuditFileHandler):
        return handler.segments()

    active = Path(handler.baseFilename)
    rolled: list[tuple[tuple[int, str], Path]] = []
    for path in active.parent.glob(f"{active.name}.*"):
        suffix = path.name.removeprefix(f"{active.name}.")
        # The highest number is the oldest. Dates sort as text.
        age = (-int(suffix), "") if suffix.isdecimal() else (0, suffix)
        rolled.append((age, path))
    rolled.sort(key=lambda pair: pair[0])

    paths = [path for _, path in rolled]
    if active.exists():
        paths.append(active)
    return paths


def group_events(written: Iterable[bytes | str], unreadable: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """Yield the id and the lines of each event in *written*; for a bare id, no lines.

    Lines that are not events are appended to *unreadable*.
    """
    event_id, lines = "", b""
    for text in written:
        line = text.encode() if isinstance(text, str) else text
        if line.startswith(b"evt_"):
            yield line.decode().strip(), b""
            continue

        try:
            event = decode(line)
        except AuditDecodeError:
            if line.strip():
                unreadable.append(line)
            continue

        if not line.endswith(b"\n"):
            line += b"\n"
        if event.part_of is not None and event.part_of == event_id:
            lines += line
            continue

        if lines:
            yield event_id, lines
        event_id, lines = event.event_id, line

    if lines:
        yield event_id, lines


def record_events(handler: AuditHandler, count: int, **fields: Any) -> None:
    """Record *count* events through *handler*."""
    logger = logging.Logger("structlog_audit.check_target")
    logger.addHandler(handler)
    log = AuditBoundLogger(logger, (), {})
    for number in range(count):
        log.info("CHECK", number=number, **fields)


def accepted_events(handler: AuditHandler) -> list[AuditEvent]:
    """Return the events that *handler* has accepted, in the order of commit."""
    return handler.query_events(newest_first=False)


def record_during_outage(trial: TargetTrial) -> OutageOutcome:
    """Cause an outage, and record events before, during and after it.

    Without an outage of the caller it limits the size of files, so it must run in a separate process. The first limit tears
    a line; the second one prevents any further write.
    """
    with trial.handler() as handler:
        record_events(handler, 2)
        before = handler.get_statistics()["recorded"]

        first_outage, second_outage = _outages(trial)
        with first_outage:
            record_events(handler, 1)
            with second_outage:
                record_events(handler, 2)
                acknowledged = handler.get_statistics()["recorded"] - before
                written = len(trial.found(accepted_events(handler)[before:]))

        handler.flush()
        record_events(handler, 2)
        pending = handler.get_statistics()["pending"]
        return OutageOutcome(accepted_events(handler), acknowledged, written, pending)


def _outages(trial: TargetTrial) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    if trial.outage is not None:
        return trial.outage(), nullcontext()
    return limit_file_size(os.stat(trial.file).st_size + 50), limit_file_size(50)  # in a forked child


@contextmanager
def limit_file_size(size: int) -> Iterator[None]:  # in a forked child
    """Prevent all files of this process from growing beyond *size* bytes.

    Uses ``setrlimit`` with RLIMIT_FSIZE.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def events_from_dicts(dicts: Any) -> list[AuditEvent]:
    """Return the events that a child sent as dictionaries."""
    return [decode(msgspec.json.encode(one)).event() for one in dicts]


def event_dicts(handler: AuditHandler) -> list[dict[str, Any]]:
    """Return the events of *handler* as dictionaries, to be sent through a pipe."""
    return [event.to_dict() for event in accepted_events(handler)]
