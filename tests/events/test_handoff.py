"""Tests of `structlog_audit.events.handoff`: the fields of an event as attributes of its record."""

import copy
import logging
import pickle

import pytest

from structlog_audit.events.event import INTENT_ID
from structlog_audit.events.handoff import (
    HANDOFF,
    RESERVED,
    TAKEN,
    Handoff,
    attribute_name,
    awaited,
    hand_over,
    restore_handoff,
)


def new_record():
    return logging.makeLogRecord({"msg": "STORE"})


@pytest.mark.parametrize("name", ["message", "asctime", "taskName", "args", "name", "msecs"])
def test_attributes_of_logging_are_reserved(name):
    """The attributes that `logging` sets, in any release, are not those of fields."""
    assert name in RESERVED
    assert name in TAKEN


@pytest.mark.parametrize(
    ("name", "fields", "attribute"),
    [
        ("tenant", {}, "tenant"),
        ("tenant", {"tenant": 1}, "tenant"),
        ("taskName", {"taskName": 1}, "taskName_"),
        (HANDOFF, {}, "_audit_"),
        ("name", {"name": 1, "name_": 2}, "name__"),
    ],
)
def test_field_with_a_taken_name_gets_underscores(name, fields, attribute):
    """An attribute is neither one of `logging`, nor that of another field."""
    assert attribute_name(name, fields) == attribute


def test_actor_and_operation_are_the_last_attributes():
    """Handlers that drop the first attributes keep the session, the operation and the user."""
    fields = {"user_id": "ann", "operation": "STORE", "name": "n", "session_id": "s", "tenant": 1}
    handoff = hand_over(new_record(), fields, "STORE")
    assert list(handoff.attributes) == ["name_", "tenant", "session_id", "operation", "user_id"]
    assert list(hand_over(new_record(), {"a": 1, "operation": "STORE"}, "STORE").attributes) == ["a", "operation"]


def test_record_has_the_fields_as_attributes_and_the_handoff():
    """The fields are attributes of the record, by names that do not replace its own."""
    record = new_record()
    handoff = hand_over(record, {"operation": "STORE", "name": "n"}, "STORE", error="no", kind="trail")
    assert (record.operation, record.name_, record.__dict__[HANDOFF]) == ("STORE", "n", handoff)
    assert record.__dict__[HANDOFF] is handoff
    assert record.name is None
    assert (handoff.message, handoff.error, handoff.kind, handoff.entry) == ("STORE", "no", "trail", None)


def test_copies_of_a_record_share_the_handoff():
    """A deep copy has the same handoff, which receives the acknowledgement."""
    record = new_record()
    handoff = hand_over(record, {"operation": "STORE"}, "STORE")
    assert copy.deepcopy(record).__dict__[HANDOFF] is handoff


def test_pickled_handoff_is_a_plain_dictionary():
    """The receiver of a socket handler does not need this library."""
    record = new_record()
    hand_over(record, {"operation": "STORE", "n": 1}, "STORE")
    received = pickle.loads(pickle.dumps(record.__dict__[HANDOFF]))
    assert received == {"operation": "STORE", "n": 1}
    assert type(received) is dict
    assert not isinstance(received, Handoff)


@pytest.mark.parametrize(
    ("fields", "intent_id"),
    [
        ({INTENT_ID: "evt_1"}, "evt_1"),
        ({"metadata": {INTENT_ID: "evt_2"}, INTENT_ID: "evt_1"}, "evt_2"),
        ({"metadata": "text", INTENT_ID: "evt_1"}, "evt_1"),
        ({"metadata": {}}, None),
        ({}, None),
    ],
)
def test_intent_is_that_of_the_metadata_or_of_the_fields(fields, intent_id):
    """The handoff keeps the intent that the event is the outcome of, whatever filters do to the fields."""
    assert hand_over(new_record(), {"operation": "STORE", **fields}, "STORE").intent_id == intent_id


def test_record_that_is_awaited_gets_its_handoff_back():
    """Only the same record does: another one may have its identity, after a fork."""
    record, other = new_record(), new_record()
    handoff = hand_over(record, {"operation": "STORE"}, "STORE")
    del record.__dict__[HANDOFF]
    restore_handoff(record)
    assert HANDOFF not in record.__dict__

    awaited[id(record)] = record, handoff
    awaited[id(other)] = record, handoff
    try:
        restore_handoff(record)
        restore_handoff(other)
    finally:
        del awaited[id(record)], awaited[id(other)]
    assert record.__dict__[HANDOFF] is handoff
    assert HANDOFF not in other.__dict__
