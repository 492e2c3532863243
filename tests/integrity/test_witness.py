"""Tests of `structlog_audit.integrity.witness`: what a client of a witness accepts, sends and refuses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seals import ORIGIN, SIGNER, SeedSigner, note_of, other_signer
from witnesses import NO_ANSWER, ReferenceWitness, witness_signer

from structlog_audit import AuditError, AuditTypeError, AuditValueError
from structlog_audit.integrity.merkle import Tree, consistency_proof, leaf_hash
from structlog_audit.integrity.notes import Note, cosign
from structlog_audit.integrity.submission import RefusedError, SubmissionError
from structlog_audit.integrity.witness import Witness


class Log:
    """A tree in memory that grows, with its notes and proofs."""

    def __init__(self, prefix=b""):
        self.prefix = prefix
        self.leaves = b""
        self.tree = Tree()

    def note(self, size, signer=SIGNER):
        while self.tree.size < size:
            leaf = leaf_hash(b"%b%d" % (self.prefix, self.tree.size))
            self.tree.append(leaf)
            self.leaves += leaf
        return note_of(size, self.tree.root(), signer)

    def read(self, level, start, count):
        assert level == 0
        return self.leaves[start * 32 : (start + count) * 32]

    def proofs(self, old, new):
        return consistency_proof(old, new, self.read)


def client_of(reference):
    return Witness.from_config("place", reference.config, post=reference.post)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=8, unique=True).map(sorted))
def test_witness_cosigns_every_growth_of_the_tree(sizes):
    """For all growing sizes, each checkpoint gets a cosignature that verifies, and later ones need one request."""
    reference, log = ReferenceWitness(), Log()
    witness = client_of(reference)
    for size in sizes:
        note = log.note(size)
        (cosignature,) = witness.submit(note, log.proofs, 10)
        cosigned = note._replace(signatures=(*note.signatures, cosignature))
        assert cosigned.signers([reference.signer.key]) == [reference.signer.key]
    assert witness.size == sizes[-1]
    assert len(reference.requests) == len(sizes)


@given(st.integers(0, 40), st.integers(1, 40))
def test_forgotten_size_is_taken_from_the_answer(known, size):
    """For all sizes that the client believes, the witness states the right one, and the second request succeeds."""
    reference, log = ReferenceWitness(), Log()
    client_of(reference).submit(log.note(1), log.proofs, 10)
    witness = client_of(reference)
    witness.size = known
    assert witness.submit(log.note(size), log.proofs, 10)
    assert reference.latest.size == witness.size == size


def test_smaller_tree_is_told_as_rolled_back():
    """A checkpoint of fewer lines than the witness has seen is refused, with both sizes."""
    reference, log = ReferenceWitness(), Log()
    client_of(reference).submit(log.note(20), log.proofs, 10)
    short = Log()
    with pytest.raises(
        RefusedError, match="a checkpoint of 20 lines, the trail only 7: the trail was rolled back"
    ) as caught:
        client_of(reference).submit(short.note(7), short.proofs, 10)
    assert (caught.value.code, caught.value.size) == ("ROLLED_BACK", 20)


@pytest.mark.parametrize("size", [7, 12])
def test_other_history_is_told_as_forked(size):
    """A tree with other lines of the same or a larger size is refused."""
    reference, log = ReferenceWitness(), Log()
    client_of(reference).submit(log.note(7), log.proofs, 10)
    rewritten = Log(b"other")
    with pytest.raises(RefusedError, match="another history of the first 7 lines") as caught:
        client_of(reference).submit(rewritten.note(size), rewritten.proofs, 10)
    assert caught.value.code == "FORKED"


def test_conflict_at_the_same_size_is_told_as_forked():
    """Witnesses of version 1.0.0 answer 409 with the same size if the roots differ: that is a fork, too."""
    reference, log = ReferenceWitness(), Log()
    reference.faults = [(409, b"7\n")]
    witness = client_of(reference)
    witness.size = 7
    with pytest.raises(RefusedError, match="another checkpoint of 7 lines") as caught:
        witness.submit(log.note(7), log.proofs, 10)
    assert caught.value.code == "FORKED"


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        ([NO_ANSWER], "no answer"),
        ([(403, b"")], "status 403: it does not know the key"),
        ([(404, b"")], "status 404: it does not know the origin"),
        ([(503, b"secret")], "status 503"),
        ([(307, b"")], "status 307"),
        ([(409, b"")], "status 409: its size"),
        ([(409, b"-1\n")], "status 409: its size"),
        ([(409, b"03\n")], "status 409: its size"),
        ([(409, b"3\n"), (409, b"4\n")], "status 409"),
        ([(200, b"")], "without a cosignature"),
        ([(200, b"\xff\n")], "not UTF-8"),
        ([(200, b"<html></html>\n")], "not a cosignature"),
        ([(200, "— other AAAAAAAA\n".encode())], "without a cosignature"),
        ([(200, "\n— other AAAAAAAA\n".encode())], "cosignature"),
    ],
)
def test_answers_that_are_not_a_cosignature_are_errors(answers, reason):
    """Any other answer raises an error with its reason and without its content, and the size stays unknown."""
    reference, log = ReferenceWitness(), Log()
    reference.faults = answers
    witness = client_of(reference)
    with pytest.raises(SubmissionError, match=reason) as caught:
        witness.submit(log.note(10), log.proofs, 10)
    assert not isinstance(caught.value, RefusedError)
    assert "secret" not in str(caught.value)
    assert witness.size in (0, 3, 4)


@pytest.mark.parametrize("change", ["other text", "other key", "bit"])
def test_false_cosignature_is_refused(change):
    """A signature that states the witness's key and is not one of this checkpoint by it is an error."""
    reference, log = ReferenceWitness(), Log()
    note = log.note(5)
    signed = note if change != "other text" else note_of(6, bytes(32))
    signer = reference.signer if change != "other key" else SeedSigner(bytes([9]) * 32, reference.signer.key.name, 4)
    signature = cosign(signed, signer, 1_700_000_000).signatures[-1]._replace(key_id=reference.signer.key.key_id)
    if change == "bit":
        signature = signature._replace(data=signature.data[:-1] + bytes([signature.data[-1] ^ 1]))
    line = str(Note("", (signature,))).lstrip("\n").encode()
    reference.faults = [(200, line)]
    with pytest.raises(SubmissionError, match="not one of this text"):
        client_of(reference).submit(note, log.proofs, 10)


