"""Delivery of the record of an entry point through its logger, so that filters of the logger cannot lose its handoff."""

from __future__ import annotations

import logging
from typing import Any

from structlog_audit.events.handoff import HANDOFF, Handoff, awaiting


def deliver(logger: logging.Logger, record: logging.LogRecord, handoff: Handoff) -> None:
    """Let *logger* handle *record*, which is the record of *handoff*."""
    # Another tool that patched the method, or a subclass that overrides it, gets the logger itself.
    if logger.filters and type(logger).handle is _HANDLE:
        handle: Any = type(logger).handle
        handle(_Filtering(logger, record, handoff), record)
    else:
        logger.handle(record)


_HANDLE = logging.Logger.handle


class _Filtering:
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
        with awaiting(record, self._handoff):
            self._logger.callHandlers(record)
