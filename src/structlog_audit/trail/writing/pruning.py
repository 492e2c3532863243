"""Lets go of the segments that retention no longer keeps.

Rules:

* What may go is noticed, with the names; it goes when that is recorded, in another thread. Recording takes an `AuditHandler`.
* There is a look when the trail is opened, by whoever rolls over a second after that (`retention.GRACE_SECONDS`), and every
  hour, always with a write.
* Other processes delete segments too. One that is gone already is nothing to speak of.
* A look or a deletion that fails is noticed, and tried again with the next look. It holds up no event.
"""

from __future__ import annotations

import datetime as dt
import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from structlog_audit._failures import describe_failure
from structlog_audit.trail.segment_names import rollover_time
from structlog_audit.trail.writing.filesystem import segments_at, sync_folder
from structlog_audit.trail.writing.notices import Notices
from structlog_audit.trail.writing.retention import GRACE_SECONDS, Retention, Rolled

CHECK_SECONDS = 3600.0
"""Between two looks, if there is no rollover."""


class Pruning:
    """Applies a retention to one trail.

    Args:
        path: The active segment.
        retention: What is kept.
        syncs: Whether the disk must have it when segments have gone.
        clock: The time in UTC.
        notices: Where to say what may go.
    """

    def __init__(
        self, path: str, retention: Retention, *, syncs: bool, clock: Callable[[], dt.datetime], notices: Notices
    ) -> None:
        self.retention = retention
        self._path = path
        self._syncs = syncs
        self._clock = clock
        self._notices = notices
        self._going: set[Path] = set()  # noticed, and perhaps still there
        self.check_at = 0.0 if retention.bounds else math.inf
        """When the next look is due, of ``time.monotonic()``."""

    def rolled(self) -> None:
        """The segment was rolled over: look when nobody writes into it any more."""
        self.check_at = min(self.check_at, time.monotonic() + GRACE_SECONDS)

    def announce_due(self, active_bytes: int) -> None:
        """Notice the segments that may go, given the size of the active one."""
        self.check_at = time.monotonic() + CHECK_SECONDS
        try:
            found = [(path, status) for path, status in segments_at(self._path) if path not in self._going]
        except OSError as error:
            self._notices.add("retention failed", error=describe_failure(error))
            return
        rolled = {
            path: Rolled(named, dt.datetime.fromtimestamp(status.st_ctime, dt.UTC), status.st_size)
            for path, status in found
            if (named := rollover_time(Path(self._path).name, path.name)) is not None
        }
        due = list(rolled)[: self.retention.due(list(rolled.values()), active_bytes, self._clock())]
        if due:
            self._going.update(due)
            said = {"segments": [path.name for path in due], "bytes": sum(rolled[path].size for path in due)}
            if not self._notices.add("retention", partial(self.delete, due), **said):
                self._going.difference_update(due)

    def delete(self, segments: Sequence[Path], recorded: bool) -> None:
        """Delete *segments*, if that is *recorded*. Those that stay are due again at the next look."""
        for path in segments if recorded else ():
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                self._notices.add("retention failed", error=describe_failure(error), of=path.name)
        self._going.difference_update(segments)
        if self._syncs:
            try:
                sync_folder(Path(self._path).parent)
            except OSError as error:
                self._notices.add("retention failed", error=describe_failure(error))

    def after_fork(self) -> None:
        """What was noticed is the parent's to record, and to delete."""
        self._going.clear()
