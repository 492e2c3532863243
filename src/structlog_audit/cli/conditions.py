"""The conditions of the command line: ``FIELD=value`` among the words beside the options.

A word is a condition if it begins with the shape of a name (a letter or ``_``, then letters, digits, ``_``, ``.``, ``-``;
after ``metadata.`` anything) that an operator follows. Every other word is a trail; ``-`` is stdin. A file with such a name is
given as ``./x=y``.

**Guarantees**

* Fields are the members of an event, ``operation_class``, and ``metadata.KEY`` at any depth; a key may contain dots. An unknown
  field is an error: a mistyped field never matches nothing, or everything.
* Different fields combine with AND. For one field, ``=`` and ``~`` are alternatives, as in journalctl; each ``!=``, ``!~``,
  ``>=`` and ``<=`` must hold.
* ``FIELD=`` without a value matches events without one (absent, null, or empty); ``FIELD!=`` those with one.
* ``~`` searches for a Python regular expression. In a list (``entry_ids``, lists in the metadata) any item counts. Values in
  the metadata other than text are compared as JSON: ``metadata.attempt=2``, ``metadata.ok=true``. A boolean is not a number.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from structlog_audit.cli.exit_codes import UsageError, did_you_mean
from structlog_audit.events.event import Kind
from structlog_audit.events.operation_classes import UNCLASSIFIED, OperationClasses
from structlog_audit.exceptions import AuditError
from structlog_audit.query.absent_values import EXPLAINED
from structlog_audit.query.field_tests import (
    Absent,
    Bound,
    EqualTo,
    FieldConditions,
    FieldTest,
    Matcher,
    Number,
    OneOf,
    Pattern,
)
from structlog_audit.query.filters import CLASSES, Conditions, class_names
from structlog_audit.query.filters import conditions as query_conditions

EVERY_KIND: list[str | None] = [None, *Kind]
"""The value of the filter ``kind`` that matches every event."""

_WORD = re.compile(
    r"(?P<field>metadata\.[^=!~<>]+|[A-Za-z_][\w.-]*)(?P<operator>!=|!~|>=|<=|==|=~|=|~|>|<)(?P<value>.*)", re.DOTALL
)
_WORD_OPERATORS = ("=", "!=")
_TEXT_OPERATORS = (*_WORD_OPERATORS, "~", "!~")
_NUMBER_OPERATORS = (*_WORD_OPERATORS, ">=", "<=")
_METADATA_OPERATORS = (*_TEXT_OPERATORS, ">=", "<=")
FIELDS: dict[str, tuple[str, ...]] = {
    "event_id": _TEXT_OPERATORS,
    "operation": _TEXT_OPERATORS,
    "operation_class": _WORD_OPERATORS,
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
    """The events that a command line selects.

    Attributes:
        words: The conditions of the command line, as they were given.
        conditions: Their meaning, with tests beyond the filters of a query (``!=``, ``~``, bounds, most of the metadata).
    """

    words: tuple[Condition, ...]
    conditions: Conditions


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


def build_selection(
    words: Sequence[Condition], *, every_kind: bool = False, classes: OperationClasses | None = None, **bounds: Any
) -> Selection:
    """Return the selection that the conditions *words* describe.

    Args:
        words: The conditions.
        every_kind: Whether the library's own events are selected too, unless a condition filters by kind.
        classes: The classes of operations; None stands for those of this process.
        bounds: Further filters of a query; None means no filter.

    Raises:
        UsageError: A condition has an invalid value.
    """
    filters: dict[str, Any] = {"kind": EVERY_KIND} if every_kind else {}
    filters |= {name: value for name, value in bounds.items() if value is not None}
    tests: list[FieldTest] = []

    for field, group in _by_field(words).items():
        if field == "operation_class":
            filters[field] = _class_names(group)
            continue

        is_filter = field in _NAMES and all(condition.operator == "=" for condition in group)
        if is_filter:
            filters[field] = _filter_values(group)
            continue

        # The tests decide about the kind: the filter must not leave any kind out before them.
        if field == "kind":
            filters[field] = EVERY_KIND

        tests += _tests(field, group)

    try:
        found = query_conditions(**filters)
    except AuditError as error:
        raise UsageError(str(error)) from None

    if found.operation_class is not None:
        of_class = dataclasses.replace(found.operation_class, classes=classes)
        found = msgspec.structs.replace(found, operation_class=of_class)

    return Selection(tuple(words), FieldConditions.of(found, *tests) if tests else found)


def wanted_values(words: Iterable[Condition]) -> dict[str, list[str]]:
    """Return the values that *words* ask for with ``=``, by field, as events have them: those that a hint can explain."""
    wanted: defaultdict[str, list[str]] = defaultdict(list)

    for condition in words:
        if condition.operator != "=" or not condition.value:
            continue

        field, value = condition.field, condition.value
        if field == "operation_class":
            wanted[field].append(value)
        elif field in EXPLAINED:
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


def _class_names(group: Iterable[Condition]) -> list[str]:
    """Return the classes that the conditions on ``operation_class`` select, of which there are few."""
    named: dict[str, set[str]] = {"=": set(), "!=": set()}

    for condition in group:
        try:
            named[condition.operator] |= class_names(condition.value or UNCLASSIFIED)
        except AuditError as error:
            raise UsageError(str(error)) from None

    return sorted((named["="] or set(CLASSES)) - named["!="])


def _tests(field: str, group: Sequence[Condition]) -> Iterator[FieldTest]:
    """Yield the tests for all conditions on one *field*."""
    alternatives = tuple(_matcher(condition) for condition in group if condition.operator in ("=", "~"))
    if alternatives:
        yield FieldTest(field, alternatives)

    for condition in group:
        if condition.operator not in ("=", "~"):
            yield FieldTest(field, (_matcher(condition),), is_negated=condition.operator.startswith("!"))


def _number(condition: Condition) -> float:
    try:
        number = float(condition.value)
        if number == number:
            return number
    except ValueError:
        pass
    raise UsageError(f"{condition.quoted}: expected a number, got {condition.value!r}")


def _matcher(condition: Condition) -> Matcher:
    """Return the comparison of *condition*, its ``!`` left aside."""
    field, value = condition.field, condition.value
    if condition.operator.endswith("~"):
        return _pattern(condition)

    if condition.operator in (">=", "<="):
        return Bound(_number(condition), is_lower=condition.operator == ">=")

    if not value:
        return Absent()

    if field in _NAMES:
        return OneOf(_filter_value(field, value))

    return Number(_number(condition)) if field == "duration_ms" else EqualTo(value)


def _pattern(condition: Condition) -> Pattern:
    try:
        return Pattern(re.compile(condition.value))
    except re.error as error:
        raise UsageError(f"{condition.quoted}: expected a regular expression: {error}") from None


def _filter_value(field: str, value: str) -> frozenset[str | None]:
    """Return *value* as a query compares it: of ``status`` and ``operation`` in their standard spelling."""
    try:
        return dict(query_conditions(**{field: value}).names)[field]
    except AuditError as error:
        raise UsageError(str(error)) from None
