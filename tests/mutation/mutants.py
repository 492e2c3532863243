"""The mutants of a module: copies of its source with one small change each.

Most operators are those of mutmut, with its rules for what is never changed (annotations, for one). They apply to the whole
module here, tables and decorated functions included, which mutmut itself leaves alone. Three operators are added: a statement
is removed, a condition is negated, and a function returns None.

Texts within a ``raise`` statement are not changed: they are sentences for people, which tests do not repeat. Nor are
declarations of type variables, which only type checkers read.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libcst as cst
from libcst import matchers
from libcst.metadata import MetadataWrapper
from mutmut.mutation.file_mutation import MutationVisitor, deep_replace
from mutmut.mutation.mutators import mutation_operators
from mutmut.mutation.pragma_handling import IgnoredCode


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes:
        module: The path of the module, relative to the package.
        number: The position among all mutants of the module, from 0.
        tree: The module's syntax tree.
        before: The node that is replaced.
        after: The node that replaces it.
    """

    module: str
    number: int
    tree: cst.Module
    before: cst.CSTNode
    after: cst.CSTNode

    @property
    def name(self) -> str:
        """The module and the number, by which the command line finds the mutant again."""
        return f"{self.module}#{self.number}"

    def source(self) -> str:
        """Return the source of the changed module."""
        changed = deep_replace(self.tree, self.before, self.after)
        return changed.code  # type: ignore[union-attr,no-any-return]

    def description(self) -> str:
        """Return the line number and the changed lines, those before with ``-`` and those after with ``+``."""
        before, after = self.tree.code.splitlines(), self.source().splitlines()
        diff = list(difflib.unified_diff(before, after, n=0, lineterm=""))[2:]
        line = diff[0].split()[1].lstrip("-").split(",")[0]
        return f"line {line}:  " + "  ".join(text[0] + " " + text[1:].strip() for text in diff[1:])


def _without_statement(node: cst.Expr | cst.Raise) -> Iterator[cst.CSTNode]:
    if isinstance(node, cst.Raise) or isinstance(node.value, (cst.Call, cst.Await)):
        yield cst.Pass()


def _with_negated_condition(node: cst.If | cst.While) -> Iterator[cst.CSTNode]:
    condition = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    yield node.with_changes(test=cst.UnaryOperation(cst.Not(), condition))


def _returning_none(node: cst.Return) -> Iterator[cst.CSTNode]:
    if node.value is not None and not matchers.matches(node.value, matchers.Name("None")):
        yield node.with_changes(value=cst.Name("None"))


_OPERATORS: list[tuple[type, Callable[[Any], Iterable[cst.CSTNode]]]] = [
    *mutation_operators,
    (cst.Expr, _without_statement),
    (cst.Raise, _without_statement),
    (cst.If, _with_negated_condition),
    (cst.While, _with_negated_condition),
    (cst.Return, _returning_none),
]


def mutants_of(package: Path, module: str) -> list[Mutant]:
    """Return the mutants of a *module*, whose path is relative to the *package*."""
    source = (package / module).read_text(encoding="utf-8")
    wrapper = MetadataWrapper(cst.parse_module(source))
    visitor = MutationVisitor(_OPERATORS, IgnoredCode(set(), set(), set()))
    wrapper.visit(visitor)

    tree = wrapper.module
    left_out = {id(node) for node in _left_out(tree)}
    changes = [change for change in visitor.mutations if id(change.original_node) not in left_out]
    return [
        Mutant(module, number, tree, change.original_node, change.mutated_node) for number, change in enumerate(changes)
    ]


def _left_out(tree: cst.Module) -> Iterator[cst.CSTNode]:
    """Yield the nodes of *tree* that stay as they are: sentences of errors, and declarations of type variables."""
    for raised in matchers.findall(tree, matchers.Raise()):
        yield from matchers.findall(raised, matchers.SimpleString())

    for declaration in matchers.findall(tree, matchers.Assign(value=matchers.Call(func=matchers.Name("TypeVar")))):
        yield from _nodes_in(declaration)


def _nodes_in(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    yield node
    for child in node.children:
        yield from _nodes_in(child)
