"""Tests of `structlog_audit.buffer`: buffer, index and statistics, compared with a plain list."""

import datetime as dt
import json
import sys
import threading
from collections import Counter
from functools import partial

import pytest
from conftest import Interruption
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from structlog_audit.buffer import event_buffer as buffer_module
from structlog_audit.buffer import index as index_module
from structlog_audit.buffer.event_buffer import EventBuffer
from structlog_audit.events.codec import MIN_EVENT_BYTES, decode, encode_payload
from structlog_audit.events.conversion import convert
from structlog_audit.query.filters import conditions
from structlog_audit.query.statistics import statistics

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
BEGIN = 1_700_000_000_000_000


def time_of(timestamp_us):
    return EPOCH + dt.timedelta(microseconds=timestamp_us)


def text_of(timestamp_us):
    return time_of(timestamp_us).isoformat(timespec="microseconds")[:26] + "Z"


def line_of(number, timestamp_us=BEGIN, **members):
    head = {"event_id": f"evt_{number:032x}", "timestamp": text_of(timestamp_us)}
    members = {**head, "operation": "STORE", "status": "SUCCESS", **members}

    # Without blanks, like the codec.
    return json.dumps(members, separators=(",", ":")).encode() + b"\n"


def number_of(event):
    return int(event.event_id[4:], 16)


def numbers(buffer, newest_first=False, **filters):
    return [number_of(event) for event in buffer.select(conditions(**filters), newest_first=newest_first)]


OPERATIONS = ["STORE", "RECALL", "DELETE"]
USERS = ["ann", "bob", "ünï", "'; --", None]
SESSIONS = ["s1", "s2", None]
STATUSES = ["SUCCESS", "FAILURE", "PARTIAL"]
KINDS = [None, None, None, "gap", "intent"]
ENTRIES = ["e1", "e2", "e3"]
METADATA = [{}, {"source": "api"}, {"source": "api", "user": {"plan": "pro"}}, {"tags": ["a", "b"]}]


def without_nothing(**members):
    return {name: value for name, value in members.items() if value not in (None, [], {})}


MEMBERS = st.builds(
    without_nothing,
    operation=st.sampled_from(OPERATIONS),
    user_id=st.sampled_from(USERS),
    session_id=st.sampled_from(SESSIONS),
    status=st.sampled_from(STATUSES),
    kind=st.sampled_from(KINDS),
    entry_ids=st.lists(st.sampled_from(ENTRIES), max_size=4),
    metadata=st.sampled_from(METADATA),
    duration_ms=st.sampled_from([None, 0.5, 10.0, 99.0]),
)


def any_of(values):
    return st.one_of(st.sampled_from(values), st.lists(st.sampled_from(values), max_size=3))


# Microseconds between an event and the next.
STEPS = st.integers(0, 9_000_000)

# Microseconds by which the clock is set, mostly back.
CLOCK_CHANGES = st.integers(-60_000_000, 20_000_000)

NAMES = {
    "operation": OPERATIONS,
    "user_id": USERS,
    "session_id": SESSIONS,
    "status": STATUSES,
    "entry_ids": ENTRIES,
    "event_id": [f"evt_{number:032x}" for number in (0, 3, 30)],
}
"""Filters by a value or any of several, and values of events."""

ANY_FILTER = {
    **{name: any_of(values) for name, values in NAMES.items()},
    "kind": any_of([None, "gap", "intent", "trail"]),
    "operation_class": any_of(["create", "read", "delete", None]),
    "metadata": st.sampled_from([*METADATA, {"user": {"plan": "free"}}, {"tags": ["b"]}]),
    "min_duration_ms": st.sampled_from([0, 5, 10]),
    "max_duration_ms": st.sampled_from([10, 50, 100.0]),
    "start_time": st.integers(-10_000_000, 90_000_000).map(lambda offset: time_of(BEGIN + offset)),
    "end_time": st.integers(90_000_000, 150_000_000).map(lambda offset: time_of(BEGIN + offset)),
}
"""Filters that may match no event."""


@st.composite
def few_filters(draw, strategies):
    """One to three of the filters, from *strategies* by name."""
    names = draw(st.lists(st.sampled_from(sorted(strategies)), min_size=1, max_size=3, unique=True))
    return {name: draw(strategies[name]) for name in names}


