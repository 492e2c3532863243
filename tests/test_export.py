"""Tests of `structlog_audit.export`: exports as JSON, JSON Lines and CSV files."""

import csv
import datetime as dt
import io
import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from structlog_audit.events.codec import decode_event
from structlog_audit.events.event import AuditEvent, EventStatus, Operation, OperationType
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.export import FORMATS, WRITERS, export, write_all_atomically, write_atomically
from structlog_audit.formats.spreadsheet import COLUMNS

NOW = dt.datetime(2025, 1, 15, 10, 30, 45, tzinfo=dt.UTC)


def event(number=1, **members):
    """Return an event with defaults for all *members* that are not given."""
    return AuditEvent(
        **{"event_id": f"evt_{number}", "timestamp": NOW, "operation": OperationType.STORE, "user_id": "u", **members}
    )


EVENTS = [
    event(1, entry_ids=["a", "b"], metadata={"k": ["é", 1]}, duration_ms=1.5),
    event(2, operation=Operation("other"), user_id=None, status=EventStatus.FAILURE, error_message='say "no", twice'),
    event(3, session_id="s", kind="gap"),
]


def rows(text):
    """Return the rows of a CSV text as dictionaries."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_json_is_one_document_with_total_and_time(tmp_path):
    """A ``.json`` export is one document with the events, their number and the time of the export."""
    path = tmp_path / "out.json"
    assert export(EVENTS, path, now=NOW) == 3
    document = json.loads(path.read_bytes())
    assert list(document) == ["events", "total_events", "exported_at"]
    assert (document["total_events"], document["exported_at"]) == (3, "2025-01-15T10:30:45.000000Z")
    assert [decode_event(json.dumps(one).encode()) for one in document["events"]] == EVENTS


@pytest.mark.parametrize("format", WRITERS)
def test_operation_and_status_as_text_export_like_enum_members(tmp_path, format):
    """An event with operation and status as plain text is exported like one with enum members."""
    members, texts = (tmp_path / name for name in ("members", "texts"))
    export([event(status=EventStatus.FAILURE)], members, format=format, now=NOW)
    export([event(status="FAILURE", operation="STORE")], texts, format=format, now=NOW)
    assert texts.read_bytes() == members.read_bytes()


def test_jsonl_is_one_line_per_event(tmp_path):
    """A ``.jsonl`` export has one line for every event."""
    path = tmp_path / "out.jsonl"
    assert export(EVENTS, path, now=NOW) == 3
    assert [decode_event(line) for line in path.read_bytes().splitlines()] == EVENTS
    assert path.read_bytes().endswith(b"\n")


@pytest.fixture
def table(tmp_path):
    """Return the rows of a CSV export of `EVENTS`."""
    path = tmp_path / "out.csv"
    assert export(EVENTS, path, now=NOW) == 3
    return rows(path.read_bytes().decode())


def test_csv_is_a_table_with_a_header(table):
    """A ``.csv`` export has a header and one row for every event."""
    assert list(table[0]) == list(COLUMNS)
    assert [row["event_id"] for row in table] == ["evt_1", "evt_2", "evt_3"]


def test_entry_ids_and_metadata_are_json_in_csv(table):
    """Entry ids and metadata are JSON in their cells."""
    assert json.loads(table[0]["entry_ids"]) == ["a", "b"]
    assert json.loads(table[0]["metadata"]) == {"k": ["é", 1]}


def test_simple_members_are_text_in_csv(table):
    """Names, numbers and quoted text can be read back from their cells."""
    assert table[0]["duration_ms"] == "1.5"
    assert table[1]["error_message"] == 'say "no", twice'
    assert (table[1]["operation"], table[1]["status"]) == ("other", "FAILURE")
    assert table[2]["kind"] == "gap"


@pytest.mark.parametrize("name", ["user_id", "duration_ms", "entry_ids", "metadata", "kind"])
def test_absent_member_is_an_empty_cell_in_csv(table, name):
    """A member that an event does not have is an empty cell."""
    assert table[1][name] == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", {"events": [], "total_events": 0, "exported_at": "2025-01-15T10:30:45.000000Z"}),
        ("a.jsonl", ""),
        ("a.csv", ",".join(COLUMNS) + "\r\n"),
    ],
)
def test_export_without_events_is_a_valid_file(tmp_path, name, content):
    """Without events, a valid file is written."""
    path = tmp_path / name
    assert export([], path, now=NOW) == 0
    text = path.read_bytes().decode()
    assert (json.loads(text) if name == "a.json" else text) == content


@pytest.mark.parametrize("count", [1, 20_000])
@pytest.mark.parametrize("name", WRITERS)
def test_all_entry_ids_are_exported_in_every_format(tmp_path, name, count):
    """Every format contains all entry ids of an event, in any number."""
    ids = [f"e{number}" for number in range(count)]
    path = tmp_path / f"out.{name}"
    export([event(entry_ids=ids)], path, format=name, now=NOW)
    text = path.read_bytes().decode()
    if name == "csv":
        found = json.loads("".join(row["entry_ids"] for row in rows(text)))
    elif name in ("json", "jsonl"):
        found = (json.loads(text)["events"][0] if name == "json" else json.loads(text))["entry_ids"]
    else:
        found = list(dict.fromkeys(re.findall(r'"(e\d+)"', text)))
    assert found == ids


@pytest.mark.skipif(shutil.which("duckdb") is None, reason="DuckDB is not installed")
def test_recipe_of_the_guide_shows_every_column_of_jsonl_to_duckdb(tmp_path):
    """With the query of the guide, DuckDB has all members, also those that only late events have."""
    page = (Path(__file__).parents[1] / "examples" / "guide" / "exports.md").read_text(encoding="utf-8")
    (query,) = re.findall(r'duckdb\.sql\("""(.*?)"""\)', page, re.DOTALL)
    late = event(
        100_001, session_id="s", entry_ids=["e1"], metadata={"k": 1}, error_message="no", duration_ms=1.5, kind="gap"
    )
    ordinary = (event(number) for number in range(100_000))
    export([*ordinary, late], tmp_path / "events.jsonl", now=NOW)

    words = ["duckdb", "-json", "-c", f"SELECT * FROM ({query}) WHERE error_message IS NOT NULL"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    (found,) = json.loads(done.stdout)
    assert list(found) == list(COLUMNS)
    expected = {**late.to_dict(), "timestamp": "2025-01-15 10:30:45"}
    assert {name: found[name] for name in COLUMNS} == expected


# --- formats and paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [str, Path, os.fsencode], ids=["str", "Path", "bytes"])
def test_path_may_be_text_path_or_bytes(tmp_path, make):
    """A path of any type is accepted, missing folders are created, and the case of the suffix is ignored."""
    path = tmp_path / "new" / "folder" / "out.JSONL"
    assert export(EVENTS, make(path), now=NOW) == 3
    assert len(path.read_bytes().splitlines()) == 3


def test_format_overrides_the_suffix(tmp_path):
    """``format=`` takes precedence over the suffix of the path."""
    path = tmp_path / "out.json"
    export(EVENTS, path, format="jsonl", now=NOW)
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "format"), [("out.xml", None), ("out", None), ("out.json", "xml"), ("out.json", ""), (".json", None)]
)
def test_unknown_format_raises_an_error_that_lists_the_formats(tmp_path, name, format):
    """An unknown format raises an error that lists the known ones, and nothing is written."""
    with pytest.raises(AuditValueError, match="expected one of json, jsonl, csv"):
        export(EVENTS, tmp_path / name, format=format, now=NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [5, None, object(), ["out.json"]], ids=lambda path: type(path).__name__)
def test_path_of_another_type_raises_a_type_error(path):
    """A value that is not a path raises a TypeError that states the expected type."""
    with pytest.raises(AuditTypeError, match="expected the path of a file"):
        export(EVENTS, path, now=NOW)


def test_export_to_a_folder_is_refused(tmp_path):
    """An export to the path of a folder is refused, and the folder is unchanged."""
    folder = tmp_path / "out.json"
    folder.mkdir()
    (folder / "kept").touch()
    with pytest.raises(AuditValueError, match="got a folder"):
        export(EVENTS, folder, now=NOW)
    assert [path.name for path in tmp_path.rglob("*")] == ["out.json", "kept"]


def test_export_to_a_named_pipe_is_refused(tmp_path):
    """An export to a special file is refused: it would replace the file or block."""
    pipe = tmp_path / "out.json"
    os.mkfifo(pipe)
    with pytest.raises(AuditValueError, match="expected a regular file"):
        export(EVENTS, pipe, now=NOW)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_export_to_a_url_is_refused(tmp_path, monkeypatch):
    """The system takes a URL for a folder such as ``s3:``, which nobody would look for."""
    monkeypatch.chdir(tmp_path)
    refused = pytest.raises(AuditValueError, match=r"path='s3://bucket/.*: expected a path on this machine, got a URL")

    with refused:
        export(EVENTS, "s3://bucket/out.json", now=NOW)
    with refused:
        write_all_atomically({"s3://bucket/line": b"x"})
    assert not list(tmp_path.iterdir())


# --- whole or not at all ---------------------------------------------------------------------------------------------


class Broken(BaseException):
    """An exception that ``except Exception`` does not catch."""


def failing(error):
    """Yield one event, then raise *error*."""
    yield event(1)
    raise error


@pytest.mark.parametrize("error", [ValueError("broken"), Broken()])
@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("name", FORMATS)
def test_failure_during_an_export_leaves_the_old_file(tmp_path, name, before, error):
    """If the iterable of events raises, the old file is unchanged, no other remains, and the error propagates."""
    path = tmp_path / f"out.{name}"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(type(error)):
        export(failing(error), path, now=NOW)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == ({path.name: before} if before else {})


def test_export_replaces_the_old_file_atomically(tmp_path):
    """The old file is complete while an export is being written; the new file then replaces it."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")

    def checking():
        for number in range(3):
            assert path.read_bytes() == b"old"
            yield event(number)

    assert export(checking(), path, now=NOW) == 3
    assert len(path.read_bytes().splitlines()) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_export_is_readable_only_by_its_owner(tmp_path):
    """The mode of an export does not depend on the replaced file or the umask."""
    path = tmp_path / "out.json"
    path.touch(0o666)
    export(EVENTS, path, now=NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_symbolic_link_is_replaced_not_followed(tmp_path):
    """An export to a symbolic link replaces the link; its target is unchanged."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    link = tmp_path / "out.json"
    link.symlink_to(target)
    export(EVENTS, link, now=NOW)
    assert target.read_bytes() == b"old"
    assert not link.is_symlink()


def test_parent_that_is_a_file_raises_the_error_of_the_system(tmp_path):
    """If a parent of the path is a file, the OSError propagates and the file is unchanged."""
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OSError, match=r"exists|directory"):
        export(EVENTS, tmp_path / "file" / "out.json", now=NOW)
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize(
    "name", ["é" * 127, "😀" * 63, "\udcff" * 255, "x" * 255], ids=["é", "emoji", "bytes", "ascii"]
)
def test_export_to_a_name_of_the_longest_length_is_written(tmp_path, name):
    """A name as long as the file system allows, in bytes, can be exported to."""
    assert export(EVENTS, tmp_path / name, format="jsonl", now=NOW) == 3
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_atomic_write_without_replace_keeps_an_existing_file(tmp_path):
    """With ``replace=False``, a new file is written, and an existing one raises an error and is unchanged."""
    path = tmp_path / "out"
    write_atomically(path, [b"a", b"b"], replace=False)
    with pytest.raises(FileExistsError):
        write_atomically(path, [b"c"], replace=False)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"out": b"ab"}
