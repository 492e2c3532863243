"""Recognition of torn lines: lines that end before their event does, because the writer died or the disk was full.

A line is judged by its structure alone. Three places meet torn lines: the end of a segment, where the LF is missing
(`code_of_unfinished_end`); the middle of a segment, where another writer's LF cut the line short (`is_torn`); and
`structlog_audit.trail.reading.problems`, which describes the codes.
"""

from __future__ import annotations

import re

CANONICAL_START = b'{"event_id":'
"""The first bytes of every line that this library writes."""

_OBJECT_START = re.compile(rb'\{\s*(?:"|$)')

# A string without its end matches up to the end of the line. The quantifiers are possessive, so matching is O(n).
_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+(?P<end>"?)|(?P<open>[{\[])|(?P<close>[}\]])', re.DOTALL)


def is_torn(line: bytes) -> bool:
    """Return whether *line*, which is not valid JSON, is the beginning of an event.

    That is so if it starts as a line of this library, or as a JSON object that is never closed.
    """
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


def code_of_unfinished_end(*, is_open: bool) -> str:
    """Return the code for bytes after the last whole event of a segment.

    While the segment *is open* to writers the bytes may still become an event; afterwards they are a torn line.
    """
    return "unfinished" if is_open else "torn"
