"""How the followers of a group commit wait for the leader, and for each other.

**Guarantees**: A follower waits until its entry is completed or no thread leads. It checks this itself at least every
`RECHECK_SECONDS`, so an exception in the thread that should have woken it does not strand it.

**Concurrency**: The leader wakes one follower, and each follower wakes the next. If all woke at once, each would take the
GIL in the middle of another thread's write, only to wait again. Followers do not wait on the lock of the commit: with its
entry completed, a follower would still wait for the next leader. They do not spin with ``sleep(0)`` either, which would keep
the GIL from the leader.

**Performance**: Threads that do little besides recording are *busy*: on average events follow each other within
`BUSY_INTERVAL_US`. A follower that is woken then takes the GIL at the leader's next write, and the leader waits longer for
the GIL than an event takes. So busy followers are not woken; they poll, for the first time after `BUSY_RECHECK_SECONDS`. If
writes wait for the disk, threads are never busy.
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

The time of a few dozen events, and a tenth of the interval after which CPython forces a thread to release the GIL.
"""

BUSY_INTERVAL_US = 25
"""The average interval between two events of the process, in microseconds, below which threads are busy.

With eight threads that only record, it is 7 to 20, depending on the machine.
"""

_MIN_SAMPLE_US = 1_000
"""The shortest period over which the average interval is measured, in microseconds."""


class WakeableEntry(Protocol):
    """The part of a queue entry that a follower needs."""

    wake: Callable[[], None] | None
    """Called when the entry is completed; None if no caller is to be woken."""


class Waiter:
    """One waiting follower.

    It is the ``wake`` function of its entry. A call only registers it as one to wake; `Followers.wake_one` wakes it later.
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
        can_be_busy: Whether followers may have to poll; False if writes wait for the disk.
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
            # Also after an exception of a signal handler, or the followers behind this one would not be woken.
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
        """Return whether threads are busy, according to the latest complete measurement."""
        if not self._can_be_busy:
            return False

        start_us, start_count = self._sample_start
        elapsed_us = timestamp_us - start_us

        # A long period ends the measurement. So does a negative one, after the clock was set back.
        if not 0 <= elapsed_us < _MIN_SAMPLE_US:
            self._busy = (count - start_count) * BUSY_INTERVAL_US > elapsed_us
            self._sample_start = (timestamp_us, count)

        return self._busy
