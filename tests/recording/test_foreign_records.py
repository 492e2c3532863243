"""Records that other handlers prepared, or that no logger made, recorded as events."""

from __future__ import annotations

import json
import logging
import logging.handlers
import pickle
import queue

import pytest
import structlog
from conftest import lines_in

from structlog_audit import AuditFileHandler, AuditHandler, get_audit_logger


class Transfer(logging.handlers.QueueHandler):
    """Hands each record on as a queue does, pickled as between processes if *pickled*, without another thread."""

    def __init__(self, receiver, pickled):
        super().__init__(queue.SimpleQueue())
        self.receiver, self.pickled = receiver, pickled

    def enqueue(self, record):
        self.receiver.handle(pickle.loads(pickle.dumps(record)) if self.pickled else record)


@pytest.fixture(params=[False, True], ids=["threads", "processes"])
def queued(request):
    """An audit handler behind a queue, and another one without it, on the same logger."""
    behind, direct = AuditHandler(), AuditHandler()
    logger = logging.getLogger("queued")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(direct)
    logger.addHandler(Transfer(behind, request.param))
    return behind, direct


def log_entry_point(logger):
    get_audit_logger(logger.name).exception("FORGET", user_id="u1", size=3)


def log_plain(logger):
    logger.exception("FORGET %s", "e1", extra={"user_id": "u1"})


def log_stack(logger):
    logger.error("FORGET", exc_info=True, stack_info=True)


def log_dictionary(logger):
    logger.info({"event": "FORGET", "user_id": "u1", "entry_ids": ["e1", "e2"]})


def log_json(logger):
    logger.exception(json.dumps({"event": "FORGET", "user_id": "u1"}))


def log_structlog(logger):
    chain = [structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
    structlog.wrap_logger(logger, processors=chain).info("FORGET", user_id="u1", size=3)


LOGS = [log_entry_point, log_plain, log_stack, log_dictionary, log_json, log_structlog]
ERRORS = [ValueError("bad"), ExceptionGroup("several", [ValueError("a"), KeyError("b")]), KeyError("x")]


@pytest.mark.parametrize("log", LOGS)
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_event_behind_a_queue_is_the_same_as_without_it(queued, log, error):
    """Operation, fields and exception arrive, although the queue handler formats them into the message."""
    try:
        try:
            raise LookupError("cause")
        except LookupError:
            raise error from None if isinstance(error, KeyError) else error
    except Exception:
        log(logging.getLogger("queued"))

    def described(handler):
        (event,) = handler.query_events()
        return event.operation, event.user_id, event.entry_ids, event.status, event.error_message

    behind, direct = queued
    assert described(behind) == described(direct)


def test_changes_by_filters_before_and_behind_a_queue_are_in_the_event(queued):
    """A filter of the queue handler, or of the audit handler behind the queue, changes the event of an entry point."""
    behind, direct = queued
    before = next(each for each in logging.getLogger("queued").handlers if isinstance(each, Transfer))
    before.addFilter(lambda record: setattr(record, "user_id", "***") is None)
    behind.addFilter(lambda record: setattr(record, "region", "eu") is None)
    get_audit_logger("queued").info("STORE", user_id="u1", size=0.5)
    (event,) = behind.query_events()
    assert (event.operation, event.user_id, event.metadata) == ("STORE", "***", {"size": 0.5, "region": "eu"})
    assert direct.query_events()[0].user_id == "u1"


@pytest.mark.parametrize(("attributes", "expected"), [
    ({}, "SUCCESS"),
    ({"levelno": None, "levelname": "ERROR"}, "FAILURE"),
    ({"levelno": "40"}, "FAILURE"),
    ({"levelno": 40.0}, "FAILURE"),
    ({"levelno": float("nan")}, "SUCCESS"),
    ({"levelno": True}, "SUCCESS"),
    ({"levelno": object(), "levelname": 5}, "SUCCESS"),
])  # fmt: skip
def test_record_without_a_valid_level_is_recorded(tmp_path, attributes, expected):
    """A record made by hand or by another library has the level that its name says, or INFO; it is not changed."""
    path = tmp_path / "audit.jsonl"
    handlers = [AuditHandler(), AuditHandler(target=logging.NullHandler())]
    file = AuditFileHandler(path)
    record = logging.makeLogRecord({"msg": "STORE", **attributes})
    level = record.levelno
    for handler in [*handlers, file]:
        assert handler.handle(record)
    file.close()
    found = [event.status.value for handler in handlers for event in handler.iter_events()]
    assert [*found, *(line["status"] for line in lines_in(path))] == [expected] * 3
    assert record.levelno is level


def test_queued_text_that_only_looks_like_a_dictionary_stays_text():
    """A message behind a queue is taken for an event only if the dictionary in it names one."""
    handler = AuditHandler()
    text = "{'user_id': 'admin', 'size': 3}"
    handler.handle(logging.makeLogRecord({"msg": text, "args": None, "levelno": 20}))
    (event,) = handler.query_events()
    assert (event.operation, event.user_id) == (text, None)
