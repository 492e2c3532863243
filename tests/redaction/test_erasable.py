"""Tests of the modes ``subject`` and ``erasable``: who can be read, by whom, and what remains after an erasure."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import sqlite3
import warnings

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

import structlog_audit.redaction.vault as vault_module
from structlog_audit import (
    AuditHandler,
    AuditTypeError,
    AuditValueError,
    AuditVaultError,
    Redactor,
    SubjectVault,
    get_audit_handler,
    get_audit_logger,
    open_trail,
)
from structlog_audit.events.codec import MARKS
from structlog_audit.redaction.erasable import TOKEN
from structlog_audit.redaction.subjects import MASK

EMAIL = "C4nary-mail@example.org"
ERASABLE = {"keys": {"email": "erasable"}, "paths": {"user_id": "subject"}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.vault"


@pytest.fixture
def handler_with(path, tmp_path):
    """Return a function that makes a handler with a trail and the rules given."""
    made = []

    def make(**rules):
        redactor = Redactor(vault=path, **(rules or ERASABLE))
        made.append(AuditHandler(redactor=redactor, filename=tmp_path / "audit.jsonl"))
        return made[-1]

    yield make
    for handler in made:
        handler.close()
        handler.redactor.vault.close()


def record(handler, **fields):
    """Record an event, and return it as it is in the buffer and in clear."""
    handler.record_fields({"operation": "STORE", **fields}, logging.INFO, "audit")
    event = handler.query_events(limit=1)[0]
    return event, handler.redactor.vault.reveal(event)


# --- values and their subjects -----------------------------------------------------------------------------------------


def test_value_is_encrypted_for_the_user_of_the_event(handler_with, tmp_path):
    """By default the user is the subject; the line has the token of the user and the format of the specification."""
    handler = handler_with()
    event, clear = record(handler, user_id="ada", email=EMAIL)
    assert event.user_id == handler.redactor.vault.token("ada")
    assert event.metadata["email"].keys() == {"_erasable"}
    assert event.metadata[MARKS] == {"user_id": "redacted: subject", "email": "redacted: erasable"}
    assert (clear.user_id, clear.metadata["email"]) == ("ada", EMAIL)
    assert EMAIL not in (tmp_path / "audit.jsonl").read_text()


def test_value_of_another_person_is_encrypted_for_that_person(handler_with):
    """A rule names the subject: erasing the administrator leaves the value, erasing the person removes it."""
    handler = handler_with(keys={"email": "erasable:metadata.target_user"}, paths={"user_id": "subject"})
    event, _ = record(handler, user_id="admin", target_user="ada", email=EMAIL)
    vault = handler.redactor.vault
    assert event.metadata["email"]["_subject"] == vault.token("ada")
    vault.erase("admin")
    assert vault.reveal(event).metadata["email"] == EMAIL
    vault.erase("ada")
    assert vault.reveal(event).metadata["email"] == event.metadata["email"]


def test_alternative_subjects_are_tried_in_their_order(handler_with):
    """The first path that leads to an identity counts."""
    handler = handler_with(keys={"email": "erasable:metadata.target.id|user_id"})
    vault = handler.redactor.vault
    for fields, subject in (
        ({"user_id": "admin", "target": {"id": 7}}, 7),
        ({"user_id": "admin", "target": {"name": "x"}}, "admin"),
        ({"user_id": "admin", "target": [{"ID": "7"}]}, "7"),
        ({"user_id": "admin", "target": {"id": None}}, "admin"),
    ):
        event, clear = record(handler, email=EMAIL, **fields)
        assert event.metadata["email"]["_subject"] == vault.token(subject)
        assert clear.metadata["email"] == EMAIL


def test_person_in_a_list_is_the_subject_of_its_own_values(handler_with):
    """A path that begins with a dot names a member of the same object, so each person in a list has their own key."""
    handler = handler_with(keys={"email": "erasable:.id"})
    event, _ = record(handler, user_id="admin", people=[{"id": 1, "email": "a"}, {"id": 2, "email": "b"}])
    vault = handler.redactor.vault
    vault.erase(1)
    found = vault.reveal(event).metadata["people"]
    assert found == [event.metadata["people"][0], {"id": 2, "email": "b"}]


def test_person_may_be_identified_by_the_value_itself(handler_with):
    """A failed login has no user, but its email is an identity."""
    handler = handler_with(keys={"email": "erasable:.email"})
    event, clear = record(handler, email=EMAIL)
    assert event.metadata["email"]["_subject"] == handler.redactor.vault.token(EMAIL)
    assert clear.metadata["email"] == EMAIL


def test_value_without_subject_is_masked_marked_and_counted(handler_with):
    """No key is invented for an event without a user: the value is masked, and check() says why."""
    handler = handler_with()
    event, _ = record(handler, email=EMAIL)
    assert event.metadata == {"email": MASK, MARKS: {"email": "redacted: mask; no subject"}}
    (finding,) = [finding for finding in handler.check() if finding.code == "vault"]
    assert "1 values were masked instead of encrypted: no subject" in finding.message
    assert "user_id" in finding.fix


@pytest.mark.parametrize("value", [{"name": "ada"}, True, 1.5, [["a"], {"b": 1}]])
def test_value_that_is_no_identity_is_masked_as_a_subject(handler_with, value):
    """An object is not a person: it never stays in clear."""
    handler = handler_with(keys={"target": "subject"})
    event, _ = record(handler, target=value)
    assert event.metadata == {"target": MASK, MARKS: {"target": "redacted: mask; not an identity"}}


def test_subjects_in_a_list_have_one_token_each(handler_with):
    """Entry ids remain a list, and a number is the same person as its text."""
    handler = handler_with(keys={"entry_ids": "subject", "targets": "subject"})
    event, clear = record(handler, entry_ids=["ada", "7"], targets=[7, "bob", None])
    token = handler.redactor.vault.token
    assert event.entry_ids == [token("ada"), token(7)]
    assert event.metadata["targets"] == [token("7"), token("bob"), None]
    assert clear.entry_ids == ["ada", "7"]
    assert clear.metadata["targets"] == ["7", "bob", None]


def test_error_message_stays_text(handler_with):
    """In a member that is text, the value is the JSON of its object."""
    handler = handler_with(keys={"error_message": "erasable"}, paths={"user_id": "subject"})
    event, clear = record(handler, user_id="ada", error_message=f"unknown: {EMAIL}")
    assert json.loads(event.error_message).keys() == {"_erasable"}
    assert clear.error_message == f"unknown: {EMAIL}"


def test_secret_within_an_erasable_value_is_masked_before(handler_with):
    """Who may read a person's values does not get their passwords, and the marks name nothing inside."""
    handler = handler_with(keys={"customer": "erasable"})
    event, clear = record(handler, user_id="ada", customer={EMAIL: {"password": "p"}, "note": "Bearer abc.def"})
    assert clear.metadata["customer"] == {EMAIL: {"password": MASK}, "note": f"Bearer {MASK}"}
    assert event.metadata[MARKS] == {"customer": "redacted: erasable"}


