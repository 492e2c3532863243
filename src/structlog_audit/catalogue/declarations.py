"""The operations that Python source declares, found without running it.

==================================  ===================================================================================
door                                what counts
==================================  ===================================================================================
``audited(…)``                      the function of this library, by whatever name it was imported
``instrument(obj, {…})``            the same: one declaration for each method
``with x.operation(…)``             whatever ``x`` is, also in ``enter_context(…)``; elsewhere a logger of ours only
``x.log_event(…)``                  whatever ``x`` is
``x.record(…)``                     an `AuditLogger`
``x.info(…)``, ``ainfo``, …         a logger of ours; a logger of `logging` called ``audit`` or below
``x.info(…, operation=…)``          whatever ``x`` is, and with ``extra={"operation": …}`` too
==================================  ===================================================================================

Rules:

* `structlog_audit.catalogue.inference` says what a logger of ours is, and which texts are known. An operation whose text is not
  known is computed: its `Declaration` has no operation, and is never left out.
* Names are normalised as recorded: ``store`` is ``STORE``.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from structlog_audit.catalogue.inference import Meaning
from structlog_audit.catalogue.name_resolution import Code, Function, Module, Scope, last_name
from structlog_audit.catalogue.source_files import shown
from structlog_audit.event import EventStatus, operation_of, status_of

_LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "critical": "CRITICAL"}
_LEVELS |= {"warn": "WARNING", "exception": "ERROR", "fatal": "CRITICAL"}
_LEVELS |= {f"a{name}": level for name, level in _LEVELS.items()}
_ONLY_LOGGING = {"debug", "warn", "fatal"}
_OF_AUDIT_LOGGER = {"log_event", "record"}
_ENTERING = {"enter_context", "enter_async_context"}
_FAILING = {"error_message", "exc_info", "extra", None}
"""Arguments that may make an event a FAILURE; None stands for those given by ``**``."""

_PLACES = ("operation", "user_id", "session_id", "entry_ids", "metadata", "status", "error_message", "duration_ms")
"""The arguments of an `AuditLogger` by their places."""

_MARKS = {
    "operation",
    "status",
    "exc_info",
    "extra",
    "intent",
    "stack_info",
    "stacklevel",
    "on_result",
    "logger",
    "obj",
    "operations",
}
_DEEPEST = 20
_LONGEST = 100
"""Characters of source that a declaration quotes."""


Item = tuple[ast.expr | None, ast.expr | None, Scope]
"""A key, a value, and the scope that the value stands in."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A place in the source that records an operation.

    Attributes:
        operation: Its name; None if the code computes it.
        expression: The source of the operation, as it is written there.
        door: With what: ``audited``, ``instrument``, ``operation``, ``log_event``, ``record``, or the method of a logger.
        file: The file, from the current directory on if it is below it.
        line: The line, from 1 on.
        function: The function that is decorated, the method that is instrumented, or the function that the place stands in;
            None at the top of a module.
        intent: Whether the intent is recorded first; None if the code computes that.
        status: The status, if the place itself says it; None for calls and blocks, whose outcome says it.
        level: The level, of a logger's method.
        fields: The fields that the place names, in its order.
    """

    operation: str | None
    expression: str
    door: str
    file: str
    line: int
    function: str | None = None
    intent: bool | None = False
    status: str | None = None
    level: str | None = None
    fields: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The declaration as plain JSON values."""
        return asdict(self) | {"fields": list(self.fields)}


def declarations_in(module: Module, code: Code) -> list[Declaration]:
    """What *module*, of *code*, declares, in the order of its lines.

    Raises:
        RecursionError: The source is nested too deeply.
    """
    finder = _Finder(module, code)
    finder.visit(module.tree)
    return sorted(finder.found, key=lambda declaration: declaration.line)


