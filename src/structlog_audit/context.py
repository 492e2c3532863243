"""What structlog's contextvars hold for the running task or thread. The one place below the doors that knows structlog."""

from __future__ import annotations

from structlog.contextvars import get_contextvars as bound_context

__all__ = ["bound_context"]
