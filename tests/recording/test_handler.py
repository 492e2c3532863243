"""`AuditHandler`: the events it accepts, the buffer, outages, forks and warm start."""

from __future__ import annotations

import gc
import json
import logging
import os
import subprocess
import sys
import threading
import weakref

import pytest
from children import without_coverage
from conftest import lines_in
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit import AuditFileHandler, AuditHandler, AuditWriteError, EventStatus, get_audit_logger

TIMERS: list = []


class Failing(logging.Handler):
    """A target that fails on demand."""

    def __init__(self):
        super().__init__()
        self.failing = False
        self.records = []

    def emit(self, record):
        if self.failing:
            raise OSError(28, "No space left on device")
        self.records.append(record)


def failing_handler(**options):
    target = Failing()
    handler = AuditHandler(target=target, call_later=lambda seconds, retry: TIMERS.append(retry), **options)
    logger = logging.getLogger("audit")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return handler, target, get_audit_logger()


def test_recorded_event_has_the_same_id_in_buffer_and_file(handler, log, path):
    """A recorded event is in the answer of a query at once, and in the file with the same id."""
    log.info("STORE", user_id="u1", entry_ids=["e1"])
    (event,) = handler.query_events(user_id="u1")
    assert lines_in(path)[0]["event_id"] == event.event_id
    assert handler.get_event(event.event_id) == event
    assert handler.count_events() == 1


def test_id_with_a_lone_surrogate_is_that_of_no_event(handler, log):
    """An id that UTF-8 cannot encode finds nothing, beside others."""
    log.info("STORE")
    (event,) = handler.query_events()
    assert handler.get_event("\ud800") is None
    assert handler.query_events(event_id=["\ud800", event.event_id]) == [event]


def test_empty_handler_is_true(handler):
    """A handler without events is true, though its length is 0."""
    assert handler
    assert "0 of 10000 events" in repr(handler)


def test_handler_without_target_records_in_memory():
    """Without a target, events in the buffer count as recorded."""
    handler = AuditHandler(max_events=2)
    for number in range(3):
        handler.handle(logging.makeLogRecord({"msg": f"OP{number}", "levelno": 20}))
    assert [event.operation for event in handler.iter_events()] == ["OP1", "OP2"]
    statistics = handler.get_statistics()
    assert (statistics["recorded"], statistics["evicted"]) == (3, 1)
    assert statistics["complete_since"] is not None
    handler.flush()
    handler.close()


def test_retry_keeps_events_pending_in_order_until_the_target_recovers(capsys):
    """While the target fails, events are pending and in the answers of queries; then they precede all later ones."""
    TIMERS.clear()
    failures = []
    handler, target, log = failing_handler(on_failure=failures.append)
    target.failing = True
    log.info("STORE")
    log.info("RECALL")
    statistics = handler.get_statistics()
    assert (statistics["total_events"], statistics["pending"], statistics["recorded"]) == (2, 2, 0)
    target.failing = False
    log.info("FORGET")
    assert [record.operation for record in target.records] == ["STORE", "RECALL", "FORGET"]
    assert handler.get_statistics()["pending"] == 0
    assert [type(error) for error in failures] == [OSError]
    assert capsys.readouterr().err.count("fails (OSError: [Errno 28] No space left on device)") == 1


@pytest.mark.parametrize("how", ["timer", "flush", "close"])
def test_pending_events_are_retried(how):
    """The timer, a flush and a close each retry the pending events."""
    TIMERS.clear()
    handler, target, log = failing_handler()
    target.failing = True
    log.info("STORE")
    target.failing = False
    {"timer": TIMERS[-1], "flush": handler.flush, "close": handler.close}[how]()
    assert [record.operation for record in target.records] == ["STORE"]


def test_close_reports_the_number_of_pending_events(capsys):
    """A close with events still pending reports their number on stderr, without their content."""
    handler, target, log = failing_handler()
    target.failing = True
    log.info("SECRET")
    handler.close()
    error = capsys.readouterr().err
    assert "1 events are pending" in error
    assert "SECRET" not in error


def test_gap_takes_the_place_of_events_beyond_max_pending():
    """Events beyond max_pending are counted as lost, and a gap takes their place in the trail."""
    handler, target, log = failing_handler(max_pending=1)
    target.failing = True
    for operation in ("STORE", "RECALL", "FORGET"):
        log.info(operation)
    target.failing = False
    log.info("EXPORT")
    assert [record.operation for record in target.records] == ["STORE", "gap", "EXPORT"]
    (gap,) = handler.query_events(kind="gap")
    assert gap.metadata["lost"] == 2
    assert handler.get_statistics()["lost"] == 2
    assert {"lost"} <= {finding.code for finding in handler.check()}


