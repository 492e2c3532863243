"""The functions of the package are readable: their density has an upper limit."""

from __future__ import annotations

import ast
from pathlib import Path

import structlog_audit

SOURCE = Path(structlog_audit.__file__).parent

MOST_NODES_PER_LINE = 9
"""The limit on AST nodes per line, on average over all function bodies."""


def size_of(function):
    """Return the AST nodes and the lines of a function's body.

    The docstring does not count. A body without anything else has size (0, 0).
    """
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    if not body:
        return 0, 0

    nodes = sum(1 for statement in body for _ in ast.walk(statement))
    lines = function.end_lineno - body[0].lineno + 1
    return nodes, lines


def sizes_in(source):
    """Return the sizes of all functions in a module, nested ones included."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    tree = ast.parse(source)
    return [size_of(node) for node in ast.walk(tree) if isinstance(node, functions)]


def nodes_per_line(sources):
    """Return the AST nodes per line of all function bodies in *sources*."""
    all_nodes = 0
    all_lines = 0
    for source in sources:
        for nodes, lines in sizes_in(source):
            all_nodes += nodes
            all_lines += lines
    return all_nodes / all_lines


def test_function_bodies_have_at_most_nine_nodes_per_line():
    """Blank lines, named steps and whole-line comments keep the average density low."""
    modules = SOURCE.rglob("*.py")
    density = nodes_per_line(path.read_text(encoding="utf-8") for path in modules)
    assert density <= MOST_NODES_PER_LINE, f"{density:.2f} AST nodes per line of function body"


def test_docstring_counts_neither_as_nodes_nor_as_lines():
    """The size of a body begins with the first statement after the docstring."""
    documented = 'def f():\n    """One.\n\n    Two.\n    """\n    # why\n\n    return\n'
    plain = "def f():\n    return\n"
    empty = 'def f():\n    """Only this."""\n'
    assert sizes_in(documented) == [(1, 1)]
    assert sizes_in(plain) == [(1, 1)]
    assert sizes_in(empty) == [(0, 0)]


def test_blank_lines_and_comments_within_a_body_count_as_lines():
    """A body of two statements with a blank line and a comment between them has four lines."""
    assert sizes_in("def f():\n    pass\n\n    # why\n    pass\n") == [(2, 4)]


def test_nested_functions_count_as_part_of_the_outer_one_and_alone():
    """A nested function counts in both bodies."""
    outer, inner = sizes_in("def f():\n    def g():\n        return\n")
    assert inner == (1, 1)
    assert outer[1] == 2
    assert outer[0] > inner[0]
