"""`compact`: moves the closed segments of a trail into an archive.

**Guarantees.** The reader of this library decides which lines are events; DuckDB only makes columns of it. Before a commit, the
Parquet files are read again and must give the SHA-256 of the segment. A range of a segment is committed at most once, whatever
ends the process and however many hosts compact at once; the loser of a race discards its files and continues.

**Failure handling.** Bytes that are not events go to ``_quarantine``. A segment that is damaged or changed, or has no lines, is
counted as a problem and stays as it is. A segment is deleted only if it is covered to its end, has the digests of the archive
now, and its deletion is recorded in the trail.

**Performance.** Memory is bounded: events go through a spool file per day in a scratch folder (``TMPDIR``).
"""

from __future__ import annotations

import datetime as dt
import hashlib
import os
import re
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO, NamedTuple, cast

import msgspec

from structlog_audit.archive.actions import (
    FORMAT,
    FORMAT_KEY,
    PROMOTED_KEY,
    Action,
    CommitInfo,
    Coverage,
    DataFile,
    MetaData,
    Protocol,
    Txn,
    milliseconds,
    schema_string,
)
from structlog_audit.archive.archived_bytes import QUARANTINE_FOLDER, Gap, archived_bytes, decode_gaps, encode_gap
from structlog_audit.archive.database import Database, file_digest, json_lines, write_parquet
from structlog_audit.archive.delta_log import DeltaLog, Snapshot, seal_txn
from structlog_audit.archive.last_lines import last_lines
from structlog_audit.archive.maintenance import parse_age
from structlog_audit.archive.opening import require_host
from structlog_audit.archive.promotion import (
    Path,
    encode_columns,
    parse_path,
    pointer,
    promoted_columns,
    with_columns,
)
from structlog_audit.archive.rows import COLUMNS, SPOOL_COLUMNS, Row, events_in
from structlog_audit.archive.seal_copies import SealCopier
from structlog_audit.archive.storage import Storage, open_storage
from structlog_audit.exceptions import AuditReadError, AuditTypeError, AuditValueError, AuditWriteError
from structlog_audit.integrity.sealed_ranges import SealedRanges
from structlog_audit.integrity.standalone.verify_trail import SealError
from structlog_audit.trail.reading.decoder import LineDecoder
from structlog_audit.trail.reading.decompression import unpack
from structlog_audit.trail.reading.discovery import Segment, Trail, find_trails
from structlog_audit.trail.reading.export_document import DOCUMENT_START
from structlog_audit.trail.reading.last_line import TerminatedFile
from structlog_audit.trail.reading.open_segment import OpenSegment
from structlog_audit.trail.reading.segment_scanner import SegmentScan, SegmentScanner
from structlog_audit.trail.segment_names import COMPRESSED_SUFFIXES
from structlog_audit.trail.writing.pruning import MOST_NAMED_BYTES

_GAP_BYTES = 1_048_576
"""The most bytes in one line of a quarantine file."""

_MOST_SPOOLS = 64
"""The number of spool files that are open at once. Only a trail with broken clocks has more days in a segment."""

_COPIED_BYTES = 1_048_576

_MOST_NAMED = 50
"""The number of deleted segments that one event names, so that none is truncated."""

_CHECKED_BEFORE_COMMIT = ("truncated", "unreadable", "vanished")
"""The codes of problems after which a segment was not read to its end."""

_OWN_ID = re.compile(rb'\{"event_id":"evt_[0-9a-f]{32}"')


class Compacted(msgspec.Struct, frozen=True):
    """The outcome of a run of `compact`.

    Attributes:
        segments: The number of segments from which something was archived.
        events: The number of events that were archived.
        files: The number of Parquet files that were added.
        bytes_read: The bytes that were archived, decompressed.
        bytes_written: The bytes of the files that were added.
        deleted: The names of the segments that were deleted.
        problems: The number of problems found, by code: those of a reader, ``changed`` (a segment that no longer has the bytes
            that were archived), ``document`` (an export), ``unidentified`` (a file without a line of JSON) and ``seal`` (a seal
            that was not copied).
        closed: The number of closed segments that the trails have, archived before or not.
    """

    segments: int = 0
    events: int = 0
    files: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    deleted: tuple[str, ...] = ()
    problems: Mapping[str, int] = {}
    closed: int = 0


