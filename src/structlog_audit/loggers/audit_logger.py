"""`AuditLogger`: the audit logger of the axon memory SDK's page, on top of logging.

**Guarantees.** It is an entry point like the others. Its events go to an `AuditHandler` through a private `logging.Logger`,
which no configuration finds and disables.

**Auto-export.** After every ``max_events`` events a document such as ``audit_2025_01_15_103045.json`` (UTC) is written; the
remaining events follow on close or at the end of the interpreter. Each event is in exactly one document. An existing name
is never overwritten: the next free second is used.

**Failure handling.** If a document can't be written, its events go into the next one.

**Concurrency.** A thread writes the documents, so no event waits for them. A forked child starts without events; those before
the fork are exported by the parent.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import weakref
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from structlog_audit._validation import require_integer, require_local, require_path
from structlog_audit.events.codec import StoredEvent, decode_event, encode_payload
from structlog_audit.events.conversion import convert
from structlog_audit.events.event import AuditEvent, Identifier, OperationName
from structlog_audit.events.event_id import Stamp
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.loggers.auto_export import AutoExport
from structlog_audit.loggers.bound_logger import (
    AuditBoundLogger,
    CompletionWaiter,
    completion_waiter,
    wait_for_completion,
)
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import Conditions
from structlog_audit.query.statistics import UserStatistics
from structlog_audit.recording.formatter import DEFAULT_MAX_EVENT_BYTES
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.handler_lookup import get_audit_handler
from structlog_audit.recording.queue_entry import LOST, QueueEntry

Identifiers = Collection[Identifier] | UUID
"""The ids of entries, or one id; a text is one."""

Duration = float | Decimal | dt.timedelta
"""A number of milliseconds, or a timedelta."""

_instances: weakref.WeakSet[AuditLogger] = weakref.WeakSet()


def existing_audit_loggers() -> list[AuditLogger]:
    """Return all `AuditLogger` objects of this process."""
    return list(_instances)


class PrivateLogger(logging.Logger):
    """A logger outside of the tree of loggers, which no configuration reaches.

    `logging` clears the level caches only of loggers in its tree. This one has no cache, so ``logging.disable`` takes effect
    at once.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802
        """Return whether ``logging.disable`` lets *level* pass."""
        return self.manager.disable < level


