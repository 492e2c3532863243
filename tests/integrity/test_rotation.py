"""The change of a trail's key: the overlap of two keys, what the trail states about it, and keys that sign outside of it."""

from __future__ import annotations

import datetime as dt
import errno
import json
import logging
import os
from pathlib import Path

import pytest
from commands import run
from seals import ORIGIN, SIGNER, SeedSigner, Writer, codes, verified

from structlog_audit import AuditFileHandler, AuditHandler, AuditValueError
from structlog_audit.exceptions import AuditSealError
from structlog_audit.integrity.background import CHECKPOINT_SECONDS, BackgroundSealer
from structlog_audit.integrity.merkle import HashFiles, inclusion_proof, root_at
from structlog_audit.integrity.notes import Checkpoint, Note, Policy, parse_note, sign_note
from structlog_audit.integrity.proving import prove
from structlog_audit.integrity.rotation import rotate_key
from structlog_audit.integrity.seal_folder import SealFolder
from structlog_audit.integrity.sealer import Sealer
from structlog_audit.integrity.signing import generate_key
from structlog_audit.integrity.standalone.verify_trail import (
    KEY_BEGINS,
    KEY_ENDS,
    MOST_FINDINGS,
    main,
    verify_proof,
)
from structlog_audit.integrity.verified_lines import VerifiedLines

OLD, NEW, THIRD = SIGNER, SeedSigner(bytes(32)), SeedSigner(bytes([9]) * 32)
OLD_ID = f"{ORIGIN}+{OLD.key.key_id.hex()}"


class Life:
    """A trail that processes with other keys seal, one after the other."""

    def __init__(self, folder):
        self.trail = folder / "audit.jsonl"
        self._writer = Writer()
        self._now = 0.0
        self.trail.write_bytes(self._writer.opened())

    def seal(self, *signers, events=3):
        """Record events, and seal them in a new process with these keys; return its sealer."""
        with self.trail.open("ab") as file:
            file.write(b"".join(self._writer.event(number) for number in range(events)))
        self._now += 2 * CHECKPOINT_SECONDS
        sealer = BackgroundSealer(
            str(self.trail), ORIGIN, lambda: signers, monotonic=lambda: self._now, sleep=lambda seconds: None
        )
        is_sealed = sealer.seal_now()
        sealer.release()
        assert is_sealed, sealer.failure
        return sealer

    @property
    def note(self):
        return parse_note(Path(f"{self.trail}.seal/checkpoint").read_bytes())

    def sign(self, *signers, size=None, extensions=()):
        """Return a note of the first *size* lines by any keys, whoever has them."""
        head = Checkpoint.parse(self.note.text)
        size = head.size if size is None else size
        with HashFiles(f"{self.trail}.seal") as hashes:
            head = Checkpoint(ORIGIN, size, root_at(size, hashes.read), extensions)
        return sign_note(str(head), signers)

    def put(self, note):
        Path(f"{self.trail}.seal/checkpoint").write_text(str(note))

    def report(self, *keys, **options):
        return verified(self.trail, policy=Policy(tuple(signer.key for signer in keys)), **options)

    def key_lines(self):
        lines = map(json.loads, self.trail.read_bytes().splitlines())
        return [line for line in lines if line["operation"] == "key"]


@pytest.fixture
def life(tmp_path):
    return Life(tmp_path)


@pytest.fixture
def rotated(life):
    """A trail whose key was replaced: 4 lines by the old key, then both, then the new key only."""
    life.seal(OLD)
    life.seal(NEW, OLD)
    life.seal(NEW)
    return life


def extension_of(line):
    return Checkpoint.parse(parse_note(line["metadata"]["note"].encode()).text).extensions


def test_either_key_alone_verifies_during_the_overlap(life):
    """With both keys, checkpoints have both signatures, that of the new key first."""
    life.seal(OLD)
    life.seal(NEW, OLD)
    assert [signature.key_id for signature in life.note.signatures] == [NEW.key.key_id, OLD.key.key_id]
    for keys in ([OLD], [NEW], [OLD, NEW]):
        assert codes(life.report(*keys)) == {}


