"""`AuditProcessor` in an application's structlog chain."""

from __future__ import annotations

import io
import json
import logging

import pytest
import structlog

from structlog_audit import AuditProcessor, AuditTypeError


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


@pytest.mark.parametrize("last", [
    structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    structlog.stdlib.render_to_log_kwargs,
    structlog.stdlib.render_to_log_args_and_kwargs,
])  # fmt: skip
def test_chain_that_ends_in_the_same_handler_records_once(handler, last):
    """If the chain ends in the logger of the same handler, each event is recorded once."""
    logging.getLogger("audit").propagate = False
    log = chain_to("audit", last)
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
