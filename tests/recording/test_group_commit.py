"""The commit: order, one write for many, and an account of every event whatever the target does."""

import asyncio
import errno
import json
import os
import threading
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from structlog_audit._failures import DeliveryError, describe_failure
from structlog_audit.events.codec import decode, encode_payload
from structlog_audit.events.event_id import Stamp
from structlog_audit.events.payload import Payload
from structlog_audit.exceptions import AuditWriteError
from structlog_audit.recording import followers as followers_module
from structlog_audit.recording import group_commit as commit_module
from structlog_audit.recording.group_commit import GroupCommit
from structlog_audit.recording.queue_entry import LOST, PENDING, RAISED, RECORDED, WAITING, InternalEntry, QueueEntry


class Target:
    """A target that takes everything, or, while `room` is a number, only so many entries more."""

    def __init__(self):
        self.lines = []
        self.writes = []
        self.room = None
        self.during = None  # called once, in the middle of a write

    def deliver(self, entries):
        during, self.during = self.during, None
        if during is not None:
            during()
        done = len(entries) if self.room is None else min(len(entries), self.room)
        self.lines += [entry.line for entry in entries[:done]]
        self.writes.append(done)
        if self.room is not None:
            self.room -= done
        if done < len(entries):
            error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise DeliveryError(done) from error


class Rig:
    """A commit in front of a `Target`, with a clock and a timer that the test drives."""

    def __init__(self, on_error="retry", max_pending=10_000):
        self.target = Target()
        self.accepted_lines = []
        self.told = []
        self.timers = []
        self.now = 1_700_000_000_000_000_000
        self.commit = GroupCommit(
            lambda entries: self.target.deliver(entries),
            lambda line, moment: self.accepted_lines.append(line),
            self.told.append,
            stamp=Stamp(self.clock, lambda bits: 1),
            on_error=on_error,
            max_pending=max_pending,
            call_later=lambda seconds, function: self.timers.append(function),
        )
        self.submitted = []
        self.commit.submit = self.count

    def count(self, entry):
        self.submitted.append(entry)
        GroupCommit.submit(self.commit, entry)

    def clock(self):
        self.now += 1_000
        return self.now

    def submit(self, name="STORE"):
        entry = new_entry(name)
        try:
            self.commit.submit(entry)
        except AuditWriteError:
            assert entry.state == RAISED
        return entry

    def fire(self):
        timers, self.timers[:] = list(self.timers), []
        for timer in timers:
            timer()

    def trail(self):
        """What is in the trail: the operations, and of a gap the number that it tells."""
        events = [decode(line) for line in self.target.lines]
        return [event.metadata["lost"] if event.kind == "gap" else event.operation for event in events]


def new_entry(name="STORE"):
    return QueueEntry(encode_payload(Payload(name), 32_000), 20, "audit")


def retrying(deliver, accept):
    """A commit whose target and buffer are these functions."""
    told = {"tell": lambda error: None, "call_later": lambda seconds, function: None}
    return GroupCommit(deliver, accept, stamp=Stamp(), on_error="retry", max_pending=10, **told)


def raising(error):
    """A signal handler that raises *error*."""

    def on_signal():
        raise error

    return on_signal


def balanced(rig):
    """Whether every event that was submitted is counted once."""
    return rig.commit.counters()["accepted"] == sum(entry.counts for entry in rig.submitted)


def ids(lines):
    return [json.loads(line)["event_id"] for line in lines]


