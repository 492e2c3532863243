"""The log of an archive: which data files it has, and how much of each segment is in them.

**Guarantees.** A commit is one JSON file that is created exclusively: it happens at most once, and whole. `DeltaLog.commit`
builds its actions from the newest state, and again if another writer was first. Commits are never deleted or changed, and
each has a digest of itself and of the commit before it.

**Failure handling.** A missing commit, a changed one, a table of another program and a newer format are errors that say what
to do. A checkpoint is only an abbreviation: unless it has its digest, the commits are read.

**Performance.** Every `CHECKPOINT_INTERVAL` commits a Parquet checkpoint folds the log. Opening reads the last one and the
commits after it, `PROBED` at a time, and never lists the folder.
"""

from __future__ import annotations

import copy
import datetime as dt
import hashlib
import os
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from structlog_audit._version import __version__
from structlog_audit.archive.actions import (
    FORMAT,
    FORMAT_KEY,
    PRUNED_KEY,
    Action,
    CommitInfo,
    Coverage,
    DataFile,
    MetaData,
    Protocol,
    Range,
    Remove,
    SealCopy,
    Txn,
    data_file_of,
    milliseconds,
)
from structlog_audit.archive.database import file_digest, json_lines, parquet, write_parquet
from structlog_audit.archive.storage import Storage
from structlog_audit.exceptions import AuditReadError

if TYPE_CHECKING:
    import duckdb

LOG_FOLDER = "_delta_log"
CHECKPOINT_INTERVAL = 50
"""The number of commits after which the log is folded."""

PROBED = 16
"""The number of following commits that are looked for at once."""

KEPT_TOMBSTONES = dt.timedelta(days=7)
"""How long a checkpoint names a removed file, as other Delta writers do by default."""

_LAST_CHECKPOINT = f"{LOG_FOLDER}/_last_checkpoint"
_DIGEST_KEY = "audit.sha256"

_CHECKPOINT_COLUMNS = """{
    txn: 'STRUCT("appId" VARCHAR, "version" BIGINT, "lastUpdated" BIGINT)',
    "add": 'STRUCT("path" VARCHAR, "partitionValues" MAP(VARCHAR, VARCHAR), "size" BIGINT, "modificationTime" BIGINT,
        "dataChange" BOOLEAN, "stats" VARCHAR, "tags" MAP(VARCHAR, VARCHAR))',
    "remove": 'STRUCT("path" VARCHAR, "deletionTimestamp" BIGINT, "dataChange" BOOLEAN)',
    "metaData": 'STRUCT("id" VARCHAR, "format" STRUCT("provider" VARCHAR, "options" MAP(VARCHAR, VARCHAR)),
        "schemaString" VARCHAR, "partitionColumns" VARCHAR[], "configuration" MAP(VARCHAR, VARCHAR), "createdTime" BIGINT)',
    protocol: 'STRUCT("minReaderVersion" INTEGER, "minWriterVersion" INTEGER)',
    audit_action: 'VARCHAR'
}"""

_encode = msgspec.json.Encoder().encode
_decode_lines = msgspec.json.Decoder(Action).decode_lines


class _LastCheckpoint(msgspec.Struct):
    version: int
    size: int
    tags: dict[str, str]


_decode_last_checkpoint = msgspec.json.Decoder(_LastCheckpoint).decode


