"""What the completion of a shell offers: conditions with their values, columns, formats and the names of shippers.

Operations come from the end of the newest segment of the trails on the line: one regular file, of which few bytes are read.
A name that a shell or a terminal would interpret is not offered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

import typer

from structlog_audit.exceptions import AuditError

_TAIL_BYTES = 262_144
"""The bytes that are read for the names of operations."""

_SIGNS = ("=", "!=", "~")
"""The operators that no shell interprets."""

_OPERATION = re.compile(rb'"operation":"([\w.:/@+-]{1,100})"')


def complete_words(context: typer.Context, incomplete: str) -> list[str]:
    """Return the conditions that *incomplete* may become, and nothing for a path, which the shell completes."""
    from structlog_audit.cli.conditions import FIELDS

    words = [str(word) for word in context.params.get("words") or ()]

    # bash splits at the sign: user_id=ann is three words. typer takes the sign for an empty word.
    *_, before_last, last = ("", "", *words)
    if last == "=":
        return _values(before_last, words)
    if not incomplete and last.removesuffix("!") in FIELDS:
        return _values(last, words)

    field, sign, _ = incomplete.partition("=")
    if sign:
        return [f"{field}={value}" for value in _values(field, words)]
    # An empty word may become a trail, which the shell completes, until one is named.
    if not incomplete and not words:
        return []

    names = [name for name in (*FIELDS, "metadata.") if name.startswith(incomplete)]
    if len(names) == 1 and names[0] in FIELDS:
        # The shell adds a space after the only offer, and a value is to follow.
        return [f"{names[0]}{sign}" for sign in FIELDS[names[0]] if sign in _SIGNS]
    return [f"{name}=" if name in FIELDS else name for name in names]


def complete_columns(incomplete: str) -> list[str]:
    """Return the lists of columns that *incomplete* may become: its last name is completed."""
    from structlog_audit.formats.spreadsheet import COLUMNS, METADATA

    given, comma, _ = incomplete.rpartition(",")
    chosen = given.split(",")
    return [f"{given}{comma}{name}" for name in (*COLUMNS, METADATA) if name not in chosen]


def complete_shippers() -> list[str]:
    """Return the names of the shippers."""
    from structlog_audit.shippers import SHIPPERS

    return list(SHIPPERS)


def complete_formats() -> list[str]:
    """Return the names of the formats of an export."""
    from structlog_audit.export import FORMATS

    return list(FORMATS)


def _values(field: str, words: Iterable[str]) -> list[str]:
    """Return the values of *field*, if it has few: operations as well as those at the end of the trails among *words*."""
    from structlog_audit.events.event import EventStatus, Kind
    from structlog_audit.query.filters import CLASSES

    # That of status!=FAILURE comes with the first half of its sign.
    field = field.removesuffix("!")
    if field == "operation":
        return _operations(words)
    if field == "operation_class":
        return list(CLASSES)
    names = {"status": EventStatus, "kind": Kind}.get(field, ())
    return [name.value for name in names]


def _operations(words: Iterable[str]) -> list[str]:
    """Return the operations at the ends of the trails among *words*, or in the settings, and the six of the memory SDK."""
    from structlog_audit.cli.settings import load_settings
    from structlog_audit.events.event import OperationType

    trails = [word for word in words if os.path.isfile(word)]
    if not trails:
        # Invalid settings are an error of commands.
        with suppress(AuditError, OSError):
            trails = list(load_settings().trails)

    found = {operation.value for operation in OperationType}
    for word in trails:
        ends = (_OPERATION.findall(_end_of(path)) for path in _newest_first(word))
        newest: list[bytes] = next(filter(None, ends), [])
        found.update(name.decode() for name in newest)
    return sorted(found)


def _newest_first(trail: str) -> Iterator[str]:
    """Yield the path of the active segment, and that of the newest rolled one."""
    from structlog_audit.trail.segment_names import rolled_segments

    yield trail
    folder, base = os.path.split(trail)
    try:
        rolled = rolled_segments(base, os.listdir(folder or "."))
    except OSError:
        return
    if rolled:
        yield os.path.join(folder, rolled[-1])


def _end_of(path: str) -> bytes:
    """Return the last bytes of a regular file; nothing of any other, or of one that cannot be read."""
    try:
        if not os.path.isfile(path):
            return b""
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES)
    except OSError:
        return b""
