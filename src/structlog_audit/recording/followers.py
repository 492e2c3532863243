"""How threads wait for the one that leads a commit.

Rules:

* A follower waits until its entry is settled, or nobody leads any more. Not for the commit's lock: if it had to have that in
  order to go on, it would find it taken by the next leader. Nor with ``sleep(0)``, which hands the GIL around among those who
  can't go on yet, while the leader waits for it.
* The leader wakes one follower, and each follower the next. Were all awake at once, each would get the GIL in the middle of
  somebody's write, only to follow again.
* Threads that hardly do anything but record are *busy*: events come faster than one in `BUSY_MICROSECONDS`. Then to wake one
  costs the leader the GIL at its next write, which takes longer than an event. So nobody is woken. Followers look for
  themselves, after `BUSY_SECONDS` first, and whoever leads meanwhile records nearly as fast as one thread alone. Where writing
  waits for the disk, and not for the interpreter, nobody is busy.
* None is forgotten: a follower looks for itself in any case, since an exception may have ended the one that was to wake it. It
  waits for a lock, since in CPython 3.11 a ``SimpleQueue`` forgets its timeout when a signal handler takes longer than that.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

FOLLOW_SECONDS = 0.005
"""Between two looks of a follower at whether it need wait no longer, if nobody wakes it."""

BUSY_SECONDS = 0.0005
"""The same where threads are busy, for the first time, and twice as long each time after: as long as some hundred events take,
and a tenth of what the GIL lets a thread wait."""

BUSY_MICROSECONDS = 25
"""Between two events, on average. Eight threads that only record need 7 to 20, by the machine."""

_PACE_MICROSECONDS = 1_000
"""The least time over which the average is taken."""


class Settled(Protocol):
    """What a follower waits with."""

    wake: Callable[[], None] | None
    """Called by the leader when it is settled, if anybody is to be woken then."""


class Waiter:
    """Where one follower waits. To call it says that its entry is settled."""

    __slots__ = ("_asleep", "_lock")

    def __init__(self, asleep: deque[Waiter]) -> None:
        self._asleep = asleep
        self._lock = threading.Lock()
        self._lock.acquire()

    def __call__(self) -> None:
        self._asleep.append(self)

    def wait(self, seconds: float) -> bool:
        """Whether somebody called `wake` before so many *seconds* were over."""
        return self._lock.acquire(timeout=seconds)

    def wake(self) -> None:
        """Let the follower go on, if it was not woken before."""
        try:
            self._lock.release()
        except RuntimeError:
            pass


class Followers:
    """The threads that wait for one leader after the other.

    Args:
        can_be_busy: Whether the interpreter is what threads wait for.
    """

    def __init__(self, *, can_be_busy: bool = True) -> None:
        self._asleep: deque[Waiter] = deque()  # of those whose entries are settled
        self._can_be_busy = can_be_busy
        self._busy = False
        self._paced = (0, 0)  # when the pace was taken last, and after how many events

    def wait(self, entry: Settled, is_to_wait: Callable[[], bool], *, moment: int, count: int) -> None:
        """Wait with *entry* while *is_to_wait*.

        Args:
            entry: What the leader settles.
            is_to_wait: Whether it is not settled yet, and somebody leads.
            moment: That of the newest event, in microseconds.
            count: How many events there were until then.
        """
        turn, seconds = Waiter(self._asleep), FOLLOW_SECONDS
        if self._are_busy(moment, count):
            seconds = BUSY_SECONDS
        else:
            entry.wake = turn
        try:
            while is_to_wait():
                if not turn.wait(seconds):
                    seconds = min(2 * seconds, FOLLOW_SECONDS)
        finally:
            entry.wake = None
            self.wake_one(turn)

    def wake_one(self, but: Waiter | None = None) -> None:
        """Wake one of those whose entries are settled, who wakes the next as it goes; *but* is awake already."""
        try:
            turn = self._asleep.popleft()
            if turn is but:
                turn = self._asleep.popleft()
            turn.wake()
        except IndexError:  # there is none
            pass

    def _are_busy(self, moment: int, count: int) -> bool:
        before, counted = self._paced
        if self._can_be_busy and not 0 <= moment - before < _PACE_MICROSECONDS:
            self._busy = (count - counted) * BUSY_MICROSECONDS > moment - before
            self._paced = moment, count
        return self._busy