def test_raise_gives_the_caller_the_error_and_keeps_nothing():
    """With on_error="raise" the caller gets the error, and the event is neither in the buffer nor pending."""
    handler, target, log = failing_handler(on_error="raise")
    target.failing = True
    with pytest.raises(AuditWriteError, match="No space left") as caught:
        log.info("STORE")
    assert isinstance(caught.value.__cause__, OSError)
    statistics = handler.get_statistics()
    assert (statistics["total_events"], statistics["pending"], statistics["raised"]) == (0, 0, 1)


def test_raise_reaches_the_caller_of_logging():
    """An AuditWriteError passes through `logging` to the caller."""
    _, target, _ = failing_handler(on_error="raise")
    target.failing = True
    with pytest.raises(AuditWriteError):
        logging.getLogger("audit").info("STORE")


def test_failing_on_failure_callback_is_reported(capsys):
    """If on_failure itself raises, that is reported on stderr, and the event is pending all the same."""
    handler, target, log = failing_handler(on_failure=lambda error: 1 / 0)
    target.failing = True
    log.info("STORE")
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert handler.get_statistics()["pending"] == 1


def test_filters_and_level_of_the_target_apply():
    """An event that the filters or the level of the target would drop is not accepted."""
    target = Failing()
    target.addFilter(lambda record: record.getMessage() != "NO")
    target.setLevel(logging.INFO)
    handler = AuditHandler(target=target)
    handler.addFilter(lambda record: record.getMessage() != "NEVER")
    for message, level in (("YES", 20), ("NO", 20), ("NEVER", 20), ("LOW", 10)):
        handler.handle(logging.makeLogRecord({"msg": message, "levelno": level}))
    assert [event.operation for event in handler.iter_events()] == ["YES"]
    assert len(target.records) == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="filters may replace the record since 3.12")
def test_filter_may_return_a_copy_of_the_record(handler, log):
    """The acknowledgement of a copied record reaches the entry point; nothing is reported as lost."""

    def copying(record):
        copy = logging.makeLogRecord(record.__dict__)
        copy.msg = "changed"
        return copy

    handler.addFilter(copying)
    log.info("STORE")
    assert handler.count_events() == 1


def test_warm_start_fills_the_buffer_from_the_files(path):
    """With warm_start the buffer has the newest events of the trail, from all segments, with their parts."""
    first = AuditHandler(target=AuditFileHandler(path, maxBytes=3_000))
    logger = logging.Logger("warm")
    logger.addHandler(first)
    for number in range(50):
        logger.info("STORE", extra={"entry_ids": [f"e{number}"]})
    logger.info("IMPORT", extra={"entry_ids": [f"entry-{number:06}" for number in range(5_000)]})
    logger.removeHandler(first)
    again = AuditHandler(target=AuditFileHandler(path), warm_start=True)
    assert again.query_events() == first.query_events()
    assert len(again.query_events(operation="IMPORT")[0].entry_ids) == 5_000
    assert again.complete_since is None
    few = AuditHandler(10, target=AuditFileHandler(path), warm_start=True)
    assert few.query_events() == first.query_events(limit=10)
    assert few.complete_since > first.query_events()[-1].timestamp
    assert AuditHandler(filename=path).complete_since is not None


def test_warm_start_counts_unreadable_lines(path):
    """A warm start skips lines that are not events, and check() reports them."""
    path.parent.mkdir()
    path.write_text(
        'not an event\n{"event_id":"evt_1","timestamp":"2025-01-01T00:00:00.000000Z","operation":"STORE"}\n'
    )
    handler = AuditHandler(filename=path, warm_start=True)
    assert handler.count_events() == 1
    assert "unreadable" in [finding.code for finding in handler.check()]


def test_recorded_event_does_not_change_with_the_callers_objects(handler, log):
    """A change to a list that the caller passed, or got from a query, does not change the recorded event."""
    tags, ids = ["a"], ["e1"]
    log.info("STORE", entry_ids=ids, metadata={"tags": tags})
    tags.append("b")
    ids.append("e2")
    (event,) = handler.query_events()
    event.metadata["tags"].append("c")
    (event,) = handler.query_events()
    assert (event.metadata, event.entry_ids) == ({"tags": ["a"]}, ["e1"])


