"""`CandidateSearch`: finds the lines of a block that may match the conditions of a query, without decoding the others.

**Guarantees**

* A line that matches is always found. Lines that do not match may be found too: the caller decodes and matches them.
* Only a block whose lines all begin and end as those of this library is searched, and only if no event in it continues in
  parts. Every other block is to be decoded as a whole, so every other line is checked and counted.

**How.** JSON writes a text without escapes in one way only, with its quotes: a line without a backslash in which ``"ann"`` does
not occur has no member, key or item ``ann``. So the search needs neither the names nor the order of members, and whitespace and
repeated keys do not mislead it. A line with a backslash is always found. Values that reading itself makes, such as a status
from a word, are exempt (`_is_made_by_reading`).

**Performance.** A constant number of passes over a block, none in Python per line.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from structlog_audit.events.conversion import UNNAMED
from structlog_audit.events.event import EventStatus, OperationType
from structlog_audit.query.filters import Conditions, OfClass

MAX_NEEDLES = 20
"""The limit of values of one condition that are searched one by one."""

MOST_CANDIDATES = 0.25
"""The share of lines above which decoding the whole block is faster."""

SKIPPED_BLOCKS = 31
"""The number of blocks that are decoded without a search after one with too many candidates: the next ones are alike."""

_START = b'{"event_id":"evt_'
_BETWEEN_LINES = b"}\n" + _START
_END = b"}\n"
_BACKSLASH = ord("\\")
_CONTINUES = (b"continued in ", b'"part_of"')

_NAMES = ("event_id", "user_id", "session_id", "kind")
"""The members whose value, if it is text, stands in the line as it is."""

_SIX = frozenset(member.value for member in OperationType)
_STATUSES = frozenset(EventStatus.__members__)

_NEEDS_ESCAPE = re.compile(r'["\\\x00-\x1f]')
_INTEGER = re.compile(r"-?[0-9]+", re.ASCII)
_MADE_TEXT = re.compile(r"|NaN|-?Infinity|-?0x.*|dict|list|.*\ufffd.*", re.DOTALL)


class Candidates(NamedTuple):
    """The lines of a block that may match.

    Attributes:
        spans: Where each begins and ends in the block, LF included, in order.
        line_count: The number of all lines of the block.
    """

    spans: list[tuple[int, int]]
    line_count: int


Accepts = tuple[str, Callable[[str | None], bool]]
"""A member of a line, and a function that returns whether a matching event may have a value of it."""


class _Members(msgspec.Struct, gc=False):
    """The members of a line whose text may be written in other ways; None if absent."""

    operation: str | None = None
    status: str | None = None


_decode_members = msgspec.json.Decoder(_Members).decode_lines


class CandidateSearch:
    """The search for one query.

    Args:
        needles: For each condition that can be searched, the byte sequences of which a matching line without a backslash
            contains at least one.
        accepts: For each condition on a member in `_Members`, the member and a function of its value.
    """

    def __init__(self, needles: list[tuple[bytes, ...]], accepts: list[Accepts]) -> None:
        # The longest texts are the rarest.
        self._needles = sorted(needles, key=lambda alternatives: -min(map(len, alternatives), default=0))
        self._accepts = accepts
        self._blocks_to_skip = 0

    @classmethod
    def of(cls, conditions: Conditions) -> CandidateSearch | None:
        """Return the search for *conditions*; None if they say nothing that can be searched."""
        needles = list(_needles_of(conditions))
        accepts = [] if needles else list(_accepts_of(conditions))
        return cls(needles, accepts) if needles or accepts else None

    def candidates(self, data: bytes) -> Candidates | None:
        """Return the lines of the block *data* that may match; None if it must be decoded as a whole."""
        if self._blocks_to_skip:
            self._blocks_to_skip -= 1
            return None

        line_count = _count_lines(data)
        if line_count is None:
            return None

        has_backslash = _BACKSLASH in data
        for alternatives in self._needles:
            if not has_backslash and not any(_occurs(needle, data) for needle in alternatives):
                return Candidates([], line_count)
        if any(_occurs(mark, data) for mark in _CONTINUES):
            return None

        most = int(line_count * MOST_CANDIDATES) + 1
        spans = self._found_by_needles(data, most) if self._needles else self._found_by_members(data)
        if spans is None or len(spans) > most:
            self._blocks_to_skip = SKIPPED_BLOCKS
            return None
        return Candidates(spans, line_count)

    def _found_by_needles(self, data: bytes, most: int) -> list[tuple[int, int]] | None:
        first, *others = self._needles
        spans = set()
        for needle in (*first, b"\\"):
            for span in _lines_with(needle, data):
                spans.add(span)
                if len(spans) > most:
                    return None

        kept = []
        for start, stop in sorted(spans):
            line = data[start:stop]
            if _BACKSLASH in line or all(any(needle in line for needle in alternatives) for alternatives in others):
                kept.append((start, stop))
        return kept

    def _found_by_members(self, data: bytes) -> list[tuple[int, int]] | None:
        try:
            lines = _decode_members(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None

        numbers = range(len(lines))
        for member, accept in self._accepts:
            numbers = [number for number in numbers if accept(getattr(lines[number], member))]  # type: ignore[assignment]
        return _spans_of(set(numbers), data) if numbers else []


def _count_lines(data: bytes) -> int | None:
    """Return the number of lines in *data*; None unless all begin and end as those of this library."""
    if not data.startswith(_START) or not data.endswith(_END):
        return None

    # Without the boundaries between such lines, the only LF that remains is the last.
    joined = data.replace(_BETWEEN_LINES, b"")
    if joined.find(b"\n") != len(joined) - 1:
        return None
    return 1 + (len(data) - len(joined)) // len(_BETWEEN_LINES)


def _occurs(needle: bytes, data: bytes) -> bool:
    """Return whether *needle* is in *data*: from the end, which CPython searches in half the time."""
    return data.rfind(needle) >= 0


def _lines_with(needle: bytes, data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each line with *needle* begins and ends."""
    position = data.find(needle)
    while position >= 0:
        start = data.rfind(b"\n", 0, position) + 1
        stop = data.find(b"\n", position) + 1
        yield start, stop
        position = data.find(needle, stop)


