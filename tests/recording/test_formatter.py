"""Tests of `structlog_audit.recording.formatter`: the lines of a trail from any handler."""

import io
import json
import logging
import logging.config
import logging.handlers
import os
import sys

import pytest
import strategies as s
from conftest import Interruption
from hypothesis import given, settings
from log_records import record_of

from structlog_audit import AuditFileHandler, AuditHandler, AuditJsonFormatter
from structlog_audit.events import event_id
from structlog_audit.events.codec import MARKS, decode_event
from structlog_audit.events.event_id import Stamp
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.formats import FORMATS, to_line
from structlog_audit.recording import formatter as formatter_module
from structlog_audit.recording.formatter import DEFAULT_MAX_EVENT_BYTES, LINE


def test_any_standard_handler_writes_lines_of_a_trail(tmp_path):
    """With this formatter a handler of the standard library writes the lines of a trail, with increasing ids."""
    path = tmp_path / "audit.jsonl"
    handler = logging.handlers.RotatingFileHandler(path)
    handler.setFormatter(AuditJsonFormatter())
    for number in range(3):
        handler.handle(record_of(user_id="u", x=number))
    handler.close()
    events = [decode_event(line) for line in path.read_bytes().splitlines()]
    assert [(event.operation, event.user_id, event.metadata) for event in events] == [
        ("STORE", "u", {"x": number}) for number in range(3)
    ]
    ids = [event.event_id for event in events]
    assert ids == sorted(set(ids))


def test_dict_config_passes_usual_keys_and_options():
    """``dictConfig`` creates the formatter with its usual keys, or with the options of python-json-logger under ``()``."""
    stream = io.StringIO()
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "audit": {"()": "structlog_audit.AuditJsonFormatter", "static_fields": {"service": "api"}},
                "plain": {"class": "structlog_audit.AuditJsonFormatter"},
            },
            "handlers": {
                "audit": {"class": "logging.StreamHandler", "stream": stream, "formatter": "audit"},
                "plain": {"class": "logging.StreamHandler", "stream": stream, "formatter": "plain"},
            },
            "loggers": {"formatter_test": {"handlers": ["audit", "plain"], "level": "INFO", "propagate": False}},
        }
    )
    logging.getLogger("formatter_test").info("STORE", extra={"user_id": "u"})
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first.pop("service"), first["operation"], first["user_id"]) == ("api", "STORE", "u")
    assert second.keys() == first.keys()


CARRIED = b'{"event_id":"evt_1","timestamp":"2025-01-15T10:30:45.000000Z","operation":"X","status":"SUCCESS"}\n'
"""The line of an event that an `AuditHandler` recorded."""


def test_a_line_that_the_record_carries_is_written_unchanged():
    """The line from an `AuditHandler` is written, with its id and timestamp."""
    record = record_of("other", **{LINE: CARRIED})
    assert AuditJsonFormatter().format(record) == CARRIED.decode().removesuffix("\n")


def test_a_line_that_the_record_carries_gets_static_fields():
    """Static fields are added to the members of the line from an `AuditHandler`."""
    record = record_of("other", **{LINE: CARRIED})
    changed = json.loads(AuditJsonFormatter(static_fields={"service": "api"}).format(record))
    assert changed == {**json.loads(CARRIED), "service": "api"}


def test_a_target_of_an_audit_handler_writes_its_events():
    """The target of an `AuditHandler` writes exactly the events that the handler holds."""
    stream = io.StringIO()
    target = logging.StreamHandler(stream)
    target.setFormatter(AuditJsonFormatter())
    handler = AuditHandler(target=target)
    handler.handle(record_of(user_id="u"))
    assert [decode_event(stream.getvalue().encode())] == handler.query_events()
    handler.close()


def test_an_event_in_parts_is_several_lines():
    """An event in parts has several lines, each within the size limit and with the static fields."""
    ids = [f"entry_{number}" for number in range(10_000)]
    plain = AuditJsonFormatter().format(record_of(entry_ids=ids))
    changed = AuditJsonFormatter(static_fields={"service": "api"}).format(record_of(entry_ids=ids))
    assert all(len(line) < DEFAULT_MAX_EVENT_BYTES for line in plain.splitlines())
    assert decode_event(plain.encode()).entry_ids == ids
    lines = [json.loads(line) for line in changed.splitlines()]
    assert len(lines) == len(plain.splitlines()) > 1
    assert [entry_id for line in lines for entry_id in line["entry_ids"]] == ids
    assert {line["service"] for line in lines} == {"api"}
    assert {line["part_of"] for line in lines[1:]} == {lines[0]["event_id"]}


