"""`restore` and `verify`: the segments that an archive came from, byte by byte, and their seals."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from structlog_audit._validation import require_local, require_path
from structlog_audit.archive.actions import Coverage, DataFile, SealCopy
from structlog_audit.archive.database import Database, file_digest
from structlog_audit.archive.delta_log import LOG_FOLDER, DeltaLog, Snapshot
from structlog_audit.archive.opening import is_archive, opened_log
from structlog_audit.archive.seal_copies import CHECKPOINT, SEGMENTS, has_root, head_of, read_copy, write_seal
from structlog_audit.archive.sealed_trail import ArchivedTrail, SealedTrail, opened_trail, sealed_trails
from structlog_audit.archive.segment_content import is_cut, segment_bytes
from structlog_audit.archive.storage import UNFINISHED_SUFFIX, require_folder
from structlog_audit.exceptions import AuditReadError, AuditValueError, AuditWriteError
from structlog_audit.export import made_folder
from structlog_audit.integrity.errors import raising
from structlog_audit.integrity.seal_folder import FOLDER_MODE
from structlog_audit.integrity.standalone.verify_trail import (
    Checkpoint,
    HashFiles,
    Note,
    SealError,
    notes_in,
    range_root,
    read_checkpoint,
)
from structlog_audit.trail.segment_names import base_of, rollover_time
from structlog_audit.trail.writing.filesystem import sync_folder

_COPIED_BYTES = 1_048_576


class Finding(NamedTuple):
    """Something that is wrong with an archive.

    Attributes:
        code: ``missing`` (a file is not there), ``damaged`` (rows do not give the bytes of the segment),
            ``unreadable`` (this user may not read a file).
        path: The file, or the segment.
        reason: The details.
    """

    code: str
    path: str
    reason: str


class Verified(msgspec.Struct, frozen=True):
    """The result of `verify`.

    Attributes:
        segments: The number of segments whose bytes have the recorded digests.
        events: The number of events in them.
        pruned: The number of segments that were not checked because some of their days were pruned.
        findings: The faults.
    """

    segments: int
    events: int
    pruned: int
    findings: tuple[Finding, ...]


class Restored(msgspec.Struct, frozen=True):
    """The result of `restore`.

    Attributes:
        files: The segments that were written.
        bytes_written: Their bytes.
        pruned: The names of segments of which days were pruned.
        seals: The seal folders that were written.
        unsealed: The sealed trails, ``host:path``, of which no checkpoint covers restored lines only.
    """

    files: tuple[str, ...]
    bytes_written: int
    pruned: tuple[str, ...]
    seals: tuple[str, ...]
    unsealed: tuple[str, ...]


def restore(
    archive: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    storage_options: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Restored:
    """Write the segments that an archive holds to the folder *to*, under their own names and decompressed.

    If the archive has several trails, each gets a folder of its own. A file appears when it is complete and has the digest that
    was recorded when it was archived. A sealed trail gets its seal, with the newest checkpoint that covers archived lines
    only; an existing seal folder stays as it is.

    Args:
        archive: The archive.
        to: The folder. It is created if necessary.
        storage_options: Parameters of fsspec's file system, for a URL.
        progress: Called with the number of bytes written so far.

    Raises:
        AuditReadError: The archive cannot be read, or does not give the bytes of a segment.
        AuditWriteError: *to* is a file, or a file exists already with other bytes.
        AuditValueError: *to* is empty, a URL or an archive.
        OSError: The system could not write a file.
    """
    folder_of_all = require_local("to", require_path("to", to, "the path of a folder"))
    require_folder(folder_of_all)
    if is_archive(folder_of_all):
        raise AuditValueError(f"to={folder_of_all!r}: expected a folder for segments, got that of an archive")

    files = []
    pruned = []
    written = 0

    with opened_log(archive, storage_options) as (log, database):
        snapshot = log.snapshot
        targets = _targets(snapshot, folder_of_all)

        for key, target in targets.items():
            ranges = snapshot.segments[key]
            if is_cut(log, database, ranges):
                pruned.append(ranges[0].name)
                continue

            with made_folder(Path(target).parent), _naming(target):
                written += _restore_segment(log, database, ranges, target)
            files.append(target)
            if progress is not None:
                progress(written)

        written_paths = frozenset(files)
        seals: list[str] = []
        unsealed: list[str] = []

        for sealed in sealed_trails(log):
            paths = [targets[key] for key, ranges in snapshot.segments.items() if ranges[0].trail == sealed.copy.trail]
            present = [path for path in paths if path in written_paths]
            folder = _seal_folder(sealed, paths)
            if not present or os.path.exists(folder):
                continue

            is_alone = len(sealed.trails) == 1
            if is_alone and _restore_seal(log, database, sealed, present, folder):
                seals.append(folder)
            else:
                unsealed.append(sealed.copy.trail)

    return Restored(tuple(files), written, tuple(pruned), tuple(seals), tuple(unsealed))


def verify(
    archive: str | os.PathLike[str],
    *,
    storage_options: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Verified:
    """Check that an archive still gives back the bytes of every segment, and that no file is missing or changed.

    The digests are those in the log of the archive. Who can change the log is found by the seals only: verify those as well.

    Args:
        archive: The archive.
        storage_options: Parameters of fsspec's file system, for a URL.
        progress: Called with the number of bytes of segments checked so far.

    Raises:
        AuditReadError: The log of the archive cannot be read.
    """
    findings: list[Finding] = []
    segments = events = pruned = checked = 0

    with opened_log(archive, storage_options) as (log, database):
        snapshot = log.snapshot

        findings += _check_commits(log, database)

        for file in snapshot.files.values():
            findings += _check_file(log, file)

        for copy in snapshot.seals.values():
            findings += _check_seal(log, copy)

        for ranges in snapshot.segments.values():
            if _is_surely_cut(log, database, ranges):
                pruned += 1
                continue

            found = [finding for coverage in ranges for finding in _check(log, database, coverage)]
            findings += found
            if not found:
                segments += 1
                events += sum(coverage.stop_number - coverage.first for coverage in ranges)

            checked += ranges[-1].stop
            if progress is not None:
                progress(checked)

    return Verified(segments, events, pruned, tuple(findings))


def _is_surely_cut(log: DeltaLog, database: Database, ranges: list[Coverage]) -> bool:
    """Return `is_cut`, or False if that cannot be read, so that the reason becomes a finding."""
    try:
        return is_cut(log, database, ranges)
    except (AuditReadError, OSError):
        return False


def _code_of(error: Exception) -> str:
    is_refused = isinstance(error, PermissionError) or isinstance(error.__cause__, PermissionError)

    return "unreadable" if is_refused else "damaged"


def _check_commits(log: DeltaLog, database: Database) -> Iterator[Finding]:
    """Yield the fault of the first commit that is lost or changed, also if a checkpoint folds it."""
    try:
        version = DeltaLog(log.storage, database.connect).update(is_folded=False).version
    except AuditReadError as error:
        yield Finding("damaged", LOG_FOLDER, str(error))
        return

    if version < log.snapshot.version:
        yield Finding("missing", LOG_FOLDER, f"the commit {version + 1}")


def _check_file(log: DeltaLog, file: DataFile) -> Iterator[Finding]:
    """Yield the faults of a data file, the columns included that no segment needs."""
    try:
        with log.storage.open(file.path) as opened:
            digest = file_digest(opened)
    except FileNotFoundError:
        yield Finding("missing", file.path, "a data file")
        return
    except (AuditReadError, OSError) as error:
        yield Finding(_code_of(error), file.path, str(error))
        return

    if digest != file.sha256:
        yield Finding("damaged", file.path, "the file has another digest")


def _check_seal(log: DeltaLog, copy: SealCopy) -> Iterator[Finding]:
    """Yield the faults of the copy of a seal: its list, and the stored hashes."""
    try:
        copied = read_copy(log.storage, copy)
        with tempfile.TemporaryDirectory(prefix="structlog-audit-") as folder:
            write_seal(log.storage, copied, folder, size=copy.size, is_strict=True)
            is_damaged = not has_root(folder, head_of(copied.files[CHECKPOINT]))
    except (AuditReadError, OSError) as error:
        is_missing = isinstance(error.__cause__, FileNotFoundError)
        yield Finding("missing" if is_missing else _code_of(error), copy.path, str(error))
        return

    if is_damaged:
        yield Finding("damaged", copy.path, "the stored hashes of a seal do not give its root")


def _check(log: DeltaLog, database: Database, coverage: Coverage) -> Iterator[Finding]:
    """Yield the faults of the rows of *coverage*."""
    where = f"{coverage.trail} {coverage.name}"
    digest = hashlib.sha256()

    try:
        for data in segment_bytes(log, database, coverage):
            digest.update(data)
    except (AuditReadError, OSError) as error:
        yield Finding(_code_of(error), where, str(error))
        return

    if digest.hexdigest() != coverage.sha256:
        yield Finding("damaged", where, f"bytes {coverage.start} to {coverage.stop} have another digest")


def _targets(snapshot: Snapshot, folder: str) -> Mapping[str, str]:
    """Return the path of the file of each segment, by its key.

    Raises:
        AuditReadError: The log has a name that leads out of *folder*.
    """
    trails = {ranges[0].trail for ranges in snapshot.segments.values()}
    targets: dict[str, str] = {}
    used: set[str] = set()

    for key, ranges in snapshot.segments.items():
        place = os.path.join(folder, quote(ranges[0].trail, safe="")) if len(trails) > 1 else folder
        name = ranges[0].name
        if os.path.basename(name) != name or name in ("", ".", ".."):
            raise AuditReadError(
                f"{name!r}: expected the name of a segment in the log of the archive, got another path"
            )

        base = base_of(name)
        path = os.path.join(place, name)
        if rollover_time(base, name) is None or path in used:
            # Numbered files change their names: the time of the last event names the segment for good.
            path = _free_path(place, base, ranges[-1].high or 0, used)

        used.add(path)
        targets[key] = path

    return targets


def _free_path(folder: str, base: str, us: int, used: set[str]) -> str:
    time = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=us)
    while True:
        path = os.path.join(folder, f"{base}.{time.strftime('%Y%m%dT%H%M%S.%fZ')}")
        if path not in used:
            return path

        time += dt.timedelta(microseconds=1)


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """Name *path* in an error of the ``with`` block that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


