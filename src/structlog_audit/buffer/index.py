"""Where in the buffer the events are that have a certain user, session, operation, status, kind or entry.

Rules:

* The index is built from lines when somebody asks, never on the path of an event: an application that only writes pays
  nothing for it. A member of the events is indexed from the first question on that has a filter for it. That one goes over all
  that is held, and others wait; from then on any question first indexes what has come, by all members in use.
* It is a short list of *runs*, each about a stretch of consecutive positions, the oldest first. For each member a run has one
  sorted array of 64-bit numbers, the upper 40 bits a hash of the value, the lower 24 those of the position. So finding a
  value is a binary search per run, and a value costs 8 bytes per event that has it.
* Two values may share a hash. The index therefore only says where to look; whoever asks matches the events themselves.
* Eight neighbouring runs of like size become one, so there are O(log n) of them and an event is merged O(log n) times. None
  grows beyond an eighth of the buffer, or 4,096 events if that is more. A run goes as a whole when its last event is evicted,
  so at most that much of the index is about events long gone.
* No run crosses a position at which the 24 bits begin anew: within a run they are in the order of the positions.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, count
from operator import add, attrgetter
from typing import Any, Protocol

from structlog_audit.events.codec import decode, decode_members
from structlog_audit.query.filters import Conditions, microseconds

_POSITION_BITS = 24
_POSITION = (1 << _POSITION_BITS) - 1
_HASH = (1 << 40) - 1

MAX_RUN = 1 << _POSITION_BITS
"""Events in a run, at most: what the bits for the position can tell apart."""

_NOWHERE = (1 << 64) - 1  # behind every place, or at least not before it

_MIN_RUN = 4_096

_LIKE = 8
"""How many runs of like size become one; the larger of two that are alike has less than so many times the events."""

_FEW = 4
"""Places that are read in the time in which one position is looked for among many; and of so many events that are looked at,
one must match for that to cost less than the look itself."""

_AT_ONCE = 256
"""Events that are decoded at a time: as many as a processor's cache holds."""


class Lines(Protocol):
    """Where the lines are that are indexed."""

    def line(self, position: int) -> bytes:
        """The line or lines of the event at *position*."""

    def lines(self, start: int, stop: int) -> bytes:
        """Those of the events at ``start <= position < stop``, one after the other."""


Span = tuple[int, int]
"""A stretch of an array of places: those of one value."""

Filter = tuple[str, frozenset[Any]]
"""A member, and the values it may have."""


def _key(value: str | None) -> int:
    return (hash(value) & _HASH) << _POSITION_BITS


class _Keys(dict[str | None, int]):
    """The keys of values, made when they are first asked for."""

    def __missing__(self, value: str | None) -> int:
        self[value] = key = _key(value)
        return key


_SEVERAL: dict[str, Callable[[Any], Sequence[str]]] = {
    "entry_ids": attrgetter("entry_ids"),
    "kind": lambda event: () if event.kind is None else (event.kind,),  # ordinary events are not found by having none
}
"""The members that an event has any number of, and how to get them."""


def _places(members: Iterable[str], start: int, stop: int, held: Lines) -> dict[str, array[int]]:
    """Of each of *members* the places of its values in the events at ``start <= position < stop``. O(n log n)."""
    found: dict[str, list[int]] = {member: [] for member in members}
    keys, mask = {member: _Keys().__getitem__ for member in found}, _HASH
    if not found:
        return {}
    for begin in range(start, stop, _AT_ONCE):
        end = min(begin + _AT_ONCE, stop)
        events: Sequence[Any] = decode_members(found, held.lines(begin, end))
        if len(events) != end - begin:  # one goes on in parts
            events = [decode(held.line(position)) for position in range(begin, end)]
        first = begin & _POSITION
        for member, places in found.items():
            several = _SEVERAL.get(member)
            if several is None:
                places += map(add, map(keys[member], map(attrgetter(member), events)), count(first))
            else:  # values seldom come twice: their keys are not remembered, and `_key` is spelled out, which is quicker
                places += [
                    ((hash(value) & mask) << _POSITION_BITS) + position
                    for position, event in enumerate(events, first)
                    for value in several(event)
                ]
    return {member: array("Q", sorted(places)) for member, places in found.items()}


