"""Tests of `structlog_audit.events.json_safe`: plain JSON values of any Python value."""

import collections
import datetime as dt
import decimal
import ipaddress
import json
import math
import numbers
import pathlib
import uuid

import msgspec
import pytest
import strategies as s
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit.events.json_safe import (
    MAX_CAUSES,
    MAX_DEPTH,
    MAX_MARKS,
    MAX_TEXT,
    MAX_VALUES,
    JsonSanitizer,
    exception_text,
    identifier_text,
    type_name,
)


def plain(value):
    """Return the sanitized *value*, and the marks."""
    sanitizer = JsonSanitizer()
    return sanitizer.sanitize(value, "x"), sanitizer.marks


def assert_plain(value):
    """Check that *value* consists of exactly the plain types."""
    todo = [value]
    while todo:
        value = todo.pop()
        kind = type(value)
        assert kind in (type(None), bool, int, float, str, list, dict)
        if kind is int:
            assert -(2**63) <= value < 2**64
        elif kind is float:
            assert math.isfinite(value)
        elif kind is str:
            value.encode()
        elif kind is list:
            todo += value
        elif kind is dict:
            todo += value.keys()
            assert {type(key) for key in value} <= {str}
            todo += value.values()


@given(s.json_values)
@settings(max_examples=200, deadline=None)
def test_plain_value_stays_without_marks(value):
    """For all plain values, the result equals the value and has no marks."""
    assert plain(value) == (value, {})


@pytest.mark.parametrize("make", s.HOSTILE)
def test_hostile_value_becomes_plain(make):
    """Every hostile value becomes plain values that JSON can represent."""
    value, _ = plain(make())
    assert_plain(value)
    assert json.loads(json.dumps(value, allow_nan=False)) == value


@given(st.recursive(s.hostile, lambda inner: st.lists(inner, max_size=3), max_leaves=5))
@settings(max_examples=s.examples(25), deadline=None)
def test_hostile_values_in_containers_become_plain(tree):
    """For all trees of hostile values, the result is plain and within the limit of marks."""

    def build(node):
        return [build(inner) for inner in node] if isinstance(node, list) else {"k": node(), 1: (node(),)}

    sanitizer = JsonSanitizer()
    assert_plain(sanitizer.sanitize(build(tree), "x"))
    assert len(sanitizer.marks) <= MAX_MARKS + 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ((1, 2), [1, 2]),
        ({1}, [1]),
        (frozenset({"a"}), ["a"]),
        (collections.deque([1]), [1]),
        ({"a": 1}.keys(), ["a"]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.ChainMap({"a": 1}), {"a": 1}),
        (s.Point(), {"x": 1, "inner": None}),
        (s.Struct(), {"x": 1}),
        (s.LikeAttrs(), {"x": 1}),
        (s.LikePydantic(), {"x": 1}),
        (s.Colour.RED, "red"),
        (s.Colour.NESTED, ["a", 1]),
        (s.LowerStatus.SUCCESS, "success"),
        (s.Number.ONE, 1),
        (dt.datetime(2025, 1, 15, 10, tzinfo=dt.UTC), "2025-01-15T10:00:00+00:00"),
        (dt.date(2025, 1, 15), "2025-01-15"),
        (dt.time(10, 30), "10:30:00"),
        (dt.timedelta(milliseconds=1500), 1.5),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.10"), "1.10"),
        (pathlib.PurePosixPath("/tmp/x"), "/tmp/x"),
        (ValueError("no"), "ValueError: no"),
        ({1: "a", None: "b", True: "c", 2.5: "d"}, {"1": "c", "null": "b", "2.5": "d"}),
        ({False: 1, None: 2}, {"false": 1, "null": 2}),
        ({s.Colour.RED: 1, s.LowerStatus.SUCCESS: 2}, {"red": 1, "success": 2}),
        ({(1, 2): 3}, {"[1, 2]": 3}),
        ({b"x-request-id": "r1"}, {"x-request-id": "r1"}),
    ],
    ids=lambda value: repr(value).partition(" at 0x")[0],
)
def test_natural_form_is_not_marked(value, expected):
    """A value with a natural JSON form takes it, without a mark."""
    assert plain(value) == (expected, {})