def _spans_of(numbers: set[int], data: bytes) -> list[tuple[int, int]]:
    """Return where the lines with these *numbers* begin and end."""
    spans = []
    start = 0
    for number, line in enumerate(data.split(b"\n")):
        stop = start + len(line) + 1
        if number in numbers:
            spans.append((start, stop))
        start = stop
    return spans


def _needles_of(conditions: Conditions) -> Iterator[tuple[bytes, ...]]:
    """Yield the alternatives of each condition that can be searched."""
    for name, values in conditions.names:
        is_searched = name in _NAMES or (name == "operation" and not values & (_SIX | {UNNAMED}))
        if is_searched and None not in values:
            yield from _alternatives(values)

    if conditions.entry_ids is not None:
        yield from _alternatives(conditions.entry_ids)
    if conditions.metadata is not None:
        for text in _texts_in(conditions.metadata):
            yield from _alternatives([text])


def _alternatives(values: Iterable[str | None]) -> Iterator[tuple[bytes, ...]]:
    """Yield the needles for a condition with these *values*, or nothing if one of them cannot be searched."""
    needles = []
    for value in values:
        if value is None or _MADE_TEXT.fullmatch(value):
            return
        needle = _needle(value)
        if needle is not None:
            needles.append(needle)
    if len(needles) <= MAX_NEEDLES:
        yield tuple(needles)


def _needle(text: str) -> bytes | None:
    """Return how JSON writes *text* without escapes; None if it needs escapes, so that its lines have a backslash."""
    if _NEEDS_ESCAPE.search(text):
        return None

    # An identifier that is a number becomes text.
    if _INTEGER.fullmatch(text):
        return text.encode()
    try:
        return f'"{text}"'.encode()
    except UnicodeEncodeError:
        return None


def _texts_in(value: Any, *, is_key: bool = False) -> Iterator[str]:
    """Yield the texts and keys that a value must have to contain *value*."""
    if isinstance(value, str):
        # A key whose name is taken gets an underscore, and reading adds marks.
        if not (is_key and (value.endswith("_") or value == "_audit")):
            yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key != "_audit":
                yield from _texts_in(key, is_key=True)
                yield from _texts_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts_in(item)


def _accepts_of(conditions: Conditions) -> Iterator[Accepts]:
    """Yield the members in `_Members` that *conditions* restrict, each with a function that accepts its values."""
    for name, values in conditions.names:
        if name in _ACCEPTS:
            yield name, functools.partial(_ACCEPTS[name], values)

    if conditions.operation_class is not None:
        yield "operation", functools.partial(_accepts_class, conditions.operation_class)


def _accepts_operation(wanted: frozenset[str | None], value: str | None) -> bool:
    """Return whether an operation may be one of those *wanted*: reading names a missing one, and capitalizes the six."""
    return value is None or value in wanted or value.upper() in _SIX


def _accepts_class(wanted: OfClass, value: str | None) -> bool:
    """Return whether an operation may be of a class *wanted*: reading names a missing one, and capitalizes the six."""
    return value is None or value.upper() in _SIX or wanted.matches((value,))


def _accepts_status(wanted: frozenset[str | None], value: str | None) -> bool:
    """Return whether a status may be one of those *wanted*: reading understands further words."""
    return value in wanted or value not in _STATUSES


_ACCEPTS = {"operation": _accepts_operation, "status": _accepts_status}
