"""The hints about values that no event has: true, near, and in bounded memory."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reporting import stored

from structlog_audit import AuditLogger, EventStatus, Redactor, open_trail
from structlog_audit.query.absent_values import PSEUDONYM, absent_values, near_values

names = st.text(max_size=12)


@given(names, st.lists(names, max_size=30))
def test_hint_is_given_exactly_for_absent_values(wanted, users):
    """For all values, a hint names the asked value if and only if there are events and none has it."""
    hints = absent_values([stored(n, user_id=user) for n, user in enumerate(users)], {"user_id": [wanted]})
    assert len(hints) == (bool(users) and wanted not in users)
    assert all(hint.startswith(f"no event has user_id {wanted!r}") for hint in hints)


def test_value_beyond_the_counted_ones_is_found():
    """A value is found even if more distinct values than are counted come before it."""
    events = [stored(n, user_id=f"u{n}") for n in range(10_050)]
    assert absent_values(events, {"user_id": ["u10049"]}) == []


@pytest.mark.parametrize(
    ("value", "near"),
    [
        ("delete", ["document.delete", "DeleteBucket", "user.delete"]),
        ("document.*", ["document.delete", "document.read"]),
        ("deletebucket", ["DeleteBucket"]),
        ("DocumentDelete", ["document.delete"]),
        ("documnet.read", ["document.read"]),
        ("pay", []),
    ],
)
def test_near_values_are_those_a_user_may_mean(value, near):
    """Near are values with the same letters, then those that match a pattern or have the words, then those spelled alike."""
    counts = Counter({"document.delete": 83, "DeleteBucket": 9, "user.delete": 2, "document.read": 1, "login": 5})
    assert near_values(value, counts)[: len(near)] == near
    assert bool(near_values(value, counts)) == bool(near)


def test_hint_without_near_values_has_the_most_common_ones():
    """Without a near value, the most common ones are named with their number of events."""
    events = [stored(0, operation="login"), stored(1, operation="login"), stored(2, operation="x")]
    hint = "no event has operation 'pay'; the most common: 'login' (2), 'x' (1)"
    assert absent_values(events, {"operation": ["pay"]}) == [hint]


def test_status_is_named_by_its_word():
    """A status is named by its word, whether it is asked for as a member or as text."""
    hint = "no event has status 'FAILURE'; the most common: 'SUCCESS' (1)"
    assert absent_values([stored()], {"status": [EventStatus.FAILURE, "FAILURE"]}) == [hint]


def test_events_without_any_value_get_a_hint():
    """A value that is asked of events without any gets a hint, without others to name."""
    assert absent_values([stored()], {"session_id": ["s1"]}) == ["no event has session_id 's1'"]


@pytest.mark.parametrize(
    ("value", "asked"),
    [("api", "api"), (["web", "api"], "api"), (True, "true"), (5, "5"), ({"id": 5}, "5"), (None, "x")],
)
def test_present_or_structured_value_of_the_metadata_gets_no_hint(value, asked):
    """A value that occurs, alone or in a list, gets no hint, nor does a key whose values are no words."""
    assert absent_values([stored(metadata={"source": value})], {"metadata.source": [asked]}) == []


def test_marks_of_the_library_are_not_offered_as_keys():
    """The keys of the metadata that a hint names are those of the application."""
    events = [stored(metadata={"_audit": {"status": "not a status"}})]
    assert absent_values(events, {"metadata.audit": ["x"]}) == ["no event has the key 'audit' in its metadata"]


@given(st.text(min_size=1), st.from_regex(r"[A-Za-z0-9._-]{1,32}", fullmatch=True))
def test_pseudonyms_have_the_known_form(text, version):
    """Every pseudonym of every redactor has the form that the hint recognizes."""
    redactor = Redactor(keys={"user_id": "pseudonym"}, secret="s" * 32, key_version=version)
    assert PSEUDONYM.fullmatch(redactor.pseudonym(text))
    events = [stored(user_id=redactor.pseudonym(text)), stored(1, user_id=None)]
    (hint,) = absent_values(events, {"user_id": ["ann"]})
    assert "1 event has a pseudonym as user_id" in hint


@pytest.fixture
def reader(tmp_path):
    """Return the reader of a trail with pseudonyms as user ids."""
    redactor = {"keys": {"user_id": "pseudonym"}, "secret": "s" * 32}
    with AuditLogger(filename=tmp_path / "audit.jsonl", redactor=redactor) as audit:
        audit.record("STORE", "ann", "s1")
    return open_trail(tmp_path / "audit.jsonl")


@pytest.mark.parametrize(
    "ask",
    [
        lambda reader: reader.query_events(user_id="ann"),
        lambda reader: reader.count_events(user_id="ann"),
        lambda reader: reader.get_user_statistics("ann"),
    ],
)
def test_clear_name_asked_of_pseudonyms_warns_at_the_caller(reader, ask):
    """A reader, which has no key, warns of a clear name that finds nothing among pseudonyms, in the caller's file."""
    with pytest.warns(RuntimeWarning, match=r"user_id='ann' matches no event, .* only Redactor") as warned:
        ask(reader)
    assert [warning.filename for warning in warned] == [__file__]


def test_other_empty_answers_do_not_warn(reader):
    """An answer, a filter by a clear value, by a pseudonym or by None, and a limit of 0 give no warning."""
    (event,) = reader.query_events(session_id="s1")
    assert reader.query_events(user_id=event.user_id) == [event]
    assert reader.query_events(user_id=event.user_id[:-1] + "_") == []
    assert reader.query_events(session_id="s2") == reader.query_events(user_id=None) == []
    assert reader.query_events(user_id="ann", limit=0) == []


def test_absent_pseudonym_is_not_explained_as_a_clear_name():
    """A pseudonym that no event has gets the ordinary hint."""
    redactor = Redactor(keys={"user_id": "pseudonym"}, secret="s" * 32)
    hints = absent_values([stored(user_id=redactor.pseudonym("ann"))], {"user_id": [redactor.pseudonym("bob")]})
    assert "have a pseudonym" not in hints[0]
