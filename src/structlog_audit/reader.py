"""Events from the files of a trail."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from structlog_audit.codec import HEAD_BYTES, decode
from structlog_audit.exceptions import AuditDecodeError
from structlog_audit.query import microseconds

_PART = b'"part_of":'


def stored_lines(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The lines of the segment at *path*, each with its LF and followed by the lines of its parts. O(1) memory.

    Empty lines, and a last line without LF, which may be half written, are left out.
    """
    event = b""
    with open(path, "rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            if line == b"\n":
                continue
            if line.startswith(_PART, HEAD_BYTES):
                event += line
                continue
            if event:
                yield event
            event = line
    if event:
        yield event


def newest_events(segments: Sequence[Path], count: int) -> tuple[list[tuple[bytes, int]], int | None, int]:
    """The newest *count* events in *segments*, which are in order, as lines and moments, the oldest first.

    Also the latest moment, in microseconds since 1970, of an event that was left out in the segments that were read, or
    None if none was; and the number of lines that are no events.
    """
    newest: deque[tuple[bytes, int]] = deque()
    left_out: int | None = None
    unreadable = 0
    for segment in reversed(segments):
        events: deque[tuple[bytes, int]] = deque()
        for line in stored_lines(segment):
            try:
                events.append((line, microseconds(decode(line).timestamp)))
            except AuditDecodeError:
                unreadable += 1
            if len(events) + len(newest) > count:
                moment = events.popleft()[1]
                left_out = moment if left_out is None else max(left_out, moment)
        newest.extendleft(reversed(events))
        if left_out is not None:
            break
    return list(newest), left_out, unreadable
