"""Which `AuditHandler` a logger leads to.

Handlers are found by walking the loggers, because that is what a record does; `logging`'s own table of names is emptied by
every later ``dictConfig``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from structlog_audit.exceptions import AuditValueError
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.recording.logger_tree import all_loggers, reachable_handlers


def find_audit_handlers(loggers: Iterable[logging.Logger]) -> list[AuditHandler]:
    """The audit handlers of *loggers*, each once."""
    found = (handler for handler in reachable_handlers(loggers) if isinstance(handler, AuditHandler))
    return list(dict.fromkeys(found))


def get_audit_handler(name: str | None = None) -> AuditHandler:
    """The configured `AuditHandler`: the one with this *name* in the configuration, or the only one there is.

    It is found through the loggers, so also after a later ``dictConfig``.

    Raises:
        AuditValueError: There is none, or, without a name, more than one.
    """
    attached = find_audit_handlers(all_loggers())
    found = [handler for handler in attached if name is None or handler.name == name]
    if len(found) == 1:
        return found[0]
    names = ", ".join(repr(handler.name) for handler in attached) or "none"
    if found:
        raise AuditValueError(f"name={name!r}: several audit handlers are attached ({names}); give the name of one")
    raise AuditValueError(f"name={name!r}: no such audit handler is attached to a logger (there are: {names})")
