"""What is secret: the defaults, the rules of a redactor, and a first look that costs next to nothing.

Rules:

* A name of the defaults is that of a credential and of nothing else. ``pwd`` is a folder in every environment, ``session_id``
  and ``key`` name things; they are not among them.
* ``Bearer`` in a text is followed by a token, unless what follows is a word: "Bearer token expired" is prose.
* The first look reads the JSON that would be written. It may suspect what is harmless, and never the other way round: JSON
  as we write it escapes no letter, so a name stands there as it is; whitespace is a space or begins with a backslash.
* Names that were looked at and are harmless are remembered: metadata of such names, with no object in it, needs no look. No
  brace comes behind its own then, which is the first, unless a text before it has one: that costs a closer look.
* The patterns of the first look are made for the first event that needs them: that takes longer than all else on import.
* The one letter beyond ASCII that is another in lower case within ASCII is the sign for Kelvin, a ``k``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from structlog_audit.events.event import EVENT_ID_PATTERN, INTENT_ID

Mode = Literal["mask", "drop", "pseudonym"]

TEXTS = ("operation", "user_id", "session_id", "error_message")
MEMBERS = (*TEXTS, "entry_ids")
"""The members of an event that can be redacted as such; the others are no texts, or the recorder's."""

_IDENTITY = frozenset(("user_id", "session_id", "entry_ids"))
_INTENT = f"metadata.{INTENT_ID}"

_NAMES = (
    *("password", "passwd", "passphrase", "secret", "secret_key", "client_secret", "app_secret"),
    *("token", "access_token", "refresh_token", "id_token", "auth_token", "x_auth_token", "api_token", "bearer_token"),
    *("session_token", "csrf_token", "api_key", "x_api_key", "api_secret", "access_key", "secret_access_key"),
    *("aws_secret_access_key", "aws_session_token", "private_key", "signing_key", "encryption_key"),
    *("authorization", "proxy_authorization", "cookie", "set_cookie", "credential", "credentials"),
)

KEYS = frozenset(_NAMES) | {name.replace("_", "") for name in _NAMES if not name.startswith("x_")}
"""Keys whose values are surely secret, in the form of `normal`; ``apiKey`` among them. Names of headers have hyphens."""

_WORD = r"[A-Za-z][a-z]{0,19}[.,:;!?)\]}\"']*(?:\s|\Z)"

BEARER = re.compile(rf"\b(?i:bearer)\s+(?!{_WORD})(?P<secret>[^\s\"'<>,;]+)", re.ASCII)
"""A token, and the word before it, which stays."""

PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY.*?(?:-----END [^-]*-----|\Z)", re.DOTALL)
"""A block of PEM or PGP with a private key; one that was cut goes on to the end."""

_RENAMED = re.compile(r"(?:_[0-9]*)+\Z")
_ENDS_RENAMED = frozenset("_0123456789")
KELVIN = "\u212a"


def normal(name: str) -> str:
    """The form in which names of keys are compared."""
    return name.lower().replace("-", "_")


def path_pattern(path: str) -> re.Pattern[str]:
    """Matches *path*, which is `normal`, also where its names have been renamed."""
    return re.compile(r"(?:_[0-9]*)*\.".join(map(re.escape, path.split("."))) + r"(?:_[0-9]*)*")


Texts = tuple[tuple[re.Pattern[str], Mode], ...]


class Rules(msgspec.Struct, frozen=True):
    """What a redactor does to what."""

    keys: Mapping[str, Mode]
    paths: Texts
    texts: Texts
    given_texts: Texts
    pseudonym: Callable[[str], str]

    @classmethod
    def made(
        cls,
        keys: Mapping[str, Mode],
        paths: Mapping[str, Mode],
        texts: Texts,
        surely: Mode | None,
        pseudonym: Callable[[str], str],
    ) -> Rules:
        """The rules for *keys* and *paths*, which are `normal`, and *texts*; *surely* is the mode of the default texts."""
        reaching = {**paths, **{f"metadata.{path}": mode for path, mode in paths.items() if path in MEMBERS}}
        patterns = tuple((path_pattern(path), mode) for path, mode in reaching.items())
        defaults: Texts = () if surely is None else ((BEARER, surely), (PRIVATE_KEY, surely))
        return cls(keys, patterns, texts + defaults, texts, pseudonym)

    def __bool__(self) -> bool:
        return bool(self.keys or self.paths or self.texts)

    def only(self, mode: Mode) -> Rules:
        """Those of this *mode*."""

        def chosen(texts: Texts) -> Texts:
            return tuple((pattern, how) for pattern, how in texts if how == mode)

        return msgspec.structs.replace(
            self,
            keys={key: how for key, how in self.keys.items() if how == mode},
            paths=chosen(self.paths),
            texts=chosen(self.texts),
            given_texts=chosen(self.given_texts),
        )

    def mode(self, name: str, place: str) -> Mode | None:
        """What is to be done with the member *name* at *place*, both `normal`; None: it may be seen."""
        for pattern, mode in self.paths:
            if pattern.fullmatch(place):
                return mode
        found = self.keys.get(name)
        return self.keys.get(_RENAMED.sub("", name)) if found is None and name[-1:] in _ENDS_RENAMED else found

    def texts_at(self, place: str, text: str) -> Texts:
        """What is taken out of *text* at *place*. The identity of an event is touched only if told, its intent's id never."""
        if place == _INTENT and EVENT_ID_PATTERN.fullmatch(text):
            return ()
        return self.given_texts if place in _IDENTITY else self.texts
