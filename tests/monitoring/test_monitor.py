"""Tests of `structlog_audit.monitoring.monitor`: which events cause which alerts, and when they are logged."""

from __future__ import annotations

import datetime as dt
import json
import logging
import logging.config
import os
import subprocess
import sys
import threading

import msgspec
import pytest
from conftest import DeferredCalls
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit import AuditEvent, AuditHandler, AuditLogger, AuditTypeError, EventStatus, get_audit_logger
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import operation_of
from structlog_audit.monitoring import DEFAULT_RULES, Monitor, Rule, replay
from structlog_audit.monitoring import monitor as monitor_module
from structlog_audit.testing import FailingTarget, FrozenClock

NOON = dt.datetime(2025, 1, 15, 12, tzinfo=dt.UTC)


def event(seconds, operation="STORE", status="SUCCESS", **members):
    return AuditEvent(
        event_id=f"evt_{int(seconds * 1_000):032x}",
        timestamp=NOON + dt.timedelta(seconds=seconds),
        operation=operation_of(operation),
        status=EventStatus(status),
        **members,
    )


def alerts_of(rules, events):
    return [str(alert) for alert in replay(rules, events)]


# Alerts of rules


def test_default_rules_alert_above_their_bounds():
    """More than 100 deletions in an hour, 10 failures in 15 minutes or 5 exports in 24 hours cause an alert."""
    minute, hour = 60, 3_600
    # The first and the last deletion are an hour apart.
    deletions = [event(number * 36, "FORGET") for number in range(101)]
    assert alerts_of(DEFAULT_RULES, deletions) == ["deletions: more than 100 events within 1h"]
    assert alerts_of(DEFAULT_RULES, deletions[:100]) == []
    slower = [event(number * 36.01, "FORGET") for number in range(200)]
    assert alerts_of(DEFAULT_RULES, slower) == []
    failures = [event(number * 1.5 * minute, status="FAILURE") for number in range(11)]
    assert alerts_of(DEFAULT_RULES, failures) == ["failures: more than 10 events within 15m"]
    assert alerts_of(DEFAULT_RULES, [event(number * 1.6 * minute, status="FAILURE") for number in range(50)]) == []
    exports = [event(number * 4.8 * hour, "EXPORT") for number in range(6)]
    assert alerts_of(DEFAULT_RULES, exports) == ["exports: more than 5 events within 1d"]
    assert alerts_of(DEFAULT_RULES, [event(number * 5 * hour, "EXPORT") for number in range(50)]) == []
    assert alerts_of(DEFAULT_RULES, [event(number / 10) for number in range(1_000)]) == []


def test_crossing_alerts_once_until_it_ends():
    """A bound that stays exceeded causes one alert, and another after it was not exceeded in between."""
    rule = Rule("many", more_than=2, within="1m")
    burst = [event(number) for number in range(50)]
    later = [event(1_000 + number) for number in range(50)]
    alerts = list(replay(rule, [*burst, *later]))
    assert [alert.timestamp for alert in alerts] == [burst[2].timestamp, later[2].timestamp]
    assert [alert.event_id for alert in alerts] == [burst[2].event_id, later[2].event_id]


def test_per_counts_each_subject_by_itself():
    """With per, each subject is counted by itself; events without one are one subject."""
    rule = Rule("many", more_than=2, within="1m", per="user_id")
    events = [event(number, user_id=user) for number, user in enumerate(["ann", "bob", None] * 3)]
    alerts = list(replay(rule, events))
    assert [alert.subject for alert in alerts] == ["ann", "bob", None]
    assert str(alerts[0]) == "many: more than 2 events within 1m, user_id 'ann'"
    assert str(alerts[2]).endswith(", user_id None")
    by_operation = Rule("many", more_than=2, within="1m", per="operation")
    assert [alert.subject for alert in replay(by_operation, events)] == ["STORE"]
    by_session = Rule("many", more_than=2, within="1m", per="session_id")
    assert [alert.subject for alert in replay(by_session, [event(n, session_id="s1") for n in range(3)])] == ["s1"]


