"""The conditions of the command line: ``FIELD=value`` among the words beside the options.

Rules:

* A word is a condition if it begins with the shape of a name (a letter or ``_``, then letters, digits, ``_``, ``.``, ``-``;
  after ``metadata.`` anything) and an operator behind it. Every other word is a trail, and ``-`` is stdin. A file with such a
  name is given as ``./x=y``: that does not begin as a name does.
* Fields are the members of an event, and ``metadata.KEY`` for what lies below; ``metadata.user.plan`` goes deeper. A key may
  have dots of its own. A bare name that is no member is an error: a mistyped field must not find nothing, or everything.
* Different fields combine with AND. Of one field, ``=`` and ``~`` are alternatives, as in journalctl; each ``!=``, ``!~``,
  ``>=`` and ``<=`` must hold.
* ``FIELD=`` with nothing behind it finds events without one (absent, null, or empty); ``FIELD!=`` those with one.
* ``~`` is a regular expression of Python that is found anywhere in the text. Of a list (``entry_ids``, lists in the metadata)
  any item counts. Values in the metadata that are no text are compared as JSON: ``metadata.attempt=2``, ``metadata.ok=true``.
* What the questions of `structlog_audit.query.filters` can ask is asked that way; the rest is tested on what they find.
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
from structlog_audit.query.filters import conditions, contains

Event = StoredEvent | AuditEvent
Test = Callable[[Event], bool]

EVERY_KIND: list[str | None] = [None, *Kind]
"""The filter ``kind`` that leaves nothing out."""

_WORD = re.compile(
    r"(?P<field>metadata\.[^=!~<>]+|[A-Za-z_][\w.-]*)(?P<operator>!=|!~|>=|<=|==|=~|=|~|>|<)(?P<value>.*)", re.DOTALL
)
_TEXT, _NUMBER = ("=", "!=", "~", "!~"), ("=", "!=", ">=", "<=")
_FIELDS: dict[str, tuple[str, ...]] = {
    "event_id": _TEXT,
    "operation": _TEXT,
    "user_id": _TEXT,
    "session_id": _TEXT,
    "entry_ids": _TEXT,
    "status": _TEXT,
    "error_message": _TEXT,
    "kind": _TEXT,
    "duration_ms": _NUMBER,
}
_EVERY = (*_TEXT, ">=", "<=")
_INSTEAD = {"==": "=", "=~": "~", ">": ">=", "<": "<="}
_NAMES = ("event_id", "operation", "user_id", "session_id", "status", "kind")
_ALWAYS_THERE = ("event_id", "operation", "status")


@dataclass(frozen=True, slots=True)
class Condition:
    """One word: a field, an operator and a value."""

    field: str
    operator: str
    value: str

    def __str__(self) -> str:
        return f"{self.field}{self.operator}{self.value}"


@dataclass(frozen=True, slots=True)
class Sought:
    """What conditions ask for: the filters of a query, and tests that what it finds must pass besides."""

    filters: dict[str, Any]
    tests: tuple[Test, ...] = ()

    def passes(self, event: Event) -> bool:
        """Whether *event*, which matches the filters, is sought."""
        return all(test(event) for test in self.tests)


def sorted_words(words: Iterable[str]) -> tuple[list[str], list[Condition]]:
    """The trails and the conditions among *words*.

    Raises:
        UsageError: A word has the shape of a condition and can't be meant as one.
    """
    trails, found = [], []
    for word in words:
        parts = _WORD.fullmatch(word)
        if parts is not None:
            found.append(_checked(Condition(*parts.group("field", "operator", "value"))))
        elif word in _FIELDS or word.startswith("metadata."):
            quoted = "'duration_ms>=100'"
            raise UsageError(f"{word!r} has no operator: give FIELD=value, and quote < and > from the shell: {quoted}")
        else:
            trails.append(word)
    return trails, found


def _checked(condition: Condition) -> Condition:
    field, operator = condition.field, condition.operator
    accepted = _EVERY if field.startswith("metadata.") else _FIELDS.get(field, ())
    if field == "timestamp":
        raise UsageError(f"{str(condition)!r}: ask for times by --since and --until")
    if field == "metadata":
        raise UsageError(
            f"{str(condition)!r}: ask for what lies in the metadata by its key, such as 'metadata.source=api'"
        )
    if not accepted:
        hint = did_you_mean(field, [*_FIELDS, "metadata"])
        elsewhere = f"metadata is asked by 'metadata.{field}', a file of that name by './{condition}'"
        raise UsageError(f"unknown field {field!r}.{hint} Fields: {', '.join(_FIELDS)}; {elsewhere}")
    if operator in _INSTEAD:
        raise UsageError(f"unknown operator {operator!r} in {str(condition)!r}. Did you mean {_INSTEAD[operator]!r}?")
    if operator not in accepted:
        raise UsageError(f"{operator!r} in {str(condition)!r}: for {field} use one of {' '.join(accepted)}")
    return condition


def sought(found: Sequence[Condition], *, every_kind: bool = False, **bounds: Any) -> Sought:
    """What *found* asks for.

    Args:
        found: The conditions.
        every_kind: Whether the library's own events count too, where no condition asks for a kind.
        bounds: Filters of a query besides.

    Raises:
        UsageError: A value that can't be meant.
    """
    filters: dict[str, Any] = {"kind": EVERY_KIND} if every_kind else {}
    filters |= {name: value for name, value in bounds.items() if value is not None}
    by_field: defaultdict[str, list[Condition]] = defaultdict(list)
    for condition in found:
        by_field[condition.field].append(condition)
    tests: list[Test] = []
    for field, those in by_field.items():
        if field in _NAMES and all(condition.operator == "=" for condition in those):
            filters[field] = [value for condition in those for value in _values(condition)]
            continue
        if field == "kind":
            filters[field] = EVERY_KIND
        tests += _tests(field, those)
    try:
        conditions(**filters)
    except AuditError as error:
        raise UsageError(str(error)) from None
    return Sought(filters, tuple(tests))


def _values(condition: Condition) -> list[str | None]:
    """The values that ``FIELD=value`` asks for, as a filter has them."""
    if condition.value:
        return [condition.value]
    if condition.field in _ALWAYS_THERE:
        raise UsageError(f"{str(condition)!r}: every event has one; give a value")
    return [None] if condition.field == "kind" else [None, ""]


def _tests(field: str, those: Sequence[Condition]) -> Iterator[Test]:
    """The tests for all conditions of one *field*."""
    values_of = _reader(field)
    alternatives = [_holds(condition) for condition in those if condition.operator in ("=", "~")]
    if alternatives:
        yield lambda event: any(holds(values_of(event)) for holds in alternatives)
    for condition in those:
        if condition.operator in ("!=", "!~"):
            yield _not(_holds(condition), values_of)
        elif condition.operator in (">=", "<="):
            yield _bound(condition, values_of)


def _not(holds: Callable[[list[Any]], bool], values_of: Callable[[Event], list[Any]]) -> Test:
    return lambda event: not holds(values_of(event))


def _bound(condition: Condition, values_of: Callable[[Event], list[Any]]) -> Test:
    bound = _number(condition)

    def holds(event: Event) -> bool:
        numbers = [value for value in values_of(event) if isinstance(value, (int, float)) and value is not True]
        return any(value >= bound if condition.operator == ">=" else value <= bound for value in numbers)

    return holds


def _number(condition: Condition) -> float:
    try:
        number = float(condition.value)
        if number == number:
            return number
    except ValueError:
        pass
    raise UsageError(f"{str(condition)!r}: {condition.value!r} is no number")


def _reader(field: str) -> Callable[[Event], list[Any]]:
    """What gives the values that an event has for *field*: none, one, or of a list several."""
    if field.startswith("metadata."):
        path = field.removeprefix("metadata.")
        return lambda event: list(values_at(event.metadata, path))
    if field == "entry_ids":
        return lambda event: event.entry_ids
    return lambda event: [getattr(event, field)]


def values_at(value: Any, path: str) -> Iterator[Any]:
    """The values at *path* in the JSON *value*, those in lists one by one. A key may have the dots that separate keys."""
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


def _holds(condition: Condition) -> Callable[[list[Any]], bool]:
    """Whether some of the values of an event are what *condition* says, or does not say (``!=``, ``!~``)."""
    field, value = condition.field, condition.value
    if condition.operator.endswith("~"):
        try:
            search = re.compile(value).search
        except re.error as error:
            raise UsageError(f"{str(condition)!r} is no regular expression: {error}") from None
        return lambda values: any(search(text_of(item)) for item in values if item is not None)
    if not value:
        return lambda values: all(item in (None, "") for item in values)
    if field in _NAMES:
        try:
            wanted = dict(conditions(**{field: value}).names)[field]
        except AuditError as error:
            raise UsageError(str(error)) from None
        return lambda values: not wanted.isdisjoint(values)
    if field == "duration_ms":
        number = _number(condition)
        return lambda values: number in values
    scalar = _scalar(value)
    return lambda values: any(item == value if isinstance(item, str) else contains(item, scalar) for item in values)


def _scalar(text: str) -> Any:
    """The number or boolean that *text* is in JSON; otherwise the text."""
    try:
        found = msgspec.json.decode(text.encode("utf-8", "surrogateescape"))
    except (msgspec.DecodeError, UnicodeError):
        return text
    return found if isinstance(found, (int, float)) else text


def text_of(value: Any) -> str:
    """A JSON value as text: strings as they are, everything else as JSON."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
