"""`AuditLogger`: the audit logger of the axon memory SDK's page, on logging.

Rules:

* It is a door like the others: what it records goes through a `logging.Logger` of its own, which no configuration knows and
  so none disables, to an `AuditHandler`.
* Auto-export: each time ``max_events`` events have come in since the last export, they are written as one document called
  ``audit_2025_01_15_103045.json`` (UTC); the rest is written on close, or when the interpreter ends. Each event is in exactly
  one document. A name that is taken is never taken again: the next free second is.
* A document is written by a thread, so that no event waits for it. If that fails, its events go into the next one.
* A forked child begins anew: what came in before is the parent's to export.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

from structlog_audit._validation import require_integer
from structlog_audit.events.codec import StoredEvent, decode_event, encode_payload
from structlog_audit.events.conversion import convert
from structlog_audit.events.event import AuditEvent
from structlog_audit.events.event_id import Stamp
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.loggers.auto_export import AutoExport
from structlog_audit.loggers.bound_logger import AuditBoundLogger, Awaited, settled
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import Conditions
from structlog_audit.recording.formatter import DEFAULT_MAX_EVENT_BYTES
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.handler_lookup import get_audit_handler
from structlog_audit.recording.queue_entry import LOST, QueueEntry

_living: weakref.WeakSet[AuditLogger] = weakref.WeakSet()


def living_loggers() -> list[AuditLogger]:
    """Every `AuditLogger` there is."""
    return list(_living)


class PrivateLogger(logging.Logger):
    """A logger that no configuration knows.

    `logging` clears the caches only of loggers that it knows, so this one has none: ``logging.disable`` counts as it is now.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        """Whether nobody called ``logging.disable`` for *level*."""
        return self.manager.disable < level


