"""The file system beneath a trail: checks of its path, opening, listing, creating and syncing files and folders.

**Guarantees.** A trail is only ever written to a regular file of this user, of root, or of the owner of its folder, who could
replace the file anyway. On a mount that shows another owner for all files (CIFS, EFS, root squash), the owner of a new file
counts as this user. Symbolic links, folders and FIFOs are refused. New folders are accessible to their owner only.

**Failure handling.** The error for a path that this user may not write to names the user, the place, its owner and its mode.

**Concurrency.** Other processes append to the same files, rename them and delete them at any time. A file that vanishes is
not an error.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from structlog_audit._validation import require_local
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.trail.segment_names import rolled_segments

_APPEND_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Flags that open an active segment: never through a link, and without waiting for the other end of a FIFO."""

ACCESS_FIX = "change its owner, run as that user, or choose another path"
"""The advice about a place that this user may not write to."""

_TORN_LINE_ATTEMPTS = 3
_TORN_LINE_WAIT_SECONDS = 0.002
_MAX_TORN_BYTES = 1_048_576

_FIRST_TIMESTAMP = re.compile(rb'"timestamp":"([-0-9]{10}T[:0-9]{8})\.')
_FIRST_EVENT_BYTES = 4_096
_LAST_EVENT_BYTES = 131_072


class _IdentifiedLine(msgspec.Struct, gc=False):
    """The only member of a line that is decoded here."""

    event_id: str


_decode_id = msgspec.json.Decoder(_IdentifiedLine).decode


def is_file(path: str) -> bool:
    """Return whether *path* is a regular file, or a link to one.

    Unlike `os.path.isfile`, a path that this user may not check is not taken for a missing one.

    Raises:
        OSError: The system refuses to tell.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def require_trail_path(parameter: str, path: str | os.PathLike[str]) -> str:
    """Return *path* as text if a trail can be written there: a regular file, or nothing yet.

    Args:
        parameter: The name of the parameter, for the message of an error.
        path: Its value.

    Raises:
        AuditTypeError: *path* is not a path.
        AuditValueError: *path* is empty, a URL or contains a NUL, is not a regular file, or belongs to another user.
    """
    try:
        text = os.fsdecode(path)
    except TypeError:
        raise AuditTypeError(f"{parameter}={path!r}: expected the path of a file") from None
    if not text:
        raise AuditValueError(f"{parameter}={path!r}: expected the path of a file, got an empty path")
    require_local(parameter, text)

    try:
        status = os.lstat(text)
    except OSError:
        # The path does not exist, or opening it reports the error.
        return text
    except ValueError as error:
        # The path contains a NUL.
        raise AuditValueError(f"{parameter}={path!r}: expected the path of a file ({error})") from None

    if not stat.S_ISREG(status.st_mode):
        kind = _describe_kind(status.st_mode)
        raise AuditValueError(f"{parameter}={text!r}: expected the path of a regular file, got {kind}")
    if is_owned_by_another(text, status):
        raise AuditValueError(
            f"{parameter}={text!r}: expected a file of this user or root, "
            f"got one that belongs to user {describe_user(status.st_uid)}, who could change it; "
            f"this process runs as user {describe_user(os.geteuid())}"
        )
    return text


def _describe_kind(mode: int) -> str:
    """Return the kind of a file that is not a regular one, as text."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISLNK(mode):
        return "a symbolic link"
    return "a special file"


def open_for_append(path: str) -> tuple[int, os.stat_result]:
    """Open the file at *path* for appending, and create it if necessary.

    Returns:
        The descriptor and the status of the file.

    Raises:
        OSError: The file can't be opened, is not a regular file, or belongs to another user.
    """
    try:
        fd = os.open(path, _APPEND_FLAGS, 0o600)
    except PermissionError as error:
        raise _explained(error, path) from None

    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            message = "not a regular file: move it away, or configure another path"
            raise PermissionError(errno.EPERM, message, path)
        if is_owned_by_another(path, status):
            message = f"a file of user {describe_user(status.st_uid)}: move it away, or configure another path"
            raise PermissionError(errno.EPERM, message, path)
    except OSError:
        os.close(fd)
        raise
    return fd, status


def path_refers_to(path: str, fd: int) -> bool:
    """Return whether *path* refers to the open file *fd*, and not to another file or to none."""
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False
    except PermissionError:
        # The folder is no longer accessible. The descriptor still works, so keep it.
        return True


