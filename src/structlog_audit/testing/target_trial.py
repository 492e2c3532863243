"""A target under trial: an `AuditHandler` over it, what was written by it, and a real outage.

Rules:

* Events are told from whatever else lies there by their ids, so a target need not be empty. A line that was torn by a fault
  is no failure, if nothing is glued to it: readers pass over it.
* The outage of a handler of files is a limit on the size of files, in a process of its own.
"""

from __future__ import annotations

import logging
import os
import resource
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import msgspec

from structlog_audit.events.codec import decode
from structlog_audit.events.event import AuditEvent
from structlog_audit.exceptions import AuditDecodeError, AuditTypeError
from structlog_audit.loggers.bound_logger import AuditBoundLogger
from structlog_audit.recording.file_handler import AuditFileHandler
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.testing.forked_child import run_in_forked_child

Make = Callable[[], logging.Handler]
Read = Callable[[], Iterable[bytes | str]]
Outage = Callable[[], AbstractContextManager[Any]]

Outcome = tuple[list[AuditEvent], int, int, int]
"""Of an outage: the events before, in and after it, how many it was told were recorded in it, how many were, how many wait."""


class Failed(Exception):  # noqa: N818 (an answer more than an error)
    """The target failed a check; the text says what happened."""


class NotChecked(Exception):  # noqa: N818
    """A check can't be made; the text says why."""


class Trial:
    """The target under trial, and what was written to it."""

    def __init__(self, target: logging.Handler | Make, read: Read | None, outage: Outage | None) -> None:
        self.is_factory = not isinstance(target, logging.Handler)
        if self.is_factory and not callable(target):
            raise AuditTypeError(f"target={target!r}: give a handler, or a function that makes one")
        self._make: Make = target if self.is_factory else lambda: target  # type: ignore[assignment, return-value]
        self.first = self._make()
        if not isinstance(self.first, logging.Handler):
            raise AuditTypeError(f"target={target!r} makes {self.first!r}, which is no logging.Handler")
        self._handle_error = vars(self.first).get("handleError")
        AuditHandler(target=self.first)
        self.outage = outage
        self.file: str = getattr(self.first, "baseFilename", "")
        self._read = read or (self._lines_of_files if self.file else None)
        self._outcome: Outcome | None = None
        self.duplicates: set[str] = set()  # ids found twice by any check

    def end(self) -> None:
        """Leave a handler that was given as it was, and close one that was made."""
        vars(self.first).pop("handleError", None)  # an AuditHandler intercepts it
        if self._handle_error is not None:
            self.first.handleError = self._handle_error  # type: ignore[method-assign]
        if self.is_factory:
            with suppress(Exception):
                self.first.close()

    def outcome_of_outage(self) -> Outcome:
        """What came of an outage, which is made once.

        Raises:
            NotChecked: None can be made, or what was written can't be read.
        """
        if self.outage is None and not self.file:
            raise NotChecked("nobody knows how to make it fail; give outage=")
        if self._outcome is None and self.outage is not None:
            self._outcome = in_outage(self)
        elif self._outcome is None:

            def child(say: Callable[[Any], None]) -> None:  # in a forked child
                try:
                    events, *rest = in_outage(self)
                except NotChecked as why:
                    say(str(why))
                else:
                    say([[event.to_dict() for event in events], *rest])

            said = run_in_forked_child(child)
            if isinstance(said, str):
                raise NotChecked(said)
            self._outcome = (events_from(said[0]), *said[1:])
        return self._outcome

    @contextmanager
    def handler(self, **options: Any) -> Iterator[AuditHandler]:
        """An `AuditHandler` with these *options* that is chained to the target, closed at the end."""
        made = AuditHandler(target=self._make(), call_later=lambda seconds, function: None, **options)
        try:
            yield made
        finally:
            made.close()

    def found(self, expected: Iterable[AuditEvent]) -> list[str]:
        """The ids of the *expected* events that were written, in the order in which they first were.

        Raises:
            Failed: An event was written as another.
            NotChecked: Nobody can read what was written.
        """
        if self._read is None:
            raise NotChecked("what was written can't be read; give read=")
        events = {event.event_id: event for event in expected}
        seen: Counter[str] = Counter()
        self._odd: list[bytes] = []
        for event_id, lines in grouped(self._read(), self._odd):
            if event_id in events:
                seen[event_id] += 1
                if lines and decode(lines).event() != events[event_id]:
                    raise Failed(f"event {event_id} was written as another: {lines[:200]!r}")
        self.duplicates |= {event_id for event_id, count in seen.items() if count > 1}
        return list(seen)

    def all_found(self, expected: list[AuditEvent]) -> list[str]:
        """The ids of the *expected* events, in the order in which they were written.

        Raises:
            Failed: One was not written, or as another.
            NotChecked: Nobody can read what was written.
        """
        found = self.found(expected)
        missing = len(expected) - len(found)
        if missing:
            odd = f"; {len(self._odd)} lines are no events, such as {self._odd[-1][:60]!r}" if self._odd else ""
            raise Failed(f"{missing} of {len(expected)} events that were acknowledged can't be read{odd}")
        return found

    def _lines_of_files(self) -> Iterator[bytes]:
        for path in segments(self.first):
            yield from path.read_bytes().splitlines(keepends=True)


