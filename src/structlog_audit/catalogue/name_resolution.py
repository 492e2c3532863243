"""What the names in Python source stand for, without running it.

Rules:

* A name means what the innermost scope that binds it says, as in Python. Of several bindings each may be meant.
* Imports lead to other modules of the same code; those of other packages end there, as an `External` name.
* What can't be told for sure is told as unknown: arguments, loop variables, attributes of ``self`` that a subclass may set
  otherwise, results of calls.
* The work is bounded: chains of names are followed twenty steps deep and a thousand in all; what lies beyond is unknown.
"""

from __future__ import annotations

import ast
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from structlog_audit.catalogue.source_files import file_of, named

_DEEPEST = 20
_MOST = 1_000

UNREADABLE = (OSError, SyntaxError, ValueError, RecursionError, MemoryError)
"""What reading source may raise: it is not there, it is no Python of this version, or it is nested too deeply."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


class Imported(NamedTuple):
    """``import module`` or ``from module import name``."""

    module: str
    name: str | None


class External(NamedTuple):
    """A dotted name of another package."""

    name: str


class Binding(NamedTuple):
    """What a name was bound to: a value in a scope, or nothing that is known; and the type that the code says it has."""

    value: ast.expr | Imported | External | Scope | None
    scope: Scope
    annotation: ast.expr | None = None


@dataclass(eq=False)
class Scope:
    """The names of a module, a class, a function, a lambda or a comprehension."""

    node: ast.AST
    parent: Scope | None
    module: Module
    names: defaultdict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    of_instances: defaultdict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    elsewhere: dict[str, Scope] = field(default_factory=dict)
    """By ``global`` and ``nonlocal``: the scope that a name is bound in."""
    stars: list[str] = field(default_factory=list)
    """Modules of ``from … import *``."""

    def bind(self, name: str, value: ast.expr | Imported | Scope | None, annotation: ast.expr | None = None) -> None:
        """Add what *name* was bound to."""
        self.elsewhere.get(name, self).names[name].append(Binding(value, self, annotation))

    def owner(self, name: str) -> Scope | None:
        """The class whose instance or class *name* is in this method: its first parameter."""
        scope: Scope | None = self
        while scope is not None and name not in scope.names:
            scope = scope.parent
        if scope is None or scope.parent is None or not isinstance(scope.node, Function):
            return None
        arguments = [*scope.node.args.posonlyargs, *scope.node.args.args]
        is_method = isinstance(scope.parent.node, ast.ClassDef) and arguments and arguments[0].arg == name
        return scope.parent if is_method else None


class Module:
    """A module of the code: its tree, and the scopes in it.

    Raises:
        Those of `UNREADABLE`: It can't be read.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.base, self.name = named(path)
        with open(path, "rb") as file:
            source = file.read()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the code that is read, which nobody runs here
            self.tree = ast.parse(source, path)
        self.scope = Scope(self.tree, None, self)
        self.scopes: dict[ast.AST, Scope] = {self.tree: self.scope}
        _Binder(self).visit_all(self.tree.body)

    def absolute(self, node: ast.ImportFrom) -> str:
        """The name of the module that *node* imports from."""
        if not node.level:
            return node.module or ""
        parts = self.name.split(".")
        kept = len(parts) - node.level + self.path.endswith("__init__.py")
        return ".".join([*parts[: max(0, kept)], *filter(None, [node.module])])


