"""The proofs of an archive: `verify_archived` judges its lines by their seals, and `prove_archived` proves one event.

`structlog_audit.archive.verify` compares bytes with the digests in the log of the archive, which whoever may write to it can
change. The functions here compare lines with what the key of their trail has signed.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from structlog_audit.archive.archived_bytes import line_of
from structlog_audit.archive.database import Database, parquet
from structlog_audit.archive.delta_log import DeltaLog
from structlog_audit.archive.opening import opened_log
from structlog_audit.archive.rows import STORED_COLUMNS
from structlog_audit.archive.seal_copies import write_file, write_seal
from structlog_audit.archive.sealed_trail import ArchivedTrail, SealedTrail, opened_trail, sealed_trails
from structlog_audit.exceptions import AuditReadError, AuditValueError
from structlog_audit.integrity.errors import raising
from structlog_audit.integrity.merkle import leaf_hash
from structlog_audit.integrity.proving import ProvenLine, prove_leaf
from structlog_audit.integrity.seal_verdicts import seal_verdict
from structlog_audit.integrity.standalone.verify_trail import (
    MAX_AGE_SECONDS,
    MAX_NOTE_BYTES,
    Checkpoint,
    Finding,
    HashFiles,
    Note,
    Policy,
    Report,
    SealError,
    load_policies,
    verify,
)
from structlog_audit.integrity.verified_lines import VerifiedLines
from structlog_audit.query.seal_verdict import SealVerdict

_IS_FOREIGN = "trail IS DISTINCT FROM $trail OR n IS NULL OR n < 0 OR n >= $stop"
_IS_OUTSIDE = """NOT coalesce(n BETWEEN $numbers0 AND $numbers1 AND us BETWEEN $times0 AND $times1
    AND us + late_us BETWEEN $order0 AND $order1 AND event_id BETWEEN $ids0 AND $ids1
    AND strftime(make_timestamp(us), '%Y-%m-%d') = $date, true)"""
_BOUNDS = ("numbers", "times", "order", "ids")


def verify_archived(
    archive: str | os.PathLike[str],
    policy: Policy,
    *,
    anchors: Sequence[str] = (),
    state: str | None = None,
    max_age: float | None = MAX_AGE_SECONDS,
    now: dt.datetime | None = None,
    progress: Callable[[int], None] | None = None,
    storage_options: dict[str, Any] | None = None,
) -> list[Report]:
    """Verify the lines of an archive against the seals of its trails.

    Args:
        archive: The archive.
        policy: The keys that are trusted.
        anchors: Files with checkpoints from elsewhere, as for a trail.
        state: A file for the newest verified checkpoint of each trail.
        max_age: As for a trail.
        now: The current time.
        progress: Called with the number of bytes of lines that were read so far.
        storage_options: Parameters of fsspec's file system, for a URL.

    Returns:
        A report for each trail. Nothing that is wrong with archive, seals or anchors raises an exception.

    Raises:
        OSError: The scratch folder or *state* cannot be written.
    """
    states = _States(state)
    counted = _Counted(progress)

    def judge(trail: ArchivedTrail, own_state: str | None) -> Report:
        report = verify(
            trail, policy, anchors=anchors, state=own_state, max_age=max_age, now=now, progress=counted.show
        )
        counted.end_trail()
        return report

    try:
        with opened_log(archive, storage_options) as (log, database):
            reports = list(_reports(log, database, states, judge))
    except AuditReadError as error:
        return [_single(os.fspath(archive), "UNREADABLE", str(error))]
    states.write()
    return reports or [_single(os.fspath(archive), "NO_SEAL", "the archive has no trail")]


def verify_archived_seals(
    archive: str | os.PathLike[str], keys: Sequence[str], *, anchors: Sequence[str | os.PathLike[str]] = ()
) -> list[SealVerdict]:
    """Return the verdict on the seal of each trail of an archive, as `verify_seals` of `structlog_audit.integrity` for a trail.

    Args:
        archive: The archive.
        keys: Verifier keys, or files with one or with a policy.
        anchors: Files with checkpoints from elsewhere, as for a trail.

    Raises:
        AuditValueError: A key cannot be used.
    """
    with raising(AuditValueError):
        policy = load_policies(keys)

    files = tuple(os.fspath(anchor) for anchor in anchors)
    reports = verify_archived(archive, policy, anchors=files, max_age=None)

    return [seal_verdict(report, policy, files) for report in reports]


def _reports(
    log: DeltaLog, database: Database, states: _States, judge: Callable[[ArchivedTrail, str | None], Report]
) -> Iterator[Report]:
    """Yield a report for each sealed trail, each other trail, and each trail that the states know alone."""
    root = log.storage.root
    found = sealed_trails(log)

    for sealed in found:
        if not sealed.copied.files:
            yield _single(f"{root} {sealed.copy.trail}", "UNREADABLE", sealed.error)
            continue

        # What a changed copy still says is judged as well.
        readable = sealed._replace(error="")
        with opened_trail(readable, log, database) as trail, states.file_of(sealed.origin) as own_state:
            report = judge(trail, own_state)

        if sealed.error:
            report.findings.append(Finding("BAD_SEAL", f"{sealed.copy.path}: {sealed.error}"))
            report.counts["BAD_SEAL"] = report.counts.get("BAD_SEAL", 0) + 1
        yield report

    for code, message in _misplaced_rows(log, database):
        yield _single(root, code, message)

    for name in _unsealed_trails(log, found):
        message = f"the archive has no seal of {name}: compact the trail again once it is sealed"
        yield _single(f"{root} {name}", "NO_SEAL", message)

    lost = states.origins - {sealed.origin for sealed in found}
    for origin in sorted(lost):
        message = f"the archive has no seal of {origin}, of which the state has a checkpoint"
        yield _single(root, "ROLLED_BACK", message)


def _misplaced_rows(log: DeltaLog, database: Database) -> Iterator[tuple[str, str]]:
    """Yield a code and a message for each data file with rows for which the log has no place.

    Queries find those that belong to no archived segment, and may not find those outside of the bounds of their file.
    """
    for file in log.snapshot.files.values():
        location = log.storage.location(file.path)
        sql = (
            f"SELECT count(*) FILTER ({_IS_FOREIGN}), count(*) FILTER ({_IS_OUTSIDE} AND NOT ({_IS_FOREIGN})) "
            f"FROM (SELECT *, epoch_us(timestamp) AS us FROM {parquet([location])})"
        )
        bounds = {f"{name}{end}": value for name in _BOUNDS for end, value in enumerate(getattr(file, name))}
        stop = log.snapshot.next_number(file.trail)

        # A file that cannot be read is found by its lines.
        with suppress(AuditReadError, OSError):
            ((foreign, outside),) = database.rows(sql, {"trail": file.trail, "stop": stop, "date": file.date, **bounds})
            if foreign:
                yield "INSERTED", f"{file.path} has rows that belong to no archived segment: {foreign}"
            if outside:
                message = f"{file.path} has rows that queries may not find, as the log states other bounds: {outside}"
                yield "CHANGED", message


def _single(trail: str, code: str, message: str) -> Report:
    """Return a report with one finding."""
    return Report(trail, [Finding(code, message)], {code: 1})


class _Counted:
    """The bytes that were read of one trail after the other."""

    def __init__(self, progress: Callable[[int], None] | None) -> None:
        self._progress = progress
        self._before = 0
        self._most = 0

    def show(self, count: int) -> None:
        """Add those of this trail to those of the trails before it."""
        # A trail may be read twice.
        self._most = max(self._most, count)
        if self._progress is not None:
            self._progress(self._before + self._most)

    def end_trail(self) -> None:
        """Begin with another trail."""
        self._before += self._most
        self._most = 0


_BETWEEN_NOTES = re.compile("(?<=\n)\n(?!— )")


class _States:
    """The newest verified checkpoint of each trail, in one file."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        self._notes: dict[str, str] = {}
        self._is_foreign = False

        if path is None:
            return

        with suppress(FileNotFoundError), open(path, encoding="utf-8", errors="replace") as file:
            self._read(file.read(MAX_NOTE_BYTES))

    def _read(self, text: str) -> None:
        try:
            for note in _BETWEEN_NOTES.split(text):
                head = Checkpoint.parse(Note.parse(note.encode()).text)
                self._notes[head.origin] = note
        except SealError:
            self._is_foreign = True

    @property
    def origins(self) -> set[str]:
        """The trails of which there is a checkpoint."""
        return set(self._notes)

    @contextmanager
    def file_of(self, origin: str) -> Iterator[str | None]:
        """Provide a file with the checkpoint of one trail, and keep its content at the end of the ``with`` block."""
        if self._path is None or self._is_foreign:
            # A file of something else is refused by the verification, and stays.
            yield self._path
            return

        with tempfile.TemporaryDirectory(prefix="structlog-audit-") as folder:
            path = os.path.join(folder, "state")
            if origin in self._notes:
                write_file(path, self._notes[origin].encode())

            yield path

            with suppress(FileNotFoundError), open(path, encoding="utf-8") as file:
                self._notes[origin] = file.read()

    def write(self) -> None:
        """Write the file."""
        if self._path is None or self._is_foreign or not self._notes:
            return

        text = "\n".join(self._notes.values())
        beside = f"{self._path}.{os.getpid()}.tmp"
        write_file(beside, text.encode())
        os.replace(beside, self._path)


