"""`get_audit_logger`, operation scopes, and the records that other handlers see."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import logging
import logging.handlers
import pickle
import queue
import re
import socket
import struct
import subprocess
import sys

import pytest
import strategies as s
import structlog
from pythonjsonlogger.json import JsonFormatter
from pythonjsonlogger.msgspec import MsgspecFormatter

from structlog_audit import (
    AuditFileHandler,
    AuditHandler,
    AuditTypeError,
    AuditWriteError,
    EventStatus,
    audited,
    get_audit_logger,
)
from structlog_audit.events.log_record import RESERVED
from structlog_audit.loggers.operation import OperationScope
from structlog_audit.testing import FailingTarget


@pytest.mark.parametrize(
    "value",
    [s.HostileMapping(ValueError()), s.HostileList([1]), (1, 2), (1, 2, 3), ()],
    ids=lambda value: type(value).__name__,
)
def test_exc_info_of_any_value_is_accepted(handler, log, value, capsys):
    """What is no exception is asked for its truth, whatever that raises, and no other handler gets it."""
    other = logging.StreamHandler()
    logger = logging.getLogger("audit")
    logger.addHandler(other)
    try:
        log.info("STORE", exc_info=value)
    finally:
        logger.removeHandler(other)
    assert "Logging error" not in capsys.readouterr().err
    assert [event.operation for event in handler.query_events()] == ["STORE"]


@pytest.mark.parametrize(("method", "status"), [
    ("info", "SUCCESS"), ("warning", "SUCCESS"), ("error", "FAILURE"), ("critical", "FAILURE"), ("exception", "FAILURE"),
])  # fmt: skip
def test_method_records_one_event_at_its_level(handler, log, method, status):
    """Every method and its asynchronous twin record one event; ERROR and above are a FAILURE."""
    getattr(log, method)("STORE", user_id="u1")
    asyncio.run(getattr(log, f"a{method}")("STORE", user_id="u1"))
    assert [event.status for event in handler.query_events(user_id="u1")] == [status, status]


def test_exception_fills_the_error_message(handler, log):
    """The text of an exception is the error message; no traceback is kept."""
    try:
        raise ValueError("no such entry")
    except ValueError as error:
        log.exception("RECALL")
        log.error("RECALL", exc_info=error)
        log.info("RECALL", exc_info=(type(error), error, None))
    assert [event.error_message for event in handler.query_events()] == ["ValueError: no such entry"] * 3
    assert [event.status for event in handler.query_events()] == ["FAILURE"] * 3


def test_fields_of_a_call_override_bound_ones_and_contextvars(handler, log):
    """Arguments of the call override bound fields, and these override contextvars."""
    structlog.contextvars.bind_contextvars(user_id="context", session_id="context", request="context")
    log.bind(user_id="bound", session_id="bound").info("STORE", user_id="call")
    (event,) = handler.query_events()
    assert (event.user_id, event.session_id, event.metadata) == ("call", "bound", {"request": "context"})


def test_bound_logger_binds_and_unbinds_like_structlogs(handler, log):
    """bind, unbind, try_unbind and new work as in structlog, and each returns a logger of the same kind."""
    bound = log.bind(user_id="u1", a=1).unbind("a").try_unbind("b")
    bound.info("STORE")
    bound.new(user_id="u2").info("STORE")
    assert isinstance(bound, structlog.BoundLoggerBase)
    assert [event.user_id for event in handler.query_events()] == ["u2", "u1"]
    assert [event.metadata for event in handler.query_events()] == [{}, {}]


def test_structlog_configuration_does_not_reach_audit_loggers(handler, log):
    """structlog.configure of the application does not affect the audit logger."""
    structlog.configure(processors=[lambda *_: (_ for _ in ()).throw(structlog.DropEvent)])
    log.info("STORE")
    assert handler.count_events() == 1


def test_bound_logger_can_be_pickled(handler, log):
    """A logger travels to another process as its name and its bound fields."""
    pickle.loads(pickle.dumps(log.bind(user_id="u1"))).info("STORE")
    assert handler.query_events()[0].user_id == "u1"


def test_operation_field_makes_the_first_argument_a_message(handler, log):
    """With operation= the first argument is the message, and is kept if it differs."""
    log.info("user signed in", operation="LOGIN")
    log.info(operation="LOGIN")
    log.info("LOGIN", operation="LOGIN")
    assert [(event.operation, event.metadata) for event in handler.query_events()] == [
        ("LOGIN", {}), ("LOGIN", {}), ("LOGIN", {"message": "user signed in"}),
    ]  # fmt: skip


def test_logger_name_that_is_not_a_string_is_an_error():
    """The name of a logger must be a string."""
    with pytest.raises(AuditTypeError, match="name=7"):
        get_audit_logger(7)


def test_required_logger_is_returned_if_events_are_recorded(handler):
    """required=True returns a logger if its events reach a handler."""
    get_audit_logger(required=True).info("STORE")
    assert handler.count_events() == 1


def test_required_logger_without_a_handler_is_an_error(handler):
    """required=True raises for a logger that leads to no AuditHandler."""
    with pytest.raises(AuditWriteError, match="no AuditHandler"):
        get_audit_logger("elsewhere", required=True)


def test_required_logger_with_a_high_level_is_an_error(handler):
    """required=True raises if the level of the logger drops INFO, and the message names the level."""
    logging.getLogger("audit").setLevel(logging.ERROR)
    with pytest.raises(AuditWriteError, match="ERROR"):
        get_audit_logger(required=True)


# --- operations ------------------------------------------------------------------------------------------------------


def test_operation_records_its_duration_and_success(handler):
    """The duration comes from the given clock, in milliseconds, and the block adds fields."""
    times = iter([10.0, 10.25])
    log = get_audit_logger()
    with OperationScope(log._record, "STORE", {"user_id": "u1", "entry_ids": "e1"}, clock=lambda: next(times)) as op:
        op.entry_ids.append("e2")
        op.metadata["size"] = 3
        op.bind(session_id="s1")
    (event,) = handler.query_events()
    assert (event.operation, event.status, event.duration_ms) == ("STORE", "SUCCESS", 250.0)
    assert (event.user_id, event.session_id, event.entry_ids) == ("u1", "s1", ["e1", "e2"])
    assert event.metadata == {"size": 3}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["e1", 2], ["e1", "2"]),
        ({"e1": 1}.keys(), ["e1"]),
        (range(2), ["0", "1"]),
        ("e1", ["e1"]),
        (None, []),
        (["e1", None], ["e1"]),
    ],
    ids=repr,
)
def test_operation_accepts_the_entry_ids_of_any_event(handler, log, given, expected):
    """An operation accepts every collection of entry ids, or single one, that other events accept."""
    with log.operation("STORE", entry_ids=given) as op:
        op.entry_ids.append("later")
    log.info("STORE", entry_ids=given)
    assert [event.entry_ids for event in handler.query_events()] == [expected, [*expected, "later"]]


def test_operation_keeps_every_value_of_its_metadata(handler, log):
    """A mapping with several values per key is whole as the metadata of an operation; an unreadable one is marked."""
    structures = pytest.importorskip("starlette.datastructures")
    with log.operation("STORE", metadata=structures.QueryParams("tag=a&tag=b")):
        pass
    with log.operation("STORE", metadata=s.HostileMapping(ValueError())):
        pass
    unreadable, whole = handler.query_events()
    assert whole.metadata == {"tag": ["a", "b"]}
    assert unreadable.metadata["_audit"] == {"metadata": "replaced: unreadable (ValueError)"}


def test_partial_makes_the_outcome_partial(handler, log):
    """partial() sets the outcome PARTIAL, with its reason as the error message."""
    with log.operation("FORGET", metadata={"wanted": 2}) as op:
        op.partial("one entry is locked")
    (event,) = handler.query_events()
    assert (event.status, event.error_message) == (EventStatus.PARTIAL, "one entry is locked")


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), asyncio.CancelledError()])
def test_exception_in_an_operation_is_recorded_and_raised(handler, log, error):
    """Any exception that ends the block is recorded as a FAILURE and reaches the caller itself."""
    with pytest.raises(type(error)) as caught, log.operation("STORE"):
        raise error
    assert caught.value is error
    (event,) = handler.query_events()
    assert event.status == "FAILURE"
    assert event.error_message.startswith(type(error).__name__)


def test_cancelled_task_is_recorded_as_one_failure(handler, log):
    """An asyncio task that is cancelled inside an operation leaves one FAILURE."""

    async def run():
        async def work():
            async with log.operation("COMPACT"):
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    (event,) = handler.query_events()
    assert (event.status, event.error_message) == ("FAILURE", "CancelledError")


def log_over_failing_target(**options):
    """Return an audit logger with a target that always fails, and its handler."""
    target = FailingTarget()
    target.fail()
    handler = AuditHandler(target=target, call_later=lambda seconds, retry: None, **options)
    logger = logging.getLogger("audit")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return get_audit_logger(), handler


def test_failure_to_record_is_a_note_on_the_blocks_exception():
    """With on_error="raise", a failed block keeps its exception, with a note."""
    log, _ = log_over_failing_target(on_error="raise")
    with pytest.raises(ValueError, match="mine") as caught, log.operation("STORE"):
        raise ValueError("mine")
    assert "structlog-audit" in caught.value.__notes__[0]


def test_failure_to_record_is_raised_after_a_successful_block():
    """With on_error="raise", the caller of a successful block gets the AuditWriteError."""
    log, _ = log_over_failing_target(on_error="raise")
    with pytest.raises(AuditWriteError), log.operation("STORE"):
        pass


def test_failing_filter_is_a_note_on_the_blocks_exception(handler, log):
    """A filter that raises is noted on the exception of the block, and does not replace it."""
    logging.getLogger("audit").addFilter(lambda record: 1 / 0)
    with pytest.raises(ValueError, match="mine") as caught, log.operation("STORE"):
        raise ValueError("mine")
    assert "was not recorded" in caught.value.__notes__[0]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_intent_is_recorded_before_the_block_runs(handler, log, path, asynchronous):
    """The intent is in the file when the block begins, and the outcome closes it."""
    seen = []

    def snapshot():
        seen.append([json.loads(line)["kind"] for line in path.read_bytes().splitlines()])
        seen.append([event.entry_ids for event in handler.open_intents()])

    async def run():
        async with log.operation("FORGET", user_id="u1", entry_ids=["e1"], intent=True):
            snapshot()

    if asynchronous:
        asyncio.run(run())
    else:
        with log.operation("FORGET", user_id="u1", entry_ids=["e1"], intent=True):
            snapshot()
    assert seen == [["trail", "intent"], [["e1"]]]
    assert handler.open_intents() == []
    (intent,) = handler.query_events(kind="intent")
    (outcome,) = handler.query_events()
    assert outcome.metadata == {"intent_id": intent.event_id}
    assert (intent.user_id, outcome.duration_ms is None) == ("u1", False)


def test_outcome_names_its_intent_for_any_metadata_of_the_block(handler, log):
    """Whatever the block sets as metadata, even another ``intent_id``, leaves no intent open."""
    for metadata in ({}, {"intent_id": "mine"}, None, ["x"]):
        with log.operation("FORGET", intent=True) as op:
            op.metadata = metadata
    assert handler.open_intents() == []
    intents = {event.event_id for event in handler.query_events(kind="intent")}
    assert {event.metadata["intent_id"] for event in handler.query_events()} == intents


@pytest.mark.parametrize(
    ("on_error", "reason"),
    [("retry", "its intent is pending, since the target fails"), ("raise", "the event was not recorded: OSError")],
)
def test_block_does_not_run_without_its_recorded_intent(on_error, reason):
    """If the intent can't be recorded, the block does not run, the error states why, and no intent stays open."""
    log, handler = log_over_failing_target(on_error=on_error)
    with (
        pytest.raises(AuditWriteError, match=f"FORGET was not begun: {reason}"),
        log.operation("FORGET", intent=True),
    ):
        raise AssertionError("the block ran")
    assert handler.open_intents() == []