def filters_of(event, timestamp_us):
    """Strategies for the filters that *event* matches, by name."""

    def around(name, value):
        others = st.lists(st.sampled_from(NAMES[name]), max_size=2)
        return st.just(value) | others.map(lambda values: [value, *values])

    earlier = st.sampled_from([0, 1, 5_000_000]).map(lambda distance: time_of(timestamp_us - distance))
    later = st.sampled_from([1, 5_000_000]).map(lambda distance: time_of(timestamp_us + distance))
    strategies = {
        **{name: around(name, getattr(event, name)) for name in NAMES if name not in ("entry_ids", "event_id")},
        "event_id": st.just(event.event_id),
        "metadata": st.sampled_from([{}, event.metadata]),
        "start_time": earlier,
        "end_time": later,
    }
    if event.entry_ids:
        strategies["entry_ids"] = st.sampled_from(event.entry_ids).flatmap(lambda value: around("entry_ids", value))
    if event.duration_ms is not None:
        strategies["min_duration_ms"] = st.sampled_from([0, event.duration_ms])
        strategies["max_duration_ms"] = st.sampled_from([event.duration_ms, 100.0])
    return strategies


OCCASIONS = {
    "answer",
    "answer to two filters",
    "answer to three filters",
    "answer that leaves events out",
    "answer to a start time",
    "answer to an end time",
    "answer to a start time after the clock was set back",
    "answer after eviction",
    "no answer",
    "statistics again",
    "statistics again after eviction",
    "statistics again after clear",
}
"""What a run of `AgainstAList` must have met, so that it has tested what it is for."""


class AgainstAList(RuleBasedStateMachine):
    """The buffer answers like a plain list of the newest events, after any appends, evictions, clears and queries.

    Args:
        occurred: Counts the `OCCASIONS` that the run meets.
    """

    def __init__(self, occurred):
        super().__init__()
        self.occurred = occurred

    @initialize(
        max_events=st.sampled_from([1, 2, 7, 8, 20, 64]),
        hash_bits=st.sampled_from([0, 1, 40]),
        smallest_run=st.sampled_from([1, 4_096]),
        events=st.lists(st.tuples(MEMBERS, STEPS | CLOCK_CHANGES), min_size=5, max_size=25),
    )
    def begin(self, max_events, hash_bits, smallest_run, events):
        self.saved = index_module._HASH, index_module._MIN_RUN
        index_module._HASH, index_module._MIN_RUN = (1 << hash_bits) - 1, smallest_run
        self.buffer = EventBuffer(max_events)
        self.max_events = max_events

        # Pairs of line and timestamp in the order of commit.
        self.all = []
        self.first = self.cleared = 0
        self.now = BEGIN
        self.was_set_back = False

        # Evicted and cleared events at the last request of statistics.
        self.gone_at_statistics = None
        self.append(events)

    @rule(events=st.lists(st.tuples(MEMBERS, STEPS), min_size=1, max_size=25))
    def append_events(self, events):
        self.append(events)

    @rule(change=CLOCK_CHANGES, events=st.lists(st.tuples(MEMBERS, STEPS), min_size=1, max_size=5))
    def set_clock_and_append(self, change, events):
        self.append([(events[0][0], change), *events[1:]])

    def append(self, events):
        for members, step in events:
            self.now += step
            self.was_set_back |= step < 0
            line = line_of(len(self.all), self.now, **members)
            self.all.append((line, self.now))
            self.buffer.append(line, self.now)
            self.first = max(self.first, len(self.all) - self.max_events)

    @rule()
    def clear(self):
        self.buffer.clear()
        self.cleared += len(self.all) - self.first
        self.first = len(self.all)

    @precondition(lambda self: self.first < len(self.all))
    @rule(data=st.data(), newest_first=st.booleans(), by_time=st.booleans())
    def query_by_a_held_event(self, data, newest_first, by_time):
        line, timestamp_us = data.draw(st.sampled_from(self.all[self.first :]))
        event = decode(line)
        strategies = filters_of(event, timestamp_us)
        if by_time:
            strategies = {name: strategies[name] for name in ("start_time", "end_time", "user_id")}
        filters = data.draw(few_filters(strategies))
        if event.kind is not None:
            filters["kind"] = event.kind

        answer = self.query(filters, newest_first)
        assert event in answer
        self.note_answer(filters, answer)

    @precondition(lambda self: self.first < len(self.all))
    @rule(filters=few_filters(ANY_FILTER), newest_first=st.booleans())
    def query_by_any_filters(self, filters, newest_first):
        if not self.query(filters, newest_first):
            self.occurred["no answer"] += 1

    def query(self, filters, newest_first):
        """Compare the answer with that of the list, and return it."""
        wanted = conditions(**filters)
        expected = [event for line, _ in self.all[self.first :] if wanted.matches(event := decode(line))]
        found = list(self.buffer.select(wanted, newest_first=newest_first))
        assert found == (expected[::-1] if newest_first else expected)
        return found

    def note_answer(self, filters, answer):
        """Count the occasions that the *answer* to *filters* was."""
        occasions = {
            "answer": True,
            "answer to two filters": len(filters) == 2,
            "answer to three filters": len(filters) == 3,
            "answer that leaves events out": len(answer) < len(self.all) - self.first,
            "answer to a start time": "start_time" in filters,
            "answer to an end time": "end_time" in filters,
            "answer to a start time after the clock was set back": "start_time" in filters and self.was_set_back,
            "answer after eviction": self.first > self.cleared,
        }
        self.occurred.update(name for name, occurs in occasions.items() if occurs)

    @rule()
    def request_statistics(self):
        events = [decode(line) for line, _ in self.all[self.first :]]
        assert self.buffer.statistics() == statistics(event for event in events if event.kind is None)

        evicted = self.first - self.cleared
        if self.gone_at_statistics is not None:
            evicted_before, cleared_before = self.gone_at_statistics
            self.occurred["statistics again"] += 1
            self.occurred["statistics again after eviction"] += evicted > evicted_before
            self.occurred["statistics again after clear"] += self.cleared > cleared_before
        self.gone_at_statistics = evicted, self.cleared

    @invariant()
    def length_and_evicted_are_right(self):
        assert len(self.buffer) == len(self.all) - self.first <= self.max_events
        assert self.buffer.evicted == self.first - self.cleared

    @invariant()
    def complete_since_is_right(self):
        evicted = [timestamp_us for _, timestamp_us in self.all[: self.first]]
        assert self.buffer.complete_since == (time_of(max(evicted) + 1) if evicted else None)

    def teardown(self):
        if hasattr(self, "saved"):
            index_module._HASH, index_module._MIN_RUN = self.saved


