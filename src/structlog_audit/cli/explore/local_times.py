"""The times of a zone in an exported database, beside the timestamps in UTC, which stay as they are."""

from __future__ import annotations

import datetime as dt
import sqlite3
from contextlib import closing
from functools import partial

from structlog_audit.reports.period import in_zone

LOCAL_TIME = "local_time"
"""The column with the local time and its offset (RFC 3339). Times of an hour that occurs twice do not sort by it."""

LOCAL_DAY = "local_day"
"""The column with the local day."""

_COLUMNS = """
ALTER TABLE events ADD COLUMN local_time TEXT;
ALTER TABLE events ADD COLUMN local_day TEXT;
UPDATE events SET local_time = local_time(timestamp);
UPDATE events SET local_day = substr(local_time, 1, 10);
CREATE INDEX events_local_day ON events (local_day);
"""


def time_column(zone: dt.tzinfo) -> str:
    """Return the column of the events with their times in *zone*."""
    return "timestamp" if zone is dt.UTC else LOCAL_TIME


def add_local_times(path: str, zone: dt.tzinfo) -> None:
    """Add the columns `LOCAL_TIME` and `LOCAL_DAY` to the events of the database at *path*, unless *zone* is UTC."""
    if zone is dt.UTC:
        return

    with closing(sqlite3.connect(path)) as connection:
        add_functions(connection, zone)
        connection.executescript(_COLUMNS)


def add_functions(connection: sqlite3.Connection, zone: dt.tzinfo) -> None:
    """Add the SQL functions ``local_time(timestamp)`` and ``local_today()`` of *zone* to *connection*."""
    connection.create_function("local_time", 1, partial(local_time, zone=zone), deterministic=True)
    connection.create_function("local_today", 0, lambda: dt.datetime.now(zone).date().isoformat())


def local_time(text: str | None, zone: dt.tzinfo) -> str | None:
    """Return a timestamp as the time of *zone* with its offset; in UTC, and None, as it is."""
    if text is None or zone is dt.UTC:
        return text

    return in_zone(dt.datetime.fromisoformat(text), zone).isoformat(timespec="microseconds")
