"""Index of the buffer: the positions of the events with a user, session, operation, status, kind or entry id.

The index is a short list of *runs*, each of consecutive positions. For each member a run has *postings*, one sorted array of
64-bit numbers: the upper 40 bits are a hash of a value, the lower 24 those of a position. No run crosses a position at which
the lower bits restart, so postings of one value are in the order of the positions.

**Guarantees**: candidates include each matching event. Two values may share a hash, so queries match the events themselves.

**Concurrency**: not thread-safe. The buffer calls the index under a lock that writers never acquire.

**Performance**: queries build the index; recording costs nothing. The first query that filters by a member indexes it. A search
takes O(log n) per run, and a value 8 bytes per event. Eight neighbouring runs of similar size are merged, so there are O(log n)
runs. A run has at most an eighth of the buffer, or 4,096 events if that is more, and goes with its last event.
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
"""The limit of events in a run: the positions that its bits can distinguish."""

_SENTINEL = (1 << 64) - 1
"""Not less than any posting."""

_MIN_RUN = 4_096

_MERGE_FACTOR = 8
"""The number of similar runs that are merged. The larger of two similar runs has less than this many times the events."""

_CHECK_COST = 4
"""The cost of a search for one position among postings, in postings read in sequence. Also the number of events checked per
match from which on a check costs more than it saves."""

_FEW = 16
"""The number of postings up to which lines are compared instead of a search for the operation."""

_DECODE_BATCH = 256
"""Events that are decoded at a time: their objects fit into the cache of a processor."""


class LineSource(Protocol):
    """The source of the lines to index."""

    def line(self, position: int) -> bytes:
        """Return the line or lines of the event at *position*."""

    def lines(self, start: int, stop: int) -> bytes:
        """Return the joined lines of the events at ``start <= position < stop``."""


Slice = tuple[int, int]
"""The bounds of the postings of one value in an array."""

Matches = list[tuple[str, list[Slice]]]
"""The postings that match a query: for each member, the slices of its values."""


def _key(value: str | None) -> int:
    """Return the posting of *value* at position 0."""
    return (hash(value) & _HASH) << _POSITION_BITS


class _KeyCache(dict[str | None, int]):
    """Keys of values, computed at the first look-up."""

    def __missing__(self, value: str | None) -> int:
        self[value] = key = _key(value)
        return key


def _kinds_of(event: Any) -> Sequence[str]:
    """Return the kind of *event* in a tuple, which is empty without one.

    So application events are not indexed by the lack of a kind.
    """
    return () if event.kind is None else (event.kind,)


_MULTIPLE: dict[str, Callable[[Any], Sequence[str]]] = {"entry_ids": attrgetter("entry_ids"), "kind": _kinds_of}
"""Members with any number of values per event, and functions that return these."""


def _decode_range(members: Iterable[str], start: int, stop: int, source: LineSource) -> Sequence[Any]:
    """Decode *members* of the events at ``start <= position < stop``."""
    events: Sequence[Any] = decode_members(members, source.lines(start, stop))
    if len(events) == stop - start:
        return events

    # An event has parts, which `decode` joins.
    return [decode(source.line(position)) for position in range(start, stop)]


def _postings_of(members: Sequence[str], start: int, stop: int, source: LineSource) -> dict[str, array[int]]:
    """Return the postings of *members* for ``start <= position < stop``.

    O(n log n).
    """
    if not members:
        return {}

    postings: dict[str, list[int]] = {member: [] for member in members}
    key_of = {member: _KeyCache().__getitem__ for member in members}

    for begin in range(start, stop, _DECODE_BATCH):
        end = min(begin + _DECODE_BATCH, stop)
        events = _decode_range(members, begin, end, source)
        first = begin & _POSITION

        for member, found in postings.items():
            values_of = _MULTIPLE.get(member)
            if values_of is not None:
                found += _multiple_postings(values_of, events, first)
                continue

            # One posting per event: its key plus its position.
            values = map(attrgetter(member), events)
            keys = map(key_of[member], values)
            found += map(add, keys, count(first))

    return {member: array("Q", sorted(found)) for member, found in postings.items()}


def _multiple_postings(values_of: Callable[[Any], Sequence[str]], events: Sequence[Any], first: int) -> Iterable[int]:
    """Return the postings of a member with several values per event.

    The events begin at position *first*.
    """
    # These values seldom repeat, so their keys are not cached. `_key` is inlined for speed.
    mask = _HASH
    return [
        ((hash(value) & mask) << _POSITION_BITS) + position
        for position, event in enumerate(events, first)
        for value in values_of(event)
    ]


class Run:
    """The index of the positions ``start <= position < stop``."""

    __slots__ = ("earliest_us", "latest_us", "postings", "start", "stop")

    def __init__(
        self, start: int, stop: int, earliest_us: int, latest_us: int, postings: dict[str, array[int]]
    ) -> None:
        self.start = start
        self.stop = stop
        self.earliest_us = earliest_us
        self.latest_us = latest_us
        self.postings = postings

    @property
    def _base(self) -> int:
        """The upper bits of all positions of the run."""
        return self.start & ~_POSITION

    def add_members(self, members: Iterable[str], first: int, source: LineSource) -> None:
        """Index those of *members* that are not indexed yet.

        Events before position *first* are left out.
        """
        missing = [member for member in members if member not in self.postings]
        if not missing:
            return

        start = max(first, self.start)
        self.postings |= _postings_of(missing, start, self.stop, source)

    @classmethod
    def merged(cls, runs: Sequence[Run]) -> Run:
        """Return neighbouring *runs* as one.

        O(n log m) for m runs: sorting merges their sorted postings.
        """
        postings = {}
        for member in runs[0].postings:
            parts = [run.postings[member] for run in runs]
            postings[member] = array("Q", sorted(chain.from_iterable(parts)))

        return cls(
            start=runs[0].start,
            stop=runs[-1].stop,
            earliest_us=min(run.earliest_us for run in runs),
            latest_us=max(run.latest_us for run in runs),
            postings=postings,
        )

    def overlaps(self, low_us: int | None, high_us: int | None) -> bool:
        """Return whether an event of the run may be in the half-open time range."""
        if low_us is not None and self.latest_us < low_us:
            return False
        return high_us is None or self.earliest_us < high_us

    def find(self, member: str, keys: Iterable[int]) -> list[Slice]:
        """Return the slices of the postings of *member* with these *keys*. O(log n) each."""
        postings = self.postings[member]
        slices = []
        for key in keys:
            low = bisect_left(postings, key)
            high = bisect_left(postings, key + _POSITION + 1, low)

            if low < high:
                slices.append((low, high))
        return slices

    def find_all(self, filters: list[tuple[str, list[int]]]) -> Matches | None:
        """Return the postings for *filters*; None if one of these matches no event.

        If another filter has few postings, the operation is left out: it follows the head of a line, so comparing it there
        takes less time than a search.
        """
        matches: Matches = []
        for member, keys in filters:
            if member == "operation" and matches and min(map(_posting_count, matches)) <= _FEW:
                continue

            slices = self.find(member, keys)
            if not slices:
                return None
            matches.append((member, slices))
        return matches

    def positions(self, member: str, slices: list[Slice]) -> list[int]:
        """Return the distinct positions in *slices* of *member*, ascending."""
        postings, base = self.postings[member], self._base

        found: list[int] = []
        for low, high in slices:
            found += [base + (posting & _POSITION) for posting in postings[low:high]]

        # Positions ascend within a slice.
        if len(slices) > 1:
            found.sort()

        # An event may have two of the values, or one value twice.
        return list(dict.fromkeys(found))

    def positions_among(self, member: str, slices: list[Slice], positions: Sequence[int]) -> list[int]:
        """Return those of *positions* that are in *slices* of *member*.

        O(log n) each, and a copy of the slices.
        """
        postings, base = self.postings[member], self._base
        numbers = [position & _POSITION for position in positions]

        found: set[int] = set()
        for low, high in slices:
            key = postings[low] & ~_POSITION
            slice_postings = postings[low:high]
            slice_postings.append(_SENTINEL)

            for number in numbers:
                posting = key | number
                place = bisect_left(slice_postings, posting)
                if slice_postings[place] == posting:
                    found.add(number)

        return [base + number for number in numbers if number in found]

    def iter_positions(self, member: str, bounds: Slice, *, newest_first: bool) -> Iterator[int]:
        """Yield the distinct positions in one slice.

        O(1) each, so few of many cost little.
        """
        postings, base = self.postings[member], self._base
        order = range(*bounds)
        if newest_first:
            order = order[::-1]

        previous = -1
        for number in order:
            position = base + (postings[number] & _POSITION)

            # An event may have a value twice.
            if position != previous:
                yield position
            previous = position

    def narrow(self, matches: Matches) -> Sequence[int]:
        """Return candidate positions, ascending.

        They are those of the rarest filter, reduced by others where that saves time.
        """
        if not matches:
            return range(self.start, self.stop)
        if len(matches) == 1:
            return self.positions(*matches[0])

        (member, slices), *remaining = sorted(matches, key=_posting_count)
        positions = self.positions(member, slices)

        for member, slices in remaining:
            size = _posting_count((member, slices))

            # Few postings: read them all.
            if size <= _CHECK_COST * len(positions):
                allowed = set(self.positions(member, slices))
                positions = [position for position in positions if position in allowed]

            # Many postings, and still few compared with the run: search them for each position.
            elif size * _CHECK_COST <= self.stop - self.start:
                positions = self.positions_among(member, slices, positions)

        return positions


def _posting_count(match: tuple[str, list[Slice]]) -> int:
    """Return the number of postings in the slices of *match*."""
    _, slices = match
    return sum(high - low for low, high in slices)


class Index:
    """The runs of a buffer."""

    def __init__(self, max_events: int) -> None:
        self.max_run = min(MAX_RUN, max(_MIN_RUN, max_events // 8))
        """The limit of events in a run of this index."""

        self.stop = 0
        """The position up to which events are indexed."""

        self._runs: tuple[Run, ...] = ()
        self._members: tuple[str, ...] = ()

    def capacity_at(self, start: int) -> int:
        """Return the limit of events for a run that begins at *start*."""
        return min(self.max_run, MAX_RUN - (start & _POSITION))

    def ensure_members(self, conditions: Conditions, first: int, source: LineSource) -> None:
        """Index the members that *conditions* filter by, from now on.

        Events from position *first* on are indexed, too.
        """
        members = dict(_indexed_filters(conditions))
        self._members = tuple(dict.fromkeys((*self._members, *members)))

        # All runs are checked: an exception of a signal handler may have ended this loop before.
        for run in self._runs:
            run.add_members(self._members, first, source)

    def extend(self, start: int, timestamps_us: Sequence[int], source: LineSource) -> None:
        """Index the events from *start* on, at most as many as `capacity_at` returns.

        Events between `stop` and *start* were evicted before any query.
        """
        stop = start + len(timestamps_us)
        postings = _postings_of(self._members, start, stop, source)
        added = Run(start, stop, min(timestamps_us), max(timestamps_us), postings)
        runs = [*self._runs, added]

        similar = self._similar_runs(runs)
        while len(similar) >= _MERGE_FACTOR:
            runs[-len(similar) :] = [Run.merged(similar)]
            similar = self._similar_runs(runs)

        merged = tuple(runs)

        # No call separates the two assignments: an exception of a signal handler finds both done or neither.
        self._runs, self.stop = merged, stop

    def _similar_runs(self, runs: Sequence[Run]) -> Sequence[Run]:
        """Return the last of *runs* that can be merged.

        They are similar to the very last one or smaller, and fit into one run.
        """
        last = runs[-1]
        size_limit = _MERGE_FACTOR * (last.stop - last.start)

        first = len(runs) - 1
        while first:
            run = runs[first - 1]
            if run.stop != runs[first].start or run.stop - run.start >= size_limit:
                break
            if last.stop - run.start > self.capacity_at(run.start):
                break
            first -= 1

        return runs[first:]

    def drop_before(self, first: int) -> None:
        """Remove the runs with no position from *first* on."""
        self._runs = tuple(run for run in self._runs if run.stop > first)

    def candidates(self, conditions: Conditions, *, newest_first: bool) -> Iterator[Iterable[int]]:
        """Return the candidate positions of each run, in the requested order.

        The rarest filter selects the positions. Another filter reduces them if reading its postings is cheaper than
        matching the events.
        """
        # The tuple of runs is passed now: a later merge does not affect this query.
        return _search(self._runs, conditions, newest_first)


def _indexed_filters(conditions: Conditions) -> list[tuple[str, frozenset[Any]]]:
    """Return the filters by an indexed member, with the allowed values of each.

    A filter by kind that includes application events is left out, as is one by event id.
    """
    filters: list[tuple[str, frozenset[Any]]] = []
    for member, values in conditions.names:
        if member != "kind" or None not in values:
            filters.append((member, values))

    entry_ids = conditions.entry_ids
    if entry_ids is not None:
        filters.append(("entry_ids", entry_ids))

    return filters


def _search(runs: tuple[Run, ...], conditions: Conditions, newest_first: bool) -> Iterator[Iterable[int]]:
    """Yield the candidate positions of each of *runs*."""
    start_time, end_time = conditions.start_time, conditions.end_time
    low_us = None if start_time is None else microseconds(start_time)
    high_us = None if end_time is None else microseconds(end_time)
    filters = [(member, [*map(_key, values)]) for member, values in _indexed_filters(conditions)]

    for run in reversed(runs) if newest_first else runs:
        if not run.overlaps(low_us, high_us):
            continue

        matches = run.find_all(filters)
        if matches is None:
            continue

        # With many events of one value of one member, positions are computed as the caller consumes them.
        if len(matches) == 1 and len(matches[0][1]) == 1 and _posting_count(matches[0]) > _FEW:
            member, (bounds,) = matches[0]
            yield run.iter_positions(member, bounds, newest_first=newest_first)
            continue

        positions = run.narrow(matches)
        yield positions[::-1] if newest_first else positions
