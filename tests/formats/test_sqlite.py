"""Tests of `structlog_audit.formats.sqlite`: exports as databases."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import sqlite3
import subprocess
import sys
import tracemalloc
from contextlib import closing

import pytest
from archives import compacted, write_closed
from commands import GOLDEN, run
from hypothesis import given
from hypothesis import strategies as st
from strategies import metadata as any_metadata
from trail_files import line_of, write_trail

from structlog_audit import AuditEvent, AuditLogger, AuditValueError, __version__, open_trail
from structlog_audit.archive import open_archive
from structlog_audit.events.codec import decode_event, encode_event
from structlog_audit.events.event import Operation
from structlog_audit.export import export
from structlog_audit.formats import sqlite

NOW = dt.datetime(2025, 1, 15, 10, 30, 45, tzinfo=dt.UTC)
HOSTILE = ["'; DROP TABLE events; --", '"', "=1+1", "<script>", "a\x00b", "\r\n", "💥\u202e", "%s", "?1", ":source", ""]


def event(number=1, **members):
    """Return an event with a plain operation and the given *members*."""
    return AuditEvent(**{"event_id": f"evt_{number}", "timestamp": NOW, "operation": Operation("read"), **members})


def exported(events, path, **options):
    """Export *events* to a database at *path*, and return a read-only connection to it for a ``with`` block."""
    export(events, path, format="sqlite", now=NOW, **options)
    return closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True))


def rows(connection, query, *values):
    """Return the rows of *query* as dictionaries."""
    cursor = connection.execute(query, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def as_event(row):
    """Return the event that a row of ``events`` was made of."""
    members = {name: row[name] for name in AuditEvent.__struct_fields__ if row[name] is not None}
    for name in ("entry_ids", "metadata"):
        if name in members:
            members[name] = json.loads(members[name])
    return decode_event(json.dumps(members).encode())


def test_row_has_all_members_of_its_event(tmp_path):
    """A row has the text, the number or the JSON of each member; absent members are NULL."""
    full = event(
        user_id="00123", session_id="s", entry_ids=["a", "b"], metadata={"k": [1]}, error_message="no", duration_ms=1.5,
        kind="gap", timestamp=NOW.replace(microsecond=7),
    )  # fmt: skip
    with exported([full, event(2)], tmp_path / "out.db") as connection:
        first, second = rows(connection, "SELECT * FROM events ORDER BY number")
    us = int(NOW.timestamp()) * 1_000_000
    assert first == {
        "number": 1, "event_id": "evt_1", "timestamp": "2025-01-15T10:30:45.000007Z", "timestamp_us": us + 7,
        "operation": "read", "user_id": "00123", "session_id": "s", "entry_ids": '["a","b"]', "metadata": '{"k":[1]}',
        "status": "SUCCESS", "error_message": "no", "duration_ms": 1.5, "kind": "gap",
    }  # fmt: skip
    assert second == {
        **dict.fromkeys(first), "number": 2, "event_id": "evt_2", "timestamp": "2025-01-15T10:30:45.000000Z",
        "timestamp_us": us, "operation": "read", "status": "SUCCESS",
    }  # fmt: skip


@given(st.lists(any_metadata, max_size=4), st.lists(st.text(max_size=5), max_size=3), st.text(max_size=9))
def test_every_event_is_read_back_as_from_its_line(tmp_path_factory, documents, entries, text):
    """For all texts and metadata, the rows have the values of the events' lines."""
    events = [
        event(n, metadata=one, entry_ids=entries, user_id=text, operation=text) for n, one in enumerate(documents)
    ]
    with exported(events, tmp_path_factory.mktemp("x") / "out.db") as connection:
        found = [as_event(row) for row in rows(connection, "SELECT * FROM events ORDER BY number")]
    assert found == [decode_event(encode_event(one)) for one in events]


def test_hostile_texts_are_data(tmp_path):
    """Texts with SQL, formulas, markup and control characters are stored as they are, and can be searched for."""
    events = [
        event(n, user_id=text, operation=text, error_message=text, entry_ids=[text], metadata={text: text})
        for n, text in enumerate(HOSTILE)
    ]
    with exported(events, tmp_path / "out.db", full_text=True) as connection:
        for text in HOSTILE:
            (found,) = rows(connection, "SELECT * FROM events WHERE user_id = ?", text)
            assert (found["operation"], found["error_message"]) == (text, text)
            assert (json.loads(found["entry_ids"]), json.loads(found["metadata"])) == ([text], {text: text})
            assert rows(connection, "SELECT event_id FROM event_entries WHERE entry_id = ?", text) == [
                {"event_id": found["event_id"]}
            ]
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, -(2**63), 9007199254740993])
def test_integers_beyond_those_of_sqlite_keep_their_digits(tmp_path, number):
    """An integer of 64 bits in the metadata is in the JSON text with all digits."""
    with exported([event(metadata={"n": number})], tmp_path / "out.db") as connection:
        (found,) = rows(connection, "SELECT metadata FROM events")
    assert found["metadata"] == f'{{"n":{number}}}'


