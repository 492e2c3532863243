"""`get_audit_logger`: structlog bound loggers whose events are recorded, or somebody is told.

Rules:

* A bound logger here is a structlog bound logger in every respect but one: it makes the log record itself, with every field
  of the event in it, and looks whether an `AuditHandler` acknowledged it. Nothing of structlog's global configuration is
  read or changed.
* structlog's contextvars are merged, below what is bound, below what the call says.
* Any other handler on the logger sees a complete record: the fields as attributes, a name that `logging` reserves with an
  underscore after it.
* If one `AuditHandler` is all there is on the logger, and nobody has replaced what loggers of `logging` do with a record, then
  nobody else can look: no record is made, and the handler is given the fields.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from sys import modules
from typing import Any

import structlog

from structlog_audit.events.context import SPANS, bound_context
from structlog_audit.events.log_record import HANDOFF, RESERVED, Handoff, error_of, resolve_operation
from structlog_audit.exceptions import AuditTypeError, AuditWriteError
from structlog_audit.loggers.operation import OperationScope
from structlog_audit.loggers.unheard import find_caller, handle_unrecorded, reason_unrecorded
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.queue_entry import QueueEntry

ExcInfo = tuple[Any, Any, Any] | None


class Awaited:
    """Wakes a coroutine of the running event loop, from whatever thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._settled = asyncio.Event()
        self._called = False
        self._then: deque[Callable[[], None]] = deque()

    def __call__(self) -> None:
        self._called = True
        self._go_on()
        try:
            self._loop.call_soon_threadsafe(self._settled.set)
        except RuntimeError:  # the loop is closed, and with it whoever waited
            pass

    async def wait(self) -> None:
        """Wait until somebody calls."""
        await self._settled.wait()

    def then(self, function: Callable[[], None]) -> None:
        """Have *function* called once, by whoever calls this, or now if somebody did."""
        self._then.append(function)
        if self._called:
            self._go_on()

    def _go_on(self) -> None:
        try:
            function = self._then.pop()  # one of two threads gets it
        except IndexError:
            return
        function()


async def settled(entry: QueueEntry, awaited: Awaited, withdrawn: Callable[[QueueEntry], None] | None = None) -> None:
    """Wait until *entry*, which wakes *awaited*, is settled, and raise the error that is due then.

    If whoever waits is cancelled, *withdrawn* is called with the entry when it is settled.
    """
    try:
        await awaited.wait()
    except BaseException:
        if withdrawn is not None:
            awaited.then(partial(withdrawn, entry))
        raise
    entry.raise_error()


class AuditBoundLogger(structlog.BoundLoggerBase):
    """A structlog bound logger that records audit events. Made by `get_audit_logger`.

    ``log.info("STORE", user_id="u1", entry_ids=["e1"], tags=["verified"])``: the first argument is the operation, own
    members of an event by their names, any other field goes into the metadata. An event that reaches no `AuditHandler` is
    never silent: see `structlog_audit.loggers.unheard`.

    Each method raises `AuditWriteError` if the event could not be recorded and the handler says ``on_error="raise"``.
    """

    def info(self, operation: str | None = None, /, **fields: Any) -> None:
        """Record an event at level INFO: SUCCESS, unless *fields* say otherwise."""
        self._record(logging.INFO, operation, fields)

    def warning(self, operation: str | None = None, /, **fields: Any) -> None:
        """Record an event at level WARNING: SUCCESS, unless *fields* say otherwise."""
        self._record(logging.WARNING, operation, fields)

    def error(self, operation: str | None = None, /, **fields: Any) -> None:
        """Record an event at level ERROR: FAILURE, unless *fields* say otherwise."""
        self._record(logging.ERROR, operation, fields)

    def critical(self, operation: str | None = None, /, **fields: Any) -> None:
        """Record an event at level CRITICAL: FAILURE, unless *fields* say otherwise."""
        self._record(logging.CRITICAL, operation, fields)

    def exception(self, operation: str | None = None, /, **fields: Any) -> None:
        """Record an event at level ERROR, with the exception being handled as its ``error_message``."""
        self._record(logging.ERROR, operation, {"exc_info": True, **fields})

    async def ainfo(self, operation: str | None = None, /, **fields: Any) -> None:
        """Record as `info` does."""
        await self._arecord(logging.INFO, operation, fields)

    async def awarning(self, operation: str | None = None, /, **fields: Any) -> None:
        """Record as `warning` does."""
        await self._arecord(logging.WARNING, operation, fields)

    async def aerror(self, operation: str | None = None, /, **fields: Any) -> None:
        """Record as `error` does."""
        await self._arecord(logging.ERROR, operation, fields)

    async def acritical(self, operation: str | None = None, /, **fields: Any) -> None:
        """Record as `critical` does."""
        await self._arecord(logging.CRITICAL, operation, fields)

    async def aexception(self, operation: str | None = None, /, **fields: Any) -> None:
        """Record as `exception` does."""
        await self._arecord(logging.ERROR, operation, {"exc_info": True, **fields})

    def operation(self, operation: str, /, *, intent: bool = False, **fields: Any) -> OperationScope:
        """A block that does *operation*, for ``with`` and ``async with``: records its duration and how it ended.

        With *intent* an event of kind ``intent`` is recorded before the block runs; if it can't be, the block does not run
        and the caller gets an `AuditWriteError`. An intent without an outcome (a crash) is found by ``open_intents()``.
        """
        return OperationScope(self._record, operation, fields, intent=intent, arecord=self._arecord)

    async def _arecord(
        self,
        level: int,
        operation: str | None,
        fields: dict[str, Any],
        *,
        kind: str | None = None,
        withdrawn: Callable[[QueueEntry], None] | None = None,
    ) -> QueueEntry | None:
        """Record an event without holding up the event loop for the disk; otherwise as `_record`.

        If whoever waits is cancelled, the event is recorded all the same, and then *withdrawn* is called with its entry.
        """
        entry = self._record(level, operation, fields, kind, Awaited)
        if entry is not None and isinstance(entry.wake, Awaited):
            await settled(entry, entry.wake, withdrawn)
        return entry

    def _record(
        self,
        level: int,
        operation: str | None,
        fields: dict[str, Any],
        kind: str | None = None,
        later: Callable[[], Callable[[], None]] | None = None,
    ) -> QueueEntry | None:
        """Record an event; its acknowledgement, which with *later* may come later; None if no handler took it on."""
        logger: logging.Logger = self._logger
        event: dict[str, Any] = self._context | fields
        # seldom anything is bound or a span active, and to find out costs little
        if copy_context() or SPANS in modules:
            event = bound_context(event) | event
        if "operation" in fields:
            resolve_operation(event, operation)
        else:
            event["operation"] = operation
        exc_info = _exc_info(event.pop("exc_info")) if "exc_info" in event else None
        sole = _sole_handler(logger, level)
        if sole is not None:
            return sole.take(event, level, logger.name, error_of(exc_info) if exc_info else None, kind, later)
        handoff = Handoff(event)
        handoff.entry = None
        handoff.kind = kind
        handoff.later = later
        record = _record(logger, level, operation if operation is not None else event["operation"], exc_info, handoff)
        if logger.isEnabledFor(level):
            logger.handle(record)
        if handoff.entry is None:
            handle_unrecorded(logger, record)
        entry: QueueEntry | None = handoff.entry
        return entry


