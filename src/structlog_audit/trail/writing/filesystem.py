"""What lies at a path, before and while a trail lies there."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.trail.segment_names import rolled

FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""How an active segment is opened: through no link, and without waiting for the other end of a FIFO."""

_LOOKS = 3
_LONGEST_TAIL = 1_048_576


def checked_path(parameter: str, path: str | os.PathLike[str]) -> str:
    """*path* as text, if a trail may lie there: there is nothing yet, or a regular file.

    Raises:
        AuditTypeError: Not a path.
        AuditValueError: A folder, a symbolic link, another thing that is no regular file, or somebody else's file; or no
            path at all.
    """
    try:
        text = os.fsdecode(path)
        if not text:
            raise AuditValueError(f"{parameter}={path!r} is empty: give the path of a file")
        status = os.lstat(text)
    except TypeError:
        raise AuditTypeError(f"{parameter}={path!r}: give the path of a file") from None
    except OSError:
        return text
    except ValueError as error:  # a NUL in it
        raise AuditValueError(f"{parameter}={path!r} is no path ({error}): give the path of a file") from None
    mode = status.st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
        raise AuditValueError(f"{parameter}={text!r} is {what}: give the path of a file of its own")
    if is_anothers(status):
        raise AuditValueError(
            f"{parameter}={text!r} belongs to user {status.st_uid}, who could change it: give another path"
        )
    return text


def opened(path: str) -> tuple[int, os.stat_result]:
    """A descriptor of the file at *path*, which is made if there is none, and its status.

    Raises:
        OSError: It can't be opened, or is no regular file, or somebody else's.
    """
    fd = os.open(path, FLAGS, 0o600)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or is_anothers(status):
            advice = "not a regular file of ours: move it away, or give the trail another path"
            raise PermissionError(errno.EPERM, advice, path)
    except OSError:
        os.close(fd)
        raise
    return fd, status


def is_at(path: str, fd: int) -> bool:
    """Whether *path* leads to the open file *fd*."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False
    except PermissionError:  # the folder was closed to us; the descriptor is as good as before
        return True


def segments_at(path: str) -> Iterator[tuple[Path, os.stat_result]]:
    """The segments of the trail at *path* that exist, in order, each with its status: rolled ones first, the active one last.

    Other processes delete segments: one that vanishes in this moment is left out.
    """
    folder, base = os.path.split(path)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in [*rolled(base, names), base]:
        place = Path(folder, name)
        try:
            status = place.stat()
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
        else:
            yield place, status


def make_folders(folder: str) -> list[str]:
    """Make *folder* and what is missing above it, for their owner only; those folders that got a new name in them."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for made in reversed(missing):
        with contextlib.suppress(FileExistsError):  # another process was faster
            os.mkdir(made, 0o700)
    return [os.path.dirname(made) for made in missing]


def open_to_others(path: str) -> Iterator[tuple[str, int]]:
    """The file at *path* and its folder, as far as somebody else could change or replace them, each with its mode."""
    for place in (path, os.path.dirname(path)):
        with contextlib.suppress(OSError):
            mode = os.stat(place).st_mode
            if mode & 0o022 and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX):
                yield place, stat.S_IMODE(mode)


def torn_tail(fd: int) -> bytes:
    """What stands behind the last LF of the open file *fd*, at most the last MiB: a torn line, if there is anything.

    Another writer's line can be seen half written; then a second look finds it whole. Not by its path:
    there another process may have begun the next segment already.
    """
    tail = b""
    for attempt in range(_LOOKS):
        if attempt:
            time.sleep(0.002)
        size = os.fstat(fd).st_size
        if not size or os.pread(fd, 1, size - 1) == b"\n":
            return b""
        tail = os.pread(fd, _LONGEST_TAIL, max(0, size - _LONGEST_TAIL)).rpartition(b"\n")[2]
        if not tail:
            break
    return tail


def begun_at(fd: int) -> dt.datetime:
    """When the first event in the open file *fd* was recorded; if there is none in its first 4 kB, when it last changed."""
    found = re.search(rb'"timestamp":"([-0-9]{10}T[:0-9]{8})\.', os.pread(fd, 4_096, 0))
    if found is not None:
        with contextlib.suppress(ValueError):
            return dt.datetime.fromisoformat(found[1].decode()).replace(tzinfo=dt.UTC)
    return dt.datetime.fromtimestamp(os.fstat(fd).st_mtime, dt.UTC)


def is_anothers(status: os.stat_result) -> bool:
    """Whether the file with this *status* belongs to somebody who is neither us nor root, and could change it under us."""
    return status.st_uid not in (os.geteuid(), 0)


class HasLine(Protocol):
    """What is written: a line, or the lines of one event."""

    @property
    def line(self) -> bytes: ...


def whole_lines(entries: Sequence[HasLine], written: int) -> int:
    """Of how many of *entries* the lines are whole in the first *written* bytes of all of them."""
    for number, entry in enumerate(entries):
        written -= len(entry.line)
        if written < 0:
            return number
    return len(entries)


def is_glued(fd: int, start: int) -> bool:
    """Whether what was written to *fd* at *start* went on in a line that somebody else left torn."""
    try:
        return start > 0 and os.pread(fd, 1, start - 1) != b"\n"
    except OSError:
        return False


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Have the disk hold the names in *folder*, if it is still there: an fsync of a file does not."""
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
