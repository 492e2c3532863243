"""Conversion of the fields of an event to its `Payload`.

**Guarantees**

* The members are ``operation user_id session_id entry_ids metadata status error_message duration_ms``. Any other field goes
  into the metadata, ``event_id``, ``timestamp`` and ``kind`` included: only the recorder assigns these.
* An explicit key of ``metadata=`` wins over a field of that name, which is kept as ``key_``.
* A value of the wrong type for its member is moved to the metadata and marked. Nothing raises.
* Without an operation the event is called ``UNNAMED``. User, session and entries become text.
* The status follows from the value (`status_words`), which the metadata keep unless it is the name of a status. Without a
  status, or if it states none, the event is a FAILURE if it has an error or reaches the failure level, otherwise a SUCCESS.

**Performance**: nearly every event passes one call of `msgspec.convert`, which checks and copies it, so later changes of the
caller's containers have no effect. `_convert_by_hand` handles all others.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import numbers
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from structlog_audit.events.codec import MARKS
from structlog_audit.events.event import EventStatus, OperationType
from structlog_audit.events.foreign_values import PLAIN_TYPES, unwrapped
from structlog_audit.events.json_safe import JsonSanitizer, exception_text, identifier_text
from structlog_audit.events.log_record import fields_of, level_of
from structlog_audit.events.ordinary_values import MAX_VALUES, UnusualValueError, plain_members
from structlog_audit.events.payload import Payload, Status
from structlog_audit.events.status_words import is_status_name, stated_status

UNNAMED = "UNNAMED"
"""The operation of an event that has none."""

_MEMBERS = frozenset(Payload.__struct_fields__)
_METADATA_PATH = "`$.metadata"
"""How msgspec names the place of an error in the metadata."""

_SIX = frozenset(member.value for member in OperationType)
_STATUS_NAMES = frozenset(EventStatus.__members__)
_COLLECTIONS: tuple[Any, ...] = (list, tuple, set, frozenset, deque, range, type({}.keys()), type({}.values()))

UNKNOWN_STATUS = "not a status"
"""The mark of a status that states neither success nor failure."""


def has_unknown_status(metadata: Mapping[str, Any]) -> bool:
    """Return whether the event with this *metadata* has a status that states neither success nor failure."""
    marks = metadata.get(MARKS)
    reason = marks.get("status") if isinstance(marks, dict) else None

    # A redactor appends its change of the word.
    return isinstance(reason, str) and reason.startswith(UNKNOWN_STATUS)


Misfits = dict[str, tuple[Any, str | None]]
"""Values that are not their member as they are, by its name: the value, which goes into the metadata, and the mark if any."""


def payload_of(record: logging.LogRecord, failure_level: int = logging.ERROR) -> Payload:
    """Return the payload of the event in *record*, a FAILURE from *failure_level* on if it has no status."""
    fields, error = fields_of(record)
    return convert(fields, error, level_of(record), failure_level)


def convert(
    fields: Mapping[str, Any],
    error: str | None = None,
    level: int = logging.INFO,
    failure_level: int = logging.ERROR,
) -> Payload:
    """Convert *fields* to a payload.

    Args:
        fields: The members and all other fields of the event.
        error: The text of an exception, which is the ``error_message`` if *fields* have none.
        level: The level of the log record.
        failure_level: The level from which on an event without a status is a FAILURE.
    """
    # msgspec raises if a value is large, deeply nested, not finite, or not of exactly the right type.
    members: Mapping[str, Any] = {}
    try:
        members = fields if _MEMBERS.issuperset(fields) else _gather_metadata(fields)
        payload = msgspec.convert(members, Payload)
        if MARKS in payload.metadata:
            payload = _convert_by_hand(fields)
    except msgspec.ValidationError as mismatch:
        payload = _convert_metadata(members, mismatch) or _convert_by_hand(fields)
    except Exception:
        payload = _convert_by_hand(fields)

    operation = payload.operation
    if operation not in _SIX or type(operation) is not str:
        payload.operation = _operation_name(operation)

    if error is not None and payload.error_message is None:
        payload.error_message = error

    if payload.status is None:
        has_failed = payload.error_message is not None or level >= failure_level
        payload.status = "FAILURE" if has_failed else "SUCCESS"

    return payload


def _convert_metadata(members: Mapping[str, Any], mismatch: msgspec.ValidationError) -> Payload | None:
    """Convert *members* as `_convert_by_hand` does, if *mismatch* concerns their metadata and these are ordinary."""
    if _METADATA_PATH not in str(mismatch):
        return None

    # Values of an application's classes may raise anything.
    try:
        payload = msgspec.convert({**members, "metadata": {}}, Payload)
        metadata = plain_members(members["metadata"], [MAX_VALUES])
    except Exception:
        return None

    if MARKS in metadata:
        return None
    payload.metadata = metadata
    return payload


def _gather_metadata(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return *fields* with those that are not members moved into the metadata.

    Raises:
        TypeError: The metadata is not a dictionary or has a member of the same name: `_convert_by_hand` merges these.
    """
    members = dict(fields)
    metadata = members.get("metadata")
    if metadata is not None and type(metadata) is not dict:
        raise TypeError("metadata is not a dictionary")

    members["metadata"] = gathered = {} if metadata is None else metadata.copy()
    for name in fields:
        if name not in _MEMBERS:
            if name in gathered or name == MARKS:
                raise TypeError("a name is taken")
            gathered[name] = members.pop(name)

    return members


