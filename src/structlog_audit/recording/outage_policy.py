"""The policy for events while the target of a group commit fails: they are pending, raised or lost.

**Failure handling**

* ``on_error="retry"``: entries stay in the queue as pending, in memory and bounded. The next event, a flush, a close or
  a timer tries again, from the head of the queue. If ``max_pending`` events are pending, the newest are lost and counted.
  One gap event with their number takes their place in the queue, and so in the trail.
* ``on_error="raise"``: the callers of the events that were not written get an `AuditWriteError`. Nothing is pending.
* An entry that the target refuses while it takes others is set aside: lost and named in a gap, or raised. The others
  go on. That is known once the target has refused it at least twice, the last time directly after it took another entry.
* The start of an outage and its end are reported once each, after the leader has released the lock of the commit.

**Concurrency**: Only the leader of the commit calls `fail`, `recover` and `defer_backlog`, under the lock. The exception of a
signal handler may interrupt them after any call, and the next leader continues from there. So an event is accepted, or its
gap inserted, before the state of its entry changes, and the state changes before the entry leaves the queue.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Literal

from structlog_audit._timers import CallLater, try_call_later
from structlog_audit.events.event_id import Stamp
from structlog_audit.recording.queue_entry import LOST, PENDING, RAISED, Gap, QueueEntry

OnError = Literal["retry", "raise"]
"""The values of the parameter ``on_error``."""

RETRY_SECONDS = 1.0
"""The time between two attempts of the retry timer."""

INTERNAL_ROOM = 100
"""The number of the library's own entries that the queue may hold besides the pending events."""


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
        """Note that the target works again, if it failed before."""
        if self.is_active:
            self.is_active = False
            self.unreported.append(None)

    def probes(self, error: BaseException) -> Iterator[QueueEntry]:
        """Count a refusal of the head of the queue; yield entries to show whether the target takes others.

        There is none if the head was refused for the first time and can be retried later. Otherwise the next entry is one,
        which overtakes no other, and alternately the gap that would name the head.
        """
        queue = self._queue
        head = queue[0]
        head.refusals += 1

        if self._on_error == "raise":
            # No line will have the number of the head, so the other entries get lines of another writer.
            for place in range(len(queue) - 1, 0, -1):
                queue[place].line = b""
            self._stamp.renew()
            yield from islice(queue, 1, 2)
        elif head.refusals % 2 == 0 and len(queue) > 1:
            yield queue[1]
        elif head.refusals > 1:
            if head.counts:
                yield self._gap_for(head, error)

            # This target takes no gap, or the head is one. Any entry that was never refused may show that it works.
            fresh = (entry for entry in islice(queue, 2, None) if not entry.refusals)
            yield from islice(fresh, 1)

    def set_aside(self, error: BaseException, *, is_named: bool) -> None:
        """Complete the head of the queue, which the target refuses with *error*, as raised or lost.

        Args:
            error: The last error.
            is_named: Whether a gap that names the head is in the trail already. If not, one takes the place of the head.
        """
        queue = self._queue
        head = queue[0]
        if self._on_error == "raise":
            self._raise(head, error)
            return

        # A gap that is refused itself leaves no other one. Its events are counted as lost already.
        gap = None if is_named or not head.counts else self._gap_for(head, error)

        # A signal handler runs only after calls, so not in the middle of these statements.
        if head.state == PENDING:
            self.pending -= head.counts
        self.lost += head.counts
        head.state = LOST
        if gap is not None:
            queue[0] = gap
        else:
            queue.popleft()
        head.wake_waiter()

    def _gap_for(self, head: QueueEntry, error: BaseException) -> Gap:
        """Return a gap that names *head*, with an id of its own writer: the entries behind it have lines with earlier ids."""
        stamp = self._stamp.sibling()
        gap = _new_gap(stamp, head)
        gap.refused, gap.error = head, error
        gap.count = head.counts
        return gap

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
            self._raise(queue[0], error)

    def _raise(self, head: QueueEntry, error: BaseException) -> None:
        """Complete *head*, the head of the queue, as raised with *error*."""
        head.error = error
        head.state = RAISED
        self.raised += head.counts
        head.wake_waiter()
        self._queue.popleft()

    def _make_pending(self) -> None:
        """Make the entries in the queue pending as far as there is room; the newest are lost."""
        # The entries behind the last pending one, or behind the last gap, are new.
        newest_first: list[QueueEntry] = []
        for entry in reversed(self._queue):
            if entry.state == PENDING or isinstance(entry, Gap):
                break
            newest_first.append(entry)

        kept = self._count_fitting(reversed(newest_first))
        lost = newest_first[: len(newest_first) - kept]

        for entry in reversed(newest_first[len(lost) :]):
            self._accept(entry.line, entry.timestamp_us)
            entry.state = PENDING
            self.pending += entry.counts

        self._lose(lost)

        for entry in newest_first:
            entry.wake_waiter()

        if not self._timer_runs:
            self._timer_runs = try_call_later(self._call_later, RETRY_SECONDS, self._on_timer)

    def _count_fitting(self, entries: Iterator[QueueEntry]) -> int:
        """Return how many of the new *entries*, the oldest first, may become pending.

        The entries of the library take no room from events of the application.
        """
        room = self._max_pending - self.pending
        internal_room = INTERNAL_ROOM if len(self._queue) <= self._max_pending + INTERNAL_ROOM else 0
        count = 0
        for entry in entries:
            if entry.counts:
                room -= 1
            else:
                internal_room -= 1
            if room < 0 or internal_room < 0:
                break
            count += 1
        return count

    def _lose(self, lost: Sequence[QueueEntry]) -> None:
        """Remove the entries *lost* from the end of the queue, and count them in a gap event.

        Args:
            lost: The last entries of the queue, the newest first.
        """
        if not lost:
            return

        # The sequence numbers of these entries are used up, and no line has them. The gap event belongs to the new writer.
        self._stamp.renew()

        # The entries of the library are not counted.
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
        if isinstance(before, Gap) and before.refused is None:
            return before

        gap = _new_gap(self._stamp, lost[0])
        queue.insert(place, gap)
        return gap

    def _on_timer(self) -> None:
        self._timer_runs = False
        self._retry()


def _new_gap(stamp: Stamp, lost: QueueEntry) -> Gap:
    """Return a gap event with the level and the logger of *lost*."""
    # Reserve id and time now. `Gap.make_line` inserts the body.
    head, end = stamp.open_line()
    return Gap(b"", lost.level, lost.logger, timestamp_us=stamp.timestamp_us, head=head, end=end)
