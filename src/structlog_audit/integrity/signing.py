"""Private keys for checkpoints: a file, or a command that asks a key service (KMS) or hardware (HSM).

**Guarantees.** A key file is PKCS#8 PEM, readable by its owner only, and never replaced. A signature is verified before it is
used, so a wrong key of a command shows at once. The content of a key never occurs in a message.

``cryptography`` is imported when a key file is used (extra ``signing``); a command needs no package.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Sequence
from typing import Any

from structlog_audit._version import check_versions
from structlog_audit.exceptions import AuditSealError, AuditValueError
from structlog_audit.integrity.notes import ED25519, VerifierKey, is_key_name
from structlog_audit.integrity.standalone.verify_trail import verify_signature

COMMAND_SECONDS = 30.0
"""The time that a signing command may take."""

_MAX_KEY_BYTES = 65_536
_SIGNATURE_BYTES = 64


def generate_key(path: str, name: str, *, kind: int = ED25519) -> VerifierKey:
    """Create a key file at *path*, and return its public half.

    Args:
        path: The path of the new file, which only its owner can read.
        name: The name of the key; for a trail, its origin.
        kind: `ED25519`, or `COSIGNATURE` for a witness.

    Raises:
        AuditSealError: The file exists, or cannot be written.
        AuditValueError: The name cannot be that of a key.
    """
    _check_name(name)
    ed25519, serialization = import_cryptography()
    private = ed25519.Ed25519PrivateKey.generate()
    pem: bytes = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        _create_private(path, pem)
    except FileExistsError as error:
        raise AuditSealError(f"{path!r} exists: a key is never replaced, so name another file") from error
    except OSError as error:
        raise AuditSealError(f"{path!r} cannot be written: {error.strerror}") from error
    return VerifierKey(name, kind, private.public_key().public_bytes_raw())


def _create_private(path: str, data: bytes) -> None:
    """Create a file that only its owner can read; remove it again if *data* cannot be written."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(fd)
    except BaseException:
        os.unlink(path)
        raise


class KeyFile:
    """A private key in a file.

    Args:
        path: The path of the file: an Ed25519 key as PKCS#8 PEM, as `generate_key` or openssl makes it.
        name: The name of the key; for a trail, its origin.
        kind: `ED25519`, or `COSIGNATURE` for a witness.

    Raises:
        AuditSealError: The file cannot be read, or is not such a key.
        AuditValueError: The name cannot be that of a key.
    """

    def __init__(self, path: str, name: str, *, kind: int = ED25519) -> None:
        _check_name(name)
        self.path = path
        self._private = _load_private_key(path)
        self._key = VerifierKey(name, kind, self._private.public_key().public_bytes_raw())

    @property
    def key(self) -> VerifierKey:
        """The public half of the key."""
        return self._key

    @property
    def is_private(self) -> bool:
        """Whether only the owner of the file can read it."""
        mode = stat.S_IMODE(os.stat(self.path).st_mode)
        return not mode & (stat.S_IRWXG | stat.S_IRWXO)

    def sign(self, message: bytes) -> bytes:
        """Return the signature of *message*."""
        signature: bytes = self._private.sign(message)
        return signature


class KeyCommand:
    """A private key behind a command, which gets the message as its standard input and answers with the 64 bytes.

    Args:
        command: The program and its arguments. No shell is involved.
        key: The public half of the key.
    """

    def __init__(self, command: Sequence[str], key: VerifierKey) -> None:
        self.command = tuple(command)
        self._key = key

    @property
    def key(self) -> VerifierKey:
        """The public half of the key."""
        return self._key

    def sign(self, message: bytes) -> bytes:
        """Return the signature of *message*.

        Raises:
            AuditSealError: The command fails, takes longer than `COMMAND_SECONDS`, or answers anything else.
        """
        program = self.command[0]
        try:
            done = subprocess.run(self.command, input=message, capture_output=True, timeout=COMMAND_SECONDS)  # noqa: S603
        except subprocess.TimeoutExpired as error:
            raise AuditSealError(f"the signing command {program!r} took more than {COMMAND_SECONDS:.0f} s") from error
        except OSError as error:
            raise AuditSealError(f"the signing command {program!r} cannot be run: {error.strerror}") from error

        if done.returncode:
            reason = done.stderr.decode(errors="replace").strip()[-200:]
            raise AuditSealError(f"the signing command {program!r} failed with status {done.returncode}: {reason}")
        if len(done.stdout) != _SIGNATURE_BYTES:
            message_text = f"expected {_SIGNATURE_BYTES} bytes from it, got {len(done.stdout)}"
            raise AuditSealError(f"the signing command {program!r}: {message_text}")
        if not verify_signature(self._key.public_key, message, done.stdout):
            raise AuditSealError(f"the signing command {program!r} signed with another key than {self._key}")
        return done.stdout


def _check_name(name: str) -> None:
    if not is_key_name(name):
        raise AuditValueError(f"name={name!r}: expected a name without spaces and plus, such as 'audit.example/shop'")


def _load_private_key(path: str) -> Any:
    ed25519, serialization = import_cryptography()
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_KEY_BYTES)
    except OSError as error:
        raise AuditSealError(f"{path!r} cannot be read: {error.strerror}") from error

    try:
        private = serialization.load_pem_private_key(data, password=None)
    except TypeError as error:
        raise AuditSealError(
            f"{path!r} is encrypted: expected a key without a password, or use a signing command"
        ) from error
    except Exception as error:
        # cryptography raises exceptions of several modules for other content than a key.
        raise AuditSealError(f"{path!r}: expected a private key as PKCS#8 PEM") from error
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise AuditSealError(f"{path!r}: expected an Ed25519 key, got a {type(private).__name__}")
    return private


def import_cryptography() -> tuple[Any, Any]:
    """Return the modules ``ed25519`` and ``serialization`` of cryptography, and import them and what they need.

    Raises:
        AuditSealError: It is not installed.
        AuditError: It is installed in a wrong version.
    """
    check_versions("signing")
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        message = "signing with a key file needs a package: pip install 'structlog-audit[signing]', or use a command"
        raise AuditSealError(message) from error
    return ed25519, serialization
