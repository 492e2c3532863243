"""How the followers of a group commit wait for the leader, and for each other.

**Guarantees**: A follower waits until its entry is completed or no thread leads. It never waits for longer than
`RECHECK_SECONDS` without a check of its own, so an exception in the thread that should have woken it does not strand it.

**Concurrency**: The leader wakes one follower, and each follower wakes the next. If all woke at once, each would take the
GIL in the middle of another thread's write, only to wait again. Followers do not wait for the lock of the commit, since
the next leader holds it. They do not spin with ``sleep(0)`` either, which keeps the GIL from the leader.

**Performance**: Threads that do little besides recording are *busy*: on average events follow each other within
`BUSY_INTERVAL_US`. Waking a thread then costs the leader the GIL at its next write, which takes longer than an event. So
busy followers are not woken; they poll, for the first time after `BUSY_RECHECK_SECONDS`. If writes wait for the disk,
threads are never busy.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

RECHECK_SECONDS = 0.005
"""The longest time between two checks of a follower that is not woken."""

BUSY_RECHECK_SECONDS = 0.0005
"""The time before the first check of a busy follower; it doubles with each check, up to `RECHECK_SECONDS`.

About the time of a few hundred events, and a tenth of the interval after which CPython forces a thread to release the GIL.
"""

BUSY_INTERVAL_US = 25
"""The average interval between two events, in microseconds, below which threads are busy.

Eight threads that only record reach 7 to 20, depending on the machine.
"""

_MIN_SAMPLE_US = 1_000
"""The shortest period over which the average interval is measured, in microseconds."""


class WakeableEntry(Protocol):
    """The part of a queue entry that a follower needs."""

    wake: Callable[[], None] | None
    """Called when the entry is completed; None if no caller is to be woken."""


class Waiter:
    """One waiting follower.

    Calling it reports that its entry is completed; `Followers.wake_one` wakes it in its turn.
    """

    __slots__ = ("_lock", "_to_wake")

    def __init__(self, to_wake: deque[Waiter]) -> None:
        self._to_wake = to_wake

        # A lock and not a SimpleQueue: in CPython 3.11 the timeout of `SimpleQueue.get` is lost if a signal handler runs
        # for longer than the timeout.
        self._lock = threading.Lock()
        self._lock.acquire()

    def __call__(self) -> None:
        self._to_wake.append(self)

    def wait(self, seconds: float) -> bool:
        """Return whether `wake` was called before *seconds* had passed."""
        return self._lock.acquire(timeout=seconds)

    def wake(self) -> None:
        """Wake the follower, unless that was done before."""
        try:
            self._lock.release()
        except RuntimeError:
            # The lock is free already: two threads woke the same follower.
            pass


class Followers:
    """The threads that wait for the leader of one group commit.

    Args:
        can_be_busy: Whether threads wait for the interpreter rather than for the disk.
    """

    def __init__(self, *, can_be_busy: bool = True) -> None:
        # The waiters of completed entries that were not woken yet.
        self._to_wake: deque[Waiter] = deque()
        self._can_be_busy = can_be_busy
        self._busy = False

        # The time in microseconds and the number of events at the start of the current measurement.
        self._sample_start = (0, 0)

    def wait(self, entry: WakeableEntry, must_wait: Callable[[], bool], *, timestamp_us: int, count: int) -> None:
        """Wait with *entry* while *must_wait* returns true, then wake the next follower.

        Args:
            entry: The entry that the leader completes.
            must_wait: Returns whether the entry is not completed and a thread leads.
            timestamp_us: The time of the newest event, in microseconds since 1970.
            count: The number of events recorded so far.
        """
        waiter = Waiter(self._to_wake)
        seconds = RECHECK_SECONDS
        if self._is_busy(timestamp_us, count):
            seconds = BUSY_RECHECK_SECONDS
        else:
            entry.wake = waiter

        try:
            while must_wait():
                if not waiter.wait(seconds):
                    seconds = min(2 * seconds, RECHECK_SECONDS)
        finally:
            # Also if a signal handler raised: the followers behind this one must go on.
            entry.wake = None
            self.wake_one(awake=waiter)

    def wake_one(self, awake: Waiter | None = None) -> None:
        """Wake one follower with a completed entry, other than *awake*."""
        try:
            waiter = self._to_wake.popleft()
            if waiter is awake:
                waiter = self._to_wake.popleft()
            waiter.wake()
        except IndexError:
            # No follower is left to wake.
            pass

    def _is_busy(self, timestamp_us: int, count: int) -> bool:
        if not self._can_be_busy:
            return False

        start_us, start_count = self._sample_start
        elapsed_us = timestamp_us - start_us

        # A negative period, after a step of the clock, starts a new measurement as well.
        if not 0 <= elapsed_us < _MIN_SAMPLE_US:
            self._busy = (count - start_count) * BUSY_INTERVAL_US > elapsed_us
            self._sample_start = (timestamp_us, count)

        return self._busy