def test_key_lines_name_the_new_key_and_the_end_of_the_old_one(rotated):
    """Each is a checkpoint of the trail: the size from which on the new key counts, and up to which the old one does."""
    begins, ends = rotated.key_lines()
    assert (begins["kind"], begins["metadata"]["size"], extension_of(begins)) == (
        "checkpoint",
        4,
        (f"{KEY_BEGINS}{NEW.key}",),
    )
    assert (ends["metadata"]["size"], extension_of(ends)) == (8, (f"{KEY_ENDS}{OLD_ID}",))


def test_after_the_overlap_the_new_key_verifies_and_the_old_one_alone_is_unknown(rotated):
    """A policy may name both keys, before and after; the old key alone does not know the newest checkpoint."""
    assert codes(rotated.report(NEW)) == codes(rotated.report(OLD, NEW)) == {}
    assert (codes(rotated.report(OLD)), rotated.report(OLD).exit_code) == ({"UNKNOWN_KEY": 1}, 2)


def test_unchanged_key_states_nothing(life):
    """A restart with the same keys, before, during and after an overlap, adds no line about keys."""
    for signers in ([OLD], [OLD], [NEW, OLD], [NEW, OLD], [NEW], [NEW]):
        life.seal(*signers)
    assert len(life.key_lines()) == 2


def test_process_with_the_old_key_only_may_seal_during_the_overlap(life):
    """While processes are restarted one by one, one without the new key does not end it, and nothing is a finding."""
    for signers in ([OLD], [NEW, OLD], [OLD], [NEW, OLD], [NEW]):
        life.seal(*signers)
    assert codes(life.report(OLD, NEW)) == codes(life.report(NEW)) == {}


def test_process_with_the_old_key_only_cannot_seal_after_the_overlap(rotated):
    """The old key does not continue what the new key has signed."""
    with pytest.raises(AssertionError, match="no given key has signed"):
        rotated.seal(OLD)


def test_key_may_be_replaced_several_times(rotated):
    """A third key follows the second as that one followed the first."""
    rotated.seal(THIRD, NEW)
    rotated.seal(THIRD)
    assert codes(rotated.report(OLD, NEW, THIRD)) == codes(rotated.report(THIRD)) == {}


def test_old_key_that_signs_after_its_end_is_a_finding(rotated):
    """A retired key was stolen: a checkpoint that it signs alone, beyond its size, is refused."""
    rotated.put(rotated.sign(OLD))
    report = rotated.report(OLD, NEW)
    assert (codes(report), report.exit_code) == ({"BAD_SIGNATURE": 1}, 1)
    (finding,) = report.findings
    assert finding.message.endswith(f"is signed by the key {OLD_ID} alone: it counts up to 8 lines, and was replaced")


def test_new_key_that_signs_below_its_size_is_a_finding(rotated):
    """No checkpoint from before the change can be by the new key."""
    with rotated.trail.open("ab") as file:
        file.write(Writer(bits=9).checkpoint(rotated.sign(NEW, size=3)))
    rotated.seal(NEW)
    (finding,) = rotated.report(OLD, NEW).findings
    assert (finding.code, "it counts from 4 lines on" in finding.message) == ("BAD_SIGNATURE", True)
    assert finding.line == 13


@pytest.mark.parametrize("signer", [OLD, NEW])
def test_checkpoint_outside_of_a_keys_sizes_in_an_anchor_is_a_finding(rotated, tmp_path, signer):
    """What the trail states holds for checkpoints of anchors, too."""
    anchor = tmp_path / "shipped.log"
    anchor.write_text(str(rotated.sign(signer, size=3 if signer is NEW else 11)))
    assert codes(rotated.report(OLD, NEW, anchors=[str(anchor)])) == {"BAD_SIGNATURE": 1}


def test_statement_in_an_anchor_counts(rotated, tmp_path):
    """The end of a key counts if only a shipped copy states it."""
    anchor = tmp_path / "shipped.log"
    anchor.write_bytes(rotated.trail.read_bytes())
    (tmp_path / "other").mkdir()
    other = Life(tmp_path / "other")
    other.trail.write_bytes(b"".join(rotated.trail.read_bytes().splitlines(keepends=True)[:4]))
    other.seal(OLD, events=7)
    report = other.report(OLD, NEW, anchors=[str(anchor)])
    assert codes(report)["BAD_SIGNATURE"] == 1


