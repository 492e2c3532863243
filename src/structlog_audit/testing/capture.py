"""For tests: what was recorded, what should have been, and what happens when recording fails.

`capture_events` (and the pytest fixture ``audit_trail``, which is the same) lets a test see the events of the code that it
calls. Rules:

* While it captures, one `AuditHandler` in memory stands in for every handler of the process that writes a trail: audit
  handlers wherever they are attached, also behind a queue whose listener is known (Python 3.12), handlers of files with an
  `AuditJsonFormatter`, and those of every `AuditLogger`. None of them gets an event, so no trail of the application changes,
  and no auto-export is written. All other handlers go on as they are.
* Where the audit logger leads to none of these, the stand-in is attached to it. What would mute events of level INFO on the
  audit logger and its children (levels, ``disabled``, ``logging.disable``) is lifted; filters stay, they may add fields.
* Redaction, the greatest length and the filters are those of the handler that it stands in for.
* Afterwards the loggers that were touched have the handlers, levels and flags that they had before, whatever happened.
* What configures logging during the test replaces the stand-in; `AuditTrail.attach` takes its place again.
* Other processes, and queues whose listener nobody knows, are out of reach.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Unpack, overload

from structlog_audit._validation import require_integer
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import AuditEvent
from structlog_audit.exceptions import AuditTypeError
from structlog_audit.loggers.audit_logger import AuditLogger, living_loggers
from structlog_audit.loggers.unheard import unheard_events
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import Conditions, Filters, with_filter_signature
from structlog_audit.recording.formatter import DEFAULT_MAX_EVENT_BYTES, AuditJsonFormatter
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.handler_lookup import find_audit_handlers
from structlog_audit.recording.logger_tree import all_loggers, propagation_path, reachable_handlers
from structlog_audit.redaction.redactor import DEFAULT_REDACTOR
from structlog_audit.testing.failure_message import mismatch, told

_MAX_EVENTS = 1_000_000
"""Events that a test can see; the buffer takes memory only for those that there are."""

_MUTING = ("detached", "logging-disable", "disabled", "level", "logger-filter", "handler-filter")


class StandIn(AuditHandler):
    """Records each event once, though it may stand in for several handlers on the way of the event."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Record the event in *record*, unless that was done."""
        if record.__dict__.get("_audit_captured") is self:
            return False
        record.__dict__["_audit_captured"] = self
        return super().handle(record)


class _Before(NamedTuple):
    """How a logger was before it was touched."""

    handlers: list[logging.Handler]
    level: int
    disabled: bool


