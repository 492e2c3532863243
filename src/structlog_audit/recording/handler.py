"""`AuditHandler`: where logging becomes an audit trail.

Rules:

* One record, one pass: convert, redact, commit, buffer (modules of these names, but `redaction`). Nothing on that path logs.
* The standard library calls a handler's ``emit`` under the handler's lock. ``handle`` is overridden so that callers meet in
  the commit instead, where one writes for all.
* An event is accepted only if the target would take it: the target's level and filters count like the handler's own. What
  is not accepted is not acknowledged, and a door that waits for the acknowledgement says so.
* ``close`` releases the file and keeps the buffer; the next event opens the file again. A later ``dictConfig`` closes every
  handler there is, and ``logging.shutdown`` may close the target first.
* A forked child begins anew: empty buffer, nothing pending, locks and ids of its own.
* It is a `logging.handlers.MemoryHandler` in the one respect that ``dictConfig`` knows of: ``"target": "name"`` finds that
  handler whatever the order of names (CPython 3.11 to 3.14). Nothing else of it is used.
"""

from __future__ import annotations

import datetime as dt
import logging
import logging.handlers
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from structlog_audit._failures import describe_failure, report_on_stderr
from structlog_audit._timers import CallLater
from structlog_audit._validation import require_choice, require_integer
from structlog_audit.buffer.event_buffer import EventBuffer
from structlog_audit.events.codec import MIN_EVENT_BYTES, StoredEvent, encode_payload
from structlog_audit.events.conversion import convert
from structlog_audit.events.event_id import Stamp
from structlog_audit.events.log_record import HANDOFF, Handoff, error_of, fields_of, recorded_by
from structlog_audit.events.payload import TrailPayload
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import ORDINARY, Conditions
from structlog_audit.recording.file_handler import AuditFileHandler
from structlog_audit.recording.fork_safety import register_fork_reset
from structlog_audit.recording.formatter import DEFAULT_MAX_EVENT_BYTES
from structlog_audit.recording.group_commit import GroupCommit, OnError
from structlog_audit.recording.health_checks import Finding, muting_findings
from structlog_audit.recording.queue_entry import QueueEntry
from structlog_audit.recording.targets import ForeignTarget, make_target
from structlog_audit.recording.trail_events import TrailEvents
from structlog_audit.redaction.redactor import DEFAULT_REDACTOR, Redactor, make_redactor

if TYPE_CHECKING:
    from structlog_audit.monitoring.monitor import Monitor
from structlog_audit._timers import call_later


