"""Tests of `structlog_audit.events.conversion`: from fields to payloads."""

import datetime as dt
import decimal
import fractions
import logging
import subprocess
import sys
import uuid
from collections import OrderedDict, deque
from types import MappingProxyType

import msgspec
import pytest
import strategies as s
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from structlog_audit.events import conversion
from structlog_audit.events.codec import MARKS, encode_payload
from structlog_audit.events.conversion import UNNAMED, convert
from structlog_audit.events.event import EventStatus, OperationType
from structlog_audit.events.payload import Payload

FAILURE, PARTIAL, SUCCESS = EventStatus.FAILURE, EventStatus.PARTIAL, EventStatus.SUCCESS


def members(payload):
    """Return the members of *payload* that are not absent."""
    return {
        name: value for name in payload.__struct_fields__ if (value := getattr(payload, name)) not in (None, [], {})
    }


# --- members and metadata --------------------------------------------------------------------------------------------


def test_field_that_is_not_a_member_goes_into_the_metadata():
    """Members of an event are members; any other field goes into the metadata."""
    own = {
        "operation": "STORE",
        "user_id": "u",
        "session_id": "s",
        "entry_ids": ["e"],
        "status": "PARTIAL",
        "error_message": "half",
        "duration_ms": 1.5,
    }
    assert members(convert({**own, "metadata": {"a": 1}, "b": 2})) == {**own, "metadata": {"a": 1, "b": 2}}


@pytest.mark.parametrize("name", ["event_id", "timestamp", "kind", "part_of", "writer", "seq", "prev"])
def test_field_cannot_forge_a_member_of_the_recorder(name):
    """A field with the name of a member that the recorder assigns is kept in the metadata only."""
    payload = convert({"operation": "STORE", name: "forged"})
    assert members(payload) == {"operation": "STORE", "metadata": {name: "forged"}, "status": SUCCESS}


@given(s.well_typed, s.others)
@settings(max_examples=200, deadline=None)
def test_metadata_contains_every_value(fields, others):
    """For all fields, every value is in the metadata, and the keys of ``metadata=`` win."""
    others = {name: value for name, value in others.items() if name not in conversion._MEMBERS}
    given = fields.get("metadata", {})
    metadata = convert({**fields, **others}).metadata
    assert {name: metadata[name] for name in given} == given
    assert len(metadata) == len(given) + len(others)
    for name, value in others.items():
        assert value in [kept for key, kept in metadata.items() if key.rstrip("_") == name.rstrip("_")]


@pytest.mark.parametrize("odd", [{}, {"odd": b""}], ids=["fast", "by hand"])
@pytest.mark.parametrize(
    ("given", "others", "merged"),
    [
        ({"a": 1}, {"a": 2}, {"a": 1, "a_": 2}),
        ({"a": 1, "a_": 2}, {"a": 3}, {"a": 1, "a_": 2, "a__": 3}),
        ({"a": 1}, {"a": 2, "a_": 3}, {"a": 1, "a_": 2, "a__": 3}),
        ({"kind": 1}, {"kind": "gap"}, {"kind": 1, "kind_": "gap"}),
        ({MARKS: "forged"}, {}, {f"{MARKS}_": "forged"}),
        ({}, {MARKS: "forged"}, {f"{MARKS}_": "forged"}),
        ({MARKS: 1}, {MARKS: 2, f"{MARKS}_": 3}, {f"{MARKS}_": 1, f"{MARKS}__": 2, f"{MARKS}___": 3}),
    ],
)
def test_colliding_names_get_underscores(given, others, merged, odd):
    """A key of ``metadata=`` wins over a field of that name, which is kept as ``key_``; the place of the marks stays free."""
    metadata = convert({"operation": "X", "metadata": {**given, **odd}, **others}).metadata
    if odd:
        assert metadata.pop("odd") == ""
        assert metadata.pop(MARKS) == {"odd": "replaced: bytes as base64"}
    assert metadata == merged


@given(s.well_typed, s.usual_metadata)
@settings(max_examples=200, deadline=None)
def test_conversion_by_hand_equals_the_fast_path(fields, metadata):
    """For all well-typed events, the fast path and the conversion by hand give the same payload."""
    fields = {**fields, "metadata": metadata}
    assert conversion._convert_by_hand(fields) == msgspec.convert(fields, conversion.Payload)


