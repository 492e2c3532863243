"""Validation of the parameters of a `structlog_audit.redaction.redactor.Redactor`."""

from __future__ import annotations

import base64
import hmac
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import msgspec

from structlog_audit._references import REFERENCE_PREFIXES
from structlog_audit._validation import require_choice, require_path
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.redaction.rules import (
    MODES,
    REDACTABLE_MEMBERS,
    SUBJECT_PATHS,
    TEXT_MODES,
    Mode,
    Patterns,
    RedactionRules,
    normalize_key,
)
from structlog_audit.redaction.vault import SubjectVault

RuleSelection = Collection[str] | Mapping[str, Mode]
"""Keys or paths to redact; as a mapping, each with its mode."""

_REFUSED = {
    ("operation", "drop"): "every event has one",
    ("operation", "subject"): "it does not identify a person",
    ("error_message", "subject"): "it does not identify a person",
    **dict.fromkeys(
        [(name, "erasable") for name in REDACTABLE_MEMBERS if name != "error_message"],
        "it has another text in each event, so no query would find it",
    ),
}
"""The modes that a member of an event cannot have, with the reason."""

_MIN_SECRET_BYTES = 16
"""Shorter secrets can be found by trying, and with them the names behind all pseudonyms."""


class RedactionParameters(msgspec.Struct, frozen=True):
    """Valid parameters of a redactor, with normalized keys and paths.

    Equal parameters make equal redactors.
    """

    keys: tuple[tuple[str, Mode], ...]
    paths: tuple[tuple[str, Mode], ...]
    patterns: Patterns
    mode: Mode
    key: bytes | None
    key_version: str
    vault: str | None
    defaults: bool

    @classmethod
    def parse(
        cls,
        *,
        keys: Any,
        paths: Any,
        patterns: Any,
        mode: Any,
        secret: Any,
        key_version: Any,
        vault: Any,
        defaults: Any,
    ) -> RedactionParameters:
        """Return the parameters, validated.

        Raises:
            AuditTypeError, AuditValueError: A parameter has the wrong type or an invalid value; the message names it.
        """
        mode = _require_mode("mode", mode)
        if not isinstance(defaults, bool):
            raise AuditTypeError(f"defaults={defaults!r}: expected True or False")

        key_modes = {normalize_key(_require_name("keys", key)): how for key, how in _with_modes("keys", keys, mode)}
        path_modes = {normalize_key(_require_path(path)): how for path, how in _with_modes("paths", paths, mode)}
        compiled = tuple((_compile_pattern(item), how) for item, how in _with_modes("patterns", patterns, mode))

        for parameter, modes in (("keys", key_modes), ("paths", path_modes)):
            _require_possible(parameter, modes)
        for pattern, how in compiled:
            require_choice(f"patterns[{pattern.pattern!r}]", how, TEXT_MODES)

        all_modes = [*key_modes.values(), *path_modes.values()]
        all_modes += [how for _, how in compiled]
        needing_vault = [how for how in all_modes if how not in TEXT_MODES]
        if needing_vault and vault is None:
            raise AuditValueError(
                f"vault=None: expected the path of a file for keys: mode {needing_vault[0]!r} needs one"
            )

        return cls(
            keys=tuple(key_modes.items()),
            paths=tuple(path_modes.items()),
            patterns=compiled,
            mode=mode,
            key=_require_secret(secret, is_needed="pseudonym" in all_modes),
            key_version=_require_key_version(key_version),
            vault=_vault_path(vault),
            defaults=defaults,
        )

    def rules(self, vault: SubjectVault | None) -> RedactionRules:
        """Return the compiled rules, with *vault* for the modes that need one."""
        # A default rule never makes a pseudonym: equal passwords would have equal ones.
        default_mode: Mode | None = None
        if self.defaults:
            default_mode = "drop" if self.mode == "drop" else "mask"

        return RedactionRules.compile(
            keys=dict(self.keys),
            paths=dict(self.paths),
            patterns=self.patterns,
            default_mode=default_mode,
            pseudonym=_pseudonym_function(self.key, self.key_version),
            vault=vault,
        )

    def __repr__(self) -> str:
        # The secret key is left out.
        patterns = {pattern.pattern: how for pattern, how in self.patterns}
        return (
            f"keys={dict(self.keys)}, paths={dict(self.paths)}, patterns={patterns}, mode={self.mode!r},"
            f" key_version={self.key_version!r}, vault={self.vault!r}, defaults={self.defaults}"
        )


def _with_modes(parameter: str, selection: Any, mode: Mode) -> Iterator[tuple[Any, Mode]]:
    """Yield each item of *selection* with its mode, by default *mode*."""
    if isinstance(selection, Mapping):
        for item, item_mode in selection.items():
            yield item, _require_mode(f"{parameter}[{item!r}]", item_mode)
        return

    if not isinstance(selection, (list, tuple, set, frozenset)):
        raise AuditTypeError(f"{parameter}={selection!r}: expected a list, or a mapping of each item to its mode")
    for item in selection:
        yield item, mode


