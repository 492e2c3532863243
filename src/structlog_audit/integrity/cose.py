"""Proofs of single events as COSE receipts (RFC 9942), for programs that know SCITT and not C2SP.

A receipt has the same hashes as the C2SP proof. Its signature is a further one over the root, by the same key: COSE signs a
structure of its own around it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.integrity.errors import raising
from structlog_audit.integrity.notes import Proof, Signer, parse_checkpoint

_ALGORITHM, _KEY_ID, _CLAIMS = 1, 4, 15
_STRUCTURE, _PROOFS = 395, 396
"""The labels of verifiable data structures and their proofs (RFC 9942 §5)."""

_EDDSA = -8
_RFC9162_SHA256 = 1
_INCLUSION_PROOFS = -1
_ISSUER, _SUBJECT = 1, 2
_COSE_SIGN1 = 18


class _Tagged(NamedTuple):
    """A CBOR value with a tag."""

    tag: int
    value: Any


def receipt(proof: Proof, signer: Signer, *, subject: str | None = None) -> bytes:
    """Return *proof* as a COSE receipt, a COSE_Sign1 with a detached payload: the root.

    Args:
        proof: The proof of one line. Its hashes are not verified.
        signer: The key of the trail. Its name, the origin, is the issuer.
        subject: The subject of the receipt; the event id by convention.

    Raises:
        AuditValueError: The note of the proof is not a checkpoint, or the key has not signed it: else it would sign any root
            now.
        AuditSealError: The signer cannot sign.
    """
    checkpoint = parse_checkpoint(proof.note.text)
    with raising(AuditValueError):
        signers = proof.note.signers([signer.key])
    if not signers:
        raise AuditValueError(f"the key {signer.key} has not signed the checkpoint of the proof")
    claims: dict[int, Any] = {_ISSUER: signer.key.name}
    if subject is not None:
        claims[_SUBJECT] = subject

    headers = {
        _ALGORITHM: _EDDSA,
        _KEY_ID: signer.key.key_id,
        _CLAIMS: claims,
        _STRUCTURE: _RFC9162_SHA256,
    }
    protected = encode_cbor(headers)
    inclusion = encode_cbor([checkpoint.size, proof.leaf_index, list(proof.hashes)])

    # The structure that is signed has the payload, although the receipt has not (RFC 9052 §4.4).
    signature = signer.sign(encode_cbor(["Signature1", protected, b"", checkpoint.root]))
    unprotected = {_PROOFS: {_INCLUSION_PROOFS: [inclusion]}}
    return encode_cbor(_Tagged(_COSE_SIGN1, [protected, unprotected, None, signature]))


def encode_cbor(value: Any) -> bytes:
    """Return *value* as deterministic CBOR (RFC 8949 §4.2.1): numbers, bytes, text, lists, mappings, None and tags.

    Raises:
        AuditTypeError: The value is of another type.
    """
    encode = _ENCODERS.get(type(value))
    if encode is None:
        raise AuditTypeError(f"expected a value that CBOR has here, got a {type(value).__name__}")
    return encode(value)


def _encode_int(value: int) -> bytes:
    if value < 0:
        return _head(1, -1 - value)
    return _head(0, value)


def _encode_bytes(value: bytes) -> bytes:
    return _head(2, len(value)) + value


def _encode_text(value: str) -> bytes:
    data = value.encode()
    return _head(3, len(data)) + data


def _encode_list(value: list[Any]) -> bytes:
    items = map(encode_cbor, value)
    return _head(4, len(value)) + b"".join(items)


def _encode_mapping(value: dict[Any, Any]) -> bytes:
    # Deterministic: in the order of the encoded keys.
    members = {encode_cbor(key): encode_cbor(member) for key, member in value.items()}
    ordered = [key + members[key] for key in sorted(members)]
    return _head(5, len(ordered)) + b"".join(ordered)


def _encode_tagged(value: _Tagged) -> bytes:
    return _head(6, value.tag) + encode_cbor(value.value)


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda value: b"\xf6",
    int: _encode_int,
    bytes: _encode_bytes,
    str: _encode_text,
    list: _encode_list,
    dict: _encode_mapping,
    _Tagged: _encode_tagged,
}


def _head(major: int, number: int) -> bytes:
    """Return the first bytes of a value: its type, and its number or length in the shortest form."""
    if number < 24:
        return bytes([major << 5 | number])

    # The number follows in 1, 2, 4 or 8 bytes.
    needed = (number.bit_length() + 7) // 8
    power = (needed - 1).bit_length()
    first = major << 5 | 24 + power
    return bytes([first]) + number.to_bytes(1 << power, "big")
