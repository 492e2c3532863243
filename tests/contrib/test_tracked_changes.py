"""The differences of rows before and after a statement."""

from __future__ import annotations

import math
from array import array
from decimal import Decimal
from enum import Enum

import pytest

from structlog_audit.contrib.tracked_changes import ChangedRow, changed_rows, key_text, tracked_fields


class Vector(list):
    """Compares its elements one by one, as an array of numpy does."""

    def tolist(self):
        return list(self)

    def __eq__(self, other):
        raise ValueError("the truth value of an array is ambiguous")

    __ne__ = __eq__
    __hash__ = None


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
        (array("d", [1, 2]), array("d", [1, 2]), False),
        (array("d", [1, 2]), array("d", [1, 3]), True),
        (Vector([1, 2]), Vector([1, 2]), False),
        (Vector([1, 2]), Vector([1, 2, 3]), True),
        (Vector([1, 2]), None, True),
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


class Colour(Enum):
    RED = "r"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (7, "7"),
        ("a,b", "a,b"),
        (("a", 7), "a,7"),
        (("a,b", "c"), r"a\,b,c"),
        (("a", "b,c"), r"a,b\,c"),
        (("a\\", "b"), r"a\\,b"),
        (Colour.RED, "r"),
        (b"\x01\xff", "01ff"),
        (memoryview(b"\x01\xff"), "01ff"),
    ],
)
def test_key_is_one_text(key, text):
    """The parts of a key are separated by commas, which are escaped in a part; bytes are hexadecimal, Enums are values."""
    assert key_text(key) == text
