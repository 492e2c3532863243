"""`AuditHandler`: the logging handler that records audit events.

**Guarantees**: Each record takes one path: conversion, redaction, group commit, buffer. Nothing on this path logs. An event
is accepted only if the target would accept it: besides the filters of the handler, the level and the filters of the target
apply. Each accepted event is acknowledged with its `QueueEntry`; the entry points report an event that was not accepted.

**Concurrency**: ``logging`` would call ``emit`` under the lock of the handler, one caller after the other. ``handle`` is
overridden, so that concurrent callers meet in the group commit instead, where one of them writes for all. A forked child
starts with an empty buffer, nothing pending, and new locks and ids.

**Configuration**: A later ``dictConfig`` closes every handler, and ``logging.shutdown`` may close the target before this
handler. So ``close`` releases the file and keeps the buffer, and the next event opens the file again. The class is a
`logging.handlers.MemoryHandler` for one reason: ``dictConfig`` then resolves ``"target": "name"`` in any order of the
handlers (CPython 3.11 to 3.14). Nothing else of that class is used.
"""

from __future__ import annotations

import atexit
import copy
import datetime as dt
import logging
import logging.handlers
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Never

from structlog_audit._failures import describe_failure, report_on_stderr
from structlog_audit._timers import CallLater, call_later
from structlog_audit._validation import require_bool, require_callable, require_choice, require_integer, require_level
from structlog_audit.buffer.event_buffer import EventBuffer
from structlog_audit.events.codec import MIN_EVENT_BYTES, StoredEvent, encode_payload
from structlog_audit.events.conversion import convert, has_unknown_status
from structlog_audit.events.event_id import Stamp
from structlog_audit.events.handoff import HANDOFF, Handoff, awaited, restore_handoff
from structlog_audit.events.log_record import fields_of, is_unchanged, level_of
from structlog_audit.events.payload import TrailPayload
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import ORDINARY, Conditions
from structlog_audit.recording.file_handler import AuditFileHandler
from structlog_audit.recording.fork_safety import register_fork_reset
from structlog_audit.recording.formatter import DEFAULT_MAX_EVENT_BYTES
from structlog_audit.recording.group_commit import GroupCommit
from structlog_audit.recording.health_checks import (
    UNKNOWN_STATUS_FIX,
    Finding,
    muting_findings,
    redaction_findings,
    slow_call_finding,
)
from structlog_audit.recording.inherited_attributes import UnusedAttribute, refuse_overrides, refuse_parameters
from structlog_audit.recording.outage_policy import OnError
from structlog_audit.recording.queue_entry import QueueEntry
from structlog_audit.recording.structlog_calls import handlers_that_recorded, marks
from structlog_audit.recording.targets import ForeignTarget, make_target
from structlog_audit.recording.trail_events import TrailEvents
from structlog_audit.redaction.redactor import DEFAULT_REDACTOR, Redactor, make_redactor

if TYPE_CHECKING:
    from structlog_audit.monitoring.monitor import Monitor

_AT_ONCE = "each event is written at once, whatever its level"
_UNUSED = {
    "capacity": "max_events is the capacity of the buffer",
    "buffer": "query_events() and iter_events() return the events of the buffer",
    "flushLevel": _AT_ONCE,
    "shouldFlush": _AT_ONCE,
    "flushOnClose": "close() always writes the pending events",
}
"""The members of MemoryHandler that do not exist here, each with the alternative."""