def _restore_segment(log: DeltaLog, database: Database, ranges: list[Coverage], target: str) -> int:
    """Write one segment, and return its size."""
    unfinished = target + UNFINISHED_SUFFIX
    size = 0

    try:
        with open(unfinished, "wb", opener=_open_private) as file:
            for coverage in ranges:
                digest = hashlib.sha256()

                for data in segment_bytes(log, database, coverage):
                    digest.update(data)
                    size += file.write(data)

                if digest.hexdigest() != coverage.sha256:
                    raise AuditReadError(
                        f"{log.storage.root}: bytes {coverage.start} to {coverage.stop} of {coverage.name} are damaged; "
                        "structlog-audit archive verify shows all damage"
                    )

            file.flush()
            os.fsync(file.fileno())

        if not os.path.exists(target):
            os.rename(unfinished, target)
            place = os.path.dirname(os.path.abspath(target))
            sync_folder(place)
            sync_folder(os.path.dirname(place))
        elif not _are_equal(unfinished, target):
            raise AuditWriteError(f"{target!r} exists with other bytes: restore to an empty folder")
    finally:
        if os.path.exists(unfinished):
            os.unlink(unfinished)

    return size


def _open_private(path: str, flags: int) -> int:
    """Open a file that is new, for its owner only, as the files of a trail are."""
    return os.open(path, flags, 0o600)


