"""The newest events, in memory: bounded, and quick to ask.

Rules:

* The buffer keeps lines, as they were written. An event is decoded when somebody asks for it; that takes an eighth of
  the memory of objects, and what a caller does to an event changes nothing here.
* At most ``max_events`` events. The oldest makes room for the newest, and is counted as evicted.
* Positions number the events in the order of commit; they only grow, so a position means the same for ever.
* Writers and readers share one lock, held for a handful of instructions by a writer and for `_AT_ONCE` lines by a reader.
  Decoding, matching and indexing happen outside of it.
* A query sees the events that were there when it began; those evicted meanwhile it leaves out.
"""

from __future__ import annotations

import datetime as dt
import threading
from array import array
from collections.abc import Iterator, Sequence

from structlog_audit.codec import StoredEvent, decode
from structlog_audit.index import Index
from structlog_audit.query import Conditions

_AT_ONCE = 512
"""Lines that a reader takes in one go: some 20 µs of holding the writers up."""

_LONG_AGO = -(2**63)


class Buffer:
    """The newest *max_events* lines."""

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events
        self._lines: list[bytes] = []
        self._moments = array("q")  # of the lines, in microseconds since 1970
        self._first = 0  # position of the oldest event held
        self._next = 0  # position that the next event gets
        self._forgotten_until = _LONG_AGO  # the latest moment of an event that was forgotten
        self._lock = threading.Lock()
        self._index = Index(max_events)
        self._index_lock = threading.Lock()
        self.evicted = 0

    def __len__(self) -> int:
        return self._next - self._first

    def append(self, line: bytes, moment: int) -> None:
        """Take the next event: its line or lines, and its time in microseconds since 1970. O(1)."""
        with self._lock:
            slot = self._next % self._max_events
            if self._next - self._first == self._max_events:
                self._forgotten_until = max(self._forgotten_until, self._moments[slot])
                self._first += 1
                self.evicted += 1
            if slot < len(self._lines):
                self._lines[slot] = line
                self._moments[slot] = moment
            else:
                self._lines.append(line)
                self._moments.append(moment)
            self._next += 1

    def clear(self) -> None:
        """Forget every event."""
        with self._lock:
            held = self._moments
            self._forgotten_until = max([self._forgotten_until, *held])
            self._first = self._next
            self._lines = [b""] * len(self._lines)
        with self._index_lock:
            self._index.forget(self._next)

    def forget_until(self, moment: int) -> None:
        """Say that events up to *moment* (microseconds since 1970) are not here, though they may have happened."""
        with self._lock:
            self._forgotten_until = max(self._forgotten_until, moment)

    @property
    def complete_since(self) -> dt.datetime | None:
        """From when on answers are complete: a microsecond after the latest event forgotten; None if none was."""
        if self._forgotten_until == _LONG_AGO:
            return None
        return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=self._forgotten_until + 1)

    def select(self, asked: Conditions, *, newest_first: bool) -> Iterator[StoredEvent]:
        """The events that match *asked*. O(log n) and the places that its rarest filter leaves."""
        with self._index_lock:
            self._catch_up()
            candidates = self._index.candidates(asked, newest_first=newest_first)
            stop = self._index.stop
        for positions in candidates:
            for start in range(0, len(positions), _AT_ONCE):
                for line in self._take(positions[start : start + _AT_ONCE], stop):
                    event = decode(line)
                    if asked.matches(event):
                        yield event

    def _catch_up(self) -> None:
        """Index what has come since the last time, a run at a time."""
        first, stop = self._first, self._next
        self._index.forget(first)
        step = self._index.max_run
        for start in range(max(first, self._index.stop), stop, step):
            positions = range(start, min(start + step, stop))
            events = [
                decode(line)
                for low in range(0, len(positions), _AT_ONCE)
                for line in self._take(positions[low : low + _AT_ONCE], stop)
            ]
            if events:  # those that were evicted while we were at it are missing at the front
                self._index.extend(positions.stop - len(events), events)

    def _take(self, positions: Sequence[int], stop: int) -> list[bytes]:
        """The lines at *positions* that are still held."""
        with self._lock:
            first, lines, size = self._first, self._lines, self._max_events
            return [lines[position % size] for position in positions if first <= position < stop]
