"""Tests of the filters: their meaning, and that an invalid filter never silently matches everything."""

import datetime as dt
import enum
import inspect
import math
import re
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit._validation import require_choice, require_integer
from structlog_audit.events import operation_classes
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import EventStatus, OperationType
from structlog_audit.events.operation_classes import OperationClasses
from structlog_audit.exceptions import AuditError, AuditTypeError, AuditValueError
from structlog_audit.query.filters import (
    ANY,
    ORDINARY,
    Filters,
    ListFilter,
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

CLASS_OF = {"STORE": "create", "RECALL": "read", "delete": "delete", "frobnicate": "unclassified"}
"""Operations with their classes."""

EVENTS = st.builds(
    StoredEvent,
    event_id=st.sampled_from(["evt_1", "evt_2"]),
    timestamp=st.integers(-5, 5).map(lambda hours: NOON + dt.timedelta(hours=hours)),
    operation=st.sampled_from([*CLASS_OF]),
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
        "operation": one_or_many(["STORE", "RECALL", "delete", "frobnicate"]),
        "operation_class": one_or_many([*CLASS_OF.values(), None]),
        "status": one_or_many(["SUCCESS", "FAILURE", "PARTIAL"]),
        "kind": one_or_many([None, "gap", "intent", "trail"]),
        "entry_ids": one_or_many(["e1", "e2", "e4"]),
        "metadata": OBJECTS,
        **BOUNDS,
    },
)


def naive_contains(value, wanted):
    """Return whether *value* contains *wanted*, as the PostgreSQL manual defines it: same type, and every part found."""
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
    """Return whether *event* matches *filters*, checked one by one."""
    for name in ("event_id", "user_id", "session_id", "operation", "status", "kind"):
        wanted = filters.get(name) if name in filters or name == "kind" else ...
        if wanted is ...:
            continue
        if getattr(event, name) not in (wanted if isinstance(wanted, list) else [wanted]):
            return False
    if "operation_class" in filters:
        wanted = (
            filters["operation_class"] if isinstance(filters["operation_class"], list) else [filters["operation_class"]]
        )
        if CLASS_OF[event.operation] not in [name or "unclassified" for name in wanted]:
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
@given(st.lists(EVENTS, max_size=6), st.data())
def test_filter_of_a_list_selects_the_events_that_match(events, data):
    """For all events and conditions, filtering a list gives the events that match one by one, in their order."""
    wanted = data.draw(
        st.sampled_from([{}, {"user_id": "ann"}, {"user_id": None, "operation": "STORE"}, {"kind": ["gap", None]}])
    )
    more = data.draw(
        st.sampled_from(
            [{}, {"start_time": NOON}, {"entry_ids": "e1"}, {"metadata": {"a": 1}}, {"operation_class": "read"}]
        )
    )
    found = conditions(**wanted, **more)
    assert ListFilter(found)(events) == [event for event in events if found.matches(event)]


@given(events=st.lists(EVENTS, min_size=1, max_size=20), filters=FILTERS)
def test_filters_combine_with_and(events, filters):
    """Conditions match as a plain check of each filter does, for all events and filters."""
    found = conditions(**filters)
    for event in events:
        assert found.matches(event) == naive_match(event, filters)


@settings(max_examples=100, deadline=None)
@given(value=OBJECTS, wanted=OBJECTS)
def test_containment_equals_its_definition(value, wanted):
    """Containment equals a plain implementation of its definition, for all objects."""
    assert contains(value, wanted) == naive_contains(value, wanted)


@given(value=OBJECTS)
def test_object_contains_itself_and_the_empty_object(value):
    """Every object contains itself and the empty object."""
    assert contains(value, value)
    assert contains(value, {})


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        # Examples of the PostgreSQL manual, §8.14.3.
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
        # Consequences of the definition.
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
def test_containment_is_that_of_postgresql(value, wanted, expected):
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
        ({"user_id": {"ann": 1, 7: 2}.keys()}, "user_id", {"ann", "7"}),
        ({"user_id": {1: "ann"}.values()}, "user_id", {"ann"}),
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
def test_names_are_normalized_to_the_form_in_lines(filters, name, values):
    """Names become sets of texts as in lines; without ``kind`` only application events match."""
    assert dict(conditions(**filters).names)[name] == values


@pytest.mark.parametrize("name", ["start_time", "end_time", "min_duration_ms", "max_duration_ms"])
def test_bound_of_none_equals_no_filter(name):
    """For times and durations, None is the same as omitting the filter."""
    assert conditions(**{name: None}) == conditions() == ORDINARY


