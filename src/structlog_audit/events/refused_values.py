"""Conversion of events with values that msgspec refuses, such as UUIDs: only these members are converted in Python.

**Guarantees**: the values are those that `structlog_audit.events.conversion` makes by hand; an event that needs a mark is left
to it.

**Performance**: the exception of msgspec takes more time than all other steps. So the names of such values are remembered, and
the next event with one of them is converted here at once. If its value is plain this time, the result is the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from structlog_audit.events.codec import MARKS
from structlog_audit.events.member_values import (
    Misfits,
    duration_member,
    entry_ids_member,
    error_message_member,
    session_id_member,
    status_member,
    user_id_member,
)
from structlog_audit.events.ordinary_values import MAX_VALUES, UnusualValueError, plain_member
from structlog_audit.events.payload import Payload, Value

refused_members: set[str] = set()
"""The names of members with a value that msgspec has refused."""

refused_names: set[str] = set()
"""The names of such values in the metadata."""

_MAX_NAMES = 1_000
"""The limit of these names: applications have few, and generated names must not fill the memory."""

_CONVERSIONS: dict[str, Callable[[Any, Misfits], Any]] = {
    "user_id": user_id_member,
    "session_id": session_id_member,
    "entry_ids": entry_ids_member,
    "status": status_member,
    "error_message": error_message_member,
    "duration_ms": duration_member,
}
"""The conversions of members. An operation that is not text is left to the conversion by hand."""

_REPLACEABLE = {*_CONVERSIONS, "metadata"}

_REFUSED_MEMBER = re.compile(r"`\$\.(\w+)[^`]*`\Z")
"""The member at the end of an error of msgspec: "Expected `str`, got `UUID` - at `$.metadata[...]`"."""


class _Member(msgspec.Struct, array_like=True):
    """A value of the metadata, as a struct, whose type msgspec compiles once."""

    value: Value


def has_refused_name(members: Mapping[str, Any]) -> bool:
    """Return whether a name in *members* or in their metadata is in `refused_members` or `refused_names`."""
    if refused_members and not refused_members.isdisjoint(members):
        return True

    # Other collections than dictionaries may be endless.
    metadata = members.get("metadata")
    return type(metadata) is dict and not refused_names.isdisjoint(metadata)


def convert_remembered(members: Mapping[str, Any]) -> Payload:
    """Convert *members*, which `has_refused_name`.

    Raises:
        msgspec.ValidationError: msgspec refuses another value.
        Exception: A value of an application's class raises it.
    """
    metadata = members.get("metadata")
    names = refused_names.intersection(metadata) if type(metadata) is dict else ()
    try:
        return _convert_replacing(members, refused_members, names)
    except UnusualValueError:
        return msgspec.convert(members, Payload)


def convert_refused(members: Mapping[str, Any], mismatch: msgspec.ValidationError) -> Payload | None:
    """Convert *members*, of which msgspec refused one with *mismatch*; None if a value is unusual or has no conversion."""
    tried: set[str] = set()
    names: set[str] = set()

    # Values of an application's classes may raise anything.
    try:
        while True:
            member = _refused_member(mismatch)
            if member in tried or member not in _REPLACEABLE:
                return None
            tried.add(member)
            own = tried - {"metadata"}
            if member == "metadata":
                names = _refused_in(members[member])

            try:
                payload = _convert_replacing(members, own, names)
            except msgspec.ValidationError as another:
                mismatch = another
            else:
                break
        if MARKS in payload.metadata:
            return None
    except Exception:
        return None

    refused_members.update(own)
    if len(refused_names) < _MAX_NAMES:
        # Copies of exact type str: a subclass could change its comparison later.
        refused_names.update(map(str.__str__, names))
    return payload


def _convert_replacing(members: Mapping[str, Any], own: Iterable[str], names: Collection[str]) -> Payload:
    """Convert *members*; the values of *own* members, and those with *names* in the metadata, in Python.

    Raises:
        UnusualValueError: One of these values needs the sanitizer, or is a misfit.
        msgspec.ValidationError: msgspec refuses another value.
    """
    changed = dict(members)
    misfits: Misfits = {}
    for name in own:
        if name in changed:
            changed[name] = _CONVERSIONS[name](changed[name], misfits)
    if misfits:
        raise UnusualValueError("a misfit")
    if not names:
        return msgspec.convert(changed, Payload)

    # Each value that msgspec would refuse has a place in the metadata, so that the order stays.
    metadata = changed["metadata"]
    if type(metadata) is not dict:
        raise UnusualValueError("metadata of another class")
    changed["metadata"] = metadata | dict.fromkeys(names)

    payload = msgspec.convert(changed, Payload)

    plain_metadata, budget = payload.metadata, [MAX_VALUES]
    for name in names:
        plain_metadata[name] = plain_member(metadata[name], budget)
    return payload


def _refused_member(mismatch: msgspec.ValidationError) -> str:
    """Return the name of the member that msgspec refused with *mismatch*; empty if it names none."""
    found = _REFUSED_MEMBER.search(str(mismatch))
    return found[1] if found else ""


def _refused_in(metadata: Mapping[str, Any]) -> set[str]:
    """Return the names of the values in *metadata* that msgspec refuses."""
    names = set()
    for name, value in metadata.items():
        try:
            msgspec.convert((value,), _Member)
        except msgspec.ValidationError:
            names.add(name)
    return names
