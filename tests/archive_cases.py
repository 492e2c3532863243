"""Random events, filters and trails for archives, and the comparison of two sources."""

from __future__ import annotations

import math

import msgspec
from archives import EVERYTHING
from hypothesis import strategies as st
from trail_files import at, line_of, write_trail

from structlog_audit.archive.dialects import where
from structlog_audit.archive.promotion import promoted_columns
from structlog_audit.archive.sql_engine import Files
from structlog_audit.cli.conditions import build_selection, split_words
from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.query.field_tests import text_of, values_at

KEYS = st.sampled_from(
    ["a", "b", "A", "a.b", "$", "*", "'", '"', "/", "~", "~0", "0", "-", "é", "e\u0301", "a b", "\u2028", "?", "["]
)
SCALARS = st.sampled_from(
    [1, 1.0, 0, -0.0, -1, True, False, None, "1", "", "x", "é", "e\u0301", "\u2028", "'", '"', "\\", "\0", "%", "_", 2**53,
     2**53 + 1, float(2**53), 2**63 - 1, -(2**63), 1e300, 1.5, 1e-7, "true", "null", "[]", "{}"]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=6
)
METADATA = st.dictionaries(KEYS, VALUES, max_size=4)
USERS = st.sampled_from([None, "", "ann", "Ann", "zoë", "'; DROP TABLE x; --", "nul\0", "e\u0301"])
OPERATIONS = st.sampled_from(["STORE", "RECALL", "delete", "x%", "é"])
KINDS = st.sampled_from([None, None, None, "gap", "trail", "intent"])

events = st.fixed_dictionaries(
    {"operation": OPERATIONS, "status": st.sampled_from(["SUCCESS", "FAILURE", "PARTIAL"])},
    optional={
        "user_id": USERS,
        "session_id": USERS,
        "entry_ids": st.lists(st.sampled_from(["e1", "e2", "", "é"]), max_size=3),
        "metadata": METADATA,
        "duration_ms": st.sampled_from([0.0, 1.5, 10.0, 1e9]),
        "kind": KINDS,
    },
)


def parts_of(value):
    """Return a strategy for what *value* contains: a filter that finds it."""
    if isinstance(value, dict) and value:
        names = st.sets(st.sampled_from(sorted(value)), min_size=1)
        return names.flatmap(lambda keys: st.fixed_dictionaries({key: parts_of(value[key]) for key in keys}))
    if isinstance(value, list) and value:
        return st.just(value) | st.sampled_from(value).map(lambda item: [item])
    return st.just(value)


_FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "user_id": USERS | st.lists(USERS, max_size=3),
        "session_id": USERS,
        "operation": OPERATIONS | st.lists(OPERATIONS, max_size=2),
        "operation_class": st.sampled_from(["create", "delete", None]) | st.just(["read", "unclassified"]),
        "status": st.sampled_from(["SUCCESS", "FAILURE"]),
        "kind": st.lists(KINDS, max_size=3),
        "entry_ids": st.sampled_from(["e1", "e2", ""]) | st.just(["e1", "é"]),
        "min_duration_ms": st.sampled_from([0, 1.5, 11]),
        "start_time": st.sampled_from([at(0), at(1), at(50_000)]),
        "end_time": st.sampled_from([at(60_000), at(500_000)]),
    },
)

DRAWN = st.lists(
    st.tuples(events, st.sampled_from([-3_600.0, -1.0, 0.0, 0.0, 0.5, 1.0, 50_000.0])), min_size=1, max_size=14
)
"""Events, with the seconds between them."""

PROMOTED = st.lists(
    st.sampled_from(["a", "A", "/a.b", "/a/b", "b", "/é", "/'", "/~1", "/a b"]), unique=True, max_size=4
)


@st.composite
def filters_for(draw, drawn):
    """Draw filters, which often select some of the *drawn* events."""
    filters = draw(_FILTERS)
    of_event = draw(st.sampled_from([event.get("metadata", {}) for event, _ in drawn])).copy()
    if draw(st.booleans()):
        filters["metadata"] = draw(parts_of(of_event) | METADATA)
    return filters


@st.composite
def cases(draw):
    """Draw events with the seconds between them, filters, where segments end, and what is promoted."""
    drawn = draw(DRAWN)
    filters = draw(filters_for(drawn))
    cuts = draw(st.lists(st.integers(0, len(drawn)), min_size=2, max_size=5).map(sorted))
    promoted = draw(PROMOTED)
    return drawn, filters, cuts, promoted


def written(folder, drawn, cuts):
    """Write the drawn events as segments that end at *cuts*; return the path of the active segment and the lines."""
    lines, second = [], 0.0
    for number, (event, step) in enumerate(drawn):
        second = max(0.0, second + step)
        members = {name: value for name, value in event.items() if value not in (None, [], {})}
        line = line_of(number, second, **members)
        lines.append(line.replace(b'"operation":"STORE"', b'"operation":' + json_text(event["operation"]), 1))
    bounds = [0, *cuts]
    segments = [(10_000_000 + n, b"".join(lines[bounds[n] : bounds[n + 1]])) for n in range(len(cuts))]
    return write_trail(folder, *segments, active=b"".join(lines[cuts[-1] :]))


