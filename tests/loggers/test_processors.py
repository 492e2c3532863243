"""`AuditProcessor` in an application's structlog chain."""

from __future__ import annotations

import asyncio
import io
import json
import logging

import pytest
import strategies as s
import structlog

from structlog_audit import AuditHandler, AuditProcessor, AuditTypeError
from structlog_audit.events.json_safe import exception_text
from structlog_audit.recording import structlog_calls


def chain_to(name, *last):
    return structlog.wrap_logger(
        logging.getLogger(name),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            AuditProcessor(),
            *last,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def test_event_with_an_operation_is_recorded_and_passed_on(handler):
    """An event with an operation is recorded with all its keys, and passed on unchanged."""
    stream = io.StringIO()
    log = structlog.wrap_logger(
        structlog.PrintLogger(stream),
        processors=[structlog.processors.add_log_level, AuditProcessor(), structlog.processors.JSONRenderer()],
    )
    log.info("stored", operation="STORE", user_id="u1", size=3)
    log.info("only a message")
    (event,) = handler.query_events()
    assert (event.operation, event.user_id, event.metadata) == ("STORE", "u1", {"message": "stored", "size": 3})
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == [
        {"operation": "STORE", "user_id": "u1", "size": 3, "level": "info", "event": "stored"},
        {"level": "info", "event": "only a message"},
    ]


class Lazy:
    def __str__(self):
        return "lazily"


ERRORS = [
    ValueError("bad"),
    OSError(),
    KeyError("several\nlines"),
    ExceptionGroup("both", [ValueError("a"), ExceptionGroup("inner", [KeyError("k"), OSError()])]),
    ExceptionGroup("many", [ValueError(str(number)) for number in range(12)]),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__}-{error.args[:1]}")
@pytest.mark.parametrize("is_audit_chain", [True, False], ids=["AuditProcessor", "wrap_for_formatter"])
@pytest.mark.parametrize("render", [
    lambda logger, method, event_dict: event_dict,
    structlog.processors.format_exc_info,
    structlog.processors.dict_tracebacks,
], ids=["exc_info", "format_exc_info", "dict_tracebacks"])  # fmt: skip
def test_exception_that_another_processor_rendered_is_the_error_of_the_event(handler, render, is_audit_chain, error):
    """An exception makes the event a FAILURE with its text, whatever a processor before the recording made of it."""
    if is_audit_chain:
        target, last = structlog.PrintLogger(io.StringIO()), [AuditProcessor(), lambda *_: ""]
    else:
        target, last = logging.getLogger("audit"), [structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
    log = structlog.wrap_logger(target, processors=[render, *last], wrapper_class=structlog.BoundLogger)
    try:
        raise error
    except Exception:
        log.info("stored", operation="STORE", exc_info=True)
    (event,) = handler.query_events()
    assert (event.status, event.error_message) == ("FAILURE", exception_text(error))


@pytest.mark.parametrize("value", [[], [{}], [{"exc_type": 5}], [{"exc_type": "E", "exceptions": 3}], ["E"], 5, None])
def test_value_under_exception_without_an_exception_is_metadata(handler, value):
    """A list in another form than that of dict_tracebacks, and any other value, is no error."""
    log = structlog.wrap_logger(structlog.PrintLogger(io.StringIO()), processors=[AuditProcessor(), lambda *_: ""])
    log.info("stored", operation="STORE", exception=value)
    (event,) = handler.query_events()
    assert (event.status, event.error_message, event.metadata["exception"]) == ("SUCCESS", None, value)


@pytest.mark.parametrize("name", ["level", "level_number", "logger", "_record", "positional_args"])
@pytest.mark.parametrize("make", [make for make in s.HOSTILE if make.__name__ in ("raising", "lying_class")])
def test_value_of_any_class_under_a_key_of_structlog_is_accepted(handler, name, make):
    """A value under a key that repeats the call is compared only with one of its class, and raises nothing."""
    log = structlog.wrap_logger(structlog.PrintLogger(io.StringIO()), processors=[AuditProcessor(), lambda *_: ""])
    log.info("stored", operation="STORE", **{name: make()})
    log.info("stored", operation="STORE", **{name: (make(),)})
    assert handler.count_events(operation="STORE") == 2


EVENTS = ["stored", ValueError("bad"), {"k": 1}, 42, Lazy(), None, b"raw", logging.INFO]


@pytest.mark.parametrize("event", EVENTS, ids=[type(event).__name__ for event in EVENTS])
def test_every_event_dict_is_passed_on_unchanged(handler, event):
    """The following processors get the same dictionary, with the same keys and the same objects in it."""
    event_dict = {"event": event, "operation": "STORE", "positional_args": (event,), "exc_info": True}
    before = dict(event_dict)
    passed = []
    structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[lambda *_: event_dict, AuditProcessor(), lambda *step: passed.append(step[2]) or ""],
    ).info("x")
    assert passed[0] is event_dict
    assert list(event_dict) == list(before)
    assert all(event_dict[name] is before[name] for name in before)
    assert handler.count_events(operation="STORE") == 1


def render_to_bytes(logger, method_name, event_dict):
    return json.dumps(event_dict, default=str).encode()


def replace_event(logger, method_name, event_dict):
    return {"msg": "something else", "extra": {"further": 1}}


BEHIND = [
    [structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    [structlog.stdlib.render_to_log_kwargs],
    [structlog.stdlib.render_to_log_args_and_kwargs],
    [structlog.stdlib.PositionalArgumentsFormatter(), structlog.stdlib.render_to_log_kwargs],
    [structlog.processors.EventRenamer("message"), structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    [structlog.processors.EventRenamer("message"), structlog.processors.JSONRenderer()],
    [structlog.processors.JSONRenderer()],
    [structlog.processors.KeyValueRenderer()],
    [structlog.processors.LogfmtRenderer()],
    [structlog.dev.ConsoleRenderer()],
    [render_to_bytes],
    [replace_event],
]


@pytest.mark.parametrize("last", BEHIND)
def test_chain_that_ends_in_the_same_handler_records_once(handler, last):
    """Whatever renders behind the processor, each event is recorded once, and other events as before."""
    log = chain_to("audit", *last)
    log.info("entry %s stored", "e1", operation="STORE", user_id="u1")
    assert [event.operation for event in handler.iter_events()] == ["STORE"]
    assert handler.query_events()[0].metadata["message"] == "entry e1 stored"
    log.info("LOGIN", user_id="u2")
    logging.getLogger("audit").info("LOGOUT")
    assert handler.count_events() == 3


@pytest.mark.parametrize("wrapper", [
    structlog.stdlib.BoundLogger,
    structlog.BoundLogger,
    structlog.make_filtering_bound_logger(logging.INFO),
])  # fmt: skip
def test_event_is_recorded_once_through_every_bound_logger(handler, wrapper):
    """The class of the bound logger makes no difference, and neither does one that overrides its methods."""

    class Custom(wrapper):
        def _process_event(self, *args, **kwargs):
            return super()._process_event(*args, **kwargs)

    for kind in (wrapper, Custom):
        log = structlog.wrap_logger(
            logging.getLogger("audit"),
            processors=[AuditProcessor(), structlog.processors.JSONRenderer()],
            wrapper_class=kind,
        )
        log.info("stored", operation="STORE")
    assert handler.count_events() == handler.count_events(operation="STORE") == 2


def test_asynchronous_call_is_recorded_once(handler):
    """structlog runs processors and logger of an asynchronous call on another thread."""
    log = chain_to("audit", structlog.processors.JSONRenderer())
    asyncio.run(log.ainfo("stored", operation="STORE"))
    assert handler.count_events() == 1


def test_other_records_during_and_after_a_recorded_call_are_recorded(handler):
    """Events that processors, filters and handlers log meanwhile, and later ones, have events of their own."""
    inner = logging.getLogger("audit.inner")

    def log_more(name):
        def step(*args):
            inner.info(name)
            return args[-1]

        return step

    class Chatty(logging.Filter):
        def filter(self, record):
            if record.name == "audit":
                inner.info("from a filter")
            return True

    logging.getLogger("audit").addFilter(Chatty())
    log = chain_to("audit", log_more("from a processor"), structlog.processors.JSONRenderer())
    log.info("stored", operation="STORE")
    inner.info("later")
    found = [event.operation for event in handler.iter_events()]
    # The filter sees the record of the processor and that of the chain.
    assert found == ["from a filter", "STORE", "from a processor", "from a filter", "later"]


class Handling(logging.Logger):
    """A logger that handles records itself."""

    def handle(self, record):
        if self.filter(record):
            self.callHandlers(record)


def test_record_of_a_filter_is_recorded_though_its_logger_overrides_handle(handler):
    """A nested record has an event of its own, whichever way the loggers handle records."""
    outer, inner = Handling("outer"), Handling("inner")
    outer.addHandler(handler)
    inner.addHandler(handler)
    outer.addFilter(lambda record: inner.info("NESTED") is None)
    structlog.wrap_logger(outer, processors=[AuditProcessor(), structlog.processors.JSONRenderer()]).info(
        "x", operation="STORE"
    )
    assert [event.operation for event in handler.iter_events()] == ["STORE", "NESTED"]


def test_event_after_a_recorded_one_in_the_same_function_is_recorded(handler):
    """A custom bound logger may process several events in one function."""

    class Batch(structlog.BoundLoggerBase):
        def all(self, *events):
            for fields in events:
                args, kwargs = self._process_event("info", None, fields)
                self._logger.info(*args, **kwargs)

    log = structlog.wrap_logger(
        logging.getLogger("audit"),
        processors=[AuditProcessor(), structlog.stdlib.render_to_log_kwargs],
        wrapper_class=Batch,
    )
    events = [{"operation": "STORE"}, {"operation": "RECALL"}, {"event": "LOGIN"}, {"operation": "FORGET"}]
    log.all(*({"event": "x", **fields} for fields in events))
    assert [event.operation for event in handler.iter_events()] == ["STORE", "RECALL", "LOGIN", "FORGET"]


def drop(*_):
    raise structlog.DropEvent


@pytest.mark.parametrize("processors", [[], [AuditProcessor(when=lambda _: False)]], ids=["none", "not selecting"])
def test_call_after_a_dropped_one_is_recorded(handler, processors):
    """The mark of a call that ended without a record is never that of a later call in a frame of the same identity."""
    dropped = chain_to("audit", drop)
    plain = structlog.wrap_logger(
        logging.getLogger("audit"), processors=[*processors, structlog.stdlib.render_to_log_kwargs]
    )
    for _ in range(20):
        dropped.info("x", operation="STORE")
        plain.info("x", operation="STORE")
    assert handler.count_events() == 40


def test_second_processor_does_not_take_an_earlier_call_for_its_own(handler):
    """A processor that only the second of two calls has records it, though the first call left a mark."""
    first = chain_to("audit", drop)
    second = structlog.wrap_logger(logging.getLogger("audit"), processors=[AuditProcessor(), drop])
    for _ in range(20):
        first.info("x", operation="STORE")
        second.info("x", operation="STORE")
    assert handler.count_events() == 40


def test_event_of_a_processor_in_the_same_chain_is_recorded(handler):
    """A call that is nested in a call of the same logger has an event and a mark of its own."""

    def log_more(logger, method_name, event_dict):
        if event_dict["operation"] == "OUTER":
            log.info("x", operation="INNER")
        return event_dict

    for place in (0, 1):
        processors = [AuditProcessor(), structlog.processors.JSONRenderer()]
        processors.insert(place, log_more)
        log = structlog.wrap_logger(logging.getLogger("audit"), processors=processors)
        log.info("x", operation="OUTER")
    assert [event.operation for event in handler.iter_events()] == ["INNER", "OUTER", "OUTER", "INNER"]


def test_marks_do_not_accumulate_without_bound(handler, monkeypatch):
    """Marks of calls that are over are removed before there are too many."""
    monkeypatch.setattr(structlog_calls, "_MAX_MARKS", 3)

    def call(depth):
        def call_more(*_):
            if depth:
                call(depth - 1)
            raise structlog.DropEvent

        chain_to("audit", call_more).info("x", operation="STORE")

    structlog_calls.marks.clear()
    call(10)
    assert 0 < len(structlog_calls.marks) <= 4
    assert handler.count_events() == 11


def test_each_handler_of_two_records_once(handler):
    """If the audit logger and the chain have two handlers, each has the event once."""
    other = AuditHandler()
    logging.getLogger("audit").addHandler(other)
    chain_to("audit", structlog.processors.JSONRenderer()).info("stored", operation="STORE")
    assert (handler.count_events(), other.count_events()) == (1, 1)


def test_processors_of_two_audit_loggers_record_in_both(handler):
    """A second processor is left out only if the first has recorded for its handlers too."""
    other = AuditHandler()
    billing = logging.getLogger("billing")
    billing.addHandler(other)
    billing.setLevel(logging.INFO)
    billing.propagate = False
    structlog.wrap_logger(
        structlog.ReturnLogger(), processors=[AuditProcessor(), AuditProcessor("billing"), lambda *_: ""]
    ).info("stored", operation="STORE")
    assert (handler.count_events(), other.count_events()) == (1, 1)


@pytest.mark.parametrize("first", [[], [AuditProcessor()]])
def test_processor_in_a_formatter_leaves_records_to_their_handler(handler, first):
    """A ProcessorFormatter formats records that may reach the handler anyway; others are recorded by its processor."""
    stream = logging.StreamHandler(io.StringIO())
    stream.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[AuditProcessor(), structlog.stdlib.ProcessorFormatter.remove_processors_meta, render_to_text]
        )
    )
    for name in ("audit", "app"):
        logging.getLogger(name).addHandler(stream)
        logging.getLogger(name).setLevel(logging.INFO)
        log = structlog.wrap_logger(
            logging.getLogger(name),
            processors=[*first, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            wrapper_class=structlog.stdlib.BoundLogger,
        )
        log.info("stored", operation="STORE", user_id=name)
    assert [event.user_id for event in handler.iter_events()] == ["audit", "app"]


def render_to_text(logger, method_name, event_dict):
    return repr(event_dict)


@pytest.mark.parametrize(
    "last", [structlog.stdlib.ProcessorFormatter.wrap_for_formatter, structlog.processors.JSONRenderer()]
)
@pytest.mark.parametrize("name", ["message", "msg"])
def test_renamed_event_is_the_operation(handler, last, name):
    """EventRenamer in front of the handler does not hide the operation."""
    chain = [structlog.processors.EventRenamer(name), last]
    structlog.wrap_logger(logging.getLogger("audit"), processors=chain).info("user.login", user_id="u1")
    (event,) = handler.query_events()
    assert (event.operation, event.user_id, event.metadata) == ("user.login", "u1", {})


def test_renamed_event_is_the_operation_of_a_processor(handler):
    """The same holds if the processor stands behind EventRenamer."""
    chain = [structlog.processors.EventRenamer("message"), AuditProcessor(when=bool), lambda *_: ""]
    structlog.wrap_logger(structlog.ReturnLogger(), processors=chain).info("user.login")
    assert [event.operation for event in handler.iter_events()] == ["user.login"]


@pytest.mark.parametrize(("message", "arguments", "expected"), [
    ("%s of %s", (1, 2), "1 of 2"),
    ("%(a)s", ({"a": 1},), "1"),
    ("100 %", (1,), "100 %"),
])  # fmt: skip
def test_positional_arguments_belong_to_the_message(handler, message, arguments, expected):
    """The message is recorded with its arguments; those that do not fit are kept."""
    chain_to("audit", lambda *_: "").info(message, *arguments, operation="STORE")
    metadata = handler.query_events()[-1].metadata
    assert metadata["message"] == expected
    assert ("positional_args" in metadata) == (message == expected)


def test_keys_that_repeat_the_call_are_left_out(handler):
    """The level is that of the event already; a timestamp of the chain is metadata."""
    log = chain_to("audit", structlog.stdlib.render_to_log_kwargs)
    log.info("stored", operation="STORE", user_id="u1")
    log.info("LOGIN", user_id="u2")
    assert [event.operation for event in handler.iter_events()] == ["STORE", "LOGIN"]
    assert "timestamp" in handler.query_events()[1].metadata
    assert "level" not in handler.query_events()[1].metadata


def test_second_processor_in_a_chain_adds_nothing(handler):
    """A second AuditProcessor in the same chain records nothing more."""
    log = structlog.wrap_logger(
        structlog.ReturnLogger(), processors=[AuditProcessor(), AuditProcessor(), structlog.processors.JSONRenderer()]
    )
    log.info("STORE", operation="STORE")
    assert handler.count_events() == 1


def test_when_selects_the_recorded_events(handler):
    """`when` selects the events to record; without an operation the event itself is the operation."""
    log = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[AuditProcessor(when=lambda event: "audit" in event), structlog.processors.JSONRenderer()],
    )
    log.info("LOGIN", audit=True)
    log.info("STORE", operation="STORE")
    assert [event.operation for event in handler.query_events()] == ["LOGIN"]


@pytest.mark.parametrize(("method", "status"), [("info", "SUCCESS"), ("error", "FAILURE"), ("exception", "FAILURE")])
def test_method_of_the_logger_determines_the_status(handler, method, status):
    """error and exception are a FAILURE, exception with the text of the exception."""
    log = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[AuditProcessor(), structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    try:
        raise ValueError("bad")
    except ValueError:
        getattr(log, method)("STORE", operation="STORE")
    (event,) = handler.query_events()
    assert event.status == status
    assert event.error_message == ("ValueError: bad" if method == "exception" else None)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [((), {"when": 3}, "when=3: expected a function"), ((3,), {}, "name=3: expected")],
)
def test_invalid_parameter_is_an_error_that_names_it(arguments, options, message):
    """`when` must be a function, `logger` a string."""
    with pytest.raises(AuditTypeError, match=message):
        AuditProcessor(*arguments, **options)
