"""How threads wait for the one that leads a commit.

Rules:

* A follower waits until its entry is settled, or nobody leads any more. Not for the commit's lock: if it had to have that in
  order to go on, it would find it taken by the next leader. Nor with ``sleep(0)``, which hands the GIL around among those who
  can't go on yet, while the leader waits for it.
* The leader wakes one follower, and each follower the next. Were all awake at once, each would get the GIL in the middle of
  somebody's write, only to follow again.
* Threads that hardly do anything but record are *busy*: events come faster than one in `BUSY_MICROSECONDS`. Then to wake one
  costs the leader the GIL at its next write, which takes longer than an event. So nobody is woken. Followers look for
  themselves every `BUSY_SECONDS`, and whoever leads meanwhile records nearly as fast as one thread alone. Where writing waits
  for the disk, and not for the interpreter, nobody is busy.
* None is forgotten: a follower looks for itself in any case, since an exception may have ended the one that was to wake it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol

FOLLOW_SECONDS = 0.005
"""Between two looks of a follower at whether it need wait no longer, if nobody wakes it."""

BUSY_SECONDS = 0.0005
"""The same where threads are busy: as long as some hundred events take, and a tenth of what the GIL lets a thread wait."""

BUSY_MICROSECONDS = 25
"""Between two events, on average. Eight threads that only record need 7 to 20, by the machine."""

_PACE_MICROSECONDS = 1_000
"""The least time over which the average is taken."""


class Settled(Protocol):
    """What a follower waits with."""

    wake: Callable[[], None] | None
    """Called by the leader when it is settled, if anybody is to be woken then."""


class Followers:
    """The threads that wait for one leader after the other.

    Args:
        can_be_busy: Whether the interpreter is what threads wait for.
    """

    def __init__(self, *, can_be_busy: bool = True) -> None:
        self._asleep: deque[SimpleQueue[None]] = deque()  # where those wait whose entries are settled
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
        turn: SimpleQueue[None] = SimpleQueue()
        seconds = FOLLOW_SECONDS
        if self._are_busy(moment, count):
            seconds = BUSY_SECONDS
        else:
            entry.wake = partial(self._asleep.append, turn)
        try:
            while is_to_wait():
                try:
                    turn.get(timeout=seconds)
                except Empty:
                    pass
        finally:
            entry.wake = None
            self.wake_one()

    def wake_one(self) -> None:
        """Wake one of those whose entries are settled; it wakes the next as it goes."""
        try:
            self._asleep.popleft().put(None)
        except IndexError:  # there is none
            pass

    def _are_busy(self, moment: int, count: int) -> bool:
        before, counted = self._paced
        if self._can_be_busy and not 0 <= moment - before < _PACE_MICROSECONDS:
            self._busy = (count - counted) * BUSY_MICROSECONDS > moment - before
            self._paced = moment, count
        return self._busy
