"""Checks of parameters; the errors name the parameter, its value and the accepted values."""

from __future__ import annotations

import logging
import os
from typing import Any, Final

from structlog_audit.exceptions import AuditTypeError, AuditValueError

MOST: Final = 2**61
"""The largest integer of a parameter: the sum of two fits into 64 bits, for code in C."""


def require_integer(name: str, value: Any, *, least: int, most: int = MOST) -> int:
    """Return *value*, an integer of at least *least*, and at most *most*.

    Raises:
        AuditTypeError: The value is not an integer.
        AuditValueError: The value is less than *least*, or more than *most*.
    """
    # The bound of all parameters says nothing to the caller who is below it.
    is_beyond = isinstance(value, int) and value > most
    bound = f" and at most {most}" if is_beyond or most != MOST else ""
    # Python refuses to write very large ones.
    is_huge = isinstance(value, int) and value.bit_length() > 128
    shown = f"an integer of {value.bit_length()} bits" if is_huge else repr(value)
    expected = f"{name}={shown}: expected an integer of at least {least}{bound}"

    if isinstance(value, bool) or not isinstance(value, int):
        raise AuditTypeError(f"{expected}, got {type(value).__name__}")
    if value < least or is_beyond:
        raise AuditValueError(expected)
    return value


def require_bool(name: str, value: Any) -> bool:
    """Return *value*, which is True or False.

    Raises:
        AuditTypeError: The value is something else.
    """
    if not isinstance(value, bool):
        raise AuditTypeError(f"{name}={value!r}: expected True or False, got {type(value).__name__}")
    return value


def require_path(name: str, value: Any, expected: str) -> str:
    """Return *value*, a path as described by *expected*, as text.

    Raises:
        AuditTypeError: The value is not a path.
        AuditValueError: The path is empty, or has a null character, which no system accepts.
    """
    try:
        path = os.fsdecode(value)
    except TypeError:
        raise AuditTypeError(f"{name}={value!r}: expected {expected}, got {type(value).__name__}") from None

    if not path:
        raise AuditValueError(f"{name}={value!r}: expected {expected}, got an empty path")
    if "\0" in path:
        raise AuditValueError(f"{name}={value!r}: expected {expected}, got a null character in it")

    return path


def is_url(path: str) -> bool:
    """Return whether *path* names an object store rather than a file."""
    scheme, separator, _ = path.partition("://")
    return bool(separator) and scheme.isalnum()


def require_local(name: str, path: str) -> str:
    """Return *path*, unless it is a URL, which the system takes for a folder such as ``s3:``.

    Raises:
        AuditValueError: It is a URL.
    """
    if is_url(path):
        raise AuditValueError(f"{name}={path!r}: expected a path on this machine, got a URL: write there, then copy it")
    return path


def require_callable(name: str, value: Any, expected: str) -> Any:
    """Return *value*, a function as described by *expected*.

    Raises:
        AuditTypeError: The value can't be called.
    """
    if not callable(value):
        raise AuditTypeError(f"{name}={value!r}: expected {expected}, got {type(value).__name__}")
    return value


def require_choice(name: str, value: Any, choices: tuple[str, ...]) -> Any:
    """Return *value*, which is one of *choices*.

    Raises:
        AuditValueError: The value is not one of them.
    """
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise AuditValueError(f"{name}={value!r}: expected one of {known}")
    return value


def require_level(name: str, value: Any) -> int:
    """Return *value*, a level of `logging`, as a number.

    Raises:
        AuditTypeError: The value is neither a number nor text.
        AuditValueError: The value is not the name of a level.
    """
    expected = f"{name}={value!r}: expected the number or the name of a level of logging"
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise AuditTypeError(f"{expected}, got {type(value).__name__}")
    if isinstance(value, int):
        return value

    level = logging.getLevelNamesMapping().get(value)
    if level is None:
        raise AuditValueError(f"{expected}, such as 'ERROR'")
    return level