def test_entries_are_a_table_of_distinct_pairs(tmp_path):
    """An entry is found by its id; an entry that an event names twice, and an event that occurs twice, add no row."""
    twice = event(1, entry_ids=["a", "b", "a"])
    with exported([twice, twice, event(2, entry_ids=["b"])], tmp_path / "out.db") as connection:
        pairs = connection.execute("SELECT event_id, entry_id FROM event_entries").fetchall()
        joined = connection.execute("SELECT count(*) FROM events JOIN event_entries USING (event_id)").fetchone()
    assert sorted(pairs) == [("evt_1", "a"), ("evt_1", "b"), ("evt_2", "b")]
    assert joined == (5,)


@pytest.mark.parametrize("column", ["timestamp", "user_id", "operation", "status", "session_id", "event_id"])
def test_column_of_a_usual_query_is_indexed(tmp_path, column):
    """SQLite finds the rows by an index."""
    with exported([event()], tmp_path / "out.db") as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT * FROM events WHERE {column} = 'x'").fetchone()
    assert plan[3] == f"SEARCH events USING INDEX events_{column} ({column}=?)"


def test_full_text_is_there_on_request_only(tmp_path):
    """With ``full_text``, the texts of an event and of its metadata can be searched for; otherwise there is no index."""
    events = [event(1, metadata={"reason": "spilled coffee"}), event(2, error_message="no coffee"), event(3)]
    with exported(events, tmp_path / "out.db", full_text=True) as connection:
        query = "SELECT event_id FROM events WHERE number IN (SELECT rowid FROM events_fts WHERE events_fts MATCH ?)"
        assert connection.execute(query, ("coffee",)).fetchall() == [("evt_1",), ("evt_2",)]
    with exported(events, tmp_path / "out.db") as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    assert tables == [("events",), ("event_entries",), ("export_information",)]


def test_full_text_of_another_format_is_refused(tmp_path):
    """Only a database has an index; nothing is written."""
    with pytest.raises(AuditValueError, match="full_text: expected the format sqlite, got 'csv'"):
        AuditLogger().export_to_file(tmp_path / "out.csv", full_text=True)
    assert list(tmp_path.iterdir()) == []


def test_full_text_without_fts5_is_refused(tmp_path, monkeypatch):
    """A Python whose SQLite lacks FTS5 says so before it writes anything."""
    monkeypatch.setattr(sqlite, "has_full_text", lambda: False)
    with pytest.raises(AuditValueError, match="expected SQLite with FTS5, got SQLite 3"):
        AuditLogger().export_to_file(tmp_path / "out.db", full_text=True)
    assert list(tmp_path.iterdir()) == []


# --- the information about the export ----------------------------------------------------------------------------------------


def test_information_names_source_filters_verdict_and_version(tmp_path):
    """One row states source, period, filters, number of events, verdict on completeness, time and version."""
    path = write_trail(tmp_path / "logs", (100, line_of(1, user_id="u") + line_of(2)), active=line_of(4, user_id="u"))
    trail = open_trail(path)
    start, end = (dt.datetime.fromisoformat(f"2025-01-15T10:{minute}:00Z") for minute in (30, 31))
    assert trail.export_to_file(tmp_path / "out.db", user_id="u", start_time=start, end_time=end) == 2
    with closing(sqlite3.connect(tmp_path / "out.db")) as connection:
        (found,) = rows(connection, "SELECT * FROM export_information")
    verdict = trail.completeness(start, end)
    assert verdict.verdict == "incomplete"
    assert json.loads(found.pop("completeness_report")) == verdict.to_dict()
    assert found.pop("exported_at").startswith("20")
    assert json.loads(found.pop("filters")) == {
        "user_id": "u", "start_time": "2025-01-15T10:30:00+00:00", "end_time": "2025-01-15T10:31:00+00:00",
    }  # fmt: skip
    assert found == {
        "source": verdict.source.sentence(), "period_start": "2025-01-15T10:30:00.000000Z",
        "period_end": "2025-01-15T10:31:00.000000Z", "events": 2, "completeness": "incomplete",
        "library_version": __version__,
    }  # fmt: skip


def test_information_about_events_of_a_program_has_no_verdict(tmp_path):
    """Of events that a program selected, only number, time and version are known."""
    logger = AuditLogger()
    logger.export_events([event()], tmp_path / "out.db")
    with closing(sqlite3.connect(tmp_path / "out.db")) as connection:
        (found,) = rows(connection, "SELECT * FROM export_information")
    assert found["events"] == 1
    assert {name for name, value in found.items() if value is None} == {
        "source", "period_start", "period_end", "filters", "completeness", "completeness_report",
    }  # fmt: skip


