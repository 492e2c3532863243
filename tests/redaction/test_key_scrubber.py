"""Tests of `structlog_audit.redaction.key_scrubber`: the scrubber is the oracle."""

import uuid

import msgspec
import pytest
import strategies as s
from hypothesis import example, given, settings
from hypothesis import strategies as st

from structlog_audit.events.codec import MARKS
from structlog_audit.events.payload import Payload
from structlog_audit.redaction.key_scrubber import _MAX_NAMES, KeyScrubber
from structlog_audit.redaction.redactor import Redactor

KEYS = {"password": "mask", "pin": "drop", "straße": "mask"}

names = st.sampled_from([*KEYS, "Password", "PIN_1", "STRASSE", "STRAẞE", "passwords", "a", "…", "x" * 250])

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=3), st.floats(-1, 1)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=4)),
    max_leaves=30,
)


def key_scrubber(redactor):
    return KeyScrubber.of(redactor._rules)


@given(st.dictionaries(names, values, max_size=5))
@example({"x" * 250: {"pin": 1, "a": [{"password": 2}]}})
@settings(max_examples=300, deadline=None)
def test_redacted_metadata_equals_that_of_the_scrubber(metadata):
    """For all metadata, values that keys select are replaced and marked as by the scrubber; the metadata itself stays.

    Long paths of marks are cut, so that two changes may have the same one.
    """
    redactor = Redactor(keys=KEYS, defaults=False)
    before = msgspec.json.encode(metadata)
    expected = redactor.redact(Payload("STORE", metadata=metadata)).metadata
    found = key_scrubber(redactor).scrub(metadata)
    assert msgspec.json.encode(found) == msgspec.json.encode(expected)
    assert msgspec.json.encode(metadata) == before
    assert (found is metadata) == (MARKS not in found)


def test_many_marks_are_counted_like_those_of_the_scrubber():
    """Beyond the limit of marks, the others are only counted."""
    metadata = {"users": [{"password": number} for number in range(30)]}
    redactor = Redactor()
    assert key_scrubber(redactor).scrub(metadata) == redactor.redact(Payload("STORE", metadata=metadata)).metadata


@pytest.mark.parametrize("metadata", [
    {"password": "x", MARKS: {"password": "replaced: bytes as base64"}},
    {"a": s.Point(1, 2)},
    {"a": [(1,)]},
    {"a": {1: 2}},
    {s.LowerStatus.SUCCESS: 1},
])  # fmt: skip
def test_other_metadata_are_left_to_the_scrubber(metadata):
    """Metadata with marks beside a secret, or with types that conversion does not leave, are not redacted here."""
    assert key_scrubber(Redactor()).scrub(metadata) is None


def test_marks_without_a_secret_stay():
    """Marks of the conversion are not taken for members: a path in them is no key."""
    metadata = {"a": "eA==", "id": uuid.uuid4(), MARKS: {"a": "replaced: bytes as base64"}}
    assert key_scrubber(Redactor()).scrub(metadata) is metadata


@pytest.mark.parametrize("rules", [
    {"paths": ["metadata.a"]}, {"patterns": ["x"]}, {"keys": ["user_id"]}, {"keys": {"a": "pseudonym"}, "secret": "s" * 16},
])  # fmt: skip
def test_rules_that_need_more_than_names_have_no_key_scrubber(rules):
    """Paths, patterns, members of the event, and modes that need the value are left to the scrubber."""
    assert key_scrubber(Redactor(**rules)) is None


def test_number_of_remembered_names_is_bounded():
    """Generated names do not fill the memory, and are redacted all the same."""
    scrubber = key_scrubber(Redactor())
    for number in range(_MAX_NAMES + 5):
        scrubber.scrub({f"password_{number}": number})
    assert len(scrubber._modes) == _MAX_NAMES
    assert scrubber.scrub({"token_99999": 1}) == {"token_99999": "[redacted]", MARKS: {"token_99999": "redacted: mask"}}
