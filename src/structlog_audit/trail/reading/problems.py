"""What is found wrong while files are read: counted, shown by examples, never fatal.

=================  ====================================================================================================
code               what was found
=================  ====================================================================================================
``torn``           a line that ends before its event does: its writer died, or the disk was full; left out
``unfinished``     what stands behind the last LF of an active segment, perhaps being written now; left out
``foreign``        a line that is no event; left out
``drift``          a member of an event has a wrong type: it is set aside in the metadata and marked, as in recording. An
                   event whose id, time or kind can't be read is left out
``duplicate_key``  an object has the same key twice, so that readers would differ about what it says; left out
``invalid_utf8``   bytes that are no UTF-8; U+FFFD stands for them
``bom``            a byte order mark before a line; ignored
``orphan_part``    a line of kind ``part`` without the event before it that it goes on; left out
``missing_part``   an event of which some of the parts are missing; left out
``repeated``       the same line a second time, as after an fsync that failed; left out
``too_long``       a line longer than `structlog_audit.trail.reading.line_blocks.MAX_LINE_BYTES`; left out
``truncated``      compressed data or a document that ends early or is damaged, or a file that became shorter; what came
                   before it is read
``vanished``       a segment that was deleted before it was read
``unreadable``     a file that the system would not let be read
=================  ====================================================================================================

Rules:

* A finding is counted once, however often its place is read; so the counts do not depend on how many questions were asked.
* A finding is counted when its place is read. A question that needs only some segments, or the newest events, finds less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import NamedTuple

MAX_EXAMPLES = 100
"""Findings of which the place and the reason are kept."""

MAX_REASON = 300
"""Characters of a reason. It may quote what the file says."""

Report = Callable[[str, int, str], None]
"""Takes a code, the offset in the segment, in bytes of it unpacked, and the reason."""


class Problem(NamedTuple):
    """An example of what was found wrong: in which file, at which byte of it unpacked, and why."""

    code: str
    path: str
    offset: int
    reason: str


class Problems:
    """The findings of one reader."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.examples: list[Problem] = []
        self._looked_at: dict[Hashable, list[tuple[int, int]]] = {}
        self._of_files: set[tuple[str, str, int]] = set()

    def add(self, code: str, path: str, offset: int, reason: str) -> None:
        """Count a finding."""
        self.counts[code] += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(Problem(code, path, offset, reason[:MAX_REASON]))

    def add_once(self, code: str, path: str, offset: int, reason: str, *, of: str = "") -> None:
        """Count a finding about a file, or about its end, unless it was before; *of* says which, if its path doesn't."""
        key = (code, of or path, offset)
        if key not in self._of_files:
            self._of_files.add(key)
            self.add(code, path, offset, reason)

    def is_new(self, of: Hashable, offset: int) -> bool:
        """Whether the segment that *of* identifies was not looked at yet at *offset*."""
        return not any(start <= offset < stop for start, stop in self._looked_at.get(of, ()))

    def looked_at(self, of: Hashable, start: int, stop: int) -> None:
        """Say that the segment that *of* identifies was looked at from *start* to *stop*."""
        spans = self._looked_at.setdefault(of, [])
        apart = [span for span in spans if span[1] < start or stop < span[0]]
        touching = [span for span in spans if span[0] <= stop and start <= span[1]]
        spans[:] = [*apart, (min([start, *(a for a, _ in touching)]), max([stop, *(b for _, b in touching)]))]
