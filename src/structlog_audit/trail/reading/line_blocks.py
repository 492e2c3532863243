"""From bytes to whole lines, in blocks, forwards and backwards. Nothing here knows what a line says, but for parts.

Rules:

* Only what ends in LF is a line: another writer's line can be seen half written. So can the parts of an event: in a file
  that is still *open* to writers, the last event waits while some of the parts that it promises are there, or the beginning of
  one, and not all. (If none is, it may come from an export, where an event is one line.) What waits is told to `Rest`.
* A block holds whole events: a first line and the lines of its parts are in one block.
* Memory is bounded: a block is about `BLOCK_BYTES`, or one event. A line longer than `MAX_LINE_BYTES` is left out, without
  ever being in memory (a "gzip bomb"); an event of more than `MAX_EVENT_BYTES` comes in pieces.
* Offsets count bytes of what was unpacked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol

from structlog_audit.trail.reading.problems import Report

BLOCK_BYTES = 65_536
"""Bytes that are read at once. Their events take some ten times that in memory; of larger blocks, the cache and the garbage
collector see too much."""

MAX_LINE_BYTES = 16_777_216
"""Bytes of the longest line that is read. Lines of ours have 32,000 at most unless ``max_event_bytes`` says otherwise."""

MAX_EVENT_BYTES = 4 * MAX_LINE_BYTES
"""Bytes of an event with its parts."""

_PART = b'"part_of":'
_LOOK = (
    4_096  # bytes of a line, at most, in which the mark of a part is looked for where the line is too long to be held
)
_PROMISE = re.compile(rb'"entry_ids": ?"[^"]*continued in (\d{1,9}) parts"')

Rest = Callable[[int, int], None]
"""Takes the offset of what is not whole at the end, and how many bytes it has."""


class Readable(Protocol):
    """What is read from its beginning on."""

    def read(self, size: int, /) -> bytes: ...


class Seekable(Readable, Protocol):
    """What is read anywhere."""

    def seek(self, offset: int, /) -> int: ...


class Block(NamedTuple):
    """Some lines, one behind the other."""

    start: int
    """The offset of the first one."""
    data: bytes
    """The lines, each with its LF."""

    @property
    def stop(self) -> int:
        """The offset behind the last one."""
        return self.start + len(self.data)

    def lines(self) -> list[bytes]:
        """The lines without their LFs; empty ones too."""
        lines = self.data.split(b"\n")
        lines.pop()
        return lines


def is_part(line: bytes) -> bool:
    """Whether *line* may go on with the event before it."""
    return _PART in line


def promised_parts(line: bytes) -> int:
    """In how many parts the event with the first line *line* goes on."""
    found = _PROMISE.search(line)
    return int(found[1]) if found else 0


def forwards(
    file: Readable, start: int, stop: int | None, report: Report, rest: Rest, *, is_open: bool
) -> Iterator[Block]:
    """The blocks of *file*, which stands at *start*, up to *stop* or, if that is None, to its end."""
    at, held, long = (
        start,
        b"",
        0,
    )  # held: what was read from `at` on and not given yet, behind `long` bytes of a long line
    while True:
        size = max(BLOCK_BYTES, len(held))
        size = size if stop is None else min(size, stop - at - long - len(held))
        data = file.read(size) if size > 0 else b""
        if not data:
            break
        if long:
            end = data.find(b"\n") + 1
            long += end or len(data)
            if not end:
                continue
            report("too_long", at, f"a line of {long} bytes")
            at, long, data = at + long, 0, data[end:]
        held += data
        end = _end_of_events(held, at_end=False)
        if not end and len(held) > MAX_LINE_BYTES:
            end = held.rfind(b"\n") + 1
            if not end:
                long, held = len(held), b""
            elif len(held) <= MAX_EVENT_BYTES:
                end = 0
        if end:
            yield from _without_long_lines(Block(at, held[:end]), report)
            at, held = at + end, held[end:]
    end = _end_of_events(held, at_end=True) if is_open else held.rfind(b"\n") + 1
    if end:
        yield from _without_long_lines(Block(at, held[:end]), report)
    left = long + len(held) - end
    if left:
        rest(at + end, left)
    if stop is not None and at + end + left < stop:
        report("truncated", at + end + left, f"the file became shorter than {stop} bytes")


def backwards(file: Seekable, start: int, stop: int, report: Report, rest: Rest, *, is_open: bool) -> Iterator[Block]:
    """The blocks of *file* between *start* and *stop*, the last one first."""
    upper = end_of_events(file, start, stop, is_open=is_open)
    if upper < stop:
        rest(upper, stop - upper)
    size = BLOCK_BYTES
    while upper > start:
        lower = max(start, upper - size)
        data = read_at(file, lower, upper)
        begin = 0 if lower == start else _begin_of_events(data)
        if begin < len(data):
            yield from reversed(list(_without_long_lines(Block(lower + begin, data[begin:]), report)))
            upper, size = lower + begin, BLOCK_BYTES
        elif size <= MAX_EVENT_BYTES:
            size *= 2
        else:  # one line, or one event, that is too long to be held
            begin = _begin_before(file, start, lower)
            file.seek(begin)
            yield from forwards(file, begin, upper, report, rest, is_open=False)
            upper, size = begin, BLOCK_BYTES


def read_at(file: Seekable, start: int, stop: int) -> bytes:
    """The bytes of *file* from *start* to *stop*, or to its end."""
    file.seek(start)
    data = b""
    while len(data) < stop - start and (more := file.read(stop - start - len(data))):
        data = data + more if data else more
    return data


def skip(file: Readable, size: int) -> None:
    """Read *size* bytes of *file*, or to its end, and forget them."""
    while size > 0 and (data := file.read(min(size, BLOCK_BYTES))):
        size -= len(data)


def _end_of_events(data: bytes, *, at_end: bool) -> int:
    """Where the last event in *data* that is whole ends; 0 if none is. *At the end* of a file no more parts are there."""
    end = stop = data.rfind(b"\n") + 1
    parts = 0
    while end:
        begin = data.rfind(b"\n", 0, end - 1) + 1
        line = data[begin:end]
        if not is_part(line):
            waits = promised_parts(line) > parts and (parts or stop < len(data) or not at_end)
            return begin if waits else stop
        parts += 1
        end = begin
    return 0


def _begin_of_events(data: bytes) -> int:
    """Where the first event in *data* begins that may not have begun before it; its length if none does."""
    begin = data.find(b"\n") + 1
    while begin and begin < len(data):
        end = data.find(b"\n", begin) + 1
        if not is_part(data[begin : end or len(data)]):
            return begin
        begin = end
    return len(data)


def end_of_events(file: Seekable, start: int, stop: int, *, is_open: bool) -> int:
    """Where the last event of *file* between *start* and *stop* ends, if the file *is open* the last whole one."""
    return _end_of_whole_events(file, start, stop) if is_open else _end_of_lines(file, start, stop)


def _end_of_lines(file: Seekable, start: int, stop: int) -> int:
    """Where the last line of *file* between *start* and *stop* ends."""
    while stop > start:
        lower = max(start, stop - BLOCK_BYTES)
        found = read_at(file, lower, stop).rfind(b"\n")
        if found >= 0:
            return lower + found + 1
        stop = lower
    return start


def _end_of_whole_events(file: Seekable, start: int, stop: int) -> int:
    """Where the last whole event of *file* between *start* and *stop* ends."""
    size = BLOCK_BYTES
    while stop - size > start and size <= 2 * MAX_EVENT_BYTES:
        data = read_at(file, stop - size, stop)
        begin = _begin_of_events(data)
        if begin < data.rfind(b"\n"):
            return stop - len(data) + begin + _end_of_events(data[begin:], at_end=True)
        size *= 2
    if stop - size > start:
        return _end_of_lines(file, start, stop)
    return start + _end_of_events(read_at(file, start, stop), at_end=True)


def _begin_before(file: Seekable, start: int, stop: int) -> int:
    """Where the last event of *file* begins that begins between *start* and *stop*. Holds nothing longer than a block."""
    while stop > start:
        lower = max(start, stop - BLOCK_BYTES)
        data = read_at(file, lower, stop + _LOOK)
        end = stop - lower
        while (end := data.rfind(b"\n", 0, end)) >= 0:
            if not is_part(data[end + 1 : end + 1 + _LOOK].partition(b"\n")[0]):
                return lower + end + 1
        stop = lower
    return start


def _without_long_lines(block: Block, report: Report) -> Iterator[Block]:
    """*block*, in pieces without the lines in it that are too long."""
    if len(block.data) <= MAX_LINE_BYTES:
        yield block
        return
    begin = end = 0
    for line in block.lines():
        if len(line) > MAX_LINE_BYTES:
            report("too_long", block.start + end, f"a line of {len(line) + 1} bytes")
            if begin < end:
                yield Block(block.start + begin, block.data[begin:end])
            begin = end + len(line) + 1
        end += len(line) + 1
    if begin < end:
        yield Block(block.start + begin, block.data[begin:end])
