"""Parameters and attributes of the standard library's handlers: they work, or are refused with the reason."""

from __future__ import annotations

import logging
import logging.handlers
import pydoc

import pytest
from conftest import lines_in
from log_records import record_of

from structlog_audit import AuditFileHandler, AuditHandler, AuditTypeError, AuditValueError


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


@pytest.mark.parametrize("cls", [AuditFileHandler, AuditHandler])
def test_help_shows_no_text_of_an_unused_member(cls):
    """help() describes the members of rotation and of the memory buffer as they are here."""
    text = pydoc.plain(pydoc.render_doc(cls))
    parents = text.partition("Methods inherited from")[2]
    unused = {AuditFileHandler: ["rotate", "rotation_filename", "setStream"], AuditHandler: ["shouldFlush"]}
    assert not [name for name in unused[cls] if f"{name}(" in parents]
