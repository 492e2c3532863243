"""The conditions of a command line over an archive: the answers of the files, from SQL that only narrows."""

from __future__ import annotations


import pytest
from archives import compacted, write_closed
from hypothesis import given, settings
from hypothesis import strategies as st
from trail_files import ids, line_of

from structlog_audit import open_trail
from structlog_audit.archive import open_archive
from structlog_audit.cli.conditions import build_selection, split_words

SCALARS = st.sampled_from(
    [1, 1.0, 2, -1, 0, True, False, None, "1", "2", "", "x", "xy", "é", "true", "[x]", "a\nb", "\\", '"', "'", 2**53, 2**60 + 1,
     1e300, 0.1]
)  # fmt: skip
KEYS = st.sampled_from(["a", "b", "a.b", "b.c", "é", "$", "0", "~", "/", "", "a.", '"'])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
events = st.fixed_dictionaries(
    {"operation": st.sampled_from(["STORE", "auth.login", "auth.logout", "x%"]), "status": st.sampled_from(["SUCCESS", "FAILURE"])},
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

PATHS = ["a", "b", "a.b", "b.c", "a.b.c", "a.b.a.b", "é", "$", "0", "a.0", "~", "/", '"', "a.", "none", "a.b.a.b.a"]
NAMES = ["event_id", "operation", "user_id", "session_id", "status", "error_message", "kind", "entry_ids"]
TEXTS = ["", "1", "2", "1.0", "x", "xy", "é", "true", "false", "null", "ann", "Ann", "e1", "s1", "STORE", "[x]", '{"a":1}', "boom",
         "a\nb", "\\", "9007199254740992", "1152921504606846977", "1e300", "trail"]  # fmt: skip
PATTERNS = ["^a", "n$", ".", "^$", r"\d", r"(?i)boom", "^auth", "e1|é", "x(?=y)", "true", "[", r"\\"]


def words():
    """Return a strategy for one condition."""
    field = st.sampled_from([*NAMES, *(f"metadata.{path}" for path in PATHS)])
    compared = st.tuples(field, st.sampled_from(["=", "!="]), st.sampled_from(TEXTS))
    searched = st.tuples(field, st.sampled_from(["~", "!~"]), st.sampled_from(PATTERNS))
    numbers = st.sampled_from(["0", "1", "1.5", "2", "1e9", "9007199254740992", "-inf"])
    measured = st.sampled_from(["duration_ms", "metadata.a", "metadata.b", "metadata.a.b"])
    bounded = st.tuples(measured, st.sampled_from([">=", "<=", "=", "!="]), numbers)
    return (compared | searched | bounded).map("".join)


def selected(given_words):
    """Return the conditions of *given_words*; None if they are an error."""
    from structlog_audit.cli.exit_codes import UsageError

    try:
        _, parsed = split_words(given_words)
        return build_selection(parsed).conditions
    except UsageError:
        return None


def answers(source, conditions):
    """Return every answer of *source* that SQL may give: events, count, statistics, those by user, and unknown statuses."""
    statistics = source._statistics_and_unknown_status(conditions)
    return (
        ids(source.select(conditions, newest_first=False)),
        ids(source.select(conditions, newest_first=True, at_most=2))[:2],
        {**statistics, "avg_duration_ms": pytest.approx(statistics["avg_duration_ms"])},
        list(source._statistics_by_user(conditions).items()),
    )


@settings(max_examples=60)
@given(
    drawn=st.lists(events, min_size=1, max_size=25),
    promoted=st.sampled_from([[], ["a"], ["a", "a.b", "/é"]]),
    is_live=st.booleans(),
    data=st.data(),
)
def test_conditions_of_a_command_line_have_the_answers_of_the_files(tmp_path_factory, drawn, promoted, is_live, data):
    """For all events, conditions and promoted members: the events, counts and statistics of the file reader."""
    folder = tmp_path_factory.mktemp("case")
    lines = [line_of(number, **members) for number, members in enumerate(drawn)]
    middle = len(lines) // 2
    path = write_closed(folder / "logs", b"".join(lines[:middle]), b"".join(lines[middle:]))
    compacted(path, folder / "archive", promote=promoted)
    files = open_trail(path)
    with open_archive(folder / "archive", live=path, host="h1") as source:
        for _ in range(8):
            those = data.draw(st.lists(words(), min_size=1, max_size=3))
            conditions = selected(those)
            if conditions is not None:
                assert answers(source, conditions) == answers(files, conditions), those
