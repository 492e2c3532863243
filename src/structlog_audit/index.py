"""Where in the buffer the events are that have a certain user, session, operation, status, kind or entry.

Rules:

* The index is built from lines when somebody asks, never on the path of an event: an application that only writes pays
  nothing for it.
* It is a short list of *runs*, each about a stretch of consecutive positions, the oldest first. A run is one sorted array
  of 64-bit numbers, the upper 40 bits a hash of (member, value), the lower 24 those of the position. So finding a value is
  a binary search per run, and a value costs 8 bytes per event that has it.
* Two values may share a hash. The index therefore only says where to look; whoever asks matches the events themselves.
* Eight neighbouring runs of like size become one, so there are O(log n) of them and an event is merged O(log n) times. None
  grows beyond an eighth of the buffer, or 4,096 events if that is more. A run goes as a whole when its last event is evicted,
  so at most that much of the index is about events long gone.
* No run crosses a position at which the 24 bits begin anew: within a run they are in the order of the positions.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, count
from operator import add, attrgetter

from structlog_audit.codec import indexed
from structlog_audit.query import Conditions, microseconds

_POSITION_BITS = 24
_POSITION = (1 << _POSITION_BITS) - 1
_HASH = (1 << 40) - 1

MAX_RUN = 1 << _POSITION_BITS
"""Events in a run, at most: what the bits for the position can tell apart."""

_MIN_RUN = 4_096

_LIKE = 8
"""How many runs of like size become one; the larger of two that are alike has less than so many times the events."""

_AT_ONCE = 256
"""Events that are decoded at a time: as many as a processor's cache holds."""

_MEMBERS = {name: attrgetter(name) for name in ("user_id", "session_id", "operation", "status")}

Span = tuple[int, int]
"""A stretch of a run's array: the places of one value."""


def _key(member: str, value: str | None) -> int:
    return (hash(value if member == "entry_ids" else (member, value)) & _HASH) << _POSITION_BITS


class _Keys(dict[str | None, int]):
    """The keys of the values of a *member*, made when they are first asked for."""

    def __init__(self, member: str) -> None:
        self._member = member

    def __missing__(self, value: str | None) -> int:
        self[value] = key = _key(self._member, value)
        return key


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
        members = [(value_of, _Keys(member).__getitem__) for member, value_of in _MEMBERS.items()]
        kinds, mask = _Keys("kind"), _HASH
        places: list[int] = []
        for begin in range(0, len(lines), _AT_ONCE):
            events = indexed(lines[begin : begin + _AT_ONCE])
            first = (start + begin) & _POSITION
            for value_of, key_of in members:
                places += map(add, map(key_of, map(value_of, events)), count(first))
            places += [
                ((hash(entry_id) & mask) << _POSITION_BITS) + position
                for position, event in enumerate(events, first)
                for entry_id in event.entry_ids
            ]
            places += [  # ordinary events have no kind, and are not found by that
                kinds[event.kind] + position for position, event in enumerate(events, first) if event.kind is not None
            ]
        places.sort()
        return cls(start, start + len(lines), array("Q", places), min(moments), max(moments))

    @classmethod
    def merged(cls, runs: Sequence[Run]) -> Run:
        """Neighbouring *runs* as one. O(n log m) for m of them: sorting what is sorted piece by piece is merging it."""
        places = array("Q", sorted(chain.from_iterable([run.places for run in runs])))
        earliest, latest = min(run.earliest for run in runs), max(run.latest for run in runs)
        return cls(runs[0].start, runs[-1].stop, places, earliest, latest)

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
        base = self.start & ~_POSITION
        found = [base + (place & _POSITION) for low, high in spans for place in self.places[low:high]]
        return list(dict.fromkeys(found if len(spans) == 1 else sorted(found)))

    def positions_one_by_one(self, span: Span, *, newest_first: bool) -> Iterator[int]:
        """The positions in one *span*, in the order asked for. O(1) for each that is taken: the newest few of many cost few."""
        places, before, base = self.places, -1, self.start & ~_POSITION
        for number in reversed(range(*span)) if newest_first else range(*span):
            position = base + (places[number] & _POSITION)
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

    def room(self, start: int) -> int:
        """How many events a run that begins at *start* can have."""
        return min(self.max_run, MAX_RUN - (start & _POSITION))

    def extend(self, start: int, lines: Sequence[bytes], moments: Sequence[int]) -> None:
        """Index the events in *lines*, at most as many as there is `room` for, the first of which is at *start*.

        Those between `stop` and *start* were evicted before anybody asked.
        """
        runs = [*self._runs, Run.of(start, lines, moments)]
        while len(last := self._alike(runs)) >= _LIKE:
            runs[-len(last) :] = [Run.merged(last)]
        merged, stop = tuple(runs), start + len(lines)
        # no call between the two: an exception that a signal handler raises finds both done or neither
        self._runs, self.stop = merged, stop

    def _alike(self, runs: Sequence[Run]) -> Sequence[Run]:
        """The last of *runs*, as far back as they are like the very last one or smaller, and one run has room for all."""
        most = _LIKE * (runs[-1].stop - runs[-1].start)
        first = len(runs) - 1
        while first and (run := runs[first - 1]).stop == runs[first].start and run.stop - run.start < most:
            if runs[-1].stop - run.start > self.room(run.start):
                break
            first -= 1
        return runs[first:]

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
