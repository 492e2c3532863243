"""From fields to the body of an event.

Rules:

* The own members are ``operation user_id session_id entry_ids metadata status error_message duration_ms``. Any other field
  goes into the metadata, ``event_id``, ``timestamp`` and ``kind`` too: those the recorder gives, and nobody forges them.
* ``metadata=`` is merged with those fields. Its own key wins, the other is kept as ``key_``.
* A value that is of the aside type for its member is kept in the metadata and marked; nothing raises.
* The operation is the field of that name, else the message (`records`). An event without either is called ``UNNAMED``.
* Without a status, the event is a FAILURE if it has an error or its level is ERROR or above, otherwise a SUCCESS.
* What identifies (user, session, entries) is text in the trail; numbers and UUIDs become their text.
* Nearly every event is as it should be. One call of `msgspec.convert` finds that out, and copies it, so that what a caller
  does to its lists later changes nothing here; only the others are looked at by hand.
"""

from __future__ import annotations

import logging
import math
import numbers
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from structlog_audit.events.codec import MARKS
from structlog_audit.events.event import OperationType, status_of
from structlog_audit.events.json_safe import JsonSanitizer, exception_text, identifier_text
from structlog_audit.events.log_record import fields_of
from structlog_audit.events.payload import Payload, Status

UNNAMED = "UNNAMED"

_OWN = frozenset(Payload.__struct_fields__)
_SIX = frozenset(member.value for member in OperationType)
_COLLECTIONS = (list, tuple, set, frozenset, deque)

Aside = dict[str, tuple[Any, str]]
"""Values that go into the metadata because they can't be members, or lost their place: the value, and what is wrong with it."""


def payload_of(record: logging.LogRecord) -> Payload:
    """The body of the event that *record* records."""
    fields, error = fields_of(record)
    return convert(fields, error, record.levelno)


def convert(fields: Mapping[str, Any], error: str | None = None, level: int = logging.INFO) -> Payload:
    """The body of the event with *fields*.

    Args:
        fields: The members, and whatever else the event says.
        error: The text of an exception; it is the ``error_message`` unless there is one.
        level: The level of the log record.
    """
    try:
        body = msgspec.convert(fields if _OWN.issuperset(fields) else _gathered(fields), Payload)
        if MARKS in body.metadata:
            body = _by_hand(fields)
    except Exception:  # something is large, deep, not finite, or of a type that is not exactly the right one
        body = _by_hand(fields)
    operation = body.operation
    if operation not in _SIX or type(operation) is not str:
        body.operation = _operation(operation)
    if error is not None and body.error_message is None:
        body.error_message = error
    if body.status is None:
        failed = body.error_message is not None or level >= logging.ERROR
        body.status = "FAILURE" if failed else "SUCCESS"
    return body


def _gathered(fields: Mapping[str, Any]) -> dict[str, Any]:
    """*fields* with those that are no members of an event moved into the metadata.

    Raises:
        TypeError: They are to be merged by hand: there is no dictionary to move them into, or a name is taken there.
    """
    own = dict(fields)
    metadata = own.get("metadata")
    if metadata is not None and type(metadata) is not dict:
        raise TypeError("metadata is no dictionary")
    own["metadata"] = merged = {} if metadata is None else metadata.copy()
    for name in fields:
        if name not in _OWN:
            if name in merged or name == MARKS:
                raise TypeError("a name is taken")
            merged[name] = own.pop(name)
    return own


def _merged(*sources: Mapping[str, Any]) -> dict[str, Any]:
    """The members of all; what would take another's place, or that of the marks, has an underscore more."""
    merged: dict[str, Any] = {}
    for source in sources:
        for name, value in list(source.items()):
            while name in merged or name == MARKS:
                name = f"{name}_"
            merged[name] = value
    return merged


def _operation(name: str) -> str:
    """*name*, which may be an Enum's member, as plain text; one of the six as it is written by us."""
    text = identifier_text(name) or UNNAMED
    return text.upper() if text.upper() in _SIX else text


def _by_hand(fields: Mapping[str, Any]) -> Payload:
    """The body of the event with *fields*, whatever they are. What is not as it should be is set aside into the metadata."""
    aside: Aside = {}
    operation = _text("operation", fields, aside, "no name of an operation")
    if not operation:
        aside.setdefault("operation", (None, "the event has no operation"))
    body = Payload(
        operation or UNNAMED,
        _text("user_id", fields, aside, "no text, number or UUID"),
        _text("session_id", fields, aside, "no text, number or UUID"),
        _entry_ids(fields.get("entry_ids"), aside),
        status=_status(fields.get("status"), aside),
        error_message=_error_message(fields, aside),
        duration_ms=_duration(fields.get("duration_ms"), aside),
    )
    sanitizer = JsonSanitizer()
    metadata = sanitizer.sanitize({} if fields.get("metadata") is None else fields["metadata"], "")
    if not isinstance(metadata, dict):
        aside["metadata"] = (metadata, "no dictionary")
        metadata = {}
    misfits = {name: value for name, (value, _) in aside.items() if value is not None}
    others = {name: value for name, value in fields.items() if name not in _OWN}
    body.metadata = _merged(metadata, sanitizer.sanitize_members(misfits), sanitizer.sanitize_members(others))
    for name, (_, why) in aside.items():
        sanitizer.mark(name, why)
    if sanitizer.marks:
        body.metadata[MARKS] = sanitizer.marks
    return body


def _text(name: str, fields: Mapping[str, Any], aside: Aside, why: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    text: str | None = _attempt(identifier_text, value)
    if text is None:
        aside[name] = (value, why)
    return text


def _entry_ids(value: Any, aside: Aside) -> list[str]:
    if value is None:
        return []
    one = _attempt(identifier_text, value)
    if one is not None:
        return [one]
    if type(value) in _COLLECTIONS:
        ids = [_attempt(identifier_text, item) for item in list(value)]
        if None not in ids:
            return ids
    aside["entry_ids"] = (value, "no ids")
    return []


def _error_message(fields: Mapping[str, Any], aside: Aside) -> str | None:
    value: Any = fields.get("error_message")
    if issubclass(type(value), BaseException):  # unlike isinstance, this asks nothing of the value
        return exception_text(value)
    return _text("error_message", fields, aside, "no text")


def _duration(value: Any, aside: Aside) -> float | None:
    if value is None:
        return None
    duration: float | None = _attempt(_number, value)
    if duration is None:
        aside["duration_ms"] = (value, "no finite number")
    return duration


def _number(value: Any) -> float | None:
    """*value* as a finite float, if it is a number; a boolean is none."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value):
        return float.__float__(float(value))
    return None


def _status(value: Any, aside: Aside) -> Status | None:
    if value is None:
        return None
    status = status_of(_attempt(identifier_text, value) or "")
    if status is not None:
        return status.value
    aside["status"] = (value, "no status")
    return None


def _attempt(convert: Callable[[Any], Any], value: Any) -> Any:
    """What *convert* makes of *value*; None if that raises, as a hostile value can make it."""
    try:
        return convert(value)
    except Exception:
        return None