class Run:
    """The index of the positions ``start <= position < stop``."""

    __slots__ = ("earliest", "latest", "places", "start", "stop")

    def __init__(self, start: int, stop: int, earliest: int, latest: int, places: dict[str, array[int]]) -> None:
        self.start = start
        self.stop = stop
        self.earliest = earliest
        self.latest = latest
        self.places = places  # by member

    def add(self, members: Iterable[str], first: int, held: Lines) -> None:
        """Index those of *members* that are not, for the events from *first* on, as far as they are in this run."""
        missing = [member for member in members if member not in self.places]
        if missing:
            self.places |= _places(missing, max(first, self.start), self.stop, held)

    @classmethod
    def merged(cls, runs: Sequence[Run]) -> Run:
        """Neighbouring *runs* as one. O(n log m) for m of them: sorting what is sorted piece by piece is merging it."""
        places = {
            member: array("Q", sorted(chain.from_iterable([run.places[member] for run in runs])))
            for member in runs[0].places
        }
        earliest, latest = min(run.earliest for run in runs), max(run.latest for run in runs)
        return cls(runs[0].start, runs[-1].stop, earliest, latest, places)

    def spans(self, member: str, keys: Iterable[int]) -> list[Span]:
        """Where the values of *member* with these *keys* are. O(log n) each."""
        places, found = self.places[member], []
        for key in keys:
            low = bisect_left(places, key)
            high = bisect_left(places, key + _POSITION + 1, low)
            if low < high:
                found.append((low, high))
        return found

    def positions(self, member: str, spans: list[Span]) -> list[int]:
        """The positions in *spans* of *member*, ascending. An event that has two of the values, or one twice, is there once."""
        base, places = self.start & ~_POSITION, self.places[member]
        found = [base + (place & _POSITION) for low, high in spans for place in places[low:high]]
        return list(dict.fromkeys(found if len(spans) == 1 else sorted(found)))

    def those_in(self, member: str, spans: list[Span], positions: Sequence[int]) -> list[int]:
        """Those of *positions* that are in *spans* of *member*. O(log n) each, and a copy of the spans."""
        places, base, numbers = self.places[member], self.start & ~_POSITION, [at & _POSITION for at in positions]
        found: set[int] = set()
        for low, high in spans:
            own, key = places[low:high], places[low] & ~_POSITION
            own.append(_NOWHERE)
            found.update([at for at in numbers if own[bisect_left(own, key | at)] == key | at])
        return [base + at for at in numbers if at in found]

    def positions_one_by_one(self, member: str, span: Span, *, newest_first: bool) -> Iterator[int]:
        """The positions in one *span*, in the order asked for. O(1) for each that is taken: the newest few of many cost few."""
        places, before, base = self.places[member], -1, self.start & ~_POSITION
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
        self._members: tuple[str, ...] = ()
        self.stop = 0
        """The position up to which events are indexed."""

    def room(self, start: int) -> int:
        """How many events a run that begins at *start* can have."""
        return min(self.max_run, MAX_RUN - (start & _POSITION))

    def use(self, asked: Conditions, first: int, held: Lines) -> None:
        """Have the members indexed that *asked* filters by, from now on and for the events from *first* on."""
        self._members = tuple(dict.fromkeys((*self._members, *dict(_filters(asked)))))
        for run in self._runs:  # all of them: what an exception of a signal handler kept out before is still missing
            run.add(self._members, first, held)

    def extend(self, start: int, moments: Sequence[int], held: Lines) -> None:
        """Index the events from *start* on, whose *moments* these are, at most as many as there is `room` for.

        Those between `stop` and *start* were evicted before anybody asked.
        """
        stop = start + len(moments)
        places = _places(self._members, start, stop, held)
        runs = [*self._runs, Run(start, stop, min(moments), max(moments), places)]
        while len(last := self._alike(runs)) >= _LIKE:
            runs[-len(last) :] = [Run.merged(last)]
        merged = tuple(runs)
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

        The rarest filter decides where to look. Another one narrows that down if looking at its places is cheaper than
        looking at the events.
        """
        return _candidates(self._runs, asked, newest_first)  # a tuple: whatever is merged meanwhile, these stay


def _filters(asked: Conditions) -> list[Filter]:
    """The indexed members that *asked* filters by, each with the values that it may have.

    A kind narrows nothing down if events without one are asked for. Event ids are not looked for here.
    """
    filters: list[Filter] = [
        (member, wanted) for member, wanted in asked.names if member != "kind" or None not in wanted
    ]
    return filters if asked.entry_ids is None else [*filters, ("entry_ids", asked.entry_ids)]


def _candidates(runs: tuple[Run, ...], asked: Conditions, newest_first: bool) -> Iterator[Iterable[int]]:
    filters = [(member, [*map(_key, wanted)]) for member, wanted in _filters(asked)]
    low = None if asked.start_time is None else microseconds(asked.start_time)
    high = None if asked.end_time is None else microseconds(asked.end_time)
    for run in reversed(runs) if newest_first else runs:
        if (low is not None and run.latest < low) or (high is not None and run.earliest >= high):
            continue
        found = []
        for member, keys in filters:
            spans = run.spans(member, keys)
            if not spans:
                break
            found.append((member, spans))
        else:
            if len(found) == 1 and len(found[0][1]) == 1:
                ((member, (span,)),) = found
                yield run.positions_one_by_one(member, span, newest_first=newest_first)
                continue
            positions = _narrowed(run, sorted(found, key=lambda one: _size(one[1])))
            yield positions[::-1] if newest_first else positions


def _narrowed(run: Run, found: list[tuple[str, list[Span]]]) -> Sequence[int]:
    if not found:
        return range(run.start, run.stop)
    positions = run.positions(*found[0])
    for member, spans in found[1:]:
        size = _size(spans)
        if size <= _FEW * len(positions):
            others = set(run.positions(member, spans))
            positions = [position for position in positions if position in others]
        elif size * _FEW <= run.stop - run.start:
            positions = run.those_in(member, spans, positions)
    return positions


def _size(spans: list[Span]) -> int:
    return sum(high - low for low, high in spans)
