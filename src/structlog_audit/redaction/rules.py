"""Rules of redaction: the keys, paths and patterns of secrets, and the default rules.

**Guarantees**

* A default key is the name of a credential and of nothing else. ``pwd`` is a directory in every environment, and
  ``session_id`` and ``key`` are names of other things, so these are not default keys.
* ``Bearer`` in a text is followed by a token, unless the next word is prose, as in "Bearer token expired".
* A pattern never changes an event's id in ``metadata.intent_id``, and a default pattern never changes an identifier.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import msgspec

from structlog_audit.events.event import EVENT_ID_PATTERN, INTENT_ID
from structlog_audit.redaction.vault import SubjectVault

Mode = str
"""``mask``, ``drop``, ``pseudonym``, ``subject``, ``erasable``, or ``erasable:`` and the paths of the subject."""

SUBJECT_PATHS = ":"
"""Separates the mode ``erasable`` from the paths of the subject."""

TEXT_MODES = ("mask", "drop", "pseudonym")
"""The modes for a part of a text. The others select values as a whole."""

MODES = (*TEXT_MODES, "subject", "erasable")

TEXT_MEMBERS = ("operation", "user_id", "session_id", "error_message")

REDACTABLE_MEMBERS = (*TEXT_MEMBERS, "entry_ids")
"""The members of an event that rules can redact as a whole. The others are not text, or the recorder assigns them."""

_IDENTIFIERS = frozenset(("user_id", "session_id", "entry_ids"))
_INTENT_PATH = f"metadata.{INTENT_ID}"

_NAMES = (
    *("password", "passwd", "passphrase", "secret", "secret_key", "client_secret", "app_secret"),
    *("token", "access_token", "refresh_token", "id_token", "auth_token", "x_auth_token", "api_token", "bearer_token"),
    *("session_token", "csrf_token", "api_key", "x_api_key", "api_secret", "access_key", "secret_access_key"),
    *("aws_secret_access_key", "aws_session_token", "private_key", "signing_key", "encryption_key"),
    *("authorization", "proxy_authorization", "cookie", "set_cookie", "credential", "credentials"),
)

DEFAULT_KEYS = frozenset(_NAMES) | {name.replace("_", "") for name in _NAMES if not name.startswith("x_")}
"""Keys of credentials in the form of `normalize_key`, ``apiKey`` included. Header names always have hyphens."""

_WORD = r"[A-Za-z][a-z]{0,19}[.,:;!?)\]}\"']*(?:\s|\Z)"

BEARER = re.compile(rf"\b(?i:bearer)\s+(?!{_WORD})(?P<secret>[^\s\"'<>,;]+)", re.ASCII)
"""A bearer token. The word before it is kept."""

PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY.*?(?:-----END [^-]*-----|\Z)", re.DOTALL)
"""A PEM or PGP block with a private key. A truncated block extends to the end of the text."""

# Conversion renames a key whose name is taken: password_, password_1.
_RENAMED = re.compile(r"(?:_[0-9]*)+\Z")
_RENAMED_ENDINGS = frozenset("_0123456789")

KELVIN = "\u212a"
"""The only letter beyond ASCII that is an ASCII letter, ``k``, in lower case."""


def normalize_key(name: str) -> str:
    """Return the form in which keys are compared: lower case, with underscores."""
    return name.lower().replace("-", "_")


def _path_pattern(path: str) -> re.Pattern[str]:
    """Return a pattern for a normalized *path*, names renamed by conversion included."""
    names = [re.escape(name) for name in path.split(".")]

    suffix = r"(?:_[0-9]*)*"
    return re.compile(rf"{suffix}\.".join(names) + suffix)


Patterns = tuple[tuple[re.Pattern[str], Mode], ...]
"""Patterns and their modes."""


class RedactionRules(msgspec.Struct, frozen=True):
    """The rules of one redactor, the function that makes its pseudonyms, and the vault with its subjects."""

    keys: Mapping[str, Mode]
    paths: Patterns
    patterns: Patterns
    explicit_patterns: Patterns
    pseudonym: Callable[[str], str]
    vault: SubjectVault | None = None

    @classmethod
    def compile(
        cls,
        keys: Mapping[str, Mode],
        paths: Mapping[str, Mode],
        patterns: Patterns,
        default_mode: Mode | None,
        pseudonym: Callable[[str], str],
        vault: SubjectVault | None = None,
    ) -> RedactionRules:
        """Return the rules for normalized *keys* and *paths*, and for *patterns*.

        Args:
            default_mode: The mode of the default keys and patterns; None to leave them out.
            pseudonym: Returns the pseudonym of a text.
            vault: The keys of the subjects, if a mode needs them.
        """
        # A value that cannot be the member is in the metadata under the same name.
        path_modes = dict(paths)
        for path, mode in paths.items():
            if path in REDACTABLE_MEMBERS:
                path_modes[f"metadata.{path}"] = mode

        path_patterns = tuple((_path_pattern(path), mode) for path, mode in path_modes.items())
        if default_mode is None:
            return cls(keys, path_patterns, patterns, patterns, pseudonym, vault)

        all_keys = {**dict.fromkeys(DEFAULT_KEYS, default_mode), **keys}
        default_patterns: Patterns = ((BEARER, default_mode), (PRIVATE_KEY, default_mode))
        return cls(all_keys, path_patterns, patterns + default_patterns, patterns, pseudonym, vault)

    def __bool__(self) -> bool:
        return bool(self.keys or self.paths or self.patterns)

    def with_modes(self, *modes: Mode) -> RedactionRules:
        """Return the rules with one of these *modes* only."""

        def select(patterns: Patterns) -> Patterns:
            return tuple((pattern, mode) for pattern, mode in patterns if mode in modes)

        return msgspec.structs.replace(
            self,
            keys={key: mode for key, mode in self.keys.items() if mode in modes},
            paths=select(self.paths),
            patterns=select(self.patterns),
            explicit_patterns=select(self.explicit_patterns),
        )

    def mode_of(self, key: str, path: str) -> Mode | None:
        """Return the mode for the member *key* at *path*, both normalized, or None.

        A path wins over a key.
        """
        for pattern, mode in self.paths:
            if pattern.fullmatch(path):
                return mode

        found = self.keys.get(key)
        if found is None and key[-1:] in _RENAMED_ENDINGS:
            original = _RENAMED.sub("", key)
            found = self.keys.get(original)
        return found

    def patterns_for(self, path: str, text: str) -> Patterns:
        """Return the patterns that apply to *text* at *path*."""
        if path == _INTENT_PATH and EVENT_ID_PATTERN.fullmatch(text):
            return ()
        return self.explicit_patterns if path in _IDENTIFIERS else self.patterns
