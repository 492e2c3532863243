"""`AuditProcessor` in an application's own chain."""

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


def test_events_with_an_operation_are_recorded_and_passed_on(handler):
    """What carries an operation is recorded with all its keys, and goes on as it was."""
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
def test_each_is_recorded_once(handler, last):
    """A chain that ends in the logger of the same handler records an event once, and the others as they come."""
    logging.getLogger("audit").propagate = False
    log = chain_to("audit", last)
    log.info("stored", operation="STORE", user_id="u1")
    log.info("LOGIN", user_id="u2")
    assert [event.operation for event in handler.iter_events()] == ["STORE", "LOGIN"]
    assert "timestamp" in handler.query_events()[1].metadata
    assert "level" not in handler.query_events()[1].metadata


def test_twice_in_a_chain_records_once(handler):
    """A second AuditProcessor in the same chain adds nothing."""
    log = structlog.wrap_logger(
        structlog.ReturnLogger(), processors=[AuditProcessor(), AuditProcessor(), structlog.processors.JSONRenderer()]
    )
    log.info("STORE", operation="STORE")
    assert handler.count_events() == 1


def test_when_decides(handler):
    """`when` says what is recorded; without an operation, the event is one."""
    log = structlog.wrap_logger(
        structlog.ReturnLogger(),
        processors=[AuditProcessor(when=lambda event: "audit" in event), structlog.processors.JSONRenderer()],
    )
    log.info("LOGIN", audit=True)
    log.info("STORE", operation="STORE")
    assert [event.operation for event in handler.query_events()] == ["LOGIN"]


@pytest.mark.parametrize(("method", "status"), [("info", "SUCCESS"), ("error", "FAILURE"), ("exception", "FAILURE")])
def test_the_method_gives_the_level(handler, method, status):
    """error and exception mean FAILURE, with the exception's text."""
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


def test_bad_parameters_are_named():
    """`when` is a function, `logger` a name."""
    with pytest.raises(AuditTypeError, match="when=3"):
        AuditProcessor(when=3)
    with pytest.raises(AuditTypeError, match="name=3"):
        AuditProcessor(3)
