"""The seal folder of a trail, ``NAME.seal``: its lock, and the files that a sealer writes.

**Guarantees.** One process at a time has the lock. ``segments`` and ``checkpoint`` are replaced as a whole. Stored hashes are
on the disk before the checkpoint that covers them, and those that no checkpoint covers are removed when the folder is read.

**Failure handling.** Each method raises the OSError of a system call. What is on the disk then is what a crash at that call
would leave, so the caller reads the folder again.

**Concurrency.** Verifiers read the folder at any time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress

from structlog_audit.integrity.merkle import HASH_BYTES
from structlog_audit.integrity.standalone.verify_trail import (
    KEY_CHANGES,
    HashFiles,
    Note,
    SealError,
    notes_in,
    open_file,
    read_checkpoint,
)
from structlog_audit.trail.writing.filesystem import path_refers_to, sync_folder

FOLDER_MODE = 0o700
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class SealFolder:
    """The seal folder of one trail.

    Args:
        trail: The path of the active segment.
    """

    def __init__(self, trail: str) -> None:
        self.path = f"{trail}.seal"
        self._fd = -1
        self._opened: os.stat_result | None = None
        self._mode = 0o600

    @property
    def is_locked(self) -> bool:
        """Whether this process has the lock, and the folder is still at its path."""
        return self._is_ours() and path_refers_to(self.path, self._fd)

    def lock(self) -> bool:
        """Take the lock without waiting, and create the folder if necessary; return whether this process has it.

        Raises:
            OSError: The folder cannot be created or opened.
        """
        if self.is_locked:
            return True
        self.release()

        try:
            fd = os.open(self.path, _FOLDER_FLAGS)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkdir(self.path, FOLDER_MODE)
            sync_folder(os.path.dirname(self.path))
            fd = os.open(self.path, _FOLDER_FLAGS)

        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except OSError:
            os.close(fd)
            raise

        self._fd = fd
        self._opened = os.fstat(fd)
        # A group that may read the folder may read its files.
        self._mode = stat.S_IMODE(self._opened.st_mode) & 0o644 | 0o600
        return True

    def release(self) -> None:
        """Give up the lock. A forked child calls this, too: the parent keeps its lock."""
        if self._is_ours():
            os.close(self._fd)
        self._fd = -1
        self._opened = None

    def discard_unfinished(self) -> None:
        """Remove the folder if it has no checkpoint, and no other process seals: what is in it counts for nothing."""
        if not os.path.isdir(self.path) or not self.lock():
            return
        try:
            names = os.listdir(self._fd)
            if "checkpoint" not in names:
                for name in names:
                    os.unlink(name, dir_fd=self._fd)
                os.rmdir(self.path)
        finally:
            self.release()

    def _is_ours(self) -> bool:
        """Return whether the number of the descriptor still refers to the folder that was opened."""
        if self._fd < 0 or self._opened is None:
            return False
        try:
            return os.path.samestat(os.fstat(self._fd), self._opened)
        except OSError:
            return False

    def read_checkpoint(self) -> Note | None:
        """Return the newest checkpoint, not verified; None if there is none.

        Raises:
            SealError: The file cannot be read, or is not a note.
        """
        try:
            return read_checkpoint(self.path)
        except SealError as error:
            if error.code == "NO_SEAL":
                return None
            raise

    def read_segments(self) -> bytes:
        """Return the file ``segments``; nothing if it cannot be read, because it is a hint."""
        try:
            with open_file(os.path.join(self.path, "segments")) as file:
                return file.read()
        except OSError:
            return b""

    def read_key_changes(self, origin: str) -> list[Note]:
        """Return the statements about keys that are not in the trail yet, not verified.

        Raises:
            SealError: The file cannot be read.
        """
        path = os.path.join(self.path, KEY_CHANGES)
        if not os.path.exists(path):
            return []
        return [Note.parse(text.encode()) for text in notes_in(path, origin)]

    def write_key_changes(self, changes: Sequence[Note]) -> None:
        """Keep the statements about keys that are not in the trail yet; remove the file if there are none."""
        if changes:
            self.replace(KEY_CHANGES, "".join(map(str, changes)).encode())
        else:
            with suppress(FileNotFoundError):
                os.unlink(KEY_CHANGES, dir_fd=self._fd)

        self.sync()

    def hashes(self) -> HashFiles:
        """Return a reader of the stored hashes."""
        return HashFiles(self.path)

    def cut_hashes(self, size: int) -> None:
        """Remove the stored hashes that a tree of *size* leaves does not have."""
        for name in os.listdir(self._fd):
            base, _, level = name.partition(".")
            if base == "hashes" and level.isdecimal():
                covered = (size >> 8 * int(level)) * HASH_BYTES
                fd = self._open(name)
                try:
                    if os.fstat(fd).st_size > covered:
                        os.ftruncate(fd, covered)
                finally:
                    os.close(fd)

    def add_hashes(self, added: Mapping[int, bytes], size: int) -> None:
        """Append stored hashes, and sync them.

        Args:
            added: The hashes of each level, back to back.
            size: The number of leaves of the tree that has them.
        """
        for level, hashes in added.items():
            name = f"hashes.{level}"
            end = (size >> 8 * level) * HASH_BYTES
            begin = end - len(hashes)

            fd = self._open(name)
            try:
                _write_at(fd, hashes, begin)
                os.fsync(fd)
            finally:
                os.close(fd)

            # The name of a new file has to be on the disk before a checkpoint that needs it.
            if begin == 0:
                os.fsync(self._fd)

    def replace(self, name: str, data: bytes) -> None:
        """Replace the file *name* by one with *data*, which is on the disk before it gets the name."""
        beside = f"{name}.new"
        fd = self._open(beside, os.O_TRUNC)
        try:
            _write_at(fd, data, 0)
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(beside, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def _open(self, name: str, flags: int = 0) -> int:
        """Open the file *name* for writing, and create it if necessary: a pipe in its place would block."""
        fd = os.open(name, _FILE_FLAGS | flags, self._mode, dir_fd=self._fd)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "it is not a regular file", name)
        return fd

    def sync(self) -> None:
        """Sync the names of the files."""
        os.fsync(self._fd)


def _write_at(fd: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        count = os.pwrite(fd, data[written:], offset + written)
        if not count:
            raise OSError(errno.EIO, "nothing was written")
        written += count