@pytest.mark.parametrize("options", [{}, {"static_fields": {"service": "api"}}])
@pytest.mark.parametrize("make", s.HOSTILE)
def test_any_record_gives_one_line_of_valid_json(make, options):
    """Whatever a record holds, its line is valid JSON: an error in a formatter would lose the record."""
    text = AuditJsonFormatter(**options).format(record_of(value=make()))
    json.loads(text, parse_constant=pytest.fail)
    assert not set(text) & set(s.DANGEROUS)


@given(s.metadata)
@settings(max_examples=100, deadline=None)
def test_changed_lines_have_the_same_values(metadata):
    """For all metadata, a line with static and renamed members has the same values."""
    formatter = AuditJsonFormatter(static_fields={"service": "api"}, rename_fields={"metadata": "details"})
    assert json.loads(formatter.format(record_of(metadata=metadata))).get("details", {}) == metadata


@pytest.mark.parametrize(
    "metadata",
    [{"a": [[0] * 100] * 100, "b": [1] * 100}, {"deep": s.deep(31)}],
    ids=["many values", "deep"],
)
def test_a_static_field_leaves_the_metadata_complete(metadata):
    """Metadata that fits into a line is complete in a line with a static field, too."""
    plain = json.loads(AuditJsonFormatter().format(record_of(metadata=metadata)))
    changed = json.loads(AuditJsonFormatter(static_fields={"x": 1}).format(record_of(metadata=metadata)))
    assert MARKS not in plain["metadata"]
    assert changed["metadata"] == plain["metadata"] == metadata


# --- names of members -----------------------------------------------------------------------------------------------

EVERY_MEMBER = [
    "event_id",
    "timestamp",
    "operation",
    "user_id",
    "session_id",
    "entry_ids",
    "metadata",
    "status",
    "error_message",
    "duration_ms",
    "kind",
    "part_of",
]


FORGED = {"service": "forged", "@timestamp": "forged", "level": "forged", "timestamp": "forged", "kind": "gap"}
"""Fields with the names of static, renamed and other members."""


@pytest.fixture
def renaming():
    """A formatter with a static member and renamed ones."""
    return AuditJsonFormatter(
        static_fields={"service": "api"}, rename_fields={"timestamp": "@timestamp", "status": "level"}
    )


def test_a_field_does_not_replace_a_static_or_renamed_member(renaming):
    """A field with the name of a static or renamed member stays in the metadata, and the member keeps its value."""
    line = json.loads(renaming.format(record_of(metadata=FORGED)))
    assert line["service"] == "api"
    assert line["level"] == "SUCCESS"
    assert line["@timestamp"].endswith("Z")
    assert line["metadata"] == FORGED
    assert line.keys() == {"event_id", "@timestamp", "operation", "metadata", "level", "service"}


def test_an_attribute_of_the_record_does_not_replace_a_member(renaming):
    """An attribute of the record with the name of a member goes to the metadata."""
    record = record_of()
    record.__dict__.update(FORGED)
    assert json.loads(renaming.format(record))["metadata"] == FORGED


@pytest.mark.parametrize("option", ["rename_fields", "static_fields"])
def test_an_option_that_is_not_a_mapping_is_refused(option):
    """A list of fields is an error that names the option."""
    with pytest.raises(AuditTypeError, match=rf"{option}=\['service'\]: expected a mapping"):
        AuditJsonFormatter(**{option: ["service"]})


@pytest.mark.parametrize("name", EVERY_MEMBER)
def test_a_static_field_with_the_name_of_a_member_is_refused(name):
    """A static field with the name of a member is a configuration error."""
    with pytest.raises(AuditValueError, match=f"two members would have the name '{name}'"):
        AuditJsonFormatter(static_fields={name: 1})


