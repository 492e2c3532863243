"""Events from the files of a trail."""

from __future__ import annotations

import base64
import datetime as dt
import glob
import gzip
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple, Unpack

from structlog_audit.codec import HEAD_BYTES, StoredEvent, decode
from structlog_audit.event import AuditEvent
from structlog_audit.exceptions import AuditDecodeError, AuditValueError
from structlog_audit.query import Conditions, Filters, conditions, microseconds, spelled_out, whole_number
from structlog_audit.segments import rolled
from structlog_audit.source import EventSource

_PART = b'"part_of":'


def stored_lines(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The lines of the segment at *path*, each with its LF and followed by the lines of its parts. O(1) memory.

    Empty lines, and a last line without LF, which may be half written, are left out.
    """
    event = b""
    with open(path, "rb") as begun:
        packed = begun.read(2) == b"\x1f\x8b"
    with gzip.open(path) if packed else open(path, "rb") as file:
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


@dataclass(frozen=True, slots=True)
class Page:
    """Some events, and where to go on; None as the cursor means that there are no more for now."""

    events: list[AuditEvent]
    cursor: str | None


class Problem(NamedTuple):
    """An example of what was found wrong: in which file, at which byte, and why."""

    code: str
    path: str
    offset: int
    reason: str


class TrailReader(EventSource):
    """Answers questions from the files of a trail."""

    def __init__(
        self, paths: Sequence[str | os.PathLike[str] | BinaryIO], progress: Callable[[int], None] | None = None
    ) -> None:
        self._paths = paths
        self._progress = progress
        self._found: Counter[str] = Counter()
        self.examples: list[Problem] = []

    @property
    def problems(self) -> Mapping[str, int]:
        """What was found wrong in what was read so far, counted by its code."""
        return dict(self._found)

    @property
    def complete_since(self) -> dt.datetime | None:
        """From when on the answers are complete, in UTC; None means since the beginning."""
        return None

    def size(self) -> int:
        """How many bytes there are to read."""
        return sum(path.stat().st_size for path in self._segments())

    @spelled_out
    def page(
        self, cursor: str | None = None, *, limit: int = 100, newest_first: bool = False, **filters: Unpack[Filters]
    ) -> Page:
        """The next *limit* events after *cursor*."""
        whole_number("limit", limit, least=1)
        skip = 0 if cursor is None else int(base64.urlsafe_b64decode(cursor))
        found = self._select(conditions(**filters), newest_first=newest_first)
        events = [stored.event() for stored in islice(found, skip, skip + limit + 1)]
        more = len(events) > limit
        return Page(events[:limit], base64.urlsafe_b64encode(str(skip + limit).encode()).decode() if more else None)

    @spelled_out
    def follow(
        self,
        *,
        since_now: bool = True,
        stop: Callable[[], bool],
        wait: Callable[[float], None],
        **filters: Unpack[Filters],
    ) -> Iterator[AuditEvent]:
        """The events that come, each once, until *stop* says so; *wait* is given seconds to wait."""
        asked = conditions(**filters)
        seen = sum(1 for _ in self._select(asked, newest_first=False)) if since_now else 0
        while True:
            ending = stop()
            for stored in islice(self._select(asked, newest_first=False), seen, None):
                seen += 1
                yield stored.event()
            if ending:
                return
            wait(0.25)

    def _segments(self) -> list[Path]:
        segments: list[Path] = []
        for path in self._paths:
            assert isinstance(path, (str, os.PathLike))  # noqa: S101 (streams are still to come)
            names = sorted(glob.glob(os.fspath(path))) or [os.fspath(path)]
            for name in map(Path, names):
                folder = name.parent
                found = [folder / segment for segment in rolled(name.name, os.listdir(folder))]
                found += [name] if name.exists() else []
                if not found:
                    raise AuditValueError(f"path={os.fspath(name)!r}: there is no such trail")
                segments += [segment for segment in found if segment not in segments]
        return segments

    def _select(self, asked: Conditions, *, newest_first: bool) -> Iterator[StoredEvent]:
        found: list[StoredEvent] = []
        for path in self._segments():
            for lines in stored_lines(path):
                try:
                    stored = decode(lines)
                except AuditDecodeError as error:
                    self._found["foreign"] += 1
                    self.examples.append(Problem("foreign", str(path), 0, str(error)))
                else:
                    if asked.matches(stored):
                        found.append(stored)
        return iter(found[::-1] if newest_first else found)


def open_trail(*paths: str | os.PathLike[str] | BinaryIO, progress: Callable[[int], None] | None = None) -> TrailReader:
    """The reader of the trails at *paths*."""
    return TrailReader(paths, progress)
