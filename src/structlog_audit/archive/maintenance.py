"""The upkeep of an archive: `show`, `merge`, `prune` and `gc`.

**Guarantees.** Each change is one commit. Only `gc` deletes files, and only if the log does not name them and they have been
unused for a while: a query under way still reads them, and a compaction under way has not committed its own yet.
"""

from __future__ import annotations

import datetime as dt
import os
import secrets
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from structlog_audit._durations import parse_duration
from structlog_audit.archive.actions import PRUNED_KEY, Action, CommitInfo, DataFile, Remove, milliseconds
from structlog_audit.archive.archived_bytes import QUARANTINE_FOLDER
from structlog_audit.archive.database import Database, file_digest, identifier, parquet, write_parquet
from structlog_audit.archive.delta_log import DeltaLog, Snapshot
from structlog_audit.archive.opening import opened_log
from structlog_audit.archive.promotion import pointer, promoted_columns
from structlog_audit.archive.rows import COLUMNS
from structlog_audit.archive.seal_copies import SEALS_FOLDER, files_of
from structlog_audit.exceptions import AuditValueError, AuditWriteError

_MERGED_BYTES = 256_000_000
"""The size up to which data files are merged."""

_LONGEST_AGE = dt.timedelta(days=365_000)
"""The longest age, a thousand years, before which the calendar has dates."""

Clock = Callable[[], dt.datetime]


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


class Summary(msgspec.Struct, frozen=True):
    """The contents of an archive.

    Attributes:
        events: The number of events.
        segments: The number of segments, or parts of them.
        files: The number of data files.
        bytes_archived: The bytes of the segments.
        bytes_stored: The bytes of the data files.
        first_day: The first day with events (UTC); None without any.
        last_day: The last one.
        trails: The number of events by trail, ``host:path``.
        sealed: The number of lines that the copied seal of each sealed trail covers; they may be more than were archived.
        promoted: The promoted columns, and the members of the metadata that they hold, as JSON Pointers.
        pruned_before: The beginning of the first day that was not pruned; None if none was.
        version: The number of the last commit.
    """

    events: int
    segments: int
    files: int
    bytes_archived: int
    bytes_stored: int
    first_day: str | None
    last_day: str | None
    trails: dict[str, int]
    sealed: dict[str, int]
    promoted: dict[str, str]
    pruned_before: dt.datetime | None
    version: int


def show(archive: str | os.PathLike[str], *, storage_options: dict[str, Any] | None = None) -> Summary:
    """Return the contents of an archive, from its log alone.

    Raises:
        AuditReadError: The archive cannot be read.
    """
    with opened_log(archive, storage_options) as (log, _):
        snapshot = log.snapshot
        days = [file.date for file in snapshot.files.values()]
        trails: Counter[str] = Counter()

        for file in snapshot.files.values():
            trails[file.trail] += file.rows

        promoted = promoted_columns(snapshot.configuration)

        return Summary(
            events=trails.total(),
            segments=len(snapshot.segments),
            files=len(snapshot.files),
            bytes_archived=sum(ranges[-1].stop for ranges in snapshot.segments.values()),
            bytes_stored=sum(file.size for file in snapshot.files.values()),
            first_day=min(days, default=None),
            last_day=max(days, default=None),
            trails=dict(sorted(trails.items())),
            sealed={name: copy.size for name, copy in sorted(snapshot.seals.items())},
            promoted={name: pointer(path) for name, path in promoted.items()},
            pruned_before=snapshot.pruned_before,
            version=snapshot.version,
        )


class Merged(msgspec.Struct, frozen=True):
    """The result of `merge`: how many data files were replaced, and by how many."""

    before: int
    after: int