class AuditLogger(EventSource):
    """Records operations of an application, and answers questions about them.

    Args:
        max_events: Events that the buffer holds, and events per exported document; at least 1.
        auto_export_path: A folder for documents of every ``max_events`` events; None means no auto-export.
        enable_rotation: Whether to export automatically. The buffer is bounded all the same.
        filename: A trail to record to; None means memory only.
        handler: An `AuditHandler`, or the name of a configured one, to record to instead of a new one.
        options: Of a new `AuditHandler`: ``on_error``, ``max_pending``, ``target``, ….

    Raises:
        AuditTypeError, AuditValueError: A parameter can't be meant; the message says which and why.
    """

    def __init__(
        self,
        max_events: int = 10_000,
        auto_export_path: str | os.PathLike[str] | None = None,
        enable_rotation: bool = True,
        *,
        filename: str | os.PathLike[str] | None = None,
        handler: AuditHandler | str | None = None,
        **options: Any,
    ) -> None:
        require_integer("max_events", max_events, least=1)
        if handler is None:
            handler = AuditHandler(max_events, filename=filename, **options)
        elif filename is not None or options:
            raise AuditValueError(
                f"handler={handler!r}: it has its own {', '.join(options) or 'filename'}; leave it out"
            )
        if isinstance(handler, str):
            handler = get_audit_handler(handler)
        if not isinstance(handler, AuditHandler):
            raise AuditTypeError(f"handler={handler!r}: give an AuditHandler or the name of one")
        self.handler = handler
        logger = PrivateLogger("structlog_audit.AuditLogger")
        logger.propagate = False
        logger.addHandler(handler)
        self._log = AuditBoundLogger(logger, (), {})
        self._auto_export: AutoExport | None = None
        if auto_export_path is not None and enable_rotation:
            folder = _folder(auto_export_path)
            self._auto_export = AutoExport(folder, max_events, handler._now)
            weakref.finalize(self, self._auto_export.close)
        _living.add(self)

    async def log_event(
        self,
        operation: str,
        user_id: str | None = None,
        session_id: str | None = None,
        entry_ids: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        status: str | None = None,
        error_message: str | None = None,
        duration_ms: float | None = None,
    ) -> AuditEvent:
        """Record an event; the event as recorded.

        Args:
            operation: What was done.
            user_id, session_id: Who did it.
            entry_ids: The entries that it touched.
            metadata: What else there is to say.
            status: How it ended; SUCCESS if not given, or FAILURE if there is an *error_message*.
            error_message: Why it failed.
            duration_ms: How long it took, in milliseconds.

        Raises:
            AuditWriteError: It could not be recorded, and the handler says ``on_error="raise"``.
        """
        fields = _fields(operation, user_id, session_id, entry_ids, metadata, status, error_message, duration_ms)
        entry = self._log._record(logging.INFO, None, fields, None, Awaited)
        if entry is not None and isinstance(entry.wake, Awaited):  # no other coroutine where nobody waits for the disk
            await settled(entry, entry.wake)
        return self._recorded(fields, entry)

    def record(
        self,
        operation: str,
        user_id: str | None = None,
        session_id: str | None = None,
        entry_ids: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        status: str | None = None,
        error_message: str | None = None,
        duration_ms: float | None = None,
    ) -> AuditEvent:
        """Record an event; the event as recorded. The same as `log_event`, for code that is not asynchronous."""
        fields = _fields(operation, user_id, session_id, entry_ids, metadata, status, error_message, duration_ms)
        return self._recorded(fields, self._log._record(logging.INFO, None, fields))

    def _recorded(self, fields: dict[str, Any], entry: QueueEntry | None) -> AuditEvent:
        """The event with *fields*, given what the handlers said of it."""
        if entry is None or not entry.line:  # muted, or submitted from within a commit: what it would have been
            body = encode_payload(convert(fields), DEFAULT_MAX_EVENT_BYTES, self.handler.redactor)
            return decode_event(Stamp().line(body))
        if self._auto_export is not None and entry.state != LOST:
            self._auto_export.add(entry.line)
        return decode_event(entry.line)

    async def get_events(
        self,
        operation: str | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        status: str | None = None,
        start_time: dt.datetime | None = None,
        end_time: dt.datetime | None = None,
        limit: int | None = None,
    ) -> list[AuditEvent]:
        """Events as axon-sdk's ``MemorySystem`` asks for them: None means any, and *end_time* is included.

        Everybody else asks `query_events`.
        """
        given = {"operation": operation, "user_id": user_id, "session_id": session_id, "status": status}
        filters: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if end_time is not None and end_time.replace(tzinfo=None) < dt.datetime.max:
            end_time += dt.timedelta(microseconds=1)
        return self.query_events(start_time=start_time, end_time=end_time, limit=limit, **filters)

    def clear(self) -> None:
        """Forget the events in the buffer. What is recorded stays recorded."""
        self.handler.clear()

    def flush(self) -> None:
        """Try to write what is pending."""
        self.handler.flush()

    def close(self) -> None:
        """Export what was not exported yet, write what is pending, and release the file."""
        if self._auto_export is not None:
            self._auto_export.close()
        self.handler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def complete_since(self) -> dt.datetime | None:
        """From when on the answers are complete, in UTC; see `AuditHandler.complete_since`."""
        return self.handler.complete_since

    @property
    def problems(self) -> dict[str, int]:
        """What was wrong in what the answers come from; see `AuditHandler.problems`."""
        return self.handler.problems

    def select(self, asked: Conditions, *, newest_first: bool, at_most: int | None = None) -> Iterator[StoredEvent]:
        return self.handler.select(asked, newest_first=newest_first, at_most=at_most)

    def _statistics(self, asked: Conditions) -> dict[str, Any]:
        return self.handler._statistics(asked)

    def _counters(self) -> dict[str, int]:
        return self.handler._counters()

    def _now(self) -> dt.datetime:
        return self.handler._now()


def _fields(
    operation: str,
    user_id: str | None,
    session_id: str | None,
    entry_ids: list[str] | None,
    metadata: dict[str, Any] | None,
    status: str | None,
    error_message: str | None,
    duration_ms: float | None,
) -> dict[str, Any]:
    """Those of the members that are given: what is not may be bound. One by one, in a quarter of the time of a loop."""
    fields: dict[str, Any] = {"operation": operation}
    if user_id is not None:
        fields["user_id"] = user_id
    if session_id is not None:
        fields["session_id"] = session_id
    if entry_ids is not None:
        fields["entry_ids"] = entry_ids
    if metadata is not None:
        fields["metadata"] = metadata
    if status is not None:
        fields["status"] = status
    if error_message is not None:
        fields["error_message"] = error_message
    if duration_ms is not None:
        fields["duration_ms"] = duration_ms
    return fields


def _folder(path: str | os.PathLike[str]) -> Path:
    try:
        folder = Path(os.fsdecode(path))
    except TypeError:
        raise AuditTypeError(f"auto_export_path={path!r}: give the path of a folder") from None
    if folder.exists() and not folder.is_dir():
        raise AuditValueError(f"auto_export_path={str(folder)!r} is no folder: give the path of one")
    return folder
