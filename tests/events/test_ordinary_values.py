"""Tests of `structlog_audit.events.ordinary_values`: the sanitizer is the oracle."""

import collections
import datetime as dt
import decimal
import json
import pathlib
import uuid

import msgspec
import pytest
import strategies as s
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit.events import ordinary_values
from structlog_audit.events.json_safe import JsonSanitizer
from structlog_audit.events.ordinary_values import MAX_DEPTH, MAX_VALUES, UnusualValueError, plain_members

ID = uuid.UUID("0197f3a0-c1d2-7d1e-9b0c-5d8e00000001")

ORDINARY = [
    *("text", 5, -(2**63), 2**64 - 1, 1.5, True, None, ID, s.Colour.RED, s.Number.ONE, s.LowerStatus.SUCCESS),
    *(dt.datetime(2025, 1, 15, 10, 30, 45, 123456, dt.UTC), dt.datetime(2025, 1, 15), dt.date(2025, 1, 15)),
    *(dt.time(10, 30), dt.timedelta(minutes=5), decimal.Decimal("1.50"), pathlib.PurePath("/a/b"), ValueError("x")),
    *((1, "a"), {1}, frozenset({ID}), collections.deque([1]), [ID, [s.Colour.NESTED]], collections.OrderedDict(a=1)),
    *({"a": {"b": {"c": {"d": ID}}}}, {1: "a", ID: "b"}, s.Point(3, s.Struct(4)), s.LikeAttrs(), s.LikePydantic()),
]
"""Values that applications log."""


def sanitized(value):
    """Return the JSON of *value* by the sanitizer, and its marks."""
    sanitizer = JsonSanitizer()
    return msgspec.json.encode(sanitizer.sanitize_members({"value": value})), sanitizer.marks


def plain(value):
    """Return the JSON of *value* by the fast conversion."""
    return msgspec.json.encode(plain_members({"value": value}, [MAX_VALUES]))


@pytest.mark.parametrize("value", ORDINARY, ids=lambda value: type(value).__name__)
def test_ordinary_value_needs_no_sanitizer(value):
    """The values of applications are converted at once, to the JSON of the sanitizer."""
    assert (plain(value), {}) == sanitized(value)


@pytest.mark.parametrize("make", s.HOSTILE, ids=lambda make: make.__name__)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: [value], lambda value: s.Point(1, value)])
def test_value_is_unusual_or_equals_that_of_the_sanitizer(make, wrap):
    """A value of any class raises, or has the JSON of the sanitizer, which marks nothing."""
    try:
        found = plain(wrap(make()))
    except Exception:
        return
    assert (found, {}) == sanitized(wrap(make()))


def _containers(inner):
    return st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(st.one_of(s.keys, st.integers(), st.uuids()), inner, max_size=3),
        st.builds(s.Point, st.integers(), inner),
    )


values = st.recursive(
    st.one_of(
        *(s.scalars, s.unruly_texts, st.integers(), st.floats(), st.uuids(), st.decimals(), st.dates(), st.times()),
        *(st.datetimes(), st.datetimes(timezones=st.timezones()), st.timedeltas(), st.binary(max_size=3)),
        st.sampled_from([*s.Colour, *s.LowerStatus, s.Struct(1)]),
    ),
    _containers,
    max_leaves=8,
)


@given(values)
def test_any_value_is_unusual_or_equals_that_of_the_sanitizer(value):
    """A value raises, or has the JSON of the sanitizer without a mark; lone surrogates are the encoder's part."""
    try:
        found = plain(value)
    except (UnusualValueError, ValueError):
        return
    assert (found, {}) == sanitized(value)


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1])
def test_depth_is_limited(levels):
    """Containers deeper than the limit are left to the sanitizer, which has one of its own."""
    value = s.deep(levels)
    if levels > MAX_DEPTH:
        with pytest.raises(UnusualValueError):
            plain(value)
    else:
        assert json.loads(plain(value)) == {"value": value}


@pytest.mark.parametrize("value", [list(range(MAX_VALUES)), s.dag_bomb(), s.cyclic_list(), s.cyclic_dict()])
def test_number_of_values_is_limited(value):
    """An event with very many values, the same container many times included, is left to the sanitizer."""
    with pytest.raises(UnusualValueError):
        plain(value)


def test_equal_keys_are_unusual():
    """Two keys with the same text are left to the sanitizer, which keeps both values."""
    with pytest.raises(UnusualValueError):
        plain({1: "a", "1": "b"})


def test_remembered_types_are_limited(monkeypatch):
    """Classes beyond the limit are converted all the same, but not remembered."""
    monkeypatch.setattr(ordinary_values, "_MAX_TYPES", 0)
    kind = type("Kind", (str,), {})
    assert json.loads(plain(kind("text"))) == {"value": "text"}
    assert kind not in ordinary_values._CONVERSIONS