def test_clear_empties_only_the_buffer(handler, log, path):
    """clear() empties the buffer but not the files, and later events are in the answers."""
    log.info("STORE")
    handler.clear()
    assert handler.query_events() == []
    assert handler.complete_since is not None
    assert len(lines_in(path)) == 1
    log.info("RECALL")
    assert [event.operation for event in handler.query_events()] == ["RECALL"]


def test_unreferenced_handler_is_collected(path):
    """The library itself does not keep a handler alive."""
    made = AuditHandler(filename=path)
    reference = weakref.ref(made)
    made.close()
    del made
    gc.collect()
    assert reference() is None


def test_forked_child_starts_empty(path):
    """A forked child has an empty buffer, nothing pending and new ids, and appends to the same trail."""
    code = f"""
import logging, os, sys, structlog_audit
logger = logging.getLogger("audit"); logger.propagate = False; logger.setLevel(20)
handler = structlog_audit.AuditHandler(filename={str(path)!r}); logger.addHandler(handler)
log = structlog_audit.get_audit_logger()
log.info("PARENT")
pid = os.fork()
if not pid:
    assert handler.count_events() == 0 and handler.get_statistics()["recorded"] == 0
    log.info("CHILD")
    assert handler.count_events() == 1
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
log.info("PARENT")
assert handler.count_events() == 2
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
    lines = lines_in(path)
    assert [line["operation"] for line in lines] == ["PARENT", "CHILD", "PARENT"]
    assert len({line["event_id"] for line in lines}) == 3


def test_fork_while_other_threads_write_never_hangs(path):
    """A forked child records, even if other threads held locks at the time of the fork."""
    if not hasattr(os, "fork"):
        pytest.skip("no fork here")
    code = f"""
import logging, os, threading, structlog_audit
logger = logging.getLogger("audit"); logger.propagate = False; logger.setLevel(20)
logger.addHandler(structlog_audit.AuditHandler(filename={str(path)!r}))
log = structlog_audit.get_audit_logger()
stop = threading.Event()
def write():
    while not stop.is_set():
        log.info("THREAD")
threads = [threading.Thread(target=write) for _ in range(4)]
for thread in threads: thread.start()
for _ in range(20):
    pid = os.fork()
    if not pid:
        log.info("CHILD")
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120, env=without_coverage())
    # A child may add an empty line.
    lines = [json.loads(line) for line in path.read_bytes().splitlines() if line]
    assert sum(line["operation"] == "CHILD" for line in lines) == 20
    assert len({line["event_id"] for line in lines}) == len(lines)


def test_query_while_a_thread_writes_is_consistent(handler, log):
    """A query that runs beside a writer returns each event once and in order."""
    done = threading.Event()

    def write():
        for number in range(3_000):
            log.info("STORE", user_id=f"u{number % 7}")
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        ids = [event.event_id for event in handler.query_events(user_id="u3", newest_first=False)]
        assert ids == sorted(set(ids))
    writer.join()
    assert handler.get_statistics()["total_events"] == 3_000


@given(
    st.lists(
        st.fixed_dictionaries(
            {"operation": st.sampled_from(["STORE", "recall", "LOGIN"]), "level": st.sampled_from([20, 30, 40])},
            optional={"user_id": st.text(max_size=5), "status": st.sampled_from(["PARTIAL", "nonsense"])},
        ),
        max_size=20,
    )
)
@settings(max_examples=50, deadline=None)
def test_every_record_becomes_one_event(events):
    """Each record of any sequence becomes one event, in order, with its operation, user and status."""
    handler = AuditHandler()
    for event in events:
        extra = {name: value for name, value in event.items() if name != "level"}
        handler.handle(logging.makeLogRecord({"levelno": event["level"], "msg": "text", **extra}))
    found = list(handler.iter_events())
    six = {"STORE", "RECALL"}
    for event, one in zip(events, found, strict=True):
        expected = event["operation"].upper()
        assert one.operation == (expected if expected in six else event["operation"])
        assert one.user_id == event.get("user_id")
        if event.get("status") == "PARTIAL":
            assert one.status is EventStatus.PARTIAL
        else:
            assert one.status is (EventStatus.FAILURE if event["level"] >= 40 else EventStatus.SUCCESS)