def test_cosignatures_of_unknown_keys_are_ignored():
    """A witness may answer with signatures of other keys, which do not get into the note."""
    reference, log = ReferenceWitness(), Log()
    note = log.note(5)
    both = cosign(cosign(note, witness_signer(2), 1), reference.signer, 1)
    answer = str(both._replace(signatures=both.signatures[1:])).rpartition("\n\n")[2]
    reference.faults = [(200, answer.encode())]
    assert client_of(reference).submit(note, log.proofs, 10) == both.signatures[2:]


def test_wrong_key_of_the_trail_is_an_error():
    """A witness that knows another key of the origin answers 403, which is no refusal of the history."""
    reference = ReferenceWitness(log=other_signer().key._replace(name=ORIGIN))
    log = Log()
    with pytest.raises(SubmissionError, match="does not know the key") as caught:
        client_of(reference).submit(log.note(5), log.proofs, 10)
    assert not isinstance(caught.value, RefusedError)


def test_failure_of_the_proofs_reaches_the_caller():
    """If stored hashes are missing, the error states that, and nothing is sent."""
    reference, log = ReferenceWitness(), Log()
    witness = client_of(reference)
    witness.submit(log.note(5), log.proofs, 10)

    def without_hashes(old, new):
        raise AuditError("hashes.0 ends before the hash 3")

    with pytest.raises(AuditError, match="ends before"):
        witness.submit(log.note(9), without_hashes, 10)
    assert len(reference.requests) == 1


def test_proof_of_too_many_hashes_is_not_sent():
    """More than 63 hashes are never sent, as the protocol says."""
    reference, log = ReferenceWitness(), Log()
    witness = client_of(reference)
    witness.submit(log.note(5), log.proofs, 10)
    with pytest.raises(SubmissionError, match="a proof of 64 hashes"):
        witness.submit(log.note(9), lambda old, new: [bytes(32)] * 64, 10)


GOOD = ReferenceWitness().config


@pytest.mark.parametrize(
    ("config", "error", "reason"),
    [
        ("text", AuditTypeError, "expected a mapping"),
        (None, AuditTypeError, "expected a mapping"),
        ({}, AuditValueError, "expected name, key and url, got nothing"),
        ({"key": GOOD["key"]}, AuditValueError, "expected name, key and url, got key"),
        ({**GOOD, "vkey": "x"}, AuditValueError, "got name, key, url, vkey"),
        ({**GOOD, "key": 7}, AuditTypeError, r"place\['key'\]=7"),
        ({**GOOD, "key": "nonsense"}, AuditValueError, r"place\['key'\]: expected a verifier key"),
        (
            {**GOOD, "key": str(SIGNER.key)},
            AuditValueError,
            r"place\['key'\]: the verifier key .* of type 4 \(a witness\), got type 1",
        ),
        ({**GOOD, "name": ""}, AuditValueError, r"place\['name'\]=''"),
        ({**GOOD, "name": "a\nb"}, AuditValueError, r"place\['name'\]="),
        ({**GOOD, "name": 7}, AuditValueError, r"place\['name'\]=7"),
        ({**GOOD, "url": "witness.example"}, AuditValueError, r"place\['url'\]='witness.example'"),
        ({**GOOD, "url": None}, AuditTypeError, r"place\['url'\]=None"),
    ],
)
def test_wrong_configurations_are_refused_with_their_place(config, error, reason):
    """A member that is missing, unknown or wrong raises an error that names it and what was expected."""
    with pytest.raises(error, match=reason):
        Witness.from_config("place", config)


def test_name_of_a_witness_is_that_of_its_key_by_default():
    """A witness without a name has that of its key."""
    config = {"key": GOOD["key"], "url": GOOD["url"]}
    assert Witness.from_config("place", config).name == "witness.example/w1"