@pytest.mark.parametrize("name", EVERY_MEMBER)
def test_a_member_renamed_to_another_member_is_refused(name):
    """A member with the new name of another member is a configuration error."""
    other = "user_id" if name != "user_id" else "session_id"
    with pytest.raises(AuditValueError, match=f"two members would have the name '{name}'"):
        AuditJsonFormatter(rename_fields={other: name})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rename_fields": {"user_id": "who", "session_id": "who"}}, "two members would have the name 'who'"),
        ({"rename_fields": {"user_id": "who"}, "static_fields": {"who": 1}}, "two members would have the name 'who'"),
        ({"rename_fields": {"levelname": "level"}}, "expected names of members of an event, got 'levelname'"),
    ],
)
def test_duplicate_and_unknown_names_are_refused(options, message):
    """The error for two members of one name, or for an unknown member, has that name."""
    with pytest.raises(AuditValueError, match=message):
        AuditJsonFormatter(**options)


def test_the_names_of_two_members_can_be_swapped():
    """A member may get a name that another renamed member no longer has."""
    formatter = AuditJsonFormatter(rename_fields={"user_id": "session_id", "session_id": "user_id"})
    line = json.loads(formatter.format(record_of(user_id="u", session_id="s")))
    assert (line["user_id"], line["session_id"]) == ("s", "u")


@pytest.mark.parametrize("options", [{"fmt": "%(message)s"}, {"datefmt": "%Y"}])
def test_a_format_argument_is_refused(options):
    """A format or date format is a type error that names the parameter."""
    with pytest.raises(AuditTypeError, match=f"^{next(iter(options))}="):
        AuditJsonFormatter(**options)


def test_static_fields_are_converted_to_json():
    """Static fields may have values that JSON does not have."""
    formatter = AuditJsonFormatter(static_fields={"nan": float("nan"), "tags": ["a"], "secret": b"\x00"})
    line = json.loads(formatter.format(record_of()), parse_constant=pytest.fail)
    assert (line["nan"], line["tags"], line["secret"]) == ("NaN", ["a"], "AA==")


def test_static_fields_are_copied():
    """A later change of the dictionary does not affect the formatter."""
    static = {"tags": ["a"]}
    formatter = AuditJsonFormatter(static_fields=static)
    static["tags"].append("b")
    static["user_id"] = "forged"
    line = json.loads(formatter.format(record_of()))
    assert line["tags"] == ["a"]
    assert "user_id" not in line


# --- errors, prefix --------------------------------------------------------------------------------------------------


def test_an_exception_becomes_the_error_message():
    """The exception of a record is the error message, and no traceback follows the line."""
    try:
        raise ValueError("no")
    except ValueError:
        text = AuditJsonFormatter().format(record_of(level=logging.ERROR, exc_info=sys.exc_info()))
    assert "\n" not in text
    assert (json.loads(text)["status"], json.loads(text)["error_message"]) == ("FAILURE", "ValueError: no")


def test_a_prefix_precedes_every_line():
    """The prefix precedes each line of an event in parts."""
    text = AuditJsonFormatter(prefix="audit: ").format(record_of(entry_ids=[f"e{number}" for number in range(20_000)]))
    lines = text.splitlines()
    assert len(lines) > 1
    assert all(json.loads(line.removeprefix("audit: "))["operation"] == "STORE" for line in lines)
    assert all(line.startswith("audit: {") for line in lines)


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({}, False),
        ({"static_fields": {}, "rename_fields": {}}, False),
        ({"prefix": "x"}, True),
        ({"static_fields": {"a": 1}}, True),
        ({"rename_fields": {"user_id": "who"}}, True),
    ],
)
def test_changes_lines_if_an_option_is_set(options, changes):
    """``changes_lines`` is true if the options make the lines differ from those of a trail."""
    assert AuditJsonFormatter(**options).changes_lines is changes


def test_a_subclass_may_add_values_that_are_not_json():
    """A value that a subclass adds is converted to JSON, and nothing raises."""

    class Adding(AuditJsonFormatter):
        def process_log_record(self, log_data):
            return {**log_data, "added": object(), "bad": "\ud800"}

    line = json.loads(Adding(prefix=" ").format(record_of()))
    assert (line["operation"], line["added"], line["bad"]) == ("STORE", "<object>", "\\ud800")


# --- formats of other systems ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", FORMATS)
def test_a_schema_gives_one_line_of_its_format(schema):
    """With a schema, an event is one line of that format, including all its parts."""
    ids = [f"entry_{number}" for number in range(10_000)]
    stream = io.StringIO()
    target = logging.StreamHandler(stream)
    target.setFormatter(AuditJsonFormatter(schema=schema))
    handler = AuditHandler(target=target)
    handler.handle(record_of(user_id="u", entry_ids=ids, password="p"))
    assert stream.getvalue().splitlines() == [to_line(event, schema) for event in handler.query_events()]
    assert stream.getvalue().count("entry_9999") >= 1
    handler.close()


