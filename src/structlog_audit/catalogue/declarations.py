"""The operations that a source file declares, for the catalogue.

==================================  ===================================================================================
in the source                       counts if
==================================  ===================================================================================
``audited(…)``                      it is the function of this library, under any name it was imported as
``instrument(obj, {…})``            the same; each method is a declaration
``with x.operation(…)``             always, in ``enter_context(…)`` too; outside of a ``with`` if ``x`` is an audit logger
``x.log_event(…)``                  always
``x.record(…)``                     ``x`` is an `AuditLogger`
``x.info(…)``, ``ainfo``, …         ``x`` is an audit logger, or a logger of `logging` that is named ``audit`` or below
``x.info(…, operation=…)``          always, with ``extra={"operation": …}`` too
``track(Model)``, ``@track``        it is a function of `structlog_audit.contrib`; the operations are named by the tables
==================================  ===================================================================================

**Guarantees**

* The file is parsed but neither imported nor executed.
* `structlog_audit.catalogue.inference` defines which loggers and strings are recognized. A call with an unknown operation is
  still a `Declaration`, but without an operation.
* Operations are normalized as a recorded event normalizes them: ``store`` is ``STORE``.
"""

from __future__ import annotations

import ast
from dataclasses import asdict, dataclass
from typing import Any

from structlog_audit.catalogue.call_arguments import (
    argument,
    dictionary_keys,
    dictionary_value,
    has_spread_keywords,
    has_spread_positions,
    key_text,
    keyword,
    keyword_names,
    quote,
)
from structlog_audit.catalogue.inference import Inference, LoggerKind
from structlog_audit.catalogue.name_resolution import Codebase
from structlog_audit.catalogue.scopes import Function, Module, Scope, last_name
from structlog_audit.catalogue.source_files import display_path
from structlog_audit.events.event import EventStatus, operation_of
from structlog_audit.events.status_words import stated_status

_LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "critical": "CRITICAL"}
_LEVELS |= {"warn": "WARNING", "exception": "ERROR", "fatal": "CRITICAL"}
_LEVELS |= {f"a{name}": level for name, level in _LEVELS.items()}
_STDLIB_ONLY_METHODS = {"debug", "warn", "fatal"}
_WRAPPERS = {"audited", "instrument"}

TRACK = "track"
"""The function of `structlog_audit.contrib` that records the changes of models, as an entry point."""

_AUDIT_LOGGER_METHODS = {"log_event", "record"}
_ENTER_METHODS = {"enter_context", "enter_async_context"}

_FAILURE_ARGUMENTS = {"error_message", "exc_info", "extra"}
"""Arguments that may make an event a FAILURE."""

_PARAMETERS = ("operation", "user_id", "session_id", "entry_ids", "metadata", "status", "error_message", "duration_ms")
"""The parameters of `AuditLogger.record` and ``log_event``, in order."""

