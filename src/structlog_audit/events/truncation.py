"""What becomes of an event whose line would be too long.

Rules:

* Log shippers drop or cut long lines, some of them the whole file with it; so no line is longer than the cap.
* Which entries an event touched is never cut: the entry ids go on in further bodies of kind ``part``. Nor is it cut whose
  outcome an event is: an ``intent_id`` in its metadata stays.
* Everything else is cut, the largest value first, and marked with its size in bytes and its SHA-256, so that whoever
  has the original can prove that it is the one. What is left of a text is its beginning.
* Metadata of too many members to cut one by one is left out as a whole, and marked likewise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from structlog_audit.events.event import INTENT_ID, Kind
from structlog_audit.events.json_safe import MAX_MARKS
from structlog_audit.events.payload import Payload, TrailPayload

KEPT_CHARACTERS = 100
"""What is left of a text that was cut. Six bytes each at worst, when every one must be escaped."""

LONGEST_ID = 400
"""Characters of an entry id that is kept whole: at six bytes each it still fits into a part of the smallest cap."""

_ROOM_OF_IDS = 100
"""Bytes in the first line for the member ``entry_ids`` and the mark that says where it goes on."""

_ROOM_OF_PART = 700
"""Bytes of a part that are not its ids: the beginning of the operation and the kind."""


encode = msgspec.json.Encoder().encode

_TEXTS = ("operation", "user_id", "session_id", "error_message")


def fit(body: Payload, room: int, marks_key: str, escape: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """The bodies, each at most *room* bytes after `escape`, that together say what *body* says, or mark what they cut."""

    def size(value: Any) -> int:
        return len(escape(encode(value)))

    marks = dict(body.metadata.get(marks_key, {}))
    ids = [_shorten_id(entry_id) for entry_id in body.entry_ids]
    first = msgspec.structs.replace(body, entry_ids=[], metadata={**body.metadata, marks_key: marks})
    room_of_rest = room - _ROOM_OF_IDS * bool(ids)
    if size(first) > room_of_rest:
        _cut(first, room_of_rest, marks, marks_key, size)
    groups = _groups(ids, room - size(first) - _ROOM_OF_IDS, room - _ROOM_OF_PART, size)
    shortened = sum(before != after for before, after in zip(body.entry_ids, ids, strict=True))
    notes = [f"cut: {shortened} ids"] * bool(shortened) + [f"continued in {len(groups) - 1} parts"] * (len(groups) > 1)
    if notes:
        _mark(marks, "entry_ids", "; ".join(notes))
    first.entry_ids = groups[0]
    yield encode(first)
    for group in groups[1:]:
        yield encode(TrailPayload(first.operation[:KEPT_CHARACTERS], entry_ids=group, kind=Kind.PART.value))


def _cut(body: Payload, room: int, marks: dict[str, str], marks_key: str, size: Callable[[Any], int]) -> None:
    """Cut values of *body*, the largest first, until it fits into *room*."""
    texts = [(size(getattr(body, name)), name, body) for name in _TEXTS if getattr(body, name) is not None]
    values = [(size(value), name, body.metadata) for name, value in body.metadata.items() if name != marks_key]
    for _, name, owner in sorted([*texts, *values], key=lambda entry: (-entry[0], entry[1]))[:MAX_MARKS]:
        if size(body) <= room:
            return
        if owner is body:
            _cut_member(body, name, marks)
        elif len(text := _text(body.metadata[name])) > KEPT_CHARACTERS:
            body.metadata[name] = _cut_text(text, name[:KEPT_CHARACTERS], marks)
    if size(body) > room:  # too many members, or too long names
        metadata = {name: value for name, value in body.metadata.items() if name != marks_key}
        intent_id = metadata.get(INTENT_ID)
        known = {INTENT_ID: intent_id} if isinstance(intent_id, str) and len(intent_id) <= KEPT_CHARACTERS else {}
        data = encode(metadata)
        kept = {name: marks[name] for name in (*_TEXTS, "entry_ids") if name in marks}
        marks.clear()
        marks.update(kept, metadata=f"left out: {len(metadata) - len(known)} members, {_digest(data)}")
        body.metadata = {**known, marks_key: marks}
        for _, name, _ in texts:
            _cut_member(body, name, marks)


def _cut_member(body: Payload, name: str, marks: dict[str, str]) -> None:
    setattr(body, name, _cut_text(getattr(body, name), name, marks))


def _cut_text(text: str, name: str, marks: dict[str, str]) -> str:
    """The beginning of *text*, with a mark if that is not the whole."""
    if len(text) > KEPT_CHARACTERS:
        _mark(marks, name, f"cut: {_digest(text.encode())}")
    return text[:KEPT_CHARACTERS]


def _mark(marks: dict[str, str], name: str, what: str) -> None:
    """Add *what* to what was done before to the value called *name*, such as its redaction."""
    marks[name] = f"{marks[name]}; {what}" if name in marks else what


def _shorten_id(entry_id: str) -> str:
    """*entry_id*; one that is longer than any id should be is told by its beginning and its digest."""
    if len(entry_id) <= LONGEST_ID:
        return entry_id
    return f"{entry_id[:KEPT_CHARACTERS]}… {_digest(entry_id.encode())}"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else encode(value).decode()


def _digest(data: bytes) -> str:
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"


def _groups(ids: list[str], room: int, room_of_part: int, size: Callable[[Any], int]) -> list[list[str]]:
    """*ids* in groups: the first of at most *room* bytes of JSON, the others of at most *room_of_part*."""
    groups: list[list[str]] = [[]]
    left = room
    for entry_id in ids:
        needed = size(entry_id) + 1
        if needed > left:
            groups.append([])
            left = room_of_part
        groups[-1].append(entry_id)
        left -= needed
    return groups