@pytest.mark.parametrize(
    ("value", "expected", "mark"),
    [
        (float("nan"), "NaN", "replaced: not a finite number"),
        (float("inf"), "Infinity", "replaced: not a finite number"),
        (float("-inf"), "-Infinity", "replaced: not a finite number"),
        (2**64, "0x10000000000000000", "replaced: an integer of 65 bits"),
        (-(2**63) - 1, "-0x8000000000000001", "replaced: an integer of 64 bits"),
        ("a\ud800", "a\\ud800", "replaced: lone surrogates are written as escapes"),
        (b"\x00\xff", "AP8=", "replaced: bytes as base64"),
        (bytearray(b"x"), "eA==", "replaced: bytes as base64"),
        (memoryview(b"x"), "eA==", "replaced: bytes as base64"),
        (1j, "1j", "replaced: text of complex"),
        (object(), "<object>", "replaced: text of object"),
        (s._Raising(), "strategies._Raising", "replaced: unreadable (ValueError)"),
        (s._Fatal(), "strategies._Fatal", "replaced: unreadable (strategies.Fatal)"),
        (s._LyingClass(), "strategies._LyingClass", "replaced: unreadable (RuntimeError)"),
        (s._OfLyingMeta(), "strategies._OfLyingMeta", "replaced: unreadable (ValueError)"),
        (s.HostileDatetime(2025, 1, 1), "strategies.HostileDatetime", "replaced: unreadable (TypeError)"),
        (s.HostileTimedelta(1), "NaN", "replaced: not a finite number"),
    ],
    ids=lambda value: type_name(value),
)
def test_replacement_is_marked(value, expected, mark):
    """A value without a JSON form becomes text, and the mark has the reason."""
    assert plain(value) == (expected, {"x": mark})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (s.HostileStr("aé"), "aé"),
        (s.HostileInt(7), 7),
        (s.HostileFloat(1.5), 1.5),
        (s.HostileList([1]), [1]),
        (s.HostileTuple((1,)), [1]),
        (s.HostileDict({"k": 1}), {"k": 1}),
        (s.HostileUUID(int=1), "u"),
    ],
    ids=lambda value: type_name(value),
)
def test_overridden_methods_are_not_called(value, expected):
    """A subclass of a plain type counts as that type, whatever its methods would do."""
    assert plain(value) == (expected, {})


@pytest.mark.parametrize(
    ("value", "is_plain"), [(-(2**63), True), (-(2**63) - 1, False), (2**64 - 1, True), (2**64, False)]
)
def test_integer_is_plain_within_64_bits(value, is_plain):
    """Integers from -2**63 to 2**64 - 1 stay; others become text."""
    found, marks = plain(value)
    assert (found == value, not marks) == (is_plain, is_plain)


def test_number_of_values_has_an_exact_limit():
    """A list with 9,999 items, which are 10,000 values with itself, is whole; of one more, the last is left out."""
    assert plain([0] * 9_999) == ([0] * 9_999, {})
    assert plain([0] * 10_000) == ([0] * 9_999 + [""], {"x[9999]": "left out: more than 10000 values"})


@pytest.mark.parametrize("make", [lambda name: {name: b""}, lambda name: [{name: [b""]}]])
def test_path_in_a_mark_is_bounded(make):
    """The path in a mark has at most 200 characters."""
    sanitizer = JsonSanitizer()
    sanitizer.sanitize(make("n" * 500), "")
    (path,) = sanitizer.marks
    assert len(path) == 200


def test_mark_names_the_path():
    """The key of a mark is the path of its value."""
    _, marks = plain({"a": [0, {"b": float("nan")}]})
    assert marks == {"x.a[1].b": "replaced: not a finite number"}


@pytest.mark.parametrize("make", [s.cyclic_list, s.cyclic_dict, s.cyclic_object], ids=lambda make: make.__name__)
def test_cycle_is_replaced_where_it_closes(make):
    """A value that contains itself is replaced at that place, and marked."""
    _, marks = plain(make())
    assert list(marks.values()) == ["replaced: contains itself"]


