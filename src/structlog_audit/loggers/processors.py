"""`AuditProcessor`: audit events from an application's structlog chain.

**Guarantees.** An event dict that carries an ``operation`` (or that ``when`` selects) is recorded on the audit logger with all
its keys, and passed on unchanged. Any other event dict is only passed on.

**Duplicates.** If the chain ends in `logging` and leads to the same `AuditHandler`, the event is recorded once: the handler
recognizes the message by its type. A processor that renders the whole event to text in between (``JSONRenderer``) removes
that type; then give the audit logger a handler that the application's loggers do not lead to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any

from structlog_audit.events.context import own_fields
from structlog_audit.events.log_record import STRUCTLOG_INTERNAL_KEYS, Recorded
from structlog_audit.exceptions import AuditTypeError
from structlog_audit.loggers.bound_logger import get_audit_logger

_LEVELS = {
    "debug": logging.DEBUG,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "exception": logging.ERROR,
    "err": logging.ERROR,
    "critical": logging.CRITICAL,
    "fatal": logging.CRITICAL,
}
"""Levels of structlog's methods. Any other method (``info``, ``msg``, …) is INFO."""

_STRUCTLOG_KEYS = frozenset((*STRUCTLOG_INTERNAL_KEYS, "level", "level_number", "logger"))

EventDict = MutableMapping[str, Any]


def has_operation(event_dict: EventDict) -> bool:
    """Return whether *event_dict* carries an ``operation``."""
    return "operation" in event_dict


class AuditProcessor:
    """A structlog processor that records events and passes them on.

    Place it behind ``merge_contextvars`` and before the renderer.

    Args:
        logger: The name of the logger that an `AuditHandler` is attached to.
        when: Selects the event dicts to record; by default those with an ``operation``.

    Raises:
        AuditTypeError: *logger* is not a string, or *when* not a function.
    """

    def __init__(self, logger: str = "audit", *, when: Callable[[EventDict], bool] = has_operation) -> None:
        if not callable(when):
            raise AuditTypeError(f"when={when!r}: expected a function of the event dict, got {type(when).__name__}")
        self._log = get_audit_logger(logger)
        self._when = when

    def __call__(self, logger: Any, method_name: str, event_dict: EventDict) -> EventDict:
        """Record *event_dict* if ``when`` selects it; return *event_dict*.

        Raises:
            AuditWriteError: The event could not be recorded, and the handler has ``on_error="raise"``.
        """
        event = event_dict.get("event")
        if type(event) is Recorded or not self._when(event_dict):
            return event_dict

        level = _LEVELS.get(method_name, logging.INFO)
        fields = own_fields(event_dict)
        fields.pop("event", None)

        # Leave out the keys in which structlog repeats facts that the record states itself.
        for name in _STRUCTLOG_KEYS & fields.keys():
            if name in STRUCTLOG_INTERNAL_KEYS or fields[name] == _repeated_value(name, logger, method_name, level):
                del fields[name]

        entry = self._log._record(level, event, fields)
        if entry is not None:
            recorded = Recorded(event if isinstance(event, str) else "")
            recorded.handler = entry.handler
            event_dict["event"] = recorded
        return event_dict


def _repeated_value(name: str, logger: Any, method_name: str, level: int) -> Any:
    """Return the value under *name* that only repeats the call."""
    if name == "logger":
        return getattr(logger, "name", None)
    if name == "level":
        return method_name
    return level
