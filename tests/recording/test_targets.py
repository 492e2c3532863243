"""Any `logging.Handler` as the target of an `AuditHandler`."""

import asyncio
import errno
import json
import logging
import logging.handlers
import queue
import threading

import pytest
from pythonjsonlogger.json import JsonFormatter

from structlog_audit import AuditFileHandler, AuditHandler, AuditJsonFormatter, get_audit_logger
from structlog_audit._failures import DeliveryError
from structlog_audit.exceptions import AuditTypeError, AuditValueError, AuditWriteError
from structlog_audit.recording.formatter import LINE
from structlog_audit.recording.queue_entry import QueueEntry
from structlog_audit.recording.targets import ForeignTarget, make_target, record_of

NOW = 1_736_937_045_123_456_789  # 2025-01-15T10:30:45.123456Z


class Stream:
    """A stream with a disk that is full on demand."""

    def __init__(self):
        self.lines = []
        self.full = False
        self.room = None

    def write(self, text):
        if self.full or self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.room is not None:
            self.room -= 1
        self.lines.append(text)

    def flush(self):
        """Do nothing: every line is written at once."""


class RaisingHandler(logging.Handler):
    """A handler that raises in its emit, as those of other libraries do."""

    def __init__(self, error=None):
        super().__init__()
        self.error = error
        self.records = []

    def emit(self, record):
        if self.error is not None:
            raise self.error
        self.records.append(record)


class HandleErrorRecorder(logging.StreamHandler):
    """A stream handler that keeps the messages of the records passed to its handleError."""

    def __init__(self, stream):
        super().__init__(stream)
        self.failed_messages = []

    def handleError(self, record):
        self.failed_messages.append(record.getMessage())


def audit_over(target, **arguments):
    arguments = {"clock": lambda: NOW, "call_later": lambda seconds, function: None, **arguments}
    return AuditHandler(target=target, **arguments)


def log_to(handler, message, level=logging.INFO, **fields):
    record = logging.LogRecord("audit", level, __file__, 1, message, (), None)
    record.__dict__.update(fields)
    return handler.handle(record)


def counters(handler):
    found = handler.get_statistics()
    return {name: found[name] for name in ("recorded", "pending", "raised", "lost")}


@pytest.fixture
def rotating(tmp_path):
    """The common case: a RotatingFileHandler with the formatter of python-json-logger."""
    made = logging.handlers.RotatingFileHandler(tmp_path / "app.log", maxBytes=600, backupCount=50)
    made.setFormatter(JsonFormatter("%(levelname)s %(name)s %(message)s"))
    yield made
    made.close()


def test_rotating_file_handler_writes_all_members_of_each_event(rotating, tmp_path):
    """A RotatingFileHandler with a JsonFormatter writes each event once, with all its members, and rolls over."""
    handler = audit_over(rotating)
    for number in range(20):
        log_to(handler, "STORE", user_id="ann", entry_ids=[f"e{number}"], source="api", duration_ms=1.5)
    handler.flush()
    files = sorted(tmp_path.glob("app.log*"), key=lambda path: int(path.suffix[1:]) if path.suffix != ".log" else 0)
    assert len(files) > 1
    written = [json.loads(line) for path in reversed(files) for line in path.read_text().splitlines()]
    events = list(handler.iter_events())
    assert [line["event_id"] for line in written] == [event.event_id for event in events]
    for line, event in zip(written, events, strict=True):
        members = {name: value for name, value in event.to_dict().items() if value is not None}
        assert line == {**members, "levelname": "INFO", "name": "audit", "message": "STORE"}
    assert counters(handler) == {"recorded": 20, "pending": 0, "raised": 0, "lost": 0}


def test_audit_formatter_writes_the_line_of_the_trail():
    """With an AuditJsonFormatter any handler writes the same line that the buffer holds."""
    stream = Stream()
    target = logging.StreamHandler(stream)
    target.setFormatter(AuditJsonFormatter())
    handler = audit_over(target)
    log_to(handler, "STORE", user_id="ann")
    event = handler.query_events()[0]
    assert json.loads(stream.lines[0]) == {
        name: value for name, value in event.to_dict().items() if value not in (None, [], {})
    }
    assert stream.lines[0].startswith(f'{{"event_id":"{event.event_id}","timestamp":"2025-01-15T10:30:45.123456Z",')


def test_failures_of_a_standard_handler_become_pending(capsys):
    """If a standard handler calls handleError, the event is pending and retried, and one failure is reported."""
    stream = Stream()
    handler = audit_over(logging.StreamHandler(stream))
    stream.full = True
    for number in range(3):
        assert log_to(handler, f"op{number}")
    assert counters(handler) == {"recorded": 0, "pending": 3, "raised": 0, "lost": 0}
    assert handler.count_events() == 3
    stream.full = False
    log_to(handler, "later")
    assert counters(handler) == {"recorded": 4, "pending": 0, "raised": 0, "lost": 0}
    assert stream.lines == ["op0\n", "op1\n", "op2\n", "later\n"]
    error = capsys.readouterr().err
    assert error.count("structlog-audit:") == 1
    assert "OSError: [Errno 28] No space left on device" in error
    assert "op0" not in error
    assert "Logging error" not in error