def test_same_value_twice_is_not_a_cycle():
    """A value in two places is written twice."""
    shared = [1]
    assert plain([shared, shared]) == ([[1], [1]], {})


@pytest.mark.parametrize("levels", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 100_000])
def test_depth_is_bounded(levels):
    """Containers deeper than the limit are replaced by the name of their type, and marked; others are not."""
    value, marks = plain(s.deep(levels))
    depth = 0
    while isinstance(value, list):
        value, depth = value[0], depth + 1
    assert depth == min(levels, MAX_DEPTH + 1)
    assert bool(marks) == (levels > MAX_DEPTH)


@pytest.mark.parametrize("make", [lambda: list(range(50_000)), s.dag_bomb, s.EndlessMapping, s.EndlessSet])
def test_number_of_values_is_bounded(make):
    """Values beyond the limit are not converted, and one mark states that they are left out."""
    value, marks = plain(make())
    count, todo = 0, [value]
    while todo:
        value, count = todo.pop(), count + 1
        todo += value if type(value) is list else value.values() if type(value) is dict else ()

    # Keys that are not strings count as well.
    assert MAX_VALUES // 2 <= count <= MAX_VALUES + 2
    assert f"left out: more than {MAX_VALUES} values" in marks.values() or marks["…"].endswith(" more")


def test_members_beyond_the_limit_are_still_a_dictionary():
    """After a value that uses up the limit, later members are left out and marked, in a dictionary."""
    sanitizer = JsonSanitizer()
    sanitizer.sanitize(list(range(MAX_VALUES + 5)), "first")
    assert sanitizer.sanitize_members({"a": 1, "b": 2}) == {"a": ""}
    assert sanitizer.marks["a"] == f"left out: more than {MAX_VALUES} values"


def test_member_named_like_the_count_of_marks_is_counted():
    """A member called … displaces no other mark, before or after the limit is reached."""
    sanitizer = JsonSanitizer()
    sanitizer.sanitize_members({"…": b"x", **{str(number): b"x" for number in range(MAX_MARKS)}, "more": {"…": b"x"}})
    assert len(sanitizer.marks) == MAX_MARKS
    assert sanitizer.marks["…"] == "3 more"


def test_marks_beyond_the_limit_are_counted():
    """Marks beyond the limit are counted instead of listed."""
    _, marks = plain([b""] * (MAX_MARKS + 7))
    assert len(marks) == MAX_MARKS + 1
    assert marks["…"] == "7 more"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1: "a", "1": "b"}, {"1": "a", "1_1": "b"}),
        ({1: "a", "1_1": "b", "1": "c"}, {"1": "a", "1_1": "b", "1_2": "c"}),
        ({"1_1": "b", 1: "a", "1": "c"}, {"1_1": "b", "1": "a", "1_2": "c"}),
    ],
)
def test_keys_with_equal_texts_keep_their_values(value, expected):
    """Keys with the same text get different names."""
    assert plain(value)[0] == expected


def test_thousands_of_keys_with_equal_texts_keep_their_values():
    """Thousands of keys with one text all keep their values."""
    value, _ = plain({s.SameText(): number for number in range(4_000)})
    assert sorted(value.values()) == list(range(4_000))


def test_text_contains_no_memory_address():
    """The text of an object does not contain its memory address."""
    for value in (object(), s.deep, Exception(object()), {object(): 1}, {"a": object()}.values().__iter__()):
        text = json.dumps(plain(value)[0])
        assert "0x" not in text


@pytest.mark.parametrize("length", [MAX_TEXT, MAX_TEXT + 1])
def test_text_of_an_object_is_whole_up_to_the_limit(length):
    """Only a text of more than 1,000 characters has a mark with its length."""
    text = "y" * length
    _, marks = plain(type("Own", (), {"__str__": lambda self: text})())
    assert marks["x"].startswith("replaced: first 1000 of 1001") == (length > 1_000)