class AuditTrail(EventSource):
    """What was recorded since the test began. Made by `capture_events` and the fixture ``audit_trail``.

    It answers the same questions as a handler: ``query_events``, ``count_events``, ``get_statistics``, ….

    Attributes:
        handler: The `AuditHandler` that stands in; ``AuditLogger(handler=audit_trail.handler)`` records to it as well.
    """

    def __init__(self, logger: str, clock: Callable[[], int], randbits: Callable[[int], int]) -> None:
        if not isinstance(logger, str):
            raise AuditTypeError(f"logger={logger!r}: give the name of a logger")
        self._logger = logging.getLogger(logger)
        self._before: dict[logging.Logger, _Before] = {}
        self._audit_loggers: dict[AuditLogger, tuple[AuditHandler, Any]] = {}
        self._disable = logging.root.manager.disable
        self._unheard = Counter(unheard_events())
        known = find_audit_handlers(propagation_path(self._logger)) or find_audit_handlers(all_loggers())
        model = known[0] if known else None
        self.handler: AuditHandler = StandIn(
            _MAX_EVENTS,
            redactor=model.redactor if model else DEFAULT_REDACTOR,
            max_event_bytes=model._max_event_bytes if model else DEFAULT_MAX_EVENT_BYTES,
            clock=clock,
            randbits=randbits,
        )
        if model is not None:
            self.handler.filters = list(model.filters)
            # for who asks get_audit_handler(name); what logging has registered under it is the other one
            vars(self.handler)["_name"] = model.name

    def attach(self) -> None:
        """Stand in for all that writes a trail now. For code that configures logging, or makes an `AuditLogger`, in a test."""
        for logger in all_loggers():
            self._stand_in(logger)
        for audit_logger in living_loggers():
            self._audit_loggers.setdefault(audit_logger, (audit_logger.handler, audit_logger._auto_export))
            audit_logger.handler, audit_logger._auto_export = self.handler, None
            self._stand_in(audit_logger._log._logger)
        if self.handler not in reachable_handlers(propagation_path(self._logger)):
            self._keep(self._logger)
            self._logger.handlers.insert(0, self.handler)
        prefix = f"{self._logger.name}."
        for logger in all_loggers():
            if logger is self._logger or logger.name.startswith(prefix):
                self._let_pass(logger)
        if logging.root.manager.disable >= logging.INFO:
            logging.disable(logging.DEBUG)

    def detach(self) -> None:
        """Leave logging as it was before."""
        for logger in all_loggers():
            logger.removeHandler(self.handler)
        for logger, before in self._before.items():
            logger.handlers[:] = before.handlers
            logger.setLevel(before.level)
            logger.disabled = before.disabled
        for audit_logger, (handler, auto_export) in self._audit_loggers.items():
            audit_logger.handler, audit_logger._auto_export = handler, auto_export
        logging.disable(self._disable)
        vars(self.handler)["_name"] = None
        self.handler.close()

    def _keep(self, logger: logging.Logger) -> None:
        self._before.setdefault(logger, _Before(list(logger.handlers), logger.level, logger.disabled))

    def _stand_in(self, logger: logging.Logger) -> None:
        """Take the place of all handlers of *logger* that write a trail."""
        writing = [number for number, handler in enumerate(logger.handlers) if _writes_trail(handler)]
        if not writing:
            return
        self._keep(logger)
        left = [handler for handler in logger.handlers if not _writes_trail(handler)]
        left.insert(writing[0], self.handler)
        logger.handlers[:] = left

    def _let_pass(self, logger: logging.Logger) -> None:
        """Lift what would mute events of level INFO on *logger*."""
        own = logger.getEffectiveLevel() if logger is self._logger else logger.level
        if logger.disabled or own > logging.INFO:
            self._keep(logger)
            logger.disabled = False
            if own > logging.INFO:
                logger.setLevel(logging.INFO)

    @overload
    def assert_recorded(self, *, times: None = None, **filters: Unpack[Filters]) -> AuditEvent: ...
    @overload
    def assert_recorded(self, *, times: int, **filters: Unpack[Filters]) -> list[AuditEvent]: ...

    @with_filter_signature
    def assert_recorded(self, *, times: int | None = None, **filters: Unpack[Filters]) -> AuditEvent | list[AuditEvent]:
        """The newest event that matches all *filters*; with *times* all of them, the oldest first.

        Args:
            times: How many there must be, exactly; at least 0. None means one or more.
            filters: What is asked for, as of ``query_events``.

        Raises:
            AssertionError: It is not so. The message says what was recorded instead and where the nearest event differs.
            AuditTypeError, AuditValueError: A filter can't be meant.
        """
        __tracebackhide__ = True
        if times is not None:
            require_integer("times", times, least=0)
        found = self.query_events(newest_first=False, **filters)
        if len(found) != times if times is not None else not found:
            wanted = "an event was" if times is None else "1 event was" if times == 1 else f"{times} events were"
            raise AssertionError(self._told(f"{wanted} to be recorded", filters, found))
        return found[-1] if times is None else found

    @with_filter_signature
    def assert_nothing_recorded(self, **filters: Unpack[Filters]) -> None:
        """See that no event matches all *filters*; without any, that there is no event.

        Raises:
            AssertionError: There is one. The message says which.
            AuditTypeError, AuditValueError: A filter can't be meant.
        """
        __tracebackhide__ = True
        found = self.query_events(newest_first=False, **filters)
        if found:
            raise AssertionError(self._told("nothing was to be recorded", filters, found))

    def _told(self, wanted: str, filters: Filters, found: list[AuditEvent]) -> str:
        """What is wrong, for who reads it in the output of a test."""
        parts = [f"{wanted} with {told(filters)}; found {len(found)}", mismatch(self, filters, found)]
        if not found:
            parts += [
                f"{finding.code}: {finding.message}" for finding in self.handler.check() if finding.code in _MUTING
            ][:3]
            for (name, code), count in (Counter(unheard_events()) - self._unheard).items():
                parts.append(f"unheard: {count} events on logger {name!r} reached no AuditHandler ({code})")
        return "\n".join(parts)

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self.handler.clear()

    @property
    def complete_since(self) -> Any:
        """From when on the answers are complete; None: since the test began."""
        return self.handler.complete_since

    def select(self, asked: Conditions, *, newest_first: bool, at_most: int | None = None) -> Iterator[StoredEvent]:
        return self.handler.select(asked, newest_first=newest_first, at_most=at_most)

    def _counters(self) -> dict[str, int]:
        return self.handler._counters()

    def _now(self) -> Any:
        return self.handler._now()


def _writes_trail(handler: logging.Handler) -> bool:
    """Whether what *handler* is given ends in a trail."""
    behind = getattr(getattr(handler, "listener", None), "handlers", ())
    return any(
        isinstance(one, AuditHandler)
        or (isinstance(one, logging.FileHandler) and isinstance(one.formatter, AuditJsonFormatter))
        for one in (handler, *behind)
    )


@contextmanager
def capture_events(
    logger: str = "audit",
    *,
    clock: Callable[[], int] = time.time_ns,
    randbits: Callable[[int], int] = secrets.randbits,
) -> Iterator[AuditTrail]:
    """See the events that are recorded in the block, and keep them out of every trail. The head of this module says how.

    Args:
        logger: The name of the audit logger.
        clock: Nanoseconds since 1970; such as a `FrozenClock`.
        randbits: As many random bits as it is asked for; such as `seeded_randbits`.

    Raises:
        AuditTypeError: *logger* is no name.
    """
    trail = AuditTrail(logger, clock, randbits)
    try:
        trail.attach()
        yield trail
    finally:
        trail.detach()
