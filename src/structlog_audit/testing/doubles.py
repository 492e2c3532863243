"""Stand-ins for what an application has no hold on in its tests: the clock, the ids, a target that works."""

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

_A_MOMENT = dt.datetime(2025, 1, 15, 10, 30, 45, 123456, tzinfo=dt.UTC)


class FrozenClock:
    """A clock that stands still until it is told otherwise, for ``AuditHandler(clock=…)``.

    Called, it gives nanoseconds since 1970, as an `AuditHandler` asks for them. `now` gives a datetime, as an
    `AuditFileHandler` asks for it: ``AuditFileHandler(…, clock=clock.now)``.

    Args:
        start: Where it stands: a datetime (a naive one is local time) or text such as ``"2025-01-15T10:30:45Z"``.
        step: How far it moves on by itself after each time it is asked; may be negative.

    Raises:
        AuditTypeError, AuditValueError: *start* is no moment.
    """

    def __init__(self, start: dt.datetime | str = _A_MOMENT, *, step: dt.timedelta = dt.timedelta(0)) -> None:
        self._step = step // dt.timedelta(microseconds=1) * 1_000
        self.move_to(start)

    def __call__(self) -> int:
        """Nanoseconds since 1970."""
        moment = self._nanoseconds
        self._nanoseconds += self._step
        return moment

    def now(self) -> dt.datetime:
        """The time in UTC."""
        return dt.datetime.fromtimestamp(0, dt.UTC) + dt.timedelta(microseconds=self() // 1_000)

    def move_to(self, moment: dt.datetime | str) -> None:
        """Stand at *moment*, which may be before the present one. Raises as the class does."""
        if isinstance(moment, str):
            try:
                moment = dt.datetime.fromisoformat(moment)
            except ValueError:
                raise AuditValueError(f"{moment!r} is no moment: write it as 2025-01-15T10:30:45Z") from None
        if not isinstance(moment, dt.datetime):
            raise AuditTypeError(f"{moment!r} is no moment: give a datetime, or text such as 2025-01-15T10:30:45Z")
        self._nanoseconds = microseconds(utc(moment)) * 1_000

    def advance(self, **parts: float) -> None:
        """Move on by ``days``, ``hours``, ``minutes``, ``seconds``, … as `datetime.timedelta` takes them; or back."""
        self._nanoseconds += dt.timedelta(**parts) // dt.timedelta(microseconds=1) * 1_000


def seeded_randbits(seed: int = 0) -> Callable[[int], int]:
    """The same random bits in every run, for ``AuditHandler(randbits=…)``: with a `FrozenClock`, the same event ids."""
    return random.Random(seed).getrandbits  # noqa: S311 (ids that can be foretold are the point)


class FailingTarget(logging.Handler):
    """A target in memory that fails on demand, as a full disk would.

    Attributes:
        records: The records of the events that it took, in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._error: BaseException | None = None
        self._times: int | None = None

    def fail(self, error: BaseException | None = None, *, times: int | None = None) -> None:
        """Fail from now on, or for the next *times* events.

        Args:
            error: What is raised; a full disk (``ENOSPC``) if not given.
            times: How often, at least 1; None means until `recover` is called.

        Raises:
            AuditTypeError, AuditValueError: *times* is no such number.
        """
        self._times = None if times is None else require_integer("times", times, least=1)
        self._error = error or OSError(errno.ENOSPC, "No space left on device")

    def recover(self) -> None:
        """Work from now on."""
        self._error = None

    @property
    def lines(self) -> list[bytes]:
        """The lines of the events that it took, in order, as a file would hold them."""
        return [record.__dict__[LINE] for record in self.records]

    def emit(self, record: logging.LogRecord) -> None:
        """Take *record*, or fail."""
        error: Any = self._error
        if error is None:
            self.records.append(record)
            return
        if self._times is not None:
            self._times -= 1
            if self._times == 0:
                self.recover()
        raise error
