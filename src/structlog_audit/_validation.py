"""Checks of parameters, with errors that name the parameter, the value and what was expected."""

from __future__ import annotations

from typing import Any

from structlog_audit.exceptions import AuditTypeError, AuditValueError


def require_integer(name: str, value: Any, *, least: int) -> int:
    """*value* as a whole number of at least *least*, or an error that names the parameter.

    Raises:
        AuditTypeError: Not a whole number.
        AuditValueError: Less than *least*.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise AuditTypeError(f"{name}={value!r}: give a whole number of at least {least}")
    if value < least:
        raise AuditValueError(f"{name}={value!r}: give at least {least}")
    return value


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """*value*, which is one of *choices*, or an `AuditValueError` that names the parameter."""
    if value not in choices:
        raise AuditValueError(f"{name}={value!r}: use one of {', '.join(map(repr, choices))}")
    return value
