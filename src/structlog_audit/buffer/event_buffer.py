"""The newest events, in memory: bounded, and quick to ask.

Rules:

* The buffer keeps lines, as they were written. An event is decoded when somebody asks for it; that takes a fifth of the
  memory of objects, and what a caller does to an event changes nothing here.
* At most ``max_events`` events are held. The oldest makes room for the newest; its memory goes with its chunk.
* Positions number the events in the order of commit; they only grow, so a position means the same for ever.
* The newest lines are in a list, each with its moment behind it; a full list becomes a chunk, which never changes.
* One thread at a time appends (the commit's leader), and readers never hold it up: there is no lock between them. A list
  only grows, and chunks and list are replaced as a whole, so what a reader has got stays true. A reader gets them once:
  which events are held follows from them, not from attributes that the writer changes meanwhile.
* A query sees the events that were there when it began.
* An exception that a signal handler raises may end `append` anywhere, and whoever called it calls again: a line and its moment
  are put into the list in one step, and the same line twice in a row is one event.
"""

from __future__ import annotations

import datetime as dt
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate, chain
from typing import Any

from structlog_audit.buffer.index import Index
from structlog_audit.buffer.running_statistics import RunningStatistics
from structlog_audit.events.codec import HEAD_BYTES, StoredEvent, decode, encode_text
from structlog_audit.query.filters import Conditions

_LARGEST_CHUNK = 1_024

_LONG_AGO = -(2**63)

Growing = list[Any]
"""The newest lines, each with its moment, in microseconds since 1970, behind it."""


class Chunk:
    """Lines of neighbouring events that have *grown*, the first of which is at the position *start*."""

    __slots__ = ("_ids", "data", "ends", "moments", "start")

    def __init__(self, start: int, grown: Growing) -> None:
        self.start = start
        self.data = b"".join(grown[::2])
        self.ends = array("Q", accumulate(map(len, grown[::2])))  # of the lines in the data
        self.moments = array("q", grown[1::2])
        self._ids: tuple[bytes, bytes] | None = None

    def line(self, number: int) -> bytes:
        """The line or lines of the event with this *number*, from 0."""
        return self.data[self.ends[number - 1] if number else 0 : self.ends[number]]

    def position_of(self, start_of_line: bytes) -> int | None:
        """The position of the event whose line begins like this: as much as the whole id."""
        if self._ids is None:
            heads = [self.data[end : end + HEAD_BYTES] for end in (0, *self.ends[:-1])]
            self._ids = min(heads), max(heads)
        least, most = self._ids
        if not least[: len(start_of_line)] <= start_of_line <= most:
            return None
        found = self.data.find(start_of_line)
        return None if found < 0 else self.start + bisect_right(self.ends, found)


