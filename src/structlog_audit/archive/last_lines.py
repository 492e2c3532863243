"""The last lines that an archive has of a trail: a writer may repeat them in the next segment, after a failed fsync."""

from __future__ import annotations

from structlog_audit.archive.database import Database, parquet
from structlog_audit.archive.delta_log import Snapshot
from structlog_audit.archive.rows import STORED_COLUMNS, encode_line
from structlog_audit.archive.storage import Storage
from structlog_audit.trail.reading.repeated_lines import REMEMBERED


def last_lines(
    database: Database, storage: Storage, snapshot: Snapshot, trail: str, stop: int | None = None
) -> dict[str, bytes]:
    """Return the first lines, without their LF, of the last events of a trail by their ids, in the order of commit.

    Args:
        database: Reads the data files.
        storage: The files of the archive.
        snapshot: The state of the archive.
        trail: The name of the trail, ``host:path``.
        stop: The number after the last event; None means all.

    Raises:
        AuditReadError: A data file is missing or damaged.
    """
    end = snapshot.next_number(trail) if stop is None else stop
    begin = end - REMEMBERED
    files = [
        file
        for file in snapshot.files.values()
        if file.trail == trail and file.numbers[0] < end and file.numbers[1] >= begin
    ]

    if not files:
        return {}

    files.sort(key=lambda file: file.numbers)
    source = parquet(storage.location(file.path) for file in files)
    condition = "trail = $trail AND n >= $begin AND n < $stop"
    stored = STORED_COLUMNS
    sql = f"SELECT line, {stored}, chain FROM {source} WHERE {condition} ORDER BY n"
    parameters = {"trail": trail, "begin": begin, "stop": end}

    return {
        event_id: (encode_line(event_id, *rest) if line is None else line).partition(b"\n")[0]
        for line, event_id, *rest in database.rows(sql, parameters)
    }
