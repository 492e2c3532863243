"""The policy for events while the target of a group commit fails: they are pending, raised or lost.

**Failure handling**

* ``on_error="retry"``: entries stay in the queue as pending, in memory and bounded. The next event, a flush, a close or
  a timer tries again, from the head of the queue. If ``max_pending`` events are pending, the newest are lost and counted.
  One gap event with their number takes their place in the queue, and so in the trail.
* ``on_error="raise"``: the callers of the events that were not written get an `AuditWriteError`. Nothing is pending.
* The start of an outage and its end are reported once each, after the leader has released the lock of the commit.

**Concurrency**: Only the leader of the commit calls `fail`, `recover` and `defer_backlog`, under the lock. The exception of a
signal handler may interrupt them after any call, and the next leader continues from there. So an event is accepted, or its
gap inserted, before the state of its entry changes, and the state changes before the entry leaves the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from structlog_audit._timers import CallLater, try_call_later
from structlog_audit.events.event_id import Stamp
from structlog_audit.recording.queue_entry import LOST, PENDING, RAISED, Gap, QueueEntry

OnError = Literal["retry", "raise"]
"""The values of the parameter ``on_error``."""

RETRY_SECONDS = 1.0
"""The time between two attempts of the retry timer."""


class OutagePolicy:
    """Decides about the entries in the queue of one `GroupCommit` when its target fails, and counts them.

    Args:
        queue: The queue of the commit: entries in order, with lines.
        on_error: Whether entries wait until the target recovers, or their callers get an error.
        max_pending: The largest number of pending events.
        stamp: Gives ids and times to gap events.
        accept: Called with the line and the time of each event that becomes pending, in order.
        report: Called with the first error of each outage, and with None when the outage is over.
        retry: Called by the retry timer.
        call_later: Starts the retry timer.
    """

    def __init__(
        self,
        queue: deque[QueueEntry],
        *,
        on_error: OnError,
        max_pending: int,
        stamp: Stamp,
        accept: Callable[[bytes, int], None],
        report: Callable[[BaseException | None], None],
        retry: Callable[[], object],
        call_later: CallLater,
    ) -> None:
        self._queue = queue
        self._on_error = on_error
        self._max_pending = max_pending
        self._stamp = stamp
        self._accept = accept
        self._report = report
        self._retry = retry
        self._call_later = call_later

        self.is_active = False
        """Whether the target failed at the last attempt."""

        self.unreported: deque[BaseException | None] = deque()
        """Changes that were not reported yet: the first error of an outage, or None for its end."""

        # The numbers of application events with these outcomes. The first falls when a pending event is recorded.
        self.pending = self.raised = self.lost = 0

        self._timer_runs = False
        self._reporting = False

    @property
    def waits_for_retry(self) -> bool:
        """Whether events wait in an outage for the next attempt, so that a leader need not write them now."""
        return self.is_active and self._on_error == "retry"

    def fail(self, error: BaseException) -> None:
        """Handle a failure of the target: the entries in the queue become pending or lost, or all are raised."""
        if not self.is_active:
            self.is_active = True
            self.unreported.append(error)

        if self._on_error == "retry":
            self._make_pending()
        else:
            self._raise_all(error)

    def recover(self) -> None:
        """Note that the target works again."""
        self.is_active = False
        self.unreported.append(None)

    def defer_backlog(self) -> bool:
        """Make the whole queue pending if there is room, and return whether there was.

        The leader calls this after a successful write, so that the retry timer writes the rest of a long queue. A queue that
        does not fit is left to the leader: while the target works, no event may be lost.
        """
        fits = self._on_error == "retry" and len(self._queue) <= self._max_pending
        if fits:
            self._make_pending()
        return fits

    def report(self) -> None:
        """Report the changes that were not reported yet. The lock of the commit should be free.

        The callback may record events, which may cause further changes. Those are left to the next caller: with a target
        that fails every other time, this one would never return.
        """
        if self._reporting:
            return
        self._reporting = True
        try:
            for _ in range(len(self.unreported)):
                try:
                    change = self.unreported.popleft()
                except IndexError:
                    # Another thread has reported the last change meanwhile.
                    return
                self._report(change)
        finally:
            self._reporting = False

    def _raise_all(self, error: BaseException) -> None:
        """Complete all entries in the queue as raised."""
        queue = self._queue
        if queue:
            # The sequence numbers of these entries are used up, and no line has them.
            self._stamp.renew()
        while queue:
            entry = queue[0]
            entry.error = error
            entry.state = RAISED
            self.raised += entry.counts
            entry.wake_waiter()
            queue.popleft()

    def _make_pending(self) -> None:
        """Make the entries in the queue pending as far as there is room; the newest are lost."""
        # The entries behind the last pending one, or behind the last gap, are new.
        newest_first: list[QueueEntry] = []
        for entry in reversed(self._queue):
            if entry.state == PENDING or isinstance(entry, Gap):
                break
            newest_first.append(entry)

        room = max(0, self._max_pending - self.pending)
        excess = max(0, len(newest_first) - room)
        lost, kept = newest_first[:excess], newest_first[excess:]

        for entry in reversed(kept):
            self._accept(entry.line, entry.timestamp_us)
            entry.state = PENDING
            self.pending += entry.counts

        self._lose(lost)

        for entry in newest_first:
            entry.wake_waiter()

        if not self._timer_runs:
            self._timer_runs = try_call_later(self._call_later, RETRY_SECONDS, self._on_timer)

    def _lose(self, lost: Sequence[QueueEntry]) -> None:
        """Remove the entries *lost* from the end of the queue, and count them in a gap event.

        Args:
            lost: The last entries of the queue, the newest first.
        """
        if not lost:
            return

        # The sequence numbers of these entries are used up, and no line has them. The gap event belongs to the new writer.
        self._stamp.renew()

        # The library's own entries are not counted.
        gap = None
        if any(entry.counts for entry in lost):
            gap = self._gap_before(lost)

        for entry in lost:
            entry.state = LOST
            if gap is not None:
                gap.count += entry.counts
                self.lost += entry.counts
            self._queue.pop()

    def _gap_before(self, lost: Sequence[QueueEntry]) -> Gap:
        """Return the gap event directly before the entries *lost* in the queue; insert one if necessary."""
        queue = self._queue
        place = len(queue) - len(lost)
        before = queue[place - 1] if place else None
        if isinstance(before, Gap):
            return before

        # Reserve id and time now. `Gap.make_line` inserts the body.
        head, end = self._stamp.open_line()
        newest = lost[0]
        gap = Gap(b"", newest.level, newest.logger, timestamp_us=self._stamp.timestamp_us, head=head, end=end)
        queue.insert(place, gap)
        return gap

    def _on_timer(self) -> None:
        self._timer_runs = False
        self._retry()