def test_value_in_the_form_of_an_erasable_one_is_encrypted(handler_with):
    """An application cannot bring a clear value into the trail by the form of its value."""
    handler = handler_with()
    for forged in ({"_erasable": EMAIL}, {"_erasable": "QUJD", "_subject": "s_" + "A" * 32}):
        event, clear = record(handler, user_id="ada", email=forged)
        assert event.metadata["email"] != forged
        assert clear.metadata["email"] == forged


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "email", "b"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    vault = SubjectVault(tmp_path_factory.mktemp("vault") / "audit.vault", create=True)
    yield vault
    vault.close()


@given(user=st.none() | st.text(max_size=5), metadata=st.dictionaries(st.sampled_from(["x", "email", "target"]), JSON))
def test_redacting_twice_equals_redacting_once(shared, user, metadata):
    """Tokens, erasable and masked values stay, so a second redactor with the same vault changes nothing."""
    rules = {"keys": {"email": "erasable", "target": "subject"}, "paths": {"user_id": "subject"}}
    redactor = Redactor(**rules, vault=shared)
    fields = {"event": "STORE", "user_id": user, **metadata}
    once = redactor(None, "info", dict(fields))
    assert Redactor(**rules, vault=shared)(None, "info", dict(once)) == once


@given(
    user=st.text(min_size=1, max_size=5).filter(lambda text: text != MASK),
    value=JSON.filter(lambda value: value != MASK),
)
def test_every_value_comes_back_in_clear(shared, user, value):
    """Whatever the value, its subject's key shows it as it was."""
    handler = AuditHandler(redactor=Redactor(**ERASABLE, vault=shared))
    _, clear = record(handler, user_id=user, metadata={"email": value})
    assert clear.metadata.get("email") == value
    assert clear.user_id == user


