"""The newest events in memory: a bounded, indexed buffer of lines.

**Guarantees**

* The buffer holds at most ``max_events`` events, as the lines that were written. Queries decode them, which takes a fifth of
  the memory of objects, and a caller's changes to an event have no effect here.
* Positions number the events in the order of commit. A position never changes its meaning.
* A query returns the events that were present at its start.

**Failure handling**: an exception raised by a signal handler may end `append` anywhere. The caller repeats it with the same
line, which counts once: line and timestamp enter the list in one step.

**Concurrency**: one thread at a time appends (the leader of the group commit), and readers never block it. Chunks are
immutable, the list of the newest lines only grows, and both are replaced together, so a snapshot stays consistent.
"""

from __future__ import annotations

import datetime as dt
import re
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice
from typing import Any

from structlog_audit.buffer.index import Index
from structlog_audit.buffer.running_statistics import RunningStatistics
from structlog_audit.events.codec import HEAD_BYTES, StoredEvent, decode, decode_all, encode_text
from structlog_audit.query.filters import Conditions, ListFilter

_LARGEST_CHUNK = 1_024

_FIRST_BATCH, _LARGEST_BATCH = 16, 256
"""The number of lines that a query decodes at once: at first, and at most, which is what fits into a processor's cache."""

_BEFORE_ALL = -(2**63)

_PLAIN_TEXT = re.compile(r"[ !#-\[\]-~]+")

Tail = list[Any]
"""The newest lines, each followed by its timestamp in microseconds since 1970."""


class Chunk:
    """Consecutive events from a *tail*, the first of which is at position *start*."""

    __slots__ = ("_ids", "data", "ends", "start", "timestamps_us")

    def __init__(self, start: int, tail: Tail) -> None:
        lines = tail[::2]
        self.start = start
        self.data = b"".join(lines)

        # The end of each line in the data.
        self.ends = array("Q", accumulate(map(len, lines)))
        self.timestamps_us = array("q", tail[1::2])

        # The least and the greatest head, computed at the first search for an id.
        self._ids: tuple[bytes, bytes] | None = None

    @property
    def stop(self) -> int:
        """The position after the last event."""
        return self.start + len(self.ends)

    def line(self, number: int) -> bytes:
        """Return the line or lines of the event with this *number*, from 0."""
        start = self.ends[number - 1] if number else 0
        return self.data[start : self.ends[number]]

    def position_of(self, line_start: bytes) -> int | None:
        """Return the position of the event whose line begins with *line_start*.

        That includes the whole id. None if there is no such event.
        """
        if self._ids is None:
            self._ids = self._id_range()

        least, greatest = self._ids
        if line_start < least[: len(line_start)] or line_start > greatest:
            return None

        offset = self.data.find(line_start)
        if offset < 0:
            return None
        return self.start + bisect_right(self.ends, offset)

    def _id_range(self) -> tuple[bytes, bytes]:
        """Return the least and the greatest head."""
        starts = (0, *self.ends[:-1])
        heads = [self.data[start : start + HEAD_BYTES] for start in starts]

        return min(heads), max(heads)


