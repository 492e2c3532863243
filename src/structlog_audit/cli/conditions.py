"""The conditions of the command line: ``FIELD=value`` among the words beside the options.

A word is a condition if it begins with the shape of a name (a letter or ``_``, then letters, digits, ``_``, ``.``, ``-``;
after ``metadata.`` anything) that an operator follows. Every other word is a trail; ``-`` is stdin. A file with such a name is
given as ``./x=y``.

**Guarantees**

* Fields are the members of an event, and ``metadata.KEY`` at any depth; a key may contain dots. An unknown field is an error:
  a mistyped field never matches nothing, or everything.
* Different fields combine with AND. For one field, ``=`` and ``~`` are alternatives, as in journalctl; each ``!=``, ``!~``,
  ``>=`` and ``<=`` must hold.
* ``FIELD=`` without a value matches events without one (absent, null, or empty); ``FIELD!=`` those with one.
* ``~`` searches for a Python regular expression. In a list (``entry_ids``, lists in the metadata) any item counts. Values in
  the metadata other than text are compared as JSON: ``metadata.attempt=2``, ``metadata.ok=true``. A boolean is not a number.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from structlog_audit.cli.exit_codes import UsageError, did_you_mean
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import AuditEvent, Kind
from structlog_audit.exceptions import AuditError
from structlog_audit.query.absent_values import EXPLAINED
from structlog_audit.query.filters import Conditions, contains
from structlog_audit.query.filters import conditions as query_conditions

Event = StoredEvent | AuditEvent
Test = Callable[[Event], bool]
Values = list[Any]
"""The values that an event has for a field: none, one, or several of a list."""

EVERY_KIND: list[str | None] = [None, *Kind]
"""The value of the filter ``kind`` that matches every event."""

_WORD = re.compile(
    r"(?P<field>metadata\.[^=!~<>]+|[A-Za-z_][\w.-]*)(?P<operator>!=|!~|>=|<=|==|=~|=|~|>|<)(?P<value>.*)", re.DOTALL
)
_TEXT_OPERATORS = ("=", "!=", "~", "!~")
_NUMBER_OPERATORS = ("=", "!=", ">=", "<=")
_METADATA_OPERATORS = (*_TEXT_OPERATORS, ">=", "<=")
FIELDS: dict[str, tuple[str, ...]] = {
    "event_id": _TEXT_OPERATORS,
    "operation": _TEXT_OPERATORS,
    "user_id": _TEXT_OPERATORS,
    "session_id": _TEXT_OPERATORS,
    "entry_ids": _TEXT_OPERATORS,
    "status": _TEXT_OPERATORS,
    "error_message": _TEXT_OPERATORS,
    "kind": _TEXT_OPERATORS,
    "duration_ms": _NUMBER_OPERATORS,
}
"""The operators of each field but the metadata."""

_CORRECTIONS = {"==": "=", "=~": "~", ">": ">=", "<": "<="}
_NAMES = ("event_id", "operation", "user_id", "session_id", "status", "kind")
"""The fields for which a query has a filter by value."""

_REQUIRED = ("event_id", "operation", "status")
"""The fields that every event has."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One word: a field, an operator and a value."""

    field: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}{self.operator}{self.value}"

    @property
    def quoted(self) -> str:
        """The condition as it was given, in quotes, for an error message."""
        return repr(str(self))


@dataclass(frozen=True, slots=True)
class Selection:
    """The events that a command line selects: those that match the conditions of a query and pass all tests.

    Attributes:
        words: The conditions of the command line, as they were given.
        conditions: The part that a query filters by.
        tests: The part that a query has no filters for (``!=``, ``~``, bounds, most of the metadata).
    """

    words: tuple[Condition, ...]
    conditions: Conditions
    tests: tuple[Test, ...]

    def passes(self, event: Event) -> bool:
        """Return whether *event*, which matches the conditions, passes all tests."""
        return all(test(event) for test in self.tests)


def split_words(words: Iterable[str]) -> tuple[list[str], list[Condition]]:
    """Return the trails and the conditions among *words*.

    Raises:
        UsageError: A word has the shape of a condition, with an unknown field or operator.
    """
    trails, found = [], []
    for word in words:
        parts = _WORD.fullmatch(word)
        if parts is not None:
            condition = Condition(*parts.group("field", "operator", "value"))
            _require_valid(condition)
            found.append(condition)
        elif word in FIELDS or word.startswith("metadata."):
            example = "'duration_ms>=100'"
            raise UsageError(f"{word!r}: expected FIELD=value; quote < and > in the shell, as in {example}")
        else:
            trails.append(word)
    return trails, found


def _require_valid(condition: Condition) -> None:
    """Raise `UsageError` unless *condition* has a known field and an operator that the field accepts."""
    field, operator = condition.field, condition.operator
    if field == "timestamp":
        raise UsageError(f"{condition.quoted}: use --since and --until to select times")
    if field == "metadata":
        raise UsageError(f"{condition.quoted}: expected a key of the metadata, such as 'metadata.source=api'")

    accepted = _METADATA_OPERATORS if field.startswith("metadata.") else FIELDS.get(field)
    if accepted is None:
        raise _unknown_field(condition)

    if operator in _CORRECTIONS:
        correction = _CORRECTIONS[operator]
        raise UsageError(f"unknown operator {operator!r} in {condition.quoted}. Did you mean {correction!r}?")
    if operator not in accepted:
        choices = " ".join(accepted)
        raise UsageError(f"{condition.quoted}: expected one of {choices} after {field}, got {operator!r}")