class Snapshot:
    """The state of an archive after some commits. `DeltaLog` keeps one up to date."""

    def __init__(self) -> None:
        self.version = -1
        """The number of the last commit; -1 for an archive that does not exist yet."""
        self.digest = ""
        """The digest of the last commit."""
        self.metadata: MetaData | None = None
        self.files: dict[str, DataFile] = {}
        """The data files by path."""
        self.segments: defaultdict[str, list[Coverage]] = defaultdict(list)
        """The coverage of each segment by its key, in order."""
        self.skipped: dict[str, tuple[Range, ...]] = {}
        """By path of a data file, the numbers of its rows that another archive provides; the last of a range is excluded."""
        self.tombstones: dict[str, int] = {}
        """When each file was removed, in milliseconds since 1970, for some days."""
        self.seals: dict[str, SealCopy] = {}
        """The copy of the seal of each trail that has one."""

        self._next_numbers: dict[str, int] = {}
        self._highs: dict[str, int] = {}

    def copy(self) -> Snapshot:
        """Return this state, which later commits do not change."""
        copied = copy.copy(self)
        copied.files = dict(self.files)
        copied.skipped = dict(self.skipped)
        copied.segments = self.segments.copy()
        copied.seals = dict(self.seals)
        copied._highs = dict(self._highs)

        return copied

    def covered(self, segment: str) -> int:
        """Return how many bytes of a segment are archived."""
        ranges = self.segments.get(segment)

        return ranges[-1].stop if ranges else 0

    def is_final(self, segment: str) -> bool:
        """Return whether no bytes can follow the archived ones of a segment."""
        ranges = self.segments.get(segment)

        return bool(ranges) and ranges[-1].is_final  # type: ignore[index]

    def next_number(self, trail: str) -> int:
        """Return the number of the next event of *trail*."""
        return self._next_numbers.get(trail, 0)

    def high(self, trail: str) -> int | None:
        """Return the greatest timestamp of the archived events of *trail*, in microseconds since 1970."""
        return self._highs.get(trail)

    def raise_highs(self, other: Snapshot) -> None:
        """Raise the greatest timestamp of each trail to that of *other*."""
        for trail, high in other._highs.items():
            self._highs[trail] = max(self._highs.get(trail, high), high)

    @property
    def highs(self) -> dict[str, int]:
        """The greatest timestamp of the archived events of each trail, in microseconds since 1970."""
        return dict(self._highs)

    def names_at(self, path: str) -> set[str]:
        """Return the names of the archived segments of the trails at *path*, on any host."""
        every = (coverage for ranges in self.segments.values() for coverage in ranges)

        return {coverage.name for coverage in every if coverage.trail.endswith(f":{path}")}

    @property
    def configuration(self) -> dict[str, str]:
        """The configuration of the table."""
        return {} if self.metadata is None else self.metadata.configuration

    @property
    def pruned_before(self) -> dt.datetime | None:
        """The beginning of the first day that was not pruned; None if none was."""
        day = self.configuration.get(PRUNED_KEY)

        return None if day is None else dt.datetime.fromisoformat(day).replace(tzinfo=dt.UTC)

    def apply(self, actions: Iterable[Action], where: str) -> None:
        """Apply the actions of one commit, or of a checkpoint."""
        for action in actions:
            if action.file is not None:
                self.files[action.file.path] = action.file
            elif action.add is not None:
                self.files[action.add.path] = data_file_of(action.add, where)
                self.tombstones.pop(action.add.path, None)
            elif action.remove is not None:
                self.files.pop(action.remove.path, None)
                self.tombstones[action.remove.path] = action.remove.deletion_timestamp
            elif action.commit_info is not None:
                if action.commit_info.audit is not None:
                    self._cover(action.commit_info.audit)
                self._take_seal(action.commit_info.seal)
            elif action.meta_data is not None:
                self.metadata = action.meta_data
            self._take_seal(action.seal)
            self.digest = action.digest or self.digest
            for coverage in action.covered or ():
                self._cover(coverage)

    def _take_seal(self, seal: SealCopy | None) -> None:
        if seal is not None:
            self.seals[seal.trail] = seal

    def _cover(self, coverage: Coverage) -> None:
        trail = coverage.trail
        self.segments[coverage.segment].append(coverage)
        self._next_numbers[trail] = max(self.next_number(trail), coverage.stop_number)
        if coverage.high is not None:
            self._highs[trail] = max(self._highs.get(trail, coverage.high), coverage.high)

    def actions(self, now: dt.datetime) -> Iterator[tuple[Action, Action]]:
        """Yield the actions that make this state from nothing, for Delta and for this library."""
        metadata = Action(meta_data=self.metadata)
        yield Action(protocol=Protocol()), Action(protocol=Protocol(), digest=self.digest)
        yield metadata, metadata

        for segment, ranges in self.segments.items():
            txn = Txn(segment, ranges[-1].stop, milliseconds(now))
            yield Action(txn=txn), Action(covered=ranges)
        for seal in self.seals.values():
            yield Action(txn=seal_txn(seal, now)), Action(seal=seal)
        for file in self.files.values():
            yield file.add(now), Action(file=file)

        oldest = milliseconds(now - KEPT_TOMBSTONES)

        for path, removed in self.tombstones.items():
            if removed >= oldest:
                remove = Action(remove=Remove(path=path, deletion_timestamp=removed))
                yield remove, remove