class Account(RuleBasedStateMachine):
    """Whatever the target does and whenever: every event is accounted for, once, in its place."""

    @initialize(
        on_error=st.sampled_from(["retry", "raise"]),
        max_pending=st.sampled_from([0, 1, 3, 50]),
        at_once=st.sampled_from([1, 2, 2_000]),
    )
    def begin(self, on_error, max_pending, at_once):
        commit_module.MAX_AT_ONCE = at_once
        self.rig = Rig(on_error, max_pending)
        self.max_pending = max_pending
        self.entries = []

    @rule(count=st.integers(1, 6))
    def submit(self, count):
        self.entries += [self.rig.submit(f"op{len(self.entries) + number}") for number in range(count)]

    @rule(count=st.integers(1, 4))
    def submit_from_within_the_target(self, count):
        inner = [new_entry(f"op{len(self.entries) + 1 + number}") for number in range(count)]
        taken = []

        def during():
            for entry in inner:
                self.rig.commit.submit(entry)
                taken.append(entry)

        self.rig.target.during = during
        self.entries.append(self.rig.submit(f"op{len(self.entries)}"))
        self.entries += taken
        assert taken == inner
        self.rig.commit.drain()

    @rule(room=st.integers(0, 4))
    def fail_after(self, room):
        self.rig.target.room = room

    @rule()
    def recover(self):
        self.rig.target.room = None

    @rule()
    def drain(self):
        left = self.rig.commit.drain()
        assert left == self.rig.commit.pending
        assert left == 0 or self.rig.target.room is not None

    @rule()
    def fire(self):
        self.rig.fire()

    @invariant()
    def every_event_is_counted_once(self):
        commit = self.rig.commit
        assert balanced(self.rig)
        states = [entry.state for entry in self.entries]
        assert WAITING not in states
        assert commit.counters() == {
            "accepted": len(states),
            "recorded": states.count(RECORDED),
            "pending": states.count(PENDING),
            "raised": states.count(RAISED),
            "lost": states.count(LOST),
        }
        assert commit.pending <= self.max_pending

    @invariant()
    def recorded_and_pending_are_in_the_buffer(self):
        held = [decode(line).operation for line in self.rig.accepted_lines]
        kept = [decode(entry.line).operation for entry in self.entries if entry.state in (RECORDED, PENDING)]
        assert [operation for operation in held if operation != "gap"] == kept

    @invariant()
    def a_timer_runs_while_something_is_pending(self):
        assert len(self.rig.timers) <= 1
        assert self.rig.timers or not self.rig.commit.pending

    def teardown(self):
        if not hasattr(self, "rig"):
            return
        self.rig.target.room = None
        left = self.rig.commit.drain()
        commit_module.MAX_AT_ONCE = 2_000
        assert left == 0
        self.every_event_is_counted_once()
        written = ids(self.rig.target.lines)
        assert written == sorted(set(written))
        expected = iter(entry for entry in self.entries if entry.state != RAISED)
        for token in self.rig.trail():
            if isinstance(token, int):  # a gap, which stands for exactly the next so many
                assert [next(expected).state for _ in range(token)] == [LOST] * token
                assert token > 0
            else:
                entry = next(expected)
                assert (entry.state, decode(entry.line).operation) == (RECORDED, token)
        assert next(expected, None) is None


TestAccount = Account.TestCase
TestAccount.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_ids_increase_in_the_order_of_commit_when_the_clock_steps_back():
    """Order is the order of commit, and ids increase, whatever the clock does."""
    rig = Rig()
    for number in range(50):
        rig.now -= 5_000_000 * (number % 3)
        rig.submit(f"op{number}")
    assert rig.trail() == [f"op{number}" for number in range(50)]
    assert ids(rig.target.lines) == sorted(set(ids(rig.target.lines)))


def test_one_write_for_all_that_wait():
    """Whoever leads writes what all the waiting have left at the door in one write of whole lines; they follow."""
    rig = Rig()
    waiting = 20
    entries = [new_entry(f"op{number}") for number in range(waiting)]
    threads = [threading.Thread(target=rig.commit.submit, args=(entry,)) for entry in entries]

    def let_them_come():
        for thread in threads:
            thread.start()
        while len(rig.commit._arrived) < waiting:
            os.sched_yield()

    rig.target.during = let_them_come
    first = rig.submit("first")
    for thread in threads:
        thread.join()
    assert rig.target.writes == [1, waiting]
    assert {entry.state for entry in [first, *entries]} == {RECORDED}
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in rig.target.lines)
    assert sorted(rig.trail()) == sorted(["first", *(f"op{number}" for number in range(waiting))])


