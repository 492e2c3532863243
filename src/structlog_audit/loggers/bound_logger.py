"""`get_audit_logger`: structlog bound loggers that record every event or report that they could not.

**Guarantees.** An audit logger makes the log record itself, with every field of the event in it, and checks that an
`AuditHandler` acknowledged it; otherwise it behaves like any structlog bound logger. It neither reads nor changes structlog's
global configuration. Fields of a call override bound ones, and those override structlog's contextvars.

**Other handlers.** Any other handler on the logger receives a complete record, with the fields as attributes. A field whose
name `logging` reserves gets a trailing underscore there. A change of the record by filters and record factories is a change
in the event.

**Performance.** If a single `AuditHandler` is all that is attached to the logger, without filters and a record factory, and
the methods of `logging.Logger` are not patched, no record is made: the handler receives the fields directly.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import copy_context
from functools import partial
from sys import modules
from time import perf_counter
from typing import Any

import structlog

from structlog_audit.events.context import OPENTELEMETRY_TRACE, with_context
from structlog_audit.events.event import OperationName
from structlog_audit.events.handoff import RESERVED, awaited, hand_over
from structlog_audit.events.log_record import error_of, resolve_operation
from structlog_audit.events.member_values import attempt
from structlog_audit.exceptions import AuditTypeError, AuditWriteError
from structlog_audit.loggers.filtering_logger import handle_with_filters
from structlog_audit.loggers.operation import OperationScope
from structlog_audit.loggers.unheard import find_caller, handle_unrecorded, reason_unrecorded
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.queue_entry import QueueEntry

ExcInfo = tuple[Any, Any, Any] | None

SLOW_SECONDS = 0.02
"""The time in seconds from which an awaited call that held the event loop is a finding of ``check()``.

Four times the interval at which CPython lets other threads run, so that a busy thread alone is not a finding.
"""


class CompletionWaiter:
    """Wakes a coroutine of the running event loop from any thread.

    An entry calls it when it is completed: recorded, pending, raised or lost.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._completed = asyncio.Event()
        self._called = False
        self._callbacks: deque[Callable[[], None]] = deque()

    def __call__(self) -> None:
        self._called = True
        self._run_callback()
        try:
            self._loop.call_soon_threadsafe(self._completed.set)
        except RuntimeError:
            # The loop is closed, so no coroutine waits any more.
            pass

    async def wait(self) -> None:
        """Wait until the entry is completed."""
        await self._completed.wait()

    def add_callback(self, function: Callable[[], None]) -> None:
        """Call *function* once, when the entry is completed; now, if it already is."""
        self._callbacks.append(function)
        if self._called:
            self._run_callback()

    def _run_callback(self) -> None:
        try:
            # Two threads may arrive here at once. Only one of them gets the callback.
            function = self._callbacks.pop()
        except IndexError:
            return
        function()