def test_buffer_answers_like_a_list():
    """After any steps the buffer answers like a plain list of the newest events, on every occasion that matters."""
    occurred = Counter()
    bounds = settings(max_examples=100, stateful_step_count=25, deadline=None)
    run_state_machine_as_test(partial(AgainstAList, occurred), settings=bounds)
    assert {name for name, count in occurred.items() if count} == OCCASIONS


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(0, 60),
    max_events=st.sampled_from([1, 8, 20, 64]),
    bounds=st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted),
)
def test_snapshot_gives_the_lines_of_any_range(count, max_events, bounds):
    """Lines and timestamps of any range are those of its positions, in chunks and in the tail."""
    buffer, lines = EventBuffer(max_events), [line_of(number, BEGIN + number) for number in range(count)]
    for number, line in enumerate(lines):
        buffer.append(line, BEGIN + number)
    snapshot = buffer._snapshot()
    held = range(max(0, count - max_events), count)
    assert range(snapshot.first, snapshot.stop) == held
    start, stop = (min(max(bound, held.start), held.stop) for bound in bounds)
    assert snapshot.lines(start, stop) == b"".join(lines[start:stop])
    assert snapshot.timestamps_us(start, stop) == [BEGIN + number for number in range(start, stop)]
    assert [snapshot.line(position) for position in held] == lines[held.start :]
    positions = [held.stop, *reversed(held), held.start - 1]
    assert list(snapshot.lines_at(positions)) == lines[held.start :][::-1]


RECORDED_OPERATIONS = st.sampled_from(
    ["STORE", "STORE2", "a b", 'q"', "back\\slash", "ünï", "\x7f", "\u2028", "a\nb", "Straße"]
)


