"""`OutagePolicy`: pending, raised and lost events, gaps, the retry timer, and the report of an outage."""

import errno
import os
import threading

import pytest
from commit_rig import Rig, in_another_thread, internal_entry, new_entry, os_error

from structlog_audit._failures import DeliveryError
from structlog_audit.events.codec import decode
from structlog_audit.exceptions import AuditWriteError
from structlog_audit.recording import outage_policy
from structlog_audit.recording.queue_entry import LOST, PENDING, RECORDED


def test_pending_events_precede_later_ones():
    """When the target recovers, the next event writes the pending ones first, in the same write."""
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
    ("max_pending", "trail"),
    [
        (0, [5, "later"]),
        (2, ["op0", "op1", 3, "later"]),
        (9, ["op0", "op1", "op2", "op3", "op4", "later"]),
    ],
)
def test_gap_takes_the_place_of_lost_events(max_pending, trail):
    """Beyond `max_pending` the newest events are lost, and a gap in their place has their number."""
    rig = Rig(max_pending=max_pending)
    rig.target.room = 0
    states = [rig.submit(f"op{number}").state for number in range(5)]
    assert states == [PENDING] * min(5, max_pending) + [LOST] * max(0, 5 - max_pending)
    rig.target.room = None
    rig.submit("later")
    assert rig.trail() == trail
    assert rig.is_balanced()


def test_each_outage_leaves_its_own_gap():
    """A gap that is written counts no further: events lost later are counted by another gap."""
    rig = Rig(max_pending=0)
    for number in range(2):
        rig.target.room = 0
        for _ in range(number + 1):
            rig.submit("gone")
        rig.target.room = None
        rig.submit(f"op{number}")
    assert rig.trail() == [1, "op0", 2, "op1"]


def test_gap_is_a_failed_event_with_count_and_reason():
    """A gap is a FAILURE of kind gap, with the number of lost events and the reason; it is not counted itself."""
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


def test_internal_event_takes_no_room_of_the_application():
    """An event of the library itself is pending besides `max_pending` events of the application."""
    rig = Rig(max_pending=2)
    rig.target.room = 0
    rig.commit.submit(internal_entry())
    states = [rig.submit("first").state]
    rig.commit.submit(internal_entry())
    states += [rig.submit("second").state, rig.submit("third").state]
    assert states == [PENDING, PENDING, LOST]
    rig.target.room = None
    rig.commit.drain()
    assert rig.trail() == ["act", "first", "act", "second", 1]


def test_internal_events_are_bounded():
    """In a long outage the library's own events are bounded, whatever their number."""
    rig = Rig(max_pending=1)
    rig.target.room = 0
    for _ in range(3 * outage_policy.INTERNAL_ROOM):
        rig.commit.submit(internal_entry())
    assert len(rig.commit._queue) <= 1 + outage_policy.INTERNAL_ROOM
    assert rig.submit("first").state == PENDING


def test_lost_internal_event_leaves_no_gap(monkeypatch):
    """An event of the library itself leaves no gap when it is lost: a gap counts application events."""
    monkeypatch.setattr(outage_policy, "INTERNAL_ROOM", 0)
    rig = Rig(max_pending=1)
    rig.target.room = 0
    rig.submit("first")
    rig.commit.submit(internal_entry())
    rig.target.room = None
    rig.commit.drain()
    assert rig.trail() == ["first"]
    assert all(rig.accepted_lines)


def test_raise_reaches_exactly_the_callers_of_unwritten_events():
    """With "raise", of the callers that share a write, those of unwritten events get the error and no other."""
    rig = Rig("raise")
    outcomes = {}

    def call(name):
        try:
            rig.commit.submit(new_entry(name))
            outcomes[name] = None
        except AuditWriteError as error:
            outcomes[name] = error

    threads = [threading.Thread(target=call, args=(f"op{number}",)) for number in range(6)]

    def start_submitters():
        for number, thread in enumerate(threads):
            thread.start()
            while len(rig.commit._inbox) <= number:
                os.sched_yield()
        # The entry of this write, and two of the next.
        rig.target.room = 1 + 2

    rig.target.during = start_submitters
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


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_outage_is_reported_once_with_its_end(on_error):
    """The first failure of an outage is reported with the error of the system, and then its end; nothing else is."""
    rig = Rig(on_error)
    for outage in (1, 2):
        rig.target.room = 0
        for _ in range(3):
            rig.submit()
        rig.commit.drain()
        reported = [error and error.errno for error in rig.reported]
        assert reported == [errno.ENOSPC, None] * (outage - 1) + [errno.ENOSPC]
        rig.target.room = None
        rig.submit()
        assert rig.reported[-1] is None


def test_outage_is_reported_while_the_lock_is_free():
    """The callback of an outage can use the commit, since the lock is free by then."""
    rig = Rig()
    found = []
    rig.commit._outage._report = lambda error: found.append(in_another_thread(rig.commit.counters))
    rig.target.room = 0
    rig.submit()
    assert found == [{"accepted": 1, "recorded": 0, "pending": 1, "raised": 0, "lost": 0}]


def test_outage_in_a_nested_submit_is_reported_once_the_lock_is_free():
    """If the target submits an event itself, and both fail, the outage is reported by the outer call."""
    rig = Rig()
    found = []
    rig.commit._outage._report = lambda error: found.append(in_another_thread(rig.commit.counters))
    rig.target.room = 0
    with rig.commit._lock:
        rig.submit("inner")
        assert found == []
    rig.commit.drain()
    assert found == [{"accepted": 1, "recorded": 0, "pending": 1, "raised": 0, "lost": 0}]


def test_gap_without_a_loss_is_not_written():
    """A gap whose loss was interrupted counts no event, and leaves the queue."""
    rig = Rig(max_pending=0)
    rig.commit._queue.append(outage_policy._new_gap(rig.commit._stamp, new_entry()))
    rig.commit._stamp.renew()
    rig.submit("op")
    assert rig.trail() == ["op"]
    assert not rig.commit._queue


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_flapping_target_does_not_cause_recursion(on_error):
    """With a target that fails every other time, each call returns and reports a bounded number of outages."""
    rig = Rig(on_error)
    deliver, attempts = rig.commit._deliver, []

    def every_other(entries):
        attempts.append(None)
        if len(attempts) % 2 == 0:
            raise DeliveryError(0) from os_error(errno.EIO)
        deliver(entries)

    rig.commit._deliver = every_other
    rig.commit._outage._report = lambda error: rig.commit.submit(internal_entry())
    for number in range(5):
        before = len(attempts)
        rig.submit(f"op{number}")
        assert len(attempts) - before <= 6


def test_timer_retries_until_the_target_recovers():
    """While events are pending one timer runs; each attempt that fails starts it again."""
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


def test_drain_stops_at_a_failure():
    """A drain that fails returns the number of pending events, after one attempt."""
    rig = Rig()
    rig.target.room = 0
    rig.submit()
    rig.submit()
    rig.target.writes.clear()
    assert rig.commit.drain() == 2
    assert rig.target.writes == [0]
