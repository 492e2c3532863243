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

import logging
from collections.abc import Mapping
from typing import Any

import msgspec

from structlog_audit.events.codec import MARKS
from structlog_audit.events.event import OperationType
from structlog_audit.events.json_safe import JsonSanitizer, identifier_text
from structlog_audit.events.log_record import fields_of, level_of
from structlog_audit.events.member_values import (
    UNKNOWN_STATUS,
    Misfits,
    attempt,
    duration_member,
    entry_ids_member,
    error_message_member,
    status_member,
    text_member,
    unwrapped_or_same,
)
from structlog_audit.events.ordinary_values import MAX_VALUES, UnusualValueError, plain_members
from structlog_audit.events.payload import Payload
from structlog_audit.events.refused_values import (
    convert_refused,
    convert_remembered,
    has_refused_name,
    refused_members,
    refused_names,
)

UNNAMED = "UNNAMED"
"""The operation of an event that has none."""

_MEMBERS = frozenset(Payload.__struct_fields__)
_SIX = frozenset(member.value for member in OperationType)


def has_unknown_status(metadata: Mapping[str, Any]) -> bool:
    """Return whether the event with this *metadata* has a status that states neither success nor failure."""
    marks = metadata.get(MARKS)
    reason = marks.get("status") if isinstance(marks, dict) else None

    # A redactor appends its change of the word.
    return isinstance(reason, str) and reason.startswith(UNKNOWN_STATUS)


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
        if (refused_names or refused_members) and has_refused_name(members):
            payload = convert_remembered(members)
        else:
            payload = msgspec.convert(members, Payload)
        if MARKS in payload.metadata:
            payload = _convert_by_hand(fields)
    except msgspec.ValidationError as mismatch:
        payload = convert_refused(members, mismatch) or _convert_by_hand(fields)
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


def _gather_metadata(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return *fields* with those that are not members moved into the metadata.

    Raises:
        TypeError: The metadata is not a dictionary, or a name is not text: `_convert_by_hand` handles these.
    """
    members = dict(fields)
    metadata = members.get("metadata")
    if metadata is not None and type(metadata) is not dict:
        raise TypeError("metadata is not a dictionary")

    members["metadata"] = gathered = {} if metadata is None else metadata.copy()
    for name in fields:
        if name not in _MEMBERS:
            value = members.pop(name)
            while name in gathered or name == MARKS:
                if type(name) is not str:
                    raise TypeError("a name is not text")
                name = f"{name}_"
            gathered[name] = value

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
    operation = text_member("operation", member("operation"), misfits, "not an operation name")
    if not operation:
        misfits.setdefault("operation", (None, "the event has no operation"))

    payload = Payload(
        operation or UNNAMED,
        text_member("user_id", member("user_id"), misfits, "not text, a number or a UUID"),
        text_member("session_id", member("session_id"), misfits, "not text, a number or a UUID"),
        entry_ids_member(member("entry_ids"), misfits),
        status=status_member(member("status"), misfits),
        error_message=error_message_member(member("error_message"), misfits),
        duration_ms=duration_member(member("duration_ms"), misfits),
    )

    # An error that cannot be text is an error all the same, unless it is empty, as a list of no errors.
    if payload.status is None and "error_message" in misfits:
        value, _ = misfits["error_message"]
        payload.status = None if attempt(bool, value) is False else "FAILURE"

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
