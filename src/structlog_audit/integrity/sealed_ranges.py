"""The leaves of segments that retention is about to delete, from the seal folder."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence

from structlog_audit.integrity.notes import Checkpoint
from structlog_audit.integrity.standalone.verify_trail import (
    SealedSegment,
    SealError,
    open_file,
    parse_segments,
    read_checkpoint,
)


class SealedRanges:
    """The sealed ranges by the seal folder of one trail. Any process that records reads it; nothing is verified.

    Args:
        trail: The path of the active segment.
        at_most: The number of leaves that count as sealed; None for all that the checkpoint covers.
    """

    def __init__(self, trail: str, at_most: int | None = None) -> None:
        self._folder = f"{trail}.seal"
        self._at_most = at_most

    def cover(self, due: Sequence[tuple[str, int | None]], kept: Collection[str]) -> tuple[int, list[list[int]]]:
        """Return how many of the *due* segments are sealed, from the first on, and all leaves that are gone with them.

        See `structlog_audit.trail.writing.pruning.Seal`. Segments that were deleted before are older than those that are due
        now. They are named once more, because the events that named them are deleted themselves one day.
        """
        segments = self._segments()
        by_name: dict[str, list[SealedSegment]] = {}
        for segment in segments:
            by_name.setdefault(segment.name, []).append(segment)

        count = 0
        gone: list[SealedSegment] = []
        for name, size in due:
            found = by_name.get(name, [])
            if not found or not _is_sealed(found[-1], size, segments[-1].number):
                break
            gone += found
            count += 1
        if not count:
            return 0, []

        newest = max(segment.number for segment in gone)
        names = {name for name, _ in due} | set(kept)
        gone += [segment for segment in segments if segment.number < newest and segment.name not in names]
        return count, _merged(gone)

    def _segments(self) -> list[SealedSegment]:
        """Return the sealed segments; none if the folder cannot be read."""
        try:
            size = Checkpoint.parse(read_checkpoint(self._folder).text).size
            if self._at_most is not None:
                size = min(size, self._at_most)
            with open_file(os.path.join(self._folder, "segments")) as file:
                return parse_segments(file.read(), size) or []
        except (OSError, SealError):
            return []


def _is_sealed(segment: SealedSegment, size: int | None, newest: int) -> bool:
    """Return whether all lines of *segment* are sealed.

    Of a compressed segment, *size* is None: it is sealed if lines of a later one are.
    """
    if size is None:
        return segment.number < newest
    return sum(run.size or 0 for run in segment.runs) == size


def _merged(segments: Iterable[SealedSegment]) -> list[list[int]]:
    """Return the ranges of leaves of *segments*, joined where they touch."""
    runs = sorted({(run.first, run.first + run.lines) for segment in segments for run in segment.runs})
    merged: list[list[int]] = []
    for first, end in runs:
        if merged and first <= merged[-1][1]:
            merged[-1][1] = max(end, merged[-1][1])
        else:
            merged.append([first, end])
    return merged
