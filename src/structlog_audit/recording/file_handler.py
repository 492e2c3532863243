"""The files of a trail: one `AuditFileHandler` appends to the active segment and rolls it over.

Rules:

* How lines get to the file and the disk is told in `active`, how segments go in `pruning`. This module is what `logging` and
  the commit see of that, and the lock.
* ``maxBytes`` counts bytes. 0 means that a segment never ends, as in the standard library. ``backupCount=0`` keeps every
  segment (there it means "never roll over").
* ``durability="os"``: the kernel has the line before the call returns; it survives the death of the process.
  ``durability="fsync"``: the disk has it, and the folders its name; it survives a loss of power. One fsync serves all
  lines of a write, so callers that wait together share it.
* Whoever writes, rolls over or closes holds `write_lock`. What comes in the middle of a write of the same thread, so from a
  signal handler, never touches the descriptor: it waits for its turn or is refused.
* Files are created 0600 and folders 0700 (PCI DSS 10.3.2), rolled segments are 0400; a path that is no regular file, or that is
  somebody else's (neither ours nor root's), is refused.
"""

from __future__ import annotations

import datetime as dt
import logging
import logging.handlers
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from structlog_audit._failures import DeliveryError, describe_failure, report_on_stderr
from structlog_audit._validation import require_choice, require_integer
from structlog_audit.exceptions import AuditTypeError
from structlog_audit.recording.fork_safety import generation, register_fork_reset
from structlog_audit.recording.formatter import AuditJsonFormatter
from structlog_audit.recording.health_checks import Finding
from structlog_audit.recording.queue_entry import QueueEntry
from structlog_audit.trail.writing.active_segment import ActiveSegment
from structlog_audit.trail.writing.filesystem import checked_path, open_to_others, segments_at
from structlog_audit.trail.writing.notices import Notices
from structlog_audit.trail.writing.pruning import Pruning
from structlog_audit.trail.writing.retention import Retention, retention_of

Durability = Literal["os", "fsync"]


