"""The loggers of this process and the path of a record through them."""

from __future__ import annotations

import logging
import logging.handlers
from collections.abc import Iterable, Iterator


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


def is_handling_record(logger: logging.Logger) -> bool:
    """Return whether *logger* is handling a record on this thread.

    Python 3.13.4 and newer discard the records that a logger gets meanwhile (CPython issue 91555).
    """
    thread_state = getattr(logger, "_tls", None)
    return bool(getattr(thread_state, "in_progress", False))
