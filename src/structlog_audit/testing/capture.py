"""`capture_events`: the events that the code under test records. The pytest fixture ``audit_trail`` is the same.

**Guarantees.** During the capture, one `AuditHandler` in memory replaces each handler of the process that writes a trail: audit
handlers on any logger, also behind a queue with a known listener (Python 3.12), file handlers with an `AuditJsonFormatter`,
and the handlers of every `AuditLogger`. So no trail of the application changes, and no auto-export is written. All other
handlers stay. Redaction, the maximum event size and the filters are those of the replaced handler. Afterwards the loggers
have their former handlers, levels and flags, even if the test failed.

**Muted loggers.** If the audit logger leads to no such handler, the capturing one is attached to it. Levels, ``disabled`` and
``logging.disable`` that would mute events of level INFO on the audit logger and its children are lifted; filters stay.

**Limits.** Code that configures logging during the test replaces the capturing handler, and `AuditTrail.attach` attaches it
again. Until then an expectation that events are absent fails, and a query warns: no answer is given without evidence. Events of
other processes, and behind a queue with an unknown listener, are not captured.
"""

from __future__ import annotations

import logging
import secrets
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Unpack, overload

from structlog_audit._validation import require_integer
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import AuditEvent
from structlog_audit.exceptions import AuditTypeError
from structlog_audit.loggers.audit_logger import AuditLogger, existing_audit_loggers
from structlog_audit.loggers.unheard import find_caller, reason_unrecorded, unheard_events
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import Conditions, Filters, with_filter_signature
from structlog_audit.recording.formatter import DEFAULT_MAX_EVENT_BYTES, AuditJsonFormatter
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.handler_lookup import find_audit_handlers
from structlog_audit.recording.logger_tree import all_loggers, propagation_path, reachable_handlers
from structlog_audit.redaction.redactor import DEFAULT_REDACTOR
from structlog_audit.testing.failure_message import explain_mismatch, format_filters

_MAX_EVENTS = 1_000_000
"""The largest number of events that a test can capture. The buffer takes memory only for events that it holds."""

_MUTING = ("detached", "logging-disable", "disabled", "level", "logger-filter", "handler-filter")
"""The findings of `AuditHandler.check` that explain why no event was recorded."""

_MAX_FINDINGS = 3

_REMEDY = "call audit_trail.attach() after the code that changed logging"


def _now_ns() -> int:
    """Return the time in nanoseconds since 1970, by the `time.time_ns` of the moment: freezegun replaces it."""
    return time.time_ns()


class CapturingHandler(AuditHandler):
    """Records each event once, even if it replaces several handlers that the event passes."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Record the event in *record*, unless this handler has done so already."""
        if record.__dict__.get("_audit_captured") is self:
            return False
        record.__dict__["_audit_captured"] = self
        return super().handle(record)


class _LoggerState(NamedTuple):
    """The state of a logger before the capture."""

    handlers: list[logging.Handler]
    level: int
    disabled: bool


