"""Pruning: deletes the segments that the retention of a trail no longer keeps.

**Guarantees.** Segments due for deletion are first announced: a ``retention`` notice names them, and the oldest segment that is
kept, so that readers see whether others are missing. A background thread deletes
them, but only after the notice was recorded.

**Failure handling.** A check or a deletion that fails adds a ``retention failed`` notice and is repeated at the next check.
The event whose write ran the check is not affected.

**Concurrency.** Several processes may prune one trail: a segment that is already gone is not an error.

**Performance.** A check lists the folder. With a bound it runs when the trail is opened. As part of a write, it runs
`retention.GRACE_SECONDS` after each rollover and `RETENTION_CHECK_SECONDS` after each check.
"""

from __future__ import annotations

import datetime as dt
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from structlog_audit._failures import describe_failure
from structlog_audit.trail.segment_names import COMPRESSED_SUFFIXES, rollover_time
from structlog_audit.trail.writing.filesystem import segments_at, sync_folder
from structlog_audit.trail.writing.notices import Notices
from structlog_audit.trail.writing.retention import GRACE_SECONDS, Retention, RolledSegment

RETENTION_CHECK_SECONDS = 3600.0
"""Interval in seconds between two checks if no rollover occurs."""

MOST_NAMED_BYTES = 2_000
"""The bytes of names in one ``retention`` event of a sealed trail; further segments follow with the next check."""

SEAL_CHECK_SECONDS = 10.0
"""Interval in seconds between two checks while segments that are due wait to be sealed."""


class Seal(Protocol):
    """What is sealed of a trail with integrity on."""

    def cover(self, due: Sequence[tuple[str, int | None]], kept: Collection[str]) -> tuple[int, list[list[int]]]:
        """Return how many of the *due* segments are sealed, from the first on, and all leaves that are gone with them.

        Args:
            due: The names of segments, and their sizes in bytes if they are not compressed; the oldest first.
            kept: The names of all other segments.

        Returns:
            The number, and ranges of leaves: the first, and the one behind the last. The lines of segments that were deleted
            before are among them.
        """


class Pruning:
    """Applies a retention to one trail.

    Args:
        path: The path of the active segment.
        retention: The bounds of the trail.
        syncs: Whether deletions are synced to the disk.
        clock: Returns the current time in UTC.
        notices: Receives the announcements and failures.
    """

    def __init__(
        self, path: str, retention: Retention, *, syncs: bool, clock: Callable[[], dt.datetime], notices: Notices
    ) -> None:
        self.set_retention(retention)

        self._path = path
        self._syncs = syncs
        self._clock = clock
        self._notices = notices
        self.seal: Seal | None = None
        """With integrity on: a segment is deleted only once it is sealed."""
        # Segments that are announced and not deleted yet.
        self._announced: set[Path] = set()

    def set_retention(self, retention: Retention) -> None:
        """Apply another *retention* from the next check of the path."""
        self.retention = retention
        self.check_at = 0.0 if retention.is_bounded else math.inf
        """The value of ``time.monotonic()`` from which the next write runs a check."""

    def on_rollover(self) -> None:
        """Schedule a check for the time when no process appends to the newly rolled segment any more."""
        if self.retention.is_bounded:
            self.check_at = min(self.check_at, time.monotonic() + GRACE_SECONDS)

    def announce_due(self, active_bytes: int) -> None:
        """Add a notice that names the segments due for deletion.

        Args:
            active_bytes: Size of the active segment in bytes.
        """
        self.check_at = time.monotonic() + RETENTION_CHECK_SECONDS
        try:
            segments = list(segments_at(self._path))
        except OSError as error:
            self._add_failure(error)
            return

        # The oldest come first, and are due first.
        rolled = self._unannounced(segments)
        count = self.retention.count_due(list(rolled.values()), active_bytes, self._clock())
        if not count:
            return

        # The paths of each rolled segment, and last the active one, which always remains.
        paths = [*rolled, (Path(self._path),)]
        details: dict[str, Any] = {}
        if self.seal is not None:
            count, leaves = self._sealed(self.seal, paths, count, segments)
            details["leaves"] = leaves
            if not count:
                return
        due = [path for copies in paths[:count] for path in copies]
        kept = paths[count][0].name
        names = [path.name for path in due]
        total_bytes = sum(segment.size for segment in list(rolled.values())[:count])

        self._announced.update(due)
        details |= {"segments": names, "kept": kept, "bytes": total_bytes}
        if not self._notices.add("retention", partial(self.delete, due), **details):
            # The queue of notices is full. Announce the segments at the next check.
            self._announced.difference_update(due)

    def _sealed(
        self,
        seal: Seal,
        paths: Sequence[tuple[Path, ...]],
        count: int,
        segments: Iterable[tuple[Path, os.stat_result]],
    ) -> tuple[int, list[list[int]]]:
        """Return how many of the first *count* segments are sealed, and the leaves that are gone with them."""
        # The event names all of them, and must not be truncated.
        most = max(1, MOST_NAMED_BYTES // (len(paths[0][0].name) + 8))
        names = [_plain_name(copies[0]) for copies in paths]
        named = names[: min(count, most)]

        sizes = {path.name: status.st_size for path, status in segments}
        due = [(name, sizes.get(name)) for name in named]
        kept = set(names[len(named) :])

        sealed, leaves = seal.cover(due, kept)
        if sealed < count:
            self.check_at = time.monotonic() + SEAL_CHECK_SECONDS
        return sealed, leaves

    def _unannounced(self, segments: Iterable[tuple[Path, os.stat_result]]) -> dict[tuple[Path, ...], RolledSegment]:
        """Return the rolled ones of *segments* that are not announced yet, in the same order, by the paths of each.

        A segment and its compressed copy are one segment, as for readers.
        """
        base = Path(self._path).name
        files: dict[dt.datetime, list[tuple[Path, os.stat_result]]] = {}
        for path, status in segments:
            named_at = rollover_time(base, path.name)
            if named_at is not None and path not in self._announced:
                files.setdefault(named_at, []).append((path, status))

        found = {}
        for named_at, copies in files.items():
            paths = tuple(path for path, _ in copies)
            changed_at = min(status.st_ctime for _, status in copies)
            size = sum(status.st_size for _, status in copies)
            found[paths] = RolledSegment(named_at, dt.datetime.fromtimestamp(changed_at, dt.UTC), size)
        return found

    def delete(self, segments: Sequence[Path], is_recorded: bool) -> None:
        """Delete *segments* if the notice about them *is_recorded*. The next check announces those that remain again."""
        if is_recorded:
            for path in segments:
                try:
                    path.unlink(missing_ok=True)
                except OSError as error:
                    self._notices.add("retention failed", error=describe_failure(error), of=path.name)

        self._announced.difference_update(segments)

        if self._syncs:
            try:
                sync_folder(Path(self._path).parent)
            except OSError as error:
                self._add_failure(error)

    def _add_failure(self, error: OSError) -> None:
        self._notices.add("retention failed", error=describe_failure(error))

    def after_fork(self) -> None:
        """Forget the announced segments in a forked child: the parent records the notices and deletes the segments."""
        self._announced.clear()


def _plain_name(path: Path) -> str:
    """Return the name of a segment without the suffix of a compression."""
    return path.stem if path.suffix in COMPRESSED_SUFFIXES else path.name
