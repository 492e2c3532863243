"""Test doubles: a clock, random bits for ids, and a target that fails on demand."""

from __future__ import annotations

import datetime as dt
import errno
import logging
import random
from collections.abc import Callable
from typing import Any

from structlog_audit._validation import require_integer
from structlog_audit.events.event import utc
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.filters import microseconds
from structlog_audit.recording.formatter import LINE

_DEFAULT_START = dt.datetime(2025, 1, 15, 10, 30, 45, 123456, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


class FrozenClock:
    """A clock that shows the same time until it is moved, for ``AuditHandler(clock=…)``.

    A call returns nanoseconds since 1970, as an `AuditHandler` needs them. `now` returns a datetime, as an
    `AuditFileHandler` needs it: ``AuditFileHandler(…, clock=clock.now)``.

    Args:
        start: The time that it shows: a datetime (a naive one is local time) or text such as ``"2025-01-15T10:30:45Z"``.
        step: How far it moves after each reading; may be negative.

    Raises:
        AuditTypeError, AuditValueError: *start* is not a time.
    """

    def __init__(self, start: dt.datetime | str = _DEFAULT_START, *, step: dt.timedelta = dt.timedelta(0)) -> None:
        self._step = step // _MICROSECOND * 1_000
        self.move_to(start)

    def __call__(self) -> int:
        """Return nanoseconds since 1970."""
        nanoseconds = self._nanoseconds
        self._nanoseconds += self._step
        return nanoseconds

    def now(self) -> dt.datetime:
        """Return the time in UTC."""
        return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=self() // 1_000)

    def move_to(self, moment: dt.datetime | str) -> None:
        """Show *moment* from now on; it may be earlier than the present time.

        Raises as the class does.
        """
        if isinstance(moment, str):
            try:
                moment = dt.datetime.fromisoformat(moment)
            except ValueError:
                raise AuditValueError(f"expected a time such as 2025-01-15T10:30:45Z, got {moment!r}") from None

        if not isinstance(moment, dt.datetime):
            raise AuditTypeError(f"expected a datetime, or text such as 2025-01-15T10:30:45Z, got {moment!r}")

        self._nanoseconds = microseconds(utc(moment)) * 1_000

    def advance(self, **parts: float) -> None:
        """Move forward, or back, by ``days``, ``hours``, ``minutes``, ``seconds``, ….

        The parameters are those of `datetime.timedelta`.
        """
        self._nanoseconds += dt.timedelta(**parts) // _MICROSECOND * 1_000


def seeded_randbits(seed: int = 0) -> Callable[[int], int]:
    """Return a source of the same random bits in every run.

    For ``AuditHandler(randbits=…)``.

    With a `FrozenClock` it yields the same event ids in every run.
    """
    # Predictable ids are the purpose.
    return random.Random(seed).getrandbits  # noqa: S311


class FailingTarget(logging.Handler):
    """A target in memory that fails on demand, as a full disk would.

    Attributes:
        records: The records of the events that it accepted, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._error: BaseException | None = None
        self._times: int | None = None

    def fail(self, error: BaseException | None = None, *, times: int | None = None) -> None:
        """Fail from now on, or for the next *times* events.

        Args:
            error: The exception to raise; by default that of a full disk (``ENOSPC``).
            times: The number of events to fail for, at least 1; None fails until `recover` is called.

        Raises:
            AuditTypeError, AuditValueError: *times* is not such a number.
        """
        self._times = None if times is None else require_integer("times", times, least=1)
        self._error = error or OSError(errno.ENOSPC, "No space left on device")

    def recover(self) -> None:
        """Accept events from now on."""
        self._error = None

    @property
    def lines(self) -> list[bytes]:
        """The lines of the accepted events, in order, as a file would hold them."""
        return [record.__dict__[LINE] for record in self.records]

    def emit(self, record: logging.LogRecord) -> None:
        """Accept *record*, or fail."""
        error: Any = self._error
        if error is None:
            self.records.append(record)
            return

        if self._times is not None:
            self._times -= 1
            if self._times == 0:
                self.recover()
        raise error
