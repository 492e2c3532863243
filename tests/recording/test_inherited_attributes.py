"""Parameters and attributes of the standard library's handlers: they work, or are refused with the reason."""

from __future__ import annotations

import json
import logging
import logging.handlers
import pydoc

import pytest
from conftest import lines_in
from log_records import record_of

from structlog_audit import AuditFileHandler, AuditHandler, AuditJsonFormatter, AuditTypeError, AuditValueError


@pytest.mark.parametrize(("name", "value"), [
    ("namer", str.upper), ("rotator", print), ("stream", object()), ("mode", "w"), ("delay", False), ("encoding", "ascii"),
    ("errors", "replace"), ("terminator", "\r\n"), ("baseFilename", "/elsewhere"),
])  # fmt: skip
def test_attribute_without_effect_is_refused_with_the_reason(path, name, value):
    """Setting an attribute that would be ignored is an error that names it, and its value stays."""
    target = AuditFileHandler(path)
    before = getattr(target, name)
    with pytest.raises(AuditTypeError, match=f"{name}=.*: expected .*: "):
        setattr(target, name, value)
    assert getattr(target, name) == before
    setattr(target, name, before)


@pytest.mark.parametrize("method", ["setStream", "rotate"])
def test_method_without_effect_is_refused(path, method):
    """A call that would be ignored, or would bypass the rollover, is an error."""
    target = AuditFileHandler(path)
    arguments = {"setStream": [object()], "rotate": ["a", "b"]}[method]
    with pytest.raises(AuditTypeError):
        getattr(target, method)(*arguments)


@pytest.mark.parametrize("name", [
    "namer", "rotator", "rotate", "rotation_filename", "shouldRollover", "doRollover", "terminator", "_open",
])  # fmt: skip
def test_subclass_that_overrides_the_rollover_is_refused(name):
    """A subclass that defines a member which writes never use is an error that names the member."""
    with pytest.raises(AuditTypeError, match=f"Sub.{name}: "):
        type("Sub", (AuditFileHandler,), {name: lambda self: None})


def test_subclass_with_other_members_is_accepted(path):
    """A subclass may add members and override the others."""

    class Sub(AuditFileHandler):
        def flush(self):
            super().flush()

    assert Sub(path).namer is None


def test_maximum_size_set_later_applies_from_the_next_write(path):
    """A new maxBytes is that of the next write, larger or smaller."""
    target = AuditFileHandler(path, maxBytes=10)
    for size, segments in ((0, 1), (10, 2), (10**6, 2), (1, 3)):
        target.maxBytes = size
        target.write(b"x" * 9 + b"\n")
        assert (target.maxBytes, len(target.segments())) == (size, segments)


def test_number_of_segments_set_later_bounds_the_trail(path):
    """A new backupCount replaces the bound on segments, and starts the checks of the retention."""
    target = AuditFileHandler(path, retention={"max_age_days": 5})
    assert (target.backupCount, target.retention.max_segments) == (0, None)
    target.backupCount = 3
    assert (target.retention.max_segments, target.retention.max_age_days) == (3, 5)
    unbounded = AuditFileHandler(path)
    unbounded.backupCount = 1
    assert unbounded._pruning.check_at == 0.0
    unbounded.backupCount = 0
    assert unbounded._pruning.check_at == float("inf")


def test_retention_set_later_is_validated_and_applied(path):
    """A new retention is validated like the parameter, and applied."""
    target = AuditFileHandler(path)
    target.retention = {"max_bytes": 10}
    assert target._pruning.retention.max_bytes == 10
    with pytest.raises(AuditTypeError, match="max_bytes='x'"):
        target.retention = {"max_bytes": "x"}


def test_explicit_retention_is_kept_by_the_constructor(path):
    """The number of segments in the retention wins over backupCount."""
    target = AuditFileHandler(path, backupCount=7, retention={"max_segments": 2})
    assert (target.backupCount, target.retention.max_segments) == (7, 2)


@pytest.mark.parametrize(("name", "value"), [("maxBytes", -1), ("maxBytes", "1"), ("backupCount", 1.5)])
def test_invalid_value_set_later_is_refused(path, name, value):
    """The attributes accept what the parameters accept."""
    target = AuditFileHandler(path)
    with pytest.raises((AuditTypeError, AuditValueError), match=f"{name}="):
        setattr(target, name, value)