def _unknown_field(condition: Condition) -> UsageError:
    field = condition.field
    hint = did_you_mean(field, [*FIELDS, "metadata"])
    fields = ", ".join(FIELDS)
    return UsageError(
        f"unknown field {field!r}.{hint} Fields: {fields}; "
        f"use 'metadata.{field}' for a key of the metadata, './{condition}' for a file of that name"
    )


def build_selection(words: Sequence[Condition], *, every_kind: bool = False, **bounds: Any) -> Selection:
    """Return the selection that the conditions *words* describe.

    Args:
        words: The conditions.
        every_kind: Whether the library's own events are selected too, unless a condition filters by kind.
        bounds: Further filters of a query; None means no filter.

    Raises:
        UsageError: A condition has an invalid value.
    """
    filters: dict[str, Any] = {"kind": EVERY_KIND} if every_kind else {}
    filters |= {name: value for name, value in bounds.items() if value is not None}
    tests: list[Test] = []

    for field, group in _by_field(words).items():
        is_filter = field in _NAMES and all(condition.operator == "=" for condition in group)
        if is_filter:
            filters[field] = _filter_values(group)
            continue

        # The tests decide about the kind: the filter must not leave any kind out before them.
        if field == "kind":
            filters[field] = EVERY_KIND
        tests += _tests(field, group)

    try:
        return Selection(tuple(words), query_conditions(**filters), tuple(tests))
    except AuditError as error:
        raise UsageError(str(error)) from None


def wanted_values(words: Iterable[Condition]) -> dict[str, list[str]]:
    """Return the values that *words* ask for with ``=``, by field, as events have them: those that a hint can explain."""
    wanted: defaultdict[str, list[str]] = defaultdict(list)
    for condition in words:
        if condition.operator != "=" or not condition.value:
            continue

        field, value = condition.field, condition.value
        if field in EXPLAINED:
            wanted[field] += [name for name in _filter_value(field, value) if name is not None]
        elif field.startswith("metadata."):
            wanted[field].append(value)
    return dict(wanted)


def _by_field(words: Iterable[Condition]) -> dict[str, list[Condition]]:
    groups: defaultdict[str, list[Condition]] = defaultdict(list)
    for condition in words:
        groups[condition.field].append(condition)
    return groups


def _filter_values(group: Iterable[Condition]) -> list[str | None]:
    """Return the values of the filter that the conditions ``FIELD=value`` of one field stand for."""
    values: list[str | None] = []
    for condition in group:
        if condition.value:
            values.append(condition.value)
        elif condition.field in _REQUIRED:
            raise UsageError(f"{condition.quoted}: expected a value, because every event has one")
        elif condition.field == "kind":
            values.append(None)
        else:
            values += [None, ""]
    return values


def _tests(field: str, group: Sequence[Condition]) -> Iterator[Test]:
    """Yield the tests for all conditions on one *field*."""
    values_of = _reader(field)

    alternatives = [_matcher(condition) for condition in group if condition.operator in ("=", "~")]
    if alternatives:
        yield lambda event: any(matches(values_of(event)) for matches in alternatives)

    for condition in group:
        if condition.operator in ("!=", "!~"):
            yield _negation(_matcher(condition), values_of)
        elif condition.operator in (">=", "<="):
            yield _bound(condition, values_of)


def _negation(matches: Callable[[Values], bool], values_of: Callable[[Event], Values]) -> Test:
    return lambda event: not matches(values_of(event))


def _bound(condition: Condition, values_of: Callable[[Event], Values]) -> Test:
    bound = _number(condition)
    is_lower = condition.operator == ">="

    def is_within(event: Event) -> bool:
        for value in values_of(event):
            # A boolean is an int to isinstance, but not a number.
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                continue
            if value >= bound if is_lower else value <= bound:
                return True
        return False

    return is_within


def _number(condition: Condition) -> float:
    try:
        number = float(condition.value)
        if number == number:
            return number
    except ValueError:
        pass
    raise UsageError(f"{condition.quoted}: expected a number, got {condition.value!r}")


def _reader(field: str) -> Callable[[Event], Values]:
    """Return a function that returns the values of *field* in an event."""
    if field.startswith("metadata."):
        path = field.removeprefix("metadata.")
        return lambda event: list(values_at(event.metadata, path))
    if field == "entry_ids":
        return lambda event: event.entry_ids
    return lambda event: [getattr(event, field)]


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


def _matcher(condition: Condition) -> Callable[[Values], bool]:
    """Return a function that returns whether any value of an event matches *condition*, its ``!`` left aside."""
    field, value = condition.field, condition.value
    if condition.operator.endswith("~"):
        return _pattern_matcher(condition)
    if not value:
        return lambda values: all(item in (None, "") for item in values)
    if field in _NAMES:
        wanted = _filter_value(field, value)
        return lambda values: not wanted.isdisjoint(values)
    if field == "duration_ms":
        number = _number(condition)
        return lambda values: number in values
    return _json_matcher(value)


def _pattern_matcher(condition: Condition) -> Callable[[Values], bool]:
    try:
        search = re.compile(condition.value).search
    except re.error as error:
        raise UsageError(f"{condition.quoted}: expected a regular expression: {error}") from None
    return lambda values: any(search(text_of(item)) for item in values if item is not None)


def _filter_value(field: str, value: str) -> frozenset[str | None]:
    """Return *value* as a query compares it: of ``status`` and ``operation`` in their standard spelling."""
    try:
        return dict(query_conditions(**{field: value}).names)[field]
    except AuditError as error:
        raise UsageError(str(error)) from None


def _json_matcher(text: str) -> Callable[[Values], bool]:
    scalar = _scalar(text)

    def is_match(item: Any) -> bool:
        return item == text if isinstance(item, str) else contains(item, scalar)

    return lambda values: any(map(is_match, values))


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
