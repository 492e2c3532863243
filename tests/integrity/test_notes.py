"""Tests of `structlog_audit.integrity.notes`: the texts of C2SP."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seals import ORIGIN, POLICY, SIGNER, SeedSigner, note_of

from structlog_audit import AuditError, AuditValueError
from structlog_audit.integrity.merkle import inclusion_proof, leaf_hash
from structlog_audit.integrity.notes import (
    COSIGNATURE,
    Checkpoint,
    Note,
    Policy,
    Proof,
    Signature,
    cosign,
    parse_checkpoint,
    parse_key,
    parse_note,
    parse_policy,
    parse_proof,
    sign_note,
)
from structlog_audit.integrity.standalone.verify_trail import SealError

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())
CHECKPOINT = VECTORS["checkpoint"].encode()
ROOT = bytes(range(32))

# From C2SP signed-note and tlog-cosignature.
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
EXAMPLE_COSIGNED = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
)

WITNESSES = [SeedSigner(bytes([number]) * 32, f"witness.example/w{number}", COSIGNATURE) for number in range(4)]


def test_vkey_and_checkpoint_equal_the_published_vectors():
    """Key and signature of the vectors' seed give its verifier key and checkpoint, byte for byte."""
    root = base64.b64decode(VECTORS["roots_base64"][2])
    assert str(SIGNER.key) == VECTORS["vkey"]
    assert str(note_of(3, root)) == VECTORS["checkpoint"]


def test_proof_equals_the_published_vector_and_verifies():
    """The proof of line 1 equals the vector, and verifies that line only."""
    leaves = [leaf_hash(line.encode()) for line in VECTORS["lines"]]
    hashes = inclusion_proof(1, 3, lambda level, start, count: b"".join(leaves[start : start + count]))
    proof = Proof(1, tuple(hashes), parse_note(CHECKPOINT))
    assert str(proof) == VECTORS["tlog_proof_of_line_1"]
    parsed = parse_proof(str(proof).encode())
    assert parsed == proof
    assert [parsed.verifies(line.encode(), POLICY) for line in VECTORS["lines"]] == [False, True, False]


def test_signed_note_of_the_specification_verifies():
    """The example of C2SP signed-note parses, and its key verifies it."""
    key = parse_key(EXAMPLE_KEY)
    note = parse_note(EXAMPLE_NOTE.encode())
    assert note.signers([key]) == [key]
    assert str(key) == EXAMPLE_KEY
    assert str(note) == EXAMPLE_NOTE


def test_cosigned_checkpoint_of_the_specification_parses():
    """The example of C2SP tlog-cosignature has two signatures, the second with its time."""
    note = parse_note(EXAMPLE_COSIGNED.encode())
    checkpoint = parse_checkpoint(note.text)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20_852_163)
    log, witness = note.signatures
    assert (len(log.data), len(witness.data)) == (64, 72)
    assert int.from_bytes(witness.data[:8], "big") == 1_679_315_147
    assert str(note) == EXAMPLE_COSIGNED