class BufferSnapshot:
    """A consistent view of a buffer: events at ``first <= position < stop``."""

    __slots__ = ("chunks", "first", "stop", "tail", "tail_start")

    def __init__(self, chunks: tuple[Chunk, ...], tail: Tail, tail_start: int, max_events: int, cleared: int) -> None:
        self.chunks = chunks
        self.tail = tail
        self.tail_start = tail_start
        self.stop = tail_start + len(tail) // 2

        oldest = chunks[0].start if chunks else tail_start
        self.first = max(cleared, self.stop - max_events, oldest)

    def line(self, position: int) -> bytes:
        """Return the line or lines of the event at *position*."""
        if position >= self.tail_start:
            return self.tail[2 * (position - self.tail_start)]  # type: ignore[no-any-return]

        # All chunks have the same size.
        chunks = self.chunks
        size = len(chunks[0].ends)
        chunk, number = divmod(position - chunks[0].start, size)
        return chunks[chunk].line(number)

    def lines_at(self, positions: Sequence[int], starts: tuple[bytes, ...] = ()) -> list[bytes]:
        """Return the lines at those of *positions* that the buffer holds, in their order.

        Args:
            positions: The positions.
            starts: The bytes of which one follows the head of each line that is wanted; without any, all are.

        Equals `line` for each; the look-ups are hoisted out of the loop for speed.
        """
        first, stop = self.first, self.stop
        tail, tail_start = self.tail, self.tail_start

        # All chunks have the same size.
        chunks = self.chunks
        begin, size = tail_start, 1
        if chunks:
            begin, size = chunks[0].start, len(chunks[0].ends)

        found: list[bytes] = []
        for position in positions:
            if not first <= position < stop:
                continue

            if position >= tail_start:
                line = tail[2 * (position - tail_start)]
                # Without `starts` nothing is compared: a line of another program may be shorter than the head.
                if not starts or line.startswith(starts, HEAD_BYTES):
                    found.append(line)
                continue

            number, rest = divmod(position - begin, size)
            chunk = chunks[number]
            ends = chunk.ends

            # A line begins at the end of the preceding one. It is compared before it is copied.
            start = ends[rest - 1] if rest else 0
            if not starts or chunk.data.startswith(starts, start + HEAD_BYTES):
                found.append(chunk.data[start : ends[rest]])
        return found

    def lines(self, start: int, stop: int) -> bytes:
        """Return the joined lines of the events at ``start <= position < stop``."""
        found: list[bytes] = []
        for chunk in self._chunks_between(start, stop):
            ends = chunk.ends
            first = max(0, start - chunk.start)
            last = min(stop - chunk.start, len(ends)) - 1

            # A line begins at the end of the preceding one.
            data_start = ends[first - 1] if first else 0
            data_stop = ends[last]
            found.append(chunk.data[data_start:data_stop])

        tail = self._tail_between(start, stop)
        found += tail[::2]
        return b"".join(found)

    def timestamps_us(self, start: int, stop: int) -> list[int]:
        """Return the timestamps of the events at ``start <= position < stop``.

        In microseconds since 1970.
        """
        found: list[int] = []
        for chunk in self._chunks_between(start, stop):
            first = max(0, start - chunk.start)
            last = stop - chunk.start
            found += chunk.timestamps_us[first:last]

        tail = self._tail_between(start, stop)
        found += tail[1::2]
        return found

    def positions_of(self, event_ids: Iterable[str | None]) -> list[int]:
        """Return the positions of the events with *event_ids*, ascending.

        The ids of one writer increase, so few chunks can contain an id.
        """
        found: list[int] = []
        for event_id in event_ids:
            try:
                line_start = f'{{"event_id":{encode_text(event_id or "")},'.encode()
            except UnicodeEncodeError:
                # No line has a lone surrogate.
                continue

            for chunk in self.chunks:
                position = chunk.position_of(line_start)
                if position is not None:
                    found.append(position)

            tail_lines = self._tail_between(self.tail_start, self.stop)[::2]
            for position, line in enumerate(tail_lines, self.tail_start):
                if line.startswith(line_start):
                    found.append(position)

        return sorted(found)

    def _chunks_between(self, start: int, stop: int) -> tuple[Chunk, ...]:
        """Return the chunks that contain events at ``start <= position < stop``."""
        if not self.chunks:
            return ()

        # All chunks have the same size.
        begin = self.chunks[0].start
        size = len(self.chunks[0].ends)
        first = max(0, start - begin) // size

        # Rounded up.
        end = max(0, stop - begin + size - 1) // size
        return self.chunks[first:end]

    def _tail_between(self, start: int, stop: int) -> Tail:
        """Return the part of the tail at ``start <= position < stop``."""
        first = max(0, start - self.tail_start)
        end = max(0, stop - self.tail_start)

        # Each event has two items: line and timestamp.
        return self.tail[2 * first : 2 * end]


