"""`OperationScope`: a block that is recorded as one operation, with its duration and outcome.

**Guarantees.** With an intent, the block runs only after the intent is recorded, as durably as the target records. The outcome
names the intent under ``metadata.intent_id``, whatever the block does to the metadata. If the block does not run, because
its intent could not be recorded or its task was cancelled meanwhile, the event that reports this names the intent as well.
Durations come from a monotonic clock.

**Failure handling.** An exception, cancellation included, is recorded as a FAILURE and propagates, unless it is one that is not
a failure (`structlog_audit.loggers.block_endings`). A failure to record never replaces it, but is added to it as a note.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from structlog_audit._failures import describe_failure, report_on_stderr
from structlog_audit.events.event import INTENT_ID, EventStatus, Kind, OperationName
from structlog_audit.events.event_id import id_of_line
from structlog_audit.events.foreign_values import mapping_items
from structlog_audit.events.json_safe import exception_text
from structlog_audit.events.member_values import items_of, unwrapped_or_same
from structlog_audit.exceptions import AuditWriteError
from structlog_audit.loggers.block_endings import exception_classes, status_of_ending
from structlog_audit.recording.queue_entry import LOST, PENDING, WAITING, QueueEntry

Recorder = Callable[..., QueueEntry | None]
"""Records an event and returns its acknowledgement. Takes the level, the operation and the fields, and ``kind`` by keyword."""

AsyncRecorder = Callable[..., Awaitable[QueueEntry | None]]
"""The same for ``async with``, without blocking the event loop. Takes ``on_cancelled`` by keyword as well: a function that is
called with the entry, from any thread, when it is completed after its task was cancelled."""

_NOT_RECORDED = {
    None: "no AuditHandler of this process accepted its intent; AuditHandler.check() lists the causes",
    PENDING: "its intent is pending, since the target fails",
    LOST: "its intent was lost, since the target fails and max_pending was reached",
    WAITING: "its intent would have waited for an event that this thread is recording",
}
"""Why a block does not run, by the state of its intent."""


class OperationScope:
    """A block that performs an operation. Made by ``log.operation(…)``; for ``with`` and ``async with``.

    The block sets on it the facts that become known only while it runs.

    Attributes:
        entry_ids: The entries that the operation touched; append to it, or set it.
        metadata: Further facts; fill it, or set it.
    """

    __slots__ = (
        *(
            "_arecord",
            "_clock",
            "_fields",
            "_intent",
            "_intent_id",
            "_level",
            "_not_failures",
            "_operation",
            "_record",
            "_start",
        ),
        *("entry_ids", "metadata"),
    )

    def __init__(
        self,
        record: Recorder,
        operation: OperationName,
        fields: dict[str, Any],
        *,
        intent: bool = False,
        not_failures: Any = (),
        arecord: AsyncRecorder | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._intent = intent
        self._not_failures = exception_classes("not_failures", not_failures)
        self._intent_id: str | None = None
        self._arecord = arecord
        self._record = record
        self._operation = operation
        self._fields = fields
        self._clock = clock
        self._start = 0.0
        self._level = logging.INFO

        self.entry_ids: Any = _as_list(fields.pop("entry_ids", None))
        metadata = fields.pop("metadata", None)
        self.metadata: dict[str, Any] = {} if metadata is None else _as_dict(metadata)

    def copy(self) -> Self:
        """Return a block with the same fields, which further changes of either do not affect."""
        made = copy.copy(self)
        made._fields, made.entry_ids = dict(self._fields), copy.copy(self.entry_ids)
        made.metadata = copy.copy(self.metadata)
        return made

    def bind(self, **fields: Any) -> None:
        """Add *fields* to the event, such as a user that only the block knows."""
        self._fields |= fields

    def partial(self, reason: str | None = None) -> None:
        """Mark the operation as done in part. *reason* becomes its ``error_message``."""
        self._level = logging.INFO
        self._fields["status"] = EventStatus.PARTIAL
        if reason is not None:
            self._fields["error_message"] = reason

    def fail(self, reason: str | None = None) -> None:
        """Mark the operation as failed, without an exception. *reason* becomes its ``error_message``."""
        self._level = logging.ERROR
        self._fields["status"] = EventStatus.FAILURE
        if reason is not None:
            self._fields["error_message"] = reason

    def __enter__(self) -> Self:
        if self._intent:
            with _not_begun_errors(self._operation):
                entry = self._record(logging.INFO, self._operation, self._intent_fields(), kind=Kind.INTENT.value)
            self._confirm_intent(entry)

        self._start = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._record(*self._outcome(error))
        except Exception as failure:
            _raise_or_note(error, failure)

    async def __aenter__(self) -> Self:
        if self._arecord is None:
            return self.__enter__()

        if self._intent:
            # The entry may be completed in another thread. What is bound here goes into the event recorded there, too.
            context = contextvars.copy_context()
            with _not_begun_errors(self._operation):
                entry = await self._arecord(
                    logging.INFO,
                    self._operation,
                    self._intent_fields(),
                    kind=Kind.INTENT.value,
                    on_cancelled=lambda entry: context.run(self._record_cancelled, entry),
                )
            self._confirm_intent(entry)

        self._start = self._clock()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._arecord is None:
            return self.__exit__(kind, error, traceback)

        try:
            await self._arecord(*self._outcome(error))
        except Exception as failure:
            _raise_or_note(error, failure)

    def _intent_fields(self) -> dict[str, Any]:
        return {**self._fields, "entry_ids": list(self.entry_ids), "metadata": dict(self.metadata)}

    def _confirm_intent(self, entry: QueueEntry | None) -> None:
        """Raise unless the intent is recorded.

        Before that, record that the block was not begun.
        """
        if entry is not None and entry.is_recorded:
            self._intent_id = id_of_line(entry.line)
            return

        reason = _NOT_RECORDED[None if entry is None else entry.state]
        error = AuditWriteError(f"{self._operation} was not begun: {reason}")
        if entry is not None and entry.line:
            self._record_not_begun(entry, error)
        raise error

    def _record_cancelled(self, entry: QueueEntry) -> None:
        """Record that the block was not begun because its task was cancelled.

        *entry* is its intent, which was being recorded then.
        """
        if not entry.line:
            return

        error = AuditWriteError(f"{self._operation} was not begun: its task was cancelled")
        try:
            self._record_not_begun(entry, error, make_waker=lambda: _ignore_completion)
        except Exception as failure:
            # Such as an error of a filter. It must not reach the thread that completed the entry.
            report_on_stderr(f"an operation that was not begun was not recorded ({describe_failure(failure)})")

    def _record_not_begun(self, entry: QueueEntry, error: AuditWriteError, **options: Any) -> None:
        self._intent_id = id_of_line(entry.line)
        self._start = self._clock()
        self._record(*self._outcome(error), **options)

    def _outcome(self, error: BaseException | None) -> tuple[int, OperationName, dict[str, Any]]:
        """Return the level, the operation and the fields of the event.

        *error* is the exception that ended the block, if any.
        """
        fields: dict[str, Any] = {
            **self._fields,
            "entry_ids": self.entry_ids,
            "metadata": self.metadata,
            "duration_ms": (self._clock() - self._start) * 1_000,
        }
        if self._intent_id is not None:
            fields |= _with_intent(self.metadata, self._intent_id)
        if error is None:
            return self._level, self._operation, fields

        text = exception_text(error)
        status = status_of_ending(error, self._not_failures)
        if status is EventStatus.FAILURE:
            fields |= {"status": status, "error_message": text}
            return logging.ERROR, self._operation, fields

        # The block's own statement counts.
        fields.setdefault("ended_by", text)
        if status is EventStatus.PARTIAL:
            fields.setdefault("status", status)
        return self._level, self._operation, fields


@contextlib.contextmanager
def _not_begun_errors(operation: OperationName) -> Iterator[None]:
    """Name the *operation* that does not begin in an error of recording its intent."""
    try:
        yield
    except AuditWriteError as error:
        raise AuditWriteError(f"{operation} was not begun: {error}") from error.__cause__


def _ignore_completion() -> None:
    """Do nothing: no caller waits for the event."""


def _raise_or_note(error: BaseException | None, failure: Exception) -> None:
    """Raise *failure*, or add it as a note to the *error* of the block."""
    if error is None:
        raise failure
    error.add_note(f"structlog-audit: the operation was not recorded: {failure}")


def _with_intent(metadata: Any, intent_id: str) -> dict[str, Any]:
    """Return *metadata* as a field with the id of the intent, which replaces any other.

    If it is not a dictionary, the id stands beside it.
    """
    intent = {INTENT_ID: intent_id}
    return {"metadata": metadata | intent} if type(metadata) is dict else {"metadata": metadata, **intent}


def _as_dict(metadata: Any) -> dict[str, Any]:
    """Copy *metadata* into a dictionary, with all values of a key.

    Any other value, or a mapping that cannot be read, is kept under the key ``metadata``.
    """
    if type(metadata) is dict:
        return metadata.copy()

    try:
        if isinstance(metadata, Mapping):
            return dict(mapping_items(metadata) or metadata)
    except Exception:
        pass
    return {"metadata": metadata}


def _as_list(entry_ids: Any) -> list[Any]:
    """Copy *entry_ids* into a list; a single id becomes a list of one."""
    if entry_ids is None:
        return []
    if type(entry_ids) is list:
        return entry_ids.copy()

    # The collections are those that any event accepts.
    entry_ids = unwrapped_or_same(entry_ids)
    items = items_of(entry_ids)
    return [entry_ids] if items is None else items