def test_accepted_part_of_a_backlog_is_not_written_again():
    """Events that the handler wrote before it failed are recorded, and not passed to it again."""
    stream = Stream()
    handler = audit_over(logging.StreamHandler(stream), on_failure=lambda error: None)
    stream.room = 0
    for number in range(3):
        log_to(handler, f"op{number}")
    stream.room = 2
    handler.flush()
    assert counters(handler) == {"recorded": 2, "pending": 1, "raised": 0, "lost": 0}
    stream.room = None
    handler.flush()
    assert stream.lines == ["op0\n", "op1\n", "op2\n"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), ValueError("user ann")])
def test_error_from_emit_is_the_cause_of_the_write_error(error, capsys):
    """If a handler raises from its emit, with "raise" the caller gets that error as the cause."""
    handler = audit_over(RaisingHandler(error), on_error="raise")
    with pytest.raises(AuditWriteError) as caught:
        log_to(handler, "STORE", user_id="ann")
    assert caught.value.__cause__ is error
    assert "ann" not in str(caught.value) + capsys.readouterr().err
    assert counters(handler) == {"recorded": 0, "pending": 0, "raised": 1, "lost": 0}
    assert handler.count_events() == 0


def test_handle_error_of_another_logger_works_as_before():
    """A failure while another logger uses the handler, even at the same time in another thread, is not intercepted."""
    stream = Stream()
    target = HandleErrorRecorder(stream)
    handler = audit_over(target)
    stream.full = True
    other = logging.LogRecord("app", logging.INFO, "", 0, "of another", (), None)
    target.handle(other)
    assert target.failed_messages == ["of another"]

    foreign = ForeignTarget(RaisingHandler())
    foreign._original_handle_error = target.handleError

    def fail_elsewhere(record):
        thread = threading.Thread(target=foreign._intercept, args=(other,))
        thread.start()
        thread.join()

    foreign._handler.emit = fail_elsewhere
    foreign.deliver([entry_of("STORE")])
    assert target.failed_messages == ["of another", "of another"]
    assert counters(handler) == {"recorded": 0, "pending": 0, "raised": 0, "lost": 0}


def test_handle_error_without_an_exception_is_a_failure():
    """A handler that calls handleError outside of an except clause has failed as well."""
    target = RaisingHandler()
    foreign = ForeignTarget(target)
    target.emit = lambda record: target.handleError(record)
    with pytest.raises(DeliveryError) as caught:
        foreign.deliver([entry_of("STORE")])
    assert caught.value.done == 0
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_lock_of_the_handler_is_held_and_released():
    """A handler emits under its lock, which is released after any exception."""
    target = RaisingHandler(OSError("full"))
    held = []

    def emit(record):
        thread = threading.Thread(target=lambda: held.append(target.lock.acquire(blocking=False)))
        thread.start()
        thread.join()
        raise KeyboardInterrupt

    target.emit = emit
    foreign = ForeignTarget(target)
    with pytest.raises(KeyboardInterrupt):
        foreign.deliver([entry_of("STORE")])
    assert held == [False]
    assert foreign._thread is None
    free = []

    def try_lock():
        free.append(target.lock.acquire(blocking=False))
        # Otherwise `logging.shutdown` waits for it forever, if the target is not collected by then.
        target.lock.release()

    thread = threading.Thread(target=try_lock)
    thread.start()
    thread.join()
    assert free == [True]


def entry_of(operation, **members):
    entry = QueueEntry(b"", logging.WARNING, "audit.memory")
    head = {"event_id": f"evt_{1:032x}", "timestamp": "2025-01-15T10:30:45.123456Z"}
    entry.line = json.dumps({**head, "operation": operation, **members}).encode() + b"\n"
    entry.timestamp_us = NOW // 1_000
    return entry


def test_record_of_an_event_has_its_members_time_and_line():
    """The record has the present members of the event as attributes, its time, and its line."""
    entry = entry_of("delete", user_id="ann", metadata={"a": 1}, status="FAILURE", duration_ms=0.0, entry_ids=[])
    record = record_of(entry)
    assert (record.name, record.levelno, record.getMessage()) == ("audit.memory", logging.WARNING, "delete")
    assert (record.operation, record.user_id, record.metadata, record.status) == ("delete", "ann", {"a": 1}, "FAILURE")
    assert (record.duration_ms, record.event_id) == (0.0, f"evt_{1:032x}")
    assert not hasattr(record, "entry_ids")
    assert not hasattr(record, "session_id")
    assert record.__dict__[LINE] == entry.line
    assert (record.created, record.msecs) == (pytest.approx(1_736_937_045.123456), 123.0)
    stamp = logging.Formatter("%(asctime)s").formatTime(record, "%S")
    assert (stamp, logging.Formatter().formatTime(record)[-4:]) == ("45", ",123")


