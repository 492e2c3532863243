"""Any `logging.Handler` as the target of an `AuditHandler`.

Rules:

* `AuditFileHandler` gives every promise. Any other handler gives a lesser one: each event at least once, from one process.
* Such a handler gets a record of the event as it was recorded: the members of the event are
  attributes of the record, and its line lies under `structlog_audit.recording.formatter.LINE` for an `AuditJsonFormatter`.
* Handlers of the standard library do not raise, they call ``handleError``. That is intercepted, so that a failure is one;
  what fails while some other logger uses the same handler still goes where it went before.
* The target's level and filters are asked by the `AuditHandler`, before the event is accepted: an event that the target
  would drop is not recorded, and whoever sent it is told.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from structlog_audit._failures import DeliveryError
from structlog_audit.events.codec import decode_event
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.recording.formatter import LINE
from structlog_audit.recording.queue_entry import QueueEntry


class ForeignTarget:
    """Delivers to a handler that is not ours."""

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler
        self._handled_before = handler.handleError
        self._thread: int | None = None
        self._error: BaseException | None = None
        handler.handleError = self._intercept  # type: ignore[method-assign]

    def deliver(self, entries: Sequence[QueueEntry]) -> None:
        """Hand *entries* over, one by one.

        Raises:
            DeliveryError: The handler failed; says how many it had taken.
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
        if self._thread == threading.get_ident():
            self._error = sys.exc_info()[1] or RuntimeError("handleError was called")
        else:
            self._handled_before(record)


def record_of(entry: QueueEntry) -> logging.LogRecord:
    """The record of a recorded event, for a handler that is not ours."""
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
    """The handler that the parameter ``target`` means.

    Args:
        target: A handler; the name of one that is configured; a mapping that describes one, its class under ``class``
            or ``()`` and its arguments beside that; or None.

    Raises:
        AuditTypeError: It means none of these.
        AuditValueError: There is no handler of that name, or the mapping does not lead to one.
    """
    if target is None or isinstance(target, logging.Handler):
        return target
    if isinstance(target, str):
        named = logging._handlers.get(target)  # type: ignore[attr-defined]  # getHandlerByName came with 3.12
        if named is None:
            raise AuditValueError(
                f"target={target!r}: no handler of that name is configured; in a dictConfig say "
                f'"class": "structlog_audit.AuditHandler", which finds it whatever the order of names'
            )
        return named  # type: ignore[no-any-return]
    if isinstance(target, Mapping):
        return _described(target)
    raise AuditTypeError(f"target={target!r}: give a logging.Handler, the name of one, or a mapping that describes one")


def _described(target: Mapping[str, Any]) -> logging.Handler:
    arguments = dict(target)
    factory = arguments.pop("()", None) or arguments.pop("class", None)
    level = arguments.pop("level", logging.NOTSET)
    if factory is None:
        raise AuditValueError(f"target={dict(target)!r}: name the class of a handler under 'class' or '()'")
    try:
        if isinstance(factory, str):
            module, _, name = factory.rpartition(".")
            factory = getattr(import_module(module), name)
        made = factory(**arguments)
        if isinstance(made, logging.Handler):
            made.setLevel(level)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise AuditValueError(f"target={dict(target)!r}: {error}") from error
    if not isinstance(made, logging.Handler):
        raise AuditTypeError(f"target={dict(target)!r} makes {made!r}, which is no logging.Handler")
    return made