class AuditHandler(EventSource, logging.handlers.MemoryHandler):
    """Records events in its target, and in a bounded buffer that answers queries.

    Without a target, events are kept in memory only, and an event in memory counts as recorded.

    Args:
        max_events: The capacity of the buffer, at least 1. The oldest event is evicted for the newest.
        level: The level of the handler, as of any `logging.Handler`.
        target: A handler, the name of a handler in the same ``dictConfig``, or a mapping that describes one. In a
            ``dictConfig`` a name requires ``"class": "structlog_audit.AuditHandler"``, and a mapping
            ``"()": "structlog_audit.AuditHandler"``.
        filename: A path: shorthand for an `AuditFileHandler` as the target.
        on_error: The reaction to a failure of the target. ``"retry"``: the event is pending, in memory, until the target
            recovers. ``"raise"``: the caller gets an `AuditWriteError`.
        max_pending: The largest number of pending events, at least 0. Above it, the newest event is lost and counted.
        redactor: Removes sensitive values from events: a `Redactor`, a mapping of its arguments, or None for no redaction.
            The default removes only values that are certainly secret.
        max_event_bytes: The largest size of a line in bytes, at least 4,096. Longer events are truncated and marked;
            entry ids are always kept.
        warm_start: Whether to fill the buffer from the files of the target first. Requires an `AuditFileHandler`.
        failure_level: The level from which on an event without a status is a FAILURE, as a number or a name.
        on_failure: Called with the exception, once per outage of the target, after the event was handled.
        monitor: The rules to monitor events with: a list of `structlog_audit.monitoring.Rule` or of mappings of their
            arguments, or the path of a file with such a list. Alerts are records on the logger ``structlog_audit.alerts``.
        clock: Returns the time in nanoseconds since 1970.
        randbits: Returns the given number of random bits as an integer.
        call_later: Calls a function after a delay in seconds on another thread; raises a RuntimeError if it cannot. It may
            return a timer with ``cancel()``.

    Raises:
        AuditTypeError, AuditValueError: A parameter has the wrong type or an invalid value; the message names it.
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
        failure_level: int | str = logging.ERROR,
        on_failure: Callable[[BaseException], None] | None = None,
        monitor: Any = None,
        clock: Callable[[], int] = time.time_ns,
        randbits: Callable[[int], int] = secrets.randbits,
        call_later: CallLater = call_later,
        **inherited: Never,
    ) -> None:
        refuse_parameters(AuditHandler, inherited, _UNUSED)
        self._max_events = require_integer("max_events", max_events, least=1)
        self._max_pending = require_integer("max_pending", max_pending, least=0)
        self._max_event_bytes = require_integer("max_event_bytes", max_event_bytes, least=MIN_EVENT_BYTES)
        self.redactor = make_redactor(redactor)
        self.failure_level = require_level("failure_level", failure_level)
        self.on_error: OnError = require_choice("on_error", on_error, ("retry", "raise"))
        if on_failure is not None:
            require_callable("on_failure", on_failure, "a function that takes an exception")
        require_bool("warm_start", warm_start)
        if target is not None and filename is not None:
            raise AuditValueError(f"target={target!r} and filename={filename!r}: expected only one of them, got both")

        self._on_failure = on_failure
        self._new_monitor = _monitor_factory(monitor)
        self._clock = require_callable("clock", clock, "a function that returns nanoseconds since 1970")
        self._randbits = require_callable("randbits", randbits, "a function of a number of bits")
        self._call_later = require_callable("call_later", call_later, "a function of seconds and another function")

        self._set_target(make_target(target) if filename is None else AuditFileHandler(filename))
        if warm_start and not isinstance(self.target, AuditFileHandler):
            raise AuditValueError(f"warm_start=True: expected an AuditFileHandler as the target, got {self.target!r}")

        # The initializer of MemoryHandler is skipped: its list of records and its flush level are not used.
        logging.Handler.__init__(self, level)
        self.unreadable = 0
        """The number of lines that a warm start could not read as events."""
        self._was_closed = False
        self._reset()
        self._begin_buffer(warm_start)
        register_fork_reset(self)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_overrides(cls, _UNUSED)

    capacity = UnusedAttribute(_UNUSED["capacity"])
    buffer = UnusedAttribute(_UNUSED["buffer"])
    flushLevel = UnusedAttribute(_UNUSED["flushLevel"])  # noqa: N815
    flushOnClose = UnusedAttribute(_UNUSED["flushOnClose"])  # noqa: N815

    def shouldFlush(self, record: logging.LogRecord) -> bool:  # noqa: N802
        """Return False: each event is written at once, so there is nothing to flush because of *record*."""
        return False

    def setTarget(self, target: logging.Handler | None) -> None:  # noqa: N802
        """Set another *target*, before the first event. ``fileConfig`` sets targets this way.

        Raises:
            AuditTypeError: *target* is not a handler, or it is another `AuditHandler`.
            AuditValueError: Events were already recorded in the previous target.
        """
        if self._commit.counters()["accepted"]:
            raise AuditValueError(
                f"target={target!r}: expected no events so far, but some were already recorded in {self.target!r}; "
                f"create a new handler"
            )
        self._set_target(make_target(target))
        self._reset()
        self._begin_buffer(warm_start=False)

    def _set_target(self, target: logging.Handler | None) -> None:
        """Set the target, and the attributes that depend on its class.

        Raises:
            AuditTypeError: *target* is another `AuditHandler`.
        """
        if isinstance(target, AuditHandler):
            raise AuditTypeError(f"target={target!r}: expected a handler of another class, got an AuditHandler")
        self.target = target

        # Other targets have no trail, and no event notices.
        trail = target if isinstance(target, AuditFileHandler) else None
        self._has_trail = trail is not None
        self._waits_for_disk = trail is not None and trail.syncs
        self._stamp_class = Stamp if trail is None else trail.stamp_class
        self._may_be_slow = self._waits_for_disk or (target is not None and trail is None)
        self._notices = deque() if trail is None else trail.notices
        self._deliver = _delivery_to(target)
        if trail is not None:
            trail.has_front = True

    def _reset(self) -> None:
        """Start with an empty buffer, a new monitor, and a group commit with nothing pending."""
        self._slow_call: tuple[logging.Logger, float] | None = None
        self._buffer = EventBuffer(self._max_events)

        # The commit passes each accepted event to the buffer, and through the monitor if there is one.
        accept: Callable[[bytes, int], None] = self._buffer.append
        self.monitor = self._new_monitor()
        if self.monitor is not None:
            accept = self.monitor.watching(accept, self._call_later, self._clock)

        self._commit = GroupCommit(
            self._deliver,
            accept,
            self._report_outage,
            stamp=self._stamp_class(self._clock, self._randbits),
            on_error=self.on_error,
            max_pending=self._max_pending,
            call_later=self._call_later,
            lock=self.target.write_lock if isinstance(self.target, AuditFileHandler) else None,
            waits_for_disk=self._waits_for_disk,
        )
        find_previous = self.target.last_event_id if isinstance(self.target, AuditFileHandler) else None
        self._trail_events = TrailEvents(self._commit, self._notices, find_previous)

    def _begin_buffer(self, warm_start: bool) -> None:
        """Fill the new buffer from the trail, or note that it lacks the events that the trail already contains."""
        if not isinstance(self.target, AuditFileHandler) or not self.target.has_lines():
            return

        if warm_start:
            # Imported lazily: only needed with `warm_start=True`.
            from structlog_audit.trail.reading.warm_start import newest_events

            events, missing_until, self.unreadable = newest_events(self.target.baseFilename, self._max_events)
            self._buffer.restore(events)
            if self.monitor is not None:
                self.monitor.learn_lines(line for line, _ in events)
        else:
            missing_until = self._clock() // 1_000

        if missing_until is not None:
            self._buffer.mark_incomplete_until(missing_until)

    def after_fork(self) -> None:
        """Reset the handler in a forked child: all events so far belong to the parent. Does not access the disk."""
        # The target is registered for a reset too, but may come later. The new group commit needs its new lock now.
        if isinstance(self.target, AuditFileHandler):
            self.target.after_fork()

        self._reset()
        if self._has_trail:
            self._buffer.mark_incomplete_until(self._clock() // 1_000)

    def handle(self, record: logging.LogRecord) -> bool:
        """Record the event in *record*; return False if a filter or the target's level rejects it.

        Raises:
            AuditWriteError: The target failed, with ``on_error="raise"``.
        """
        if type(record.levelno) is not int:
            # The record is not from `logging`. Other handlers get it as it is.
            record = copy.copy(record)
            record.levelno = level_of(record)

        # A filter of another handler may have taken the handoff away.
        if awaited and type(record.__dict__.get(HANDOFF)) is not Handoff:
            restore_handoff(record)

        target = self.target
        if self.filters or (target is not None and target.filters):
            passed = self._pass_filters(record)
            if passed is None:
                return False
            record = passed

        # An event that the target would drop is not accepted.
        if target is not None and record.levelno < target.level:
            return False

        self.emit(record)
        return True

    def _pass_filters(self, record: logging.LogRecord) -> logging.LogRecord | None:
        """Return *record*, or its replacement by the filters of this handler and of its target; None if one drops it."""
        handoff = record.__dict__.get(HANDOFF)
        target = self.target
        passed = _filtered(record, self)
        if passed is not None and target is not None and passed.levelno >= target.level:
            passed = _filtered(passed, target)

        # The entry point waits for an acknowledgement, whatever became of the record.
        if passed is not None and type(handoff) is Handoff:
            passed.__dict__[HANDOFF] = handoff
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Record the event in *record*, unless this handler has recorded it already.

        If the record comes from an entry point of this library, it gets the acknowledgement, under ``HANDOFF``.
        """
        handoff = record.__dict__.get(HANDOFF)
        if type(handoff) is Handoff:
            fields, error = (handoff, None) if is_unchanged(record, handoff) else fields_of(record)
            handoff.entry = self.record_fields(
                fields, record.levelno, record.name, error, handoff.kind, handoff.make_waker
            )

        # Any other record, from `logging` or structlog. The processor of this library may have recorded its event before.
        elif not marks or self not in handlers_that_recorded():
            fields, error = fields_of(record)
            self.record_fields(fields, record.levelno, record.name, error)

    def record_fields(
        self,
        fields: Mapping[str, Any],
        level: int,
        logger: str,
        error: str | None = None,
        kind: str | None = None,
        make_waker: Callable[[], Callable[[], None] | None] | None = None,
    ) -> QueueEntry:
        """Record an event from its *fields*, without a log record, and return its acknowledgement.

        For `emit`, and for entry points on a logger where no other handler or filter would see the record.

        Args:
            fields: All fields of the event, including ``operation``.
            level: The level of the event, as of a log record.
            logger: The name of the logger.
            error: The text of the exception, if there is one.
            kind: The kind of the event; None for an application event.
            make_waker: For a caller that must not wait: returns the function to call when the event is completed, or None if
                the caller has to wait after all. It is used only if the target may be slow. If it returns a function, the
                caller raises the error of the entry.

        Raises:
            AuditWriteError: The target failed, with ``on_error="raise"``.
        """
        # `opened` precedes the first event of this handler in the trail.
        trail_events = self._trail_events
        if not trail_events.is_open and self._has_trail:
            trail_events.open()
            if self._was_closed:
                _reopened.add(self)

        # Convert the fields, then redact and encode them.
        body = convert(fields, error, level, self.failure_level)
        if kind is not None:
            body = TrailPayload.of(body, kind)
        entry = QueueEntry(encode_payload(body, self._max_event_bytes, self.redactor), level, logger, self)

        # Commit, in the background if the caller must not wait. Event notices of the target are recorded afterwards: the
        # write of this event may have added some.
        if make_waker is not None and self._may_be_slow and (wake := make_waker()) is not None:
            entry.wake = wake
            self._commit.submit_later(entry)
            if trail_events.notices:
                trail_events.record_notices_later()
            return entry

        self._commit.submit(entry)
        if trail_events.notices:
            trail_events.record_notices()
        return entry

    def flush(self) -> None:
        """Try to write the pending events, log the alerts that are not logged yet, and flush the target."""
        self._commit.drain()
        if self.monitor is not None:
            self.monitor.log_waiting()
        if self.target is not None:
            self.target.flush()

    def close(self) -> None:
        """Write the pending events, release the file and keep the buffer. The next event opens the file again.

        Events that remain pending are in memory only; their number is written to stderr.
        """
        if isinstance(self.target, AuditFileHandler):
            self.target.check_path()
        self._trail_events.record_notices()
        self._trail_events.close()
        pending = self._commit.drain()
        if self.monitor is not None:
            self.monitor.close()

        if pending:
            report_on_stderr(f"{pending} events are pending: the target {self.target!r} still fails")
        if self.target is not None:
            self.target.close()
        logging.Handler.close(self)

        # Another thread may have recorded an event meanwhile.
        self._was_closed = True
        if self._trail_events.is_open:
            _reopened.add(self)
        else:
            _reopened.discard(self)

    def note_slow_call(self, logger: logging.Logger, seconds: float) -> None:
        """Let `check` report that an awaited event on *logger* held the event loop for *seconds*."""
        if self._slow_call is None or seconds > self._slow_call[1]:
            self._slow_call = (logger, seconds)

    def check(self) -> list[Finding]:
        """Return a finding for each condition in this process that drops, delays or endangers events of this handler.

        ``re-entrancy`` is among them where `logging` discards nested calls, from Python 3.13.4 on in some releases. Any
        target that is not an `AuditFileHandler` leads to the finding ``lesser-target``.
        """
        findings = [*muting_findings(self, self.target), *redaction_findings(self.redactor)]
        if self._slow_call is not None:
            findings.append(slow_call_finding(self, *self._slow_call))

        if isinstance(self.target, AuditFileHandler):
            findings += self.target.check()
        elif self.target is not None:
            message = f"{self.target!r} is not an AuditFileHandler"
            fix = "use an AuditFileHandler; other targets may write an event twice, and support one process only"
            findings.append(Finding("lesser-target", message, fix))

        counts = self._commit.counters()
        for code in ("pending", "raised", "lost"):
            if counts[code]:
                message = f"{counts[code]} events are {code}: the target failed or refused them"
                findings.append(Finding(code, message, "repair the target; get_statistics() has the counters"))

        unknown = sum(has_unknown_status(event.metadata) for event in self.select(ORDINARY, newest_first=False))
        if unknown:
            message = f"{unknown} events have a status that states neither success nor failure"
            findings.append(Finding("unknown-status", message, UNKNOWN_STATUS_FIX))

        if self.unreadable:
            message = f"{self.unreadable} lines of the trail are not events"
            findings.append(Finding("unreadable", message, "check the files"))
        return findings

    def erase_subject(self, subject: Any) -> str | None:
        """Erase the key and the identity of *subject* from the vault, and record that as a trail event ``erased``.

        The event has the token of the subject, never the identity. Repeating the call is safe.

        Args:
            subject: The identity: text, an integer, a UUID and the like, as in a filter; or its token.

        Returns:
            The token of the subject in the trail, or None if there was no key.

        Raises:
            AuditTypeError: *subject* is not an identity.
            AuditValueError: The redactor has no vault.
            AuditVaultError: The vault fails. Call again.
            AuditWriteError: The target failed, with ``on_error="raise"``. The key is erased; the next call records that.
        """
        vault = None if self.redactor is None else self.redactor.vault
        if vault is None:
            raise AuditValueError(
                f"redactor={self.redactor!r}: expected a redactor with a vault, in which subjects are"
            )

        token = vault.erase(subject)
        if self._has_trail and not self._trail_events.is_open:
            self._trail_events.open()
        for unrecorded in vault.unrecorded():
            if self._trail_events.record("erased", {"subject": unrecorded}):
                vault.confirm_recorded(unrecorded)
        return token

    def clear(self) -> None:
        """Remove all events from the buffer. Recorded events stay recorded, pending ones stay pending."""
        self._buffer.clear()

    @property
    def complete_since(self) -> dt.datetime | None:
        """The time from which the answers of the buffer are complete, in UTC; None for the beginning of the trail.

        The buffer lacks earlier events if it was full, was cleared, or was not filled from existing files. It never
        includes events that other processes record meanwhile: those are in the files.
        """
        return self._buffer.complete_since

    @property
    def problems(self) -> dict[str, int]:
        """The number of lines that a warm start could not read as events, under ``unreadable``, if there are any."""
        return {"unreadable": self.unreadable} if self.unreadable else {}

    def select(
        self, conditions: Conditions, *, newest_first: bool, at_most: int | None = None
    ) -> Iterator[StoredEvent]:
        if self.redactor is not None:
            conditions = self.redactor.redact_conditions(conditions)
        return self._buffer.select(conditions, newest_first=newest_first, at_most=at_most)

    def _statistics(self, conditions: Conditions) -> dict[str, Any]:
        # The buffer maintains the statistics of all ordinary events.
        return self._buffer.statistics() if conditions == ORDINARY else super()._statistics(conditions)

    def _counters(self) -> dict[str, int]:
        return {**self._commit.counters(), "evicted": self._buffer.evicted}

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock() / 1e9, dt.UTC)

    def _paths(self) -> tuple[str, ...]:
        return (self.target.baseFilename,) if isinstance(self.target, AuditFileHandler) else ()

    def _report_outage(self, error: BaseException | None) -> None:
        """Record the start of an outage with *error*, or with None its end, as a trail event; report a start.

        A start is also written to stderr, without event content, and passed to ``on_failure``.
        """
        if self._has_trail:
            self._trail_events.report_outage(error)
        if error is None:
            return

        consequence = "their callers get an error" if self.on_error == "raise" else "they wait in memory"
        report_on_stderr(f"{self.target!r} fails ({describe_failure(error)}); events are not recorded, {consequence}")

        if self._on_failure is not None:
            try:
                self._on_failure(error)
            except Exception as callback_error:
                # The event is handled already, and the caller that recorded it did not cause this error.
                report_on_stderr(f"on_failure={self._on_failure!r} failed ({describe_failure(callback_error)})")

    def __len__(self) -> int:
        return len(self._buffer)

    def __bool__(self) -> bool:
        # Without this method, a handler with an empty buffer would be false, because its length is 0.
        return True

    def __repr__(self) -> str:
        return f"<AuditHandler {self.name or ''}({len(self)} of {self._max_events} events, target={self.target!r})>"


