"""`structlog_audit.testing`: what a test sees, what it says when it sees something else, and what it leaves behind."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import logging
import logging.config
import logging.handlers
import queue
import threading

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
from structlog_audit.testing import FailingTarget, FrozenClock, capture_events, seeded_randbits


def state():
    """Everything of logging that a test could leave changed."""
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


def nothing(path):
    pass


def an_app(path):
    configured(path)


def that_propagates(path):
    configured(path, propagate=True)


def whose_level_is_high(path):
    configured(path, level="ERROR")


def that_a_configuration_disabled(path):
    configured(path)
    logging.config.dictConfig({"version": 1, "incremental": False})
    assert logging.getLogger("audit").disabled


def with_logging_disabled(path):
    configured(path)
    logging.disable(logging.CRITICAL)


def with_the_handler_on_root(path):
    logging.getLogger().addHandler(AuditHandler(filename=path))
    logging.getLogger().setLevel(logging.INFO)


def with_handlers_on_the_logger_and_on_root(path):
    configured(path, propagate=True)
    logging.getLogger().addHandler(AuditHandler(filename=path))


def with_two_handlers(path):
    configured(path)
    logging.getLogger("audit").addHandler(AuditHandler(filename=path, level=logging.ERROR))


def with_the_file_alone(path):
    logging.getLogger("audit").addHandler(AuditFileHandler(path))


def with_a_file_of_the_standard_library(path):
    path.parent.mkdir()
    logging.getLogger("audit").addHandler(formatted(logging.handlers.RotatingFileHandler(path)))


def behind_a_queue(path):
    waiting = queue.Queue()
    handler = logging.handlers.QueueHandler(waiting)
    handler.listener = logging.handlers.QueueListener(waiting, AuditHandler(filename=path))  # dictConfig, Python 3.12
    logging.getLogger("audit").addHandler(handler)
    logging.getLogger("audit").setLevel(logging.INFO)


STATES = [
    nothing,
    an_app,
    that_propagates,
    whose_level_is_high,
    that_a_configuration_disabled,
    with_logging_disabled,
    with_the_handler_on_root,
    with_handlers_on_the_logger_and_on_root,
    with_two_handlers,
    with_the_file_alone,
    with_a_file_of_the_standard_library,
    behind_a_queue,
]


@pytest.mark.parametrize("arrange", STATES)
def test_events_are_seen_once_and_no_trail_changes(arrange, path):
    """In whatever state logging is, each event is seen once, no trail gets it, and logging is afterwards as it was."""
    arrange(path)
    for name in ("audit", "audit.memory", "asyncio", "concurrent.futures"):  # asking for a logger makes it
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


def test_what_comes_after_goes_to_the_applications_trail_again(path):
    """When the test is over the application's own handler records as before, and has nothing of the test."""
    configured(path)
    get_audit_logger().info("before")
    with capture_events():
        get_audit_logger().info("during")
    get_audit_logger().info("after")
    assert [line["operation"] for line in lines_in(path)] == ["before", "after"]
    assert [event.operation for event in get_audit_handler().iter_events()] == ["before", "after"]