def recorded(number, operation):
    """Return the line of an event as a handler records it."""
    head = f'{{"event_id":"evt_{number:032x}","timestamp":"{text_of(BEGIN)}",'.encode()
    return head + encode_payload(convert({"operation": operation, "user_id": "ann"}), MIN_EVENT_BYTES) + b"\n"


def written_by_another(number, operation):
    """Return the same in a form that this library does not write."""
    head = f'{{"event_id":"evt_{number:032x}","timestamp":"{text_of(BEGIN)}","user_id":"ann",'
    escaped = "".join(f"\\u{ord(character):04x}" for character in operation)
    return f'{head}"operation" : "{escaped}"}}\n'.encode()


@settings(max_examples=100, deadline=None)
@given(
    restored=st.lists(RECORDED_OPERATIONS, max_size=20),
    appended=st.lists(RECORDED_OPERATIONS, max_size=60),
    wanted=st.lists(RECORDED_OPERATIONS, min_size=1, max_size=3),
    at_most=st.none() | st.integers(0, 3),
)
def test_query_by_operation_finds_it_in_lines_of_any_form(restored, appended, wanted, at_most):
    """An operation of any characters is found in recorded lines, and in those of other writers that were restored."""
    buffer = EventBuffer(1_000)
    buffer.restore((written_by_another(number, name), BEGIN) for number, name in enumerate(restored))
    for number, name in enumerate(appended, len(restored)):
        buffer.append(recorded(number, name), BEGIN)

    found = buffer.select(conditions(operation=wanted, user_id="ann"), newest_first=False, at_most=at_most)
    assert [number_of(event) for event in found] == [
        number for number, name in enumerate([*restored, *appended]) if name in wanted
    ]


HELD = st.lists(st.tuples(MEMBERS, STEPS | CLOCK_CHANGES), min_size=1, max_size=40)


def filled(events, max_events=30):
    """Return a buffer with *events*, and the held ones as pairs of an event and its timestamp in microseconds."""
    buffer = EventBuffer(max_events)
    now, held = BEGIN, []
    for number, (members, step) in enumerate(events):
        now += step
        line = line_of(number, now, **members)
        buffer.append(line, now)
        held.append((decode(line), now))
    return buffer, held[-max_events:]


@settings(max_examples=50, deadline=None)
@given(events=HELD, data=st.data())
def test_two_filters_select_the_events_that_match_both(events, data):
    """Each two filters that an event matches find the events that each of them finds, in their order."""
    buffer, held = filled(events)
    event, timestamp_us = data.draw(st.sampled_from(held))
    strategies = filters_of(event, timestamp_us)
    names = data.draw(st.lists(st.sampled_from(sorted(strategies)), min_size=2, max_size=2, unique=True))
    filters = {name: data.draw(strategies[name]) for name in names}

    each = [set(numbers(buffer, kind=event.kind, **{name: value})) for name, value in filters.items()]
    found = numbers(buffer, kind=event.kind, **filters)
    assert found == sorted(set.intersection(*each))
    assert number_of(event) in found


@settings(max_examples=50, deadline=None)
@given(before=HELD, after=HELD, change=st.integers(1, 60_000_000))
def test_start_time_selects_the_events_from_it_on_after_the_clock_was_set_back(before, after, change):
    """A start time finds all events from it on: those before and those after the clock was set back."""
    (members, _), *rest = after
    buffer, held = filled([*before, (members, -change), *rest], 100)
    for _, start_us in held:
        expected = [number_of(event) for event, timestamp_us in held if timestamp_us >= start_us]
        assert numbers(buffer, start_time=time_of(start_us), kind=[None, "gap", "intent"]) == expected != []


@settings(max_examples=50, deadline=None)
@given(events=st.lists(MEMBERS, min_size=1, max_size=40), filters=few_filters(ANY_FILTER))
def test_newest_first_is_oldest_first_reversed(events, filters):
    """Both orders give the same events."""
    buffer = EventBuffer(30)
    for number, members in enumerate(events):
        buffer.append(line_of(number, BEGIN + number * 1_000_000, **members), BEGIN + number * 1_000_000)
    assert numbers(buffer, True, **filters) == numbers(buffer, False, **filters)[::-1]


