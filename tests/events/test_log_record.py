"""Tests of `structlog_audit.events.log_record`, with records made by `logging` and structlog themselves."""

import copy
import io
import json
import logging
import logging.handlers
import pickle
import sys

import pytest
import strategies as s
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit.events.conversion import payload_of
from structlog_audit.events.handoff import HANDOFF, RESERVED, hand_over
from structlog_audit.events.log_record import error_of, fields_of


class RecordingHandler(logging.Handler):
    """A handler that keeps its records."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def logger():
    """Return a logger without other handlers."""
    logger = logging.getLogger("records_test")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    return logger


@pytest.fixture
def records(logger):
    """Return the records that have reached the logger."""
    handler = RecordingHandler()
    logger.addHandler(handler)
    return handler.records


def record_of(msg, *args, exc_info=None, level=logging.INFO, **attributes):
    """Return a record as `logging` makes it."""
    record = logging.LogRecord("app", level, "app.py", 1, msg, args, exc_info)
    record.__dict__.update(attributes)
    return record


def handed_over(fields, **options):
    """Return a record with *fields* as an entry point makes it."""
    record = record_of(fields["operation"], **options)
    hand_over(record, fields, fields["operation"])
    return record


def raised(error=None):
    """Return the exc_info of a raised exception."""
    try:
        raise error or ValueError("no")
    except BaseException:
        return sys.exc_info()


def structured(logger, *processors):
    """Return a structlog logger with a chain that ends with *processors*."""
    return structlog.wrap_logger(
        logger,
        processors=[structlog.contextvars.merge_contextvars, *processors],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=False,
    )


std = structlog.stdlib
ENDS = {
    "wrap_for_formatter": [std.ProcessorFormatter.wrap_for_formatter],
    "wrap with everything": [
        std.add_logger_name,
        std.add_log_level,
        std.add_log_level_number,
        std.ExtraAdder(),
        structlog.processors.StackInfoRenderer(),
        std.ProcessorFormatter.wrap_for_formatter,
    ],
    "render_to_log_kwargs": [std.add_log_level, std.render_to_log_kwargs],
    "render_to_log_args_and_kwargs": [std.add_log_level, std.render_to_log_args_and_kwargs],
    "JSONRenderer": [std.add_logger_name, std.add_log_level, structlog.processors.JSONRenderer()],
    "JSONRenderer of bytes": [
        std.add_log_level,
        structlog.processors.JSONRenderer(serializer=lambda event, **options: json.dumps(event).encode()),
    ],
    "JSONRenderer, event renamed": [
        structlog.processors.EventRenamer("operation"),
        structlog.processors.JSONRenderer(),
    ],
}


@pytest.mark.parametrize("end", ENDS)
def test_structlog_chain_with_any_end_gives_the_event(logger, records, end):
    """Whatever a structlog chain ends with, the event has its operation, its members, its context, and nothing else."""
    with structlog.contextvars.bound_contextvars(session_id="s"):
        structured(logger, *ENDS[end]).bind(user_id="u").info("STORE", entry_ids=["e"], plan={"name": "pro"})
    payload = payload_of(records[0])
    assert (payload.operation, payload.user_id, payload.session_id, payload.entry_ids) == ("STORE", "u", "s", ["e"])
    assert payload.metadata == {"plan": {"name": "pro"}}
    assert payload.status == "SUCCESS"


@pytest.mark.parametrize("end", [end for end in ENDS if "renamed" not in end])
def test_message_beside_an_operation_field_is_kept(logger, records, end):
    """With a field ``operation`` the text of the message is kept as ``message``."""
    structured(logger, *ENDS[end]).info("user stored a thing", operation="store")
    payload = payload_of(records[0])
    assert (payload.operation, payload.metadata) == ("STORE", {"message": "user stored a thing"})


@pytest.mark.parametrize(
    "end", ["wrap_for_formatter", "wrap with everything", "render_to_log_kwargs", "render_to_log_args_and_kwargs"]
)
def test_exception_of_structlog_becomes_the_error_message(logger, records, end):
    """The logged exception becomes the error message, in any form, and no traceback is kept."""
    try:
        raise ValueError("no")
    except ValueError:
        structured(logger, *ENDS[end]).exception("STORE")
    payload = payload_of(records[0])
    assert (payload.error_message, payload.status, payload.metadata) == ("ValueError: no", "FAILURE", {})


def test_rendered_exception_becomes_the_error_message(logger, records):
    """If a processor rendered the exception, its last line is the error message, and the text is kept."""
    chain = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    try:
        raise ValueError("no")
    except ValueError:
        structured(logger, *chain).exception("STORE")
    payload = payload_of(records[0])
    assert (payload.error_message, payload.status) == ("ValueError: no", "FAILURE")
    assert payload.metadata["exception"].startswith("Traceback")
    assert payload.metadata.keys() <= {"exception", "level"}


def test_timestamp_of_the_application_is_metadata(logger, records):
    """The timestamp that an application's chain adds is metadata."""
    chain = [structlog.processors.TimeStamper(fmt="iso"), std.ProcessorFormatter.wrap_for_formatter]
    structured(logger, *chain).info("STORE")
    assert list(payload_of(records[0]).metadata) == ["timestamp"]


