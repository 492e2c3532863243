"""The conditions of the command line."""

from __future__ import annotations

import re

import msgspec
import pytest
from commands import GOLDEN
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit import open_trail
from structlog_audit.cli.conditions import EVERY_KIND, Condition, build_selection, split_words
from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.events.event import AuditEvent
from structlog_audit.query.field_tests import values_at
from structlog_audit.query.filters import conditions

EVENTS = list(open_trail(GOLDEN).iter_events(kind=EVERY_KIND))
ORDINARY = [event for event in EVENTS if event.kind is None]


def select(*words, **options) -> list[AuditEvent]:
    """Return the golden events that *words* select."""
    selection = build_selection(split_words(words)[1], **options)
    return [event for event in EVENTS if selection.conditions.matches(event)]


@pytest.mark.parametrize(
    ("word", "condition"),
    [
        ("user_id=ann", Condition("user_id", "=", "ann")),
        ("user_id!=ann", Condition("user_id", "!=", "ann")),
        ("user_id~^a", Condition("user_id", "~", "^a")),
        ("user_id!~^a", Condition("user_id", "!~", "^a")),
        ("duration_ms>=1.5", Condition("duration_ms", ">=", "1.5")),
        ("duration_ms<=2", Condition("duration_ms", "<=", "2")),
        ("user_id=", Condition("user_id", "=", "")),
        ("user_id=a=b\n", Condition("user_id", "=", "a=b\n")),
        ("entry_ids=<script>", Condition("entry_ids", "=", "<script>")),
        ("metadata.source=api", Condition("metadata.source", "=", "api")),
        ("metadata.http.method=GET", Condition("metadata.http.method", "=", "GET")),
        ("metadata.a b/c:d@e=1", Condition("metadata.a b/c:d@e", "=", "1")),
        ("metadata.naïve~grü", Condition("metadata.naïve", "~", "grü")),
    ],
)
def test_word_with_name_and_operator_is_a_condition(word, condition):
    """A condition is the field before the first operator, the operator, and the rest of the word as the value."""
    assert split_words([word]) == ([], [condition])
    assert str(condition) == word


@pytest.mark.parametrize(
    "word",
    [
        "logs/audit.jsonl",
        "-",
        "./x=y",
        "/var/log/a=b",
        "../user_id=ann",
        "audit.jsonl",
        "logs/2025=1/audit",
        "*.jsonl",
        "~/a",
    ],
)
def test_word_without_name_and_operator_is_a_trail(word):
    """A word that does not begin with a name and an operator is a trail; ./ makes any file name a trail."""
    assert split_words([word]) == ([word], [])


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("user=ann", "unknown field 'user'. Did you mean 'user_id'?"),
        ("user=ann", "use 'metadata.user' for a key of the metadata, './user=ann' for a file of that name"),
        ("staus=FAILURE", "Did you mean 'status'?"),
        ("quite_another=1", "unknown field 'quite_another'. Fields: event_id,"),
        ("metadata=api", "expected a key of the metadata, such as 'metadata.source=api'"),
        ("timestamp>=2025", "use --since and --until to select times"),
        ("user_id==ann", "unknown operator '==' in 'user_id==ann'. Did you mean '='?"),
        ("user_id=~ann", "Did you mean '~'?"),
        ("duration_ms>5", "Did you mean '>='?"),
        ("duration_ms<5", "Did you mean '<='?"),
        ("duration_ms~5", "expected one of = != >= <= after duration_ms, got '~'"),
        ("operation_class~del", "expected one of = != after operation_class, got '~'"),
        ("user_id>=5", "expected one of = != ~ !~ after user_id, got '>='"),
        ("duration_ms", "quote < and > in the shell, as in 'duration_ms>=100'"),
        ("metadata.size", "'metadata.size': expected FIELD=value"),
    ],
)
def test_invalid_condition_is_an_error_with_a_hint(word, hint):
    """A mistyped field or operator is never a trail and never matches nothing: the error suggests a correction."""
    with pytest.raises(UsageError, match=re.escape(hint)):
        split_words([word])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("status=GOOD", "status='GOOD': expected one of SUCCESS, FAILURE, PARTIAL"),
        ("status!=GOOD", "status='GOOD'"),
        ("kind=GOOD", "kind='GOOD'"),
        ("operation_class=GOOD", "operation_class='GOOD': expected one of create, read,"),
        ("operation_class!=GOOD", "operation_class='GOOD'"),
        ("operation=", "expected a value, because every event has one"),
        ("duration_ms>=soon", "expected a number, got 'soon'"),
        ("duration_ms=nan", "expected a number, got 'nan'"),
        ("user_id~(", "'user_id~(': expected a regular expression"),
    ],
)
def test_invalid_value_is_an_error(word, message):
    """A value that no event can have is an error."""
    with pytest.raises(UsageError, match=re.escape(message)):
        select(word)