@pytest.mark.parametrize(
    ("members", "filters"),
    [
        ({"entry_ids": ["a", "a"]}, {"entry_ids": "a"}),
        ({"entry_ids": ["a", "b"]}, {"entry_ids": ["a", "b"]}),
        ({"entry_ids": ["a", "a"], "user_id": "a"}, {"entry_ids": "a", "user_id": "a"}),
        ({"user_id": "a"}, {"user_id": ["a", "a", "b"]}),
    ],
)
def test_event_with_several_matching_values_is_found_once(members, filters):
    """An event that has a value twice, or two of the values in a filter, is in the answer once."""
    buffer = EventBuffer(10)
    for number in range(3):
        buffer.append(line_of(number, **members), BEGIN)
    assert numbers(buffer, **filters) == [0, 1, 2]


def test_values_with_equal_hashes_are_distinguished(monkeypatch):
    """Queries match the events themselves: two values with one hash neither match each other nor double an event."""
    monkeypatch.setattr(index_module, "_HASH", 0)
    buffer = EventBuffer(100)
    for number in range(100):
        buffer.append(line_of(number, user_id=f"user{number % 5}", entry_ids=["x", "y"]), BEGIN)
    assert numbers(buffer, user_id="user3") == list(range(3, 100, 5))
    assert numbers(buffer, entry_ids="x", user_id=["user1", "user2"]) == sorted([*range(1, 100, 5), *range(2, 100, 5)])
    assert numbers(buffer, user_id="STORE") == []


@pytest.mark.parametrize("kind", ["gap", ["gap"], [None, "gap"], None])
def test_kind_filter_selects_library_events(kind):
    """Events of the library are omitted unless a filter selects their kind; None selects application events."""
    buffer = EventBuffer(10)
    for number in range(6):
        buffer.append(line_of(number, **({"kind": "gap"} if number % 3 == 0 else {})), BEGIN)
    wanted = kind if isinstance(kind, list) else [kind]
    assert numbers(buffer, kind=kind) == [n for n in range(6) if ("gap" if n % 3 == 0 else None) in wanted]
    assert numbers(buffer) == [1, 2, 4, 5]


def test_event_in_parts_is_one_event():
    """The lines of an event in parts are one event, which any of its entry ids finds."""
    buffer = EventBuffer(10)
    first = line_of(1, entry_ids=["a"])
    part = {"event_id": f"evt_{2:032x}", "timestamp": text_of(BEGIN), "part_of": f"evt_{1:032x}"}
    part_line = json.dumps({**part, "operation": "STORE", "kind": "part", "entry_ids": ["b"]}).encode() + b"\n"
    buffer.append(line_of(0), BEGIN)
    buffer.append(first + part_line, BEGIN)
    assert numbers(buffer, entry_ids="b") == [1]
    assert len(buffer) == 2


def test_change_of_a_returned_event_has_no_effect():
    """Each query decodes its events anew."""
    buffer = EventBuffer(10)
    buffer.append(line_of(0, metadata={"a": [1]}), BEGIN)
    next(buffer.select(conditions(), newest_first=True)).metadata["a"].append(2)
    assert next(buffer.select(conditions(), newest_first=True)).metadata == {"a": [1]}


def test_query_returns_the_events_at_its_start():
    """Events that arrive, and evict others, while an answer is consumed do not change it."""
    buffer = EventBuffer(4)
    for number in range(4):
        buffer.append(line_of(number), BEGIN)
    answer = buffer.select(conditions(), newest_first=False)
    assert number_of(next(answer)) == 0
    for number in range(4, 40):
        buffer.append(line_of(number), BEGIN)
    numbers(buffer, user_id="ann")
    buffer.clear()
    assert [number_of(event) for event in answer] == [1, 2, 3]


def test_runs_stay_few_and_bounded(monkeypatch):
    """Eight similar runs are merged: there are O(log n) of them, none larger than an eighth of the buffer."""
    monkeypatch.setattr(index_module, "_MIN_RUN", 16)
    buffer = EventBuffer(2_048)
    for number in range(6_000):
        buffer.append(line_of(number, user_id=f"u{number % 7}"), BEGIN)
        if number % 5 == 0:
            numbers(buffer, session_id="none")
    runs = buffer._index._runs
    assert max(run.stop - run.start for run in runs) <= buffer._index.max_run == 256

    # Runs of an eighth of the buffer or slightly less, and those of 5 and 40 events.
    assert len(runs) <= 8 * 8 + 2 * 7
    assert numbers(buffer, user_id="u3") == [n for n in range(6_000 - 2_048, 6_000) if n % 7 == 3]


