"""Tests of `structlog_audit.events.refused_values`: values that msgspec refuses, and names that are remembered."""

import datetime as dt
import uuid

import pytest
import strategies as s
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from structlog_audit.events import conversion, refused_values
from structlog_audit.events.codec import encode_payload
from structlog_audit.events.conversion import convert
from structlog_audit.events.payload import Payload

ID = uuid.UUID("0197f3a0-c1d2-7d1e-9b0c-5d8e00000001")


@pytest.fixture(autouse=True)
def no_names(monkeypatch):
    """Begin without remembered names."""
    members, names = set(), set()
    for module in (conversion, refused_values):
        monkeypatch.setattr(module, "refused_members", members)
        monkeypatch.setattr(module, "refused_names", names)


@pytest.mark.parametrize(("name", "value", "kept"), [
    ("user_id", 5, "5"),
    ("user_id", ID, str(ID)),
    ("session_id", ID, str(ID)),
    ("entry_ids", [ID, "e", 7], [str(ID), "e", "7"]),
    ("entry_ids", "e", ["e"]),
    ("error_message", ValueError("no entry"), "ValueError: no entry"),
    ("status", "partial", "PARTIAL"),
    ("duration_ms", dt.timedelta(seconds=1), 1_000.0),
])  # fmt: skip
def test_refused_member_is_remembered_if_it_is_converted(name, value, kept):
    """A member of another type that has a text is converted without the conversion by hand, at the first event and later."""
    for _ in range(2):
        assert getattr(convert({"operation": "STORE", name: value, "metadata": {"a": [1]}}), name) == kept
        assert refused_values.refused_members == {name}
    assert refused_values.refused_names == set()


@pytest.mark.parametrize(
    ("name", "value"), [("user_id", 1.5), ("status", 404), ("entry_ids", [1.5]), ("duration_ms", "1")]
)
def test_misfit_is_not_remembered(name, value):
    """A member that goes into the metadata needs the conversion by hand, so its name is not remembered."""
    convert({"operation": "STORE", name: value})
    assert refused_values.refused_members == set()


def test_only_names_of_refused_values_are_remembered():
    """A value that msgspec accepts leaves its name free, beside one that it refuses, and any number of members at once."""
    convert(
        {
            "operation": "STORE",
            "user_id": 5,
            "entry_ids": (ID,),
            "metadata": {"id": ID, "tags": ["a"], "n": 1, "at": {1: 2}},
        }
    )
    assert refused_values.refused_names == {"id", "at"}
    assert refused_values.refused_members == {"user_id", "entry_ids"}


def test_number_of_remembered_names_is_bounded(monkeypatch):
    """Beyond the limit no name is remembered, and the values are converted all the same."""
    monkeypatch.setattr(refused_values, "_MAX_NAMES", 2)
    for number in range(5):
        assert convert({"operation": "STORE", "metadata": {f"id{number}": ID}}).metadata == {f"id{number}": ID}
    assert refused_values.refused_names == {"id0", "id1"}


def test_remembered_name_with_more_values_than_the_limit_is_left_to_msgspec():
    """A value that msgspec accepts has the same line whether its name is remembered or not."""
    many = {"operation": "STORE", "metadata": {"id": [[1] * 100] * 100}}
    before = convert(many)
    convert({"operation": "STORE", "metadata": {"id": ID}})
    assert convert(many) == before


def test_value_that_needs_a_mark_is_left_to_the_conversion_by_hand():
    """A remembered name whose value needs a mark has it."""
    convert({"operation": "STORE", "metadata": {"id": ID}})
    assert convert({"operation": "STORE", "metadata": {"id": b"x"}}).metadata["_audit"] == {
        "id": "replaced: bytes as base64"
    }


@given(s.well_typed, s.usual_metadata, st.sets(st.sampled_from([*Payload.__struct_fields__[1:], "a", "b", "tags"])))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plain_values_with_remembered_names_are_the_same(fields, metadata, names):
    """For all well-typed events, remembered names change nothing."""
    fields = {**fields, "metadata": metadata}
    refused_values.refused_names.clear()
    refused_values.refused_members.clear()
    before = encode_payload(convert(fields), 32_000)

    refused_values.refused_names.update(names, metadata)
    refused_values.refused_members.update(names & refused_values._CONVERSIONS.keys())
    assert encode_payload(convert(fields), 32_000) == before