def test_block_does_not_run_if_its_intent_is_muted(handler, log):
    """A block does not run if its intent reaches no handler."""
    handler.setLevel(logging.ERROR)
    with (
        pytest.warns(RuntimeWarning),
        pytest.raises(AuditWriteError, match="X was not begun: no AuditHandler of this process"),
        log.operation("X", intent=True),
    ):
        raise AssertionError("the block ran")


def test_intent_stays_open_after_a_crash(path):
    """A process that dies in the block leaves an intent without an outcome, which the next process finds."""
    code = f"""
import logging, os, structlog_audit
logger = logging.getLogger("audit"); logger.propagate = False; logger.setLevel(20)
logger.addHandler(structlog_audit.AuditHandler(filename={str(path)!r}))
with structlog_audit.get_audit_logger().operation("FORGET", entry_ids=["e1"], intent=True):
    os._exit(1)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 1
    (intent,) = AuditHandler(target=AuditFileHandler(path), warm_start=True).open_intents()
    assert (intent.operation, intent.entry_ids) == ("FORGET", ["e1"])


def test_field_called_kind_is_metadata(handler, log):
    """A field called kind is metadata, through every entry point."""
    log.info("STORE", kind="intent")
    logging.getLogger("audit").info("STORE", extra={"kind": "intent"})
    assert handler.query_events(kind="intent") == []
    assert [event.metadata for event in handler.query_events()] == [{"kind": "intent"}] * 2


def test_unknown_attribute_of_an_operation_is_an_error(log):
    """Only the attributes of an operation can be set on it; a user is bound."""
    with pytest.raises(AttributeError):
        log.operation("STORE").user_id = "u1"


def test_operation_metadata_that_is_not_a_dictionary_is_kept(handler, log):
    """A metadata= of the wrong type raises no error and loses no value."""
    with log.operation("STORE", metadata=5):
        pass
    assert handler.query_events()[0].metadata == {"metadata": 5}


def test_base_exception_of_a_value_reaches_the_caller(handler, log):
    """An exception that is not an Exception (a timeout of gevent or a signal handler) reaches the caller."""

    class Timeout(BaseException):
        pass

    class Slow:
        def __str__(self):
            raise Timeout

    with pytest.raises(Timeout):
        log.info("STORE", value=Slow())


@pytest.mark.parametrize("entry_point", ["async with", "audited"])
def test_warning_about_an_unrecorded_event_points_at_the_caller(entry_point):
    """The warning names the line of the application."""

    async def scope():
        async with get_audit_logger("nowhere").operation("STORE"):
            pass

    call = (
        audited("STORE", logger="nowhere")(lambda: None) if entry_point == "audited" else lambda: asyncio.run(scope())
    )
    with pytest.warns(RuntimeWarning, match="not recorded") as caught:
        call()
    assert caught[0].filename == __file__


# --- other handlers --------------------------------------------------------------------------------------------------


class Collecting(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


FIELDS = {"user_id": "u1", "entry_ids": ["e1"], "metadata": {"a": 1}, "plan": "pro", "name": "Ann", "args": "x"}


def fields_of(record):
    return {name: value for name, value in vars(record).items() if name not in RESERVED and not name.startswith("_")}


def test_other_handlers_see_every_field_and_the_caller(handler, log):
    """Another handler gets a complete record; a name that logging reserves has a trailing underscore."""
    other = Collecting()
    logging.getLogger("audit").addHandler(other)
    log.info("STORE", **FIELDS)
    (record,) = other.records
    assert fields_of(record) == {
        "operation": "STORE", "user_id": "u1", "entry_ids": ["e1"], "metadata": {"a": 1}, "plan": "pro",
        "name_": "Ann", "args_": "x",
    }  # fmt: skip
    assert (record.name, record.getMessage(), record.funcName) == (
        "audit", "STORE", "test_other_handlers_see_every_field_and_the_caller",
    )  # fmt: skip
    (event,) = handler.query_events()
    assert event.metadata == {"a": 1, "plan": "pro", "name": "Ann", "args": "x"}


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_field_with_a_reserved_name_keeps_it_in_the_event(handler, log, name):
    """A field may have the name of any attribute of a record; the event keeps that name."""
    if name in ("exc_info",):
        pytest.skip("exc_info means the exception, as everywhere in structlog")
    log.info("STORE", **{name: "value"})
    assert handler.query_events()[0].metadata == {name: "value"}


def test_patched_logger_method_sees_a_complete_record(handler, log, monkeypatch):
    """A tool that patches logging.Logger sees all fields, even if the AuditHandler is the only handler."""
    seen = []
    original = logging.Logger.callHandlers

    def patched(self, record):
        seen.append((record.created > 0, record.levelname, record.thread, record.plan, record.getMessage()))
        with pytest.raises(AttributeError):
            record.no_such_field  # noqa: B018
        return original(self, record)

    monkeypatch.setattr(logging.Logger, "callHandlers", patched)
    log.info("STORE", **FIELDS)
    assert [(created, level, plan, message) for created, level, _, plan, message in seen] == [
        (True, "INFO", "pro", "STORE")
    ]
    assert handler.query_events()[0].metadata["name"] == "Ann"


@pytest.mark.parametrize("formatter", [JsonFormatter, MsgspecFormatter])
def test_python_json_logger_writes_all_fields(handler, log, formatter):
    """The formatters of python-json-logger write every field of the event."""
    stream = io.StringIO()
    other = logging.StreamHandler(stream)
    other.setFormatter(formatter("%(message)s %(levelname)s"))
    logging.getLogger("audit").addHandler(other)
    log.info("STORE", **FIELDS)
    line = json.loads(stream.getvalue())
    assert (line["message"], line["user_id"], line["plan"], line["name_"]) == ("STORE", "u1", "pro", "Ann")


def test_socket_handler_sends_all_fields_as_plain_values(handler, log):
    """The pickle of a SocketHandler holds every field and no type of this library."""
    server = socket.create_server(("127.0.0.1", 0))
    other = logging.handlers.SocketHandler(*server.getsockname())
    logging.getLogger("audit").addHandler(other)
    log.info("STORE", **FIELDS)
    connection, _ = server.accept()
    (length,) = struct.unpack(">L", connection.recv(4))
    data = connection.recv(length)
    other.close()
    connection.close()
    server.close()
    assert b"structlog_audit" not in data
    received = pickle.loads(data)
    assert (received["user_id"], received["plan"], received["_audit"]["name"]) == ("u1", "pro", "Ann")


def test_syslog_handler_sends_the_operation(handler, log):
    """A SysLogHandler sends the operation as its text."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", 0))
    other = logging.handlers.SysLogHandler(server.getsockname())
    logging.getLogger("audit").addHandler(other)
    log.info("STORE", **FIELDS)
    assert server.recv(1000).startswith(b"<14>STORE")
    other.close()
    server.close()