class AuditFileHandler(logging.handlers.RotatingFileHandler):
    """Appends events as JSON lines and keeps every segment.

    The target that gives every promise of this library. It is meant to be chained to an `AuditHandler`; attached to a
    logger by itself it writes the same lines, but has no buffer, no pending events and no failure policy: an event that
    can't be written is then reported on stderr and counted.

    Args:
        filename: The active segment. Missing folders are created.
        maxBytes: Bytes after which a segment is rolled over; at least 0, which means never.
        backupCount: Rolled segments that are kept; 0 keeps every one (in the standard library it means "never roll over").
        retention: What else is kept: a `Retention`, or a mapping of its attributes, such as ``{"max_age_days": 365}``.
        durability: ``"os"`` or ``"fsync"``: what "recorded" means.
        clock: The time in UTC, for the names of segments.

    Raises:
        AuditTypeError, AuditValueError: A parameter can't be meant, or the path is a folder or no regular file.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        maxBytes: int = 50_000_000,  # noqa: N803 (the name it has in the standard library)
        backupCount: int = 0,  # noqa: N803
        *,
        durability: Durability = "os",
        retention: Retention | Mapping[str, Any] | None = None,
        clock: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self.syncs = require_choice("durability", durability, ("os", "fsync")) == "fsync"
        """Whether writing waits for the disk."""
        require_integer("maxBytes", maxBytes, least=0)
        self.retention = retention_of(retention, require_integer("backupCount", backupCount, least=0))
        path = checked_path("filename", filename)
        self.write_lock = threading.RLock()
        """Held by whoever writes; the commit in front of this handler makes it its own, so that a write takes one lock."""
        self.unwritten = 0
        self._generation = generation()
        self._in_between: deque[bytes] = deque()
        self.notices = Notices()
        """What happened to the files: acts for the `AuditHandler` to record."""
        super().__init__(path, maxBytes=maxBytes, backupCount=backupCount, delay=True, encoding="utf-8")
        self.formatter = AuditJsonFormatter()
        told: dict[str, Any] = {"syncs": self.syncs, "clock": clock, "notices": self.notices}
        self._pruning = Pruning(self.baseFilename, self.retention, **told)
        self._active = ActiveSegment(self.baseFilename, maxBytes, pruning=self._pruning, **told)
        if self.retention.bounds:
            self._pruning.announce_due(self._active.size)
        register_fork_reset(self)

    @property
    def path(self) -> Path:
        """The active segment."""
        return Path(self.baseFilename)

    @property
    def failed_rollovers(self) -> int:
        """How often the segment had to go on."""
        return self._active.failed_rollovers

    def segments(self) -> list[Path]:
        """The segments that exist, in order: those rolled over, the oldest first, and the active one."""
        return [path for path, _ in segments_at(self.baseFilename)]

    def has_lines(self) -> bool:
        """Whether there is anything in the files."""
        return any(status.st_size for _, status in segments_at(self.baseFilename))

    @property
    def deliver(self) -> Callable[[Sequence[QueueEntry]], None]:
        """Writes the lines of entries, or raises `DeliveryError`. For the commit, which holds `write_lock`."""
        return self._active.deliver

    def write(self, data: bytes) -> None:
        """Append *data*, the line or lines of one event, and have the kernel hold it before this returns.

        Raises:
            DeliveryError: It is not recorded. Its cause is the OSError.
        """
        with self.write_lock:
            self._write(data)

    def _write(self, data: bytes) -> None:
        self.deliver((QueueEntry(b"", logging.INFO, "", line=data),))

    def doRollover(self) -> None:  # noqa: N802
        """Rename the active segment and begin a new one, unless another process has a lock on it.

        In the middle of a write of this thread, so from a signal handler, it does nothing.

        Raises:
            OSError: That can't be done. The segment goes on.
        """
        with self.write_lock:
            if not self._active.writing:
                self._active.writing = True
                try:
                    self._active.roll_over()
                finally:
                    self._active.writing = False
                    self._emit_waiting()

    def after_fork(self) -> None:
        """Begin anew in a forked child, once: what is open, noticed or waiting is the parent's.

        The handler in front may call this first, and has taken the new lock then.
        """
        if self._generation == generation():
            return
        self._generation = generation()
        self.write_lock = threading.RLock()
        self._in_between.clear()
        self.notices.clear()
        self._pruning.after_fork()
        self._active.after_fork()

    def check(self) -> list[Finding]:
        """What would lose events here, fill the disk, or let others change the trail."""
        return [*self._counted(), *self._of_retention(), *self._of_the_disk()]

    def _counted(self) -> Iterator[Finding]:
        active, chain = self._active, "chain the handler to an AuditHandler"
        failed = f"rollovers failed ({active.rollover_failure}); the segment goes on"
        counts = (
            ("rollover", active.failed_rollovers, failed, "let the folder be written to, on a file system with locks"),
            ("fsync", active.failed_syncs, "fsyncs failed; events were written again", "look at the disk"),
            ("unwritten", self.unwritten, "events could not be written", chain),
            ("unnoticed", self.notices.dropped, "acts of the trail were not recorded", chain),
        )
        for code, count, what, fix in counts:
            if count:
                yield Finding(code, f"{count} {what}", fix)
        if active.postponed_rollovers and 0 < self.maxBytes * 1.1 < active.size:
            message = (
                f"rollover was postponed {active.postponed_rollovers} times: another process has a lock on the file"
            )
            yield Finding("postponed", message, "let nobody lock the file; copy it without a lock")

    def _of_retention(self) -> Iterator[Finding]:
        if not self.retention.bounds:
            fix = 'give retention={"max_age_days": …} or backupCount, or delete old segments some other way'
            yield Finding("unbounded", "the trail grows without bound", fix)

    def _of_the_disk(self) -> Iterator[Finding]:
        for place, mode in open_to_others(self.baseFilename):
            message = f"{place} can be changed by others than its owner (mode {mode:04o})"
            yield Finding("permissions", message, f"chmod go-w {place}")
        try:
            disk = os.statvfs(self.path.parent)
        except FileNotFoundError:
            yield Finding("folder", f"{self.path.parent} is gone", "leave it there; the next event makes it again")
            return
        free = disk.f_bavail * disk.f_frsize
        if free < max(disk.f_blocks * disk.f_frsize // 20, 2 * self.maxBytes):
            fix = "make room, or give the trail a bound"
            yield Finding("disk", f"only {free // 1_000_000} MB are free on the disk of the trail", fix)

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*, which comes from a logger and not from an `AuditHandler`."""
        self._in_between.append(self.format(record).encode() + b"\n")
        with self.write_lock:
            self._emit_waiting()

    def _emit_waiting(self) -> None:
        while self._in_between and not self._active.writing:  # else whoever writes goes on with it
            line = self._in_between.popleft()
            try:
                self._write(line)
            except DeliveryError as error:
                self.unwritten += 1
                if self.unwritten == 1:
                    cause = describe_failure(error.__cause__)
                    report_on_stderr(f"{self.baseFilename} can't be written ({cause}); events are lost")

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802
        """Raise an `AuditTypeError`, unless *fmt* is a plain `AuditJsonFormatter`: a trail has one format."""
        if type(fmt) is not AuditJsonFormatter or fmt.changes_lines:
            raise AuditTypeError(f"formatter={fmt!r}: a trail has one format; give a formatter to another handler")
        self.formatter = fmt

    def close(self) -> None:
        """Release the file. The next event opens it again: a later ``dictConfig`` closes handlers that stay attached.

        In the middle of a write of this thread, so from a signal handler, the file stays open.
        """
        with self.write_lock:
            if not self._active.writing:
                self._active.release()
        logging.Handler.close(self)

    def flush(self) -> None:
        """Do nothing: nothing is ever held back."""

    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802
        """Whether the active segment has reached its size. Writing sees to it; nobody needs to ask."""
        return int(0 < self.maxBytes <= self._active.size)
