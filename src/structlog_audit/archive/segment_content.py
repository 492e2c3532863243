"""The content of archived segments: the data files that have it, and its bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from structlog_audit.archive.actions import Coverage, DataFile
from structlog_audit.archive.archived_bytes import Gap, OnDamage, archived_bytes, decode_gaps, provable_bytes
from structlog_audit.archive.database import Database, identifier, parquet, quoted
from structlog_audit.archive.delta_log import DeltaLog, Snapshot
from structlog_audit.archive.promotion import Path, pointer, promoted_columns
from structlog_audit.archive.storage import Storage
from structlog_audit.exceptions import AuditReadError


def segment_bytes(log: DeltaLog, database: Database, coverage: Coverage) -> Iterator[bytes]:
    """Yield the bytes of a range of a segment.

    Raises:
        AuditReadError: A file is missing or damaged.
    """
    locations = [log.storage.location(file.path) for file in data_files_of(log.snapshot, coverage)]
    return archived_bytes(database, locations, coverage, gaps_of(log.storage, coverage))


def provable_segment_bytes(
    log: DeltaLog, database: Database, coverage: Coverage, on_damage: OnDamage
) -> Iterator[bytes]:
    """Yield the bytes of a range of a segment as far as they can be read, as `provable_bytes` does."""
    columns = promoted_columns(log.snapshot.configuration)
    checks = {}
    for file in data_files_of(log.snapshot, coverage):
        location = log.storage.location(file.path)
        checks[location] = _check_of(file, columns)

    gaps: list[Gap] = []
    try:
        gaps = gaps_of(log.storage, coverage)
    except AuditReadError as error:
        on_damage(error)
    return provable_bytes(database, checks, coverage, gaps, on_damage)


def _check_of(file: DataFile, columns: Mapping[str, Path]) -> str:
    """Return the SQL condition that the promoted columns of *file* have the members of the metadata."""
    conditions = ["true"]

    for name in sorted(file.promoted & columns.keys()):
        path = quoted(pointer(columns[name]))
        member = f"metadata, {path}"
        text = f"CASE WHEN json_type({member}) = 'VARCHAR' THEN json_extract_string({member}) END"

        # Anything may be in the metadata of a row that somebody changed.
        column = identifier(name)
        conditions.append(f"(CASE WHEN json_valid(metadata) THEN {text} END) IS NOT DISTINCT FROM {column}")

    return " AND ".join(conditions)


def gaps_of(storage: Storage, coverage: Coverage) -> list[Gap]:
    """Return the bytes of *coverage* that are not events.

    Raises:
        AuditReadError: Their file is missing or damaged.
    """
    if coverage.quarantine is None:
        return []
    try:
        return decode_gaps(storage.read(coverage.quarantine))
    except (OSError, msgspec.MsgspecError) as error:
        raise AuditReadError(f"{storage.location(coverage.quarantine)}: cannot be read: {error}") from error


def data_files_of(snapshot: Snapshot, coverage: Coverage) -> Iterator[DataFile]:
    """Yield the data files that may have rows of *coverage*."""
    for file in snapshot.files.values():
        first, last = file.numbers
        has_numbers = first < coverage.stop_number and last >= coverage.first

        if file.trail == coverage.trail and has_numbers:
            yield file


def is_pruned(ranges: list[Coverage], snapshot: Snapshot) -> bool:
    """Return whether some events of a segment may be on days that were pruned."""
    before = snapshot.pruned_before
    if before is None:
        return False
    first = before.timestamp() * 1_000_000
    return any(coverage.least is not None and coverage.least < first for coverage in ranges)


def is_cut(log: DeltaLog, database: Database, ranges: list[Coverage]) -> bool:
    """Return whether rows of a segment are gone with days that were pruned. What was archived later has all of them.

    Raises:
        AuditReadError: A data file cannot be read.
    """
    if not is_pruned(ranges, log.snapshot):
        return False

    return any(_row_count(log, database, coverage) < coverage.stop_number - coverage.first for coverage in ranges)


def _row_count(log: DeltaLog, database: Database, coverage: Coverage) -> int:
    """Return the number of rows that the archive has of *coverage*."""
    locations = [log.storage.location(file.path) for file in data_files_of(log.snapshot, coverage)]
    if not locations:
        return 0

    within = f"n >= {coverage.first} AND n < {coverage.stop_number}"
    ((count,),) = database.rows(f"SELECT count(*) FROM {parquet(locations)} WHERE {within}")

    return int(count)
