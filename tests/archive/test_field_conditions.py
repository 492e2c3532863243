"""The conditions of a command line over an archive: the answers of the files, from SQL that only narrows."""

from __future__ import annotations

import random
from itertools import islice

import pytest
from archive_cases import check_decisions, drawn_conditions
from archives import EVERYTHING, compacted, write_closed
from commands import GOLDEN
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from strategies import examples
from trail_files import ids, line_of, write_trail

from structlog_audit import open_trail
from structlog_audit.archive import open_archive, sql_engine
from structlog_audit.archive.dialects import DUCKDB, SPARK, where
from structlog_audit.cli.conditions import build_selection, split_words
from structlog_audit.events.conversion import UNKNOWN_STATUS
from structlog_audit.events.operation_classes import OperationClasses
from structlog_audit.query import filters

SCALARS = st.sampled_from(
    [1, 1.0, 2, -1, 0, True, False, None, "1", "2", "", "x", "xy", "é", "true", "[x]", "a\nb", "\\", '"', "'", 2**53, 2**60 + 1,
     1e300, 0.1]
)  # fmt: skip
KEYS = st.sampled_from(["a", "b", "a.b", "b.c", "é", "$", "0", "~", "/", "", "a.", '"'])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
events = st.fixed_dictionaries(
    {
        "operation": st.sampled_from(["STORE", "auth.login", "auth.logout", "x%"]),
        "status": st.sampled_from(["SUCCESS", "FAILURE"]),
    },
    optional={
        "user_id": st.sampled_from(["", "ann", "Ann", "bob", "é"]),
        "session_id": st.sampled_from(["s1", "s2"]),
        "entry_ids": st.lists(st.sampled_from(["e1", "e2", "", "é"]), max_size=3),
        "metadata": st.dictionaries(KEYS, VALUES, max_size=3),
        "error_message": st.sampled_from(["", "boom", "Boom\n2"]),
        "duration_ms": st.sampled_from([0.0, 1.5, 10.0, 1e9]),
        "kind": st.sampled_from(["gap", "trail"]),
    },
)  # fmt: skip


@settings(max_examples=examples(4), phases=[Phase.generate])
@given(
    drawn=st.lists(events, min_size=8, max_size=25),
    promoted=st.sampled_from([[], ["a"], ["a", "a.b", "/é"]]),
    chance=st.integers(0, 2**32).map(random.Random),
)
def test_sql_is_certain_only_where_python_decides_alike(tmp_path_factory, drawn, promoted, chance):
    """For all events and conditions: certain rows match, rows of neither sort do not, and no row is of both sorts."""
    folder = tmp_path_factory.mktemp("case")
    path = write_closed(folder / "logs", b"".join(line_of(number, **members) for number, members in enumerate(drawn)))
    compacted(path, folder / "archive", promote=promoted)
    # One query holds the 120 expressions of all conditions. DuckDB keeps a vector of 2,048 values for each of their parts.
    with open_archive(folder / "archive", memory_limit="2GB") as reader:
        check_decisions(reader, drawn_conditions(list(reader.select(EVERYTHING, newest_first=False)), chance, 60))


def answers(source, conditions):
    """Return every answer of *source* that SQL may give: events, count, statistics, those by user, and unknown statuses."""
    statistics = source._statistics_and_unknown_status(conditions)
    return (
        ids(source.select(conditions, newest_first=False)),
        ids(islice(source.select(conditions, newest_first=True, at_most=2), 2)),
        {**statistics, "avg_duration_ms": pytest.approx(statistics["avg_duration_ms"])},
        list(source._statistics_by_user(conditions).items()),
    )


