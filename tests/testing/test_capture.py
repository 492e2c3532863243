"""`structlog_audit.testing`: captured events, messages of failed expectations, restored logging, and test doubles."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import logging.config
import logging.handlers
import queue
import threading
import time
import unittest
from functools import partial

import pytest
import structlog
from conftest import lines_in
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit import (
    AuditFileHandler,
    AuditHandler,
    AuditJsonFormatter,
    AuditLogger,
    AuditProcessor,
    AuditTypeError,
    AuditValueError,
    AuditWriteError,
    audited,
    get_audit_handler,
    get_audit_logger,
)
from structlog_audit.recording.logger_tree import all_loggers
from structlog_audit.testing import AuditTrail, FailingTarget, FrozenClock, capture_events, seeded_randbits


def state():
    """Return everything in logging that a test could leave changed."""
    loggers = {
        logger: (list(logger.handlers), logger.level, logger.disabled, logger.propagate, list(logger.filters))
        for logger in all_loggers()
    }
    return loggers, logging.root.manager.disable, logging._handlers.get("audit")


def formatted(handler):
    handler.setFormatter(AuditJsonFormatter())
    return handler


def configured(path, **logger):
    handlers = {
        "audit_file": {"class": "structlog_audit.AuditFileHandler", "filename": str(path)},
        "audit": {"class": "structlog_audit.AuditHandler", "target": "audit_file"},
        "others": {"class": "logging.NullHandler"},
    }
    logger = {"handlers": ["audit", "others"], "level": "INFO", "propagate": False, **logger}
    logging.config.dictConfig({"version": 1, "handlers": handlers, "loggers": {"audit": logger}})


def no_handler(path):
    pass


def application(path):
    configured(path)


def propagating_logger(path):
    configured(path, propagate=True)


def high_level(path):
    configured(path, level="ERROR")


def logger_disabled_by_a_configuration(path):
    configured(path)
    logging.config.dictConfig({"version": 1, "incremental": False})
    assert logging.getLogger("audit").disabled


def logging_disabled(path):
    configured(path)
    logging.disable(logging.CRITICAL)


def handler_on_root(path):
    logging.getLogger().addHandler(AuditHandler(filename=path))
    logging.getLogger().setLevel(logging.INFO)


def handlers_on_logger_and_root(path):
    configured(path, propagate=True)
    logging.getLogger().addHandler(AuditHandler(filename=path))


def two_handlers(path):
    configured(path)
    logging.getLogger("audit").addHandler(AuditHandler(filename=path, level=logging.ERROR))


def file_handler_alone(path):
    logging.getLogger("audit").addHandler(AuditFileHandler(path))


def standard_library_file(path):
    path.parent.mkdir()
    logging.getLogger("audit").addHandler(formatted(logging.handlers.RotatingFileHandler(path)))


def behind_queue(path):
    waiting = queue.Queue()
    handler = logging.handlers.QueueHandler(waiting)
    handler.listener = logging.handlers.QueueListener(waiting, AuditHandler(filename=path))  # dictConfig, Python 3.12
    logging.getLogger("audit").addHandler(handler)
    logging.getLogger("audit").setLevel(logging.INFO)


STATES = [
    no_handler,
    application,
    propagating_logger,
    high_level,
    logger_disabled_by_a_configuration,
    logging_disabled,
    handler_on_root,
    handlers_on_logger_and_root,
    two_handlers,
    file_handler_alone,
    standard_library_file,
    behind_queue,
]


@pytest.mark.parametrize("arrange", STATES)
def test_capture_sees_each_event_once_and_restores_logging(arrange, path):
    """In any state of logging each event is captured once, no trail changes, and logging is restored."""
    arrange(path)
    for name in ("audit", "audit.memory", "asyncio", "concurrent.futures"):  # getLogger creates it
        logging.getLogger(name)
    before, content = state(), path.read_bytes() if path.exists() else None
    with capture_events() as trail:
        get_audit_logger().info("STORE", user_id="ann")
        get_audit_logger("audit.memory").info("RECALL", user_id="ann")
        logging.getLogger("audit").info("FORGET", extra={"user_id": "ann"})
        assert [event.operation for event in trail.query_events(user_id="ann", newest_first=False)] == [
            "STORE",
            "RECALL",
            "FORGET",
        ]
        assert trail.count_events() == 3
    assert state() == before
    assert (path.read_bytes() if path.exists() else None) == content


def test_events_after_the_capture_go_to_the_applications_trail(path):
    """After the capture the application's handler records again, without the events of the test."""
    configured(path)
    get_audit_logger().info("before")
    with capture_events():
        get_audit_logger().info("during")
    get_audit_logger().info("after")
    assert [line["operation"] for line in lines_in(path)] == ["before", "after"]
    assert [event.operation for event in get_audit_handler().iter_events()] == ["before", "after"]