@pytest.mark.parametrize("newest_first", [False, True])
def test_runs_end_where_the_position_bits_restart(newest_first):
    """Answers are in order, and complete, where the lower bits of the positions restart."""
    buffer = EventBuffer(100)

    # The state after many events.
    buffer._parts = ((), [], 3 * index_module.MAX_RUN - 20)
    for number in range(60):
        buffer.append(line_of(number, user_id=f"u{number % 3}", entry_ids=["e", f"e{number}"]), BEGIN)
        if number % 4 == 0:
            numbers(buffer, user_id="u1")
    assert all(
        run.start // index_module.MAX_RUN == (run.stop - 1) // index_module.MAX_RUN for run in buffer._index._runs
    )
    in_order = partial(sorted, reverse=newest_first)
    assert numbers(buffer, newest_first, user_id="u1") == in_order(range(1, 60, 3))
    assert numbers(buffer, newest_first, user_id=["u1", "u2"]) == in_order([n for n in range(60) if n % 3])
    assert numbers(buffer, newest_first, user_id="u2", entry_ids=["e23", "e"]) == in_order(range(2, 60, 3))


def test_events_evicted_before_a_query_are_not_indexed():
    """The index begins at the events that the buffer holds at the first query."""
    buffer = EventBuffer(8)
    numbers(buffer)
    for number in range(1_000):
        buffer.append(line_of(number), BEGIN)
    assert numbers(buffer, operation="STORE") == list(range(992, 1_000))
    assert [run.start for run in buffer._index._runs] == [992]


def test_member_is_indexed_from_its_first_filter_on():
    """The first query that filters by a member indexes it, for earlier events too."""
    buffer = EventBuffer(100)
    for number in range(30):
        buffer.append(line_of(number, user_id=f"u{number % 3}", entry_ids=[f"e{number}"]), BEGIN)
        if number == 9:
            assert numbers(buffer) == list(range(10))
            assert [run.postings for run in buffer._index._runs] == [{}]
        if number == 19:
            assert numbers(buffer, user_id="u1") == list(range(1, 20, 3))
            assert [list(run.postings) for run in buffer._index._runs] == [["user_id"], ["user_id"]]
    assert numbers(buffer, entry_ids=["e3", "e13", "e23"]) == [3, 13, 23]
    assert numbers(buffer, user_id="u2", entry_ids=["e3", "e5", "e29"]) == [5, 29]
    assert {tuple(run.postings) for run in buffer._index._runs} == {("user_id", "entry_ids")}


class Stop(Exception):
    pass


def stop():
    raise Stop


def test_query_ended_by_a_signal_handler_does_not_affect_later_ones(monkeypatch):
    """Wherever an exception ends a query, later ones are answered completely."""
    monkeypatch.setattr(index_module, "_MERGE_FACTOR", 2)
    due = 0
    stopped = True
    while stopped:
        due += 1
        buffer = EventBuffer(100)
        for number in range(4):
            buffer.append(line_of(number, user_id=f"u{number % 2}"), BEGIN)
            numbers(buffer, user_id="u1")
        buffer.append(line_of(4, user_id="u0"), BEGIN)
        try:
            with Interruption(due, stop, buffer_module, index_module):
                numbers(buffer, user_id="u0", operation="STORE")
            stopped = False
        except Stop:
            pass
        assert numbers(buffer, user_id="u0") == [0, 2, 4], due
        assert numbers(buffer, operation="STORE") == [0, 1, 2, 3, 4], due
    assert due > 50


def test_query_that_waits_for_the_index_is_complete():
    """A query of another thread, for newer events, does not affect one that waits for the lock."""
    buffer = EventBuffer(100)

    class LockOfAnotherThread:
        """The lock of the index, which another thread acquires first."""

        was_reached = False

        def __enter__(self):
            if not self.was_reached:
                self.was_reached = True
                append(buffer, range(5, 10))
                assert numbers(buffer, user_id="u1") == [1, 4, 7]

        def __exit__(self, *exc_info):
            pass

    append(buffer, range(5))
    assert numbers(buffer) == list(range(5))
    buffer._index_lock = LockOfAnotherThread()
    assert numbers(buffer, operation="STORE") == list(range(10))


