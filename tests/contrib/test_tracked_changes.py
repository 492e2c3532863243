"""The differences of rows before and after a statement."""

from __future__ import annotations

import math
from array import array
from decimal import Decimal
from enum import Enum

import pytest

from structlog_audit import AuditTypeError, AuditValueError
from structlog_audit.contrib.tracked_changes import (
    ChangedRow,
    Savepoints,
    call_all,
    changed_rows,
    commits_first,
    control_of,
    key_of,
    key_text,
    outcome_of_error,
    parts_of,
    tracked_fields,
)


class Vector:
    """Compares its elements one by one, as an array of numpy does."""

    def __init__(self, elements):
        self.elements = elements

    def tolist(self):
        return list(self.elements)

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
        (((1, 2),), "1,2"),
        (b"\x01\xff", "01ff"),
        (memoryview(b"\x01\xff"), "01ff"),
    ],
)
def test_key_is_one_text(key, text):
    """The parts of a key are separated by commas, which are escaped in a part; bytes are hexadecimal, Enums are values."""
    assert key_text(key) == text


@pytest.mark.parametrize(
    ("sql", "commits"),
    [
        ("CREATE TABLE t (id INTEGER)", True),
        ("  create or replace table t (id INTEGER)", True),
        ("/* why */ -- and\n# so\nDROP TABLE t", True),
        ("TRUNCATE t", True),
        ("LOCK TABLES t READ", True),
        ("START TRANSACTION", True),
        ("SET PASSWORD = ''", True),
        ("CREATE TEMPORARY TABLE t (id INTEGER)", False),
        ("CREATE OR REPLACE TEMPORARY TABLE t (id INTEGER)", False),
        ("DROP TEMPORARY TABLE t", False),
        ("SET NAMES utf8mb4", False),
        ("ANALYZE SELECT 1", False),
        ("INSERT INTO t VALUES ('CREATE TABLE')", False),
        ("SELECT created FROM t", False),
        ("CREATED", False),
    ],
)
def test_statement_that_commits_first_is_recognized(sql, commits):
    """MariaDB and MySQL commit before definitions and some others, comments and spaces apart; other databases do not."""
    assert commits_first("mysql", sql) is commits_first("mariadb", sql) is commits
    assert not commits_first("postgresql", sql)


@pytest.mark.parametrize(
    ("sql", "control"),
    [
        ("COMMIT", ("commit", "")),
        ("commit work;", ("commit", "")),
        ("COMMIT AND CHAIN", ("commit", "")),
        ("/* why */ END TRANSACTION", ("commit", "")),
        ("COMMIT PREPARED 'a'", ("", "")),
        ("ROLLBACK", ("rollback", "")),
        ("ROLLBACK TRANSACTION;", ("rollback", "")),
        ("ABORT", ("rollback", "")),
        ("ROLLBACK AND CHAIN", ("rollback", "")),
        ("ROLLBACK PREPARED 'a'", ("", "")),
        ("ROLLBACK TO a", ("rollback to", "a")),
        ("rollback work to savepoint A;", ("rollback to", "a")),
        ("ROLLBACK TRANSACTION a", ("rollback to", "a")),
        ('ROLLBACK TO SAVEPOINT "a"', ("rollback to", "a")),
        ("SAVEPOINT `a`", ("savepoint", "a")),
        ("SAVE TRANSACTION a", ("savepoint", "a")),
        ("RELEASE a", ("release", "a")),
        ("RELEASE SAVEPOINT a", ("release", "a")),
        ("INSERT INTO t VALUES ('COMMIT')", ("", "")),
        ("COMMITTED", ("", "")),
        ("SELECT 1", ("", "")),
    ],
)
def test_statement_that_ends_a_transaction_or_a_part_of_it_is_recognized(sql, control):
    """Each database has words of its own; the ends of prepared transactions are not those of this one."""
    assert control_of(sql) == control