def test_percent_signs_in_an_operation_are_not_formatted():
    """The operation is the text of the message, not a template."""
    assert record_of(entry_of("100%s %d")).getMessage() == "100%s %d"


def test_queue_handler_as_target_passes_on_the_record():
    """A QueueHandler is a target like any other: it passes on the record of the event."""
    records = queue.Queue()
    handler = audit_over(logging.handlers.QueueHandler(records))
    log_to(handler, "STORE", user_id="ann")
    assert records.get_nowait().event_id == handler.query_events()[0].event_id


@pytest.mark.parametrize("refuse", ["level", "filter"])
def test_event_that_the_target_would_drop_is_not_recorded(refuse):
    """The level and the filters of the target apply before an event is accepted."""
    target = RaisingHandler()
    if refuse == "level":
        target.setLevel(logging.WARNING)
    else:
        target.addFilter(lambda record: record.levelno >= logging.WARNING)
    handler = audit_over(target)
    assert not log_to(handler, "low")
    assert log_to(handler, "high", logging.ERROR)
    assert [record.getMessage() for record in target.records] == ["high"]
    assert [event.operation for event in handler.iter_events()] == ["high"]


@pytest.mark.parametrize(
    ("described", "kind"),
    [
        ({"class": "logging.NullHandler"}, logging.NullHandler),
        ({"()": logging.StreamHandler, "stream": Stream()}, logging.StreamHandler),
        ({"()": "logging.StreamHandler"}, logging.StreamHandler),
        ({"class": "structlog_audit.AuditFileHandler", "filename": "audit.jsonl", "maxBytes": 5_000}, AuditFileHandler),
    ],
)
def test_mapping_describes_a_handler(described, kind, tmp_path, monkeypatch):
    """A mapping has a class, or the name of one, and its arguments; it is not modified."""
    monkeypatch.chdir(tmp_path)
    before = dict(described)
    made = make_target({**described, "level": "WARNING"})
    assert type(made) is kind
    assert made.level == logging.WARNING
    assert described == before
    assert make_target(described).level == logging.NOTSET


def test_name_of_a_configured_handler_is_resolved():
    """The name of a configured handler specifies that handler."""
    named = RaisingHandler()
    named.name = "named"
    assert make_target("named") is named
    assert make_target(named) is named
    assert make_target(None) is None
    named.name = None


@pytest.mark.parametrize(
    ("target", "error", "words"),
    [
        (5, AuditTypeError, ["target=5", "logging.Handler"]),
        (["a"], AuditTypeError, ["target=['a']"]),
        (logging.StreamHandler, AuditTypeError, ["target=", "logging.Handler"]),
        (
            "nobody",
            AuditValueError,
            ["target='nobody'", "expected the name of a configured handler", "structlog_audit.AuditHandler"],
        ),
        ({}, AuditValueError, ["target:", "class", "none"]),
        ({"filename": "x"}, AuditValueError, ["target:", "class", "filename"]),
        ({"class": "nodots"}, AuditValueError, ["nodots"]),
        ({"class": "no.such.module"}, AuditValueError, ["no.such.module", "No module named"]),
        ({"class": "logging.NoSuchHandler"}, AuditValueError, ["NoSuchHandler"]),
        ({"class": "logging.NullHandler", "colour": "red"}, AuditValueError, ["colour"]),
        ({"class": "logging.NullHandler", "level": "LOUD"}, AuditValueError, ["LOUD"]),
        ({"class": "logging.NullHandler", "level": 1.5}, AuditValueError, ["1.5"]),
        ({"class": "logging.Formatter"}, AuditTypeError, ["expected the class of a logging.Handler"]),
    ],
)
def test_invalid_target_is_named_in_the_error(target, error, words):
    """An invalid target raises an error that contains the value and the expectation."""
    with pytest.raises(error) as caught:
        make_target(target)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_event_loop_does_not_wait_for_a_slow_target(on_error):
    """While a target that is not an AuditFileHandler is busy, other tasks continue; the caller continues when it is done."""
    free, reached = threading.Event(), threading.Event()

    class Slow(logging.Handler):
        def emit(self, record):
            reached.set()
            assert free.wait(30)

    logger = logging.getLogger("audit")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = AuditHandler(target=Slow(), on_error=on_error)
    logger.addHandler(handler)

    async def run():
        task = asyncio.create_task(get_audit_logger().ainfo("STORE"))
        while not reached.is_set():
            await asyncio.sleep(0)
        assert not task.done()
        free.set()
        await task

    asyncio.run(run())
    assert handler.get_statistics()["recorded"] == 1


def test_awaiting_caller_gets_the_error_of_its_target():
    """With ``on_error="raise"`` the error of a target that another thread wrote to reaches the awaiting caller."""

    class Failing(logging.Handler):
        def emit(self, record):
            raise OSError(5, "Input/output error")

    logger = logging.getLogger("audit")
    logger.setLevel(logging.INFO)
    logger.addHandler(AuditHandler(target=Failing(), on_error="raise"))
    with pytest.raises(AuditWriteError, match="Input/output error"):
        asyncio.run(get_audit_logger().ainfo("STORE"))
