"""Truncation of events that do not fit into a line.

Log shippers drop or split long lines, some of them together with the rest of the file.

**Guarantees**

* Entry ids are never lost: those beyond the limit follow in payloads of kind ``part``.
* ``metadata.intent_id`` is never truncated: it links an outcome to its intent.
* All other values are truncated in descending order of size. A mark lists the size in bytes and the SHA-256 of each, which
  proves that an original kept elsewhere is the same. The beginning of a text remains.
* Metadata with too many members to truncate one by one is left out as a whole and marked in the same way.
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
"""The characters that remain of a truncated text: at most six bytes each, if all need escapes."""

LONGEST_ID = 400
"""The characters of the longest entry id that is kept whole: at six bytes each it fits into a part of the smallest limit."""

_IDS_RESERVE = 100
"""Bytes in the first line for the member ``entry_ids`` and the mark that names its parts."""

_PART_RESERVE = 700
"""Bytes of a part for all but its ids: the beginning of the operation and the kind."""


encode = msgspec.json.Encoder().encode

_TEXTS = ("operation", "user_id", "session_id", "error_message")


def truncate(payload: Payload, limit: int, marks_key: str, escape: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """Encode *payload* in pieces of at most *limit* bytes: the event, then its parts.

    Args:
        payload: The members of the event.
        limit: The limit of each piece in bytes.
        marks_key: The metadata member for the marks of truncated values.
        escape: Escapes encoded JSON, which increases its size.
    """

    def size(value: Any) -> int:
        return len(escape(encode(value)))

    marks = dict(payload.metadata.get(marks_key, {}))
    metadata = {**payload.metadata, marks_key: marks}
    first = msgspec.structs.replace(payload, entry_ids=[], metadata=metadata)

    ids = [_shorten_id(entry_id) for entry_id in payload.entry_ids]
    reserve = _IDS_RESERVE if ids else 0
    if size(first) > limit - reserve:
        _truncate_values(first, limit - reserve, marks, marks_key, size)

    groups = _group_ids(ids, limit - size(first) - _IDS_RESERVE, limit - _PART_RESERVE, size)
    _mark_entry_ids(marks, payload.entry_ids, ids, parts=len(groups) - 1)

    first.entry_ids = groups[0]
    yield encode(first)

    operation = first.operation[:KEPT_CHARACTERS]
    for group in groups[1:]:
        yield encode(TrailPayload(operation, entry_ids=group, kind=Kind.PART.value))


def _truncate_values(
    payload: Payload, limit: int, marks: dict[str, str], marks_key: str, size: Callable[[Any], int]
) -> None:
    """Truncate values of *payload*, the largest first, to at most *limit* bytes."""
    for name, in_metadata in _names_by_size(payload, marks_key, size)[:MAX_MARKS]:
        if size(payload) <= limit:
            return
        if in_metadata:
            _truncate_metadata_member(payload.metadata, name, marks)
        else:
            _truncate_text_member(payload, name, marks)

    # The metadata has too many members, or names that are too long.
    if size(payload) > limit:
        _drop_metadata(payload, marks, marks_key)
        for name in _TEXTS:
            if getattr(payload, name) is not None:
                _truncate_text_member(payload, name, marks)


def _names_by_size(payload: Payload, marks_key: str, size: Callable[[Any], int]) -> list[tuple[str, bool]]:
    """Return the names of texts and metadata members, the largest first.

    Each has a flag that is True for metadata.
    """
    sizes: list[tuple[int, str, bool]] = []
    for name in _TEXTS:
        text = getattr(payload, name)
        if text is not None:
            sizes.append((-size(text), name, False))

    for name, value in payload.metadata.items():
        if name != marks_key:
            sizes.append((-size(value), name, True))

    return [(name, in_metadata) for _, name, in_metadata in sorted(sizes)]


def _truncate_text_member(payload: Payload, name: str, marks: dict[str, str]) -> None:
    text = _truncate_text(getattr(payload, name), name, marks)
    setattr(payload, name, text)


def _truncate_metadata_member(metadata: dict[str, Any], name: str, marks: dict[str, str]) -> None:
    value = metadata[name]
    text = value if isinstance(value, str) else encode(value).decode()

    # A short value keeps its type.
    if len(text) > KEPT_CHARACTERS:
        metadata[name] = _truncate_text(text, name[:KEPT_CHARACTERS], marks)


def _drop_metadata(payload: Payload, marks: dict[str, str], marks_key: str) -> None:
    """Remove the metadata of *payload* except its intent id, and mark that."""
    metadata = {name: value for name, value in payload.metadata.items() if name != marks_key}
    description = _digest(encode(metadata))

    kept: dict[str, Any] = {}
    intent_id = metadata.get(INTENT_ID)
    if isinstance(intent_id, str) and len(intent_id) <= KEPT_CHARACTERS:
        kept[INTENT_ID] = intent_id

    # The marks of metadata members go with these.
    remaining_marks = {name: marks[name] for name in (*_TEXTS, "entry_ids") if name in marks}
    marks.clear()
    marks.update(remaining_marks)
    marks["metadata"] = f"left out: {len(metadata) - len(kept)} members, {description}"

    payload.metadata = {**kept, marks_key: marks}


def _truncate_text(text: str, name: str, marks: dict[str, str]) -> str:
    """Return the beginning of *text*, and mark the truncation if there is one."""
    if len(text) > KEPT_CHARACTERS:
        _add_mark(marks, name, f"cut: {_digest(text.encode())}")
    return text[:KEPT_CHARACTERS]


def _mark_entry_ids(marks: dict[str, str], original: list[str], ids: list[str], *, parts: int) -> None:
    """Mark how many of the *original* ids are shortened, and how many parts follow."""
    shortened = sum(before != after for before, after in zip(original, ids, strict=True))

    notes = []
    if shortened:
        notes.append(f"cut: {shortened} ids")
    if parts:
        notes.append(f"continued in {parts} parts")

    if notes:
        _add_mark(marks, "entry_ids", "; ".join(notes))


def _add_mark(marks: dict[str, str], name: str, change: str) -> None:
    """Append *change* to earlier changes of the value *name*, such as its redaction."""
    marks[name] = f"{marks[name]}; {change}" if name in marks else change


def _shorten_id(entry_id: str) -> str:
    """Return *entry_id*; of one that is too long, its beginning and its digest."""
    if len(entry_id) <= LONGEST_ID:
        return entry_id

    beginning = entry_id[:KEPT_CHARACTERS]
    return f"{beginning}… {_digest(entry_id.encode())}"


def _digest(data: bytes) -> str:
    return f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"


def _group_ids(ids: list[str], first_limit: int, part_limit: int, size: Callable[[Any], int]) -> list[list[str]]:
    """Divide *ids* into groups of limited size in bytes of JSON.

    The first has at most *first_limit*, others at most *part_limit*.
    """
    groups: list[list[str]] = [[]]
    left = first_limit

    for entry_id in ids:
        # The comma counts.
        needed = size(entry_id) + 1
        if needed > left:
            groups.append([])
            left = part_limit

        groups[-1].append(entry_id)
        left -= needed

    return groups