def compact(
    trail: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    promote: Iterable[str] = (),
    delete_after: str | dt.timedelta | None = None,
    host: str | None = None,
    storage_options: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
) -> Compacted:
    """Archive everything in the closed segments of a trail that is not archived yet.

    The two newest segments stay, the active file included: writers may still append to them.

    Args:
        trail: The active file of the trail, or a folder of trails; folders in it are not searched.
        to: The archive: a folder, or a URL such as ``s3://bucket/audit``. It is created by the first commit.
        promote: Members of the metadata that get a column of their own, such as ``tenant``, ``request.id``.
        delete_after: Delete archived segments whose rollover is at least this long ago: a timedelta, or text such as ``30d``.
            None deletes nothing.
        host: The name of this host in the archive; by default that of the system.
        storage_options: Parameters of fsspec's file system, for a URL.
        progress: Called with the number of bytes of segments read so far.
        now: The clock.

    Raises:
        AuditReadError: There is no such trail, or *to* is not an archive that this version can extend.
        AuditWriteError: The archive cannot be written, or does not give back the bytes of a segment.
        AuditTypeError, AuditValueError: A parameter is invalid.
        OSError: The system or the store refused a file. Everything committed before is whole.
    """
    paths = [parse_path(name) for name in _names(promote)]
    age = None if delete_after is None else parse_age("delete_after", delete_after)
    named_host = require_host(host)

    scanner = SegmentScanner()
    trails = [found for found in find_trails([trail], scanner.problems) if isinstance(found, Trail)]
    if not trails:
        raise AuditReadError(f"{os.fspath(trail)!r}: expected the active file of a trail, got a stream")

    storage = open_storage(to, storage_options, name="to")
    for found in trails:
        _require_other_folder(storage, found)
    database = Database(storage)

    try:
        log = DeltaLog(storage, database.connect)
        database.connect()
        log.update()
        storage.require_usable()
        compaction = _Compaction(log, database, scanner, paths, named_host, progress, now)

        for found in trails:
            compaction.add_trail(found)
            if age is not None:
                compaction.delete_segments(found, age)

        return compaction.result()
    finally:
        database.close()


def segment_key(opened: OpenSegment, trail: str) -> str | None:
    """Return the identity of a segment in every archive, or None if it has no line yet.

    The id of a recorder is unique in the world. The first line of another program is not: its key names the trail as well.
    """
    if opened.identity is None:
        return None

    return opened.identity if _OWN_ID.search(opened.head) else f"{opened.identity}@{trail}"


def stored_size(plain: OpenSegment) -> int:
    """Return the bytes of a plain segment, without an LF that the scanner adds because the file lacks it."""
    return plain.size - isinstance(plain.file, TerminatedFile)


def stored_plain_size(segment: Segment) -> int | None:
    """Return the bytes of a segment that is not compressed; None for another."""
    is_plain = os.path.basename(segment.path) == plain_name(segment.path)

    return segment.size if is_plain else None


def plain_name(path: str) -> str:
    """Return the name of the segment at *path* without a suffix of compression."""
    name = os.path.basename(path)

    for suffix in COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)

    return name


def _names(promote: Iterable[str]) -> Iterable[str]:
    if isinstance(promote, str) or not isinstance(promote, Iterable):
        raise AuditTypeError(f"promote={promote!r}: expected a list of names, got {type(promote).__name__}")
    return promote


def _require_other_folder(storage: Storage, trail: Trail) -> None:
    """Raise `AuditValueError` if *storage* is the folder of *trail*, which would then name the archive alone."""
    folder = os.path.dirname(os.path.realpath(trail.path))
    if os.path.realpath(storage.root) == folder:
        raise AuditValueError(
            f"to={storage.root!r}: expected a folder without trails, got that of {trail.path!r}: name a folder in it"
        )


class _Lost(Exception):  # noqa: N818
    """Another compactor archived the same bytes, or other events of the same trail, first."""