def test_each_follower_wakes_the_next(monkeypatch):
    """A leader wakes one follower and each follower another, so all go on, though none ever looks for itself."""
    monkeypatch.setattr(followers_module, "FOLLOW_SECONDS", 3_600)
    rig = Rig()
    entries = [new_entry(f"op{number}") for number in range(8)]
    threads = [threading.Thread(target=rig.commit.submit, args=(entry,), daemon=True) for entry in entries]

    def let_them_follow():
        for thread in threads:
            thread.start()
        while not all(entry.wake for entry in entries):
            os.sched_yield()

    rig.target.during = let_them_follow
    rig.submit("first")
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert {entry.state for entry in entries} == {RECORDED}
    assert not rig.commit._followers._asleep


def test_a_follower_goes_on_where_a_leader_is_done():
    """No caller writes for others once its own event is settled, if one of them can."""
    rig = Rig()
    entries = [new_entry(f"op{number}") for number in range(8)]
    threads = [threading.Thread(target=rig.commit.submit, args=(entry,)) for entry in entries]
    wrote = []

    def let_them_follow():
        for thread in threads:
            thread.start()
        while not all(entry.wake for entry in entries):
            os.sched_yield()

    deliver = rig.target.deliver
    rig.target.deliver = lambda batch: (wrote.append(threading.get_ident()), deliver(batch))
    rig.target.during = let_them_follow
    rig.submit("first")
    for thread in threads:
        thread.join()
    assert rig.target.writes == [1, 8]
    assert wrote[0] == threading.get_ident() != wrote[1]


def test_who_waits_elsewhere_is_woken_though_holding_was_interrupted():
    """An exception between two entries that become pending leaves nobody waiting once they are recorded."""
    accepted, woken, fails = [], [], [True]

    def accept(line, moment):
        accepted.append(line)
        if len(accepted) == 2:
            raise KeyboardInterrupt

    def deliver(entries):
        if fails[0]:
            raise DeliveryError(0) from OSError(errno.EIO, os.strerror(errno.EIO))

    commit = retrying(deliver, accept)
    first = new_entry("ONE")
    first.wake = lambda: woken.append(first.state)
    commit.arrive(first)
    with pytest.raises(KeyboardInterrupt):
        commit.submit(new_entry("TWO"))
    fails[0] = False
    assert commit.drain() == 0
    assert woken[-1] == RECORDED
    assert commit.counters() == {"accepted": 2, "recorded": 2, "pending": 0, "raised": 0, "lost": 0}


@pytest.mark.parametrize("max_pending", [0, 1, 10])
def test_a_working_target_loses_nothing_however_many_wait(monkeypatch, max_pending):
    """More waiting entries than one write takes, and than may be pending, are all recorded while the target works."""
    monkeypatch.setattr(commit_module, "MAX_AT_ONCE", 4)
    rig = Rig(max_pending=max_pending)
    inner = [new_entry(f"op{number}") for number in range(30)]
    rig.target.during = lambda: [rig.commit.submit(entry) for entry in inner]
    rig.submit("first")
    rig.commit.drain()
    assert rig.trail() == ["first", *(f"op{number}" for number in range(30))]
    assert rig.commit.counters() == {"accepted": 31, "recorded": 31, "pending": 0, "raised": 0, "lost": 0}


def test_pending_events_precede_later_ones():
    """When the target recovers, the next event writes the pending ones first, in one write."""
    rig = Rig()
    rig.target.room = 0
    pending = [rig.submit(f"op{number}") for number in range(3)]
    assert [entry.state for entry in pending] == [PENDING] * 3
    assert [decode(line).operation for line in rig.accepted_lines] == ["op0", "op1", "op2"]
    rig.target.room = None
    rig.submit("later")
    assert rig.trail() == ["op0", "op1", "op2", "later"]
    assert rig.target.writes == [0, 0, 0, 4]
    assert {entry.state for entry in pending} == {RECORDED}