def test_long_text_of_an_object_is_truncated():
    """The text of an object without a JSON form is truncated to the limit, and the mark has its length."""

    class Long:
        def __str__(self):
            return "y" * 5_000

    value, marks = plain(Long())
    assert value == "y" * MAX_TEXT
    assert marks["x"].startswith(f"replaced: first {MAX_TEXT} of 5000 characters")


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
def test_sanitizer_propagates_signals(signal):
    """KeyboardInterrupt and SystemExit propagate."""

    class Interrupted(Exception):
        def __str__(self):
            raise signal

    with pytest.raises(signal):
        plain(Interrupted())
    with pytest.raises(signal):
        exception_text(Interrupted())
    with pytest.raises(signal):
        plain(s.HostileMapping(signal()))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("u", "u"),
        ("", ""),
        (42, "42"),
        (-(2**63), str(-(2**63))),
        (2**64, str(2**64)),
        (-(2**200), str(-(2**200))),
        (2**14_000 - 1, str(2**14_000 - 1)),
        (2**14_000, None),
        (10**5_000, None),
        (True, None),
        (1.0, None),
        (None, None),
        (b"u", None),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (s.Colour.RED, "red"),
        (s.LowerOperation.STORE, "store"),
        (s.Number.ONE, "1"),
        (s.Colour.NESTED, None),
        (s.HostileStr("u"), "u"),
        (s.HostileInt(7), "7"),
        (s.HostileUUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (s.ObjectId("507f1f77bcf86cd799439011"), "507f1f77bcf86cd799439011"),
        (s.UserId("u-1"), "u-1"),
        (ipaddress.ip_address("203.0.113.7"), "203.0.113.7"),
        (s.ObjectId("two words"), None),
        (s.ObjectId(""), None),
        (s.ObjectId("x" * 200), "x" * 200),
        (s.ObjectId("x" * 201), None),
        (s.ObjectId("a\ud800"), None),
        (s.SameText(), None),
        (s.Record("ann", 1), None),
        (s.Point(), None),
        (decimal.Decimal(5), None),
        (dt.date(2025, 1, 1), None),
        (ValueError("u"), None),
        (["u"], None),
        ({"u": 1}, None),
        (object(), None),
    ],
    ids=lambda value: type_name(value),
)
def test_identifier_text_accepts_identifiers_only(value, text):
    """An identifier is a string, an integer, a UUID, an Enum of these, or an object with a stable text.

    The text is exactly a string.
    """
    found = identifier_text(value)
    assert found == text
    assert type(found) in (str, type(None))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (KeyError("k"), "KeyError: 'k'"),
        (s.BadError(), "BadError: (its text can't be read)"),
        (s.FatalError(), "FatalError: (its text can't be read)"),
        (s._ErrorOfLyingMeta("x"), "_ErrorOfLyingMeta: x"),
        (s.ErrorOfHostileText(), "ErrorOfHostileText: text"),
        (RuntimeError("<object object at 0x7f0123456789>"), "RuntimeError: <object object>"),
    ],
    ids=lambda value: type_name(value),
)
def test_exception_text_is_the_last_line_of_its_traceback(error, text):
    """The text of an exception is the last line of its traceback, without addresses, whatever its ``__str__`` does."""
    assert exception_text(error) == text


def test_key_that_needs_a_replacement_is_marked_by_its_mapping():
    """The mark of a key has the path of its mapping and the word key; a key is text in any case."""
    assert plain({b"\xff": 1}) == ({"/w==": 1}, {"x key": "replaced: bytes as base64"})
    sanitizer = JsonSanitizer()
    assert sanitizer.sanitize_members({b"\xff": 1}) == {"/w==": 1}
    assert sanitizer.marks == {"key": "replaced: bytes as base64"}


class Index:
    """An integer of another library."""

    def __init__(self, value):
        self._value = value

    def __index__(self):
        return self._value


numbers.Integral.register(Index)


@pytest.mark.parametrize(("value", "text"), [(7, "7"), (2**14_000, None)])
def test_integer_of_another_class_is_an_identifier(value, text):
    """An identifier may be an integer of any class that says that it is one."""
    assert identifier_text(Index(value)) == text


def test_integer_of_another_class_is_plain():
    """An integer of any class that says that it is one becomes one of Python."""
    assert plain(Index(7)) == (7, {})