class EventBuffer:
    """The newest *max_events* events."""

    def __init__(self, max_events: int) -> None:
        self._max_events = max_events

        # Chunks, the tail, and the position of the tail. A tail of the full length becomes a chunk.
        self._parts: tuple[tuple[Chunk, ...], Tail, int] = ((), [], 0)
        self._full_length = 2 * min(_LARGEST_CHUNK, max(1, max_events // 8))

        # The position up to which events were cleared, and how many that were.
        self._cleared = 0
        self._cleared_count = 0

        # The position from which on all lines are those that this library encodes.
        self._recorded_from = 0

        # The latest timestamp among events that are not in the buffer any more, or never were.
        self._incomplete_until_us = _BEFORE_ALL

        # A signal handler that queries while the index is being updated must not use it.
        self._index = Index(max_events)
        self._is_indexing = False
        self._statistics = RunningStatistics()
        self._index_lock = threading.RLock()

    def __len__(self) -> int:
        snapshot = self._snapshot()
        return snapshot.stop - snapshot.first

    @property
    def evicted(self) -> int:
        """The number of events that newer ones have replaced."""
        return self._snapshot().first - self._cleared_count

    def append(self, line: bytes, timestamp_us: int) -> None:
        """Add the next event. O(1). One thread at a time.

        Args:
            line: The line or lines of the event. The same object twice in a row is one event.
            timestamp_us: The time of the event, in microseconds since 1970.
        """
        tail = self._parts[1]
        size = len(tail)
        if size:
            # A repeated call after an exception of a signal handler.
            if tail[size - 2] is line:
                return
            if size == self._full_length:
                tail = self._begin_chunk()

        tail.extend((line, timestamp_us))

    def restore(self, events: Iterable[tuple[bytes, int]]) -> None:
        """Add the lines and timestamps of *events* from files, before any other event.

        Other writers may have written them, so queries decode them to compare a member.
        """
        for line, timestamp_us in events:
            self.append(line, timestamp_us)
        self._recorded_from = self._snapshot().stop

    def _begin_chunk(self) -> Tail:
        """Make a chunk of the tail, drop evicted chunks, and return a new tail."""
        chunks, full_tail, start = self._parts
        stop = start + len(full_tail) // 2
        first = max(self._cleared, stop - self._max_events)

        kept = [*chunks, Chunk(start, full_tail)]
        while kept and kept[0].stop <= first:
            dropped = kept.pop(0)

            # The clock may have stepped back: the latest timestamp counts, not the last.
            latest_us = max(dropped.timestamps_us)
            self._incomplete_until_us = max(self._incomplete_until_us, latest_us)

        # One assignment, so a snapshot has either the full tail or its chunk.
        tail: Tail = []
        self._parts = (tuple(kept), tail, stop)
        return tail

    def clear(self) -> None:
        """Remove the events that the buffer holds now.

        An event that arrives meanwhile is kept.
        """
        with self._index_lock:
            snapshot = self._snapshot()
            self._cleared = snapshot.stop
            self._cleared_count += snapshot.stop - snapshot.first
            if not self._is_indexing:
                self._index.drop_before(snapshot.stop)

    def mark_incomplete_until(self, timestamp_us: int) -> None:
        """Record that events up to *timestamp_us* may be missing.

        In microseconds since 1970.
        """
        self._incomplete_until_us = max(self._incomplete_until_us, timestamp_us)

    @property
    def complete_since(self) -> dt.datetime | None:
        """The time from which on answers are complete, or None.

        It is a microsecond after the latest missing event.
        """
        snapshot = self._snapshot()
        oldest = snapshot.chunks[0].start if snapshot.chunks else snapshot.tail_start

        # Events before `first` remain in the oldest chunk until all its events are evicted.
        evicted = snapshot.timestamps_us(oldest, snapshot.first)
        until_us = max([self._incomplete_until_us, *evicted])

        if until_us == _BEFORE_ALL:
            return None
        return _datetime_of(until_us + 1)

    def select(
        self, conditions: Conditions, *, newest_first: bool, at_most: int | None = None
    ) -> Iterator[StoredEvent]:
        """Yield the events that match *conditions*; the caller takes *at_most* of them, or all.

        O(log n), and O(1) for each candidate of the rarest filter.
        """
        snapshot, candidates = self._snapshot_and_candidates(conditions, newest_first)
        positions = chain.from_iterable(candidates)
        starts = _operation_starts(conditions)
        matching = ListFilter(conditions)

        # A caller may take only the first ones, so the first batch is small.
        size = min(_LARGEST_BATCH, max(1, _FIRST_BATCH if at_most is None else at_most))
        while batch := list(islice(positions, size)):
            # To compare these bytes takes a fifth of the time of decoding a line.
            is_recorded = min(batch) >= self._recorded_from
            lines = snapshot.lines_at(batch, starts if is_recorded else ())
            yield from matching(decode_all(lines))
            size = min(_LARGEST_BATCH, 2 * size)

    def _snapshot_and_candidates(
        self, conditions: Conditions, newest_first: bool
    ) -> tuple[BufferSnapshot, Iterable[Iterable[int]]]:
        """Return a snapshot, and positions that include all of its matching events.

        The positions have the requested order.
        """
        event_ids = dict(conditions.names).get("event_id")
        if event_ids is not None:
            snapshot = self._snapshot()
            positions = snapshot.positions_of(event_ids)
            return snapshot, (positions[::-1] if newest_first else positions,)

        with self._index_lock:
            if not self._is_indexing:
                self._is_indexing = True
                try:
                    # Not earlier: another thread or a signal handler may have indexed newer events.
                    snapshot = self._snapshot()
                    self._update_index(snapshot, conditions)
                    return snapshot, self._index.candidates(conditions, newest_first=newest_first)
                finally:
                    self._is_indexing = False

        # A signal handler interrupted the update of the index: every event is a candidate.
        snapshot = self._snapshot()
        everything = range(snapshot.first, snapshot.stop)
        return snapshot, (reversed(everything) if newest_first else everything,)

    def _update_index(self, snapshot: BufferSnapshot, conditions: Conditions) -> None:
        """Index the events since the last query, one run at a time, by all members in use."""
        index = self._index
        index.drop_before(snapshot.first)
        index.ensure_members(conditions, snapshot.first, snapshot)

        # Events that were evicted before this query are not indexed.
        start = max(snapshot.first, index.stop)
        while start < snapshot.stop:
            capacity = index.capacity_at(start)
            stop = min(start + capacity, snapshot.stop)

            timestamps_us = snapshot.timestamps_us(start, stop)
            index.extend(start, timestamps_us, snapshot)
            start = stop

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of all application events.

        O(1), and O(1) per event since the last call.
        """
        with self._index_lock:
            # A signal handler that queries or ends this call meanwhile counts from the start.
            statistics, self._statistics = self._statistics, RunningStatistics()

            # Not earlier: the snapshot must include the events that such a handler has counted.
            snapshot = self._snapshot()
            statistics.drop_before(snapshot.first)

            first = max(snapshot.first, statistics.stop)
            for start in range(first, snapshot.stop, _LARGEST_CHUNK):
                stop = min(start + _LARGEST_CHUNK, snapshot.stop)
                events = [decode(snapshot.line(position)) for position in range(start, stop)]
                statistics.extend(start, events)

            def time_at(position: int) -> dt.datetime:
                (timestamp_us,) = snapshot.timestamps_us(position, position + 1)
                return _datetime_of(timestamp_us)

            result = statistics.statistics(time_at)
            self._statistics = statistics
            return result

    def _snapshot(self) -> BufferSnapshot:
        """Return the events that the buffer holds now."""
        # Read before the events: one that is cleared meanwhile is still visible.
        cleared = self._cleared
        return BufferSnapshot(*self._parts, self._max_events, cleared)


def _operation_starts(conditions: Conditions) -> tuple[bytes, ...]:
    """Return the bytes of which one follows the head in each matching line that this library encoded.

    None are known without a filter by operation, or if JSON may escape a character of a value.
    """
    values = [value or "" for value in dict(conditions.names).get("operation", ())]
    if not all(map(_PLAIN_TEXT.fullmatch, values)):
        return ()
    return tuple([f'"operation":"{value}"'.encode() for value in values])


def _datetime_of(timestamp_us: int) -> dt.datetime:
    epoch = dt.datetime.fromtimestamp(0, dt.UTC)
    return epoch + dt.timedelta(microseconds=timestamp_us)
