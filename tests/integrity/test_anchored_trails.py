"""Tests of anchors together with the sealer, the proofs and the command line."""

import json
import logging

import pytest
from commands import process
from seals import ORIGIN, verified
from witnesses import ReferenceWitness, answer_of, serving

from structlog_audit import AuditFileHandler, AuditHandler, AuditTypeError, AuditValueError
from structlog_audit.integrity.proving import prove
from structlog_audit.integrity.signing import KeyFile, generate_key
from structlog_audit.integrity.standalone.verify_trail import Policy


@pytest.fixture
def key_file(tmp_path):
    path = tmp_path / "audit.pem"
    generate_key(str(path), ORIGIN)
    return path


@pytest.fixture
def reference(key_file):
    """A witness that knows the key of the trail."""
    return ReferenceWitness(log=KeyFile(str(key_file), ORIGIN).key)


@pytest.fixture
def witness(reference):
    """The configuration of that witness, served by HTTP."""

    def respond(connection, request):
        connection.sendall(answer_of(*reference.answer(request[1])))

    with serving(respond) as url:
        yield {**reference.config, "url": url}


@pytest.fixture
def trail(tmp_path):
    (tmp_path / "logs").mkdir()
    return tmp_path / "logs" / "audit.jsonl"


def record(trail, **integrity):
    """Record three events in a handler with *integrity*, and close it; return its findings before that."""
    handler = AuditHandler(target=AuditFileHandler(trail, integrity={"origin": ORIGIN, **integrity}))
    logger = logging.Logger("audit")
    logger.addHandler(handler)
    for number in range(3):
        logger.info("STORE", extra={"user_id": f"user_{number}"})
    codes = [finding.code for finding in handler.check()]
    handler.close()
    return codes


def policy_of(reference):
    return Policy((reference.log,), {"w": reference.signer.key}, {}, "w")


def ids_in(trail):
    return [json.loads(line)["event_id"] for line in trail.read_bytes().splitlines()]


def test_handler_with_a_witness_is_anchored_when_it_is_closed(trail, key_file, reference, witness):
    """A quorum has cosigned every line, ``closed`` and the checkpoint line included."""
    codes = record(trail, key=str(key_file), witnesses=[witness])
    assert "no-anchor" not in codes
    report = verified(trail, policy=policy_of(reference))
    assert (report.counts, report.exit_code) == ({}, 0)
    assert report.anchored == report.size == len(ids_in(trail))


def test_handler_without_anchors_is_told_by_check(trail, key_file):
    """A handler with integrity and no anchor has a finding that states it."""
    assert "no-anchor" in record(trail, key=str(key_file))


def test_proof_has_the_cosigned_checkpoint(trail, key_file, reference, witness):
    """The proof of a line satisfies a policy with a quorum, also after lines that are not cosigned yet."""
    record(trail, key=str(key_file), witnesses=[witness])
    count = len(ids_in(trail))
    record(trail, key=str(key_file))
    old = prove(str(trail), ids_in(trail)[count - 1])
    assert old.proof.verifies(old.line, policy_of(reference))
    new = prove(str(trail), ids_in(trail)[count])
    assert new.proof.verifies(new.line, Policy((reference.log,)))


def test_refusal_is_recorded_in_the_trail(trail, key_file, reference, witness, capsys):
    """A trail that begins anew under the origin of another one is refused, and its next event states that."""
    record(trail, key=str(key_file), witnesses=[witness])
    other = trail.parent / "other.jsonl"
    record(other, key=str(key_file), witnesses=[witness])
    assert "refused a checkpoint" in capsys.readouterr().err
    assert json.loads((other.parent / "other.jsonl.seal" / "anchors").read_bytes())["witness witness.example/w1"][
        "refused"
    ]


@pytest.mark.parametrize(
    ("member", "error", "reason"),
    [
        ({"witnesses": [{"name": "w"}]}, AuditValueError, "expected name, key and url"),
        ({"timestamps": "tsa.example"}, AuditValueError, "expected an address"),
        ({"witnesses": "w"}, AuditTypeError, "expected a list"),
    ],
)
def test_wrong_anchors_are_refused_by_the_handler(trail, key_file, member, error, reason):
    """A wrong member is an error when the handler is made, not when the network is needed."""
    with pytest.raises(error, match=reason):
        AuditFileHandler(trail, integrity={"origin": ORIGIN, "key": str(key_file), **member})


def test_seal_command_submits_to_the_witnesses_of_a_policy(trail, key_file, reference, witness, tmp_path):
    """A sealer under another user anchors what it seals; the verifier takes the same policy."""
    record(trail)
    policy = tmp_path / "policy"
    policy.write_text(f"log {reference.log}\nwitness w {witness['key']} {witness['url']}\nquorum w\n")
    done = process("seal", trail, "--key", key_file, "--origin", ORIGIN, "--policy", policy)
    assert done.code == 0, done.err
    report = verified(trail, policy=Policy.load(str(policy)))
    assert (report.exit_code, report.anchored) == (0, len(ids_in(trail)))


def test_seal_command_refuses_a_policy_that_cannot_be_used(trail, key_file, tmp_path):
    """A file that is missing or not a policy is a wrong usage."""
    record(trail)
    (tmp_path / "wrong").write_text("nonsense\n")
    for name in ("missing", "wrong"):
        done = process("seal", trail, "--key", key_file, "--origin", ORIGIN, "--policy", tmp_path / name)
        assert (done.code, "--policy" in done.err) == (2, True)


def test_prove_command_writes_a_cose_receipt(trail, key_file, tmp_path):
    """With ``--cose`` and the key, the receipt is written beside the proof; with another key, it is refused."""
    record(trail, key=str(key_file))
    words = ("prove", trail, ids_in(trail)[2], "--cose", tmp_path / "receipt")
    assert process(*words).code == 2
    assert process(*words, "--key", key_file).code == 0
    assert (tmp_path / "receipt").read_bytes()[:2] == b"\xd2\x84"

    generate_key(str(tmp_path / "other.pem"), ORIGIN)
    done = process(*words, "--key", tmp_path / "other.pem")
    assert (done.code, "has not signed the checkpoint" in done.err) == (2, True)