@given(s.well_typed, s.usual_metadata, s.usual_metadata)
@settings(max_examples=200, deadline=None)
def test_gathered_metadata_equals_that_by_hand(fields, metadata, others):
    """For all well-typed events with other fields whose names are free, both paths merge the metadata alike."""
    taken = {*conversion._MEMBERS, *metadata, MARKS}
    others = {name: value for name, value in others.items() if name not in taken}
    fields = {**others, **fields, "metadata": metadata}
    assert conversion._convert_by_hand(fields) == msgspec.convert(
        conversion._gather_metadata(fields), conversion.Payload
    )


@given(s.any_fields)
@settings(max_examples=s.examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_line_equals_that_of_the_sanitizer(monkeypatch, fields):
    """For all fields an application could pass, the line is that of the sanitizer, which the fast conversion replaces."""

    def line():
        return encode_payload(convert(s.made(fields)), 32_000)

    # The second time, the names of the values that msgspec refuses are known.
    lines = [line(), line()]
    with monkeypatch.context() as patches:
        patches.setattr(conversion, "refused_members", set())
        patches.setattr(conversion, "refused_names", set())
        patches.setattr(conversion, "convert_refused", lambda members, mismatch: None)
        patches.setattr(conversion, "_ordinary_metadata", lambda metadata, misfits, others: None)
        assert lines == [line()] * 2


@pytest.mark.parametrize("odd", [None, b""], ids=["fast", "by hand"])
def test_payload_is_a_copy(odd):
    """Later changes of the caller's containers have no effect on the payload."""
    fields = {"operation": "X", "entry_ids": ["e"], "metadata": {"a": [1], "odd": odd}, "b": {"c": [2]}}
    payload = convert(fields)
    fields["entry_ids"].append("later")
    fields["metadata"]["a"].append("later")
    fields["b"]["c"].append("later")
    fields["metadata"]["d"] = "later"
    assert payload.entry_ids == ["e"]
    assert (payload.metadata["a"], payload.metadata["b"]) == ([1], {"c": [2]})
    assert "d" not in payload.metadata


def test_fields_are_not_changed():
    """Conversion does not change the fields, because other handlers use them too."""
    fields = {"operation": "store", "metadata": {MARKS: 1, "x": 1}, "x": b"", "user_id": 5}
    before = {**fields, "metadata": dict(fields["metadata"])}
    convert(fields)
    assert fields == before


# --- wrong types -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "kept", "why"),
    [
        ("operation", 1.5, 1.5, "not an operation name"),
        ("operation", ["STORE"], ["STORE"], "not an operation name"),
        ("user_id", 1.5, 1.5, "not text, a number or a UUID"),
        ("user_id", True, True, "not text, a number or a UUID"),
        ("user_id", {"id": 1}, {"id": 1}, "not text, a number or a UUID"),
        ("session_id", ["s"], ["s"], "not text, a number or a UUID"),
        ("entry_ids", {"e": 1}, {"e": 1}, "not entry ids"),
        ("entry_ids", [1.5], [1.5], "not entry ids"),
        ("metadata", "text", "text", "not a dictionary"),
        ("metadata", ["a"], ["a"], "not a dictionary"),
        ("metadata", 0, 0, "not a dictionary"),
        ("status", "DONE", "DONE", "not a status"),
        ("status", 1, 1, "not a status"),
        ("error_message", ["e"], ["e"], "not text"),
        ("duration_ms", "12", "12", "not a finite number"),
        ("duration_ms", True, True, "not a finite number"),
        ("duration_ms", float("inf"), "Infinity", "not a finite number"),
        ("duration_ms", 10**400, None, "not a finite number"),
        ("duration_ms", 1j, "1j", "not a finite number"),
    ],
)
def test_value_of_wrong_type_is_kept_and_marked(name, value, kept, why):
    """A value of the wrong type for its member is kept in the metadata and marked, and the member is absent."""
    payload = convert({"operation": "X", name: value})
    assert payload.metadata[MARKS][name] == why
    assert kept is None or payload.metadata[name] == kept
    absent = {"operation": UNNAMED, "entry_ids": [], "status": SUCCESS}
    if name != "metadata":
        assert getattr(payload, name) == absent.get(name)


