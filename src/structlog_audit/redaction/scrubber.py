"""`Scrubber`: applies the rules of a redactor to one event."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any

import msgspec

from structlog_audit.events.codec import MARKS
from structlog_audit.events.json_safe import JsonSanitizer, item_path, member_path
from structlog_audit.redaction.erasable import as_text
from structlog_audit.redaction.rules import (
    REDACTABLE_MEMBERS,
    SUBJECT_PATHS,
    TEXT_MODES,
    Mode,
    Patterns,
    RedactionRules,
    normalize_key,
)
from structlog_audit.redaction.subjects import MASK, EventSubjects, Find, MaskedError, find_nothing


def pseudonym_of(value: Any, pseudonym: Callable[[str], str]) -> Any:
    """Return the pseudonym of a plain *value*.

    Of a list, those of its items; of another value without text, that of its JSON.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return pseudonym(value)
    if isinstance(value, list):
        return [pseudonym_of(item, pseudonym) for item in value]

    text = msgspec.json.encode(value, order="deterministic").decode()
    return pseudonym(text)


class Scrubber:
    """One pass over one event. `marks` lists the redacted values by path.

    Args:
        rules: The rules to apply.
        find: Finds values of the event before redaction, for the subjects of others.
        creates: Whether new subjects get keys; a query passes False.
    """

    def __init__(self, rules: RedactionRules, find: Find = find_nothing, *, creates: bool = True) -> None:
        self.marks: dict[str, str] = {}
        self._rules = rules
        self._subjects = EventSubjects(rules, find, creates=creates)

        # Original paths of redacted values, at and below which marks of the conversion may name a secret.
        self._redacted_paths: list[str] = []

    def scrub_member(self, name: str, value: Any) -> Any:
        """Return the member *name* of an event, redacted; None if it is dropped."""
        mode = self._rules.mode_of(name, name)
        if mode is None or value is None:
            return self._scrub_value(value, name, name, name)

        replacement = self._replace(mode, value, name, name, name, {})

        # Entry ids remain a list, and texts remain texts.
        if isinstance(value, list) and isinstance(replacement, str):
            return [replacement]
        return as_text(replacement) if isinstance(replacement, dict) else replacement

    def scrub_mapping(self, members: dict[str, Any], place: str, original_path: str, path: str) -> dict[str, Any]:
        """Return the *members* of a mapping, redacted.

        Args:
            members: Names and values.
            place: The normalized path of the mapping, for the rules.
            original_path: Its path in the marks of the conversion.
            path: Its path without secrets.
        """
        scrubbed: dict[str, Any] = {}
        for number, (name, value) in enumerate(members.items()):
            key = normalize_key(name)
            member_place = f"{place}.{key}"
            original = member_path(original_path, name)

            clean_name, modes = self._without_secrets(name, self._rules.patterns)
            if clean_name != name:
                # Two redacted names may be equal.
                while clean_name in members or clean_name in scrubbed or clean_name == MARKS:
                    clean_name += f"_{number}"
                self._mark(member_path(path, clean_name), original, modes)

            clean_path = member_path(path, clean_name)
            mode = self._rules.mode_of(key, member_place)
            if mode is None or value is None:
                scrubbed[clean_name] = self._scrub_value(value, member_place, original, clean_path)
                continue

            replacement = self._replace(mode, value, member_place, original, clean_path, members)
            if mode != "drop":
                scrubbed[clean_name] = replacement

        return scrubbed

    def scrub_fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the *fields* of an event dict, redacted.

        These are members of the event, its message, and future metadata.
        """
        scrubbed: dict[str, Any] = {}
        for name, value in fields.items():
            if name == "metadata" and isinstance(value, dict):
                scrubbed[name] = self.scrub_mapping(value, name, "", "")
                continue

            if name not in REDACTABLE_MEMBERS and name != "event":
                scrubbed |= self.scrub_mapping({name: value}, "metadata", "", "")
                continue

            if value is None:
                scrubbed[name] = None
                continue

            member = "operation" if name == "event" else name
            kept = self.scrub_member(member, value)
            if kept is not None:
                scrubbed[name] = kept

        return scrubbed

    def merge_marks(self, existing: dict[str, str]) -> dict[str, str]:
        """Return *existing* marks that do not name a secret, and those of this pass."""
        # A path continues with a member, an item, or the word "key".
        secret_prefixes = tuple(f"{path}{sign}" for path in self._redacted_paths for sign in ".[ ")

        # The sanitizer limits the number of marks.
        merged = JsonSanitizer()
        for path, change in existing.items():
            is_below_secret = path in self._redacted_paths or path.startswith(secret_prefixes)
            if is_below_secret and path not in self.marks:
                continue
            clean_path, _ = self._without_secrets(path, self._rules.patterns)
            merged.marks[clean_path] = change

        for path, change in self.marks.items():
            earlier = merged.marks.get(path)
            merged.mark(path, change if earlier is None else f"{earlier}; {change}")

        return merged.marks

    def _scrub_value(self, value: Any, place: str, original_path: str, path: str) -> Any:
        """Return *value* with its texts and members redacted.

        No key or path selects the value as a whole.
        """
        if isinstance(value, str):
            patterns = self._rules.patterns_for(place, value)
            clean, modes = self._without_secrets(value, patterns)
            if clean != value:
                self._mark(path, original_path, modes)
            return clean

        if isinstance(value, dict):
            return self.scrub_mapping(value, place, original_path, path)

        if isinstance(value, list):
            items = []
            for number, item in enumerate(value):
                original = item_path(original_path, number)
                items.append(self._scrub_value(item, place, original, item_path(path, number)))
            return items

        return value

    def _without_secrets(self, text: str, patterns: Patterns) -> tuple[str, str]:
        """Return *text* without the matches of *patterns*, and the modes of these."""
        modes: dict[str, None] = {}
        for pattern, mode in patterns:
            if pattern.search(text) is None:
                continue

            before = text
            text = pattern.sub(functools.partial(self._substitute, mode), text)
            if text != before:
                modes[mode] = None

        return text, ", ".join(modes)

    def _substitute(self, mode: Mode, found: re.Match[str]) -> str:
        """Return the match with its group ``secret``, or the whole match, replaced."""
        group: str | int = 0
        if found.groupdict().get("secret"):
            group = "secret"

        replacement = self._replacement(mode, found[group]) or ""

        # The rest of the match stays.
        start, end = found.span(group)
        before = found.string[found.start() : start]
        after = found.string[end : found.end()]
        return f"{before}{replacement}{after}"

    def _replace(
        self, mode: Mode, value: Any, place: str, original_path: str, path: str, siblings: dict[str, Any]
    ) -> Any:
        """Return the replacement of *value*, which a rule selects as a whole, and mark it; None if it is dropped."""
        kind = mode.partition(SUBJECT_PATHS)[0]
        try:
            if kind == "subject":
                replacement = self._subjects.tokens_for(value)
            elif kind == "erasable":
                value = self._without_inner_secrets(value, place)
                replacement = self._subjects.encrypt(mode, value, path, siblings)
            else:
                replacement = self._replacement(kind, value)
        except MaskedError as error:
            replacement, kind = MASK, f"mask; {error}"

        # A value that was masked or encrypted before gets no second mark.
        if replacement != value or kind in TEXT_MODES:
            self._mark(path, original_path, kind)
        return replacement

    def _without_inner_secrets(self, value: Any, place: str) -> Any:
        """Return *value* as the other rules leave it: who may read an erasable value may not read the secrets in it."""
        if isinstance(value, str):
            return self._without_secrets(value, self._rules.patterns_for(place, value))[0]
        if isinstance(value, (dict, list)):
            return Scrubber(self._rules.with_modes(*TEXT_MODES))._scrub_value(value, place, "", "")
        return value

    def _replacement(self, mode: Mode, value: Any) -> Any:
        """Return the replacement of *value*; None if it is dropped."""
        if mode == "pseudonym":
            return pseudonym_of(value, self._rules.pseudonym)
        return MASK if mode == "mask" else None

    def _mark(self, path: str, original_path: str, modes: str) -> None:
        self.marks[path] = f"redacted: {modes}"
        self._redacted_paths.append(original_path)