@given(
    st.integers(0, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
    st.lists(st.from_regex(r"\A[!-~]{1,20}\Z"), max_size=3),
)
def test_checkpoint_parses_to_what_it_was_made_of(size, root, extensions):
    """For all sizes, roots and extensions, the text of a checkpoint parses to the same values."""
    checkpoint = Checkpoint(ORIGIN, size, root, tuple(extensions))
    assert parse_checkpoint(str(checkpoint)) == checkpoint


@given(st.binary(max_size=300) | st.integers(0, len(CHECKPOINT)).map(lambda end: CHECKPOINT[:end]))
def test_any_bytes_parse_or_raise_an_audit_error(data):
    """For all bytes, each parser returns a value whose text is the input, or raises an `AuditError`."""
    for parse in (parse_note, parse_proof, parse_policy):
        try:
            value = parse(data)
        except AuditError:
            continue
        if parse is parse_note:
            assert str(value).encode() == data


@given(st.integers(0, len(CHECKPOINT) - 1), st.integers(0, 7))
def test_note_with_any_bit_changed_is_not_verified(at, bit):
    """For all bits of a checkpoint, changing one makes it unreadable or loses the signature."""
    changed = bytearray(CHECKPOINT)
    changed[at] ^= 1 << bit
    with pytest.raises((AuditError, SealError)):
        POLICY.check(parse_note(bytes(changed)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty line"),
        (b"text\n", "empty line"),
        (b"text\n\n", "empty line"),
        (CHECKPOINT[:-1], "empty line"),
        (CHECKPOINT.replace(b"\n", b"\r\n"), "control characters"),
        (CHECKPOINT.replace("— ".encode(), b"- "), "line with a signature"),
        (CHECKPOINT + "— a+b AAAAAAAA\n".encode(), "line with a signature"),
        (CHECKPOINT + "— name AAAA\n".encode(), "only 3 bytes"),
        (CHECKPOINT + "— name AAAAAAB=\n".encode(), "expected base64"),
        (b"\xff" + CHECKPOINT, "not UTF-8"),
        (CHECKPOINT + "— name AAAAAAAA\n".encode() * 100, "101 signatures"),
        (b"x" * 1_000_001, "more than 1000000 bytes"),
    ],
)
def test_malformed_notes_are_refused_with_the_reason(data, reason):
    """A text that is not a note raises an error that states why."""
    with pytest.raises(AuditValueError, match=reason):
        parse_note(data)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("origin\n3\n", "no empty line"),
        ("origin\n3\nAAAA\n\n", "no empty line"),
        ("\n3\nAAAA\n", "no empty line"),
        (f"origin\n03\n{'A' * 43}=\n", "without leading zeros"),
        (f"origin\n-3\n{'A' * 43}=\n", "without leading zeros"),
        (f"origin\n٣\n{'A' * 43}=\n", "without leading zeros"),
        (f"origin\n{2**63}\n{'A' * 43}=\n", "without leading zeros"),
        ("origin\n3\nAAAA\n", "the base64 of 32 bytes"),
        (f"origin\n3\n{'A' * 42}B=\n", "expected base64"),
    ],
)
def test_malformed_checkpoints_are_refused_with_the_reason(text, reason):
    """A text that is not a checkpoint raises an error that states why."""
    with pytest.raises(AuditValueError, match=reason):
        parse_checkpoint(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "NAME"),
        ("a+b", "NAME"),
        ("a b+3e402ff2+AQ==", "NAME"),
        (VECTORS["vkey"].replace("3e402ff2", "3e402ff3"), "expected the id 3e402ff2"),
        (VECTORS["vkey"].replace("3e402ff2", "3E402FF2"), "expected the id"),
        (VECTORS["vkey"][:-4], "Ed25519 key"),
        (VECTORS["vkey"].replace("AQO", "BgO"), r"Ed25519 key of type 1 \(a trail\) or 4 \(a witness\), got type 6"),
        ("a+00000000+!", "expected base64"),
        ("small+56763dda+AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "expected the id|small order"),
    ],
)
def test_malformed_keys_are_refused_with_the_reason(text, reason):
    """A text that is not a verifier key of Ed25519 raises an error that states why."""
    with pytest.raises(AuditValueError, match=reason):
        parse_key(text)