def kept(test):
    return [event for event in ORDINARY if test(event)]


@pytest.mark.parametrize(
    ("words", "test"),
    [
        (["user_id=ann"], lambda e: e.user_id == "ann"),
        (["user_id=ann", "user_id=bob"], lambda e: e.user_id in ("ann", "bob")),
        (["user_id=ann", "status=success"], lambda e: e.user_id == "ann" and e.status == "SUCCESS"),
        (["user_id!=ann"], lambda e: e.user_id != "ann"),
        (["user_id!=ann", "user_id!=bob"], lambda e: e.user_id not in ("ann", "bob")),
        (["user_id="], lambda e: e.user_id in (None, "")),
        (["user_id!="], lambda e: e.user_id not in (None, "")),
        (["user_id~^[ab]"], lambda e: e.user_id is not None and re.search("^[ab]", e.user_id)),
        (["user_id!~n"], lambda e: e.user_id is None or "n" not in e.user_id),
        (["user_id=ann", "user_id~^b"], lambda e: e.user_id in ("ann", "bob")),
        (["user_id~.", "user_id!=ann"], lambda e: e.user_id not in (None, "", "ann")),
        (["operation=store"], lambda e: e.operation == "STORE"),
        (["operation!=store"], lambda e: e.operation != "STORE"),
        (["operation=delete"], lambda e: e.operation == "delete"),
        (["operation~^[a-z]"], lambda e: re.search("^[a-z]", e.operation)),
        (["operation_class=delete"], lambda e: e.operation.upper() in ("FORGET", "DELETE")),
        (["operation_class=export", "operation_class=login"], lambda e: e.operation in ("EXPORT", "login")),
        (["operation_class!=read", "operation_class!=create"], lambda e: e.operation not in ("RECALL", "STORE", "IMPORT")),
        (["operation_class=delete", "operation_class=login", "operation_class!=delete"], lambda e: e.operation == "login"),
        (["operation_class="], lambda e: e.operation == "ünïcode.wörk"),
        (["operation_class=unclassified"], lambda e: e.operation == "ünïcode.wörk"),
        (["operation_class!="], lambda e: e.operation != "ünïcode.wörk"),
        (["status!=success"], lambda e: e.status != "SUCCESS"),
        (["session_id="], lambda e: not e.session_id),
        (["entry_ids=e2"], lambda e: "e2" in e.entry_ids),
        (["entry_ids=e2", "entry_ids=e4"], lambda e: {"e2", "e4"} & set(e.entry_ids)),
        (["entry_ids!=e2"], lambda e: "e2" not in e.entry_ids),
        (["entry_ids~^e1"], lambda e: any(i.startswith("e1") for i in e.entry_ids)),
        (["entry_ids="], lambda e: not e.entry_ids),
        (["error_message~(?i)permission"], lambda e: "permission" in (e.error_message or "").lower()),
        (["error_message!="], lambda e: e.error_message),
        (["duration_ms>=100"], lambda e: e.duration_ms is not None and e.duration_ms >= 100),
        (["duration_ms>=3.5", "duration_ms<=8"], lambda e: e.duration_ms is not None and 3.5 <= e.duration_ms <= 8),
        (["duration_ms=12"], lambda e: e.duration_ms == 12),
        (["duration_ms="], lambda e: e.duration_ms is None),
        (["metadata.source=api"], lambda e: e.metadata.get("source") == "api"),
        (["metadata.source!=api"], lambda e: e.metadata.get("source") != "api"),
        (["metadata.user.plan=pro"], lambda e: e.metadata.get("user", {}).get("plan") == "pro"),
        (["metadata.tags=eu"], lambda e: "eu" in (e.metadata.get("tags") or [])),
        (["metadata.attempt=2"], lambda e: e.metadata.get("attempt") == 2),
        (["metadata.attempt>=1"], lambda e: e.metadata.get("attempt", 0) >= 1),
        (["metadata.forced=true"], lambda e: e.metadata.get("forced") is True),
        (["metadata.nested.step=2"], lambda e: any(n.get("step") == 2 for n in e.metadata.get("nested", []))),
        (["metadata.user~free"], lambda e: e.metadata.get("user") == {"plan": "free"}),
        (["metadata.naïve~^grü"], lambda e: e.metadata.get("naïve", "").startswith("grü")),
        (["metadata.source="], lambda e: e.metadata.get("source") in (None, "")),
    ],
)  # fmt: skip
def test_condition_selects_the_events_of_a_plain_comparison(words, test):
    """Each form of condition selects the events that a plain comparison selects, neither all nor none."""
    expected = kept(test)
    assert select(*words) == expected
    assert 0 < len(expected) < len(ORDINARY)


