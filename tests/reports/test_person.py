"""The report on one person: every event by them and about them, the scope of an erasure, and what it cannot know."""

import datetime as dt
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from reporting import HOSTILE, NOON, Events, hostile_events, stored

from structlog_audit import AuditHandler, AuditTypeError, AuditValueError, EventStatus, Redactor, open_trail
from structlog_audit.query.filters import conditions
from structlog_audit.reports import compliance_report, person_data, person_report

FAILURE = EventStatus.FAILURE
SECRETS = {"2024": "the secret of the year 2024", "2025": "the secret of the year 2025"}


def data(*events, person="ann", **parameters):
    """Return the data of the report on *person* among *events*."""
    return person_report(Events(events), person, **parameters).to_dict()


def ids(group):
    """Return the ids of the listed events, oldest first."""
    return [row["event_id"] for row in reversed(group["newest"])]


def test_events_of_person_are_counted_by_operation_session_and_address():
    """The person's own events have counts, times, sessions and client addresses; those of others do not count."""
    address = {"client_address": "192.0.2.7"}
    found = data(
        stored(0, operation="STORE", user_id="ann", session_id="s1", metadata=address),
        stored(1, operation="STORE", user_id="ann", session_id="s1", status=FAILURE),
        stored(2, operation="RECALL", user_id="ann", session_id="s2", metadata=address),
        stored(3, operation="STORE", user_id="bob", session_id="s3", metadata=address),
    )
    times = {"first": "2025-01-15T12:00:00.000000Z", "last": "2025-01-15T12:00:01.000000Z"}
    by_person = found["by_person"]
    assert (by_person["total"], by_person["failures"], by_person["last"]) == (3, 1, "2025-01-15T12:00:02.000000Z")
    assert by_person["by_operation"][0] == {"operation": "STORE", "class": "create", "total": 2, "failures": 1, **times}
    assert [(row["value"], row["total"]) for row in found["sessions"]["most"]] == [("s1", 2), ("s2", 1)]
    assert [(row["value"], row["total"]) for row in found["addresses"]["most"]] == [("192.0.2.7", 2)]


def test_event_of_another_user_is_about_the_person_for_each_place_of_their_name():
    """An entry id, a session, and the members that the caller names, at any depth; text and other members are not."""
    found = data(
        stored(0, user_id="bob", entry_ids=["e1", "ann"]),
        stored(1, user_id="bob", session_id="ann"),
        stored(2, user_id=None, metadata={"target": {"id": ["x", "ann"]}}),
        stored(3, user_id="bob", metadata={"other": "ann"}, error_message="no access for ann"),
        stored(4, user_id="ann", entry_ids=["ann"]),
        members=["metadata.target.id"],
    )
    reasons = [row["reasons"] for row in reversed(found["about"]["newest"])]
    assert reasons == [["entry_ids"], ["session_id"], ["metadata.target.id"]]
    assert found["about"]["by_user"] == [{"user_id": "bob", "total": 2}, {"user_id": None, "total": 1}]


def test_number_in_a_named_member_is_the_identity_of_its_text():
    """Applications record a key of a database as a number."""
    found = data(stored(0, user_id="bob", metadata={"customer_id": 42}), person=42, members=["customer_id"])
    assert found["about"]["by_reason"] == {"metadata.customer_id": 1}


def test_event_of_another_user_in_a_session_of_the_person_is_about_them():
    """A session is the person's if an event by them has it, whether earlier or later, also before the period."""
    events = [
        stored(0, user_id=None, session_id="s1", operation="login"),
        stored(1, user_id="ann", session_id="s1"),
        stored(5, user_id=None, session_id="s1", operation="logout"),
        stored(6, user_id=None, session_id="s2"),
    ]
    assert data(*events)["about"]["by_reason"] == {person_data.THEIR_SESSION: 2}
    later = data(*events, start_time=NOON + dt.timedelta(seconds=2))
    assert (later["by_person"]["total"], later["sessions"]["total"]) == (0, 0)
    assert later["about"]["by_reason"] == {person_data.THEIR_SESSION: 1}


def test_events_of_others_with_entries_that_the_person_created_are_listed():
    """An entry is created by an operation of the class create that did not fail, also before the period."""
    events = [
        stored(0, operation="document.create", user_id="ann", entry_ids=["d1"]),
        stored(1, operation="document.create", user_id="ann", entry_ids=["d2"], status=FAILURE),
        stored(2, operation="document.read", user_id="ann", entry_ids=["d3"]),
        stored(3, operation="document.delete", user_id="bob", entry_ids=["d1", "d9"]),
        stored(4, operation="document.delete", user_id="bob", entry_ids=["d2"]),
        stored(5, operation="document.delete", user_id="bob", entry_ids=["d3"]),
        stored(6, operation="document.read", user_id="ann", entry_ids=["d1"]),
    ]
    found = data(*events)
    assert found["created"]["total"] == 1
    assert ids(found["on_created"]) == [events[3].event_id]
    later = data(*events, start_time=NOON + dt.timedelta(seconds=2))
    assert (later["created"]["total"], ids(later["on_created"])) == (0, [events[3].event_id])


