"""The loggers of this process and the ways that a record takes between them."""

from __future__ import annotations

import logging
import logging.handlers
from collections.abc import Iterable, Iterator


def all_loggers() -> list[logging.Logger]:
    """Every logger there is, the root first."""
    manager = logging.Logger.manager
    named = [logger for logger in list(manager.loggerDict.values()) if isinstance(logger, logging.Logger)]
    return [logging.getLogger(), *named]


def propagation_path(logger: logging.Logger) -> Iterator[logging.Logger]:
    """The loggers whose handlers get a record of *logger*: itself, and its parents as far as it propagates."""
    at: logging.Logger | None = logger
    while at is not None:
        yield at
        at = at.parent if at.propagate else None


def reachable_handlers(loggers: Iterable[logging.Logger]) -> Iterator[logging.Handler]:
    """The handlers of *loggers*, and behind those that queue, the handlers of their listeners (Python 3.12)."""
    for logger in loggers:
        for handler in list(logger.handlers):
            yield handler
            yield from getattr(getattr(handler, "listener", None), "handlers", ())


def uses_queue(logger: logging.Logger, level: int) -> bool:
    """Whether a record of *logger* at *level* is handed over to another thread or process."""
    handlers = [handler for at in propagation_path(logger) for handler in at.handlers]
    return any(isinstance(handler, logging.handlers.QueueHandler) and level >= handler.level for handler in handlers)


def is_handling_record(logger: logging.Logger) -> bool:
    """Whether *logger* is handling a record in this thread; Python 3.13.4 and newer discard what it is given then.

    See CPython issue 91555.
    """
    return bool(getattr(getattr(logger, "_tls", None), "in_progress", False))