def _require_mode(parameter: str, mode: Any) -> Mode:
    """Return *mode*, with normalized paths of the subject."""
    name, sign, paths = mode.partition(SUBJECT_PATHS) if isinstance(mode, str) else (mode, "", "")
    require_choice(parameter, name, MODES)
    if not sign:
        return str(mode)
    if name != "erasable":
        raise AuditValueError(f"{parameter}={mode!r}: expected {name!r}: only 'erasable' takes the path of a subject")

    normalized = []
    for path in paths.split("|"):
        _require_path(path[1:] and f"metadata{path}" if path.startswith(".") else path)
        normalized.append(normalize_key(path))
    return name + sign + "|".join(normalized)


def _require_possible(parameter: str, modes: Mapping[str, Mode]) -> None:
    """Raise an error if a member of an event has a mode in *modes* that it cannot have."""
    for name, mode in modes.items():
        reason = _REFUSED.get((name, mode.partition(SUBJECT_PATHS)[0]))
        if reason is not None:
            possible = " or ".join(repr(other) for other in MODES if (name, other) not in _REFUSED)
            raise AuditValueError(f"{parameter}: expected mode {possible} for {name!r}, got {mode!r}: {reason}")


def _vault_path(vault: Any) -> str | None:
    if vault is None:
        return None
    if isinstance(vault, SubjectVault):
        return vault.path
    return os.path.abspath(require_path("vault", vault, "the path of a file, or a SubjectVault"))


def _require_name(parameter: str, name: Any) -> str:
    if not isinstance(name, str):
        raise AuditTypeError(f"{parameter}: expected a string, got {name!r}")
    if not name:
        raise AuditValueError(f"{parameter}: expected a name, got ''")
    return name


def _require_path(path: Any) -> str:
    """Return *path*, which names a member of the event or leads into its metadata."""
    first, _, rest = _require_name("paths", path).partition(".")
    first = normalize_key(first)

    is_in_metadata = first == "metadata" and rest
    is_member = first in REDACTABLE_MEMBERS and not rest
    if is_in_metadata or is_member:
        return str(path)

    known = ", ".join(REDACTABLE_MEMBERS)
    raise AuditValueError(f"paths: expected one of {known}, or metadata.…, got {path!r}")


def _compile_pattern(pattern: Any) -> re.Pattern[str]:
    """Return *pattern*, compiled."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise AuditValueError(f"patterns: expected a regular expression, got {pattern!r}: {error}") from error
    except TypeError:
        raise AuditTypeError(f"patterns: expected a regular expression, got {pattern!r}") from None

    if not isinstance(compiled.pattern, str):
        raise AuditTypeError(f"patterns: expected a pattern for strings, got {pattern!r}")
    if compiled.search("") is not None:
        raise AuditValueError(f"patterns: expected a pattern that does not match the empty string, got {pattern!r}")
    return compiled


def _require_secret(secret: Any, *, is_needed: bool) -> bytes | None:
    """Return the key of pseudonyms. No message contains it."""
    if secret is None:
        if is_needed:
            raise AuditValueError(f"secret=None: expected at least {_MIN_SECRET_BYTES} bytes: pseudonyms need a secret")
        return None

    if not isinstance(secret, (str, bytes)):
        raise AuditTypeError(f"secret: expected str or bytes, got {type(secret).__name__}")

    if isinstance(secret, str) and secret.startswith(REFERENCE_PREFIXES):
        raise AuditValueError(
            "secret: expected the key itself, got an ext:// or cfg:// reference to it, which only a dictConfig resolves"
        )

    key = secret.encode() if isinstance(secret, str) else secret
    if len(key) < _MIN_SECRET_BYTES:
        raise AuditValueError(f"secret: expected at least {_MIN_SECRET_BYTES} bytes, got {len(key)}")
    return key


def _require_key_version(version: Any) -> str:
    if isinstance(version, bool) or not isinstance(version, (str, int)):
        raise AuditTypeError(f"key_version={version!r}: expected a string or an integer")
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,32}", str(version)):
        raise AuditValueError(
            f"key_version={version!r}: expected 1 to 32 letters, digits, dots, underscores or hyphens"
        )
    return str(version)


def _pseudonym_function(key: bytes | None, version: str) -> Callable[[str], str]:
    """Return a function that makes the pseudonym of a text.

    A pseudonym stays as it is.
    """
    prefix = f"hmac:{version}:"
    form = re.compile(re.escape(prefix) + "[A-Za-z0-9_-]{22}")

    def pseudonym(text: str) -> str:
        if key is None or form.fullmatch(text):
            return text

        data = text.encode("utf-8", "backslashreplace")
        digest = hmac.digest(key, data, "sha256")[:16]
        encoded = base64.urlsafe_b64encode(digest).decode()
        return prefix + encoded.rstrip("=")

    return pseudonym