def test_logging_is_restored_when_the_test_fails_or_configures_it(path):
    """An exception in the block, or a configuration of logging in it, leaves nothing of the block behind."""
    configured(path)
    before = state()[0]

    def fail():
        with capture_events():
            configured(path.with_name("other.jsonl"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {logger: state()[0][logger] for logger in before} == before


def test_other_handlers_of_the_logger_go_on(path):
    """Only handlers that write a trail are stood in for."""
    configured(path)
    seen = []
    other = logging.Handler()
    other.emit = lambda record: seen.append(record.user_id)
    logging.getLogger("audit").addHandler(other)
    with capture_events() as trail:
        get_audit_logger().info("STORE", user_id="ann")
    assert seen == ["ann"]
    assert trail.count_events(user_id="ann") == 1


def test_an_app_that_configures_logging_in_the_test_is_captured_by_attaching_again(path):
    """A configuration made during the test takes the stand-in away; attach puts it in the place of what is new."""
    with capture_events() as trail:
        configured(path)
        content = path.read_bytes()
        with pytest.raises(AssertionError, match="detached: no logger has this handler"):
            trail.assert_recorded(operation="STORE")
        trail.attach()
        get_audit_logger().info("STORE")
        trail.assert_recorded(operation="STORE")
        assert path.read_bytes() == content


def test_a_name_finds_the_stand_in(path):
    """Code that asks for the configured handler, by name or not, gets the one that captures; its name is the app's again."""
    configured(path)
    named = logging._handlers["audit"]
    with capture_events() as trail:
        assert get_audit_handler() is get_audit_handler("audit") is trail.handler
    assert get_audit_handler("audit") is logging._handlers["audit"] is named


def test_redaction_and_filters_are_those_of_the_application(path):
    """An event looks as it would in the application's trail: redacted, and with what the handler's filters add."""
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
    assert "_audit" in event.metadata  # says that it was cut


def test_every_audit_logger_is_captured_and_gets_its_handler_back(path, tmp_path):
    """An `AuditLogger`, whose logger is private, records to the test; neither its trail nor its auto-export gets the event."""
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


def test_every_door_is_seen(path):
    """Bound loggers, scopes, the processor, the decorator, plain logging; in threads, tasks and coroutines."""
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


def test_another_logger_than_audit(path):
    """The audit logger may have any name, and be the root logger."""
    for name in ("billing.audit", "root"):
        with capture_events(name) as trail:
            get_audit_logger("billing.audit").info("PAY")
            trail.assert_recorded(operation="PAY", times=1)
    with pytest.raises(AuditTypeError, match="logger=5"), capture_events(5):
        pass


def test_captures_nest(path):
    """The inner of two captures sees what happens in it, the outer the rest."""
    configured(path)
    with capture_events() as outer:
        with capture_events() as inner:
            get_audit_logger().info("inner")
        get_audit_logger().info("outer")
        assert [event.operation for event in inner.query_events()] == ["inner"]
        assert [event.operation for event in outer.query_events()] == ["outer"]


def test_structlogs_own_capture_sees_its_events_and_the_trail_the_others():
    """`structlog.testing.capture_logs` replaces the application's processors, so it leaves audit loggers alone."""
    with capture_events() as trail, structlog.testing.capture_logs() as logs:
        structlog.get_logger().info("of the application")
        get_audit_logger().info("STORE")
    assert [event["event"] for event in logs] == ["of the application"]
    assert [event.operation for event in trail.query_events()] == ["STORE"]


def test_it_answers_every_question(tmp_path):
    """The trail of a test is an event source like a handler."""
    with capture_events() as trail:
        get_audit_logger().info("STORE", user_id="ann")
        assert trail.get_statistics()["recorded"] == 1
        assert trail.get_user_statistics("ann")["total_operations"] == 1
        assert trail.complete_since is None
        assert trail.export_to_file(tmp_path / "all.json") == 1
        trail.clear()
        trail.assert_nothing_recorded()


# what is asserted


@pytest.fixture
def trail():
    with capture_events(clock=FrozenClock()) as trail:
        yield trail


def test_the_event_or_the_events(trail):
    """Without times the newest matching event is returned, with times all of them, the oldest first."""
    log = get_audit_logger()
    for number in range(3):
        log.info("STORE", user_id="ann", metadata={"number": number})
    assert trail.assert_recorded(operation="STORE").metadata == {"number": 2}
    assert [event.metadata["number"] for event in trail.assert_recorded(user_id="ann", times=3)] == [0, 1, 2]
    assert trail.assert_recorded(metadata={"number": 1}, times=1)[0].metadata == {"number": 1}
    assert trail.assert_recorded(operation="FORGET", times=0) == []
    trail.assert_nothing_recorded(operation="FORGET")


def message_of(call, **arguments):
    with pytest.raises(AssertionError) as caught:
        call(**arguments)
    return str(caught.value)


def test_a_failure_shows_the_nearest_event_and_marks_what_differs(trail):
    """The message names what was asked for, the nearest event with the members that differ, and all that was recorded."""
    log = get_audit_logger()
    log.info("STORE", user_id="bob", metadata={"source": "api"})
    log.info("STORE", user_id="ann", metadata={"source": "web"})
    log.error("FORGET", user_id="ann", error_message="gone")
    asked = {"operation": "STORE", "user_id": "ann", "metadata": {"source": "api"}, "min_duration_ms": 5.0}
    assert message_of(trail.assert_recorded, **asked).splitlines() == [
        "an event was to be recorded with operation='STORE', user_id='ann', metadata={'source': 'api'}, "
        "min_duration_ms=5.0; found 0",
        "nearest is number 2:",
        "    operation       'STORE'",
        "    user_id         'ann'",
        "  ! metadata        {'source': 'web'}    asked for {'source': 'api'}",
        "  ! min_duration_ms None    asked for 5.0",
        "",
        "3 recorded, the oldest first (> marks the nearest):",
        "      1 STORE SUCCESS user_id='bob' metadata={'source': 'api'}",
        "  >   2 STORE SUCCESS user_id='ann' metadata={'source': 'web'}",
        "      3 FORGET FAILURE user_id='ann' error_message='gone'",
    ]


def test_a_failure_about_the_number_marks_the_events_that_match(trail):
    """If too many or too few match, those that do are marked."""
    log = get_audit_logger()
    for operation in ("STORE", "FORGET", "STORE"):
        log.info(operation)
    text = message_of(trail.assert_recorded, operation="STORE", times=1)
    assert text.splitlines()[0] == "1 event was to be recorded with operation='STORE'; found 2"
    assert [line[2] for line in text.splitlines()[2:]] == [">", " ", ">"]
    assert message_of(trail.assert_recorded, operation="STORE", times=3).startswith("3 events were to be recorded")
    nothing = message_of(trail.assert_nothing_recorded, operation="FORGET")
    assert nothing.startswith("nothing was to be recorded with operation='FORGET'; found 1")
    assert message_of(trail.assert_nothing_recorded).startswith("nothing was to be recorded with any; found 3")


def test_of_equally_near_events_the_newest_is_shown(trail):
    """The newest of the nearest is the likeliest to be meant."""
    for number in range(3):
        get_audit_logger().info("STORE", number=number)
    assert "nearest is number 3" in message_of(trail.assert_recorded, operation="FORGET")


def test_the_kind_counts_as_a_filter(trail):
    """An intent is no ordinary event: when it is the nearest, its kind is marked."""
    with get_audit_logger().operation("STORE", intent=True):
        text = message_of(trail.assert_recorded, operation="STORE")
    assert "  ! kind            'intent'    asked for None" in text


def test_a_failure_fits_on_a_screen(trail):
    """However much was recorded, the message has at most 24 lines of at most 110 characters besides the first."""
    log = get_audit_logger()
    for number in range(500):
        log.info("STORE", user_id="u" * 200, session_id="s" * 200, text="x" * 5_000, number=number)
    text = message_of(trail.assert_recorded, operation="FORGET", metadata={"text": "y" * 5_000}, user_id="v" * 200)
    first, *lines = text.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 110
    assert len(first) < 300
    assert "… and 492 more" in text


def test_a_failure_says_why_nothing_was_seen(trail):
    """If nothing was recorded, what mutes the logger and what reached no handler is said."""
    log = get_audit_logger()
    logging.getLogger("audit").setLevel(logging.ERROR)
    with pytest.warns(RuntimeWarning, match="was not recorded"):
        log.info("STORE")
    text = message_of(trail.assert_recorded, operation="STORE")
    assert "nothing was recorded" in text
    assert "level: logger 'audit' drops events below ERROR" in text
    assert "unheard: 1 events on logger 'audit' reached no AuditHandler (level)" in text


def test_an_expectation_that_cannot_be_meant_is_an_error(trail):
    """A filter that nobody knows, or a number of times that there cannot be, is an error and not a failed test."""
    with pytest.raises(AuditTypeError, match="unknown filter 'operatoin'"):
        trail.assert_recorded(operatoin="STORE")
    with pytest.raises(AuditTypeError, match="unknown filter 'user'"):
        trail.assert_nothing_recorded(user="ann")
    with pytest.raises(AuditValueError, match="times=-1"):
        trail.assert_recorded(times=-1)
    with pytest.raises(AuditTypeError, match="times='1'"):
        trail.assert_recorded(times="1")


def test_pseudonyms_are_found_by_the_clear_value(path):
    """Expectations name users as the code under test does, also where the redactor writes pseudonyms."""
    redactor = {"paths": {"user_id": "pseudonym"}, "secret": "s" * 32}
    logging.getLogger("audit").addHandler(AuditHandler(filename=path, redactor=redactor))
    with capture_events() as trail:
        get_audit_logger().info("STORE", user_id="ann")
        assert trail.assert_recorded(user_id="ann").user_id != "ann"
        text = message_of(trail.assert_recorded, user_id="ann", operation="FORGET")
        assert "!" not in next(line for line in text.splitlines() if "user_id" in line and "asked" not in line)


# clock, ids, target


def test_the_same_clock_and_bits_give_the_same_lines():
    """With a frozen clock and seeded bits two runs record byte for byte the same."""

    def lines():
        with capture_events(clock=FrozenClock(step=dt.timedelta(seconds=1)), randbits=seeded_randbits(7)) as trail:
            get_audit_logger().info("STORE")
            get_audit_logger().info("RECALL")
            return [event.to_dict() for event in trail.query_events(newest_first=False)]

    first, second = lines(), lines()
    assert first == second
    assert [event["timestamp"] for event in first] == ["2025-01-15T10:30:45.123456Z", "2025-01-15T10:30:46.123456Z"]
    assert first[0]["event_id"] < first[1]["event_id"]


def test_the_clock_stands_still_until_it_is_moved():
    """It moves only when told to, forwards and backwards, to the microsecond."""
    clock = FrozenClock("2025-01-15T10:30:45Z")
    assert clock() == clock() == 1_736_937_045_000_000_000
    clock.advance(minutes=1, microseconds=1)
    assert clock.now() == dt.datetime(2025, 1, 15, 10, 31, 45, 1, tzinfo=dt.UTC)
    clock.advance(days=-1)
    assert clock.now().day == 14
    clock.move_to(dt.datetime(2030, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=2))))
    assert clock.now().isoformat() == "2029-12-31T22:00:00+00:00"


