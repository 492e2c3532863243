"""The buffer and its index, against a plain list."""

import datetime as dt
import json
import sys
import threading
from functools import partial

import pytest
from conftest import Interruption
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from structlog_audit.buffer import event_buffer as buffer_module
from structlog_audit.buffer import index as index_module
from structlog_audit.buffer.event_buffer import EventBuffer
from structlog_audit.events.codec import decode
from structlog_audit.query.filters import conditions

EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
BEGIN = 1_700_000_000_000_000


def time_of(moment):
    return EPOCH + dt.timedelta(microseconds=moment)


def text_of(moment):
    return time_of(moment).isoformat(timespec="microseconds")[:26] + "Z"


def line_of(number, moment=BEGIN, **members):
    head = {"event_id": f"evt_{number:032x}", "timestamp": text_of(moment)}
    members = {**head, "operation": "STORE", "status": "SUCCESS", **members}
    return json.dumps(members, separators=(",", ":")).encode() + b"\n"  # without blanks, as the codec writes it


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


STEPS = st.integers(-3_000_000, 9_000_000)  # microseconds between an event and the next: the clock may go back

RANGES = st.one_of(
    st.fixed_dictionaries({}),
    st.tuples(st.integers(-10_000_000, 90_000_000), st.integers(0, 50_000_000)).map(
        lambda pair: {"start_time": time_of(BEGIN + pair[0]), "end_time": time_of(BEGIN + pair[0] + pair[1])}
    ),
)
NAMES = st.fixed_dictionaries(
    {},
    optional={
        "operation": any_of(OPERATIONS),
        "user_id": any_of(USERS),
        "session_id": any_of(SESSIONS),
        "status": any_of(STATUSES),
        "kind": any_of([None, "gap", "intent", "trail"]),
        "entry_ids": any_of([*ENTRIES, "e4"]),
        "metadata": st.sampled_from([*METADATA, {"user": {"plan": "free"}}, {"tags": ["b"]}]),
        "min_duration_ms": st.sampled_from([0, 5, 10]),
        "max_duration_ms": st.sampled_from([10, 50, 100.0]),
        "event_id": any_of([f"evt_{number:032x}" for number in (0, 3, 30)]),
    },
)
FILTERS = st.builds(lambda names, times: {**names, **times}, NAMES, RANGES)


class AgainstAList(RuleBasedStateMachine):
    """The buffer answers as a plain list of the newest events would, whatever came, went and was asked before."""

    @initialize(
        max_events=st.sampled_from([1, 2, 7, 8, 20, 64]),
        hash_bits=st.sampled_from([0, 1, 40]),
        smallest_run=st.sampled_from([1, 4_096]),
    )
    def begin(self, max_events, hash_bits, smallest_run):
        self.saved = index_module._HASH, index_module._MIN_RUN
        index_module._HASH, index_module._MIN_RUN = (1 << hash_bits) - 1, smallest_run
        self.buffer = EventBuffer(max_events)
        self.max_events = max_events
        self.all = []  # (line, moment), in the order of commit
        self.first = self.cleared = 0
        self.now = BEGIN

    @rule(events=st.lists(st.tuples(MEMBERS, STEPS), min_size=1, max_size=25))
    def append(self, events):
        for members, step in events:
            self.now += step
            line = line_of(len(self.all), self.now, **members)
            self.all.append((line, self.now))
            self.buffer.append(line, self.now)
            self.first = max(self.first, len(self.all) - self.max_events)

    @rule()
    def clear(self):
        self.buffer.clear()
        self.cleared += len(self.all) - self.first
        self.first = len(self.all)

    @rule(filters=FILTERS, newest_first=st.booleans())
    def ask(self, filters, newest_first):
        asked = conditions(**filters)
        expected = [event for line, _ in self.all[self.first :] if asked.matches(event := decode(line))]
        found = list(self.buffer.select(asked, newest_first=newest_first))
        assert found == (expected[::-1] if newest_first else expected)

    @invariant()
    def it_knows_what_it_holds(self):
        assert len(self.buffer) == len(self.all) - self.first <= self.max_events
        assert self.buffer.evicted == self.first - self.cleared

    @invariant()
    def it_knows_since_when_it_is_complete(self):
        gone = [moment for _, moment in self.all[: self.first]]
        assert self.buffer.complete_since == (time_of(max(gone) + 1) if gone else None)

    def teardown(self):
        if hasattr(self, "saved"):
            index_module._HASH, index_module._MIN_RUN = self.saved


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)


