"""Gives a body its id and its time, and so makes it a line.

Rules:

* An id is ``evt_`` and the 32 hex digits of a UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds, then random bits. Within a
  writer ids increase strictly, whatever the clock does: within a millisecond the last 62 bits count up from a random
  start (§6.2, method 1), and when the clock steps back the milliseconds of the id stay where they were.
* The time is that of the clock, steps and all, in UTC with microseconds, always 27 characters.
* What is constant for a millisecond is formatted once for it.

Not thread-safe: the commit calls it inside of its lock, where order is given.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence

_HEAD = '{{"event_id":"evt_{:012x}7{:03x}%016x","timestamp":"{}.{:03d}%03dZ",'
_PART_OF = b'%b"part_of":"evt_%b",%b\n'
_ID = slice(len('{"event_id":"evt_'), len('{"event_id":"evt_') + 32)
_VARIANT = 0b10 << 62


class Stamp:
    """The ids and times of one writer.

    Args:
        clock: Nanoseconds since 1970.
        randbits: As many random bits as it is asked for.
    """

    def __init__(
        self, clock: Callable[[], int] = time.time_ns, randbits: Callable[[int], int] = secrets.randbits
    ) -> None:
        self._clock = clock
        self._randbits = randbits
        self._millisecond: int | None = None  # of the clock, when last asked
        self._id_millisecond = -1
        self._beginning = self._tail = 0
        self._format = b""
        self.moment = 0
        """The time last given, in microseconds since 1970."""

    def head(self) -> bytes:
        """The head of the next line: ``{"event_id":…,"timestamp":…,``."""
        self.moment = self._clock() // 1_000
        millisecond, microsecond = divmod(self.moment, 1_000)
        if millisecond != self._millisecond:
            self._begin(millisecond)
        self._tail += 1
        return self._format % (self._tail, microsecond)

    def line(self, bodies: Sequence[bytes]) -> bytes:
        """The line of an event, or its lines if *bodies* has the bodies of parts."""
        first = b"%b%b\n" % (self.head(), bodies[0][1:])
        if len(bodies) == 1:
            return first
        return first + b"".join(_PART_OF % (self.head(), first[_ID], body[1:]) for body in bodies[1:])

    def _begin(self, millisecond: int) -> None:
        """Format what is constant for *millisecond*."""
        self._millisecond = millisecond
        if millisecond > self._id_millisecond:
            self._id_millisecond = millisecond
            self._beginning = self._randbits(12)
            self._tail = _VARIANT | self._randbits(61)  # half of the numbers are left to count up in
        second, rest = divmod(millisecond, 1_000)
        text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        self._format = _HEAD.format(self._id_millisecond, self._beginning, text, rest).encode()
