"""Tests of rules on values seen for the first time, on bursts per field, on classes of operations, and on silence."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from structlog_audit import AuditError, AuditEvent, AuditFileHandler, AuditHandler, AuditLogger, open_trail
from structlog_audit.events.event import EventStatus, operation_of
from structlog_audit.events.operation_classes import OperationClasses
from structlog_audit.monitoring import DEFAULT_RULES, Monitor, Rule, replay
from structlog_audit.monitoring import monitor as monitor_module
from structlog_audit.testing import FrozenClock

NOON = dt.datetime(2025, 1, 15, 12, tzinfo=dt.UTC)
DAY = 86_400


def event(seconds, operation="login", user="ann", **members):
    return AuditEvent(
        event_id=f"evt_{int(seconds * 1_000):032x}",
        timestamp=NOON + dt.timedelta(seconds=seconds),
        operation=operation_of(operation),
        user_id=user,
        **members,
    )


def subjects(rules, events, **options):
    return [alert.subject for alert in replay(rules, events, **options)]


# --- values seen for the first time -------------------------------------------------------------------------------------


def test_value_seen_for_the_first_time_alerts_once():
    """The first event of each value alerts, further ones do not; an event without a value does not count."""
    rule = Rule("new user", first_seen="user_id")
    events = [event(number, user=user) for number, user in enumerate(["ann", "bob", None, "ann", "bob"])]
    alerts = list(replay(rule, events))
    assert [str(alert) for alert in alerts] == [
        "new user: first event, user_id 'ann'",
        "new user: first event, user_id 'bob'",
    ]
    assert [(alert.timestamp, alert.event_id) for alert in alerts] == [
        (one.timestamp, one.event_id) for one in events[:2]
    ]


def test_several_fields_are_new_as_a_combination():
    """A known user with a known operation alerts if they never occurred together; all fields must have a value."""
    rule = Rule("new", first_seen=["user_id", "operation"])
    events = [
        event(0, "read"),
        event(1, "delete", "bob"),
        event(2, "delete"),
        event(3, "read", None),
        event(4, "delete"),
    ]
    alerts = list(replay(rule, events))
    assert [alert.subject for alert in alerts] == [("ann", "read"), ("bob", "delete"), ("ann", "delete")]
    assert str(alerts[2]) == "new: first event, user_id 'ann', operation 'delete'"
    assert json.loads(json.dumps(alerts[2].to_dict()))["subject"] == ["ann", "delete"]


@pytest.mark.parametrize(
    ("metadata", "subject"),
    [
        ({"ip": "10.0.0.1"}, "10.0.0.1"),
        ({"ip": 7}, "7"),
        ({"ip": ["a", "b"]}, '["a","b"]'),
        ({"ip": {"x": 1}}, '{"x":1}'),
        ({"ip": None}, None),
        ({}, None),
    ],
)
def test_value_may_be_any_of_the_metadata(metadata, subject):
    """A field may be a path of the metadata; a value that is not text is compared as JSON, null is none."""
    rule = Rule("new", first_seen="metadata.ip")
    assert subjects(rule, [event(0, metadata=metadata), event(1, metadata=metadata)]) == [subject] * (
        subject is not None
    )


def test_long_values_of_the_metadata_are_told_apart_in_bounded_memory():
    """Of a long value, the beginning and a hash are kept, so that two with one beginning differ."""
    rule = Rule("new", first_seen="metadata.text")
    long = "x" * 5_000
    found = subjects(rule, [event(0, metadata={"text": long}), event(1, metadata={"text": long + "y"})])
    assert len(set(found)) == 2
    assert max(map(len, found)) < 300


@pytest.mark.parametrize(("days", "count"), [(29, 1), (30, 1), (31, 2)])
def test_value_is_new_again_after_the_time_of_the_rule(days, count):
    """With within, a value that was not seen for longer alerts again."""
    rule = Rule("back", first_seen="user_id", within="30d")
    alerts = list(replay(rule, [event(0), event(days * DAY)]))
    assert len(alerts) == count
    assert str(alerts[-1]) == "back: first event within 30d, user_id 'ann'"


def test_values_are_bounded_and_the_loss_is_counted():
    """Beyond max_subjects, the value longest without an event is forgotten, which counts, and alerts again."""
    monitor = Monitor(Rule("new", first_seen="user_id", max_subjects=2))
    found = [bool(monitor.see(event(number, user=user))) for number, user in enumerate("abacb")]
    assert found == [True, True, False, True, True]
    assert monitor.forgotten == {"new": 2}
    # A value whose time is over is no loss.
    timed = Monitor(Rule("new", first_seen="user_id", within="1m", max_subjects=1))
    timed.see(event(0))
    timed.see(event(61, user="bob"))
    assert timed.forgotten == {"new": 0}


def test_earlier_events_make_values_known_without_alerts():
    """Values of earlier events are not new; earlier events that the rule does not count are not known."""
    rule = Rule("new", first_seen="user_id", status="FAILURE")
    failed = EventStatus.FAILURE
    earlier = [event(0, user="ann", status=failed), event(1, user="bob")]
    events = [event(10, user="ann", status=failed), event(11, user="bob", status=failed)]
    assert subjects(rule, events, earlier=earlier) == ["bob"]


def test_warm_start_knows_the_values_of_the_trail(tmp_path):
    """A handler that begins with the events of its trail does not report their users as new, and raises no alert for them."""
    path = tmp_path / "audit.jsonl"
    rule = Rule("new", first_seen="user_id")
    for expected in (1, 0):
        handler = AuditHandler(
            target=AuditFileHandler(path), monitor=rule, warm_start=True, call_later=lambda seconds, function: None
        )
        audit = AuditLogger(handler=handler)
        audit.record("login", "ann")
        assert handler.monitor.alerts == {"new": expected}
        handler.monitor._waiting.clear()
        handler.close()


# --- bursts and classes ----------------------------------------------------------------------------------------------------


def test_burst_is_counted_per_any_field():
    """More than N events within M minutes alert once per burst, for each value of a field of the metadata, or of two fields."""
    events = [event(number, metadata={"tenant": "x" if number % 2 else "y"}) for number in range(10)]
    rule = Rule("burst", more_than=3, within="1m", per="metadata.tenant")
    assert subjects(rule, events) == ["y", "x"]
    both = Rule("burst", more_than=3, within="1m", per=["user_id", "metadata.tenant"])
    assert subjects(both, events) == [("ann", "y"), ("ann", "x")]
    assert subjects(both, [*events, event(600, metadata={"tenant": "x"})]) == [("ann", "y"), ("ann", "x")]


def test_rule_counts_the_operations_of_a_class():
    """A class selects operations by the words of their names; unclassified is a class of rules as well."""
    operations = ["document.delete", "FORGET", "UserDeleted", "read", "frobnicate"]
    events = [event(number, name) for number, name in enumerate(operations)]
    rule = Rule("deletions", operation_class="delete", more_than=2, within="1h")
    assert len(list(replay(rule, events))) == 1
    other = Rule("odd", operation_class=["unclassified"], first_seen="operation")
    assert subjects(other, events) == ["frobnicate"]
    classes = OperationClasses({"frobnicate": "delete"})
    assert subjects(other, events, operations=classes) == []


def test_default_rules_hold_for_operations_of_applications():
    """Deletions and exports are found by their class, whatever the application calls them."""
    events = [event(number, "document.delete") for number in range(101)]
    assert [str(alert) for alert in replay(DEFAULT_RULES, events)] == ["deletions: more than 100 events within 1h"]


# --- silence -----------------------------------------------------------------------------------------------------------------

QUIET = Rule("quiet", no_event_for="30m", operation="login")


def test_silence_shows_at_the_next_event_of_any_kind():
    """The alert has the time at which the silence was long enough, and names the last event."""
    events = [event(0), event(60), event(2_000, "other"), event(4_000, "other"), event(4_060)]
    (alert,) = replay(QUIET, events)
    assert str(alert) == "quiet: no event for 30m"
    assert (alert.timestamp, alert.event_id) == (NOON + dt.timedelta(seconds=1_860), events[1].event_id)
    assert (alert.events, alert.value, alert.to_dict()["threshold"]) == (0, 1_800, 1_800)


def test_silence_alerts_once_until_the_next_event():
    """Further events of others do not repeat the alert; after the next event, another silence alerts."""
    others = [event(number * 1_000, "other") for number in range(1, 10)]
    assert len(list(replay(QUIET, [event(0), *others]))) == 1
    assert len(list(replay(QUIET, [event(0), *others, event(10_000), event(13_000, "other")]))) == 2


@pytest.mark.parametrize(("gap", "count"), [(1_800, 0), (1_805, 1), (1_804.999999, 0)])
def test_silence_begins_after_the_time_and_the_lateness(gap, count):
    """An event may come 5 seconds late, so a gap of the time alone is no silence."""
    assert len(list(replay(QUIET, [event(0), event(gap)]))) == count


def test_end_of_the_events_is_silence_only_if_the_time_is_known():
    """Without now, nothing is known about the time after the last event."""
    assert list(replay(QUIET, [event(0)])) == []
    now = NOON + dt.timedelta(hours=1)
    assert len(list(replay(QUIET, [event(0)], now=now))) == 1
    assert list(replay(QUIET, [event(3_500)], now=now)) == []


def test_silence_from_the_start_counts_only_since_a_given_time():
    """Without any event, silence is known only from a time on; with per, there is no subject yet."""
    now = NOON + dt.timedelta(hours=1)
    (alert,) = replay(QUIET, [], since=NOON, now=now)
    assert (alert.timestamp, alert.event_id) == (NOON + dt.timedelta(minutes=30), None)
    assert list(replay(QUIET, [], now=now)) == []
    each = Rule("each", no_event_for="30m", per="user_id")
    assert list(replay(each, [], since=NOON, now=now)) == []


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"events": "logs/audit.jsonl"}, "events='logs/audit.jsonl': expected events, such as those of open_trail"),
        (
            {"events": AuditLogger()},
            "expected events, such as those of open_trail(path).iter_events(), got AuditLogger",
        ),
        ({"earlier": event(0)}, "earlier="),
        ({"since": 5}, "since=5: expected "),
        ({"now": "yesterdy"}, "now='yesterdy': expected a time. Did you mean 'yesterday'?"),
    ],
)
def test_replay_refuses_what_are_no_events_and_no_times(options, words):
    """A path, a source in place of its events, and a time that is none are errors when replay is called."""
    with pytest.raises(AuditError) as caught:
        replay(QUIET, **{"events": [], **options})
    assert words in str(caught.value)


def test_times_of_a_replay_are_read_as_in_queries():
    """A time may be text, and a naive datetime is local time."""
    noon, later = NOON.isoformat(), NOON + dt.timedelta(hours=1)
    local = later.astimezone().replace(tzinfo=None)
    for now in (later, later.isoformat(), local):
        assert len(list(replay(QUIET, [], since=noon, now=now))) == 1


def test_each_subject_is_silent_by_itself_in_the_order_of_times():
    """With per, each value is watched; alerts come in the order of their times, over all rules."""
    each = Rule("each", no_event_for="10m", per="user_id")
    events = [event(0, user="a"), event(10, user="b"), event(20, user="a"), event(5_000, "other", user="c")]
    alerts = list(replay([QUIET, each], events))
    assert [(alert.rule.name, alert.subject) for alert in alerts] == [("each", "b"), ("each", "a"), ("quiet", None)]


def test_subjects_beyond_the_bound_are_not_watched_and_counted():
    """A watched subject is never dropped; further ones are counted, and watched once there is room."""
    monitor = Monitor(Rule("each", no_event_for="10m", per="user_id", max_subjects=1))
    alerts = [
        monitor.see(event(number, user=user)) for number, user in ((0, "a"), (1, "b"), (1_000, "b"), (2_000, "c"))
    ]
    assert [[alert.subject for alert in found] for found in alerts] == [[], [], ["a"], ["b"]]
    assert monitor.forgotten == {"each": 1}


def test_silence_in_working_hours_measures_working_time():
    """A night is no silence, and the alert comes when the working time is over."""
    office = {"hours": "09:00-17:00", "tz": "UTC"}
    rule = Rule("idle", no_event_for="30m", during=office)
    evening = event(4 * 3_600 + 3_000)
    (alert,) = replay(rule, [evening], now=NOON + dt.timedelta(days=2))
    assert alert.timestamp == dt.datetime(2025, 1, 16, 9, 20, tzinfo=dt.UTC)
    assert str(alert) == "idle: no event for 30m in working hours"
    assert list(replay(rule, [evening], now=dt.datetime(2025, 1, 16, 9, 20, tzinfo=dt.UTC))) == []


def test_late_event_does_not_make_the_last_one_earlier():
    """An event up to 5 seconds late leaves the silence as it is; a clock that was set back delays no longer than that."""
    assert list(replay(QUIET, [event(10), event(6), event(1_810)])) == []
    set_back = [event(3_600), event(0), event(1_806, "other"), event(5_406, "other")]
    (alert,) = replay(QUIET, set_back)
    assert alert.timestamp == NOON + dt.timedelta(seconds=1_800)


def test_event_at_the_end_of_the_calendar_is_no_error():
    """The time of an alert beyond the calendar is its end."""
    last = AuditEvent(event_id="evt_" + "0" * 32, timestamp=dt.datetime.max.replace(tzinfo=dt.UTC), operation="login")
    monitor = Monitor(QUIET)
    assert monitor.see(last) == []
    assert [tracker.next_check is not None for tracker in monitor._silences] == [True]
    (alert,) = monitor._silent(10**18)
    assert alert.timestamp == dt.datetime.max.replace(tzinfo=dt.UTC)


# --- in a handler ------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Timer:
    timers: Timers
    time: dt.datetime
    function: Callable[[], None]

    def cancel(self):
        if self in self.timers.waiting:
            self.timers.waiting.remove(self)


class Timers:
    """Stands in for ``call_later`` and time: `advance` sets the clock to each time at which a timer is due, and runs it."""

    def __init__(self, clock):
        self.clock = clock
        self.waiting = []

    def __call__(self, seconds, function):
        # Alerts that would be logged stay in the monitor.
        timer = Timer(self, self.clock.now() + dt.timedelta(seconds=seconds), function)
        if function.__name__ != "log_waiting":
            self.waiting.append(timer)
        return timer

    def advance(self, seconds):
        end = self.clock.now() + dt.timedelta(seconds=seconds)
        while self.waiting and min(timer.time for timer in self.waiting) <= end:
            due = min(self.waiting, key=lambda timer: timer.time)
            due.cancel()
            self.clock.advance(seconds=max(0, (due.time - self.clock.now()).total_seconds()))
            due.function()
        self.clock.advance(seconds=(end - self.clock.now()).total_seconds())


MORNING = {"hours": "09:00-12:30", "tz": "UTC"}
RULES = [
    QUIET,
    Rule("each", no_event_for="7m", per="user_id"),
    Rule("hosts", no_event_for="20m", per=["user_id", "metadata.host"], max_subjects=2, during=MORNING),
    Rule("new", first_seen=["user_id", "operation"], within="10m", max_subjects=3),
    Rule("night", more_than=1, within="10m", per="user_id", outside=MORNING),
    Rule("deletions", operation_class="delete", more_than=1, within="10m"),
]  # fmt: skip
RECORDED = st.lists(
    st.tuples(
        st.sampled_from(["login", "document.delete", "read"]),
        st.sampled_from(["ann", "bob", None]),
        st.sampled_from([{}, {"host": "web1"}]),
        st.integers(0, 3_000),
    ),
    max_size=30,
)


@given(RECORDED)
@example([("login", "ann", {}, 3_000), ("login", "ann", {}, 3_000)])
def test_live_alerts_equal_those_of_replay(recorded):
    """For all events: the alerts by timers and events of a handler are those of a replay of its events up to now."""
    clock = FrozenClock(NOON)
    timers = Timers(clock)
    audit = AuditLogger(handler=AuditHandler(monitor=RULES, clock=clock, call_later=timers))
    for operation, user, metadata, seconds in recorded:
        timers.advance(seconds)
        audit.record(operation, user, None, None, metadata)
    timers.advance(5_000)
    live = list(audit.handler.monitor._waiting)
    assert live == list(replay(RULES, audit.iter_events(), now=clock.now()))
    assert len(timers.waiting) <= 1
    audit.handler.monitor._waiting.clear()


@given(RECORDED)
@example([("login", "ann", {}, 0), ("login", "bob", {}, 0), ("read", None, {}, 3_000), ("login", "ann", {}, 0)])
def test_alerts_that_an_event_leaves_to_the_timer_equal_those_of_replay(recorded):
    """For all events: if each checks one subject only and the timer is late, the alerts are those of a replay."""
    rules = [QUIET, RULES[1], Rule("hosts", no_event_for="20m", per=["user_id", "metadata.host"])]
    clock = FrozenClock(NOON)
    timers = Timers(clock)
    audit = AuditLogger(handler=AuditHandler(monitor=rules, clock=clock, call_later=timers))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor_module, "_MOST_PER_EVENT", 1)
        for operation, user, metadata, seconds in recorded:
            clock.advance(seconds=seconds)
            audit.record(operation, user, None, None, metadata)
        clock.advance(seconds=5_000)
        timers.advance(0)
    live = sorted(audit.handler.monitor._waiting, key=repr)
    assert live == sorted(replay(rules, audit.iter_events(), now=clock.now()), key=repr)
    audit.handler.monitor._waiting.clear()


def test_event_after_the_silence_of_many_subjects_checks_few_of_them():
    """Of a thousand subjects that are due, an event checks a bounded number; one timer finds the others, in order."""
    rule = Rule("each", no_event_for="10m", per="user_id")
    clock = FrozenClock(NOON)
    timers = Timers(clock)
    audit = AuditLogger(handler=AuditHandler(monitor=rule, clock=clock, call_later=timers))
    users = [f"user{number}" for number in range(1_000)]
    for user in users:
        clock.advance(milliseconds=1)
        audit.record("login", user)
    monitor = audit.handler.monitor
    clock.advance(hours=1)
    audit.record("login", "ann")
    audit.record("login", "user999")
    assert 0 < monitor.alerts["each"] <= 2 * monitor_module._MOST_PER_EVENT
    assert len(timers.waiting) == 1
    timers.advance(0)
    assert [alert.subject for alert in monitor._waiting] == users
    monitor._waiting.clear()


@given(RECORDED, st.integers(0, 30))
def test_alerts_of_files_equal_those_of_the_events(tmp_path_factory, recorded, split):
    """For all events: a trail of several segments gives the alerts of the events in memory, earlier ones included."""
    path = tmp_path_factory.mktemp("trail") / "audit.jsonl"
    clock = FrozenClock(NOON)
    target = AuditFileHandler(path, clock=clock.now)
    audit = AuditLogger(handler=AuditHandler(target=target, clock=clock))
    for number, (operation, user, metadata, seconds) in enumerate(recorded):
        clock.advance(seconds=seconds)
        audit.record(operation, user, None, None, metadata)
        if number == split:
            target.doRollover()
    events = list(audit.iter_events())
    audit.handler.close()
    stored = list(open_trail(path).iter_events())
    assert stored == events
    options = {"earlier": events[:split], "since": NOON, "now": clock.now()}
    assert list(replay(RULES, stored[split:], **options)) == list(replay(RULES, events[split:], **options))


def test_close_forgets_whom_it_watched():
    """After close, silence is expected; the next event begins anew."""
    clock = FrozenClock(NOON)
    timers = Timers(clock)
    handler = AuditHandler(monitor=QUIET, clock=clock, call_later=timers)
    audit = AuditLogger(handler=handler)
    audit.record("login", "ann")
    handler.close()
    assert timers.waiting == []
    timers.advance(7_200)
    assert handler.monitor.alerts == {"quiet": 0}
    audit.record("login", "ann")
    timers.advance(7_200)
    assert handler.monitor.alerts == {"quiet": 1}
    handler.monitor._waiting.clear()


def test_close_ends_the_thread_of_the_timer():
    """A timer of a day ends when the handler is closed."""
    before = set(threading.enumerate())
    handler = AuditHandler(monitor=Rule("daily", no_event_for="1d"))
    AuditLogger(handler=handler).record("login", "ann")
    (thread,) = set(threading.enumerate()) - before
    handler.close()
    thread.join(60)
    assert not thread.is_alive()


def test_timer_that_cannot_be_cancelled_does_nothing_after_close():
    """A function for timers may return nothing: its call after close finds no subject, and sets no timer."""
    clock = FrozenClock(NOON)
    functions = []
    handler = AuditHandler(monitor=QUIET, clock=clock, call_later=lambda seconds, function: functions.append(function))
    AuditLogger(handler=handler).record("login", "ann")
    handler.close()
    clock.advance(hours=1)
    functions[0]()
    assert (len(functions), handler.monitor.alerts) == (1, {"quiet": 0})


def test_no_thread_for_the_timer_leaves_silence_to_the_next_event():
    """If no timer can be started, silence is found at the next event, which tries again."""

    def fail(seconds, function):
        raise RuntimeError("can't start new thread")

    clock = FrozenClock(NOON)
    handler = AuditHandler(monitor=QUIET, clock=clock, call_later=fail)
    audit = AuditLogger(handler=handler)
    for _ in range(2):
        audit.record("login", "ann")
        clock.advance(hours=1)
    assert handler.monitor.alerts == {"quiet": 1}
    assert handler.count_events() == 2
    handler.monitor._waiting.clear()


def test_handler_without_rules_on_silence_has_no_timer():
    """Only rules on silence need a timer and a lock."""
    clock = FrozenClock(NOON)
    timers = Timers(clock)
    audit = AuditLogger(handler=AuditHandler(monitor=DEFAULT_RULES, clock=clock, call_later=timers))
    audit.record("login", "ann")
    assert timers.waiting == []