class AuditLogger(EventSource):
    """Records operations of an application, and answers queries about them.

    Args:
        max_events: Events that the buffer holds, and events per exported document; at least 1.
        auto_export_path: A folder for documents of every ``max_events`` events; None disables auto-export.
        enable_rotation: Whether to export automatically. The buffer is bounded in either case.
        filename: A trail to record to; None records to memory only.
        handler: An `AuditHandler`, or the name of a configured one, to record to instead of a new one.
        options: Options of a new `AuditHandler`: ``on_error``, ``max_pending``, ``target``, ….

    Raises:
        AuditTypeError, AuditValueError: A parameter has the wrong type or an invalid value; the message names it.
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
        self.handler = _handler(handler, max_events, filename, options)

        logger = PrivateLogger("structlog_audit.AuditLogger")
        logger.propagate = False
        logger.addHandler(self.handler)
        self._log = AuditBoundLogger(logger, (), {})

        self._auto_export: AutoExport | None = None
        if auto_export_path is not None and enable_rotation:
            folder = _folder(auto_export_path)
            self._auto_export = AutoExport(folder, max_events, self.handler._now)
            weakref.finalize(self, self._auto_export.close)

        _instances.add(self)

    async def log_event(
        self,
        operation: OperationName,
        user_id: Identifier | None = None,
        session_id: Identifier | None = None,
        entry_ids: Identifiers | None = None,
        metadata: Mapping[str, object] | None = None,
        status: str | bool | int | None = None,
        error_message: str | BaseException | None = None,
        duration_ms: Duration | None = None,
    ) -> AuditEvent:
        """Record an event, and return it as recorded.

        Args:
            operation: The name of the operation.
            user_id, session_id: The user and the session that performed it: text, integers, UUIDs, Enums and the like.
            entry_ids: The entries that it touched.
            metadata: Further facts.
            status: The outcome: a status, a word that says one, whether it succeeded, or a status code of HTTP; by default
                FAILURE if there is an *error_message*, otherwise SUCCESS.
            error_message: The reason of a failure.
            duration_ms: The duration, as a number of milliseconds or a timedelta.

        Raises:
            AuditWriteError: The event could not be recorded, and the handler has ``on_error="raise"``.
        """
        fields = _fields(user_id, session_id, entry_ids, metadata, status, error_message, duration_ms)
        entry = self._log._record(logging.INFO, operation, fields, None, completion_waiter)

        # Without a waiter the event is completed already, and a further coroutine would only cost time.
        if entry is not None and isinstance(entry.wake, CompletionWaiter):
            await wait_for_completion(entry, entry.wake)

        return self._recorded(operation, fields, entry)

    def record(
        self,
        operation: OperationName,
        user_id: Identifier | None = None,
        session_id: Identifier | None = None,
        entry_ids: Identifiers | None = None,
        metadata: Mapping[str, object] | None = None,
        status: str | bool | int | None = None,
        error_message: str | BaseException | None = None,
        duration_ms: Duration | None = None,
    ) -> AuditEvent:
        """Record an event, and return it as recorded.

        The same as `log_event`, for code that is not asynchronous.
        """
        fields = _fields(user_id, session_id, entry_ids, metadata, status, error_message, duration_ms)
        return self._recorded(operation, fields, self._log._record(logging.INFO, operation, fields))

    def _recorded(self, operation: OperationName, fields: dict[str, Any], entry: QueueEntry | None) -> AuditEvent:
        """Return the event with *operation* and *fields*, which the handlers acknowledged with *entry*."""
        if entry is None or not entry.line:
            # The event was muted, or submitted from within a commit. Return it as it would have been recorded.
            payload = convert({"operation": operation, **fields}, failure_level=self.handler.failure_level)
            body = encode_payload(payload, DEFAULT_MAX_EVENT_BYTES, self.handler.redactor)
            return decode_event(Stamp().line(body))

        if self._auto_export is not None and entry.state != LOST:
            self._auto_export.add(entry.line)
        return decode_event(entry.line)

    async def get_events(
        self,
        operation: OperationName | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        status: str | None = None,
        start_time: dt.datetime | None = None,
        end_time: dt.datetime | None = None,
        limit: int | None = None,
    ) -> list[AuditEvent]:
        """Return events for axon-sdk's ``MemorySystem``.

        None matches any value, and *end_time* is included.

        All other code uses `query_events`.
        """
        given = {"operation": operation, "user_id": user_id, "session_id": session_id, "status": status}
        filters: dict[str, Any] = {name: value for name, value in given.items() if value is not None}

        # axon's range includes its end; the range of a query is half-open.
        if end_time is not None and end_time.replace(tzinfo=None) < dt.datetime.max:
            end_time += dt.timedelta(microseconds=1)

        return self.query_events(start_time=start_time, end_time=end_time, limit=limit, **filters)

    def clear(self) -> None:
        """Remove the events from the buffer. Recorded events stay in the trail."""
        self.handler.clear()

    def flush(self) -> None:
        """Try to write the pending events."""
        self.handler.flush()

    def close(self) -> None:
        """Export the remaining events, write the pending ones, and release the file."""
        if self._auto_export is not None:
            self._auto_export.close()
        self.handler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @property
    def complete_since(self) -> dt.datetime | None:
        """Time from which query results are complete, in UTC.

        See `AuditHandler.complete_since`.
        """
        return self.handler.complete_since

    @property
    def problems(self) -> dict[str, int]:
        """Problems in the data behind the query results; see `AuditHandler.problems`."""
        return self.handler.problems

    def select(
        self, conditions: Conditions, *, newest_first: bool, at_most: int | None = None
    ) -> Iterator[StoredEvent]:
        return self.handler.select(conditions, newest_first=newest_first, at_most=at_most)

    def _statistics(self, conditions: Conditions) -> dict[str, Any]:
        return self.handler._statistics(conditions)

    def _statistics_by_user(self, conditions: Conditions) -> dict[str | None, UserStatistics]:
        return self.handler._statistics_by_user(conditions)

    def _counters(self) -> dict[str, int]:
        return self.handler._counters()

    def _now(self) -> dt.datetime:
        return self.handler._now()

    def _paths(self) -> tuple[str, ...]:
        return self.handler._paths()


def _fields(
    user_id: Identifier | None,
    session_id: Identifier | None,
    entry_ids: Identifiers | None,
    metadata: Mapping[str, object] | None,
    status: str | bool | int | None,
    error_message: str | BaseException | None,
    duration_ms: Duration | None,
) -> dict[str, Any]:
    """Return the members beside the operation that are given; the others may be bound.

    Unrolled, which takes a quarter of the time of a loop.
    """
    fields: dict[str, Any] = {}
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


def _handler(
    handler: AuditHandler | str | None,
    max_events: int,
    filename: str | os.PathLike[str] | None,
    options: dict[str, Any],
) -> AuditHandler:
    """Return the given or named handler, or a new one with *options*."""
    if handler is None:
        return AuditHandler(max_events, filename=filename, **options)

    if filename is not None or options:
        superfluous = ", ".join(options) or "filename"
        raise AuditValueError(f"handler={handler!r}: expected no {superfluous} beside it; configure the handler itself")

    if isinstance(handler, str):
        handler = get_audit_handler(handler)
    if not isinstance(handler, AuditHandler):
        raise AuditTypeError(f"handler={handler!r}: expected an AuditHandler or the name of one")
    return handler


def _folder(path: str | os.PathLike[str]) -> Path:
    name = "auto_export_path"
    folder = Path(require_local(name, require_path(name, path, "the path of a folder")))

    if folder.exists() and not folder.is_dir():
        raise AuditValueError(f"auto_export_path={str(folder)!r}: expected a folder, got the path of a file")
    return folder
