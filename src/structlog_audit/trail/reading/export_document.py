"""Export documents, as a stream of lines: ``{"events": […], "total_events": n, "exported_at": …}``, or a bare array.

Rules:

* Each event becomes a line, byte by byte as it stands there but for line breaks between its members. Whether it is an
  event is not asked here.
* One event is in memory at a time, and none that is longer than a line may be.
* A document that breaks off, or that says another number of events than it has, is told to `Report`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from structlog_audit.trail.reading.line_blocks import MAX_LINE_BYTES, Readable
from structlog_audit.trail.reading.problems import Report

BEGINS = re.compile(rb'(?:\xef\xbb\xbf)?\s*(?:\[\s*[{\]]|\{\s*"(?:events|total_events|exported_at)"\s*:)')
"""How a document begins, and no line of a trail."""

_CHARACTERS = 65_536
_BREAKS = re.compile(r"[\r\n]\s*")
_GOING_ON = ("", ".", "e", "E")  # behind what may be the beginning of a number
_SPACE = re.compile(r"[ \t\n\r\ufeff]*")


class _Damaged(Exception):  # noqa: N818 (an answer more than an error)
    """The document can't be read on."""


class _Text:
    """The characters of a document, of which a stretch is held."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._value = json.JSONDecoder().raw_decode
        self._held = ""
        self._at = 0
        self._ended = False

    def _more(self) -> bool:
        """Hold more, as much again as is held; whether there was more."""
        if self._ended:
            return False
        self._held = self._held[self._at :]
        self._at = 0
        if len(self._held) > MAX_LINE_BYTES:
            raise _Damaged(f"a value longer than {MAX_LINE_BYTES} bytes")
        data = self._file.read(max(_CHARACTERS, len(self._held)))
        self._ended = not data
        self._held += self._decode(data, self._ended)
        return True

    def peek(self) -> str:
        """The next character that is no space."""
        while True:
            self._at = _SPACE.match(self._held, self._at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more():
                raise _Damaged("the document ends early")

    def has_ended(self) -> bool:
        """Whether nothing but space is left."""
        try:
            self.peek()
        except _Damaged:
            return True
        return False

    def take(self, *expected: str) -> str:
        """The next character that is no space, which must be one of those *expected*."""
        found = self.peek()
        if found not in expected:
            raise _Damaged(f"{found!r} stands where {' or '.join(map(repr, expected))} should")
        self._at += 1
        return found

    def value(self) -> tuple[Any, str]:
        """The next JSON value, and its text."""
        self.peek()
        while True:
            try:
                value, end = self._value(self._held, self._at)
            except json.JSONDecodeError as error:
                if not self._more():
                    raise _Damaged(f"no JSON: {error.msg}") from None
            except RecursionError:
                raise _Damaged("nested too deep") from None
            else:
                if self._held[end : end + 1] not in _GOING_ON or not self._more():
                    text = self._held[self._at : end]
                    self._at = end
                    return value, text


def document_lines(file: Readable, report: Report) -> Iterator[bytes]:
    """The events of the document in *file*, each as a line."""
    text = _Text(file)
    given = count = 0
    total = None
    try:
        for member in _arrays_of_events(text):
            if isinstance(member, bytes):
                yield member
                given += len(member)
                count += 1
            else:
                total = member
        if not text.has_ended():
            raise _Damaged("something stands behind its end")
        if total is not None and total != count:
            raise _Damaged(f"it says that it has {total!r} events, and has {count}")
    except _Damaged as error:
        report("truncated", given, str(error))


def _arrays_of_events(text: _Text) -> Iterator[Any]:
    """The events, each as a line, and what the document says of how many there are."""
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


def _items(text: _Text) -> Iterator[bytes]:
    """The items of an array, each as a line."""
    text.take("[")
    if text.peek() == "]":
        text.take("]")
        return
    while True:
        item = text.value()[1]
        yield _BREAKS.sub(" ", item).encode("utf-8", "surrogateescape") + b"\n"
        if text.take(",", "]") == "]":
            return
