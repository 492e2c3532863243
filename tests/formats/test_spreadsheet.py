"""Tests of `structlog_audit.formats.spreadsheet`: CSV tables for spreadsheets and programs."""

import csv
import datetime as dt
import io
import json
import re

import pytest
import strategies as s
from hypothesis import example, given, settings
from hypothesis import strategies as st

from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import AuditEvent, EventStatus, Kind, Operation, OperationType
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.export import export
from structlog_audit.formats.spreadsheet import COLUMNS, MAX_CELL_CHARACTERS, safe_cell, table

NOW = dt.datetime(2025, 1, 15, 10, 30, 45, tzinfo=dt.UTC)
SIGNS = "=+-@＝＋－＠﹦﹢﹣﹫"
IGNORED = " \xa0\u3000\u200b\ufeff\x00\x0b\x85\u2028\"'"


def event(**members):
    """Return an event with defaults for all *members* that are not given."""
    return AuditEvent(**{"event_id": "evt_1", "timestamp": NOW, "operation": OperationType.STORE, **members})


def text_of(*events, **options):
    """Return the text of a table."""
    return b"".join(table([events], **options)).decode()


def rows(text):
    """Return the rows of a CSV text as dictionaries."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def row_of(**members):
    """Return the only row of the table of an event with these *members*."""
    (row,) = rows(text_of(event(**members)))
    return row


def is_formula(cell):
    """Return whether a spreadsheet may evaluate *cell*: a sign follows what an import ignores at the start of a cell."""
    return cell.lstrip(IGNORED.replace("'", "") + "\t\r\n")[:1] in tuple(SIGNS)


def unquoted_cells(text, separator):
    """Return the cells of a program that splits every line at *separator* and gives quotes no meaning."""
    return re.split(f"[{separator}\r\n]", text)


# --- formulas --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("before", ["", *IGNORED.replace("'", ""), "\t", "\r\n", " \t\ufeff"])
@pytest.mark.parametrize("member", ["user_id", "session_id", "error_message", "operation", "event_id", "kind"])
def test_text_that_starts_a_formula_gets_an_apostrophe(member, before, sign):
    """A text that a spreadsheet would run as a formula begins with an apostrophe, whatever the sign and the space before it."""
    text = f"{before}{sign}cmd|' /C calc'!A0"
    cell = row_of(**{member: Operation(text) if member == "operation" else text})[member]
    assert cell.startswith("'")
    assert cell.replace("'", "") == text.replace("'", "")


@pytest.mark.parametrize("separator", [";", "\t", "\n", "\r"])
@pytest.mark.parametrize("before", ["", " ", '"', ' "', "\u3000"])
def test_cell_that_another_locale_splits_contains_no_formula(separator, before):
    """A formula sign after a semicolon, tab or line break gets an apostrophe, because some locales begin a cell there."""
    one = event(user_id=f"x{separator}{before}=1+1{separator}y", metadata={"k": f"x;{before}=1+1;y"})
    assert not any(map(is_formula, unquoted_cells(text_of(one), separator)))


@given(st.lists(s.texts | st.text(f";\t\n\r,'\"a {SIGNS}{IGNORED}"), min_size=3, max_size=3), s.metadata)
@settings(max_examples=200, deadline=None)
def test_no_text_makes_a_formula_in_any_locale(texts, metadata):
    """For all texts, no cell is a formula, whether lines are split at commas, semicolons or tabs."""
    user, error, value = texts
    text = text_of(event(user_id=user, error_message=error, metadata={**metadata, "value": value}))
    assert not any(is_formula(cell) for row in csv.reader(io.StringIO(text, newline="")) for cell in row)
    assert not any(map(is_formula, unquoted_cells(text, ";")))
    assert not any(map(is_formula, unquoted_cells(text, "\t")))


@given(s.texts | st.text(f";\t\n,'\" a{SIGNS}"), s.texts | st.text(f";\t\n,'\" a{SIGNS}"))
@example("=1", "'=1")
@example(";=1", ";'=1")
@settings(max_examples=300)
def test_different_texts_have_different_cells(first, second):
    """For all texts, a cell belongs to one text only, so that removing apostrophes can restore it."""
    assert (safe_cell(first) == safe_cell(second)) is (first == second)


@given(s.metadata, st.lists(st.text(f";\"' a{SIGNS}")))
@settings(max_examples=100)
def test_json_in_cells_keeps_its_value(metadata, entry_ids):
    """For all metadata and entry ids, the JSON in their cells has the same value: a sign becomes its escape."""
    row = row_of(metadata=metadata, entry_ids=entry_ids)
    assert json.loads(row["metadata"] or "{}") == metadata
    assert json.loads(row["entry_ids"] or "[]") == entry_ids


@pytest.mark.parametrize("text", ["a-b", "ann@example.org", "x = 1", "a,-1", "1=1", ""])
def test_ordinary_text_is_unchanged(text):
    """A sign elsewhere in a text gets no apostrophe."""
    assert safe_cell(text) == text


def test_negative_duration_stays_a_number():
    """A negative number gets no apostrophe."""
    assert row_of(duration_ms=-1.5)["duration_ms"] == "-1.5"


def test_long_run_of_separators_takes_linear_time():
    """Text of separators and spaces only is processed in one pass."""
    assert safe_cell(";\t \n" * 250_000 + "=") == ";\t \n" * 250_000 + "'="


# --- text and raw ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["00123", "12345678901234567890", "1e5", "3-4", "TRUE", "ann", "=1"])
def test_cells_text_puts_one_apostrophe_before_every_text(text):
    """With cells="text", every text of the application begins with one apostrophe, so none becomes a number or date."""
    (row,) = rows(text_of(event(event_id="7", user_id=text, duration_ms=1.5), cells="text"))
    assert row["user_id"] == f"'{text}"
    assert (row["event_id"], row["operation"], row["session_id"]) == ("'7", "'STORE", "")
    assert (row["timestamp"], row["status"], row["duration_ms"]) == ("2025-01-15T10:30:45.000000Z", "SUCCESS", "1.5")


def test_cells_text_keeps_all_digits_of_long_integers():
    """With cells="text", an integer of more digits than a spreadsheet keeps is text."""
    one = event(metadata={"small": 10**15 - 1, "long": -(10**15)})
    (row,) = rows(text_of(one, columns=["metadata.small", "metadata.long"], cells="text"))
    assert row == {"metadata.small": "999999999999999", "metadata.long": "'-1000000000000000"}


@given(s.texts, s.metadata)
@settings(max_examples=100)
def test_cells_raw_are_unchanged(text, metadata):
    """For all texts, cells="raw" leaves them as they are."""
    (row,) = rows(text_of(event(user_id=text, metadata=metadata), cells="raw"))
    assert row["user_id"] == text
    assert json.loads(row["metadata"] or "{}") == metadata


def test_unknown_form_of_cells_is_an_error(tmp_path):
    """An unknown form of cells raises an error that lists the known ones, and nothing is written."""
    with pytest.raises(AuditValueError, match="cells='quoted': expected one of safe, text, raw"):
        export([], tmp_path / "a" / "out.csv", cells="quoted", now=NOW)
    assert list(tmp_path.iterdir()) == []


# --- long cells ------------------------------------------------------------------------------------------------------


def units(cell):
    """Return the number of UTF-16 code units of *cell*."""
    return len(cell.encode("utf-16-le")) // 2


@pytest.mark.parametrize(
    "text", ["é" * 100_000, "😀" * 40_000, "=" * 70_000, "a;=" * 30_000, " -x\n" * 20_000, '"' * 40_000]
)
@pytest.mark.parametrize("cells", ["safe", "text", "raw"])
def test_long_cell_continues_in_rows_of_kind_part(text, cells):
    """A cell beyond the limit of spreadsheets continues in rows of kind part, and the joined cells are the whole text."""
    ids = [f"entry_{number:06d}" for number in range(10_000)]
    first, *parts = rows(text_of(event(error_message=text, entry_ids=ids, user_id="ann"), cells=cells))
    assert parts
    assert (first["kind"], first["user_id"].strip("'")) == ("", "ann")
    assert {(part["event_id"], part["kind"], part["user_id"], part["timestamp"]) for part in parts} == {
        (first["event_id"], "part", "", "")
    }
    assert all(units(cell) <= 32_767 for row in [first, *parts] for cell in row.values())
    assert json.loads("".join(row["entry_ids"] for row in [first, *parts])) == ids
    joined = "".join(row["error_message"] for row in [first, *parts])
    assert joined.replace("'", "") == text
    assert joined == text or cells != "raw"
    assert cells == "raw" or not any(is_formula(cell) for row in [first, *parts] for cell in row.values())


def test_long_event_id_is_split_and_not_repeated():
    """An event id beyond the limit, which a file of another program may have, continues in the rows below, too."""
    found = rows(text_of(event(event_id="e" * 70_000)))
    assert "".join(row["event_id"] for row in found) == "e" * 70_000
    assert [row["kind"] for row in found] == ["", "part", "part"]


def test_cell_of_the_limit_is_in_one_row():
    """A cell of exactly the limit needs no further row."""
    (row,) = rows(text_of(event(error_message="x" * MAX_CELL_CHARACTERS)))
    assert row["error_message"] == "x" * MAX_CELL_CHARACTERS


def test_long_cell_without_the_columns_of_parts_is_an_error(tmp_path):
    """If a row of kind part could not be recognised, the export fails and leaves no file."""
    with pytest.raises(AuditValueError, match=r"a cell of 40000 characters .* add event_id and kind"):
        export([event(error_message="x" * 40_000)], tmp_path / "a.csv", columns=["error_message", "kind"], now=NOW)
    assert list(tmp_path.iterdir()) == []


# --- columns ---------------------------------------------------------------------------------------------------------


def test_columns_select_members_and_values_in_the_metadata():
    """Columns are in the given order; a value in the metadata is found at any depth, and a key may contain dots."""
    metadata = {
        "ip": "203.0.113.7",
        "request": {"id": 5, "ok": True, "tags": ["a"]},
        "a.b": "dotted",
        "a": {"c.d": 1.5},
    }
    columns = ["user_id", "metadata.request.id", "metadata.ip", "metadata.a.b", "metadata.a.c.d", "metadata.request.ok"]
    text = text_of(
        event(user_id="ann", metadata=metadata), columns=[*columns, "metadata.request.tags", "metadata.none"]
    )
    assert text == (
        f'{",".join(columns)},metadata.request.tags,metadata.none\r\nann,5,203.0.113.7,dotted,1.5,true,"[""a""]",\r\n'
    )


def test_text_in_a_metadata_column_is_safe():
    """A text in a column of the metadata, and the name of the column, start no formula."""
    text = text_of(event(metadata={"x;=1": "=1", "n": -1}), columns=["metadata.x;=1", "metadata.n"])
    assert text == "metadata.x;'=1,metadata.n\r\n'=1,-1\r\n"


@pytest.mark.parametrize("make", s.HOSTILE)
def test_hostile_value_in_a_metadata_column_is_exported(make):
    """A value of an application's class in a column of the metadata is exported as its JSON."""
    first, *parts = rows(text_of(event(metadata={"k": make()}), columns=["event_id", "kind", "metadata.k"]))
    assert (first["event_id"], first["kind"]) == ("evt_1", "")
    assert all(part["kind"] == "part" for part in parts)


