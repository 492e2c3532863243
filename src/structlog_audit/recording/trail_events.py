"""Trail events: the library's records about a trail itself, of kind ``trail``.

**Guarantees.** The first event of a writer is preceded by ``opened``, in the same write, and closing the handler records
``closed`` (PCI DSS 10.2.1.6). A writer that records no event leaves no trail events. The operation names the kind of trail
event and the metadata its details, never the content of an application's event.

**Evidence.** ``opened`` names the last event that the trail had before it, so that readers see if that one was removed
(`structlog_audit.trail.reading.evidence`).

**Failure handling.** An outage of the target is recorded as ``fault``, which is pending like other events until the target
recovers, and its end as ``recovery``. With ``on_error="raise"`` no event is pending: ``fault`` is written only if the target
works again by then.

**Notices.** An event notice is a fact about the files that is to be recorded as a trail event, such as a torn line, a
truncated file or segments due for deletion. The file handler adds notices, usually while it writes an event, and they are
recorded after that event.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from structlog_audit._failures import describe_failure
from structlog_audit.events.codec import MIN_EVENT_BYTES, encode_payload
from structlog_audit.events.event import Kind
from structlog_audit.events.payload import Status, TrailPayload
from structlog_audit.recording.group_commit import GroupCommit
from structlog_audit.recording.queue_entry import InternalEntry
from structlog_audit.trail.writing.notices import Notice

TRAIL_LOGGER = "structlog_audit"
"""The name of the logger in the records of trail events."""


class TrailEvents:
    """Records the trail events of one writer through its group commit.

    Args:
        commit: The group commit of the writer.
        notices: The event notices of its target.
        find_previous: Returns the id of the last event in the trail, or None if that is unknown.
    """

    def __init__(
        self, commit: GroupCommit, notices: deque[Notice], find_previous: Callable[[], str | None] | None = None
    ) -> None:
        self.notices = notices
        self.is_open = False
        """Whether ``opened`` is recorded, or will be with the next event."""

        self._commit = commit
        self._find_previous = find_previous
        self._opened: InternalEntry | None = None
        self._is_opening = False
        self._lock = threading.RLock()

    def open(self) -> None:
        """Queue ``opened`` once, which is written together with the next event."""
        with self._lock:
            # Another thread has done it, or a signal handler interrupts this thread while it does.
            if self.is_open or self._is_opening:
                return

            self._is_opening = True
            try:
                metadata = {"pid": os.getpid(), "host": os.uname().nodename}
                previous = None if self._find_previous is None else self._find_previous()
                if previous is not None:
                    metadata["previous"] = previous

                self._opened = _entry("opened", metadata)
                self._commit.enqueue(self._opened)
                self.is_open = True
            finally:
                self._is_opening = False

    def close(self) -> None:
        """Record ``closed`` with the counters, if the trail was opened."""
        if self.is_open:
            self.is_open = False
            self.record("closed", {"pid": os.getpid(), **self._commit.counters()})

    def record_notices(self) -> None:
        """Record the present event notices, and call their ``on_recorded`` functions on a background thread.

        The writes may add further notices. Those are left to the next event: if every write adds one, this would never end.
        """
        for _ in range(len(self.notices)):
            try:
                operation, metadata, on_recorded = self.notices.popleft()
            except IndexError:
                # Another thread took the last notice.
                return

            is_recorded = self.record(operation, metadata)
            if on_recorded is not None:
                self._commit.run_in_background(partial(on_recorded, is_recorded))

    def record_notices_later(self) -> None:
        """Record all event notices on a background thread, for callers that must not wait for the disk."""
        self._commit.run_in_background(self.record_notices)

    def report_outage(self, error: BaseException | None) -> None:
        """Record that the target fails with *error*, or with None that it has recovered."""
        # If ``opened`` was raised, together with the first event, the next event must queue it again.
        if self._opened is not None and self._opened.is_raised:
            self.is_open = False

        if error is None:
            counters = self._commit.counters()
            self.record("recovery", {"raised": counters["raised"], "lost": counters["lost"]})
        else:
            self.record("fault", {"error": describe_failure(error)}, "FAILURE")

    def record(self, operation: str, metadata: dict[str, Any], status: Status = "SUCCESS") -> bool:
        """Submit a trail event, and return whether it is recorded."""
        entry = _entry(operation, metadata, status)
        self._commit.submit(entry)
        return entry.is_recorded


def encode_trail_event(operation: str, metadata: dict[str, Any], status: Status = "SUCCESS") -> bytes:
    """Return the encoded body of a trail event, without id and time."""
    body = TrailPayload(operation, metadata=metadata, status=status, kind=Kind.TRAIL.value)
    return encode_payload(body, MIN_EVENT_BYTES)


def _entry(operation: str, metadata: dict[str, Any], status: Status = "SUCCESS") -> InternalEntry:
    return InternalEntry(encode_trail_event(operation, metadata, status), logging.CRITICAL, TRAIL_LOGGER)
