"""`GroupCommit` under signal handlers: those that raise at any step, and those that record."""

import errno
from collections import deque

import pytest
from commit_rig import Rig, assert_no_gaps, in_another_thread, new_entry, os_error, raising, retrying_commit
from conftest import Interruption

from structlog_audit._failures import DeliveryError
from structlog_audit.events import event_id
from structlog_audit.events.codec import decode
from structlog_audit.recording import outage_policy
from structlog_audit.recording.queue_entry import LOST, PENDING, RAISED, RECORDED, WAITING


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_interrupt_before_the_write_loses_nothing(on_error):
    """An exception that interrupts a leader passes through; the next leader writes its entry first."""
    rig = Rig(on_error)
    rig.target.during = raising(KeyboardInterrupt())
    first = new_entry("first")
    with pytest.raises(KeyboardInterrupt):
        rig.commit.submit(first)
    assert first.state == WAITING
    rig.submit("second")
    assert first.state == RECORDED
    assert rig.trail() == ["first", "second"]
    assert rig.is_balanced()


def test_interrupt_after_the_write_repeats_the_line_with_its_id():
    """An interrupt after the write leads at worst to the same line twice, with one id."""
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
    """An inbox that a signal interrupts when the first entry is removed from it."""

    was_interrupted = False

    def popleft(self):
        if not self.was_interrupted:
            self.was_interrupted = True
            raise KeyboardInterrupt
        return super().popleft()


def test_interrupt_between_inbox_and_queue_writes_the_event_once():
    """An entry with a line that is still in the inbox keeps its id, and is queued once."""
    rig = Rig()
    rig.commit._inbox = InterruptedOnce()
    entry = new_entry("first")
    rig.commit.enqueue(entry)
    with pytest.raises(KeyboardInterrupt):
        rig.commit.drain()
    line = entry.line
    rig.submit("second")
    assert (entry.state, entry.line) == (RECORDED, line)
    assert rig.trail() == ["first", "second"]
    assert rig.counter("accepted") == 2


def test_interrupt_while_acknowledging_counts_nothing_twice():
    """A leader that is interrupted before it acknowledges writes the line again, with its id; it counts once."""
    delivered, interrupts = [], [KeyboardInterrupt()]

    def accept(line, timestamp_us):
        if interrupts:
            raise interrupts.pop()

    commit = retrying_commit(lambda entries: delivered.extend(entry.line for entry in entries), accept)
    with pytest.raises(KeyboardInterrupt):
        commit.submit(new_entry("ONE"))
    commit.submit(new_entry("TWO"))
    assert [delivered.count(line) for line in dict.fromkeys(delivered)] == [2, 1]
    assert commit.counters() == {"accepted": 2, "recorded": 2, "pending": 0, "raised": 0, "lost": 0}


def test_interrupt_while_events_become_pending_strands_no_waiter():
    """If an exception comes between two entries that become pending, their waiters are woken once they are recorded."""
    accepted, woken_states, fails = [], [], [True]

    def accept(line, timestamp_us):
        accepted.append(line)
        if len(accepted) == 2:
            raise KeyboardInterrupt

    def deliver(entries):
        if fails[0]:
            raise DeliveryError(0) from os_error(errno.EIO)

    commit = retrying_commit(deliver, accept)
    first = new_entry("ONE")
    first.wake = lambda: woken_states.append(first.state)
    commit.enqueue(first)
    with pytest.raises(KeyboardInterrupt):
        commit.submit(new_entry("TWO"))
    fails[0] = False
    assert commit.drain() == 0
    assert woken_states[-1] == RECORDED
    assert commit.counters() == {"accepted": 2, "recorded": 2, "pending": 0, "raised": 0, "lost": 0}


@pytest.mark.parametrize(("on_error", "max_pending"), [("retry", 10), ("retry", 1), ("retry", 0), ("raise", 10)])
def test_interrupt_at_any_line_of_the_outage_policy_loses_no_event(on_error, max_pending):
    """Before whichever line of the policy an exception comes, each event is recorded, raised or counted as lost."""
    interruption, due = None, 0
    while interruption is None or interruption.lines >= due:
        due += 1
        rig = Rig(on_error, max_pending)
        rig.target.room = 0
        interruption = Interruption(due, raising(KeyboardInterrupt()), outage_policy)
        try:
            with interruption:
                for name in ("one", "two", "three"):
                    rig.submit(name)
        except KeyboardInterrupt:
            pass

        rig.target.room = None
        rig.submit("last")
        rig.commit.drain()
        assert {entry.state for entry in rig.submitted} <= {RECORDED, RAISED, LOST}
        recorded = [decode(entry.line).operation for entry in rig.submitted if entry.state == RECORDED]
        assert [token for token in rig.trail() if isinstance(token, str)] == recorded
        assert_no_gaps(rig.target.lines)