def test_lone_surrogate_is_exported_as_its_escape():
    """A text that UTF-8 cannot encode is exported with an escape."""
    assert row_of(user_id="a\ud800")["user_id"] == r"a\ud800"


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ("user_id", AuditTypeError, "columns='user_id': expected a list of names"),
        (7, AuditTypeError, "columns=7: expected a list of names"),
        ([], AuditValueError, "expected at least one name"),
        (["user"], AuditValueError, "or metadata.KEY, got 'user'"),
        ([7], AuditValueError, "or metadata.KEY, got 7"),
        (["kind", "kind"], AuditValueError, "got 'kind' twice"),
    ],
)
def test_invalid_columns_are_an_error(tmp_path, columns, error, message):
    """Invalid columns raise an error that names them, and nothing is written."""
    with pytest.raises(error) as caught:
        export([], tmp_path / "a" / "out.csv", columns=columns, now=NOW)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("options", [{"columns": ["user_id"]}, {"cells": "raw"}])
def test_columns_of_a_format_without_columns_are_an_error(tmp_path, options):
    """Columns and forms of cells are refused for every format but csv."""
    with pytest.raises(AuditValueError, match="expected the format csv, got 'jsonl'"):
        export([], tmp_path / "out.jsonl", now=NOW, **options)


def test_columns_are_all_members_by_default():
    """Without a selection, the table has all members."""
    assert text_of() == ",".join(COLUMNS) + "\r\n"