@contextmanager
def verified_archived_lines(
    archive: str | os.PathLike[str], policy: Policy, *, storage_options: dict[str, Any] | None = None
) -> Iterator[list[VerifiedLines]]:
    """Provide the proved lines of each trail of an archive, for the duration of a ``with`` block.

    Args:
        archive: The archive.
        policy: The trusted keys.
        storage_options: Parameters of fsspec's file system, for a URL.

    Raises:
        AuditReadError: The archive cannot be read, a trail of it has no seal, or its seal proves nothing.
    """
    with opened_log(archive, storage_options) as (log, database), ExitStack() as stack:
        found = sealed_trails(log)
        unsealed = _unsealed_trails(log, found)
        if unsealed:
            names = ", ".join(unsealed)
            raise AuditReadError(
                f"{log.storage.root}: expected sealed trails, got no seal of {names}: nothing proves them"
            )

        trails = [stack.enter_context(opened_trail(sealed, log, database)) for sealed in found]
        yield [stack.enter_context(VerifiedLines(trail, policy)) for trail in trails]


def _unsealed_trails(log: DeltaLog, found: Iterable[SealedTrail]) -> list[str]:
    """Return the names of the trails of an archive that none of the seals *found* is of."""
    names = {ranges[0].trail for ranges in log.snapshot.segments.values()}

    return sorted(names - {name for sealed in found for name in sealed.trails})