def get_audit_logger(name: str = "audit", *, required: bool = False, **initial_values: Any) -> AuditBoundLogger:
    """A bound logger that records audit events on the `logging` logger called *name*.

    Args:
        name: The logger that an `AuditHandler` is attached to, or a child of it.
        required: Whether to raise if no event of level INFO would reach an `AuditHandler` as things are now.
        initial_values: What is bound from the beginning.

    Raises:
        AuditTypeError: *name* is no string.
        AuditWriteError: *required*, and events would be dropped; the message says why.
    """
    if not isinstance(name, str):
        raise AuditTypeError(f"name={name!r}: give the name of a logger")
    logger = logging.getLogger(name)
    if required:
        why = reason_unrecorded(logger, logging.INFO)
        if why is not None:
            raise AuditWriteError(f"no event on logger {name!r} would be recorded: {why[1]}")
    return AuditBoundLogger(logger, (), initial_values)


def _exc_info(value: Any) -> ExcInfo:
    """*value* in the form that a log record has."""
    if isinstance(value, BaseException):
        return type(value), value, value.__traceback__
    if isinstance(value, tuple):
        return value
    return sys.exc_info() if value else None


_HANDLE: Any = logging.Logger.handle
_CALL_HANDLERS: Any = logging.Logger.callHandlers

if any(way.__module__ != "logging" or hasattr(way, "__wrapped__") for way in (_HANDLE, _CALL_HANDLERS)):
    _HANDLE = None  # somebody who looks at all records came before us: no logger is as `logging` made it


def _sole_handler(logger: logging.Logger, level: int) -> AuditHandler | None:
    """The handler that would take on a record of *logger* at *level*, if it is an `AuditHandler` and nobody else looks."""
    if logger.propagate or logger.filters or len(logger.handlers) != 1:
        return None
    kind = type(logger)
    if kind.handle is not _HANDLE or kind.callHandlers is not _CALL_HANDLERS:
        return None
    handler = logger.handlers[0]
    if type(handler) is AuditHandler and not handler.filters and level >= handler.level:
        target = handler.target
        if (target is None or (not target.filters and level >= target.level)) and logger.isEnabledFor(level):
            return handler
    return None


def _record(logger: logging.Logger, level: int, message: Any, exc_info: ExcInfo, handoff: Handoff) -> logging.LogRecord:
    """The record as `logging` would make it, by the factory that is set, with the fields of the event as attributes."""
    frame, _ = find_caller()
    code = frame.f_code
    record = logger.makeRecord(
        logger.name, level, code.co_filename, frame.f_lineno, message, (), exc_info, code.co_name
    )
    record.__dict__.update(_attributes(handoff))
    record.__dict__[HANDOFF] = handoff
    return record


def _attributes(fields: dict[str, Any]) -> dict[str, Any]:
    """*fields* under names that no attribute of a record has."""
    return {f"{name}_" if name in RESERVED else name: value for name, value in fields.items()}
