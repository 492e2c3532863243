"""Treatment of an event that no `AuditHandler` accepted; for the entry points.

**Guarantees.** Such an event is never silent. If a handler in question has ``on_error="raise"``, the caller gets an
`AuditWriteError`. Otherwise the event is counted, and the first one per logger and cause is reported by ``warnings.warn``.

**Re-entrancy.** Since Python 3.13.4 a logger discards a record that it is given while it handles another one in the same
thread. The event then goes straight to the audit handlers, so events from a signal handler or a ``__str__`` are recorded.

**Queues.** An event that a ``QueueHandler`` accepts has been handed over and does not count as unrecorded;
`AuditHandler.check` reports the queue.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import Counter
from types import FrameType

import structlog

from structlog_audit.events.handoff import Handoff
from structlog_audit.exceptions import AuditWriteError
from structlog_audit.recording.fork_safety import live_owners
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.handler_lookup import find_audit_handlers
from structlog_audit.recording.logger_tree import (
    all_loggers,
    are_handlers_replaced_by_unittest,
    is_handling_record,
    propagation_path,
    uses_queue,
)

_LIBRARY_FOLDERS = (os.path.dirname(os.path.dirname(__file__)), os.path.dirname(structlog.__file__))
"""The folders of this library and of structlog. Frames of code in them do not count as the caller."""

Cause = tuple[str, str]
"""A code, which `AuditHandler.check` uses as well, and its description."""

_DETACHED: Cause = ("detached", "no AuditHandler is attached to it or to a parent that it propagates to")

_ASSERT_LOGS: Cause = (
    "detached",
    "assertLogs() of unittest replaced the handlers: use the fixture audit_trail or capture_events(), and call attach() "
    "of the trail in the block",
)

_FILTER: Cause = ("filter", "a filter of the logger, the handler or the target dropped it")

CAUSES = (_DETACHED[0], "logging-disable", "disabled", "level", "handler-level", "target-level", _FILTER[0])
"""The codes of all causes, under which `unheard_events` counts."""

_counts: Counter[tuple[str, str]] = Counter()


def unheard_events() -> dict[tuple[str, str], int]:
    """Return how many events no handler accepted, by logger name and cause.

    The counts are those of this process.
    """
    return dict(_counts)


def handle_unrecorded(logger: logging.Logger, record: logging.LogRecord, handoff: Handoff) -> None:
    """Handle a *record* of *logger* with *handoff* that no `AuditHandler` accepted.

    Deliver it directly if the re-entrancy guard of `logging` discarded it. Otherwise raise, or count it and warn once per
    logger and cause.

    Raises:
        AuditWriteError: A handler has ``on_error="raise"``.
    """
    if is_handling_record(logger) and not logger.disabled:
        for handler in find_audit_handlers(propagation_path(logger)):
            if record.levelno >= handler.level:
                handler.handle(record)

        if handoff.entry is not None:
            return

    cause = reason_unrecorded(logger, record.levelno)
    if cause is None:
        if uses_queue(logger, record.levelno):
            return
        cause = _FILTER

    code, description = cause
    _counts[logger.name, code] += 1
    is_raised = must_raise(logger)
    if not is_raised and _counts[logger.name, code] > 1:
        return

    if cause is _DETACHED:
        description += _advice()
    message = f"an event on logger {logger.name!r} was not recorded: {description}"
    if is_raised:
        raise AuditWriteError(message)

    _, depth = find_caller()
    warnings.warn(f"{message} (reported once; counted in unheard_events())", RuntimeWarning, stacklevel=depth)


def _advice() -> str:
    """Return which logger to use if one has an `AuditHandler`, or an empty text."""
    named = sorted(logger.name for logger in all_loggers() if find_audit_handlers((logger,)))
    if not named:
        return ""
    return f"; one is attached to {named[0]!r}: use get_audit_logger({named[0]!r}), or attach it to the root logger"


def find_caller() -> tuple[FrameType, int]:
    """Return the frame that called into this library, and its depth.

    The depth counts frames above the function that calls this.
    """
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_LIBRARY_FOLDERS):
        frame, depth = frame.f_back, depth + 1
    return frame, depth


def must_raise(logger: logging.Logger) -> bool:
    """Return whether an unrecorded event of *logger* is an error for its caller.

    It is one if a handler on the propagation path has ``on_error="raise"``, or, without any handler there, if any handler
    of this process has. A handler that was closed and detached does not count: when it is collected is chance.
    """
    handlers = find_audit_handlers(propagation_path(logger))
    if not handlers:
        attached = find_audit_handlers(all_loggers())
        existing = [owner for owner in live_owners() if isinstance(owner, AuditHandler)]
        handlers = [handler for handler in existing if handler in attached or not _is_closed(handler)]
    return any(handler.on_error == "raise" for handler in handlers)


def _is_closed(handler: AuditHandler) -> bool:
    """Return whether *handler* was closed, which `logging` keeps to itself. If it is attached, it continues to record."""
    return bool(getattr(handler, "_closed", False))


def reason_unrecorded(logger: logging.Logger, level: int) -> Cause | None:
    """Return why an event at *level* certainly reaches no handler of *logger*.

    None if it may reach one.

    Filters are not called: they may change the event, count, or print.
    """
    handlers = find_audit_handlers(propagation_path(logger))
    if not handlers and not uses_queue(logger, level):
        is_replaced = are_handlers_replaced_by_unittest(propagation_path(logger))
        return _ASSERT_LOGS if is_replaced else _DETACHED

    if logging.root.manager.disable >= level:
        return "logging-disable", "logging.disable() is in force"

    if logger.disabled:
        return "disabled", "the logger is disabled; a configuration that does not mention it does that"

    if level < logger.getEffectiveLevel():
        return "level", f"the level of the logger is {logging.getLevelName(logger.getEffectiveLevel())}"

    if handlers and all(level < handler.level for handler in handlers):
        return "handler-level", "the level of the handler is higher"

    if handlers and all(handler.target is not None and level < handler.target.level for handler in handlers):
        return "target-level", "the level of the target is higher"

    return None
