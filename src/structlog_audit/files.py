"""The files of a trail: one `AuditFileHandler` appends to the active segment and rolls it over.

Rules:

* Lines go to the kernel as bytes, by ``write(2)`` on a descriptor opened with O_APPEND: whole lines in one call, so the
  lines of several processes never mix.
* A short write (a full disk) leaves a torn line. The next write begins with an LF, so nothing is ever glued to it. It is
  not cut off: that could cut off another process's line.
* A line torn by another process, which died or met a full disk, would swallow the line that we append to it. So the byte
  before what we wrote is looked at if another process wrote since, and if it is no LF, our first event is written again.
* ``maxBytes`` counts bytes, and no write begins in a segment that has reached it. 0 means that a segment never ends, as in
  the standard library. ``backupCount=0`` keeps every segment (there it means "never roll over").
* Segments that retention lets go are deleted after that is recorded, by a thread (`retention`).
* Rollover renames the active segment (`segments`) under an advisory lock on its own inode, held for the rollover only.
  Whoever gets the lock and finds that the path is another file already was too late, and only reopens. A line that another
  process writes into a segment just renamed is in the trail all the same.
* ``durability="os"``: the kernel has the line before the call returns; it survives the death of the process.
  ``durability="fsync"``: the disk has it, and the folder its name; it survives a loss of power. One fsync serves all
  lines of a write, so callers that wait together share it.
* An fsync that failed is never tried again on the same descriptor: the kernel may have dropped the pages and say "done" the
  second time (PostgreSQL's fsyncgate, 2018). The segment is rolled over and what was not synced is written again, in the
  new one, with the same ids.
* A torn line that is found is left where it is, and noticed with its SHA-256 ("quarantine"); readers take it for what it is.
* That the path still is our file is checked at rollover and every 50 ms while writing, not for each event: asking the file
  system costs as much as the write.
* Files are created 0600 and folders 0700 (PCI DSS 10.3.2); a path that is no regular file, or that is somebody else's (neither
  ours nor root's), is refused.
"""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import hashlib
import logging
import logging.handlers
import os
import shutil
import stat
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from structlog_audit.acts import Notice
from structlog_audit.check import Finding
from structlog_audit.entry import Entry, Undelivered, complain, describe
from structlog_audit.exceptions import AuditTypeError
from structlog_audit.forks import renew_after_fork
from structlog_audit.formatter import AuditJsonFormatter
from structlog_audit.places import ShortWrite, checked_path, is_anothers, is_glued, sync_folder, torn_tail, whole_lines
from structlog_audit.query import choice, whole_number
from structlog_audit.retention import Retention, retention_of
from structlog_audit.segments import next_name, rolled, rollover_time

Durability = Literal["os", "fsync"]

