"""Filters: the immutable `Conditions` that the buffer, the file reader and every other engine evaluate.

**Semantics** (the same for every event source):

* Filters combine with AND. An omitted filter, or `ANY`, matches every event. A list, tuple, set or view of a dictionary
  matches any of its items; an empty one matches nothing.
* ``None`` selects events without a user, session, kind or class. For times and durations it means "no bound". For every other
  filter it is an error: a filter never silently matches everything.
* ``operation_class`` compares the class of the operation (`structlog_audit.OperationClass`), or ``"unclassified"``.
* ``entry_ids`` matches events that touched at least one of the ids. ``metadata`` is containment, as PostgreSQL's ``@>``.
* Time ranges are half-open, ``start_time <= t < end_time``; a naive datetime is local time. Duration bounds are inclusive.
* ``since`` and ``until`` are the same bounds as people say them: a date, a timedelta (that long ago), or a text such as
  ``"7d"``, ``"yesterday 9:00"`` or ``"last week"`` (`structlog_audit.query.times`).
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
from collections.abc import Callable, Iterable, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from typing import Any, Final, ForwardRef, Protocol, TypedDict, TypeVar

import msgspec

from structlog_audit.events.event import EventStatus, Identifier, Kind, OperationName, operation_of, status_of, utc
from structlog_audit.events.json_safe import JsonSanitizer, identifier_text
from structlog_audit.events.operation_classes import (
    UNCLASSIFIED,
    OperationClass,
    OperationClasses,
    registered_operations,
)
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.times import Time, resolve_time


class _Any:
    """The type of `ANY`."""

    def __repr__(self) -> str:
        return "ANY"


ANY: Final[Any] = _Any()
"""As the value of a filter: the same as leaving the filter out."""

Names = list[Any] | tuple[Any, ...] | set[Any] | frozenset[Any] | KeysView[Any] | ValuesView[Any]
"""A collection of ids or words. A filter with a collection matches any of its items."""

IdFilter = Identifier | Names
"""A filter by an id that every event has."""

OptionalIdFilter = Identifier | Names | None
"""A filter by an id that an event may lack; ``None`` selects the events without one."""

WordFilter = OperationName | Names
"""A filter by operation or status."""

OptionalWordFilter = OperationName | Names | None
"""A filter by kind or class; ``None`` selects the events without one."""


class Filters(TypedDict, total=False):
    """The filters by name; the module's documentation defines their matches."""

    event_id: IdFilter
    user_id: OptionalIdFilter
    session_id: OptionalIdFilter
    operation: WordFilter
    operation_class: OptionalWordFilter
    status: WordFilter
    kind: OptionalWordFilter
    entry_ids: IdFilter
    metadata: Mapping[str, Any]
    start_time: dt.datetime | None
    end_time: dt.datetime | None
    since: Time | None
    until: Time | None
    min_duration_ms: float | None
    max_duration_ms: float | None


class Matchable(Protocol):
    """The members of an event that `Conditions` read, beside those in `Conditions.names`."""

    @property
    def timestamp(self) -> dt.datetime: ...
    @property
    def operation(self) -> str: ...
    @property
    def entry_ids(self) -> list[str]: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    @property
    def duration_ms(self) -> float | None: ...


AnyEvent = TypeVar("AnyEvent", bound=Matchable)


CLASSES: Final = (*map(str, OperationClass), UNCLASSIFIED)
"""The names of the classes, and the one that stands for none."""


@dataclass(frozen=True, slots=True)
class OfClass:
    """An operation is of one of these classes.

    Attributes:
        wanted: The names of the classes, some of `CLASSES`.
        classes: The classification; None stands for that of this process when an event is compared.
    """

    wanted: frozenset[str]
    classes: OperationClasses | None = None

    def matches(self, operations: Iterable[str]) -> bool:
        """Return whether any of *operations* matches."""
        classes = registered_operations() if self.classes is None else self.classes

        return any((classes.class_of(name) or UNCLASSIFIED) in self.wanted for name in operations)


class Conditions(msgspec.Struct, frozen=True):
    """The filters of one query, with every value in the form that trail lines have.

    ``names`` are pairs of a member and its accepted values; the kind is always one of them. Every other attribute is None
    if the query does not filter by it.
    """

    names: tuple[tuple[str, frozenset[str | None]], ...]
    entry_ids: frozenset[str] | None = None
    metadata: dict[str, Any] | None = None
    start_time: dt.datetime | None = None
    end_time: dt.datetime | None = None
    min_duration_ms: float | None = None
    max_duration_ms: float | None = None
    operation_class: OfClass | None = None

    def matches(self, event: Matchable) -> bool:
        """Return whether *event* satisfies all conditions."""
        for name, wanted in self.names:
            if getattr(event, name) not in wanted:
                return False

        if self.start_time is not None and event.timestamp < self.start_time:
            return False
        if self.end_time is not None and event.timestamp >= self.end_time:
            return False

        if self.operation_class is not None and not self.operation_class.matches((event.operation,)):
            return False
        if self.entry_ids is not None and self.entry_ids.isdisjoint(event.entry_ids):
            return False
        if self.metadata is not None and not contains(event.metadata, self.metadata):
            return False

        return self._duration_matches(event.duration_ms)

    def _duration_matches(self, duration_ms: float | None) -> bool:
        low, high = self.min_duration_ms, self.max_duration_ms
        if low is None and high is None:
            return True
        if duration_ms is None:
            return False

        return (low is None or duration_ms >= low) and (high is None or duration_ms <= high)


