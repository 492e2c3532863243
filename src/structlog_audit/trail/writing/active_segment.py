"""The active segment of a trail, as an open file: written to, synced, looked after, rolled over.

Rules:

* Lines go to the kernel as bytes, by ``write(2)`` on a descriptor opened with O_APPEND: whole lines in one call, so the
  lines of several processes never mix.
* A short write (a full disk) leaves a torn line. The next write begins with an LF, so nothing is ever glued to it. It is
  not cut off: that could cut off another process's line.
* A line torn by another process, which died or met a full disk, would swallow the line that we append to it. So the byte
  before what we wrote is looked at if another process wrote since (with fsync always), and if it is no LF, our first event is
  written again.
* A torn line that is found is left where it is. Whoever ends it notices it, with its SHA-256 ("quarantine"); readers take it
  for what it is.
* No write begins in a segment that has reached its size, unless it can't be rolled over: a long segment is better than no
  event.
* Rollover renames the active segment (`segments`) under an advisory lock on its own inode, held for the rollover only, and
  makes it read-only. Whoever gets the lock and finds that the path is another file already was too late,
  and only reopens. A line that another process writes into a segment just renamed is in the trail all the same.
* An fsync of a file does not make its name durable: the folders that got a new name are synced with the first write.
* An fsync that failed is never tried again on the same descriptor: the kernel may have dropped the pages and say "done" the
  second time (PostgreSQL's fsyncgate, 2018). The segment is rolled over, once in an outage and if that is possible, and what
  was not synced is written again, with the same ids. Before that an LF must have gone to the disk by a new descriptor: so
  nothing is glued to what the disk may have of the old, and a disk that goes on failing gets a byte for each attempt.
* That the path still is our file is checked every 50 ms while writing and at rollover, not for each event: asking the file
  system costs as much as the write.
* There is no lock here. Whoever calls holds the one of the owner, so that nobody else uses or closes the descriptor meanwhile.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import hashlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from structlog_audit._failures import DeliveryError, describe_failure
from structlog_audit.trail.segment_names import next_name
from structlog_audit.trail.writing.filesystem import (
    HasLine,
    begun_at,
    is_at,
    is_glued,
    make_folders,
    opened,
    segments_at,
    sync_folder,
    torn_tail,
    whole_lines,
)
from structlog_audit.trail.writing.notices import Notices
from structlog_audit.trail.writing.pruning import Pruning
from structlog_audit.trail.writing.retention import DAY

CHECK_SECONDS = 0.05
"""Between two looks at whether the path still is the file that we write to."""


class ActiveSegment:
    """The active segment of one trail. Its owner has a lock, and holds it for each call.

    Args:
        path: Where it lies; missing folders are made.
        max_bytes: Bytes after which it is rolled over; 0 means never.
        syncs: Whether a write waits for the disk.
        clock: The time in UTC.
        notices: Where to say what happened to the file.
        pruning: Told of rollovers, and asked to look.
    """

    def __init__(
        self,
        path: str,
        max_bytes: int,
        *,
        syncs: bool,
        clock: Callable[[], dt.datetime],
        notices: Notices,
        pruning: Pruning,
    ) -> None:
        self.path = path
        self.fd = -1
        self.size = 0
        self.writing = False
        """Whether a write is going on, so that a signal handler that comes in between finds out."""
        self.check_at = 0.0
        """When the next look at the path is due, of ``time.monotonic()``."""
        self.failed_rollovers = self.postponed_rollovers = self.failed_syncs = 0
        self.rollover_failure = ""
        """What the latest failed rollover failed with."""
        self._max_bytes = max_bytes
        self._roll_over_at = sys.maxsize  # bytes that no write may go beyond
        self._syncs = syncs
        self._clock = clock
        self._notices = notices
        self._pruning = pruning
        self._begun: dt.datetime | None = None  # when its first event was recorded, if that is asked for
        self._torn = False
        self._torn_end = b"\n"  # what ends a torn line before the next write
        self._found: dict[str, Any] | None = None  # a torn line that was there when the file was opened
        self._looks_behind = True  # after the next write: others may have written before it, or the disk is waited for
        self._failed: os.stat_result | None = None  # the first segment whose fsync failed, in this outage
        self._unsynced_folders: list[str] = []
        self.open()

    def deliver(self, entries: Sequence[HasLine], again: bool = False) -> None:
        """Have the kernel or the disk hold the lines of *entries*.

        Args:
            entries: What to write; at least one.
            again: Whether this is the second attempt, after an fsync failed or a line was glued to a torn one.

        Raises:
            DeliveryError: Not all of them are recorded; says how many are. Its cause is the OSError.
        """
        if self.writing:
            raise DeliveryError(0) from OSError(errno.EBUSY, "in the middle of another write of the same thread")
        if len(entries) == 1:
            data = entries[0].line
        elif self._failed is None or again:
            data = b"".join([entry.line for entry in entries])
        else:
            return self._deliver_one_first(entries)
        self.writing, size, written = True, len(data), 0
        try:
            if time.monotonic() >= self.check_at:
                self._look()
            if self.size + size > self._roll_over_at:
                self._make_room()
            if self._torn:
                self._end_torn_line()
            written = os.write(self.fd, data)
            while written < size:
                written += os.write(self.fd, data[written:])
            before, self.size = self.size, os.lseek(self.fd, 0, os.SEEK_CUR)
            if self.size != before + size or self._looks_behind:
                self._look_behind(before, size, entries, again)
        except OSError as error:
            kept = self._kept(data, written)  # first: a size that is wrong makes the next write look behind
            self.size += written
            raise DeliveryError(whole_lines(entries, kept)) from error
        finally:
            self.writing = False

    def _deliver_one_first(self, entries: Sequence[HasLine]) -> None:
        """Write the first entry, and the others only if the disk holds that: no backlog is written in vain again and again."""
        self.deliver(entries[:1])
        try:
            self.deliver(entries[1:])
        except DeliveryError as error:
            raise DeliveryError(error.done + 1) from error.__cause__

    def _look_behind(self, before: int, size: int, entries: Sequence[HasLine], again: bool) -> None:
        """Have the disk hold what was written, *size* bytes, and write it *again* if it does not, or is glued to a torn line.

        Args:
            before: The size of the file before that, as far as we knew.
        """
        if self.size < before + size:
            self._notice("truncated", bytes_before=before, bytes_now=self.size - size)
        self._looks_behind = self._syncs
        glued = is_glued(self.fd, self.size - size)
        if self._syncs and not self._synced():
            if again:
                raise DeliveryError(0) from OSError(errno.EIO, "fsync failed twice")
            self._deliver_again(entries)  # in a new segment
        else:
            self._failed = None
            if glued:
                self._deliver_again(entries[:1])

    def _deliver_again(self, entries: Sequence[HasLine]) -> None:
        self.writing = False  # this is a write of its own
        self.deliver(entries, again=True)

    def _kept(self, data: bytes, written: int) -> int:
        """How many bytes are recorded of *data*, of which so many were *written* when the write was cut short."""
        if not written:
            return 0
        if data[written - 1 : written] != b"\n":
            self._torn = True
            if data[written : written + 1] == b"\n":  # the LF by itself would make an event of it after all
                self._torn_end = b'"\n'
        return 0 if self._syncs and not self._synced() else written

    def _end_torn_line(self) -> None:
        """Write what ends a torn line, unless it was found and somebody else has ended it since."""
        found = self._found
        if found is None or os.fstat(self.fd).st_size == found["offset"] + found["bytes"]:
            self.size += os.write(self.fd, self._torn_end)
            if found is not None:
                self._notice("quarantine", **found)
        self._torn, self._torn_end, self._found = False, b"\n", None

    def _synced(self) -> bool:
        """Whether the disk holds what was written, and the names. If not, this descriptor is done with."""
        try:
            while self._unsynced_folders:
                sync_folder(self._unsynced_folders[-1])
                self._unsynced_folders.pop()
            os.fsync(self.fd)
        except OSError:
            self.failed_syncs += 1
            with contextlib.suppress(OSError):
                self._failed = self._failed or os.fstat(self.fd)
            self.release()
            return False
        return True

    def _look(self) -> None:
        """Have a descriptor of the file that is at our path now, and know its size, other writers' lines included."""
        if self.fd < 0:
            self.open()
        elif not is_at(self.path, self.fd):
            ours = os.fstat(self.fd)
            self.open()  # if that fails there will be another look: it is noticed once
            self._notice_loss(ours)
        status = os.fstat(self.fd)
        if status.st_size < self.size:
            self._notice("truncated", bytes_before=self.size, bytes_now=status.st_size)
        self._looks_behind = self._looks_behind or status.st_size != self.size
        self.size = status.st_size
        if self._failed is not None:
            self._prove(status)
        elif self._is_old():
            self._make_room()
        if time.monotonic() >= self._pruning.check_at:
            self._pruning.announce_due(self.size)
        self.check_at = time.monotonic() + CHECK_SECONDS

    def _prove(self, status: os.stat_result) -> None:
        """After an fsync that failed, leave that segment, and have the disk hold an LF before anything else is written."""
        if self._failed is not None and os.path.samestat(status, self._failed):
            self._make_room()
        if self._torn:
            self._end_torn_line()
        self.size += os.write(self.fd, b"\n")
        if not self._synced():
            raise OSError(errno.EIO, "fsync still fails")

    def _is_old(self) -> bool:
        """Whether the segment was begun so long ago that its events would outlive retention."""
        days = self._pruning.retention.begin_anew_days
        if days is None:
            return False
        if self._begun is None or not self.size:
            self._begun = begun_at(self.fd) if self.size else self._clock()
        return abs(self._clock() - self._begun) / DAY > days  # begun in the future: the clock was wrong then, or is now

    def _notice(self, act: str, **said: Any) -> None:
        self._notices.add(act, segment=os.path.basename(self.path), **said)

    def _notice_loss(self, ours: os.stat_result) -> None:
        """Notice that the file that was *ours* is gone from the path, unless another writer rolled it over.

        Then it is read-only, even if retention has deleted it since, or will be in a moment and has another name.
        """
        if not ours.st_mode & 0o222 or any(os.path.samestat(ours, other) for _, other in segments_at(self.path)):
            return
        self._notice("replaced", bytes_before=ours.st_size, unlinked=ours.st_nlink == 0)

    def _make_room(self) -> None:
        """Roll over, unless the segment is empty: then what comes is longer than a segment should be."""
        if self.size == 0:
            return
        try:
            self.roll_over()
        except OSError as error:  # such as a folder that may no longer be written
            self.failed_rollovers += 1
            self.rollover_failure = describe_failure(error)
            self._roll_over_at = self.size + self._max_bytes // 10

    def roll_over(self) -> None:
        """Rename the active segment and begin a new one, unless another process has a lock on it.

        Raises:
            OSError: That can't be done. The segment goes on.
        """
        if self.fd < 0:
            self.open()
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # given up when the descriptor is closed
        except BlockingIOError:  # another process is at it; until it is done, this segment is as good
            self.postponed_rollovers += 1
            return
        try:
            if is_at(self.path, self.fd):
                folder, base = os.path.split(self.path)
                os.rename(self.path, os.path.join(folder, next_name(base, os.listdir(folder), self._clock())))
                self._pruning.rolled()
                self.check_at = 0.0  # if the next one can't be opened, the next write tries again, and this one goes on
                with contextlib.suppress(PermissionError):  # it is root's, and we are not
                    os.fchmod(self.fd, 0o400)
            self.open()
        except OSError:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
            raise

    def open(self) -> None:
        """Open the active segment, and only then let go of the descriptor that was open.

        Raises:
            OSError: That can't be done. What was open stays open.
        """
        folder = os.path.dirname(self.path)
        renamed_in = [*make_folders(folder), folder]
        fd, status = opened(self.path)
        self.release()
        self.fd = fd
        self.size = status.st_size
        if self._syncs:
            self._unsynced_folders = list(dict.fromkeys([*self._unsynced_folders, *renamed_in]))
        self._begun = None
        self._looks_behind = True
        self._roll_over_at = self._max_bytes or sys.maxsize
        torn = torn_tail(fd) if status.st_size else b""
        self._torn, self._found = bool(torn), None
        if torn:
            digest = hashlib.sha256(torn).hexdigest()
            self._found = {"offset": os.fstat(fd).st_size - len(torn), "bytes": len(torn), "sha256": digest}

    def release(self) -> None:
        """Let go of the descriptor. The next write opens the file again."""
        fd, self.fd = self.fd, -1
        self.check_at = 0.0
        if fd >= 0:
            os.close(fd)

    def after_fork(self) -> None:
        """Let go of the parent's descriptor in a forked child: a lock on it would be the parent's as well."""
        self.writing = False
        self.release()
