"""Tests of `structlog_audit.trail.reading.candidate_lines`: decoding every line is the oracle."""

import gzip
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from structlog_audit import open_trail
from structlog_audit.events.codec import encode_payload
from structlog_audit.events.conversion import convert
from structlog_audit.events.event_id import Stamp
from structlog_audit.query.filters import conditions
from structlog_audit.trail.reading import candidate_lines, follow, pagination, scan_engine
from structlog_audit.trail.reading.candidate_lines import SKIPPED_BLOCKS, CandidateSearch

TEXTS = [
    "ann",
    "Ann",
    "bob",
    "5",
    "-0",
    'a"b',
    "a\\b",
    "é",
    "x\u2028y",
    "dict",
    "NaN",
    "\ufffd",
    "gap",
    "user_id",
    "a_",
]
OPERATIONS = ["STORE", "store", "user.delete", "5", "UNNAMED", "é"]
STATUSES = ["SUCCESS", "FAILURE", "PARTIAL", "failed", "success"]

texts = st.sampled_from(TEXTS)
values = st.one_of(texts, st.sampled_from([5, 0, 1.5, True, None, 2**70]), st.lists(texts, max_size=2))
fields = st.fixed_dictionaries(
    {"operation": st.sampled_from(OPERATIONS)},
    optional={
        "user_id": texts,
        "session_id": texts,
        "entry_ids": st.lists(texts, max_size=3),
        "metadata": st.dictionaries(texts, values | st.dictionaries(texts, values, max_size=2), max_size=3),
        "status": st.sampled_from(STATUSES[:3]),
        "error_message": texts,
    },
)


def _numbered(members):
    """Return *members* with ids that are numbers, as another program may write them."""
    return {
        name: int(value) if name in ("user_id", "session_id") and value.lstrip("-").isdigit() else value
        for name, value in members.items()
    }


def _stated(members):
    return members | {"status": "failed", "operation": str(members["operation"]).lower()}


FORMS = {
    "canonical": lambda line: line,
    "escaped": lambda line: json.dumps(json.loads(line), separators=(",", ":")).encode().replace(b"ann", b"\\u0061nn"),
    "spaced": lambda line: line.replace(b'","user_id":"', b'","user_id" : "').replace(b'"status":', b'"status":\t'),
    "ordered": lambda line: _compact(dict(reversed(json.loads(line).items())), first=("event_id",)),
    "repeated key": lambda line: line[:-1] + b',"user_id":"ann"}',
    "repeated first": lambda line: line.replace(b',"timestamp"', b',"user_id":"bob","timestamp"', 1),
    "numbered": lambda line: _compact(_numbered(json.loads(line))),
    "stated": lambda line: _compact(_stated(json.loads(line))),
    "without status": lambda line: _compact({k: v for k, v in json.loads(line).items() if k != "status"}),
    "null": lambda line: line[:-1] + b',"session_id":null}',
    "unknown": lambda line: line[:-1] + b',"outcome":"failed","ann":"bob"}',
    "foreign": lambda line: b" " + line,
    "torn": lambda line: line[: len(line) // 2],
    "torn at a brace": lambda line: line[:-2] + b"}",
    "empty": lambda line: b"",
    "not UTF-8": lambda line: line.replace(b"bob", b"bo\xff"),
}


def _compact(members, first=()):
    ordered = {name: members[name] for name in first} | members
    return json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()


OTHERS = ("foreign", "torn", "torn at a brace", "empty")
"""The forms that do not begin and end as lines of this library: with one of them, every line is decoded."""

LIKE_OURS = [name for name in FORMS if name not in OTHERS]


@st.composite
def trails(draw):
    """Draw the bytes of a trail: events with a form each, some twice, mostly such that the search applies."""
    stamp = Stamp(lambda: 1_736_937_000_123_456_789, lambda bits: 1)
    forms = draw(st.sampled_from([LIKE_OURS, LIKE_OURS, LIKE_OURS, list(FORMS)]))
    lines = []
    for members in draw(st.lists(fields, min_size=1, max_size=6)):
        line = stamp.line(encode_payload(convert(members), 4_096)).rstrip(b"\n")
        lines.append(FORMS[draw(st.sampled_from(forms))](line))
    lines += draw(st.lists(st.sampled_from(lines), max_size=2))
    return b"".join([line + b"\n" for line in lines])


FILTERS = {
    "user_id": st.one_of(st.none(), texts, st.lists(texts, max_size=2)),
    "session_id": texts,
    "operation": st.sampled_from(OPERATIONS),
    "operation_class": st.sampled_from(["create", "delete", None]),
    "status": st.sampled_from(STATUSES[:3]),
    "entry_ids": st.one_of(texts, st.lists(texts, max_size=2)),
    "metadata": st.dictionaries(texts, values, min_size=1, max_size=1),
    "kind": st.sampled_from([None, "gap", "part"]),
}
filters = st.lists(st.sampled_from(list(FILTERS)), min_size=1, max_size=2, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: FILTERS[name] for name in names})
)


