"""Apply the rules of a redactor to one event."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from structlog_audit.events.codec import MARKS
from structlog_audit.events.json_safe import JsonSanitizer
from structlog_audit.redaction.rules import MEMBERS, Mode, Rules, normal

MASK: Final = "[redacted]"
"""What stands for a masked value."""


def pseudonym_of(value: Any, make: Callable[[str], str]) -> Any:
    """The pseudonym of the plain *value*: of a list, those of its items; of anything else that is no text, that of its JSON."""
    if isinstance(value, list):
        return [pseudonym_of(item, make) for item in value]
    if value is None or isinstance(value, str):
        return None if value is None else make(value)
    return make(msgspec.json.encode(value, order="deterministic").decode())


class Scrubber:
    """One closer look at one event. `marks` says what it redacted."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.marks: dict[str, str] = {}
        self._gone: list[str] = []  # paths, as conversion has them, at and below which marks may name what is secret

    def member(self, name: str, value: Any) -> Any:
        """The own member *name* of an event; None if it is dropped."""
        mode = self._rules.mode(name, name)
        if mode is None or value is None:
            return self._value(value, name, name, name)
        self._mark(name, name, mode)
        made = self._replaced(mode, value)
        return [made] if isinstance(value, list) and isinstance(made, str) else made

    def members(self, members: dict[str, Any], place: str, was: str, path: str) -> dict[str, Any]:
        """The members of a mapping.

        Args:
            members: They.
            place: Where the mapping stands, as rules name it.
            was: Its path, as marks of the conversion name it.
            path: Its path, with nothing in it that is secret.
        """
        made: dict[str, Any] = {}
        for number, (name, value) in enumerate(members.items()):
            key, old = normal(name), _below(was, name)
            mode = self._rules.mode(key, f"{place}.{key}")
            clean, how = self._without_secrets(name, self._rules.texts)
            if clean != name:
                while clean in members or clean in made or clean == MARKS:
                    clean += f"_{number}"
                self._mark(_below(path, clean), old, how)
            new = _below(path, clean)
            if mode is None or value is None:
                made[clean] = self._value(value, f"{place}.{key}", old, new)
                continue
            self._mark(new, old, mode)
            if mode != "drop":
                made[clean] = self._replaced(mode, value)
        return made

    def fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields of an event dict: members of an event, its message, and what will be metadata."""
        made: dict[str, Any] = {}
        for name, value in fields.items():
            if name == "metadata" and isinstance(value, dict):
                made[name] = self.members(value, name, "", "")
            elif name not in MEMBERS and name != "event":
                made |= self.members({name: value}, "metadata", "", "")
            elif value is None or (kept := self.member("operation" if name == "event" else name, value)) is not None:
                made[name] = None if value is None else kept
        return made

    def all_marks(self, existing: dict[str, str]) -> dict[str, str]:
        """The marks of the conversion, as far as they name nothing secret, and those of this look."""
        below = tuple(f"{path}{sign}" for path in self._gone for sign in ".[ ")
        sanitizer = JsonSanitizer()
        for path, what in existing.items():
            if path in self.marks or not (path in self._gone or path.startswith(below)):
                sanitizer.marks[self._without_secrets(path, self._rules.texts)[0]] = what
        for path, what in self.marks.items():
            sanitizer.mark(path, f"{sanitizer.marks[path]}; {what}" if path in sanitizer.marks else what)
        return sanitizer.marks

    def _value(self, value: Any, place: str, was: str, path: str) -> Any:
        if isinstance(value, str):
            clean, how = self._without_secrets(value, self._rules.texts_at(place, value))
            if clean != value:
                self._mark(path, was, how)
            return clean
        if isinstance(value, dict):
            return self.members(value, place, was, path)
        if isinstance(value, list):
            places = ((item, f"{was}[{n}]"[:200], f"{path}[{n}]"[:200]) for n, item in enumerate(value))
            return [self._value(item, place, old, new) for item, old, new in places]
        return value

    def _without_secrets(self, text: str, rules: tuple[tuple[re.Pattern[str], Mode], ...]) -> tuple[str, str]:
        """*text* without what *rules* match, and the modes of those that did."""
        modes: dict[str, None] = {}
        for pattern, mode in rules:
            if pattern.search(text) is not None:
                before, text = text, pattern.sub(functools.partial(self._substitute, mode), text)
                if text != before:
                    modes[mode] = None
        return text, ", ".join(modes)

    def _substitute(self, mode: Mode, found: re.Match[str]) -> str:
        group: str | int = "secret" if found.groupdict().get("secret") else 0
        start, end = found.span(group)
        new = self._replaced(mode, found[group]) or ""
        return found.string[found.start() : start] + new + found.string[end : found.end()]

    def _replaced(self, mode: Mode, value: Any) -> Any:
        if mode == "pseudonym":
            return pseudonym_of(value, self._rules.pseudonym)
        return MASK if mode == "mask" else None

    def _mark(self, path: str, was: str, how: str) -> None:
        self.marks[path] = f"redacted: {how}"
        self._gone.append(was)


def _below(path: str, name: str) -> str:
    """The path of the member *name* of what is at *path*, as `JsonSanitizer` has it."""
    return f"{path}.{name}"[:200] if path else name[:200]