def _add_members(merged: dict[str, Any], members: Mapping[str, Any]) -> None:
    """Add *members* to *merged*, and append underscores to names that are taken, also by the marks."""
    for name, value in members.items():
        while name in merged or name == MARKS:
            name = f"{name}_"
        merged[name] = value


def _operation_name(operation: str) -> str:
    """Return *operation* as plain text; one of the six in upper case.

    It may be a member of an Enum.
    """
    name = identifier_text(operation) or UNNAMED
    return name.upper() if name.upper() in _SIX else name


def _convert_by_hand(fields: Mapping[str, Any]) -> Payload:
    """Convert *fields* of any types, member by member.

    A value of the wrong type goes into the metadata.
    """
    misfits: Misfits = {}
    member = fields.get
    operation = _text_member("operation", member("operation"), misfits, "not an operation name")
    if not operation:
        misfits.setdefault("operation", (None, "the event has no operation"))

    payload = Payload(
        operation or UNNAMED,
        _text_member("user_id", member("user_id"), misfits, "not text, a number or a UUID"),
        _text_member("session_id", member("session_id"), misfits, "not text, a number or a UUID"),
        _entry_ids_member(member("entry_ids"), misfits),
        status=_status_member(member("status"), misfits),
        error_message=_error_message_member(member("error_message"), misfits),
        duration_ms=_duration_member(member("duration_ms"), misfits),
    )

    # An error that cannot be text is an error all the same, unless it is empty, as a list of no errors.
    if payload.status is None and "error_message" in misfits:
        value, _ = misfits["error_message"]
        payload.status = None if _attempt(bool, value) is False else "FAILURE"

    others = {}
    if not _MEMBERS.issuperset(fields):
        others = {name: value for name, value in fields.items() if name not in _MEMBERS}

    metadata = unwrapped_or_same(member("metadata"))
    ordinary = _ordinary_metadata(metadata, misfits, others)
    payload.metadata = _sanitized_metadata(metadata, misfits, others) if ordinary is None else ordinary
    return payload


def _ordinary_metadata(metadata: Any, misfits: Misfits, others: dict[str, Any]) -> dict[str, Any] | None:
    """Return the result of `_sanitized_metadata`, or None if a value is not ordinary or has a mark."""
    if metadata is None:
        metadata = {}
    if type(metadata) is not dict:
        return None

    # Values of an application's classes may raise anything.
    budget = [MAX_VALUES]
    try:
        merged = plain_members(metadata, budget)
        if MARKS in merged:
            return None
        if misfits:
            _add_members(merged, plain_members(_without_marks(misfits), budget))
        if others:
            _add_members(merged, plain_members(others, budget))
    except Exception:
        return None
    return merged