@pytest.fixture(scope="module")
def archived(tmp_path_factory):
    """The file reader of the golden trail, and an archive of its beginning with the live trail."""
    folder = tmp_path_factory.mktemp("golden")
    lines = GOLDEN.read_bytes().splitlines(keepends=True)
    unknown = line_of(70, metadata={"status": "odd", "_audit": {"status": UNKNOWN_STATUS}})
    segments = [(100, b"".join(lines[:20])), (200, b"".join(lines[20:35]) + unknown), (300, b"".join(lines[35:40]))]
    path = write_trail(folder / "logs", *segments, active=b"".join(lines[40:]))
    compacted(path, folder / "archive", promote=["source"])
    with open_archive(folder / "archive", live=path, host="h1") as source:
        yield open_trail(path), source


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["operation~^[SR]"],
        ["operation!~^[SR]", "status!=SUCCESS"],
        ["operation_class=delete"],
        ["operation_class!=delete", "operation_class!=", "user_id!=ann"],
        ["operation_class=", "metadata.ok=true"],
        ["user_id=ann", "user_id~^b"],
        ["user_id!=ann"],
        ["user_id="],
        ["event_id~[02468]$"],
        ["entry_ids~^e1"],
        ["entry_ids!=e2"],
        ["entry_ids="],
        ["error_message~(?i)permission"],
        ["duration_ms>=3.5", "duration_ms<=2500"],
        ["duration_ms="],
        ["kind~."],
        ["metadata.source=api"],
        ["metadata.source!=api"],
        ["metadata.user.plan=pro"],
        ["metadata.tags=eu"],
        ["metadata.attempt>=1"],
        ["metadata.attempt!=2"],
        ["metadata.forced=true"],
        ["metadata.nested.step=2"],
        ["metadata.user~free"],
        ["metadata.naïve~^grü"],
        ["metadata.source="],
    ],
    ids=" ".join,
)
def test_command_line_over_an_archive_and_its_live_trail_has_the_answers_of_the_files(archived, words):
    """Events, counts, statistics and those by user, in their order, are those of the file reader."""
    files, source = archived
    conditions = build_selection(split_words(words)[1]).conditions
    assert answers(source, conditions) == answers(files, conditions)
    assert answers(files, conditions)[0]


@pytest.mark.parametrize(
    "word",
    [
        "user_id=\udcff",
        "user_id!=\udcff",
        "entry_ids=\udcff",
        "entry_ids!=\udcff",
        "metadata.source=\udcff",
        "metadata.source!=\udcff",
        "metadata.naïve!=\udcff",
        "metadata.\udcff=x",
        "user_id~\udcff",
    ],
    ids=ascii,
)
def test_word_that_is_not_utf_8_is_the_text_of_no_event(archived, word):
    """A command line may have any bytes, which no database takes: they are not taken for damage of the archive."""
    files, source = archived
    conditions = build_selection(split_words([word])[1]).conditions
    assert answers(source, conditions) == answers(files, conditions)


def test_pattern_with_too_many_values_is_left_to_python(archived, monkeypatch):
    """The memory of Python is bounded: beyond a number of distinct values, rows are searched one by one."""
    files, source = archived
    monkeypatch.setattr(sql_engine, "MOST_DISTINCT", 2)
    for word in (
        "user_id~^a",
        "metadata.source~^a",
        "metadata.naïve~^grü",
        "entry_ids~^e1",
        "user_id!~^a",
        "operation_class=read",
    ):
        conditions = build_selection(split_words([word])[1]).conditions
        assert answers(source, conditions) == answers(files, conditions)


@pytest.mark.parametrize("path", ['"', "a.?", "a?b"])
def test_member_that_spark_cannot_name_is_left_to_python(path):
    """Paths of variants have no escapes: no condition is made of an empty path."""
    conditions = build_selection(split_words([f"metadata.{path}=x"])[1]).conditions
    assert where(conditions, SPARK, {}, pytest.fail).certain == "false"


@pytest.mark.parametrize("dialect", [DUCKDB, SPARK], ids=["duckdb", "spark"])
@pytest.mark.parametrize("name", ["kind", "user_id", "entry_ids", "operation_class"])
def test_filter_of_no_value_leaves_nothing_to_ask(dialect, name):
    """No query is made: Spark would read ``WHERE (false)`` as an alias of the table, with a name for its column."""
    found = where(filters.conditions(**{name: []}), dialect, {}, pytest.fail)
    assert (found.certain, found.doubtful) == ("false", "false")


def test_hint_about_an_absent_class_counts_operations_in_sql(archived):
    """The classes that an archive names in place of an absent one are those of the files, with entries of a caller."""
    files, source = archived
    wanted = {"operation_class": ["configuration"]}
    for classes in (None, OperationClasses({"store": "export"})):
        hints = source._absent_values(filters.ORDINARY, wanted, classes)
        assert hints == files._absent_values(filters.ORDINARY, wanted, classes)
        assert hints[0].startswith("no event has operation_class 'configuration'; the most common: 'export'") is bool(
            classes
        )
