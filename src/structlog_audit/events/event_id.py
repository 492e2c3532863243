"""Event ids and timestamps: `Stamp` turns encoded payloads into lines.

**Guarantees**

* An id is ``evt_`` and the 32 hex digits of a UUIDv7 (RFC 9562 §5.7). Within a writer, ids increase strictly whatever the
  clock does: within a millisecond the last 32 bits count up from a random start (§6.2, method 1), and when the clock
  steps back, the milliseconds of the id stay where they were.
* The timestamp is the clock's, in UTC with microseconds, always 27 characters. It may step back.

**Concurrency**: a `Stamp` is neither thread-safe nor re-entrant. The group commit calls it under its lock. A formatter uses
another `Stamp` for a re-entrant call: those ids are unique, but do not necessarily increase.

**Performance**: the parts of a line that are constant for a second, for a millisecond and for 256 ids are formatted once
for these; the others come from tables, because formatting numbers would cost more than all other steps.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable

_LINE = '{{"event_id":"evt_{:012x}7{:03x}{:08x}{:06x}%b","timestamp":"{}.{:03d}%bZ",%b\n'
_PART_OF = b'"part_of":"evt_%b",%b'
_LF = ord("\n")

# Two-digit and three-digit texts of the numbers that change with each id. _DECIMAL is a dictionary because a list would
# accept the negative differences of a clock that steps back.
_HEX = tuple(b"%02x" % number for number in range(256))
_DECIMAL = {number: b"%03d" % number for number in range(1_000)}

_ID = slice(len('{"event_id":"evt_'), len('{"event_id":"evt_') + 32)
_EVENT_ID = re.compile("evt_([0-9a-f]{12})7[0-9a-f]{3}[89ab][0-9a-f]{15}")

_VARIANT = 0b10 << 30
_30_BITS = (1 << 30) - 1
_NEVER = -(1 << 62)


def millisecond_of(event_id: str) -> int | None:
    """Return the milliseconds since 1970 in *event_id*.

    None if it has another form.
    """
    found = _EVENT_ID.fullmatch(event_id) if isinstance(event_id, str) else None
    return None if found is None else int(found[1], 16)


class Stamp:
    """The source of ids and timestamps for one writer.

    Args:
        clock: Returns the nanoseconds since 1970.
        randbits: Returns an integer of the requested number of random bits.
    """

    def __init__(
        self, clock: Callable[[], int] = time.time_ns, randbits: Callable[[int], int] = secrets.randbits
    ) -> None:
        self._clock = clock
        self._randbits = randbits

        # The format of lines, and the timestamp in microseconds at which its millisecond begins.
        self._format = b""
        self._format_begin = _NEVER

        # The parts of an id: milliseconds, random bits, and the last 32 bits as a block number (24) and a count (8).
        self._id_millisecond = -1
        self._random = (0, 0)
        self._block = 0
        self._count = 0

        # The last second that was formatted, and its text.
        self._second: tuple[int | None, str] = (None, "")

        self.timestamp_us = 0
        """The timestamp of the last line, in microseconds since 1970."""

    def line(self, payload: bytes) -> bytes:
        """Return *payload* as a line with its id, timestamp and LF.

        If it has parts, their lines follow.
        """
        if _LF in payload:
            return self._lines(*payload.split(b"\n"))

        clock = self._clock
        self.timestamp_us = timestamp_us = clock() // 1_000
        self._count = count = self._count + 1

        # A LookupError means that another millisecond has begun or that the block of 256 ids is used up.
        try:
            return self._format % (_HEX[count], _DECIMAL[timestamp_us - self._format_begin], payload)
        except LookupError:
            self._begin_format(timestamp_us)
            return self._format % (_HEX[self._count], _DECIMAL[timestamp_us - self._format_begin], payload)

    def _lines(self, payload: bytes, *parts: bytes) -> bytes:
        """Return the line of *payload* and those of its *parts*, which name its id."""
        first = self.line(payload)
        part_lines = [self.line(_PART_OF % (first[_ID], part)) for part in parts]
        return first + b"".join(part_lines)

    def _begin_format(self, timestamp_us: int) -> None:
        """Format the parts of lines that are constant for 256 ids of a millisecond."""
        # An exception raised by a signal handler may end this method anywhere: no format is valid until the end.
        self._format_begin = _NEVER

        millisecond, microsecond = divmod(timestamp_us, 1_000)
        if millisecond > self._id_millisecond:
            self._id_millisecond = millisecond

            # One request for all bits: a system call takes as long as all other steps here.
            bits = self._randbits(72)
            self._random = (bits >> 60, _VARIANT | bits >> 30 & _30_BITS)

            # A start of 30 bits leaves three quarters of the 32 bits to count up.
            self._block, self._count = divmod((bits & _30_BITS) + 1, 256)

        if self._count > 255:
            self._block, self._count = self._block + 1, 0

        second, rest = divmod(millisecond, 1_000)
        if second != self._second[0]:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second, text

        line = _LINE.format(self._id_millisecond, *self._random, self._block, self._second[1], rest)
        self._format = line.encode()
        self._format_begin = timestamp_us - microsecond