def test_misfit_with_a_taken_name_gets_an_underscore():
    """A value of the wrong type whose name the metadata already has is kept as ``key_``."""
    payload = convert({"operation": "X", "metadata": {"status": 5}, "status": "DONE"})
    assert payload.metadata == {"status": 5, "status_": "DONE", MARKS: {"status": "not a status"}}


@pytest.mark.parametrize("fields", [{}, {"operation": None}, {"operation": ""}, {"operation": "", "x": b""}])
def test_event_without_operation_is_unnamed_and_marked(fields):
    """An event without an operation is called UNNAMED, and marked."""
    payload = convert(fields)
    assert payload.operation == UNNAMED
    assert payload.metadata[MARKS]["operation"] == "the event has no operation"


@pytest.mark.parametrize("name", [*Payload.__struct_fields__, "other"])
@pytest.mark.parametrize("make", s.HOSTILE)
def test_conversion_accepts_any_value_in_any_member(make, name):
    """No value in any member makes the conversion raise, and the members have their types."""
    payload = convert({"operation": "X", name: make()})
    msgspec.convert(msgspec.structs.replace(payload, metadata={}), conversion.Payload, from_attributes=True)
    assert type(payload.metadata) is dict
    assert type(payload.operation) is str
    assert type(payload.status) is str
    assert EventStatus(payload.status)


@given(s.any_fields)
@settings(max_examples=100, deadline=None)
def test_conversion_accepts_any_fields(fields):
    """For all fields an application could pass, the payload has a name and a status."""
    payload = convert(s.made(fields))
    assert payload.operation
    assert EventStatus(payload.status)


def test_value_that_exceeds_the_limit_leaves_others_out():
    """A value that uses up the limit of values leaves others out, marked, and raises nothing."""
    payload = convert({"operation": "X", "metadata": {"many": list(range(50_000))}, "other": 1, "status": "DONE"})
    assert payload.metadata["other"] == ""
    assert payload.metadata[MARKS]["other"].startswith("left out: more than")


@pytest.mark.parametrize("signal", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("name", ["metadata", "other"])
def test_conversion_propagates_signals(signal, name):
    """KeyboardInterrupt and SystemExit propagate."""
    with pytest.raises(signal):
        convert({"operation": "X", name: s.HostileMapping(signal())})


def test_conversion_of_a_member_propagates_signals():
    """KeyboardInterrupt during the reading of a member propagates."""

    class Interrupted(fractions.Fraction):
        def __float__(self):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert({"operation": "X", "duration_ms": Interrupted(1, 2)})


# --- members of other accepted types ---------------------------------------------------------------------------------


@pytest.mark.parametrize("member", OperationType)
@pytest.mark.parametrize("write", [str, str.lower, str.title])
@pytest.mark.parametrize("other", [{}, {"x": b""}], ids=["fast", "by hand"])
def test_six_operations_match_in_any_case(member, write, other):
    """The six operations match in any case and are written in upper case."""
    payload = convert({"operation": write(member.value), **other})
    assert payload.operation == member.value
    assert type(payload.operation) is str


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        (OperationType.STORE, "STORE"),
        (s.LowerOperation.STORE, "STORE"),
        (s.LowerOperation.CUSTOM, "custom_thing"),
        (s.Colour.RED, "red"),
        (s.HostileStr("store"), "STORE"),
        ("Archive it", "Archive it"),
        (404, "404"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_operation_of_other_type_becomes_text(operation, name):
    """An Enum member counts by its value, a number by its text; every other name stays as it is."""
    assert members(convert({"operation": operation})) == {"operation": name, "status": SUCCESS}


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("success", SUCCESS),
        ("Failure", FAILURE),
        ("PARTIAL", PARTIAL),
        (EventStatus.PARTIAL, PARTIAL),
        (s.LowerStatus.FAILURE, FAILURE),
        (s.HostileStr("partial"), PARTIAL),
    ],
    ids=lambda value: type(value).__name__,
)
def test_status_matches_in_any_case_and_from_any_enum(value, status):
    """A status matches in any case and from any Enum, without a mark."""
    assert members(convert({"operation": "X", "status": value})) == {"operation": "X", "status": status}


ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize("name", ["user_id", "session_id"])
@pytest.mark.parametrize(
    ("value", "text"), [(42, "42"), (0, "0"), (-1, "-1"), (ID, str(ID)), (s.Number.ONE, "1"), ("", ""), (None, None)]
)
def test_identifier_becomes_text(name, value, text):
    """Users and sessions that are numbers, UUIDs or Enum members become their text, without a mark."""
    payload = convert({"operation": "X", name: value})
    assert getattr(payload, name) == text
    assert payload.metadata == {}


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        (["a", "b"], ["a", "b"]),
        (("a", 1, ID), ["a", "1", str(ID)]),
        ({"a"}, ["a"]),
        (frozenset([7]), ["7"]),
        (deque(["a"]), ["a"]),
        ("a", ["a"]),
        (7, ["7"]),
        (ID, [str(ID)]),
        ([], []),
        (None, []),
    ],
    ids=lambda value: type(value).__name__,
)
def test_entry_ids_accept_any_collection_or_one_id(value, ids):
    """Entry ids may be any collection of identifiers, or a single one."""
    payload = convert({"operation": "X", "entry_ids": value})
    assert payload.entry_ids == ids
    assert payload.metadata == {}