class DeltaLog:
    """Reads and extends the log of one archive.

    Args:
        storage: The files of the archive.
        connect: Returns a connection to DuckDB, which reads and writes checkpoints.
    """

    def __init__(self, storage: Storage, connect: Callable[[], duckdb.DuckDBPyConnection]) -> None:
        self.storage = storage
        self.snapshot = Snapshot()
        self._connect = connect
        self._commit_ids: dict[int, str] = {}

    def update(self, *, is_folded: bool = True) -> Snapshot:
        """Read the commits since the last call, and return the state after them.

        Args:
            is_folded: Whether the first call begins with the last checkpoint.

        Raises:
            AuditReadError: The log is damaged, of another program, or of a newer version.
            OSError: The system or the store refuses access.
        """
        if self.snapshot.version < 0 and is_folded:
            self._read_checkpoint()

        while True:
            first = self.snapshot.version + 1
            paths = [_commit_path(first + number) for number in range(PROBED)]
            contents = self.storage.read_existing(paths)
            present = [content is not None for content in contents]
            count = present.index(False) if False in present else PROBED

            for path, content in zip(paths[:count], contents, strict=False):
                self._apply(path, content or b"")

            if count < PROBED and not any(present[count:]):
                return self.snapshot

            # The files are read one after the other. Another writer may have created this commit and the later ones
            # meanwhile. Commits appear in their order, so one that is still missing was lost.
            if count < PROBED and self.storage.read_existing(paths[count : count + 1]) == [None]:
                raise self._damaged(paths[count], "a commit, got none although later ones exist")

    def require(self) -> Snapshot:
        """Return the newest state of an archive that must exist.

        Raises:
            AuditReadError: Also if there is no archive.
        """
        snapshot = self.update()
        if snapshot.version < 0:
            raise AuditReadError(
                f"{self.storage.root!r}: expected an archive, got no {LOG_FOLDER}; "
                "structlog-audit compact makes one from the closed segments of a trail"
            )

        return snapshot

    def commit(self, operation: str, build: Callable[[Snapshot], list[Action] | None], now: dt.datetime) -> bool:
        """Commit the actions that *build* makes from the newest state.

        Args:
            operation: The name of the operation, for the log.
            build: Returns the actions, whose ``commit_info`` only needs *audit* or *seal*; None if the state excludes them.
            now: The current time.

        Returns:
            Whether the actions were committed; False if *build* returned None.

        Raises:
            OSError, AuditError: The store failed. Whether the commit exists is then unknown.
        """
        commit_id = secrets.token_hex(8)
        self.update()

        while True:
            actions = build(self.snapshot)
            if actions is None:
                return False

            version = self.snapshot.version + 1
            info = CommitInfo(
                timestamp=milliseconds(now),
                operation=operation,
                engine_info=f"structlog-audit/{__version__}",
                id=commit_id,
            )
            # The members of this library, if the operation has any.
            given = next((action.commit_info for action in actions if action.commit_info is not None), None)
            if given is not None:
                info.audit, info.seal = given.audit, given.seal
            others = [action for action in actions if action.commit_info is None]
            info.sha256 = _digest_after(self.snapshot.digest, _encode_lines([Action(commit_info=info), *others]))
            data = _encode_lines([Action(commit_info=info), *others])

            try:
                self.storage.create(_commit_path(version), data)
            except FileExistsError:
                self.update()
                # A store may have created it although its answer was lost.
                if self._commit_ids.get(version) == commit_id:
                    return True

                continue

            self._apply(_commit_path(version), data)
            if version and version % CHECKPOINT_INTERVAL == 0:
                self.write_checkpoint(now)

            return True

    def write_checkpoint(self, now: dt.datetime) -> None:
        """Fold the log up to the present state into a Parquet file, from which readers then start."""
        path = _checkpoint_path(self.snapshot.version)

        with tempfile.TemporaryDirectory(prefix="structlog-audit-") as folder:
            rows = os.path.join(folder, "rows")
            target = os.path.join(folder, "checkpoint")
            count = longest = 0

            with open(rows, "wb") as file:
                for action, own in self.snapshot.actions(now):
                    text = _encode(_encode(own).decode())
                    size = file.write(_encode(action)[:-1] + b',"audit_action":' + text + b"}\n")
                    longest = max(longest, size)
                    count += 1

            source = json_lines(rows, _CHECKPOINT_COLUMNS, longest)
            outcome = "all commits are complete, only the checkpoint that folds them is missing"
            write_parquet(self._connect(), source, "*", target, {}, outcome=outcome)
            tags = {_DIGEST_KEY: file_digest(target)}
            self.storage.upload(target, path)

        self.storage.replace(_LAST_CHECKPOINT, _encode(_LastCheckpoint(self.snapshot.version, count, tags)))

    def _read_checkpoint(self) -> None:
        """Begin with the last checkpoint; with nothing if it is missing or unreadable."""
        content = self.storage.read_existing([_LAST_CHECKPOINT])[0]
        if content is None:
            return

        try:
            last = _decode_last_checkpoint(content)
        except (msgspec.MsgspecError, ValueError):
            return

        version = last.version
        path = _checkpoint_path(version)
        data = self.storage.read_existing([path])[0]
        if data is None or hashlib.sha256(data).hexdigest() != last.tags.get(_DIGEST_KEY):
            return

        actions = self._actions_in_checkpoint(data)
        if actions is not None:
            snapshot = Snapshot()
            where = self.storage.location(path)
            _check_table(actions, where)
            snapshot.apply(actions, where)
            snapshot.version = version
            self.snapshot = snapshot

    def _actions_in_checkpoint(self, data: bytes) -> list[Action] | None:
        """Return the actions in a checkpoint; None if it is damaged, or was written by another program."""
        import duckdb

        with tempfile.NamedTemporaryFile(prefix="structlog-audit-") as file:
            file.write(data)
            file.flush()

            try:
                query = f"SELECT audit_action FROM {parquet([file.name])}"
                rows = self._connect().execute(query).fetchall()

                return _decode_lines("\n".join(text for (text,) in rows))
            except (duckdb.Error, msgspec.MsgspecError, TypeError):
                return None

    def _apply(self, path: str, data: bytes) -> None:
        """Apply the next commit."""
        try:
            actions = _decode_lines(data)
        except (msgspec.MsgspecError, ValueError) as error:
            raise self._damaged(path, f"a commit, got other data ({error})") from error

        if not actions:
            raise self._damaged(path, "a commit, got an empty file")

        if self.snapshot.version < 0 and not any(action.meta_data for action in actions):
            raise self._damaged(path, "the first commit of a table")

        where = self.storage.location(path)
        _check_table(actions, where)
        info = actions[0].commit_info
        if info is None or not info.sha256:
            raise AuditReadError(
                f"{where}: expected a commit of structlog-audit, got one without a digest, of another program or damaged: "
                "copy this file again from where the archive was copied, or restore the table to the version before it"
            )

        plain = data.replace(b',"sha256":"%b"' % info.sha256.encode(), b"", 1)
        digest = _digest_after(self.snapshot.digest, plain)
        if digest != info.sha256:
            raise self._damaged(path, f"the commit {info.sha256}, got changed data, or a commit of another archive")

        self.snapshot.apply(actions, where)
        self.snapshot.version += 1
        self.snapshot.digest = digest
        self._commit_ids[self.snapshot.version] = info.id

    def _damaged(self, path: str, expected: str) -> AuditReadError:
        where = self.storage.location(path)
        return AuditReadError(f"{where}: expected {expected}; copy this file again from where the archive was copied")


