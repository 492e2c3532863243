"""Tests of `structlog_audit.integrity.cose`: COSE receipts, and the CBOR that they consist of."""

import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from seals import SIGNER, make_trail, note_of, other_signer

from structlog_audit import AuditTypeError, AuditValueError
from structlog_audit.integrity.cose import encode_cbor, receipt
from structlog_audit.integrity.merkle import inclusion_proof, verify_inclusion
from structlog_audit.integrity.notes import Note, Proof


def decode(data):
    """Return the value at the beginning of *data*, and the rest: a decoder of its own, after RFC 8949 appendix C."""
    major, info, rest = data[0] >> 5, data[0] & 31, data[1:]
    length = 1 << (info - 24) if info >= 24 else 0
    number = int.from_bytes(rest[:length], "big") if info >= 24 else info
    rest = rest[length:]
    if major in (0, 1):
        return (number if major == 0 else -1 - number), rest
    if major in (2, 3):
        text = rest[:number]
        return (text if major == 2 else text.decode()), rest[number:]
    if major == 7:
        return None, rest
    if major == 6:
        value, rest = decode(rest)
        return (number, value), rest
    items = []
    for _ in range(number * (1 + (major == 5))):
        item, rest = decode(rest)
        items.append(item)
    return (items if major == 4 else dict(zip(items[::2], items[1::2], strict=True))), rest


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (255, "18ff"),
        (256, "190100"),
        (65_535, "19ffff"),
        (65_536, "1a00010000"),
        (1_000_000_000_000, "1b000000e8d4a51000"),
        (2**64 - 1, "1bffffffffffffffff"),
        (-1, "20"),
        (-100, "3863"),
        (None, "f6"),
        (b"\1\2\3\4", "4401020304"),
        ("ü", "62c3bc"),
        ([1, [2, 3]], "8201820203"),
        ({1: 2, 3: 4}, "a201020304"),
        ({3: 4, -1: 0, 1: 2}, "a3010203042000"),
    ],
)
def test_cbor_equals_the_examples_of_the_specification(value, encoded):
    """Values encode as in RFC 8949 appendix A, mappings in the order of their encoded keys (§4.2.1)."""
    assert encode_cbor(value).hex() == encoded


def test_cbor_refuses_other_types():
    """A value of a type that receipts do not have raises an error and is not encoded as something else."""
    for value in (1.5, True, ("tuple",), bytearray(b"x")):
        with pytest.raises(AuditTypeError, match="expected a value that CBOR has here"):
            encode_cbor(value)


def test_receipt_has_the_hashes_of_the_proof_and_a_signature_of_the_root(tmp_path):
    """The members of a receipt verify the line and the signature as RFC 9942 says."""
    sealer = make_trail(tmp_path)
    size, root = sealer.tree.size, sealer.tree.root()
    with sealer.hashes() as hashes:
        proof = Proof(77, tuple(inclusion_proof(77, size, hashes.read)), note_of(size, root))
        leaf = hashes.read(0, 77, 1)

    (tag, (protected, unprotected, payload, signature)), rest = decode(receipt(proof, SIGNER, subject="evt_1"))
    headers, _ = decode(protected)
    (inclusion,) = unprotected[396][-1]
    assert (tag, payload, rest) == (18, None, b"")
    assert headers == {1: -8, 4: SIGNER.key.key_id, 15: {1: SIGNER.key.name, 2: "evt_1"}, 395: 1}

    (proven_size, index, path), _ = decode(inclusion)
    assert (proven_size, index) == (size, 77)
    assert verify_inclusion(leaf, index, proven_size, path, root)

    key = Ed25519PublicKey.from_public_bytes(SIGNER.key.public_key)
    key.verify(signature, encode_cbor(["Signature1", protected, b"", root]))
    with pytest.raises(InvalidSignature):
        key.verify(signature, encode_cbor(["Signature1", protected, b"", hashlib.sha256(root).digest()]))


def test_receipt_of_a_note_that_is_not_a_checkpoint_is_refused():
    """A proof whose note is another text raises an error."""
    with pytest.raises(AuditValueError, match="checkpoint"):
        receipt(Proof(0, (), Note("text\n", ())), SIGNER)


@pytest.mark.parametrize("change", ["unsigned", "other key", "other root"])
def test_receipt_of_a_checkpoint_that_the_key_has_not_signed_is_refused(change):
    """Whoever replaces the checkpoint in the seal folder gets no signature of another root."""
    note = note_of(1, bytes(32), other_signer() if change == "other key" else SIGNER)
    if change == "unsigned":
        note = note._replace(signatures=())
    elif change == "other root":
        note = note._replace(text=note_of(1, bytes([1] * 32)).text)
    with pytest.raises(AuditValueError, match=r"has not signed|not one of this text"):
        receipt(Proof(0, (), note), SIGNER)