def test_interrupt_at_any_line_of_the_stamp_leaves_no_gap():
    """Before whichever line of the stamp an exception comes, the numbers of each writer have no gap."""
    interruption, due = None, 0
    while interruption is None or interruption.lines >= due:
        due += 1
        rig = Rig()
        interruption = Interruption(due, raising(KeyboardInterrupt()), event_id)
        for name in ("one", "two", "three"):
            try:
                with interruption:
                    rig.submit(name)
            except KeyboardInterrupt:
                pass
        rig.commit.drain()
        assert_no_gaps(rig.target.lines)
    assert due > 30


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_lost_and_raised_events_leave_no_gap(on_error):
    """Events that are lost or raised use up sequence numbers, so the events after them belong to a new writer."""
    rig = Rig(on_error, max_pending=1)
    rig.submit("before")
    rig.target.room = 0
    for name in ("one", "two", "three"):
        rig.submit(name)
    rig.target.room = None
    rig.submit("after")
    assert rig.counter("lost" if on_error == "retry" else "raised") >= 2
    assert_no_gaps(rig.target.lines)


def test_interrupt_while_the_line_is_made_loses_nothing():
    """If an exception comes while an event gets its line, the next leader writes it."""
    rig = Rig()
    line, rig.commit._stamp.line = rig.commit._stamp.line, None
    with pytest.raises(TypeError):
        rig.submit("first")
    rig.commit._stamp.line = line
    rig.submit("second")
    assert rig.trail() == ["first", "second"]


def test_exception_of_a_signal_handler_is_not_an_outage():
    """An exception that a signal handler raises in the middle of a write reaches the caller, and is not reported."""
    rig = Rig()
    rig.target.during = raising(TimeoutError("a time limit"))
    with pytest.raises(TimeoutError, match="a time limit"):
        rig.submit("first")
    assert rig.reported == []
    rig.submit("second")
    assert rig.trail() == ["first", "second"]


class InterruptedLock:
    """The lock of a rig's commit, with one signal: while it is "awaited", or directly after it is "taken" or "given"."""

    def __init__(self, rig, when, on_signal):
        self.lock = rig.commit._lock
        self.when = when
        self.on_signal = on_signal
        rig.commit._lock = self
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

    def _is_owned(self):
        return self.lock._is_owned()

    def __enter__(self):
        self.lock.acquire()

    def __exit__(self, *exc_info):
        self.lock.release()


@pytest.mark.parametrize("room", [None, 0], ids=["a target that works", "a target that fails"])
def test_signal_handler_may_write_the_entry_of_the_interrupted_call(room):
    """A signal handler between the lock and the lead leads itself: no event is written twice, and no call fails."""
    rig = Rig()
    InterruptedLock(rig, "taken", lambda: rig.submit("SIGNAL"))
    rig.target.room = room
    entry = rig.submit("STORE")
    assert entry.state == (RECORDED if room is None else PENDING)
    assert rig.is_balanced()
    rig.target.room = None
    rig.commit.drain()
    assert rig.trail() == ["STORE", "SIGNAL"]
    assert (rig.commit.recorded, rig.is_balanced()) == (2, True)


@pytest.mark.parametrize("error", [TimeoutError, RuntimeError])
@pytest.mark.parametrize("when", ["awaited", "taken", "given"])
def test_exception_at_the_lock_passes_through_and_loses_nothing(when, error):
    """If a signal handler raises at the lock, the caller gets that error, and another thread writes both events."""
    rig = Rig()
    InterruptedLock(rig, when, raising(error("a time limit")))
    with pytest.raises(error, match="a time limit"):
        rig.submit("first")
    assert in_another_thread(rig.submit, "second").state == RECORDED
    assert rig.trail() == ["first", "second"]
    assert (rig.commit.recorded, rig.is_balanced()) == (2, True)


def test_second_exception_at_the_lock_passes_through_too():
    """If a signal handler raises after the release, while another exception passes, both reach the caller."""
    rig = Rig()
    rig.target.during = raising(TimeoutError("a time limit"))
    InterruptedLock(rig, "given", raising(RuntimeError("no memory")))
    with pytest.raises(RuntimeError, match="no memory") as raised:
        rig.submit("first")
    assert isinstance(raised.value.__context__, TimeoutError)
    assert in_another_thread(rig.submit, "second").state == RECORDED


@pytest.mark.parametrize("when", ["taken", "given", None])
def test_lock_stays_with_the_thread_that_holds_it(when):
    """If a signal handler submits while its thread holds the lock, interrupted or not, the thread keeps the lock."""
    rig = Rig()
    lock = rig.commit._lock
    InterruptedLock(rig, when, raising(TimeoutError("a time limit")))
    with lock:
        try:
            rig.submit("first")
        except TimeoutError:
            assert when is not None
        assert in_another_thread(lock.acquire, False) is False
    assert in_another_thread(lock.acquire, False) is True
