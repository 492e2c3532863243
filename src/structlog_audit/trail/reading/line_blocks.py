"""Whole lines from bytes, in blocks, forwards and backwards. The content of a line matters only where it marks parts.

**Guarantees.** Only bytes that end in LF are a line, because another writer's line can be seen half written. A block holds
whole events: a first line and the lines of its parts are in one block. In a file that is still *open* to writers, a last
event of which only some parts are there is held back; with no part at all it may come from an export, where an event is one
line. Bytes that are held back are passed to `ReportRest`. Offsets count decompressed bytes.

**Performance.** A block is about `BLOCK_BYTES`, or one event. A line longer than `MAX_LINE_BYTES` is left out without ever
being in memory ("gzip bomb"); an event longer than `MAX_EVENT_BYTES` comes in several blocks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple, Protocol

import msgspec

from structlog_audit.trail.reading.problems import ProblemCallback

BLOCK_BYTES = 65_536
"""The number of bytes read at once. Decoded events take about ten times that; larger blocks are slower because of the
processor's cache and the garbage collector."""

MAX_LINE_BYTES = 16_777_216
"""The length of the longest line that is read. A recorded line has at most ``max_event_bytes``, by default 32,000."""

MAX_EVENT_BYTES = 4 * MAX_LINE_BYTES
"""The length of the longest event, with its parts, that is held as one block."""

_PART_MARK = b'"part_of":'
_PROMISE = re.compile(rb'"entry_ids": ?"[^"]*continued in (\d{1,9}) parts"')
_CONTINUED = re.compile(r"continued in (\d{1,9}) parts$")

# In a line that is too long to be held, the mark of a part is searched in this many bytes.
_PART_MARK_BYTES = 4_096

ReportRest = Callable[[int, int], None]
"""Takes the offset and the size in bytes of an unfinished end."""


class Readable(Protocol):
    """A forward-only byte stream."""

    def read(self, size: int, /) -> bytes: ...


class Seekable(Readable, Protocol):
    """A byte stream that can be read from any offset."""

    def seek(self, offset: int, /) -> int: ...


class LineBlock(NamedTuple):
    """Consecutive whole lines, or some of them."""

    start: int
    """The offset of the first line."""
    data: bytes
    """The lines, each with its LF."""
    selected: tuple[Sequence[int], int] | None = None
    """If lines are left out: the offset of each line that is there, and the offset after the last line of all."""

    @property
    def stop(self) -> int:
        """The offset after the last line."""
        return self.start + len(self.data) if self.selected is None else self.selected[1]

    def select(self, spans: Sequence[tuple[int, int]]) -> LineBlock:
        """Return the block with the lines at *spans* only: where in the data each begins and ends."""
        data = b"".join([self.data[start:stop] for start, stop in spans])
        starts = [self.start + start for start, _ in spans]
        return LineBlock(self.start, data, (starts, self.stop))

    def offsets(self, lines: Sequence[bytes]) -> Sequence[int]:
        """Return the offset of each of *lines*, which are those of the block."""
        if self.selected is not None:
            return self.selected[0]
        sizes = (len(line) + 1 for line in lines[:-1])
        return list(accumulate(sizes, initial=self.start))

    def lines(self) -> list[bytes]:
        """Return the lines without their LFs, empty lines included."""
        lines = self.data.split(b"\n")
        lines.pop()
        return lines


class _Marks(msgspec.Struct, gc=False):
    """What *_audit* in the metadata says about an event."""

    entry_ids: str | None = None


class _Metadata(msgspec.Struct, gc=False):
    audit: _Marks | None = msgspec.field(default=None, name="_audit")


class _First(msgspec.Struct, gc=False):
    """The member of the first line of an event that may promise parts."""

    metadata: _Metadata | None = None


class _Part(msgspec.Struct, gc=False):
    """The member that a part of an event has."""

    part_of: str | None = None


_decode_first = msgspec.json.Decoder(_First).decode
_decode_part = msgspec.json.Decoder(_Part).decode


def is_part(line: bytes) -> bool:
    """Return whether *line* may continue the event before it."""
    if _PART_MARK not in line:
        return False

    # A member of the metadata can have the same name.
    try:
        return _decode_part(line).part_of is not None
    except (msgspec.DecodeError, RecursionError):
        return True


def promised_parts(line: bytes) -> int:
    """Return the number of parts that follow the first line *line* of an event."""
    promise = _PROMISE.search(line)
    if promise is None:
        return 0

    # Only the library's own mark is a promise, not a text like it in the metadata of the application.
    try:
        metadata = _decode_first(line).metadata
    except (msgspec.DecodeError, RecursionError):
        return int(promise[1])

    marks = metadata.audit if metadata is not None else None
    entry_ids = marks.entry_ids if marks is not None else None
    own = _CONTINUED.search(entry_ids or "")
    return int(own[1]) if own else 0


