"""Tests of `structlog_audit.export`: events as files for others."""

import csv
import datetime as dt
import io
import json
import os
import re
import stat
from pathlib import Path

import pytest
import strategies as s
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit.events.codec import decode_event
from structlog_audit.events.event import AuditEvent, EventStatus, Operation, OperationType
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.export import COLUMNS, FORMATS, export, write_atomically

NOW = dt.datetime(2025, 1, 15, 10, 30, 45, tzinfo=dt.UTC)


def event(number=1, **members):
    return AuditEvent(
        **{"event_id": f"evt_{number}", "timestamp": NOW, "operation": OperationType.STORE, "user_id": "u", **members}
    )


EVENTS = [
    event(1, entry_ids=["a", "b"], metadata={"k": ["é", 1]}, duration_ms=1.5),
    event(2, operation=Operation("other"), user_id=None, status=EventStatus.FAILURE, error_message='say "no", twice'),
    event(3, session_id="s", kind="gap"),
]


def rows(text):
    """The rows of a CSV text, by its header."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_json(tmp_path):
    """``.json`` is one document with the events, their number and the time of the export."""
    path = tmp_path / "out.json"
    assert export(EVENTS, path, now=NOW) == 3
    document = json.loads(path.read_bytes())
    assert list(document) == ["events", "total_events", "exported_at"]
    assert (document["total_events"], document["exported_at"]) == (3, "2025-01-15T10:30:45.000000Z")
    assert [decode_event(json.dumps(one).encode()) for one in document["events"]] == EVENTS


@pytest.mark.parametrize("format", FORMATS)
def test_text_is_as_good_as_a_member(tmp_path, format):
    """An event that somebody made, with the names of its operation and status as text, is exported as one with members."""
    members, texts = (tmp_path / name for name in ("members", "texts"))
    export([event(status=EventStatus.FAILURE)], members, format=format, now=NOW)
    export([event(status="FAILURE", operation="STORE")], texts, format=format, now=NOW)
    assert texts.read_bytes() == members.read_bytes()


def test_jsonl(tmp_path):
    """``.jsonl`` is one line for every event."""
    path = tmp_path / "out.jsonl"
    assert export(EVENTS, path, now=NOW) == 3
    assert [decode_event(line) for line in path.read_bytes().splitlines()] == EVENTS
    assert path.read_bytes().endswith(b"\n")


def test_csv(tmp_path):
    """``.csv`` is a table with a header; entry ids and metadata are JSON, absent members empty."""
    path = tmp_path / "out.csv"
    assert export(EVENTS, path, now=NOW) == 3
    table = rows(path.read_bytes().decode())
    assert list(table[0]) == list(COLUMNS)
    assert json.loads(table[0]["entry_ids"]) == ["a", "b"]
    assert json.loads(table[0]["metadata"]) == {"k": ["é", 1]}
    assert [row["event_id"] for row in table] == ["evt_1", "evt_2", "evt_3"]
    assert (table[0]["duration_ms"], table[1]["duration_ms"]) == ("1.5", "")
    assert table[1]["error_message"] == 'say "no", twice'
    assert (table[1]["operation"], table[1]["user_id"], table[1]["status"]) == ("other", "", "FAILURE")
    assert (table[1]["entry_ids"], table[1]["metadata"], table[1]["kind"], table[2]["kind"]) == ("", "", "", "gap")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", {"events": [], "total_events": 0, "exported_at": "2025-01-15T10:30:45.000000Z"}),
        ("a.jsonl", ""),
        ("a.csv", ",".join(COLUMNS) + "\r\n"),
    ],
)
def test_no_events(tmp_path, name, content):
    """Without events the file is there all the same, and valid."""
    path = tmp_path / name
    assert export([], path, now=NOW) == 0
    text = path.read_bytes().decode()
    assert (json.loads(text) if name == "a.json" else text) == content


@pytest.mark.parametrize("count", [1, 20_000])
@pytest.mark.parametrize("name", FORMATS)
def test_every_entry_id_is_exported(tmp_path, name, count):
    """In no format an entry id is left out, however many there are."""
    ids = [f"e{number}" for number in range(count)]
    path = tmp_path / f"out.{name}"
    export([event(entry_ids=ids)], path, now=NOW)
    text = path.read_bytes().decode()
    if name == "csv":
        with_large_fields = csv.field_size_limit(10_000_000)
        try:
            found = json.loads(rows(text)[0]["entry_ids"])
        finally:
            csv.field_size_limit(with_large_fields)
    elif name in ("json", "jsonl"):
        found = (json.loads(text)["events"][0] if name == "json" else json.loads(text))["entry_ids"]
    else:
        found = list(dict.fromkeys(re.findall(r'"(e\d+)"', text)))
    assert found == ids


# --- formula-safe (OWASP, CSV injection) -----------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
@pytest.mark.parametrize("member", ["user_id", "session_id", "error_message", "operation", "event_id", "kind"])
def test_cells_are_no_formulas(tmp_path, start, member):
    """A text that a spreadsheet would run as a formula has an apostrophe before it, and is otherwise whole."""
    text = f"{start}cmd|' /C calc'!A0"
    path = tmp_path / "out.csv"
    export([event(**{member: Operation(text) if member == "operation" else text})], path, now=NOW)
    assert rows(path.read_bytes().decode())[0][member] == f"'{text}"


@given(st.lists(st.tuples(s.texts, s.texts, s.metadata), max_size=4))
@settings(max_examples=100, deadline=None)
def test_no_cell_starts_a_formula(tmp_path_factory, texts):
    """For all events, no cell of the table starts a formula, no row breaks, and every value can be read back."""
    path = tmp_path_factory.getbasetemp() / "property.csv"
    events = [event(user_id=user, error_message=error, metadata=data) for user, error, data in texts]
    assert export(events, path, now=NOW) == len(events)
    table = rows(path.read_bytes().decode())
    assert len(table) == len(events)
    for (user, error, metadata), row in zip(texts, table, strict=True):
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in row.values())
        assert row["user_id"].removeprefix("'") == user.removeprefix("'")
        assert row["error_message"].removeprefix("'") == error.removeprefix("'")
        assert json.loads(row["metadata"] or "{}") == metadata


def test_negative_durations_are_numbers(tmp_path):
    """A number is no formula, and stays a number."""
    path = tmp_path / "out.csv"
    export([event(duration_ms=-1.5)], path, now=NOW)
    assert rows(path.read_text())[0]["duration_ms"] == "-1.5"


# --- formats and paths -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [str, Path, os.fsencode], ids=["str", "Path", "bytes"])
def test_paths(tmp_path, make):
    """A path may be text, a `Path` or bytes; folders that are missing are created, and the suffix is of any case."""
    path = tmp_path / "new" / "folder" / "out.JSONL"
    assert export(EVENTS, make(path), now=NOW) == 3
    assert len(path.read_bytes().splitlines()) == 3


def test_format_wins_over_the_suffix(tmp_path):
    """``format=`` says what is written, whatever the suffix."""
    path = tmp_path / "out.json"
    export(EVENTS, path, format="jsonl", now=NOW)
    assert len(path.read_bytes().splitlines()) == 3


@pytest.mark.parametrize(
    ("name", "format"), [("out.xml", None), ("out", None), ("out.json", "xml"), ("out.json", ""), (".json", None)]
)
def test_unknown_formats_are_refused(tmp_path, name, format):
    """A format that there is not is an error that names those there are, and nothing is written."""
    with pytest.raises(AuditValueError, match="expected one of json, jsonl, csv"):
        export(EVENTS, tmp_path / name, format=format, now=NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [5, None, object(), ["out.json"]], ids=lambda path: type(path).__name__)
def test_what_is_no_path_is_refused(path):
    """What is no path is a type error that says so."""
    with pytest.raises(AuditTypeError, match="expected the path of a file"):
        export(EVENTS, path, now=NOW)


def test_a_folder_is_refused(tmp_path):
    """An export onto a folder is refused, and the folder is as it was."""
    folder = tmp_path / "out.json"
    folder.mkdir()
    (folder / "kept").touch()
    with pytest.raises(AuditValueError, match="got a folder"):
        export(EVENTS, folder, now=NOW)
    assert [path.name for path in tmp_path.rglob("*")] == ["out.json", "kept"]


def test_what_is_no_regular_file_is_refused(tmp_path):
    """An export onto a named pipe is refused: it would be replaced, or would block."""
    pipe = tmp_path / "out.json"
    os.mkfifo(pipe)
    with pytest.raises(AuditValueError, match="expected a regular file"):
        export(EVENTS, pipe, now=NOW)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


# --- whole or not at all ---------------------------------------------------------------------------------------------


class Broken(BaseException):
    """What no ``except Exception`` catches."""


def failing(error):
    yield event(1)
    raise error


@pytest.mark.parametrize("error", [ValueError("broken"), Broken()])
@pytest.mark.parametrize("before", [None, b"old"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_failure_leaves_what_was_there(tmp_path, name, before, error):
    """When the events fail on the way, the old file is as it was, there is no other, and the error is the caller's."""
    path = tmp_path / f"out.{name}"
    if before is not None:
        path.write_bytes(before)
    with pytest.raises(type(error)):
        export(failing(error), path, now=NOW)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == ({path.name: before} if before else {})