@pytest.mark.parametrize(
    ("filters", "matching"),
    [
        ({"operation": ["forget", "cleanup"]}, [1, 4]),
        ({"status": "FAILURE"}, [2]),
        ({"user_id": "ann"}, [0, 1]),
        ({"user_id": None}, [3, 4]),
        ({"session_id": "s1"}, [0]),
        ({"metadata": {"source": "api"}}, [0, 3]),
        ({"entry_ids": ["e1"]}, [1]),
        ({"min_duration_ms": 5}, [2]),
        ({"operation": "STORE", "metadata": {"source": "api"}}, [0]),
        ({"kind": "intent"}, [5]),
        ({}, [0, 1, 2, 3, 4]),
    ],
)
def test_rule_takes_the_filters_of_queries(filters, matching):
    """A rule takes the filters of queries; trail events and intents count only if kind selects them."""
    events = [
        event(0, "STORE", user_id="ann", session_id="s1", metadata={"source": "api"}),
        event(1, "FORGET", user_id="ann", entry_ids=["e1", "e2"]),
        event(2, "STORE", "FAILURE", user_id="bob", duration_ms=7.0),
        event(3, "RECALL", metadata={"source": "api"}),
        event(4, "cleanup"),
        event(5, "STORE", user_id="ann", kind="intent", metadata={"source": "api"}),
    ]
    monitor = Monitor([Rule("any", more_than=0, within=1, **filters)])
    # Each matching event is a crossing by itself.
    spread = [moved(one, number * 10) for number, one in enumerate(events)]
    assert [number for number, one in enumerate(spread) if monitor.see(one)] == matching


def moved(one, seconds):
    return msgspec.structs.replace(one, timestamp=NOON + dt.timedelta(seconds=seconds))


def test_low_success_rate_alerts():
    """The alert states the rate and the number of events; fewer than min_events cause none."""
    rule = Rule("success", success_rate_below=0.95, within="15m", min_events=20)
    assert alerts_of(rule, [event(number, status="FAILURE") for number in range(19)]) == []
    nearly_all = [event(number, status="FAILURE" if number in (3, 25) else "SUCCESS") for number in range(26)]
    assert alerts_of(rule, nearly_all) == ["success: 92.3% of 26 events within 15m succeeded, less than 95.0%"]
    partial = [event(number, status="PARTIAL") for number in range(20)]
    assert alerts_of(rule, partial) == ["success: 0.0% of 20 events within 15m succeeded, less than 95.0%"]

    any_failure = Rule("success", success_rate_below=1.0, within="15m", min_events=1)
    assert alerts_of(any_failure, partial[:1]) == ["success: 0.0% of 1 event within 15m succeeded, less than 100.0%"]


def test_slow_events_alert():
    """An average or a 95th percentile above its bound causes an alert; events without a duration do not count."""
    average = Rule("average", avg_duration_ms_above=1_000, within="15m", min_events=3)
    durations = [None, 1_000.0, 1_000.0, None, 1_000.0, 1_003.0]
    events = [event(number, duration_ms=value) for number, value in enumerate(durations)]
    assert alerts_of(average, events) == ["average: 4 events within 15m took 1000.8 ms on average, more than 1000 ms"]
    slow = Rule("p95", p95_duration_ms_above=1_000, within="15m", min_events=40)
    events = [event(number, duration_ms=5_000.0 if number in (1, 2, 45) else 1_000.0) for number in range(60)]
    assert alerts_of(slow, events) == ["p95: 6.5% of 46 events within 15m took more than 1000 ms, more than 5%"]