def answers(path, wanted, has_repeated_lines):
    """Return the answers to the same question by all ways of asking it."""
    trail = open_trail(path)
    newest = trail.query_events(**wanted)
    found = {
        "newest": newest,
        "one": trail.query_events(limit=1, **wanted),
        "oldest": list(trail.iter_events(**wanted)),
        "count": trail.count_events(**wanted),
        "followed": list(trail.follow(since_now=False, stop=lambda: True, wait=None, **wanted)),
    }
    # A page does not remember the lines of earlier pages: where one begins decides whether a repeated line shows again.
    for newest_first in () if has_repeated_lines else (False, True):
        events, cursor = [], None
        while True:
            page = trail.page(cursor, limit=2, newest_first=newest_first, **wanted)
            events += page.events
            cursor = page.cursor
            if cursor is None:
                break
        found[f"pages {newest_first}"] = events
    return found


@pytest.mark.parametrize("suffix", ["", ".gz"])
@given(data=trails(), wanted=filters)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_answer_equals_that_of_decoding_every_line(tmp_path, suffix, data, wanted):
    """For all lines and filters, the answer without the lines that are excluded is that of decoding all of them."""
    path = tmp_path / f"audit.jsonl{suffix}"
    path.write_bytes(gzip.compress(data) if suffix else data)
    lines = data.splitlines()
    has_repeated_lines = len(set(lines)) < len(lines)
    with pytest.MonkeyPatch.context() as patches:
        # Search blocks of which all lines are candidates, too.
        patches.setattr(candidate_lines, "MOST_CANDIDATES", 1.0)
        searched = answers(path, wanted, has_repeated_lines)

    with pytest.MonkeyPatch.context() as patches:
        for module in (scan_engine, pagination, follow):
            patches.setattr(module.CandidateSearch, "of", lambda conditions: None)
        assert searched == answers(path, wanted, has_repeated_lines)


def canonical(*members):
    """Return the lines of events with these *members*."""
    stamp = Stamp()
    return b"".join([stamp.line(encode_payload(convert({"operation": "X", **given}), 4_096)) for given in members])


BLOCK = canonical(
    {"user_id": "ann", "entry_ids": ["e1"], "status": "FAILURE"},
    *[{"user_id": "bob", "session_id": "s", "metadata": {"tenant": "acme", "n": 1}}] * 8,
    {"user_id": "carl", "operation": "user.delete", "metadata": {"a": {"b": "deep"}}},
)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"user_id": "ann"}, 1),
        ({"user_id": ["ann", "carl"]}, 2),
        ({"user_id": "nobody"}, 0),
        ({"entry_ids": "e1"}, 1),
        ({"operation": "user.delete"}, 1),
        ({"metadata": {"a": {"b": "deep"}}}, 1),
        ({"status": "FAILURE"}, 1),
        ({"user_id": "ann", "operation": "user.delete"}, 0),
        ({"user_id": "carl", "operation": "user.delete"}, 1),
    ],
)
def test_line_that_cannot_match_is_left_out(wanted, expected):
    """In a block of canonical lines only those with the values of all conditions are candidates."""
    found = CandidateSearch.of(conditions(**wanted)).candidates(BLOCK)
    assert (len(found.spans), found.line_count) == (expected, 10)
    for start, stop in found.spans:
        assert BLOCK[start:stop].startswith(b"{")
        assert BLOCK[start:stop].count(b"\n") == 1


HEAD = b'{"event_id":"evt_x","timestamp":"2025-01-15T10:30:45.123456Z",'