@pytest.mark.parametrize(("length", "is_usable"), [(100_000, True), (100_001, False), (10**30, False)])
def test_large_range_is_no_entry_ids(length, is_usable):
    """A range takes no memory, so one of a billion numbers is no collection of ids: it is kept as text, and marked."""
    payload = convert({"operation": "X", "entry_ids": range(length)})
    assert len(payload.entry_ids) == length * is_usable
    assert payload.metadata.get("entry_ids") == (None if is_usable else f"range(0, {length})")


@pytest.mark.parametrize(
    "unusable", [None, 1.5, True, b"e", {"id": 1}, object()], ids=lambda value: type(value).__name__
)
def test_unusable_id_leaves_the_others(unusable):
    """An entry id that cannot be used is kept in the metadata and marked; the others are entry ids."""
    payload = convert({"operation": "X", "entry_ids": ["e1", unusable, 2**70]})
    assert payload.entry_ids == ["e1", str(2**70)]
    assert len(payload.metadata["entry_ids"]) == 1
    assert payload.metadata[MARKS]["entry_ids"] == "not entry ids"


@given(st.lists(st.text(max_size=3) | st.integers() | st.none() | st.floats()))
def test_every_usable_id_is_kept(values):
    """For all lists, the usable ids are the entry ids, and the other values are in the metadata."""
    payload = convert({"operation": "X", "entry_ids": values})
    assert payload.entry_ids == [str(value) for value in values if isinstance(value, str | int)]
    assert len(payload.entry_ids) + len(payload.metadata.get("entry_ids", [])) == len(values)


@pytest.mark.parametrize(
    "value", [s.HostileList(["e1"]), {"e1": 1}.keys(), {1: "e1"}.values()], ids=lambda value: type(value).__name__
)
def test_entry_ids_accept_subclasses_and_views(value):
    """Subclasses of collections and views of dictionaries are collections of ids."""
    payload = convert({"operation": "X", "entry_ids": value})
    assert (payload.entry_ids, payload.metadata) == (["e1"], {})


@pytest.mark.parametrize(
    ("value", "duration"),
    [(1, 1.0), (1.5, 1.5), (decimal.Decimal("1.5"), 1.5), (fractions.Fraction(3, 2), 1.5), (s.HostileFloat(2.5), None)],
    ids=lambda value: type(value).__name__,
)
def test_duration_accepts_any_real_number(value, duration):
    """A real number is a duration; a value that cannot be read as one is kept in the metadata."""
    payload = convert({"operation": "X", "duration_ms": value})
    assert payload.duration_ms == duration
    assert ("duration_ms" in payload.metadata) == (duration is None)


def test_timedelta_is_a_duration_in_milliseconds():
    """A timedelta as duration becomes milliseconds, without a mark."""
    payload = convert({"operation": "X", "duration_ms": dt.timedelta(seconds=1.5)})
    assert (payload.duration_ms, payload.metadata) == (1_500.0, {})


