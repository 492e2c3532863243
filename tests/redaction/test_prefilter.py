"""The prefilter: which events it suspects, and which it clears without a search."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit.events.codec import MARKS
from structlog_audit.redaction.key_scrubber import KeyScrubber
from structlog_audit.redaction.prefilter import _MAX_HARMLESS, Prefilter
from structlog_audit.redaction.redactor import Redactor
from structlog_audit.redaction.rules import BEARER


def suspects(prefilter, metadata=None, **members):
    """Return whether *prefilter* suspects the event with these members."""
    metadata = metadata or {}
    data = msgspec.json.encode({"operation": "STORE", **members, "metadata": metadata})
    return prefilter.redact_keys(metadata, data[1:]) is not metadata


def defaults():
    return Prefilter((), (), always=False, defaults=True)


@pytest.mark.parametrize(("members", "is_suspect"), [
    ({}, False),
    ({"user_id": "ann", "metadata": {"source": "api", "size": 5}}, False),
    ({"metadata": {"a": {"b": [{"c": 1}]}}}, False),
    ({"error_message": "two words and a \\ backslash"}, False),
    ({"user_id": "password"}, False),
    ({"metadata": {"tokens_used": 5, "passwords": 1, "my_token": 2}}, False),
    ({"metadata": {"note": "password"}}, False),
    ({"metadata": {"password": "x"}}, True),
    ({"metadata": {"a": [{"PassWord": "x"}]}}, True),
    ({"metadata": {"API-Key": "x"}}, True),
    ({"metadata": {"token_12": "x"}}, True),
    ({"metadata": {"to\u212aen": "x"}}, True),
    ({"error_message": "Bearer x.y"}, True),
    ({"error_message": "bearer\tx.y"}, True),
    ({"error_message": "-----BEGIN PRIVATE KEY-----"}, True),
    ({"user_id": "{", "metadata": {"password": "x"}}, True),
])  # fmt: skip
def test_event_is_suspected_if_it_has_the_name_or_the_sign_of_a_secret(members, is_suspect):
    """An event is suspected for a key in any spelling and for a token's word in any text, and for nothing like them."""
    prefilter = defaults()
    for _ in range(3):
        assert suspects(prefilter, **members) is is_suspect


@pytest.mark.parametrize(("rules", "members", "is_suspect"), [
    ({"always": True}, {}, True),
    ({}, {"error_message": "Bearer x.y", "metadata": {"password": 1}}, False),
    ({"keys": ["user_id"]}, {}, True),
    ({"keys": ["entry_ids"]}, {}, True),
    ({"paths": ["operation"]}, {}, True),
    ({"keys": ["email"]}, {"metadata": {"email": 1}}, True),
    ({"keys": ["email"]}, {"metadata": {"emails": 1}}, False),
    ({"paths": ["metadata.user.email"]}, {"metadata": {"user": {"email": 1}}}, True),
    ({"paths": ["metadata.user.email"]}, {"metadata": {"user.email": 1}}, True),
    ({"paths": ["metadata.user.email"]}, {"metadata": {"user": {"name": 1}}}, False),
    ({"keys": ["straße"]}, {"metadata": {"STRASSE": 1}}, False),
    ({"keys": ["straße"]}, {"metadata": {"STRAẞE": 1}}, True),
    ({"keys": ["straße"]}, {"user_id": "ünï"}, True),
    ({"keys": ["a b"]}, {"metadata": {"a b": 1}}, True),
    ({"keys": ["x"]}, {"error_message": "Bearer x.y", "metadata": {"password": 1}}, False),
])  # fmt: skip
def test_rules_of_the_application_determine_which_events_are_suspected(rules, members, is_suspect):
    """A rule for a member applies to each event, one for a key or a path to events with that name."""
    rules = {"keys": (), "paths": (), "always": False, "defaults": False, **rules}
    prefilter = Prefilter(rules["keys"], rules["paths"], always=rules["always"], defaults=rules["defaults"])
    for _ in range(3):
        assert suspects(prefilter, **members) is is_suspect


