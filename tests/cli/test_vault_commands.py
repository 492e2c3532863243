"""The command ``erase``, and the options ``--vault`` and ``--reveal``."""

from __future__ import annotations

import json
import logging

import pytest
from commands import run

from structlog_audit import AuditHandler, Redactor, SubjectVault

EMAIL = "C4nary-mail@example.org"
RULES = {"keys": {"email": "erasable", "target": "subject"}, "paths": {"user_id": "subject"}}


@pytest.fixture
def trail(tmp_path):
    """The path of a trail of two persons, whose vault is beside it."""
    path = tmp_path / "audit.jsonl"
    redactor = Redactor(**RULES, vault=tmp_path / "audit.vault")
    handler = AuditHandler(redactor=redactor, filename=path)
    for user in ("ada", "bob"):
        fields = {"operation": "STORE", "user_id": user, "email": f"{user}-{EMAIL}", "target": "cyd"}
        handler.record_fields(fields, logging.INFO, "audit")
    handler.close()
    redactor.vault.close()
    return str(path)


@pytest.fixture
def vault(trail, tmp_path):
    return str(tmp_path / "audit.vault")


def token_of(vault, subject):
    store = SubjectVault(vault)
    try:
        return store.token(subject)
    finally:
        store.close()


def test_conditions_on_clear_identities_match_tokens_with_the_vault(trail, vault):
    """``=`` finds the events of the person, and ``!=`` leaves them out, in members and in the metadata."""
    ada, bob = token_of(vault, "ada"), token_of(vault, "bob")
    for words, users in (
        (["user_id=ada"], [ada]),
        (["user_id!=ada"], [bob]),
        (["user_id=ada", "user_id=bob"], [ada, bob]),
        (["metadata.target=cyd"], [ada, bob]),
        (["metadata.target!=cyd"], []),
    ):
        found = run("query", trail, *words, "--vault", vault, "-o", "jsonl")
        assert [event["user_id"] for event in found.events] == users
    assert run("query", trail, "user_id=ada").code == 1


def test_values_are_shown_in_clear_only_with_reveal(trail, vault):
    """``--vault`` alone decrypts nothing; ``--reveal`` shows persons and values."""
    assert EMAIL not in run("query", trail, "--vault", vault, "-o", "jsonl").out
    revealed = run("query", trail, "user_id=ada", "--vault", vault, "--reveal", "-o", "jsonl")
    (event,) = revealed.events
    assert (event["user_id"], event["metadata"]["email"]) == ("ada", f"ada-{EMAIL}")


def test_reveal_without_vault_is_an_error(trail):
    """Nothing is shown without the file with the keys."""
    found = run("query", trail, "--reveal")
    assert (found.code, found.error_line) == (2, "--reveal: expected --vault FILE, the file with the keys")


def test_vault_that_cannot_be_used_is_an_error(trail, vault):
    """A missing or foreign file ends the command before anything is shown."""
    for path, message in ((vault + "x", "got no file"), (trail, "expected a vault, got another file")):
        found = run("query", trail, "--vault", path)
        assert found.code == 3
        assert message in found.error_line
        assert found.out == ""


def test_report_on_one_user_finds_tokens_and_reveals_nothing(trail, vault):
    """``--user`` takes the clear name, and the report has tokens only."""
    found = run("report", trail, "--user", "ada", "--vault", vault, "--json", "-")
    assert json.loads(found.out)
    assert token_of(vault, "ada") in found.out
    assert token_of(vault, "bob") not in found.out
    assert EMAIL not in found.out


def test_record_of_a_reading_has_no_identity_with_the_vault(trail, vault):
    """The record outlives an erasure: it has the token, and nothing for a person without one; revealing is noted."""
    words = ["user_id=ada", "user_id=nobody", "user_id~ob", "status=SUCCESS"]
    run("query", trail, *words, "--vault", vault, "--record", "--reveal")
    (read,) = run("query", trail, "operation=read", "--all", "-o", "jsonl").events
    assert read["metadata"]["conditions"] == [
        f"user_id={token_of(vault, 'ada')}", "user_id=[redacted]", "user_id~[redacted]", "status=SUCCESS",
    ]  # fmt: skip
    assert read["metadata"]["revealed"] is True


def test_erase_removes_the_person_from_every_file_and_records_it(trail, vault, tmp_path):
    """Afterwards no file has identity or value, and the trail names token and operator."""
    token = token_of(vault, "ada")
    done = run("erase", "ada", trail, "--vault", vault)
    assert done.code == 0
    assert done.lines == [f"erased {token} from {vault}", f"recorded the erasure of {token} in {trail}"]

    (erased,) = run("query", trail, "operation=erased", "--all", "-o", "jsonl").events
    assert erased["kind"] == "trail"
    assert erased["metadata"]["subject"] == token
    assert "os_user" in erased["metadata"]

    revealed = run("query", trail, f"user_id={token}", "--vault", vault, "--reveal", "-o", "jsonl").events
    assert [event["metadata"]["email"].keys() for event in revealed] == [{"_erasable"}]
    data = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b'"ada' not in data
    assert b"ada-C4nary" not in data


def test_erase_again_says_so_and_changes_nothing(trail, vault):
    """The command is safe to repeat: it succeeds, and records nothing new."""
    run("erase", "ada", trail, "--vault", vault)
    again = run("erase", "ada", trail, "--vault", vault)
    assert (again.code, again.lines) == (0, [f"no key: the subject is not in {vault}, or was erased before"])
    assert len(run("query", trail, "operation=erased", "--all", "-o", "jsonl").events) == 1


def test_erase_without_trail_is_recorded_by_the_next_one(trail, vault):
    """Without a trail the key is erased, a hint says what is missing, and the next call with a trail records it."""
    token = token_of(vault, "ada")
    done = run("erase", "ada", "--vault", vault)
    assert done.lines == [f"erased {token} from {vault}"]
    assert token in done.error_line
    again = run("erase", "nobody", trail, "--vault", vault)
    assert again.lines[-1] == f"recorded the erasure of {token} in {trail}"


def test_subject_is_read_from_stdin(trail, vault):
    """With ``-`` the identity is in no shell history and no list of processes."""
    token = token_of(vault, "ada")
    done = run("erase", "-", trail, "--vault", vault, input="ada\n")
    assert done.lines[0] == f"erased {token} from {vault}"


@pytest.mark.parametrize("words", [["ada", "missing.jsonl"], [""]])
def test_erase_with_bad_words_erases_nothing(trail, vault, words):
    """A trail that cannot record the erasure and an empty subject are errors before the erasure."""
    before = token_of(vault, "ada")
    done = run("erase", *words, "--vault", vault)
    assert done.code == 2
    assert token_of(vault, "ada") == before
