"""From blocks of lines to events, with everything counted that is wrong with them.

Rules:

* Each line of a block is decoded, whatever is asked for, so that no filter but a time (`spans`) hides damage.
* A line in the very form in which this library writes it decodes to an event that encodes to that line again. That is
  compared for a block at once, and proves that no key in it is there twice (JSON decoders silently take the last). Only
  other lines are looked at one by one.
* What is wrong is told (`problems` has the codes), and reading goes on.
* An event whose parts are not all there was never acknowledged; like a torn line it is left out.
* A line that comes again shortly after, byte by byte the same, is the same event: an fsync that failed had it written
  again. "Shortly" means within `REMEMBERED` events.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import ChainMap, deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

from structlog_audit.events.codec import MARKS, StoredEvent, decode, encode_text, escape
from structlog_audit.events.conversion import convert
from structlog_audit.events.event import EventStatus, Kind, operation_of, status_of, utc
from structlog_audit.events.payload import Payload
from structlog_audit.exceptions import AuditDecodeError
from structlog_audit.query.filters import Conditions
from structlog_audit.trail.reading.line_blocks import Block, is_part, promised_parts
from structlog_audit.trail.reading.problems import Report

REMEMBERED = 2_000
"""Events back to which the same line again is noticed, at least."""

_BOM = b"\xef\xbb\xbf"
_HEAD = b'{"event_id":'
_PROMISE = b"continued in "


class Line(StoredEvent, gc=False, omit_defaults=True):
    """An event as it was read, which encodes to the line that it was decoded from if that is in our form."""

    # by a factory, for then it is never omitted: lines of ours always say it
    status: EventStatus = msgspec.field(default_factory=lambda: EventStatus.SUCCESS)


_decode = msgspec.json.Decoder(Line).decode
_decode_any = msgspec.json.Decoder().decode
_encoder = msgspec.json.Encoder()


class Batch(NamedTuple):
    """The events of a block, in order."""

    block: Block
    lines: list[bytes]
    """The lines of the block, without their LFs."""
    events: list[Line]
    first_lines: Sequence[int]
    """By event: the number of its first line."""

    def offsets(self) -> list[int]:
        """By event: where it begins; and at last where the block ends."""
        begins = list(accumulate((len(line) + 1 for line in self.lines), initial=self.block.start))
        return [*(begins[number] for number in self.first_lines), self.block.stop]

    def stored(self, number: int) -> bytes:
        """The lines of an event with their LFs, from which `structlog_audit.events.codec.decode` makes it again.

        They begin as lines of ours do, with the id: `structlog_audit.buffer.event_buffer` looks for it there.
        """
        event, first = self.events[number], self.first_lines[number]
        until = self.first_lines[number + 1] if number + 1 < len(self.events) else len(self.lines)
        part_of = event.event_id.encode()
        parts = [line for line in self.lines[first + 1 : until] if is_part(line) and part_of in line]
        stored = b"".join([line + b"\n" for line in (self.lines[first], *parts)])
        if stored.startswith(b"%b%b," % (_HEAD, encode_text(event.event_id).encode())):
            try:
                decode(stored)
            except AuditDecodeError:  # it was mended
                pass
            else:
                return stored
        return escape(_encoder.encode(event)) + b"\n"

    def without(self, left_out: set[int]) -> Batch:
        """The same but for the events with the numbers *left_out*."""
        if not left_out:
            return self
        kept = [number for number in range(len(self.events)) if number not in left_out]
        return self._replace(
            events=[self.events[number] for number in kept], first_lines=[self.first_lines[number] for number in kept]
        )


class LineDecoder:
    """Decodes the blocks of one pass, in order or against it."""

    def __init__(self) -> None:
        self._recent: deque[dict[str, bytes]] = deque()  # first lines by event id
        self._remembered = 0

    def batch(self, block: Block, report: Report) -> Batch:
        """The events in *block*."""
        lines = block.lines()
        try:
            events = [_decode(line) for line in lines]
            is_ours = _encoder.encode_lines(events) == block.data and _PROMISE not in block.data
        except (msgspec.MsgspecError, ValueError, RecursionError):
            is_ours = False
        batch = Batch(block, lines, events, range(len(lines))) if is_ours else _one_by_one(block, lines, report)
        first_lines = lines if is_ours else [lines[number] for number in batch.first_lines]
        known = dict(zip([event.event_id for event in batch.events], first_lines, strict=True))
        if len(known) < len(batch.events) or not all(known.keys().isdisjoint(recent) for recent in self._recent):
            batch = batch.without(self._repeated(batch, report))
        self._recent.append(known)
        self._remembered += len(known)
        while self._remembered - len(self._recent[0]) >= REMEMBERED:
            self._remembered -= len(self._recent.popleft())
        return batch

    def _repeated(self, batch: Batch, report: Report) -> set[int]:
        """The numbers of the events in *batch* that are the same as earlier ones, byte by byte."""
        seen = dict(ChainMap(*self._recent))
        repeated = set()
        for number, (event, offset) in enumerate(zip(batch.events, batch.offsets(), strict=False)):
            line = batch.lines[batch.first_lines[number]]
            if seen.get(event.event_id) == line:
                repeated.add(number)
                report("repeated", offset, f"{event.event_id} again")
            seen[event.event_id] = line
        return repeated


class Matcher:
    """Picks the events that match what was *asked*, a batch at a time: one condition after the other."""

    def __init__(self, asked: Conditions) -> None:
        self._names = asked.names
        rest = msgspec.structs.replace(asked, names=())
        self._rest = None if rest == Conditions(()) else rest

    def __call__(self, events: list[Line]) -> list[Line]:
        """Those of *events* that match."""
        for name, wanted in self._names:
            if name == "kind" and wanted == {None}:
                events = [event for event in events if event.kind is None]
            else:
                events = [event for event in events if getattr(event, name) in wanted]
        if self._rest is not None:
            matches = self._rest.matches
            events = [event for event in events if matches(event)]
        for event in events:
            if event.timestamp.tzinfo is not dt.UTC:
                event.timestamp = utc(event.timestamp)
        return events


def _one_by_one(block: Block, lines: list[bytes], report: Report) -> Batch:
    """The events in *lines*, some of which are not in our form."""
    events: list[Line] = []
    first_lines: list[int] = []
    parts: list[int] = []  # of each event
    offset = block.start
    for number, line in enumerate(lines):
        here, offset = offset, offset + len(line) + 1
        event = _event(line, here, report) if line.strip() else None
        if event is None:
            continue
        if event.part_of is None and event.kind != Kind.PART:
            events.append(event)
            first_lines.append(number)
            parts.append(0)
        elif events and events[-1].event_id == event.part_of:
            events[-1].entry_ids += event.entry_ids
            parts[-1] += 1
        else:
            report("orphan_part", here, f"a part of {event.part_of}, which is not before it")
    batch = Batch(block, lines, events, first_lines)
    incomplete = {number for number, count in enumerate(parts) if _is_incomplete(batch, number, count)}
    for number in incomplete:
        report("missing_part", batch.offsets()[number], f"{events[number].event_id} has not all of its parts")
    return batch.without(incomplete)


def _is_incomplete(batch: Batch, number: int, parts: int) -> bool:
    """Whether an event that has so many *parts* should have more: some are there, or a torn one."""
    line = batch.first_lines[number]
    if promised_parts(batch.lines[line]) <= parts:
        return False
    event_id = batch.events[number].event_id.encode()
    return parts > 0 or any(is_part(after) and event_id in after for after in batch.lines[line + 1 : line + 2])


def _event(line: bytes, offset: int, report: Report) -> Line | None:
    """The event in *line*, or None after saying why there is none."""
    if line.startswith(_BOM):
        report("bom", offset, "a byte order mark")
        line = line[len(_BOM) :]
    try:
        event = _decode(line)
        if _encoder.encode(event) != line:
            _check_keys(line)
            event.operation = operation_of(event.operation).value
    except UnicodeDecodeError as error:
        report("invalid_utf8", offset, str(error))
        return _event(line.decode(errors="replace").encode(), offset, report)
    except _TwiceError as error:
        report("duplicate_key", offset, str(error))
    except msgspec.ValidationError as error:
        return _drifted(line, str(error), offset, report)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        is_torn = line.startswith(_HEAD) or (line.startswith(b"{") and "truncated" in str(error))
        report("torn" if is_torn else "foreign", offset, str(error))
    else:
        return event
    return None


class _TwiceError(ValueError):
    """An object has the same key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(f"the key {next(name for name in names if names.count(name) > 1)!r} is there twice")
    return found