@pytest.mark.parametrize(
    ("signers", "extension"),
    [
        ([], KEY_ENDS + OLD_ID),
        ([THIRD], KEY_ENDS + OLD_ID),
        ([THIRD], f"{KEY_BEGINS}{OLD.key}"),
        ([OLD], f"{KEY_BEGINS}{NEW.key}"),
        ([OLD], "some other extension"),
        ([OLD], KEY_ENDS),
        ([OLD], f"{KEY_ENDS}{ORIGIN}+zz"),
    ],
)
def test_statement_counts_only_if_a_trusted_key_made_it(life, signers, extension):
    """Somebody without the keys cannot state that one has ended or begins later, nor an old key that a new one begins later."""
    life.seal(OLD)
    life.seal(NEW, OLD)
    note = life.sign(*(signers or [OLD]), size=2, extensions=(extension,))
    if not signers:
        note = Note(note.text, tuple(sign._replace(data=bytes(64)) for sign in note.signatures))
    with life.trail.open("ab") as file:
        file.write(Writer(bits=9).checkpoint(note))
    life.seal(NEW, OLD)
    assert codes(life.report(OLD, NEW)) == codes(life.report(NEW)) == {}


def test_first_statement_about_a_key_counts(rotated):
    """A retired key cannot give itself a later end."""
    later = rotated.sign(OLD, extensions=(KEY_ENDS + OLD_ID,))
    with rotated.trail.open("ab") as file:
        file.write(Writer(bits=9).checkpoint(later))
    rotated.seal(NEW)
    assert codes(rotated.report(OLD, NEW)) == {"BAD_SIGNATURE": 1}


def test_number_of_statements_that_are_verified_is_bounded(rotated, monkeypatch):
    """Each costs the verification of a signature, which a file full of them must not multiply."""
    note = rotated.sign(OLD, size=3, extensions=("a",))
    writer = Writer(bits=9)
    with rotated.trail.open("ab") as file:
        file.write(b"".join(writer.checkpoint(note) for _ in range(MOST_FINDINGS + 50)))
    rotated.seal(NEW)
    verifications = []
    verifies = type(OLD.key).verifies
    monkeypatch.setattr(type(OLD.key), "verifies", lambda *words: verifications.append(words) or verifies(*words))
    rotated.report(OLD, NEW)
    assert MOST_FINDINGS - 5 < len(verifications) < MOST_FINDINGS + 5


def problems_of(life, *keys):
    """Return the problems of a reading of the proved lines."""
    lines = VerifiedLines(life.trail, Policy(tuple(signer.key for signer in keys)))
    with lines:
        lines.read()
        return list(lines.problems(dt.datetime.now(dt.UTC)))


def test_proved_lines_of_a_checkpoint_by_a_retired_key_are_a_finding(rotated):
    """Who stole the old key seals lines that follow its end: the statement in the proved lines shows that."""
    assert problems_of(rotated, OLD, NEW) == []
    rotated.put(rotated.sign(OLD))
    ((sentence, is_finding),) = problems_of(rotated, OLD, NEW)
    assert ("it counts up to 8 lines, and was replaced" in sentence, is_finding) == (True, True)

    done = run("query", rotated.trail, "--verified", "--key", OLD.key, "--key", NEW.key)
    assert (done.code, "nothing is proved" in done.err) == (4, True)


@pytest.mark.parametrize("note", ["3", "null", '"x"', '"structlog-audit key ends x"', '{"a":1}'])
def test_other_lines_with_the_text_of_a_statement_state_nothing(life, note):
    """The text in a note that is none, or in any other event, changes nothing."""
    with life.trail.open("ab") as file:
        file.write(b'{"kind":"checkpoint","metadata":{"note":%s},"text":"structlog-audit key "}\n' % note.encode())
        file.write(b'"structlog-audit key ends"\n[structlog-audit key \n')
    life.seal(OLD)
    assert problems_of(life, OLD) == []


def test_several_processes_find_the_same(rotated):
    """The use of keys is part of the result of other processes, too."""
    rotated.put(rotated.sign(OLD))
    for jobs in (1, 2):
        assert codes(rotated.report(NEW, OLD, jobs=jobs)) == {"BAD_SIGNATURE": 1}


