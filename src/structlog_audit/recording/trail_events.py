"""The library's own acts on a trail, as events of kind ``trail``.

Rules:

* A writer's first event is preceded by ``opened``, in the same write; closing it leaves ``closed`` (PCI DSS 10.2.1.6). A writer
  that records nothing leaves nothing.
* What a file handler notices (a torn line, a file that was truncated, removed or replaced) and what it is about to do
  (retention) it puts into its ``noticed``; they are recorded after the event that brought them up.
* An outage leaves ``fault``, pending like the events behind it, and ``recovery``; with ``on_error="raise"``, where nothing is
  ever pending, only the latter.
* The operation says which act; the metadata says of whom and of what. No act contains anything of an event.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from functools import partial
from typing import Any

from structlog_audit._failures import describe_failure
from structlog_audit.events.codec import MIN_EVENT_BYTES, encode_payload
from structlog_audit.events.event import Kind
from structlog_audit.events.payload import Status, TrailPayload
from structlog_audit.recording.group_commit import GroupCommit
from structlog_audit.recording.queue_entry import InternalEntry
from structlog_audit.trail.writing.notices import Notice

LOGGER = "structlog_audit"


class TrailEvents:
    """Records the acts of one writer through its commit.

    Args:
        commit: The commit of the writer.
        notices: What its target notices.
    """

    def __init__(self, commit: GroupCommit, notices: deque[Notice]) -> None:
        self._commit = commit
        self.notices = notices
        self.is_open = False
        self._opened: InternalEntry | None = None

    def open(self) -> None:
        """Have ``opened`` written with the next event."""
        self.is_open = True
        self._opened = _entry("opened", {"pid": os.getpid(), "host": os.uname().nodename})
        self._commit.arrive(self._opened)

    def close(self) -> None:
        """Record ``closed``, if the trail was opened, with the counters."""
        if self.is_open:
            self.is_open = False
            self.record("closed", {"pid": os.getpid(), **self._commit.counters()})

    def report(self) -> None:
        """Record what was noticed."""
        while self.notices:
            try:
                act, said, then = self.notices.popleft()
            except IndexError:  # another thread was faster
                return
            recorded = self.record(act, said)
            if then is not None:
                self._commit.have_done(partial(then, recorded))

    def report_later(self) -> None:
        """Record what was noticed, in another thread: for callers that must not wait for the disk."""
        self._commit.have_done(self.report)

    def told(self, error: BaseException | None) -> None:
        """Record that the target fails, or by None that it does so no longer."""
        if self._opened is not None and self._opened.is_raised:
            self.is_open = False  # it went with the event that it came with
        if error is None:
            counters = self._commit.counters()
            self.record("recovery", {name: counters[name] for name in ("raised", "lost")})
        else:
            self.record("fault", {"error": describe_failure(error)}, "FAILURE")

    def record(self, act: str, said: dict[str, Any], status: Status = "SUCCESS") -> bool:
        """Record an *act* now; whether it is recorded."""
        entry = _entry(act, said, status)
        self._commit.submit(entry)
        return entry.is_recorded


def _entry(act: str, said: dict[str, Any], status: Status = "SUCCESS") -> InternalEntry:
    body = TrailPayload(act, metadata=said, status=status, kind=Kind.TRAIL.value)
    return InternalEntry(encode_payload(body, MIN_EVENT_BYTES), logging.CRITICAL, LOGGER)