@pytest.mark.parametrize("kind", [OrderedDict, MappingProxyType, s.HostileDict])
def test_metadata_accepts_any_mapping(kind):
    """Any mapping is metadata, and methods that a subclass of dict overrides are not called."""
    assert convert({"operation": "X", "metadata": kind({"a": 1}), "b": 2}).metadata == {"a": 1, "b": 2}


def test_exception_as_error_message_becomes_text():
    """An exception given as ``error_message`` becomes its text, and the event a failure."""
    payload = convert({"operation": "X", "error_message": ValueError("no")})
    assert (payload.error_message, payload.status, payload.metadata) == ("ValueError: no", FAILURE, {})


# --- status and error ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "error", "level", "status"),
    [
        ({}, None, logging.INFO, SUCCESS),
        ({}, None, logging.WARNING, SUCCESS),
        ({}, None, logging.ERROR - 1, SUCCESS),
        ({}, None, logging.ERROR, FAILURE),
        ({}, None, logging.CRITICAL, FAILURE),
        ({}, "ValueError: x", logging.INFO, FAILURE),
        ({"error_message": "bad"}, None, logging.INFO, FAILURE),
        ({"status": "SUCCESS"}, "ValueError: x", logging.CRITICAL, SUCCESS),
        ({"status": "partial", "error_message": "half"}, None, logging.INFO, PARTIAL),
        ({"status": "DONE"}, None, logging.ERROR, FAILURE),
    ],
)
def test_status_defaults_to_the_outcome(fields, error, level, status):
    """Without a status an event is a failure if it has an error or its level is ERROR or above, otherwise a success."""
    assert convert({"operation": "X", **fields}, error=error, level=level).status == status


def test_error_message_wins_over_the_exception():
    """The text of an exception is the ``error_message`` only if there is none."""
    assert convert({"operation": "X"}, error="ValueError: x").error_message == "ValueError: x"
    assert convert({"operation": "X", "error_message": "mine"}, error="ValueError: x").error_message == "mine"


@pytest.mark.parametrize(
    ("value", "status"), [(["e"], FAILURE), ({"code": 5}, FAILURE), (True, FAILURE), ([], SUCCESS), (False, SUCCESS)]
)
def test_error_message_that_is_not_text_is_an_error(value, status):
    """An ``error_message`` of another type makes the event a failure, unless it is empty."""
    assert convert({"operation": "X", "error_message": value}).status == status


def test_failure_level_replaces_error():
    """Without a status the event is a failure from *failure_level* on."""
    levels = [logging.WARNING - 1, logging.WARNING]
    statuses = [convert({}, level=level, failure_level=logging.WARNING).status for level in levels]
    assert statuses == [SUCCESS, FAILURE]


def test_word_of_a_status_keeps_off_a_taken_name():
    """The word that states a status is kept as ``status_`` if the metadata has a status of its own."""
    payload = convert({"operation": "X", "metadata": {"status": 5}, "status": "denied"})
    assert (payload.status, payload.metadata) == (FAILURE, {"status": 5, "status_": "denied"})


def test_unknown_status_falls_back_to_the_level():
    """For an unknown status, the status is that of the level."""
    assert convert({"operation": "X", "status": "?"}, level=logging.INFO).status == SUCCESS


@given(st.text())
def test_any_text_names_an_operation(name):
    """For all texts but the empty one, the operation is that text, or one of the six."""
    operation = convert({"operation": name}).operation
    assert operation in ((name, name.upper()) if name else (UNNAMED,))


FIRST_EVENT = """
import sys
from structlog_audit import AuditHandler, AuditLogger
audit = AuditLogger(handler=AuditHandler(monitor=[{"name": "any", "more_than": 0, "within": 60}]))
called = []
def note(frame, what, argument):
    if what == "call" and "msgspec" in frame.f_code.co_filename:
        called.append(frame.f_code.co_name)
sys.setprofile(note)
audit.record("STORE", "u1", metadata={"a": [1, {"b": None}]})
sys.setprofile(None)
print(called)
"""


def test_first_event_compiles_no_types():
    """Import compiles the types of the structs: if the first event did, a second one meanwhile would crash."""
    done = subprocess.run([sys.executable, "-c", FIRST_EVENT], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