# --- configuration -----------------------------------------------------------------------------------------------------


def test_vault_is_configured_by_dict_config(path):
    """The arguments of the redactor are those of Python."""
    handler = {"class": "structlog_audit.AuditHandler", "redactor": {**ERASABLE, "vault": str(path)}}
    logger = {"handlers": ["erasable"], "level": "INFO", "propagate": False}
    logging.config.dictConfig(
        {"version": 1, "disable_existing_loggers": False, "handlers": {"erasable": handler},
         "loggers": {"erasable.audit": logger}}
    )  # fmt: skip
    get_audit_logger("erasable.audit").info("STORE", user_id="ada", email=EMAIL)
    found = get_audit_handler("erasable")
    assert found.query_events(user_id="ada")[0].metadata["email"].keys() == {"_erasable"}
    found.redactor.vault.close()
    logging.getLogger("erasable.audit").handlers.clear()


@pytest.mark.parametrize(("arguments", "error", "message"), [
    ({"keys": {"a": "erasable"}}, AuditValueError, "vault=None: expected the path of a file for keys: mode 'erasable'"),
    ({"paths": {"user_id": "subject"}}, AuditValueError, "vault=None"),
    ({"keys": ["user_id"], "mode": "erasable"}, AuditValueError, "expected mode 'mask' or 'drop' or 'pseudonym' or 'subject'"),
    ({"keys": {"operation": "subject"}}, AuditValueError, "expected mode 'mask' or 'pseudonym' for 'operation', got 'subject'"),
    ({"keys": {"error_message": "subject"}}, AuditValueError, "it does not identify a person"),
    ({"paths": {"session_id": "erasable"}}, AuditValueError, "no query would find it"),
    ({"patterns": {"a": "erasable"}}, AuditValueError, "patterns['a']='erasable': expected one of 'mask', 'drop', 'pseudonym'"),
    ({"keys": {"a": "erasable:user"}}, AuditValueError, "paths: expected one of operation, user_id"),
    ({"keys": {"a": "erasable:"}}, AuditValueError, "paths: expected a name"),
    ({"keys": {"a": "erasable:."}}, AuditValueError, "paths: expected a name"),
    ({"keys": {"a": "mask:user_id"}}, AuditValueError, "only 'erasable' takes the path of a subject"),
    ({"keys": {"a": "erase"}}, AuditValueError, "keys['a']='erase': expected one of 'mask', 'drop', 'pseudonym', 'subject'"),
    ({"vault": 5}, AuditTypeError, "vault=5"),
])  # fmt: skip
def test_invalid_rule_is_refused_before_a_vault_is_created(arguments, error, message):
    """The message names the parameter and what is possible."""
    with pytest.raises(error) as raised:
        Redactor(**arguments)
    assert message in str(raised.value)


def test_redactors_with_one_vault_are_equal(path):
    """The path of the vault is a parameter as any other."""
    one = Redactor(**ERASABLE, vault=path)
    other = Redactor(**ERASABLE, vault=one.vault)
    assert one == other
    assert one != Redactor(keys={"email": "mask"})
    assert repr(str(path)) in repr(one)
    one.vault.close()


