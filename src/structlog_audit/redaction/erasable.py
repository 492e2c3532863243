r"""Erasable values and the tokens of subjects, as they stand in a line.

A *subject* is a person with a random 256-bit key. Everything here is a function of such keys; `structlog_audit.redaction.vault`
stores them. Without the key, a value cannot be read, and a token cannot be computed from a guessed identity.

**Formats**

* Token: ``s_`` and the base64url of SHA-256(``"structlog-audit subject\0"`` ‖ key)[:24]. It commits to the key, which AES-GCM
  alone does not: two keys could otherwise show two texts for one value.
* Value: ``{"_erasable": base64url(nonce ‖ ciphertext)}``, with AES-256-GCM over its JSON and token ‖ 0 ‖ field as associated
  data, so it cannot be moved to another subject or field. ``_subject`` has the token if it is not the event's ``user_id``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

import msgspec

from structlog_audit._version import check_versions
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import AuditEvent
from structlog_audit.events.json_safe import item_path, member_path
from structlog_audit.exceptions import AuditVaultError

KEY_BYTES: Final = 32
TOKEN: Final = re.compile(r"s_[A-Za-z0-9_-]{32}")
"""The form of a token."""

VALUE: Final = "_erasable"
SUBJECT: Final = "_subject"

_CONTEXT = b"structlog-audit subject\0"
_NONCE_BYTES = 12
_TEXT_START = f'{{"{VALUE}":"'

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def token_of(key: bytes) -> str:
    """Return the token of the subject with this *key*."""
    digest = hashlib.sha256(_CONTEXT + key).digest()
    return "s_" + base64.urlsafe_b64encode(digest[:24]).decode()


class Subject:
    """A person whose values can be erased. No text of it contains the key.

    Args:
        key: The key, of `KEY_BYTES` bytes.

    Raises:
        AuditVaultError: The package that encrypts is missing.
    """

    __slots__ = ("_cipher", "token")

    def __init__(self, key: bytes) -> None:
        self.token = token_of(key)
        """The name of the subject in the trail."""
        self._cipher = require_cipher()(key)

    def encrypt(self, field: str, value: Any) -> str:
        """Return the text that stands for *value*, which is plain JSON, at the place *field* of an event."""
        nonce = os.urandom(_NONCE_BYTES)
        ciphertext = self._cipher.encrypt(nonce, _encode(value), self._associated_data(field))
        return base64.urlsafe_b64encode(nonce + ciphertext).decode().rstrip("=")

    def decrypt(self, field: str, text: str) -> Any:
        """Return the value that *text* stands for at the place *field*.

        Raises:
            ValueError: *text* is not from `encrypt` with this subject and *field*.
        """
        from cryptography.exceptions import InvalidTag

        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        try:
            plain = self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], self._associated_data(field))
        except InvalidTag:
            raise ValueError("the value does not belong to this subject and field") from None
        return _decode(plain)

    def _associated_data(self, field: str) -> bytes:
        return f"{self.token}\0{field}".encode("utf-8", "backslashreplace")

    def __repr__(self) -> str:
        return f"Subject({self.token})"


def require_cipher() -> Any:
    """Return the class of the cipher.

    Raises:
        AuditVaultError: The package that has it is missing.
    """
    check_versions("signing")
    # Imported lazily: it belongs to an extra, and takes 20 ms.
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        raise AuditVaultError(
            "vault: expected the package 'cryptography', which is missing: pip install 'structlog-audit[signing]'"
        ) from None
    return AESGCM


def parts_of(value: Any) -> tuple[str, str | None] | None:
    """Return the encrypted text and the named token of an erasable *value*; None for any other value.

    In a member that is text, such as ``error_message``, the value is the JSON of that object.
    """
    if isinstance(value, str) and value.startswith(_TEXT_START):
        try:
            value = _decode(value)
        except msgspec.DecodeError:
            return None

    if not isinstance(value, dict) or not value.keys() <= {VALUE, SUBJECT}:
        return None
    text, token = value.get(VALUE), value.get(SUBJECT)
    if not isinstance(text, str) or not isinstance(token, str | None):
        return None
    return text, token


def as_text(value: dict[str, str]) -> str:
    """Return the erasable *value* as the text for a member that is text."""
    return _encode(value).decode()


Event = TypeVar("Event", AuditEvent, StoredEvent)
"""An event as an application or as a reader of trails has it."""


class Revealer:
    """Shows the erasable values and the identities of events in clear, as far as their keys exist.

    Args:
        subject_of: Returns the subject with a token, or None if it is unknown or erased.
        identity_of: Returns the identity of the subject with a token, or None.
    """

    def __init__(self, subject_of: Callable[[str], Subject | None], identity_of: Callable[[str], str | None]) -> None:
        self._subject_of = subject_of
        self._identity_of = identity_of

    def reveal(self, event: Event) -> Event:
        """Return a copy of *event* with values and identities in clear."""
        changes = {name: self._identity(getattr(event, name)) for name in ("user_id", "session_id")}
        message = self._reveal(event.error_message, "error_message", event.user_id)
        return msgspec.structs.replace(
            event,
            **changes,
            entry_ids=[self._identity(entry_id) for entry_id in event.entry_ids],
            error_message=message,
            metadata=self._reveal(event.metadata, "", event.user_id),
        )

    def _identity(self, value: str | None) -> str | None:
        if value is None or not TOKEN.fullmatch(value):
            return value
        return self._identity_of(value) or value

    def _reveal(self, value: Any, path: str, user_id: str | None) -> Any:
        """Return *value*, which stands at *path* of an event of *user_id*, in clear."""
        parts = parts_of(value)
        if parts is not None:
            text, token = parts
            return self._decrypt(path, text, token or user_id, value)

        if isinstance(value, dict):
            return {name: self._reveal(item, member_path(path, name), user_id) for name, item in value.items()}
        if isinstance(value, list):
            return [self._reveal(item, item_path(path, number), user_id) for number, item in enumerate(value)]
        return self._identity(value) if isinstance(value, str) else value

    def _decrypt(self, path: str, text: str, token: str | None, value: Any) -> Any:
        subject = None if token is None else self._subject_of(token)
        if subject is None:
            return value
        try:
            return subject.decrypt(path, text)
        except ValueError:
            # Changed, moved from another place, or written by an application as it is.
            return value