@pytest.mark.parametrize(
    "public_key", [bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f", b"\xee" + b"\xff" * 30 + b"\x7f"]
)
def test_keys_of_small_order_and_keys_that_are_not_canonical_are_refused(public_key):
    """A key whose signatures anybody can make is refused, whatever its id."""
    key = SIGNER.key._replace(public_key=public_key)
    with pytest.raises(AuditValueError, match="small order"):
        parse_key(str(key))


def test_signature_by_an_unknown_key_is_ignored():
    """Signatures of keys that were not given do not count, and do no harm."""
    note = sign_note(str(Checkpoint(ORIGIN, 3, ROOT)), [SeedSigner(bytes(32)), SIGNER])
    assert note.signers([SIGNER.key]) == [SIGNER.key]


def test_false_signature_of_a_known_key_rejects_the_note():
    """A signature that states a known key and is not by it rejects the note, beside a right one too."""
    note = note_of(3, ROOT)
    false = note.signatures[0]._replace(data=bytes(64))
    both = note._replace(signatures=(*note.signatures, false))
    with pytest.raises(SealError, match="not one of this text") as caught:
        both.signers([SIGNER.key])
    assert caught.value.code == "BAD_SIGNATURE"


def test_checkpoint_of_another_origin_is_refused():
    """The key's name must be the origin of the checkpoint."""
    with pytest.raises(SealError, match=r"is of 'other\.example'") as caught:
        POLICY.check(note_of(3, ROOT, origin="other.example"))
    assert caught.value.code == "UNKNOWN_KEY"


def test_text_without_lf_cannot_be_signed():
    """The text of a note ends in LF."""
    with pytest.raises(AuditValueError, match="ends in LF"):
        sign_note("text", [SIGNER])


def test_note_with_control_characters_cannot_be_signed():
    """What could not be parsed again is not signed."""
    with pytest.raises(AuditValueError, match="control characters"):
        sign_note("te\txt\n", [SIGNER])


def test_cosignature_signs_time_and_text():
    """A witness signs the time and the text; the note with its signature verifies with its key, at any other time not."""
    (witness, *_) = WITNESSES
    note = cosign(note_of(3, ROOT), witness, 1_700_000_000)
    assert note.signers([SIGNER.key, witness.key]) == [SIGNER.key, witness.key]

    signature = note.signatures[1]
    later = signature._replace(data=(1_700_000_001).to_bytes(8, "big") + signature.data[8:])
    with pytest.raises(SealError, match="not one of this text"):
        note._replace(signatures=(later,)).signers([witness.key])


def test_key_of_a_log_cannot_cosign():
    """A cosignature needs a key of its own type."""
    with pytest.raises(AuditValueError, match="expected 4"):
        cosign(note_of(3, ROOT), SIGNER, 1)


def test_only_checkpoints_are_cosigned():
    """A note that is not a checkpoint is refused."""
    with pytest.raises(AuditValueError):
        cosign(sign_note("text\n", [SIGNER]), WITNESSES[0], 1)


def policy_text(*lines):
    witnesses = [
        f"witness W{number} {witness.key} https://w{number}.example" for number, witness in enumerate(WITNESSES)
    ]
    return "\n".join([f"# comment\n\n log\t{SIGNER.key}", *witnesses, *lines, ""]).encode()


GROUPS = ("group pair all W0 W1", "group either any W2 W3", "group both 2 pair either", "quorum both")


@pytest.mark.parametrize(
    ("cosigners", "is_enough"),
    [
        ((), False),
        ((0, 1), False),
        ((0, 2), False),
        ((2, 3), False),
        ((0, 1, 2), True),
        ((0, 1, 3), True),
        ((0, 1, 2, 3), True),
    ],
)
def test_quorum_counts_groups_of_witnesses(cosigners, is_enough):
    """A checkpoint is witnessed if the groups of the policy have their numbers of cosignatures."""
    note = note_of(3, ROOT)
    for number in cosigners:
        note = cosign(note, WITNESSES[number], 1_700_000_000 + number)
    checkpoint, is_witnessed = parse_policy(policy_text(*GROUPS)).check(note)
    assert checkpoint.size == 3
    assert is_witnessed is is_enough


def test_one_witness_can_be_the_quorum_and_none_as_well():
    """The quorum may be a single witness, or none."""
    note = cosign(note_of(3, ROOT), WITNESSES[1], 1)
    assert parse_policy(policy_text("quorum W1")).check(note)[1]
    assert not parse_policy(policy_text("quorum W0")).check(note)[1]
    assert parse_policy(policy_text("quorum none")).check(note_of(3, ROOT))[1]


def test_policy_keeps_the_addresses():
    """The addresses of witnesses are there for those who talk to them."""
    policy = parse_policy(policy_text("quorum none"))
    assert policy.urls[str(WITNESSES[2].key)] == "https://w2.example"
    assert policy.logs == (SIGNER.key,)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ((), "quorum NAME"),
        (("quorum none", "quorum none"), "a second quorum"),
        (("quorum W9",), "not defined before"),
        (("group g any W9", "quorum g"), "not defined before"),
        (("group none any W0", "quorum none"), "is used already"),
        (("group W0 any W1", "quorum none"), "is used already"),
        (("group g 3 W0 W1", "quorum g"), "number from 1 to 2"),
        (("group g 0 W0 W1", "quorum g"), "number from 1 to 2"),
        (("group g all W0 W0", "quorum g"), "member already"),
        (("group g all W0", "group h all W0", "quorum g"), "member already"),
        (("group g all", "quorum g"), "has 2 values"),
        (("quorom none",), "expected log, witness, group or quorum"),
        ((f"log {SIGNER.key}", "quorum none"), "given before"),
        ((f"log {WITNESSES[0].key}", "quorum none"), r"of type 1 \(a trail\), got type 4"),
        ((f"witness W {SIGNER.key}", "quorum none"), r"of type 4 \(a witness\), got type 1"),
        ((f"witness W {WITNESSES[0].key}", "quorum none"), "given before"),
        (("log x", "quorum none"), "verifier key"),
        (("quorum none\r",), "control characters"),
    ],
)
def test_malformed_policies_are_refused_with_the_line(lines, reason):
    """A policy that is ambiguous or incomplete raises an error that states the line."""
    with pytest.raises(AuditValueError, match=reason) as caught:
        parse_policy(policy_text(*lines))
    if "control" not in reason:
        assert "of the policy: " in str(caught.value)