@pytest.mark.parametrize(
    ("statements", "kept"),
    [
        (["SAVEPOINT a", "ROLLBACK TO a"], 1),
        (["SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO a"], 1),
        (["SAVEPOINT a", "SAVEPOINT b", "ROLLBACK TO b"], 2),
        (["SAVEPOINT a", "ROLLBACK TO a", "ROLLBACK TO a"], 1),
        (["SAVEPOINT a", "SAVEPOINT a", "ROLLBACK TO a"], 2),
        (["SAVEPOINT a", "SAVEPOINT a", "RELEASE a", "ROLLBACK TO a"], 1),
        (["SAVEPOINT a", "SAVEPOINT b", "RELEASE b", "ROLLBACK TO a"], 1),
        (["SAVEPOINT a", "SAVEPOINT b", "RELEASE a"], 3),
        (["SAVEPOINT a", "ROLLBACK TO earlier"], 0),
        (["SAVEPOINT a", "RELEASE earlier"], 2),
        (["SAVEPOINT a", "ROLLBACK"], 0),
    ],
)
def test_rollback_to_a_savepoint_keeps_the_changes_before_it(statements, kept):
    """Of several savepoints with one name the newest counts, and one that is not known began before the first change."""
    savepoints = Savepoints()
    found = [savepoints.follow(*control_of(sql), count) for count, sql in enumerate(statements, 1)]
    assert found[-1] == kept


def test_savepoint_before_the_first_change_is_that_of_a_new_transaction():
    """What is left from a transaction that ended without a statement does not count."""
    savepoints = Savepoints()
    savepoints.follow("savepoint", "a", 5)
    savepoints.follow("savepoint", "b", 0)
    assert savepoints.follow("rollback to", "a", 7) == 0


def test_function_that_fails_does_not_keep_the_others_from_being_called():
    """The first error is raised when all were called."""
    called = []
    with pytest.raises(ZeroDivisionError):
        call_all([lambda: called.append(1), lambda: 1 / 0, lambda: {}["a"], lambda: called.append(2)])
    assert called == [1, 2]


class DriverError(Exception):
    """An error of a driver, with the code of a server, or without one."""

    def __init__(self, *args, **codes):
        super().__init__(*args)
        vars(self).update(codes)


@pytest.mark.parametrize(
    ("database", "error", "outcome"),
    [
        ("postgresql", DriverError(sqlstate="23505"), "failed"),
        ("postgresql", DriverError(pgcode="23505"), "failed"),
        ("postgresql", DriverError(sqlstate=None), "kept"),
        ("mysql", DriverError(1213, "Deadlock"), "rolled back"),
        ("mariadb", DriverError(1213, "Deadlock"), "rolled back"),
        ("mysql", DriverError(1205, "Lock wait timeout"), "kept"),
        ("mysql", DriverError(), "kept"),
        ("sqlite", DriverError(1213, sqlstate="23505"), "kept"),
    ],
)
def test_error_states_what_becomes_of_the_transaction(database, error, outcome):
    """PostgreSQL fails the transaction for each error of the server, MariaDB and MySQL roll it back for a deadlock."""
    assert outcome_of_error(database, error) == outcome


@pytest.mark.parametrize(("key", "parts"), [([7], (7,)), (["a", 7], ("a", 7)), ([(1, 2)], ((1, 2),))])
def test_key_has_the_parts_of_which_it_was_made(key, parts):
    """Also if the value of the only column is a tuple."""
    assert parts_of(key_of(key)) == parts


@pytest.mark.parametrize("choice", [{"fields": ["name"], "exclude": []}, {"fields": None, "exclude": ["pin"]}])
def test_mask_of_a_field_that_is_not_recorded_is_refused(choice):
    """It would promise that the changes of the field are recorded."""
    with pytest.raises(AuditValueError, match=r"^where: expected mask= to name recorded fields, got pin, not recorded"):
        tracked_fields("where", ["name", "pin"], mask=["name", "pin"], **choice)


@pytest.mark.parametrize("parameter", ["fields", "exclude", "mask"])
def test_choice_that_is_not_a_list_is_named(parameter):
    """The error names the parameter with its value."""
    choice = {"fields": None, "exclude": [], "mask": []} | {parameter: "pin"}
    with pytest.raises(AuditTypeError, match=f"^where: {parameter}='pin': expected a list of names of fields$"):
        tracked_fields("where", ["pin"], **choice)
