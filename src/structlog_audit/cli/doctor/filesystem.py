"""Where a trail lies: its files, their folder, and the file system below."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import stat
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from structlog_audit.cli.doctor.findings import Finding
from structlog_audit.cli.options import Severity
from structlog_audit.trail.segment_names import order_of

_FLEETING = ("tmpfs", "ramfs")
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
_LEAST_FREE = 0.05
_LEAST_BYTES = 100_000_000

Said = tuple[str, Severity, str, str]


def of_places(path: str, logrotate: str = "/etc/logrotate.d") -> Iterator[Finding]:
    """What is to be found about the files of the trail at *path*, without reading them; also if there are none yet."""
    folder = Path(os.path.abspath(path)).parent
    while not folder.is_dir():
        folder = folder.parent
    base = os.path.basename(path)
    files = [folder / name for name in sorted(os.listdir(folder)) if order_of(base, name) is not None]
    for looks in (
        _of_files(files), _of_folder(folder, files), _of_file_system(folder), _of_disk(folder),
        _of_strangers(folder, base), _of_logrotate(os.path.abspath(path), logrotate),
    ):  # fmt: skip
        for code, severity, message, fix in looks:
            yield Finding(code, severity, path, message, fix)


def _of_files(files: list[Path]) -> Iterator[Said]:
    statuses = [(path, os.lstat(path)) for path in files]
    for path, status in statuses:
        if not stat.S_ISREG(status.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no regular file"
            message = f"{path.name} is {what}, and AuditFileHandler refuses it"
            fix = "move the trail itself"
            yield "no-file", Severity.ERROR, message, fix
    regular = [(path, status) for path, status in statuses if stat.S_ISREG(status.st_mode)]
    for bits, what in ((0o022, "be changed"), (0o044, "be read")):
        open_to = [path.name for path, status in regular if status.st_mode & bits]
        if open_to:
            message = f"{_some(open_to)} can {what} by others than its owner"
            yield "permissions", Severity.WARNING, message, "chmod 600; the library creates files so (PCI DSS 10.3.2)"
            break
    owners = {status.st_uid for _, status in regular}
    if len(owners) > 1:
        names = ", ".join(map(_user, sorted(owners)))
        message = f"its segments belong to different users: {names}; each is refused where the other writes"
        yield "owners", Severity.ERROR, message, "run every writer as one user, and chown the files to it"
    elif owners - {os.geteuid(), 0}:
        message = f"it belongs to {_user(owners.pop())}: only that user can append to it"
        yield "owner", Severity.NOTE, message, "run the doctor, and --record, as the user of the application"


def _some(names: list[str]) -> str:
    return names[-1] if len(names) == 1 else f"{names[-1]} (and {len(names) - 1} more)"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _of_folder(folder: Path, files: list[Path]) -> Iterator[Said]:
    status = folder.stat()
    if status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
        yield "folder", Severity.WARNING, f"anybody can rename and delete files in {folder}", f"chmod o-w {folder}"
    if not os.access(folder, os.W_OK | os.X_OK):
        ours = any(path.stat().st_uid == os.geteuid() for path in files if path.exists())
        severity = Severity.ERROR if ours or not files else Severity.NOTE
        message = f"this user may not write to {folder}: no rollover, no new file"
        fix = "let the writer write there"
        yield "folder", severity, message, fix


def mount_of(folder: Path, mountinfo: str = "/proc/self/mountinfo") -> tuple[str, str]:
    """The kind of the file system that *folder* is on, and where it is mounted; empty where the system does not say so.

    See proc(5): the mount point is the fifth field, the kind follows a dash.
    """
    try:
        lines = Path(mountinfo).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return "", ""
    found = ("", "")
    for line in lines:
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split()[4])
        if len(point) >= len(found[1]) and Path(os.path.realpath(folder)).is_relative_to(point):
            found = (after.split()[0], point)
    return found


def _of_file_system(folder: Path) -> Iterator[Said]:
    kind, point = mount_of(folder)
    if kind in _FLEETING:
        message = f"{point} is a {kind}: the trail is in memory, and gone after a restart"
        yield "fleeting", Severity.ERROR, message, "put it on a disk"
    elif kind in _REMOTE:
        message = (
            f"{point} is {kind}: there, hosts overwrite each other's appends, and a slow network slows the application"
        )
        yield "remote", Severity.WARNING, message, "write to a local disk, one trail per host, and ship it"
    elif kind in _OF_CONTAINERS:
        message = f"{point} is {kind}, as the inside of a container: the trail goes with the container"
        yield "container", Severity.WARNING, message, "mount a volume for it"


def _of_disk(folder: Path) -> Iterator[Said]:
    disk, system = shutil.disk_usage(folder), os.statvfs(folder)
    if disk.free < max(_LEAST_BYTES, disk.total * _LEAST_FREE):
        message = f"{disk.free // 1_000_000} MB are free, {disk.free / disk.total:.0%} of the disk"
        yield "disk", Severity.WARNING, message, "make room, or give the trail a bound: retention={'max_bytes': …}"
    if system.f_files and system.f_favail < 1_000:
        message = f"the file system has room for {system.f_favail} more files only"
        fix = "delete some"
        yield "inodes", Severity.WARNING, message, fix


def _of_strangers(folder: Path, base: str) -> Iterator[Said]:
    """Files beside the trail as logrotate and other handlers of the standard library leave them."""
    pattern = re.compile(rf"{re.escape(base)}[.-](\d{{1,8}}|\d{{4}}-\d\d-\d\d.*)(\.gz|\.bz2|\.xz|\.zst)?")
    strangers = sorted(name for name in os.listdir(folder) if pattern.fullmatch(name))
    if strangers:
        message = (
            f"{_some(strangers)} was rotated by something else, such as logrotate: its rollovers may have lost events"
        )
        yield "foreign-rotation", Severity.WARNING, message, "leave rotation to maxBytes of an AuditFileHandler"


def _of_logrotate(path: str, folder: str) -> Iterator[Said]:
    for config in sorted(Path(folder).glob("*")) if os.path.isdir(folder) else ():
        try:
            text = config.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for block in re.finditer(r"^\s*((?:[\"']?/[^\n{}]*)+)\{(.*?)^\s*\}", text, re.MULTILINE | re.DOTALL):
            if any(fnmatch(path, pattern.strip("\"'")) for pattern in block[1].split()):
                copies = "copytruncate" in block[2]
                what = (
                    "cuts it off after copying it: events in between are lost"
                    if copies
                    else "renames it under its writers"
                )
                severity = Severity.ERROR if copies else Severity.WARNING
                message = f"{config} rotates this file, and {what}"
                fix = "take it out there: maxBytes rolls over"
                yield "logrotate", severity, message, fix