def prove_archived(
    archive: str | os.PathLike[str], event_id: str, *, storage_options: dict[str, Any] | None = None
) -> ProvenLine:
    """Return the line of an archived event with its proof, as `structlog_audit.integrity.proving.prove` does for a trail.

    Args:
        archive: The archive.
        event_id: The id of the event.
        storage_options: Parameters of fsspec's file system, for a URL.

    Raises:
        AuditValueError: There is no such event in a sealed trail, or its line is not one that was sealed.
        AuditReadError: The archive, or the copy of the seal, cannot be read.
    """
    with opened_log(archive, storage_options) as (log, database):
        lines = _lines_of(event_id, log, database)

        for sealed in sealed_trails(log):
            found = [lines[trail] for trail in sealed.trails if trail in lines]
            if found:
                return _prove(event_id, found[0], sealed, log)

    if lines:
        raise AuditValueError(f"{event_id}: the archive has no seal of {', '.join(lines)}")
    raise AuditValueError(f"{event_id}: no line of the archive begins with this id")


def _prove(event_id: str, line: bytes, sealed: SealedTrail, log: DeltaLog) -> ProvenLine:
    if sealed.error:
        raise AuditReadError(sealed.error)

    with tempfile.TemporaryDirectory(prefix="structlog-audit-") as folder:
        write_seal(log.storage, sealed.copied, folder, size=sealed.copy.size, is_strict=False)

        with HashFiles(folder) as hashes, raising(AuditReadError):
            index = hashes.find(leaf_hash(line), 0, sealed.copy.size)
            if index is None:
                raise AuditValueError(
                    f"{event_id}: its line is not a sealed one: it was not sealed yet when the archive got the seal, or was "
                    "changed since; verify the archive"
                )
            return prove_leaf(event_id, line, index, folder, hashes)


def _lines_of(event_id: str, log: DeltaLog, database: Database) -> dict[str, bytes]:
    """Return the first line that begins with *event_id* in each trail, without its LF."""
    files = [file for file in log.snapshot.files.values() if file.ids[0] <= event_id <= file.ids[1]]
    if not files:
        return {}

    names = parquet(log.storage.location(file.path) for file in files)
    sql = f"SELECT trail, n, line, {STORED_COLUMNS}, chain, true FROM {names} WHERE event_id = $id ORDER BY n"
    start = f'{{"event_id":"{event_id}"'.encode("utf-8", "replace")
    lines: dict[str, bytes] = {}

    for trail, *row in database.rows(sql, {"id": event_id}):
        # An event may have several lines.
        for line in line_of(row).split(b"\n"):
            if line.startswith(start):
                lines.setdefault(trail, line)

    return lines
