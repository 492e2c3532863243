"""Findings about files that are read: counted, illustrated by examples, never fatal. `Problem` lists the codes.

A finding is counted when its place is read, and once however often that happens. Counts therefore do not depend on the number
of queries; but a query that needs only some segments, or only the newest events, finds less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import NamedTuple

MAX_EXAMPLES = 100
"""The number of findings that are kept with their place and reason."""

MAX_REASON = 300
"""The length of a reason in characters. A reason may quote the file."""

SEEN_IN_LINES = frozenset(("torn", "foreign", "too_long", "truncated", "vanished", "unreadable"))
"""The codes of findings that every reading of the bytes shows, with the time around them."""

ProblemCallback = Callable[[str, int, str], None]
"""Takes a code, the offset in the decompressed segment in bytes, and the reason."""


class Problem(NamedTuple):
    """An example of a finding: its code, the file, the offset in the decompressed file in bytes, and the reason.

    =================  ======================================================================================================
    code               finding
    =================  ======================================================================================================
    ``torn``           a line that ends before its event does: the writer died, or the disk was full; left out
    ``unfinished``     the beginning of a line, or of an event in parts, after the last LF of an active segment, perhaps being
                       written now; left out
    ``foreign``        a line that is not an event: not one JSON object, or without a readable id and time; left out
    ``drift``          an event in another form: unknown members, an unknown kind or values of a wrong type, which are in its
                       metadata, or a time without a zone, which is read as UTC
    ``duplicate_key``  an object has the same key twice, so that readers would disagree about its value; left out
    ``invalid_utf8``   bytes that are not UTF-8; replaced by U+FFFD
    ``bom``            a byte order mark before a line; ignored
    ``orphan_part``    a line of kind ``part`` without the event before it that it continues; left out
    ``missing_part``   an event that lacks some of its parts; left out
    ``repeated``       the same line a second time, as after an fsync that failed; left out
    ``too_long``       a line longer than `structlog_audit.trail.reading.line_blocks.MAX_LINE_BYTES`; left out
    ``truncated``      compressed data or a document that ends early or is damaged, or a file that became shorter; everything
                       before the damage is read
    ``copy``           a file beside a trail that is a copy of it or of a segment; not read, because its events are in the trail
    ``vanished``       a segment that was deleted before it was read
    ``unreadable``     a file that the system refused to read
    =================  ======================================================================================================
    """

    code: str
    path: str
    offset: int
    reason: str


class Problems:
    """The findings of one reader."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: list[Problem] = []

        # By key of a segment, the ranges of offsets that were checked.
        self._checked: dict[Hashable, list[tuple[int, int]]] = {}

        # Codes, segments and offsets of the findings about files and their ends.
        self._counted_once: set[tuple[str, str, int]] = set()

    def add(self, code: str, path: str, offset: int, reason: str) -> None:
        """Count a finding."""
        self.counts[code] += 1
        if len(self.examples) < MAX_EXAMPLES:
            example = Problem(code, path, offset, reason[:MAX_REASON])
            self.examples.append(example)

    def add_once(self, code: str, path: str, offset: int, reason: str, *, segment: str = "") -> None:
        """Count a finding about a whole file or its end, unless it was counted before.

        Args:
            code: The kind of finding.
            path: The file.
            offset: The offset in the decompressed file, in bytes.
            reason: The details.
            segment: The key of the segment, if its path does not identify it.
        """
        key = (code, segment or path, offset)
        if key not in self._counted_once:
            self._counted_once.add(key)
            self.add(code, path, offset, reason)

    def is_new(self, segment: Hashable, offset: int) -> bool:
        """Return whether the segment with this key was not checked at *offset* yet."""
        ranges = self._checked.get(segment, ())
        return not any(start <= offset < stop for start, stop in ranges)

    def mark_checked(self, segment: Hashable, start: int, stop: int) -> None:
        """Record that the segment with this key was checked from *start* to *stop*."""
        ranges = self._checked.setdefault(segment, [])
        separate = []
        for other in ranges:
            if other[1] < start or stop < other[0]:
                separate.append(other)
            else:
                # Adjacent ranges are joined, which bounds their number.
                start = min(start, other[0])
                stop = max(stop, other[1])
        ranges[:] = [*separate, (start, stop)]
