"""`KeyScrubber`: masks and drops values by the names of their keys, for events in which nothing else can be a secret.

**Guarantees**: the result is that of `structlog_audit.redaction.scrubber.Scrubber`, or there is none.

**Performance**: the modes of names are remembered, and only changes are copied. Most secrets of applications are found by
their key, and the pass over all texts of an event takes as long as three events.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Callable
from operator import is_
from typing import Any

from structlog_audit.events.codec import MARKS
from structlog_audit.events.json_safe import MAX_MARKS, MORE, JsonSanitizer, item_path, member_path
from structlog_audit.redaction.rules import REDACTABLE_MEMBERS, Mode, RedactionRules, normalize_key
from structlog_audit.redaction.subjects import MASK

_MODES = {"mask", "drop"}
"""The modes that need neither the value nor other values of the event."""

_MAX_NAMES = 1_000
"""The limit of remembered names."""

_SCALARS = frozenset((str, int, float, bool, type(None), uuid.UUID, decimal.Decimal, dt.datetime, dt.date, dt.time))
"""The types that a payload holds, except for objects and lists."""

_UNKNOWN: Any = object()


class _OtherValueError(Exception):
    """A name or a value has a type that a payload made by conversion does not hold."""


class KeyScrubber:
    """Redacts metadata by *rules* without paths and patterns.

    Args:
        mode_of: Returns the mode of a normalized key, or None.
    """

    __slots__ = ("_mode_of", "_modes")

    def __init__(self, mode_of: Callable[[str, str], Mode | None]) -> None:
        self._mode_of = mode_of
        self._modes: dict[str, Mode | None] = {}

    @classmethod
    def of(cls, rules: RedactionRules) -> KeyScrubber | None:
        """Return the scrubber for *rules*; None if they need more than the names of keys, apart from the default patterns."""
        if rules.paths or rules.explicit_patterns or not _MODES.issuperset(rules.keys.values()):
            return None
        return cls(rules.mode_of) if rules.keys.keys().isdisjoint(REDACTABLE_MEMBERS) else None

    def scrub(self, metadata: dict[str, Any]) -> dict[str, Any] | None:
        """Return *metadata* redacted, with marks, or itself if no key is selected; None for values of other types."""
        marks: dict[str, str] = {}
        try:
            scrubbed = self._scrub_members(metadata, "", marks)
        except _OtherValueError:
            return None

        if not marks:
            return metadata

        # Marks of the conversion may name the secret.
        if MARKS in metadata:
            return None
        scrubbed[MARKS] = _within_limit(marks)
        return scrubbed

    def _scrub_members(self, members: dict[str, Any], path: str, marks: dict[str, str]) -> dict[str, Any]:
        scrubbed = members
        for name, value in members.items():
            if type(name) is not str:
                raise _OtherValueError
            mode = self._modes.get(name, _UNKNOWN)
            if mode is _UNKNOWN:
                mode = self._find_mode(name)

            kind = type(value)
            if mode is not None and value is not None:
                marks[member_path(path, name)] = f"redacted: {mode}"
                replacement = MASK
            elif kind in _SCALARS:
                continue
            else:
                replacement = self._scrub_container(value, kind, member_path(path, name), marks)
                if replacement is value:
                    continue
                mode = None

            if scrubbed is members:
                scrubbed = members.copy()
            if mode == "drop":
                del scrubbed[name]
            else:
                scrubbed[name] = replacement
        return scrubbed

    def _scrub_container(self, value: Any, kind: type, path: str, marks: dict[str, str]) -> Any:
        if kind is dict:
            return self._scrub_members(value, path, marks)
        if kind is not list:
            raise _OtherValueError
        if _SCALARS.issuperset(map(type, value)):
            return value

        items = list(value)
        for number, item in enumerate(value):
            if type(item) not in _SCALARS:
                items[number] = self._scrub_container(item, type(item), item_path(path, number), marks)
        return value if all(map(is_, items, value)) else items

    def _find_mode(self, name: str) -> Mode | None:
        mode = self._mode_of(normalize_key(name), "")
        if len(self._modes) < _MAX_NAMES:
            self._modes[name] = mode
        return mode


def _within_limit(marks: dict[str, str]) -> dict[str, str]:
    """Return *marks*; beyond the limit these are only counted."""
    if len(marks) <= MAX_MARKS and MORE not in marks:
        return marks

    sanitizer = JsonSanitizer()
    for path, change in marks.items():
        sanitizer.mark(path, change)
    return sanitizer.marks