@settings(max_examples=50, deadline=None)
@given(events=st.lists(MEMBERS, min_size=1, max_size=40), filters=FILTERS)
def test_the_newest_first_are_the_oldest_first_reversed(events, filters):
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
def test_an_event_is_found_once(members, filters):
    """An event that has a value twice, or two of those asked for, is in the answer once."""
    buffer = EventBuffer(10)
    for number in range(3):
        buffer.append(line_of(number, **members), BEGIN)
    assert numbers(buffer, **filters) == [0, 1, 2]


def test_values_that_share_a_hash_are_told_apart(monkeypatch):
    """Events are matched themselves: two values with one hash do not stand for each other, nor double an event."""
    monkeypatch.setattr(index_module, "_HASH", 0)
    buffer = EventBuffer(100)
    for number in range(100):
        buffer.append(line_of(number, user_id=f"user{number % 5}", entry_ids=["x", "y"]), BEGIN)
    assert numbers(buffer, user_id="user3") == list(range(3, 100, 5))
    assert numbers(buffer, entry_ids="x", user_id=["user1", "user2"]) == sorted([*range(1, 100, 5), *range(2, 100, 5)])
    assert numbers(buffer, user_id="STORE") == []


@pytest.mark.parametrize("kind", ["gap", ["gap"], [None, "gap"], None])
def test_kinds_are_asked_for(kind):
    """The library's own events are left out unless their kind is asked for; None means the ordinary ones."""
    buffer = EventBuffer(10)
    for number in range(6):
        buffer.append(line_of(number, **({"kind": "gap"} if number % 3 == 0 else {})), BEGIN)
    wanted = kind if isinstance(kind, list) else [kind]
    assert numbers(buffer, kind=kind) == [n for n in range(6) if ("gap" if n % 3 == 0 else None) in wanted]
    assert numbers(buffer) == [1, 2, 4, 5]


def test_an_event_in_parts_is_one():
    """The lines of an event that goes on in parts are one event, which any of its entry ids finds."""
    buffer = EventBuffer(10)
    first = line_of(1, entry_ids=["a"])
    part = {"event_id": f"evt_{2:032x}", "timestamp": text_of(BEGIN), "part_of": f"evt_{1:032x}"}
    part_line = json.dumps({**part, "operation": "STORE", "kind": "part", "entry_ids": ["b"]}).encode() + b"\n"
    buffer.append(line_of(0), BEGIN)
    buffer.append(first + part_line, BEGIN)
    assert numbers(buffer, entry_ids="b") == [1]
    assert len(buffer) == 2


def test_what_a_caller_does_to_an_event_changes_nothing():
    """An event is decoded for whoever asks."""
    buffer = EventBuffer(10)
    buffer.append(line_of(0, metadata={"a": [1]}), BEGIN)
    next(buffer.select(conditions(), newest_first=True)).metadata["a"].append(2)
    assert next(buffer.select(conditions(), newest_first=True)).metadata == {"a": [1]}


def test_a_query_sees_what_was_there_when_it_began():
    """Events that come, and evict others, while an answer is read do not change it."""
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
    """Eight runs of like size become one: there are O(log n) of them, none larger than an eighth of the buffer."""
    monkeypatch.setattr(index_module, "_MIN_RUN", 16)
    buffer = EventBuffer(2_048)
    for number in range(6_000):
        buffer.append(line_of(number, user_id=f"u{number % 7}"), BEGIN)
        if number % 5 == 0:
            numbers(buffer, session_id="none")
    runs = buffer._index._runs
    assert max(run.stop - run.start for run in runs) <= buffer._index.max_run == 256
    assert len(runs) <= 8 * 8 + 2 * 7  # short of an eighth by less than eightfold; and of 5 and 40 events
    assert numbers(buffer, user_id="u3") == [n for n in range(6_000 - 2_048, 6_000) if n % 7 == 3]


@pytest.mark.parametrize("newest_first", [False, True])
def test_runs_where_the_bits_of_the_position_begin_anew(newest_first):
    """Answers are in order, and complete, where the lower bits of the positions begin anew."""
    buffer = EventBuffer(100)
    buffer._parts = ((), [], 3 * index_module.MAX_RUN - 20)  # as after many events
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


def test_events_evicted_before_anybody_asked_are_not_indexed():
    """The index begins at what is held when somebody asks."""
    buffer = EventBuffer(8)
    numbers(buffer)
    for number in range(1_000):
        buffer.append(line_of(number), BEGIN)
    assert numbers(buffer, operation="STORE") == list(range(992, 1_000))
    assert [run.start for run in buffer._index._runs] == [992]


def test_members_nobody_asks_for_are_not_indexed():
    """A member is indexed from the first question on that has a filter for it; events that were there before are found."""
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


def test_a_question_that_a_signal_handler_ends_spoils_no_other(monkeypatch):
    """Wherever an exception ends a question, the next ones are answered whole."""
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