def test_event_behind_a_queue_is_recorded_with_all_fields(path):
    """A QueueHandler and its listener pass the whole record to an AuditHandler in another thread."""
    audit = AuditHandler(filename=path)
    waiting = queue.SimpleQueue()
    front = logging.handlers.QueueHandler(waiting)
    logger = logging.getLogger("audit")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(front)
    listener = logging.handlers.QueueListener(waiting, audit)
    listener.start()
    get_audit_logger().info("STORE", **FIELDS)
    logger.info("RECALL", extra={"user_id": "u2"})
    listener.stop()
    assert [(event.operation, event.user_id) for event in audit.iter_events()] == [("STORE", "u1"), ("RECALL", "u2")]
    assert audit.query_events()[1].metadata == {"a": 1, "plan": "pro", "name": "Ann", "args": "x"}


def test_copied_record_shares_the_acknowledgement(handler, log):
    """Copies of a record, deep ones too, share the acknowledgement of the handler."""
    other = Collecting()
    logging.getLogger("audit").addHandler(other)
    log.info("STORE")
    record = other.records[0]
    assert copy.deepcopy(record)._audit is record._audit
    assert copy.copy(record)._audit.entry is record._audit.entry is not None


def test_logger_named_after_the_module_explains_which_one_to_use(handler):
    """An event on a logger without a handler, such as `get_audit_logger(__name__)`, names the logger that has one."""
    advice = "one is attached to 'audit': use get_audit_logger('audit'), or attach it to the root logger"
    with pytest.warns(RuntimeWarning, match=re.escape(advice)):
        get_audit_logger(f"shop.orders.{id(handler)}").info("STORE")


def test_logger_below_the_one_with_the_handler_is_recorded(handler):
    """A logger below ``audit`` needs no handler of its own."""
    get_audit_logger("audit.orders").info("STORE")
    assert handler.count_events(operation="STORE") == 1