class AuditHandler(EventSource, logging.handlers.MemoryHandler):
    """Records the events that reach it: in a bounded buffer that can be asked, and in the target it is chained to.

    Without a target events are kept in memory only, and being there is what being recorded means.

    Args:
        max_events: Events that the buffer holds; at least 1. The oldest makes room for the newest.
        level: As of any handler.
        target: A handler, the name of one in the same ``dictConfig``, or a mapping that describes one. In a ``dictConfig`` a
            name needs ``"class": "structlog_audit.AuditHandler"`` and a mapping ``"()": "structlog_audit.AuditHandler"``.
        filename: A path; shorthand for an `AuditFileHandler` as the target.
        on_error: What happens when the target fails. ``"retry"``: the event is pending, in memory, until the target
            recovers. ``"raise"``: the caller gets an `AuditWriteError`.
        max_pending: Events that may be pending; at least 0. Beyond, the newest is lost, and counted.
        redactor: Takes out of events what must not be written: a `Redactor`, a mapping of its arguments, or None for nothing.
            The default takes out what is surely secret.
        max_event_bytes: Bytes of a line, at least 4,096. Longer events are cut and marked; entry ids never are.
        warm_start: Fill the buffer from the target's files first. Only with an `AuditFileHandler`.
        on_failure: Called with the exception, once per outage of the target, after the event was handled.
        monitor: Rules to watch the events by: a list of `structlog_audit.monitoring.Rule` or of mappings of their arguments, or
            the path of a file with such a list. Alerts are records on the logger ``structlog_audit.alerts``.
        clock: Nanoseconds since 1970.
        randbits: As many random bits as it is asked for.
        call_later: Calls a function after so many seconds, in another thread; raises a RuntimeError if there can be none.

    Raises:
        AuditTypeError, AuditValueError: A parameter can't be meant; the message says which and why.
    """

    def __init__(
        self,
        max_events: int = 10_000,
        *,
        level: int | str = logging.NOTSET,
        target: logging.Handler | str | Mapping[str, Any] | None = None,
        filename: str | os.PathLike[str] | None = None,
        on_error: OnError = "retry",
        max_pending: int = 10_000,
        redactor: Redactor | Mapping[str, Any] | None = DEFAULT_REDACTOR,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        warm_start: bool = False,
        on_failure: Callable[[BaseException], None] | None = None,
        monitor: Any = None,
        clock: Callable[[], int] = time.time_ns,
        randbits: Callable[[int], int] = secrets.randbits,
        call_later: CallLater = call_later,
    ) -> None:
        self._max_events = require_integer("max_events", max_events, least=1)
        self._max_pending = require_integer("max_pending", max_pending, least=0)
        self._max_event_bytes = require_integer("max_event_bytes", max_event_bytes, least=MIN_EVENT_BYTES)
        self.redactor = make_redactor(redactor)
        self.on_error: OnError = require_choice("on_error", on_error, ("retry", "raise"))
        if on_failure is not None and not callable(on_failure):
            raise AuditTypeError(f"on_failure={on_failure!r}: give a function that takes an exception")
        if target is not None and filename is not None:
            raise AuditValueError(f"target={target!r} and filename={filename!r}: give one of them")
        self._on_failure = on_failure
        self._new_monitor = _monitors(monitor)
        self._clock = clock
        self._randbits = randbits
        self._call_later = call_later
        self._aim(make_target(target) if filename is None else AuditFileHandler(filename))
        if warm_start and not isinstance(self.target, AuditFileHandler):
            raise AuditValueError(f"warm_start=True with target={self.target!r}: only an AuditFileHandler can be read")
        logging.Handler.__init__(self, level)
        self.unreadable = 0
        """Lines that a warm start found and that are no events."""
        self._begin()
        self._look_back(warm_start)
        register_fork_reset(self)

    def _aim(self, target: logging.Handler | None) -> None:
        if isinstance(target, AuditHandler):
            raise AuditTypeError(f"target={target!r}: an AuditHandler can't be chained to another")
        self.target = target
        trail = target if isinstance(target, AuditFileHandler) else None
        self._has_trail = trail is not None
        self._waits_for_disk = trail is not None and trail.syncs
        self._notices = deque() if trail is None else trail.notices
        self._deliver = _delivery(target)

    def setTarget(self, target: logging.Handler | None) -> None:  # noqa: N802
        """Chain to another *target*, before the first event: ``fileConfig`` gives a handler its target this way.

        Raises:
            AuditTypeError: *target* is no handler, or another `AuditHandler`.
            AuditValueError: There are events already, which went to the target before.
        """
        if self._commit.counters()["accepted"]:
            raise AuditValueError(f"target={target!r}: events have gone to {self.target!r} already; make a new handler")
        self._aim(make_target(target))
        self._begin()
        self._look_back(False)

    def _begin(self) -> None:
        """An empty buffer, and a commit with nothing pending."""
        self._buffer = EventBuffer(self._max_events)
        self.monitor = self._new_monitor()
        append = self._buffer.append
        accept = append if self.monitor is None else self.monitor.watching(append, self._call_later)
        self._commit = GroupCommit(
            self._deliver,
            accept,
            self._tell,
            stamp=Stamp(self._clock, self._randbits),
            on_error=self.on_error,
            max_pending=self._max_pending,
            call_later=self._call_later,
            lock=self.target.write_lock if isinstance(self.target, AuditFileHandler) else None,
            waits_for_disk=self._waits_for_disk,
        )
        self._acts = TrailEvents(self._commit, self._notices)

    def _look_back(self, warm_start: bool) -> None:
        """Take over what the files already hold, or know that answers begin now."""
        if not isinstance(self.target, AuditFileHandler) or not self.target.has_lines():
            return
        if warm_start:
            from structlog_audit.trail.reading.warm_start import newest_events  # who does not read has no need of it

            events, missing_until, self.unreadable = newest_events(self.target.baseFilename, self._max_events)
            for line, moment in events:
                self._buffer.append(line, moment)
        else:
            missing_until = self._clock() // 1_000
        if missing_until is not None:
            self._buffer.mark_incomplete_until(missing_until)

    def after_fork(self) -> None:
        """Begin anew in a forked child, where everything recorded so far is the parent's. Without a look at the disk."""
        if isinstance(self.target, AuditFileHandler):
            self.target.after_fork()  # it may be told only after us, and its lock is ours
        self._begin()
        if self._has_trail:
            self._buffer.mark_incomplete_until(self._clock() // 1_000)

    def handle(self, record: logging.LogRecord) -> bool:
        """Record the event in *record*, unless a filter or the target's level says no; whether it was taken on.

        Raises:
            AuditWriteError: The target failed, with ``on_error="raise"``.
        """
        if self.filters:
            passed = self.filter(record)
            if not passed:
                return False
            if isinstance(passed, logging.LogRecord):  # since 3.12 a filter may give another record
                record = passed
        target = self.target
        if target is not None and (record.levelno < target.level or (target.filters and not target.filter(record))):
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Record the event in *record*; the acknowledgement goes back with it."""
        handoff = record.__dict__.get(HANDOFF)
        if type(handoff) is Handoff:
            error = error_of(record.exc_info) if record.exc_info else None
            handoff.entry = self.take(handoff, record.levelno, record.name, error, handoff.kind, handoff.later)
        elif recorded_by(record) is not self:
            fields, error = fields_of(record)
            self.take(fields, record.levelno, record.name, error)

    def take(
        self,
        fields: Mapping[str, Any],
        level: int,
        logger: str,
        error: str | None = None,
        kind: str | None = None,
        later: Callable[[], Callable[[], None]] | None = None,
    ) -> QueueEntry:
        """Record the event with *fields*: for doors that have seen that nobody else would look at a record of it.

        Args:
            fields: All fields of the event, ``operation`` among them.
            level: That of a record.
            logger: The name of the logger.
            error: The text of an exception.
            kind: If it is no ordinary event.
            later: If the caller must not wait for the disk: makes the function that is called when it need wait no longer.

        Raises:
            AuditWriteError: The target failed, with ``on_error="raise"``.
        """
        acts = self._acts
        if not acts.is_open and self._has_trail:
            acts.open()
        body = convert(fields, error, level)
        if kind is not None:
            body = TrailPayload.of(body, kind)
        entry = QueueEntry(encode_payload(body, self._max_event_bytes, self.redactor), level, logger, self)
        if later is not None and self._waits_for_disk:
            entry.wake = later()
            self._commit.submit_later(entry)
            if acts.notices:
                acts.report_later()
            return entry
        self._commit.submit(entry)
        if acts.notices:
            acts.report()
        return entry

    def flush(self) -> None:
        """Try to write what is pending, and log alerts that were not logged yet."""
        self._commit.drain()
        if self.monitor is not None:
            self.monitor.tell()
        if self.target is not None:
            self.target.flush()

    def close(self) -> None:
        """Write what is pending, release the file, keep the buffer. The next event opens the file again.

        Events that are still pending then are in memory only; how many is said on stderr.
        """
        self._acts.report()
        self._acts.close()
        left = self._commit.drain()
        if self.monitor is not None:
            self.monitor.tell()
        if left:
            report_on_stderr(f"{left} events are pending: the target {self.target!r} still fails")
        if self.target is not None:
            self.target.close()
        logging.Handler.close(self)

    def check(self) -> list[Finding]:
        """Everything in this process that would mute or lose events of this handler, now; an empty list if nothing.

        Since Python 3.13.4 there is one that can't be mended, ``re-entrancy``; and ``lesser-target`` tells of any target that
        is no `AuditFileHandler`. See `structlog_audit.recording.health_checks` for the codes.
        """
        findings = list(muting_findings(self, self.target))
        if isinstance(self.target, AuditFileHandler):
            findings += self.target.check()
        elif self.target is not None:
            fix = "use an AuditFileHandler, or know that events may be written twice and by one process only"
            findings.append(Finding("lesser-target", f"{self.target!r} is no AuditFileHandler", fix))
        counts = self._commit.counters()
        for code in ("pending", "raised", "lost"):
            if counts[code]:
                fix = "see to the target; get_statistics() has the counters"
                findings.append(Finding(code, f"{counts[code]} events are {code}: the target failed", fix))
        if self.unreadable:
            fix = "look at the files"
            findings.append(Finding("unreadable", f"{self.unreadable} lines of the trail are no events", fix))
        return findings

    def clear(self) -> None:
        """Forget the events in the buffer. What is recorded stays recorded, what is pending stays pending."""
        self._buffer.clear()

    @property
    def complete_since(self) -> dt.datetime | None:
        """From when on the answers of the buffer are complete, in UTC; None means since the beginning of the trail.

        Later than that if the buffer was full, was cleared, or found files that it was not filled from. Events of other
        processes are in their buffers and in the files.
        """
        return self._buffer.complete_since

    @property
    def problems(self) -> dict[str, int]:
        """``unreadable``: lines that a warm start found and that are no events."""
        return {"unreadable": self.unreadable} if self.unreadable else {}

    def select(self, asked: Conditions, *, newest_first: bool, at_most: int | None = None) -> Iterator[StoredEvent]:
        if self.redactor is not None:
            asked = self.redactor.redact_conditions(asked)
        return self._buffer.select(asked, newest_first=newest_first)

    def _statistics(self, asked: Conditions) -> dict[str, Any]:
        return self._buffer.statistics() if asked == ORDINARY else super()._statistics(asked)

    def _counters(self) -> dict[str, int]:
        return {**self._commit.counters(), "evicted": self._buffer.evicted}

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock() / 1e9, dt.UTC)

    def _tell(self, error: BaseException | None) -> None:
        """Be loud about the first failure of an outage, without anything of an event; record it, and its end."""
        if self._has_trail:
            self._acts.told(error)
        if error is None:
            return
        consequence = "their callers get an error" if self.on_error == "raise" else "they wait in memory"
        report_on_stderr(f"{self.target!r} fails ({describe_failure(error)}); events are not recorded, {consequence}")
        if self._on_failure is not None:
            try:
                self._on_failure(error)
            except Exception as another:
                report_on_stderr(f"on_failure={self._on_failure!r} failed ({describe_failure(another)})")

    def __len__(self) -> int:
        return len(self._buffer)

    def __bool__(self) -> bool:
        return True  # an empty buffer makes no handler false

    def __repr__(self) -> str:
        return f"<AuditHandler {self.name or ''}({len(self)} of {self._max_events} events, target={self.target!r})>"


def _monitors(rules: Any) -> Callable[[], Monitor | None]:
    """A function that begins to watch by *rules*, as the parameter ``monitor`` means them."""
    if rules is None:
        return lambda: None
    from structlog_audit.monitoring.monitor import Monitor  # who has no rules has no need of it
    from structlog_audit.monitoring.rules import rules_of

    made = rules_of(rules)
    return lambda: Monitor(made) if made else None


def _delivery(target: logging.Handler | None) -> Callable[[Any], None]:
    if target is None:
        return lambda entries: None
    return target.deliver if isinstance(target, AuditFileHandler) else ForeignTarget(target).deliver
