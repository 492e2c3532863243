"""The change of the key of a trail: the new key and the old one sign together, until the old one is left out.

A sealer that is given both keys states in the trail that the new one begins; one that is given the new key only, that the old
one has ended. Either key alone verifies the checkpoints in between.
"""

from __future__ import annotations

import os

from structlog_audit.exceptions import AuditSealError
from structlog_audit.integrity.background import BackgroundSealer
from structlog_audit.integrity.errors import raising
from structlog_audit.integrity.notes import Policy, Signer, VerifierKey
from structlog_audit.integrity.seal_folder import SealFolder
from structlog_audit.integrity.signing import KeyFile, generate_key
from structlog_audit.integrity.standalone.verify_trail import SealError, VanishedError


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
    _require_seal_by(path, previous)
    if signer.key.name != previous.key.name or signer.key == previous.key:
        raise AuditSealError(f"expected another key for {previous.key.name!r}, got {signer.key}")

    sealer = BackgroundSealer(path, previous.key.name, lambda: [signer, previous], report=_raised_instead)
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


def rotate_to_new_key(trail: str | os.PathLike[str], path: str, previous: Signer) -> VerifierKey:
    """Make a new key, and replace the key of *trail* by it: see `rotate_key`.

    Args:
        trail: The path of the active segment.
        path: The path of the new key file. It is removed if the rotation fails before the key signed anything.
        previous: The old key.

    Returns:
        The public half of the new key.

    Raises:
        AuditSealError: As `rotate_key` and `generate_key`.
        AuditValueError: As `generate_key`.
    """
    folder = SealFolder(os.path.abspath(trail))
    _require_seal_by(os.path.abspath(trail), previous)
    key = generate_key(path, previous.key.name)
    try:
        rotate_key(trail, KeyFile(path, previous.key.name), previous)
    except BaseException:
        if not _is_in_use(folder, key):
            os.unlink(path)
        raise
    return key


def _require_seal_by(trail: str, signer: Signer) -> None:
    """Raise an error unless *trail* has a checkpoint by *signer*."""
    with raising(AuditSealError):
        checkpoint = SealFolder(trail).read_checkpoint()
        if checkpoint is None:
            raise AuditSealError(
                f"{trail!r} is not sealed yet, so there is no key to replace: seal it with the new one"
            )
        Policy((signer.key,)).check(checkpoint)


def _is_in_use(folder: SealFolder, key: VerifierKey) -> bool:
    """Return whether *key* has signed a checkpoint, or a statement that is not in the trail yet; True if that is not known."""
    try:
        checkpoint = folder.read_checkpoint()
        changes = folder.read_key_changes(key.name)
    except (OSError, SealError, VanishedError):
        return True
    signatures = [signature[:2] for note in (checkpoint, *changes) if note for signature in note.signatures]
    return (key.name, key.key_id) in signatures


def _raised_instead(message: str) -> None:
    """Leave out a report of what is raised as well."""
