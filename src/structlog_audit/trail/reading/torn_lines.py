"""Recognition of torn lines: lines that end before their event does, because the writer died or the disk was full.

A line is judged by its structure alone. Three places meet torn lines: the end of a segment, where the LF is missing
(`may_be_unfinished`); the middle of a segment, where another writer's LF cut the line short (`is_torn`); and
`structlog_audit.trail.reading.problems`, which describes the codes.
"""

from __future__ import annotations

import json
import re

CANONICAL_START = b'{"event_id":'
"""The first bytes of every line that this library writes."""

_parse_value = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\r]*")
_OBJECT_START = re.compile(rb'\{\s*(?:"|$)')

# A string without its end matches up to the end of the line. The quantifiers are possessive, so matching is O(n).
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+(?P<end>"?)|(?P<open>[{\[])|(?P<close>[}\]])', re.DOTALL)


def is_torn(line: bytes) -> bool:
    """Return whether *line*, which is not valid JSON, is the beginning of an event.

    That is so if it starts as a line of this library, or as a JSON object that is never closed. Whole objects that no LF
    separates were not cut off.
    """
    if _is_concatenated(line):
        return False
    if line.startswith(CANONICAL_START):
        return True
    return _OBJECT_START.match(line) is not None and _is_unclosed(line)


def _is_unclosed(line: bytes) -> bool:
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(line):
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
        elif not token["end"]:
            return True
    return depth > 0


def may_be_unfinished(line: bytes) -> bool:
    """Return whether *line*, which has no LF, may be a line of this library that is being written."""
    beginning = line[: len(CANONICAL_START)]
    return CANONICAL_START.startswith(beginning) and _is_unclosed(line)


def _is_concatenated(line: bytes) -> bool:
    """Return whether *line* is several whole JSON objects, without an LF between them."""
    try:
        text = line.decode()
        end = 0
        while end < len(text):
            value, end = _parse_value(text, end)
            if not isinstance(value, dict):
                return False
            end = _SPACE.match(text, end).end()  # type: ignore[union-attr]  # the pattern matches the empty text
    except (ValueError, RecursionError):
        return False
    return True
