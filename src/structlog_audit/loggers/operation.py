"""Recording an operation with its duration and outcome, whatever way it ends.

Rules:

* Durations come from a monotonic clock.
* With an intent, the block runs only after the intent is recorded, as durably as the target records. Its outcome names it
  under ``metadata.intent_id``, whatever the block does to the metadata; so does the event that tells that a block was not
  begun, because its intent could not be recorded or because its task was cancelled meanwhile.
* An exception, cancellation among them, is recorded as a FAILURE and goes on its way. A failure to record never takes its
  place: it is added to it as a note.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from structlog_audit._failures import describe_failure, report_on_stderr
from structlog_audit.events.codec import decode
from structlog_audit.events.event import INTENT_ID, EventStatus, Kind
from structlog_audit.events.json_safe import exception_text
from structlog_audit.exceptions import AuditWriteError
from structlog_audit.recording.queue_entry import LOST, PENDING, WAITING, QueueEntry

Recorder = Callable[..., QueueEntry | None]
"""Records an event: its level, its operation and its fields, and by keyword its kind; what the handlers said of it."""

ARecorder = Callable[..., Awaitable[QueueEntry | None]]
"""The same, for ``async with``: without holding up the event loop for the disk. By keyword ``withdrawn``: what is called, from
whatever thread, with an entry that is settled after the task that waited for it has been cancelled."""

_NOT_RECORDED = {
    None: "no AuditHandler of this process took its intent on; its check() finds what mutes it",
    PENDING: "its intent is pending, since the target fails",
    LOST: "its intent was lost, since the target fails and max_pending was reached",
    WAITING: "its intent would have waited for an event that this thread is recording",
}
"""Why a block does not run, by the state of its intent."""


class OperationScope:
    """A block that does an operation. Made by ``log.operation(…)``; for ``with`` and ``async with``.

    What becomes known in the block is said on it:

    Attributes:
        entry_ids: The entries that the operation touched; to be appended to, or set.
        metadata: What else there is to say; to be filled.
    """

    __slots__ = (
        *("_arecord", "_clock", "_fields", "_intent", "_intent_id", "_operation", "_record", "_start"),
        *("entry_ids", "metadata"),
    )

    def __init__(
        self,
        record: Recorder,
        operation: str,
        fields: dict[str, Any],
        *,
        intent: bool = False,
        arecord: ARecorder | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._intent = intent
        self._intent_id: str | None = None
        self._arecord = arecord
        self._record = record
        self._operation = operation
        self._fields = fields
        self._clock = clock
        self._start = 0.0
        self.entry_ids: Any = _list(fields.pop("entry_ids", None))
        metadata = fields.pop("metadata", None)
        self.metadata: dict[str, Any] = {} if metadata is None else _dict(metadata)

    def bind(self, **fields: Any) -> None:
        """Add *fields* to the event, such as a user who is only known by now."""
        self._fields |= fields

    def partial(self, reason: str | None = None) -> None:
        """Say that the operation succeeded for a part of what it was asked to do. *reason* is its ``error_message``."""
        self._fields["status"] = EventStatus.PARTIAL
        if reason is not None:
            self._fields["error_message"] = reason

    def __enter__(self) -> Self:
        if self._intent:
            with _naming(self._operation):
                entry = self._record(logging.INFO, self._operation, self._plan(), kind=Kind.INTENT.value)
            self._declared(entry)
        self._start = self._clock()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._record(*self._outcome(error))
        except Exception as failure:
            _never_in_place_of(error, failure)

    async def __aenter__(self) -> Self:
        if self._arecord is None:
            return self.__enter__()
        if self._intent:
            context = contextvars.copy_context()
            how = {"kind": Kind.INTENT.value, "withdrawn": lambda entry: context.run(self._withdrawn, entry)}
            with _naming(self._operation):
                entry = await self._arecord(logging.INFO, self._operation, self._plan(), **how)
            self._declared(entry)
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
            _never_in_place_of(error, failure)

    def _plan(self) -> dict[str, Any]:
        """The fields of the intent."""
        return {**self._fields, "entry_ids": list(self.entry_ids), "metadata": dict(self.metadata)}

    def _declared(self, entry: QueueEntry | None) -> None:
        """Go on if the intent is recorded; otherwise say that the block was not begun."""
        if entry is not None and entry.is_recorded:
            self._intent_id = decode(entry.line).event_id
            return
        why = _NOT_RECORDED[None if entry is None else entry.state]
        error = AuditWriteError(f"{self._operation} was not begun: {why}")
        if entry is not None and entry.line:
            self._not_begun(entry, error)
        raise error

    def _withdrawn(self, entry: QueueEntry) -> None:
        """Say that the block was not begun, since its task was cancelled while *entry*, its intent, was being recorded."""
        if entry.line:
            error = AuditWriteError(f"{self._operation} was not begun: its task was cancelled")
            try:
                self._not_begun(entry, error, later=lambda: _nobody_waits)
            except Exception as failure:  # such as that of a filter; whoever calls this has nothing to do with it
                report_on_stderr(f"an operation that was not begun was not recorded ({describe_failure(failure)})")

    def _not_begun(self, entry: QueueEntry, error: AuditWriteError, **how: Any) -> None:
        self._intent_id = decode(entry.line).event_id
        self._start = self._clock()
        self._record(*self._outcome(error), **how)

    def _told(self) -> dict[str, Any]:
        """The metadata with the intent's id, in place of any other; that beside it if the metadata is no dictionary."""
        if self._intent_id is None:
            return {"metadata": self.metadata}
        named = {INTENT_ID: self._intent_id}
        return (
            {"metadata": self.metadata | named} if type(self.metadata) is dict else {"metadata": self.metadata, **named}
        )

    def _outcome(self, error: BaseException | None) -> tuple[int, str, dict[str, Any]]:
        """The level, the operation and the fields of the event, given how the block ended."""
        fields: dict[str, Any] = {
            "status": EventStatus.SUCCESS,
            **self._fields,
            "entry_ids": self.entry_ids,
            **self._told(),
            "duration_ms": (self._clock() - self._start) * 1_000,
        }
        if error is None:
            return logging.INFO, self._operation, fields
        fields |= {"status": EventStatus.FAILURE, "error_message": exception_text(error)}
        return logging.ERROR, self._operation, fields


@contextlib.contextmanager
def _naming(operation: str) -> Iterator[None]:
    """Say of an error in recording an intent which block does not run."""
    try:
        yield
    except AuditWriteError as error:
        raise AuditWriteError(f"{operation} was not begun: {error}") from error.__cause__


def _nobody_waits() -> None:
    """Called when an event is settled that nobody waits for."""


def _never_in_place_of(error: BaseException | None, failure: Exception) -> None:
    """Raise *failure*, unless the block itself ended with an *error*: then it is a note on that."""
    if error is None:
        raise failure
    error.add_note(f"structlog-audit: the operation was not recorded: {failure}")


def _dict(metadata: Any) -> dict[str, Any]:
    """*metadata* as a dictionary of the scope's own; what is none is kept under its own name."""
    return dict(metadata) if isinstance(metadata, Mapping) else {"metadata": metadata}


def _list(entry_ids: Any) -> list[Any]:
    """*entry_ids* as a list of the scope's own; one id by itself counts as a list of it."""
    if entry_ids is None:
        return []
    return list(entry_ids) if isinstance(entry_ids, (list, tuple, set, frozenset)) else [entry_ids]
