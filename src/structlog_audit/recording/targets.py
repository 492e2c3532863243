"""Targets: any `logging.Handler` in the place of an `AuditFileHandler`.

**Guarantees**: `AuditFileHandler` gives every promise of this library. Any other handler gives a lesser one: each event at
least once, from one process. It receives one log record for each event, as it was recorded. The members of the event are
attributes of the record; the attribute `structlog_audit.recording.formatter.LINE` holds its line, for an `AuditJsonFormatter`.

**Failure handling**: Handlers of the standard library do not raise; they call ``handleError``. That call is intercepted, so
a failure of the target is seen. If the same handler fails for another logger, ``handleError`` works as before. Failures that
these handlers suppress are found as well: a lost connection and the status of an HTTP response.

The `AuditHandler` applies the level and the filters of the target before it accepts an event. So an event that the target
would drop is not recorded, and its caller gets no acknowledgement.
"""

from __future__ import annotations

import errno
import logging
import logging.handlers
import os
import queue
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from pythonjsonlogger.core import BaseJsonFormatter

from structlog_audit._failures import DeliveryError
from structlog_audit._references import resolve_references
from structlog_audit.events.codec import decode_event, join_parts
from structlog_audit.events.event import AuditEvent
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.recording.formatter import LINE
from structlog_audit.recording.queue_entry import QueueEntry

ABSENT = "-"
"""The text of an absent member, for a format such as ``%(user_id)s``."""

_NOT_REFUSALS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN}
    | {errno.ECONNREFUSED, errno.ENOTCONN, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH}
)
"""Errors of a place that is full or that cannot be reached: they never concern a single event."""

_BUSY_STATUSES = frozenset({429, 502, 503, 504})
"""The statuses of an HTTP server that takes nothing at present (RFC 9110, RFC 6585)."""

_SOCKETS: tuple[tuple[type[logging.Handler], str], ...] = (
    (logging.handlers.SocketHandler, "sock"),
    (logging.handlers.SysLogHandler, "socket"),
)
"""The standard library's handlers with a connection, each with the attribute that has its socket."""

_MESSAGE_HANDLERS = (
    logging.handlers.SocketHandler,
    logging.handlers.SysLogHandler,
    logging.handlers.HTTPHandler,
    logging.handlers.SMTPHandler,
)
"""Handlers that send a message for each event. They get an event in parts as one line, of any length."""


class ForeignTarget:
    """Delivers entries to a handler that is not an `AuditFileHandler`."""

    def __init__(self, handler: logging.Handler) -> None:
        self._handler = handler
        self._sends_messages = isinstance(handler, _MESSAGE_HANDLERS)

        # The thread that delivers now, and the error that the handler reported to it.
        self._thread: int | None = None
        self._error: BaseException | None = None

        self._original_handle_error = handler.handleError
        handler.handleError = self._intercept  # type: ignore[method-assign]
        if isinstance(handler, logging.handlers.HTTPHandler):
            _check_responses(handler)

    def deliver(self, entries: Sequence[QueueEntry]) -> None:
        """Pass *entries* to the handler, one by one.

        Raises:
            DeliveryError: The handler failed; it has the number of entries that the handler accepted.
        """
        for done, entry in enumerate(entries):
            error = self._pass_on(entry)
            if error is not None:
                raise DeliveryError(done, may_be_refusal=_may_be_refusal(error)) from error

    def _pass_on(self, entry: QueueEntry) -> BaseException | None:
        """Pass *entry* to the handler, and return the error if the handler failed."""
        handler = self._handler
        self._error = None
        self._thread = threading.get_ident()
        handler.acquire()
        try:
            record = record_of(entry, in_one_line=self._sends_messages)
            _add_absent_members(record, handler.formatter)
            if _overrides_handle(handler):
                self._handle(record)
            else:
                handler.emit(record)
            _check_connection(handler)
        except Exception as error:
            self._error = error
        finally:
            handler.release()
            self._thread = None

        if isinstance(self._error, OSError):
            _disconnect(handler)
        return self._error

    def _handle(self, record: logging.LogRecord) -> None:
        """Pass *record* to a handler whose ``handle`` does more than its ``emit``.

        Raises:
            ValueError: The handler has dropped the record.
        """
        if self._handler.handle(record) is False:
            raise ValueError("handle() returned False: the record was dropped")

    def _intercept(self, record: logging.LogRecord) -> None:
        """Keep the error if the handler fails in `deliver`; otherwise call its original ``handleError``."""
        if self._thread == threading.get_ident():
            self._error = sys.exc_info()[1] or RuntimeError("handleError was called")
        else:
            self._original_handle_error(record)


