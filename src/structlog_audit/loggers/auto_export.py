"""Write every so many events of an `AuditLogger` to an export document."""

from __future__ import annotations

import datetime as dt
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from structlog_audit._failures import describe_failure, report_on_stderr
from structlog_audit.events.codec import decode_event
from structlog_audit.export import FORMATS, write_atomically
from structlog_audit.recording.fork_safety import register_fork_reset

MOST_UNWRITTEN = 10
"""Documents' worth of events that wait in memory while the folder fails. Older ones are left out, counted, and told of."""


class AutoExport:
    """Writes every *count* events to a document of their own in *folder*."""

    def __init__(self, folder: Path, count: int, now: Callable[[], dt.datetime]) -> None:
        self._folder = folder
        self._count = count
        self._now = now
        self.after_fork()
        register_fork_reset(self)

    def after_fork(self) -> None:
        """Begin anew: nothing to export."""
        self._lines: list[bytes] = []
        self._unwritten: list[bytes] = []  # of documents that failed
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.left_out = 0
        """Events that are in no document, because too many were waiting for a folder that fails."""

    def add(self, line: bytes) -> None:
        """Take an event; start writing if that completes a document."""
        with self._lock:
            self._lines.append(line)
            if len(self._lines) < self._count:
                return
            lines = self._taken()
            earlier = [running for running in self._threads if running.is_alive()]
            thread = threading.Thread(target=self._write, args=(lines, earlier), name="structlog-audit auto-export")
            try:
                thread.start()
            except RuntimeError:  # the interpreter is going down and starts no threads
                pass
            else:
                self._threads = [*earlier, thread]
                return
        self._write(lines)

    def close(self) -> None:
        """Write what is left, and wait until everything is written."""
        for thread in self._threads:
            thread.join()
        with self._lock:
            lines = self._taken()
        if lines:
            self._write(lines)

    def _taken(self) -> list[bytes]:
        """The events of the next document, which are no longer here."""
        lines = self._unwritten + self._lines
        self._unwritten, self._lines = [], []
        return lines

    def _write(self, lines: list[bytes], earlier: Sequence[threading.Thread] = ()) -> None:
        """Write a document, behind those that *earlier* threads write: documents are in the order of their events."""
        for thread in earlier:
            thread.join()
        with self._writing:
            now = self._now()
            events = (decode_event(line) for line in sorted(lines))  # by id: in the order of commit
            chunks = list(FORMATS["json"](events, now))
            try:
                while True:
                    try:
                        place = self._folder / f"audit_{now:%Y_%m_%d_%H%M%S}.json"
                        return write_atomically(place, chunks, replace=False)
                    except FileExistsError:
                        if not os.path.lexists(place):  # it is the folder that is no folder
                            raise
                        now += dt.timedelta(seconds=1)
            except OSError as error:
                with self._lock:
                    kept = sorted(self._unwritten + lines)[-MOST_UNWRITTEN * self._count :]
                    left_out = len(self._unwritten) + len(lines) - len(kept)
                    self._unwritten = kept
                    self.left_out += left_out
                what = f"; {left_out} older events are in no document" if left_out else ""
                report_on_stderr(
                    f"auto-export to {self._folder} fails ({describe_failure(error)}); the next document has its events{what}"
                )