def _argument(call: ast.Call, place: int, name: str | None) -> ast.expr | None:
    """The argument of *call* at *place*, or called *name*; None if it is not given, or comes by ``*`` or ``**``."""
    if len(call.args) > place and not any(isinstance(argument, ast.Starred) for argument in call.args[: place + 1]):
        return call.args[place]
    return next((keyword.value for keyword in call.keywords if keyword.arg is not None and keyword.arg == name), None)


def _entry(node: ast.expr | None, key: str) -> ast.expr | None:
    """The value of *key* in the literal dictionary *node*."""
    for its_key, value in zip(node.keys, node.values, strict=True) if isinstance(node, ast.Dict) else ():
        if isinstance(its_key, ast.Constant) and its_key.value == key:
            return value
    return None


def _key(key: ast.expr) -> str:
    """The text that *key* is, or its source."""
    return key.value if isinstance(key, ast.Constant) and isinstance(key.value, str) else _quoted(key)


def _texts_of(node: ast.expr | None) -> list[str]:
    """The keys of the literal dictionary *node* that are texts."""
    keys = node.keys if isinstance(node, ast.Dict) else []
    return [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


class _Finder(ast.NodeVisitor):
    """Finds the declarations of a module."""

    def __init__(self, module: Module, code: Code) -> None:
        self.found: list[Declaration] = []
        self._module = module
        self._meaning = Meaning(code)
        self._code = code
        self._scope = module.scope
        self._path: list[str] = []
        self._function: str | None = None
        self._entered: set[ast.expr] = set()

    def generic_visit(self, node: ast.AST) -> None:
        before = self._scope
        self._scope = self._module.scopes.get(node, before)
        super().generic_visit(node)
        self._scope = before

    def visit_FunctionDef(self, node: Function) -> None:
        before, path = self._function, [*self._path, node.name]
        self._function = ".".join(path)
        for decorator in node.decorator_list:
            self.visit(decorator)
        self._function = before
        self.visit(node.args)
        self._path, self._function, outer = path, ".".join(path), self._scope
        self._scope = self._module.scopes[node]
        for statement in node.body:
            self.visit(statement)
        self._path, self._function, self._scope = path[:-1], before, outer

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in [*node.decorator_list, *node.bases, *node.keywords]:
            self.visit(part)
        self._path, outer = [*self._path, node.name], self._scope
        self._scope = self._module.scopes[node]
        for statement in node.body:
            self.visit(statement)
        self._path, self._scope = self._path[:-1], outer

    def visit_withitem(self, node: ast.withitem) -> None:
        self._entered.add(node.context_expr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if last_name(node.func) in _ENTERING:
            self._entered.update(node.args)
        names = self._meaning.of_ours(node.func, self._scope)
        if "audited" in names:
            self._declare(node, "audited", _argument(node, 0, "operation"))
        elif "instrument" in names:
            self._instrumented(node)
        elif isinstance(node.func, ast.Attribute):
            self._method(node, node.func)
        self.generic_visit(node)

    def _method(self, call: ast.Call, function: ast.Attribute) -> None:
        """Declare what a call of a method declares, if it does."""
        name, scope = function.attr, self._scope
        if name == "log_event":
            self._declare(call, name, _argument(call, 0, "operation"))
        elif name == "operation":
            if call in self._entered or self._meaning.kind(function.value, scope) in ("bound", "audit"):
                self._declare(call, name, _argument(call, 0, None))
        elif name == "record":
            if self._meaning.kind(function.value, scope) == "audit":
                self._declare(call, name, _argument(call, 0, "operation"))
        elif name in _LEVELS:
            named = _argument(call, len(call.args), "operation") or _entry(
                _argument(call, len(call.args), "extra"), "operation"
            )
            kind = None if named is not None else self._meaning.kind(function.value, scope)
            if named is not None or kind == "logging" or (kind == "bound" and name not in _ONLY_LOGGING):
                operation, is_formatted = named, False
                if operation is None:
                    operation, is_formatted = _argument(call, 0, None), kind == "logging" and len(call.args) > 1
                self._declare(call, name, operation, level=_LEVELS[name], is_computed=is_formatted)

    def _instrumented(self, call: ast.Call) -> None:
        """Declare the operations of ``instrument(obj, {method: operation})``."""
        operations, obj = _argument(call, 1, "operations"), _argument(call, 0, "obj")
        prefix = "" if obj is None else f"{_quoted(obj)}."
        for key, value, scope in self._items(operations, self._scope):
            function = None if key is None else f"{prefix}{_key(key)}"
            self._declare(call, "instrument", value, scope=scope, function=function, is_computed=key is None)

    def _items(self, mapping: ast.expr | None, scope: Scope, depth: int = 0) -> Iterator[Item]:
        """The items of *mapping*, those of mappings within it too; an item without a key stands for what is not known."""
        while isinstance(mapping, ast.Name | ast.Attribute) and depth < _DEEPEST:
            bindings, depth = list(self._code.bindings(mapping, scope)), depth + 1
            if len(bindings) != 1 or not isinstance(bindings[0].value, ast.expr):
                break
            mapping, scope = bindings[0].value, bindings[0].scope
        if not isinstance(mapping, ast.Dict) or depth >= _DEEPEST:
            yield None, mapping, scope
            return
        for key, value in zip(mapping.keys, mapping.values, strict=True):
            if key is None:
                yield from self._items(value, scope, depth + 1)
            else:
                yield key, value, scope

    def _declare(
        self,
        call: ast.Call,
        door: str,
        operation: ast.expr | None,
        *,
        level: str | None = None,
        scope: Scope | None = None,
        function: str | None = None,
        is_computed: bool = False,
    ) -> None:
        """Note that *call* declares *operation*, which is not known if it *is_computed*."""
        known = None if operation is None or is_computed else self._meaning.texts(operation, scope or self._scope)
        by_place = _PLACES[1 : len(call.args)] if door in _OF_AUDIT_LOGGER else ()
        by_name = (keyword.arg for keyword in call.keywords if keyword.arg)
        of_extra = _texts_of(_argument(call, len(call.args), "extra"))
        fields = tuple(name for name in (*by_place, *by_name, *of_extra) if name not in _MARKS)
        for text in sorted(known) if known else [None]:
            self.found.append(
                Declaration(
                    operation=None if text is None else operation_of(text).value,
                    expression=_quoted(call if operation is None else operation),
                    door=door,
                    file=shown(self._module.path),
                    line=call.lineno,
                    function=function or self._function,
                    intent=_intent(call) if door == "operation" else False,
                    status=None if door in ("audited", "instrument") else self._status(call, door, level),
                    level=level,
                    fields=fields,
                )
            )

    def _status(self, call: ast.Call, door: str, level: str | None) -> str | None:
        """The status that *call* itself says."""
        is_by_place = door in _OF_AUDIT_LOGGER
        given = _argument(call, _PLACES.index("status") if is_by_place else len(call.args), "status")
        if given is not None:
            texts = self._meaning.texts(given, self._scope)
            status = status_of(next(iter(texts))) if texts and len(texts) == 1 else None
            return None if status is None else status.value
        names = {keyword.arg for keyword in call.keywords}
        if door == "operation" or None in names or any(isinstance(argument, ast.Starred) for argument in call.args):
            return None
        if level in ("ERROR", "CRITICAL"):
            return EventStatus.FAILURE.value
        return None if names & _FAILING else EventStatus.SUCCESS.value


def _intent(call: ast.Call) -> bool | None:
    given = next((keyword.value for keyword in call.keywords if keyword.arg == "intent"), None)
    if given is None:
        return None if any(keyword.arg is None for keyword in call.keywords) else False
    return given.value if isinstance(given, ast.Constant) and isinstance(given.value, bool) else None


def _quoted(expr: ast.expr) -> str:
    """The source of *expr* on one line, and not too long."""
    text = ast.unparse(expr)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