def test_operation_without_a_class_is_stated_as_a_limit_of_the_created_entries():
    """What an unclassified operation did to an entry is not known, and classes can be given."""
    events = [
        stored(0, operation="document.frob", user_id="ann", entry_ids=["d1"]),
        stored(1, operation="document.delete", user_id="bob", entry_ids=["d1"]),
    ]
    found = person_report(Events(events), "ann")
    assert (found.to_dict()["unclassified"], found.to_dict()["on_created"]["total"]) == (1, 0)
    assert "1 event by the person have entries and an operation without a class" in found.to_markdown()
    classified = data(*events, operations={"document.frob": "create"})
    assert (classified["unclassified"], classified["on_created"]["total"]) == (0, 1)


def test_pseudonyms_under_all_given_key_versions_are_the_person():
    """A changed key splits a person into several names; the report joins them, and names each version without a key."""
    redactors = {version: Redactor(secret=secret, key_version=version) for version, secret in SECRETS.items()}
    events = [
        stored(0, user_id="ann"),
        stored(1, user_id=redactors["2024"].pseudonym("ann")),
        stored(2, user_id=redactors["2025"].pseudonym("ann")),
        stored(3, user_id=redactors["2025"].pseudonym("bob"), entry_ids=[redactors["2024"].pseudonym("ann")]),
    ]
    found = data(*events, redactors=redactors.values())
    assert (ids(found["by_person"]), ids(found["about"])) == (
        [event.event_id for event in events[:3]],
        [events[3].event_id],
    )
    assert found["unsearched"] == {}

    partly = person_report(Events(events), "ann", redactors=[redactors["2025"]])
    assert ids(partly.to_dict()["by_person"]) == [events[0].event_id, events[2].event_id]
    assert partly.to_dict()["unsearched"] == {"pseudonym of key 2024": 2}
    assert "Whether the person is in 2 events with a pseudonym of key 2024" in partly.to_markdown()


@pytest.fixture
def vault_trail(tmp_path):
    """The paths of a trail with tokens and erasable values, and of its vault."""
    vault = tmp_path / "audit.vault"
    rules = {
        "keys": {"email": "erasable:metadata.target|user_id", "target": "subject"},
        "paths": {"user_id": "subject"},
    }
    handler = AuditHandler(redactor=Redactor(**rules, vault=vault), filename=tmp_path / "audit.jsonl")
    for fields in (
        {"user_id": "ann", "email": "ann@example.org", "plan": "pro"},
        {"user_id": "bob", "target": "ann", "email": "ann@example.org"},
        {"user_id": "bob", "email": "bob@example.org"},
    ):
        handler.record_fields({"operation": "STORE", **fields}, logging.INFO, "audit")
    handler.close()
    return tmp_path / "audit.jsonl", vault


def test_token_of_the_vault_is_the_person_and_their_encrypted_values_are_the_scope(vault_trail):
    """Values encrypted with the key of the person count, in their own events and in those of others; nothing is decrypted."""
    path, vault = vault_trail
    made = person_report(open_trail(path), "ann", vault=vault)
    found = made.to_dict()
    assert (found["by_person"]["total"], found["about"]["total"]) == (1, 1)
    assert found["about"]["by_reason"] == {person_data.THEIR_KEY: 1}
    scope = found["erasure"]
    assert (scope["has_key"], scope["encrypted_values"], scope["encrypted_events"]) == (True, 2, 2)
    assert {"member": "plan", "events": 1} in scope["readable_members"]
    assert "email" not in [row["member"] for row in scope["readable_members"]]
    assert scope["names"] == [{"place": "user_id", "name": "token of the vault", "events": 1}]
    assert "example.org" not in made.to_json()


def test_tokens_without_a_vault_are_not_known(vault_trail):
    """Without the vault the person's token leads nowhere, and the report says so."""
    made = person_report(open_trail(vault_trail[0]), "ann")
    assert made.to_dict()["by_person"]["total"] == 0
    assert made.to_dict()["erasure"]["has_key"] is None
    assert made.to_dict()["unsearched"] == {"token of the vault": 3}


