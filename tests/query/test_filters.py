"""The filters: what they mean, and that none of them ever silently means everything."""

import datetime as dt
import enum
import inspect
import math
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit._validation import require_choice, require_integer
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import EventStatus, OperationType
from structlog_audit.exceptions import AuditError, AuditTypeError, AuditValueError
from structlog_audit.query.filters import (
    ANY,
    ORDINARY,
    Filters,
    conditions,
    contains,
    microseconds,
    with_filter_signature,
)
from structlog_audit.recording.handler import AuditHandler

NOON = dt.datetime(2025, 1, 15, 12, tzinfo=dt.UTC)
SCALARS = [None, True, False, 0, 1, 1.5, "a", "b"]
JSON = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from("abc"), inner, max_size=3)),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)

EVENTS = st.builds(
    StoredEvent,
    event_id=st.sampled_from(["evt_1", "evt_2"]),
    timestamp=st.integers(-5, 5).map(lambda hours: NOON + dt.timedelta(hours=hours)),
    operation=st.sampled_from(["STORE", "RECALL", "delete"]),
    user_id=st.sampled_from([None, "ann", "bob"]),
    session_id=st.sampled_from([None, "s1", "s2"]),
    entry_ids=st.lists(st.sampled_from(["e1", "e2", "e3"]), max_size=3),
    metadata=OBJECTS,
    status=st.sampled_from(list(EventStatus)),
    duration_ms=st.sampled_from([None, -1.0, 0.0, 5.0, 10.5]),
    kind=st.sampled_from([None, None, "gap", "intent"]),
)


def one_or_many(values):
    return st.one_of(st.sampled_from(values), st.lists(st.sampled_from(values), max_size=3))


BOUNDS = {
    "start_time": st.one_of(st.none(), st.integers(-5, 0).map(lambda hours: NOON + dt.timedelta(hours=hours))),
    "end_time": st.one_of(st.none(), st.integers(0, 5).map(lambda hours: NOON + dt.timedelta(hours=hours))),
    "min_duration_ms": st.sampled_from([None, -1, 0, 5.0]),
    "max_duration_ms": st.sampled_from([None, 5, 10.5, math.inf]),
}
FILTERS = st.fixed_dictionaries(
    {},
    optional={
        "event_id": one_or_many(["evt_1", "evt_2", "evt_3"]),
        "user_id": one_or_many([None, "ann", "bob"]),
        "session_id": one_or_many([None, "s1", "s3"]),
        "operation": one_or_many(["STORE", "RECALL", "delete"]),
        "status": one_or_many(["SUCCESS", "FAILURE", "PARTIAL"]),
        "kind": one_or_many([None, "gap", "intent", "trail"]),
        "entry_ids": one_or_many(["e1", "e2", "e4"]),
        "metadata": OBJECTS,
        **BOUNDS,
    },
)


def naive_contains(value, wanted):
    """Containment of what is below the top, spelled as the manual says it: the same kind, and every part found."""
    kinds = {dict: "object", list: "array", bool: "boolean", int: "number", float: "number"}
    if kinds.get(type(value), type(value)) != kinds.get(type(wanted), type(wanted)):
        return False
    if type(wanted) is dict:
        missing = [name for name in wanted if name not in value or not naive_contains(value[name], wanted[name])]
        return missing == []
    if type(wanted) is list:
        missing = [item for item in wanted if not [True for have in value if naive_contains(have, item)]]
        return missing == []
    return value == wanted


def naive_match(event, filters):
    """The filters one by one, from the design's words."""
    for name in ("event_id", "user_id", "session_id", "operation", "status", "kind"):
        wanted = filters.get(name) if name in filters or name == "kind" else ...
        if wanted is ...:
            continue
        if getattr(event, name) not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    if "entry_ids" in filters:
        wanted = filters["entry_ids"] if isinstance(filters["entry_ids"], list) else [filters["entry_ids"]]
        if not set(wanted) & set(event.entry_ids):
            return False
    if not naive_contains(event.metadata, filters.get("metadata", {})):
        return False
    start, end = filters.get("start_time"), filters.get("end_time")
    if (start and event.timestamp < start) or (end and not event.timestamp < end):
        return False
    least, most = filters.get("min_duration_ms"), filters.get("max_duration_ms")
    if least is None and most is None:
        return True
    if event.duration_ms is None:
        return False
    return (-math.inf if least is None else least) <= event.duration_ms <= (math.inf if most is None else most)