@pytest.mark.parametrize(
    ("max_pending", "trail"), [(0, [5, "later"]), (2, ["op0", "op1", 3, "later"]), (9, [f"op{n}" for n in range(5)])]
)
def test_a_gap_stands_where_the_lost_would_have_stood(max_pending, trail):
    """Beyond max_pending the newest is lost, and a gap in its place tells how many were."""
    rig = Rig(max_pending=max_pending)
    rig.target.room = 0
    states = [rig.submit(f"op{number}").state for number in range(5)]
    assert states == [PENDING] * min(5, max_pending) + [LOST] * max(0, 5 - max_pending)
    rig.target.room = None
    rig.submit("later")
    assert rig.trail() == (trail if "later" in trail else [*trail, "later"])
    assert balanced(rig)


def test_two_outages_leave_two_gaps():
    """A gap that is written is closed; what is lost later is told by another one."""
    rig = Rig(max_pending=0)
    for number in range(2):
        rig.target.room = 0
        for _ in range(number + 1):
            rig.submit("gone")
        rig.target.room = None
        rig.submit(f"op{number}")
    assert rig.trail() == [1, "op0", 2, "op1"]


def test_the_line_of_a_gap():
    """A gap is a failed event of kind gap, with an id and a time of its own, that says how many were lost and why."""
    rig = Rig(max_pending=0)
    rig.target.room = 0
    rig.submit()
    rig.target.room = None
    rig.commit.drain()
    gap = decode(rig.target.lines[0])
    assert (gap.operation, gap.kind, gap.status) == ("gap", "gap", "FAILURE")
    assert gap.metadata == {"lost": 1, "reason": "the target failed and max_pending was reached"}
    assert rig.accepted_lines == rig.target.lines
    assert rig.commit.counters() == {"accepted": 1, "recorded": 0, "pending": 0, "raised": 0, "lost": 1}


def test_raise_reaches_exactly_the_callers_whose_events_were_not_written():
    """With "raise", of callers that share a write those whose lines are whole go on, and the others get the error."""
    rig = Rig("raise")
    outcomes = {}

    def call(name):
        try:
            rig.commit.submit(new_entry(name))
            outcomes[name] = None
        except AuditWriteError as error:
            outcomes[name] = error

    threads = [threading.Thread(target=call, args=(f"op{number}",)) for number in range(6)]

    def let_them_come():
        for number, thread in enumerate(threads):
            thread.start()
            while len(rig.commit._arrived) <= number:
                os.sched_yield()
        rig.target.room = 1 + 2  # this write, and two of the next

    rig.target.during = let_them_come
    call("first")
    for thread in threads:
        thread.join()
    assert [name for name, error in sorted(outcomes.items()) if error is None] == ["first", "op0", "op1"]
    for name in ("op2", "op3", "op4", "op5"):
        assert isinstance(outcomes[name].__cause__, OSError)
        assert str(outcomes[name]) == "the event was not recorded: OSError: [Errno 28] No space left on device"
    assert rig.trail() == ["first", "op0", "op1"]
    assert rig.accepted_lines == rig.target.lines
    assert rig.commit.counters() == {"accepted": 7, "recorded": 3, "pending": 0, "raised": 4, "lost": 0}
    assert not rig.timers


@pytest.mark.parametrize("room", [0, 1, 2])
def test_partial_delivery_is_not_repeated(room):
    """What a failing target says is whole in the trail is recorded, and not written again."""
    rig = Rig()
    rig.target.room = 0
    rig.submit("op0")
    rig.target.room = room
    states = [rig.submit("op1").state, rig.submit("op2").state]
    assert rig.trail() == ["op0", "op1", "op2"][:room]
    assert states == [RECORDED if room == 2 else PENDING, PENDING]
    assert rig.commit.recorded == room
    rig.target.room = None
    assert rig.commit.drain() == 0
    assert rig.trail() == ["op0", "op1", "op2"]


