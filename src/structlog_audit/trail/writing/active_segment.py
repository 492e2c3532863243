"""The active segment of a trail: an open file that is appended to, synced, checked and rolled over.

**Guarantees.** The lines of a write reach the kernel in one ``write(2)`` on a descriptor opened with O_APPEND, so the lines of
several processes do not mix. A torn line is one without an LF at its end, left by a crash or a full disk. It stays in the
file, because truncating the file could remove lines that other processes append.

**Failure handling.** A torn line gets an LF before the next write. If the lines just written turn out to continue a torn line
of another process, the first event is written again, so it is not lost. After a failed fsync the descriptor is closed,
because a second fsync may report success for lost data (PostgreSQL's "fsyncgate", 2018). The lines of that write are written
again, with the same ids, to a new segment. If a rollover fails, the segment stays in use. A descriptor that other code closed,
or whose number now belongs to another file, is neither written to nor closed: the file is opened again.

**Concurrency.** The caller holds the lock of the owner during each call. A lock on the file coordinates rollovers of processes.

**Performance.** A write takes three system calls, a few more if it waits for the disk, and every `PATH_CHECK_SECONDS`.
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
from typing import Any, Protocol

from structlog_audit._failures import DeliveryError, describe_failure
from structlog_audit.trail.segment_names import next_name
from structlog_audit.trail.writing.descriptor import UNKNOWN, is_still_open, refers_to_file, set_mark
from structlog_audit.trail.writing.filesystem import (
    create_folders,
    first_event_time,
    is_mid_line,
    last_event_id,
    open_for_append,
    path_refers_to,
    read_torn_line,
    segments_at,
    sync_folder,
)
from structlog_audit.trail.writing.notices import Notices
from structlog_audit.trail.writing.pruning import Pruning
from structlog_audit.trail.writing.retention import DAY

PATH_CHECK_SECONDS = 0.05
"""Interval in seconds between two checks that the path still refers to the open file. A check costs as much as a write."""

ROLLOVER_RETRY_SECONDS = 60.0
"""Interval in seconds between two attempts to roll over a segment because of its age, if they fail."""


class HasLine(Protocol):
    """An entry to write: one event."""

    @property
    def line(self) -> bytes:
        """The line of the event, or all lines of an event in parts, each with its LF."""


class ActiveSegment:
    """Appends to the active segment of one trail. Its owner, the file handler, holds a lock during each call.

    Args:
        path: The path of the segment. Missing folders are created.
        max_bytes: Size in bytes at which the segment is rolled over; 0 means never.
        syncs: Whether each write waits for the disk.
        clock: Returns the current time in UTC.
        notices: Receives a notice when the file was torn, truncated or replaced.
        pruning: Deletes old segments; its checks run as part of the writes.
        delay: Whether the first write opens the file, and not the constructor.

    Raises:
        OSError: The file can't be opened.
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
        delay: bool = False,
    ) -> None:
        self.path = path
        self.fd = -1
        """The descriptor of the file; -1 if it is closed."""
        self.size = 0
        """The size of the file in bytes when this process last wrote to it or checked it."""
        self.writing = False
        """Whether a write or rollover is in progress. A signal handler on the same thread must not interfere with it."""
        self.check_at = 0.0
        """The value of ``time.monotonic()`` from which the next write checks the path first."""

        self.wake_sealer: Callable[[], None] | None = None
        """Called with each check of the path, so that the sealer in this process begins; None if it has none."""

        self.failed_rollovers = 0
        self.postponed_rollovers = 0
        """The number of attempts to roll over while another process held a lock on the file."""
        self.failed_syncs = 0
        self.rollover_failure = ""
        """The description of the latest failed rollover."""

        self.max_bytes = max_bytes
        """Size in bytes at which the segment is rolled over; 0 means never."""
        self._syncs = syncs
        self._clock = clock
        self._notices = notices
        self._pruning = pruning

        # The status of the file when it was opened; None if it was never opened, or closed by `release`.
        self._opened: os.stat_result | None = None
        # The distance of the position from the end of the file, and the position at which the descriptor was left. They
        # identify the descriptor. The mark is 0 if the file system supports none.
        self._mark = 0
        self._position = UNKNOWN
        # A write that would make the file larger than this rolls over first.
        self._rollover_bytes = sys.maxsize
        # The value of ``time.monotonic()`` before which a failed rollover is not repeated because of the age of the segment.
        self._rollover_retry_at = 0.0
        # The time of the first event in the file; determined only if the retention has a maximum age.
        self._first_event_at: dt.datetime | None = None
        # Whether the file ends with a torn line, and the bytes that end it before the next write.
        self._is_torn = False
        self._torn_line_end = b"\n"
        # Position, size and digest of the torn line, if it was there when the file was opened.
        self._found_torn_line: dict[str, Any] | None = None
        # Whether `_verify_write` must follow the next write: another process may write before it, or it must be synced.
        self._must_verify = True
        # The segment whose fsync failed, the first if there are several; None once an fsync has succeeded after a write.
        self._failed_segment: os.stat_result | None = None
        # Folders in which an entry is new and not synced yet.
        self._unsynced_folders: list[str] = []

        if not delay:
            self.open()

    def set_max_bytes(self, max_bytes: int) -> None:
        """Roll over at another size from the next write on."""
        self.max_bytes = max_bytes
        self._rollover_bytes = max_bytes or sys.maxsize

    def deliver(  # noqa: C901, PLR0912, PLR0915 (one function for speed)
        self, entries: Sequence[HasLine], is_repeated: bool = False
    ) -> None:
        """Write the lines of *entries*. They are recorded when this returns.

        Args:
            entries: The entries to write; at least one.
            is_repeated: Whether these entries were written before, but are not recorded: the fsync failed, or they
                continued a torn line of another process.

        Raises:
            DeliveryError: Only the first ``done`` entries are recorded. Its cause is the OSError.
        """
        if self.writing:
            raise DeliveryError(0) from OSError(errno.EBUSY, "this thread is in the middle of another write")

        # While the disk fails, begin with a single entry. A repetition belongs to the write that it repeats: it writes all.
        if len(entries) == 1:
            data = entries[0].line
        elif self._failed_segment is None or is_repeated:
            data = b"".join([entry.line for entry in entries])
        else:
            return self._deliver_first_alone(entries)

        size = len(data)
        written = 0
        self.writing = True
        try:
            # Make sure that the number of the descriptor still refers to the file: other code may have closed it.
            try:
                is_open = os.lseek(self.fd, 0, os.SEEK_CUR) == self._position
            except OSError:
                is_open = False
            if not is_open:
                self._restore_descriptor()

            # Prepare the file: it must be the one at the path, have room for the data, and not end with a torn line.
            if time.monotonic() >= self.check_at:
                self._check_path()
            if self.size + size > self._rollover_bytes:
                self._try_roll_over()
            if self._is_torn:
                self._end_torn_line()

            # Write all lines at once. After a short write, the next attempt usually raises the error that caused it.
            written = os.write(self.fd, data)
            while written < size:
                written += os.write(self.fd, data[written:])

            # The position is at the end of these lines. If that is not the expected place, another process has written or
            # truncated the file. The same call moves the position by the mark.
            size_before = self.size
            self._position = os.lseek(self.fd, self._mark, os.SEEK_CUR)
            self.size = self._position - self._mark
            if self.size != size_before + size or self._must_verify:
                self._verify_write(size_before, size, entries, is_repeated)
        except OSError as error:
            self._handle_error(error, entries, data, written, is_repeated)
        except BaseException:
            # A signal handler raises, perhaps after the write and before the mark.
            self._position = UNKNOWN
            raise
        finally:
            self.writing = False

    def _handle_error(
        self, error: OSError, entries: Sequence[HasLine], data: bytes, written: int, is_repeated: bool
    ) -> None:
        """Raise a `DeliveryError`, or write *entries* again if other code closed the descriptor during the write.

        Args:
            error: The error of a system call.
            entries: The entries to write.
            data: Their lines.
            written: How many bytes of them were written.
            is_repeated: As for `deliver`.

        Raises:
            DeliveryError: Not all entries are recorded.
        """
        if written:
            self._position = UNKNOWN

        if self.fd >= 0 and not self._is_still_open():
            self._forget_descriptor()
            if is_repeated:
                raise DeliveryError(0) from error
            self._repeat(entries)
            return

        # Update the size last: if a signal handler raises before that, the size is too small, so the next write finds an
        # unexpected position and is verified.
        recorded = self._count_recorded_bytes(data, written)
        self.size += written
        raise DeliveryError(count_whole_entries(entries, recorded)) from error

    def _deliver_first_alone(self, entries: Sequence[HasLine]) -> None:
        """Write the first entry, and the others only when it is recorded.

        So a disk that still fails gets one event per attempt, and not the whole backlog.
        """
        self.deliver(entries[:1])
        try:
            self.deliver(entries[1:])
        except DeliveryError as error:
            raise DeliveryError(error.done + 1) from error.__cause__

    def _verify_write(self, size_before: int, size: int, entries: Sequence[HasLine], is_repeated: bool) -> None:
        """Make sure that the entries just written are recorded, and write them again if necessary.

        Args:
            size_before: The expected size of the file before the write, in bytes.
            size: The number of bytes written.
            entries: The entries that were written.
            is_repeated: As for `deliver`.

        Raises:
            DeliveryError: The entries were written again, and are still not recorded.
        """
        # Another file or socket may have got the number since the check before the write.
        if self._opened is None or not refers_to_file(self.fd, self._opened):
            self._withdraw_mark()
            raise OSError(errno.EBADF, "the descriptor was closed and its number reused during the write")

        if self.size < size_before + size:
            self._add_notice("truncated", bytes_before=size_before, bytes_now=self.size - size)

        # Without fsync, the next write needs no verification unless another process writes before it.
        self._must_verify = self._syncs
        if not self._mark:
            # The position proves nothing: compare device and inode before and after each write.
            self._position = UNKNOWN
            self._must_verify = True

        # Check this before the sync: if the sync fails, it closes the descriptor.
        continues_torn_line = is_mid_line(self.fd, self.size - size)

        # The descriptor that was synced is the one that was written to, if it still is after the sync: a closed one does
        # not come back.
        if self._syncs and not (self._sync() and self._is_still_open()):
            if is_repeated:
                raise DeliveryError(0) from OSError(errno.EIO, "fsync failed twice")
            self._repeat(entries)
            return

        self._failed_segment = None
        if continues_torn_line:
            self._repeat(entries[:1])

    def _repeat(self, entries: Sequence[HasLine]) -> None:
        """Write *entries* again, as part of the write in progress."""
        self.writing = False
        self.deliver(entries, is_repeated=True)

    def _count_recorded_bytes(self, data: bytes, written: int) -> int:
        """Return how many bytes of *data* are recorded, after a write failed with its first *written* bytes in the file.

        If the last of them is not an LF, note that the file ends with a torn line. If each write waits for the disk, sync
        the bytes, because lines that are complete count as recorded.
        """
        if not written:
            return 0

        if data[written - 1 : written] != b"\n":
            self._is_torn = True
            # If only the LF is missing, a plain LF would complete an event that is reported as not recorded. A quotation
            # mark before the LF keeps the line invalid.
            if data[written : written + 1] == b"\n":
                self._torn_line_end = b'"\n'

        if self._syncs and not self._sync():
            return 0
        return written

    def _end_torn_line(self) -> None:
        """End the torn line at the end of the file, unless another process has ended it already.

        If the line was found when the file was opened, add a ``quarantine`` notice with its position, size and SHA-256.
        """
        found = self._found_torn_line
        self._position = UNKNOWN

        if found is None:
            self.size += os.write(self.fd, self._torn_line_end)
        elif os.fstat(self.fd).st_size == found["offset"] + found["bytes"]:
            self.size += os.write(self.fd, self._torn_line_end)
            self._add_notice("quarantine", **found)

        self._is_torn = False
        self._torn_line_end = b"\n"
        self._found_torn_line = None

    def _sync(self) -> bool:
        """Sync the file and its name to the disk. If that fails, close the descriptor and return False."""
        try:
            self._sync_folders()
            os.fsync(self.fd)
        except OSError:
            # The fsync of a descriptor that other code closed is not a failure of the disk.
            if self._is_still_open():
                self.failed_syncs += 1
                with contextlib.suppress(OSError):
                    self._failed_segment = self._failed_segment or os.fstat(self.fd)

            self.release()
            return False
        return True

    def _sync_folders(self) -> None:
        """Sync the folders with new entries: an fsync of a file does not cover its name."""
        while self._unsynced_folders:
            sync_folder(self._unsynced_folders[-1])
            self._unsynced_folders.pop()

    def _is_still_open(self) -> bool:
        """Return whether the number of the descriptor still refers to the file that was opened."""
        return self._opened is not None and is_still_open(self.fd, self._position, self._opened)

    def _restore_descriptor(self) -> None:
        """Mark a descriptor without a mark again; forget one that is not that of the file any more."""
        if self.fd < 0:
            return
        if self._is_still_open():
            self._set_mark()
        else:
            self._forget_descriptor()

    def _set_mark(self) -> None:
        """Mark the descriptor, which is that of the file."""
        self._mark = set_mark(self.fd)
        self._position = self._mark or UNKNOWN
        self._must_verify = self._must_verify or not self._mark

    def _withdraw_mark(self) -> None:
        """Move the position of a descriptor that is not that of the file back to where the write left it."""
        with contextlib.suppress(OSError):
            if os.lseek(self.fd, 0, os.SEEK_CUR) == self._position:
                os.lseek(self.fd, -self._mark, os.SEEK_CUR)
        self._position = UNKNOWN

    def _forget_descriptor(self) -> None:
        """Give up a descriptor that other code closed, without closing it. The next check of the path opens the file."""
        try:
            os.fstat(self.fd)
            is_reused = True
        except OSError:
            is_reused = False
        self._add_notice("descriptor lost", reused=is_reused)
        self.fd = -1
        self.check_at = 0.0

    def _check_path(self) -> None:
        """Open the file at the path if necessary, refresh the size, and do what is due.

        That may be the rollover of an old segment, a new segment after a failed fsync, or a check of the retention.

        Raises:
            OSError: The file can't be opened, or the disk still fails after a failed fsync.
        """
        if self.fd < 0:
            self._open_again()
        elif not path_refers_to(self.path, self.fd):
            previous = os.fstat(self.fd)
            # Open first: if that fails, the next write checks again, and the notice is added only once.
            self.open()
            self._report_replacement(previous, bytes_before=previous.st_size, unlinked=previous.st_nlink == 0)

        # Refresh the size: other processes may have appended to the file or truncated it.
        status = os.fstat(self.fd)
        if status.st_size < self.size:
            self._add_notice("truncated", bytes_before=self.size, bytes_now=status.st_size)
        if status.st_size != self.size:
            self._must_verify = True
        self.size = status.st_size

        if self._failed_segment is not None:
            self._prove_disk_recovered(self._failed_segment, status)
        elif time.monotonic() >= self._rollover_retry_at and self._is_overdue():
            self._try_roll_over()

        if time.monotonic() >= self._pruning.check_at:
            self._pruning.announce_due(self.size)
        if self.wake_sealer is not None:
            self.wake_sealer()
        self.check_at = time.monotonic() + PATH_CHECK_SECONDS

    def check_before_close(self) -> None:
        """Check the path a last time, because events of the last `PATH_CHECK_SECONDS` may be in a file that was unlinked.

        If the path refers to another file or to none, add a notice and close the descriptor, so that the next write, perhaps
        that of the notice, opens the file at the path.
        """
        self._restore_descriptor()
        if self.fd < 0 or path_refers_to(self.path, self.fd):
            return

        previous = os.fstat(self.fd)
        # An empty file takes no event with it.
        if previous.st_size:
            self._report_replacement(previous, bytes_before=previous.st_size, unlinked=previous.st_nlink == 0)
        self.release()

    def _open_again(self) -> None:
        """Open the file after its descriptor was closed.

        Raises:
            OSError: The file can't be opened.
        """
        previous, bytes_before = self._opened, self.size
        self.open()

        # After `release` nothing is known of the previous file. If other code closed the descriptor, it should still be there.
        if previous is not None and self._opened is not None and not os.path.samestat(previous, self._opened):
            self._report_replacement(previous, bytes_before=bytes_before)

    def _prove_disk_recovered(self, failed: os.stat_result, current: os.stat_result) -> None:
        """Leave the segment whose fsync failed, and sync a single LF before any event is written.

        The LF also ends whatever part of a failed write the disk holds in the segment that is now in use. While the disk
        fails, each attempt adds one byte instead of an event.

        Args:
            failed: The status of the segment whose fsync failed.
            current: The status of the open file.

        Raises:
            OSError: The disk still fails.
        """
        if os.path.samestat(current, failed):
            self._try_roll_over()
        if self._is_torn:
            self._end_torn_line()

        self._position = UNKNOWN
        self.size += os.write(self.fd, b"\n")
        if not self._sync():
            raise OSError(errno.EIO, "fsync still fails")

    def _is_overdue(self) -> bool:
        """Return whether the segment is so old that the retention requires a rollover."""
        max_days = self._pruning.retention.rollover_age_days
        if max_days is None:
            return False

        if not self.size:
            # The write in progress adds the first event.
            self._first_event_at = self._clock()
        elif self._first_event_at is None:
            self._first_event_at = first_event_time(self.fd)

        # A first event far in the future counts as old, too: the clock was wrong when it was recorded, or is wrong now.
        age = abs(self._clock() - self._first_event_at)
        return age / DAY > max_days

    def _add_notice(self, operation: str, **metadata: Any) -> None:
        self._notices.add(operation, segment=os.path.basename(self.path), **metadata)

    def _report_replacement(self, previous: os.stat_result, **details: Any) -> None:
        """Add a notice with *details* that the *previous* file is no longer at the path, unless it was rolled over."""
        # Another process that rolls over renames the segment first, and then makes it read-only. So a rolled segment is
        # read-only (even if it has been deleted since), or else it is in the folder under its new name.
        if not previous.st_mode & 0o222:
            return
        if any(os.path.samestat(previous, status) for _, status in segments_at(self.path)):
            return
        self._add_notice("replaced", **details)

    def _try_roll_over(self) -> None:
        """Roll over. If that fails, keep the segment in use and try again later.

        The next attempt comes when the segment has grown by a tenth of its limit; because of its age, after
        `ROLLOVER_RETRY_SECONDS`.
        """
        # An empty segment is not rolled over, even if the next write alone exceeds the limit.
        if self.size == 0:
            return

        try:
            self.roll_over()
        except OSError as error:
            self.failed_rollovers += 1
            self.rollover_failure = describe_failure(error)
            self._rollover_retry_at = time.monotonic() + ROLLOVER_RETRY_SECONDS
            # A segment without a limit is rolled over by its age only.
            if self.max_bytes:
                self._rollover_bytes = self.size + max(1, self.max_bytes // 10)

    def roll_over(self) -> None:
        """Rename the active segment, make it read-only, and open the next one.

        Does nothing while another process holds a lock on the segment. If another process has rolled over already, only
        opens the file that is at the path now. Other processes may append to the renamed segment until they next check the
        path; it is part of the trail.

        Raises:
            OSError: The rollover failed. The segment stays in use.
        """
        self._restore_descriptor()
        if self.fd < 0:
            self._open_again()

        # The lock belongs to the descriptor. `open` closes the descriptor, which releases the lock.
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.postponed_rollovers += 1
            return

        try:
            if path_refers_to(self.path, self.fd):
                self._rename()
            self.open()
        except OSError:
            fcntl.flock(self.fd, fcntl.LOCK_UN)
            raise

    def _rename(self) -> None:
        """Give the open segment the name of a rolled one, and make it read-only.

        Raises:
            OSError: The segment can't be renamed.
        """
        folder, base = os.path.split(self.path)
        name = next_name(base, os.listdir(folder), self._clock())
        os.rename(self.path, os.path.join(folder, name))

        self._pruning.on_rollover()

        # If the next segment can't be opened now, this one stays in use, and the next write opens it when it checks the path.
        self.check_at = 0.0

        # Changing the mode fails if the file belongs to root and the process runs as another user.
        with contextlib.suppress(PermissionError):
            os.fchmod(self.fd, 0o400)

    def open(self) -> None:
        """Open the file at the path, and close the descriptor that was open before.

        Raises:
            OSError: The file can't be opened. The descriptor that was open before stays open.
        """
        # The folders in which an entry is new: those that got a folder, and the one that may get the file.
        folder = os.path.dirname(self.path)
        changed_folders = [*create_folders(folder), folder]

        fd, status = open_for_append(self.path)

        # If other code closed the previous descriptor, the new one may have got its number.
        if fd != self.fd:
            self.release()
        self.fd = fd
        self.size = status.st_size
        self._opened = status
        self._set_mark()
        if self._syncs:
            # A dictionary removes duplicates and keeps the order.
            self._unsynced_folders = list(dict.fromkeys([*self._unsynced_folders, *changed_folders]))

        self._first_event_at = None
        self._must_verify = True
        self._rollover_bytes = self.max_bytes or sys.maxsize

        torn = read_torn_line(fd) if status.st_size else b""
        self._is_torn = bool(torn)
        self._found_torn_line = None
        if torn:
            self._found_torn_line = {
                "offset": os.fstat(fd).st_size - len(torn),
                "bytes": len(torn),
                "sha256": hashlib.sha256(torn).hexdigest(),
            }

    def last_event_id(self) -> str | None:
        """Return the id of the last event of the trail; None without one, or while another process rolls over."""
        try:
            is_elsewhere = self.fd >= 0 and not path_refers_to(self.path, self.fd)
            return None if is_elsewhere else last_event_id(self.path)
        except OSError:
            # The name is additional evidence: the event that opens the trail is recorded without it.
            return None

    def release(self) -> None:
        """Close the descriptor, if it is still that of the file. The next write opens the file again."""
        fd, is_open = self.fd, self._is_still_open()
        self.fd = -1
        self.check_at = 0.0
        self._opened = None

        if is_open:
            try:
                os.close(fd)
            except OSError as error:
                # The descriptor is closed nevertheless. NFS reports here that it could not store all data.
                self._add_notice("close failed", error=describe_failure(error))

    def after_fork(self) -> None:
        """Close the inherited descriptor in a forked child, because it shares its file lock with the parent's.

        As root, open the file at once: the child may change to a user that may not open it later, as ``FileHandler`` allows.
        """
        was_open = self.fd >= 0

        # The parent shares the position, and may have moved it since the fork.
        self._position = UNKNOWN
        self.writing = False
        self.release()

        if was_open and os.geteuid() == 0:
            # If that fails, the first write tries again and reports the error.
            with contextlib.suppress(OSError):
                self.open()
                self._sync_folders()


def count_whole_entries(entries: Sequence[HasLine], written: int) -> int:
    """Return how many of *entries* are whole in the first *written* bytes of their joined lines."""
    for number, entry in enumerate(entries):
        written -= len(entry.line)
        if written < 0:
            return number
    return len(entries)
