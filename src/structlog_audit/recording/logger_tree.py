"""The loggers of this process and the path of a record through them."""

from __future__ import annotations

import gc
import logging
import logging.handlers
from collections.abc import Iterable, Iterator
from typing import Any


def all_loggers() -> list[logging.Logger]:
    """Return all loggers of this process, the root logger first."""
    entries = list(logging.Logger.manager.loggerDict.values())

    # The manager also keeps placeholders for names that have only child loggers.
    named = [entry for entry in entries if isinstance(entry, logging.Logger)]
    return [logging.getLogger(), *named]


def propagation_path(logger: logging.Logger) -> Iterator[logging.Logger]:
    """Yield the loggers whose handlers get a record of *logger*: itself, and its ancestors as far as it propagates."""
    current: logging.Logger | None = logger
    while current is not None:
        yield current
        current = current.parent if current.propagate else None


def reachable_handlers(loggers: Iterable[logging.Logger]) -> Iterator[logging.Handler]:
    """Yield the handlers of *loggers*, and for a queue handler those of its listener (Python 3.12 and newer)."""
    for logger in loggers:
        for handler in list(logger.handlers):
            yield handler

            listener = getattr(handler, "listener", None)
            yield from getattr(listener, "handlers", ())


def uses_queue(logger: logging.Logger, level: int) -> bool:
    """Return whether a record of *logger* at *level* passes through a queue to another thread or process."""
    for ancestor in propagation_path(logger):
        for handler in ancestor.handlers:
            if isinstance(handler, logging.handlers.QueueHandler) and level >= handler.level:
                return True
    return False


def are_handlers_replaced_by_unittest(loggers: Iterable[logging.Logger]) -> bool:
    """Return whether one of *loggers* is in a block of ``assertLogs`` or ``assertNoLogs``, without the handlers that it had."""
    return any(type(handler).__module__ == "unittest._log" for handler in reachable_handlers(loggers))


def is_handling_record(logger: logging.Logger) -> bool:
    """Return whether *logger* is handling a record on this thread, and discards those that it gets meanwhile.

    Some releases of Python do so from 3.13.4 on (CPython issue 91555).
    """
    thread_state = getattr(logger, "_tls", None)
    return bool(getattr(thread_state, "in_progress", False))


def discards_nested_records(logger: logging.Logger) -> bool:
    """Return whether *logger* discards the records that it gets while it handles one on the same thread.

    Tried with a copy of *logger* that has no other handler: the version of Python does not tell, because 3.13.4 began to
    discard them (CPython issue 91555) and a later release ended that.
    """
    # The copy may share the thread state of the logger, and with it the guard.
    copied = logging.Logger.__new__(type(logger))
    vars(copied).update(vars(logger))
    nesting = _NestingHandler(copied)
    vars(copied).update(handlers=[nesting], filters=[], propagate=False, disabled=False)

    copied.handle(nesting.record)
    return nesting.handled < 2


def adapters_of(loggers: list[logging.Logger]) -> list[logging.LoggerAdapter[Any]]:
    """Return the adapters of *loggers*. The loggers do not know them, so the garbage collector is searched, once."""
    owners = gc.get_referrers(*loggers)

    # The attributes of an object may be in a separate dictionary.
    attributes = [owner for owner in owners if type(owner) is dict and owner.keys() >= {"logger", "extra"}]
    owners += gc.get_referrers(*attributes) if attributes else []
    return [owner for owner in owners if issubclass(type(owner), logging.LoggerAdapter)]


def replaces_extra(adapter: logging.LoggerAdapter[Any]) -> bool:
    """Return whether *adapter* drops the ``extra`` of a call for its own, as `logging` does unless it is to merge them."""
    is_standard = type(adapter).process is logging.LoggerAdapter.process
    return is_standard and not getattr(adapter, "merge_extra", False)


class _NestingHandler(logging.Handler):
    """Passes its record to *logger* once more while it handles it, and counts the records that it gets."""

    def __init__(self, logger: logging.Logger) -> None:
        super().__init__()
        self.record = logging.LogRecord(logger.name, logging.DEBUG, __file__, 0, "a health check", (), None)
        self.handled = 0
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        self.handled += 1
        if self.handled == 1:
            self._logger.handle(record)
