"""The status of an event, whichever entry point records it or file contains it."""

import asyncio
import json
import logging

import pytest
import structlog

from structlog_audit import AuditHandler, AuditLogger, AuditProcessor, AuditTypeError, AuditValueError, open_trail

FOREIGN = {"event_id": "e1", "timestamp": "2025-01-15T10:30:45Z", "operation": "PAY"}


def by_bound_logger(handler, log, status, folder):
    log.info("PAY", status=status)


def by_bound_field(handler, log, status, folder):
    log.bind(status=status).info("PAY")


def by_context(handler, log, status, folder):
    with structlog.contextvars.bound_contextvars(status=status):
        log.info("PAY")


def by_coroutine(handler, log, status, folder):
    asyncio.run(log.ainfo("PAY", status=status))


def by_extra(handler, log, status, folder):
    logging.getLogger("audit").info("PAY", extra={"status": status})


def by_dictionary(handler, log, status, folder):
    logging.getLogger("audit").info({"event": "PAY", "status": status})


def by_json(handler, log, status, folder):
    logging.getLogger("audit").info(json.dumps({"event": "PAY", "status": status}))


def by_processor(handler, log, status, folder):
    chain = structlog.wrap_logger(structlog.ReturnLogger(), processors=[AuditProcessor()])
    chain.info("paid", operation="PAY", status=status)


def by_record(handler, log, status, folder):
    AuditLogger(handler=handler).record("PAY", status=status)


def by_log_event(handler, log, status, folder):
    asyncio.run(AuditLogger(handler=handler).log_event("PAY", status=status))


def by_operation(handler, log, status, folder):
    with log.operation("PAY", status=status):
        pass


def by_bind(handler, log, status, folder):
    with log.operation("PAY") as op:
        op.bind(status=status)


def by_foreign_line(handler, log, status, folder):
    path = folder / "foreign.jsonl"
    path.write_text(json.dumps({**FOREIGN, "status": status}) + "\n")
    return open_trail(path)


ENTRY_POINTS = [value for name, value in list(globals().items()) if name.startswith("by_")]


@pytest.mark.parametrize("record", ENTRY_POINTS, ids=lambda function: function.__name__)
@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("failed", "FAILURE"),
        ("Error", "FAILURE"),
        ("denied", "FAILURE"),
        (False, "FAILURE"),
        (500, "FAILURE"),
        ("ok", "SUCCESS"),
        (True, "SUCCESS"),
        (204, "SUCCESS"),
        ("partially", "PARTIAL"),
    ],
)
def test_status_word_counts_at_every_entry_point(handler, log, tmp_path, record, given, status):
    """A word, truth value or code states the status at every entry point, and is kept in the metadata without a mark."""
    source = record(handler, log, given, tmp_path) or handler
    (event,) = source.query_events()
    assert (event.status, event.metadata["status"]) == (status, given)
    assert "_audit" not in event.metadata


@pytest.mark.parametrize("record", ENTRY_POINTS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("given", ["archived", 7])
def test_value_that_is_not_a_status_is_kept_and_marked_at_every_entry_point(handler, log, tmp_path, record, given):
    """A value that states no status is kept and marked at every entry point, and the default rule applies."""
    source = record(handler, log, given, tmp_path) or handler
    (event,) = source.query_events()
    assert (event.status, event.metadata["status"]) == ("SUCCESS", given)
    assert event.metadata["_audit"] == {"status": "not a status"}


@pytest.mark.parametrize("record", ENTRY_POINTS, ids=lambda function: function.__name__)
@pytest.mark.parametrize("given", ["failure", "SUCCESS"])
def test_name_of_a_status_is_not_repeated_in_the_metadata(handler, log, tmp_path, record, given):
    """The name of a status in any case is the status, and nothing more."""
    source = record(handler, log, given, tmp_path) or handler
    (event,) = source.query_events()
    assert event.status == given.upper()
    assert "status" not in event.metadata


def test_event_of_an_unknown_status_with_an_error_is_a_failure(handler, log):
    """Beside a value that states no status, an error message or the level makes the event a FAILURE."""
    log.info("PAY", status="archived", error_message="no such card")
    log.error("PAY", status="archived")
    assert [event.status for event in handler.query_events()] == ["FAILURE", "FAILURE"]


def test_check_counts_events_of_unknown_status(handler, log):
    """The check of a handler counts the events in its buffer whose status states nothing."""
    log.info("PAY", status="archived")
    log.info("PAY", status="failed")
    findings = {finding.code: finding.message for finding in handler.check()}
    assert findings["unknown-status"].startswith("1 events ")


def test_filter_accepts_only_the_names_of_statuses(handler, log):
    """A filter by another word is an error, even if the word states a status of an event."""
    log.info("PAY", status="failed")
    assert handler.count_events(status="failure") == 1
    with pytest.raises(AuditValueError, match="failed"):
        handler.count_events(status="failed")


@pytest.mark.parametrize("level", [logging.WARNING, "WARNING"])
def test_failure_level_is_the_level_from_which_events_are_failures(level):
    """Without a status, an event is a FAILURE from ``failure_level`` on."""
    logger = logging.getLogger("strict")
    logger.setLevel(logging.INFO)
    handler = AuditHandler(failure_level=level)
    logger.addHandler(handler)
    try:
        logger.warning("PAY")
        logger.info("PAY")
        logger.warning("PAY", extra={"status": "ok"})
    finally:
        logger.removeHandler(handler)
    assert [event.status for event in handler.iter_events()] == ["FAILURE", "SUCCESS", "SUCCESS"]


@pytest.mark.parametrize(("level", "error"), [("BAD", AuditValueError), (None, AuditTypeError), (True, AuditTypeError)])
def test_failure_level_that_is_no_level_is_an_error(level, error):
    """A ``failure_level`` that logging does not know is an error that names it."""
    with pytest.raises(error, match="failure_level="):
        AuditHandler(failure_level=level)


@pytest.mark.parametrize(("status", "found"), [(None, "FAILURE"), ("SUCCESS", "SUCCESS")])
def test_foreign_line_with_an_error_and_no_status_is_a_failure(tmp_path, status, found):
    """A line with an error message is a FAILURE unless it has a status; the trail and a warm start agree."""
    line = FOREIGN | {"error_message": "no such card", "metadata": {"status": "x"}}
    if status is not None:
        line["status"] = status
    path = tmp_path / "foreign.jsonl"
    path.write_text(json.dumps(line) + "\n")

    handler = AuditHandler(filename=path, warm_start=True)
    try:
        assert [event.status for event in open_trail(path).query_events()] == [found]
        assert [event.status for event in handler.query_events()] == [found]
    finally:
        handler.close()
