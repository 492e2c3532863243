"""The questions that can be asked: one frozen object that buffer, reader and every engine take.

Rules:

* Filters combine with AND. Leaving one out means any. A list, tuple or set means any of its members, so an empty one
  means none at all.
* ``None`` for user, session and kind means events without one. For time and duration it means no bound. For the other
  filters it is an error: a filter never silently returns everything.
* ``entry_ids`` matches events that touched any of them. ``metadata`` is containment, as PostgreSQL's ``@>`` on jsonb.
* Time ranges are half-open, ``start_time <= t < end_time``; a naive datetime is local time. Durations include both ends.
* An unknown filter is an `AuditTypeError`, a reversed range an `AuditValueError`.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final, Protocol, TypedDict, TypeVar, get_type_hints

import msgspec

from structlog_audit.events.event import EventStatus, Kind, operation_of, status_of, utc
from structlog_audit.events.json_safe import JsonSanitizer, identifier_text
from structlog_audit.exceptions import AuditTypeError, AuditValueError

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ANY_OF = (list, tuple, set, frozenset)

Name = str | int | Enum
"""What names a user, a session, an entry or an event: text, a number, a UUID, or an Enum of these."""

Names = list[Any] | tuple[Any, ...] | set[Any] | frozenset[Any]


class Filters(TypedDict, total=False):
    """The filters by name. What each means is at the head of this module."""

    event_id: Name | Names
    user_id: Name | Names | None
    session_id: Name | Names | None
    operation: str | Names
    status: str | Names
    kind: str | Names | None
    entry_ids: Name | Names
    metadata: Mapping[str, Any]
    start_time: dt.datetime | None
    end_time: dt.datetime | None
    min_duration_ms: float | None
    max_duration_ms: float | None


class Answerable(Protocol):
    """What conditions are matched against: anything with the members of an event."""

    @property
    def timestamp(self) -> dt.datetime: ...
    @property
    def entry_ids(self) -> list[str]: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    @property
    def duration_ms(self) -> float | None: ...


class Conditions(msgspec.Struct, frozen=True):
    """What a query asks for, with every value in the form in which lines have it.

    ``names`` are pairs of a member and the values it may have, the kind always among them; the other attributes are
    None where nothing is asked of them.
    """

    names: tuple[tuple[str, frozenset[str | None]], ...]
    entry_ids: frozenset[str] | None = None
    metadata: dict[str, Any] | None = None
    start_time: dt.datetime | None = None
    end_time: dt.datetime | None = None
    min_duration_ms: float | None = None
    max_duration_ms: float | None = None

    def matches(self, event: Answerable) -> bool:
        """Whether *event* is one of those asked for."""
        for name, wanted in self.names:
            if getattr(event, name) not in wanted:
                return False
        if self.start_time is not None and event.timestamp < self.start_time:
            return False
        if self.end_time is not None and event.timestamp >= self.end_time:
            return False
        if self.entry_ids is not None and self.entry_ids.isdisjoint(event.entry_ids):
            return False
        if self.metadata is not None and not contains(event.metadata, self.metadata):
            return False
        return self._lasted(event.duration_ms)

    def _lasted(self, duration_ms: float | None) -> bool:
        low, high = self.min_duration_ms, self.max_duration_ms
        if low is None and high is None:
            return True
        if duration_ms is None:
            return False
        return (low is None or duration_ms >= low) and (high is None or duration_ms <= high)


ORDINARY: Final = Conditions((("kind", frozenset((None,))),))
"""The conditions of a query without filters."""


def conditions(**filters: Any) -> Conditions:
    """The conditions that *filters* ask for.

    Raises:
        AuditTypeError: An unknown filter, or a value of a type that it can't have.
        AuditValueError: A reversed range, or a status or kind that nobody knows.
    """
    unknown = filters.keys() - Filters.__annotations__.keys()
    if unknown:
        known = ", ".join(Filters.__annotations__)
        raise AuditTypeError(f"unknown filter {sorted(unknown)[0]!r}: use one of {known}")
    names = [(name, _wanted(name, filters[name])) for name in _NAMES if name in filters]
    if "kind" not in filters:
        names.append(("kind", frozenset((None,))))
    made = Conditions(
        tuple(names),
        _entry_ids(filters["entry_ids"]) if "entry_ids" in filters else None,
        _metadata(filters["metadata"]) if "metadata" in filters else None,
        _moment("start_time", filters.get("start_time")),
        _moment("end_time", filters.get("end_time")),
        _duration("min_duration_ms", filters.get("min_duration_ms")),
        _duration("max_duration_ms", filters.get("max_duration_ms")),
    )
    for low, high in (("start_time", "end_time"), ("min_duration_ms", "max_duration_ms")):
        if None not in (getattr(made, low), getattr(made, high)) and getattr(made, low) > getattr(made, high):
            raise AuditValueError(f"{low}={filters[low]!r} lies after {high}={filters[high]!r}: exchange them")
    return made


def _wanted(name: str, value: Any) -> frozenset[str | None]:
    """The values that the member *name* may have."""
    if isinstance(value, _ANY_OF):
        return frozenset(_wanted_one(name, item) for item in value)
    return frozenset((_wanted_one(name, value),))


def _wanted_one(name: str, value: Any) -> str | None:
    if value is None:
        if name in ("user_id", "session_id", "kind"):
            return None
        raise AuditTypeError(f"{name}=None: every event has one; leave the filter out to mean any")
    text = identifier_text(value)
    if text is None:
        raise AuditTypeError(
            f"{name}={value!r}: a {type(value).__name__} is no {name}; give a string or a list of them"
        )
    return _NAMES[name](text)


def _known(what: str, known: type[Enum], find: Callable[[str], str | None]) -> Callable[[str], str]:
    def value_of(text: str) -> str:
        found = find(text)
        if found is None:
            raise AuditValueError(f"{what}={text!r}: use one of {', '.join(member.value for member in known)}")
        return found

    return value_of


def _kind_of(text: str) -> str | None:
    return text if text in frozenset(Kind) else None


_NAMES: dict[str, Callable[[str], str]] = {
    "event_id": str,
    "user_id": str,
    "session_id": str,
    "operation": lambda text: str(operation_of(text)),
    "status": _known("status", EventStatus, status_of),
    "kind": _known("kind", Kind, _kind_of),
}
"""The filters by a name that an event has once, and the form in which a line has the name."""


def _entry_ids(value: Any) -> frozenset[str]:
    ids = [identifier_text(item) for item in (value if isinstance(value, _ANY_OF) else [value])]
    if None in ids:
        raise AuditTypeError(f"entry_ids={value!r}: give an entry id, or a list of them; leave it out to mean any")
    return frozenset(item for item in ids if item is not None)


def _metadata(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise AuditTypeError(f"metadata={value!r}: give a dictionary of the members that the metadata must contain")
    plain: dict[str, Any] = JsonSanitizer().sanitize(value, "")
    return plain


def _moment(name: str, value: Any) -> dt.datetime | None:
    if value is None:
        return None
    if not isinstance(value, dt.datetime):
        raise AuditTypeError(f"{name}={value!r}: give a datetime; a naive one is local time")
    return utc(value)


def _duration(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise AuditTypeError(f"{name}={value!r}: give a number of milliseconds")
    return float(value)


def contains(value: Any, wanted: Any, *, top: bool = True) -> bool:
    """Whether the JSON *value* contains the JSON *wanted*, as PostgreSQL's ``@>`` (manual §8.14.3).

    An object contains another if it has each of its members and their values contain the other's; an array contains
    another if each item of it is contained in some item, whatever the order; an array also contains a scalar of its
    items. Numbers are equal by value; a boolean is no number.
    """
    if isinstance(wanted, dict):
        return isinstance(value, dict) and all(
            name in value and contains(value[name], item, top=False) for name, item in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(value, list) and all(
            any(contains(have, item, top=False) for have in value) for item in wanted
        )
    if isinstance(value, list):
        return top and any(contains(have, wanted, top=False) for have in value)
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def microseconds(moment: dt.datetime) -> int:
    """*moment*, which is aware, in whole microseconds since 1970."""
    since = moment - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


Method = TypeVar("Method", bound=Callable[..., Any])


@functools.cache  # to evaluate the hints takes a twentieth of the package's import
def _filters_spelled_out() -> list[inspect.Parameter]:
    kind = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, kind, default=..., annotation=hint) for name, hint in get_type_hints(Filters).items()
    ]


def with_filter_signature(method: Method) -> Method:
    """Give *method*, which takes ``**filters``, a signature that spells the filters out, for ``help()`` and editors."""
    signature = inspect.signature(method)
    given = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    positional = [p for p in given if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    keywords = [p for p in given if p.kind is inspect.Parameter.KEYWORD_ONLY]
    spelled = signature.replace(parameters=[*positional, *_filters_spelled_out(), *keywords])
    method.__signature__ = spelled  # type: ignore[attr-defined]
    return method