@pytest.mark.parametrize(
    ("rest", "wanted"),
    [
        (b'"operation":"X","user_id":"\\u0061nn"', {"user_id": "ann"}),
        (b'"operation":"X","user_id":"\\u0061nn","session_id":"\\u0073"', {"user_id": "ann", "session_id": "s"}),
        (b'"operation":"X","user_id" : "ann"', {"user_id": "ann"}),
        (b'"operation":"X","user_id":5', {"user_id": "5"}),
        (b'"operation":"X","entry_ids":[-0]', {"entry_ids": "0"}),
        (b'"user_id":"ann"', {"operation": "UNNAMED"}),
        (b'"operation":"X","metadata":{"x":NaN}', {"metadata": {"x": "NaN"}}),
        (b'"operation":"X","status":"failed"', {"status": "FAILURE"}),
        (b'"operation":"X","error_message":"no"', {"status": "FAILURE"}),
        (b'"operation":"store"', {"operation": "STORE"}),
        (b'"operation":"user.delete"', {"operation_class": "delete", "operation": ["user.delete", "STORE"]}),
        (b'"operation":"\\u0064elete"', {"operation_class": "delete"}),
        (b'"operation":"X","status":"moved","metadata":{"status":1}', {"metadata": {"status_": "moved"}}),
        (b'"operation":"X","user_id":[1]', {"metadata": {"_audit": {"user_id": "not text, a number or a UUID"}}}),
    ],
)
def test_line_with_a_value_in_another_form_is_found(tmp_path, rest, wanted):
    """A value that is written with escapes, spaces or as a number, or that reading makes, is found among canonical lines."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(canonical(*[{"user_id": "bob"}] * 20) + HEAD + rest + b"}\n")
    assert [event.event_id for event in open_trail(path).iter_events(**wanted)] == ["evt_x"]


@pytest.mark.parametrize("wanted", [{"user_id": "bob"}, {"status": "SUCCESS"}, {"operation": "STORE"}])
def test_block_with_many_candidates_is_decoded_as_a_whole(wanted):
    """If a large share of the lines may match, or may be one of the six operations in any case, the search gives up."""
    block = BLOCK if "operation" not in wanted else canonical(*[{"operation": "STORE"}] * 10)
    assert CandidateSearch.of(conditions(**wanted)).candidates(block) is None


def test_blocks_after_one_with_many_candidates_are_not_searched():
    """After a block with too many candidates, some blocks are decoded as a whole, and then the search begins again."""
    search = CandidateSearch.of(conditions(user_id="bob"))
    few = canonical({"user_id": "bob"}, *[{"user_id": "ann"}] * 9)
    assert search.candidates(BLOCK) is None
    assert [search.candidates(few) for _ in range(SKIPPED_BLOCKS)] == [None] * SKIPPED_BLOCKS
    assert len(search.candidates(few).spans) == 1


@pytest.mark.parametrize("change", [lambda data: data + b"{}\n", lambda data: b"\n" + data, lambda data: data[:-1]])
def test_block_with_another_line_is_decoded_as_a_whole(change):
    """A line that does not begin and end as those of this library makes the whole block be decoded and counted."""
    assert CandidateSearch.of(conditions(user_id="ann")).candidates(change(BLOCK)) is None


def test_block_with_parts_is_decoded_as_a_whole():
    """An entry id may stand in the line of a part, which belongs to the event before it."""
    stamp = Stamp()
    payload = encode_payload(convert({"operation": "X", "entry_ids": [f"e{n:04}" for n in range(900)]}), 4_096)
    data = stamp.line(payload)
    assert data.count(b"\n") > 1
    assert CandidateSearch.of(conditions(entry_ids="e0899")).candidates(data) is None


@pytest.mark.parametrize("wanted", [{}, {"user_id": None}, {"min_duration_ms": 1}, {"metadata": {}}])
def test_conditions_without_a_text_have_no_search(wanted):
    """Conditions that name no text say nothing about the bytes of a line."""
    assert CandidateSearch.of(conditions(**wanted)) is None


def test_finding_in_a_line_that_was_left_out_is_counted_once(tmp_path):
    """A line with a key twice is counted when it is read, by whichever query, and not again."""
    path = tmp_path / "audit.jsonl"
    lines = BLOCK.splitlines()
    lines[0] = lines[0][:-1] + b',"user_id":"ann"}'
    path.write_bytes(b"\n".join([*lines, b""]))

    trail = open_trail(path)
    trail.count_events(user_id="carl")
    assert trail.problems == {}
    for wanted in ({"user_id": "ann"}, {"user_id": "ann"}, {}, {"user_id": "ann"}):
        trail.count_events(**wanted)
        assert trail.problems == {"duplicate_key": 1}
