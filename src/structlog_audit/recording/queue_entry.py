"""One event on its way through the group commit, and afterwards its acknowledgement.

**Guarantees**: An entry is completed once: as recorded, pending (and later recorded), lost or raised. A leader of the commit
gives it its line. Error messages never contain event content.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from structlog_audit._failures import describe_failure
from structlog_audit.events.codec import MIN_EVENT_BYTES, decode, encode_payload
from structlog_audit.events.event import Kind
from structlog_audit.events.payload import TrailPayload
from structlog_audit.exceptions import AuditWriteError

WAITING, RECORDED, PENDING, LOST, RAISED = "waiting", "recorded", "pending", "lost", "raised"
"""The states of an entry. Plain strings, since each access to an Enum member costs a lookup, and every event needs several."""

_COMPLETED = (RECORDED, RAISED)


class QueueEntry(msgspec.Struct, eq=False):
    """One event on its way through the commit, and afterwards its acknowledgement.

    A struct is created in half the time of a class with slots, and every event needs one.

    Attributes:
        body: The encoded event without id and time, from `encode_payload`.
        level: The level of the log record.
        logger: The name of the logger.
        handler: The `AuditHandler` that accepted the event.
        line: The line in the trail, or all lines if the event has parts; empty until a leader assigns it.
        timestamp_us: The time in the line, in microseconds since 1970.
        state: One of `WAITING`, `RECORDED`, `PENDING`, `LOST` and `RAISED`.
        error: The failure of the target, if the state is `RAISED`, or of the event that a gap names.
        wake: Called when the entry is completed, if another thread or a task waits for it.
        counts: The number that this entry adds to the counter of its outcome: 1, or 0 for an `InternalEntry`.
        refusals: The number of times that a target which may take other entries has refused this one.
    """

    body: bytes
    level: int
    logger: str
    handler: logging.Handler | None = None
    line: bytes = b""
    timestamp_us: int = 0
    state: str = WAITING
    error: BaseException | None = None
    wake: Callable[[], None] | None = None
    counts: int = 1
    refusals: int = 0

    @property
    def is_completed(self) -> bool:
        """Whether the entry needs no further attempt to write it."""
        return self.state in _COMPLETED

    @property
    def is_recorded(self) -> bool:
        """Whether the event is in the trail."""
        return self.state == RECORDED

    @property
    def is_raised(self) -> bool:
        """Whether the caller gets an error instead of a recorded event."""
        return self.state == RAISED

    def wake_waiter(self) -> None:
        """Wake the thread or task that waits for this entry, if there is one."""
        # Read once: a follower that goes on sets the attribute to None, at any time.
        wake = self.wake
        if wake is not None:
            wake()

    def raise_error(self) -> None:
        """Raise the `AuditWriteError` of this entry, if its state is `RAISED`."""
        if self.state != RAISED:
            return

        failure = describe_failure(self.error)
        raise AuditWriteError(f"the event was not recorded: {failure}") from self.error


class InternalEntry(QueueEntry, eq=False):
    """An event of the library itself: no counter includes it, and a failure to record it is not raised."""

    counts: int = 0


class Gap(InternalEntry, eq=False, kw_only=True):
    """An event in the queue that stands for lost events, and counts them until it is written.

    Attributes:
        head: The line up to the body, with id and time.
        end: The line behind the body, from its closing brace on.
        count: The number of lost events. A gap without any is not written: a signal handler interrupted the loss.
        refused: The event that the target refused with `error`, if the gap stands for such a one and names it.
    """

    head: bytes
    end: bytes
    count: int = 0
    refused: QueueEntry | None = None

    @property
    def is_completed(self) -> bool:
        return self.state in _COMPLETED or not self.count

    def make_line(self) -> None:
        """Make the line with the current count, before each attempt to write it."""
        details = {"reason": "the target failed and max_pending was reached"}
        if self.refused is not None:
            details = _describe_refused(self.refused.line, self.error)
        metadata = {"lost": self.count, **details}
        payload = TrailPayload(Kind.GAP.value, metadata=metadata, status="FAILURE", kind=Kind.GAP.value)
        body = encode_payload(payload, MIN_EVENT_BYTES)
        self.line = self.head + body[:-1] + self.end


def _describe_refused(line: bytes, error: BaseException | None) -> dict[str, str]:
    """Return the details of the gap that names the event of *line*, which the target refused with *error*."""
    event = decode(line)

    # The target may have refused the event because of its characters.
    operation = event.operation.encode("ascii", "backslashreplace").decode()
    return {
        "reason": "the target refused the event and took others",
        "error": describe_failure(error),
        "event_id": event.event_id,
        "operation": operation,
    }
