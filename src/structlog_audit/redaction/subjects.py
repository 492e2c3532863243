"""Application of the modes ``subject`` and ``erasable`` to the values of one event.

**Failure handling.** A value that cannot get a token or be encrypted raises `MaskedError`, whose reason is counted by the
vault. The scrubber masks the value and marks the reason, so the event is recorded in any case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from structlog_audit.events.json_safe import identifier_text
from structlog_audit.exceptions import AuditVaultError
from structlog_audit.redaction.erasable import SUBJECT, TOKEN, VALUE, Subject, parts_of
from structlog_audit.redaction.rules import SUBJECT_PATHS, Mode, RedactionRules, normalize_key
from structlog_audit.redaction.vault import SubjectVault

MASK = "[redacted]"
"""The replacement of a masked value."""

NO_SUBJECT, NOT_AN_IDENTITY, UNAVAILABLE = "no subject", "not an identity", "vault unavailable"
"""The reasons for which a value is masked."""

Find = Callable[[str], Any]
"""Returns the value at an absolute path of an event, before redaction; None without one."""


class MaskedError(Exception):
    """A value is to be masked. The text is the reason."""


class EventSubjects:
    """The subjects of one event.

    Args:
        rules: The rules, with their vault.
        find: Finds the values of the event.
        creates: Whether a subject without a key gets one. Otherwise its identity is its own token.
    """

    def __init__(self, rules: RedactionRules, find: Find, *, creates: bool) -> None:
        self._rules = rules
        self._find = find
        self._creates = creates

    def tokens_for(self, value: Any) -> Any:
        """Return the token of the identity *value*, which is plain JSON; of a list, those of its items.

        Raises:
            MaskedError: *value* is not an identity, or the vault fails.
            AuditVaultError: The vault fails, and subjects get no key.
        """
        if isinstance(value, list):
            return [self.tokens_for(item) for item in value]
        if value in (None, "", MASK):
            return value

        identity = identity_in(value)
        if identity is None:
            raise self._masked(NOT_AN_IDENTITY)
        if TOKEN.fullmatch(identity):
            return identity

        if not self._creates:
            return self._vault.token(identity) or identity
        return self._subject(identity).token

    def encrypt(self, mode: Mode, value: Any, field: str, siblings: Mapping[str, Any]) -> Any:
        """Return the erasable form of *value*, which is plain JSON.

        Args:
            mode: ``erasable``, with the paths of the subject or without.
            value: The value. One that is already erasable or masked stays.
            field: Its place in the event.
            siblings: The members of the object around it, for a path that begins with a dot.

        Raises:
            MaskedError: The value has no subject, or the vault fails.
        """
        if value == MASK:
            return value

        identity = self._identity_for(mode, siblings)
        subject = self._subject(identity)
        parts = parts_of(value)
        if parts is not None and self._is_readable(*parts, subject, field):
            return value

        erasable = {VALUE: subject.encrypt(field, value)}
        is_user = identity == identity_in(self._find("user_id"))
        if not is_user or self._rules.mode_of("user_id", "user_id") != "subject":
            erasable[SUBJECT] = subject.token
        return erasable

    def _identity_for(self, mode: Mode, siblings: Mapping[str, Any]) -> str:
        """Return the first identity at the paths that *mode* names, by default the user."""
        _, _, paths = mode.partition(SUBJECT_PATHS)
        for path in (paths or "user_id").split("|"):
            found = value_at(siblings, path[1:]) if path.startswith(".") else self._find(path)
            identity = identity_in(found)
            if identity is not None:
                return identity
        raise self._masked(NO_SUBJECT)

    def _subject(self, identity: str) -> Subject:
        try:
            if not TOKEN.fullmatch(identity):
                return self._vault.subject(identity)
            known = self._vault.known_subject(identity)
        except AuditVaultError:
            raise self._masked(UNAVAILABLE) from None

        if known is None:
            raise self._masked(NO_SUBJECT)
        return known

    def _is_readable(self, text: str, token: str | None, subject: Subject, field: str) -> bool:
        """Return whether *text* is an erasable value at *field*, of the subject with *token* or else of *subject*."""
        try:
            owner = subject if token is None else self._vault.known_subject(token)
            is_readable = owner is not None
            if owner is not None:
                owner.decrypt(field, text)
        except (AuditVaultError, ValueError):
            return False
        return is_readable

    def _masked(self, reason: str) -> MaskedError:
        self._vault.count_masked(reason)
        return MaskedError(reason)

    @property
    def _vault(self) -> SubjectVault:
        vault = self._rules.vault
        # The parameters are refused without one.
        assert vault is not None  # noqa: S101
        return vault


def find_nothing(path: str) -> None:
    """Return None: there is no event in which *path* leads to a value."""


def identity_in(value: Any) -> str | None:
    """Return the identity that *value* is, or the one item of a list; None for anything else."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, (bool, float, list, dict)) or value in (None, "", MASK):
        return None
    return identifier_text(value)


def value_at(members: Mapping[str, Any], path: str) -> Any:
    """Return the value at the normalized *path* below *members*, or None. Names may contain dots."""
    for name, value in members.items():
        key = normalize_key(str(name))
        if path == key:
            return value
        if path.startswith(f"{key}."):
            inner = value[0] if isinstance(value, list) and len(value) == 1 else value
            found = value_at(inner, path[len(key) + 1 :]) if isinstance(inner, dict) else None
            if found is not None:
                return found
    return None
