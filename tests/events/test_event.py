"""Tests of `structlog_audit.events.event`: events, operations, statuses and times."""

import datetime as dt
import json
import os
import time
from collections.abc import Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit.events.event import (
    AuditEvent,
    EventStatus,
    Kind,
    Operation,
    OperationType,
    operation_of,
    rfc3339,
    status_of,
    utc,
)

TIMESTAMP = dt.datetime(2025, 1, 15, 10, 30, 45, 123456, tzinfo=dt.UTC)


def event(**members):
    return AuditEvent(**{"event_id": "evt_1", "timestamp": TIMESTAMP, "operation": OperationType.STORE, **members})


@pytest.mark.parametrize("member", OperationType)
@pytest.mark.parametrize("write", [str, str.lower, str.title, str.swapcase])
def test_six_operations_match_in_any_case(member, write):
    """The name of one of the six is that member, in whatever case it is written."""
    assert operation_of(write(member.value)) is member


@pytest.mark.parametrize("name", ["archive", "Archive", "STORED", "", "SUCCESS"])
def test_other_operation_keeps_its_name(name):
    """An operation that is not one of the six keeps its name, and is a string with ``value`` and ``name``."""
    operation = operation_of(name)
    assert type(operation) is Operation
    assert (operation, operation.value, operation.name) == (name, name, name)
    assert type(operation.value) is type(operation.name) is str


@given(st.text())
def test_operation_equals_its_name(name):
    """For all names, the operation equals the name or, if it is one of the six, the name in upper case."""
    assert operation_of(name) in (name, name.upper())


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("SUCCESS", EventStatus.SUCCESS),
        ("failure", EventStatus.FAILURE),
        ("Partial", EventStatus.PARTIAL),
        ("ok", None),
        ("", None),
    ],
)
def test_status_matches_in_any_case(name, status):
    """A status matches in any case, and an unknown name gives None."""
    assert status_of(name) is status


def test_enum_members_equal_their_strings():
    """Operations, statuses and kinds equal their strings, so callers need not import them."""
    assert OperationType.STORE == "STORE"
    assert EventStatus.PARTIAL == "PARTIAL"
    assert [kind.value for kind in Kind] == ["intent", "gap", "checkpoint", "part", "trail"]


def test_event_is_a_value():
    """Events with equal members are equal and have one hash."""
    one, other = event(), event()
    assert one == other
    assert len({one, other}) == 1
    assert one != event(user_id="u")


def test_event_is_immutable():
    """Setting a member of an event raises."""
    with pytest.raises(AttributeError):
        event().user_id = "mallory"


def test_default_containers_are_not_shared():
    """Two events without entry ids and metadata do not share their empty containers."""
    one, other = event(), event()
    one.metadata["a"] = 1
    one.entry_ids.append("e")
    assert (other.metadata, other.entry_ids) == ({}, [])


def test_to_dict_includes_every_member():
    """``to_dict`` has the members of the export format in its order, absent ones included, of plain types."""
    assert list(event().to_dict().items()) == [
        ("event_id", "evt_1"),
        ("timestamp", "2025-01-15T10:30:45.123456Z"),
        ("operation", "STORE"),
        ("user_id", None),
        ("session_id", None),
        ("entry_ids", []),
        ("metadata", {}),
        ("status", "SUCCESS"),
        ("error_message", None),
        ("duration_ms", None),
    ]
    assert type(event().to_dict()["operation"]) is type(event().to_dict()["status"]) is str


def test_to_dict_has_a_kind_only_if_the_event_has():
    """``kind`` is a member of the dictionary only if the event has one."""
    assert event(kind="gap").to_dict()["kind"] == "gap"
    assert "kind" not in event().to_dict()


@given(st.datetimes(timezones=st.timezones() | st.just(dt.UTC), allow_imaginary=False))
@settings(max_examples=200, deadline=None)
def test_rfc3339_is_fixed_width_and_exact(time):
    """For all aware times, the text has 27 characters and denotes the same microsecond."""
    text = rfc3339(time)
    assert len(text) == 27
    assert dt.datetime.fromisoformat(text) == utc(time)