def test_statement_that_cannot_be_appended_is_tried_again(life):
    """Between the two steps of a rollover there is no active segment: the line follows later."""
    life.seal(OLD)
    content = life.trail.read_bytes()
    life.trail.unlink()
    sealer = BackgroundSealer(str(life.trail), ORIGIN, lambda: [NEW, OLD], sleep=lambda seconds: None)
    assert sealer.seal_now()
    assert sealer.has_unstated_key
    life.trail.write_bytes(content)
    assert sealer.seal_now()
    sealer.release()
    assert (sealer.has_unstated_key, len(life.key_lines())) == (False, 1)
    assert codes(life.report(NEW)) == {}


def test_statements_that_cannot_be_appended_outlive_their_process(life):
    """A sealer that cannot write to the trail keeps all statements in the seal folder, where they count; one that can appends
    them in order.
    """
    life.seal(OLD)
    rolled = life.trail.rename(f"{life.trail}.20250101T000000.000000Z")
    for signers in ([NEW, OLD], [NEW, OLD], [NEW]):
        with rolled.open("ab") as file:
            file.write(b"other\n")
        sealer = BackgroundSealer(str(life.trail), ORIGIN, lambda keys=signers: keys, sleep=lambda seconds: None)
        assert sealer.seal_now()
        sealer.release()

    life.put(life.sign(OLD))
    assert codes(life.report(OLD, NEW)) == {"BAD_SIGNATURE": 1}
    life.put(life.sign(NEW))
    assert codes(life.report(OLD, NEW)) == {}

    life.trail.write_bytes(b"")
    life.seal(NEW, events=0)
    assert [extension_of(line) for line in life.key_lines()] == [(f"{KEY_BEGINS}{NEW.key}",), (f"{KEY_ENDS}{OLD_ID}",)]
    assert not Path(f"{life.trail}.seal/key-changes").exists()


def test_interrupted_statement_is_stated_once(life):
    """A process that ended between the statement on the disk and its first checkpoint finds the same change again."""
    life.seal(OLD)
    sealer = Sealer(SealFolder(str(life.trail)), str(life.trail), ORIGIN, [NEW, OLD], on_key_change=lambda note: False)
    checkpoint = life.note
    for _ in range(2):
        folder = sealer._folder
        assert folder.lock()
        sealer.seal()
        life.put(checkpoint)
        sealer.forget()
        folder.release()
    life.seal(NEW, OLD)
    assert len(life.key_lines()) == 1


def test_rotate_key_seals_with_both_keys(life):
    """The function begins the overlap, once, and returns the number of sealed lines."""
    life.seal(OLD)
    assert rotate_key(life.trail, NEW, OLD) == 5
    assert rotate_key(life.trail, NEW, OLD) == 5
    assert len(life.key_lines()) == 1
    assert codes(life.report(OLD)) == codes(life.report(NEW)) == {}


def test_rotate_key_refuses_what_would_change_nothing(life):
    """The same key, a key of another name, a trail without a seal, and one that another process seals are errors."""
    with pytest.raises(AuditSealError, match="not sealed yet"):
        rotate_key(life.trail, NEW, OLD)
    life.seal(OLD)
    for signer in (OLD, SeedSigner(bytes(32), "audit.example/other")):
        with pytest.raises(AuditSealError, match="expected another key"):
            rotate_key(life.trail, signer, OLD)
    with pytest.raises(AuditSealError, match="no given key has signed"):
        rotate_key(life.trail, NEW, THIRD)

    sealer = BackgroundSealer(str(life.trail), ORIGIN, lambda: [OLD], sleep=lambda seconds: None)
    assert sealer.seal_now()
    with pytest.raises(AuditSealError, match="sealed by another process: give that one both keys"):
        rotate_key(life.trail, NEW, OLD)
    sealer.release()
    assert life.key_lines() == []


