"""The parameter ``integrity`` of a file handler: who seals, in which name, with which key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from structlog_audit._references import resolve_references
from structlog_audit.exceptions import AuditError, AuditSealError, AuditTypeError, AuditValueError
from structlog_audit.integrity.notes import ED25519, Signer, is_key_name, key_of_config, parse_key
from structlog_audit.integrity.signing import KeyCommand, KeyFile, import_cryptography
from structlog_audit.trail.writing.filesystem import is_file

_KEYS = ("origin", "key", "verifier_key", "previous_key", "previous_verifier_key", "witnesses", "timestamps")
_OF_THE_SEALER = ("witnesses", "timestamps", "previous_key", "verifier_key", "previous_verifier_key")
_EXAMPLE = "such as {'origin': 'audit.example/shop/web1', 'key': 'audit.pem'}"


class Integrity(NamedTuple):
    """The settings of the integrity of one trail.

    Attributes:
        origin: The name of the trail in checkpoints. Each host and trail has its own.
        key: The path of the private key, or the command that signs; None if another program seals.
        verifier_key: The public half, which a command needs.
        previous_key, previous_verifier_key: The same of the key that *key* replaces: until it is left out, both sign.
        witnesses: The verifier keys and addresses of witnesses.
        timestamps: The address of a time stamping authority (RFC 3161).
    """

    origin: str | None = None
    key: str | tuple[str, ...] | None = None
    verifier_key: str | None = None
    previous_key: str | tuple[str, ...] | None = None
    previous_verifier_key: str | None = None
    witnesses: tuple[Any, ...] = ()
    timestamps: str | None = None

    def signers(self) -> list[Signer]:
        """Return the keys, loaded: the key, and the one that it replaces.

        Raises:
            AuditSealError: A key cannot be used.
        """
        keys = (self.key, self.verifier_key), (self.previous_key, self.previous_verifier_key)
        signers = [self._signer(key, verifier_key or "") for key, verifier_key in keys if key is not None]
        check_different(signers)
        return signers

    def _signer(self, key: str | tuple[str, ...], verifier_key: str) -> Signer:
        if isinstance(key, tuple):
            return KeyCommand(key, parse_key(verifier_key))
        return KeyFile(key, self.origin or "")


def check_different(signers: Sequence[Signer]) -> None:
    """Raise an error if a key and the one that it replaces are the same.

    Raises:
        AuditSealError: They are.
    """
    if len({signer.key for signer in signers}) < len(signers):
        raise AuditSealError(
            f"the key and the previous key are the same, {signers[0].key}: expected another previous key"
        )


def parse_integrity(value: Any) -> Integrity | None:
    """Return the settings that the parameter ``integrity`` describes, or None if it is None.

    Raises:
        AuditTypeError: *value* or one of its members has the wrong type, or a key is unknown.
        AuditValueError: The origin is invalid, or a member is missing.
    """
    if value is None:
        return None
    value = resolve_references("integrity", value)
    if not isinstance(value, Mapping) or not set(value) <= set(_KEYS):
        raise AuditTypeError(f"integrity={value!r}: expected a mapping with keys from {', '.join(_KEYS)}, {_EXAMPLE}")

    settings = Integrity(
        _text("origin", value.get("origin")),
        _key("key", value.get("key")),
        _text("verifier_key", value.get("verifier_key")),
        _key("previous_key", value.get("previous_key")),
        _text("previous_verifier_key", value.get("previous_verifier_key")),
        _sequence("witnesses", value.get("witnesses")),
        _text("timestamps", value.get("timestamps")),
    )
    _check(settings)
    return settings


def _check(settings: Integrity) -> None:
    if settings.origin is not None and not is_key_name(settings.origin):
        raise AuditValueError(f"integrity: origin={settings.origin!r}: expected a name without spaces and plus")
    if settings.key is None:
        others = [name for name in _OF_THE_SEALER if getattr(settings, name)]
        if others:
            raise AuditValueError(f"integrity: expected 'key' as well: only the process that seals uses {others[0]!r}")
        return

    if settings.origin is None:
        raise AuditValueError(f"integrity: expected 'origin' as well, {_EXAMPLE}")
    _check_key("key", settings.key, settings.verifier_key, settings.origin)
    if settings.previous_key is None:
        if settings.previous_verifier_key is not None:
            raise AuditValueError("integrity: expected 'previous_key' as well, the command of 'previous_verifier_key'")
    elif settings.previous_key == settings.key:
        raise AuditValueError(f"integrity: 'previous_key' is 'key': expected the key that {settings.key!r} replaces")
    else:
        _check_key("previous_key", settings.previous_key, settings.previous_verifier_key, settings.origin)


def _check_key(name: str, key: str | tuple[str, ...], verifier_key: str | None, origin: str) -> None:
    """Raise an error if there is no key file, or no public half of a command's key.

    A file is loaded in the background, by the process that seals.
    """
    verifier_name = name.replace("key", "verifier_key")
    if isinstance(key, str):
        if verifier_key is not None:
            raise AuditValueError(f"integrity: {verifier_name!r} is for a command: a key file has its public half")
        if not _is_file(name, key):
            message = f"expected the path of a private key; 'structlog-audit keygen {key} --origin …' makes one"
            raise AuditValueError(f"integrity: {name}={key!r}: {message}")

        # Not in the background: a child that is forked while another thread imports a module waits for it for ever. That
        # nothing can be sealed without the package is reported by the sealer.
        with suppress(AuditError):
            import_cryptography()
        return

    if verifier_key is None:
        raise AuditValueError(f"integrity: expected {verifier_name!r} as well, the public half of the command's key")
    parsed = key_of_config(f"integrity: {verifier_name}", verifier_key, ED25519)
    if parsed.name != origin:
        raise AuditValueError(f"integrity: {verifier_name} is for {parsed.name!r}: expected {origin!r}")


def _is_file(name: str, key: str) -> bool:
    """Return whether *key* is a file; raise `AuditValueError` if the system refuses to tell."""
    try:
        return is_file(key)
    except OSError as error:
        raise AuditValueError(f"integrity: {name}={key!r}: expected a readable file, got {error.strerror}") from error


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise AuditTypeError(f"integrity: {name}={value!r}: expected a text")
    return value


def _sequence(name: str, value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise AuditTypeError(f"integrity: {name}={value!r}: expected a list")
    return tuple(value)


def _key(name: str, value: Any) -> str | tuple[str, ...] | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    is_command = isinstance(value, Sequence) and value and all(isinstance(word, str) for word in value)
    if not is_command:
        raise AuditTypeError(
            f"integrity: {name}={value!r}: expected a path, or a list with a command and its arguments"
        )
    return tuple(value)