def _are_equal(path: str, other: str) -> bool:
    with open(path, "rb") as first, open(other, "rb") as second:
        while True:
            data = first.read(_COPIED_BYTES)
            if data != second.read(_COPIED_BYTES):
                return False

            if not data:
                return True


def _seal_folder(sealed: SealedTrail, paths: Sequence[str]) -> str:
    """Return the seal folder of the trail with a segment at the first of *paths*."""
    folder = os.path.dirname(paths[0]) if paths else ""
    name = os.path.basename(sealed.copy.trail)

    return os.path.join(folder, f"{name}.seal")


def _restore_seal(log: DeltaLog, database: Database, sealed: SealedTrail, paths: Sequence[str], folder: str) -> bool:
    """Write the seal of the segments at *paths* to *folder*; return False if there is no checkpoint for them alone."""
    with opened_trail(sealed, log, database) as source, HashFiles(source.seal) as hashes, raising(AuditReadError):
        complete = source.complete_size(hashes)
        newest_first = sorted(paths, reverse=True)
        note = _newest_note(source, complete, hashes, sealed.copied.earlier, newest_first)
        if note is None:
            return False

    size = Checkpoint.parse(note.text).size
    files = {**sealed.copied.files, CHECKPOINT: str(note).encode()}
    if size < sealed.copy.size:
        # Cosigned checkpoints of lines that are not here would be taken for a roll-back.
        files = {name: data for name, data in files.items() if name in (CHECKPOINT, SEGMENTS)}

    unfinished = folder + UNFINISHED_SUFFIX
    shutil.rmtree(unfinished, ignore_errors=True)
    copied = msgspec.structs.replace(sealed.copied, files=files)
    try:
        with _naming(folder):
            os.mkdir(unfinished, FOLDER_MODE)
            write_seal(log.storage, copied, unfinished, size=size, is_strict=True)
            sync_folder(unfinished)
            os.rename(unfinished, folder)
            sync_folder(os.path.dirname(folder))
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise

    return True


def sealed_lines(folder: str) -> int:
    """Return the number of lines that the checkpoint in a seal folder covers.

    Raises:
        AuditReadError: There is no checkpoint.
    """
    with raising(AuditReadError):
        return Checkpoint.parse(read_checkpoint(folder).text).size


def _newest_note(
    source: ArchivedTrail, most: int, hashes: HashFiles, earlier: Sequence[bytes], paths: Sequence[str]
) -> Note | None:
    """Return the newest checkpoint that covers at most *most* lines: of a copy, or in the trail itself.

    Args:
        source: The trail.
        most: The number of lines.
        hashes: Its stored hashes.
        earlier: The checkpoints of earlier copies.
        paths: The segments, the newest first: a checkpoint is in one of the last.
    """
    newest = read_checkpoint(source.seal)
    head = Checkpoint.parse(newest.text)
    if head.size <= most:
        return newest

    def usable(texts: Iterable[str]) -> Iterator[tuple[int, Note]]:
        for text in texts:
            with suppress(SealError):
                note = Note.parse(text.encode())
                other = Checkpoint.parse(note.text)

                if other.size <= most and range_root(hashes.read, 0, other.size) == other.root:
                    yield other.size, note

    found = dict(usable(note.decode(errors="replace") for note in earlier))

    for path in paths:
        in_segment = dict(usable(notes_in(path, head.origin)))

        if in_segment:
            found.update(in_segment)
            break

    return found[max(found)] if found else None
