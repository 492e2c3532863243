"""The differences of rows before and after a statement."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest

from structlog_audit.contrib.tracked_changes import ChangedRow, changed_rows, key_text, tracked_fields


@pytest.mark.parametrize(
    ("old", "new", "is_changed"),
    [
        (1, 1, False),
        (1, 2, True),
        (None, "", True),
        (Decimal("1.0"), Decimal("1.00"), False),
        (1, True, True),
        ({"a": 1}, {"a": True}, True),
        ([1], [1], False),
        (math.nan, math.nan, False),
        (1.0, math.nan, True),
        (math.nan, 1.0, True),
    ],
)
def test_row_is_changed_if_a_value_differs_in_the_database(old, new, is_changed):
    """Values that are equal in Python alone differ, and NaN, which differs from itself there, does not."""
    assert bool(list(changed_rows({1: {"x": old}}, {1: {"x": new}}))) is is_changed


def test_rows_of_one_side_only_were_created_or_deleted():
    """A row that is new was created, one that is gone deleted, and one that moved is the same row."""
    before = {1: {"x": 1}, 2: {"x": 2}, 3: {"x": 3}}
    after = {2: {"x": 2}, 5: {"x": 3}, 4: {"x": 4}}

    found = list(changed_rows(before, after, {3: 5}))

    assert found == [
        ChangedRow(1, None, {"x": 1}, None),
        ChangedRow(3, 5, {"x": 3}, {"x": 3}),
        ChangedRow(None, 4, None, {"x": 4}),
    ]
    assert [row.verb for row in found] == ["delete", "update", "create"]
    assert [row.keys for row in found] == [[1], [3, 5], [4]]


def test_changes_are_those_of_fields_that_differ_and_masked_ones_show_no_value():
    """A masked value is replaced, except null, which is not one."""
    fields = tracked_fields("track(X)", ["a", "b", "c"], None, [], ["b", "c"])
    row = ChangedRow(1, 1, {"a": 1, "b": 2, "c": None}, {"a": 1, "b": 3, "c": 4})
    assert row.changes(fields) == {
        "b": {"before": "[redacted]", "after": "[redacted]"},
        "c": {"before": None, "after": "[redacted]"},
    }


def test_key_of_several_columns_is_one_text():
    """The parts of a key are separated by commas."""
    assert (key_text(7), key_text("a"), key_text(("a", 7))) == ("7", "a", "a,7")
