"""The events of a live trail beyond an archive.

**Guarantees.** The files of the trails are opened first, then the log of the archive is read, and its events are left out. A
segment that is archived or deleted meanwhile is therefore neither missing nor read twice.

**Performance.** Only segments that are not covered stay open.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import BinaryIO, NamedTuple, cast

from structlog_audit.archive.compaction import plain_name, segment_key, stored_size
from structlog_audit.archive.delta_log import Snapshot
from structlog_audit.exceptions import AuditReadError
from structlog_audit.trail.reading.discovery import Segment, Trail
from structlog_audit.trail.reading.line_blocks import skip
from structlog_audit.trail.reading.open_segment import OpenSegment
from structlog_audit.trail.reading.segment_scanner import SegmentScanner

_COPIED_BYTES = 1_048_576


class LiveTrail(Trail):
    """The segments of a trail that an archive does not cover, all of them open.

    Args:
        trail: The trail.
        segments: The segments.
        seed: The greatest timestamp of the trail in the archive, in microseconds since 1970, or None. The segments come after
            it in the order of the archive, even if the clock was set back.
        names: The names that the trail has in archives, ``host:path``.
    """

    def __init__(
        self, trail: Trail, segments: Sequence[Segment], seed: int | None, names: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(trail.folder, trail.base)
        self.archived_names = names
        self.seed = seed
        self._uncovered = segments

    @contextmanager
    def segments(self) -> Iterator[list[Segment]]:
        """Provide the segments, which stay open for as long as the `HeldTrail`."""
        yield list(self._uncovered)


class _HeldSegment(NamedTuple):
    segment: Segment
    opened: OpenSegment | None
    """None if the system did not open it."""


class HeldTrail:
    """The files of a trail, held open until *stack* closes.

    Args:
        trail: The trail.
        known: A state of the archive: segments that it covers are not held.
        stack: Closes the files.
        host: The name of this host in the archive.

    Raises:
        AuditReadError: The trail cannot be read at all.
    """

    def __init__(self, trail: Trail, known: Snapshot, stack: ExitStack, host: str) -> None:
        self._trail = trail
        self._stack = stack
        self._held: list[_HeldSegment] = []
        self._vanished: list[str] = []
        self._name = f"{host}:{os.path.realpath(trail.path)}"
        self._trails: set[str] = {self._name}

        # Findings are counted when a segment is read, not when it is identified.
        scanner = SegmentScanner()

        for segment in stack.enter_context(trail.segments()):
            self._hold(segment, known, scanner)

    def _hold(self, segment: Segment, known: Snapshot, scanner: SegmentScanner) -> None:
        with ExitStack() as stack:
            if segment.file is None:
                try:
                    file = stack.enter_context(segment.opened())
                except FileNotFoundError:
                    self._vanished.append(segment.path)
                    return
                except OSError as error:
                    self._refuse(segment, error)
                    return
                segment = replace(segment, file=file, size=os.fstat(file.fileno()).st_size)

            opened = stack.enter_context(scanner.open(segment))
            if opened is not None and self._uncovered_from(opened, known) is not None:
                self._held.append(_HeldSegment(segment, opened))
                self._stack.push(stack.pop_all())

    def _refuse(self, segment: Segment, error: OSError) -> None:
        """Keep a segment that the system did not open; it is counted when it is read."""
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise AuditReadError(
                f"{self._trail.path}: too many segments beyond the archive to hold them open: run structlog-audit compact, "
                "or raise the limit of open files (ulimit -n)"
            ) from error

        self._held.append(_HeldSegment(segment, None))

    def beyond(self, snapshot: Snapshot, scanner: SegmentScanner) -> LiveTrail:
        """Return the events of the trail beyond *snapshot*, which was read after the files were opened.

        Args:
            snapshot: The state of the archive.
            scanner: Counts the segments that were deleted without being archived.
        """
        archived = snapshot.names_at(os.path.realpath(self._trail.path))

        for path in self._vanished:
            if plain_name(path) not in archived:
                scanner.problems.add_once("vanished", path, 0, "deleted before it was read")

        segments = []

        for segment, opened in self._held:
            start = 0 if opened is None else self._uncovered_from(opened, snapshot)
            if start == 0:
                segments.append(segment)
            elif opened is not None and start is not None:
                segments.append(self._from(segment, opened, start))

        seeds = [snapshot.high(trail) for trail in self._trails]
        seed = max((seed for seed in seeds if seed is not None), default=None)

        return LiveTrail(self._trail, segments, seed, frozenset(self._trails))

    def _uncovered_from(self, opened: OpenSegment, snapshot: Snapshot) -> int | None:
        """Return the offset up to which *snapshot* covers a segment; None if nothing follows there."""
        key = self._key_of(opened, snapshot)
        if key is None:
            return 0

        for coverage in snapshot.segments.get(key, ()):
            self._trails.add(coverage.trail)

        covered = snapshot.covered(key)
        is_all = snapshot.is_final(key) or (opened.is_plain and stored_size(opened) <= covered and covered > 0)

        return None if is_all else covered

    def _key_of(self, opened: OpenSegment, snapshot: Snapshot) -> str | None:
        """Return the key that the segment has in the archive, where another host may have archived it."""
        path = os.path.realpath(self._trail.path)
        key = segment_key(opened, self._name)
        if key is None or "@" not in key or key in snapshot.segments:
            return key

        prefix = key.partition("@")[0]

        for other in snapshot.segments:
            if other.startswith(f"{prefix}@") and other.endswith(f":{path}"):
                return other

        return key

    def _from(self, segment: Segment, opened: OpenSegment, start: int) -> Segment:
        """Return the part of *segment* that begins at *start*."""
        if opened.is_plain:
            return replace(segment, begin=start)

        # The rest of compressed data is copied, since a segment cannot begin in the middle of it.
        skip(opened.file, start)
        copy = cast(BinaryIO, self._stack.enter_context(tempfile.TemporaryFile()))  # noqa: SIM115

        while data := opened.file.read(_COPIED_BYTES):
            copy.write(data)

        copy.flush()

        return replace(segment, file=copy, size=copy.tell(), begin=0)