def test_what_the_leading_thread_submits_is_written_before_it_goes():
    """An event that comes from within the target is left at the door, and written by the same leader afterwards."""
    rig = Rig()
    inner = new_entry("inner")
    seen = []

    def during():
        rig.commit.submit(inner)
        seen.append(inner.state)
        assert rig.commit.drain() == 0

    rig.target.during = during
    rig.submit("outer")
    assert seen == [WAITING]
    assert inner.state == RECORDED
    assert rig.trail() == ["outer", "inner"]


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_an_interrupt_before_the_write_loses_nothing(on_error):
    """An exception that interrupts a leader passes through; its entry is written by the next leader, first."""
    rig = Rig(on_error)
    rig.target.during = raising(KeyboardInterrupt())
    first = new_entry("first")
    with pytest.raises(KeyboardInterrupt):
        rig.commit.submit(first)
    assert first.state == WAITING
    rig.submit("second")
    assert first.state == RECORDED
    assert rig.trail() == ["first", "second"]
    assert balanced(rig)


def test_an_interrupt_after_the_write_repeats_the_line_with_its_id():
    """At worst an interrupt leads to the same line twice, with one id."""
    rig = Rig()
    deliver = rig.target.deliver

    def write_and_be_interrupted(entries):
        rig.target.deliver = deliver
        deliver(entries)
        raise KeyboardInterrupt

    rig.target.deliver = write_and_be_interrupted
    with pytest.raises(KeyboardInterrupt):
        rig.submit("first")
    assert rig.commit.drain() == 0
    assert rig.trail() == ["first", "first"]
    assert len(set(rig.target.lines)) == 1
    assert rig.commit.recorded == 1
    assert rig.accepted_lines == rig.target.lines[:1]


class InterruptedOnce(deque):
    """A door that a signal comes in between of, the first time that an entry is taken from it."""

    came = False

    def popleft(self):
        if not self.came:
            self.came = True
            raise KeyboardInterrupt
        return super().popleft()


def test_an_interrupt_between_door_and_queue_writes_the_event_once():
    """An entry that has its line but was not taken from the door yet keeps its id and is queued once."""
    rig = Rig()
    rig.commit._arrived = InterruptedOnce()
    entry = QueueEntry(encode_payload(Payload("first"), 32_000), 20, "audit")
    rig.commit.arrive(entry)
    with pytest.raises(KeyboardInterrupt):
        rig.commit.drain()
    line = entry.line
    rig.submit("second")
    assert (entry.state, entry.line) == (RECORDED, line)
    assert rig.trail() == ["first", "second"]
    assert rig.commit.counters()["accepted"] == 2


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_a_failure_is_told_once_per_outage(on_error):
    """The first failure of an outage is told, with the system's error, and then its end; nothing else is."""
    rig = Rig(on_error)
    for outage in (1, 2):
        rig.target.room = 0
        for _ in range(3):
            rig.submit()
        rig.commit.drain()
        assert [error and error.errno for error in rig.told] == [errno.ENOSPC, None] * (outage - 1) + [errno.ENOSPC]
        rig.target.room = None
        rig.submit()
        assert rig.told[-1] is None


def test_a_failure_is_told_while_the_lock_is_free():
    """Whoever is told of a failure can use the commit: the lock is free by then."""
    rig = Rig()
    found = []
    rig.told = None
    rig.commit._tell = lambda error: found.append(_of_another_thread(rig.commit.counters))
    rig.target.room = 0
    rig.submit()
    assert found == [{"accepted": 1, "recorded": 0, "pending": 1, "raised": 0, "lost": 0}]


def _of_another_thread(function):
    results = []
    thread = threading.Thread(target=lambda: results.append(function()), daemon=True)
    thread.start()
    thread.join(30)
    return results[0] if results else "blocked"