def seal_txn(seal: SealCopy, now: dt.datetime) -> Txn:
    """Return the mark that the table has the lines of *seal*."""
    return Txn(f"seal/{seal.trail}", seal.size, milliseconds(now))


def _encode_lines(actions: Iterable[Action]) -> bytes:
    return b"".join(_encode(action) + b"\n" for action in actions)


def _digest_after(previous: str, data: bytes) -> str:
    """Return the digest of a commit with *data*, which has no digest, after one with the digest *previous*."""
    return hashlib.sha256(previous.encode() + data).hexdigest()


def _check_table(actions: Iterable[Action], where: str) -> None:
    """Raise `AuditReadError` unless the table that *actions* describe is one of this library and version."""
    for action in actions:
        if action.meta_data is not None:
            _check_format(action.meta_data, where)
        if action.protocol is not None:
            _check_protocol(action.protocol, where)


def _check_format(metadata: MetaData, where: str) -> None:
    version = metadata.configuration.get(FORMAT_KEY)
    if version is None:
        raise AuditReadError(f"{where}: expected an archive of structlog-audit, got another Delta table")

    if version != str(FORMAT):
        raise AuditReadError(
            f"{where}: expected format {FORMAT} of an archive, got {version!r}: pip install --upgrade structlog-audit"
        )


def _check_protocol(protocol: Protocol, where: str) -> None:
    if protocol.min_reader_version > 1 or protocol.min_writer_version > 2:
        raise AuditReadError(
            f"{where}: expected Delta's protocol 1/2, got {protocol.min_reader_version}/{protocol.min_writer_version}: "
            "another program upgraded the table, which this version cannot read"
        )


def _commit_path(version: int) -> str:
    return f"{LOG_FOLDER}/{version:020}.json"


def _checkpoint_path(version: int) -> str:
    return f"{LOG_FOLDER}/{version:020}.checkpoint.parquet"