def segments(handler: Any) -> list[Path]:
    """The files of a *handler* of files, the oldest first: those rolled over, by number or by date, and the active one."""
    if isinstance(handler, AuditFileHandler):
        return handler.segments()
    path = Path(handler.baseFilename)
    rolled = [(place.name.removeprefix(f"{path.name}."), place) for place in path.parent.glob(f"{path.name}.*")]
    rolled.sort(key=lambda pair: (-int(pair[0]), "") if pair[0].isdecimal() else (0, pair[0]))
    return [place for _, place in rolled] + ([path] if path.exists() else [])


def grouped(written: Iterable[bytes | str], odd: list[bytes]) -> Iterator[tuple[str, bytes]]:
    """The events in what was *written*: the id of each and its lines, if lines are what was written.

    What is no event is put into *odd*.
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
                odd.append(line)
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


def record(handler: AuditHandler, count: int, **fields: Any) -> None:
    """Record *count* events through *handler*."""
    logger = logging.Logger("structlog_audit.check_target")
    logger.addHandler(handler)
    log = AuditBoundLogger(logger, (), {})
    for number in range(count):
        log.info("CHECK", number=number, **fields)


def events_of(handler: AuditHandler) -> list[AuditEvent]:
    """The events that *handler* has accepted, in the order of commit."""
    return handler.query_events(newest_first=False)


def in_outage(trial: Trial) -> Outcome:
    """Make an outage. Of files by their size, so in a process of its own: first a line is torn, then none is begun."""
    outage, path = trial.outage, trial.file
    with trial.handler() as handler:
        record(handler, 2)
        before = handler.get_statistics()["recorded"]
        with outage() if outage else files_bounded(os.stat(path).st_size + 50):
            record(handler, 1)
            with nullcontext() if outage else files_bounded(50):
                record(handler, 2)
                acknowledged = handler.get_statistics()["recorded"] - before
                written = len(trial.found(events_of(handler)[before:]))
        handler.flush()
        record(handler, 2)
        return events_of(handler), acknowledged, written, handler.get_statistics()["pending"]


@contextmanager
def files_bounded(size: int) -> Iterator[None]:  # in a forked child
    """Let no file of this process grow beyond *size* bytes (``setrlimit``, RLIMIT_FSIZE)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def events_from(members: Any) -> list[AuditEvent]:
    """The events that a child told of."""
    return [decode(msgspec.json.encode(one)).event() for one in members]


def told_of(handler: AuditHandler) -> list[dict[str, Any]]:
    """The events of *handler*, for the other end of a pipe."""
    return [event.to_dict() for event in events_of(handler)]
