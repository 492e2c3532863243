"""What lies at a path, before and while a trail lies there."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence

from structlog_audit.exceptions import AuditTypeError, AuditValueError

_LOOKS = 3
_LONGEST_TAIL = 1_048_576


def checked_path(parameter: str, path: str | os.PathLike[str]) -> str:
    """*path* as text, if a trail may lie there: there is nothing yet, or a regular file.

    Raises:
        AuditTypeError: Not a path.
        AuditValueError: A folder, a symbolic link, another thing that is no regular file, or somebody else's file.
    """
    try:
        text = os.fsdecode(path)
        status = os.lstat(text)
    except TypeError:
        raise AuditTypeError(f"{parameter}={path!r}: give the path of a file") from None
    except OSError:
        return text
    mode = status.st_mode
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a symbolic link" if stat.S_ISLNK(mode) else "no regular file"
        raise AuditValueError(f"{parameter}={text!r} is {what}: give the path of a file of its own")
    if is_anothers(status):
        raise AuditValueError(
            f"{parameter}={text!r} belongs to user {status.st_uid}, who could change it: give another path"
        )
    return text


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


def is_anothers(status: os.stat_result) -> bool:
    """Whether the file with this *status* belongs to somebody who is neither us nor root, and could change it under us."""
    return status.st_uid not in (os.geteuid(), 0)


class ShortWrite(Exception):  # noqa: N818 (an answer more than an error)
    """Only *written* bytes could be written; ``__cause__`` says why."""

    def __init__(self, written: int) -> None:
        super().__init__(f"only {written} bytes could be written")
        self.written = written


def whole_lines(lines: Sequence[bytes], written: int) -> int:
    """How many of *lines* are whole in the first *written* bytes of all of them."""
    for number, line in enumerate(lines):
        written -= len(line)
        if written < 0:
            return number
    return len(lines)


def is_glued(fd: int, start: int) -> bool:
    """Whether what was written to *fd* at *start* went on in a line that somebody else left torn."""
    try:
        return start > 0 and os.pread(fd, 1, start - 1) != b"\n"
    except OSError:
        return False


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Have the disk hold the names in *folder*: an fsync of a file does not."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