_decode_slowly = json.JSONDecoder(object_pairs_hook=_object).decode
_check_slowly = json.JSONDecoder(object_pairs_hook=_object, parse_int=str, parse_float=str).decode


def _check_keys(line: bytes) -> None:
    """Raise a `_TwiceError` if an object in *line* has the same key twice, or a UnicodeDecodeError if it is no UTF-8."""
    try:
        if _encoder.encode(_decode_any(line)) == line:
            return
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass
    _check_slowly(line.decode())


def _drifted(line: bytes, why: str, offset: int, report: Report) -> Line | None:
    """The event in *line*, which has members of wrong types, with these set aside as in recording; or None if it is none."""
    try:
        members = _decode_slowly(line.decode())
    except _TwiceError as error:
        report("duplicate_key", offset, str(error))
        return None
    except (ValueError, RecursionError) as error:
        report("foreign", offset, str(error))
        return None
    if not isinstance(members, dict) or not {"event_id", "timestamp"} <= members.keys():
        report("foreign", offset, why)
        return None
    kind, part_of, event_id = members.get("kind"), members.get("part_of"), members["event_id"]
    timestamp = _moment(members["timestamp"])
    body = convert({name: members[name] for name in Payload.__struct_fields__ if name in members})
    if (
        timestamp is None
        or any(not isinstance(text, str | None) for text in (kind, part_of))
        or type(event_id) is not str
    ):
        report("drift", offset, f"left out: {why}")
        return None
    if MARKS in body.metadata or timestamp.tzinfo is None:
        report("drift", offset, why)
    converted = {**msgspec.structs.asdict(body), "status": status_of(str(body.status))}
    return Line(event_id, utc(timestamp), **converted, kind=kind, part_of=part_of)


def _moment(value: Any) -> dt.datetime | None:
    """The time that *value* says. Without an offset it is local time, as everywhere."""
    try:
        return dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