@given(st.datetimes(dt.datetime(1971, 1, 1), dt.datetime(9990, 1, 1), timezones=st.just(dt.UTC)))
def test_the_clock_shows_any_moment_exactly(moment):
    """For all moments: what it is set to is what it shows, in both forms."""
    clock = FrozenClock(moment)
    assert clock.now() == moment
    assert clock() % 1_000 == 0


@pytest.mark.parametrize(("start", "error"), [("noon", AuditValueError), (5, AuditTypeError), (None, AuditTypeError)])
def test_a_clock_that_cannot_be_set(start, error):
    """What is no moment is an error that names it."""
    with pytest.raises(error, match=repr(start)):
        FrozenClock(start)


def test_the_clock_names_segments(path):
    """`now` is what an `AuditFileHandler` asks for."""
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


def test_a_target_that_fails_on_demand(capsys):
    """It fails from the word go until it recovers; what waited comes first."""
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


def test_a_target_that_fails_so_many_times(capsys):
    """It fails as often as it is told, with the error that it is told."""
    target = FailingTarget()
    _, log = audit_over(target, on_error="raise")
    target.fail(TimeoutError(), times=2)
    for _ in range(2):
        with pytest.raises(AuditWriteError, match="TimeoutError"):
            log.info("STORE")
    log.info("STORE")
    assert len(target.records) == 1
    with pytest.raises(AuditValueError, match="times=0"):
        target.fail(times=0)


def test_a_failing_target_can_be_configured():
    """It has a place in a dictConfig like any handler."""
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
