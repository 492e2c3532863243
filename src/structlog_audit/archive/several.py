"""Several archives as one: each segment is read from one of them.

**Guarantees.** A segment that several archives have is read from the one that has most of it. Days that were pruned there are
read from the next one, which still has them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from structlog_audit.archive.actions import Coverage, DataFile, Range
from structlog_audit.archive.delta_log import Snapshot

_FOREVER = ""
"""Before the text of every day."""


def joined(snapshots: Sequence[Snapshot]) -> Snapshot:
    """Return the coverage of each segment by all *snapshots*, and the greatest timestamps. It has no data files."""
    if len(snapshots) == 1:
        return snapshots[0]

    together = Snapshot()

    for key, order in _preferences(snapshots).items():
        together.segments[key] = snapshots[order[0]].segments[key]

    for snapshot in snapshots:
        together.raise_highs(snapshot)

    return together


def disjoint(snapshots: Sequence[Snapshot]) -> list[Snapshot]:
    """Return *snapshots* without the rows that another one of them provides."""
    if len(snapshots) == 1:
        return list(snapshots)

    repeated = [_Repeated() for _ in snapshots]

    for key, order in _preferences(snapshots).items():
        for place, number in enumerate(order[1:], 1):
            for coverage in snapshots[number].segments[key]:
                days = [_first_day(snapshots[preferred]) for preferred in order[:place]]
                repeated[number].add(key, coverage, min(days))

    return [found.left_out_of(snapshot) for found, snapshot in zip(repeated, snapshots, strict=True)]


def _preferences(snapshots: Sequence[Snapshot]) -> Mapping[str, Sequence[int]]:
    """Return, by segment, the numbers of the snapshots that have it, the one with most of it first."""
    found: defaultdict[str, list[int]] = defaultdict(list)

    for number, snapshot in enumerate(snapshots):
        for key in snapshot.segments:
            found[key].append(number)

    for key, numbers in found.items():
        numbers.sort(key=lambda number: -snapshots[number].covered(key))

    return found


def _first_day(snapshot: Snapshot) -> str:
    before = snapshot.pruned_before
    return _FOREVER if before is None else before.date().isoformat()


class _Repeated:
    """The rows of one archive that another one provides: numbers of trails, from a day on."""

    def __init__(self) -> None:
        self._ranges: defaultdict[str, list[tuple[Range, str]]] = defaultdict(list)
        self._segments: set[str] = set()

    def add(self, key: str, coverage: Coverage, since: str) -> None:
        """Add the rows of a range of the segment *key*, of the days from *since* on."""
        self._ranges[coverage.trail].append(((coverage.first, coverage.stop_number), since))
        if since == _FOREVER:
            self._segments.add(key)

    def left_out_of(self, snapshot: Snapshot) -> Snapshot:
        """Return *snapshot* without these rows."""
        if not self._ranges:
            return snapshot

        left = snapshot.copy()

        for key in self._segments:
            del left.segments[key]

        for path, file in snapshot.files.items():
            skipped = tuple(self._in_file(file))
            if any(first <= file.numbers[0] and file.numbers[1] < stop for first, stop in skipped):
                del left.files[path]
            elif skipped:
                left.skipped[path] = skipped

        return left

    def _in_file(self, file: DataFile) -> Iterator[Range]:
        """Yield the ranges of numbers of *file*, those that follow each other as one."""
        ranges = sorted(numbers for numbers, since in self._ranges[file.trail] if file.date >= since)
        pending: Range | None = None

        for first, stop in ranges:
            if first > file.numbers[1] or stop <= file.numbers[0]:
                continue

            if pending is not None and first <= pending[1]:
                pending = pending[0], max(pending[1], stop)
                continue

            if pending is not None:
                yield pending

            pending = first, stop

        if pending is not None:
            yield pending
