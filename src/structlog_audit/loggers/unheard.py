"""What a front door does about an event that no `AuditHandler` took on.

Rules:

* It is never silent. If any handler that the door knows of says ``on_error="raise"``, the caller gets an `AuditWriteError`.
  Otherwise it is counted, and told by one ``warnings.warn`` per logger and cause.
* A logger that is handling a record in this thread discards what it is given (Python 3.13.4 and newer). The door then goes
  straight to the audit handlers: an event from a signal handler or a ``__str__`` is recorded.
* Behind a queue an event is handed over. That is no cause; `AuditHandler.check` tells of it.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections import Counter
from types import FrameType

import structlog

from structlog_audit.events.log_record import HANDOFF
from structlog_audit.exceptions import AuditWriteError
from structlog_audit.recording.fork_safety import live_owners
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.handler_lookup import find_audit_handlers
from structlog_audit.recording.logger_tree import is_handling_record, propagation_path, uses_queue

_OURS = (os.path.dirname(os.path.dirname(__file__)), os.path.dirname(structlog.__file__))

Cause = tuple[str, str]
"""A code, which `AuditHandler.check` has as well, and what it means."""

_FILTER = ("filter", "a filter of the logger, the handler or the target dropped it")

_counts: Counter[tuple[str, str]] = Counter()


def unheard_events() -> dict[tuple[str, str], int]:
    """How many events no handler took on in this process, by the name of the logger and the cause."""
    return dict(_counts)


def handle_unrecorded(logger: logging.Logger, record: logging.LogRecord) -> None:
    """See to it that *record*, which *logger* was given and no handler took on, is recorded after all, or that somebody knows.

    Raises:
        AuditWriteError: A handler says that the caller must know.
    """
    if is_handling_record(logger) and not logger.disabled:
        for handler in find_audit_handlers(propagation_path(logger)):
            if record.levelno >= handler.level:
                handler.handle(record)
        if record.__dict__[HANDOFF].entry is not None:
            return
    why = obstacle(logger, record.levelno)
    if why is None and uses_queue(logger, record.levelno):
        return
    code, message = why or _FILTER
    _counts[logger.name, code] += 1
    told = f"an event on logger {logger.name!r} was not recorded: {message}"
    if must_raise(logger):
        raise AuditWriteError(told)
    if _counts[logger.name, code] == 1:
        _, depth = calling_frame()
        warnings.warn(f"{told} (said once; counted in unheard_events())", RuntimeWarning, stacklevel=depth)


def calling_frame() -> tuple[FrameType, int]:
    """The frame that called into this library, and how many frames it is above the one that asks."""
    frame, depth = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame, depth = frame.f_back, depth + 1
    return frame, depth


def must_raise(logger: logging.Logger) -> bool:
    """Whether a handler that *logger* leads to, or if there is none, any handler of this process, says "raise"."""
    known = find_audit_handlers(propagation_path(logger)) or [
        owner for owner in live_owners() if isinstance(owner, AuditHandler)
    ]
    return any(handler.on_error == "raise" for handler in known)


def obstacle(logger: logging.Logger, level: int) -> Cause | None:
    """What surely keeps an event at *level* from every handler of *logger*; None if there is nothing of the kind.

    Filters are not asked: they may look at the event, count, or print.
    """
    handlers = find_audit_handlers(propagation_path(logger))
    if not handlers and not uses_queue(logger, level):
        return "detached", "no AuditHandler is attached to it or to a parent that it propagates to"
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