def test_delayed_file_is_opened_by_the_first_event(path):
    """With delay=True the file appears with the first event."""
    target = AuditFileHandler(path, delay=True)
    assert not path.exists()
    target.close()
    assert not path.exists()
    target.handle(record_of())
    assert len(lines_in(path)) == 1


@pytest.mark.parametrize("options", [{"encoding": None}, {"encoding": "UTF8"}, {"mode": "a", "errors": "strict"}])
def test_parameter_of_the_standard_library_with_the_value_of_a_trail_is_accepted(path, options):
    """Parameters of the standard library may state what a trail does anyway."""
    AuditFileHandler(path, **options)


@pytest.mark.parametrize(("name", "value"), [
    ("encoding", "latin-1"), ("mode", "w"), ("errors", "replace"), ("delay", "yes"),
])  # fmt: skip
def test_parameter_of_the_standard_library_with_another_value_is_refused(path, name, value):
    """Another value is an error that names the parameter, and nothing is created."""
    with pytest.raises((AuditTypeError, AuditValueError), match=f"{name}='{value}'"):
        AuditFileHandler(path, **{name: value})
    assert not path.exists()


@pytest.mark.parametrize(("name", "instead"), [
    ("capacity", "max_events"), ("buffer", "query_events"), ("flushLevel", "at once"), ("flushOnClose", "always"),
])  # fmt: skip
def test_attribute_of_memory_handler_names_what_to_use_instead(name, instead):
    """Attributes of MemoryHandler that do not exist here are errors with the alternative, when read and when set."""
    handler = AuditHandler()
    with pytest.raises(AttributeError, match=instead):
        getattr(handler, name)
    with pytest.raises(AuditTypeError, match=instead):
        setattr(handler, name, 1)


def test_memory_handler_has_nothing_to_flush():
    """shouldFlush() is false for every record."""
    assert not AuditHandler().shouldFlush(record_of(level=logging.CRITICAL))


@pytest.mark.parametrize(("name", "instead"), [
    ("capacity", "max_events"), ("flushLevel", "at once"), ("flushOnClose", "always"), ("shouldFlush", "at once"),
])  # fmt: skip
def test_parameter_of_memory_handler_names_what_to_use_instead(name, instead):
    """A parameter that MemoryHandler has and an AuditHandler has not is an error with the alternative."""
    with pytest.raises(AuditTypeError, match=f"{name}=10: .*{instead}"):
        AuditHandler(**{name: 10})


@pytest.mark.parametrize(("cls", "first", "last"), [
    (AuditHandler, "max_events", "call_later"), (AuditJsonFormatter, "fmt", "schema"),
])  # fmt: skip
def test_unknown_parameter_is_an_error_that_lists_the_known_ones(cls, first, last):
    """A misspelt parameter is not taken for an inherited one, and the error shows the parameters from first to last."""
    with pytest.raises(AuditTypeError, match=rf"'max_event' of {cls.__name__}: expected one of {first}, .*, {last}$"):
        cls(max_event=10)


@pytest.mark.parametrize("name", ["shouldFlush", "flushLevel", "capacity"])
def test_subclass_that_overrides_the_flush_of_memory_handler_is_refused(name):
    """A subclass that defines a member of MemoryHandler which is never used is an error that names it."""
    with pytest.raises(AuditTypeError, match=f"Sub.{name}: "):
        type("Sub", (AuditHandler,), {name: lambda self, record: True})


@pytest.mark.parametrize(("name", "value"), [
    ("timestamp", True), ("defaults", {"a": 1}), ("reserved_attrs", ["msg"]), ("rename_fields_keep_missing", True),
    ("exc_info_as_array", True), ("stack_info_as_array", True),
])  # fmt: skip
def test_option_of_python_json_logger_without_effect_is_refused(name, value):
    """An option that lines of a trail cannot have is an error with the reason, as parameter and as attribute."""
    with pytest.raises(AuditTypeError, match=f"{name}="):
        AuditJsonFormatter(**{name: value})
    with pytest.raises(AuditTypeError, match=f"{name}="):
        setattr(AuditJsonFormatter(), name, value)


@pytest.mark.parametrize("name", ["json_default", "json_indent", "json_encoder", "json_ensure_ascii"])
def test_option_of_the_json_encoders_is_refused(name):
    """The options of python-json-logger's subclasses are refused with what to override instead."""
    with pytest.raises(AuditTypeError, match=f"{name}=.*jsonify_log_record"):
        AuditJsonFormatter(**{name: None})