def test_a_long_backlog_is_written_in_several_writes(monkeypatch):
    """A caller writes MAX_AT_ONCE entries at most; the rest of a backlog, its own event behind it, is the timer's."""
    monkeypatch.setattr(commit_module, "MAX_AT_ONCE", 10)
    rig = Rig(max_pending=100)
    rig.target.room = 0
    for number in range(34):
        rig.submit(f"op{number}")
    rig.target.room = None
    rig.target.writes.clear()
    last = rig.submit("last")
    assert last.state == PENDING
    assert rig.target.writes == [10]
    rig.fire()
    assert rig.target.writes == [10, 10, 10, 5]
    assert last.state == RECORDED
    assert rig.trail() == [*(f"op{number}" for number in range(34)), "last"]
    rig.fire()
    assert rig.target.writes == [10, 10, 10, 5]
    assert not rig.timers
    assert len(rig.accepted_lines) == 35


def test_the_timer_tries_until_the_target_recovers():
    """While events are pending there is one timer; it is set again by each attempt that fails."""
    rig = Rig()
    rig.target.room = 0
    rig.submit("op0")
    rig.submit("op1")
    assert len(rig.timers) == 1
    rig.fire()
    assert len(rig.timers) == 1
    rig.target.room = None
    rig.fire()
    assert rig.trail() == ["op0", "op1"]
    assert not rig.timers
    rig.fire()
    assert rig.target.writes == [0, 0, 0, 2]


def test_a_drain_stops_at_a_failure():
    """A drain that fails says how many are pending, after one attempt."""
    rig = Rig()
    rig.target.room = 0
    rig.submit()
    rig.submit()
    rig.target.writes.clear()
    assert rig.commit.drain() == 2
    assert rig.target.writes == [0]


def _many_at_once(rig, submit_all):
    threads = [threading.Thread(target=submit_all, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("failing", [False, True])
def test_eight_threads(failing):
    """From 8 threads every event is recorded once, each thread's in its order, ids increasing along the trail."""
    rig = Rig(max_pending=100_000)
    per_thread = 500

    def submit_all(thread):
        for number in range(per_thread):
            rig.submit(f"{thread}:{number}")

    threads = _many_at_once(rig, submit_all)
    if failing:
        for _ in range(20):
            rig.target.room = 3
            rig.commit.drain()
            rig.target.room = None
    for thread in threads:
        thread.join()
    assert rig.commit.drain() == 0
    trail = rig.trail()
    assert len(trail) == 8 * per_thread
    for thread in range(8):
        own = [name for name in trail if name.startswith(f"{thread}:")]
        assert own == [f"{thread}:{number}" for number in range(per_thread)]
    written = ids(rig.target.lines)
    assert written == sorted(set(written))
    assert [decode(line).operation for line in rig.accepted_lines] == trail
    assert balanced(rig)


def test_eight_threads_with_a_target_that_fails_for_some():
    """With "raise", from 8 threads, every caller knows the truth: it got an error, or its event is in the trail."""
    rig = Rig("raise")
    entries = []

    def submit_all(thread):
        for number in range(300):
            if number % 50 == 0:
                rig.target.room = 20
            if number % 50 == 40:
                rig.target.room = None
            entries.append(rig.submit(f"{thread}:{number}"))

    for thread in _many_at_once(rig, submit_all):
        thread.join()
    recorded = sorted(decode(entry.line).operation for entry in entries if entry.state == RECORDED)
    assert sorted(rig.trail()) == recorded
    assert {entry.state for entry in entries} <= {RECORDED, RAISED}
    assert rig.commit.counters()["accepted"] == 8 * 300
    assert balanced(rig)


def test_many_asyncio_tasks():
    """Events of many tasks, on the loop and from its threads, are each recorded once."""
    rig = Rig()

    async def task(number):
        rig.submit(f"loop{number}")
        await asyncio.to_thread(rig.submit, f"thread{number}")

    async def main():
        await asyncio.gather(*(task(number) for number in range(300)))

    asyncio.run(main())
    assert sorted(rig.trail()) == sorted(f"{place}{number}" for place in ("loop", "thread") for number in range(300))
    assert ids(rig.target.lines) == sorted(set(ids(rig.target.lines)))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(errno.EIO, "Input/output error", "/secret/path"), "OSError: [Errno 5] Input/output error"),
        (PermissionError(errno.EACCES, "Permission denied"), "PermissionError: [Errno 13] Permission denied"),
        (OSError("user bob"), "OSError"),
        (ValueError("user bob"), "ValueError"),
        (None, "NoneType"),
    ],
)
def test_an_error_is_described_without_content(error, text):
    """A description tells what the system says or the type, and nothing that an event may hold."""
    assert describe_failure(error) == text


