"""Events from blocks of lines. Everything wrong with a line is reported (`problems`), and decoding continues.

**Guarantees.** Every line that does not begin and end as those of this library is decoded, whatever the query, except in blocks
outside the requested time range (`time_ranges`). Of the others, those that cannot match may be left out (`candidate_lines`).
An event with missing parts was never acknowledged, and is left out like a torn line; so is a line that repeats an earlier one
(`repeated_lines`).

**Performance.** A block is decoded at once. A canonical line, in the form in which this library writes it, decodes to an event
that encodes to the same bytes. Comparing a whole block at once proves that no object has a key twice, of which JSON decoders
silently take the last. Only blocks with other lines are decoded one line at a time.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from structlog_audit.events.codec import StoredEvent, decode, encode_text, escape, safe_json
from structlog_audit.events.event import EventStatus, Kind, OperationType, operation_of, utc
from structlog_audit.events.event_lists import EventList
from structlog_audit.exceptions import AuditDecodeError
from structlog_audit.query.filters import Conditions, ListFilter
from structlog_audit.trail.reading.candidate_lines import CandidateSearch
from structlog_audit.trail.reading.foreign_lines import adapt, has_only_members
from structlog_audit.trail.reading.line_blocks import LineBlock, is_part, promised_parts
from structlog_audit.trail.reading.problems import ProblemCallback
from structlog_audit.trail.reading.repeated_lines import IdRange, RepeatedLines, ascending_range
from structlog_audit.trail.reading.torn_lines import CANONICAL_START, is_torn

_BOM = b"\xef\xbb\xbf"

_MOST_OPERATIONS = 1_000
"""The number of names that are known not to be one of the six in another case, beside these."""

_SIX = frozenset(member.value for member in OperationType)

_KnownKind: Any = Literal[tuple(kind.value for kind in Kind)] | None
_KindOfWhole: Any = Literal[tuple(kind.value for kind in Kind if kind is not Kind.PART)] | None


class Line(StoredEvent, gc=False, omit_defaults=True):
    """A decoded event, which encodes to the same line if that was canonical."""

    # With a factory, the default is not omitted in encoding: canonical lines always have a status.
    status: EventStatus = msgspec.field(default_factory=lambda: EventStatus.SUCCESS)
    # A line of another kind takes the slow path, where the kind becomes metadata.
    kind: _KnownKind = None
    chain: str | None = None

    @staticmethod
    def lines(events: Iterable[Line]) -> bytes:
        """Return *events* as lines of an export, one each; canonical lines without parts are the same bytes."""
        return LineList(events).lines()


class _WholeLine(Line, gc=False, omit_defaults=True):
    """A line that is neither a part of an event nor continued in parts there: of another one, decoding raises an error."""

    kind: _KindOfWhole = None
    part_of: None = None


class LineList(EventList[Line]):
    """Events, and the lines that they encode to, if these are there already."""

    __slots__ = ("_data",)

    def __init__(self, events: Iterable[Line], data: bytes | None = None) -> None:
        super().__init__(events)
        self._data = data

    def lines(self) -> bytes:
        """Return the events as lines of an export, one each."""
        # msgspec omits a fraction of zero.
        if not all(map(_fraction, self)):
            return StoredEvent.lines(self)
        return safe_json(_encoder.encode_lines(self) if self._data is None else self._data)


_decode = msgspec.json.Decoder(Line).decode
_decode_whole_lines: Callable[[bytes], list[Any]] = msgspec.json.Decoder(_WholeLine).decode_lines
_decode_any = msgspec.json.Decoder().decode
_encoder = msgspec.json.Encoder()
_fraction = operator.attrgetter("timestamp.microsecond")


class Batch:
    """The events of a block, in order.

    Args:
        block: The block.
        events: Its events.
        first_lines: The number of each event's first line.
        ids: The least and the greatest id if the lines are canonical, an event each, and their ids ascend.
        is_ordinary: Whether all events are known to be application events.
        is_verbatim: Whether the lines are an event each, which encodes to the same bytes.
    """

    def __init__(
        self,
        block: LineBlock,
        events: list[Line],
        first_lines: Sequence[int],
        *,
        ids: IdRange | None = None,
        is_ordinary: bool = False,
        is_verbatim: bool = False,
    ) -> None:
        self.block = block
        self.events = events
        self.first_lines = first_lines
        self.ids = ids
        self.is_ordinary = is_ordinary
        self.is_verbatim = is_verbatim

    @functools.cached_property
    def lines(self) -> list[bytes]:
        """The lines of the block, without their LFs."""
        return self.block.lines()

    def firsts(self) -> list[tuple[str, bytes]]:
        """Return the id and the first line of each event."""
        lines = self.lines
        return [(event.event_id, lines[number]) for event, number in zip(self.events, self.first_lines, strict=True)]

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
        stored = self._lines_of(number)
        encoded_id = encode_text(event.event_id).encode()
        if stored.startswith(b"%b%b," % (CANONICAL_START, encoded_id)) and (self.is_verbatim or _is_in(event, stored)):
            return stored
        return escape(_encoder.encode(event)) + b"\n"

    def _lines_of(self, number: int) -> bytes:
        """Return the lines of an event with their LFs, as they are in the block."""
        first = self.first_lines[number]
        if self.is_verbatim:
            return self.lines[first] + b"\n"

        is_last = number + 1 == len(self.events)
        end = len(self.lines) if is_last else self.first_lines[number + 1]
        part_of = self.events[number].event_id.encode()
        candidates = self.lines[first + 1 : end]
        parts = [line for line in candidates if is_part(line) and part_of in line]
        return b"\n".join([self.lines[first], *parts, b""])

    def without(self, numbers: set[int]) -> Batch:
        """Return the batch without the events with these *numbers*."""
        if not numbers:
            return self

        kept = [number for number in range(len(self.events)) if number not in numbers]
        events = [self.events[number] for number in kept]
        first_lines = [self.first_lines[number] for number in kept]
        return Batch(self.block, events, first_lines, is_ordinary=self.is_ordinary)


def _is_in(event: StoredEvent, stored: bytes) -> bool:
    """Return whether the lines *stored* decode to *event*. They may not, for example because of unknown members."""
    try:
        decoded = decode(stored)
    except AuditDecodeError:
        return False
    return decoded.timestamp.tzinfo is dt.UTC and _members_of(decoded) == _members_of(event)


def _members_of(event: StoredEvent) -> list[Any]:
    """Return the members of *event*; a link of a chain is none of them."""
    return [getattr(event, name) for name in StoredEvent.__struct_fields__]


class LineDecoder:
    """Decodes the blocks of one trail, which come in either direction.

    Args:
        before: The first lines of events before the first block, by id: a repetition of one of them is recognized.
    """

    def __init__(self, before: Mapping[str, bytes] = MappingProxyType({})) -> None:
        self._remembered = RepeatedLines(before)

        # Names of operations that reading does not change: the six, and others that were met.
        self._operations = set(_SIX)

    def decode_block(self, block: LineBlock, report: ProblemCallback, search: CandidateSearch | None = None) -> Batch:
        """Return the events in *block*; with a *search*, at least all that it may find."""
        candidates = None if search is None else search.candidates(block.data)
        left_out = 0
        if candidates is not None:
            block = block.select(candidates.spans)
            left_out = candidates.line_count - len(candidates.spans)

        batch = self._decode_canonical(block) or _decode_one_by_one(block, report)
        return self._without_repeated(batch, left_out, report)

    def _decode_canonical(self, block: LineBlock) -> Batch | None:
        """Return the events of a block of canonical lines without parts; None for any other block."""
        try:
            events: list[Line] = _decode_whole_lines(block.data)
            is_canonical = _encoder.encode_lines(events) == block.data
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None
        if not is_canonical:
            return None

        # One pass selects the few events that need a second look, and those whose id does not follow the one before.
        last_id = ""
        operations = self._operations
        unusual = [
            event
            for event in events
            if not last_id < (last_id := event.event_id)
            or event.kind is not None
            or event.operation not in operations
            or event.timestamp.tzinfo is not dt.UTC
        ]
        if not unusual:
            ids = ascending_range(events)
            return Batch(block, events, range(len(events)), ids=ids, is_ordinary=True, is_verbatim=True)

        # Another writer's line may differ in the case of its operation alone.
        if not all(self._is_canonical_name(event.operation) for event in unusual):
            return None
        is_verbatim = all(event.timestamp.tzinfo is dt.UTC for event in unusual)
        for event in unusual:
            event.timestamp = utc(event.timestamp)
        return _batch_of(block, events, is_verbatim=is_verbatim)

    def _is_canonical_name(self, operation: str) -> bool:
        """Return whether *operation* is not one of the six in another case."""
        if operation_of(operation) != operation:
            return False

        if len(self._operations) > _MOST_OPERATIONS:
            self._operations = set(_SIX)
        self._operations.add(operation)
        return True

    def _without_repeated(self, batch: Batch, left_out: int, report: ProblemCallback) -> Batch:
        """Return *batch* without the lines that repeat earlier ones, and remember its lines."""
        remembered = self._remembered
        count = len(batch.events) + left_out
        if batch.ids is not None and not remembered.may_include(batch.ids):
            remembered.add_block(batch.block, batch.ids, count)
            return batch

        firsts = batch.firsts()
        line_by_id = dict(firsts)

        # Comparing ids comes first because it is cheap and nearly always suffices.
        has_same_id = len(line_by_id) < len(firsts) or remembered.include_any_of(line_by_id.keys())
        if has_same_id:
            repeated = remembered.numbers_among(firsts)
            offsets = batch.offsets()
            for number in sorted(repeated):
                report("repeated", offsets[number], f"{batch.events[number].event_id} again")
            batch = batch.without(repeated)

        remembered.add_lines(line_by_id, count)
        return batch


class Matcher:
    """Selects the events that match *conditions*, a batch at a time."""

    def __init__(self, conditions: Conditions) -> None:
        self._select = ListFilter(conditions)

        # Application events have no kind: they need not be asked for it.
        others = tuple((name, values) for name, values in conditions.names if name != "kind" or values != {None})
        self._select_ordinary = ListFilter(msgspec.structs.replace(conditions, names=others))

    def __call__(self, batch: Batch) -> LineList:
        """Return the matching events of *batch*."""
        select = self._select_ordinary if batch.is_ordinary else self._select
        events = select(batch.events)
        is_whole = batch.is_verbatim and len(events) == len(batch.events)
        return LineList(events, batch.block.data if is_whole else None)


def _batch_of(block: LineBlock, events: list[Line], *, is_verbatim: bool) -> Batch:
    """Return the batch of a block of lines, each of which is one of *events*."""
    is_ordinary = all(event.kind is None for event in events)
    ids = [event.event_id for event in events]
    is_ascending = all(map(operator.lt, ids, ids[1:]))
    id_range = ascending_range(events) if is_ascending else None
    return Batch(block, events, range(len(events)), ids=id_range, is_ordinary=is_ordinary, is_verbatim=is_verbatim)


def _decode_one_by_one(block: LineBlock, report: ProblemCallback) -> Batch:
    """Return the events in *block*, some lines of which are not canonical, or parts of an event."""
    lines = block.lines()
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
            event.timestamp = utc(event.timestamp)
            events.append(event)
            first_lines.append(number)
            part_counts.append(0)
        elif events and events[-1].event_id == event.part_of:
            events[-1].entry_ids += event.entry_ids
            part_counts[-1] += 1
        else:
            report("orphan_part", offset, f"a part of {event.part_of}, which does not precede it")

    batch = Batch(block, events, first_lines)
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