def test_structlog_chain_finds_the_subject_in_the_event_dict(path):
    """As a processor the redactor reads user and metadata from the event dict, whatever their order."""
    redactor = Redactor(keys={"email": "erasable:metadata.target|user_id"}, paths={"user_id": "subject"}, vault=path)
    chain = structlog.wrap_logger(structlog.ReturnLogger(), processors=[redactor, lambda *call: ((call[2],), {})])
    found = chain.info("STORE", user_id="ada", email=EMAIL)
    assert found["user_id"] == redactor.vault.token("ada")
    assert found["email"].keys() == {"_erasable"}
    found = chain.info("STORE", email=EMAIL, target="bob")
    assert found["email"]["_subject"] == redactor.vault.token("bob")
    redactor.vault.close()


# --- queries -----------------------------------------------------------------------------------------------------------


def test_clear_identity_finds_its_events_while_the_key_exists(handler_with, path, tmp_path):
    """Handler and reader translate the identity; after the erasure only the token finds the events."""
    handler = handler_with(paths={"user_id": "subject", "entry_ids": "subject", "metadata.target": "subject"})
    token = record(handler, user_id="ada", entry_ids=["bob"], target="cyd")[0].user_id
    trail = open_trail(tmp_path / "audit.jsonl", vault=path)
    for source in (handler, trail):
        assert source.count_events(user_id="ada") == source.count_events(user_id=["x", "ada"]) == 1
        assert source.count_events(entry_ids="bob") == 1
    assert handler.count_events(metadata={"target": "cyd"}) == 1
    assert trail.count_events(metadata={"target": handler.redactor.vault.token("cyd")}) == 1
    assert trail.page(user_id="ada").events[0].user_id == token
    assert [event.user_id for event in trail.follow(since_now=False, stop=lambda: True, wait=print, user_id="ada")] == [
        token
    ]

    handler.erase_subject("ada")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for source in (handler, trail):
            assert source.count_events(user_id="ada") == 0
            assert source.count_events(user_id=token) == 1


def test_query_makes_no_subject(handler_with, path):
    """A filter for an unknown person leaves the vault as it is."""
    handler = handler_with()
    assert handler.count_events(user_id="unknown", metadata={"email": "x"}) == 0
    assert handler.redactor.vault.token("unknown") is None


def test_reader_without_the_vault_explains_tokens(handler_with, tmp_path):
    """A clear name that is asked of tokens gives a warning that names the vault."""
    record(handler_with(), user_id="ada")
    with pytest.warns(RuntimeWarning, match="only the vault of the redactor finds them by 'ada'"):
        assert open_trail(tmp_path / "audit.jsonl").query_events(user_id="ada") == []


def test_query_whose_vault_fails_is_an_error(handler_with, path, tmp_path):
    """A query never answers "no event" because the vault cannot be read."""
    handler = handler_with()
    record(handler, user_id="ada")
    trail = open_trail(tmp_path / "audit.jsonl", vault=path)
    path.rename(path.with_suffix(".moved"))
    for source in (handler, trail):
        with pytest.raises(AuditVaultError, match="got no file"):
            source.query_events(user_id="ada")
    assert handler.count_events() == 1


# --- erasure -----------------------------------------------------------------------------------------------------------


def test_erasure_leaves_no_byte_of_person_key_or_value_in_any_file(handler_with, path, tmp_path):
    """Trail, vault, log, index and free pages contain neither key, identity nor value; every line stays as it was."""
    handler = handler_with()
    for number in range(50):
        record(handler, user_id=f"other-{number}", email=f"{number}@example.org")
        record(handler, user_id="C4nary-person", email=EMAIL)
    with sqlite3.connect(path) as database:
        ((key,),) = database.execute("SELECT key FROM subjects WHERE identity = ?", (b"C4nary-person",)).fetchall()
    database.close()
    before = (tmp_path / "audit.jsonl").read_bytes()

    token = handler.erase_subject("C4nary-person")
    handler.flush()
    files = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    for name, data in files.items():
        assert not any(secret in data for secret in (key, b"C4nary-person", EMAIL.encode(), b"C4nary")), name
    assert files["audit.jsonl"].startswith(before)

    (erased,) = handler.query_events(kind="trail", operation="erased")
    assert erased.metadata == {"subject": token}
    assert handler.count_events(user_id=token) == 50
    assert handler.redactor.vault.reveal(record(handler, user_id="other-1", email="x")[0]).metadata["email"] == "x"