def read_forwards(
    file: Readable, start: int, stop: int | None, report: ProblemCallback, report_rest: ReportRest, *, is_open: bool
) -> Iterator[LineBlock]:
    """Yield the blocks of *file*, oldest first.

    Args:
        file: Positioned at *start*.
        start: The offset of the first byte.
        stop: The offset at which to end; None means the end of the file.
        report: Receives findings.
        report_rest: Receives the unfinished end, if there is one.
        is_open: Whether a writer may still append to the file.
    """
    assembler = _BlockAssembler(start, report)
    while True:
        size = max(BLOCK_BYTES, assembler.held_bytes)
        if stop is not None:
            size = min(size, stop - assembler.position)
        if size <= 0:
            break
        data = file.read(size)
        if not data:
            break
        yield from assembler.feed(data)

    yield from assembler.flush(is_open=is_open)

    end = assembler.position
    rest_size = end - assembler.start
    if rest_size:
        report_rest(assembler.start, rest_size)
    if stop is not None and end < stop:
        report("truncated", end, f"the file became shorter than {stop} bytes")


class _BlockAssembler:
    """Joins consecutive chunks of bytes into blocks of whole events.

    Invariant: the bytes from `start` to `position` were fed and not yielded yet. They are held in memory, except those
    of a line that is too long, which are only counted.
    """

    def __init__(self, start: int, report: ProblemCallback) -> None:
        self.start = start
        self._report = report
        self._held = b""
        self._too_long_bytes = 0

    @property
    def held_bytes(self) -> int:
        """The number of bytes in memory."""
        return len(self._held)

    @property
    def position(self) -> int:
        """The offset of the next byte to feed."""
        return self.start + self._too_long_bytes + len(self._held)

    def feed(self, data: bytes) -> Iterator[LineBlock]:
        """Add *data*, and yield the events that are whole now."""
        if self._too_long_bytes:
            data = self._skip_long_line(data)

        # Joined in one step: each copy of a block takes a tenth of the time of decoding it.
        end_of_lines = data.rfind(b"\n") + 1
        lines = b"".join((self._held, memoryview(data)[:end_of_lines]))
        rest = data[end_of_lines:]

        end = _end_of_events(lines, at_end=False)
        if end and end == len(lines):
            block = LineBlock(self.start, lines)
            self.start += end
            self._held = rest
            yield from _without_long_lines(block, self._report)
            return

        self._held = lines + rest
        if not end and len(self._held) > MAX_LINE_BYTES:
            end = self._make_room()
        yield from self._take(end)

    def flush(self, *, is_open: bool) -> Iterator[LineBlock]:
        """Yield the remaining events at the end of the file. If it *is open*, incomplete ones are held back."""
        end = _end_of_events(self._held, at_end=True) if is_open else self._held.rfind(b"\n") + 1
        yield from self._take(end)

    def _skip_long_line(self, data: bytes) -> bytes:
        """Count the bytes of *data* that belong to the long line, and return those after it."""
        end = data.find(b"\n") + 1
        if not end:
            self._too_long_bytes += len(data)
            return b""

        length = self._too_long_bytes + end
        self._report("too_long", self.start, f"a line of {length} bytes")
        self.start += length
        self._too_long_bytes = 0
        return data[end:]

    def _make_room(self) -> int:
        """Return up to where the held bytes must be yielded although the event there is not whole."""
        end = self._held.rfind(b"\n") + 1
        if not end:
            self._too_long_bytes = len(self._held)
            self._held = b""
            return 0
        return end if len(self._held) > MAX_EVENT_BYTES else 0

    def _take(self, end: int) -> Iterator[LineBlock]:
        if not end:
            return
        block = LineBlock(self.start, self._held[:end])
        self.start += end
        self._held = self._held[end:]
        yield from _without_long_lines(block, self._report)


def read_backwards(
    file: Seekable, start: int, stop: int, report: ProblemCallback, report_rest: ReportRest, *, is_open: bool
) -> Iterator[LineBlock]:
    """Yield the blocks of *file* between *start* and *stop*, newest first. Other arguments as of `read_forwards`."""
    upper = end_of_events(file, start, stop, is_open=is_open)
    if upper < stop:
        report_rest(upper, stop - upper)

    size = BLOCK_BYTES
    while upper > start:
        lower = max(start, upper - size)
        data = read_at(file, lower, upper)
        begin = 0 if lower == start else _begin_of_events(data)

        if begin < len(data):
            block = LineBlock(lower + begin, data[begin:])
            yield from reversed(list(_without_long_lines(block, report)))
            upper = lower + begin
            size = BLOCK_BYTES
        elif size <= MAX_EVENT_BYTES:
            size *= 2
        else:
            # One line, or one event, is too long to be held.
            begin = _begin_before(file, start, lower)
            file.seek(begin)
            yield from read_forwards(file, begin, upper, report, report_rest, is_open=False)
            upper = begin
            size = BLOCK_BYTES