def test_names_seen_before_need_no_search(monkeypatch):
    """Once its names are known to be harmless, flat metadata without a blank is cleared without a search for keys."""
    prefilter = defaults()
    assert not suspects(prefilter, {"source": "api", "size": 1})
    prefilter._patterns = None
    assert not suspects(prefilter, {"size": 2})
    assert not suspects(prefilter, {"size": "two words"})
    assert prefilter._patterns is None
    assert not suspects(prefilter, {"size": {"a": 1}})
    assert prefilter._patterns is not None


def test_names_of_a_suspected_event_are_not_remembered():
    """An event with a secret makes none of its names harmless."""
    prefilter = defaults()
    assert suspects(prefilter, {"password": "x", "kept": 1})
    assert prefilter._harmless == set()


def test_number_of_remembered_names_is_bounded():
    """Generated names do not fill the memory: after the limit, no further names are remembered."""
    prefilter = defaults()
    for number in range(_MAX_HARMLESS + 50):
        assert not suspects(prefilter, {f"name{number}": 1})
    assert len(prefilter._harmless) == _MAX_HARMLESS
    assert suspects(prefilter, {"name1": 1, "password": 1})


def test_rules_beyond_ascii_remember_no_names():
    """A name in ASCII may be another case of a key beyond it, so every event is searched."""
    prefilter = Prefilter(["straße"], (), always=False, defaults=False)
    assert not suspects(prefilter, {"harmless": 1})
    assert prefilter._harmless == set()


MARKED = {MARKS: {"password": "redacted: mask"}}


@pytest.mark.parametrize(("members", "redacted"), [
    ({"metadata": {"password": "x", "a": 1}}, {"password": "[redacted]", "a": 1, **MARKED}),
    ({"metadata": {"password": "x"}, "error_message": "two words"}, {"password": "[redacted]", **MARKED}),
    ({"metadata": {"password": "x"}, "error_message": "Bearer x.y"}, None),
    ({"metadata": {"password": "x", "a": "-----BEGIN PRIVATE KEY-----"}}, None),
    ({"metadata": {"a": "bEARER x.y"}}, None),
    ({"metadata": {"a": {"token": 1}, MARKS: {"b": "replaced"}}}, None),
])  # fmt: skip
def test_first_pass_redacts_keys_unless_a_text_may_contain_a_secret(members, redacted):
    """Metadata in which a key selects a value are redacted at once, if the event can have no other secret."""
    assert first_pass(members) == redacted


def test_first_pass_remembers_harmless_names():
    """Names that no rule selects are remembered by the pass over the keys as by the search, and those of a secret are not."""
    prefilter = with_key_scrubber()
    first_pass({"metadata": {"a": {"b": 1}}}, prefilter)
    first_pass({"metadata": {"c": 1, "password": 1}}, prefilter)
    assert prefilter._harmless == {"a", "b"}


@given(st.text(st.sampled_from("bearerBEARER -\\x\n"), max_size=12))
@settings(max_examples=300, deadline=None)
def test_text_that_a_default_pattern_changes_is_suspected(text):
    """For all texts, a bearer token in any case is never cleared."""
    text = f"{text}bearer{text} x.y"
    for spelled in (text, text.upper(), text.title(), text.swapcase()):
        if BEARER.search(spelled):
            assert suspects(defaults(), {"a": spelled})


def with_key_scrubber():
    return Prefilter((), (), always=False, defaults=True, key_scrubber=KeyScrubber.of(Redactor()._rules))


def first_pass(members, prefilter=None):
    """Return the result of the first pass over the event with *members*."""
    data = msgspec.json.encode({"operation": "STORE", **members})[1:]
    return (prefilter or with_key_scrubber()).redact_keys(members["metadata"], data)