class _Binder(ast.NodeVisitor):
    """Finds what binds names."""

    def __init__(self, module: Module) -> None:
        self._module = module
        self._scope = module.scope

    def visit_all(self, nodes: Sequence[ast.AST]) -> None:
        for node in nodes:
            self.visit(node)

    def _inner(self, node: ast.AST, *inside: ast.AST) -> Scope:
        """A scope for *node*, which has *inside*."""
        outer = self._scope
        scope = self._module.scopes[node] = self._scope = Scope(node, outer, self._module)
        if isinstance(node, Function | ast.Lambda):
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            for argument in filter(None, every):
                scope.bind(argument.arg, None, argument.annotation)
        self.visit_all(inside)
        self._scope = outer
        return scope

    def visit_FunctionDef(self, node: Function) -> None:
        self._scope.bind(node.name, None, node.returns)
        self.visit_all([*node.decorator_list, node.args])
        self._inner(node, *node.body)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self.visit(node.args)
        self._inner(node, node.body)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_all([*node.decorator_list, *node.bases, *node.keywords])
        self._scope.bind(node.name, self._inner(node, *node.body))

    def _comprehension(self, node: Comprehension) -> None:
        self._inner(node, *ast.iter_child_nodes(node))

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815

    def visit_Import(self, node: ast.Import) -> None:
        for name in node.names:
            whole = name.name if name.asname else name.name.partition(".")[0]
            self._scope.bind(name.asname or whole, Imported(whole, None))

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = self._module.absolute(node)
        for name in node.names:
            if name.name == "*":
                self._scope.stars.append(module)
            else:
                self._scope.bind(name.asname or name.name, Imported(module, name.name))

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self._target(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
        self._target(node.target, node.value, node.annotation)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self._target(node.target, node.value)

    def visit_withitem(self, node: ast.withitem) -> None:
        self.visit(node.context_expr)
        if node.optional_vars is not None:
            self._target(node.optional_vars, node.context_expr)  # loggers enter as themselves

    def _target(self, target: ast.expr, value: ast.expr | None, annotation: ast.expr | None = None) -> None:
        if isinstance(target, ast.Tuple | ast.List):
            values: Sequence[ast.expr | None] = [None] * len(target.elts)
            if isinstance(value, ast.Tuple | ast.List) and len(value.elts) == len(target.elts):
                values = value.elts
            for one, its in zip(target.elts, values, strict=True):
                self._target(one, its)
        elif isinstance(target, ast.Name):
            self._scope.bind(target.id, self._of_enum(target.id, value), annotation)
        elif isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
            owner = self._scope.owner(target.value.id)
            if owner is not None:
                owner.of_instances[target.attr].append(Binding(value, self._scope, annotation))
        else:
            self.visit(target)

    def _of_enum(self, name: str, value: ast.expr | None) -> ast.expr | None:
        """*value*; of a member of a ``StrEnum`` that is ``auto()``, the text that it gets."""
        node = self._scope.node
        if isinstance(value, ast.Call) and isinstance(node, ast.ClassDef) and last_name(value.func) == "auto":
            is_usual = "_generate_next_value_" not in self._scope.names
            if is_usual and any(last_name(base) == "StrEnum" for base in node.bases):
                return ast.copy_location(ast.Constant(name.lower()), value)
        return value

    def visit_Name(self, node: ast.Name) -> None:
        if not isinstance(node.ctx, ast.Load):  # a loop, an augmented assignment, del
            self._scope.bind(node.id, None)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.name:
            self._scope.bind(node.name, None)
        self.generic_visit(node)

    def _capture(self, node: ast.MatchAs | ast.MatchStar) -> None:
        if node.name:
            self._scope.bind(node.name, None)
        self.generic_visit(node)

    visit_MatchAs = visit_MatchStar = _capture  # noqa: N815

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        if node.rest:
            self._scope.bind(node.rest, None)
        self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> None:
        self._scope.elsewhere.update(dict.fromkeys(node.names, self._module.scope))

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        outer = self._scope.parent or self._scope
        self._scope.elsewhere.update(dict.fromkeys(node.names, outer))


def last_name(expr: ast.expr) -> str | None:
    """The last part of a dotted name."""
    return expr.attr if isinstance(expr, ast.Attribute) else expr.id if isinstance(expr, ast.Name) else None


class Code:
    """Modules, read when something in them is asked for.

    Args:
        bases: Folders that imports may begin in, besides that of the importing module.
        library: The package whose names end as `External` ones, also where it is the code itself.
    """

    def __init__(self, bases: Sequence[str], library: str) -> None:
        self._bases = bases
        self._library = library
        self._modules: dict[str, Module | Exception] = {}
        self._left = _MOST

    def module_at(self, path: str) -> Module:
        """The module in the file at *path*, read once.

        Raises:
            Those of `UNREADABLE`: As of `Module`.
        """
        if path not in self._modules:
            try:
                self._modules[path] = Module(path)
            except UNREADABLE as error:
                self._modules[path] = error
        found = self._modules[path]
        if isinstance(found, Exception):
            raise found
        return found

    def _module(self, name: str, asking: Module) -> Module | None:
        if name.partition(".")[0] == self._library:
            return None
        path = file_of(name, [asking.base, *self._bases]) if name else None
        try:
            return None if path is None else self.module_at(path)
        except UNREADABLE:  # told by whoever asks for it itself
            return None

    def bindings(self, expr: ast.expr, scope: Scope, depth: int = 0) -> Iterator[Binding]:
        """What the dotted name *expr* may be bound to in *scope*; nothing if it is none, or is bound nowhere.

        Who asks again on account of an answer gives the *depth* of that.
        """
        self._left = _MOST if depth == 0 else self._left - 1
        if depth > _DEEPEST or self._left < 0:
            yield Binding(None, scope)
        elif isinstance(expr, ast.Name):
            yield from self._of_name(expr.id, scope, depth)
        elif isinstance(expr, ast.Attribute):
            owner = scope.owner(expr.value.id) if isinstance(expr.value, ast.Name) else None
            if owner is not None:
                yield from owner.of_instances.get(expr.attr, ())
                yield from self._member(owner, expr.attr, depth + 1)
                return
            for binding in self.bindings(expr.value, scope, depth + 1):
                yield from self._attribute(binding, expr.attr, depth + 1)

    def _of_name(self, name: str, scope: Scope, depth: int) -> Iterator[Binding]:
        inner: Scope | None = scope
        while inner is not None:
            if name in inner.names and (inner is scope or not isinstance(inner.node, ast.ClassDef)):
                for binding in inner.names[name]:
                    yield from self._imported(binding, depth)
                return
            inner = inner.parent
        yield from self._starred(scope.module.scope, name, depth)

    def _starred(self, scope: Scope, name: str, depth: int) -> Iterator[Binding]:
        for module in scope.stars:
            yield from self._imported(Binding(Imported(module, name), scope), depth + 1)

    def _imported(self, binding: Binding, depth: int) -> Iterator[Binding]:
        """*binding*, or what it imports."""
        if not isinstance(binding.value, Imported):
            yield binding
            return
        if depth > _DEEPEST:
            yield Binding(None, binding.scope)
            return
        module, name = binding.value
        found = self._module(module, binding.scope.module)
        if name is None:
            yield Binding(External(module) if found is None else found.scope, binding.scope)
        elif found is None:
            inside = self._module(f"{module}.{name}", binding.scope.module)
            yield Binding(External(f"{module}.{name}") if inside is None else inside.scope, binding.scope)
        else:
            yield from self._member(found.scope, name, depth + 1)

    def _member(self, scope: Scope, name: str, depth: int) -> Iterator[Binding]:
        """What *name* is in the module or the class that *scope* is of: its own, from its bases, or a module below it."""
        if depth > _DEEPEST:
            yield Binding(None, scope)
        elif name in scope.names:
            for binding in scope.names[name]:
                yield from self._imported(binding, depth + 1)
        elif isinstance(scope.node, ast.ClassDef):
            for base in scope.node.bases:
                for binding in self.bindings(base, scope.parent or scope, depth + 1):
                    yield from self._attribute(binding, name, depth + 1)
        else:
            below = self._module(f"{scope.module.name}.{name}", scope.module)
            if below is not None:
                yield Binding(below.scope, scope)
            else:
                yield from self._starred(scope, name, depth + 1)

    def _attribute(self, binding: Binding, name: str, depth: int) -> Iterator[Binding]:
        value = binding.value
        if isinstance(value, External):
            yield Binding(External(f"{value.name}.{name}"), binding.scope)
        elif isinstance(value, Scope):
            yield from self._member(value, name, depth)
        elif isinstance(value, ast.Name | ast.Attribute):
            for other in self.bindings(value, binding.scope, depth):
                yield from self._attribute(other, name, depth + 1)