@settings(max_examples=100, deadline=None)
@given(events=st.lists(EVENTS, min_size=1, max_size=20), filters=FILTERS)
def test_matching(events, filters):
    """Filters combine with AND, and each means what the design says, for all events and filters."""
    asked = conditions(**filters)
    for event in events:
        assert asked.matches(event) == naive_match(event, filters)


@settings(max_examples=100, deadline=None)
@given(value=OBJECTS, wanted=OBJECTS)
def test_containment(value, wanted):
    """Containment of objects is that of an independent telling of it, and everything contains itself and nothing."""
    assert contains(value, wanted) == naive_contains(value, wanted)
    assert contains(value, value)
    assert contains(value, {})


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        # the examples of the PostgreSQL manual, §8.14.3
        ("foo", "foo", True),
        ([1, 2, 3], [1, 3], True),
        ([1, 2, 3], [3, 1], True),
        ([1, 2, 3], [1, 2, 2], True),
        ({"product": "PostgreSQL", "version": 9.4, "jsonb": True}, {"version": 9.4}, True),
        ([1, 2, [1, 3]], [1, 3], False),
        ([1, 2, [1, 3]], [[1, 3]], True),
        ({"foo": {"bar": "baz"}}, {"bar": "baz"}, False),
        ({"foo": {"bar": "baz"}}, {"foo": {}}, True),
        (["foo", "bar"], "bar", True),
        ("bar", ["bar"], False),
        # and what follows from them
        ({"tags": ["a", "b"]}, {"tags": "a"}, False),
        ({"tags": ["a", "b"]}, {"tags": ["a"]}, True),
        ({"tags": ["a", "b"]}, {"tags": []}, True),
        ({"tags": "a"}, {"tags": []}, False),
        ({"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]}, True),
        ({"a": [{"b": 1}, {"c": 2}]}, {"a": [{"b": 1, "c": 2}]}, False),
        ({"a": {"b": [1]}}, {"a": {"b": [1]}}, True),
        ({"a": {}}, {"a": []}, False),
        ({"a": []}, {"a": {}}, False),
        ({"a": None}, {"a": None}, True),
        ({}, {"a": None}, False),
        ({"a": 1}, {"a": 1.0}, True),
        ({"a": 1}, {"a": True}, False),
        ({"a": False}, {"a": 0}, False),
        ({"a": True}, {"a": True}, True),
        ({"a": 2**63 - 1}, {"a": float(2**63)}, False),
        ({"a": "1"}, {"a": 1}, False),
        ([[1, 2]], [[1]], True),
        ([1], 1, True),
        ([[1]], 1, False),
        ({}, {}, True),
        ([], [], True),
    ],
)
def test_containment_as_postgresql_has_it(value, wanted, expected):
    """Metadata is compared as PostgreSQL's ``@>`` compares jsonb."""
    assert contains(value, wanted) is expected


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    SEVEN = 7


ID = uuid.UUID("0197f3a0-c1d2-7d1e-9b0c-5d8e2f4a6b7c")


@pytest.mark.parametrize(
    ("filters", "name", "values"),
    [
        ({"user_id": "ann"}, "user_id", {"ann"}),
        ({"user_id": None}, "user_id", {None}),
        ({"user_id": ["ann", None]}, "user_id", {"ann", None}),
        ({"user_id": ("ann", "bob")}, "user_id", {"ann", "bob"}),
        ({"user_id": {"ann"}}, "user_id", {"ann"}),
        ({"user_id": frozenset({"ann"})}, "user_id", {"ann"}),
        ({"user_id": []}, "user_id", set()),
        ({"user_id": 7}, "user_id", {"7"}),
        ({"user_id": Number.SEVEN}, "user_id", {"7"}),
        ({"user_id": Colour.RED}, "user_id", {"red"}),
        ({"user_id": ID}, "user_id", {str(ID)}),
        ({"session_id": None}, "session_id", {None}),
        ({"operation": OperationType.STORE}, "operation", {"STORE"}),
        ({"operation": "store"}, "operation", {"STORE"}),
        ({"operation": "delete"}, "operation", {"delete"}),
        ({"operation": ["recall", "Delete"]}, "operation", {"RECALL", "Delete"}),
        ({"status": "failure"}, "status", {"FAILURE"}),
        ({"status": [EventStatus.PARTIAL, "SUCCESS"]}, "status", {"PARTIAL", "SUCCESS"}),
        ({"kind": "gap"}, "kind", {"gap"}),
        ({"kind": [None, "gap"]}, "kind", {None, "gap"}),
        ({"kind": None}, "kind", {None}),
        ({}, "kind", {None}),
        ({"event_id": "evt_1"}, "event_id", {"evt_1"}),
    ],
)
def test_the_form_of_names(filters, name, values):
    """Names take the form that lines have, one value means that one, and without a kind the ordinary events are meant."""
    assert dict(conditions(**filters).names)[name] == values


