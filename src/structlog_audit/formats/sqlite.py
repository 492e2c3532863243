"""SQLite databases of events, for sqlite3, Datasette and spreadsheets.

================================  ====================================================================================
table                             content
================================  ====================================================================================
``events``                        a row per event, numbered in the order of the export; entry ids and metadata as JSON
``event_entries``                 a row for each entry id of an event
``export_information``            one row: source, filters, number of events, verdict on completeness, time, version
``events_fts``                    a full-text index (FTS5) of ``events``, if it was requested
================================  ====================================================================================

**Guarantees**: texts are bound, never part of SQL. Timestamps sort as text; numbers in the metadata keep all digits. Memory is
bounded: rows are written in one transaction without a journal, for a file that is discarded if it is not completed.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final

from structlog_audit._version import __version__
from structlog_audit.events.codec import to_json
from structlog_audit.events.event import AuditEvent, rfc3339
from structlog_audit.exceptions import AuditValueError

SCHEMA_VERSION: Final = 1
"""The ``user_version`` of a database. It changes if a reader of the tables would have to."""

_CHUNK = 500

_TABLES = """
CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    event_id TEXT NOT NULL,
    timestamp TEXT NOT NULL,
    timestamp_us INTEGER NOT NULL,
    operation TEXT NOT NULL,
    user_id TEXT,
    session_id TEXT,
    entry_ids TEXT,
    metadata TEXT,
    status TEXT NOT NULL,
    error_message TEXT,
    duration_ms REAL,
    kind TEXT
);
CREATE TABLE event_entries (
    event_id TEXT NOT NULL,
    entry_id TEXT NOT NULL,
    PRIMARY KEY (event_id, entry_id)
) WITHOUT ROWID;
CREATE TABLE export_information (
    source TEXT,
    period_start TEXT,
    period_end TEXT,
    filters TEXT,
    events INTEGER NOT NULL,
    completeness TEXT,
    completeness_report TEXT,
    exported_at TEXT NOT NULL,
    library_version TEXT NOT NULL
);
"""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)

_INSERT_EVENT = "INSERT INTO events VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# An event may name an entry twice, and a damaged trail may have an event twice.
_INSERT_ENTRY = "INSERT OR IGNORE INTO event_entries VALUES (?, ?)"
_INSERT_INFORMATION = """
INSERT INTO export_information VALUES (
    :source, :period_start, :period_end, :filters, :events, :completeness, :completeness_report, :exported_at, :library_version
)
"""
_INFORMATION = ("source", "period_start", "period_end", "filters", "completeness", "completeness_report")
"""The columns that only the source of the events knows."""

# Made last: an index that grows with each row takes several times as long.
_INDEXES = """
CREATE INDEX events_event_id ON events (event_id);
CREATE INDEX events_timestamp ON events (timestamp);
CREATE INDEX events_user_id ON events (user_id);
CREATE INDEX events_session_id ON events (session_id);
CREATE INDEX events_operation ON events (operation);
CREATE INDEX events_status ON events (status);
CREATE INDEX event_entries_entry_id ON event_entries (entry_id);
"""

_FULL_TEXT = """
CREATE VIRTUAL TABLE events_fts USING fts5 (
    operation, user_id, session_id, entry_ids, metadata, error_message, content="events", content_rowid="number"
);
INSERT INTO events_fts (events_fts) VALUES ('rebuild');
"""


def has_full_text() -> bool:
    """Return whether the SQLite of this Python can make full-text indexes."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE probe USING fts5 (text)")
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True


def require_full_text() -> None:
    """Raise `AuditValueError` if the SQLite of this Python cannot make full-text indexes."""
    if not has_full_text():
        raise AuditValueError(
            f"full_text: expected SQLite with FTS5, got SQLite {sqlite3.sqlite_version} of this Python without it"
        )


def write_events(connection: sqlite3.Connection, events: Iterable[AuditEvent]) -> int:
    """Begin a transaction, write the tables and the rows of *events* in their order, and return the number of events.

    Args:
        connection: A connection to an empty database, in autocommit mode (``isolation_level=None``).
        events: The events, taken one by one. Their values are plain, as in events read from a trail.
    """
    # The file is discarded if it is not completed, so neither a journal nor a sync protects anything.
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    _execute_all(connection, f"BEGIN; {_TABLES}")

    count = 0
    remaining = iter(events)
    while chunk := list(islice(remaining, _CHUNK)):
        connection.executemany(_INSERT_EVENT, map(_row, chunk))
        entries = ((event.event_id, entry_id) for event in chunk for entry_id in event.entry_ids)
        connection.executemany(_INSERT_ENTRY, entries)
        count += len(chunk)
    return count


def complete(
    connection: sqlite3.Connection,
    information: Mapping[str, Any],
    count: int,
    exported_at: dt.datetime,
    *,
    full_text: bool,
) -> None:
    """Write the information about the export and the indexes, and commit.

    Args:
        connection: The connection after `write_events`.
        information: Columns of ``export_information``; containers become JSON, and an absent one is NULL.
        count: The number of events.
        exported_at: The time of the export.
        full_text: Whether to make a full-text index.
    """
    row = {name: _plain(information.get(name)) for name in _INFORMATION}
    row |= {"events": count, "exported_at": rfc3339(exported_at), "library_version": __version__}
    connection.execute(_INSERT_INFORMATION, row)

    _execute_all(connection, _INDEXES)
    if full_text:
        _execute_all(connection, _FULL_TEXT)
    connection.execute("COMMIT")


def _execute_all(connection: sqlite3.Connection, statements: str) -> None:
    # The method executescript would commit first.
    for statement in statements.split(";"):
        connection.execute(statement)


def _plain(value: Any) -> Any:
    return to_json(value) if isinstance(value, (dict, list)) else value


def _row(event: AuditEvent) -> tuple[Any, ...]:
    """Return the row of *event* without its number; absent members are NULL."""
    return (
        event.event_id,
        rfc3339(event.timestamp),
        (event.timestamp - _EPOCH) // _MICROSECOND,
        str(event.operation),
        event.user_id,
        event.session_id,
        to_json(event.entry_ids) if event.entry_ids else None,
        to_json(event.metadata) if event.metadata else None,
        str(event.status),
        event.error_message,
        event.duration_ms,
        event.kind,
    )
