"""References in a ``dictConfig``: ``ext://`` names an object of the code, ``cfg://`` a part of the configuration.

`logging.config` resolves the reference when a member of one of its containers is read by its key or index. Iteration,
``items()`` and copies return the text of the reference instead (CPython 3.11 to 3.14). It resolves the arguments of a handler,
but not what lies deeper, so each mapping or list that a handler receives passes through `resolve_references` first.
"""

from __future__ import annotations

from typing import Any

from structlog_audit.exceptions import AuditValueError

REFERENCE_PREFIXES = ("ext://", "cfg://")
"""How a reference begins."""


def resolve_references(name: str, value: Any) -> Any:
    """Return *value* with the references at any depth resolved, and with plain containers.

    Only containers of a ``dictConfig`` are changed. An object that ``ext://`` names is used as it is.

    Args:
        name: The name of the parameter, for an error message.
        value: The value of the parameter.

    Raises:
        AuditValueError: A reference cannot be resolved, or leads to a container that it is part of.
    """
    return _resolved(name, value, frozenset())


def _resolved(name: str, value: Any, enclosing: frozenset[int]) -> Any:
    """Return *value*, resolved; *enclosing* are the identities of the containers around it."""
    # Importing logging.config for its classes would delay the import of the library.
    if not hasattr(value, "convert_with_key"):
        return value

    if id(value) in enclosing:
        raise AuditValueError(f"{name}: expected a reference to another part of the configuration, got one to itself")
    enclosing |= {id(value)}

    keys = list(value) if isinstance(value, dict) else range(len(value))
    members = {}
    for key in keys:
        member_name = f"{name}[{key!r}]"
        members[key] = _resolved(member_name, _read(member_name, value, key), enclosing)

    if isinstance(value, dict):
        return members
    items = members.values()
    return tuple(items) if isinstance(value, tuple) else list(items)


def _read(name: str, container: Any, key: Any) -> Any:
    """Return the member of *container* at *key*, which resolves it if it is a reference."""
    try:
        return container[key]
    except Exception as error:
        # A reference may import any module, which may raise anything.
        reason = f"{type(error).__name__}: {error}"
        raise AuditValueError(f"{name}: expected a reference that can be resolved, got {reason}") from error
