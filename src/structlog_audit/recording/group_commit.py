"""The one place where events get their order, id and time and go to the target.

Rules:

* Whoever submits an entry leaves it at the door. If nobody leads, it takes the lock and leads: it takes in all that has
  arrived and writes it in one write of whole lines. Who comes meanwhile follows: it waits until its entry is settled
  (`followers`), or goes on as the leader when the one that led has settled its own.
* The queue is the order. An entry leaves it only when it is settled, so an exception that interrupts a leader (a signal
  handler's) loses nothing: the next leader goes on with it, at worst writing a line twice, with the same id.
* ``on_error="retry"``: when the target fails, entries stay in the queue as pending, in memory and bounded. The next event,
  a flush, a close or a timer tries again, from the head on. When ``max_pending`` are pending, the newest is lost and
  counted; a gap stands in the queue where the lost ones would have stood, and is written in its turn. A target that works
  loses nothing: what remains of a backlog becomes pending only if there is room for all of it.
* ``on_error="raise"``: the callers whose events were not written get an `AuditWriteError`; nothing is pending.
* Every event of an application is counted when it is settled, as recorded, pending, raised or lost; those accepted are the sum.
* A target says how far it came: it raises `DeliveryError` with the number of entries that are whole in the trail.
* Each step that a signal handler's exception may interrupt leaves the queue such that the next leader goes on with it: what
  is done for an entry is done before it says so, and it says so before it leaves the queue.
* A thread that comes again while it leads (from a signal handler, a finalizer, a target that audits) only leaves its entry
  at the door; it is written before that leader goes, or by the follower that goes on.
* `submit` takes the lock and gives it back by hand, in half the time of ``with``. CPython lets a signal handler run right
  behind a call: so the lock is taken within the ``try``, and nothing is called between the end of that and giving it back. Who
  has the lock never waits for it: so where an exception ends a wait, it is not this thread's, and giving it back is an error.
* An event loop does not wait here for the disk: it submits for later, and a thread leads for all that come meanwhile.
* Nothing here logs. A failure is told once per outage, and its end, after the lock is free.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Literal

from structlog_audit._failures import DeliveryError
from structlog_audit._timers import CallLater
from structlog_audit.events.event_id import Stamp
from structlog_audit.recording.followers import Followers, Waiter
from structlog_audit.recording.queue_entry import LOST, PENDING, RAISED, RECORDED, WAITING, Gap, QueueEntry

OnError = Literal["retry", "raise"]


MAX_AT_ONCE = 2_000
"""Entries in one write, at most: some 600 kB, a millisecond or two. What remains of a backlog is the timer's."""

RETRY_SECONDS = 1.0
"""Between two attempts of the timer."""


