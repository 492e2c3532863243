"""The values that names in source code may stand for, for the catalogue.

**Guarantees**

* The code is parsed but neither imported nor executed.
* A name resolves to the innermost scope that binds it, as in Python. Each of several bindings is a possible value.
* Imports are followed into modules of the same code. The names of other packages remain `External` names.
* A value that the source does not determine is unknown: arguments, loop variables, attributes of ``self`` that a subclass may
  override, results of calls.

**Performance**

A chain of names is followed for at most twenty steps, and all chains of one expression for at most a thousand; the value beyond
that is unknown. A module is parsed when a name leads to it, and only once.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from structlog_audit.catalogue.scopes import READ_ERRORS, Binding, External, Imported, Module, Scope
from structlog_audit.catalogue.source_files import file_of_module

_MAX_DEPTH = 20
_MAX_STEPS = 1_000


class Codebase:
    """The modules of the inspected code, parsed on demand.

    Args:
        roots: The folders that imports may start in, besides the import root of the importing module.
        library: The package that is always `External`, even where it is part of the inspected code.
    """

    def __init__(self, roots: Sequence[str], library: str) -> None:
        self._roots = roots
        self._library = library
        self._modules: dict[str, Module | Exception] = {}
        self._steps_left = _MAX_STEPS

    def module_at(self, path: str) -> Module:
        """Return the module in the file at *path*, which is parsed once.

        Raises:
            READ_ERRORS: The file cannot be read or parsed.
        """
        if path not in self._modules:
            try:
                self._modules[path] = Module(path)
            except READ_ERRORS as error:
                self._modules[path] = error

        module = self._modules[path]
        if isinstance(module, Exception):
            raise module
        return module

    def _module_named(self, name: str, importing: Module) -> Module | None:
        """Return the module *name* as *importing* imports it.

        Returns None if the module is external or cannot be read.
        """
        is_library = name.partition(".")[0] == self._library
        if is_library or not name:
            return None
        path = file_of_module(name, [importing.import_root, *self._roots])
        if path is None:
            return None

        try:
            return self.module_at(path)
        except READ_ERRORS:
            # The catalogue reports the file if it is part of the inspected packages.
            return None

    def bindings(self, expr: ast.expr, scope: Scope, depth: int = 0) -> Iterator[Binding]:
        """Yield the bindings of the dotted name *expr* in *scope*.

        Nothing is yielded if *expr* is another expression, or if no scope binds the name.

        Args:
            expr: The name.
            scope: The scope that contains it.
            depth: How many steps of the same query led to this name.
        """
        self._steps_left -= 1
        if depth == 0:
            self._steps_left = _MAX_STEPS

        is_too_long = depth > _MAX_DEPTH or self._steps_left < 0
        if is_too_long:
            yield Binding(None, scope)
        elif isinstance(expr, ast.Name):
            yield from self._bindings_of_name(expr.id, scope, depth)
        elif isinstance(expr, ast.Attribute):
            yield from self._bindings_of_attribute(expr, scope, depth)

    def _bindings_of_name(self, name: str, scope: Scope, depth: int) -> Iterator[Binding]:
        inner: Scope | None = scope
        while inner is not None:
            # The names of a class body are invisible to the functions in it.
            is_visible = inner is scope or not isinstance(inner.node, ast.ClassDef)
            if is_visible and name in inner.names:
                for binding in inner.names[name]:
                    yield from self._follow_import(binding, depth)
                return
            inner = inner.parent

        yield from self._star_imported(scope.module.scope, name, depth)

    def _bindings_of_attribute(self, expr: ast.Attribute, scope: Scope, depth: int) -> Iterator[Binding]:
        name = expr.attr
        owner = None
        if isinstance(expr.value, ast.Name):
            owner = scope.class_of_receiver(expr.value.id)

        # An attribute of ``self`` is set by a method or in the class body.
        if owner is not None:
            yield from owner.instance_attributes.get(name, ())
            yield from self._members(owner, name, depth + 1)
            return

        for binding in self.bindings(expr.value, scope, depth + 1):
            yield from self._attributes(binding, name, depth + 1)

    def _star_imported(self, scope: Scope, name: str, depth: int) -> Iterator[Binding]:
        for module in scope.star_imports:
            imported = Imported(module, name)
            binding = Binding(imported, scope)
            yield from self._follow_import(binding, depth + 1)

    def _follow_import(self, binding: Binding, depth: int) -> Iterator[Binding]:
        """Yield *binding*, or the bindings that it imports."""
        if not isinstance(binding.value, Imported):
            yield binding
            return
        if depth > _MAX_DEPTH:
            yield Binding(None, binding.scope)
            return

        module_name, name = binding.value
        importing = binding.scope.module
        module = self._module_named(module_name, importing)

        if name is None:
            yield _module_binding(module, module_name, binding.scope)
        elif module is not None:
            yield from self._members(module.scope, name, depth + 1)
        else:
            # A namespace package has no file, but its modules have.
            full_name = f"{module_name}.{name}"
            submodule = self._module_named(full_name, importing)
            yield _module_binding(submodule, full_name, binding.scope)

    def _members(self, scope: Scope, name: str, depth: int) -> Iterator[Binding]:
        """Yield the bindings of the member *name* of a module or class.

        A class inherits members of its bases, a module has its submodules as members.
        """
        if depth > _MAX_DEPTH:
            yield Binding(None, scope)

        elif name in scope.names:
            for binding in scope.names[name]:
                yield from self._follow_import(binding, depth + 1)

        elif isinstance(scope.node, ast.ClassDef):
            yield from self._inherited(scope.node, scope, name, depth)
        else:
            yield from self._members_of_module(scope, name, depth)

    def _inherited(self, class_def: ast.ClassDef, scope: Scope, name: str, depth: int) -> Iterator[Binding]:
        enclosing = scope.parent or scope
        for base in class_def.bases:
            for binding in self.bindings(base, enclosing, depth + 1):
                yield from self._attributes(binding, name, depth + 1)

    def _members_of_module(self, scope: Scope, name: str, depth: int) -> Iterator[Binding]:
        """Yield the submodule *name*, or the bindings of *name* from ``import *``."""
        module = scope.module
        submodule = self._module_named(f"{module.name}.{name}", module)
        if submodule is not None:
            yield Binding(submodule.scope, scope)
        else:
            yield from self._star_imported(scope, name, depth + 1)

    def _attributes(self, binding: Binding, name: str, depth: int) -> Iterator[Binding]:
        """Yield the bindings of the attribute *name* of the value of *binding*."""
        value, scope = binding.value, binding.scope
        if isinstance(value, External):
            attribute = External(f"{value.name}.{name}")
            yield Binding(attribute, scope)

        elif isinstance(value, Scope):
            yield from self._members(value, name, depth)

        elif isinstance(value, ast.Name | ast.Attribute):
            for other in self.bindings(value, scope, depth):
                yield from self._attributes(other, name, depth + 1)


def _module_binding(module: Module | None, name: str, scope: Scope) -> Binding:
    """Return a binding to *module*, or to the external module *name* if it is None."""
    if module is None:
        return Binding(External(name), scope)
    return Binding(module.scope, scope)
