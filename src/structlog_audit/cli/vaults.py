"""Conditions and events of persons whose keys are in a vault (`structlog_audit.redaction.vault`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from structlog_audit.cli.conditions import Condition
from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.query.absent_values import PSEUDONYM
from structlog_audit.redaction.vault import SubjectVault

_IDENTITIES = ("user_id", "session_id", "entry_ids")
_METADATA = "metadata."
_UNKNOWN = "[redacted]"


def open_vault(path: str | None, *, reveal: bool) -> SubjectVault | None:
    """Return the vault that ``--vault`` names.

    Raises:
        UsageError: Values are to be revealed, and there is no vault.
        AuditVaultError: The vault cannot be used.
    """
    if path is not None:
        return SubjectVault(path)
    if reveal:
        raise UsageError("--reveal: expected --vault FILE, the file with the keys")
    return None


def with_tokens(words: Iterable[Condition], vault: SubjectVault | None) -> Iterator[Condition]:
    """Yield *words*, and each condition on a clear identity once more with its token.

    For one field, ``=`` are alternatives, and each ``!=`` must hold.
    """
    for condition in words:
        yield condition
        token = _token(condition, vault)
        if token is not None:
            yield dataclasses.replace(condition, value=token)


def recordable(words: Iterable[Condition], vault: SubjectVault | None, *, hides_persons: bool = False) -> Iterator[str]:
    """Yield *words* as texts for the record of a reading, which outlives the erasure of a person.

    Args:
        words: The conditions.
        vault: The vault. A token stands for its identity, and nothing for another value of a member with identities.
        hides_persons: Whether the trail has pseudonyms or tokens in place of persons: it gets no identity in clear.
    """
    for condition in words:
        token = _token(condition, vault)
        is_pseudonym = PSEUDONYM.fullmatch(condition.value) is not None
        is_identity = bool(condition.value) and condition.field in _IDENTITIES and not is_pseudonym
        if token is None and is_identity and (hides_persons or vault is not None):
            token = _UNKNOWN
        yield str(condition if token is None else dataclasses.replace(condition, value=token))


def _token(condition: Condition, vault: SubjectVault | None) -> str | None:
    """Return the token of the identity that *condition* compares with, or None."""
    has_identity = condition.field in _IDENTITIES or condition.field.startswith(_METADATA)
    if vault is None or not has_identity or condition.operator not in ("=", "!=") or not condition.value:
        return None
    return vault.token(condition.value)
