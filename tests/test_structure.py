"""The functions of the package are readable: their density has an upper limit."""

from __future__ import annotations

import ast
from pathlib import Path

import structlog_audit

SOURCE = Path(structlog_audit.__file__).parent

MOST_NODES_PER_LINE = 9
"""The limit on AST nodes per line, on average over all function bodies."""


def size_of(function):
    """Return the AST nodes and the lines of a function's body, without its docstring; (0, 0) if nothing else is in it."""
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    if not body:
        return 0, 0

    nodes = sum(1 for statement in body for _ in ast.walk(statement))
    lines = function.end_lineno - body[0].lineno + 1
    return nodes, lines


def sizes_in(source):
    """Return the sizes of all functions and methods in the text of a module, nested ones included."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [size_of(node) for node in ast.walk(ast.parse(source)) if isinstance(node, functions)]


def nodes_per_line(sources):
    """Return the AST nodes per line of the function bodies in *sources*, the texts of modules."""
    sizes = [size for source in sources for size in sizes_in(source)]
    nodes = sum(nodes for nodes, _ in sizes)
    lines = sum(lines for _, lines in sizes)
    return nodes / lines


def test_function_bodies_have_at_most_nine_nodes_per_line():
    """Blank lines, named steps and whole-line comments keep the average density low."""
    density = nodes_per_line(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
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
