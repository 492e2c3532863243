"""Events from blocks of lines. Everything wrong with a line is reported (`problems`), and decoding continues.

**Guarantees.** Every line that does not begin and end as those of this library is decoded, whatever the query, except in blocks
outside the requested time range (`time_ranges`). Of the others, those that cannot match may be left out (`candidate_lines`).
An event with missing parts was never acknowledged, and is left out like a torn line. A line that is repeated byte by byte
within `REMEMBERED` events is the same event, written again after an fsync that failed.

**Performance.** A canonical line, in the form in which this library writes it, decodes to an event that encodes to the same
bytes. Comparing a whole block at once proves that no object has a key twice, of which JSON decoders silently take the last.
Only blocks with other lines are decoded one line at a time.
"""

from __future__ import annotations

import datetime as dt
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import msgspec

from structlog_audit.events.codec import StoredEvent, decode, encode_text, escape, safe_json
from structlog_audit.events.event import EventStatus, Kind, operation_of, utc
from structlog_audit.exceptions import AuditDecodeError
from structlog_audit.query.filters import Conditions
from structlog_audit.trail.reading.candidate_lines import CandidateSearch
from structlog_audit.trail.reading.foreign_lines import adapt, has_only_members
from structlog_audit.trail.reading.line_blocks import LineBlock, is_part, promised_parts
from structlog_audit.trail.reading.problems import ProblemCallback
from structlog_audit.trail.reading.torn_lines import CANONICAL_START, is_torn

REMEMBERED = 2_000
"""The least number of preceding events among which a repeated line is recognized."""

_BOM = b"\xef\xbb\xbf"
_PROMISE = b"continued in "

_KnownKind: Any = Literal[tuple(kind.value for kind in Kind)] | None


class Line(StoredEvent, gc=False, omit_defaults=True):
    """A decoded event, which encodes to the same line if that was canonical."""

    # With a factory, the default is not omitted in encoding: canonical lines always have a status.
    status: EventStatus = msgspec.field(default_factory=lambda: EventStatus.SUCCESS)
    # A line of another kind takes the slow path, where the kind becomes metadata.
    kind: _KnownKind = None
    chain: str | None = None

    @staticmethod
    def lines(events: Sequence[Line]) -> bytes:
        """Return *events* as lines of an export, one each; canonical lines without parts are the same bytes."""
        # msgspec omits a fraction of zero.
        if all(map(_fraction, events)):
            return safe_json(_encoder.encode_lines(events))
        return StoredEvent.lines(events)


_decode = msgspec.json.Decoder(Line).decode
_decode_any = msgspec.json.Decoder().decode
_encoder = msgspec.json.Encoder()
_event_id = attrgetter("event_id")
_operation = attrgetter("operation")
_fraction = attrgetter("timestamp.microsecond")


class Batch(NamedTuple):
    """The events of a block, in order."""

    block: LineBlock
    lines: list[bytes]
    """The lines of the block, without their LFs."""
    events: list[Line]
    first_lines: Sequence[int]
    """The number of each event's first line."""

    def offsets(self) -> list[int]:
        """Return the offset of each event, followed by the end of the block."""
        line_offsets = self.block.offsets(self.lines)
        offsets = [line_offsets[number] for number in self.first_lines]
        offsets.append(self.block.stop)
        return offsets

    def stored_lines(self, number: int) -> bytes:
        """Return the lines of an event with their LFs, from which `structlog_audit.events.codec.decode` makes it again.

        They begin with the id, as canonical lines do: `structlog_audit.buffer.event_buffer` relies on that.
        """
        event = self.events[number]
        first = self.first_lines[number]
        is_last = number + 1 == len(self.events)
        end = len(self.lines) if is_last else self.first_lines[number + 1]

        part_of = event.event_id.encode()
        candidates = self.lines[first + 1 : end]
        parts = [line for line in candidates if is_part(line) and part_of in line]
        stored = b"\n".join([self.lines[first], *parts, b""])

        encoded_id = encode_text(event.event_id).encode()
        if stored.startswith(b"%b%b," % (CANONICAL_START, encoded_id)):
            try:
                is_same = _members_of(decode(stored)) == _members_of(event)
            except AuditDecodeError:
                is_same = False

            # Otherwise the event differs from its line, for example because of unknown members.
            if is_same:
                return stored
        return escape(_encoder.encode(event)) + b"\n"

    def without(self, numbers: set[int]) -> Batch:
        """Return the batch without the events with these *numbers*."""
        if not numbers:
            return self

        kept = [number for number in range(len(self.events)) if number not in numbers]
        events = [self.events[number] for number in kept]
        first_lines = [self.first_lines[number] for number in kept]
        return self._replace(events=events, first_lines=first_lines)


