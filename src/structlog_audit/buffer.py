"""The newest events, in memory: bounded, and quick to ask.

Rules:

* The buffer keeps lines, as they were written, one behind the other in chunks. An event is decoded when somebody asks for
  it; that takes a fifth of the memory of objects, and what a caller does to an event changes nothing here.
* At most ``max_events`` events are held. The oldest makes room for the newest; its memory goes with its chunk.
* Positions number the events in the order of commit; they only grow, so a position means the same for ever.
* One thread at a time appends (the commit's leader), and readers never hold it up: there is no lock between them. A chunk
  only grows, and the tuple of chunks is replaced as a whole, so what a reader has got stays true. A reader gets it once:
  which events are held follows from the chunks, not from attributes that the writer changes meanwhile.
* A query sees the events that were there when it began.
"""

from __future__ import annotations

import datetime as dt
import threading
from array import array
from collections.abc import Iterable, Iterator

from structlog_audit.codec import StoredEvent, decode
from structlog_audit.index import Index
from structlog_audit.query import Conditions

_LARGEST_CHUNK = 1_024

_LONG_AGO = -(2**63)


class Chunk:
    """Lines of neighbouring events, the first of which is at the position *start*."""

    __slots__ = ("data", "ends", "moments", "start")

    def __init__(self, start: int) -> None:
        self.start = start
        self.data = bytearray()
        self.ends = array("Q")  # of the lines in the data
        self.moments = array("q")  # of the events, in microseconds since 1970

    def line(self, position: int) -> bytearray:
        """The line or lines of the event at *position*, which is here."""
        number = position - self.start
        return self.data[self.ends[number - 1] if number else 0 : self.ends[number]]


class Buffer:
    """The newest *max_events* lines."""

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._chunk_size = min(_LARGEST_CHUNK, max(1, max_events // 8))
        self._chunk = Chunk(0)  # the one that grows
        self._chunks: tuple[Chunk, ...] = (self._chunk,)
        self._next = 0  # position that the next event gets
        self._cleared = 0  # position before which everything was cleared
        self._cleared_away = 0  # how many events were
        self._dropped_until = _LONG_AGO  # the latest moment in chunks that are gone
        self._index = Index(max_events)
        self._index_lock = threading.RLock()
        self._indexing = False  # a signal handler that asks in the middle of it must do without the index

    def __len__(self) -> int:
        return self._next - self._first

    @property
    def _first(self) -> int:
        """The position of the oldest event that is held."""
        return max(self._cleared, self._next - self._max_events)

    @property
    def evicted(self) -> int:
        """How many events made room for newer ones."""
        return self._first - self._cleared_away

    def append(self, line: bytes, moment: int) -> None:
        """Take the next event: its line or lines, and its time in microseconds since 1970. O(1). One thread at a time."""
        chunk = self._chunk
        chunk.data += line
        chunk.ends.append(len(chunk.data))
        chunk.moments.append(moment)
        self._next += 1
        if len(chunk.ends) == self._chunk_size:
            self._begin_chunk()

    def _begin_chunk(self) -> None:
        """Begin a chunk, and drop those of which no event is held."""
        self._chunk = Chunk(self._next)
        first = self._first
        for chunk in self._chunks:
            if chunk.start + len(chunk.ends) <= first:
                self._dropped_until = max(self._dropped_until, *chunk.moments)
        kept = [chunk for chunk in self._chunks if chunk.start + len(chunk.ends) > first]
        self._chunks = (*kept, self._chunk)

    def clear(self) -> None:
        """Forget the events held now. An event that comes meanwhile is kept."""
        with self._index_lock:
            first, self._cleared = self._first, self._next
            self._cleared_away += self._cleared - first
            if not self._indexing:
                self._index.forget(self._cleared)

    def forget_until(self, moment: int) -> None:
        """Say that events up to *moment* (microseconds since 1970) are not here, though they may have happened."""
        self._dropped_until = max(self._dropped_until, moment)

    @property
    def complete_since(self) -> dt.datetime | None:
        """From when on answers are complete: a microsecond after the latest event forgotten; None if none was."""
        chunks, first, _ = self._held()
        until = self._dropped_until
        for chunk in chunks:
            if chunk.start < first:
                until = max(until, *chunk.moments[: first - chunk.start])
        if until == _LONG_AGO:
            return None
        return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=until + 1)

    def select(self, asked: Conditions, *, newest_first: bool) -> Iterator[StoredEvent]:
        """The events that match *asked*. O(log n) and the places that its rarest filter leaves."""
        with self._index_lock:
            chunks, first, stop = self._held()
            if self._indexing:
                everything = range(first, stop)
                candidates: Iterable[Iterable[int]] = (reversed(everything) if newest_first else everything,)
            else:
                self._indexing = True
                try:
                    self._catch_up(chunks, first, stop)
                    candidates = self._index.candidates(asked, newest_first=newest_first)
                finally:
                    self._indexing = False
        for positions in candidates:
            for position in positions:
                if first <= position < stop:
                    event = decode(self._line(chunks, position))
                    if asked.matches(event):
                        yield event

    def _held(self) -> tuple[tuple[Chunk, ...], int, int]:
        """The chunks, and the positions of the oldest event held in them and of the one after the newest."""
        chunks = self._chunks
        stop = chunks[-1].start + len(chunks[-1].ends)
        return chunks, max(self._cleared, stop - self._max_events, chunks[0].start), stop

    def _catch_up(self, chunks: tuple[Chunk, ...], first: int, stop: int) -> None:
        """Index what has come since the last time, a run at a time."""
        self._index.forget(first)
        for start in range(max(first, self._index.stop), stop, self._index.max_run):
            positions = range(start, min(start + self._index.max_run, stop))
            self._index.extend(start, [decode(self._line(chunks, position)) for position in positions])

    def _line(self, chunks: tuple[Chunk, ...], position: int) -> bytearray:
        """The line at *position*, which is in one of *chunks*: all but the last have the same size."""
        return chunks[(position - chunks[0].start) // self._chunk_size].line(position)