class ListFilter:
    """Selects the events of a list that match *conditions*: one condition after the other, which is fast for many events."""

    def __init__(self, conditions: Conditions) -> None:
        self._names = conditions.names
        rest = msgspec.structs.replace(conditions, names=())
        self._rest = None if rest == Conditions(()) else rest

    def __call__(self, events: list[AnyEvent]) -> list[AnyEvent]:
        """Return the matching ones of *events*."""
        for name, values in self._names:
            events = [event for event in events if getattr(event, name) in values]

        if self._rest is None:
            return events
        matches = self._rest.matches
        return [event for event in events if matches(event)]


ORDINARY: Final = Conditions((("kind", frozenset((None,))),))
"""The conditions of a query without filters."""


def _system_time() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def conditions(now: Callable[[], dt.datetime] = _system_time, /, **filters: Any) -> Conditions:
    """Return the conditions that *filters* describe.

    Args:
        now: Returns the time that ``since`` and ``until`` count from.
        filters: The filters by name.

    Raises:
        AuditTypeError: A filter is unknown, or its value has a type that the filter does not take.
        AuditValueError: A range is reversed, or a status, kind or class does not exist.
    """
    unknown = filters.keys() - Filters.__annotations__.keys()
    if unknown:
        known = ", ".join(Filters.__annotations__)
        raise AuditTypeError(f"unknown filter {sorted(unknown)[0]!r}: expected one of {known}")

    given = {name: value for name, value in filters.items() if value is not ANY}
    names = [(name, _accepted_values(name, given[name])) for name in _NAMES if name in given]
    if "kind" not in given:
        names.append(("kind", frozenset((None,))))

    found = Conditions(
        tuple(names),
        _entry_ids(given["entry_ids"]) if "entry_ids" in given else None,
        _metadata(given["metadata"]) if "metadata" in given else None,
        _bound("start_time", "since", given, now),
        _bound("end_time", "until", given, now),
        _duration("min_duration_ms", given.get("min_duration_ms")),
        _duration("max_duration_ms", given.get("max_duration_ms")),
        OfClass(class_names(given["operation_class"])) if "operation_class" in given else None,
    )

    start_name = "since" if given.get("since") is not None else "start_time"
    end_name = "until" if given.get("until") is not None else "end_time"
    _refuse_reversed(start_name, found.start_time, end_name, found.end_time, given)
    _refuse_reversed("min_duration_ms", found.min_duration_ms, "max_duration_ms", found.max_duration_ms, given)
    return found


def _refuse_reversed(low_name: str, low: Any, high_name: str, high: Any, given: Mapping[str, Any]) -> None:
    if low is not None and high is not None and low > high:
        raise AuditValueError(
            f"{low_name}={given[low_name]!r} must not be greater than {high_name}={given[high_name]!r}: swap them"
        )


_COLLECTIONS = (list, tuple, set, frozenset, KeysView, ValuesView)


def _accepted_values(name: str, value: Any) -> frozenset[str | None]:
    """Return the values that the member *name* of a matching event has."""
    if isinstance(value, _COLLECTIONS):
        return frozenset(_accepted_value(name, item) for item in value)
    return frozenset((_accepted_value(name, value),))


def _accepted_value(name: str, value: Any) -> str | None:
    if value is None:
        if name in _OPTIONAL:
            return None
        raise AuditTypeError(f"{name}=None: every event has one; leave the filter out to match any")

    text = identifier_text(value)
    if text is None:
        raise AuditTypeError(f"{name}={value!r}: expected a string or a list of them, got {type(value).__name__}")

    canonical = _NAMES.get(name, _class_named)
    found = canonical(text)
    if found is None:
        raise AuditValueError(f"{name}={value!r}: expected one of {', '.join(_KNOWN[name])}")

    return found


def class_names(value: Any) -> frozenset[str]:
    """Return the classes that the filter ``operation_class`` with this *value* selects, some of `CLASSES`.

    Raises:
        AuditTypeError, AuditValueError: The value is not the name of a class, or a collection of names.
    """
    return frozenset(name or UNCLASSIFIED for name in _accepted_values("operation_class", value))


def _one_of(known: Iterable[str]) -> Callable[[str], str | None]:
    return lambda text: text if text in known else None