def test_processor_formatter_of_another_handler_changes_nothing(logger, records):
    """A record that structlog's formatter formats for another handler gives the same event."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(std.ProcessorFormatter(processor=structlog.dev.ConsoleRenderer(colors=False)))
    logger.addHandler(handler)
    logger.handlers.reverse()
    structured(logger, *ENDS["wrap_for_formatter"]).info("STORE", user_id="u")
    assert "STORE" in stream.getvalue()
    assert payload_of(records[0]).user_id == "u"


# --- plain logging ---------------------------------------------------------------------------------------------------


def test_extra_attributes_are_fields(logger, records):
    """Attributes that `logging` does not set itself are fields; private ones are not."""
    logger.info("STORE", extra={"user_id": "u", "x": 1, "_private": 2})
    assert fields_of(records[0]) == ({"operation": "STORE", "user_id": "u", "x": 1}, None)


@pytest.mark.parametrize(("name", "text"), [(1, "1"), (1.5, "1.5"), (True, "true"), (None, "null"), ((1, 2), "[1, 2]")])
def test_attribute_name_that_is_not_text_becomes_text(logger, records, name, text):
    """A name in ``extra=`` that is not text becomes text; private ones are omitted all the same."""
    logger.info("STORE", extra={name: 1, "x": 2, "_private": 3})
    assert payload_of(records[0]).metadata == {text: 1, "x": 2}


def test_record_without_extra_has_no_fields(logger, records):
    """No attribute that `logging` sets itself, formatted or not, becomes a field."""
    logger.info("STORE %s", "x")
    record = records[0]
    logging.Formatter("%(asctime)s %(message)s %(taskName)s").format(record) if hasattr(record, "taskName") else None
    logging.Formatter("%(asctime)s %(message)s").format(record)
    assert fields_of(record) == ({"operation": "STORE x"}, None)
    assert record.__dict__.keys() <= RESERVED


@pytest.mark.parametrize(
    ("msg", "fields"),
    [
        ({"event": "STORE", "user_id": "u"}, {"operation": "STORE", "user_id": "u"}),
        ({"operation": "STORE", "user_id": "u"}, {"operation": "STORE", "user_id": "u"}),
        ({"event": "hello", "operation": "STORE"}, {"operation": "STORE", "message": "hello"}),
        ({"event": "STORE", "operation": "STORE"}, {"operation": "STORE"}),
        ({"event": "a", "operation": "b", "message": "c"}, {"operation": "b", "message": "c", "message_": "a"}),
        ({"user_id": "u"}, {"operation": None, "user_id": "u"}),
        ({"event": "X", 1: "one", None: 2}, {"operation": "X", "1": "one", "null": 2}),
        ({"event": "X", "_record": 1, "_from_structlog": True, "_logger": 3, "_name": "n"}, {"operation": "X"}),
        ({"event": "X", "_other": 1}, {"operation": "X", "_other": 1}),
        ({"event": "X", "level": "info", "logger": "app", "level_number": 20}, {"operation": "X"}),
        ({"event": "X", "level": "gold", "logger": 5}, {"operation": "X", "level": "gold", "logger": 5}),
        ({"event": "X", "stack_info": None}, {"operation": "X"}),
        ({"event": "X", "stack_info": True}, {"operation": "X"}),
        ({"event": "X", "stack_info": "Stack …"}, {"operation": "X", "stack_info": "Stack …"}),
        ({"event": "".join(["ST", "ORE"]), "operation": "STORE"}, {"operation": "STORE"}),
        ({"event": "X", "stack": "Stack …"}, {"operation": "X", "stack": "Stack …"}),
        ({}, {"operation": None}),
        ('{"event": "STORE", "user_id": "u"}', {"operation": "STORE", "user_id": "u"}),
        (b'{"operation": "STORE", "user_id": "u"}', {"operation": "STORE", "user_id": "u"}),
        ('{"user_id": "u"}', {"operation": '{"user_id": "u"}'}),
        ('{"event": NaN}', {"operation": '{"event": NaN}'}),
        ('{"event": "x"', {"operation": '{"event": "x"'}),
        ('{"event": ' + "[" * 9_000, {"operation": '{"event": ' + "[" * 9_000}),
        ('["event"]', {"operation": '["event"]'}),
        (b"STORE", {"operation": "STORE"}),
        (b"\xff{", {"operation": "\\xff{"}),
        ("", {"operation": ""}),
        (404, {"operation": "404"}),
        (s.HostileStr("STORE"), {"operation": "STORE"}),
        (s.HostileStr('{"event": "STORE"}'), {"operation": "STORE"}),
        (s._Raising(), {"operation": "strategies._Raising"}),
        (s._LyingClass(), {"operation": "strategies._LyingClass"}),
    ],
    ids=lambda value: "" if type(value) is dict and "operation" in value else type(value).__name__,
)
def test_message_is_the_fields_or_the_operation(msg, fields):
    """A message that is a dictionary, or the JSON text of an event, has the fields; any other is the operation."""
    assert fields_of(record_of(msg)) == (fields, None)


def test_record_is_not_changed(logger, records):
    """Reading the fields changes neither the record nor its dictionary: other handlers get it too."""
    logger.info({"event": "STORE", "level": "info", "exc_info": None})
    before = dict(records[0].__dict__), dict(records[0].msg)
    fields_of(records[0])
    assert (records[0].__dict__, records[0].msg) == before


def test_message_wins_over_extra():
    """If the message and ``extra=`` both have a field, that of the message counts."""
    fields, _ = fields_of(record_of({"event": "X", "user_id": "inner"}, user_id="outer", more=1))
    assert fields == {"operation": "X", "user_id": "inner", "more": 1}


@pytest.mark.parametrize(
    ("msg", "args", "fields"),
    [
        ("%s stored %d", ("u", 2), {"operation": "u stored 2"}),
        ("%(who)s", ({"who": "u"},), {"operation": "u"}),
        ("%d items", ("x",), {"operation": "%d items", "args": ("x",)}),
        ("no place", (1,), {"operation": "no place", "args": (1,)}),
        ('{"event": "%s"}', ("x",), {"operation": '{"event": "x"}'}),
    ],
)
def test_arguments_belong_to_the_message(msg, args, fields):
    """Arguments belong to the message; those that do not fit are kept beside its template."""
    assert fields_of(record_of(msg, *args)) == (fields, None)


def test_argument_whose_text_raises_is_kept():
    """An argument with a ``__str__`` that raises is kept beside the template."""
    argument = s._Fatal()
    assert fields_of(record_of("by %s", argument)) == ({"operation": "by %s", "args": (argument,)}, None)


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_message_formatting_propagates_signals(signal):
    """KeyboardInterrupt and SystemExit during the formatting of a message propagate."""

    class Interrupted:
        def __str__(self):
            raise signal

    with pytest.raises(signal):
        fields_of(record_of("by %s", Interrupted()))


# --- context ---------------------------------------------------------------------------------------------------------


def test_contextvars_are_added_to_foreign_records(logger, records):
    """A record that does not come from an entry point gets the bound contextvars, unless it has a field of that name."""
    with structlog.contextvars.bound_contextvars(user_id="context", request_id="r"):
        logger.info("STORE", extra={"user_id": "own"})
        assert fields_of(records[0])[0] == {"operation": "STORE", "user_id": "own", "request_id": "r"}
        handed = fields_of(handed_over({"operation": "Y"}))[0]
    assert handed == {"operation": "Y"}
    assert fields_of(record_of("X"))[0] == {"operation": "X"}


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [record_of, lambda name, **options: handed_over({"operation": name}, **options)])
@pytest.mark.parametrize(
    ("info", "text", "error"),
    [
        (raised(), None, "ValueError: no"),
        (raised(s.BadError()), None, "BadError: (its text can't be read)"),
        ((None, None, None), None, None),
        (None, "Traceback (most recent call last):\n  …\nValueError: no\n", "ValueError: no"),
        (None, "ValueError: no", "ValueError: no"),
        (None, None, None),
    ],
)
def test_exception_of_logging_is_the_error(info, text, error, make):
    """The exception of a record, raised or rendered by a formatter, is the error, in one line."""
    assert fields_of(make("X", exc_info=info, exc_text=text)) == ({"operation": "X"}, error)


@pytest.mark.parametrize(
    ("info", "error"),
    [
        (ValueError("no"), "ValueError: no"),
        (raised(), "ValueError: no"),
        ((ValueError, None, None), None),
        (None, None),
        (False, None),
        ("text", None),
        (("a", "b"), None),
        (s._LyingClass(), None),
        (s._Raising(), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exc_info_is_accepted_in_every_form(info, error):
    """Every form of ``exc_info`` that logging and structlog accept is an exception; any other value is not."""
    assert error_of(info) == error
    fields, found = fields_of(record_of({"event": "X", "exc_info": info}))
    assert (fields, found) == ({"operation": "X"}, error)


def test_exc_info_true_is_the_current_exception():
    """``exc_info=True`` stands for the exception that is being handled, if there is one."""
    assert error_of(True) is None
    try:
        raise KeyError("k")
    except KeyError:
        assert error_of(True) == "KeyError: 'k'"


@pytest.mark.parametrize(
    "value",
    [s.HostileStr("a\nValueError: no"), 5, None, b"x", [{"\ud800": 1}], [s.HostileMapping(ValueError())]],
    ids=["text", "int", "none", "bytes", "surrogate", "mapping"],
)
def test_exception_field_may_have_any_type(value):
    """A field ``exception`` of any type raises nothing, and only text gives the error."""
    fields, error = fields_of(record_of("X", exception=value))
    assert error == ("ValueError: no" if isinstance(value, s.HostileStr) else None)
    assert fields.keys() == {"operation", "exception"}


@given(
    # `logging` itself never finishes formatting a dag_bomb.
    s.hostile.filter(lambda make: make.__name__ != "dag_bomb") | s.unruly_texts.map(lambda text: lambda: text),
    st.dictionaries(s.unruly_texts, s.hostile, max_size=3),
)
@settings(max_examples=s.examples(40), deadline=None)
def test_any_record_gives_a_payload(make, extra):
    """For all messages and attributes, the record gives a payload."""
    attributes = {f"x{name}": value() for name, value in extra.items()}
    assert payload_of(record_of(make(), **attributes)).operation
    assert payload_of(record_of("%s", **attributes, args=(make(),))).operation
    assert payload_of(record_of({"event": make(), **attributes})).operation


# --- handoffs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_handoff_survives_copies_of_the_record(duplicate):
    """A copy of a record has the same handoff, so an acknowledgement reaches the entry point."""
    record = handed_over({"operation": "X"})
    original = record.__dict__[HANDOFF]
    assert duplicate(record).__dict__[HANDOFF] is original


def test_handoff_is_pickled_as_a_plain_dictionary():
    """The receiver of a socket handler gets the handoff as a plain dictionary, with the same fields."""
    received = pickle.loads(pickle.dumps(handed_over({"operation": "X", "a": [1]}).__dict__))
    assert type(received[HANDOFF]) is dict
    assert fields_of(logging.makeLogRecord(received)) == ({"operation": "X", "a": [1]}, None)


def test_exception_of_a_pickled_record_is_its_last_line():
    """A record that was pickled for a socket has its exception as text, of which the last line counts."""
    record = handed_over({"operation": "X"}, exc_info=raised())
    data = logging.handlers.SocketHandler("localhost", 1).makePickle(record)
    received = logging.makeLogRecord(pickle.loads(data[4:]))
    assert fields_of(received) == ({"operation": "X"}, "ValueError: no")


@given(
    st.dictionaries(
        st.sampled_from([*sorted(RESERVED), *(f"{name}_" for name in RESERVED), HANDOFF, "x", "_y"]), st.text()
    ),
    st.booleans(),
)
def test_fields_of_an_entry_point_arrive_under_their_names(fields, is_pickled):
    """For all names, those that `logging` reserves included, each field has its value, and no attribute adds another."""
    fields = {"operation": "STORE", **fields}
    record = handed_over(fields)
    if is_pickled:
        record = logging.makeLogRecord(pickle.loads(pickle.dumps(record.__dict__)))
    assert fields_of(record) == (fields, None)


def failed(operation="STORE"):
    """Return a record of an entry point with an exception, whose text is the error message."""
    record = record_of(operation, exc_info=raised())
    hand_over(record, {"operation": operation, "error_message": "ValueError: no"}, operation, error="ValueError: no")
    return record


def queued(record):
    """Return *record* as a queue handler prepares it: formatted, without arguments and exception."""
    return logging.handlers.QueueHandler(None).prepare(record)


def test_handoff_in_a_queue_keeps_message_and_error():
    """A queue handler formats the message and removes the exception, which changes neither operation nor error."""
    assert fields_of(queued(failed()))[0] == {"operation": "STORE", "error_message": "ValueError: no"}


def test_message_changed_before_a_queue_is_the_operation():
    """Of a message that a filter changed, and that a queue handler formatted with a traceback, only the message counts."""
    record = failed()
    record.msg = "RECALL"
    assert fields_of(queued(record))[0]["operation"] == "RECALL"


def test_exception_that_a_filter_removes_is_no_error():
    """If the record has its exception no more, its text is not the error message; an error of its own stays."""
    record = failed()
    record.exc_info = None
    assert fields_of(record) == ({"operation": "STORE"}, None)

    record = failed()
    record.error_message = "other"
    record.exc_info = None
    assert fields_of(record)[0]["error_message"] == "other"


@pytest.mark.parametrize(
    "forged",
    ["text", 5, None, ["operation"], {"a": 1}, s.HostileDict(operation="Y"), s.HostileMapping(ValueError())],
    ids=lambda value: type(value).__name__,
)
def test_handoff_of_another_form_is_ignored(forged):
    """An attribute with the name of the handoff is private, unless it is a dictionary with an operation, as after pickling."""
    assert fields_of(record_of("X", **{HANDOFF: forged})) == ({"operation": "X"}, None)


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        ValueError("first\n\nlast"),
        ValueError(),
        ExceptionGroup("g", [ValueError("a"), ExceptionGroup("h", [KeyError("b"), OSError("c")])]),
        ExceptionGroup("g", [ValueError(number) for number in range(12)]),
    ],
    ids=["plain", "of lines", "empty", "group", "large group"],
)
@pytest.mark.parametrize("cause", [None, KeyError("cause")], ids=["alone", "chained"])
def test_formatted_exception_gives_the_text_of_the_exception(error, cause):
    """A traceback as text, which a queue leaves of an exception, gives the same text as the exception."""
    try:
        raise error from cause
    except Exception:
        record = logging.LogRecord("audit", logging.ERROR, "", 0, "STORE", (), sys.exc_info())
    _, expected = fields_of(record)

    record.exc_text = logging.Formatter().formatException(record.exc_info)
    record.exc_info = None
    assert fields_of(record)[1] == expected
