"""How followers wait: woken one after the other, or, where threads are busy, by themselves."""

import subprocess
import sys
import threading
from collections import deque
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit.recording import followers as followers_module
from structlog_audit.recording.followers import BUSY_MICROSECONDS, Followers, Waiter
from structlog_audit.recording.queue_entry import QueueEntry


def waiting(followers, entry, is_to_wait, moment=0, count=0):
    """A thread that waits with *entry*, once it does."""
    began = threading.Event()

    def look():
        began.set()
        return is_to_wait()

    pace = {"moment": moment, "count": count}
    thread = threading.Thread(target=followers.wait, args=(entry, look), kwargs=pace, daemon=True)
    thread.start()
    began.wait()
    return thread


def busy_followers():
    """Followers that have seen events come at twice the pace that is busy."""
    followers = Followers()
    assert not followers._are_busy(0, 0)
    assert followers._are_busy(1_000_000, 2_000_000 // BUSY_MICROSECONDS)
    return followers


def test_a_follower_that_was_woken_goes_on_and_wakes_the_next(monkeypatch):
    """Without ever looking for themselves, all go on when one of them is woken."""
    monkeypatch.setattr(followers_module, "FOLLOW_SECONDS", 3_600)
    followers, settled = Followers(), threading.Event()
    entries = [QueueEntry(b"", 20, "audit") for _ in range(5)]
    threads = [waiting(followers, entry, lambda: not settled.is_set()) for entry in entries]
    wakes = [entry.wake for entry in entries]
    settled.set()
    for wake in wakes:
        wake()
    followers.wake_one()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not followers._asleep


def test_who_is_busy_looks_for_itself(monkeypatch):
    """Where events come fast, nobody is to be woken: there is nothing to call, and whoever waits goes on by itself."""
    monkeypatch.setattr(followers_module, "FOLLOW_SECONDS", 3_600)
    followers, settled, entry = busy_followers(), threading.Event(), QueueEntry(b"", 20, "audit")
    thread = waiting(followers, entry, lambda: not settled.is_set(), 1_000_000, 2_000_000 // BUSY_MICROSECONDS)
    assert entry.wake is None
    settled.set()
    thread.join(60)
    assert not thread.is_alive()


def test_who_is_interrupted_wakes_the_next(monkeypatch):
    """An exception that ends a follower, such as a signal handler's, leaves nobody behind it asleep."""
    monkeypatch.setattr(followers_module, "FOLLOW_SECONDS", 3_600)
    followers, settled, entry = Followers(), threading.Event(), QueueEntry(b"", 20, "audit")
    thread = waiting(followers, entry, lambda: not settled.is_set())
    settled.set()
    entry.wake()

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        followers.wait(QueueEntry(b"", 20, "audit"), interrupted, moment=0, count=0)
    thread.join(60)
    assert not thread.is_alive()


def test_a_long_signal_handler_does_not_end_the_looks():
    """Whoever waits looks again, also if a signal handler took longer than the time between two looks."""
    code = """
import signal, time
from structlog_audit.recording.queue_entry import QueueEntry
from structlog_audit.recording.followers import BUSY_SECONDS, Followers

handled = []

def long(signum, frame):
    until = time.monotonic() + 4 * BUSY_SECONDS
    while time.monotonic() < until:
        pass
    handled.append(signum)

signal.signal(signal.SIGALRM, long)
followers = Followers()
followers._are_busy(0, 0)
assert followers._are_busy(1_000_000, 1_000_000)
for _ in range(20):
    handled.clear()
    signal.setitimer(signal.ITIMER_REAL, BUSY_SECONDS / 3)
    followers.wait(QueueEntry(b"", 20, "audit"), lambda: not handled, moment=1_000_000, count=1_000_000)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_turn_may_be_woken_twice():
    """Who was woken for one reason can be woken for another: it goes on, once."""
    turn = Waiter(deque())
    turn.wake()
    turn.wake()
    assert turn.wait(3_600)
    assert not turn.wait(0)


def test_who_goes_by_itself_wakes_another_and_not_itself(monkeypatch):
    """A follower that sees for itself that it is settled passes its own place among the sleepers over."""
    monkeypatch.setattr(followers_module, "FOLLOW_SECONDS", 3_600)
    followers, settled, entry = Followers(), threading.Event(), QueueEntry(b"", 20, "audit")
    thread = waiting(followers, entry, lambda: not settled.is_set())
    own = QueueEntry(b"", 20, "audit")

    def is_to_wait():
        own.wake()  # the leader settles it just now, and then the other
        entry.wake()
        settled.set()
        return False

    followers.wait(own, is_to_wait, moment=0, count=0)
    thread.join(60)
    assert not thread.is_alive()


def test_who_waits_for_the_disk_is_never_busy():
    """Where a write waits for the disk, no pace makes followers busy."""
    followers = Followers(can_be_busy=False)
    assert not followers._are_busy(0, 0)
    assert not followers._are_busy(1_000_000, 1_000_000)


@given(st.lists(st.tuples(st.integers(1_000, 10**9), st.integers(0, 10**6)), min_size=1))
def test_the_pace_is_that_since_the_last_look(steps):
    """For all clocks that go on by a millisecond or more, busy means more than one event in 25 microseconds since then."""
    followers = Followers()
    looks = [(0, 0)]
    for later, more in steps:
        looks.append((looks[-1][0] + later, looks[-1][1] + more))
    followers._are_busy(*looks[0])
    for (before, counted), (moment, count) in pairwise(looks):
        assert followers._are_busy(moment, count) == ((count - counted) * BUSY_MICROSECONDS > moment - before)


def test_a_clock_that_stands_still_makes_nobody_busy():
    """Without time there is no pace."""
    followers = Followers()
    assert not any([followers._are_busy(5, count) for count in range(0, 10_000, 1_000)][1:])
