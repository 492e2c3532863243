"""Lookup of the `AuditHandler` that a logger leads to.

The lookup walks the logger tree, as a record does. The table of handler names in `logging` is not reliable: every later
``dictConfig`` empties it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from structlog_audit.exceptions import AuditValueError
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.logger_tree import all_loggers, reachable_handlers


def find_audit_handlers(loggers: Iterable[logging.Logger]) -> list[AuditHandler]:
    """Return the audit handlers of *loggers*, without duplicates."""
    found = [handler for handler in reachable_handlers(loggers) if isinstance(handler, AuditHandler)]

    # A dictionary removes duplicates and keeps the order.
    return list(dict.fromkeys(found))


def get_audit_handler(name: str | None = None) -> AuditHandler:
    """Return the configured `AuditHandler`, which must be attached to a logger.

    A later ``dictConfig`` does not hide it.

    Args:
        name: The name of the handler in the configuration. Optional if only one audit handler is attached.

    Raises:
        AuditValueError: No such handler is attached, or several are.
    """
    attached = find_audit_handlers(all_loggers())
    found = [handler for handler in attached if name is None or handler.name == name]
    if len(found) == 1:
        return found[0]

    if not attached:
        raise AuditValueError(f"name={name!r}: no AuditHandler is attached to a logger; configure logging first")

    names = ", ".join(repr(handler.name) for handler in attached if handler.name is not None)
    known = names or "none has a name; set it in the configuration"

    if found:
        raise AuditValueError(f"name={name!r}: several AuditHandlers are attached; expected the name of one: {known}")
    raise AuditValueError(f"name={name!r}: expected the name of an attached AuditHandler: {known}")
