"""`GroupCommit`: the order of events, one write for many callers, and an account of every event."""

import asyncio
import os
import threading

import pytest
from commit_rig import Rig, assert_no_gaps, follow_during_write, ids, new_entry, threads_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from structlog_audit.events.codec import decode
from structlog_audit.recording import followers as followers_module
from structlog_audit.recording import group_commit as commit_module
from structlog_audit.recording.queue_entry import LOST, PENDING, RAISED, RECORDED, WAITING


class Account(RuleBasedStateMachine):
    """Whenever the target fails or recovers, every event is accounted for, once and in its place."""

    @initialize(
        on_error=st.sampled_from(["retry", "raise"]),
        max_pending=st.sampled_from([0, 1, 3, 50]),
        batch_size=st.sampled_from([1, 2, 2_000]),
        may_be_refusal=st.booleans(),
    )
    def begin(self, on_error, max_pending, batch_size, may_be_refusal):
        commit_module.MAX_BATCH_SIZE = batch_size
        self.rig = Rig(on_error, max_pending)
        self.rig.target.may_be_refusal = may_be_refusal
        self.max_pending = max_pending
        self.entries = []

    @rule(count=st.integers(1, 6))
    def submit(self, count):
        self.entries += [self.rig.submit(f"op{len(self.entries) + number}") for number in range(count)]

    @rule(count=st.integers(1, 4))
    def submit_from_within_the_target(self, count):
        inner = [new_entry(f"op{len(self.entries) + 1 + number}") for number in range(count)]
        submitted = []

        def during():
            for entry in inner:
                self.rig.commit.submit(entry)
                submitted.append(entry)

        self.rig.target.during = during
        self.entries.append(self.rig.submit(f"op{len(self.entries)}"))
        self.entries += submitted
        assert submitted == inner
        self.rig.commit.drain()

    @rule(room=st.integers(0, 4))
    def fail_after(self, room):
        self.rig.target.room = room

    @rule()
    def recover(self):
        self.rig.target.room = None

    @rule()
    def drain(self):
        pending = self.rig.commit.drain()
        assert pending == self.rig.counter("pending")
        assert pending == 0 or self.rig.target.room is not None

    @rule()
    def fire(self):
        self.rig.fire()

    @invariant()
    def every_event_is_counted_once(self):
        assert self.rig.is_balanced()
        states = [entry.state for entry in self.entries]
        assert WAITING not in states
        assert self.rig.commit.counters() == {
            "accepted": len(states),
            "recorded": states.count(RECORDED),
            "pending": states.count(PENDING),
            "raised": states.count(RAISED),
            "lost": states.count(LOST),
        }
        assert self.rig.counter("pending") <= self.max_pending

    @invariant()
    def recorded_and_pending_are_in_the_buffer(self):
        held = [decode(line).operation for line in self.rig.accepted_lines]
        kept = [decode(entry.line).operation for entry in self.entries if entry.state in (RECORDED, PENDING)]
        assert [operation for operation in held if operation != "gap"] == kept

    @invariant()
    def a_timer_runs_while_something_is_pending(self):
        assert len(self.rig.timers) <= 1
        assert self.rig.timers or not self.rig.counter("pending")

    def teardown(self):
        if not hasattr(self, "rig"):
            return
        self.rig.target.room = None
        pending = self.rig.commit.drain()
        commit_module.MAX_BATCH_SIZE = 2_000
        assert pending == 0
        self.every_event_is_counted_once()
        written = ids(self.rig.target.lines)
        assert written == sorted(set(written))
        assert_no_gaps(self.rig.target.lines)

        expected = iter(entry for entry in self.entries if entry.state != RAISED)
        for token in self.rig.trail():
            if isinstance(token, int):
                # A gap: it stands for exactly the next so many entries.
                assert [next(expected).state for _ in range(token)] == [LOST] * token
                assert token > 0
            else:
                entry = next(expected)
                assert (entry.state, decode(entry.line).operation) == (RECORDED, token)
        assert next(expected, None) is None


TestAccount = Account.TestCase
TestAccount.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


