"""A sealed trail after the erasure of a person: nothing of the person is left in any file, and the trail is intact."""

from __future__ import annotations

import gzip
import logging
import sqlite3

import pytest
from commands import run
from seals import ORIGIN, codes, verified

from structlog_audit import AuditFileHandler, AuditHandler, Redactor
from structlog_audit.integrity.proving import prove
from structlog_audit.integrity.signing import generate_key
from structlog_audit.integrity.standalone.verify_trail import Policy
from structlog_audit.redaction.vault import SubjectVault

PERSON, VALUE = "C4nary-person", "C4nary-mail@example.org"
ERASABLE = {"keys": {"email": "erasable"}, "paths": {"user_id": "subject"}}


class ErasedTrail:
    """A sealed trail with rollovers about several persons, and its vault."""

    def __init__(self, folder):
        self.folder = folder
        self.trail = folder / "audit.jsonl"
        self.vault = folder / "audit.vault"
        self.key = generate_key(str(folder / "audit.pem"), ORIGIN)

    def handler(self):
        target = AuditFileHandler(
            self.trail, maxBytes=20_000, integrity={"origin": ORIGIN, "key": str(self.folder / "audit.pem")}
        )
        return AuditHandler(target=target, redactor=Redactor(vault=self.vault, **ERASABLE))

    def record(self, handler, count=100):
        for number in range(count):
            for person in (PERSON, f"other-{number % 7}"):
                handler.record_fields({"operation": "STORE", "user_id": person, "email": VALUE}, logging.INFO, "audit")

    def secrets(self):
        """Return what must not be left: the key of the person, the identity and the value."""
        with sqlite3.connect(self.vault) as database:
            ((key,),) = database.execute("SELECT key FROM subjects WHERE identity = ?", (PERSON.encode(),)).fetchall()
        database.close()
        return [key, key.hex().encode(), PERSON.encode(), PERSON.encode("utf-16-le"), b"C4nary"]

    def files_with(self, secrets):
        """Return the names of all files, in any folder, that have one of *secrets*, plain or compressed."""
        found = []
        for path in self.folder.rglob("*"):
            data = path.read_bytes() if path.is_file() else b""
            data = gzip.decompress(data) if path.suffix == ".gz" else data
            if any(secret in data for secret in secrets):
                found.append(path.name)
        return found

    def report(self):
        return verified(self.trail, policy=Policy((self.key,)))


@pytest.fixture
def erased_trail(tmp_path):
    return ErasedTrail(tmp_path)


def close(handler):
    handler.close()
    handler.redactor.vault.close()


@pytest.mark.parametrize("is_closed", [False, True])
def test_erased_person_is_in_no_file_and_the_trail_is_intact(erased_trail, is_closed):
    """Trail, segments, seal, vault, its log and its free pages: 0 occurrences, with handlers open and closed."""
    handler = erased_trail.handler()
    erased_trail.record(handler)
    secrets = erased_trail.secrets()
    assert erased_trail.files_with(secrets)

    token = handler.erase_subject(PERSON)
    handler.flush()
    handler.target.integrity.seal_now()
    if is_closed:
        close(handler)
    names = {path.name for path in erased_trail.folder.rglob("*")}
    assert {"audit.vault", "hashes.0"} <= names
    assert ("audit.vault-wal" in names) is not is_closed
    assert len([name for name in names if name.startswith("audit.jsonl.2")]) > 1
    assert erased_trail.files_with(secrets) == []

    if not is_closed:
        close(handler)
    report = erased_trail.report()
    assert (codes(report), report.verdict, report.unsealed) == ({}, "INTACT", 0)
    assert token.encode() in erased_trail.trail.read_bytes()


def test_erasure_by_the_command_keeps_the_trail_intact(erased_trail):
    """The command of another process appends an event, which the next sealer seals; compressed segments stay as they are."""
    handler = erased_trail.handler()
    erased_trail.record(handler)
    close(handler)
    for path in erased_trail.folder.glob("audit.jsonl.2*"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    secrets = erased_trail.secrets()

    assert run("erase", PERSON, "--vault", erased_trail.vault, erased_trail.trail).code == 0
    key = erased_trail.folder / "audit.pem"
    assert run("seal", erased_trail.trail, "--key", key, "--origin", ORIGIN).code == 0
    assert erased_trail.files_with(secrets) == []
    report = erased_trail.report()
    assert (codes(report), report.unsealed) == ({}, 0)
    assert b'"operation":"erased"' in erased_trail.trail.read_bytes()


def test_event_of_an_erased_person_can_still_be_proved(erased_trail):
    """The proof is of the line, which has not changed; nobody can read the value in it."""
    handler = erased_trail.handler()
    erased_trail.record(handler)
    token = handler.erase_subject(PERSON)
    event = handler.query_events(user_id=token)[0]
    close(handler)
    proven = prove(str(erased_trail.trail), event.event_id)
    assert proven.proof.verifies(proven.line, Policy((erased_trail.key,)))
    vault = SubjectVault(erased_trail.vault)
    assert VALUE not in str(vault.reveal(event).metadata)
    vault.close()
