"""Group commit: orders events, gives them ids and times, and writes the events of concurrent callers together.

A caller appends the entry of its event to the inbox. If no thread leads, the caller takes the lock and becomes the leader: it
moves the inbox to the queue, writes the queue in batches of whole lines and completes the entries, which gives each its
outcome: recorded, pending, lost or raised. Other callers follow: they wait until their entry is completed or no thread leads.

**Guarantees**: The trail has the order of the queue. Each application event is counted under one outcome. Its entry stays in
the inbox or the queue until it is recorded, lost or raised. So an exception from a signal handler loses no event: the next
leader continues with both, and at worst writes a line twice, with the same id.

**Failure handling**: See `outage_policy`. A target reports with `DeliveryError` how many entries it wrote. Nothing here logs.

**Concurrency**: If the leading thread submits again (in a signal handler, a finalizer or the target), the entry only goes to
the inbox. `submit_later` leaves the write to a background thread, so that an event loop does not wait for the disk.
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
        accept: Called in order with each event that is recorded or pending: its line, and its time in microseconds. After
            an exception from a signal handler it may get the same event again.
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
        # The same deque: `submit` checks it for every event, and this saves an attribute lookup.
        self._unreported = self._outage.unreported

        self.recorded = 0
        """The number of application events that the target has recorded."""

    def submit(self, entry: QueueEntry) -> None:  # noqa: C901, PLR0912, PLR0915 (one function for speed)
        """Write *entry* and return when it is completed.

        Its state is the outcome. If the leading thread itself submits, in the middle of a write, the state is still
        `WAITING` on return: the entry is written after that write, or during an outage at the next attempt.

        Raises:
            AuditWriteError: The target failed, with ``on_error="raise"``.
        """
        # This stays one function for speed: every event runs it.
        inbox = self._inbox
        inbox.append(entry)

        # While another thread leads, wait for it to complete the entry. Lead if it stopped before that.
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
                        try:
                            if self._queue or len(inbox) > 1 or entry.state != WAITING or self._outage.is_active:
                                # There are other entries to write, this one was completed meanwhile, or an outage may end.
                                self._write_batches()
                            else:
                                # Fast path for nearly every event: the entry is alone, and skips the queue.
                                # Assign the line, as `_assign_line` does.
                                stamp, deliver, accept = self._stamp, self._deliver, self._accept
                                line = entry.line = stamp.line(entry.body)
                                timestamp_us = entry.timestamp_us = stamp.timestamp_us

                                deliver((entry,))

                                # Mark the entry as recorded, as `_mark_recorded` does. It leaves the inbox last: if a signal
                                # handler raises before that, the next leader finds it there.
                                accept(line, timestamp_us)
                                entry.state = RECORDED
                                self.recorded += entry.counts
                                inbox.popleft()
                        except DeliveryError as error:
                            # The error comes from the fast path: `_write_batches` handles its errors itself.
                            self._move_first_to_queue()
                            self._handle_failure((entry,), error)
                    except BaseException:
                        # A signal handler may have raised between the use of a sequence number and the line that has it.
                        self._stamp.renew()
                        raise
                    finally:
                        self._leading = False

                # Other callers, or a signal handler of this thread, submitted entries meanwhile.
                if inbox:
                    self._hand_over_or_drain()
            except BaseException:
                try:
                    lock.release()
                except RuntimeError as error:
                    # If `release` itself raised, its traceback has one frame. Then this thread does not hold the lock,
                    # because the first exception ended the wait in `acquire`. A longer traceback comes from a signal
                    # handler that ran directly after the release and raised a RuntimeError: that one goes to the caller.
                    if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                        raise
                raise
            lock.release()

        # Report the start or the end of an outage.
        if self._unreported:
            self._report_outage()

        # The library's own entries (`counts` is 0) raise nothing: no caller of the application submitted them.
        if entry.state == RAISED and entry.counts:
            entry.raise_error()

    def enqueue(self, entry: QueueEntry) -> None:
        """Put *entry* into the inbox and return; the next leader writes it before any later entry."""
        self._inbox.append(entry)

    def submit_later(self, entry: QueueEntry) -> None:
        """Put *entry* into the inbox, and write it on a background thread.

        For callers that must not block, such as an event loop while writes wait for the disk. They set ``entry.wake`` first,
        which is called when the entry is completed, and they raise its error themselves. If no thread can be started, the
        entry is written before this returns.
        """
        self._inbox.append(entry)
        self._ensure_background_leader()

    def run_in_background(self, work: Callable[[], None]) -> None:
        """Run *work* on a background thread, or on this thread if no other can be started."""
        if not try_call_later(self._call_later, 0.0, work):
            work()

    def drain(self) -> int:
        """Write the inbox and the queue unless the target fails; return the number of events still pending."""
        with self._lock:
            self._lead()

            # `_lead` may write only one batch of a long backlog and leave the rest to the retry timer.
            while self._queue and not (self._outage.is_active or self._leading):
                self._lead()

            self._hand_over_or_drain()
            pending = self._outage.pending

        self._report_outage()
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

    def _report_outage(self) -> None:
        """Report changes of the outage, unless this thread still has the lock: it leads further up its stack."""
        if not self._lock._is_owned():  # type: ignore[attr-defined]
            self._outage.report()

    def _follow(self, entry: QueueEntry) -> bool:
        """Wait while another thread leads; return whether *entry* is completed."""
        # If this thread leads already, further up its stack, it must not wait for itself.
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

                # Under this lock, so that `_ensure_background_leader` does not rely on a thread that is about to end.
                with self._background_lock:
                    if not self._inbox:
                        self._has_background_leader = False
                        return
        except BaseException:
            # The exception, for example of an outage callback, ends this thread: another one takes over.
            self._has_background_leader = False
            if self._inbox:
                self._ensure_background_leader()
            raise

    def _hand_over_or_drain(self) -> None:
        """Handle the entries that were submitted after this leader last checked the inbox.

        If a follower that can be woken waits for the first of them, wake it: it leads next. Otherwise write them here,
        because perhaps no thread waits for them: a signal handler of this thread, for example, only leaves its entry in the
        inbox. During an outage leave them to the next attempt.
        """
        while self._inbox and not (self._leading or self._outage.waits_for_retry):
            next_leader = self._next_leader()
            if next_leader is not None:
                next_leader.wake()
                return
            self._lead()

    def _next_leader(self) -> Waiter | None:
        """Return the follower that waits for the first entry in the inbox, if there is one and it can be woken."""
        try:
            wake = self._inbox[0].wake
        except IndexError:
            return None
        return wake if isinstance(wake, Waiter) else None

    def _lead(self) -> None:
        """Write the inbox and the queue, unless this thread leads already. The caller holds the lock."""
        if self._leading:
            return
        self._leading = True
        try:
            self._write_batches()
        except BaseException:
            # As in `submit`: a sequence number may have been used without a line.
            self._stamp.renew()
            raise
        finally:
            self._leading = False

    def _write_batches(self) -> None:
        """Write batches until nothing is left, the target fails, or a follower or the retry timer can take over.

        Only the leader calls this. It hands over early, or one caller might write the events of others indefinitely.
        """
        while self._inbox or self._queue:
            batch = self._next_batch()
            if not batch:
                return

            try:
                self._deliver(batch)
            except DeliveryError as error:
                if self._handle_failure(batch, error):
                    continue
                return

            if self._outage.is_active:
                self._outage.recover()
            self._mark_recorded(batch)

            if not self._queue:
                # `_hand_over_or_drain` wakes the next leader.
                if self._next_leader() is not None:
                    return

            # The queue was longer than a batch. If the rest may become pending, its callers need not wait until it is written.
            elif self._outage.defer_backlog():
                self._followers.wake_one()
                return

    def _next_batch(self) -> Sequence[QueueEntry]:
        """Move the inbox to the queue, and return the first entries of the queue, each with its line."""
        while self._inbox:
            self._move_first_to_queue()

        # A leader that was interrupted may have left completed entries in the queue, without waking their callers.
        queue = self._queue
        while queue and queue[0].is_completed:
            queue.popleft().wake_waiter()

        batch: list[QueueEntry] = []
        for entry in islice(queue, MAX_BATCH_SIZE):
            # Most entries need no call.
            if entry.state != WAITING or not (entry.line and entry.counts):
                if entry.is_completed:
                    break
                self._make_line(entry)
            batch.append(entry)
        return batch

    def _make_line(self, entry: QueueEntry) -> None:
        """Make the line of an *entry* in the queue, if it has none or may have changed since the last attempt."""
        # The line of a gap contains the number of lost events.
        if isinstance(entry, Gap):
            entry.make_line()
        elif not entry.line:
            self._assign_line(entry)

    def _move_first_to_queue(self) -> None:
        """Move the first entry of the inbox to the end of the queue, and give it its line."""
        entry = self._inbox[0]
        queue = self._queue

        # A leader that was interrupted may have done one or both of these steps already.
        if not entry.line:
            self._assign_line(entry)
        if not queue or queue[-1] is not entry:
            queue.append(entry)

        self._inbox.popleft()

    def _assign_line(self, entry: QueueEntry) -> None:
        """Give *entry* its line, with a new id and the current time."""
        entry.line = self._stamp.line(entry.body)
        entry.timestamp_us = self._stamp.timestamp_us

    def _mark_recorded(self, batch: Sequence[QueueEntry]) -> None:
        """Complete *batch*, entries of the queue, as recorded."""
        for entry in batch:
            # A pending event was accepted when it became pending.
            if entry.state == PENDING:
                self._outage.pending -= entry.counts
            else:
                self._accept(entry.line, entry.timestamp_us)
            entry.state = RECORDED
            self.recorded += entry.counts
            entry.wake_waiter()
            self._queue.remove(entry)

        self._followers.wake_one()

    def _handle_failure(self, batch: Sequence[QueueEntry], error: DeliveryError) -> bool:
        """Mark the entries of *batch* that the target wrote as recorded, and apply the outage policy to the queue.

        Returns:
            Whether the target takes entries, so that the leader can go on: it only refused the next one.
        """
        self._mark_recorded(batch[: error.done])
        cause = error.__cause__ or error
        goes_on = error.may_be_refusal and self._set_refused_aside(cause)
        if not goes_on:
            self._outage.fail(cause)

        self._followers.wake_one()
        return goes_on

    def _set_refused_aside(self, cause: BaseException) -> bool:
        """Set the head of the queue aside if the target refuses it and takes another entry.

        Args:
            cause: The error of the target.

        Returns:
            Whether the target takes entries.
        """
        head = self._queue[0]
        for probe in self._outage.probes(cause):
            error = self._try(probe)
            if error is None:
                break
            probe.refusals += 1
        else:
            return False

        # Perhaps the target has recovered between the two attempts.
        error = self._try(head)
        if error is not None:
            if not error.may_be_refusal:
                return False
            is_named = isinstance(probe, Gap) and probe.refused is head
            self._outage.set_aside(error.__cause__ or error, is_named=is_named)

        self._outage.recover()
        return True

    def _try(self, entry: QueueEntry) -> DeliveryError | None:
        """Write *entry* alone, and return the error if the target fails."""
        self._make_line(entry)
        try:
            self._deliver((entry,))
        except DeliveryError as error:
            return error

        # A gap may be tried before it is in the queue.
        if entry not in self._queue:
            self._queue.appendleft(entry)
        self._mark_recorded((entry,))
        return None
