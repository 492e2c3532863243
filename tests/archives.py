"""Archives for tests: trails with three segments and more, their compaction, and what both hold."""

from __future__ import annotations

import hashlib
from pathlib import Path

import trail_files
from trail_files import line_of, write_trail

from structlog_audit.archive import compact
from structlog_audit.events.event import Kind
from structlog_audit.query.filters import conditions

EVERYTHING = conditions(kind=[None, *Kind])


def write_closed(folder, *datas, second=100, last=90_000):
    """Write a trail whose closed segments have the bytes *datas*; return the path of its active segment.

    Their names are those of *second* and the seconds after it. Compaction leaves two more: that of *last*, and the active one.
    """
    segments = [(second + number, data) for number, data in enumerate(datas)]
    return write_trail(
        folder, *segments, (max(last, 90_000, second + len(datas)), line_of(last)), active=line_of(last + 1)
    )


def compacted(path, archive, **options):
    """Compact the trail at *path*, with a host that does not depend on the machine."""
    return compact(path, archive, **{"host": "h1", **options})


def all_ids(source, *, newest_first=False):
    """Return the ids of all events of *source* in their order."""
    return [event.event_id for event in source.select(EVERYTHING, newest_first=newest_first)]


def digests(folder: Path):
    """Return the SHA-256 of each segment in *folder* by its name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def line_with(number, text):
    """Return the line of an event with *text* in its metadata, unsafe characters escaped as the library does."""
    line = trail_files.line_of(number, metadata={"text": text}).decode()
    return line.encode("utf-8", "surrogatepass")