def test_undelivered_says_how_many():
    """The message of an `DeliveryError` names the number of entries that are whole."""
    assert (str(DeliveryError(3)), DeliveryError(3).done) == ("the target failed after 3 entries", 3)


def test_an_interrupt_while_acknowledging_counts_nothing_twice():
    """A leader interrupted between writing and acknowledging writes the line once more, with its id; it counts once."""
    delivered, interrupts = [], [KeyboardInterrupt()]

    def accept(line, moment):
        if interrupts:
            raise interrupts.pop()

    commit = retrying(lambda entries: delivered.extend(entry.line for entry in entries), accept)
    with pytest.raises(KeyboardInterrupt):
        commit.submit(new_entry("ONE"))
    commit.submit(new_entry("TWO"))
    assert [delivered.count(line) for line in dict.fromkeys(delivered)] == [2, 1]
    assert commit.counters() == {"accepted": 2, "recorded": 2, "pending": 0, "raised": 0, "lost": 0}


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_a_flapping_target_ends_no_call_in_recursion(on_error):
    """With a target that fails every other time, each call comes back, and tells of a bounded number of outages."""
    rig = Rig(on_error)
    deliver, turns = rig.commit._deliver, []

    def every_other(entries):
        turns.append(None)
        if len(turns) % 2 == 0:
            raise DeliveryError(0) from OSError(errno.EIO, os.strerror(errno.EIO))
        deliver(entries)

    rig.commit._deliver = every_other
    rig.commit._tell = lambda error: rig.commit.submit(
        InternalEntry(encode_payload(Payload("act"), 32_000), 50, "acts")
    )
    for number in range(5):
        before = len(turns)
        try:
            rig.submit(f"op{number}")
        except AuditWriteError:
            pass
        assert len(turns) - before <= 6


def test_an_own_event_without_room_leaves_no_gap():
    """What does not count leaves no gap when it is lost: there is nothing to count in it."""
    rig = Rig(max_pending=1)
    rig.target.room = 0
    rig.submit("first")
    rig.commit.submit(InternalEntry(encode_payload(Payload("act"), 32_000), 50, "acts"))
    rig.target.room = None
    rig.commit.drain()
    assert rig.trail() == ["first"]
    assert all(rig.accepted_lines)


def test_without_a_thread_the_caller_writes_itself():
    """Where no thread can be started, an event for later is written at once, and the next one too."""
    rig = Rig()

    def no_thread(seconds, function):
        raise RuntimeError("can't start new thread")

    rig.commit._call_later = no_thread
    woken = []
    for name in ("first", "second"):
        entry = new_entry(name)
        entry.wake = lambda: woken.append(None)
        rig.commit.submit_later(entry)
    assert rig.trail() == ["first", "second"]
    assert len(woken) == 2


def test_what_is_not_the_targets_own_failure_goes_to_the_caller():
    """An exception that a signal handler raises in the middle of a write is no outage: it reaches the caller as it is."""
    rig = Rig()
    rig.target.during = raising(TimeoutError("a time limit"))
    with pytest.raises(TimeoutError, match="a time limit"):
        rig.submit("first")
    assert rig.told == []
    rig.submit("second")
    assert rig.trail() == ["first", "second"]


def test_an_event_from_within_a_failing_write_is_settled_too():
    """With "raise", an event that a signal handler left at the door of a failing leader does not stay there."""
    rig = Rig("raise")
    inner = new_entry("inner")
    rig.target.during = lambda: rig.commit.submit(inner)
    rig.target.room = 0
    outer = rig.submit("outer")
    assert (outer.state, inner.state) == (RAISED, RAISED)
    assert balanced(rig)