def _members_of(event: StoredEvent) -> list[Any]:
    """Return the members of *event*; a link of a chain is none of them."""
    return [getattr(event, name) for name in StoredEvent.__struct_fields__]


class LineDecoder:
    """Decodes the blocks of one trail, which come in either direction.

    Args:
        before: The first lines of events before the first block, by id: a repetition of one of them is recognized.
    """

    def __init__(self, before: Mapping[str, bytes] = MappingProxyType({})) -> None:
        # First lines by id: of the last events, and of at least `REMEMBERED` events before them.
        self._recent: dict[str, bytes] = {}
        self._earlier = dict(before)
        self._recent_count = 0

    def decode_block(self, block: LineBlock, report: ProblemCallback, search: CandidateSearch | None = None) -> Batch:
        """Return the events in *block*; with a *search*, at least all that it may find."""
        candidates = None if search is None else search.candidates(block.data)
        if candidates is None:
            return self._decode(block, report)

        self._recent_count += candidates.line_count - len(candidates.spans)
        return self._decode(block.select(candidates.spans), report)

    def _decode(self, block: LineBlock, report: ProblemCallback) -> Batch:
        lines = block.lines()
        batch = _decode_canonical(block, lines)
        if batch is None:
            batch = _decode_one_by_one(block, lines, report)
        return self._without_repeated(batch, report)

    def _without_repeated(self, batch: Batch, report: ProblemCallback) -> Batch:
        is_each_line_first = len(batch.first_lines) == len(batch.lines)
        first_lines = batch.lines if is_each_line_first else [batch.lines[number] for number in batch.first_lines]
        line_by_id = dict(zip(map(_event_id, batch.events), first_lines, strict=True))

        # Comparing ids comes first because it is cheap and nearly always suffices.
        has_same_id = len(line_by_id) < len(batch.events)
        for known in (self._recent, self._earlier):
            if not known.keys().isdisjoint(line_by_id):
                has_same_id = True
        if has_same_id:
            repeated = self._repeated(batch, report)
            batch = batch.without(repeated)

        self._recent.update(line_by_id)
        self._recent_count += len(line_by_id)
        if self._recent_count >= REMEMBERED:
            self._earlier = self._recent
            self._recent = {}
            self._recent_count = 0
        return batch

    def _repeated(self, batch: Batch, report: ProblemCallback) -> set[int]:
        """Return the numbers of the events in *batch* with the same line as an earlier event, byte by byte."""
        seen = self._earlier | self._recent
        offsets = batch.offsets()
        repeated = set()

        for number, event in enumerate(batch.events):
            event_id = event.event_id
            first_line = batch.first_lines[number]
            line = batch.lines[first_line]

            if seen.get(event_id) == line:
                repeated.add(number)
                report("repeated", offsets[number], f"{event_id} again")
            seen[event_id] = line

        return repeated


class Matcher:
    """Selects the events that match *conditions*, a batch at a time: one condition after the other."""

    def __init__(self, conditions: Conditions) -> None:
        self._names = conditions.names
        rest = msgspec.structs.replace(conditions, names=())
        self._rest = None if rest == Conditions(()) else rest

    def __call__(self, events: list[Line]) -> list[Line]:
        """Return the matching ones of *events*."""
        for name, values in self._names:
            if name == "kind" and values == {None}:
                events = [event for event in events if event.kind is None]
            else:
                events = [event for event in events if getattr(event, name) in values]

        if self._rest is not None:
            matches = self._rest.matches
            events = [event for event in events if matches(event)]

        for event in events:
            if event.timestamp.tzinfo is not dt.UTC:
                event.timestamp = utc(event.timestamp)
        return events


def _decode_canonical(block: LineBlock, lines: list[bytes]) -> Batch | None:
    """Return the events of a block of canonical lines without parts; None for any other block."""
    if _PROMISE in block.data:
        return None
    try:
        events = [_decode(line) for line in lines]
        encoded = _encoder.encode_lines(events)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if encoded != block.data:
        return None

    # Another writer's line may differ in the case of its operation alone.
    for name in set(map(_operation, events)):
        if operation_of(name) != name:
            return None
    return Batch(block, lines, events, range(len(lines)))