@pytest.mark.parametrize("name", Filters.__annotations__)
def test_any_equals_no_filter(name):
    """`ANY` as the value of a filter is the same as omitting the filter."""
    assert conditions(**{name: ANY}) == conditions()


def test_signature_of_a_query_fits_a_screen():
    """The signature in help() names the types of filters by short aliases, without quotes, in at most 700 characters."""
    signature = str(inspect.signature(AuditHandler.query_events))
    assert "user_id: OptionalIdFilter = ANY" in signature
    assert "limit: int | None = None" in signature
    assert signature.endswith(" -> list[AuditEvent]")
    assert len(signature) < 700


def test_only_conditions_that_match_every_application_event_are_ordinary():
    """Conditions equal `ORDINARY` only if every application event matches them."""
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
        (
            {"operation_class": "deletion"},
            AuditValueError,
            ["operation_class='deletion'", "create, read", "unclassified"],
        ),
        ({"operation_class": 5}, AuditValueError, ["operation_class=5:", "create, read"]),
        ({"status": [7]}, AuditValueError, ["status=7:", "SUCCESS, FAILURE, PARTIAL"]),
        ({"kind": 5}, AuditValueError, ["kind=5:", "intent, gap"]),
        ({"operation_class": ["read", 1.5]}, AuditTypeError, ["operation_class=1.5", "float"]),
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
def test_invalid_filter_raises_an_error_that_names_it(filters, kind, words):
    """An invalid filter raises an error with its name, its value and the expected values."""
    with pytest.raises(kind) as caught:
        conditions(**filters)
    assert isinstance(caught.value, AuditError)
    assert isinstance(caught.value, TypeError if kind is AuditTypeError else ValueError)
    for word in words:
        assert word in str(caught.value)


def test_registered_operation_is_found_by_its_class(monkeypatch):
    """The class is the one that the operation has when an event is compared: entries of the application count."""
    found = conditions(operation_class="update")
    event = StoredEvent("evt_1", NOON, "invoice.settle")
    assert not found.matches(event)
    monkeypatch.setattr(operation_classes, "_registered", OperationClasses({"settle": "update"}))
    assert found.matches(event)


def test_empty_range_matches_nothing():
    """A range from a time to itself is valid, and, being half-open, contains no event."""
    found = conditions(start_time=NOON, end_time=NOON)
    assert not found.matches(StoredEvent("evt_1", NOON, "STORE"))


@pytest.mark.parametrize(("seconds", "expected"), [(-1e-6, False), (0, True), (59.999999, True), (60, False)])
def test_range_of_times_is_half_open(seconds, expected):
    """A range of times includes its start and excludes its end."""
    found = conditions(start_time=NOON, end_time=NOON + dt.timedelta(minutes=1))
    assert found.matches(StoredEvent("evt_1", NOON + dt.timedelta(seconds=seconds), "STORE")) is expected


@pytest.mark.parametrize(("duration", "expected"), [(0.9, False), (1, True), (2, True), (2.1, False), (None, False)])
def test_range_of_durations_includes_both_ends(duration, expected):
    """A range of durations includes both ends, and excludes events without a duration."""
    found = conditions(min_duration_ms=1, max_duration_ms=2)
    assert found.matches(StoredEvent("evt_1", NOON, "STORE", duration_ms=duration)) is expected


def test_naive_time_is_local_time():
    """A naive datetime is local time, as in Python itself."""
    naive = dt.datetime(2025, 1, 15, 12)
    assert conditions(start_time=naive).start_time == naive.astimezone(dt.UTC)


def test_time_of_another_zone_is_converted_to_utc():
    """A datetime of another zone is the same time in UTC."""
    elsewhere = NOON.astimezone(dt.timezone(dt.timedelta(hours=5, minutes=30)))
    assert conditions(end_time=elsewhere).end_time == NOON


def test_naive_ends_of_the_calendar_are_valid_bounds():
    """The first and last datetime are valid bounds, although no zone could convert them."""
    found = conditions(start_time=dt.datetime.min, end_time=dt.datetime.max)
    assert found.matches(StoredEvent("e", NOON, "STORE"))


def test_metadata_is_compared_in_the_form_of_lines():
    """Values of ``metadata=`` are converted as values of events are before they are compared."""
    found = conditions(metadata={"id": ID, "at": NOON, "colours": (Colour.RED,)})
    stored = {"id": str(ID), "at": "2025-01-15T12:00:00+00:00", "colours": ["red", "blue"]}
    assert found.matches(StoredEvent("evt_1", NOON, "STORE", metadata=stored))


