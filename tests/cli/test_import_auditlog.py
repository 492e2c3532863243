"""The command ``import-auditlog``."""

from __future__ import annotations

import gzip
import json

import pytest
from commands import run

from structlog_audit import open_trail

CONTENT_TYPE = {"model": "contenttypes.contenttype", "pk": 7, "fields": {"app_label": "shop", "model": "document"}}
FIELDS = {
    "content_type": 7,
    "object_pk": "3",
    "object_id": 3,
    "object_repr": "Document 3",
    "serialized_data": None,
    "action": 1,
    "changes_text": "",
    "changes": {"text": ["draft", "final"]},
    "actor": 5,
    "cid": "r1",
    "remote_addr": "192.0.2.1",
    "remote_port": None,
    "timestamp": "2024-03-01T10:00:00.500Z",
    "additional_data": {"reason": "review"},
    "actor_email": None,
}


def entry(pk=1, **fields):
    return {"model": "auditlog.logentry", "pk": pk, "fields": {**FIELDS, **fields}}


@pytest.fixture
def imported(tmp_path):
    """A function that imports rows, and returns the result and the events of the trail."""

    def import_rows(*rows, form="json"):
        file, trail = tmp_path / "auditlog.json", tmp_path / "audit.jsonl"
        lines = "\n".join(map(json.dumps, rows)) + "\n"
        file.write_text(json.dumps(rows) if form == "json" else lines)
        done = run("import-auditlog", file, trail)
        return done, list(open_trail(trail).iter_events()) if trail.exists() else []

    return import_rows


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_log_entry_becomes_an_event_with_all_of_its_members(imported, form):
    """Members with an equivalent get its name, and the time of the row is kept in the metadata."""
    done, (event,) = imported(CONTENT_TYPE, entry(), form=form)

    assert done.code == 0
    assert done.lines[0].startswith("1 of 1 log entries are recorded in ")
    assert done.lines[1:] == ["1 row of contenttypes.contenttype is not a log entry"]
    assert (event.operation, event.user_id, event.entry_ids) == ("shop.document.update", "5", ["shop.document:3"])
    assert event.metadata == {
        "happened_at": "2024-03-01T10:00:00.500Z",
        "imported_from": "django-auditlog",
        "log_entry": 1,
        "changes": {"text": {"before": "draft", "after": "final"}},
        "object": "Document 3",
        "request_id": "r1",
        "client_address": "192.0.2.1",
        "additional_data": {"reason": "review"},
    }


def test_actions_become_the_verbs_of_operations(imported):
    """An access is a read."""
    _, events = imported(CONTENT_TYPE, *(entry(number, action=number) for number in range(4)))
    assert [event.operation.rsplit(".")[-1] for event in events] == ["create", "update", "delete", "read"]


def test_content_type_without_a_key_is_left_out(imported):
    """Of ``--natural-primary``, content types have no keys, and log entries refer to them by their labels."""
    content_type = {name: CONTENT_TYPE[name] for name in ("model", "fields")}
    done, (event,) = imported(content_type, entry(content_type=["shop", "document"]))
    assert (done.code, event.operation) == (0, "shop.document.update")


def test_log_entry_with_a_key_of_several_values_is_imported_once(imported):
    """A log entry of the project can have a composite key."""
    rows = [entry(pk, content_type=["shop", "document"]) for pk in ([1, 2], [1, 3])]
    imported(rows[0])
    done, events = imported(*rows)
    assert done.lines[0].startswith("1 of 2 log entries are recorded")
    assert [event.metadata["log_entry"] for event in events] == [[1, 2], [1, 3]]


def test_natural_keys_need_no_content_types(imported):
    """Of ``--natural-foreign``, the content type is a label, and the actor a name."""
    _, (event,) = imported(entry(content_type=["shop", "document"], actor=["ada"]))
    assert (event.operation, event.user_id) == ("shop.document.update", "ada")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ('{"text": ["a", "b"]}', {"text": {"before": "a", "after": "b"}}),
        ("not JSON", "not JSON"),
        ([1], [1]),
        ({"tags": {"type": "m2m", "operation": "add", "objects": ["x"]}}, {"tags": {"added": ["x"]}}),
        ({"tags": {"type": "m2m", "operation": "delete", "objects": ["x"]}}, {"tags": {"removed": ["x"]}}),
        ({"text": "something else"}, {"text": "something else"}),
        (
            {"tags": {"type": "m2m", "operation": [1], "objects": []}},
            {"tags": {"type": "m2m", "operation": [1], "objects": []}},
        ),
        (None, None),
    ],
)
def test_changes_of_every_version_are_kept(imported, changes, expected):
    """Old versions hold JSON in a text; a form that is not known is kept as it is."""
    _, (event,) = imported(CONTENT_TYPE, entry(changes=changes))
    assert event.metadata.get("changes") == expected


def test_second_import_records_the_new_rows_only(imported):
    """An import can be repeated, also after an interruption."""
    imported(CONTENT_TYPE, entry(1))
    done, events = imported(CONTENT_TYPE, entry(1), entry(2))
    assert done.lines[0].startswith("1 of 2 log entries are recorded")
    assert done.lines[0].endswith("1 were there before")
    assert [event.metadata["log_entry"] for event in events] == [1, 2]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (entry(2, content_type=8), "content_type=8: expected a content type of the file"),
        (entry(2, content_type={"a": 1}), "content_type={'a': 1}: expected a content type of the file"),
        (entry(2, action=[1]), "action=[1]: expected 0, 1, 2 or 3"),
        (entry(2, action=4), "auditlog.logentry 2: action=4: expected 0, 1, 2 or 3"),
        (entry(2, timestamp="yesterday"), "timestamp='yesterday': expected a time"),
        (entry(2, timestamp=None), "timestamp=None: expected a time"),
        (entry(None), "auditlog.logentry None: expected a pk, by which a row is imported once"),
        ({"pk": 1}, "expected rows of dumpdata with model, pk and fields"),
    ],
)
def test_row_that_is_not_understood_stops_the_import_before_its_first_event(imported, row, message):
    """The error names the row, and nothing is recorded."""
    done, events = imported(CONTENT_TYPE, entry(1), row)
    assert done.code == 3
    assert message in done.error_line
    assert events == []


def test_file_that_is_not_json_is_an_error(tmp_path):
    """The error names the file and the line."""
    (tmp_path / "auditlog.csv").write_text("id,action\n")
    done = run("import-auditlog", tmp_path / "auditlog.csv", tmp_path / "audit.jsonl")
    assert done.code == 3
    assert "auditlog.csv:1: expected JSON of dumpdata" in done.error_line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(b"[]"), "expected text in UTF-8"),
        ("[]".encode("utf-16"), "expected text in UTF-8"),
        (b"[" * 100_000, "expected JSON of dumpdata"),
    ],
    ids=["gzip", "utf-16", "deep"],
)
def test_file_of_another_form_is_an_error(tmp_path, content, message):
    """dumpdata can compress its output, and some shells write UTF-16."""
    (tmp_path / "auditlog.json").write_bytes(content)
    done = run("import-auditlog", tmp_path / "auditlog.json", tmp_path / "audit.jsonl")
    assert done.code == 3
    assert message in done.error_line
