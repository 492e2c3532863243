"""The strings, dictionaries and loggers in source code, for the catalogue.

**Rules**

* A string is known if it is a literal, a constant, or a member of an Enum in the same code. Both sides of ``a if b else c``
  count, and so does each value of a name that is bound more than once.
* A string that is computed in another way is unknown. A wrong name of an operation would be worse than an unknown one.
* A logger is recognized by its origin (``get_audit_logger()``, ``AuditLogger()``, their ``bind`` and ``new``), through names,
  attributes of ``self`` and imports in the same code, and by its annotation (``log: AuditBoundLogger``).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from structlog_audit.catalogue.name_resolution import Codebase
from structlog_audit.catalogue.scopes import Binding, External, Scope, last_name
from structlog_audit.events.event import EventStatus, OperationType

LIBRARY = "structlog_audit"

LoggerKind = Literal["bound", "audit", "logging"]
"""An `AuditBoundLogger`, an `AuditLogger`, or a logger of `logging` that is named ``audit`` or below."""

_KIND_OF_NAME: dict[str, LoggerKind] = {
    "get_audit_logger": "bound",
    "AuditBoundLogger": "bound",
    "AuditLogger": "audit",
}
_METHODS_RETURNING_LOGGER = {"bind", "new", "unbind", "try_unbind", "getChild"}
_LIBRARY_CONSTANTS = {f"OperationType.{member.name}": member.value for member in OperationType}
_LIBRARY_CONSTANTS |= {f"EventStatus.{member.name}": member.value for member in EventStatus}
_MAX_DEPTH = 20


Item = tuple[ast.expr | None, ast.expr | None, Scope]
"""A key of a dictionary, its value, and the scope that contains the value."""


class Inference:
    """Inference of strings, dictionaries and loggers in *codebase*."""

    def __init__(self, codebase: Codebase) -> None:
        self._codebase = codebase

    def library_names(self, expr: ast.expr, scope: Scope) -> set[str]:
        """Return the last parts of the names of this library that *expr* may stand for."""
        found = set()
        for full_name in self._external_names(expr, scope):
            if full_name.startswith(f"{LIBRARY}."):
                _, _, name = full_name.rpartition(".")
                found.add(name)
        return found

    def _external_names(self, expr: ast.expr, scope: Scope, depth: int = 0) -> set[str]:
        """Return the external names that *expr* may stand for.

        The function in a call of ``functools.partial`` counts too.
        """
        found: set[str] = set()
        for binding in self._resolved_bindings(expr, scope, depth):
            match binding.value:
                case External(name=name):
                    found.add(name)

                case ast.Call(func=function, args=[wrapped, *_]) if last_name(function) == "partial":
                    found |= self._external_names(wrapped, binding.scope, depth + 1)
        return found

    def _resolved_bindings(self, expr: ast.expr, scope: Scope, depth: int) -> Iterator[Binding]:
        """Yield the bindings of *expr*, each followed until its value is not a name."""
        for binding in self._codebase.bindings(expr, scope, depth):
            value = binding.value
            if isinstance(value, ast.Name | ast.Attribute):
                yield from self._resolved_bindings(value, binding.scope, depth + 1)
            else:
                yield binding

    def strings(self, expr: ast.expr, scope: Scope, depth: int = 0) -> frozenset[str] | None:
        """Return every string that *expr* may evaluate to.

        Returns None if one of its values is unknown.
        """
        if depth > _MAX_DEPTH:
            return None

        match expr:
            case ast.Constant(value=str() as text):
                return frozenset([text])

            case ast.NamedExpr():
                return self.strings(expr.value, scope, depth + 1)

            case ast.IfExp():
                branches = (expr.body, expr.orelse)
                return _union(self.strings(branch, scope, depth + 1) for branch in branches)

            case ast.BinOp(op=ast.Add()):
                return self._concatenation([expr.left, expr.right], scope, depth)

            case ast.JoinedStr():
                return self._concatenation(expr.values, scope, depth)

            case ast.FormattedValue():
                return self._formatted(expr, scope, depth)

            case ast.Name() | ast.Attribute():
                return self._strings_of_name(expr, scope, depth)

            case _:
                return None

    def _concatenation(self, parts: list[ast.expr], scope: Scope, depth: int) -> frozenset[str] | None:
        """Return the string that *parts* form, or None unless each has one value."""
        text = ""
        for part in parts:
            values = self.strings(part, scope, depth + 1)
            if values is None or len(values) != 1:
                return None
            text += next(iter(values))
        return frozenset([text])

    def _formatted(self, expr: ast.FormattedValue, scope: Scope, depth: int) -> frozenset[str] | None:
        """Return the strings of a replacement field without conversion and format."""
        if expr.conversion != -1 or expr.format_spec is not None:
            return None
        # A member of an Enum may define another format than its value.
        if isinstance(expr.value, ast.Attribute):
            return None
        return self.strings(expr.value, scope, depth + 1)

    def _strings_of_name(self, expr: ast.Name | ast.Attribute, scope: Scope, depth: int) -> frozenset[str] | None:
        match expr:
            case ast.Attribute(value=ast.Name(id=name)) if scope.class_of_receiver(name) is not None:
                # A subclass may override an attribute of ``self``.
                return None

            case ast.Attribute(value=ast.Attribute() as member, attr="value"):
                # ``Operations.LOGIN.value`` is the string that is assigned to the member.
                return self.strings(member, scope, depth + 1)

        bindings = self._codebase.bindings(expr, scope, depth)
        return _union(self._strings_of_binding(binding, depth) for binding in bindings)

    def _strings_of_binding(self, binding: Binding, depth: int) -> frozenset[str] | None:
        value = binding.value
        if isinstance(value, External):
            return _library_constant(value.name)
        if isinstance(value, ast.expr):
            return self.strings(value, binding.scope, depth + 1)
        return None

    def items(self, mapping: ast.expr | None, scope: Scope, depth: int = 0) -> Iterator[Item]:
        """Yield the items of *mapping*, and those of each ``**mapping`` in it.

        An unknown mapping is one item without a key.
        """
        mapping, scope, depth = self._resolve_mapping(mapping, scope, depth)
        if not isinstance(mapping, ast.Dict) or depth >= _MAX_DEPTH:
            yield None, mapping, scope
            return

        for key, value in zip(mapping.keys, mapping.values, strict=True):
            # ``**mapping`` has no key.
            if key is None:
                yield from self.items(value, scope, depth + 1)
            else:
                yield key, value, scope

    def _resolve_mapping(
        self, mapping: ast.expr | None, scope: Scope, depth: int
    ) -> tuple[ast.expr | None, Scope, int]:
        """Return the value that the name *mapping* leads to, its scope, and the depth."""
        while isinstance(mapping, ast.Name | ast.Attribute):
            if depth >= _MAX_DEPTH:
                break
            bindings = list(self._codebase.bindings(mapping, scope))
            depth += 1

            # Several bindings may be in effect, so the value is unknown.
            if len(bindings) != 1:
                break
            (binding,) = bindings
            if not isinstance(binding.value, ast.expr):
                break
            mapping, scope = binding.value, binding.scope

        return mapping, scope, depth

    def logger_kind(self, expr: ast.expr | None, scope: Scope, depth: int = 0) -> LoggerKind | None:
        """Return the kind of logger that *expr* is, or None if that is unknown."""
        if expr is None or depth > _MAX_DEPTH:
            return None

        match expr:
            case ast.Await() | ast.NamedExpr():
                return self.logger_kind(expr.value, scope, depth + 1)

            case ast.IfExp():
                return self._first_kind([expr.body, expr.orelse], scope, depth)

            case ast.BoolOp():
                return self._first_kind(expr.values, scope, depth)

            case ast.Call():
                return self._kind_of_call(expr, scope, depth)

        for binding in self._codebase.bindings(expr, scope, depth):
            value = binding.value
            # An annotation is more certain than the value.
            kind = self._kind_of_annotation(binding.annotation, binding.scope, depth)
            if kind is None and isinstance(value, ast.expr):
                kind = self.logger_kind(value, binding.scope, depth + 1)
            if kind is not None:
                return kind
        return None

    def _first_kind(self, alternatives: Iterable[ast.expr], scope: Scope, depth: int) -> LoggerKind | None:
        for expr in alternatives:
            kind = self.logger_kind(expr, scope, depth + 1)
            if kind is not None:
                return kind
        return None

    def _kind_of_call(self, call: ast.Call, scope: Scope, depth: int) -> LoggerKind | None:
        function = call.func
        if isinstance(function, ast.Attribute) and function.attr in _METHODS_RETURNING_LOGGER:
            return self.logger_kind(function.value, scope, depth + 1)

        for binding in self._resolved_bindings(function, scope, depth + 1):
            value = binding.value
            name = value.name if isinstance(value, External) else None
            if name == "logging.getLogger" and call.args:
                return self._kind_of_stdlib_logger(call.args[0], scope, depth)

            # The call makes an instance, or the function has a return annotation.
            kind = self._kind_of_class(value, depth)
            if kind is None:
                kind = self._kind_of_annotation(binding.annotation, binding.scope, depth)
            if kind is not None:
                return kind
        return None

    def _kind_of_stdlib_logger(self, name: ast.expr, scope: Scope, depth: int) -> LoggerKind | None:
        names = self.strings(name, scope, depth + 1) or ()
        for text in names:
            top, _, _ = text.partition(".")
            if top == "audit":
                return "logging"
        return None

    def _kind_of_class(self, value: Any, depth: int) -> LoggerKind | None:
        """Return the kind of logger that a call of *value* returns.

        *value* is a class or function of this library, or a subclass of such a class.
        """
        if isinstance(value, External):
            if not value.name.startswith(f"{LIBRARY}."):
                return None
            _, _, name = value.name.rpartition(".")
            return _KIND_OF_NAME.get(name)

        is_class = isinstance(value, Scope) and isinstance(value.node, ast.ClassDef)
        if not is_class or depth > _MAX_DEPTH:
            return None

        enclosing = value.parent or value
        for base in value.node.bases:
            for binding in self._resolved_bindings(base, enclosing, depth + 1):
                kind = self._kind_of_class(binding.value, depth + 1)
                if kind is not None:
                    return kind
        return None

    def _kind_of_annotation(self, annotation: ast.expr | None, scope: Scope, depth: int) -> LoggerKind | None:
        """Return the kind of logger that *annotation* names, alone or in a union."""
        if annotation is None or depth > _MAX_DEPTH:
            return None

        for part in ast.walk(annotation):
            kind = self._kind_of_annotation_part(part, scope, depth)
            if kind is not None:
                return kind
        return None

    def _kind_of_annotation_part(self, part: ast.AST, scope: Scope, depth: int) -> LoggerKind | None:
        match part:
            case ast.Constant(value=str() as text):
                quoted = _parsed_annotation(text)
                return self._kind_of_annotation(quoted, scope, depth + 1)
            case ast.Name() | ast.Attribute():
                pass
            case _:
                return None

        for binding in self._resolved_bindings(part, scope, depth + 1):
            kind = self._kind_of_class(binding.value, depth)
            if kind is not None:
                return kind
        return None


def _library_constant(name: str) -> frozenset[str] | None:
    """Return the value of a member of an Enum of this library, by its dotted name."""
    if not name.startswith(f"{LIBRARY}."):
        return None

    # The Enum may be imported from any module of the library.
    *_, enum, member = name.split(".")
    value = _LIBRARY_CONSTANTS.get(f"{enum}.{member}")
    return None if value is None else frozenset([value])


def _parsed_annotation(text: str) -> ast.expr | None:
    """Return the expression in a quoted annotation, or None if it is invalid."""
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _union(alternatives: Iterable[frozenset[str] | None]) -> frozenset[str] | None:
    """Return the union of *alternatives*, or None if one is unknown or it is empty."""
    found: frozenset[str] = frozenset()
    for strings in alternatives:
        if strings is None:
            return None
        found |= strings
    return found or None
