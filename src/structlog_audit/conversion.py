"""From fields to the body of an event.

Rules:

* The own members are ``operation user_id session_id entry_ids metadata status error_message duration_ms``. Any other field
  goes into the metadata, ``event_id``, ``timestamp`` and ``kind`` too: those the recorder gives, and nobody forges them.
* ``metadata=`` is merged with those fields. Its own key wins, the other is kept as ``key_``.
* A value that is of the wrong type for its member is kept in the metadata and marked; nothing raises.
* The operation is the field of that name, else the message. If there are both and they differ, the message is kept in the
  metadata. An event without either is called ``UNNAMED``.
* Without a status, the event is a FAILURE if it has an error or its level is ERROR or above, otherwise a SUCCESS.
* What identifies (user, session, entries) is text in the trail; numbers and UUIDs become their text.
"""

from __future__ import annotations

import logging
import math
import numbers
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from structlog_audit.codec import MARKS
from structlog_audit.event import EventStatus, OperationType, status_of
from structlog_audit.fit import Body
from structlog_audit.plain import Plainer, exception_text, identity_text
from structlog_audit.records import fields_of

UNNAMED = "UNNAMED"

_SIX = frozenset(member.value for member in OperationType)
_STATUSES = {status: status.value for status in EventStatus}  # finds members and their text alike
_SUCCESS, _FAILURE = EventStatus.SUCCESS.value, EventStatus.FAILURE.value
_COLLECTIONS = (list, tuple, set, frozenset, deque)


def body_of(record: logging.LogRecord) -> Body:
    """The body of the event that *record* records."""
    fields, message, error = fields_of(record)
    return convert(fields, message=message, error=error, level=record.levelno)


def convert(
    fields: dict[str, Any], *, message: str | None = None, error: str | None = None, level: int = logging.INFO
) -> Body:
    """The body of the event with *fields*, which is used up.

    Args:
        fields: The members, and whatever else the event says.
        message: The text of the log record.
        error: The text of the record's exception; it is the ``error_message`` unless there is one.
        level: The level of the record.
    """
    take = fields.pop
    wrong: dict[str, tuple[Any, str]] = {}  # what can't be a member: its value and why
    operation = _operation(take("operation", None), message, fields, wrong)
    user_id = take("user_id", None)
    if type(user_id) is not str and user_id is not None:
        user_id = _identity("user_id", user_id, wrong)
    session_id = take("session_id", None)
    if type(session_id) is not str and session_id is not None:
        session_id = _identity("session_id", session_id, wrong)
    entry_ids = take("entry_ids", None)
    entry_ids = _entry_ids(entry_ids, wrong) if entry_ids is not None else []
    error_message = take("error_message", None)
    if type(error_message) is not str:
        error_message = _error_message(error_message, wrong) if error_message is not None else error
    duration_ms = take("duration_ms", None)
    if type(duration_ms) is not float or duration_ms - duration_ms != 0.0:
        duration_ms = _duration(duration_ms, wrong) if duration_ms is not None else None
    given = take("status", None)
    status = _STATUSES.get(given) if type(given) is str or type(given) is EventStatus else None
    if status is None:
        status = _status(given, wrong) if given is not None else None
        if status is None:
            status = _FAILURE if error_message is not None or level >= logging.ERROR else _SUCCESS
    metadata = take("metadata", None)
    if metadata is None:
        metadata = {}
    if fields or wrong or type(metadata) is not dict or MARKS in metadata:
        metadata = _merged(metadata, fields, wrong)
    return Body(operation, user_id, session_id, entry_ids, metadata, status, error_message, duration_ms)


def _operation(operation: Any, message: str | None, fields: dict[str, Any], wrong: dict[str, tuple[Any, str]]) -> str:
    if operation is not None:
        name = operation if type(operation) is str else _attempt(identity_text, operation)
        if not name:
            wrong["operation"] = (operation, "no name of an operation")
        if message is not None and message != name:
            fields["message_" if "message" in fields else "message"] = message
    else:
        name = message
    if not name:
        wrong.setdefault("operation", (operation, "the event has no operation"))
        return UNNAMED
    if name not in _SIX and name.upper() in _SIX:
        return name.upper()
    return name


def _identity(name: str, value: Any, wrong: dict[str, tuple[Any, str]]) -> str | None:
    text = _attempt(identity_text, value)
    if text is None:
        wrong[name] = (value, "no text, number or UUID")
    return text


def _entry_ids(value: Any, wrong: dict[str, tuple[Any, str]]) -> list[str]:
    if type(value) is list:
        for item in value:
            if type(item) is not str:
                break
        else:
            return value
    if isinstance(value, _COLLECTIONS):
        ids = [_attempt(identity_text, item) for item in value]
        if None not in ids:
            texts = [item for item in ids if item is not None]
            return sorted(texts) if isinstance(value, (set, frozenset)) else texts
    one = _attempt(identity_text, value)
    if one is not None:
        return [one]
    wrong["entry_ids"] = (value, "no ids")
    return []


def _error_message(value: Any, wrong: dict[str, tuple[Any, str]]) -> str | None:
    if isinstance(value, BaseException):
        return exception_text(value)
    text = _attempt(identity_text, value)
    if text is None:
        wrong["error_message"] = (value, "no text")
    return text


def _duration(value: Any, wrong: dict[str, tuple[Any, str]]) -> float | None:
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        duration = _attempt(float, value)
        if duration is not None and math.isfinite(duration):
            return float(duration)
    wrong["duration_ms"] = (value, "no finite number")
    return None


def _status(value: Any, wrong: dict[str, tuple[Any, str]]) -> str | None:
    text = _attempt(identity_text, value)
    status = status_of(text) if text is not None else None
    if status is None:
        wrong["status"] = (value, "no status")
        return None
    return status.value


def _attempt(convert: Callable[[Any], Any], value: Any) -> Any:
    """What *convert* makes of *value*; None if that raises, as a hostile value can make it."""
    try:
        return convert(value)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return None


def _merged(metadata: Any, fields: dict[str, Any], wrong: dict[str, tuple[Any, str]]) -> dict[str, Any]:
    """The metadata of the event: that which was given, the other fields, and the values of wrong type with their marks."""
    plainer = Plainer()
    if not _attempt(lambda value: isinstance(value, Mapping), metadata):
        wrong["metadata"] = (metadata, "no dictionary")
        metadata = {}
    elif type(metadata) is not dict:
        plain = plainer.plain(metadata, "metadata")
        metadata = plain if isinstance(plain, dict) else {"metadata": plain}
    metadata = dict(metadata)  # somebody else may be changing theirs
    if not all([type(name) is str for name in metadata]):
        metadata = plainer.plain(metadata, "")
    merged: dict[Any, Any] = {}
    misfits = {name: value for name, (value, _) in wrong.items() if value is not None}
    for source in (metadata, misfits, fields):
        for name, value in source.items():
            while name in merged or name == MARKS:
                name = f"{name}_"
            merged[name] = value
    for name, (_, why) in wrong.items():
        plainer.mark(name, why)
    if plainer.marks:
        merged[MARKS] = plainer.marks
    return merged