class AuditTrail(EventSource):
    """The events recorded since the capture began. Made by `capture_events` and the fixture ``audit_trail``.

    It has the same queries as a handler: ``query_events``, ``count_events``, ``get_statistics``, ….

    Attributes:
        handler: The `AuditHandler` that captures; ``AuditLogger(handler=audit_trail.handler)`` records to it as well.
    """

    def __init__(self, logger: str, clock: Callable[[], int], randbits: Callable[[int], int]) -> None:
        if not isinstance(logger, str):
            raise AuditTypeError(f"logger={logger!r}: expected the name of a logger")

        self._logger = logging.getLogger(logger)
        self._before: dict[logging.Logger, _LoggerState] = {}
        self._audit_loggers: dict[AuditLogger, tuple[AuditHandler, Any]] = {}
        self._disable = logging.root.manager.disable
        self._unheard = Counter(unheard_events())

        # The loggers that have the capturing handler, and after the end whether events may be missing.
        self._captured: set[logging.Logger] = set()
        self._ended = False
        self._interruption_at_end: str | None = None

        # The application's handler determines the content of a recorded event.
        handlers = find_audit_handlers(propagation_path(self._logger)) or find_audit_handlers(all_loggers())
        model = handlers[0] if handlers else None
        self.handler: AuditHandler = CapturingHandler(
            _MAX_EVENTS,
            redactor=model.redactor if model else DEFAULT_REDACTOR,
            max_event_bytes=model._max_event_bytes if model else DEFAULT_MAX_EVENT_BYTES,
            clock=clock,
            randbits=randbits,
        )
        if model is not None:
            self.handler.filters = list(model.filters)
            # get_audit_handler(name) finds this handler by that name. Setting it through the property would also replace
            # the application's handler in the table of logging.
            vars(self.handler)["_name"] = model.name

    def attach(self) -> None:
        """Replace all handlers that write a trail now.

        For a test in which code configures logging or makes an `AuditLogger`.
        """
        for logger in all_loggers():
            self._replace_handlers(logger)

        for audit_logger in existing_audit_loggers():
            self._audit_loggers.setdefault(audit_logger, (audit_logger.handler, audit_logger._auto_export))
            audit_logger.handler = self.handler
            audit_logger._auto_export = None
            self._replace_handlers(audit_logger._log._logger)

        if self.handler not in reachable_handlers(propagation_path(self._logger)):
            self._save_state(self._logger)
            self._logger.handlers.insert(0, self.handler)
        self._captured.add(self._logger)

        prefix = f"{self._logger.name}."
        for logger in all_loggers():
            if logger is self._logger or logger.name.startswith(prefix):
                self._unmute(logger)

        if logging.root.manager.disable >= logging.INFO:
            logging.disable(logging.DEBUG)

    def detach(self) -> None:
        """Restore the loggers as they were before the capture."""
        self._interruption_at_end = self._interruption()
        self._ended = True

        for logger in all_loggers():
            logger.removeHandler(self.handler)

        for logger, before in self._before.items():
            logger.handlers[:] = before.handlers
            logger.setLevel(before.level)
            logger.disabled = before.disabled

        for audit_logger, (handler, auto_export) in self._audit_loggers.items():
            audit_logger.handler = handler
            audit_logger._auto_export = auto_export

        logging.disable(self._disable)
        vars(self.handler)["_name"] = None
        self.handler.close()

    def _save_state(self, logger: logging.Logger) -> None:
        self._before.setdefault(logger, _LoggerState(list(logger.handlers), logger.level, logger.disabled))

    def _replace_handlers(self, logger: logging.Logger) -> None:
        """Replace all handlers of *logger* that write a trail."""
        positions = [number for number, handler in enumerate(logger.handlers) if _writes_trail(handler)]
        if not positions:
            return

        self._save_state(logger)
        handlers = [handler for handler in logger.handlers if not _writes_trail(handler)]
        handlers.insert(positions[0], self.handler)
        logger.handlers[:] = handlers
        self._captured.add(logger)

    def _unmute(self, logger: logging.Logger) -> None:
        """Lift the level and the flag that would mute events of level INFO on *logger*."""
        level = logger.getEffectiveLevel() if logger is self._logger else logger.level
        if not logger.disabled and level <= logging.INFO:
            return

        self._save_state(logger)
        logger.disabled = False
        if level > logging.INFO:
            logger.setLevel(logging.INFO)

    def _interruption(self) -> str | None:
        """Return why events may be missing from the trail, or None if none can be."""
        if self._ended:
            return self._interruption_at_end

        for logger in self._captured:
            if self.handler not in reachable_handlers(propagation_path(logger)):
                return f"detached: logger {logger.name!r} does not lead to the capturing handler any more"

        cause = reason_unrecorded(self._logger, logging.INFO)
        if cause is not None:
            code, description = cause
            return f"{code}: {description}"

        for audit_logger in existing_audit_loggers():
            if audit_logger.handler is not self.handler and len(audit_logger.handler):
                return "detached: an AuditLogger that was created during the capture recorded events elsewhere"

        prefix = f"{self._logger.name}."
        for (name, code), count in self._new_unheard().items():
            if code == "detached" and f"{name}.".startswith(prefix):
                return f"detached: {count} events on logger {name!r} reached no AuditHandler"
        return None

    def _new_unheard(self) -> Counter[tuple[str, str]]:
        """Return the numbers of unrecorded events since the capture began, by logger and cause."""
        return Counter(unheard_events()) - self._unheard

    @overload
    def assert_recorded(self, *, times: None = None, **filters: Unpack[Filters]) -> AuditEvent: ...
    @overload
    def assert_recorded(self, *, times: int, **filters: Unpack[Filters]) -> list[AuditEvent]: ...

    @with_filter_signature
    def assert_recorded(self, *, times: int | None = None, **filters: Unpack[Filters]) -> AuditEvent | list[AuditEvent]:
        """Return the newest event that matches all *filters*.

        With *times*, return all of them, the oldest first.

        Args:
            times: The exact number of events that must match, at least 0. None requires one or more.
            filters: The filters, as for ``query_events``.

        Raises:
            AssertionError: Another number of events matches, or events that would match *times* may be missing. The message
                lists the recorded events and shows where the nearest one differs.
            AuditTypeError, AuditValueError: A filter has the wrong type or an invalid value; the message names it.
        """
        __tracebackhide__ = True
        if times is not None:
            require_integer("times", times, least=0)

        found = self.handler.query_events(newest_first=False, **filters)
        is_fulfilled = bool(found) if times is None else len(found) == times

        # A number of events is certain only if none can be missing; an event that was found, in any case.
        is_certain = times is None or self._interruption() is None
        if not (is_fulfilled and is_certain):
            expected = "an event" if times is None else "1 event" if times == 1 else f"{times} events"
            raise AssertionError(self._failure_message(expected, filters, found))
        return found[-1] if times is None else found

    @with_filter_signature
    def assert_nothing_recorded(self, **filters: Unpack[Filters]) -> None:
        """Check that no event matches all *filters*.

        Without filters, check that there is no event.

        Raises:
            AssertionError: An event matches, which the message shows, or events may be missing, because the capture is
                detached or the logger is muted. `attach` corrects that.
            AuditTypeError, AuditValueError: A filter has the wrong type or an invalid value; the message names it.
        """
        __tracebackhide__ = True
        found = self.handler.query_events(newest_first=False, **filters)
        if found or self._interruption() is not None:
            raise AssertionError(self._failure_message("no event", filters, found))

    def _failure_message(self, expected: str, filters: Filters, found: list[AuditEvent]) -> str:
        condition = f" with {format_filters(filters)}" if filters else ""
        summary = f"expected {expected}{condition}; found {len(found)}"
        lines = [summary]
        interruption = self._interruption()
        if interruption is not None:
            lines.append(f"events may be missing: {_REMEDY}\n{interruption}")

        lines.append(explain_mismatch(self.handler, filters, found))
        if found:
            return "\n".join(lines)

        # Nothing matched: list the reasons why events may not have arrived.
        muting = [finding for finding in self.handler.check() if finding.code in _MUTING]
        lines += [f"{finding.code}: {finding.message}" for finding in muting[:_MAX_FINDINGS]]

        # Only the events since the capture began.
        for (name, code), count in self._new_unheard().items():
            lines.append(f"unheard: {count} events on logger {name!r} reached no AuditHandler ({code})")
        return "\n".join(lines)

    def clear(self) -> None:
        """Remove the events recorded so far, and forget those that were missed so far."""
        self.handler.clear()
        self._unheard = Counter(unheard_events())

    @property
    def complete_since(self) -> Any:
        """Time from which query results are complete; None means since the capture began."""
        return self.handler.complete_since

    def select(
        self, conditions: Conditions, *, newest_first: bool, at_most: int | None = None
    ) -> Iterator[StoredEvent]:
        interruption = self._interruption()
        if interruption is not None:
            _, depth = find_caller()
            warnings.warn(f"events may be missing: {interruption}; {_REMEDY}", RuntimeWarning, stacklevel=depth)
        return self.handler.select(conditions, newest_first=newest_first, at_most=at_most)

    def _counters(self) -> dict[str, int]:
        return self.handler._counters()

    def _now(self) -> Any:
        return self.handler._now()


def _writes_trail(handler: logging.Handler) -> bool:
    """Return whether *handler*, or one behind its queue, writes records to a trail."""
    listener = getattr(handler, "listener", None)
    for one in (handler, *getattr(listener, "handlers", ())):
        if isinstance(one, AuditHandler):
            return True
        if isinstance(one, logging.FileHandler) and isinstance(one.formatter, AuditJsonFormatter):
            return True
    return False


@contextmanager
def capture_events(
    logger: str = "audit",
    *,
    clock: Callable[[], int] = _now_ns,
    randbits: Callable[[int], int] = secrets.randbits,
) -> Iterator[AuditTrail]:
    """Capture the events that are recorded in the block.

    No trail of the application receives them.

    Args:
        logger: The name of the audit logger.
        clock: Returns nanoseconds since 1970; such as a `FrozenClock`.
        randbits: Returns the given number of random bits; such as `seeded_randbits`.

    Raises:
        AuditTypeError: *logger* is not a string.
    """
    trail = AuditTrail(logger, clock, randbits)
    try:
        trail.attach()
        yield trail
    finally:
        trail.detach()