def test_erased_person_has_no_key_and_their_token_still_has_events(vault_trail):
    """After an erasure the vault has no key; asked for by the token, events and the erasure are found."""
    path, vault = vault_trail
    keys = Redactor(vault=vault).vault
    token = keys.token("ann")
    assert person_report(open_trail(path), token, vault=keys).to_dict()["erasure"]["has_key"] is True
    keys.erase("ann")
    found = person_report(open_trail(path), token, vault=keys).to_dict()
    assert (found["by_person"]["total"], found["erasure"]["has_key"]) == (1, False)
    assert person_report(open_trail(path), "ann", vault=keys).to_dict()["by_person"]["total"] == 0


def test_scope_of_erasure_states_what_stays_readable():
    """Names in clear, members that are neither encrypted nor masked, and error messages remain after an erasure."""
    scope = data(
        stored(
            0, user_id="ann", metadata={"city": "Oslo", "pin": "[redacted]", "mail": {"_erasable": "x"}, "_audit": {}}
        ),
        stored(1, user_id="ann", error_message="ann@example.org is unknown"),
        stored(2, user_id="bob", entry_ids=["ann"], metadata={"city": "Rome"}),
        stored(3, user_id="bob", metadata={"secret": "of nobody here"}),
    )["erasure"]
    assert scope["readable_members"] == [{"member": "city", "events": 2}]
    assert (scope["events"], scope["readable_messages"]) == (3, 1)
    assert scope["names"] == [
        {"place": "user_id", "name": "identity", "events": 2},
        {"place": "entry_ids", "name": "identity", "events": 1},
    ]


def test_trail_events_of_erasures_and_of_readings_about_the_person_are_listed():
    """A trail event counts if it states the person as its subject, or in a condition; other texts in it do not count."""
    events = [
        stored(0, operation="erased", kind="trail", metadata={"subject": "ann"}),
        stored(1, operation="read", kind="trail", metadata={"conditions": ["status=FAILURE", "user_id=ann"]}),
        stored(2, operation="read", kind="trail", metadata={"os_user": "ann", "conditions": ["user_id=bob", 1]}),
        stored(3, operation="erased", kind="trail", metadata={"subject": ["ann"]}),
    ]
    assert ids(data(*events)["library"]) == [events[0].event_id, events[1].event_id]


def test_intent_without_an_outcome_is_listed():
    """An intent that no event of the period completes may have happened; its outcome may be by another user."""
    events = [
        stored(0, user_id="ann", kind="intent", operation="FORGET"),
        stored(1, user_id="ann", kind="intent", operation="EXPORT"),
        stored(2, user_id=None, operation="EXPORT", metadata={"intent_id": stored(1).event_id}),
    ]
    found = data(*events)
    assert [row["event_id"] for row in found["open_intents"]["oldest"]] == [events[0].event_id]
    assert found["by_person"]["total"] == 0


def test_followed_values_are_bounded_and_the_rest_is_stated(monkeypatch):
    """Beyond the bound, entries are counted instead of followed, and the report says that."""
    monkeypatch.setattr(person_data, "MOST_FOLLOWED", 1)
    made = person_report(
        Events(
            [
                stored(0, user_id="ann", operation="STORE", entry_ids=["a", "b"]),
                stored(1, user_id="bob", operation="FORGET", entry_ids=["a"]),
                stored(2, user_id="bob", operation="FORGET", entry_ids=["b"]),
            ]
        ),
        "ann",
    )
    assert (made.to_dict()["created"]["not_followed"], made.to_dict()["on_created"]["total"]) == (1, 1)
    assert "What others did with entries beyond the first 1 of the person: 1 event not followed." in made.to_markdown()


def test_lists_have_the_newest_events_and_counts_have_all():
    """The number of listed events is a parameter; the note of the table names both numbers."""
    made = person_report(Events([stored(number, user_id="ann") for number in range(5)]), "ann", newest=2)
    assert [row["event_id"] for row in made.to_dict()["by_person"]["newest"]] == [
        stored(4).event_id,
        stored(3).event_id,
    ]
    assert made.to_dict()["by_person"]["total"] == 5
    assert "The newest 2 of 5." in made.to_markdown()


def test_person_without_an_event_gets_the_reason():
    """A misspelt name is explained by the names near it."""
    made = person_report(Events([stored(0, user_id="Ann")]), "ann")
    assert any("Ann" in hint for hint in made.to_dict()["hints"])
    assert "No event has this user." in made.to_markdown()


def test_report_states_gaps_and_verdict():
    """The verdict on completeness and the lost events are a part of the document."""
    made = person_report(Events([stored(0, operation="gap", kind="gap", metadata={"lost": 3})]), "ann")
    assert made.completeness.verdict == "incomplete"
    assert made.to_dict()["completeness"]["lost"] == 3
    assert "Events are missing" in made.to_markdown()