def merge(
    archive: str | os.PathLike[str],
    *,
    storage_options: dict[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
    now: Clock = _utc_now,
) -> Merged:
    """Merge the data files of one trail and day into one, where there are several.

    The replaced files stay until `gc` deletes them.

    Args:
        archive: The archive.
        storage_options: Parameters of fsspec's file system, for a URL.
        progress: Called with the number of bytes of data files merged so far.
        now: The clock.

    Raises:
        AuditReadError: The archive cannot be read.
        AuditWriteError: It cannot be written, or a merged file would not hold the same rows.
    """
    before = after = done = 0

    with opened_log(archive, storage_options) as (log, database):
        for files in _mergeable(log.snapshot):
            if _merge(log, database, files, now()):
                before += len(files)
                after += 1

            done += sum(file.size for file in files)
            if progress is not None:
                progress(done)

    return Merged(before, after)


def _mergeable(snapshot: Snapshot) -> list[list[DataFile]]:
    """Return groups of small data files with the same trail, day and columns, in order."""
    groups: defaultdict[tuple[Any, ...], list[DataFile]] = defaultdict(list)

    for file in snapshot.files.values():
        groups[file.trail, file.date, file.promoted].append(file)

    mergeable = []

    for files in groups.values():
        files.sort(key=lambda file: file.numbers)
        group: list[DataFile] = []
        size = 0

        for file in files:
            if size + file.size > _MERGED_BYTES:
                mergeable.append(group)
                group, size = [], 0

            group.append(file)
            size += file.size

        mergeable.append(group)

    return [group for group in mergeable if len(group) > 1]


def _merge(log: DeltaLog, database: Database, files: Sequence[DataFile], now: dt.datetime) -> bool:
    """Replace *files* by one; False if another program replaced one of them first."""
    storage = log.storage
    names = [name for name, _ in COLUMNS] + [identifier(name) for name in sorted(files[0].promoted)]
    columns = ", ".join(names)
    source = parquet(storage.location(file.path) for file in files)
    first = files[0]

    with tempfile.TemporaryDirectory(prefix="structlog-audit-") as folder:
        target = os.path.join(folder, "merged")
        # Late events of one file may stand between those of another.
        write_parquet(database.connect(), f"(SELECT * FROM {source} ORDER BY n)", columns, target, {})
        digest = f"SELECT count(*), bit_xor(hash({columns})) FROM "
        if list(database.rows(digest + source)) != list(database.rows(digest + parquet([target]))):
            raise AuditWriteError(f"{storage.root}: a merged file would not hold the same rows; nothing was committed")

        merged = DataFile(
            path=f"date={first.date}/{secrets.token_hex(6)}.parquet",
            date=first.date,
            size=os.path.getsize(target),
            rows=sum(file.rows for file in files),
            trail=first.trail,
            numbers=(min(file.numbers[0] for file in files), max(file.numbers[1] for file in files)),
            times=(min(file.times[0] for file in files), max(file.times[1] for file in files)),
            order=(min(file.order[0] for file in files), max(file.order[1] for file in files)),
            ids=(min(file.ids[0] for file in files), max(file.ids[1] for file in files)),
            promoted=first.promoted,
            sha256=file_digest(target),
        )

        storage.upload(target, merged.path)

    def build(snapshot: Snapshot) -> list[Action] | None:
        if any(file.path not in snapshot.files for file in files):
            return None

        removed = [_remove(file.path, now, data_change=False) for file in files]

        return [Action(commit_info=CommitInfo()), *removed, merged.add(now, data_change=False)]

    if log.commit("MERGE", build, now):
        return True

    storage.delete(merged.path)

    return False


def prune(
    archive: str | os.PathLike[str],
    older_than: str | dt.timedelta,
    *,
    storage_options: dict[str, Any] | None = None,
    now: Clock = _utc_now,
) -> int:
    """Drop the days (UTC) that ended before a time ago, and return the number of events in them.

    Readers know from then on since when the archive is complete. The files stay until `gc` deletes them.

    Args:
        archive: The archive.
        older_than: The age, such as ``730d``.
        storage_options: Parameters of fsspec's file system, for a URL.
        now: The clock.

    Raises:
        AuditReadError, AuditWriteError: The archive cannot be read, or not be written.
        AuditValueError: *older_than* is not a duration.
    """
    current = now()
    first_kept = (current - parse_age("older_than", older_than)).date().isoformat()
    pruned = 0

    def build(snapshot: Snapshot) -> list[Action] | None:
        nonlocal pruned
        files = [file for file in snapshot.files.values() if file.date < first_kept]
        pruned = sum(file.rows for file in files)
        metadata = snapshot.metadata
        if metadata is None or not files:
            return None

        known = metadata.configuration.get(PRUNED_KEY, first_kept)
        configuration = {**metadata.configuration, PRUNED_KEY: max(known, first_kept)}
        changed = msgspec.structs.replace(metadata, configuration=configuration)
        removed = [_remove(file.path, current, data_change=True) for file in files]

        return [Action(commit_info=CommitInfo()), Action(meta_data=changed), *removed]

    with opened_log(archive, storage_options) as (log, _):
        log.commit("PRUNE", build, current)

    return pruned


class Collected(msgspec.Struct, frozen=True):
    """The result of `gc`: how many files were deleted, and their bytes."""

    files: int
    bytes_freed: int


def gc(
    archive: str | os.PathLike[str],
    *,
    older_than: str | dt.timedelta = "1d",
    storage_options: dict[str, Any] | None = None,
    now: Clock = _utc_now,
) -> Collected:
    """Delete the files that the archive no longer names: replaced, pruned, or left by a compaction that did not end.

    Args:
        archive: The archive.
        older_than: How long a file must have been out of use. It must exceed the duration of a query and of a compaction.
        storage_options: Parameters of fsspec's file system, for a URL.
        now: The clock.

    Raises:
        AuditReadError, AuditWriteError: The archive cannot be read, or not be written.
        AuditValueError: *older_than* is not a duration.
    """
    oldest = now() - parse_age("older_than", older_than)
    count = size = 0

    with opened_log(archive, storage_options) as (log, _):
        # Listed first: later commits are not in the listing.
        found = list(log.storage.files("."))
        snapshot = log.update()
        used = set(snapshot.files)

        for ranges in snapshot.segments.values():
            used.update(coverage.quarantine for coverage in ranges if coverage.quarantine is not None)
        for copy in snapshot.seals.values():
            used |= files_of(log.storage, copy)

        for file in found:
            removed = snapshot.tombstones.get(file.path)
            unused_since = milliseconds(file.modified) if removed is None else removed
            is_ours = file.path.startswith(("date=", f"{QUARANTINE_FOLDER}/", f"{SEALS_FOLDER}/"))
            if is_ours and file.path not in used and unused_since <= milliseconds(oldest):
                log.storage.delete(file.path)
                count += 1
                size += file.size

    return Collected(count, size)


def parse_age(name: str, value: str | dt.timedelta) -> dt.timedelta:
    """Return the duration that the parameter *name* states.

    Raises:
        AuditValueError: It states none, or one that the calendar does not have.
    """
    try:
        age = parse_duration(value) if isinstance(value, str) else value
    except OverflowError:
        age = dt.timedelta.max

    if not isinstance(age, dt.timedelta):
        raise AuditValueError(f"{name}={value!r}: expected a duration such as 30d or 12h")
    if age > _LONGEST_AGE:
        raise AuditValueError(f"{name}={value!r}: expected at most {_LONGEST_AGE.days:,} days")

    return age


def _remove(path: str, now: dt.datetime, *, data_change: bool) -> Action:
    return Action(remove=Remove(path=path, deletion_timestamp=milliseconds(now), data_change=data_change))