def append(buffer, those):
    for number in those:
        buffer.append(line_of(number, user_id=f"u{number % 3}"), BEGIN)


@pytest.mark.parametrize(
    "query", [lambda buffer: numbers(buffer, operation="STORE"), lambda buffer: buffer.statistics()]
)
def test_signal_handler_can_append_and_query_during_a_query(query):
    """Wherever a signal handler appends events and queries during a query, both are answered."""
    due, interrupted = 0, True
    while interrupted:
        due += 1
        # Chunks of 8 events.
        buffer = EventBuffer(64)
        append(buffer, range(12))
        numbers(buffer, user_id="u1")
        answers = []

        def append_and_query(buffer=buffer, answers=answers):
            append(buffer, range(12, 30))
            answers.append(numbers(buffer, user_id="u1"))
            buffer.statistics()

        with Interruption(due, append_and_query, buffer_module, index_module):
            found = query(buffer)
        interrupted = bool(answers)
        if interrupted:
            assert answers == [list(range(1, 30, 3))], due
        if isinstance(found, list):
            assert found == list(range(len(found))), due
            assert 12 <= len(found) <= 30, due
        assert numbers(buffer, operation="STORE") == list(range(30 if interrupted else 12)), due
        assert buffer.statistics()["total_events"] == (30 if interrupted else 12), due
    assert due > 20


def test_append_repeated_after_an_interruption_counts_once():
    """Wherever an exception ends `append`, appending the line again gives one event with its timestamp."""
    due, stopped = 0, True
    while stopped:
        due += 1
        buffer, lines = EventBuffer(16), [line_of(number, BEGIN + number) for number in range(6)]
        interruption = Interruption(due, stop, buffer_module)
        stopped = False
        for number, line in enumerate(lines):
            try:
                with interruption:
                    buffer.append(line, BEGIN + number)
            except Stop:
                stopped = True
                buffer.append(line, BEGIN + number)
        assert numbers(buffer) == list(range(6)), due
        snapshot = buffer._snapshot()
        assert snapshot.timestamps_us(snapshot.first, snapshot.stop) == [BEGIN + number for number in range(6)], due
    assert due > 40


@pytest.mark.parametrize("timestamps_us", [[0, 10, 20, 30], [30, 20, 10, 0], [0, 50, 10, 60], [5, 5, 5, 5]])
def test_complete_since_follows_the_latest_evicted_event(timestamps_us):
    """Answers are complete from a microsecond after the latest evicted event, whatever the clock did."""
    buffer = EventBuffer(2)
    for number, timestamp_us in enumerate(timestamps_us):
        buffer.append(line_of(number, timestamp_us), timestamp_us)
        evicted = timestamps_us[: max(0, number - 1)]
        assert buffer.complete_since == (time_of(max(evicted) + 1) if evicted else None)


def test_mark_incomplete_until_keeps_the_latest_timestamp():
    """Events that are known to be missing count as evicted; the latest such timestamp counts."""
    buffer = EventBuffer(2)
    buffer.mark_incomplete_until(100)
    buffer.mark_incomplete_until(50)
    assert buffer.complete_since == time_of(101)
    for timestamp_us in (10, 200, 300, 400):
        buffer.append(line_of(timestamp_us, timestamp_us), timestamp_us)
    assert buffer.complete_since == time_of(201)


