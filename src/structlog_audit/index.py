"""Where in the buffer the events are that have a certain user, session, operation, status, kind or entry.

Rules:

* The index is built from lines when somebody asks, never on the path of an event: an application that only writes pays
  nothing for it.
* It is a short list of *runs*, each about a stretch of consecutive positions, the oldest first. A run is one sorted array
  of 64-bit numbers, the upper 40 bits a hash of (member, value), the lower 24 the position within the run. So finding a
  value is a binary search per run, and a value costs 8 bytes per event that has it.
* Two values may share a hash. The index therefore only says where to look; whoever asks matches the events themselves.
* Neighbouring runs of like size are merged, so there are O(log n) of them, and none grows beyond an eighth of the buffer:
  a run goes as a whole when its last event is evicted, so at most an eighth of the index is about events long gone.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from structlog_audit.codec import indexed
from structlog_audit.query import Conditions, microseconds

_POSITION_BITS = 24
_POSITION = (1 << _POSITION_BITS) - 1
_HASH = (1 << 40) - 1

MAX_RUN = 1 << _POSITION_BITS
"""Events in a run, at most: what the bits for the position can tell apart."""

_MIN_RUN = 4_096

_MEMBERS = ("user_id", "session_id", "operation", "status", "kind")

Span = tuple[int, int]
"""A stretch of a run's array: the places of one value."""


def _key(member: str, value: str | None) -> int:
    return (hash(value if member == "entry_ids" else (member, value)) & _HASH) << _POSITION_BITS


class Run:
    """The index of the positions ``start <= position < stop``."""

    __slots__ = ("earliest", "latest", "places", "start", "stop")

    def __init__(self, start: int, stop: int, places: array[int], earliest: int, latest: int) -> None:
        self.start = start
        self.stop = stop
        self.places = places
        self.earliest = earliest
        self.latest = latest

    @classmethod
    def of(cls, start: int, lines: Sequence[bytes], moments: Sequence[int]) -> Run:
        """The run of the events in *lines*, the first of which is at *start*, and their *moments*. O(n log n)."""
        groups: list[defaultdict[str | None, list[int]]] = [defaultdict(list) for _ in _MEMBERS]
        users, sessions, operations, statuses, kinds = groups
        entries: set[int] = set()
        mask = _HASH
        for offset, line in enumerate(lines):
            event = indexed(line)
            users[event.user_id].append(offset)
            sessions[event.session_id].append(offset)
            operations[event.operation].append(offset)
            statuses[event.status].append(offset)
            if event.kind is not None:
                kinds[event.kind].append(offset)
            entries.update([((hash(entry_id) & mask) << _POSITION_BITS) + offset for entry_id in event.entry_ids])
        keys = [
            (_key(member, value), offsets)
            for member, group in zip(_MEMBERS, groups, strict=True)
            for value, offsets in group.items()
        ]
        places = [key + offset for key, offsets in sorted(keys) for offset in offsets]
        places = sorted(places + sorted(entries))  # both are sorted, so this merges them
        return cls(start, start + len(lines), array("Q", places), min(moments), max(moments))

    def merged(self, later: Run) -> Run:
        """The run of this one and the *later* one that follows it, as one. O(n): sorting two sorted arrays is merging them."""
        shift = later.start - self.start
        places = sorted([*self.places, *(place + shift for place in later.places)])
        earliest, latest = min(self.earliest, later.earliest), max(self.latest, later.latest)
        return Run(self.start, later.stop, array("Q", places), earliest, latest)

    def spans(self, member: str, values: Iterable[str | None]) -> list[Span]:
        """Where the *values* of *member* are. O(log n) each."""
        places, found = self.places, []
        for value in values:
            key = _key(member, value)
            low = bisect_left(places, key)
            high = bisect_left(places, key + _POSITION + 1, low)
            if low < high:
                found.append((low, high))
        return found

    def positions(self, spans: list[Span]) -> list[int]:
        """The positions in *spans*, ascending. An event that has two of the values, or one twice, is there once."""
        found = [self.start + (place & _POSITION) for low, high in spans for place in self.places[low:high]]
        return list(dict.fromkeys(found if len(spans) == 1 else sorted(found)))

    def positions_one_by_one(self, span: Span, *, newest_first: bool) -> Iterator[int]:
        """The positions in one *span*, in the order asked for. O(1) for each that is taken: the newest few of many cost few."""
        places, before = self.places, -1
        for number in reversed(range(*span)) if newest_first else range(*span):
            position = self.start + (places[number] & _POSITION)
            if position != before:
                yield position
            before = position


class Index:
    """The runs. Not thread-safe: the buffer calls it under a lock of its own, which no writer ever takes."""

    def __init__(self, max_events: int) -> None:
        self.max_run = min(MAX_RUN, max(_MIN_RUN, max_events // 8))
        """Events in a run of this index, at most."""
        self._runs: tuple[Run, ...] = ()
        self.stop = 0
        """The position up to which events are indexed."""

    def extend(self, start: int, lines: Sequence[bytes], moments: Sequence[int]) -> None:
        """Index the events in at most `max_run` *lines*, the first of which is at *start*, and their *moments*.

        Those between `stop` and *start* were evicted before anybody asked.
        """
        runs = [*self._runs, Run.of(start, lines, moments)]
        while len(runs) > 1 and self._worth_merging(*runs[-2:]):
            later = runs.pop()
            runs[-1] = runs[-1].merged(later)
        self._runs = tuple(runs)
        self.stop = start + len(lines)

    def _worth_merging(self, run: Run, later: Run) -> bool:
        size, size_of_later = run.stop - run.start, later.stop - later.start
        return run.stop == later.start and size <= 2 * size_of_later and size + size_of_later <= self.max_run

    def forget(self, first: int) -> None:
        """Drop the runs that are wholly about positions before *first*."""
        self._runs = tuple(run for run in self._runs if run.stop > first)

    def candidates(self, asked: Conditions, *, newest_first: bool) -> Iterator[Iterable[int]]:
        """Positions, run by run, among which are all events that match *asked*; in the order asked for.

        The rarest filter decides where to look. Another one narrows that down if looking at all its places is cheaper
        than looking at the events.
        """
        return _candidates(self._runs, asked, newest_first)  # a tuple: whatever is merged meanwhile, these stay


def _candidates(runs: tuple[Run, ...], asked: Conditions, newest_first: bool) -> Iterator[Iterable[int]]:
    filters = [(member, values) for member, values in asked.names if member != "kind" or None not in values]
    if asked.entry_ids is not None:
        filters.append(("entry_ids", asked.entry_ids))
    low = None if asked.start_time is None else microseconds(asked.start_time)
    high = None if asked.end_time is None else microseconds(asked.end_time)
    for run in reversed(runs) if newest_first else runs:
        if (low is not None and run.latest < low) or (high is not None and run.earliest >= high):
            continue
        indexed = sorted((run.spans(member, values) for member, values in filters), key=_size)
        if [len(spans) for spans in indexed] == [1]:
            yield run.positions_one_by_one(indexed[0][0], newest_first=newest_first)
            continue
        found = _narrowed(run, indexed)
        yield found[::-1] if newest_first else found


def _narrowed(run: Run, indexed: list[list[Span]]) -> Sequence[int]:
    if not indexed:
        return range(run.start, run.stop)
    found = run.positions(indexed[0])
    for spans in indexed[1:]:
        if _size(spans) <= 8 * len(found):
            others = set(run.positions(spans))
            found = [position for position in found if position in others]
    return found


def _size(spans: list[Span]) -> int:
    return sum(high - low for low, high in spans)