def test_ids_increase_in_commit_order_when_the_clock_steps_back():
    """Lines are in the order of commit, and their ids increase, even if the clock steps back."""
    rig = Rig()
    for number in range(50):
        rig.now -= 5_000_000 * (number % 3)
        rig.submit(f"op{number}")
    assert rig.trail() == [f"op{number}" for number in range(50)]
    assert ids(rig.target.lines) == sorted(set(ids(rig.target.lines)))


def test_waiting_entries_share_one_write():
    """The leader writes all entries in the inbox in one write of whole lines, and their callers follow."""
    rig = Rig()
    waiting = 20
    entries = [new_entry(f"op{number}") for number in range(waiting)]
    threads = threads_of(rig, entries)

    def start_submitters():
        for thread in threads:
            thread.start()
        while len(rig.commit._inbox) < waiting:
            os.sched_yield()

    rig.target.during = start_submitters
    first = rig.submit("first")
    for thread in threads:
        thread.join()
    assert rig.target.writes == [1, waiting]
    assert {entry.state for entry in [first, *entries]} == {RECORDED}
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in rig.target.lines)
    assert sorted(rig.trail()) == sorted(["first", *(f"op{number}" for number in range(waiting))])


def test_each_follower_wakes_the_next(monkeypatch):
    """The leader wakes one follower and each follower another, so all go on, though none of them polls."""
    monkeypatch.setattr(followers_module, "RECHECK_SECONDS", 3_600)
    rig = Rig()
    entries = [new_entry(f"op{number}") for number in range(8)]
    threads = threads_of(rig, entries, daemon=True)
    follow_during_write(rig, threads, entries)
    rig.submit("first")
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert {entry.state for entry in entries} == {RECORDED}
    assert not rig.commit._followers._to_wake


def test_follower_leads_when_the_leader_is_done():
    """A leader that has completed its event hands over to a follower instead of writing further events."""
    rig = Rig()
    entries = [new_entry(f"op{number}") for number in range(8)]
    threads = threads_of(rig, entries)
    wrote = []
    deliver = rig.target.deliver
    rig.target.deliver = lambda batch: (wrote.append(threading.get_ident()), deliver(batch))
    follow_during_write(rig, threads, entries)
    rig.submit("first")
    for thread in threads:
        thread.join()
    assert rig.target.writes == [1, 8]
    assert wrote[0] == threading.get_ident() != wrote[1]


@pytest.mark.parametrize("max_pending", [0, 1, 10])
def test_working_target_loses_no_event_of_a_long_inbox(monkeypatch, max_pending):
    """More entries than one write holds, and than may be pending, are all recorded while the target works."""
    monkeypatch.setattr(commit_module, "MAX_BATCH_SIZE", 4)
    rig = Rig(max_pending=max_pending)
    inner = [new_entry(f"op{number}") for number in range(30)]
    rig.target.during = lambda: [rig.commit.submit(entry) for entry in inner]
    rig.submit("first")
    rig.commit.drain()
    assert rig.trail() == ["first", *(f"op{number}" for number in range(30))]
    assert rig.commit.counters() == {"accepted": 31, "recorded": 31, "pending": 0, "raised": 0, "lost": 0}


@pytest.mark.parametrize("room", [0, 1, 2])
def test_entries_that_a_failing_target_wrote_are_not_written_again(room):
    """Entries that a failing target reports as written are recorded; only the others are retried."""
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


def test_event_submitted_within_the_target_is_written_before_the_return():
    """An event submitted within the target stays in the inbox; the same leader writes it next."""
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


def test_entry_of_a_caller_that_does_not_wait_is_written_by_the_leader():
    """An entry with a function to call, as of an event loop, has no thread that could lead: the leader writes it."""
    rig = Rig()
    woken = []
    entry = new_entry("later")
    entry.wake = lambda: woken.append(entry.state)
    rig.target.during = lambda: rig.commit.enqueue(entry)
    rig.submit("first")
    assert rig.trail() == ["first", "later"]
    assert woken == [RECORDED]


def test_event_submitted_within_a_failing_write_is_completed():
    """With "raise", an event in the inbox of a leader that fails does not stay there."""
    rig = Rig("raise")
    inner = new_entry("inner")
    rig.target.during = lambda: rig.commit.submit(inner)
    rig.target.room = 0
    outer = rig.submit("outer")
    assert (outer.state, inner.state) == (RAISED, RAISED)
    assert rig.is_balanced()