class InterruptedLock:
    """The lock of a rig's commit, with a signal that comes once: while it is "awaited", or right behind "taken" or "given"."""

    def __init__(self, rig, when, on_signal):
        self.lock, self.when, self.on_signal, rig.commit._lock = rig.commit._lock, when, on_signal, self
        if when != "given":
            self.release = self.lock.release

    def signal(self, now):
        if now == self.when:
            self.when = None
            self.on_signal()

    def acquire(self):
        self.signal("awaited")
        self.lock.acquire()
        self.signal("taken")

    def release(self):
        self.lock.release()
        self.signal("given")

    def __enter__(self):
        self.lock.acquire()

    def __exit__(self, *exc_info):
        self.lock.release()


def in_another_thread(function, *arguments):
    """What *function* gives in another thread; None if that still waits after ten seconds."""
    given = []
    thread = threading.Thread(target=lambda: given.append(function(*arguments)), daemon=True)
    thread.start()
    thread.join(10)
    return given[0] if given else None


@pytest.mark.parametrize("room", [None, 0], ids=["a target that works", "a target that fails"])
def test_a_signal_handler_may_take_along_the_entry_of_the_call_that_it_interrupts(room):
    """Between the lock and the lead, a signal handler leads itself: no event is written twice, and no call fails."""
    rig = Rig()
    InterruptedLock(rig, "taken", lambda: rig.submit("SIGNAL"))
    rig.target.room = room
    entry = rig.submit("STORE")
    assert entry.state == (RECORDED if room is None else PENDING)
    assert balanced(rig)
    rig.target.room = None
    rig.commit.drain()
    assert rig.trail() == ["STORE", "SIGNAL"]
    assert (rig.commit.recorded, balanced(rig)) == (2, True)


@pytest.mark.parametrize("error", [TimeoutError, RuntimeError])
@pytest.mark.parametrize("when", ["awaited", "taken", "given"])
def test_an_exception_at_the_lock_passes_through_and_loses_nothing(when, error):
    """Wherever a signal handler raises at the lock, the caller gets that, any other thread can lead, and writes both."""
    rig = Rig()
    InterruptedLock(rig, when, raising(error("a time limit")))
    with pytest.raises(error, match="a time limit"):
        rig.submit("first")
    assert in_another_thread(rig.submit, "second").state == RECORDED
    assert rig.trail() == ["first", "second"]
    assert (rig.commit.recorded, balanced(rig)) == (2, True)


def test_a_second_exception_at_the_lock_passes_through_too():
    """A signal handler may raise anything behind giving back the lock, also where another exception is on its way."""
    rig = Rig()
    rig.target.during = raising(TimeoutError("a time limit"))
    InterruptedLock(rig, "given", raising(RuntimeError("no memory")))
    with pytest.raises(RuntimeError, match="no memory") as raised:
        rig.submit("first")
    assert isinstance(raised.value.__context__, TimeoutError)
    assert in_another_thread(rig.submit, "second").state == RECORDED


@pytest.mark.parametrize("when", ["taken", "given", None])
def test_a_lock_that_the_thread_has_stays_with_it(when):
    """What a signal handler submits while its thread has the lock, interrupted or not, leaves the lock with the thread."""
    rig = Rig()
    own = rig.commit._lock
    InterruptedLock(rig, when, raising(TimeoutError("a time limit")))
    with own:
        try:
            rig.submit("first")
        except TimeoutError:
            assert when is not None
        assert in_another_thread(own.acquire, False) is False
    assert in_another_thread(own.acquire, False) is True


def test_a_stamp_that_is_interrupted_loses_nothing():
    """An exception that a signal handler raises while an event gets its line: the next leader writes it."""
    rig = Rig()
    line, rig.commit._stamp.line = rig.commit._stamp.line, None
    with pytest.raises(TypeError):
        rig.submit("first")
    rig.commit._stamp.line = line
    rig.submit("second")
    assert rig.trail() == ["first", "second"]
