"""The texts of C2SP that a seal consists of: signed notes, verifier keys, checkpoints, proofs and policies.

Parsing is strict: what has another form raises an `AuditValueError` that states what was expected. The parsers are in the
stand-alone verifier, which must not import this package. ``str()`` of each value is its text.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.integrity.errors import raising
from structlog_audit.integrity.standalone.verify_trail import (
    COSIGNATURE,
    ED25519,
    MAX_NOTE_BYTES,
    Checkpoint,
    Note,
    Policy,
    Proof,
    SealError,
    Signature,
    VerifierKey,
    cosigned_message,
    is_key_name,
)

__all__ = [
    "COSIGNATURE",
    "ED25519",
    "MAX_NOTE_BYTES",
    "Checkpoint",
    "Note",
    "Policy",
    "Proof",
    "Signature",
    "Signer",
    "VerifierKey",
    "cosign",
    "is_key_name",
    "key_of_config",
    "parse_checkpoint",
    "parse_key",
    "parse_note",
    "parse_policy",
    "parse_proof",
    "sign_note",
]

_Parsed = TypeVar("_Parsed")
_Source = TypeVar("_Source")


class Signer(Protocol):
    """A private key, wherever it is."""

    @property
    def key(self) -> VerifierKey:
        """The public half, with the name that signatures state."""

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature of *message*, 64 bytes.

        Raises:
            AuditSealError: The key cannot sign.
        """


def parse_note(data: bytes) -> Note:
    """Return the signed note in *data*; its signatures are not verified.

    Raises:
        AuditValueError: The data has another form, or is too long.
    """
    return _parse(Note.parse, data)


def parse_checkpoint(text: str) -> Checkpoint:
    """Return the checkpoint in *text*, the text of a note.

    Raises:
        AuditValueError: The text has another form.
    """
    return _parse(Checkpoint.parse, text)


def parse_key(text: str) -> VerifierKey:
    """Return the verifier key in *text*.

    Raises:
        AuditValueError: The text has another form, the id is not that of the key, or the key is not usable.
    """
    return _parse(VerifierKey.parse, text)


def key_of_config(place: str, value: Any, kind: int) -> VerifierKey:
    """Return the verifier key *value* of a configuration.

    Args:
        place: The place in the configuration, for messages.
        value: The value.
        kind: The expected type.

    Raises:
        AuditTypeError: The value is not text.
        AuditValueError: It is not a key of this type.
    """
    if not isinstance(value, str):
        raise AuditTypeError(f"{place}={value!r}: expected a verifier key NAME+ID+KEY")
    try:
        return VerifierKey.parse(value, kind)
    except SealError as error:
        raise AuditValueError(f"{place}: {error}") from error


def parse_policy(data: bytes) -> Policy:
    """Return the policy in *data*.

    Raises:
        AuditValueError: The data has another form; the message names the line.
    """
    return _parse(Policy.parse, data)


def parse_proof(data: bytes) -> Proof:
    """Return the proof of one line in *data*, not verified.

    Raises:
        AuditValueError: The data has another form.
    """
    return _parse(Proof.parse, data)


def _parse(parse: Callable[[_Source], _Parsed], source: _Source) -> _Parsed:
    with raising(AuditValueError):
        return parse(source)


def sign_note(text: str, signers: Sequence[Signer]) -> Note:
    """Return *text*, which ends in LF, with the signatures of *signers*.

    Raises:
        AuditValueError: The text cannot be that of a note.
        AuditSealError: A signer cannot sign.
    """
    if not text.endswith("\n"):
        raise AuditValueError(f"text={text[-80:]!r}: expected a text that ends in LF")

    signatures = []
    for signer in signers:
        key = signer.key
        signatures.append(Signature(key.name, key.key_id, signer.sign(text.encode())))
    return parse_note(str(Note(text, tuple(signatures))).encode())


def cosign(note: Note, signer: Signer, time: int) -> Note:
    """Return *note*, a checkpoint, with a further signature by the witness *signer* (C2SP tlog-cosignature, v1).

    Args:
        note: The checkpoint that the witness has verified.
        signer: A key of type `COSIGNATURE`.
        time: The time in seconds since 1970.

    Raises:
        AuditValueError: The note is not a checkpoint, or the key has another type.
        AuditSealError: The signer cannot sign.
    """
    parse_checkpoint(note.text)
    key = signer.key
    if key.kind != COSIGNATURE:
        raise AuditValueError(f"the key {key.name!r} has type {key.kind}: expected {COSIGNATURE}, for cosignatures")

    signature = struct.pack(">Q", time) + signer.sign(cosigned_message(note.text, time))
    return note._replace(signatures=(*note.signatures, Signature(key.name, key.key_id, signature)))
