"""Recognition of lines that repeat an earlier one byte by byte: the same event, written again after an fsync that failed.

**Guarantees.** A repeated line is recognized among at least the `REMEMBERED` events before it. The same id with other content
is another event.

**Performance.** The ids of a writer ascend, so a block of ascending ids, all beyond those of the blocks before it, repeats
nothing: two comparisons show it. Only blocks whose ids overlap are compared id by id. Memory is bounded by the lines of twice
`REMEMBERED` events.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Sequence
from typing import Protocol

import msgspec

from structlog_audit.trail.reading.line_blocks import LineBlock

REMEMBERED = 2_000
"""The least number of preceding events among which a repeated line is recognized."""

IdRange = tuple[str, str]
"""The least and the greatest of some ids."""


class _Identified(msgspec.Struct, gc=False):
    """The only member of a line that is decoded here."""

    event_id: str


_decode_ids = msgspec.json.Decoder(_Identified).decode_lines


class Identifiable(Protocol):
    """An event, as far as it is needed here."""

    @property
    def event_id(self) -> str: ...


def ascending_range(events: Sequence[Identifiable]) -> IdRange:
    """Return the least and the greatest id of *events*, whose ids ascend; of none, an empty range."""
    return (events[0].event_id, events[-1].event_id) if events else ("~", "")


class _Generation:
    """The first lines of consecutive events."""

    def __init__(self) -> None:
        self.count = 0
        self._least = "~"
        self._greatest = ""
        self._lines: dict[str, bytes] = {}

        # Their lines are added when they are first needed.
        self._blocks: list[LineBlock] = []

    def overlaps(self, ids: IdRange) -> bool:
        """Return whether an event of this generation may have an id in this range."""
        return ids[0] <= self._greatest and self._least <= ids[1]

    def add_block(self, block: LineBlock, ids: IdRange) -> None:
        """Add a block of canonical lines."""
        self._blocks.append(block)
        self._widen(ids)

    def add_lines(self, lines: dict[str, bytes]) -> None:
        """Add first lines by id."""
        self.lines().update(lines)
        if lines:
            self._widen((min(lines), max(lines)))

    def _widen(self, ids: IdRange) -> None:
        self._least = min(self._least, ids[0])
        self._greatest = max(self._greatest, ids[1])

    def lines(self) -> dict[str, bytes]:
        """Return the first lines by id; of several with one id, the last that was added."""
        for block in self._blocks:
            decoded = _decode_ids(block.data)
            ids = [line.event_id for line in decoded]
            self._lines.update(zip(ids, block.lines(), strict=True))
        self._blocks.clear()
        return self._lines


class RepeatedLines:
    """Remembers the lines of one trail, the blocks of which come in either direction.

    Args:
        before: The first lines of events before the first block, by id.
    """

    def __init__(self, before: Mapping[str, bytes]) -> None:
        self._recent = _Generation()
        self._earlier = _Generation()
        self._earlier.add_lines(dict(before))

    def may_include(self, ids: IdRange) -> bool:
        """Return whether an event with an id in this range may be remembered."""
        return self._recent.overlaps(ids) or self._earlier.overlaps(ids)

    def include_any_of(self, ids: KeysView[str]) -> bool:
        """Return whether an event with one of *ids* is remembered."""
        return any(not known.lines().keys().isdisjoint(ids) for known in (self._recent, self._earlier))

    def numbers_among(self, firsts: Iterable[tuple[str, bytes]]) -> set[int]:
        """Return the numbers, from 0, of those of *firsts*, ids with first lines, that repeat one before them."""
        seen = self._earlier.lines() | self._recent.lines()
        repeated = set()
        for number, (event_id, line) in enumerate(firsts):
            if seen.get(event_id) == line:
                repeated.add(number)
            seen[event_id] = line
        return repeated

    def add_block(self, block: LineBlock, ids: IdRange, count: int) -> None:
        """Remember a block of canonical lines with ascending ids; *count* events were read, some without their lines."""
        self._recent.add_block(block, ids)
        self._advance(count)

    def add_lines(self, lines: dict[str, bytes], count: int) -> None:
        """Remember first lines by id; *count* events were read, some without their lines."""
        self._recent.add_lines(lines)
        self._advance(count)

    def _advance(self, count: int) -> None:
        self._recent.count += count
        if self._recent.count >= REMEMBERED:
            self._earlier = self._recent
            self._recent = _Generation()