@pytest.mark.parametrize("name", ["start_time", "end_time", "min_duration_ms", "max_duration_ms"])
def test_none_means_no_bound(name):
    """For times and durations None is the same as leaving the filter out."""
    assert conditions(**{name: None}) == conditions() == ORDINARY
    assert conditions(**{name: None}) == ORDINARY


@pytest.mark.parametrize("name", Filters.__annotations__)
def test_any_is_the_same_as_no_filter(name):
    """`ANY` as the value of a filter matches every event, as leaving the filter out does."""
    assert conditions(**{name: ANY}) == conditions()


def test_a_signature_fits_a_screen():
    """The signature in help() names the types of filters by short aliases, without quotes, in at most 700 characters."""
    signature = str(inspect.signature(AuditHandler.query_events))
    assert "user_id: OptionalIdFilter = ANY" in signature
    assert "limit: int | None = None" in signature
    assert len(signature) < 700


def test_what_every_ordinary_event_matches():
    """Only conditions that every ordinary event meets are bare."""
    assert conditions() == ORDINARY
    assert conditions(kind=None) == ORDINARY
    assert conditions(kind="gap") != ORDINARY
    assert conditions(metadata={}) != ORDINARY


@pytest.mark.parametrize(
    ("filters", "kind", "words"),
    [
        ({"user": "ann"}, AuditTypeError, ["unknown filter 'user'", "user_id", "min_duration_ms"]),
        ({"limit": 3}, AuditTypeError, ["unknown filter 'limit'"]),
        ({"event_id": None}, AuditTypeError, ["event_id=None", "leave the filter out"]),
        ({"operation": None}, AuditTypeError, ["operation=None"]),
        ({"status": None}, AuditTypeError, ["status=None"]),
        ({"operation": ["STORE", None]}, AuditTypeError, ["operation=None"]),
        ({"entry_ids": None}, AuditTypeError, ["entry_ids=None", "leave the filter out"]),
        ({"entry_ids": ["a", None]}, AuditTypeError, ["entry_ids"]),
        ({"entry_ids": [["a"]]}, AuditTypeError, ["entry_ids"]),
        ({"metadata": None}, AuditTypeError, ["metadata=None", "dictionary"]),
        ({"metadata": [("a", 1)]}, AuditTypeError, ["metadata"]),
        ({"user_id": 1.5}, AuditTypeError, ["user_id=1.5", "float"]),
        ({"user_id": True}, AuditTypeError, ["user_id=True", "bool"]),
        ({"user_id": b"ann"}, AuditTypeError, ["user_id=b'ann'", "bytes"]),
        ({"user_id": {"a": 1}}, AuditTypeError, ["user_id", "dict"]),
        ({"user_id": [["ann"]]}, AuditTypeError, ["user_id", "list"]),
        ({"status": "DONE"}, AuditValueError, ["status='DONE'", "SUCCESS, FAILURE, PARTIAL"]),
        ({"kind": "note"}, AuditValueError, ["kind='note'", "intent, gap, checkpoint, part, trail"]),
        ({"start_time": "2025-01-15"}, AuditTypeError, ["start_time='2025-01-15'", "datetime"]),
        ({"end_time": dt.date(2025, 1, 15)}, AuditTypeError, ["end_time", "datetime"]),
        ({"end_time": 1.0}, AuditTypeError, ["end_time=1.0"]),
        ({"min_duration_ms": "5"}, AuditTypeError, ["min_duration_ms='5'", "milliseconds"]),
        ({"max_duration_ms": True}, AuditTypeError, ["max_duration_ms=True"]),
        ({"min_duration_ms": math.nan}, AuditTypeError, ["min_duration_ms=nan"]),
        (
            {"start_time": NOON, "end_time": NOON - dt.timedelta(microseconds=1)},
            AuditValueError,
            ["start_time=", "end_time=", "swap them"],
        ),
        ({"min_duration_ms": 2, "max_duration_ms": 1}, AuditValueError, ["min_duration_ms=2", "max_duration_ms=1"]),
    ],
)
def test_what_cannot_be_meant_is_an_error(filters, kind, words):
    """A filter that can't be meant is an error that names it and says what to do; it never means everything."""
    with pytest.raises(kind) as caught:
        conditions(**filters)
    assert isinstance(caught.value, AuditError)
    assert isinstance(caught.value, TypeError if kind is AuditTypeError else ValueError)
    for word in words:
        assert word in str(caught.value)


