"""`AuditProcessor`: audit events from an application's structlog chain.

**Guarantees.** An event dict that carries an ``operation`` (or that ``when`` selects) is recorded on the audit logger with all
its keys. Every event dict is passed on unchanged, with the same objects in it.

**Duplicates.** If the chain ends in `logging` and leads to the same `AuditHandler`, the event is recorded once, whatever the
processors behind this one make of it: see `structlog_audit.recording.structlog_calls`.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Collection, Iterator, MutableMapping
from typing import Any

import structlog

from structlog_audit.events.context import own_fields
from structlog_audit.events.log_record import STRUCTLOG_INTERNAL_KEYS, message_key, rendered_error
from structlog_audit.exceptions import AuditTypeError
from structlog_audit.loggers.bound_logger import get_audit_logger
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.handler_lookup import find_audit_handlers
from structlog_audit.recording.health_checks import Finding, add_check
from structlog_audit.recording.logger_tree import all_loggers, propagation_path
from structlog_audit.recording.queue_entry import QueueEntry
from structlog_audit.recording.structlog_calls import (
    calling_frame,
    handlers_that_recorded,
    mark_call,
    marks,
    recorded_before,
)

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

_STRUCTLOG_KEYS = (*STRUCTLOG_INTERNAL_KEYS, "level", "level_number", "logger")

_WRITERS = frozenset(
    (structlog.PrintLogger, structlog.WriteLogger, structlog.BytesLogger, structlog.testing.ReturnLogger)
)
"""The loggers of structlog that write events themselves."""

EventDict = MutableMapping[str, Any]


_existing: set[weakref.ref[AuditProcessor]] = set()
"""The processors of this process: a chain may have several."""


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
        _existing.add(weakref.ref(self, _existing.discard))

    def __call__(self, logger: Any, method_name: str, event_dict: EventDict) -> EventDict:
        """Record *event_dict* if ``when`` selects it; return *event_dict*.

        Raises:
            AuditWriteError: The event could not be recorded, and the handler has ``on_error="raise"``.
        """
        is_selected = self._when(event_dict)

        # Usually no event of a call that may still run has a mark.
        others: Collection[logging.Handler] = ()
        if marks:
            call = calling_frame()
            others = handlers_that_recorded() if call is None else recorded_before(call, self)
        has_record = others or "_record" in event_dict
        if not is_selected or (has_record and self._gets_record(event_dict, others)):
            return event_dict

        level = _LEVELS.get(method_name, logging.INFO)
        fields = own_fields(event_dict)
        event = fields.pop("event", None) if "event" in fields else fields.pop(message_key(fields), None)
        if "positional_args" in fields:
            event = _with_arguments(event, fields)

        # Leave out the keys in which structlog repeats facts that the record states itself.
        for name in _STRUCTLOG_KEYS:
            if name in fields and (
                name in STRUCTLOG_INTERNAL_KEYS
                or _are_same(fields[name], _repeated_value(name, logger, method_name, level))
            ):
                del fields[name]

        # A processor before this one may have replaced the exception.
        if "exception" in fields and fields.get("error_message") is None:
            fields["error_message"] = rendered_error(fields["exception"])

        entry = self._log._record(level, event, fields)

        # Without another processor, only a handler of the chain's logger could record the event again.
        is_alone = len(_existing) == 1
        if entry is None or (is_alone and type(logger) in _WRITERS):
            return event_dict

        handlers = (*others, *self._recorders(entry, level))
        if not is_alone or _may_reach(logger, handlers):
            call = calling_frame()
            if call is not None:
                mark_call(call, self, handlers)
        return event_dict

    def _gets_record(self, event_dict: EventDict, others: Collection[logging.Handler]) -> bool:
        """Return whether each handler of the audit logger is one of *others*, or gets the record of *event_dict* anyway.

        A formatter of structlog adds the record that it formats.
        """
        record: Any = event_dict.get("_record")
        receivers = _receivers_of(record) if issubclass(type(record), logging.LogRecord) else []
        handlers = self._audit_handlers()
        return bool(handlers) and all(handler in others or handler in receivers for handler in handlers)

    def _recorders(self, entry: QueueEntry, level: int) -> Collection[logging.Handler]:
        """Return the handlers that have certainly recorded the event of *entry*."""
        logger = self._log._logger
        if len(logger.handlers) == 1 and not logger.propagate:
            return (entry.handler,) if entry.handler is not None else ()

        handlers: list[logging.Handler] = []
        for handler in self._audit_handlers():
            target = handler.target
            is_accepted = level >= handler.level and (target is None or level >= target.level)
            has_filters = handler.filters or (target is not None and target.filters)
            if handler is entry.handler or (is_accepted and not has_filters):
                handlers.append(handler)
        return handlers

    def _audit_handlers(self) -> list[AuditHandler]:
        return find_audit_handlers(propagation_path(self._log._logger))


def _may_reach(logger: Any, handlers: Collection[logging.Handler]) -> bool:
    """Return whether an event of *logger*, which the chain ends in, may reach one of *handlers* in the same call."""
    if not isinstance(logger, logging.Logger):
        return True

    current: logging.Logger | None = logger
    while current is not None:
        for handler in current.handlers:
            if handler in handlers:
                return True
        current = current.parent if current.propagate else None
    return False


def _receivers_of(record: logging.LogRecord) -> list[AuditHandler]:
    """Return the handlers that get *record* from its logger."""
    logger = logging.Logger.manager.loggerDict.get(record.name, logging.root)
    if not isinstance(logger, logging.Logger):
        return []
    return [handler for handler in find_audit_handlers(propagation_path(logger)) if record.levelno >= handler.level]


def _with_arguments(event: Any, fields: dict[str, Any]) -> Any:
    """Return *event* with the positional arguments in *fields*, which are removed, if they fit."""
    arguments = fields["positional_args"]
    if type(event) is not str or type(arguments) is not tuple:
        return event

    # As in `logging`, a single dictionary holds the arguments by name.
    try:
        is_mapping = len(arguments) == 1 and isinstance(arguments[0], dict) and arguments[0]
        event %= arguments[0] if is_mapping else arguments
    except Exception:
        return event
    del fields["positional_args"]
    return event


def _are_same(value: Any, expected: Any) -> bool:
    """Return whether *value* equals *expected*, without a call of methods of other classes."""
    return type(value) is type(expected) and bool(value == expected)


def _repeated_value(name: str, logger: Any, method_name: str, level: int) -> Any:
    """Return the value under *name* that only repeats the call."""
    if name == "logger":
        return getattr(logger, "name", None)
    if name == "level":
        return method_name
    return level


def chain_findings(handler: logging.Handler) -> Iterator[Finding]:
    """Yield a finding for each setting of structlog that drops events of level INFO before *handler*, or repeats them.

    A chain that is given to `structlog.wrap_logger` is not known here.
    """
    config = structlog.get_config()
    processors = list(config["processors"])
    places = [place for place, each in enumerate(processors) if _leads_to(each, handler)]
    if not places:
        return

    level = _level_of(config["wrapper_class"])
    if level > logging.INFO:
        name = logging.getLevelName(level)
        message = f"structlog's wrapper_class drops events below {name} before the AuditProcessor"
        fix = "use make_filtering_bound_logger(logging.INFO), or record through get_audit_logger"
        yield Finding("structlog-level", message, fix)

    quiet = [logger.name for logger in all_loggers() if logger.level > logging.INFO]
    if quiet and structlog.stdlib.filter_by_level in processors[: places[0]]:
        names = ", ".join(quiet[:3]) + (", …" if len(quiet) > 3 else "")
        message = f"filter_by_level drops events below the levels of these loggers before the AuditProcessor: {names}"
        yield Finding("structlog-filter", message, "place the AuditProcessor before filter_by_level")

    if len({id(processors[place]) for place in places}) < len(places):
        message = "structlog's processors contain the same AuditProcessor twice"
        yield Finding("recorded-twice", message, "remove it from one of the places")


def _leads_to(processor: Any, handler: logging.Handler) -> bool:
    return isinstance(processor, AuditProcessor) and handler in processor._audit_handlers()


def _level_of(wrapper_class: Any) -> int:
    """Return the level below which a class from `structlog.make_filtering_bound_logger` drops events; 0 for others."""
    get_level = getattr(wrapper_class, "get_effective_level", None)
    if get_level is not None:
        try:
            return int(get_level(wrapper_class))
        except Exception:
            return logging.NOTSET

    # Older versions of structlog state it only in the name.
    name = getattr(wrapper_class, "__name__", "").rpartition("BoundLoggerFilteringAt")[2]
    return logging.getLevelNamesMapping().get(name.upper(), logging.NOTSET)


add_check(chain_findings)
