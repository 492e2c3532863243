"""An entry: one event on its way through the commit, and afterwards its acknowledgement.

Rules:

* An entry is settled once: recorded, pending (and later recorded), lost or raised. As long as it has no line, the commit has
  not seen it.
* A target takes entries in order, whole; `DeliveryError` says how far it came.
* What is said of a failure has nothing of an event in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from structlog_audit._failures import describe_failure
from structlog_audit.events.codec import MIN_EVENT_BYTES, encode_payload
from structlog_audit.events.event import Kind
from structlog_audit.events.payload import TrailPayload
from structlog_audit.exceptions import AuditWriteError

WAITING, RECORDED, PENDING, LOST, RAISED = "waiting", "recorded", "pending", "lost", "raised"
"""What became of an entry. Plain strings: an Enum's members cost a lookup each, and this is asked for every event."""


class QueueEntry(msgspec.Struct, eq=False):
    """One event on its way through the commit, and afterwards its acknowledgement.

    A struct, since one is made for every event: that takes half the time of a class with slots.
    """

    body: bytes  # as `encode_payload` makes it
    level: int
    logger: str
    handler: logging.Handler | None = None  # who took the event on
    line: bytes = b""  # all lines, if it has parts; as long as there is none, the commit has not seen the entry
    moment: int = 0  # when it got its line
    state: str = WAITING
    error: BaseException | None = None  # if it was raised
    wake: Callable[[], None] | None = None  # if somebody waits elsewhere: called when it is settled
    counts: int = 1  # how many events of an application this is: one, or none

    @property
    def is_recorded(self) -> bool:
        """Whether the event is in the trail."""
        return self.state == RECORDED

    @property
    def is_raised(self) -> bool:
        """Whether the event was given back to its caller as an error."""
        return self.state == RAISED

    def settled(self) -> None:
        """Wake whoever waits for this entry elsewhere, if anybody does."""
        wake = self.wake  # whoever waits may go, and take it away, between two looks
        if wake is not None:
            wake()

    def raise_error(self) -> None:
        """Raise the `AuditWriteError` that the caller of this entry is due, if it is due one."""
        if self.state == RAISED:
            raise AuditWriteError(f"the event was not recorded: {describe_failure(self.error)}") from self.error


class InternalEntry(QueueEntry, eq=False):
    """An event of the library's own: nobody's call waits for it, and it is not counted."""

    counts: int = 0


class Gap(InternalEntry, eq=False, kw_only=True):
    """Stands in the queue for events that were lost; it counts on until its line is made, for each attempt anew."""

    head: bytes
    count: int = 0

    def close(self) -> None:
        """Make the line, with the count as it is now."""
        metadata = {"lost": self.count, "reason": "the target failed and max_pending was reached"}
        body = TrailPayload(Kind.GAP.value, metadata=metadata, status="FAILURE", kind=Kind.GAP.value)
        self.line = b"%b%b\n" % (self.head, encode_payload(body, MIN_EVENT_BYTES))