def _without_marks(misfits: Misfits) -> dict[str, Any]:
    """Return the values of *misfits*.

    Raises:
        UnusualValueError: One of them has a mark.
    """
    values = {}
    for name, (value, reason) in misfits.items():
        if reason is not None:
            raise UnusualValueError(reason)
        values[name] = value
    return values


def _sanitized_metadata(metadata: Any, misfits: Misfits, others: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata with the values of *misfits* and *others*, and the marks of all changes."""
    sanitizer = JsonSanitizer()
    metadata = sanitizer.sanitize({} if metadata is None else metadata, "")
    if not isinstance(metadata, dict):
        misfits["metadata"] = (metadata, "not a dictionary")
        metadata = {}

    # Explicit metadata first: its keys win over those of misfits, and these over those of other fields.
    misfit_values = {name: value for name, (value, _) in misfits.items() if value is not None}
    merged: dict[str, Any] = {}
    for members in (metadata, sanitizer.sanitize_members(misfit_values), sanitizer.sanitize_members(others)):
        _add_members(merged, members)

    for name, (_, reason) in misfits.items():
        if reason is not None:
            sanitizer.mark(name, reason)
    if sanitizer.marks:
        merged[MARKS] = sanitizer.marks
    return merged


def unwrapped_or_same(value: Any) -> Any:
    """Return the object behind a proxy, or *value* itself.

    A proxy that raises is a misfit like any other value.
    """
    if type(value) in PLAIN_TYPES:
        return value

    # In a tuple, because the object may be None.
    found = _attempt(lambda: (unwrapped(value),))
    return value if found is None else found[0]


def _text_member(name: str, value: Any, misfits: Misfits, reason: str) -> str | None:
    if value is None or type(value) is str:
        return value

    value = unwrapped_or_same(value)
    if value is None:
        return None

    text: str | None = _attempt(identifier_text, value)
    if text is None:
        misfits[name] = (value, reason)
    return text


def _entry_ids_member(value: Any, misfits: Misfits) -> list[str]:
    value = unwrapped_or_same(value)
    if value is None:
        return []

    # A list is not an identifier.
    items: list[Any] | None = value
    if type(value) is not list:
        single_id = _attempt(identifier_text, value)
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
        text = item if type(item) is str else _attempt(identifier_text, item)
        if text is None:
            unusable.append(item)
        else:
            ids.append(text)

    if unusable:
        misfits["entry_ids"] = (unusable, "not entry ids")
    return ids


def items_of(value: Any) -> list[Any] | None:
    """Return the items of a collection of entry ids, or None for any other value.

    Methods that a subclass overrides are not called.
    """
    for kind in _COLLECTIONS:
        if issubclass(type(value), kind):
            return list(kind.__iter__(value))
    return None


def _error_message_member(value: Any, misfits: Misfits) -> str | None:
    if value is None:
        return None

    # `issubclass` of the type, because `isinstance` would call methods of the value.
    if not issubclass(type(value), BaseException):
        value = unwrapped_or_same(value)
    if issubclass(type(value), BaseException):
        return exception_text(value)

    return _text_member("error_message", value, misfits, "not text")


def _duration_member(value: Any, misfits: Misfits) -> float | None:
    if value is None or (type(value) is float and math.isfinite(value)):
        return value

    value = unwrapped_or_same(value)
    if value is None:
        return None

    duration: float | None = _attempt(_milliseconds, value)
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


def _status_member(value: Any, misfits: Misfits) -> Status | None:
    if type(value) is str and value in _STATUS_NAMES:
        return value  # type: ignore[return-value]

    value = unwrapped_or_same(value)
    if value is None:
        return None

    status: EventStatus | None = _attempt(stated_status, value)
    if status is None:
        misfits["status"] = (value, UNKNOWN_STATUS)
        return None

    # The word says more than the status: "timeout", "denied" and 404 are different failures.
    if not is_status_name(value):
        misfits["status"] = (value, None)
    return status.value


def _attempt(function: Callable[..., Any], *values: Any) -> Any:
    """Return *function* of *values*, or None if it raises.

    Values of an application's classes may raise anything.
    """
    try:
        return function(*values)
    except Exception:
        return None