def test_export_of_an_archive_names_its_trail(tmp_path):
    """An archive exports the events of its queries, and the information names the archived trail."""
    path = write_closed(tmp_path / "logs", GOLDEN.read_bytes())
    compacted(path, tmp_path / "archive")
    with open_archive(tmp_path / "archive", live=path) as source:
        assert source.export_to_file(tmp_path / "out.db", user_id="ann") == source.count_events(user_id="ann") > 0
    with closing(sqlite3.connect(tmp_path / "out.db")) as connection:
        (found,) = rows(connection, "SELECT source, events FROM export_information")
        assert connection.execute("SELECT count(*) FROM events WHERE user_id = 'ann'").fetchone() == (found["events"],)
    assert str(path) in found["source"]


# --- the command -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["db", "sqlite", "sqlite3"])
def test_command_exports_the_events_of_the_query(tmp_path, suffix):
    """``export --to audit.db`` has the events that ``query`` shows, and the conditions of the command line."""
    trail = write_trail(tmp_path / "logs", active=GOLDEN.read_bytes())
    words = [trail, "user_id=bob", "status!=PARTIAL", "--since", "2025-01-01T00:00:00Z"]
    expected = [line["event_id"] for line in run("query", *words, "-o", "jsonl").events]
    path = tmp_path / f"audit.{suffix}"
    done = run("export", *words, "--to", path, "--full-text")
    assert (done.out, done.code) == (f"{len(expected)} events in {path}\n", 0)
    with closing(sqlite3.connect(path)) as connection:
        assert [row[0] for row in connection.execute("SELECT event_id FROM events ORDER BY number")] == expected
        (information,) = rows(connection, "SELECT events, filters FROM export_information")
        assert connection.execute("SELECT count(*) FROM events_fts WHERE events_fts MATCH 'bob'").fetchone()[0]
    assert information["events"] == len(expected) > 0
    assert json.loads(information["filters"]) == {
        "since": "2025-01-01T00:00:00.000000Z", "conditions": ["user_id=bob", "status!=PARTIAL"],
    }  # fmt: skip


def test_existing_database_is_replaced_only_by_force(tmp_path):
    """An existing file is kept as it is, unless ``--force`` is given."""
    trail = write_trail(tmp_path / "logs", active=line_of(1))
    (tmp_path / "x.db").write_bytes(b"mine")
    assert run("export", trail, "--to", tmp_path / "x.db").code == 2
    assert (tmp_path / "x.db").read_bytes() == b"mine"
    assert run("export", trail, "--to", tmp_path / "x.db", "--force").code == 0
    assert (tmp_path / "x.db").read_bytes().startswith(b"SQLite format 3")


def test_full_text_of_another_format_is_a_usage_error(tmp_path):
    """``--full-text`` needs a database."""
    trail = write_trail(tmp_path / "logs", active=line_of(1))
    done = run("export", trail, "--to", tmp_path / "x.csv", "--full-text")
    assert (done.code, list(tmp_path.glob("x*"))) == (2, [])
    assert "expected the format sqlite" in done.error_line


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="there is no sqlite3: apt-get install sqlite3")
def test_sqlite3_counts_as_the_query_does(tmp_path):
    """The command ``sqlite3`` opens the database read-only and counts what the query counts."""
    path = write_trail(tmp_path / "logs", active=GOLDEN.read_bytes())
    trail = open_trail(path)
    trail.export_to_file(tmp_path / "audit.db", full_text=True)

    def answers(query):
        words = ["sqlite3", "-readonly", "-json", tmp_path / "audit.db", query]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    counted = answers("SELECT operation, count(*) AS events FROM events GROUP BY operation")
    by_operation = trail.get_statistics()["by_operation"]
    assert {row["operation"]: row["events"] for row in counted} == {name: n for name, n in by_operation.items() if n}
    assert answers("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


LIMITED = """
import resource, signal, sys
from structlog_audit import open_trail
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    open_trail(sys.argv[1]).export_to_file(sys.argv[2])
except OSError as error:
    print(error)
"""


def test_file_that_cannot_grow_leaves_the_previous_one(tmp_path):
    """If the database cannot be written, the error says so, the previous file is unchanged and no other remains."""
    path = write_trail(tmp_path / "logs", active=b"".join(line_of(n) for n in range(1_000)))
    (tmp_path / "x.db").write_bytes(b"mine")
    words = [sys.executable, "-c", LIMITED, str(path), str(tmp_path / "x.db")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "SQLite: disk I/O error" in done.stdout
    assert {file.name for file in tmp_path.iterdir()} == {"logs", "x.db"}
    assert (tmp_path / "x.db").read_bytes() == b"mine"


def test_memory_does_not_grow_with_the_number_of_events(tmp_path):
    """Events are taken one by one: a tenfold number needs no more memory of Python."""

    def peak(count):
        tracemalloc.start()
        export((event(n, entry_ids=[f"e{n}"]) for n in range(count)), tmp_path / "x.db", now=NOW)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(1_000)
    assert peak(20_000) < 1.2 * peak(2_000)
