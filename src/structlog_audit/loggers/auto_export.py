"""Export documents that an `AuditLogger` writes after every fixed number of events."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from structlog_audit._failures import describe_failure, report_on_stderr
from structlog_audit.events.codec import decode_event
from structlog_audit.export import WRITERS, write_atomically
from structlog_audit.recording.fork_safety import register_fork_reset

MOST_UNWRITTEN = 10
"""Documents' worth of events that wait in memory while the folder fails. Older ones are left out, counted and reported."""


class AutoExport:
    """Writes every *count* events to a separate document in *folder*."""

    def __init__(self, folder: Path, count: int, now: Callable[[], dt.datetime]) -> None:
        self._folder = folder
        self._count = count
        self._now = now
        self.after_fork()
        register_fork_reset(self)

    def after_fork(self) -> None:
        """Start without events: those before the fork are exported by the parent."""
        self._lines: list[bytes] = []
        # Events of documents that could not be written.
        self._unwritten: list[bytes] = []

        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._threads: list[threading.Thread] = []

        self.left_out = 0
        """Events that are in no document, because too many were waiting for a folder that fails."""

    def add(self, line: bytes) -> None:
        """Accept an event, and start to write a document if that completes one."""
        with self._lock:
            self._lines.append(line)
            if len(self._lines) < self._count:
                return

            lines = self._take_lines()
            earlier = [thread for thread in self._threads if thread.is_alive()]
            thread = threading.Thread(target=self._write, args=(lines, earlier), name="structlog-audit auto-export")
            try:
                thread.start()
            except RuntimeError:
                # The interpreter is shutting down and starts no threads. Write in this thread, without the lock.
                pass
            else:
                self._threads = [*earlier, thread]
                return

        self._write(lines)

    def close(self) -> None:
        """Write the remaining events, and wait until all documents are written."""
        for thread in self._threads:
            thread.join()

        with self._lock:
            lines = self._take_lines()
        if lines:
            self._write(lines)

    def _take_lines(self) -> list[bytes]:
        """Remove the events of the next document, and return them."""
        lines = self._unwritten + self._lines
        self._unwritten, self._lines = [], []
        return lines

    def _write(self, lines: list[bytes], earlier: Sequence[threading.Thread] = ()) -> None:
        """Write a document after those of the *earlier* threads.

        So documents follow the order of events.
        """
        for thread in earlier:
            thread.join()

        with self._writing:
            now = self._now()
            # Sorted by id, which is the order of commit.
            events = [decode_event(line) for line in sorted(lines)]
            chunks = list(WRITERS["json"]([events], now))
            try:
                self._write_to_free_name(chunks, now)
            except OSError as error:
                self._keep_unwritten(lines, error)

    def _write_to_free_name(self, chunks: Sequence[bytes], now: dt.datetime) -> None:
        """Write *chunks* to the document of the first free second from *now* on."""
        while True:
            path = self._folder / f"audit_{now:%Y_%m_%d_%H%M%S}.json"
            try:
                write_atomically(path, chunks, replace=False)
            except FileExistsError:
                now += dt.timedelta(seconds=1)
            else:
                return

    def _keep_unwritten(self, lines: list[bytes], error: OSError) -> None:
        """Keep the newest *lines* for the next document, and report the *error*.

        The others are counted as left out.
        """
        with self._lock:
            waiting = sorted(self._unwritten + lines)
            kept = waiting[-MOST_UNWRITTEN * self._count :]
            left_out = len(waiting) - len(kept)
            self._unwritten = kept
            self.left_out += left_out

        consequence = "the next document has its events"
        if left_out:
            consequence += f"; {left_out} older events are in no document"
        report_on_stderr(f"auto-export to {self._folder} fails ({describe_failure(error)}); {consequence}")
