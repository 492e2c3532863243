"""Exclusion of segments by time without reading them, and of blocks without decoding them.

**Segments.** The events of a segment lie between the rollover before it and its own, as far as the clock can be trusted.
Events are sampled, too: the first, the last, and `SAMPLES` in between; of compressed data only the first. The time range of a
segment covers all these timestamps; that of the active segment has no end. A segment is skipped only if its range is more than
`SLACK` away from the requested one. This tolerates late writers and small clock steps; a larger step back is noticed unless
the clock was set forward again before the next sample. Omit the time filter to scan everything.

**Blocks.** A block is skipped only if every line is canonical and its timestamp lies outside the requested range. This does
not depend on any clock and costs about a fifth of decoding.

Segments and blocks without a readable timestamp are never skipped.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from typing import Annotated

import msgspec

from structlog_audit.events.event import rfc3339
from structlog_audit.query.filters import Conditions
from structlog_audit.trail.reading.line_blocks import LineBlock, Seekable, read_at

SLACK = dt.timedelta(minutes=10)
"""The clock error that is tolerated."""

SAMPLES = 16
"""The number of parts that samples divide a segment into."""

# A whole event is searched in this many bytes at each sample; at the end in more, since the last event may have many parts.
_SAMPLE_BYTES = 16_384
_LAST_SAMPLE_BYTES = 65_536

TimeRange = tuple[dt.datetime, dt.datetime]

NO_END = dt.datetime.max.replace(tzinfo=dt.UTC)
"""The end of the time range of an active segment."""


class _TimedLine(msgspec.Struct, gc=False):
    """The only member of a line that is decoded here."""

    timestamp: Annotated[dt.datetime, msgspec.Meta(tz=True)]


_decode = msgspec.json.Decoder(_TimedLine).decode

_match_canonical_start = re.compile(
    rb'\{"event_id":"[^"\\]{1,100}","timestamp":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)",'
).match


def is_range_outside(time_range: TimeRange, conditions: Conditions) -> bool:
    """Return whether a segment with this time range cannot hold an event that *conditions* admit."""
    first, last = time_range
    start = conditions.start_time
    end = conditions.end_time
    ends_before = start is not None and start - last > SLACK
    begins_after = end is not None and first - end > SLACK
    return ends_before or begins_after


def is_block_outside(block: LineBlock, conditions: Conditions) -> bool:
    """Return whether no line of *block* can belong to an event that *conditions* admit.

    O(1) if *conditions* have no time range.
    """
    start = conditions.start_time
    end = conditions.end_time
    if start is None and end is None:
        return False

    # Canonical timestamps have a fixed width and compare as text; "~" sorts after all of them.
    earliest = b"" if start is None else rfc3339(start).encode()
    latest = b"~" if end is None else rfc3339(end).encode()

    for line in block.lines():
        canonical = _match_canonical_start(line)
        if canonical is None or earliest <= canonical[1] <= latest:
            return False
    return True


def time_range_of(timestamps: Iterable[dt.datetime], *rollovers: dt.datetime | None) -> TimeRange:
    """Return the time range of a segment.

    Args:
        timestamps: Those of some events in it, at least one.
        rollovers: The rollover before it and its own; None if unknown.
    """
    known = [rollover for rollover in rollovers if rollover is not None]
    known += timestamps
    return min(known), max(known)


def sample_timestamps(file: Seekable, size: int) -> list[dt.datetime]:
    """Return timestamps of events in *file*, including the first and the last; an empty list if one of these is unreadable."""
    head = read_at(file, 0, min(size, _SAMPLE_BYTES))
    first = first_timestamps(head)
    tail = read_at(file, max(0, size - _LAST_SAMPLE_BYTES), size)
    last = _first_timestamp(reversed(_whole_lines(tail)))
    if not first or last is None:
        return []

    between = []
    for number in range(1, SAMPLES):
        offset = size * number // SAMPLES
        data = read_at(file, offset, min(size, offset + _SAMPLE_BYTES))
        lines = _whole_lines(data)
        # The first line may have begun before the offset.
        timestamp = _first_timestamp(lines[1:])
        if timestamp is not None:
            between.append(timestamp)
    return [*first, *between, last]


def first_timestamps(head: bytes) -> list[dt.datetime]:
    """Return the timestamp of the first event in *head*, the beginning of decompressed data, as a list of at most one."""
    timestamp = _first_timestamp(_whole_lines(head))
    return [] if timestamp is None else [timestamp]


def _whole_lines(data: bytes) -> list[bytes]:
    return data.split(b"\n")[:-1]


def _first_timestamp(lines: Iterable[bytes]) -> dt.datetime | None:
    """Return the first readable timestamp in *lines*."""
    for line in lines:
        try:
            return _decode(line).timestamp
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
    return None