def segments_at(path: str) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield the existing segments of the trail at *path* with their status: rolled ones oldest first, then the active one.

    Raises:
        OSError: The folder can't be listed, or a segment can't be accessed. Missing files and folders are left out.
    """
    folder, base = os.path.split(path)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return

    for name in [*rolled_segments(base, names), base]:
        segment = Path(folder, name)
        try:
            status = segment.stat()
        except OSError as error:
            # Another process may have deleted the segment since the folder was listed.
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise
        else:
            yield segment, status


def create_folders(folder: str) -> list[str]:
    """Create *folder* and its missing parents, accessible to their owner only.

    Returns:
        The folders that got a new entry, for `sync_folder`.

    Raises:
        OSError: A folder can't be created.
    """
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)

    for path in reversed(missing):
        # Another process may create the same folder at the same time.
        with contextlib.suppress(FileExistsError):
            try:
                os.mkdir(path, 0o700)
            except PermissionError as error:
                raise _explained(error, path) from None

    return [os.path.dirname(path) for path in missing]


def writable_by_others(path: str) -> Iterator[tuple[str, int]]:
    """Yield the file at *path* and its folder, each with its mode, if other users can change or replace it."""
    for place in (path, os.path.dirname(path)):
        with contextlib.suppress(OSError):
            mode = os.stat(place).st_mode
            is_sticky_folder = stat.S_ISDIR(mode) and mode & stat.S_ISVTX
            if mode & 0o022 and not is_sticky_folder:
                yield place, stat.S_IMODE(mode)


def unwritable_places(path: str) -> Iterator[str]:
    """Yield a description of each place that this user may not write to: the file at *path*, and its folder.

    For a missing folder it is the one that has to get it.
    """
    folder = _deepest_visible(os.path.dirname(path))
    for place, access in ((path, os.W_OK), (folder, os.W_OK | os.X_OK)):
        with contextlib.suppress(FileNotFoundError, PermissionError):
            refusal = _refusal(place)
            if not os.access(place, access):
                yield refusal


def read_torn_line(fd: int) -> bytes:
    """Return the bytes after the last LF of the open file *fd*, at most the last MiB; empty if the file ends with an LF.

    Works on the descriptor and not on the path, where another process may have started the next segment already.
    """
    torn = b""
    for attempt in range(_TORN_LINE_ATTEMPTS):
        # Another process may be in the middle of a write: give it time to complete its line.
        if attempt:
            time.sleep(_TORN_LINE_WAIT_SECONDS)

        size = os.fstat(fd).st_size
        if not size or os.pread(fd, 1, size - 1) == b"\n":
            return b""

        tail = os.pread(fd, _MAX_TORN_BYTES, max(0, size - _MAX_TORN_BYTES))
        torn = tail.rpartition(b"\n")[2]
        if not torn:
            break

    return torn


def last_event_id(path: str) -> str | None:
    """Return the id of the last event of the trail at *path*, or None if the newest segment with a line has none near its end.

    Raises:
        OSError: The folder or the segment can't be read.
    """
    newest_first = reversed(list(segments_at(path)))
    for segment, status in newest_first:
        if status.st_size:
            with segment.open("rb") as file:
                file.seek(max(0, status.st_size - _LAST_EVENT_BYTES))
                return _last_id_in(file.read())
    return None


def _last_id_in(tail: bytes) -> str | None:
    """Return the id of the last whole line in *tail* that is an event."""
    for line in reversed(tail.split(b"\n")[:-1]):
        try:
            return _decode_id(line).event_id
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
    return None


def first_event_time(fd: int) -> dt.datetime:
    """Return the UTC time of the first event in the open file *fd*, in whole seconds.

    If its first 4 kB contain no timestamp, return the time at which the file was last modified.
    """
    match = _FIRST_TIMESTAMP.search(os.pread(fd, _FIRST_EVENT_BYTES, 0))
    if match is not None:
        with contextlib.suppress(ValueError):
            return dt.datetime.fromisoformat(match[1].decode()).replace(tzinfo=dt.UTC)

    return dt.datetime.fromtimestamp(os.fstat(fd).st_mtime, dt.UTC)


def is_owned_by_another(path: str, status: os.stat_result) -> bool:
    """Return whether the file at *path* with this *status* belongs to a user who should not be able to change a trail.

    This user and root may own it, and so may the owner of the folder, who can replace any file in it. So a process that
    starts as root and its workers, which change their user, share a trail in a folder of that user.
    """
    owner = status.st_uid
    if owner in (os.geteuid(), 0):
        return False

    folder = os.path.dirname(os.path.abspath(path))
    try:
        return owner not in (os.stat(folder).st_uid, _owner_of_new_file(folder))
    except OSError:
        return True


def _owner_of_new_file(folder: str) -> int:
    """Return the owner that the file system shows for a file that this process creates in *folder*.

    Raises:
        OSError: No file can be created there.
    """
    # Imported lazily: only needed for a file with another owner.
    import tempfile

    with tempfile.TemporaryFile(dir=folder) as file:
        return os.fstat(file.fileno()).st_uid


def describe_user(user_id: int) -> str:
    """Return a user as text: the id, and the name if there is one."""
    # Imported lazily: only needed in messages.
    import pwd

    try:
        return f"{user_id} ({pwd.getpwuid(user_id).pw_name})"
    except KeyError:
        return str(user_id)


def _explained(error: PermissionError, path: str) -> PermissionError:
    """Return *error* with a message that names this user, and the place that it may not write to."""
    place = _deepest_visible(path)
    return PermissionError(error.errno, f"{_refusal(place)}: {ACCESS_FIX}", path)


def _deepest_visible(path: str) -> str:
    """Return *path*, or else the folder that lacks it, or the one that this user can't search."""
    place = path
    while not os.path.lexists(place) and place != os.path.dirname(place):
        place = os.path.dirname(place)
    return place


def _refusal(place: str) -> str:
    status = os.stat(place, follow_symlinks=False)
    user, owner = describe_user(os.geteuid()), describe_user(status.st_uid)
    mode = stat.S_IMODE(status.st_mode)
    return f"user {user} may not write to {place}, which belongs to user {owner} and has mode {mode:04o}"


def is_mid_line(fd: int, offset: int) -> bool:
    """Return whether *offset* in the open file *fd* lies within a line: the byte before it is not an LF."""
    try:
        return offset > 0 and os.pread(fd, 1, offset - 1) != b"\n"
    except OSError:
        return False


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Sync the entries of *folder* to the disk, which an fsync of a file does not do. A missing folder is ignored.

    Raises:
        OSError: The folder can't be opened or synced.
    """
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return

    try:
        os.fsync(fd)
    finally:
        os.close(fd)
