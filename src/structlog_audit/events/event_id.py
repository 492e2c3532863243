"""Gives a body its id and its time, and so makes it a line; one that goes on in parts becomes several.

Rules:

* An id is ``evt_`` and the 32 hex digits of a UUIDv7 (RFC 9562 §5.7): 48 bits of milliseconds, then random bits. Within a
  writer ids increase strictly, whatever the clock does: within a millisecond the last 32 bits count up from a random
  start (§6.2, method 1), and when the clock steps back the milliseconds of the id stay where they were.
* The time is that of the clock, steps and all, in UTC with microseconds, always 27 characters.
* What is constant for a second, for a millisecond, and for 256 ids, is formatted once for it; the rest is looked up, since to
  format numbers takes longer than all else here.

Not thread-safe, and not to be entered again by a signal handler. The commit calls it inside of its lock, and whoever comes in
the middle waits at its door. A formatter gives who comes in the middle another one: its ids are unique, but need not increase.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable

_LINE = '{{"event_id":"evt_{:012x}7{:03x}{:08x}{:06x}%b","timestamp":"{}.{:03d}%bZ",%b\n'
_HEX = tuple(b"%02x" % number for number in range(256))
_DECIMAL = {number: b"%03d" % number for number in range(1_000)}  # by key: no number below zero is one of them
_PART_OF = b'"part_of":"evt_%b",%b'
_LF = ord("\n")
_ID = slice(len('{"event_id":"evt_'), len('{"event_id":"evt_') + 32)
_EVENT_ID = re.compile("evt_([0-9a-f]{12})7[0-9a-f]{3}[89ab][0-9a-f]{15}")
_VARIANT = 0b10 << 30
_30_BITS = (1 << 30) - 1
_NEVER = -(1 << 62)


def millisecond_of(event_id: str) -> int | None:
    """The milliseconds since 1970 that an id of this form says; None if it has another form."""
    found = _EVENT_ID.fullmatch(event_id) if isinstance(event_id, str) else None
    return None if found is None else int(found[1], 16)


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
        self._begun = _NEVER  # the moment with which the millisecond began that the format is for
        self._id_millisecond = -1
        self._random = (0, 0)
        self._block = 0  # the upper 24 of the last 32 bits of an id
        self._last = 0  # the lower 8, of the id last given
        self._second: tuple[int | None, str] = (None, "")  # and its text
        self._format = b""
        self.timestamp_us = 0
        """The time last given, in microseconds since 1970."""

    def line(self, body: bytes) -> bytes:
        """The line of *body*: ``{"event_id":…,"timestamp":…,``, *body* and an LF; then those of its parts, if it has any."""
        if _LF in body:
            return self._lines(*body.split(b"\n"))
        clock = self._clock
        self.timestamp_us = moment = clock() // 1_000
        self._last = last = self._last + 1
        try:
            return self._format % (_HEX[last], _DECIMAL[moment - self._begun], body)
        except LookupError:  # another millisecond has begun, or 256 ids were given
            self._begin(moment)
            return self._format % (_HEX[self._last], _DECIMAL[moment - self._begun], body)

    def _lines(self, body: bytes, *parts: bytes) -> bytes:
        """The line of *body*, and those of its *parts*, which name it."""
        first = self.line(body)
        return first + b"".join([self.line(_PART_OF % (first[_ID], part)) for part in parts])

    def _begin(self, moment: int) -> None:
        """Format what is constant for the millisecond of *moment*, and for the next 256 ids."""
        self._begun = _NEVER  # until the format fits: an exception that a signal handler raises may end this anywhere
        millisecond, microsecond = divmod(moment, 1_000)
        if millisecond > self._id_millisecond:
            self._id_millisecond = millisecond
            bits = self._randbits(72)  # at once: to ask the system takes as long as all else here
            self._random = (bits >> 60, _VARIANT | bits >> 30 & _30_BITS)
            self._block, self._last = divmod((bits & _30_BITS) + 1, 256)  # three quarters are left to count up in
        if self._last > 255:
            self._block, self._last = self._block + 1, 0
        second, rest = divmod(millisecond, 1_000)
        if second != self._second[0]:
            self._second = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        text = self._second[1]
        self._format = _LINE.format(self._id_millisecond, *self._random, self._block, text, rest).encode()
        self._begun = moment - microsecond
