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

from structlog_audit import AuditFileHandler, AuditHandler, AuditJsonFormatter
from structlog_audit.events import event_id as stamp_module
from structlog_audit.events.codec import MARKS, decode_event
from structlog_audit.events.event_id import Stamp
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.formats import FORMATS, to_line
from structlog_audit.recording import formatter as formatter_module
from structlog_audit.recording.formatter import DEFAULT_MAX_EVENT_BYTES, LINE


def record_of(msg="STORE", *, level=logging.INFO, exc_info=None, **attributes):
    record = logging.LogRecord("app", level, "app.py", 1, msg, (), exc_info)
    record.__dict__.update(attributes)
    return record


def test_any_handler_writes_lines(tmp_path):
    """With this formatter any handler of the standard library writes the lines of a trail."""
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


def test_dict_config():
    """``dictConfig`` makes the formatter with its usual keys, and the options of python-json-logger under ``()``."""
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


def test_a_line_that_the_record_carries_is_written_as_it_is():
    """Behind an `AuditHandler` the line of the event is written, with its id and time."""
    line = b'{"event_id":"evt_1","timestamp":"2025-01-15T10:30:45.000000Z","operation":"X","status":"SUCCESS"}\n'
    record = record_of("other", **{LINE: line})
    assert AuditJsonFormatter().format(record) == line.decode().removesuffix("\n")
    changed = json.loads(AuditJsonFormatter(static_fields={"service": "api"}).format(record))
    assert changed == {**json.loads(line), "service": "api"}


def test_behind_an_audit_handler():
    """A target of an `AuditHandler` with this formatter writes the very events that the handler holds."""
    stream = io.StringIO()
    target = logging.StreamHandler(stream)
    target.setFormatter(AuditJsonFormatter())
    handler = AuditHandler(target=target)
    handler.handle(record_of(user_id="u"))
    assert [decode_event(stream.getvalue().encode())] == handler.query_events()
    handler.close()


def test_an_event_in_parts_is_several_lines():
    """An event whose ids need parts is several lines, each of them within the cap and changed alike."""
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
def test_no_record_raises(make, options):
    """Whatever a record holds, its line is valid JSON and one line: an error in a formatter loses the record."""
    text = AuditJsonFormatter(**options).format(record_of(value=make()))
    json.loads(text, parse_constant=pytest.fail)
    assert not set(text) & set(s.DANGEROUS)


@given(s.metadata)
@settings(max_examples=100, deadline=None)
def test_changed_lines_hold_the_same(metadata):
    """For all metadata, a line with static and renamed members holds the same values."""
    formatter = AuditJsonFormatter(static_fields={"service": "api"}, rename_fields={"metadata": "details"})
    assert json.loads(formatter.format(record_of(metadata=metadata))).get("details", {}) == metadata


@pytest.mark.parametrize(
    "metadata",
    [{"a": [[0] * 100] * 100, "b": [1] * 100}, {"deep": s.deep(31)}],
    ids=["many values", "deep"],
)
def test_changed_lines_leave_nothing_out(metadata):
    """What a line could hold, the same line with a static member holds too."""
    plain = json.loads(AuditJsonFormatter().format(record_of(metadata=metadata)))
    changed = json.loads(AuditJsonFormatter(static_fields={"x": 1}).format(record_of(metadata=metadata)))
    assert MARKS not in plain["metadata"]
    assert changed["metadata"] == plain["metadata"] == metadata


# --- nothing is forged -----------------------------------------------------------------------------------------------

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


def test_fields_forge_no_static_or_renamed_member():
    """A field of the name of a static or renamed member lies in the metadata and takes nobody's place."""
    formatter = AuditJsonFormatter(
        static_fields={"service": "api"}, rename_fields={"timestamp": "@timestamp", "status": "level"}
    )
    forged = {"service": "forged", "@timestamp": "forged", "level": "forged", "timestamp": "forged", "kind": "gap"}
    line = json.loads(formatter.format(record_of(metadata=forged)))
    assert line["service"] == "api"
    assert line["level"] == "SUCCESS"
    assert line["@timestamp"].endswith("Z")
    assert line["metadata"] == forged
    assert line.keys() == {"event_id", "@timestamp", "operation", "metadata", "level", "service"}
    record = record_of()
    record.__dict__.update(forged)
    assert json.loads(formatter.format(record))["metadata"] == forged


@pytest.mark.parametrize("name", EVERY_MEMBER)
def test_static_fields_take_no_members_place(name):
    """A static field of the name of a member is a configuration error, and so is a member renamed to one."""
    with pytest.raises(AuditValueError, match=f"two members would have the name '{name}'"):
        AuditJsonFormatter(static_fields={name: 1})
    other = "user_id" if name != "user_id" else "session_id"
    with pytest.raises(AuditValueError, match=f"two members would have the name '{name}'"):
        AuditJsonFormatter(rename_fields={other: name})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rename_fields": {"user_id": "who", "session_id": "who"}}, "two members would have the name 'who'"),
        ({"rename_fields": {"user_id": "who"}, "static_fields": {"who": 1}}, "two members would have the name 'who'"),
        ({"rename_fields": {"levelname": "level"}}, "expected names of members of an event, got 'levelname'"),
    ],
)
def test_names_that_clash_are_refused(options, says):
    """Two members of one name, or a name that is no member, are configuration errors that say which."""
    with pytest.raises(AuditValueError, match=says):
        AuditJsonFormatter(**options)