def test_reader_shows_no_erased_value_from_memory(handler_with, path):
    """A reader that has used a key does not use it after the erasure, not even within a second."""
    handler = handler_with()
    event, _ = record(handler, user_id="ada", email=EMAIL)
    reader = SubjectVault(path)
    assert reader.reveal(event).metadata["email"] == EMAIL
    handler.erase_subject("ada")
    assert reader.reveal(event) == event
    reader.close()


def test_second_erasure_records_nothing(handler_with):
    """Erasing again is no error and no event."""
    handler = handler_with()
    record(handler, user_id="ada")
    assert TOKEN.fullmatch(handler.erase_subject("ada"))
    assert handler.erase_subject("ada") is None
    assert handler.count_events(kind="trail", operation="erased") == 1


def test_erasure_whose_record_failed_is_recorded_with_the_next(handler_with, tmp_path):
    """The vault keeps the token until a trail has it, so an erasure is in the trail at least once."""
    handler = handler_with()
    record(handler, user_id="ada")
    token = handler.redactor.vault.erase("ada")
    assert handler.count_events(kind="trail", operation="erased") == 0
    handler.erase_subject("nobody")
    assert [event.metadata for event in handler.query_events(kind="trail", operation="erased")] == [{"subject": token}]
    assert handler.redactor.vault.unrecorded() == []


def test_erasure_needs_a_vault():
    """A handler whose redactor has none says so."""
    for redactor in (None, Redactor()):
        with pytest.raises(AuditValueError, match="expected a redactor with a vault"):
            AuditHandler(redactor=redactor).erase_subject("ada")


# --- faults ------------------------------------------------------------------------------------------------------------


def test_locked_vault_loses_no_event(handler_with, path, monkeypatch, capsys):
    """While another process locks the vault, values of new persons are masked, marked and counted; known ones go on."""
    monkeypatch.setattr(vault_module, "_WAIT_SECONDS", 0.01)
    handler = handler_with()
    record(handler, user_id="known", email=EMAIL)
    locking = sqlite3.connect(path, isolation_level=None)
    locking.execute("BEGIN IMMEDIATE")

    event, _ = record(handler, user_id="new", email=EMAIL)
    assert (event.user_id, event.metadata["email"]) == (MASK, MASK)
    reason = "redacted: mask; vault unavailable"
    assert event.metadata[MARKS] == {"user_id": reason, "email": reason}
    _, clear = record(handler, user_id="known", email=EMAIL)
    assert clear.metadata["email"] == EMAIL
    assert handler.get_statistics()["recorded"] >= 3
    (finding,) = [finding for finding in handler.check() if finding.code == "vault"]
    assert "2 values were masked instead of encrypted: vault unavailable" in finding.message
    assert EMAIL not in capsys.readouterr().err
    locking.close()


def test_vault_that_vanishes_while_recording_masks_and_recovers(path, tmp_path):
    """No key is made in a removed file; with the file in its place again, values are encrypted again."""
    now = [0.0]
    vault = SubjectVault(path, create=True, clock=lambda: now[0])
    handler = AuditHandler(redactor=Redactor(**ERASABLE, vault=vault), filename=tmp_path / "audit.jsonl")
    token = record(handler, user_id="ada", email=EMAIL)[0].user_id
    os.rename(path, tmp_path / "moved")
    now[0] += 1
    handler.record_fields({"operation": "STORE", "user_id": "ada", "email": EMAIL}, logging.INFO, "audit")
    masked = handler.query_events()[0]
    assert (masked.user_id, masked.metadata["email"]) == (MASK, MASK)
    os.rename(tmp_path / "moved", path)
    now[0] += 1
    assert record(handler, user_id="ada", email=EMAIL)[0].user_id == token
    assert handler.count_events() == 3
    handler.close()
    vault.close()
