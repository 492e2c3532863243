"""The parameter ``integrity`` of a file handler: who seals, in which name, with which key."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from structlog_audit._references import resolve_references
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.integrity.notes import Signer, is_key_name, parse_key
from structlog_audit.integrity.signing import KeyCommand, KeyFile

_KEYS = ("origin", "key", "verifier_key", "witnesses", "timestamps")
_EXAMPLE = "such as {'origin': 'audit.example/shop/web1', 'key': 'audit.pem'}"


class Integrity(NamedTuple):
    """The settings of the integrity of one trail.

    Attributes:
        origin: The name of the trail in checkpoints. Each host and trail has its own.
        key: The path of the private key, or the command that signs; None if another program seals.
        verifier_key: The public half, which a command needs.
        witnesses: The verifier keys and addresses of witnesses.
        timestamps: The address of a time stamping authority (RFC 3161).
    """

    origin: str | None = None
    key: str | tuple[str, ...] | None = None
    verifier_key: str | None = None
    witnesses: tuple[Any, ...] = ()
    timestamps: str | None = None

    def signer(self) -> Signer:
        """Return the key, loaded.

        Raises:
            AuditSealError: The key cannot be used.
        """
        origin = self.origin or ""
        if isinstance(self.key, tuple):
            return KeyCommand(self.key, parse_key(self.verifier_key or ""))
        return KeyFile(self.key or "", origin)


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
        _key(value.get("key")),
        _text("verifier_key", value.get("verifier_key")),
        _sequence("witnesses", value.get("witnesses")),
        _text("timestamps", value.get("timestamps")),
    )
    _check(settings)
    return settings


def _check(settings: Integrity) -> None:
    if settings.origin is not None and not is_key_name(settings.origin):
        raise AuditValueError(f"integrity: origin={settings.origin!r}: expected a name without spaces and plus")
    if settings.key is None:
        if settings.witnesses or settings.timestamps:
            raise AuditValueError("integrity: expected 'key' as well: only the process that seals asks witnesses")
        return

    if settings.origin is None:
        raise AuditValueError(f"integrity: expected 'origin' as well, {_EXAMPLE}")
    if isinstance(settings.key, str):
        _check_key_file(settings.key)
    elif settings.verifier_key is None:
        raise AuditValueError("integrity: expected 'verifier_key' as well, the public half of the command's key")
    else:
        key = parse_key(settings.verifier_key)
        if key.name != settings.origin:
            raise AuditValueError(f"integrity: verifier_key is for {key.name!r}: expected {settings.origin!r}")


def _check_key_file(path: str) -> None:
    """Raise an error if there is no key file. It is loaded in the background, by the process that seals."""
    if not os.path.isfile(path):
        message = f"expected the path of a private key; 'structlog-audit keygen {path} --origin …' makes one"
        raise AuditValueError(f"integrity: key={path!r}: {message}")


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


def _key(value: Any) -> str | tuple[str, ...] | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    is_command = isinstance(value, Sequence) and value and all(isinstance(word, str) for word in value)
    if not is_command:
        raise AuditTypeError(f"integrity: key={value!r}: expected a path, or a list with a command and its arguments")
    return tuple(value)