def test_nobody_sees_half_of_it(tmp_path):
    """While an export is written, the old file is whole, and then the new one is."""
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")

    def looking():
        for number in range(3):
            assert path.read_bytes() == b"old"
            yield event(number)

    assert export(looking(), path, now=NOW) == 3
    assert len(path.read_bytes().splitlines()) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]


def test_exports_are_private(tmp_path):
    """An export can be read by its owner alone, whatever the mode of the file it replaces and the umask."""
    path = tmp_path / "out.json"
    path.touch(0o666)
    export(EVENTS, path, now=NOW)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_replaced_not_followed(tmp_path):
    """An export onto a symbolic link replaces the link; the file it pointed to is as it was."""
    target = tmp_path / "target"
    target.write_bytes(b"old")
    link = tmp_path / "out.json"
    link.symlink_to(target)
    export(EVENTS, link, now=NOW)
    assert target.read_bytes() == b"old"
    assert not link.is_symlink()


def test_a_folder_that_is_a_file(tmp_path):
    """When a folder of the path is a file, the system's error is the caller's, and the file is as it was."""
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(OSError, match=r"exists|directory"):
        export(EVENTS, tmp_path / "file" / "out.json", now=NOW)
    assert (tmp_path / "file").read_bytes() == b"old"


def test_write_beside_does_not_replace(tmp_path):
    """With ``replace=False`` an existing file is left as it was, and a new one is written whole."""
    path = tmp_path / "out"
    write_atomically(path, [b"a", b"b"], replace=False)
    with pytest.raises(FileExistsError):
        write_atomically(path, [b"c"], replace=False)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"out": b"ab"}
