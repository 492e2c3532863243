"""Decide from the encoded bytes of an event whether it needs redaction at all."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from structlog_audit.redaction.rules import KELVIN, KEYS, MEMBERS

# numbers are looked for in bytes in a fifth of the time of bytes
_SPACE, _BACKSLASH, _OPENS = ord(" "), ord("\\"), ord("{")

_REMEMBERED = 1_000
"""Names that are known to be harmless, at most: an application has few, and one that makes them up must not fill memory."""

_LOOKED_AT = 5
"""Letters of a name that the first look reads. ``token`` and many others have no more."""


class Prefilter:
    """The first look: whether an event may hold anything that these rules redact."""

    __slots__ = ("_always", "_beyond_ascii", "_defaults", "_harmless", "_patterns", "_within_ascii")

    def __init__(self, keys: Iterable[str], paths: Iterable[str], *, always: bool, defaults: bool) -> None:
        names = {*keys, *(KEYS if defaults else ()), *(name for path in paths for name in _ends(path))}
        self._harmless: set[str] = set()
        self._always = always or not names.isdisjoint(MEMBERS)
        self._beyond_ascii = any(not name.isascii() for name in names)
        self._defaults = defaults
        self._within_ascii = sorted(name for name in names if name.isascii())
        self._patterns: tuple[re.Pattern[bytes], re.Pattern[bytes]] | None = None

    def may_contain_secrets(self, metadata: Mapping[str, Any], data: bytes) -> bool:
        """Whether the body with *metadata* needs a closer look. *data* is its JSON without the opening brace."""
        if metadata and self._harmless.issuperset(metadata) and _OPENS not in data.partition(b"{")[2]:
            if _SPACE not in data and _BACKSLASH not in data:
                return False
        elif self._always or (self._beyond_ascii and not data.isascii()):
            return True
        elif metadata:
            begins, keys = self._patterns or self._made_patterns()
            found = begins.search(data, data.find(b'"metadata":'))  # the member: in a text its quotes would be escaped
            if found is not None and keys.search(data.lower(), found.start()):
                return True
            if len(self._harmless) < _REMEMBERED and not self._beyond_ascii:
                self._harmless.update(map(str.__str__, metadata))  # a class derived from str could change its mind
        if self._defaults and (_SPACE in data or _BACKSLASH in data):  # without whitespace no text holds a token
            lower = data.lower()
            return b"bearer" in lower or b"-----begin" in lower
        return False

    def _made_patterns(self) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
        self._patterns = _beginnings(self._within_ascii), _keys(self._within_ascii)
        return self._patterns


def _ends(path: str) -> list[str]:
    """What the last key on *path* may be called: names can have dots in them."""
    names = path.split(".")
    return [".".join(names[start:]) for start in range(min(1, len(names) - 1), len(names))]


def _beginnings(names: list[str]) -> re.Pattern[bytes]:
    """Matches where a key, as it stands in JSON, begins like one of *names*, or a text does.

    Classes of bytes for all names come first, since they are quick to fail; then, looking back, those by first letter.
    """
    words = [word for name in names for word in _spellings(msgspec.json.encode(name)[1:-1].decode()[:_LOOKED_AT])]
    if not words:
        return re.compile(b"(?!)")
    begun = sorted({word[: min(_LOOKED_AT, *map(len, words))] for word in words})
    alike = [b"(?<=%b)" % _classes(list(group)) for _, group in itertools.groupby(begun, lambda word: word[:1])]
    return re.compile(b'"%b(?:%b)' % (_classes(begun), b"|".join(alike)))


def _keys(names: list[str]) -> re.Pattern[bytes]:
    """Matches a key that is one of *names* in JSON whose letters within ASCII are lower."""
    spelled = [re.escape(msgspec.json.encode(name).lower()[1:-1]).replace(b"_", b"[-_]") for name in names]
    either = "|".join(word.decode().replace("k", f"(?:k|{KELVIN})") for word in spelled).encode()
    return re.compile(b'"(?:%b)(?:_[0-9]*)*":' % either)


def _classes(words: list[bytes]) -> bytes:
    """A pattern for *words* of equal length, letter by letter."""
    classes = b""
    for place in range(len(words[0])):
        letters = b"".join({word[place : place + 1] for word in words})
        classes += b"[%b]" % re.escape(letters + letters.upper() + b"-" * (b"_" in letters))
    return classes


def _spellings(word: str) -> Iterator[bytes]:
    """The ways in which *word*, which is in lower case, may be spelled, but for the case within ASCII."""
    for letters in itertools.product(*(("k", KELVIN) if letter == "k" else (letter,) for letter in word)):
        yield "".join(letters).encode()
