"""Files with classes of operations, as `OperationClasses` takes them, for the option ``--operations``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from structlog_audit._config_files import load_file
from structlog_audit.events.operation_classes import OperationClasses, registered_operations
from structlog_audit.exceptions import AuditTypeError


def load_operations(path: str | None) -> OperationClasses:
    """Return the registered classes, extended by those in the file at *path*: a mapping under ``operations``.

    Raises:
        AuditTypeError, AuditValueError: The file cannot be read, or an entry is invalid; the message names the file.
    """
    if path is None:
        return registered_operations()
    return load_file(path, "operations", _classes_of)


def _classes_of(value: Any) -> OperationClasses:
    if not isinstance(value, Mapping) or set(value) != {"operations"}:
        raise AuditTypeError(f"expected a mapping of names to classes under 'operations', got {value!r}")
    return registered_operations().extended(OperationClasses(value["operations"]))