def json_text(text):
    """Return *text* as JSON, as lines have it."""
    return msgspec.json.encode(text)


def paged(source, limit, **filters):
    """Return the events of all pages of *limit* events."""
    found, cursor = [], None
    while True:
        page = source.page(cursor, limit=limit, **filters)
        found += page.events
        cursor = page.cursor
        if cursor is None:
            return found
        assert len(page.events) == limit


def are_close(found, expected):
    """Return whether two statistics are equal, but for rounding in the average."""
    average = found.pop("avg_duration_ms"), expected.pop("avg_duration_ms")
    return math.isclose(*average, abs_tol=1e-9) and found == expected


def check_equal(source, files, filters, limit, newest_first):
    """Check that *source* answers as *files*."""
    how = {"newest_first": newest_first, "limit": limit}
    assert source.query_events(**how, **filters) == files.query_events(**how, **filters)
    assert list(source.iter_events(**filters)) == list(files.iter_events(**filters))
    assert source.count_events(**filters) == files.count_events(**filters)
    assert are_close(source.get_statistics(**filters), files.get_statistics(**filters))
    everything = files.query_events(newest_first=newest_first, **filters)
    assert paged(source, limit or 3, newest_first=newest_first, **filters) == everything


PATHS = ["a", "b", "a.b", "b.c", "a.b.c", "a.b.a.b", "é", "$", "0", "a.0", "~", "/", '"', "a.", "none", "a.b.a.b.a"]
NAMES = ["event_id", "operation", "user_id", "session_id", "status", "error_message", "kind", "entry_ids"]
NUMBERS = ["0", "1", "1.5", "2", "1e9", "9007199254740992", "-inf", "1e300"]
PATTERNS = ["^a", "n$", ".", "^$", "[0-9]", "(?i)boom", "^auth", "e1|é", "x(?=y)", "true", r"\[", r"\\"]


def word_of(event, chance):
    """Return a condition whose value occurs in *event*, mostly."""
    if chance.random() < 0.1:
        return "duration_ms" + chance.choice(["=", "!=", *(o + n for o in ("=", "!=", ">=", "<=") for n in NUMBERS)])
    present = [path for path in PATHS if list(values_at(event.metadata, path))]
    path = chance.choice(present if present and chance.random() < 0.7 else PATHS)
    name = chance.choice([f"metadata.{path}", f"metadata.{path}", chance.choice(NAMES)])
    values = list(values_at(event.metadata, path)) if name.startswith("metadata.") else [getattr(event, name)]
    flat = [item for value in values for item in (value if isinstance(value, list) else [value])]
    text = chance.choice(["", "x", "1", "true", *3 * [text_of(value) for value in flat if value is not None]])
    operators = [f"={text}", f"!={text}", f"~{chance.choice(PATTERNS)}", f"!~{chance.choice(PATTERNS)}"]
    if name.startswith("metadata."):
        operators.append(chance.choice([">=", "<="]) + chance.choice(NUMBERS))
    return name + chance.choice(operators)


def conditions_of(words):
    """Return the conditions of a command line; None if they are an error."""
    try:
        return build_selection(split_words(words)[1], every_kind=True).conditions
    except UsageError:
        return None


def drawn_conditions(events, chance, count):
    """Return up to *count* conditions of a command line, whose values occur in *events*, mostly."""
    lines = [[word_of(chance.choice(events), chance) for _ in range(chance.choice([1, 1, 2]))] for _ in range(count)]
    return [conditions for line in lines if (conditions := conditions_of(line)) is not None]


def check_decisions(reader, wanted):
    """Check what SQL decides about the conditions *wanted* for the events of an archive of one group of files.

    Certain rows match, rows of neither sort do not, and no row is of both sorts.
    """
    [opened] = reader._archives
    database, snapshot = opened.source, opened.log.require()
    [promoted] = {file.promoted for file in snapshot.files.values()}
    tables = {"files": Files(tuple(snapshot.files), promoted)}
    paths = {keys: name for name, keys in promoted_columns(snapshot.configuration).items()}

    def distinct(expression, condition, parameters):
        sql = f"SELECT DISTINCT {expression} FROM {{files}} WHERE {condition}"
        return [value for (value,) in database.query(sql, parameters, tables)]

    # All conditions are in one query, which says of each row what they say of it.
    columns, parameters = [], {}
    for number, conditions in enumerate(wanted):
        sql = where(conditions, database.dialect, paths, distinct, f"c{number}x")
        columns += [f"coalesce({sql.certain}, false)", f"coalesce({sql.doubtful}, false)"]
        parameters |= sql.parameters
    sql = f"SELECT event_id, {', '.join(columns)} FROM {{files}} ORDER BY n"
    rows = list(database.query(sql, parameters, tables))

    stored = reader.select(EVERYTHING, newest_first=False)
    for event, row in zip(stored, rows, strict=True):
        assert event.event_id == row[0]
        for number, conditions in enumerate(wanted):
            is_certain, is_doubtful = row[1 + 2 * number : 3 + 2 * number]
            assert not (is_certain and is_doubtful), conditions
            assert is_doubtful or is_certain == conditions.matches(event), (conditions, event)