def completion_waiter() -> CompletionWaiter | None:
    """Return a waiter for the running task of asyncio.

    None if there is none, as under trio or in a coroutine that is driven by hand. Then the caller waits for the disk.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:
        # No event loop of asyncio runs in this thread.
        return None
    return None if task is None else CompletionWaiter()


async def wait_for_completion(
    entry: QueueEntry, waiter: CompletionWaiter, on_cancelled: Callable[[QueueEntry], None] | None = None
) -> None:
    """Wait until *entry*, which wakes *waiter*, is completed.

    Raise its error if it has one.

    If the waiting task is cancelled, *on_cancelled* is called with the entry once that is completed, from any thread.
    """
    try:
        await waiter.wait()
    except BaseException:
        if on_cancelled is not None:
            waiter.add_callback(partial(on_cancelled, entry))
        raise
    entry.raise_error()


class AuditBoundLogger(structlog.BoundLoggerBase):
    """A structlog bound logger that records audit events. Made by `get_audit_logger`.

    ``log.info("STORE", user_id="u1", entry_ids=["e1"], tags=["verified"])``: the first argument is the operation. Keyword
    arguments that are members of an event fill these members; all others go to the metadata. An event that reaches no
    `AuditHandler` is never silent: see `structlog_audit.loggers.unheard`.

    Each method raises `AuditWriteError` if the event could not be recorded and the handler has ``on_error="raise"``.
    """

    def info(self, operation: OperationName | None = None, /, **fields: Any) -> None:
        """Record an event at level INFO: SUCCESS, unless *fields* state another status."""
        self._record(logging.INFO, operation, fields)

    def warning(self, operation: OperationName | None = None, /, **fields: Any) -> None:
        """Record an event at level WARNING: SUCCESS, unless *fields* state another status."""
        self._record(logging.WARNING, operation, fields)

    def error(self, operation: OperationName | None = None, /, **fields: Any) -> None:
        """Record an event at level ERROR: FAILURE, unless *fields* state another status."""
        self._record(logging.ERROR, operation, fields)

    def critical(self, operation: OperationName | None = None, /, **fields: Any) -> None:
        """Record an event at level CRITICAL: FAILURE, unless *fields* state otherwise."""
        self._record(logging.CRITICAL, operation, fields)

    def exception(self, operation: OperationName | None = None, /, **fields: Any) -> None:
        """Record an event at level ERROR for the exception being handled.

        The exception becomes its ``error_message``.
        """
        self._record(logging.ERROR, operation, {"exc_info": True, **fields})

    async def ainfo(self, operation: OperationName | None = None, /, **fields: Any) -> None:
        """Record an event as `info` does, without blocking the event loop."""
        await self._arecord(logging.INFO, operation, fields)

    async def awarning(self, operation: OperationName | None = None, /, **fields: Any) -> None:
        """Record an event as `warning` does, without blocking the event loop."""
        await self._arecord(logging.WARNING, operation, fields)

    async def aerror(self, operation: OperationName | None = None, /, **fields: Any) -> None:
        """Record an event as `error` does, without blocking the event loop."""
        await self._arecord(logging.ERROR, operation, fields)

    async def acritical(self, operation: OperationName | None = None, /, **fields: Any) -> None:
        """Record an event as `critical` does, without blocking the event loop."""
        await self._arecord(logging.CRITICAL, operation, fields)

    async def aexception(self, operation: OperationName | None = None, /, **fields: Any) -> None:
        """Record an event as `exception` does, without blocking the event loop."""
        await self._arecord(logging.ERROR, operation, {"exc_info": True, **fields})

    def operation(
        self,
        operation: OperationName,
        /,
        *,
        intent: bool = False,
        not_failures: type[BaseException] | Iterable[type[BaseException]] = (),
        **fields: Any,
    ) -> OperationScope:
        """Return a block that records *operation* with its duration and outcome.

        It is used by ``with`` or ``async with``.

        Args:
            operation: The name of the operation.
            intent: Whether to record an event of kind ``intent`` before the block runs. If that fails, the block does not
                run and the caller gets an `AuditWriteError`. ``open_intents()`` finds intents without an outcome, which
                a crash leaves behind.
            not_failures: An exception class, or a collection of them, that ends the block without being a failure. The
                exception is named under ``metadata.ended_by``. ``SystemExit(0)``, the successful exits of click and typer,
                and Celery's ``Ignore`` and ``Retry`` are never failures; ``Retry`` makes the event PARTIAL.
            fields: Further fields of the event.

        Raises:
            AuditTypeError: *not_failures* contains something else.
        """
        return OperationScope(
            self._record, operation, fields, intent=intent, not_failures=not_failures, arecord=self._arecord
        )

    async def _arecord(
        self,
        level: int,
        operation: OperationName | None,
        fields: dict[str, Any],
        *,
        kind: str | None = None,
        on_cancelled: Callable[[QueueEntry], None] | None = None,
    ) -> QueueEntry | None:
        """Record an event as `_record` does, without blocking the event loop for the disk or for a slow target.

        If the waiting task is cancelled, the event is recorded all the same, and then *on_cancelled* is called with its entry.
        """
        start = perf_counter()
        entry = self._record(level, operation, fields, kind, completion_waiter)
        if entry is None:
            return None

        # Other handlers of the logger run in the event loop. Which of them are slow is unknown, so the time is measured.
        seconds = perf_counter() - start
        if seconds > SLOW_SECONDS and isinstance(entry.handler, AuditHandler):
            entry.handler.note_slow_call(self._logger, seconds)

        if isinstance(entry.wake, CompletionWaiter):
            await wait_for_completion(entry, entry.wake, on_cancelled)
        return entry

    def _record(
        self,
        level: int,
        operation: OperationName | None,
        fields: dict[str, Any],
        kind: str | None = None,
        make_waker: Callable[[], Callable[[], None] | None] | None = None,
    ) -> QueueEntry | None:
        """Record an event; return its acknowledgement, or None if no handler accepted it.

        *make_waker* returns the function that wakes the caller. With it, the acknowledgement may be completed after the return.
        """
        logger: logging.Logger = self._logger
        event: dict[str, Any] = self._context | fields
        given = event

        # Usually nothing is bound and no span is active. This test is cheaper than merging an empty context.
        if copy_context() or OPENTELEMETRY_TRACE in modules:
            event = with_context(event)

        if "operation" in fields:
            resolve_operation(event, operation)
        else:
            event["operation"] = operation

        exc_info = _exc_info(event.pop("exc_info")) if "exc_info" in event else None

        # Fast path: no other handler could see a record, so none is made.
        sole = _sole_handler(logger, level)
        if sole is not None:
            return sole.record_fields(
                event, level, logger.name, error_of(exc_info) if exc_info else None, kind, make_waker
            )

        # A queue handler removes the exception from the record.
        error = error_of(exc_info) if exc_info and event.get("error_message") is None else None
        if error is not None:
            event["error_message"] = error

        message = operation if operation is not None else event["operation"]
        record = _record(logger, level, message, exc_info)
        if given is not event:
            _prefer_attributes(record, event, given)
        handoff = hand_over(record, event, message, error, kind, make_waker)

        awaited[id(record)] = record, handoff
        try:
            if logger.isEnabledFor(level):
                if logger.filters:
                    handle_with_filters(logger, record, handoff)
                else:
                    logger.handle(record)
            if handoff.entry is None:
                handle_unrecorded(logger, record, handoff)
        finally:
            del awaited[id(record)]

        entry: QueueEntry | None = handoff.entry
        return entry


def get_audit_logger(name: str = "audit", *, required: bool = False, **initial_values: Any) -> AuditBoundLogger:
    """Return a bound logger that records audit events.

    They go through the `logging` logger called *name*.

    Args:
        name: The logger that an `AuditHandler` is attached to, or a child of it.
        required: Whether to raise if, as logging is configured now, an event of level INFO would reach no `AuditHandler`.
        initial_values: Fields that are bound from the beginning.

    Raises:
        AuditTypeError: *name* is not a string.
        AuditWriteError: *required*, and events would be dropped; the message states why.
    """
    if not isinstance(name, str):
        raise AuditTypeError(f"name={name!r}: expected the name of a logger, got {type(name).__name__}")

    logger = logging.getLogger(name)
    if required:
        cause = reason_unrecorded(logger, logging.INFO)
        if cause is not None:
            raise AuditWriteError(f"no event on logger {name!r} would be recorded: {cause[1]}")

    return AuditBoundLogger(logger, (), initial_values)


def _exc_info(value: Any) -> ExcInfo:
    """Return *value* in the form in which a log record holds an exception."""
    # By its type: `isinstance` would call methods of the value, which may raise anything.
    if issubclass(type(value), BaseException):
        return type(value), value, value.__traceback__
    if type(value) is tuple and len(value) == 3:
        # Other handlers format it, and would fail for anything else.
        is_exception = issubclass(type(value[1]), BaseException)
        return value if is_exception else None
    return sys.exc_info() if attempt(bool, value) else None


_METHODS: tuple[Any, ...] = (logging.Logger.handle, logging.Logger.callHandlers, logging.Logger.makeRecord)

if any(method.__module__ != "logging" or hasattr(method, "__wrapped__") for method in _METHODS):
    # Another tool patched the class before this module was imported and wants to see all records: disable the fast path.
    _METHODS = (None, None, None)

_HANDLE, _CALL_HANDLERS, _MAKE_RECORD = _METHODS
_RECORD_FACTORY = logging.LogRecord


def _sole_handler(logger: logging.Logger, level: int) -> AuditHandler | None:
    """Return the `AuditHandler` that alone would see a record of *logger* at *level*.

    None if another handler would see it, or if the handler would not accept it.
    """
    if logger.propagate or logger.filters or len(logger.handlers) != 1:
        return None

    # A patched or overridden method of the logger may want to see the record, and a record factory adds to it.
    kind = type(logger)
    if kind.handle is not _HANDLE or kind.callHandlers is not _CALL_HANDLERS or kind.makeRecord is not _MAKE_RECORD:
        return None
    if logging._logRecordFactory is not _RECORD_FACTORY:  # type: ignore[attr-defined]
        return None

    handler = logger.handlers[0]
    if type(handler) is AuditHandler and not handler.filters and level >= handler.level:
        target = handler.target
        if (target is None or (not target.filters and level >= target.level)) and logger.isEnabledFor(level):
            return handler
    return None


def _record(logger: logging.Logger, level: int, message: Any, exc_info: ExcInfo) -> logging.LogRecord:
    """Make the record as `logging` would, with the current record factory."""
    frame, _ = find_caller()
    code = frame.f_code
    return logger.makeRecord(logger.name, level, code.co_filename, frame.f_lineno, message, (), exc_info, code.co_name)


def _prefer_attributes(record: logging.LogRecord, event: dict[str, Any], given: dict[str, Any]) -> None:
    """Remove the context from *event* where a record factory states another value; it states none that is *given*."""
    for name in record.__dict__.keys() & event.keys() - given.keys() - RESERVED - {"operation"}:
        del event[name]