def test_another_question_while_one_waits_for_the_index():
    """What another thread asks, of newer events, while a question waits for its turn, does not upset it."""
    buffer = EventBuffer(100)

    class Turn:
        """The lock of the index, which another thread has first."""

        came = False

        def __enter__(self):
            if not self.came:
                self.came = True
                append(buffer, range(5, 10))
                assert numbers(buffer, user_id="u1") == [1, 4, 7]

        def __exit__(self, *exc_info):
            pass

    append(buffer, range(5))
    assert numbers(buffer) == list(range(5))
    buffer._index_lock = Turn()
    assert numbers(buffer, operation="STORE") == list(range(10))


def append(buffer, those):
    for number in those:
        buffer.append(line_of(number, user_id=f"u{number % 3}"), BEGIN)


@pytest.mark.parametrize("ask", [lambda buffer: numbers(buffer, operation="STORE"), lambda buffer: buffer.statistics()])
def test_a_signal_handler_that_records_and_asks_in_the_middle_of_a_question(ask):
    """Wherever a signal handler records events and asks in the middle of a question, both are answered."""
    due, interrupted = 0, True
    while interrupted:
        due += 1
        buffer = EventBuffer(64)  # chunks of 8
        append(buffer, range(12))
        numbers(buffer, user_id="u1")
        came = []

        def record_and_ask(buffer=buffer, came=came):
            append(buffer, range(12, 30))
            came.append(numbers(buffer, user_id="u1"))
            buffer.statistics()

        with Interruption(due, record_and_ask, buffer_module, index_module):
            found = ask(buffer)
        interrupted = bool(came)
        if interrupted:
            assert came == [list(range(1, 30, 3))], due
        if isinstance(found, list):
            assert found == list(range(len(found))), due
            assert 12 <= len(found) <= 30, due
        assert numbers(buffer, operation="STORE") == list(range(30 if interrupted else 12)), due
        assert buffer.statistics()["total_events"] == (30 if interrupted else 12), due
    assert due > 20


def test_an_append_that_a_signal_handler_ends_is_done_once_when_repeated():
    """Wherever an exception ends `append`, the same line again makes one event of it, with its own time."""
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
        held = buffer._snapshot()
        assert held.timestamps_us(held.first, held.stop) == [BEGIN + number for number in range(6)], due
    assert due > 40


@pytest.mark.parametrize("moments", [[0, 10, 20, 30], [30, 20, 10, 0], [0, 50, 10, 60], [5, 5, 5, 5]])
def test_complete_since_with_clock_steps(moments):
    """Answers are complete from a microsecond after the latest event that is gone, whatever the clock did."""
    buffer = EventBuffer(2)
    for number, moment in enumerate(moments):
        buffer.append(line_of(number, moment), moment)
        gone = moments[: max(0, number - 1)]
        assert buffer.complete_since == (time_of(max(gone) + 1) if gone else None)


def test_forget_until():
    """What is known to be missing counts as forgotten; the latest such moment counts."""
    buffer = EventBuffer(2)
    buffer.mark_incomplete_until(100)
    buffer.mark_incomplete_until(50)
    assert buffer.complete_since == time_of(101)
    for moment in (10, 200, 300, 400):
        buffer.append(line_of(moment, moment), moment)
    assert buffer.complete_since == time_of(201)


@pytest.fixture
def frequent_switches():
    """Threads take turns as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("frequent_switches")
@pytest.mark.parametrize("max_events", [3, 40, 1_000])
def test_readers_while_a_writer_appends(max_events):
    """Readers see only whole, matching, ordered events, without a gap between them, while a thread appends."""
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
        moment = BEGIN + number
        buffer.append(line_of(number, moment, user_id=f"u{number % 3}"), moment)
    done.set()
    for thread in readers:
        thread.join()
    assert wrong == []
    assert numbers(buffer) == list(range(count - max_events, count))


def test_statistics_asked_for_in_the_middle_of_statistics(monkeypatch):
    """A signal handler that asks for the statistics while they are counted changes neither answer, nor later ones."""
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


def test_cleared_events_are_not_found_by_their_ids():
    """What was cleared is gone for every filter, its id too, also where it lies in the middle of the newest lines."""
    buffer = EventBuffer(100)
    for number in range(5):
        buffer.append(line_of(number), BEGIN + number)
    ids = [event.event_id for event in buffer.select(conditions(), newest_first=False)]
    assert numbers(buffer, event_id=ids) == [0, 1, 2, 3, 4]
    buffer.clear()
    buffer.append(line_of(5), BEGIN + 5)
    assert numbers(buffer, event_id=ids) == []