@given(st.lists(st.floats(0, 100, width=16), min_size=20, max_size=60), st.integers(1, 99))
def test_p95_uses_nearest_rank(durations, bound):
    """For all durations: an alert comes when the duration of rank ⌈0.95·n⌉ exceeds the bound."""
    rule = Rule("p95", p95_duration_ms_above=bound, within="24h")
    monitor = Monitor([rule])
    seen = []
    was_beyond = False
    for number, duration in enumerate(durations):
        seen.append(duration)
        rank = -(-95 * len(seen) // 100)
        is_beyond = len(seen) >= 20 and sorted(seen)[rank - 1] > bound
        assert bool(monitor.see(event(number, duration_ms=duration))) == (is_beyond and not was_beyond)
        was_beyond = is_beyond


def test_alert_converts_to_plain_json():
    """An alert is complete in JSON; its text shortens and escapes a long or hostile subject."""
    rule = Rule("many", more_than=0, within="90s", per="user_id")
    (alert,) = replay(rule, [event(0, user_id="a\nb" * 500)])
    assert json.loads(json.dumps(alert.to_dict())) == {
        "rule": "many",
        "bound": "more_than",
        "threshold": 0,
        "value": 1,
        "events": 1,
        "within_seconds": 90.0,
        "per": "user_id",
        "subject": "a\nb" * 500,
        "timestamp": "2025-01-15T12:00:00.000000Z",
        "event_id": "evt_" + "0" * 32,
    }
    assert "\n" not in str(alert)
    assert len(str(alert)) < 300


def test_subjects_are_bounded_and_dropped_ones_counted():
    """The window longest without an event is dropped, and counted if it was not over."""
    monitor = Monitor([Rule("many", more_than=2, within="1m", per="user_id", max_subjects=2)])
    # The window of cid replaces that of bob.
    for seconds, user in enumerate(["ann", "bob", "ann", "cid", "ann"]):
        alerts = monitor.see(event(seconds, user_id=user))
    assert [alert.subject for alert in alerts] == ["ann"]
    assert monitor.forgotten == {"many": 1}
    # The window that this event replaces is over, so it is not counted.
    monitor.see(event(1_000, user_id="dan"))
    assert monitor.forgotten == {"many": 1}
    assert monitor.alerts == {"many": 1}


def test_cache_of_operations_is_bounded():
    """The cache holds a bounded number of operations, and rules still apply beyond it."""
    monitor = Monitor([Rule("many", more_than=2_000, within="24h")])
    alerts = [alert for number in range(3_000) for alert in monitor.see(event(number, f"op{number}"))]
    assert len(alerts) == 1
    assert len(monitor._by_names) <= 1_024


def test_replay_is_lazy():
    """Replay yields alerts as events arrive, so the events may be endless."""

    def endless():
        number = 0
        while True:
            yield event(number)
            number += 1

    assert next(replay([Rule("many", more_than=9, within="1m")], endless())).events == 10


def test_invalid_rules_raise_before_the_first_event():
    """Invalid rules raise at once, not when the first event arrives."""
    with pytest.raises(AuditTypeError):
        replay(5, [])


# Rules in a handler


class Alerts(logging.Handler):
    """A handler that keeps the logged alerts, and the threads that logged them."""

    def __init__(self):
        super().__init__()
        self.records = []
        self.threads = []

    def emit(self, record):
        self.records.append(record)
        self.threads.append(threading.current_thread())

    @property
    def texts(self):
        return [record.getMessage() for record in self.records]


@pytest.fixture
def alerts():
    handler = Alerts()
    logger = logging.getLogger("structlog_audit.alerts")
    logger.addHandler(handler)
    return handler


def watched(rules, **options):
    deferred = DeferredCalls()
    handler = AuditHandler(monitor=rules, call_later=deferred, **options)
    logger = logging.getLogger("audit")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    return handler, get_audit_logger(), deferred


MANY = [{"name": "many", "operation": "FORGET", "more_than": 2, "within": "1h"}]


def test_alert_is_logged_after_the_event(alerts):
    """Nothing is logged while the event is handled; then one record has the alert in its text and attributes."""
    handler, log, deferred = watched(MANY)
    for _ in range(5):
        log.info("FORGET")
    assert alerts.records == []
    assert len(deferred.calls) == 1
    deferred.run()
    (record,) = alerts.records
    assert record.getMessage() == "many: more than 2 events within 1h"
    assert (record.levelno, record.rule, record.threshold) == (logging.WARNING, "many", 2)
    assert record.event_id == handler.query_events(newest_first=False)[2].event_id
    assert handler.monitor.alerts == {"many": 1}
    assert record.timestamp == handler.get_event(record.event_id).to_dict()["timestamp"]


def test_alerts_are_logged_from_another_thread(alerts):
    """By default another thread logs the alerts."""
    done = threading.Event()
    alerts.emit = lambda record: (alerts.threads.append(threading.current_thread()), done.set())
    logger = logging.getLogger("audit")
    logger.setLevel(logging.INFO)
    logger.addHandler(AuditHandler(monitor=[Rule("any", more_than=0, within=60)]))
    logger.info("STORE")
    assert done.wait(30)
    assert alerts.threads[0] is not threading.current_thread()


def test_waiting_alerts_are_logged_together_in_order(alerts):
    """Alerts that arrive before the first is logged are logged with it, in order."""
    _, log, deferred = watched([Rule("any", more_than=0, within=60, per="operation")])
    for operation in ("STORE", "RECALL", "FORGET"):
        log.info(operation)
    assert len(deferred.calls) == 1
    deferred.run()
    assert [record.subject for record in alerts.records] == ["STORE", "RECALL", "FORGET"]
    log.info("EXPORT")
    assert len(deferred.calls) == 1


def test_flush_and_close_log_waiting_alerts(alerts):
    """flush and close log an alert that its thread has not logged."""
    handler, log, _ = watched([Rule("any", more_than=0, within=60, per="operation")])
    log.info("STORE")
    handler.flush()
    assert len(alerts.records) == 1
    log.info("RECALL")
    handler.close()
    assert len(alerts.records) == 2


def test_close_waits_for_alert_in_another_thread(alerts):
    """close waits until another thread has logged the alert it began: the process may end next."""
    handler, log, _ = watched([Rule("any", more_than=0, within=60)])
    began, closing = threading.Event(), threading.Event()
    order = []

    def slow(record):
        began.set()
        closing.wait(60)
        order.append("logged")

    alerts.emit = slow
    log.info("STORE")
    flushing = threading.Thread(target=handler.flush)
    closer = threading.Thread(target=lambda: (handler.close(), order.append("closed")))
    flushing.start()
    began.wait(60)
    closer.start()
    # The close must not return yet.
    closer.join(0.1)
    closing.set()
    flushing.join()
    closer.join()
    assert order == ["logged", "closed"]


def test_alert_is_logged_at_interpreter_exit(tmp_path):
    """An alert caused by the last event of a process is logged."""
    code = """
import logging, structlog_audit
logging.basicConfig(filename="alerts.log")
logger = logging.getLogger("audit")
logger.setLevel("INFO")
logger.addHandler(structlog_audit.AuditHandler(monitor=[{"name": "any", "more_than": 0, "within": 60}]))
structlog_audit.get_audit_logger().info("STORE")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, timeout=60)
    assert (tmp_path / "alerts.log").read_text().count("any: more than 0 events within 1m") == 1


def test_dictconfig_takes_rules_inline_from_file_or_object(alerts, tmp_path):
    """A configuration has rules inline, in a file that it names, or in an object that it imports."""
    (tmp_path / "rules.json").write_text(json.dumps({"rules": MANY}))
    for rules in (MANY, str(tmp_path / "rules.json"), "ext://structlog_audit.monitoring.DEFAULT_RULES"):
        handler = {"class": "structlog_audit.AuditHandler", "monitor": rules}
        config = {
            "version": 1,
            "handlers": {"audit": handler},
            "loggers": {"audit": {"handlers": ["audit"], "level": "INFO"}},
        }
        logging.config.dictConfig(config)
        (made,) = logging.getLogger("audit").handlers
        assert made.monitor.rules[0].name in ("many", "deletions")
    handler["monitor"] = [{"name": "many", "within": "1h", "more": 5}]
    with pytest.raises(ValueError, match="Unable to configure handler 'audit'") as caught:
        logging.config.dictConfig(config)
    assert "rule 'many': unknown parameter or filter 'more'" in str(caught.value.__cause__)


def test_disabled_alert_logger_is_enabled_again(alerts):
    """dictConfig disables loggers that it does not mention; alerts are logged all the same."""
    _, log, deferred = watched(MANY)
    logging.getLogger("structlog_audit.alerts").disabled = True
    for _ in range(3):
        log.info("FORGET")
    deferred.run()
    assert alerts.texts == ["many: more than 2 events within 1h"]


def test_pending_events_count_lost_and_raised_do_not(alerts, capsys):
    """An event counts once, when it is accepted; lost and raised events do not count."""
    rules = [Rule("any", more_than=0, within=1, per="operation")]
    target = FailingTarget()
    handler, log, _ = watched(rules, target=target, max_pending=1)
    target.fail()
    for operation in ("pending", "lost"):
        log.info(operation)
    target.recover()
    handler.flush()
    assert [record.subject for record in alerts.records] == ["pending"]


def test_events_with_a_kind_do_not_count(alerts, path):
    """Trail events and intents are not events of the application."""
    handler, log, _ = watched([Rule("any", more_than=0, within=1, per="operation")], filename=path)
    with log.operation("STORE", intent=True):
        handler.flush()
        assert alerts.records == []
    handler.close()
    assert [record.subject for record in alerts.records] == ["STORE"]


def test_alert_names_the_pseudonym(alerts):
    """An alert names a pseudonymised user by the pseudonym: redaction comes first."""
    redactor = {"paths": {"user_id": "pseudonym"}, "secret": "s" * 32}
    handler, log, deferred = watched([Rule("any", more_than=0, within=60, per="user_id")], redactor=redactor)
    log.info("STORE", user_id="ann")
    deferred.run()
    (seen,) = handler.query_events()
    assert alerts.records[0].subject == seen.user_id != "ann"


def test_event_in_parts_counts_once(alerts):
    """An event in several parts is one event, for rules with either kind of filter."""
    rules = [
        Rule("any", more_than=0, within=1, operation="IMPORT"),
        Rule("entries", more_than=0, within=1, entry_ids="e4999"),
    ]
    for given_rules in (rules[:1], rules):
        handler, log, _ = watched(given_rules)
        log.info("IMPORT", entry_ids=[f"e{number}" for number in range(5_000)])
        handler.flush()
        assert handler.monitor.alerts == {rule.name: 1 for rule in given_rules}
        logging.getLogger("audit").removeHandler(handler)


def test_event_accepted_again_counts_once():
    """An interrupted commit may accept an event again; it counts once."""
    handler, log, _ = watched([Rule("many", more_than=1, within="1h")])
    log.info("STORE")
    line, timestamp_us = handler._buffer._parts[1]
    handler._commit._accept(line, timestamp_us)
    assert handler.monitor.alerts == {"many": 0}
    log.info("STORE")
    assert handler.monitor.alerts == {"many": 1}


def test_audited_alert_starts_no_loop(alerts):
    """If alerts reach the audit handler as well, each is one more event and causes no further alert."""
    handler, log, deferred = watched([Rule("all", more_than=2, within="1h")])
    logging.getLogger("structlog_audit.alerts").addHandler(handler)
    for _ in range(3):
        log.info("STORE")
    deferred.run()
    assert handler.count_events() == 4
    assert handler.query_events(limit=1)[0].operation == "all: more than 2 events within 1h"
    assert deferred.calls == []


def test_unlogged_alerts_are_counted_and_events_unaffected(alerts, capsys, monkeypatch):
    """A handler that raises, and too many waiting alerts, lose alerts, which are counted; events are unaffected."""
    monkeypatch.setattr(monitor_module, "_MAX_WAITING", 2)
    handler, log, deferred = watched([Rule("any", more_than=0, within=60, per="operation")])

    def fail(record):
        raise OSError(28, "No space left on device")

    alerts.emit = fail
    for number in range(3):
        log.info(f"op{number}")
    assert handler.monitor.lost == 1
    deferred.run()
    assert handler.monitor.lost == 3
    assert "an alert of the rule 'any' could not be logged (OSError: [Errno 28]" in capsys.readouterr().err
    assert handler.count_events() == 3


def test_forked_child_starts_with_empty_windows(alerts):
    """Events that the parent counted are not in the child's windows."""
    handler, log, _ = watched(MANY)
    log.info("FORGET")
    log.info("FORGET")
    child = os.fork()
    if child == 0:
        log.info("FORGET")
        os._exit(sum(handler.monitor.alerts.values()))
    assert os.waitpid(child, 0)[1] == 0
    log.info("FORGET")
    assert handler.monitor.alerts == {"many": 1}


def test_rules_use_the_clock_of_the_handler(alerts):
    """The handler's clock, which gives events their time, is the clock of the rules."""
    clock = FrozenClock()
    handler, log, _ = watched(MANY, clock=clock)
    for _ in range(10):
        log.info("FORGET")
        clock.advance(minutes=31)
    assert handler.monitor.alerts == {"many": 0}
    # After the clock is set back, only events within an hour of the new time count.
    clock.advance(days=-5)
    for _ in range(3):
        log.info("FORGET")
    assert handler.monitor.alerts == {"many": 1}


def test_handler_without_rules_has_no_monitor():
    """A handler without rules has no monitor and calls its buffer directly."""
    handler = AuditHandler()
    assert handler.monitor is None
    assert handler._commit._accept == handler._buffer.append


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["STORE", "FORGET", "EXPORT"]),
        st.sampled_from(["ann", "bob", None]),
        st.sampled_from(["SUCCESS", "FAILURE"]),
        st.sampled_from([None, 5.0, 50.0]),
        st.integers(0, 400),
    ),
    max_size=80,
)