def test_policy_names_are_opaque_bytes():
    """Names that are not UTF-8 are allowed in a policy."""
    text = policy_text().replace(b" W0 ", b" \xe9 ") + b"quorum \xe9\n"
    assert not parse_policy(text).check(note_of(3, ROOT))[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text.replace("proof@v1", "proof@v2"), "begins with"),
        (lambda text: text.replace("index 1\n", ""), "no line 'index NUMBER'"),
        (lambda text: text.replace("index 1", "index 01"), "leading zeros"),
        (lambda text: text.replace("index 1\n", "index 1\n" + "A" * 43 + "=\n" * 1 + "AAAA\n"), "a hash of the proof"),
        (lambda text: text.replace("index 1\n", "index 1\n" + ("A" * 43 + "=\n") * 70), "at most 63"),
        (lambda text: text.replace("\n\naudit", "\naudit"), "begins with|a hash"),
        (lambda text: text.replace("index 1\n", "extra !\nindex 1\n"), "expected base64"),
    ],
)
def test_malformed_proofs_are_refused_with_the_reason(change, reason):
    """A text that is not a proof raises an error that states why."""
    with pytest.raises(AuditValueError, match=reason):
        parse_proof(change(VECTORS["tlog_proof_of_line_1"]).encode())


def test_proof_keeps_its_extra_data():
    """The optional line 'extra' is kept, and not trusted."""
    proof = Proof(0, (), parse_note(CHECKPOINT), b"data")
    assert parse_proof(str(proof).encode()) == proof


def test_note_values_are_plain_tuples():
    """A note is a value that can be made from its parts."""
    assert str(Note("t\n", (Signature("n", b"\0\0\0\1", b"s"),))) == "t\n\n— n AAAAAXM=\n"


def test_empty_policy_trusts_nobody():
    """Without a key, no checkpoint is verified."""
    with pytest.raises(SealError, match="no given key"):
        Policy(()).check(note_of(3, ROOT))