_NAMES: dict[str, Callable[[str], str | None]] = {
    "event_id": str,
    "user_id": str,
    "session_id": str,
    "operation": lambda text: str(operation_of(text)),
    "status": status_of,
    "kind": _one_of(frozenset(Kind)),
}
"""The filters by a single word or id, each with the function that gives the form of a trail line; None for an unknown word."""

_class_named = _one_of(CLASSES)

_KNOWN: dict[str, Iterable[str]] = {"status": EventStatus, "kind": Kind, "operation_class": CLASSES}
"""The known words of the filters that accept no other."""

_OPTIONAL = ("user_id", "session_id", "kind", "operation_class")
"""The filters for which None means the events without one."""


def _entry_ids(value: Any) -> frozenset[str]:
    items = value if isinstance(value, _COLLECTIONS) else [value]
    ids = [identifier_text(item) for item in items]
    if None in ids:
        raise AuditTypeError(
            f"entry_ids={value!r}: expected an entry id or a list of them; leave the filter out to match any"
        )
    return frozenset(item for item in ids if item is not None)


def _metadata(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise AuditTypeError(f"metadata={value!r}: expected a dictionary of the members that the metadata contains")

    plain: dict[str, Any] = JsonSanitizer().sanitize(value, "")
    return plain


def _bound(name: str, spoken: str, given: Mapping[str, Any], now: Callable[[], dt.datetime]) -> dt.datetime | None:
    """Return the bound of a time range: the filter *name* or, as people say it, *spoken*."""
    value, time = given.get(name), given.get(spoken)
    if time is not None:
        if value is not None:
            raise AuditTypeError(f"{name}={value!r}, {spoken}={time!r}: expected one of them")
        return resolve_time(spoken, time, now())

    if value is None:
        return None
    if not isinstance(value, dt.datetime):
        hint = f"a date, a timedelta or a text belongs to {spoken}="
        raise AuditTypeError(f"{name}={value!r}: expected a datetime, a naive one is local time; {hint}")
    return utc(value)


def _duration(name: str, value: Any) -> float | None:
    if value is None:
        return None

    is_nan = value != value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or is_nan:
        raise AuditTypeError(f"{name}={value!r}: expected a number of milliseconds")
    return float(value)


def contains(value: Any, wanted: Any, *, top: bool = True) -> bool:
    """Return whether the JSON *value* contains the JSON *wanted*.

    The rules are those of PostgreSQL's ``@>`` (manual §8.14.3). An object contains another if it has each of its members
    and their values contain the other's. An array contains another if each item of it is contained in some item, in any
    order; at the *top* level an array also contains a scalar among its items. Numbers are equal by value; a boolean is
    not a number.
    """
    if isinstance(wanted, dict):
        return isinstance(value, dict) and _object_contains(value, wanted)

    if isinstance(wanted, list):
        return isinstance(value, list) and all(_has_item(value, item) for item in wanted)

    if isinstance(value, list):
        return top and _has_item(value, wanted)

    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _object_contains(value: dict[str, Any], wanted: dict[str, Any]) -> bool:
    return all(name in value and contains(value[name], item, top=False) for name, item in wanted.items())


def _has_item(values: list[Any], wanted: Any) -> bool:
    return any(contains(value, wanted, top=False) for value in values)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def microseconds(time: dt.datetime) -> int:
    """Return the aware datetime *time* in whole microseconds since 1970."""
    since = time - _EPOCH
    seconds = since.days * 86_400 + since.seconds
    return seconds * 1_000_000 + since.microseconds


def _as_written(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return *parameter* with an annotation that a signature shows without quotes."""
    annotation = parameter.annotation
    return parameter.replace(annotation=_TypeName(annotation)) if isinstance(annotation, str) else parameter


Method = TypeVar("Method", bound=Callable[..., Any])


class _TypeName(str):
    """An annotation that a signature shows as it is written here: a union alias by its name, not expanded."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@functools.cache
def _filter_parameters() -> list[inspect.Parameter]:
    parameters = []
    for name, hint in Filters.__annotations__.items():
        written = hint.__forward_arg__ if isinstance(hint, ForwardRef) else str(hint)
        annotation = _TypeName(written.replace("dt.", ""))
        parameters.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=ANY, annotation=annotation))
    return parameters


def with_filter_signature(method: Method) -> Method:
    """Give *method*, which takes ``**filters``, a signature that lists the filters, for ``help()`` and editors."""
    signature = inspect.signature(method)
    given = [_as_written(p) for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    positional = [p for p in given if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    keywords = [p for p in given if p.kind is inspect.Parameter.KEYWORD_ONLY]

    returned = signature.return_annotation
    with_filter_signature = signature.replace(
        parameters=[*positional, *_filter_parameters(), *keywords],
        return_annotation=_TypeName(returned) if isinstance(returned, str) else returned,
    )
    method.__signature__ = with_filter_signature  # type: ignore[attr-defined]
    return method
