"""The scopes of a source file and their names, for the catalogue.

**Rules**

* A module, a class, a function, a lambda and a comprehension are scopes, as in Python.
* A scope keeps every binding of a name, because each of them may be in effect when the code runs.
* The values of arguments, loop variables, captured patterns, caught exceptions and augmented assignments are unknown.
* The file is parsed but neither imported nor executed.
"""

from __future__ import annotations

import ast
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from structlog_audit.catalogue.source_files import module_name

READ_ERRORS = (OSError, SyntaxError, ValueError, RecursionError, MemoryError)
"""Errors of reading source: it is missing, invalid for this version of Python, or nested too deeply."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Imported(NamedTuple):
    """The target of ``import module`` or ``from module import name``."""

    module: str
    name: str | None


class External(NamedTuple):
    """A dotted name of another package."""

    name: str


class Binding(NamedTuple):
    """A value that a name is bound to, with its scope and the annotation of the name.

    An unknown value is stored as None.
    """

    value: ast.expr | Imported | External | Scope | None
    scope: Scope
    annotation: ast.expr | None = None


@dataclass(eq=False)
class Scope:
    """The names of a module, a class, a function, a lambda or a comprehension.

    Attributes:
        node: The node that opens the scope.
        parent: The enclosing scope; None for a module.
        module: The module that contains the scope.
        names: The bindings of each name.
        instance_attributes: Of a class, the bindings of each attribute that its methods set.
        redirected: The scopes of the names that ``global`` and ``nonlocal`` declare.
        star_imports: The modules of ``from … import *``.
    """

    node: ast.AST
    parent: Scope | None
    module: Module
    names: defaultdict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    instance_attributes: defaultdict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    redirected: dict[str, Scope] = field(default_factory=dict)
    star_imports: list[str] = field(default_factory=list)

    def bind(self, name: str, value: ast.expr | Imported | Scope | None, annotation: ast.expr | None = None) -> None:
        """Add a binding of *name*."""
        target = self.redirected.get(name, self)
        bindings = target.names[name]
        bindings.append(Binding(value, self, annotation))

    def class_of_receiver(self, name: str) -> Scope | None:
        """Return the class of the method that has *name* as its first parameter.

        Returns None if *name* is not such a parameter, like ``self`` or ``cls``.
        """
        # Find the function that binds the name.
        scope: Scope | None = self
        while scope is not None and name not in scope.names:
            scope = scope.parent
        if scope is None or not isinstance(scope.node, Function):
            return None

        # Only a function directly in a class body is a method.
        enclosing = scope.parent
        if enclosing is None or not isinstance(enclosing.node, ast.ClassDef):
            return None

        arguments = scope.node.args
        parameters = [*arguments.posonlyargs, *arguments.args]
        if not parameters or parameters[0].arg != name:
            return None
        return enclosing


class Module:
    """A parsed source file with its scopes.

    Attributes:
        path: The file.
        import_root: The folder that the name of the module starts in.
        name: The dotted name of the module.
        tree: The syntax tree.
        scope: The scope of the module itself.
        scopes: Every scope, by the node that opens it.

    Raises:
        READ_ERRORS: The file cannot be read or parsed.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.import_root, self.name = module_name(path)

        with open(path, "rb") as file:
            source = file.read()
        with warnings.catch_warnings():
            # Warnings about the inspected code are of no use to the caller.
            warnings.simplefilter("ignore")
            self.tree = ast.parse(source, path)

        self.scope = Scope(self.tree, None, self)
        self.scopes: dict[ast.AST, Scope] = {self.tree: self.scope}
        _Binder(self).visit_all(self.tree.body)

    def absolute_name(self, node: ast.ImportFrom) -> str:
        """Return the absolute name of the module that *node* imports from."""
        if not node.level:
            return node.module or ""

        # One dot is the package itself, each further dot is one level up.
        parts = self.name.split(".")
        is_package = self.path.endswith("__init__.py")
        kept = len(parts) - node.level + is_package
        absolute = parts[: max(0, kept)]

        if node.module:
            absolute.append(node.module)
        return ".".join(absolute)


def last_name(expr: ast.expr) -> str | None:
    """Return the last part of a dotted name; None if *expr* is another expression."""
    if isinstance(expr, ast.Attribute):
        return expr.attr
    return expr.id if isinstance(expr, ast.Name) else None