people = st.sampled_from([None, "ann", "bob", "s1", "e1"])
random_events = st.lists(
    st.builds(
        stored,
        st.integers(0, 60),
        operation=st.sampled_from(["STORE", "RECALL", "FORGET"]),
        user_id=people,
        session_id=people,
        entry_ids=st.lists(st.sampled_from(["ann", "e1", "e2"]), max_size=2),
        status=st.sampled_from(list(EventStatus)),
        metadata=st.sampled_from([{}, {"target": "ann"}, {"target": ["bob"]}]),
    ),
    max_size=25,
)


@given(random_events, st.none() | st.integers(0, 60), st.none() | st.integers(0, 60))
@settings(deadline=None)
def test_every_event_of_the_period_is_found_by_its_definition(events, start, end):
    """For all events and periods: by, about, and on created entries are exactly what their definitions say."""
    if start is not None and end is not None and start > end:
        start, end = end, start
    bounds = {"start_time": start, "end_time": end}
    times = {name: NOON + dt.timedelta(seconds=at) for name, at in bounds.items() if at is not None}
    in_period = conditions(**times).matches
    own = [
        event
        for event in events
        if event.user_id == "ann" and conditions(end_time=times.get("end_time")).matches(event)
    ]
    others = [event for event in events if event.user_id != "ann" and in_period(event)]
    sessions = {event.session_id for event in own} - {None} | {"ann"}
    made = [event for event in own if event.operation == "STORE" and event.status is not FAILURE]
    created = {entry_id for event in made for entry_id in event.entry_ids}

    found = data(*events, members=["target"], newest=100, **times)
    assert ids(found["by_person"]) == [event.event_id for event in own if in_period(event)]
    assert ids(found["about"]) == [
        event.event_id
        for event in others
        if "ann" in event.entry_ids or event.session_id in sessions or event.metadata.get("target") == "ann"
    ]
    assert ids(found["on_created"]) == [event.event_id for event in others if created.intersection(event.entry_ids)]


@pytest.mark.parametrize("person", [text for text in HOSTILE if text])
def test_hostile_texts_stay_texts(person):
    """No text of an event or of a name becomes markup; the data is JSON."""
    made = person_report(Events(hostile_events()), person)
    tokens = MarkdownIt("commonmark").enable("table").enable("strikethrough").parse(made.to_markdown())
    inline = [child.type for token in tokens for child in token.children or ()]
    assert not {"html_block", "fence", "code_block"} & {token.type for token in tokens}
    assert set(inline) <= {"text", "text_special", "strong_open", "strong_close", "softbreak"}
    assert json.loads(made.to_json()) == made.to_dict()


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"person": ""}, AuditTypeError, "person='': expected an identity"),
        ({"person": None}, AuditTypeError, "person=None: expected an identity"),
        ({"members": "target"}, AuditTypeError, "members='target': expected a list"),
        ({"members": ["target", 3]}, AuditTypeError, "expected a list of texts, got int"),
        ({"members": ["metadata."]}, AuditValueError, "expected members of the metadata"),
        ({"newest": -1}, AuditValueError, "newest=-1"),
        ({"redactors": [Redactor()]}, AuditValueError, "secret=None: expected a secret"),
        ({"month": "january"}, AuditValueError, "month='january'"),
    ],
)
def test_wrong_parameter_is_an_error_that_names_it(parameters, error, message):
    """Nothing is guessed from a parameter that has no meaning."""
    with pytest.raises(error) as caught:
        data(**parameters)
    assert message in str(caught.value)


def test_source_must_be_a_source_of_events():
    """A path is no source: it is to be opened first."""
    with pytest.raises(AuditTypeError, match="expected an AuditHandler"):
        person_report("audit.jsonl", "ann")


def test_compliance_report_on_a_person_is_the_report_on_that_person():
    """The parameters of ``person_report`` are accepted with *person*, and with it only."""
    events = [stored(0, user_id="ann"), stored(1, user_id="bob", metadata={"customer_id": "ann"})]
    made = compliance_report(Events(events), person="ann", members=["customer_id"], month="2025-01")
    expected = person_report(Events(events), "ann", members=["customer_id"], month="2025-01")
    assert made.to_dict() == expected.to_dict()
    assert made.to_dict()["about"]["total"] == 1

    with pytest.raises(AuditTypeError, match="members: expected only with person"):
        compliance_report(Events(events), members=["customer_id"])
    with pytest.raises(AuditValueError, match="user_id='ann', person='ann': expected one of them"):
        compliance_report(Events(events), user_id="ann", person="ann")