def _decode_one_by_one(block: LineBlock, lines: list[bytes], report: ProblemCallback) -> Batch:
    """Return the events in *lines*, some of which are not canonical, or parts of an event."""
    events: list[Line] = []
    first_lines: list[int] = []
    part_counts: list[int] = []

    offsets = block.offsets(lines)
    for number, line in enumerate(lines):
        offset = offsets[number]
        if not line.strip():
            continue
        event = _decode_line(line, offset, report)
        if event is None:
            continue

        if event.part_of is None and event.kind != Kind.PART:
            events.append(event)
            first_lines.append(number)
            part_counts.append(0)
        elif events and events[-1].event_id == event.part_of:
            events[-1].entry_ids += event.entry_ids
            part_counts[-1] += 1
        else:
            report("orphan_part", offset, f"a part of {event.part_of}, which does not precede it")

    batch = Batch(block, lines, events, first_lines)
    return batch.without(_incomplete(batch, part_counts, report))


def _incomplete(batch: Batch, part_counts: list[int], report: ProblemCallback) -> set[int]:
    """Return the numbers of the events in *batch* that lack parts."""
    incomplete = set()
    for number, part_count in enumerate(part_counts):
        if _is_incomplete(batch, number, part_count):
            incomplete.add(number)
            offset = batch.offsets()[number]
            event_id = batch.events[number].event_id
            report("missing_part", offset, f"{event_id} lacks some of its parts")
    return incomplete


def _is_incomplete(batch: Batch, number: int, part_count: int) -> bool:
    """Return whether an event with *part_count* parts lacks others.

    An event without any part is incomplete only if a torn one follows: in an export, an event is one line.
    """
    first = batch.first_lines[number]
    if promised_parts(batch.lines[first]) <= part_count:
        return False
    if part_count:
        return True

    event_id = batch.events[number].event_id.encode()
    next_lines = batch.lines[first + 1 : first + 2]
    return any(is_part(line) and event_id in line for line in next_lines)


def _decode_line(line: bytes, offset: int, report: ProblemCallback) -> Line | None:
    """Return the event in *line*; None, after reporting the cause, if it is not an event."""
    if line.startswith(_BOM):
        report("bom", offset, "a byte order mark")
        line = line[len(_BOM) :]

    event, reason = None, ""
    try:
        decoded = _decode(line)
        is_canonical = _encoder.encode(decoded) == line
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        reason = str(error)
    else:
        event = decoded
        event.operation = operation_of(event.operation).value
        if is_canonical:
            return event

    try:
        members = _decode_without_duplicates(line)
    except UnicodeDecodeError as error:
        replaced = line.decode(errors="replace").encode()
        event = _decode_line(replaced, offset, report)
        if event is not None:
            report("invalid_utf8", offset, str(error))
        return event
    except _DuplicateKeyError as error:
        report("duplicate_key", offset, str(error))
        return None
    except (ValueError, RecursionError) as error:
        report("torn" if is_torn(line) else "foreign", offset, reason or str(error))
        return None

    if event is not None and has_only_members(members):
        is_default = "status" not in members and event.error_message is not None
        event.status = EventStatus.FAILURE if is_default else event.status
        return event
    return _adapted(members, reason, offset, report)


def _adapted(members: Any, reason: str, offset: int, report: ProblemCallback) -> Line | None:
    """Return the event in a line of another form with these *members*; None if it is not an event."""
    adaptation = adapt(members)
    if adaptation is None:
        report("foreign", offset, reason or "not an event")
        return None

    event, changes = adaptation
    if changes:
        report("drift", offset, f"{changes} ({reason})" if reason else changes)
    return Line(**event)


class _DuplicateKeyError(ValueError):
    """An object has the same key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members

    counts = Counter(name for name, _ in pairs)
    duplicate, _ = counts.most_common(1)[0]
    raise _DuplicateKeyError(f"duplicate key {duplicate!r}")


def _integer(digits: str) -> int | str:
    """Return the integer, or the text itself if Python refuses to convert as many *digits*."""
    try:
        return int(digits)
    except ValueError:
        return digits


_decode_strictly = json.JSONDecoder(object_pairs_hook=_object).decode
_decode_long_integers = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer).decode


def _decode_without_duplicates(line: bytes) -> Any:
    """Return the JSON value in *line*, in which no object has the same key twice.

    Raises:
        _DuplicateKeyError: One has.
        UnicodeDecodeError: The line is not UTF-8.
        ValueError, RecursionError: The line is not JSON.
    """
    try:
        value = _decode_any(line)
        if _encoder.encode(value) == line:
            return value
    except (msgspec.MsgspecError, ValueError, RecursionError):
        pass

    text = line.decode()
    try:
        return _decode_strictly(text)
    except ValueError:
        return _decode_long_integers(text)
