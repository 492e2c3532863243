"""Group commit: gives events their order, ids and times, and writes those of concurrent callers in one write.

A caller leaves its entry in the inbox. If no thread leads, it takes the lock and becomes the leader: it moves the inbox to
the queue, writes the queue in one write of whole lines and completes the entries. Other callers follow: they wait until
their entry is completed, or until the leader is done and the first of them leads in its place.

**Guarantees**: The queue is the order of the trail. Each event of an application is counted once: as recorded, pending,
raised or lost. An entry leaves the queue only when it is completed. So if a signal handler raises, nothing is lost: the next
leader continues with the queue, and at worst writes a line twice, with the same id.

**Failure handling**: See `outage_policy`. A target reports with `DeliveryError` how many entries it wrote. Nothing here logs.

**Concurrency**: A leading thread that submits again (in a signal handler, a finalizer or the target) only leaves its entry
in the inbox. An event loop does not wait for the disk: `submit_later` hands the entry to a background leader.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

from structlog_audit._failures import DeliveryError
from structlog_audit._timers import CallLater, try_call_later
from structlog_audit.events.event_id import Stamp
from structlog_audit.recording.followers import Followers, Waiter
from structlog_audit.recording.outage_policy import OnError, OutagePolicy
from structlog_audit.recording.queue_entry import PENDING, RAISED, RECORDED, WAITING, Gap, QueueEntry

MAX_BATCH_SIZE = 2_000
"""The largest number of entries in one write: about 600 kB, which takes one or two milliseconds."""


class GroupCommit:
    """The inbox and the queue in front of one target.

    Args:
        deliver: Writes the lines of entries; raises `DeliveryError` if the target fails. Any other exception comes from a
            signal handler: it goes to the caller, and the next leader delivers the same entries again.
        accept: Called with the line and the time of each event that is recorded or pending, in order.
        report_outage: Called with the first error of each outage, and with None when the outage is over.
        stamp: Gives ids and times.
        on_error: The outage policy: ``"retry"`` or ``"raise"``.
        max_pending: The largest number of pending events.
        call_later: Calls a function after a delay in seconds on a daemon thread; raises a RuntimeError if it cannot.
        lock: The lock of the target, if each write must hold one.
        waits_for_disk: Whether a write ends only when the data is on the disk.
    """

    def __init__(
        self,
        deliver: Callable[[Sequence[QueueEntry]], None],
        accept: Callable[[bytes, int], None],
        report_outage: Callable[[BaseException | None], None],
        *,
        stamp: Stamp,
        on_error: OnError,
        max_pending: int,
        call_later: CallLater,
        lock: threading.RLock | None = None,
        waits_for_disk: bool = False,
    ) -> None:
        self._deliver = deliver
        self._accept = accept
        self._stamp = stamp
        self._call_later = call_later
        self._lock = lock or threading.RLock()
        self._followers = Followers(can_be_busy=not waits_for_disk)

        # Any thread appends to the inbox; only the leader removes entries. The queue belongs to the leader: its entries
        # are in order and have lines.
        self._inbox: deque[QueueEntry] = deque()
        self._queue: deque[QueueEntry] = deque()
        self._leading = False

        # Whether a background thread leads or is about to.
        self._has_background_leader = False
        self._background_lock = threading.Lock()

        self._outage = OutagePolicy(
            self._queue,
            on_error=on_error,
            max_pending=max_pending,
            stamp=stamp,
            accept=accept,
            report=report_outage,
            retry=self.drain,
            call_later=call_later,
        )
        self._unreported = self._outage.unreported
        self.recorded = 0

    def submit(self, entry: QueueEntry) -> None:
        """Write *entry* and return when it is completed.

        Its state is the outcome. If the leading thread itself submits, in the middle of a write, the state is still
        `WAITING`: the leader writes that entry before it returns.

        Raises:
            AuditWriteError: The target failed, with ``on_error="raise"``.
        """
        # This stays one function for speed: every event runs it.
        inbox = self._inbox
        inbox.append(entry)

        # While another thread leads, follow: that thread, or the next leader, completes the entry.
        if not (self._leading and self._follow(entry)):
            # The lock is acquired and released by hand, which takes half the time of `with`. CPython may run a signal
            # handler directly after any call. So the lock is acquired inside the `try`, and no other call comes between
            # the end of the `try` and the release.
            lock = self._lock
            try:
                lock.acquire()

                # If this thread leads already (a signal handler or the target submits), the entry stays in the inbox.
                if not self._leading:
                    self._leading = True
                    try:
                        if self._queue or len(inbox) > 1 or entry.state != WAITING or self._outage.is_active:
                            # There are other entries to write, this one was completed meanwhile, or the target failed.
                            self._write_all()
                        else:
                            # Fast path for nearly every event: the entry is alone, and skips the queue.
                            # Assign the line, as `_assign_line` does.
                            stamp, deliver, accept = self._stamp, self._deliver, self._accept
                            line = entry.line = stamp.line(entry.body)
                            timestamp_us = entry.timestamp_us = stamp.timestamp_us

                            deliver((entry,))

                            # Complete the entry, as `_complete` does. It leaves the inbox last: if a signal handler
                            # raises before that, the next leader finds it there.
                            accept(line, timestamp_us)
                            entry.state = RECORDED
                            self.recorded += entry.counts
                            inbox.popleft()
                    except DeliveryError as error:
                        # Only the fast path raises it here.
                        self._move_to_queue()
                        self._handle_failure((entry,), error)
                    finally:
                        self._leading = False

                # Other callers, or a signal handler, submitted entries meanwhile.
                if inbox:
                    self._hand_over_or_drain()
            except BaseException:
                try:
                    lock.release()
                except RuntimeError as error:
                    # The lock itself raised: the exception ended the wait for it, so this thread does not hold it.
                    # A longer traceback is that of a signal handler, which ran directly after the release.
                    if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                        raise
                raise
            lock.release()

        # Report the start or the end of an outage, now that the lock is free.
        if self._unreported:
            self._outage.report()

        if entry.state == RAISED and entry.counts:
            entry.raise_error()

    def enqueue(self, entry: QueueEntry) -> None:
        """Put *entry* into the inbox and return at once; the next leader writes it first."""
        self._inbox.append(entry)

    def submit_later(self, entry: QueueEntry) -> None:
        """Put *entry* into the inbox, have a background thread write it, and return at once.

        For callers that must not block, such as an event loop while writes wait for the disk. They set ``entry.wake``.
        """
        self._inbox.append(entry)
        self._ensure_background_leader()

    def run_in_background(self, work: Callable[[], None]) -> None:
        """Run *work* on a background thread, or inline if no thread can be started."""
        if not try_call_later(self._call_later, 0.0, work):
            work()

    def drain(self) -> int:
        """Write all pending entries unless the target fails; return the number of events still pending."""
        with self._lock:
            self._lead()

            # `_lead` writes only one batch of a long backlog.
            while self._queue and not (self._outage.is_active or self._leading):
                self._lead()

            self._hand_over_or_drain()
            pending = self._outage.pending

        self._outage.report()
        return pending

    def counters(self) -> dict[str, int]:
        """Return the counters ``accepted recorded pending raised lost``, consistent with each other."""
        with self._lock:
            outage = self._outage
            counts = {
                "recorded": self.recorded,
                "pending": outage.pending,
                "raised": outage.raised,
                "lost": outage.lost,
            }
        return {"accepted": sum(counts.values()), **counts}

    def _follow(self, entry: QueueEntry) -> bool:
        """Wait while another thread leads; return whether *entry* is completed."""
        # A signal handler, a finalizer or the target of the leading thread must not wait for itself.
        if self._lock._is_owned():  # type: ignore[attr-defined]
            return False

        def must_wait() -> bool:
            return entry.state == WAITING and self._leading

        self._followers.wait(entry, must_wait, timestamp_us=self._stamp.timestamp_us, count=self.recorded)
        return entry.state != WAITING

    def _ensure_background_leader(self) -> None:
        """Start a background thread that leads, unless there is one."""
        with self._background_lock:
            if self._has_background_leader:
                return
            self._has_background_leader = True
        self.run_in_background(self._lead_in_background)

    def _lead_in_background(self) -> None:
        """Drain the inbox until it stays empty."""
        try:
            while True:
                self.drain()
                with self._background_lock:
                    if not self._inbox:
                        self._has_background_leader = False
                        return
        except BaseException:
            # An outage callback raised, which ends this thread: another one takes over.
            self._has_background_leader = False
            if self._inbox:
                self._ensure_background_leader()
            raise

    def _hand_over_or_drain(self) -> None:
        """Handle the entries that were submitted while this leader was finishing.

        If a follower waits for the first of them, it is woken and leads next. Otherwise they are written here: a signal
        handler of this thread cannot wait for the leader. During an outage they are left to the next attempt.
        """
        while self._inbox and not (self._leading or self._outage.waits_for_retry):
            next_leader = self._next_leader()
            if next_leader is not None:
                next_leader.wake()
                return
            self._lead()

    def _next_leader(self) -> Waiter | None:
        """Return the waiter of the first entry in the inbox, if a follower waits for it."""
        try:
            wake = self._inbox[0].wake
        except IndexError:
            return None
        return wake if isinstance(wake, Waiter) else None

    def _lead(self) -> None:
        """Write the inbox and the queue, unless this thread leads already."""
        if self._leading:
            return
        self._leading = True
        try:
            self._write_all()
        finally:
            self._leading = False

    def _write_all(self) -> None:
        """Write batch after batch, until a follower or the retry timer can take over. For the leader.

        So no caller writes the events of others without end.
        """
        while self._inbox or self._queue:
            batch = self._next_batch()
            if not batch:
                return

            try:
                self._deliver(batch)
            except DeliveryError as error:
                self._handle_failure(batch, error)
                return

            if self._outage.is_active:
                self._outage.recover()
            self._complete(batch)

            if not self._queue:
                if self._next_leader() is not None:
                    return
            elif self._outage.defer_backlog():
                self._followers.wake_one()
                return

    def _next_batch(self) -> Sequence[QueueEntry]:
        """Move the inbox to the queue and return its head, in which each entry has a line."""
        while self._inbox:
            self._move_to_queue()

        # A leader that was interrupted may have left completed entries.
        queue = self._queue
        while queue and queue[0].state in (RECORDED, RAISED):
            queue.popleft().wake_waiter()

        batch = list(islice(queue, MAX_BATCH_SIZE))
        for entry in batch:
            if isinstance(entry, Gap):
                entry.make_line()
        return batch

    def _move_to_queue(self) -> None:
        """Move the first entry of the inbox to the end of the queue, with a line."""
        entry = self._inbox[0]
        queue = self._queue

        # A leader that was interrupted may have done either step.
        if not entry.line:
            self._assign_line(entry)
        if not queue or queue[-1] is not entry:
            queue.append(entry)

        self._inbox.popleft()

    def _assign_line(self, entry: QueueEntry) -> None:
        """Give *entry* its id and its time, and so its line."""
        entry.line = self._stamp.line(entry.body)
        entry.timestamp_us = self._stamp.timestamp_us

    def _complete(self, batch: Sequence[QueueEntry]) -> None:
        """Acknowledge *batch*, the head of the queue, as recorded."""
        for entry in batch:
            if entry.state == PENDING:
                self._outage.pending -= entry.counts
            else:
                self._accept(entry.line, entry.timestamp_us)
            entry.state = RECORDED
            self.recorded += entry.counts
            entry.wake_waiter()
            self._queue.popleft()

        self._followers.wake_one()

    def _handle_failure(self, batch: Sequence[QueueEntry], error: DeliveryError) -> None:
        """Complete the entries of *batch* that the target wrote, and apply the outage policy to the others."""
        self._complete(batch[: error.done])
        self._outage.fail(error.__cause__ or error)
        self._followers.wake_one()