def read_at(file: Seekable, start: int, stop: int) -> bytes:
    """Return the bytes of *file* from *start* to *stop*, or to the end of the file if that is earlier."""
    file.seek(start)
    data = b""
    while len(data) < stop - start:
        more = file.read(stop - start - len(data))
        if not more:
            break
        data = data + more if data else more
    return data


def skip(file: Readable, size: int) -> None:
    """Read and discard *size* bytes of *file*, or all of it if it is shorter."""
    while size > 0:
        data = file.read(min(size, BLOCK_BYTES))
        if not data:
            return
        size -= len(data)


def end_of_events(file: Seekable, start: int, stop: int, *, is_open: bool) -> int:
    """Return where the last event of *file* between *start* and *stop* ends; if it *is open*, the last whole event."""
    return _end_of_whole_events(file, start, stop) if is_open else _end_of_lines(file, start, stop)


def _end_of_events(data: bytes, *, at_end: bool) -> int:
    """Return where the last whole event in *data* ends; 0 without one.

    *at_end* states that *data* reaches to the end of the file, so that no more parts are there.
    """
    end = stop = data.rfind(b"\n") + 1
    parts = 0
    while end:
        begin = data.rfind(b"\n", 0, end - 1) + 1
        line = data[begin:end]
        if not is_part(line):
            may_continue = parts or stop < len(data) or not at_end
            is_incomplete = may_continue and promised_parts(line) > parts
            return begin if is_incomplete else stop
        parts += 1
        end = begin
    return 0


def _begin_of_events(data: bytes) -> int:
    """Return where the first event in *data* begins that cannot have begun before *data*; its length if none does."""
    begin = data.find(b"\n") + 1
    while begin and begin < len(data):
        end = data.find(b"\n", begin) + 1
        if not is_part(data[begin : end or len(data)]):
            return begin
        begin = end
    return len(data)


def _end_of_lines(file: Seekable, start: int, stop: int) -> int:
    """Return where the last line of *file* between *start* and *stop* ends."""
    while stop > start:
        lower = max(start, stop - BLOCK_BYTES)
        newline = read_at(file, lower, stop).rfind(b"\n")
        if newline >= 0:
            return lower + newline + 1
        stop = lower
    return start


def _end_of_whole_events(file: Seekable, start: int, stop: int) -> int:
    """Return where the last whole event of *file* between *start* and *stop* ends."""
    size = BLOCK_BYTES
    while stop - size > start and size <= 2 * MAX_EVENT_BYTES:
        data = read_at(file, stop - size, stop)
        begin = _begin_of_events(data)
        if begin < data.rfind(b"\n"):
            end = begin + _end_of_events(data[begin:], at_end=True)
            return stop - len(data) + end
        size *= 2

    if stop - size > start:
        # The last event is too long to be held.
        return _end_of_lines(file, start, stop)
    data = read_at(file, start, stop)
    return start + _end_of_events(data, at_end=True)


def _begin_before(file: Seekable, start: int, stop: int) -> int:
    """Return where the last event begins that begins between *start* and *stop*. Holds no more than a block."""
    while stop > start:
        lower = max(start, stop - BLOCK_BYTES)
        data = read_at(file, lower, stop + _PART_MARK_BYTES)
        newline = data.rfind(b"\n", 0, stop - lower)

        while newline >= 0:
            begin = newline + 1
            line = data[begin : begin + _PART_MARK_BYTES].partition(b"\n")[0]
            if not is_part(line):
                return lower + begin
            newline = data.rfind(b"\n", 0, newline)

        stop = lower
    return start


def _without_long_lines(block: LineBlock, report: ProblemCallback) -> Iterator[LineBlock]:
    """Yield *block*, or the pieces of it that remain without the lines that are too long."""
    if len(block.data) <= MAX_LINE_BYTES:
        yield block
        return

    begin = end = 0
    for line in block.lines():
        size = len(line) + 1
        if len(line) > MAX_LINE_BYTES:
            report("too_long", block.start + end, f"a line of {size} bytes")
            if begin < end:
                yield LineBlock(block.start + begin, block.data[begin:end])
            begin = end + size
        end += size

    if begin < end:
        yield LineBlock(block.start + begin, block.data[begin:end])