def test_names_can_be_swapped():
    """Members may be renamed to names that become free thereby."""
    formatter = AuditJsonFormatter(rename_fields={"user_id": "session_id", "session_id": "user_id"})
    line = json.loads(formatter.format(record_of(user_id="u", session_id="s")))
    assert (line["user_id"], line["session_id"]) == ("s", "u")


@pytest.mark.parametrize("options", [{"fmt": "%(message)s"}, {"datefmt": "%Y"}])
def test_formats_are_refused(options):
    """A format other than that of a trail is a type error that names the parameter."""
    with pytest.raises(AuditTypeError, match=f"^{next(iter(options))}="):
        AuditJsonFormatter(**options)


def test_static_fields_are_plain_and_a_copy():
    """Static fields may hold what JSON does not, and changing the dictionary later changes nothing."""
    static = {"nan": float("nan"), "tags": ["a"], "secret": b"\x00"}
    formatter = AuditJsonFormatter(static_fields=static)
    static["tags"].append("b")
    static["user_id"] = "forged"
    line = json.loads(formatter.format(record_of()), parse_constant=pytest.fail)
    assert (line["nan"], line["tags"], line["secret"]) == ("NaN", ["a"], "AA==")
    assert "user_id" not in line


# --- errors, prefix --------------------------------------------------------------------------------------------------


def test_exceptions():
    """The exception of a record is the error message, and no traceback follows the line."""
    try:
        raise ValueError("no")
    except ValueError:
        text = AuditJsonFormatter().format(record_of(level=logging.ERROR, exc_info=sys.exc_info()))
    assert "\n" not in text
    assert (json.loads(text)["status"], json.loads(text)["error_message"]) == ("FAILURE", "ValueError: no")


def test_prefix():
    """A prefix stands before every line."""
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
def test_changes_lines(options, changes):
    """The formatter knows whether its lines are other than those of a trail."""
    assert AuditJsonFormatter(**options).changes_lines is changes


def test_subclasses_may_add_what_is_not_plain():
    """What a subclass adds, as python-json-logger allows, is made plain, and nothing raises."""

    class Adding(AuditJsonFormatter):
        def process_log_record(self, log_data):
            return {**log_data, "added": object(), "bad": "\ud800"}

    line = json.loads(Adding(prefix=" ").format(record_of()))
    assert (line["operation"], line["added"], line["bad"]) == ("STORE", "<object>", "\\ud800")


# --- formats of other systems ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", FORMATS)
def test_schemas(schema):
    """With a schema a record is one line of that format: what the event of its line is there, parts and all."""
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
def test_schemas_without_an_audit_handler(schema):
    """A record that no `AuditHandler` has seen is converted, and gets an id and a time, in the format of the schema too."""
    text = AuditJsonFormatter(schema=schema, prefix="@cee: ").format(record_of(user_id="u"))
    assert text.startswith("@cee: ")
    assert "evt_" in text or schema == "cadf"


@pytest.mark.parametrize("schema", FORMATS)
@pytest.mark.parametrize("make", s.HOSTILE)
def test_no_record_raises_with_a_schema(schema, make):
    """Whatever a record holds, its line in another format is one line too."""
    text = AuditJsonFormatter(schema=schema).format(record_of(value=make()))
    assert not set(text) & set(s.DANGEROUS)
    if schema != "cef":
        json.loads(text, parse_constant=pytest.fail)


def test_static_fields_of_ecs():
    """ECS bears other members: those of the service, as the formatters of Elastic take them."""
    static = {"service": {"name": "api", "environment": "prod"}, "labels": {"team": "a"}}
    record = json.loads(AuditJsonFormatter(schema="ecs", static_fields=static).format(record_of()))
    assert (record["service"], record["labels"]) == (static["service"], static["labels"])
    assert record["event"]["action"] == "STORE"


@pytest.mark.parametrize(
    ("options", "says"),
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
def test_schemas_that_do_not_fit_are_refused(options, says):
    """A schema that there is not, or that does not go with the other options, is a configuration error that says why."""
    with pytest.raises(AuditValueError, match=says):
        AuditJsonFormatter(**options)


def test_a_trail_takes_no_schema(tmp_path):
    """A trail stays in its own format: its handler refuses a formatter with a schema."""
    handler = AuditFileHandler(tmp_path / "audit.jsonl")
    with pytest.raises(AuditTypeError, match="a trail has one format"):
        handler.setFormatter(AuditJsonFormatter(schema="ecs"))
    handler.close()


def lines_interrupted_at(step):
    """The lines that come of one, before whose *step* a signal handler formats another. One id is left of the block."""
    formatter, lines = AuditJsonFormatter(), []
    formatter._stamp = Stamp(randbits=lambda bits: 254)
    record = logging.makeLogRecord({"msg": "STORE", "levelno": logging.INFO})
    with Interruption(step, lambda: lines.append(formatter.format(record)), stamp_module, formatter_module):
        lines.append(formatter.format(record))
    return lines


def test_lines_made_in_the_middle_of_another():
    """Wherever a signal handler formats in the middle of a line, the two have different ids, and neither fails."""
    step = 1
    while len(lines := lines_interrupted_at(step)) == 2:
        step += 1
        one, other = (json.loads(line)["event_id"] for line in lines)
        assert one != other
    assert step > 10


def test_ids_after_a_fork():
    """A forked child gives ids of its own, even within the millisecond of the fork."""
    formatter = AuditJsonFormatter()
    record = logging.makeLogRecord({"msg": "STORE", "levelno": logging.INFO})
    formatter.format(record)
    stamp = formatter._stamp
    pid = os.fork()
    if not pid:
        os._exit(formatter._stamp is stamp)
    assert os.waitpid(pid, 0)[1] == 0
    assert formatter._stamp is stamp