class GroupCommit:
    """The queue in front of one target.

    Args:
        deliver: Writes entries, which have lines; raises `DeliveryError`. Any other exception is not its own but a signal
            handler's: it goes to the caller, and the next leader delivers once more.
        accept: Takes the line and the moment of each event that is recorded or pending, in order.
        tell: Told of the first failure of an outage, and by None that it is over.
        stamp: Gives ids and times.
        call_later: Calls a function after so many seconds, from a thread that keeps no process alive; raises a RuntimeError
            if there can be none.
        lock: The lock of the target, if it has one that is held for each write.
        waits_for_disk: Whether a write is over only when the disk has it.
    """

    def __init__(
        self,
        deliver: Callable[[Sequence[QueueEntry]], None],
        accept: Callable[[bytes, int], None],
        tell: Callable[[BaseException | None], None],
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
        self._tell = tell
        self._stamp = stamp
        self._on_error = on_error
        self._max_pending = max_pending
        self._call_later = call_later
        self._lock = lock or threading.RLock()
        self._followers = Followers(can_be_busy=not waits_for_disk)
        self._arrived: deque[QueueEntry] = deque()  # anybody appends; only a leader takes
        self._queue: deque[QueueEntry] = deque()  # the leader's: in order, with id and time
        self._leading = self._failing = self._timed = False
        self._working = False  # whether a thread of our own is leading, or about to
        self._speaking = False
        self._work_lock = threading.Lock()
        self._untold: deque[BaseException | None] = deque()  # failures, and by None recoveries
        self.recorded = self.pending = self.raised = self.lost = 0

    def submit(self, entry: QueueEntry) -> None:
        """Commit *entry*; afterwards its state says what became of it.

        It is still waiting only if the leading thread itself submitted it, in the middle of a commit. What nothing waits
        with, nearly every event, is written here, where it stays at the door until it is settled; all else by `_write_all`.

        Raises:
            AuditWriteError: The target failed, and the policy is to raise.
        """
        arrived = self._arrived
        arrived.append(entry)
        if not (self._leading and self._follows(entry)):
            lock = self._lock
            try:
                lock.acquire()
                if not self._leading:
                    self._leading = True  # from here on a signal handler leaves its entry at the door
                    try:
                        if self._queue or len(arrived) > 1 or entry.state != WAITING:
                            self._write_all()  # there is more to write, or somebody wrote this one meanwhile
                        else:
                            stamp, deliver, accept = self._stamp, self._deliver, self._accept
                            line = entry.line = stamp.line(entry.body)  # what `_take_on` does
                            moment = entry.moment = stamp.timestamp_us
                            deliver((entry,))
                            if self._failing:
                                self._recover()
                            accept(line, moment)  # what `_settle` does
                            entry.state = RECORDED
                            self.recorded += entry.counts
                            arrived.popleft()
                    except DeliveryError as error:
                        self._queue_up()
                        self._fall_short((entry,), error)
                    finally:
                        self._leading = False
                if arrived:
                    self._lead_whoever_came()
            except BaseException:
                try:
                    lock.release()
                except RuntimeError as error:
                    if error.__traceback__ is not None and error.__traceback__.tb_next is not None:
                        raise  # it is not the lock's own, but that of a signal handler right behind
                raise
            lock.release()
        if self._untold:
            self._speak()
        if entry.state == RAISED and entry.counts:
            entry.raise_error()

    def _follows(self, entry: QueueEntry) -> bool:
        """Whether another thread, which leads, has settled *entry*. Waits until it has, or leads no more."""
        if self._lock._is_owned():  # type: ignore[attr-defined]
            return False  # this thread leads
        pace = {"moment": self._stamp.timestamp_us, "count": self.recorded}
        self._followers.wait(entry, lambda: entry.state == WAITING and self._leading, **pace)
        return entry.state != WAITING

    def arrive(self, entry: QueueEntry) -> None:
        """Leave *entry* at the door: whoever leads next writes it first."""
        self._arrived.append(entry)

    def submit_later(self, entry: QueueEntry) -> None:
        """Commit *entry* in a thread of the commit's own, together with all that comes meanwhile. Returns at once.

        For callers that must not wait here, such as an event loop when writing waits for the disk. They set ``entry.wake``.
        """
        self._arrived.append(entry)
        self._have_led()

    def _have_led(self) -> None:
        """Have a thread lead, unless one does already."""
        with self._work_lock:
            if self._working:
                return
            self._working = True
        self.have_done(self._work)

    def have_done(self, work: Callable[[], None]) -> None:
        """Have *work* done in another thread, or here and now if none can be started."""
        if not self._later(0.0, work):
            work()

    def _work(self) -> None:
        """Lead until nothing arrives any more."""
        try:
            while True:
                self.drain()
                with self._work_lock:
                    if not self._arrived:
                        self._working = False
                        return
        except BaseException:  # somebody who was told of a failure ends this thread: another goes on
            self._working = False
            if self._arrived:
                self._have_led()
            raise

    def _later(self, seconds: float, function: Callable[[], None]) -> bool:
        """Whether there is a thread that calls *function* after so many *seconds*."""
        try:
            self._call_later(seconds, function)
        except RuntimeError:
            return False
        return True

    def drain(self) -> int:
        """Try to write all that is pending; the number of events that still are."""
        with self._lock:
            self._lead()
            while self._queue and not (self._failing or self._leading):  # a backlog of several batches
                self._lead()
            self._lead_whoever_came()
            left = self.pending
        self._speak()
        return left

    def counters(self) -> dict[str, int]:
        """``accepted recorded pending raised lost``, all of one moment."""
        with self._lock:
            counts = {name: getattr(self, name) for name in ("recorded", "pending", "raised", "lost")}
        return {"accepted": sum(counts.values()), **counts}

    def _lead_whoever_came(self) -> None:
        """See to what arrived when a leader was about to go.

        A follower goes on with it. What nobody follows with is written here: a signal handler can't wait for a leader to go.
        """
        while self._arrived and not self._leading and (not self._failing or self._on_error == "raise"):
            heir = self._heir()
            if heir is not None:
                heir.wake()
                return
            self._lead()

    def _heir(self) -> Waiter | None:
        """Where the follower waits whose entry is the first at the door, if it is one's."""
        try:
            wake = self._arrived[0].wake
        except IndexError:
            return None
        return wake if isinstance(wake, Waiter) else None

    def _lead(self) -> None:
        """Write what is in the queue and what has arrived, unless this thread does already."""
        if self._leading:
            return
        self._leading = True
        try:
            self._write_all()
        finally:
            self._leading = False

    def _write_all(self) -> None:
        """Write batch after batch, until a follower can go on: no caller writes for others without end. For who leads."""
        while self._arrived or self._queue:
            batch = self._batch()
            if not batch:
                return
            try:
                self._deliver(batch)
            except DeliveryError as error:
                self._fall_short(batch, error)
                return
            if self._failing:
                self._recover()
            self._settle(batch)
            if not self._queue and self._heir() is not None:
                return
            if self._queue and self._on_error == "retry" and len(self._queue) <= self._max_pending:
                # a backlog, longer than one caller should write: the timer goes on from there
                self._hold()
                return

    def _take_on(self, entry: QueueEntry) -> None:
        """Give *entry* its id and its time, and so its line."""
        entry.line = self._stamp.line(entry.body)
        entry.moment = self._stamp.timestamp_us

    def _queue_up(self) -> None:
        """Have the entry that arrived first stand last in the queue."""
        entry, queue = self._arrived[0], self._queue
        if not entry.line:
            self._take_on(entry)
        if not queue or queue[-1] is not entry:  # it does if this was interrupted
            queue.append(entry)
        self._arrived.popleft()

    def _batch(self) -> Sequence[QueueEntry]:
        """The head of the queue, after what has arrived was taken on, and a line given to every gap."""
        queue = self._queue
        while self._arrived:
            self._queue_up()
        while queue and queue[0].state in (RECORDED, RAISED):  # a leader was interrupted while it acknowledged
            queue.popleft().settled()
        batch = list(queue) if len(queue) <= MAX_AT_ONCE else list(islice(queue, MAX_AT_ONCE))
        for entry in batch:
            if isinstance(entry, Gap):
                entry.close()
        return batch

    def _settle(self, batch: Sequence[QueueEntry]) -> None:
        """Acknowledge *batch*, the head of the queue, which is in the trail."""
        for entry in batch:
            if entry.state == PENDING:
                self.pending -= entry.counts
            else:
                self._accept(entry.line, entry.moment)
            entry.state = RECORDED
            self.recorded += entry.counts
            entry.settled()
            self._queue.popleft()
        self._followers.wake_one()

    def _fall_short(self, batch: Sequence[QueueEntry], error: DeliveryError) -> None:
        """The target failed at *batch*: what it did not take becomes pending, or its callers are told."""
        self._settle(batch[: error.done])
        self._fail(error.__cause__ or error)

    def _recover(self) -> None:
        """The target works again."""
        self._failing = False
        self._untold.append(None)

    def _fail(self, error: BaseException) -> None:
        if not self._failing:
            self._failing = True
            self._untold.append(error)
        if self._on_error == "retry":
            self._hold()
            return
        while self._queue:
            entry = self._queue[0]
            entry.error = error
            entry.state = RAISED
            self.raised += entry.counts
            entry.settled()
            self._queue.popleft()
        self._followers.wake_one()

    def _hold(self) -> None:
        """What waits in the queue becomes pending, as far as there is room; the newest is lost."""
        newcomers: list[QueueEntry] = []
        for entry in reversed(self._queue):
            if entry.state == PENDING or isinstance(entry, Gap):
                break
            newcomers.append(entry)
        too_many = max(0, len(newcomers) - max(0, self._max_pending - self.pending))
        for entry in reversed(newcomers[too_many:]):
            self._accept(entry.line, entry.moment)
            entry.state = PENDING
            self.pending += entry.counts
        lost = newcomers[:too_many]
        gap = self._gap_before(lost) if any(entry.counts for entry in lost) else None
        for entry in lost:  # the newest first: it is the last of the queue
            entry.state = LOST
            if gap is not None:
                gap.count += entry.counts
                self.lost += entry.counts
            self._queue.pop()
        for entry in newcomers:
            entry.settled()
        self._followers.wake_one()
        if not self._timed:
            self._timed = self._later(RETRY_SECONDS, self._on_timer)

    def _gap_before(self, lost: Sequence[QueueEntry]) -> Gap:
        """The gap that stands for *lost*, the end of the queue: before them, so it is where they would have stood."""
        place = len(self._queue) - len(lost)
        gap = self._queue[place - 1] if place else None
        if not isinstance(gap, Gap):
            head, newest = self._stamp.line(b"")[:-1], lost[0]
            gap = Gap(b"", newest.level, newest.logger, moment=self._stamp.timestamp_us, head=head)
            self._queue.insert(place, gap)
        return gap

    def _on_timer(self) -> None:
        self._timed = False
        self.drain()

    def _speak(self) -> None:
        """Tell of what nobody was told of. Who is told may record: what that brings up is for the next to come."""
        if self._speaking:
            return
        self._speaking = True
        try:
            for _ in range(len(self._untold)):
                try:
                    told = self._untold.popleft()
                except IndexError:  # another thread was faster
                    return
                self._tell(told)
        finally:
            self._speaking = False