JSON_SCALARS = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=3)


@given(value=JSON_SCALARS | st.lists(JSON_SCALARS, max_size=3), bound=st.integers(-9, 9), lower=st.booleans())
def test_bound_compares_numbers_only(value, bound, lower):
    """For all values: a bound on metadata matches if a number is within it; a boolean is not a number."""
    items = value if isinstance(value, list) else [value]
    expected = any(type(item) in (int, float) and (item >= bound if lower else item <= bound) for item in items)

    operator = ">=" if lower else "<="
    selection = build_selection(split_words([f"metadata.ok{operator}{bound}"])[1])
    assert selection.conditions.matches(msgspec.structs.replace(ORDINARY[0], metadata={"ok": value})) == expected


@pytest.mark.parametrize("word", ["metadata.ok<=5", "metadata.ok>=0", "metadata.ok=0", "metadata.ok=1"])
@pytest.mark.parametrize("value", [False, True, [False, True]])
def test_boolean_is_not_a_number(word, value):
    """A condition with a number matches neither True nor False."""
    selection = build_selection(split_words([word])[1])
    assert not selection.conditions.matches(msgspec.structs.replace(ORDINARY[0], metadata={"ok": value}))


def test_own_events_are_selected_by_kind_or_with_all():
    """Trail events and intents are selected by a condition on kind, or with --all."""
    assert select() == ORDINARY
    assert select(every_kind=True) == EVENTS
    assert select("kind=trail") == [event for event in EVENTS if event.kind == "trail"]
    assert select("kind~.") == [event for event in EVENTS if event.kind is not None]
    assert select("kind=") == ORDINARY
    assert select("kind!=trail") == [event for event in EVENTS if event.kind != "trail"]
    assert select("user_id=", "kind=trail", every_kind=True) == select("kind=trail")


NAMES = ["user_id", "session_id", "operation", "status", "event_id"]


@given(st.sampled_from(NAMES), st.lists(st.sampled_from(ORDINARY), min_size=1, max_size=3))
def test_equality_selects_the_events_of_the_query_filter(name, examples):
    """For all values of a name, FIELD=value selects the events of the query with that filter, and FIELD!=value the others."""
    values = [getattr(event, name) for event in examples]
    if not all(values):
        return
    expected = conditions(**{name: values})
    assert select(*(f"{name}={value}" for value in values)) == [event for event in EVENTS if expected.matches(event)]
    assert select(*(f"{name}!={value}" for value in values)) == kept(lambda event: not expected.matches(event))


@given(st.text(), st.sampled_from(["=", "!=", "~", "!~", ">=", "<="]), st.text())
def test_any_word_is_a_trail_or_condition_or_error(field, operator, value):
    """Every word is a trail, a condition or an error, and every condition can be applied or is an error of its value."""
    for word in (field, field + operator + value, f"metadata.{field}{operator}{value}", f"user_id{operator}{value}"):
        try:
            trails, those = split_words([word])
            assert len(trails) + len(those) == 1
            assert [str(condition) for condition in those] == ([] if trails else [word])
            selection = build_selection(those)
            for event in EVENTS[:5]:
                selection.conditions.matches(event)
        except UsageError:
            pass


def test_values_at_follows_every_path_through_metadata():
    """A path leads through objects and lists; keys may contain dots, and every path to a value counts."""
    metadata = {"a.b": 1, "a": {"b": [2, {"c": 3}], "b.c": 4}, "l": [[5], {"m": 6}], "": 7}
    assert list(values_at(metadata, "a.b")) == [1, 2, {"c": 3}]
    assert list(values_at(metadata, "a.b.c")) == [3, 4]
    assert list(values_at(metadata, "l")) == [5, {"m": 6}]
    assert list(values_at(metadata, "l.m")) == [6]
    assert list(values_at(metadata, "a.x")) == list(values_at(metadata, "a.b.c.d")) == []
