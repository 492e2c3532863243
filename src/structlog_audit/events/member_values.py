"""Conversion of the members of an event one by one, for values of types that a line cannot hold.

**Guarantees**: a value that cannot be its member is put among the misfits, which go into the metadata. Nothing raises, and
methods that a subclass of a built-in type overrides are not called.
"""

from __future__ import annotations

import datetime as dt
import math
import numbers
from collections import deque
from collections.abc import Callable
from typing import Any

from structlog_audit.events.event import EventStatus
from structlog_audit.events.foreign_values import PLAIN_TYPES, unwrapped
from structlog_audit.events.json_safe import exception_text, identifier_text
from structlog_audit.events.payload import Status
from structlog_audit.events.status_words import is_status_name, stated_status

UNKNOWN_STATUS = "not a status"
"""The mark of a status that states neither success nor failure."""

Misfits = dict[str, tuple[Any, str | None]]
"""Values that are not their member as they are, by its name: the value, which goes into the metadata, and the mark if any."""

_NOT_IDENTIFIER = "not text, a number or a UUID"
_STATUS_NAMES = frozenset(EventStatus.__members__)
_MOST_IN_RANGE = 100_000
_COLLECTIONS: tuple[Any, ...] = (list, tuple, set, frozenset, deque, range, type({}.keys()), type({}.values()))


def unwrapped_or_same(value: Any) -> Any:
    """Return the object behind a proxy, or *value* itself.

    A proxy that raises is a misfit like any other value.
    """
    if type(value) in PLAIN_TYPES:
        return value

    # In a tuple, because the object may be None.
    found = attempt(lambda: (unwrapped(value),))
    return value if found is None else found[0]


def text_member(name: str, value: Any, misfits: Misfits, reason: str) -> str | None:
    """Return *value* as the text of the member *name*; None if it is a misfit, marked with *reason*."""
    if value is None or type(value) is str:
        return value

    value = unwrapped_or_same(value)
    if value is None:
        return None

    text: str | None = attempt(identifier_text, value)
    if text is None:
        misfits[name] = (value, reason)
    return text


def user_id_member(value: Any, misfits: Misfits) -> str | None:
    """Return *value* as the text of a user id; None if it is a misfit."""
    return text_member("user_id", value, misfits, _NOT_IDENTIFIER)


def session_id_member(value: Any, misfits: Misfits) -> str | None:
    """Return *value* as the text of a session id; None if it is a misfit."""
    return text_member("session_id", value, misfits, _NOT_IDENTIFIER)


def entry_ids_member(value: Any, misfits: Misfits) -> list[str]:
    """Return *value* as a list of entry ids, without those that cannot be ids."""
    value = unwrapped_or_same(value)
    if value is None:
        return []

    # A list is not an identifier.
    items: list[Any] | None = value
    if type(value) is not list:
        single_id = attempt(identifier_text, value)
        if single_id is not None:
            return [single_id]
        items = items_of(value)
    if items is None:
        misfits["entry_ids"] = (value, "not entry ids")
        return []

    # One unusable id does not take the others with it.
    ids: list[str] = []
    unusable = []
    for item in items:
        text = item if type(item) is str else attempt(identifier_text, item)
        if text is None:
            unusable.append(item)
        else:
            ids.append(text)

    if unusable:
        misfits["entry_ids"] = (unusable, "not entry ids")
    return ids


def items_of(value: Any) -> list[Any] | None:
    """Return the items of a collection of entry ids, or None for any other value.

    Methods that a subclass overrides are not called. A range has no ids in memory, so a larger one is no collection either.
    """
    if type(value) is range and value[_MOST_IN_RANGE:]:
        return None

    for kind in _COLLECTIONS:
        if issubclass(type(value), kind):
            return list(kind.__iter__(value))
    return None


def error_message_member(value: Any, misfits: Misfits) -> str | None:
    """Return *value* as an error message: the text of an exception, or of an identifier."""
    if value is None:
        return None

    # `issubclass` of the type, because `isinstance` would call methods of the value.
    if not issubclass(type(value), BaseException):
        value = unwrapped_or_same(value)
    if issubclass(type(value), BaseException):
        return exception_text(value)

    return text_member("error_message", value, misfits, "not text")


def duration_member(value: Any, misfits: Misfits) -> float | None:
    """Return *value* as a number of milliseconds; None if it is a misfit."""
    if value is None or (type(value) is float and math.isfinite(value)):
        return value

    value = unwrapped_or_same(value)
    if value is None:
        return None

    duration: float | None = attempt(_milliseconds, value)
    if duration is None:
        misfits["duration_ms"] = (value, "not a finite number")
    return duration


def _milliseconds(value: Any) -> float | None:
    """Return a duration or a number of milliseconds as a finite float; None for any other value."""
    if isinstance(value, dt.timedelta):
        return dt.timedelta.total_seconds(value) * 1_000
    return _finite_float(value)


def _finite_float(value: Any) -> float | None:
    """Return a real number as a finite float; None for any other value."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return None
    if not math.isfinite(value):
        return None
    return float.__float__(float(value))


def status_member(value: Any, misfits: Misfits) -> Status | None:
    """Return the status that *value* states; its word is a misfit unless it is the name of a status."""
    if type(value) is str and value in _STATUS_NAMES:
        return value  # type: ignore[return-value]

    value = unwrapped_or_same(value)
    if value is None:
        return None

    status: EventStatus | None = attempt(stated_status, value)
    if status is None:
        misfits["status"] = (value, UNKNOWN_STATUS)
        return None

    # The word says more than the status: "timeout", "denied" and 404 are different failures.
    if not is_status_name(value):
        misfits["status"] = (value, None)
    return status.value


def attempt(function: Callable[..., Any], *values: Any) -> Any:
    """Return *function* of *values*, or None if it raises.

    Values of an application's classes may raise anything.
    """
    try:
        return function(*values)
    except Exception:
        return None