# --- many events at once ---------------------------------------------------------------------------------------------

cell_texts = st.one_of(
    st.sampled_from(
        ["", "ann", "user_1", "a,b", 'a"b', "=1+1", "-1", " x", "a\nb", "a\r\n", "x;=1", "é", "a.b:c/d@e+f-g", "\x7f"]
    ),
    s.texts,
)
stored_events = st.builds(
    lambda **members: StoredEvent(**members),
    event_id=cell_texts,
    timestamp=st.datetimes(timezones=st.just(dt.UTC)) | st.just(NOW),
    operation=st.sampled_from(["STORE", "store", "user.delete", "=1"]) | cell_texts,
    user_id=st.none() | cell_texts,
    session_id=st.none() | cell_texts,
    entry_ids=st.lists(cell_texts, max_size=3),
    metadata=s.usual_metadata,
    status=st.sampled_from(EventStatus),
    error_message=st.none() | cell_texts,
    duration_ms=st.none()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 1e-5, 1e16, 0.5]),
    kind=st.sampled_from([None, *(kind.value for kind in Kind)]),
)
some_columns = st.sampled_from(
    [COLUMNS, ("event_id",), ("kind", "user_id"), ("metadata.a", "metadata", "duration_ms"), COLUMNS[::-1]]
)


