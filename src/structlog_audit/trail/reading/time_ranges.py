"""Which segments can hold events of a time, without reading them; and which of their blocks, without decoding them.

Rules:

* A segment's events lie between the rollover before it and its own, as far as the clock tells; and so do some of them that are
  looked at: the first, the last, and `SAMPLES` in between (of packed data only the first). The span of a segment takes in all
  of these moments, whatever disagrees. That of the active segment has no end.
* A segment is left out only if its whole span is more than `SLACK` away from what is asked for. That covers writers that were
  late and clocks that were set by less. A clock that was set back further shows in the moments looked at, unless it was set
  forward again before the next of them. Who must be sure asks without times.
* A block is left out if each of its lines is in our form and says a time that is not asked for. That trusts no clock, and
  takes a fifth of decoding them.
* What does not tell its time is never left out.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable
from typing import Annotated

import msgspec

from structlog_audit.events.event import rfc3339
from structlog_audit.query.filters import Conditions
from structlog_audit.trail.reading.line_blocks import Block, Seekable, read_at

SLACK = dt.timedelta(minutes=10)
"""How far the clock may be off."""

SAMPLES = 16
"""Places in a segment where the time of an event is looked at."""

_LOOK = 16_384  # bytes in which a whole event is looked for, at each place
_LOOK_BACK = 65_536  # the same at the end, where it may have many parts

Span = tuple[dt.datetime, dt.datetime]

FOR_EVER = dt.datetime.max.replace(tzinfo=dt.UTC)


class _Timed(msgspec.Struct, gc=False):
    """What is read of a line."""

    timestamp: Annotated[dt.datetime, msgspec.Meta(tz=True)]


_decode = msgspec.json.Decoder(_Timed).decode


def is_outside(span: Span | None, asked: Conditions) -> bool:
    """Whether no event of a segment with this *span* can be one of those *asked* for."""
    if span is None:
        return False
    start, end = asked.start_time, asked.end_time
    return (start is not None and start - span[1] > SLACK) or (end is not None and span[0] - end > SLACK)


_time = re.compile(rb'\{"event_id":"[^"\\]{1,100}","timestamp":"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z)",').match


def has_none(block: Block, asked: Conditions) -> bool:
    """Whether none of the lines of *block* can be of one of the events *asked* for. O(1) unless these have a time."""
    start, end = asked.start_time, asked.end_time
    if start is None and end is None:
        return False
    first, last = "" if start is None else rfc3339(start), "~" if end is None else rfc3339(end)
    earliest, latest = first.encode(), last.encode()
    for line in block.lines():
        found = _time(line)
        if found is None or earliest <= found[1] <= latest:
            return False
    return True


def span_of(events: Iterable[dt.datetime], *rollovers: dt.datetime | None) -> Span:
    """The span of a segment with these moments of *events* and of *rollovers* before and after it, as far as they are known."""
    known = [*events, *(moment for moment in rollovers if moment is not None)]
    return min(known), max(known)


def sampled(file: Seekable, size: int) -> list[dt.datetime]:
    """The moments of some events in *file*, the first and the last among them; none if these can't be found out."""
    first = first_moments(read_at(file, 0, min(size, _LOOK)))
    last = _moment(reversed(_whole_lines(read_at(file, max(0, size - _LOOK_BACK), size))))
    if not first or last is None:
        return []
    places = (size * number // SAMPLES for number in range(1, SAMPLES))
    between = [_moment(_whole_lines(read_at(file, place, min(size, place + _LOOK)))[1:]) for place in places]
    return [*first, *(moment for moment in between if moment is not None), last]


def first_moments(head: bytes) -> list[dt.datetime]:
    """The moment of the first event in *head*, the beginning of unpacked data; none if it can't be found out."""
    moment = _moment(_whole_lines(head))
    return [] if moment is None else [moment]


def _whole_lines(data: bytes) -> list[bytes]:
    return data.split(b"\n")[:-1]


def _moment(lines: Iterable[bytes]) -> dt.datetime | None:
    """The moment of the first of *lines* that tells one."""
    for line in lines:
        try:
            return _decode(line).timestamp
        except (msgspec.MsgspecError, ValueError, RecursionError):
            continue
    return None