class _Binder(ast.NodeVisitor):
    """Visitor that adds the scopes and bindings of a module."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._scope = module.scope

    def visit_all(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def _visit_inner_scope(self, node: ast.AST, *inside: ast.AST) -> Scope:
        """Add a scope for *node*, and visit the nodes *inside* it."""
        outer = self._scope
        scope = Scope(node, outer, self._module)
        self._module.scopes[node] = scope
        if isinstance(node, Function | ast.Lambda):
            _bind_parameters(scope, node.args)

        self._scope = scope
        self.visit_all(inside)
        self._scope = outer
        return scope

    def visit_FunctionDef(self, node: Function) -> None:
        self._scope.bind(node.name, None, node.returns)

        # Decorators and defaults are evaluated in the enclosing scope.
        self.visit_all(node.decorator_list)
        self.visit(node.args)

        self._visit_inner_scope(node, *node.body)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)
        self._visit_inner_scope(node, node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_all(node.decorator_list)
        self.visit_all(node.bases)
        self.visit_all(node.keywords)

        inner = self._visit_inner_scope(node, *node.body)
        self._scope.bind(node.name, inner)

    def _visit_comprehension(self, node: Comprehension) -> None:
        self._visit_inner_scope(node, *ast.iter_child_nodes(node))

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _visit_comprehension  # noqa: N815

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.asname:
                self._scope.bind(alias.asname, Imported(alias.name, None))
                continue

            # ``import a.b`` binds only "a".
            package = alias.name.partition(".")[0]
            self._scope.bind(package, Imported(package, None))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = self._module.absolute_name(node)
        for alias in node.names:
            if alias.name == "*":
                self._scope.star_imports.append(module)
                continue

            imported = Imported(module, alias.name)
            self._scope.bind(alias.asname or alias.name, imported)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._assign(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
        self._assign(node.target, node.value, node.annotation)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self._assign(node.target, node.value)

    def visit_withitem(self, node: ast.withitem) -> None:
        self.visit(node.context_expr)
        if node.optional_vars is not None:
            # ``with AuditLogger() as audit`` binds the logger itself.
            self._assign(node.optional_vars, node.context_expr)

    def _assign(self, target: ast.expr, value: ast.expr | None, annotation: ast.expr | None = None) -> None:
        """Bind the names in *target* to *value*."""
        match target:
            case ast.Tuple() | ast.List():
                self._unpack(target, value)

            case ast.Name():
                value = self._enum_value(target.id, value)
                self._scope.bind(target.id, value, annotation)

            case ast.Attribute(value=ast.Name(id=receiver)):
                owner = self._scope.class_of_receiver(receiver)
                if owner is not None:
                    binding = Binding(value, self._scope, annotation)
                    owner.instance_attributes[target.attr].append(binding)

            case _:
                self.visit(target)

    def _unpack(self, target: ast.Tuple | ast.List, value: ast.expr | None) -> None:
        targets = target.elts
        values: Sequence[ast.expr | None] = []
        if isinstance(value, ast.Tuple | ast.List):
            values = value.elts

        # The elements of another value, or of one with a starred part, are unknown.
        if len(values) != len(targets):
            values = [None] * len(targets)

        for element, element_value in zip(targets, values, strict=True):
            self._assign(element, element_value)

    def _enum_value(self, name: str, value: ast.expr | None) -> ast.expr | None:
        """Return *value*, or the string that ``auto()`` gives in a ``StrEnum``."""
        class_def = self._scope.node
        if not isinstance(value, ast.Call) or not isinstance(class_def, ast.ClassDef):
            return value
        if last_name(value.func) != "auto":
            return value

        # A class with this method chooses the values itself.
        if "_generate_next_value_" in self._scope.names:
            return value

        bases = [last_name(base) for base in class_def.bases]
        if "StrEnum" not in bases:
            return value
        text = ast.Constant(name.lower())
        return ast.copy_location(text, value)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            return
        # The remaining targets: loop variables, augmented assignments, ``del``.
        self._scope.bind(node.id, None)

    def _visit_capture(self, node: ast.ExceptHandler | ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self._scope.bind(node.name, None)
        self.generic_visit(node)

    visit_ExceptHandler = visit_MatchAs = visit_MatchStar = _visit_capture  # noqa: N815

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self._scope.bind(node.rest, None)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        for name in node.names:
            self._scope.redirected[name] = self._module.scope

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        outer = self._scope.parent or self._scope
        for name in node.names:
            self._scope.redirected[name] = outer


def _bind_parameters(scope: Scope, parameters: ast.arguments) -> None:
    every: list[ast.arg | None] = []
    every += parameters.posonlyargs
    every += parameters.args
    every += parameters.kwonlyargs

    # ``*args`` and ``**kwargs``, which may be absent.
    every.append(parameters.vararg)
    every.append(parameters.kwarg)

    for parameter in every:
        if parameter is not None:
            scope.bind(parameter.arg, None, parameter.annotation)
