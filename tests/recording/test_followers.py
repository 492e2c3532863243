"""`Followers`: a follower is woken by the one before it or, where threads are busy, polls."""

import subprocess
import sys
import threading
from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit.recording import followers as followers_module
from structlog_audit.recording.followers import BUSY_INTERVAL_US, Followers, Waiter
from structlog_audit.recording.queue_entry import QueueEntry


@pytest.fixture
def no_polling(monkeypatch):
    """Followers that go on only if they are woken."""
    monkeypatch.setattr(followers_module, "RECHECK_SECONDS", 3_600)


def new_entry():
    return QueueEntry(b"", 20, "audit")


def start_waiting(followers, entry, must_wait, timestamp_us=0, count=0):
    """Return a thread that waits with *entry*, once it has started to."""
    started = threading.Event()

    def check():
        started.set()
        return must_wait()

    thread = threading.Thread(
        target=followers.wait,
        args=(entry, check),
        kwargs={"timestamp_us": timestamp_us, "count": count},
        daemon=True,
    )
    thread.start()
    started.wait()
    return thread


def busy_followers():
    """Return followers that have seen events at twice the rate that counts as busy."""
    followers = Followers()
    assert not followers._is_busy(0, 0)
    assert followers._is_busy(1_000_000, 2_000_000 // BUSY_INTERVAL_US)
    return followers


def test_woken_follower_wakes_the_next(no_polling):
    """If one follower is woken, all go on, though none of them polls."""
    followers = Followers()
    completed = threading.Event()
    entries = [new_entry() for _ in range(5)]
    threads = [start_waiting(followers, entry, lambda: not completed.is_set()) for entry in entries]
    wakes = [entry.wake for entry in entries]
    completed.set()
    for wake in wakes:
        wake()
    followers.wake_one()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not followers._to_wake


def test_busy_follower_polls(no_polling):
    """A busy follower registers no ``wake`` function in its entry, and continues after a periodic check."""
    followers = busy_followers()
    completed = threading.Event()
    entry = new_entry()
    thread = start_waiting(followers, entry, lambda: not completed.is_set(), 1_000_000, 2_000_000 // BUSY_INTERVAL_US)
    assert entry.wake is None
    completed.set()
    thread.join(60)
    assert not thread.is_alive()


def test_interrupted_follower_wakes_the_next(no_polling):
    """A follower that an exception ends, such as that of a signal handler, still wakes the one behind it."""
    followers = Followers()
    completed = threading.Event()
    entry = new_entry()
    thread = start_waiting(followers, entry, lambda: not completed.is_set())
    completed.set()
    entry.wake()

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        followers.wait(new_entry(), interrupted, timestamp_us=0, count=0)
    thread.join(60)
    assert not thread.is_alive()


def test_follower_keeps_polling_after_a_long_signal_handler():
    """A signal handler that runs for longer than the time between two checks does not end the checks."""
    code = """
import signal, time
from structlog_audit.recording.queue_entry import QueueEntry
from structlog_audit.recording.followers import BUSY_RECHECK_SECONDS, Followers

handled = []

def long(signum, frame):
    until = time.monotonic() + 4 * BUSY_RECHECK_SECONDS
    while time.monotonic() < until:
        pass
    handled.append(signum)

signal.signal(signal.SIGALRM, long)
followers = Followers()
followers._is_busy(0, 0)
assert followers._is_busy(1_000_000, 1_000_000)
for _ in range(20):
    handled.clear()
    signal.setitimer(signal.ITIMER_REAL, BUSY_RECHECK_SECONDS / 3)
    followers.wait(QueueEntry(b"", 20, "audit"), lambda: not handled, timestamp_us=1_000_000, count=1_000_000)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_waiter_that_was_not_woken_waits():
    """A new waiter is not woken yet."""
    assert not Waiter(deque()).wait(0)


def test_waiter_that_is_woken_twice_goes_on_once():
    """Two threads may wake the same waiter; the second call has no effect."""
    waiter = Waiter(deque())
    waiter.wake()
    waiter.wake()
    assert waiter.wait(3_600)
    assert not waiter.wait(0)


def test_follower_that_was_not_woken_wakes_another_one(no_polling):
    """A follower that continues after a periodic check is not woken again; the next one is."""
    followers = Followers()
    completed = threading.Event()
    entry = new_entry()
    thread = start_waiting(followers, entry, lambda: not completed.is_set())
    skipped = new_entry()

    def must_wait():
        # The leader completes this entry now, and then the other one.
        skipped.wake()
        entry.wake()
        completed.set()
        return False

    followers.wait(skipped, must_wait, timestamp_us=0, count=0)
    thread.join(60)
    assert not thread.is_alive()


def test_followers_are_never_busy_if_writes_wait_for_the_disk():
    """With ``can_be_busy=False``, no rate of events makes followers busy."""
    followers = Followers(can_be_busy=False)
    assert not followers._is_busy(0, 0)
    assert not followers._is_busy(1_000_000, 1_000_000)


@given(st.lists(st.tuples(st.integers(1_000, 10**9), st.integers(0, 10**6)), min_size=1))
def test_followers_are_busy_by_the_rate_since_the_last_check(steps):
    """Over any period of a millisecond or more, busy is more than one event in `BUSY_INTERVAL_US`."""
    followers = Followers()
    checks = [(0, 0)]
    for elapsed_us, more in steps:
        checks.append((checks[-1][0] + elapsed_us, checks[-1][1] + more))
    followers._is_busy(*checks[0])
    for (start_us, start_count), (timestamp_us, count) in pairwise(checks):
        expected = (count - start_count) * BUSY_INTERVAL_US > timestamp_us - start_us
        assert followers._is_busy(timestamp_us, count) == expected


def test_followers_are_not_busy_if_the_clock_stands_still():
    """If no time has passed since the last check, followers are not busy."""
    followers = Followers()
    assert not any([followers._is_busy(5, count) for count in range(0, 10_000, 1_000)][1:])
