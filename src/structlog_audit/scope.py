"""Recording an operation with its duration and outcome, whatever way it ends.

Rules:

* Durations come from a monotonic clock.
* With an intent, the block runs only after the intent is recorded, as durably as the target records. Its outcome names it
  under ``metadata.intent_id``; so does the event that tells that a block was not begun.
* An exception, cancellation among them, is recorded as a FAILURE and goes on its way. A failure to record never takes its
  place: it is added to it as a note.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

from structlog_audit.codec import decode
from structlog_audit.entry import Entry
from structlog_audit.event import EventStatus, Kind
from structlog_audit.exceptions import AuditWriteError
from structlog_audit.plain import exception_text

Recorder = Callable[..., Entry | None]
"""Records an event: its level, its operation and its fields, and by keyword its kind; what the handlers said of it."""

ARecorder = Callable[..., Awaitable[Entry | None]]
"""The same, for ``async with``: without holding up the event loop for the disk."""


class OperationScope:
    """A block that does an operation. Made by ``log.operation(…)``; for ``with`` and ``async with``.

    What becomes known in the block is said on it:

    Attributes:
        entry_ids: The entries that the operation touched; to be appended to, or set.
        metadata: What else there is to say; to be filled.
    """

    __slots__ = ("_arecord", "_clock", "_fields", "_intent", "_operation", "_record", "_start", "entry_ids", "metadata")

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
            self._declared(self._record(logging.INFO, self._operation, self._plan(), kind=Kind.INTENT.value))
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
            self._declared(await self._arecord(logging.INFO, self._operation, self._plan(), kind=Kind.INTENT.value))
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

    def _declared(self, entry: Entry | None) -> None:
        """Go on if the intent is recorded; otherwise say that the block was not begun."""
        if entry is not None and entry.line:
            self.metadata["intent_id"] = decode(entry.line).event_id
        if entry is None or not entry.is_recorded:
            told = "not begun: its intent could not be recorded"
            if entry is not None:
                level, operation, fields = self._outcome(AuditWriteError(told))
                self._record(level, operation, fields)
            raise AuditWriteError(f"{self._operation} was {told}")

    def _outcome(self, error: BaseException | None) -> tuple[int, str, dict[str, Any]]:
        """The level, the operation and the fields of the event, given how the block ended."""
        fields: dict[str, Any] = {
            "status": EventStatus.SUCCESS,
            **self._fields,
            "entry_ids": self.entry_ids,
            "metadata": self.metadata,
            "duration_ms": (self._clock() - self._start) * 1_000,
        }
        if error is None:
            return logging.INFO, self._operation, fields
        fields |= {"status": EventStatus.FAILURE, "error_message": exception_text(error)}
        return logging.ERROR, self._operation, fields


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
