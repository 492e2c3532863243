"""Checks of the place of a trail: its files, their folder, the file system, and programs that rotate files."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from structlog_audit.cli.choices import Severity
from structlog_audit.cli.doctor.diagnosis import Diagnosis, RatedFinding, error, located, note, warning
from structlog_audit.recording.health_checks import Finding
from structlog_audit.trail.segment_names import order_of

_IN_MEMORY = ("tmpfs", "ramfs")
_OF_CONTAINERS = ("overlay", "aufs")
_REMOTE = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "fuse.sshfs",
    "fuse.s3fs",
    "fuse.gcsfuse",
    "fuse.glusterfs",
)
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_CHECKSUM_FLAG = 0x04
_MIN_FREE_SHARE = 0.05
_MIN_FREE_BYTES = 100_000_000
_MIN_FREE_INODES = 1_000

_LOGROTATE_BLOCK = re.compile(r"^\s*((?:[\"']?/[^\n{}]*)+)\{(.*?)^\s*\}", re.MULTILINE | re.DOTALL)
"""A block of a logrotate configuration: its file patterns, and its directives."""


def check_filesystem(path: str, logrotate: str = "/etc/logrotate.d") -> Iterator[Diagnosis]:
    """Yield diagnoses of the place of a trail, without reading its events.

    Args:
        path: The active segment, which need not exist.
        logrotate: The folder with the configuration of logrotate.
    """
    folder = _existing_folder(path)
    base = os.path.basename(path)
    segments = [folder / name for name in sorted(os.listdir(folder)) if order_of(base, name) is not None]
    statuses = {segment: os.lstat(segment) for segment in segments}

    checks = (
        _check_file_types(statuses),
        _check_permissions(statuses),
        _check_owners(statuses),
        _check_folder_mode(folder),
        _check_folder_access(folder, segments),
        _check_file_system_type(folder),
        _check_free_space(folder),
        _check_foreign_rotation(folder, base),
        _check_checksums([path for path, status in statuses.items() if stat.S_ISREG(status.st_mode)]),
        _check_logrotate(os.path.abspath(path), logrotate),
    )
    for check in checks:
        yield from located(path, check)


def check_vault(path: str) -> Iterator[RatedFinding]:
    """Yield findings about the access of other users to a vault: to its files, and to the folder, where they could replace it.

    Args:
        path: The file, which need not exist.
    """
    for name in (path, f"{path}-wal", f"{path}-shm"):
        try:
            mode = stat.S_IMODE(os.stat(name).st_mode)
        except OSError:
            continue
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            message = f"the vault file {name} has mode {mode:04o}: other users can reach the keys of persons in it"
            yield error("vault-permissions", message, f"chmod 600 {name}")

    folder = _existing_folder(path)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and not mode & stat.S_ISVTX:
        message = f"users other than the owner can replace files in the folder of the vault, {folder} (mode {mode:04o})"
        yield warning("vault-permissions", message, "give the vault a folder of its own: chmod 700")


def mount_of(folder: Path, mountinfo: str = "/proc/self/mountinfo") -> tuple[str, str]:
    """Return the type and the mount point of the file system of *folder*; empty strings if unknown.

    The fifth field of a line is the mount point; the type follows the separator " - " (proc(5)).
    """
    try:
        lines = Path(mountinfo).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        # Not Linux.
        return "", ""

    resolved = Path(os.path.realpath(folder))
    kind, mount_point = "", ""
    for line in lines:
        before, _, after = line.partition(" - ")
        candidate = _unescaped(before.split()[4])

        # The longest mount point wins; among equal ones the last, which covers those before it.
        if len(candidate) >= len(mount_point) and resolved.is_relative_to(candidate):
            kind, mount_point = after.split()[0], candidate

    return kind, mount_point


def _unescaped(field: str) -> str:
    """Return a field of mountinfo with its octal escapes replaced."""
    return re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), field)


def _existing_folder(path: str) -> Path:
    """Return the nearest existing folder above *path*."""
    folder = Path(os.path.abspath(path)).parent
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _check_file_types(statuses: dict[Path, os.stat_result]) -> Iterator[RatedFinding]:
    for path, status in statuses.items():
        if stat.S_ISREG(status.st_mode):
            continue

        is_link = stat.S_ISLNK(status.st_mode)
        kind = "a symbolic link" if is_link else "not a regular file"
        message = f"{path.name} is {kind}, and AuditFileHandler refuses to write to it"
        yield error("no-file", message, "use the path of a regular file")


def _check_permissions(statuses: dict[Path, os.stat_result]) -> Iterator[RatedFinding]:
    for bits, access in ((0o022, "be changed"), (0o044, "be read")):
        exposed = []
        for path, status in statuses.items():
            if stat.S_ISREG(status.st_mode) and status.st_mode & bits:
                exposed.append(path.name)

        # Write access is the worse of the two, and has the same fix.
        if exposed:
            message = f"{_abbreviated(exposed)} can {access} by users other than the owner"
            yield warning(
                "permissions", message, "chmod 600, the mode of files created by the library (PCI DSS 10.3.2)"
            )
            return


def _check_owners(statuses: dict[Path, os.stat_result]) -> Iterator[RatedFinding]:
    regular = [status for status in statuses.values() if stat.S_ISREG(status.st_mode)]
    owners = {status.st_uid for status in regular}

    if len(owners) > 1:
        names = [_user_name(uid) for uid in sorted(owners)]
        message = f"the segments belong to different users ({', '.join(names)}), who cannot write to each other's files"
        yield error("owners", message, "run all writers as one user, and chown the files to that user")
        return

    # Root can append to every file.
    for other_user in owners - {os.geteuid(), 0}:
        message = f"the trail belongs to {_user_name(other_user)}, and no other user can append to it"
        yield note("owner", message, "run the doctor, and commands with --record, as the user of the application")


def _abbreviated(names: Sequence[str]) -> str:
    """Return the last of *names*, and the number of the others."""
    *others, last = names
    return f"{last} (and {len(others)} more)" if others else last


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _check_folder_mode(folder: Path) -> Iterator[RatedFinding]:
    mode = folder.stat().st_mode

    # With the sticky bit, as for /tmp, only the owner of a file can rename or delete it.
    is_sticky = mode & stat.S_ISVTX
    if mode & stat.S_IWOTH and not is_sticky:
        yield warning("folder", f"any user can rename and delete files in {folder}", f"chmod o-w {folder}")


def _check_folder_access(folder: Path, segments: Sequence[Path]) -> Iterator[RatedFinding]:
    if os.access(folder, os.W_OK | os.X_OK):
        return

    # A trail of another user is a note only: the application probably runs as that user.
    this_user = os.geteuid()
    is_own = any(path.stat().st_uid == this_user for path in segments if path.exists())
    severity = Severity.ERROR if is_own or not segments else Severity.NOTE

    message = f"this user cannot write to {folder}: rollovers and new files fail"
    yield severity, Finding("folder", message, "give the user of the application write permission")


def _check_file_system_type(folder: Path) -> Iterator[RatedFinding]:
    kind, mount_point = mount_of(folder)

    if kind in _IN_MEMORY:
        message = f"{mount_point} is a {kind}: the trail is in memory and lost at a restart"
        yield error("fleeting", message, "use a file system on a disk")
    elif kind in _REMOTE:
        message = (
            f"{mount_point} is {kind}: hosts overwrite each other's appends, and the network delays the application"
        )
        yield warning("remote", message, "write to a local disk, one trail per host, and ship it")
    elif kind in _OF_CONTAINERS:
        message = f"{mount_point} is {kind}, as in a container: the trail is deleted with the container"
        yield warning("container", message, "mount a volume for the trail")


def _check_free_space(folder: Path) -> Iterator[RatedFinding]:
    disk = shutil.disk_usage(folder)
    if disk.free < max(_MIN_FREE_BYTES, disk.total * _MIN_FREE_SHARE):
        share = disk.free / disk.total
        message = f"only {disk.free // 1_000_000} MB are free, {share:.0%} of the disk"
        yield warning("disk", message, "free some space, or limit the size of the trail: retention={'max_bytes': …}")

    # Some file systems have no fixed number of inodes and report 0.
    system = os.statvfs(folder)
    if system.f_files and system.f_favail < _MIN_FREE_INODES:
        message = f"the file system has room for only {system.f_favail} more files"
        yield warning("inodes", message, "delete files that are not needed")


def _check_foreign_rotation(folder: Path, base: str) -> Iterator[RatedFinding]:
    # File names of logrotate, also with `extension`, and of the rotating handlers of the standard library.
    stem, extension = map(re.escape, os.path.splitext(base))
    rotation = r"[.-](\d{1,8}|\d{10}|\d{4}-\d\d-\d\d.*)"
    packed = r"(\.gz|\.bz2|\.xz|\.zst|\.Z|\.lz4)?"
    rotated = re.compile(f"{stem}({extension}{rotation}|{rotation}{extension}){packed}")
    names = [name for name in sorted(os.listdir(folder)) if rotated.fullmatch(name)]

    if names:
        message = f"{_abbreviated(names)} was rotated by another program, such as logrotate: events may have been lost"
        yield warning("foreign-rotation", message, "leave rotation to AuditFileHandler (maxBytes)")

    unread = [name for name in names if order_of(base, name) is None]
    if unread:
        message = f"{_abbreviated(unread)} is not read with this trail"
        yield warning("not-read", message, f"decompress it, and rename it to {base}.1 or the like")


def _check_checksums(segments: Sequence[Path]) -> Iterator[RatedFinding]:
    unprotected = [path.name for path in segments if _is_zstd_without_checksum(path)]
    if unprotected:
        message = f"{_abbreviated(unprotected)} has no checksum: damage can change events without being noticed"
        fix = "compress with the command zstd, or with options={CompressionParameter.checksum_flag: 1}"
        yield note("no-checksum", message, fix)


def _is_zstd_without_checksum(path: Path) -> bool:
    """Return whether *path* begins with a zstd frame whose descriptor states no checksum (RFC 8878, section 3.1.1.1.1)."""
    try:
        with path.open("rb") as file:
            head = file.read(len(_ZSTD_MAGIC) + 1)
    except OSError:
        return False
    return head.startswith(_ZSTD_MAGIC) and len(head) > len(_ZSTD_MAGIC) and not head[-1] & _ZSTD_CHECKSUM_FLAG


def _check_logrotate(path: str, folder: str) -> Iterator[RatedFinding]:
    for config in _files_in(folder):
        try:
            text = config.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue

        for block in _LOGROTATE_BLOCK.finditer(text):
            patterns = [pattern.strip("\"'") for pattern in block[1].split()]
            if any(fnmatch(path, pattern) for pattern in patterns):
                yield _logrotate_finding(config, is_copied="copytruncate" in block[2])


def _logrotate_finding(config: Path, *, is_copied: bool) -> RatedFinding:
    fix = "remove the rule: AuditFileHandler rolls over at maxBytes"
    if is_copied:
        message = f"{config} copies this file and then truncates it: events written in between are lost"
        return error("logrotate", message, fix)

    return warning("logrotate", f"{config} renames this file while it is in use", fix)


def _files_in(folder: str) -> list[Path]:
    return sorted(Path(folder).glob("*")) if os.path.isdir(folder) else []