@pytest.mark.parametrize("name", [
    "parse", "formatTime", "formatException", "formatStack", "formatMessage", "usesTime", "converter", "default_time_format",
])  # fmt: skip
def test_subclass_that_overrides_an_unused_method_of_the_formatter_is_refused(name):
    """A subclass of the formatter that defines a member which is never used is an error that names it."""
    with pytest.raises(AuditTypeError, match=f"Sub.{name}: "):
        type("Sub", (AuditJsonFormatter,), {name: lambda *arguments: ""})


def add_fields(self, log_data, record, message_dict):
    AuditJsonFormatter.add_fields(self, log_data, record, message_dict)
    log_data["level"] = record.levelname


def process_log_record(self, log_data):
    return {**AuditJsonFormatter.process_log_record(self, log_data), "level": "INFO"}


def jsonify_log_record(self, log_data):
    return AuditJsonFormatter.jsonify_log_record(self, {**log_data, "level": "INFO"})


def serialize_log_record(self, log_data):
    return AuditJsonFormatter.serialize_log_record(self, {**log_data, "level": "INFO"})


@pytest.mark.parametrize(
    "options", [{}, {"static_fields": {"a": 1}}, {"prefix": ">"}, {"rename_fields": {"kind": "k"}}]
)
@pytest.mark.parametrize("hook", [add_fields, process_log_record, jsonify_log_record, serialize_log_record])
def test_hook_of_python_json_logger_changes_each_line(hook, options):
    """A subclass that overrides a hook of python-json-logger changes the lines, whatever the options."""
    formatter = type("Sub", (AuditJsonFormatter,), {hook.__name__: hook})(**options)
    line = formatter.format(record_of(level=logging.INFO))
    members = json.loads(line.removeprefix(">"))
    assert (members["operation"], members["level"], members.get("a")) == (
        "STORE",
        "INFO",
        1 if "static_fields" in options else None,
    )
    assert formatter.changes_lines


def test_hook_with_a_closed_schema_is_refused():
    """A format of another system that allows no other members is not for a formatter that changes them."""
    sub = type("Sub", (AuditJsonFormatter,), {"process_log_record": process_log_record})
    with pytest.raises(AuditTypeError, match=r"schema='cef'.*process_log_record"):
        sub(schema="cef")
    assert json.loads(sub(schema="ecs").format(record_of()))["level"] == "INFO"


def test_failure_level_of_the_formatter_decides_about_records_without_status():
    """Without an AuditHandler the formatter has the level from which on an event is a FAILURE."""
    record = record_of(level=logging.WARNING)
    found = [json.loads(AuditJsonFormatter(**options).format(record))["status"]
             for options in ({}, {"failure_level": "WARNING"})]  # fmt: skip
    assert found == ["SUCCESS", "FAILURE"]
    with pytest.raises(AuditValueError, match="failure_level='LOUD'"):
        AuditJsonFormatter(failure_level="LOUD")


@pytest.mark.parametrize(("name", "value"), [
    ("warm_start", "yes"), ("warm_start", 1), ("clock", 5), ("randbits", "x"), ("call_later", None), ("on_failure", 1),
])  # fmt: skip
def test_parameter_of_the_wrong_type_is_refused(name, value):
    """A flag that is no bool and a function that cannot be called are errors at once."""
    with pytest.raises(AuditTypeError, match=f"{name}="):
        AuditHandler(**{name: value})


def test_clock_of_the_file_handler_must_be_a_function(path):
    """A clock that cannot be called is an error, and no file is made."""
    with pytest.raises(AuditTypeError, match="clock=5"):
        AuditFileHandler(path, clock=5)
    assert not path.exists()


@pytest.mark.parametrize("cls", [AuditFileHandler, AuditHandler, AuditJsonFormatter])
def test_help_shows_no_text_of_an_unused_member(cls):
    """help() describes the members of rotation and of the memory buffer as they are here."""
    text = pydoc.plain(pydoc.render_doc(cls))
    parents = text.partition("Methods inherited from")[2]
    unused = {
        AuditFileHandler: ["rotate", "rotation_filename", "setStream"],
        AuditHandler: ["shouldFlush"],
        AuditJsonFormatter: ["add_fields", "process_log_record", "jsonify_log_record", "serialize_log_record"],
    }
    assert not [name for name in unused[cls] if f"{name}(" in parents]
