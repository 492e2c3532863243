"""The sealer in the background of a process that records, and in ``structlog-audit seal --watch``.

**Guarantees.** Once a second, the process that gets the lock of the seal folder seals; the others try again. Every
`CHECKPOINT_SECONDS` it appends a checkpoint line, even if nothing else was recorded, and another one when it ends.

**Failure handling.** A failure never reaches the application: it is counted, reported on stderr once until sealing works again,
and retried, at first after a second. Meanwhile another process may take over.

**Concurrency.** The thread starts with the first event of the process and ends with `close`. A forked child has no thread until
its own first event, and gives up the inherited lock without taking it from its parent. Threads of the background import no
modules: a child that is forked meanwhile would wait for ever for the lock of the module.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

from structlog_audit._failures import describe_failure, report_on_stderr
from structlog_audit._timers import start_thread
from structlog_audit.exceptions import AuditError
from structlog_audit.integrity.anchors import Anchors
from structlog_audit.integrity.checkpoint_lines import CheckpointLines
from structlog_audit.integrity.merkle import consistency_proof
from structlog_audit.integrity.notes import Signer
from structlog_audit.integrity.seal_folder import SealFolder
from structlog_audit.integrity.sealer import Sealer

SEAL_SECONDS = 1.0
"""Seconds between two passes."""

CHECKPOINT_SECONDS = 60.0
"""Seconds between two checkpoint lines."""

CLOSE_SECONDS = 5.0
"""The longest time that `BackgroundSealer.close` seals, or waits for a pass under way. The next sealer does the rest."""

_MOST_RETRY_SECONDS = 60.0

_MOST_ENDS = 3
"""The number of times that a process seals to the end, while others write."""


class BackgroundSealer:
    """Seals one trail in the background.

    Args:
        trail: The path of the active segment.
        origin: The name of the trail in checkpoints.
        load_signers: Returns the key, and during a rotation the one that it replaces. Called on the background thread, before
            the first pass.
        on_damage: Called with the name of a damaged segment and the damage.
        report: Called with the first failure, until sealing works again.
        anchors: Get each new checkpoint, in the background; None if there are none.
        start: Runs a function on a thread with a name; returns False if it cannot.
        monotonic: Returns seconds.
        sleep: Waits for seconds, and so yields the GIL.
    """

    def __init__(
        self,
        trail: str,
        origin: str,
        load_signers: Callable[[], Sequence[Signer]],
        *,
        on_damage: Callable[[str, str], None] = lambda name, reason: None,
        report: Callable[[str], None] = report_on_stderr,
        anchors: Anchors | None = None,
        start: Callable[[Callable[[], None], str], bool] = start_thread,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.failures = 0
        """The number of passes that failed."""
        self.failure = ""
        """The description of the failure that prevents sealing now, if any."""
        self.damages: dict[str, str] = {}
        """By segment, the damage of its sealed lines."""
        self.signers: tuple[Signer, ...] = ()
        """The keys, once they are loaded."""
        self.anchors = anchors

        self._trail = trail
        self._origin = origin
        self._load_signers = load_signers
        self._report_damage = on_damage
        self._report = report
        self._start = start
        self._monotonic = monotonic
        self._sleep = sleep

        self._folder = SealFolder(trail)
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._stop: threading.Event | None = None
        # Set to end the pass under way early.
        self._ending = threading.Event()
        self._sealer: Sealer | None = None
        self._lines = CheckpointLines(self._trail)
        self._retry_at = self._retry_seconds = 0.0
        self._checkpoint_at = 0.0
        # The number of leaves with the newest checkpoint line.
        self._lined_size = 0

    @property
    def is_sealing(self) -> bool:
        """Whether this process has the lock of the seal folder."""
        return self._folder.is_locked

    @property
    def size(self) -> int:
        """The number of lines that this process has sealed or found sealed."""
        return self._sealer.size if self._sealer is not None else 0

    @property
    def has_unstated_key(self) -> bool:
        """Whether the keys have changed, and the trail does not state it yet."""
        return self._sealer is not None and bool(self._sealer.key_changes)

    def wake(self) -> None:
        """Start the thread if it does not run. Writers call this at most every 50 ms."""
        if self._stop is None:
            self._stop = stop = threading.Event()
            if not self._start(lambda: self.run(stop), "structlog-audit sealer"):
                self._stop = None

    def run(self, stop: threading.Event) -> None:
        """Seal once a second until *stop* is set."""
        try:
            while not stop.wait(SEAL_SECONDS):
                self.seal_now()
        finally:
            # After an unexpected exception, the next event starts another thread.
            if self._stop is stop:
                self._stop = None

    def watch(self, stop: threading.Event) -> None:
        """Seal until *stop* is set, also during a pass; then append a checkpoint line and release the lock."""
        self._ending = stop
        self.seal_now()
        self.run(stop)
        self.finish()

    def seal_now(self) -> bool:
        """Seal the new lines, if this process has or gets the lock, and append a checkpoint line if one is due.

        Returns:
            Whether everything is sealed. Failures are counted, and not raised.
        """
        if not self._acquire():
            return False
        try:
            return self._pass()
        finally:
            self._release()

    def _acquire(self) -> bool:
        """Take the lock of this object, unless this thread has it further up its stack, in `close` of a signal handler."""
        if self._owner == threading.get_ident() or not self._lock.acquire(timeout=CLOSE_SECONDS):
            return False
        self._owner = threading.get_ident()
        return True

    def _release(self) -> None:
        self._owner = None
        self._lock.release()

    def _pass(self, until: float | None = None, *, must_append: bool = False) -> bool:
        """Seal, and append a checkpoint line if *must_append* or one is due; return whether that worked."""
        if self._monotonic() < self._retry_at:
            return False
        try:
            sealer = self._take_sealer()
            if sealer is None:
                return False
            self._seal_all(sealer, until)
            if must_append or self._monotonic() >= self._checkpoint_at:
                self._append_checkpoint(sealer)
        except Exception as error:
            # Keys, callbacks and files of others may raise anything, which must neither reach `close` nor end the thread.
            self._note_failure(error)
            return False
        self.failure = ""
        self._retry_seconds = 0.0
        return True

    def _take_sealer(self) -> Sealer | None:
        """Return the sealer if this process has or gets the lock."""
        if self._sealer is None:
            # A process without a key must not take the lock.
            self.signers = tuple(self._load_signers())
            self._sealer = Sealer(
                self._folder,
                self._trail,
                self._origin,
                self.signers,
                on_damage=self._note_damage,
                on_key_change=lambda note: self._lines.append(note, "key"),
                monotonic=self._monotonic,
                sleep=self._sleep,
            )
        if not self._folder.is_locked:
            if not self._folder.lock():
                return None
            self._sealer.forget()
            self._checkpoint_at = self._monotonic() + CHECKPOINT_SECONDS
        return self._sealer

    def _seal_all(self, sealer: Sealer, until: float | None) -> None:
        """Seal until nothing is left; at most up to the time *until*, or until this object is to end."""
        before = sealer.checkpoint
        while sealer.seal():
            is_late = self._ending.is_set() if until is None else self._monotonic() > until
            if is_late:
                break
        if self.anchors is not None and sealer.checkpoint is not None and sealer.checkpoint is not before:
            self.anchors.after_checkpoint(str(sealer.checkpoint).encode(), self._consistency_proof)

    def _consistency_proof(self, first: int, second: int) -> list[bytes]:
        with self._folder.hashes() as hashes:
            return consistency_proof(first, second, hashes.read)

    def _append_checkpoint(self, sealer: Sealer) -> None:
        self._checkpoint_at = self._monotonic() + CHECKPOINT_SECONDS
        if sealer.checkpoint is not None and self._lines.append(sealer.checkpoint):
            self._lined_size = sealer.size + 1

    def _note_failure(self, error: Exception) -> None:
        self.failures += 1
        description = str(error) if isinstance(error, AuditError) else describe_failure(error)
        if isinstance(error, OSError) and isinstance(error.filename, str):
            # Names without a folder are those of files in the seal folder.
            description = f"{os.path.join(self._folder.path, error.filename)}: {description}"

        if not self.failure:
            self._report(f"{self._trail} cannot be sealed ({description}); its events are recorded all the same")
        self.failure = description

        self._retry_seconds = min(2 * self._retry_seconds or SEAL_SECONDS, _MOST_RETRY_SECONDS)
        self._retry_at = self._monotonic() + self._retry_seconds
        # Perhaps another process can seal.
        self._folder.release()

    def _note_damage(self, name: str, reason: str) -> None:
        self.damages[name] = reason
        self._report_damage(name, reason)

    def close(self) -> None:
        """Seal the remaining lines, append a checkpoint line, and end the thread. The next event starts it again."""
        stop, self._stop = self._stop, None
        if stop is None:
            return
        stop.set()
        self._ending.set()
        self.finish()

    def finish(self) -> None:
        """Seal the remaining lines, append a checkpoint line, and release the lock."""
        if not self._acquire():
            return
        try:
            until = self._monotonic() + CLOSE_SECONDS
            for _ in range(_MOST_ENDS):
                self._seal_to_end(until)
                # A process that ended meanwhile could not get the lock, and perhaps no other is left to seal its last lines.
                if self._sealer is None or not self._sealer.is_behind():
                    break
        finally:
            self._ending.clear()
            self._release()
        if self.anchors is not None:
            self.anchors.close()

    def _seal_to_end(self, until: float) -> None:
        """Seal up to the end of every file, append a checkpoint line, and release the lock."""
        self._retry_at = 0.0
        if self._sealer is not None:
            self._sealer.rescan()

        if self._pass(until) and self.size > self._lined_size:
            self._pass(until, must_append=True)
            self._pass(until)
        self._folder.release()

    def release(self) -> None:
        """Give up the lock of the seal folder, so that another process can seal."""
        self._folder.release()

    def after_fork(self) -> None:
        """Forget thread, lock and state in a forked child: they belong to the parent."""
        self._folder.release()
        self._reset()