def test_an_empty_range_is_no_error():
    """A range from a time to itself is not reversed; it is half-open, so nothing lies in it."""
    asked = conditions(start_time=NOON, end_time=NOON)
    assert not asked.matches(StoredEvent("evt_1", NOON, "STORE"))


@pytest.mark.parametrize(("seconds", "expected"), [(-1e-6, False), (0, True), (59.999999, True), (60, False)])
def test_times_are_half_open(seconds, expected):
    """The start belongs to a range, the end does not."""
    asked = conditions(start_time=NOON, end_time=NOON + dt.timedelta(minutes=1))
    assert asked.matches(StoredEvent("evt_1", NOON + dt.timedelta(seconds=seconds), "STORE")) is expected


@pytest.mark.parametrize(("duration", "expected"), [(0.9, False), (1, True), (2, True), (2.1, False), (None, False)])
def test_durations_include_both_ends(duration, expected):
    """Both ends belong to a range of durations; an event without a duration is in none."""
    asked = conditions(min_duration_ms=1, max_duration_ms=2)
    assert asked.matches(StoredEvent("evt_1", NOON, "STORE", duration_ms=duration)) is expected


def test_a_naive_time_is_local_time():
    """A naive datetime means local time, as in Python itself, and another zone the same moment."""
    naive = dt.datetime(2025, 1, 15, 12)
    assert conditions(start_time=naive).start_time == naive.astimezone(dt.UTC)
    elsewhere = NOON.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30)))
    assert conditions(end_time=elsewhere).end_time == NOON
    assert conditions(start_time=dt.datetime.min, end_time=dt.datetime.max).matches(StoredEvent("e", NOON, "STORE"))


def test_metadata_takes_the_form_of_lines():
    """Values of metadata are compared in the form in which lines have them."""
    asked = conditions(metadata={"id": ID, "at": NOON, "colours": (Colour.RED,)})
    stored = {"id": str(ID), "at": "2025-01-15T12:00:00+00:00", "colours": ["red", "blue"]}
    assert asked.matches(StoredEvent("evt_1", NOON, "STORE", metadata=stored))


@settings(max_examples=100, deadline=None)
@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_microseconds(moment):
    """Whole microseconds since 1970 lead back to the moment, for all of the calendar."""
    assert dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=microseconds(moment)) == moment


@pytest.mark.parametrize(("value", "kind"), [(1.0, TypeError), ("1", TypeError), (True, TypeError), (-1, ValueError)])
def test_whole_numbers(value, kind):
    """A parameter that is no whole number is a type error, one that is too small a value error; both name it."""
    assert require_integer("limit", 0, least=0) == 0
    with pytest.raises(kind, match="limit="):
        require_integer("limit", value, least=0)


def test_choices():
    """A parameter with a few values takes no other; the message lists them."""
    assert require_choice("on_error", "retry", ("retry", "raise")) == "retry"
    with pytest.raises(AuditValueError, match=r"on_error='ignore': expected one of 'retry', 'raise'"):
        require_choice("on_error", "ignore", ("retry", "raise"))


@pytest.mark.parametrize("method", ["query_events", "iter_events", "count_events", "get_statistics", "export_to_file"])
def test_signatures_spell_the_filters_out(method):
    """help() and editors see every filter, by keyword only, before the method's own keywords."""
    parameters = inspect.signature(getattr(AuditHandler, method)).parameters
    filters = [name for name in parameters if name in Filters.__annotations__]
    assert filters == list(Filters.__annotations__)
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in filters)
    assert all(parameters[name].default is ANY for name in filters)
    assert not [p for p in parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]


def test_spelled_out_keeps_the_order_of_kinds():
    """Positional parameters stay first, the method's own keywords come behind the filters."""

    @with_filter_signature
    def method(self, path, *, format=None, **filters):
        return path, format, filters

    names = list(inspect.signature(method).parameters)
    assert names == ["self", "path", *Filters.__annotations__, "format"]
    assert method(1, 2, user_id=3) == (2, None, {"user_id": 3})