_NOT_FIELDS = {
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
"""Arguments that are not listed as fields of the event."""


@dataclass(frozen=True, slots=True)
class Declaration:
    """A place in the source that records an operation.

    Attributes:
        operation: The name of the operation; None if the code computes it.
        expression: The source of the operation, truncated after 100 characters.
        entry_point: ``audited``, ``instrument``, ``operation``, ``log_event``, ``record``, ``track``, or a method of a logger.
        file: The path of the file, relative to the current directory if it is below it.
        line: The line, from 1 on.
        function: The qualified name of the decorated function, the instrumented method, or the enclosing function; None at the
            top level of a module.
        intent: Whether the intent is recorded first; None if the code computes that.
        status: The status, if the call alone determines it; None for decorators and blocks, where the outcome does.
        level: The level of a logger's method; otherwise None.
        fields: The names of the fields that the call passes, in its order.
    """

    operation: str | None
    expression: str
    entry_point: str
    file: str
    line: int
    function: str | None = None
    intent: bool | None = False
    status: str | None = None
    level: str | None = None
    fields: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the declaration as JSON-compatible values."""
        return asdict(self) | {"fields": list(self.fields)}


def declarations_in(module: Module, codebase: Codebase) -> list[Declaration]:
    """Return the declarations in *module*, a module of *codebase*, sorted by line.

    Raises:
        RecursionError: The source is nested too deeply.
    """
    visitor = _DeclarationVisitor(module, codebase)
    visitor.visit(module.tree)
    visitor.found.sort(key=lambda declaration: declaration.line)
    return visitor.found


class _DeclarationVisitor(ast.NodeVisitor):
    """Visitor that collects the declarations of a module."""

    def __init__(self, module: Module, codebase: Codebase) -> None:
        self.found: list[Declaration] = []
        self._module = module
        self._file = display_path(module.path)
        self._inference = Inference(codebase)

        # The position of the visitor.
        self._scope = module.scope
        self._qualified_name: list[str] = []
        self._function: str | None = None

        # The expressions that a ``with`` statement or an exit stack enters.
        self._entered: set[ast.expr] = set()

    def generic_visit(self, node: ast.AST) -> None:
        outer = self._scope
        self._scope = self._module.scopes.get(node, outer)
        super().generic_visit(node)
        self._scope = outer

    def visit_FunctionDef(self, node: Function) -> None:
        outer_function, outer_scope = self._function, self._scope
        self._qualified_name.append(node.name)
        function = ".".join(self._qualified_name)

        # A decorator declares an operation of the decorated function.
        self._function = function
        for decorator in node.decorator_list:
            self.visit(decorator)

        # The defaults of the parameters are evaluated outside of the function.
        self._function = outer_function
        self.visit(node.args)

        self._function, self._scope = function, self._module.scopes[node]
        for statement in node.body:
            self.visit(statement)

        self._function, self._scope = outer_function, outer_scope
        self._qualified_name.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in [*node.decorator_list, *node.bases, *node.keywords]:
            self.visit(part)
        for decorator in node.decorator_list:
            if TRACK in self._inference.library_names(decorator, self._scope):
                self._declare_tracked(decorator.lineno, node.name)

        outer_scope = self._scope
        self._qualified_name.append(node.name)
        self._scope = self._module.scopes[node]
        for statement in node.body:
            self.visit(statement)

        self._scope = outer_scope
        self._qualified_name.pop()

    def visit_withitem(self, node: ast.withitem) -> None:
        self._entered.add(node.context_expr)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        if last_name(node.func) in _ENTER_METHODS:
            self._entered.update(node.args)

        functions = self._inference.library_names(node.func, self._scope)
        if "audited" in functions:
            operation = argument(node, 0, "operation")
            self._declare(node, "audited", operation)
        elif "instrument" in functions:
            self._check_instrument(node)
        elif TRACK in functions:
            model = argument(node, 0, "model")
            self._declare_tracked(node.lineno, quote(node if model is None else model))
        elif isinstance(node.func, ast.Attribute):
            self._check_method(node, node.func)

        # The arguments may contain calls that declare operations too.
        self.generic_visit(node)

    def _check_method(self, call: ast.Call, method: ast.Attribute) -> None:
        """Add a declaration if *call* of *method* records an event."""
        name, receiver = method.attr, method.value

        if name == "log_event":
            operation = argument(call, 0, "operation")
            self._declare(call, name, operation)

        elif name == "operation":
            # Other libraries have methods of this name, but not as context managers.
            if call in self._entered or self._is_logger(receiver, "bound", "audit"):
                operation = argument(call, 0, None)
                self._declare(call, name, operation)

        elif name == "record":
            if self._is_logger(receiver, "audit"):
                operation = argument(call, 0, "operation")
                self._declare(call, name, operation)

        elif name in _LEVELS:
            self._check_level_method(call, method)

    def _is_logger(self, expr: ast.expr, *kinds: LoggerKind) -> bool:
        kind = self._inference.logger_kind(expr, self._scope)
        return kind in kinds

    def _check_level_method(self, call: ast.Call, method: ast.Attribute) -> None:
        """Add a declaration if *call* of ``x.info`` or another level records an event."""
        name = method.attr
        level = _LEVELS[name]

        # A field ``operation`` counts on every logger, because the processor records it.
        operation = keyword(call, "operation")
        if operation is None:
            operation = dictionary_value(keyword(call, "extra"), "operation")
        if operation is not None:
            self._declare(call, name, operation, level=level)
            return

        message = argument(call, 0, None)
        kind = self._inference.logger_kind(method.value, self._scope)
        if kind == "logging":
            # `logging` builds the message from these arguments.
            is_formatted = len(call.args) > 1
            self._declare(call, name, message, level=level, is_computed=is_formatted)
        elif kind == "bound" and name not in _STDLIB_ONLY_METHODS:
            self._declare(call, name, message, level=level)

    def _check_instrument(self, call: ast.Call) -> None:
        """Add the declarations of ``instrument(obj, {method: operation})``."""
        obj = argument(call, 0, "obj")
        operations = argument(call, 1, "operations")
        prefix = "" if obj is None else f"{quote(obj)}."

        for key, value, scope in self._inference.items(operations, self._scope):
            is_unknown = key is None
            function = None
            if key is not None:
                function = prefix + key_text(key)

            self._declare(
                call,
                "instrument",
                value,
                scope=scope,
                function=function,
                is_computed=is_unknown,
            )

    def _declare_tracked(self, line: int, model: str) -> None:
        """Add a declaration of the changes of *model*, whose table names the operations."""
        declaration = Declaration(
            operation=None,
            expression=model,
            entry_point=TRACK,
            file=self._file,
            line=line,
            function=self._function,
            status=EventStatus.SUCCESS.value,
        )
        self.found.append(declaration)

    def _declare(
        self,
        call: ast.Call,
        entry_point: str,
        operation: ast.expr | None,
        *,
        level: str | None = None,
        scope: Scope | None = None,
        function: str | None = None,
        is_computed: bool = False,
    ) -> None:
        """Add a declaration for each value of *operation*.

        If the value is unknown, the declaration has no operation.

        Args:
            call: The call that records the operation.
            entry_point: The function or method that is called.
            operation: The expression of the operation; None if the call does not show it.
            level: The level of the method.
            scope: The scope of *operation*, if it is not the current one.
            function: The function of the declaration, if it is not the enclosing one.
            is_computed: Whether the recorded operation differs from *operation*.
        """
        names: frozenset[str] | None = None
        if operation is not None and not is_computed:
            names = self._inference.strings(operation, scope or self._scope)

        expression = quote(call if operation is None else operation)
        status = self._status(call, entry_point, level)
        intent = _intent(call) if entry_point == "operation" else False
        fields = _fields(call, entry_point)

        for name in sorted(names) if names else [None]:
            declaration = Declaration(
                operation=None if name is None else operation_of(name).value,
                expression=expression,
                entry_point=entry_point,
                file=self._file,
                line=call.lineno,
                function=function or self._function,
                intent=intent,
                status=status,
                level=level,
                fields=fields,
            )
            self.found.append(declaration)

    def _status(self, call: ast.Call, entry_point: str, level: str | None) -> str | None:
        """Return the status that *call* alone determines, or None."""
        if entry_point in _WRAPPERS:
            return None

        given = keyword(call, "status")
        if entry_point in _AUDIT_LOGGER_METHODS:
            given = argument(call, _PARAMETERS.index("status"), "status")
        if given is not None:
            return self._known_status(given)

        # The outcome of a block, or an argument passed by ``*`` or ``**``, may be a failure.
        is_spread = has_spread_keywords(call) or has_spread_positions(call)
        if entry_point == "operation" or is_spread:
            return None

        if level in ("ERROR", "CRITICAL"):
            return EventStatus.FAILURE.value
        for name in keyword_names(call):
            if name in _FAILURE_ARGUMENTS:
                return None
        return EventStatus.SUCCESS.value

    def _known_status(self, expr: ast.expr) -> str | None:
        value = expr.value if isinstance(expr, ast.Constant) else None
        names = self._inference.strings(expr, self._scope)
        if names is not None and len(names) == 1:
            (value,) = names

        status = stated_status(value)
        return None if status is None else status.value


def _fields(call: ast.Call, entry_point: str) -> tuple[str, ...]:
    """Return the names of the event fields that *call* passes."""
    names: list[str] = []
    if entry_point in _AUDIT_LOGGER_METHODS:
        # The first parameter is the operation.
        names += _PARAMETERS[1 : len(call.args)]
    names += keyword_names(call)

    extra = keyword(call, "extra")
    names += dictionary_keys(extra)
    return tuple(name for name in names if name not in _NOT_FIELDS)


def _intent(call: ast.Call) -> bool | None:
    """Return the argument ``intent`` of *call*, or None if the code computes it."""
    given = keyword(call, "intent")
    if given is None:
        return None if has_spread_keywords(call) else False
    if isinstance(given, ast.Constant) and isinstance(given.value, bool):
        return given.value
    return None