@given(EVENTS)
def test_replay_gives_the_alerts_of_the_handler(recorded):
    """For all events: replaying a handler's recorded events gives exactly the handler's alerts."""
    rules = [
        Rule("deletions", operation="FORGET", more_than=3, within="30m", per="user_id"),
        Rule("failures", status="FAILURE", more_than=2, within="15m", quiet="5m"),
        Rule("rate", success_rate_below=0.5, within="1h", min_events=4),
        Rule("slow", avg_duration_ms_above=20, within="1h", min_events=2, per="operation", max_subjects=2),
        Rule("p95", p95_duration_ms_above=20, within="1h", min_events=5, metadata={"a": 1}),
    ]
    clock = FrozenClock()
    audit = AuditLogger(handler=AuditHandler(monitor=rules, clock=clock, call_later=lambda seconds, function: None))
    for operation, user, status, duration, seconds in recorded:
        clock.advance(seconds=seconds)
        audit.record(operation, user, None, None, {"a": 1}, status, None, duration)
    live = list(audit.handler.monitor._waiting)
    assert live == list(replay(rules, audit.iter_events()))
    audit.handler.monitor._waiting.clear()


@pytest.mark.parametrize("per", [None, "operation"])
def test_stored_events_raise_the_alerts_of_events(per):
    """Events as a trail stores them, the operation in any case, raise the same alerts as those that queries return."""
    stored = [StoredEvent(f"evt_{number}", NOON, name) for number, name in enumerate(["store", "STORE", "x"])]
    rule = Rule("many", operation=["STORE", "x"], more_than=1, within="1h", per=per)
    alerts = alerts_of([rule], stored)
    assert alerts == alerts_of([rule], [one.event() for one in stored])
    assert len(alerts) == 1
