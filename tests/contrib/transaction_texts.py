"""Statements by which an application controls its transaction as text, and the changes that they keep."""

from __future__ import annotations

import pytest

all_texts = pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["SAVEPOINT mine", "a", "ROLLBACK TO mine", "b"], ["before", "b"]),
        (["SAVEPOINT mine", "a", "RELEASE mine", "b"], ["before", "a", "b"]),
        (["ROLLBACK", "BEGIN", "a"], ["a"]),
        (["COMMIT", "BEGIN", "a"], ["before", "a"]),
        (["COMMIT", "BEGIN", "a", "ROLLBACK", "BEGIN"], ["before"]),
    ],
)
"""Marks a test for all of them: the statements after a row named ``before``, and the names of the rows that are kept."""


def run_all(statements, execute, create):
    """Create the row ``before``; then *execute* each statement, and *create* a row for each name, which is a small letter."""
    create("before")
    for statement in statements:
        (create if statement.islower() else execute)(statement)