def test_handler_with_previous_key_signs_with_both(tmp_path):
    """The configuration of the application names the new key and the one that it replaces."""
    paths = [str(tmp_path / name) for name in ("old.pem", "new.pem")]
    keys = [generate_key(path, ORIGIN) for path in paths]
    trail = tmp_path / "audit.jsonl"
    for integrity in ({"key": paths[0]}, {"key": paths[1], "previous_key": paths[0]}):
        target = AuditFileHandler(trail, integrity={"origin": ORIGIN, **integrity})
        handler = AuditHandler(target=target)
        handler.handle(logging.makeLogRecord({"msg": "STORE", "levelno": logging.INFO}))
        handler.close()
    for key in keys:
        assert codes(verified(trail, policy=Policy((key,)))) == {}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"previous_key": "none.pem"}, "previous_key='none.pem': expected the path of a private key"),
        ({"previous_key": ["kms"]}, "expected 'previous_verifier_key' as well"),
        (
            {"previous_key": ["kms"], "previous_verifier_key": str(SeedSigner(name="b").key)},
            "previous_verifier_key is for",
        ),
        ({"key": None, "previous_key": "audit.pem"}, "expected 'key' as well: .* uses 'previous_key'"),
        ({"previous_key": "audit.pem"}, "'previous_key' is 'key': expected the key that 'audit.pem' replaces"),
        ({"previous_verifier_key": str(OLD.key)}, "expected 'previous_key' as well"),
    ],
)
def test_previous_key_that_cannot_be_used_is_an_error(tmp_path, monkeypatch, members, message):
    """The member has the rules of ``key``, and does not stand alone."""
    monkeypatch.chdir(tmp_path)
    generate_key("audit.pem", ORIGIN)
    with pytest.raises(AuditValueError, match=message):
        AuditFileHandler("audit.jsonl", integrity={"origin": ORIGIN, "key": "audit.pem", **members})


class Received:
    """What somebody who knows the first key has of a trail: a line, its proof, and copies of ``key`` lines."""

    def __init__(self, life, index=1):
        self.folder = life.trail.parent
        event_id = json.loads(life.trail.read_bytes().splitlines()[index])["event_id"]
        self.proven = prove(str(life.trail), event_id)
        self.statements = [
            json.loads(line) for line in life.trail.read_bytes().splitlines() if b"structlog-audit key" in line
        ]
        (self.folder / "line").write_bytes(self.proven.line + b"\n")

    def verify(self, *keys, statements=None, note=None):
        """Return the exit code and the words for the proof, with *note* in place of its own checkpoint."""
        proof = self.proven.proof if note is None else self.proven.proof._replace(note=note)
        (self.folder / "proof").write_text(str(proof))
        lines = self.statements if statements is None else statements
        (self.folder / "statements").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        files = [str(self.folder / "statements")] if lines else []
        policy = Policy(tuple(signer.key for signer in keys))
        return verify_proof(str(self.folder / "proof"), str(self.folder / "line"), policy, files)


@pytest.fixture
def received(life):
    """A trail whose key was replaced twice; the proof is by the third key alone."""
    for signers in ([OLD], [NEW, OLD], [NEW], [THIRD, NEW], [THIRD]):
        life.seal(*signers)
    return Received(life)


def as_lines(*notes):
    return [{"operation": "key", "kind": "checkpoint", "metadata": {"note": str(note)}} for note in notes]


def test_proof_by_a_new_key_verifies_for_who_knows_the_first_key(received):
    """The statements lead from key to key. Without all of them, the key of the proof is unknown."""
    assert len(received.statements) == 4
    assert received.verify(OLD) == (0, f"INTACT  the line is leaf 1 of {ORIGIN}")
    assert received.verify(OLD, statements=received.statements[::-1])[0] == 0
    for statements in ([], received.statements[:2], received.statements[2:]):
        assert received.verify(OLD, statements=statements)[1].split()[0] == "UNKNOWN_KEY"


def test_proof_by_a_key_after_its_end_is_refused(life, received):
    """Statements restrict the keys of proofs as they restrict those of a trail."""
    code, words = received.verify(OLD, note=life.sign(OLD))
    assert (code, words.split()[0], "and was replaced" in words) == (1, "BAD_SIGNATURE", True)
    assert received.verify(OLD, statements=[], note=life.sign(OLD))[0] == 0


def test_statement_stays_in_the_seal_folder_until_its_line_is_on_the_disk(life, monkeypatch):
    """A power failure before that would take the line, and with it the only statement."""
    life.seal(OLD)
    inode, sync = life.trail.stat().st_ino, os.fsync

    def failing_sync(fd):
        if os.fstat(fd).st_ino == inode:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_sync)
        with pytest.raises(AssertionError, match="Errno 5"):
            life.seal(NEW, OLD)
    kept = Path(f"{life.trail}.seal/key-changes")
    assert f"{KEY_BEGINS}{NEW.key}" in kept.read_text()

    life.seal(NEW, OLD)
    assert not kept.exists()
    assert codes(life.report(OLD, NEW)) == {}


