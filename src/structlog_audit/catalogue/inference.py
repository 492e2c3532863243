"""What expressions in Python source mean to this library: its names, texts, and the loggers that record.

Rules:

* A text is known if it is a literal, or a constant or a member of an Enum whose value the same code says. Either side of
  ``a if b else c`` counts, and each value of a name that is bound more than once.
* A logger of ours is known by where it comes from (``get_audit_logger()``, ``AuditLogger()``, their ``bind`` and ``new``), also
  through names, attributes of ``self``, imports in the same code, and by annotations (``log: AuditBoundLogger``).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from structlog_audit.catalogue.name_resolution import Binding, Code, External, Scope, last_name
from structlog_audit.event import EventStatus, OperationType

LIBRARY = "structlog_audit"

_KINDS = {"get_audit_logger": "bound", "AuditBoundLogger": "bound", "AuditLogger": "audit"}
_AGAIN = {"bind", "new", "unbind", "try_unbind", "getChild"}
_CONSTANTS = {f"OperationType.{member.name}": member.value for member in OperationType}
_CONSTANTS |= {f"EventStatus.{member.name}": member.value for member in EventStatus}
_DEEPEST = 20


class Meaning:
    """What expressions of *code* mean to us."""

    def __init__(self, code: Code) -> None:
        self._code = code

    def names(self, expr: ast.expr, scope: Scope, depth: int = 0) -> set[str]:
        """The external names that *expr* may be, also with some arguments given by ``functools.partial``."""
        found: set[str] = set()
        for binding in self._ends(expr, scope, depth):
            value = binding.value
            if isinstance(value, External):
                found.add(value.name)
            elif isinstance(value, ast.Call) and last_name(value.func) == "partial" and value.args:
                found |= self.names(value.args[0], binding.scope, depth + 1)
        return found

    def of_ours(self, expr: ast.expr, scope: Scope) -> set[str]:
        """The names of this library that *expr* may be, by their last part."""
        return {name.rpartition(".")[2] for name in self.names(expr, scope) if name.startswith(f"{LIBRARY}.")}

    def _ends(self, expr: ast.expr, scope: Scope, depth: int) -> Iterator[Binding]:
        """What *expr* is bound to, through other names."""
        for binding in self._code.bindings(expr, scope, depth):
            if isinstance(binding.value, ast.Name | ast.Attribute):
                yield from self._ends(binding.value, binding.scope, depth + 1)
            else:
                yield binding

    def texts(self, expr: ast.expr, scope: Scope, depth: int = 0) -> frozenset[str] | None:
        """The texts that *expr* may be; None if that can't be told."""
        if depth > _DEEPEST:
            return None
        if isinstance(expr, ast.Constant):
            return frozenset([expr.value]) if isinstance(expr.value, str) else None
        if isinstance(expr, ast.NamedExpr):
            return self.texts(expr.value, scope, depth + 1)
        if isinstance(expr, ast.IfExp):
            return _either(self.texts(side, scope, depth + 1) for side in (expr.body, expr.orelse))
        if isinstance(expr, ast.BinOp) and isinstance(expr.op, ast.Add):
            return self._joined([expr.left, expr.right], scope, depth)
        if isinstance(expr, ast.JoinedStr):
            return self._joined(expr.values, scope, depth)
        if isinstance(expr, ast.FormattedValue):
            is_plain = expr.conversion == -1 and expr.format_spec is None and not isinstance(expr.value, ast.Attribute)
            return (
                self.texts(expr.value, scope, depth + 1) if is_plain else None
            )  # an Enum's member may format otherwise
        if isinstance(expr, ast.Attribute):
            if isinstance(expr.value, ast.Name) and scope.owner(expr.value.id) is not None:
                return None  # a subclass may say otherwise
            if expr.attr == "value" and isinstance(expr.value, ast.Attribute):
                return self.texts(expr.value, scope, depth + 1)
        if isinstance(expr, ast.Name | ast.Attribute):
            return _either(self._text_of(binding, depth) for binding in self._code.bindings(expr, scope, depth))
        return None

    def _text_of(self, binding: Binding, depth: int) -> frozenset[str] | None:
        value = binding.value
        if isinstance(value, External):
            known = _CONSTANTS.get(".".join(value.name.split(".")[-2:])) if value.name.startswith(LIBRARY) else None
            return None if known is None else frozenset([known])
        return self.texts(value, binding.scope, depth + 1) if isinstance(value, ast.expr) else None

    def _joined(self, parts: list[ast.expr], scope: Scope, depth: int) -> frozenset[str] | None:
        text = ""
        for part in parts:
            its = self.texts(part, scope, depth + 1)
            if its is None or len(its) != 1:
                return None
            text += next(iter(its))
        return frozenset([text])

    def kind(self, expr: ast.expr | None, scope: Scope, depth: int = 0) -> str | None:
        """What kind of logger *expr* is: ``bound``, ``audit`` (an `AuditLogger`), ``logging``, or None."""
        if expr is None or depth > _DEEPEST:
            return None
        if isinstance(expr, ast.Await | ast.NamedExpr):
            return self.kind(expr.value, scope, depth + 1)
        if isinstance(expr, ast.IfExp):
            return self.kind(expr.body, scope, depth + 1) or self.kind(expr.orelse, scope, depth + 1)
        if isinstance(expr, ast.BoolOp):
            return next(filter(None, (self.kind(value, scope, depth + 1) for value in expr.values)), None)
        if isinstance(expr, ast.Call):
            return self._of_call(expr, scope, depth)
        for binding in self._code.bindings(expr, scope, depth):
            value = binding.value if isinstance(binding.value, ast.expr) else None
            found = self._of_type(binding.annotation, binding.scope, depth) or self.kind(
                value, binding.scope, depth + 1
            )
            if found:
                return found
        return None

    def _of_call(self, call: ast.Call, scope: Scope, depth: int) -> str | None:
        function = call.func
        if isinstance(function, ast.Attribute) and function.attr in _AGAIN:
            return self.kind(function.value, scope, depth + 1)
        for binding in self._ends(function, scope, depth + 1):
            value = binding.value
            if isinstance(value, External) and value.name == "logging.getLogger" and call.args:
                names = self.texts(call.args[0], scope, depth + 1) or ()
                return "logging" if any(name.split(".")[0] == "audit" for name in names) else None
            found = self._of_name(value, depth) or self._of_type(binding.annotation, binding.scope, depth)
            if found:
                return found
        return None

    def _of_name(self, value: Any, depth: int) -> str | None:
        """The kind of what a name of this library, or a class below one, makes."""
        if isinstance(value, External):
            return _KINDS.get(value.name.rpartition(".")[2]) if value.name.startswith(f"{LIBRARY}.") else None
        if isinstance(value, Scope) and isinstance(value.node, ast.ClassDef) and depth <= _DEEPEST:
            for base in value.node.bases:
                for binding in self._ends(base, value.parent or value, depth + 1):
                    found = self._of_name(binding.value, depth + 1)
                    if found:
                        return found
        return None

    def _of_type(self, annotation: ast.expr | None, scope: Scope, depth: int) -> str | None:
        """The kind of logger that an *annotation* names, alone or beside others."""
        for part in ast.walk(annotation) if annotation is not None else ():
            if isinstance(part, ast.Constant) and isinstance(part.value, str) and depth <= _DEEPEST:
                try:
                    quoted = ast.parse(part.value, mode="eval").body
                except (SyntaxError, ValueError, RecursionError, MemoryError):
                    continue
                found = self._of_type(quoted, scope, depth + 1)
                if found:
                    return found
            elif isinstance(part, ast.Name | ast.Attribute):
                for binding in self._ends(part, scope, depth + 1):
                    found = self._of_name(binding.value, depth)
                    if found:
                        return found
        return None


def _either(sets: Iterator[frozenset[str] | None]) -> frozenset[str] | None:
    """The union of *sets*; None if one is unknown, or there is none."""
    found: frozenset[str] = frozenset()
    for texts in sets:
        if texts is None:
            return None
        found |= texts
    return found or None