def test_failing_test_that_configures_logging_is_undone(path):
    """An exception and a configuration of logging in the block leave no trace."""
    configured(path)
    before = state()[0]

    def fail():
        with capture_events():
            configured(path.with_name("other.jsonl"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {logger: state()[0][logger] for logger in before} == before


def test_handlers_that_write_no_trail_keep_receiving_events(path):
    """Only handlers that write a trail are replaced."""
    configured(path)
    seen = []
    other = logging.Handler()
    other.emit = lambda record: seen.append(record.user_id)
    logging.getLogger("audit").addHandler(other)
    with capture_events() as trail:
        get_audit_logger().info("STORE", user_id="ann")
    assert seen == ["ann"]
    assert trail.count_events(user_id="ann") == 1


def test_attach_captures_again_after_a_configuration(path):
    """A configuration during the test removes the capturing handler; `attach` replaces the new handlers."""
    with capture_events() as trail:
        configured(path)
        content = path.read_bytes()
        with pytest.raises(AssertionError, match="detached: no logger has this handler"):
            trail.assert_recorded(operation="STORE")
        trail.attach()
        get_audit_logger().info("STORE")
        trail.assert_recorded(operation="STORE")
        assert path.read_bytes() == content


def configure_logging(path):
    configured(path)


def force_basic_config(path):
    logging.basicConfig(force=True)
    logging.getLogger("audit").handlers.clear()


def disable_existing_loggers(path):
    logging.config.dictConfig({"version": 1})


def raise_level(path):
    logging.getLogger("audit").setLevel(logging.ERROR)


def disable_logging(path):
    logging.disable(logging.INFO)


def create_audit_logger(path):
    audit_logger = AuditLogger()
    audit_logger.record("DELETE")
    return audit_logger


INTERRUPTIONS = pytest.mark.parametrize(
    ("interrupt", "code"),
    [
        (configure_logging, "detached: logger 'audit'"),
        (force_basic_config, "detached: logger 'audit'"),
        (disable_existing_loggers, "disabled"),
        (raise_level, "level"),
        (disable_logging, "logging-disable"),
        (create_audit_logger, "detached: an AuditLogger"),
    ],
)


@INTERRUPTIONS
@pytest.mark.parametrize("expect", [AuditTrail.assert_nothing_recorded, partial(AuditTrail.assert_recorded, times=0)])
@pytest.mark.parametrize("filters", [{}, {"operation": "STORE"}])
def test_absence_of_an_event_fails_while_events_may_be_missing(path, interrupt, code, expect, filters):
    """While the capture is detached or muted, no expectation of absence passes; the message names `attach`."""
    with capture_events() as trail:
        kept = interrupt(path)
        text = message_of(partial(expect, trail), **filters)
        assert "found 0\nevents may be missing: call audit_trail.attach() after the code that changed logging" in text
        assert f"\n{code}" in text

        trail.attach()
        expect(trail, **filters)
    assert kept is None or kept.count_events() == 1


@INTERRUPTIONS
def test_query_warns_while_events_may_be_missing(path, interrupt, code):
    """A query is answered with a warning while the capture is detached or muted, and without one after `attach`."""
    with capture_events() as trail:
        kept = interrupt(path)
        with pytest.warns(RuntimeWarning, match=f"events may be missing: {code}.*audit_trail.attach") as caught:
            assert trail.query_events() == []
        assert caught[0].filename == __file__
        trail.attach()
        assert trail.query_events() == []
    del kept


def test_event_that_is_found_is_recorded_even_if_others_may_be_missing(path):
    """A recorded event stays recorded after the capture was detached; the number of events is not certain any more."""
    with capture_events() as trail:
        get_audit_logger().info("STORE")
        configured(path)
        assert trail.assert_recorded(operation="STORE").operation == "STORE"
        assert "events may be missing" in message_of(trail.assert_recorded, times=1)


@pytest.mark.parametrize(("name", "is_missed"), [("audit", True), ("audit.child", True), ("billing", False)])
def test_event_that_was_missed_is_missing_until_clear(name, is_missed):
    """Events of the audit logger and its children that were missed count until `clear`, also after `attach`."""
    logging.getLogger("audit").setLevel(logging.INFO)
    with capture_events() as trail:
        logging.getLogger("audit").handlers.clear()
        logging.getLogger("billing").setLevel(logging.INFO)
        with pytest.warns(RuntimeWarning, match="was not recorded"):
            get_audit_logger(name).info("STORE")
        trail.attach()
        if is_missed:
            text = message_of(trail.assert_nothing_recorded)
            assert f"detached: 1 events on logger '{name}' reached no AuditHandler" in text
            trail.clear()
        trail.assert_nothing_recorded()


@pytest.mark.parametrize("is_detached", [False, True])
def test_trail_after_the_capture_knows_whether_events_may_be_missing(path, is_detached):
    """After the end of the capture, the state at its end counts."""
    with capture_events() as trail:
        if is_detached:
            configured(path)
    if is_detached:
        assert "events may be missing" in message_of(trail.assert_nothing_recorded)
    else:
        logging.getLogger("audit").setLevel(logging.ERROR)
        trail.assert_nothing_recorded()
        assert trail.query_events() == []


def test_outer_of_two_captures_is_not_certain_during_the_inner(path):
    """The inner capture takes the events, so the outer one cannot say that there are none."""
    configured(path)
    with capture_events() as outer:
        with capture_events():
            assert "events may be missing" in message_of(outer.assert_nothing_recorded)
        outer.assert_nothing_recorded()


def test_assert_logs_takes_the_events_unless_the_trail_is_attached_in_its_block(trail):
    """unittest's assertLogs replaces the handlers of its logger; after `attach` in its block both see the events."""
    case = unittest.TestCase()
    with case.assertLogs("audit", "INFO") as logs:
        assert "events may be missing" in message_of(trail.assert_nothing_recorded)
        trail.attach()
        get_audit_logger().info("STORE")
    get_audit_logger().info("RECALL")
    assert logs.output == ["INFO:audit:STORE"]
    assert [event.operation for event in trail.iter_events()] == ["STORE", "RECALL"]


@pytest.mark.parametrize("name", ["audit", "audit.child"])
@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_event_in_a_block_of_assert_logs_is_reported_with_the_remedy(on_error, name):
    """Without `attach`, an event on a logger whose handlers assertLogs replaced names assertLogs and the fixture."""
    logger = logging.getLogger("audit")
    logger.setLevel("INFO")
    logger.addHandler(AuditHandler(on_error=on_error))
    case = unittest.TestCase()
    remedy = r"assertLogs\(\) of unittest .* audit_trail .* attach\(\)"
    reported = pytest.raises(AuditWriteError, match=remedy) if on_error == "raise" else pytest.warns(match=remedy)
    with case.assertLogs("audit", "INFO") as logs, reported:
        get_audit_logger(name).info("STORE")
    assert logs.output == [f"INFO:{name}:STORE"]


def test_clock_of_a_capture_follows_a_replaced_time_ns(monkeypatch):
    """freezegun replaces the function `time.time_ns`; the timestamps of captured events come from the replacement."""
    with capture_events() as trail:
        monkeypatch.setattr(time, "time_ns", lambda: 1_736_937_045_000_000_000)
        get_audit_logger().info("STORE")
        assert trail.assert_recorded().timestamp == dt.datetime(2025, 1, 15, 10, 30, 45, tzinfo=dt.UTC)


def test_get_audit_handler_finds_the_capturing_handler(path):
    """During the capture the name of the application's handler finds the capturing one."""
    configured(path)
    named = logging._handlers["audit"]
    with capture_events() as trail:
        assert get_audit_handler() is get_audit_handler("audit") is trail.handler
    assert get_audit_handler("audit") is logging._handlers["audit"] is named


def test_redaction_and_filters_of_the_application_apply(path):
    """An event is recorded as in the application's trail: redacted, truncated, and with the fields that filters add."""
    handler = AuditHandler(filename=path, redactor={"keys": ["ssn"]}, max_event_bytes=5_000)

    def add(record):
        record.region = "eu"
        return True

    handler.addFilter(add)
    logging.getLogger("audit").addHandler(handler)
    with capture_events() as trail:
        logging.getLogger("audit").info("STORE", extra={"ssn": "123", "long": "x" * 6_000})
        (event,) = trail.query_events()
    assert event.metadata["ssn"] != "123"
    assert event.metadata["region"] == "eu"
    # The mark of a truncated event.
    assert "_audit" in event.metadata


def test_audit_logger_is_captured_without_trail_or_export(path, tmp_path):
    """An `AuditLogger` records to the test; neither its trail nor its auto-export gets the event."""
    audit = AuditLogger(1, tmp_path / "exports", filename=path)
    own, content = audit.handler, path.read_bytes()
    with capture_events() as trail:
        recorded = audit.record("STORE", "ann")
        asyncio.run(audit.log_event("RECALL", "ann"))
        assert trail.get_event(recorded.event_id) == recorded
        assert trail.assert_recorded(user_id="ann", times=2) == audit.query_events(newest_first=False)
        later = AuditLogger(handler=trail.handler)
        later.record("FORGET")
        trail.assert_recorded(operation="FORGET")
    assert audit.handler is own
    assert not audit.count_events()
    assert path.read_bytes() == content
    audit.record("STORE")
    audit.close()
    assert len(list((tmp_path / "exports").iterdir())) == 1


def test_events_of_every_entry_point_are_captured(path):
    """Bound loggers, scopes, the processor and the decorator are captured, in threads, tasks and coroutines."""
    configured(path)

    @audited("decorated", user_id="user")
    def work(user):
        pass

    async def tasks():
        await asyncio.gather(*(get_audit_logger().ainfo("task", number=number) for number in range(3)))

    with capture_events() as trail:
        work("ann")
        with get_audit_logger().operation("scope", intent=True):
            pass
        structlog.wrap_logger(None, processors=[AuditProcessor(), lambda *_: ""]).info("e", operation="processed")
        threads = [threading.Thread(target=get_audit_logger().info, args=("thread",)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asyncio.run(tasks())
        assert trail.assert_recorded(operation="decorated", user_id="ann").duration_ms >= 0
        trail.assert_recorded(operation="scope", times=1)
        trail.assert_recorded(operation="scope", kind="intent", times=1)
        trail.assert_recorded(operation="processed", times=1)
        trail.assert_recorded(operation="thread", times=3)
        trail.assert_recorded(operation="task", times=3)


@pytest.mark.parametrize("name", ["billing.audit", "root"])
def test_captured_logger_may_have_any_name(name):
    """The audit logger may have any name, and be the root logger."""
    with capture_events(name) as trail:
        get_audit_logger("billing.audit").info("PAY")
        trail.assert_recorded(operation="PAY", times=1)


def test_capture_refuses_a_logger_that_is_not_a_name():
    """The logger is given by its name."""
    with pytest.raises(AuditTypeError, match="logger=5"), capture_events(5):
        pass


def test_inner_capture_takes_its_events_from_the_outer(path):
    """The inner of two captures sees the events of its block, the outer one the rest."""
    configured(path)
    with capture_events() as outer:
        with capture_events() as inner:
            get_audit_logger().info("inner")
        get_audit_logger().info("outer")
        assert [event.operation for event in inner.query_events()] == ["inner"]
        assert [event.operation for event in outer.query_events()] == ["outer"]


def test_structlog_capture_logs_and_the_trail_do_not_interfere():
    """`structlog.testing.capture_logs` replaces the application's processors only."""
    with capture_events() as trail, structlog.testing.capture_logs() as logs:
        structlog.get_logger().info("of the application")
        get_audit_logger().info("STORE")
    assert [event["event"] for event in logs] == ["of the application"]
    assert [event.operation for event in trail.query_events()] == ["STORE"]


def test_trail_has_the_queries_of_an_event_source(tmp_path):
    """The trail of a test has statistics, exports and queries like a handler."""
    with capture_events() as trail:
        get_audit_logger().info("STORE", user_id="ann")
        assert trail.get_statistics()["recorded"] == 1
        assert trail.get_user_statistics("ann")["total_operations"] == 1
        assert trail.complete_since is None
        assert trail.export_to_file(tmp_path / "all.json") == 1
        trail.clear()
        trail.assert_nothing_recorded()


# Expectations


@pytest.fixture
def trail():
    with capture_events(clock=FrozenClock()) as trail:
        yield trail


def record_numbered(count):
    for number in range(count):
        get_audit_logger().info("STORE", user_id="ann", metadata={"number": number})


def test_assert_recorded_returns_the_newest_match(trail):
    """Without times the newest matching event is returned."""
    record_numbered(3)
    assert trail.assert_recorded(operation="STORE").metadata == {"number": 2}


def test_assert_recorded_with_times_returns_all_matches(trail):
    """With times all matching events are returned, the oldest first."""
    record_numbered(3)
    assert [event.metadata["number"] for event in trail.assert_recorded(user_id="ann", times=3)] == [0, 1, 2]
    assert trail.assert_recorded(metadata={"number": 1}, times=1)[0].metadata == {"number": 1}


def test_absence_of_an_event_can_be_asserted(trail):
    """times=0 and assert_nothing_recorded hold if no event matches."""
    record_numbered(1)
    assert trail.assert_recorded(operation="FORGET", times=0) == []
    trail.assert_nothing_recorded(operation="FORGET")


def message_of(call, **arguments):
    with pytest.raises(AssertionError) as caught:
        call(**arguments)
    return str(caught.value)


def test_failure_shows_the_nearest_event_and_its_differences(trail):
    """The message has the filters, the members of the nearest event that differ, and all recorded events."""
    log = get_audit_logger()
    log.info("STORE", user_id="bob", metadata={"source": "api"})
    log.info("STORE", user_id="ann", metadata={"source": "web"})
    log.error("FORGET", user_id="ann", error_message="gone")
    filters = {"operation": "STORE", "user_id": "ann", "metadata": {"source": "api"}, "min_duration_ms": 5.0}
    assert message_of(trail.assert_recorded, **filters).splitlines() == [
        "expected an event with operation='STORE', user_id='ann', metadata={'source': 'api'}, "
        "min_duration_ms=5.0; found 0",
        "nearest is number 2:",
        "    operation       'STORE'",
        "    user_id         'ann'",
        "  ! metadata        {'source': 'web'}    expected {'source': 'api'}",
        "  ! min_duration_ms None    expected 5.0",
        "",
        "3 recorded, the oldest first (> marks the nearest):",
        "      1 STORE SUCCESS user_id='bob' metadata={'source': 'api'}",
        "  >   2 STORE SUCCESS user_id='ann' metadata={'source': 'web'}",
        "      3 FORGET FAILURE user_id='ann' error_message='gone'",
    ]


@pytest.fixture
def stores_and_forget(trail):
    """A trail with two stores around a forget."""
    for operation in ("STORE", "FORGET", "STORE"):
        get_audit_logger().info(operation)
    return trail


@pytest.mark.parametrize(
    ("times", "first_line"),
    [
        (1, "expected 1 event with operation='STORE'; found 2"),
        (3, "expected 3 events with operation='STORE'; found 2"),
    ],
)
def test_failure_about_the_number_marks_the_matches(stores_and_forget, times, first_line):
    """If too many or too few events match, those that do are marked."""
    text = message_of(stores_and_forget.assert_recorded, operation="STORE", times=times)
    assert text.splitlines()[0] == first_line
    assert [line[2] for line in text.splitlines()[2:]] == [">", " ", ">"]


def test_failure_of_assert_nothing_recorded_names_the_filters(stores_and_forget):
    """If an event matches although none should, the message has the filters and the number."""
    message = message_of(stores_and_forget.assert_nothing_recorded, operation="FORGET")
    assert message.startswith("expected no event with operation='FORGET'; found 1\n")
    assert message_of(stores_and_forget.assert_nothing_recorded).startswith("expected no event; found 3\n")


def test_newest_of_equally_near_events_is_shown(trail):
    """Of several nearest events the newest is most likely the expected one."""
    for number in range(3):
        get_audit_logger().info("STORE", number=number)
    assert "nearest is number 3" in message_of(trail.assert_recorded, operation="FORGET")


def test_nearest_event_of_another_kind_has_its_kind_marked(trail):
    """An intent is not an ordinary event: if it is the nearest, its kind is marked."""
    with get_audit_logger().operation("STORE", intent=True):
        text = message_of(trail.assert_recorded, operation="STORE")
    assert "  ! kind            'intent'    expected None" in text


def test_failure_message_fits_on_a_screen(trail):
    """For many long events the message has at most 24 lines of 110 characters besides the first one."""
    log = get_audit_logger()
    for number in range(500):
        log.info("STORE", user_id="u" * 200, session_id="s" * 200, text="x" * 5_000, number=number)
    text = message_of(trail.assert_recorded, operation="FORGET", metadata={"text": "y" * 5_000}, user_id="v" * 200)
    first, *lines = text.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 110
    assert len(first) < 300
    assert "… and 492 more" in text


def test_failure_without_events_reports_the_muting_cause(trail):
    """If no event was recorded, the message reports the muted logger and the unrecorded events."""
    log = get_audit_logger()
    logging.getLogger("audit").setLevel(logging.ERROR)
    with pytest.warns(RuntimeWarning, match="was not recorded"):
        log.info("STORE")
    text = message_of(trail.assert_recorded, operation="STORE")
    assert "nothing was recorded" in text
    assert "level: logger 'audit' drops events below ERROR" in text
    assert "unheard: 1 events on logger 'audit' reached no AuditHandler (level)" in text


def test_unknown_filter_of_an_expectation_is_an_error(trail):
    """An unknown filter is an error and not a failed test."""
    with pytest.raises(AuditTypeError, match="unknown filter 'operatoin'"):
        trail.assert_recorded(operatoin="STORE")
    with pytest.raises(AuditTypeError, match="unknown filter 'user'"):
        trail.assert_nothing_recorded(user="ann")


@pytest.mark.parametrize(("times", "error"), [(-1, AuditValueError), ("1", AuditTypeError)])
def test_invalid_times_of_an_expectation_is_an_error(trail, times, error):
    """A number of times that is impossible is an error and not a failed test."""
    with pytest.raises(error, match=f"times={times!r}"):
        trail.assert_recorded(times=times)


def test_expectation_by_clear_value_finds_a_pseudonym(path):
    """Expectations name users as the code under test does, even if the redactor writes pseudonyms."""
    redactor = {"paths": {"user_id": "pseudonym"}, "secret": "s" * 32}
    logging.getLogger("audit").addHandler(AuditHandler(filename=path, redactor=redactor))
    with capture_events() as trail:
        get_audit_logger().info("STORE", user_id="ann")
        assert trail.assert_recorded(user_id="ann").user_id != "ann"
        text = message_of(trail.assert_recorded, user_id="ann", operation="FORGET")
        assert "!" not in next(line for line in text.splitlines() if "user_id" in line and "expected" not in line)


# Test doubles


def test_frozen_clock_and_seeded_bits_repeat_the_same_events():
    """With a frozen clock and seeded bits two runs record the same events."""

    def lines():
        with capture_events(clock=FrozenClock(step=dt.timedelta(seconds=1)), randbits=seeded_randbits(7)) as trail:
            get_audit_logger().info("STORE")
            get_audit_logger().info("RECALL")
            return [event.to_dict() for event in trail.query_events(newest_first=False)]

    first, second = lines(), lines()
    assert first == second
    assert [event["timestamp"] for event in first] == ["2025-01-15T10:30:45.123456Z", "2025-01-15T10:30:46.123456Z"]
    assert first[0]["event_id"] < first[1]["event_id"]


def test_frozen_clock_moves_only_by_its_methods():
    """The clock moves on request only, forwards and backwards, to the microsecond."""
    clock = FrozenClock("2025-01-15T10:30:45Z")
    assert clock() == clock() == 1_736_937_045_000_000_000
    clock.advance(minutes=1, microseconds=1)
    assert clock.now() == dt.datetime(2025, 1, 15, 10, 31, 45, 1, tzinfo=dt.UTC)
    clock.advance(days=-1)
    assert clock.now().day == 14
    clock.move_to(dt.datetime(2030, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))))
    assert clock.now().isoformat() == "2029-12-31T22:00:00+00:00"


@given(st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(9990, 1, 1), timezones=st.just(dt.UTC)))
def test_frozen_clock_shows_any_time_exactly(time):
    """For any time: the clock shows the time that it was set to, in both forms."""
    clock = FrozenClock(time)
    assert clock.now() == time
    assert clock() % 1_000 == 0


@pytest.mark.parametrize(("start", "error"), [("noon", AuditValueError), (5, AuditTypeError), (None, AuditTypeError)])
def test_frozen_clock_refuses_a_start_that_is_not_a_time(start, error):
    """A start that is not a time is an error that names it."""
    with pytest.raises(error, match=repr(start)):
        FrozenClock(start)


def test_frozen_clock_names_the_segments_of_a_file_handler(path):
    """`now` serves as the clock of an `AuditFileHandler`."""
    clock = FrozenClock("2025-01-15T10:30:45Z")
    handler = AuditFileHandler(path, clock=clock.now)
    handler.write(b"{}\n")
    handler.doRollover()
    assert handler.segments()[0].name == "audit.jsonl.20250115T103045.000000Z"
    handler.close()


def audit_over(target, **options):
    handler = AuditHandler(target=target, call_later=lambda seconds, function: None, **options)
    logger = logging.getLogger("audit")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    return handler, get_audit_logger()


def test_failing_target_fails_until_it_recovers(capsys):
    """The target fails until `recover` is called; pending events are written first then."""
    target = FailingTarget()
    handler, log = audit_over(target)
    log.info("one")
    target.fail()
    log.info("two")
    assert handler.get_statistics()["pending"] == 1
    target.recover()
    log.info("three")
    assert [json.loads(line)["operation"] for line in target.lines] == ["one", "two", "three"]
    assert [record.getMessage() for record in target.records] == ["one", "two", "three"]
    assert "[Errno 28] No space left on device" in capsys.readouterr().err


def test_failing_target_fails_the_given_number_of_times(capsys):
    """The target raises the given error as often as requested, and accepts events afterwards."""
    target = FailingTarget()
    _, log = audit_over(target, on_error="raise")
    target.fail(TimeoutError(), times=2)
    for _ in range(2):
        with pytest.raises(AuditWriteError, match="TimeoutError"):
            log.info("STORE")
    log.info("STORE")
    assert len(target.records) == 1


def test_failing_target_refuses_zero_times():
    """A target fails at least once."""
    with pytest.raises(AuditValueError, match="times=0"):
        FailingTarget().fail(times=0)


def test_failing_target_can_be_configured_by_dict_config():
    """A FailingTarget can stand in a dictConfig like any handler."""
    logging.config.dictConfig(
        {
            "version": 1,
            "handlers": {
                "target": {"class": "structlog_audit.testing.FailingTarget"},
                "audit": {"class": "structlog_audit.AuditHandler", "target": "target"},
            },
            "loggers": {"audit": {"handlers": ["audit"], "level": "INFO"}},
        }
    )
    get_audit_logger().info("STORE")
    assert len(get_audit_handler().target.records) == 1