class BufferSnapshot:
    """What a reader has got: the events at the positions ``first <= position < stop``."""

    __slots__ = ("chunks", "first", "growing", "start", "stop")

    def __init__(self, chunks: tuple[Chunk, ...], growing: Growing, start: int, max_events: int, cleared: int) -> None:
        self.chunks = chunks
        self.growing = growing
        self.start = start  # of the growing ones
        self.stop = start + len(growing) // 2
        self.first = max(cleared, self.stop - max_events, chunks[0].start if chunks else start)

    def line(self, position: int) -> bytes:
        """The line at *position*: all chunks have the same size."""
        if position >= self.start:
            return self.growing[2 * (position - self.start)]  # type: ignore[no-any-return]
        chunks = self.chunks
        size = len(chunks[0].ends)
        number, rest = divmod(position - chunks[0].start, size)
        return chunks[number].line(rest)

    def each(self, positions: Iterable[int]) -> Iterator[bytes]:
        """The lines at those of *positions* that are held, in their order: what `line` does, many times over."""
        first, start, stop, growing, chunks = self.first, self.start, self.stop, self.growing, self.chunks
        begin, size = (chunks[0].start, len(chunks[0].ends)) if chunks else (start, 1)
        for position in positions:
            if not first <= position < stop:
                continue
            if position >= start:
                yield growing[2 * (position - start)]
            else:
                number, rest = divmod(position - begin, size)
                chunk = chunks[number]
                yield chunk.data[chunk.ends[rest - 1] if rest else 0 : chunk.ends[rest]]

    def lines(self, start: int, stop: int) -> bytes:
        """Those of the events at ``start <= position < stop``, one after the other."""
        found: list[bytes] = []
        for chunk in self._chunks(start, stop):
            ends, first = chunk.ends, max(0, start - chunk.start)
            found.append(chunk.data[ends[first - 1] if first else 0 : ends[min(stop - chunk.start, len(ends)) - 1]])
        return b"".join(found + self._grown(start, stop)[::2])

    def _chunks(self, start: int, stop: int) -> tuple[Chunk, ...]:
        """Those that have any of the events at ``start <= position < stop``: all chunks have the same size."""
        if not self.chunks:
            return ()
        size, begin = len(self.chunks[0].ends), self.chunks[0].start
        return self.chunks[max(0, start - begin) // size : max(0, -(-(stop - begin) // size))]

    def moments(self, start: int, stop: int) -> list[int]:
        """The moments of the events at ``start <= position < stop``."""
        found: list[int] = []
        for chunk in self._chunks(start, stop):
            found += chunk.moments[max(0, start - chunk.start) : stop - chunk.start]
        return found + self._grown(start, stop)[1::2]

    def _grown(self, start: int, stop: int) -> Growing:
        """What of the growing ones is at ``start <= position < stop``."""
        return self.growing[2 * max(0, start - self.start) : 2 * max(0, stop - self.start)]

    def positions_of(self, event_ids: Iterable[str | None]) -> list[int]:
        """Where the events with these ids are. Ids increase, but for those of other writers: that leaves few chunks."""
        found = []
        for event_id in event_ids:
            start_of_line = f'{{"event_id":{encode_text(event_id or "")},'.encode()
            found += [place for chunk in self.chunks if (place := chunk.position_of(start_of_line)) is not None]
            lines = enumerate(self._grown(self.start, self.stop)[::2], self.start)
            found += [place for place, line in lines if line.startswith(start_of_line)]
        return sorted(found)


class EventBuffer:
    """The newest *max_events* lines."""

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._full = 2 * min(_LARGEST_CHUNK, max(1, max_events // 8))  # a list that is as long becomes a chunk
        self._parts: tuple[tuple[Chunk, ...], Growing, int] = ((), [], 0)
        self._cleared = 0  # position before which everything was cleared
        self._cleared_away = 0  # how many events were
        self._dropped_until = _LONG_AGO  # the latest moment in chunks that are gone
        self._index = Index(max_events)
        self._tally = RunningStatistics()
        self._index_lock = threading.RLock()
        self._indexing = False  # a signal handler that asks in the middle of it must do without the index

    def __len__(self) -> int:
        held = self._held()
        return held.stop - held.first

    @property
    def evicted(self) -> int:
        """How many events made room for newer ones."""
        return self._held().first - self._cleared_away

    def append(self, line: bytes, moment: int) -> None:
        """Take the next event: its line or lines, and its time in microseconds since 1970. O(1). One thread at a time."""
        growing = self._parts[1]
        size = len(growing)
        if size:
            if growing[size - 2] is line:
                return
            if size == self._full:
                growing = self._begin_chunk()
        growing.extend((line, moment))

    def _begin_chunk(self) -> Growing:
        """Make a chunk of the lines that have grown, and drop those of which no event is held."""
        chunks, grown, start = self._parts
        stop = start + len(grown) // 2
        first = max(self._cleared, stop - self._max_events)
        kept = [*chunks, Chunk(start, grown)]
        while kept and kept[0].start + len(kept[0].ends) <= first:
            self._dropped_until = max(self._dropped_until, *kept.pop(0).moments)
        growing: Growing = []
        self._parts = (tuple(kept), growing, stop)
        return growing

    def clear(self) -> None:
        """Forget the events held now. An event that comes meanwhile is kept."""
        with self._index_lock:
            held = self._held()
            self._cleared = held.stop
            self._cleared_away += held.stop - held.first
            if not self._indexing:
                self._index.forget(held.stop)

    def mark_incomplete_until(self, moment: int) -> None:
        """Say that events up to *moment* (microseconds since 1970) are not here, though they may have happened."""
        self._dropped_until = max(self._dropped_until, moment)

    @property
    def complete_since(self) -> dt.datetime | None:
        """From when on answers are complete: a microsecond after the latest event forgotten; None if none was."""
        held = self._held()
        oldest = held.chunks[0].start if held.chunks else held.start
        until = max([self._dropped_until, *held.moments(oldest, held.first)])
        return None if until == _LONG_AGO else _time(until + 1)

    def select(self, asked: Conditions, *, newest_first: bool) -> Iterator[StoredEvent]:
        """The events that match *asked*. O(log n) and the places that its rarest filter leaves."""
        held, candidates = self._candidates(asked, newest_first)
        for line in held.each(chain.from_iterable(candidates)):
            event = decode(line)
            if asked.matches(event):
                yield event

    def _candidates(self, asked: Conditions, newest_first: bool) -> tuple[BufferSnapshot, Iterable[Iterable[int]]]:
        """What is held, and the positions, in the order asked for, among which are all events of it that match *asked*."""
        event_ids = dict(asked.names).get("event_id")
        if event_ids is not None:
            held = self._held()
            found = held.positions_of(event_ids)
            return held, (found[::-1] if newest_first else found,)
        with self._index_lock:
            if not self._indexing:
                self._indexing = True
                try:
                    held = self._held()  # not before: another thread or a signal handler may have indexed newer events
                    self._catch_up(held, asked)
                    return held, self._index.candidates(asked, newest_first=newest_first)
                finally:
                    self._indexing = False
        held = self._held()
        everything = range(held.first, held.stop)
        return held, (reversed(everything) if newest_first else everything,)

    def statistics(self) -> dict[str, Any]:
        """The statistics of all ordinary events held: O(1) but for events that came or went since the last time."""
        with self._index_lock:
            tally, self._tally = (
                self._tally,
                RunningStatistics(),
            )  # a signal handler that asks or ends this meanwhile counts anew
            held = self._held()  # not before: what such a handler counted is held
            tally.forget(held.first)
            for start in range(max(held.first, tally.stop), held.stop, _LARGEST_CHUNK):
                stop = min(start + _LARGEST_CHUNK, held.stop)
                tally.extend(start, [decode(held.line(position)) for position in range(start, stop)])
            found = tally.statistics(lambda position: _time(held.moments(position, position + 1)[0]))
            self._tally = tally
            return found

    def _held(self) -> BufferSnapshot:
        cleared = self._cleared  # before the events: one that is cleared meanwhile is still seen
        return BufferSnapshot(*self._parts, self._max_events, cleared)

    def _catch_up(self, held: BufferSnapshot, asked: Conditions) -> None:
        """Index what has come since the last time, a run at a time, and what nobody has asked for before."""
        index = self._index
        index.forget(held.first)
        index.use(asked, held.first, held)
        start = max(held.first, index.stop)
        while start < held.stop:
            stop = min(start + index.room(start), held.stop)
            index.extend(start, held.moments(start, stop), held)
            start = stop


def _time(moment: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=moment)