def test_model_with_one_field_and_a_text_is_no_identifier():
    """A model of pydantic is a record, whatever its text and number of fields."""
    pydantic = pytest.importorskip("pydantic")

    class Key(pydantic.BaseModel, frozen=True):
        id: str

        def __str__(self):
            return self.id

        def __eq__(self, other):
            return isinstance(other, Key) and self.id == other.id

        def __hash__(self):
            return hash(self.id)

    assert identifier_text(Key(id="k1")) is None


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: s.Point(0, inner)])
def test_every_kind_of_container_is_one_level(wrap):
    """Lists, mappings and objects with fields may be nested equally deep."""
    value = "x"
    for _ in range(32):
        value = wrap(value)
    assert plain(value)[1] == {}
    assert set(plain(wrap(value))[1].values()) == {"replaced: nested deeper than 32"}


def test_type_name_is_qualified():
    """The name of a type is qualified, and without the module for builtins."""
    assert type_name(1) == "int"
    assert type_name(s.Point()) == "strategies.Point"
    assert type_name(uuid.UUID(int=1)) == "uuid.UUID"


def test_text_of_a_group_names_the_causes_of_its_groups():
    """The text of a group names the exceptions in it and in its groups, in order."""
    group = ExceptionGroup("both", [ValueError("a"), ExceptionGroup("inner", [KeyError("b"), s.BadError()]), OSError()])
    causes = "ValueError: a; KeyError: 'b'; BadError: (its text can't be read); OSError"
    assert exception_text(group) == f"ExceptionGroup: both (3 sub-exceptions): {causes}"


@given(st.integers(MAX_CAUSES - 1, MAX_CAUSES + 2))
def test_text_of_a_group_is_bounded(count):
    """For all groups, the text names at most `MAX_CAUSES` causes, and shows that there are more."""
    text = exception_text(ExceptionGroup("many", [ValueError(number) for number in range(count)]))
    assert text.count("ValueError") == min(count, MAX_CAUSES)
    assert text.endswith("; …") == (count > MAX_CAUSES)


def test_text_of_a_deep_group_needs_no_recursion():
    """A group that is nested thousands deep has a text."""
    group = s.deep(
        5_000, lambda inner: ExceptionGroup("g", [inner if isinstance(inner, Exception) else ValueError("x")])
    )
    assert exception_text(group) == "ExceptionGroup: g (1 sub-exception): ValueError: x"


def test_unset_field_leaves_the_others():
    """An object with a field that is not set keeps its other fields, and the field is marked."""
    value = s.Slotted(1)
    del value.y
    assert plain(value) == ({"x": 1}, {"x.y": "left out: not set"})


def test_field_of_msgspec_that_is_unset_is_marked():
    """A field that is `msgspec.UNSET` is not set."""
    assert plain(s.Struct(x=msgspec.UNSET)) == ({}, {"x.x": "left out: not set"})


def test_unreadable_member_leaves_the_others():
    """A member that raises is left out and marked, and the others stay."""

    class Settings(collections.UserDict):
        def __getitem__(self, key):
            return {"a": 1}[key]

    assert plain(Settings(a=1, b=2)) == ({"a": 1}, {"x.b": "left out: unreadable (KeyError)"})


def test_endless_unreadable_mapping_is_bounded():
    """A mapping without end, whose members all raise, ends at the limit of values."""

    class Unreadable(s.EndlessMapping):
        def __getitem__(self, key):
            raise KeyError(key)

    value, marks = plain(Unreadable())
    assert value == {}
    assert len(marks) == MAX_MARKS + 1


def test_model_has_its_extra_members_and_not_its_excluded_ones():
    """A pydantic model has its extra members; a field that it excludes is left out and marked."""
    pydantic = pytest.importorskip("pydantic")

    class Order(pydantic.BaseModel, extra="allow"):
        id: int
        pin: str = pydantic.Field(default="1234", exclude=True, repr=False)

    assert plain(Order(id=1, amount=500)) == ({"id": 1, "amount": 500}, {"x.pin": "left out: excluded by its class"})