def test_naive_time_is_local(monkeypatch):
    """A naive datetime is local time, as in Python itself."""
    before = os.environ.get("TZ")
    try:
        monkeypatch.setenv("TZ", "UTC-2")
        time.tzset()
        assert rfc3339(dt.datetime(2025, 1, 1, 12)) == "2025-01-01T10:00:00.000000Z"
    finally:
        monkeypatch.undo()
        time.tzset()
    assert os.environ.get("TZ") == before


@pytest.mark.parametrize("end", [dt.datetime.min, dt.datetime.max])
def test_ends_of_the_calendar_are_accepted(end):
    """The first and last time of the calendar are accepted in any time zone."""
    east = dt.timezone(dt.timedelta(hours=14))
    west = dt.timezone(dt.timedelta(hours=-12))
    for zone in (None, east, west):
        assert utc(end.replace(tzinfo=zone)).tzinfo is dt.UTC


def test_event_is_a_mapping_of_its_plain_json_values():
    """An event has the members of `to_dict` as a mapping, with those of the library as well."""
    made = event(user_id="ann", metadata={"k": [1]}, kind=Kind.INTENT)
    assert isinstance(made, Mapping)
    assert dict(made) == dict(made.items()) == made.to_dict()
    assert list(made) == list(made.keys()) == list(made.to_dict())
    assert list(made.values()) == list(made.to_dict().values())
    assert len(made) == 11
    assert len(event()) == 10


def test_member_of_the_mapping_is_plain_json():
    """`event[name]` is the value in the export, unlike the attribute, which has the Python type."""
    made = event()
    assert made["timestamp"] == "2025-01-15T10:30:45.123456Z"
    assert made["operation"] == "STORE"
    assert type(made["operation"]) is str
    assert made.get("user_id", "nobody") is None
    assert made.get("kind", "none") == "none"
    assert "status" in made
    with pytest.raises(KeyError):
        made["no such member"]


def test_json_encodes_events_as_mappings():
    """`json.dumps` writes events in any structure with ``default=dict``."""
    made = event(metadata={"k": [1]})
    assert json.loads(json.dumps({"found": [made]}, default=dict)) == {"found": [made.to_dict()]}


def test_pydantic_takes_and_writes_an_event_as_it_is():
    """A field of events, such as the response model of FastAPI, has events, and writes their plain JSON values."""
    pydantic = pytest.importorskip("pydantic")
    adapter = pydantic.TypeAdapter(list[AuditEvent])
    events = [event(user_id="ann", metadata={"k": [1]}, duration_ms=2.5), event(kind=Kind.GAP)]
    assert adapter.validate_python(events) == events
    assert json.loads(adapter.dump_json(events)) == list(map(dict, events))

    with pytest.raises(pydantic.ValidationError, match="instance of AuditEvent"):
        adapter.validate_python([{"operation": "STORE"}])


@pytest.mark.parametrize("mode", ["serialization", "validation"])
def test_schema_of_pydantic_has_the_members_of_an_event(mode):
    """OpenAPI names each member of an event; only the kind may be absent."""
    pydantic = pytest.importorskip("pydantic")
    schema = pydantic.TypeAdapter(AuditEvent).json_schema(mode=mode)
    assert list(schema["properties"]) == list(AuditEvent.__struct_fields__)
    assert schema["required"] == list(event().to_dict())


def test_schema_of_msgspec_has_the_members_of_an_event():
    """Litestar describes a route that returns events by the schema of msgspec."""
    schema = msgspec.json.schema(AuditEvent)["$defs"]["AuditEvent"]
    assert list(schema["properties"]) == list(AuditEvent.__struct_fields__)
    assert schema["properties"]["operation"] == {"type": "string"}