@settings(max_examples=100, deadline=None)
@given(st.datetimes(timezones=st.just(dt.UTC)))
def test_microseconds_identify_every_time_of_the_calendar(time):
    """The microseconds since 1970 convert back to the time, for all times."""
    assert dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=microseconds(time)) == time


@pytest.mark.parametrize(
    ("value", "kind"), [(1.0, TypeError), ("1", TypeError), (True, TypeError), (-1, ValueError), (10**20, ValueError)]
)
def test_invalid_integer_raises_an_error_that_names_the_parameter(value, kind):
    """A parameter that is not an integer raises a TypeError, one that is too small or beyond all memory a ValueError."""
    with pytest.raises(kind, match="limit="):
        require_integer("limit", value, least=0)


def test_valid_integer_and_choice_are_returned():
    """Valid values are returned unchanged."""
    assert require_integer("limit", 0, least=0) == 0
    assert require_choice("on_error", "retry", ("retry", "raise")) == "retry"


def test_unknown_choice_raises_an_error_that_lists_the_choices():
    """A value that is not among the choices raises an error that lists them."""
    with pytest.raises(AuditValueError, match=r"on_error='ignore': expected one of 'retry', 'raise'"):
        require_choice("on_error", "ignore", ("retry", "raise"))


@pytest.mark.parametrize("method", ["query_events", "iter_events", "count_events", "get_statistics", "export_to_file"])
def test_signatures_list_every_filter_by_keyword(method):
    """help() and editors show every filter, by keyword only and without a catch-all for others."""
    parameters = inspect.signature(getattr(AuditHandler, method)).parameters
    filters = [name for name in parameters if name in Filters.__annotations__]
    assert filters == list(Filters.__annotations__)
    assert all(parameters[name].kind is inspect.Parameter.KEYWORD_ONLY for name in filters)
    assert all(parameters[name].default is ANY for name in filters)
    assert not [p for p in parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]


def test_signature_keeps_positional_parameters_before_the_filters():
    """Positional parameters come first, and other keywords after the filters."""

    @with_filter_signature
    def method(self, path, *, format=None, **filters):
        return path, format, filters

    names = list(inspect.signature(method).parameters)
    assert names == ["self", "path", *Filters.__annotations__, "format"]
    assert method(1, 2, user_id=3) == (2, None, {"user_id": 3})


def test_signature_keeps_a_result_that_is_not_written_as_text():
    """The annotation of the result stays as it is: a type stays a type."""

    def method(self, **filters):
        pass

    method.__annotations__["return"] = int
    assert inspect.signature(with_filter_signature(method)).return_annotation is int


NOW = dt.datetime(2025, 3, 30, 10, 30, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("filters", "start", "end"),
    [
        ({"since": "1h"}, NOW - dt.timedelta(hours=1), None),
        ({"until": dt.timedelta(hours=1)}, None, NOW - dt.timedelta(hours=1)),
        ({"since": "2d", "end_time": NOW}, NOW - dt.timedelta(days=2), NOW),
        ({"since": None, "until": None}, None, None),
        ({"since": ANY}, None, None),
    ],
)
def test_since_and_until_are_the_bounds_of_the_time_range(filters, start, end):
    """Both count from the clock of the source, and combine with the other bound."""
    found = conditions(lambda: NOW, **filters)
    assert (found.start_time, found.end_time) == (start, end)


@pytest.mark.parametrize(
    ("filters", "error", "message"),
    [
        ({"since": "1h", "start_time": NOW}, AuditTypeError, "expected one of them"),
        ({"since": "1h", "until": "2h"}, AuditValueError, "since='1h' must not be greater than until='2h'"),
        ({"since": "yesteday"}, AuditValueError, "Did you mean 'yesterday'"),
        ({"until": 7}, AuditTypeError, "until=7: expected a datetime, a date, a timedelta or a text"),
        ({"start_time": "7d"}, AuditTypeError, "a date, a timedelta or a text belongs to since="),
        ({"end_time": dt.date(2025, 1, 1)}, AuditTypeError, "belongs to until="),
    ],
)
def test_mistake_in_since_or_until_is_an_error(filters, error, message):
    """A filter never matches everything in silence."""
    with pytest.raises(error, match=re.escape(message)):
        conditions(lambda: NOW, **filters)
