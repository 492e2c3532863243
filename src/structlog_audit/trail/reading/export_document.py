"""Export documents as a stream of lines: ``{"events": […], "total_events": n, "exported_at": …}``, or a bare array.

**Guarantees.** Each item becomes a line with exactly its bytes, except for line breaks between its members. Whether an item
is an event is not checked here.

**Failure handling.** A document that ends early, or has a number of events other than its ``total_events``, is reported.

**Performance.** One item is in memory at a time, up to the length of the longest line.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from structlog_audit.trail.reading.line_blocks import MAX_LINE_BYTES, Readable
from structlog_audit.trail.reading.problems import ProblemCallback

DOCUMENT_START = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*[{\]]|\{\s*"(?:events|total_events|exported_at)"\s*:)')
"""Matches the beginning of a document, and of no line of a trail."""

_READ_BYTES = 65_536
_LINE_BREAKS = re.compile(r"[\r\n]\s*")
_SPACE = re.compile(r"[ \t\n\r\ufeff]*")

# After a value that ends here, the next bytes of the file may continue a number.
_MAY_CONTINUE_NUMBER = ("", ".", "e", "E")


class _DamagedError(Exception):
    """The rest of the document cannot be read."""


class _DocumentText:
    """The text of a document, decoded and held piece by piece."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._parse_value = json.JSONDecoder().raw_decode
        self._held = ""
        self._position = 0
        self._ended = False

    def _read_more(self) -> bool:
        """Hold as much again as is held; return whether the file had not ended."""
        if self._ended:
            return False

        self._held = self._held[self._position :]
        self._position = 0
        if len(self._held) > MAX_LINE_BYTES:
            raise _DamagedError(f"a value longer than {MAX_LINE_BYTES} bytes")

        data = self._file.read(max(_READ_BYTES, len(self._held)))
        self._ended = not data
        self._held += self._decode(data, self._ended)
        return True

    def peek(self) -> str:
        """Return the next character that is not white space."""
        while True:
            space = _SPACE.match(self._held, self._position)
            self._position = space.end()  # type: ignore[union-attr]  # the pattern matches the empty text
            if self._position < len(self._held):
                return self._held[self._position]
            if not self._read_more():
                raise _DamagedError("the document ends early")

    def has_ended(self) -> bool:
        """Return whether only white space is left."""
        try:
            self.peek()
        except _DamagedError:
            return True
        return False

    def take(self, *expected: str) -> str:
        """Return and consume the next character that is not white space, which must be one of *expected*."""
        character = self.peek()
        if character not in expected:
            raise _DamagedError(f"expected {' or '.join(map(repr, expected))}, got {character!r}")
        self._position += 1
        return character

    def value(self) -> tuple[Any, str]:
        """Return and consume the next JSON value, with its text."""
        self.peek()
        while True:
            try:
                value, end = self._parse_value(self._held, self._position)
            except json.JSONDecodeError as error:
                if not self._read_more():
                    raise _DamagedError(f"invalid JSON: {error.msg}") from None
                continue
            except RecursionError:
                raise _DamagedError("nested too deeply") from None

            may_continue = self._held[end : end + 1] in _MAY_CONTINUE_NUMBER
            if may_continue and self._read_more():
                continue
            text = self._held[self._position : end]
            self._position = end
            return value, text


def document_lines(file: Readable, report: ProblemCallback) -> Iterator[bytes]:
    """Yield the events of the document in *file*, each as a line."""
    text = _DocumentText(file)
    offset = 0
    count = 0
    total = None
    try:
        for member in _members(text):
            if isinstance(member, bytes):
                yield member
                offset += len(member)
                count += 1
            else:
                total = member

        if not text.has_ended():
            raise _DamagedError("expected the end of the document, got more text")
        if total is not None and total != count:
            raise _DamagedError(f"total_events is {total!r}, but there are {count} events")
    except _DamagedError as error:
        report("truncated", offset, str(error))


def _members(text: _DocumentText) -> Iterator[Any]:
    """Yield the events, each as a line, and the value of ``total_events``."""
    if text.peek() == "[":
        yield from _items(text)
        return

    text.take("{")
    while True:
        name, _ = text.value()
        text.take(":")
        if name == "events" and text.peek() == "[":
            yield from _items(text)
        else:
            value, _ = text.value()
            if name == "total_events":
                yield value
        if text.take(",", "}") == "}":
            return


def _items(text: _DocumentText) -> Iterator[bytes]:
    """Yield the items of an array, each as a line."""
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        return

    while True:
        _, item = text.value()
        line = _LINE_BREAKS.sub(" ", item)
        yield line.encode("utf-8", "surrogateescape") + b"\n"
        if text.take(",", "]") == "]":
            return