def _may_be_refusal(error: BaseException) -> bool:
    """Return whether a target that failed with *error* may take other events."""
    # The error of the resolver is known by its name, because this package does not import `socket`.
    if isinstance(error, queue.Full | MemoryError) or type(error).__name__ == "gaierror":
        return False

    # A mail server's replies below 500 are transient (RFC 5321 §4.2.1).
    if getattr(error, "smtp_code", 500) < 500:
        return False
    return getattr(error, "errno", None) not in _NOT_REFUSALS


def _overrides_handle(handler: logging.Handler) -> bool:
    return getattr(handler.handle, "__func__", None) is not logging.Handler.handle


def _check_connection(handler: logging.Handler) -> None:
    """Raise an error if a SocketHandler is not connected, because it drops records without a report then.

    A subclass with a method ``emit`` or ``send`` of its own may do without the socket.
    """
    plain = logging.handlers.SocketHandler
    if not isinstance(handler, plain) or handler.sock is not None:
        return
    if (type(handler).emit, type(handler).send) == (plain.emit, plain.send):
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))


def _disconnect(handler: logging.Handler) -> None:
    """Close the socket of the standard library's *handler* after a failure: the next attempt connects again.

    A SysLogHandler would use a broken connection forever.
    """
    for kind, attribute in _SOCKETS:
        connection = getattr(handler, attribute, None) if isinstance(handler, kind) else None
        if connection is not None:
            setattr(handler, attribute, None)
            connection.close()


def _check_responses(handler: logging.handlers.HTTPHandler) -> None:
    """Make *handler* fail if the status of a response is an error, which it ignores by itself."""
    # Imported lazily: only needed with this handler.
    from http.client import HTTPResponse

    connect = handler.getConnection

    def connect_and_check(host: str, secure: bool) -> Any:
        connection = connect(host, secure)
        get_response = connection.getresponse

        def checked_response() -> Any:
            response = get_response()
            if isinstance(response, HTTPResponse):
                response.close()
                connection.close()
                if response.status >= 400:
                    number = errno.EAGAIN if response.status in _BUSY_STATUSES else errno.EPROTO
                    raise OSError(number, f"HTTP status {response.status}")
            return response

        connection.getresponse = checked_response  # type: ignore[method-assign]
        return connection

    handler.getConnection = connect_and_check  # type: ignore[method-assign]


def record_of(entry: QueueEntry, *, in_one_line: bool = False) -> logging.LogRecord:
    """Return the log record of a recorded event, for a handler that is not an `AuditFileHandler`.

    Args:
        entry: The event.
        in_one_line: Whether an event in parts becomes one line.
    """
    line = join_parts(entry.line) if in_one_line and entry.line.count(b"\n") > 1 else entry.line
    event = decode_event(line)
    record = logging.LogRecord(entry.logger, entry.level, "", 0, str(event.operation), (), None)
    record.created = entry.timestamp_us / 1_000_000
    record.msecs = float(entry.timestamp_us // 1_000 % 1_000)

    for name, value in event.to_dict().items():
        if value not in (None, [], {}):
            record.__dict__[name] = value
    record.__dict__[LINE] = line
    return record


def _add_absent_members(record: logging.LogRecord, formatter: logging.Formatter | None) -> None:
    """Give *record* the absent members that the format of *formatter* names, which would fail without them.

    Others stay absent, because a receiver of the record takes its attributes for values. A JSON formatter leaves out what
    is absent.
    """
    template = getattr(formatter, "_fmt", None)
    if not template or isinstance(formatter, BaseJsonFormatter):
        return

    defaults = getattr(getattr(formatter, "_style", None), "_defaults", None) or {}
    for name in AuditEvent.__struct_fields__:
        if name in template and name not in defaults:
            record.__dict__.setdefault(name, ABSENT)


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