CHECK_SECONDS = 0.05
"""Between two looks at whether the path still is the file that we write to."""

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


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
        self.syncs = choice("durability", durability, ("os", "fsync")) == "fsync"
        """Whether writing waits for the disk."""
        whole_number("maxBytes", maxBytes, least=0)
        self.retention = retention_of(retention, whole_number("backupCount", backupCount, least=0))
        path = checked_path("filename", filename)
        self.write_lock = threading.RLock()
        """Held by whoever writes; the commit in front of this handler makes it its own, so that a write takes one lock."""
        self._fd = -1
        self._size = 0
        self._torn = False
        self._writing = False  # so a signal handler that comes in between finds out
        self._in_between: deque[bytes] = deque()
        self._others_wrote = False  # since our last write, as far as we know without asking
        self._torn_end = b"\n"  # what ends a torn line before the next write
        self._unsynced = False  # an fsync failed: what comes next goes into a new segment
        self._check_at = 0.0  # of time.monotonic()
        self._roll_over_at = maxBytes or sys.maxsize  # bytes that no write may go beyond
        self.failed_rollovers = self.failed_syncs = self.unwritten = 0
        self._going: set[Path] = set()  # segments that retention lets go, and that may still be there
        self.noticed: deque[Notice] = deque(maxlen=100)
        """What happened to the files: acts for the `AuditHandler` to record."""
        self._clock = clock
        super().__init__(path, maxBytes=maxBytes, backupCount=backupCount, delay=True, encoding="utf-8")
        self.formatter = AuditJsonFormatter()
        self._reopen()
        self._notice_due()
        renew_after_fork(self)

    @property
    def path(self) -> Path:
        """The active segment."""
        return Path(self.baseFilename)

    def segments(self) -> list[Path]:
        """The segments that exist, in order: those rolled over, the oldest first, and the active one."""
        folder = self.path.parent
        names = [folder / name for name in rolled(self.path.name, os.listdir(folder))]
        return [path for path in [*names, self.path] if path.exists()]

    def deliver(self, entries: Sequence[Entry]) -> None:
        """Write the lines of *entries*. For the commit, which holds `write_lock`.

        Raises:
            Undelivered: The system failed to; says how many entries are whole in the trail. Its cause is the OSError.
        """
        first = entries[0].line
        try:
            self._write(first if len(entries) == 1 else b"".join([entry.line for entry in entries]), len(first))
        except ShortWrite as error:
            raise Undelivered(whole_lines([entry.line for entry in entries], error.written)) from error.__cause__

    def write(self, data: bytes) -> None:
        """Append *data*, the line or lines of one event, and have the kernel hold it before this returns.

        Raises:
            ShortWrite: Not all of it could be written. Its cause is the OSError.
        """
        with self.write_lock:
            self._write(data, len(data))

    def _write(self, data: bytes, first: int) -> None:
        """Have the kernel or the disk hold *data*, the first event of which has *first* bytes. Raises as `write` does."""
        if self._writing:
            raise ShortWrite(0) from OSError(errno.EBUSY, "in the middle of another write of the same thread")
        self._writing = True
        try:
            self._append(data, first)
            if self.syncs and not self._synced():
                self._append(data, first)  # once more, in a new segment
                if not self._synced():
                    raise ShortWrite(0) from OSError(errno.EIO, "fsync failed in two segments")
        finally:
            self._writing = False

    def _append(self, data: bytes, first: int) -> None:
        """Have the kernel hold *data*. Raises as `write` does."""
        size = len(data)
        written = 0
        try:
            if time.monotonic() >= self._check_at:
                self._check_path()
            if self._size + size > self._roll_over_at:
                self._make_room()
            if self._torn:
                self._size += os.write(self._fd, self._torn_end)
                self._torn, self._torn_end = False, b"\n"
            written = os.write(self._fd, data)
            while written < size:
                written += os.write(self._fd, data[written:])
            end = os.lseek(self._fd, 0, os.SEEK_CUR)
        except OSError as error:
            if written > 0 and data[written - 1 : written] != b"\n":
                self._torn = True
                if data[written : written + 1] == b"\n":  # the LF by itself would make an event of it after all
                    self._torn_end = b'"\n'
            raise ShortWrite(0 if self.syncs else written) from error
        finally:
            self._size += written
        if end != self._size or self._others_wrote:
            self._size, self._others_wrote = end, False
            if is_glued(self._fd, end - size):
                self._append(data[:first], first)

    def _synced(self) -> bool:
        """Whether the disk holds what was written. If not, this descriptor is done with, and so is its segment."""
        try:
            os.fsync(self._fd)
        except OSError:
            self.failed_syncs += 1
            self._unsynced = True
            self._release()
            return False
        return True

    def _check_path(self) -> None:
        """Have a descriptor of the file that is at our path now, and know its size, other writers' lines included."""
        if self._fd < 0:
            self._reopen()
        elif not self._is_ours():
            ours = os.fstat(self._fd)
            self._reopen()  # if that fails there will be another look: it is noticed once
            self._notice_loss(ours)
        elif os.fstat(self._fd).st_size < self._size:
            self._notice("truncated", bytes_before=self._size, bytes_now=os.fstat(self._fd).st_size)
        if self._unsynced:
            self.doRollover()
            self._unsynced = False
        size = os.fstat(self._fd).st_size
        self._others_wrote = self._others_wrote or size != self._size
        self._size = size
        self._check_at = time.monotonic() + CHECK_SECONDS

    def _notice(self, act: str, **said: Any) -> None:
        self.noticed.append((act, {"segment": self.path.name, **said}, None))

    def _notice_due(self) -> None:
        """Notice the segments that may go. They go when that is recorded, which takes an `AuditHandler`."""
        if not self.retention.bounds:
            return
        left = [path for path in self.segments() if path != self.path and path not in self._going]
        found = [(path, rollover_time(self.path.name, path.name)) for path in left]
        sizes = [(rolled_at, path.stat().st_size) for path, rolled_at in found if rolled_at is not None]
        due = left[: self.retention.due(sizes, self._size, self._clock())]
        if due:
            self._going.update(due)
            said = {"segments": [path.name for path in due], "bytes": sum(size for _, size in sizes[: len(due)])}
            self.noticed.append(("retention", said, partial(self._delete, due)))

    def _delete(self, segments: Sequence[Path], recorded: bool) -> None:
        """Delete *segments*, if that is *recorded*. Those that stay are due again at the next rollover."""
        for path in segments if recorded else ():
            try:
                path.unlink(missing_ok=True)  # another writer may have been faster
            except OSError as error:
                self._notice("retention failed", error=describe(error), of=path.name)
        self._going.difference_update(segments)
        if self.syncs:
            sync_folder(self.path.parent)

    def _notice_loss(self, ours: os.stat_result) -> None:
        """Notice that the file that was *ours* is gone from the path, unless another writer rolled it over."""
        for path in reversed(self.segments()):
            try:
                status = path.stat()
            except FileNotFoundError:  # rolled over or deleted in this moment, by another writer
                continue
            if path != self.path and (status.st_dev, status.st_ino) == (ours.st_dev, ours.st_ino):
                return
        self._notice("replaced", bytes_before=ours.st_size, unlinked=ours.st_nlink == 0)

    def _make_room(self) -> None:
        """Roll over, unless the segment is empty: then what comes is longer than a segment should be."""
        if self._size == 0:
            return
        try:
            self.doRollover()
        except OSError:  # such as a folder that may no longer be written: a long segment is better than no event
            self.failed_rollovers += 1
            self._roll_over_at = self._size + self.maxBytes // 10
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _is_ours(self) -> bool:
        """Whether the path still is the file behind our descriptor."""
        try:
            there, ours = os.stat(self.baseFilename, follow_symlinks=False), os.fstat(self._fd)
        except FileNotFoundError:
            return False
        except PermissionError:  # the folder was closed to us; the descriptor is as good as before
            return True
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)

    def _reopen(self) -> None:
        """Open the active segment, and only then let go of the descriptor that was open."""
        os.makedirs(self.path.parent, mode=0o700, exist_ok=True)
        fd = os.open(self.baseFilename, _FLAGS, 0o600)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or is_anothers(status):
            os.close(fd)
            raise PermissionError(errno.EPERM, "not a regular file of ours", self.baseFilename)
        self._release()
        self._fd = fd
        if self.syncs:
            sync_folder(self.path.parent)
        self._size = status.st_size
        self._others_wrote = True
        self._check_at = time.monotonic() + CHECK_SECONDS
        self._roll_over_at = self.maxBytes or sys.maxsize
        torn = torn_tail(fd) if status.st_size else b""
        self._torn = bool(torn)
        if torn:
            digest = hashlib.sha256(torn).hexdigest()
            self._notice("quarantine", offset=status.st_size - len(torn), bytes=len(torn), sha256=digest)

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        self._check_at = 0.0
        if fd >= 0:
            os.close(fd)

    def after_fork(self) -> None:
        """Let go of the parent's descriptor in a forked child: a lock on it would be the parent's as well."""
        self._writing = False
        self._in_between.clear()
        self.write_lock = threading.RLock()
        self._release()

    def check(self) -> list[Finding]:
        """What would lose events here."""
        counts = (
            (
                "rollover",
                self.failed_rollovers,
                "rollovers failed; the segment goes on",
                "let its folder be written to",
            ),
            ("fsync", self.failed_syncs, "fsyncs failed; events were written again", "look at the disk"),
            ("unwritten", self.unwritten, "events could not be written", "chain the handler to an AuditHandler"),
        )
        findings = [Finding(code, f"{count} {what}", fix) for code, count, what, fix in counts if count]
        if not self.retention.bounds:
            fix = 'give retention={"max_age_days": …} or backupCount, or delete old segments some other way'
            findings.append(Finding("unbounded", "the trail grows without bound", fix))
        disk = shutil.disk_usage(self.path.parent)
        if disk.free < max(disk.total // 20, 2 * self.maxBytes):
            fix = "make room, or give the trail a bound"
            findings.append(Finding("disk", f"only {disk.free // 1_000_000} MB are free on the disk of the trail", fix))
        return findings

    def doRollover(self) -> None:  # noqa: N802
        """Rename the active segment and begin a new one. A failure to rename keeps the segment going."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given up when the descriptor is closed
        except BlockingIOError:
            if self._unsynced:
                raise
            return  # another process is at it; until it is done, this segment is as good
        if self._is_ours():
            folder = self.path.parent
            name = next_name(self.path.name, os.listdir(folder), self._clock())
            os.rename(self.baseFilename, folder / name)
            self._reopen()
            self._notice_due()
        else:
            self._reopen()

    def emit(self, record: logging.LogRecord) -> None:
        """Write *record*, which comes from a logger and not from an `AuditHandler`."""
        self._in_between.append(self.format(record).encode() + b"\n")
        with self.write_lock:
            while self._in_between and not self._writing:  # else whoever writes goes on with it
                self._emit_line(self._in_between.popleft())

    def _emit_line(self, line: bytes) -> None:
        try:
            self.write(line)
        except ShortWrite as error:
            self.unwritten += 1
            if self.unwritten == 1:
                cause = describe(error.__cause__)
                complain(f"{self.baseFilename} can't be written ({cause}); events are lost")

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
            if not self._writing:
                self._release()
        logging.Handler.close(self)

    def flush(self) -> None:
        """Do nothing: nothing is ever held back."""

    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802
        """Whether the active segment has reached its size. Writing sees to it; nobody needs to ask."""
        return int(0 < self.maxBytes <= self._size)