def _monitor_factory(rules: Any) -> Callable[[], Monitor | None]:
    """Return a function that makes a monitor with *rules*, the parameter ``monitor``, or None if there are no rules."""
    if rules is None:
        return lambda: None

    # Imported lazily: only needed with `monitor=`.
    from structlog_audit.monitoring.monitor import Monitor
    from structlog_audit.monitoring.rules import rules_of

    try:
        parsed = rules_of(rules)
    except (AuditTypeError, AuditValueError) as error:
        raise type(error)(f"monitor: {error}") from error
    return lambda: Monitor(parsed) if parsed else None


_reopened: set[AuditHandler] = set()
"""The handlers that have recorded events since they were closed, perhaps by a later ``dictConfig``."""


@atexit.register
def close_reopened() -> None:
    """Close the handlers that `logging.shutdown` does not know any more, so that the trail states the end of the process."""
    # Each once: a daemon thread may record until the very end.
    for handler in list(_reopened):
        try:
            handler.close()
        except Exception as error:
            report_on_stderr(f"{handler!r} could not be closed ({describe_failure(error)})")


def _filtered(record: logging.LogRecord, handler: logging.Handler) -> logging.LogRecord | None:
    """Return *record*, or its replacement by the filters of *handler* (Python 3.12 and newer); None if one drops it."""
    passed: Any = handler.filter(record)
    if isinstance(passed, logging.LogRecord):
        return passed
    return record if passed else None


def _delivery_to(target: logging.Handler | None) -> Callable[[Any], None]:
    """Return the function that delivers entries to *target*."""
    # Without a target there is nothing to write, so every event counts as recorded.
    if target is None:
        return lambda entries: None
    if isinstance(target, AuditFileHandler):
        return target.deliver
    return ForeignTarget(target).deliver