class _Deletable(NamedTuple):
    """How many segments may be deleted, and the leaves of the seal that are gone then; None without a seal."""

    most: int
    leaves: list[list[int]] | None = None


class _Compaction:
    """One run of `compact`."""

    def __init__(
        self,
        log: DeltaLog,
        database: Database,
        scanner: SegmentScanner,
        promoted: list[Path],
        host: str,
        progress: Callable[[int], None] | None,
        now: Callable[[], dt.datetime],
    ) -> None:
        self._log = log
        self._database = database
        self._promoted = promoted
        self._host = host
        self._progress = progress
        self._now = now
        self._scanner = scanner
        self._read = 0
        self._counts: Counter[str] = Counter()
        self._deleted: list[str] = []

    def result(self) -> Compacted:
        """Return the outcome."""
        counts = self._counts
        problems = dict(self._scanner.problems.counts)

        return Compacted(
            counts["segments"],
            counts["events"],
            counts["files"],
            counts["read"],
            counts["written"],
            tuple(self._deleted),
            problems,
            counts["closed"],
        )

    def add_trail(self, trail: Trail) -> None:
        """Archive the closed segments of *trail*, oldest first."""
        name = f"{self._host}:{os.path.realpath(trail.path)}"

        with trail.segments() as segments:
            closed = sum(not segment.is_open for segment in segments)
            self._counts["closed"] += closed

            if closed:
                # First: then it covers the lines that follow.
                self._copy_seal(os.path.realpath(trail.path), name)
            for segment in segments:
                if not segment.is_open:
                    self._add_segment(segment, name)
                self._advance(segment.size)

    def _copy_seal(self, path: str, trail: str) -> None:
        """Copy the seal of *trail*, whose active segment is at *path*, if it has one that is newer than the copy."""
        self._log.update()
        snapshot = self._log.snapshot
        previous = snapshot.seals.get(trail)
        archived = sum(
            coverage.lines for ranges in snapshot.segments.values() for coverage in ranges if coverage.trail == trail
        )
        copier = SealCopier(self._log.storage, trail, path, previous, archived)
        now = self._now()

        try:
            copy = copier.copy()
        except SealError as error:
            copier.discard()
            self._scanner.problems.add_once("seal", f"{path}.seal", 0, str(error))

            return

        if copy is None:
            return

        def build(snapshot: Snapshot) -> list[Action] | None:
            current = snapshot.seals.get(trail)
            if current is not None and current != previous:
                # Another compactor was first.
                is_newer = copy.size > current.size and copier.continues(current, copy.size)
                if not is_newer:
                    return None

            actions = [Action(commit_info=CommitInfo(seal=copy)), Action(txn=seal_txn(copy, now))]

            return [*self._table_actions(snapshot, now), *actions]

        if not self._log.commit("SEAL", build, now):
            copier.discard()

    def _advance(self, size: int) -> None:
        self._read += size
        if self._progress is not None:
            self._progress(self._read)

    def _add_segment(self, segment: Segment, trail: str) -> None:
        with self._scanner.open(segment) as opened:
            if opened is None:
                return

            key = segment_key(opened, trail)
            if DOCUMENT_START.match(opened.head):
                self._report("document", segment, "an export is not archived")
            elif key is None:
                self._report_unidentified(opened)
            elif not self._log.snapshot.is_final(key):
                with _plain(opened, self._scanner) as plain:
                    if plain is not None:
                        self._add_range(plain, key, trail, is_packed=not opened.is_plain)

    def _report(self, code: str, segment: Segment, reason: str) -> None:
        self._scanner.problems.add_once(code, segment.path, 0, reason)

    def _report_unidentified(self, opened: OpenSegment) -> None:
        if opened.head:
            self._report("unidentified", opened.segment, "no line of JSON at its beginning")

    def _add_range(self, plain: OpenSegment, key: str, trail: str, *, is_packed: bool) -> None:
        """Archive the lines after the covered bytes of a segment. Of several compactors, one does each range."""
        while True:
            start = self._log.snapshot.covered(key)
            size = stored_size(plain)
            if size < start:
                self._report("changed", plain.segment, f"{size} bytes, although {start} were archived")
                return

            if self._log.snapshot.is_final(key) or (size == start and not is_packed):
                return
            # The following lines belong to the archived bytes only if these are the same.
            if not self._has_archived_bytes(plain, key):
                return

            with tempfile.TemporaryDirectory(prefix="structlog-audit-") as folder:
                attempt = _RangeAttempt(self._log.snapshot, plain, key, trail, folder, self._now())
                attempt.is_packed = is_packed
                attempt.columns = self._columns(self._log.snapshot)
                attempt.before = last_lines(self._database, self._log.storage, self._log.snapshot, trail)

                try:
                    attempt.spool(self._scanner)
                    files = attempt.write(self._database)
                    attempt.verify(self._database)
                    self._commit(attempt, files)
                except _Lost:
                    continue

                if attempt.stop > attempt.start:
                    self._counts.update(
                        segments=1,
                        events=attempt.number - attempt.first,
                        files=len(files),
                        read=attempt.stop - attempt.start,
                        written=sum(file.size for file in files),
                    )

                return

    def _columns(self, snapshot: Snapshot) -> dict[str, Path]:
        return with_columns(promoted_columns(snapshot.configuration), self._promoted)

    def _commit(self, attempt: _RangeAttempt, files: list[DataFile]) -> None:
        """Put the files of *attempt* into the archive and commit them.

        Raises:
            _Lost: Another compactor was first. The files are deleted.
        """
        storage = self._log.storage
        self._log.update()
        if not attempt.is_valid(self._log.snapshot):
            raise _Lost

        uploaded = attempt.local_files()

        for local, path in uploaded:
            storage.upload(local, path)

        now = self._now()

        def build(snapshot: Snapshot) -> list[Action] | None:
            if not attempt.is_valid(snapshot):
                return None
            return [*self._table_actions(snapshot, now), *attempt.actions(files, now)]

        if not self._log.commit("COMPACT", build, now):
            for _, path in uploaded:
                storage.delete(path)
            raise _Lost

    def _table_actions(self, snapshot: Snapshot, now: dt.datetime) -> Iterator[Action]:
        """Yield the actions that create the table, or give it new columns."""
        columns = self._columns(snapshot)
        if snapshot.metadata is None:
            yield Action(protocol=Protocol())
            yield Action(meta_data=_metadata(secrets.token_hex(16), columns, {}, now))
        elif columns != promoted_columns(snapshot.configuration):
            metadata = snapshot.metadata
            yield Action(meta_data=_metadata(metadata.id, columns, metadata.configuration, now))

    def delete_segments(self, trail: Trail, age: dt.timedelta) -> None:
        """Delete the archived segments of *trail* that were rolled over *age* ago, after recording it."""
        name = f"{self._host}:{os.path.realpath(trail.path)}"
        oldest = self._now() - age
        due = []
        names = []

        with trail.segments() as segments:
            for segment in segments:
                names.append(plain_name(segment.path))
                is_old = segment.rolled_at is not None and segment.rolled_at <= oldest
                if is_old and not segment.is_open and self._is_archived(segment, name):
                    due.append(segment)

        while due:
            deletable = self._deletable(trail, name, due, names)
            part, due = due[: deletable.most], due[deletable.most :]

            if not part:
                self._report("seal", due[0], "not deleted: its lines are not all in the archive's copy of the seal")
                return

            self._delete(trail, part, deletable.leaves)

    def _deletable(self, trail: Trail, name: str, due: list[Segment], names: Sequence[str]) -> _Deletable:
        """Return how many of the *due* segments may be deleted together.

        One event announces their deletion, and is not to be truncated. The lines of a sealed trail must be in the archive's
        copy of its seal.

        Args:
            trail: The trail.
            name: Its name in the archive.
            due: The segments, oldest first.
            names: The names of all segments.
        """
        path = os.path.realpath(trail.path)
        if not os.path.exists(f"{path}.seal"):
            return _Deletable(_MOST_NAMED)

        bytes_of_name = len(plain_name(due[0].path)) + 8
        most = max(1, MOST_NAMED_BYTES // bytes_of_name)
        candidates = due[: min(most, _MOST_NAMED)]

        sizes = [(plain_name(segment.path), stored_plain_size(segment)) for segment in candidates]
        kept = set(names).difference(plain for plain, _ in sizes)

        copy = self._log.snapshot.seals.get(name)
        sealed = SealedRanges(path, at_most=0 if copy is None else copy.size)
        count, leaves = sealed.cover(sizes, kept)

        return _Deletable(count, leaves)

    def _delete(self, trail: Trail, part: list[Segment], leaves: list[list[int]] | None) -> None:
        """Delete the segments *part*, after recording it."""
        from structlog_audit.archive.deletion import record_deletion

        names = [os.path.basename(segment.path) for segment in part]
        archive = self._log.storage.root
        record_deletion(trail.path, names, sum(segment.size for segment in part), archive, leaves)

        for segment in part:
            os.unlink(segment.path)

        self._deleted += names

    def _is_archived(self, segment: Segment, trail: str) -> bool:
        """Return whether the archive covers *segment* to its end, with the bytes that it has now."""
        with self._scanner.open(segment) as opened:
            key = None if opened is None else segment_key(opened, trail)
            if opened is None or key is None:
                return False

            with _plain(opened, self._scanner) as plain:
                if plain is None or stored_size(plain) != self._log.snapshot.covered(key):
                    return False

                return self._has_archived_bytes(plain, key)

    def _has_archived_bytes(self, plain: OpenSegment, key: str) -> bool:
        """Return whether a segment still has the bytes that were archived of it; otherwise count that it does not."""
        file = plain.raw

        for coverage in self._log.snapshot.segments.get(key, ()):
            if _content(file, coverage.start, coverage.stop).sha256 != coverage.sha256:
                self._report("changed", plain.segment, "other bytes than those that were archived")
                return False

        return True


@contextmanager
def _plain(opened: OpenSegment, scanner: SegmentScanner) -> Iterator[OpenSegment | None]:
    """Provide a segment as plain, seekable lines for the duration of a ``with`` block; None, after counting it, if damaged."""
    if opened.is_plain:
        yield opened
        return

    segment = opened.segment

    def report(code: str, offset: int, reason: str) -> None:
        scanner.problems.add_once(code, segment.path, offset, reason)

    before = _unread(scanner)

    with tempfile.TemporaryFile(prefix="structlog-audit-") as file:
        copy = cast(BinaryIO, file)
        opened.raw.seek(0)
        stream, _, _ = unpack(opened.raw, segment.path, report)

        while data := stream.read(_COPIED_BYTES):
            copy.write(data)

        copy.flush()
        size = copy.tell()
        if _unread(scanner) != before:
            yield None
            return

        with scanner.open(replace(segment, file=copy, size=size)) as plain:
            yield plain


def _unread(scanner: SegmentScanner) -> int:
    return sum(scanner.problems.counts[code] for code in _CHECKED_BEFORE_COMMIT)


class _Day:
    """The spool file of one UTC day, and the bounds of its events."""

    def __init__(self, date: str, folder: str) -> None:
        self.date = date
        self.spool = os.path.join(folder, f"{date}.spool")
        self.parquet = os.path.join(folder, f"{date}.written")
        self.path = f"date={date}/{secrets.token_hex(6)}.parquet"
        self.rows = 0
        self.longest = 0
        self.times = self.order = self.numbers = (0, 0)
        self.ids = ("", "")

    def add(self, row: Row, size: int) -> None:
        """Extend the bounds by *row*, the newest, of *size* bytes."""
        at = row.us + row.late_us
        if not self.rows:
            self.times = row.us, row.us
            self.order = at, at
            self.numbers = row.n, row.n
            self.ids = row.event_id, row.event_id

        self.rows += 1
        self.longest = max(self.longest, size)

        # Rows come by number and order; their times and ids may step back.
        self.order = self.order[0], at
        self.numbers = self.numbers[0], row.n

        earliest, latest = self.times
        self.times = min(earliest, row.us), max(latest, row.us)

        lowest, highest = self.ids
        self.ids = min(lowest, row.event_id), max(highest, row.event_id)


class _RangeAttempt:
    """An attempt to archive one range of a segment, from the state that *snapshot* has now."""

    is_packed = False
    columns: Mapping[str, Path] = {}
    before: Mapping[str, bytes] = {}
    """The last archived lines of the trail: a repetition of one of them is not an event."""

    def __init__(
        self, snapshot: Snapshot, plain: OpenSegment, key: str, trail: str, folder: str, now: dt.datetime
    ) -> None:
        self.start = snapshot.covered(key)
        self.stop = stored_size(plain)
        self.first = self.number = snapshot.next_number(trail)
        self._high = snapshot.high(trail)
        self._least: int | None = None
        self._plain = plain
        self._key = key
        self._trail = trail
        self._folder = folder
        self._now = now
        self._days: dict[str, _Day] = {}
        self._spools: dict[str, BinaryIO] = {}
        self._gaps = os.path.join(folder, "gaps")
        self._quarantine: str | None = None
        self._content = _content(plain.raw, self.start, self.stop)

    def spool(self, scanner: SegmentScanner) -> None:
        """Write the events of the range to a file per day, and all other bytes to the gaps."""
        # The bytes before the range were checked when they were archived: findings about them would count twice.
        scan = SegmentScan(start=self.start)
        encode = msgspec.json.Encoder().encode
        position = self.start

        try:
            for batch in scanner.batches(self._plain, LineDecoder(self.before), scan):
                for found in events_in(batch, self.stop):
                    self._add_gap(position, found.start)
                    position = found.stop
                    event = found.event
                    high = found.us if self._high is None else max(self._high, found.us)
                    row = Row(
                        event.event_id,
                        found.us,
                        event.operation,
                        event.user_id,
                        event.session_id,
                        event.entry_ids or None,
                        found.metadata,
                        str(event.status),
                        event.error_message,
                        event.duration_ms,
                        event.kind,
                        event.chain,
                        self.number,
                        high - found.us,
                        found.line,
                    )

                    self._high = high
                    self._least = found.us if self._least is None else min(self._least, found.us)
                    self.number += 1
                    self._write(row, encode(row) + b"\n")
            self._add_gap(position, self.stop)
        finally:
            for file in self._spools.values():
                file.close()

    def _write(self, row: Row, line: bytes) -> None:
        """Write *row*, encoded as *line*, to the spool file of its day."""
        date = _date(row.us)
        day = self._days.get(date)
        if day is None:
            day = self._days[date] = _Day(date, self._folder)

        day.add(row, len(line))

        file = self._spools.get(date)
        if file is None:
            if len(self._spools) >= _MOST_SPOOLS:
                oldest = next(iter(self._spools))
                self._spools.pop(oldest).close()
            file = self._spools[date] = open(day.spool, "ab")  # noqa: SIM115

        file.write(line)

    def _add_gap(self, start: int, stop: int) -> None:
        """Write the bytes from *start* to *stop*, which are not events, to the gaps."""
        if start >= stop:
            return

        if self._quarantine is None:
            self._quarantine = f"{QUARANTINE_FOLDER}/{secrets.token_hex(6)}.jsonl"

        file = self._plain.raw
        # The scanner reads on from where it was.
        position = file.tell()

        with open(self._gaps, "ab") as gaps:
            for offset in range(start, stop, _GAP_BYTES):
                file.seek(offset)
                data = _read(file, min(_GAP_BYTES, stop - offset))
                gaps.write(encode_gap(Gap(offset, self.number, data)))

        file.seek(position)

    def write(self, database: Database) -> list[DataFile]:
        """Write a Parquet file for each day, and return their contents."""
        selected = _selected(self.columns)
        parameters = {"trail": self._trail}

        for number, path in enumerate(self.columns.values()):
            parameters[f"p{number}"] = pointer(path)

        files = []

        for day in self._days.values():
            source = json_lines(day.spool, SPOOL_COLUMNS, day.longest)
            write_parquet(database.connect(), source, selected, day.parquet, parameters)
            os.unlink(day.spool)
            file = DataFile(
                path=day.path,
                date=day.date,
                size=os.path.getsize(day.parquet),
                rows=day.rows,
                trail=self._trail,
                numbers=day.numbers,
                times=day.times,
                order=day.order,
                ids=day.ids,
                promoted=frozenset(self.columns),
                sha256=file_digest(day.parquet),
            )

            files.append(file)

        return files

    def verify(self, database: Database) -> None:
        """Read the Parquet files, and check that they give the bytes of the segment.

        Raises:
            AuditWriteError: They do not. Nothing was committed.
        """
        gaps = []
        if self._quarantine is not None:
            with open(self._gaps, "rb") as file:
                gaps = decode_gaps(file.read())

        digest = hashlib.sha256()
        locations = [day.parquet for day in self._days.values()]

        for data in archived_bytes(database, locations, self._coverage(), gaps):
            digest.update(data)

        if digest.hexdigest() != self._content.sha256:
            raise AuditWriteError(
                f"{self._plain.segment.path}: the archive would not give back its bytes {self.start} to {self.stop}; "
                "nothing was committed, the segment is unchanged: please report this"
            )

    def is_valid(self, snapshot: Snapshot) -> bool:
        """Return whether *snapshot* still has the state that this attempt began with."""
        is_same_range = snapshot.covered(self._key) == self.start and not snapshot.is_final(self._key)

        return is_same_range and snapshot.next_number(self._trail) == self.first

    def local_files(self) -> list[tuple[str, str]]:
        """Return the local path of each file, and its path in the archive."""
        files = [(day.parquet, day.path) for day in self._days.values()]
        if self._quarantine is not None:
            files.append((self._gaps, self._quarantine))

        return files

    def actions(self, files: list[DataFile], now: dt.datetime) -> Iterator[Action]:
        """Yield the actions of the commit."""
        yield Action(commit_info=CommitInfo(audit=self._coverage()))
        yield Action(txn=Txn(self._key, self.stop, milliseconds(now)))

        for file in files:
            yield file.add(now)

    def _coverage(self) -> Coverage:
        return Coverage(
            segment=self._key,
            trail=self._trail,
            name=plain_name(self._plain.segment.path),
            start=self.start,
            stop=self.stop,
            lines=self._content.lines,
            sha256=self._content.sha256,
            first=self.first,
            stop_number=self.number,
            least=self._least,
            high=self._high,
            quarantine=self._quarantine,
            is_final=self.is_packed,
        )


def _selected(columns: Mapping[str, Path]) -> str:
    """Return the columns of a data file as SQL over a spool file."""
    computed = {
        "timestamp": "make_timestamptz(us)",
        "trail": "$trail",
        "line": "from_base64(line)",
    }

    selected = [f"{computed.get(name, name)} AS {name}" for name, _ in COLUMNS]

    for number, name in enumerate(columns):
        member = f"metadata, $p{number}"
        selected.append(f"CASE WHEN json_type({member}) = 'VARCHAR' THEN json_extract_string({member}) END AS {name}")

    return ", ".join(selected)


def _metadata(table: str, columns: Mapping[str, Path], configuration: Mapping[str, str], now: dt.datetime) -> MetaData:
    schema = [*COLUMNS, *((name, "string") for name in columns), ("date", "date")]
    return MetaData(
        id=table,
        schema_string=schema_string(schema),
        configuration={**configuration, FORMAT_KEY: str(FORMAT), PROMOTED_KEY: encode_columns(columns)},
        created_time=milliseconds(now),
    )


def _date(us: int) -> str:
    day = dt.date(1970, 1, 1) + dt.timedelta(days=us // 86_400_000_000)
    return day.isoformat()


def _read(file: BinaryIO, size: int) -> bytes:
    """Return *size* bytes of *file*, or fewer at its end."""
    pieces = []

    while size > 0 and (data := file.read(size)):
        pieces.append(data)
        size -= len(data)

    return b"".join(pieces)


class _Content(NamedTuple):
    """The digest of some bytes, and the number of lines in them."""

    sha256: str
    lines: int


def _content(file: BinaryIO, start: int, stop: int) -> _Content:
    """Return the bytes of *file* from *start* to *stop*."""
    digest = hashlib.sha256()
    lines = 0
    file.seek(start)

    while start < stop:
        data = file.read(min(_COPIED_BYTES, stop - start))
        if not data:
            break

        digest.update(data)
        lines += data.count(b"\n")
        start += len(data)

    return _Content(digest.hexdigest(), lines)
