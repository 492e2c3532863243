"""Handling of the record of an entry point by a logger with filters, which cannot take its handoff away."""

from __future__ import annotations

import logging
from typing import Any

from structlog_audit.events.handoff import HANDOFF, Handoff, awaited

_HANDLE = logging.Logger.handle


def handle_with_filters(logger: logging.Logger, record: logging.LogRecord, handoff: Handoff) -> None:
    """Let *logger* handle *record*, which is the record of *handoff*."""
    # Another tool that patched the method, or a subclass that overrides it, gets the logger itself.
    if type(logger).handle is _HANDLE:
        filtering: Any = _FilteringLogger(logger, record, handoff)
        _HANDLE(filtering, record)
    else:
        logger.handle(record)


class _FilteringLogger:
    """A logger in the call of its ``handle``, where its filters may replace the record (Python 3.12 and newer)."""

    def __init__(self, logger: logging.Logger, record: logging.LogRecord, handoff: Handoff) -> None:
        self._logger = logger
        self._record = record
        self._handoff = handoff

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    def callHandlers(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Pass *record*, which may be another than that of the entry point, to the handlers of the logger."""
        if record is self._record:
            self._logger.callHandlers(record)
            return

        record.__dict__[HANDOFF] = self._handoff
        awaited[id(record)] = record, self._handoff
        try:
            self._logger.callHandlers(record)
        finally:
            del awaited[id(record)]
