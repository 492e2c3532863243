"""Targets: any `logging.Handler` in the place of an `AuditFileHandler`.

**Guarantees**: `AuditFileHandler` gives every promise of this library. Any other handler gives a lesser one: each event at
least once, from one process. It receives a log record of the event as it was recorded. The members of the event are
attributes of the record; the attribute `structlog_audit.recording.formatter.LINE` holds its line, for an `AuditJsonFormatter`.

**Failure handling**: Handlers of the standard library do not raise; they call ``handleError``. That call is intercepted, so
a failure of the target is seen. If the same handler fails for another logger, ``handleError`` works as before.

The `AuditHandler` applies the level and the filters of the target before it accepts an event. So an event that the target
would drop is not recorded, and its caller gets no acknowledgement.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from structlog_audit._failures import DeliveryError
from structlog_audit._references import resolve_references
from structlog_audit.events.codec import decode_event
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.recording.formatter import LINE
from structlog_audit.recording.queue_entry import QueueEntry


class ForeignTarget:
    """Delivers entries to a handler that is not an `AuditFileHandler`."""

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler

        # The thread that delivers now, and the error that the handler reported to it.
        self._thread: int | None = None
        self._error: BaseException | None = None

        self._original_handle_error = handler.handleError
        handler.handleError = self._intercept  # type: ignore[method-assign]

    def deliver(self, entries: Sequence[QueueEntry]) -> None:
        """Pass *entries* to the handler, one by one.

        Raises:
            DeliveryError: The handler failed; it has the number of entries that the handler accepted.
        """
        for done, entry in enumerate(entries):
            self._error = None
            self._thread = threading.get_ident()
            self._handler.acquire()
            try:
                self._handler.emit(record_of(entry))
            except Exception as error:
                self._error = error
            finally:
                self._handler.release()
                self._thread = None

            if self._error is not None:
                raise DeliveryError(done) from self._error

    def _intercept(self, record: logging.LogRecord) -> None:
        """Keep the error if the handler fails in `deliver`; otherwise call its original ``handleError``."""
        if self._thread == threading.get_ident():
            self._error = sys.exc_info()[1] or RuntimeError("handleError was called")
        else:
            self._original_handle_error(record)


def record_of(entry: QueueEntry) -> logging.LogRecord:
    """Return the log record of a recorded event, for a handler that is not an `AuditFileHandler`."""
    event = decode_event(entry.line)
    record = logging.LogRecord(entry.logger, entry.level, "", 0, str(event.operation), (), None)
    record.created = entry.timestamp_us / 1_000_000
    record.msecs = float(entry.timestamp_us // 1_000 % 1_000)

    for name, value in event.to_dict().items():
        if value not in (None, [], {}):
            record.__dict__[name] = value
    record.__dict__[LINE] = entry.line
    return record


def make_target(target: Any) -> logging.Handler | None:
    """Return the handler that the parameter ``target`` specifies.

    Args:
        target: A handler; the name of a configured handler; a mapping that describes one, with its class under ``class``
            or ``()`` and its arguments beside that; or None.

    Raises:
        AuditTypeError: *target* has another type.
        AuditValueError: No handler has that name, or the mapping does not describe a handler.
    """
    if target is None or isinstance(target, logging.Handler):
        return target
    if isinstance(target, str):
        return _named(target)
    if isinstance(target, Mapping):
        return _described(target)

    expected = "expected a logging.Handler, the name of one, or a mapping that describes one"
    raise AuditTypeError(f"target={target!r}: {expected}, got {type(target).__name__}")


def _named(name: str) -> logging.Handler:
    """Return the configured handler with this *name*."""
    # The public `logging.getHandlerByName` exists since Python 3.12.
    found: logging.Handler | None = logging._handlers.get(name)  # type: ignore[attr-defined]
    if found is None:
        raise AuditValueError(
            f"target={name!r}: expected the name of a configured handler, got an unknown one; in a dictConfig use "
            f'"class": "structlog_audit.AuditHandler", which finds the target in any order of the handlers'
        )
    return found


def _described(target: Mapping[str, Any]) -> logging.Handler:
    """Return a new handler made from the class and the arguments in *target*."""
    # The arguments of a target may be credentials: no message contains them.
    arguments = dict(resolve_references("target", target))
    factory = arguments.pop("()", None) or arguments.pop("class", None)
    level = arguments.pop("level", logging.NOTSET)
    if factory is None:
        keys = ", ".join(map(str, target))
        raise AuditValueError(
            f"target: expected the class of a handler under 'class' or '()', got only {keys or 'none'}"
        )

    try:
        if isinstance(factory, str):
            module, _, name = factory.rpartition(".")
            factory = getattr(import_module(module), name)
        made = factory(**arguments)
        if isinstance(made, logging.Handler):
            made.setLevel(level)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise AuditValueError(f"target {factory!r}: {error}") from error

    if not isinstance(made, logging.Handler):
        raise AuditTypeError(f"target {factory!r}: expected the class of a logging.Handler, got {made!r}")
    return made