@given(st.lists(stored_events, max_size=8), some_columns, st.sampled_from(["safe", "text", "raw"]))
@settings(max_examples=s.examples(150))
def test_table_of_stored_events_is_that_of_the_events_one_by_one(stored, columns, cells):
    """For all events, columns and forms of cells, making many rows at once gives the rows that the csv module writes."""
    at_once = text_of(*stored, columns=columns, cells=cells)
    assert at_once == text_of(*(one.event() for one in stored), columns=columns, cells=cells)


@pytest.mark.parametrize("length", [MAX_CELL_CHARACTERS // 2, MAX_CELL_CHARACTERS, 3 * MAX_CELL_CHARACTERS])
def test_long_cell_of_a_stored_event_continues_in_parts(length):
    """A list with an event whose cell is long has the rows of the events one by one."""
    long, short = (StoredEvent("evt_1", NOW, "STORE", error_message="x" * size) for size in (length, 1))
    assert text_of(short, long, short) == text_of(short.event(), long.event(), short.event())


@pytest.mark.parametrize("columns", [COLUMNS, ("metadata",), ("metadata.m", "kind")])
@pytest.mark.parametrize("text", ["x", ";=1"])
def test_long_integer_of_a_stored_event_keeps_its_digits(columns, text):
    """An integer of a foreign line, of any length, has all its digits in the table, whatever else is in the list."""
    stored = StoredEvent("evt_1", NOW, "STORE", metadata={"m": [2**70], "text": text})
    assert str(2**70) in text_of(stored, columns=columns)
