"""`AuditProcessor`: audit events out of an application's own structlog chain.

Rules:

* An event dict that carries an ``operation`` (or as ``when`` says) is recorded on the audit logger, with all its keys, and
  passed on as it is. Every other one is only passed on.
* Each once: if the chain ends in `logging` and leads to the same `AuditHandler`, that does not record it again. It knows the
  message by its type, so the chain must not make a text of the whole event before (``JSONRenderer``): then give the audit
  logger a handler that the application's own loggers do not lead to.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, MutableMapping
from typing import Any

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
"""The levels of structlog's methods. Any other (``info``, ``msg``, …) is INFO."""

_STRUCTLOGS_OWN = frozenset((*STRUCTLOG_INTERNAL_KEYS, "level", "level_number", "logger"))

EventDict = MutableMapping[str, Any]


def has_operation(event_dict: EventDict) -> bool:
    """Whether *event_dict* carries an ``operation``."""
    return "operation" in event_dict


def _said_anyway(name: str, logger: Any, method_name: str, level: int) -> Any:
    """What structlog's processors write under *name*, which says nothing new."""
    return getattr(logger, "name", None) if name == "logger" else method_name if name == "level" else level


class AuditProcessor:
    """A structlog processor that records events and passes them on.

    Put it behind ``merge_contextvars`` and before whatever renders.

    Args:
        logger: The name of the logger that an `AuditHandler` is attached to.
        when: Which event dicts to record; those with an ``operation`` unless told otherwise.

    Raises:
        AuditTypeError: *logger* is no string, or *when* no function.
    """

    def __init__(self, logger: str = "audit", *, when: Callable[[EventDict], bool] = has_operation) -> None:
        if not callable(when):
            raise AuditTypeError(f"when={when!r}: give a function of the event dict")
        self._log = get_audit_logger(logger)
        self._when = when

    def __call__(self, logger: Any, method_name: str, event_dict: EventDict) -> EventDict:
        """Record *event_dict* if it is to be recorded; *event_dict*.

        Raises:
            AuditWriteError: It could not be recorded, and the handler says ``on_error="raise"``.
        """
        event = event_dict.get("event")
        if type(event) is Recorded or not self._when(event_dict):
            return event_dict
        level = _LEVELS.get(method_name, logging.INFO)
        fields = dict(event_dict)
        fields.pop("event", None)
        for name in _STRUCTLOGS_OWN & fields.keys():
            if name in STRUCTLOG_INTERNAL_KEYS or fields[name] == _said_anyway(name, logger, method_name, level):
                del fields[name]
        entry = self._log._record(level, event, fields)
        if entry is not None:
            recorded = Recorded(event if isinstance(event, str) else "")
            recorded.handler = entry.handler
            event_dict["event"] = recorded
        return event_dict