def test_damaged_statement_of_the_end_of_a_key_is_refused(life, received):
    """It is not left out: a proof by the key after its end would verify."""
    ends = [line for line in received.statements if KEY_ENDS in line["metadata"]["note"]]
    note = ends[0]["metadata"]["note"]
    for damaged in (note.replace("key ends", "key enxs"), note[:-6] + "\n"):
        lines = [{**ends[0], "metadata": {"note": damaged}}]
        code, words = received.verify(OLD, NEW, statements=lines, note=life.sign(OLD))
        assert (code > 0, words.split()[0] in ("BAD_SIGNATURE", "UNREADABLE")) == (True, True), words


def test_proof_states_that_only_the_first_line_was_verified(received):
    """A file with more than the line is not taken for proven."""
    (received.folder / "line").write_bytes(received.proven.line + b"\nforged\n")
    code, words = received.verify(THIRD, statements=[])
    assert (code, words.endswith("the first line is leaf 1 of " + ORIGIN)) == (0, False)
    assert "what follows it in the file was not checked" in words


def test_proof_by_a_new_key_for_fewer_lines_than_it_counts_from_is_refused(life, received):
    """A new key cannot have signed an earlier state."""
    proof = received.proven.proof
    with HashFiles(f"{life.trail}.seal") as hashes:
        earlier = proof._replace(hashes=tuple(inclusion_proof(1, 3, hashes.read)), note=life.sign(NEW, size=3))
    received.proven = received.proven._replace(proof=earlier)
    code, words = received.verify(OLD)
    assert (code, words.split()[0], "it counts from" in words) == (1, "BAD_SIGNATURE", True)


@pytest.mark.parametrize("signers", [[THIRD], [NEW, OLD], []], ids=["itself", "others", "nobody"])
def test_statement_without_the_old_or_the_new_key_adds_none(life, signers):
    """A key that appoints itself, and one that has not signed, are unknown."""
    life.seal(OLD)
    received = Received(life)
    extensions = (f"{KEY_BEGINS}{THIRD.key}",)
    statement = life.sign(*signers, extensions=extensions) if signers else life.sign(OLD, extensions=extensions)
    assert received.verify(OLD, statements=as_lines(statement), note=life.sign(THIRD))[0] == 2


def test_key_that_has_ended_appoints_no_other(life, received):
    """A stolen old key cannot name a key for sizes beyond its own."""
    thief = SeedSigner(bytes([7]) * 32)
    statement = life.sign(thief, OLD, extensions=(f"{KEY_BEGINS}{thief.key}",))
    lines = received.statements + as_lines(statement)
    assert received.verify(OLD, statements=lines, note=life.sign(thief))[1].split()[0] == "UNKNOWN_KEY"
    assert received.verify(OLD, statements=as_lines(statement), note=life.sign(thief))[0] == 0


def test_file_without_a_statement_of_the_trail_is_named(received):
    """A wrong file, or one of another trail, is no reason to call a key unknown."""
    for lines in ([{"operation": "key"}], as_lines(sign_note(f"other\n1\n{'A' * 43}=\n{KEY_BEGINS}x\n", [NEW]))):
        code, words = received.verify(OLD, statements=lines)
        assert (code, f"has no statement about a key of {ORIGIN}" in words) == (2, True)


def test_command_and_stand_alone_verifier_take_statements(life, received):
    """verify-proof --statement and verify_trail.py --proof --statement do the same; a trail needs none."""
    received.verify(OLD)
    files = [life.trail.parent / name for name in ("proof", "line")]
    (life.trail.parent / "part").write_text(json.dumps(received.statements[3]))
    words = [
        "--key",
        OLD.key,
        "--statement",
        life.trail.parent / "statements",
        "--statement",
        life.trail.parent / "part",
    ]
    done = run("verify-proof", *files, *words)
    assert (done.code, done.out) == (0, f"INTACT  the line is leaf 1 of {ORIGIN}\n")
    assert run("verify-proof", *files, "--key", OLD.key).code == 2

    assert main([str(files[1]), "--proof", str(files[0]), *map(str, words)]) == 0
    with pytest.raises(SystemExit):
        main([str(life.trail), *map(str, words)])
