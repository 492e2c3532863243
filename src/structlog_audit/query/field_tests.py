"""Tests of single fields of an event, beyond the filters: patterns, negations, bounds, values at a path.

They are values, so that an engine can read them and leave out events that cannot pass. `FieldConditions.matches` decides.

**Semantics.** A test compares the values of a field: one of a member, those of a list one by one, and everything at a path of
the metadata, whose keys may contain dots. A pattern is Python's. Values in the metadata other than text are compared as JSON.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import field as attribute
from typing import Any

import msgspec

from structlog_audit.query.filters import Conditions, Matchable, OfClass, contains

METADATA = "metadata."
"""The beginning of the name of a field that is a path of the metadata."""

Values = Sequence[Any]
"""The values that an event has for a field: none, one, or several of a list."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """A member, not of the metadata, is one of these texts."""

    texts: frozenset[str | None]

    def matches(self, values: Values) -> bool:
        """Return whether any of *values* matches."""
        return not self.texts.isdisjoint(values)


@dataclass(frozen=True, slots=True)
class Pattern:
    """The text, or the JSON, of a value has a match of a regular expression."""

    regex: re.Pattern[str]

    def matches(self, values: Values) -> bool:
        """As `OneOf.matches`."""
        search = self.regex.search

        return any(search(text_of(item)) for item in values if item is not None)


@dataclass(frozen=True, slots=True)
class Absent:
    """There is no value, or only null and empty text."""

    def matches(self, values: Values) -> bool:
        """As `OneOf.matches`."""
        return all(item in (None, "") for item in values)


@dataclass(frozen=True, slots=True)
class StartsWith:
    """The text, or the JSON, of a value has one of these beginnings, and none of the others."""

    beginnings: tuple[str, ...]
    others: tuple[str, ...] = ()

    def matches(self, values: Values) -> bool:
        """As `OneOf.matches`."""
        texts = [text_of(item) for item in values if item is not None]

        return any(text.startswith(self.beginnings) and not text.startswith(self.others) for text in texts)


@dataclass(frozen=True, slots=True)
class Includes:
    """The text, or the JSON, of a value has this text in it."""

    text: str

    def matches(self, values: Values) -> bool:
        """As `OneOf.matches`."""
        return any(self.text in text_of(item) for item in values if item is not None)


@dataclass(frozen=True)
class EqualTo:
    """A value is this text, or the number or boolean that the text is in JSON."""

    text: str
    scalar: Any = attribute(init=False)
    """The number or boolean that the text is in JSON; otherwise the text."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "scalar", _scalar(self.text))

    def matches(self, values: Values) -> bool:
        """As `OneOf.matches`."""
        return any(item == self.text if isinstance(item, str) else contains(item, self.scalar) for item in values)


@dataclass(frozen=True, slots=True)
class Number:
    """A duration is this number."""

    number: float

    def matches(self, values: Values) -> bool:
        """As `OneOf.matches`."""
        return self.number in values


@dataclass(frozen=True, slots=True)
class Bound:
    """A value is a number within this bound."""

    bound: float
    is_lower: bool

    def matches(self, values: Values) -> bool:
        """As `OneOf.matches`."""
        for value in values:
            # A boolean is an int to isinstance, but not a number.
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if value >= self.bound if self.is_lower else value <= self.bound:
                return True

        return False


Matcher = OneOf | OfClass | Pattern | StartsWith | Includes | Absent | EqualTo | Number | Bound
"""A comparison of the values of a field."""


@dataclass(frozen=True)
class FieldTest:
    """A test of one field: any of the alternatives matches, or none does.

    Attributes:
        field: The name of a member, or ``metadata.`` and a path.
        alternatives: The comparisons.
        is_negated: Whether none may match.
    """

    field: str
    alternatives: tuple[Matcher, ...]
    is_negated: bool = False
    values_of: Callable[[Any], Values] = attribute(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "values_of", _reader(self.field))

    def passes(self, event: Matchable) -> bool:
        """Return whether *event* passes the test."""
        values = self.values_of(event)

        return any(matcher.matches(values) for matcher in self.alternatives) is not self.is_negated


@dataclass(frozen=True, slots=True)
class AnyTest:
    """Passes if any of several tests passes."""

    tests: tuple[FieldTest, ...]

    def passes(self, event: Matchable) -> bool:
        """Return whether *event* passes a test."""
        return any(test.passes(event) for test in self.tests)


class FieldConditions(Conditions, frozen=True):
    """Conditions with tests of fields, each of which must pass."""

    tests: tuple[FieldTest | AnyTest, ...] = ()

    def matches(self, event: Matchable) -> bool:
        """Return whether *event* satisfies all conditions and passes all tests."""
        return super().matches(event) and all(test.passes(event) for test in self.tests)

    @classmethod
    def of(cls, conditions: Conditions, *tests: FieldTest | AnyTest) -> FieldConditions:
        """Return *conditions*, which may have tests already, with these *tests* too."""
        members = msgspec.structs.asdict(conditions)

        return cls(**{**members, "tests": (*members.get("tests", ()), *tests)})


def _reader(name: str) -> Callable[[Any], Values]:
    """Return a function that returns the values of the field *name* in an event."""
    if name.startswith(METADATA):
        path = name.removeprefix(METADATA)
        return lambda event: list(values_at(event.metadata, path))

    if name == "entry_ids":
        return lambda event: list(event.entry_ids)

    return lambda event: [getattr(event, name)]


def values_at(value: Any, path: str) -> Iterator[Any]:
    """Yield the values at *path* in the JSON *value*, those in lists one by one. A key may contain dots itself."""
    if isinstance(value, list):
        for item in value:
            yield from values_at(item, path)
    elif not path:
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if path == key:
                yield from values_at(item, "")
            elif path.startswith(f"{key}."):
                yield from values_at(item, path[len(key) + 1 :])


def _scalar(text: str) -> Any:
    """Return the number or boolean that *text* is in JSON; otherwise *text*."""
    try:
        found = msgspec.json.decode(text.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, UnicodeError):
        return text

    return found if isinstance(found, (int, float)) else text


def text_of(value: Any) -> str:
    """Return a JSON value as text: a string as it is, everything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
