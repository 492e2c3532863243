"""A witness of a trail: a service of others that cosigns each checkpoint which continues those before (C2SP tlog-witness).

**Guarantees.** A cosignature is verified with the key of the configuration before it counts. What the witness has cosigned
before is proven to be the beginning of the new tree.

**Failure handling.** A witness that has seen more lines, or others, raises a `RefusedError`; anything else that is not a
cosignature is a `SubmissionError`.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.integrity.notes import COSIGNATURE, Note, Signature, VerifierKey, key_of_config, parse_checkpoint
from structlog_audit.integrity.standalone.verify_trail import SealError, decode_number
from structlog_audit.integrity.submission import Post, RefusedError, SubmissionError, post, require_url

Proofs = Callable[[int, int], list[bytes]]
"""Returns the proof that the tree of the first size is the beginning of the tree of the second."""

MAX_PROOF_HASHES = 63

_MEMBERS = {"name", "key", "url"}
_REASONS = {
    400: "it does not accept the form of the request",
    403: "it does not know the key of the trail",
    404: "it does not know the origin of the trail",
}


class Witness:
    """The client of one witness.

    Args:
        name: Its name in messages and files.
        key: Its verifier key, of type `COSIGNATURE`.
        url: Its submission prefix.
        post: Posts a request.

    Attributes:
        size: The size of the newest checkpoint that it is known to have.
    """

    def __init__(self, name: str, key: VerifierKey, url: str, *, post: Post = post) -> None:
        self.name = name
        self.key = key
        self.size = 0
        self._url = f"{url.rstrip('/')}/add-checkpoint"
        self._post = post

    @classmethod
    def from_config(cls, place: str, config: Any, *, post: Post = post) -> Witness:
        """Return the witness that *config* describes by ``key``, ``url`` and, if it is to have another, ``name``.

        Args:
            place: The place in the configuration, for messages.
            config: The mapping.
            post: Posts a request.

        Raises:
            AuditTypeError, AuditValueError: A member is missing, unknown or wrong.
        """
        if not isinstance(config, Mapping):
            raise AuditTypeError(f"{place}={config!r}: expected a mapping with name, key and url")
        if not {"key", "url"} <= set(config) <= _MEMBERS:
            names = ", ".join(map(str, config)) or "nothing"
            raise AuditValueError(f"{place}: expected name, key and url, got {names}")

        key = key_of_config(f"{place}['key']", config["key"], COSIGNATURE)
        url = require_url(f"{place}['url']", config["url"])

        name = config.get("name", key.name)
        is_name = isinstance(name, str) and name and name.isprintable()
        if not is_name:
            raise AuditValueError(f"{place}['name']={name!r}: expected a text")

        return cls(name, key, url, post=post)

    def submit(self, note: Note, proofs: Proofs, seconds: float) -> tuple[Signature, ...]:
        """Return the cosignatures of *note* by this witness.

        Args:
            note: The checkpoint.
            proofs: Returns proofs of consistency.
            seconds: The time for one request; there are at most two.

        Raises:
            RefusedError: The witness has another history of this trail.
            SubmissionError: There is no cosignature for another reason.
        """
        size = parse_checkpoint(note.text).size
        for _ in range(2):
            old = min(self.size, size)
            status, answer = self._post(self._url, "text/plain", _request(note, old, size, proofs), seconds)
            if status != 409:
                break
            self._accept_size(answer, old, size)

        if status == 422:
            message = (
                f"it has another history of the first {old} lines, or the stored hashes are damaged: verify the trail"
            )
            raise RefusedError("FORKED", message, old)
        if status != 200:
            raise SubmissionError(f"status {status}" + (f": {_REASONS[status]}" if status in _REASONS else ""))

        cosignatures = self._cosignatures(note, answer)
        self.size = size
        return cosignatures

    def _accept_size(self, answer: bytes, old: int, size: int) -> None:
        """Note the size that the witness states instead of *old*.

        Raises:
            RefusedError: It contradicts the checkpoint of *size*.
        """
        try:
            stated = decode_number(answer.decode("ascii", "replace").removesuffix("\n"), "its size")
        except SealError as error:
            raise SubmissionError(f"status 409: {error}") from error
        if stated > size:
            message = f"it has a checkpoint of {stated} lines, the trail only {size}: the trail was rolled back"
            raise RefusedError("ROLLED_BACK", f"{message}, or another host has the same origin", stated)
        if stated == old == size:
            raise RefusedError("FORKED", f"it has another checkpoint of {size} lines", size)
        self.size = stated

    def _cosignatures(self, note: Note, answer: bytes) -> tuple[Signature, ...]:
        """Return the verified signatures by this witness in *answer*; others are ignored."""
        try:
            both = Note.parse(str(note).encode() + answer)
            signers = both.signers([self.key])
        except SealError as error:
            raise SubmissionError(f"an answer that is not a cosignature: {error}") from error
        if both.text != note.text or not signers:
            raise SubmissionError("an answer without a cosignature by its key")
        identity = (self.key.name, self.key.key_id)
        return tuple(signature for signature in both.signatures if signature[:2] == identity)


def _request(note: Note, old: int, size: int, proofs: Proofs) -> bytes:
    """Return the body of a request: the old size, the proof and the checkpoint."""
    hashes = proofs(old, size) if 0 < old < size else []
    if len(hashes) > MAX_PROOF_HASHES:
        raise SubmissionError(f"a proof of {len(hashes)} hashes: expected at most {MAX_PROOF_HASHES}")
    lines = [f"old {old}", *(base64.b64encode(digest).decode() for digest in hashes), "", str(note)]
    return "\n".join(lines).encode()
