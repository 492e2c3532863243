"""Access to the arguments of a call in a syntax tree, for the catalogue."""

from __future__ import annotations

import ast

_MAX_QUOTED_CHARACTERS = 100


def argument(call: ast.Call, position: int, name: str | None) -> ast.expr | None:
    """Return the argument of *call* at *position* or with *name*.

    Returns None if the argument is missing, or passed by ``*`` or ``**``.
    """
    if position < len(call.args):
        # Behind ``*arguments`` the positions are unknown.
        preceding = call.args[: position + 1]
        if not _has_starred(preceding):
            return call.args[position]

    if name is None:
        return None
    return keyword(call, name)


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """Return the keyword argument *name* of *call*.

    Returns None if the argument is missing or passed by ``**``.
    """
    for given in call.keywords:
        if given.arg == name:
            return given.value
    return None


def keyword_names(call: ast.Call) -> list[str]:
    """Return the names of the keyword arguments of *call*, without those in ``**``."""
    return [given.arg for given in call.keywords if given.arg]


def has_spread_keywords(call: ast.Call) -> bool:
    """Return whether *call* passes keyword arguments by ``**``."""
    return any(given.arg is None for given in call.keywords)


def has_spread_positions(call: ast.Call) -> bool:
    """Return whether *call* passes positional arguments by ``*``."""
    return _has_starred(call.args)


def _has_starred(arguments: list[ast.expr]) -> bool:
    return any(isinstance(given, ast.Starred) for given in arguments)


def dictionary_value(node: ast.expr | None, key: str) -> ast.expr | None:
    """Return the value of *key* in the dictionary literal *node*, or None."""
    if not isinstance(node, ast.Dict):
        return None
    for key_node, value in zip(node.keys, node.values, strict=True):
        if isinstance(key_node, ast.Constant) and key_node.value == key:
            return value
    return None


def dictionary_keys(node: ast.expr | None) -> list[str]:
    """Return the keys of the dictionary literal *node* that are string literals."""
    if not isinstance(node, ast.Dict):
        return []

    literals = [key.value for key in node.keys if isinstance(key, ast.Constant)]
    return [value for value in literals if isinstance(value, str)]


def key_text(key: ast.expr) -> str:
    """Return the string literal *key*, or the source of another key."""
    if isinstance(key, ast.Constant) and isinstance(key.value, str):
        return key.value
    return quote(key)


def quote(expr: ast.expr) -> str:
    """Return the source of *expr* on one line, truncated after 100 characters."""
    text = ast.unparse(expr)
    if len(text) <= _MAX_QUOTED_CHARACTERS:
        return text
    return f"{text[:_MAX_QUOTED_CHARACTERS]}…"