@pytest.mark.parametrize("schema", FORMATS)
def test_a_schema_formats_records_without_an_audit_handler(schema):
    """A record that does not come from an `AuditHandler` gets an id and a timestamp, and is formatted too."""
    text = AuditJsonFormatter(schema=schema, prefix="@cee: ").format(record_of(user_id="u"))
    assert text.startswith("@cee: ")
    assert "evt_" in text or schema == "cadf"


@pytest.mark.parametrize("schema", FORMATS)
@pytest.mark.parametrize("make", s.HOSTILE)
def test_any_record_gives_one_line_with_a_schema(schema, make):
    """Whatever a record holds, its line in another format is one line."""
    text = AuditJsonFormatter(schema=schema).format(record_of(value=make()))
    assert not set(text) & set(s.DANGEROUS)
    if schema != "cef":
        json.loads(text, parse_constant=pytest.fail)


def test_ecs_accepts_static_fields():
    """ECS lines can have further members, such as those of the service."""
    static = {"service": {"name": "api", "environment": "prod"}, "labels": {"team": "a"}}
    record = json.loads(AuditJsonFormatter(schema="ecs", static_fields=static).format(record_of()))
    assert (record["service"], record["labels"]) == (static["service"], static["labels"])
    assert record["event"]["action"] == "STORE"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schema": "xml"}, "schema='xml': expected one of ecs, ocsf, cadf, cef, otlp"),
        ({"schema": ""}, "schema='': expected one of"),
        (
            {"schema": "ecs", "rename_fields": {"user_id": "who"}},
            "^rename_fields: the schema 'ecs' does not support it",
        ),
        (
            {"schema": "ecs", "static_fields": {"event": 1}},
            "^static_fields: the schema 'ecs' has its own member 'event'",
        ),
        (
            {"schema": "ecs", "static_fields": {"audit": 1}},
            "^static_fields: the schema 'ecs' has its own member 'audit'",
        ),
        ({"schema": "ocsf", "static_fields": {"x": 1}}, "^static_fields: the schema 'ocsf' does not support it"),
        ({"schema": "cef", "static_fields": {"x": 1}}, "^static_fields: the schema 'cef' does not support it"),
    ],
)
def test_an_unsupported_schema_or_option_is_refused(options, message):
    """An unknown schema, or an option that it does not support, is a configuration error with the reason."""
    with pytest.raises(AuditValueError, match=message):
        AuditJsonFormatter(**options)


def test_a_file_handler_refuses_a_formatter_with_a_schema(tmp_path):
    """A trail has one format, so its handler refuses a formatter with a schema."""
    handler = AuditFileHandler(tmp_path / "audit.jsonl")
    with pytest.raises(AuditTypeError, match="a trail has one format"):
        handler.setFormatter(AuditJsonFormatter(schema="ecs"))
    handler.close()


def lines_interrupted_at(step):
    """Return the lines of a record and of a signal handler that formats it before this *step*. One id of the block is left."""
    formatter, lines = AuditJsonFormatter(), []
    formatter._stamp = Stamp()
    for _ in range(255):
        formatter._stamp.line(b"}")
    record = record_of()
    with Interruption(step, lambda: lines.append(formatter.format(record)), event_id, formatter_module):
        lines.append(formatter.format(record))
    return lines


def test_a_signal_handler_may_format_at_any_step():
    """Wherever a signal handler interrupts the formatter, both lines are valid and have different ids."""
    step = 1
    while len(lines := lines_interrupted_at(step)) == 2:
        step += 1
        one, other = (json.loads(line)["event_id"] for line in lines)
        assert one != other
    assert step > 10


def test_a_forked_child_makes_its_own_ids():
    """A forked child makes other ids than its parent, even within the millisecond of the fork."""
    formatter = AuditJsonFormatter()
    record = record_of()
    formatter.format(record)
    stamp = formatter._stamp
    pid = os.fork()
    if not pid:
        os._exit(formatter._stamp is stamp)
    assert os.waitpid(pid, 0)[1] == 0
    assert formatter._stamp is stamp