def test_caller_writes_one_batch_of_a_long_backlog(monkeypatch):
    """A caller writes `MAX_BATCH_SIZE` entries at most; the timer writes the rest, with the caller's event last."""
    monkeypatch.setattr(commit_module, "MAX_BATCH_SIZE", 10)
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


def test_submit_later_writes_inline_if_no_thread_can_be_started():
    """If no thread can be started, each event for the background is written at once."""
    rig = Rig()

    def refuse_thread(seconds, function):
        raise RuntimeError("can't start new thread")

    rig.commit._call_later = refuse_thread
    woken = []
    for name in ("first", "second"):
        entry = new_entry(name)
        entry.wake = lambda: woken.append(None)
        rig.commit.submit_later(entry)
    assert rig.trail() == ["first", "second"]
    assert len(woken) == 2


class OutageCallbackError(Exception):
    """Raised by a callback that the application passed."""


@pytest.mark.parametrize("arrives", ["during the exception", "afterwards"])
def test_next_event_gets_another_thread_if_an_exception_ends_the_one_in_the_background(arrives):
    """An exception of an outage callback ends the background thread; another one writes the events of the event loop."""
    rig = Rig()
    threads = []
    rig.commit._call_later = lambda seconds, function: threads.append(function)
    next_entry = new_entry("next")

    def fail(error):
        rig.target.room = None
        if arrives == "during the exception":
            rig.commit.submit_later(next_entry)
        raise OutageCallbackError

    rig.commit._outage._report = fail
    rig.target.room = 0
    rig.commit.submit_later(new_entry("first"))
    with pytest.raises(OutageCallbackError):
        threads.pop()()

    rig.commit._outage._report = rig.reported.append
    if arrives == "afterwards":
        assert threads == []
        rig.commit.submit_later(next_entry)
    (thread,) = threads
    thread()
    rig.fire()
    assert rig.trail() == ["first", "next"]
    assert next_entry.state == RECORDED


def start_eight(submit_all):
    threads = [threading.Thread(target=submit_all, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("failing", [False, True])
def test_eight_threads_record_each_event_once_and_in_order(failing):
    """From 8 threads every event is recorded once, in the order of its thread, with increasing ids."""
    rig = Rig(max_pending=100_000)
    per_thread = 500

    def submit_all(thread):
        for number in range(per_thread):
            rig.submit(f"{thread}:{number}")

    threads = start_eight(submit_all)
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
        from_thread = [name for name in trail if name.startswith(f"{thread}:")]
        assert from_thread == [f"{thread}:{number}" for number in range(per_thread)]
    written = ids(rig.target.lines)
    assert written == sorted(set(written))
    assert [decode(line).operation for line in rig.accepted_lines] == trail
    assert rig.is_balanced()


def test_eight_threads_get_an_error_or_a_recorded_event():
    """With "raise", from 8 threads, every caller gets an error or its event is in the trail."""
    rig = Rig("raise")
    entries = []

    def submit_all(thread):
        for number in range(300):
            if number % 50 == 0:
                rig.target.room = 20
            if number % 50 == 40:
                rig.target.room = None
            entries.append(rig.submit(f"{thread}:{number}"))

    for thread in start_eight(submit_all):
        thread.join()
    recorded = sorted(decode(entry.line).operation for entry in entries if entry.state == RECORDED)
    assert sorted(rig.trail()) == recorded
    assert {entry.state for entry in entries} <= {RECORDED, RAISED}
    assert rig.counter("accepted") == 8 * 300
    assert rig.is_balanced()


def test_asyncio_tasks_record_each_event_once():
    """Events of many tasks, on the event loop and in its threads, are each recorded once."""
    rig = Rig()

    async def task(number):
        rig.submit(f"loop{number}")
        await asyncio.to_thread(rig.submit, f"thread{number}")

    async def main():
        await asyncio.gather(*(task(number) for number in range(300)))

    asyncio.run(main())
    assert sorted(rig.trail()) == sorted(f"{place}{number}" for place in ("loop", "thread") for number in range(300))
    assert ids(rig.target.lines) == sorted(set(ids(rig.target.lines)))
