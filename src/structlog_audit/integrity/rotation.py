"""The change of the key of a trail: the new key and the old one sign together, until the old one is left out.

A sealer that is given both keys states in the trail that the new one begins; one that is given the new key only, that the old
one has ended. Either key alone verifies the checkpoints in between.
"""

from __future__ import annotations

import os

from structlog_audit.exceptions import AuditSealError
from structlog_audit.integrity.background import BackgroundSealer
from structlog_audit.integrity.errors import raising
from structlog_audit.integrity.notes import Signer
from structlog_audit.integrity.seal_folder import SealFolder


def rotate_key(trail: str | os.PathLike[str], signer: Signer, previous: Signer) -> int:
    """Seal *trail* with its old key and a new one, and state in the trail that the new one begins.

    Afterwards, whatever seals the trail needs both keys, and after the overlap the new one only.

    Args:
        trail: The path of the active segment.
        signer: The new key.
        previous: The old key.

    Returns:
        The number of sealed lines.

    Raises:
        AuditSealError: Another process seals the trail, it has no seal by the old key, or the file cannot be written.
    """
    path = os.path.abspath(trail)
    if signer.key.name != previous.key.name or signer.key == previous.key:
        raise AuditSealError(f"expected another key for {previous.key.name!r}, got {signer.key}")
    with raising(AuditSealError):
        checkpoint = SealFolder(path).read_checkpoint()
    if checkpoint is None:
        raise AuditSealError(f"{path!r} is not sealed yet, so there is no key to replace: seal it with the new one")

    sealer = BackgroundSealer(path, previous.key.name, lambda: [signer, previous])
    try:
        if not sealer.seal_now():
            reason = sealer.failure or "it is sealed by another process: give that one both keys"
            raise AuditSealError(f"{path!r}: the key was not changed: {reason}")
        if sealer.has_unstated_key:
            raise AuditSealError(
                f"{path!r}: both keys sign; the statement about it is appended by the next sealer that can"
            )
    finally:
        sealer.release()
    return sealer.size
