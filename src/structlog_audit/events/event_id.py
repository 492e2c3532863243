"""Event ids and timestamps: `Stamp` turns encoded payloads into lines.

**Guarantees**

* An id is ``evt_`` and the 32 hex digits of a UUIDv7 (RFC 9562 §5.7): 12 digits of milliseconds, ``7``, 11 digits of the
  writer (42 random bits and the variant), 8 digits of the sequence number. The sequence numbers of a writer begin at 0 and
  have no gaps, so a missing, repeated or moved line shows. `Stamp.renew` begins a new writer.
* Within a writer, ids increase strictly: when the clock steps back, the milliseconds of the id stay where they were.
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
from typing import NamedTuple

_LINE = '{{"event_id":"evt_{:012x}7{:03x}{:08x}{:06x}%b","timestamp":"{}.{:03d}%bZ",%b\n'
_PART_OF = b'"part_of":"evt_%b",%b'
_LF = ord("\n")

# Two-digit and three-digit texts of the numbers that change with each id. _DECIMAL is a dictionary because a list would
# accept the negative differences of a clock that steps back.
_HEX = tuple(b"%02x" % number for number in range(256))
_DECIMAL = {number: b"%03d" % number for number in range(1_000)}

_ID = slice(len('{"event_id":"evt_'), len('{"event_id":"evt_') + 32)
_WHOLE_ID = slice(_ID.start - len("evt_"), _ID.stop)
_EVENT_ID = re.compile("evt_([0-9a-f]{12})7([0-9a-f]{3}[89ab][0-9a-f]{7})([0-9a-f]{8})")

_WRITER_BITS = 42
_VARIANT = 0b10 << 30
_30_BITS = (1 << 30) - 1
_MAX_BLOCK = (1 << 24) - 1
_NEVER = -(1 << 62)


class EventId(NamedTuple):
    """The parts of an event id of this library.

    Attributes:
        millisecond: The time in milliseconds since 1970; later than the event's if the clock stepped back.
        writer: The 11 hex digits of the writer: one process life appending to a trail.
        number: The sequence number of the line within its writer, from 0.
    """

    millisecond: int
    writer: str
    number: int


def parse_event_id(event_id: str) -> EventId | None:
    """Return the parts of *event_id*, or None if it has another form."""
    found = _EVENT_ID.fullmatch(event_id) if isinstance(event_id, str) else None
    if found is None:
        return None
    return EventId(int(found[1], 16), found[2], int(found[3], 16))


def millisecond_of(event_id: str) -> int | None:
    """Return the milliseconds since 1970 in *event_id*, or None if it has another form."""
    parts = parse_event_id(event_id)
    return None if parts is None else parts.millisecond


def id_of_line(line: bytes) -> str:
    """Return the id of an event from its *line*, which a `Stamp` made."""
    return line[_WHOLE_ID].decode()


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

        # The parts of an id: milliseconds, writer, and the sequence number as a block number (24 bits) and a count (8 bits).
        # A writer is None until its first line.
        self._id_millisecond = -1
        self._writer: tuple[int, int] | None = None
        self._block = 0
        self._count = 0

        # The last second that was formatted, and its text.
        self._second: tuple[int | None, str] = (None, "")

        self.timestamp_us = 0
        """The timestamp of the last line, in microseconds since 1970."""

    def renew(self) -> None:
        """Begin a new writer with the next line.

        Call this if sequence numbers were used for lines that are not written: the writer would have a gap.
        """
        self._writer = None
        self._format_begin = _NEVER

    def sibling(self) -> Stamp:
        """Return the source for another writer, with the same clock and random bits."""
        return type(self)(self._clock, self._randbits)

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

    def open_line(self) -> tuple[bytes, bytes]:
        """Return the parts of a line around a payload that is not known yet, without the payload's closing brace.

        The id and the time are those of this call.
        """
        return self.line(b"")[:-1], b"}\n"

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
        self._id_millisecond = max(millisecond, self._id_millisecond)

        if self._count > 255:
            self._block, self._count = self._block + 1, 0
        is_used_up = self._block > _MAX_BLOCK
        writer = self._new_writer() if self._writer is None or is_used_up else self._writer

        second, rest = divmod(millisecond, 1_000)
        if second != self._second[0]:
            text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second, text

        line = _LINE.format(self._id_millisecond, *writer, self._block, self._second[1], rest)
        self._format = line.encode()
        self._format_begin = timestamp_us - microsecond

    def _new_writer(self) -> tuple[int, int]:
        """Begin a new writer with the sequence number 0, and return its two parts."""
        bits = self._randbits(_WRITER_BITS)
        writer = bits >> 30, _VARIANT | bits & _30_BITS

        # The writer last: if a signal handler raises before that, the next line begins another one.
        self._block, self._count = 0, 0
        self._writer = writer
        return writer