@pytest.fixture
def frequent_switches():
    """Make threads switch as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("max_events", [3, 40, 1_000])
def test_readers_get_consistent_events_while_a_writer_appends(max_events):
    """Readers get only whole, matching, ordered events, without a gap between them, while a thread appends."""
    buffer = EventBuffer(max_events)
    count = 6_000
    done = threading.Event()
    wrong = []

    def check(filters, matches):
        found = numbers(buffer, **filters)
        if found and found != [n for n in range(found[0], found[-1] + 1) if matches(n)]:
            wrong.append(found)
        newest = numbers(buffer, newest_first=True, **filters)
        if newest != sorted(newest, reverse=True):
            wrong.append(newest)
        if len(found) > max_events:
            wrong.append(found)

    def read(filters, matches):
        try:
            since = EPOCH
            while not done.is_set():
                check(filters, matches)
                now = buffer.complete_since or EPOCH
                if now < since:
                    wrong.append((since, now))
                since = now
        except Exception as error:
            wrong.append(error)

    readers = [
        threading.Thread(target=read, args=({}, lambda n: True)),
        threading.Thread(target=read, args=({"user_id": "u1"}, lambda n: n % 3 == 1)),
    ]
    for thread in readers:
        thread.start()
    for number in range(count):
        timestamp_us = BEGIN + number
        buffer.append(line_of(number, timestamp_us, user_id=f"u{number % 3}"), timestamp_us)
    done.set()
    for thread in readers:
        thread.join()
    assert wrong == []
    assert numbers(buffer) == list(range(count - max_events, count))


def test_statistics_during_statistics_are_both_right(monkeypatch):
    """A signal handler that requests the statistics while they are counted affects neither result, nor later ones."""
    buffer = EventBuffer(100)
    for number in range(20):
        buffer.append(line_of(number), BEGIN)
    inner = []

    def interrupted(line):
        if not inner:
            inner.append(None)
            inner.append(buffer.statistics()["total_events"])
        return decode(line)

    monkeypatch.setattr(buffer_module, "decode", interrupted)
    totals = [buffer.statistics()["total_events"] for _ in range(2)]
    assert (inner, totals) == ([None, 20], [20, 20])


def test_cleared_event_is_not_found_by_its_id():
    """A cleared event matches no filter, its id included, even among the newest lines."""
    buffer = EventBuffer(100)
    for number in range(5):
        buffer.append(line_of(number), BEGIN + number)
    ids = [event.event_id for event in buffer.select(conditions(), newest_first=False)]
    assert numbers(buffer, event_id=ids) == [0, 1, 2, 3, 4]
    buffer.clear()
    buffer.append(line_of(5), BEGIN + 5)
    assert numbers(buffer, event_id=ids) == []


@pytest.mark.parametrize("count", [1, 4, 7])
def test_same_object_appended_twice_in_a_row_is_one_event(count):
    """The caller may repeat a call that has already added the line; an equal line is another event."""
    buffer = EventBuffer(100)
    lines = [line_of(number) for number in range(count)]
    for number, line in enumerate(lines):
        buffer.append(line, BEGIN + number)
        buffer.append(line, BEGIN + number)
    assert numbers(buffer) == list(range(count))
    buffer.append(bytes(bytearray(lines[-1])), BEGIN)
    assert numbers(buffer) == [*range(count), count - 1]


@pytest.mark.parametrize("newest_first", [False, True])
def test_events_with_several_ids_are_found_in_the_requested_order(newest_first):
    """Events found by their ids have the order of commit or its reverse, whatever order the ids have."""
    # Chunks of 8 events.
    buffer = EventBuffer(64)
    append(buffer, range(30))
    wanted = [f"evt_{number:032x}" for number in (29, 3, 12, 8, 25, 99)]
    assert numbers(buffer, newest_first, event_id=wanted) == sorted([29, 3, 12, 8, 25], reverse=newest_first)
    assert numbers(buffer, newest_first, event_id=wanted, user_id="u0") == sorted([3, 12], reverse=newest_first)


def test_clear_frees_the_index():
    """Nothing of the index is left when the buffer is empty."""
    buffer = EventBuffer(100)
    append(buffer, range(5))
    assert numbers(buffer, user_id="u1") == [1, 4]
    buffer.clear()
    assert buffer._index._runs == ()


def test_line_of_another_program_that_is_shorter_than_a_head_is_found():
    """A trail's line that has less than this library's head is an event of the buffer, with and without an operation."""
    buffer = EventBuffer(10)
    line = b'{"event_id":"evt_1","timestamp":"2025-01-01T00:00:00.000000Z","operation":"STORE"}\n'
    buffer.restore([(line, BEGIN)])
    for filters in ({}, {"operation": "STORE"}):
        found = buffer.select(conditions(**filters), newest_first=False)
        assert [event.event_id for event in found] == ["evt_1"]
