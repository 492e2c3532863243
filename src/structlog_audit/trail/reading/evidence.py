"""The evidence about completeness in the lines of a trail: sequence numbers, and the trail events.

**Guarantees.** Only lines with an id of this library are evidence; trail events only by their ``kind``, which no application
can set. Numbers of a writer must ascend from 0 without a gap. A line that is repeated byte by byte, as after an fsync that
failed, is not a finding. Lines without such an id, and lines that cannot be read, are counted with the time around them.

**Concurrency.** The set of segments is taken newest first (`structlog_audit.trail.reading.discovery`): the active segment is
read up to its size before the rolled ones are opened. A writer never returns to an older segment, so every line is read of
which a later one of the same writer is read.

**Performance.** One pass over the bytes; of a line, only id, time and kind are decoded, a block at a time. Memory is constant
for each writer, plus at most `MOST_KEPT` findings and the last blocks.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

import msgspec

from structlog_audit.events.event import Kind
from structlog_audit.events.event_id import EventId, parse_event_id
from structlog_audit.query.event_source import HARMLESS_PROBLEMS
from structlog_audit.trail.reading.discovery import AnyTrail, Segment, Trail
from structlog_audit.trail.reading.export_document import DOCUMENT_START
from structlog_audit.trail.reading.line_blocks import LineBlock
from structlog_audit.trail.reading.open_segment import OpenSegment
from structlog_audit.trail.reading.repeated_lines import REMEMBERED
from structlog_audit.trail.reading.segment_scanner import RETENTION, SegmentScanner
from structlog_audit.trail.reading.torn_lines import is_torn
from structlog_audit.trail.segment_names import ACTIVE

MOST_KEPT = 1_000
"""The number of findings of each sort that are kept one by one."""

_MOST_COMPARED = 4 * REMEMBERED
"""The number of repeated lines that are compared with the earlier line; further ones count as different."""

_FEWEST_OF_OTHERS = 1 << 20
"""The number from which a writer that was seen for less than a millisecond has ids of another form: random UUIDs of version 7,
as older versions of this library had. A writer of this version would have written a million lines before."""

_MOST_CANDIDATES = 1_000
"""The number of writers that may have ids of another form and are kept until others follow."""

_MILLISECOND = dt.timedelta(milliseconds=1)

_DAMAGE = frozenset(("truncated", "replaced"))
"""The operations of trail events that report damage to the files."""

_BOM = b"\xef\xbb\xbf"
_WRITER = slice(17, 28)
_NUMBER = slice(28, 36)
_AFTER_TIME = slice(16, 36)


class NumberedLine(msgspec.Struct, gc=False):
    """The members of a line that are decoded here."""

    event_id: str
    timestamp: Annotated[dt.datetime, msgspec.Meta(tz=True)]
    kind: str | None = None
    operation: msgspec.Raw = msgspec.Raw(b"null")
    metadata: msgspec.Raw = msgspec.Raw(b"null")


_decoder = msgspec.json.Decoder(NumberedLine)


class Place(NamedTuple):
    """A line in a trail: its number, its time, and the index of its segment."""

    number: int
    time: dt.datetime
    segment: int


@dataclass(slots=True)
class Writer:
    """The lines that were read of one writer."""

    first: Place
    number: int
    """The highest number."""
    time: dt.datetime
    segment: int
    is_closed: bool = False
    """Whether the line with the highest number is its ``closed`` event."""
    host: str | None = None

    @property
    def is_brief(self) -> bool:
        """Whether all its lines are of one millisecond, and not the first ones of a writer."""
        return self.first.number > 0 and abs(self.time - self.first.time) < _MILLISECOND

    @property
    def last(self) -> Place:
        """The line with the highest number."""
        return Place(self.number, self.time, self.segment)


@dataclass(slots=True)
class Hole:
    """Numbers of a writer that no line has, between two lines."""

    writer: str
    before: Place
    after: Place
    found: set[int] = field(default_factory=set)
    """Those of the numbers that came later."""

    @property
    def count(self) -> int:
        """The number of missing lines."""
        return self.after.number - self.before.number - 1 - len(self.found)


class Statement(NamedTuple):
    """A trail event about lines or events that should exist, or are lost."""

    time: dt.datetime
    segment: int
    value: Any


@dataclass(slots=True)
class Tally:
    """Lines of one sort, with the times of readable lines around them; None is open."""

    count: int = 0
    since: dt.datetime | None = None
    until: dt.datetime | None = None

    def add(self, since: dt.datetime | None, until: dt.datetime | None = None, count: int = 1) -> None:
        """Count lines between two times."""
        if not self.count:
            self.since = since
        self.count += count
        self.until = until


class TrailEvidence:
    """The evidence from one reading of a trail."""

    def __init__(self, path: str, *, is_whole: bool) -> None:
        self.path = path
        self.is_whole = is_whole
        """Whether all segments of the trail were to be read, and no export document."""
        self.is_archived = False
        """Whether they were read from an archive, without the live files that follow."""
        self.pruned_before: dt.datetime | None = None
        """The time before which the archive dropped whole days; None if it dropped none."""
        self.segments: list[Segment] = []
        self.first: dt.datetime | None = None
        self.last: dt.datetime | None = None
        self.first_of_segment: dict[int, dt.datetime] = {}
        """The time of the first line of each segment that has one, by its index."""

        self.writers: dict[str, Writer] = {}
        self.holes: list[Hole] = []
        self.further_holes = Tally()

        self.unnumbered = Tally()
        self.repeated = Tally()
        self.moved = Tally()
        self.problems: dict[str, Tally] = {}

        self.gaps: list[Statement] = []
        self.refused: set[tuple[str, int]] = set()
        """The writers and numbers of events that gap events name."""
        self.raised: list[Statement] = []
        self.damage: dict[str, Tally] = {}
        self.predecessors: dict[str, Statement] = {}
        """By writer, the statement with the highest number that an ``opened`` event names as its predecessor."""
        self.pruned: dict[str, Statement] = {}
        """By the name of a segment that retention announced to delete, the name of the oldest segment that it kept."""

    @property
    def has_active_segment(self) -> bool:
        """Whether the segment that writers append to exists. It does not while one of them rolls over."""
        return any(segment.order == ACTIVE for segment in self.segments)

    def name_of(self, segment: int) -> str:
        """Return the name of the segment with this index."""
        return self.segments[segment].path.rpartition("/")[2]


def read_evidence(trail: AnyTrail) -> TrailEvidence:
    """Read *trail* once, and return its evidence.

    Raises:
        AuditReadError: The trail cannot be read.
    """
    is_whole = isinstance(trail, Trail) and trail.names is None
    evidence = TrailEvidence(trail.path, is_whole=is_whole)
    scanner = SegmentScanner()

    with trail.segments() as segments:
        evidence.segments = segments
        collector = Collector(evidence)
        for index, segment in enumerate(segments):
            collector.segment = index
            with scanner.open(segment) as opened:
                if opened is not None:
                    read_segment(scanner, opened, collector)
            collector.take_problems(scanner.problems.counts)
            scanner.problems.counts.clear()
        collector.finish()
    return evidence


def read_segment(scanner: SegmentScanner, opened: OpenSegment, collector: Collector) -> None:
    """Add the lines of a segment to the evidence."""
    if DOCUMENT_START.match(opened.head):
        collector.evidence.is_whole = False

    def report(code: str, offset: int, reason: str) -> None:
        collector.add_problem(code)

    def report_rest(offset: int, size: int) -> None:
        if not opened.is_open:
            collector.add_problem("torn")

    try:
        for block in scanner.blocks(opened, report, report_rest):
            collector.add_block(block)
    except OSError:
        collector.add_problem("unreadable")


class Collector:
    """Adds the lines of one trail to its evidence, in order."""

    def __init__(self, evidence: TrailEvidence) -> None:
        self.evidence = evidence
        self.segment = 0
        """The index of the segment that is being read."""

        self._time: dt.datetime | None = None
        self._unended: list[Tally] = []
        self._recent: deque[LineBlock] = deque()
        self._recent_lines: deque[int] = deque()
        self._compared = 0
        self._candidates: deque[str] = deque()
        self._has_other_form = False

        # The number of refused events that the last ``closed`` event of each process states.
        self._raised: dict[str, int] = {}

    def finish(self) -> None:
        """Count the lines of writers that have ids of another form as lines without a number."""
        for writer_id in self._candidates:
            self._drop_other_form(writer_id)

        # Among random numbers some are low.
        if self._has_other_form:
            brief = [writer_id for writer_id, writer in self.evidence.writers.items() if writer.is_brief]
            for writer_id in brief:
                self._drop_other_form(writer_id)

    def _drop_other_form(self, writer_id: str) -> None:
        """Remove a writer if its lines are of one millisecond, and count them as lines without a number."""
        writer = self.evidence.writers[writer_id]
        if writer.is_brief:
            self._has_other_form = True
            del self.evidence.writers[writer_id]
            count = writer.number - writer.first.number + 1
            self.evidence.unnumbered.add(writer.first.time, writer.time, count)

    def take_problems(self, counts: Counter[str]) -> None:
        """Count the problems that the scanner met in the present segment."""
        for code in counts:
            self.add_problem(code)

    def add_problem(self, code: str) -> None:
        """Count a problem at the present place."""
        if code not in HARMLESS_PROBLEMS:
            tally = self.evidence.problems.setdefault(code, Tally())
            self._count(tally)

    def _count(self, tally: Tally) -> None:
        """Count a line without a time of its own; the next line with one ends the time in doubt."""
        tally.add(self._time)
        self._unended.append(tally)

    def add_block(self, block: LineBlock) -> None:
        """Add the lines of *block*."""
        try:
            lines = _decoder.decode_lines(block.data)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            lines = None

        number_of_lines = block.data.count(b"\n")
        self._remember(block, number_of_lines)
        if lines is None:
            for line in block.lines():
                self.add_bytes(line)
        elif lines:
            self.add_lines(lines)

    def remember(self, lines: Sequence[bytes]) -> None:
        """Take *lines*, which were added one by one, as those before the next block."""
        if lines:
            self._remember(LineBlock(0, b"\n".join([*lines, b""])), len(lines))

    def _remember(self, block: LineBlock, lines: int) -> None:
        """Keep the last blocks, with at least `REMEMBERED` lines before the present block."""
        self._recent.append(block)
        self._recent_lines.append(lines)
        while len(self._recent) > 2 and sum(self._recent_lines) - self._recent_lines[0] - lines >= REMEMBERED:
            self._recent.popleft()
            self._recent_lines.popleft()

    def add_bytes(self, line: bytes) -> None:
        """Add a line that may not be an event."""
        if not line.strip():
            return
        try:
            decoded = _decoder.decode(line.removeprefix(_BOM))
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            is_json = isinstance(error, msgspec.ValidationError)
            self.add_problem("torn" if not is_json and is_torn(line) else "foreign")
        else:
            self.add_lines([decoded])

    def add_lines(self, lines: Sequence[NumberedLine]) -> None:
        """Add decoded lines: the next line of a known writer here, any other in `_add_line`."""
        first_time = lines[0].timestamp
        self.evidence.first_of_segment.setdefault(self.segment, first_time)
        for tally in self._unended:
            tally.until = first_time
        self._unended.clear()

        writers = self.evidence.writers
        segment = self.segment
        for line in lines:
            event_id = line.event_id
            writer = writers.get(event_id[_WRITER])
            try:
                is_next = writer is not None and line.kind is None and int(event_id[_NUMBER], 16) == writer.number + 1
            except ValueError:
                is_next = False

            if writer is not None and is_next:
                writer.number += 1
                writer.time = line.timestamp
                writer.segment = segment
                writer.is_closed = False
            else:
                self._time = line.timestamp
                self._add_line(line)

        self._time = lines[-1].timestamp
        self._extend_range(lines)

    def is_expected(self, event_id: str) -> bool:
        """Return whether *event_id* has a number above those of its writer, and is surely not an id of another form."""
        parts = parse_event_id(event_id)
        if parts is None:
            return False

        writer = self.evidence.writers.get(parts.writer)
        return parts.number < _FEWEST_OF_OTHERS if writer is None else parts.number > writer.number

    def add_run(self, writer_id: str, number: int, time: dt.datetime) -> None:
        """Add the next lines of a known writer, up to *number*, whose time is *time*."""
        writer = self.evidence.writers[writer_id]
        writer.number = number
        writer.time = time
        writer.segment = self.segment
        writer.is_closed = False
        self._time = time

    def _extend_range(self, lines: Iterable[NumberedLine]) -> None:
        times = [line.timestamp for line in lines]
        self.extend_range(min(times), max(times))

    def extend_range(self, earliest: dt.datetime, latest: dt.datetime) -> None:
        """Extend the times of the trail by those of lines."""
        evidence = self.evidence
        evidence.first = earliest if evidence.first is None else min(evidence.first, earliest)
        evidence.last = latest if evidence.last is None else max(evidence.last, latest)

    def _add_line(self, line: NumberedLine) -> None:
        """Add a line of any sort."""
        event_id = parse_event_id(line.event_id)
        if event_id is None:
            self.evidence.unnumbered.add(line.timestamp, line.timestamp)
            return

        is_new = self._add_number(event_id, line)
        if is_new and line.kind == Kind.TRAIL:
            self._add_trail_event(event_id.writer, line)
        elif is_new and line.kind == Kind.GAP:
            self._add_gap(line)
        elif is_new and line.kind == Kind.CHECKPOINT:
            # Its writer is a sealer, which records no events.
            self.evidence.writers[event_id.writer].is_closed = True

    def _add_gap(self, line: NumberedLine) -> None:
        """Add a statement about lost events. If the target refused one, the gap names it, and no line has its number."""
        self._add_statement(self.evidence.gaps, line, _member(line.metadata, "lost"))
        named = _member(line.metadata, "event_id")
        refused = parse_event_id(named) if isinstance(named, str) else None
        if refused is not None and len(self.evidence.refused) < MOST_KEPT:
            self.evidence.refused.add((refused.writer, refused.number))

    def _add_number(self, event_id: EventId, line: NumberedLine) -> bool:
        """Add the number of a line, and return whether no earlier line has it."""
        number = event_id.number
        place = Place(number, line.timestamp, self.segment)
        writer = self.evidence.writers.get(event_id.writer)

        if writer is None:
            self.evidence.writers[event_id.writer] = Writer(place, *place)
            if number >= _FEWEST_OF_OTHERS:
                self._add_candidate(event_id.writer)
            return True
        if number <= writer.number:
            return self._add_earlier(event_id, writer, line)

        if number > writer.number + 1:
            self._add_hole(Hole(event_id.writer, writer.last, place))
        writer.number, writer.time, writer.segment = place
        writer.is_closed = False
        return True

    def _add_candidate(self, writer_id: str) -> None:
        self._candidates.append(writer_id)
        if len(self._candidates) > _MOST_CANDIDATES:
            self._drop_other_form(self._candidates.popleft())

    def _add_hole(self, hole: Hole) -> None:
        if len(self.evidence.holes) < MOST_KEPT:
            self.evidence.holes.append(hole)
            return

        further = self.evidence.further_holes
        if not further.count:
            further.since = hole.before.time
        further.count += hole.count
        further.until = hole.after.time

    def _add_earlier(self, event_id: EventId, writer: Writer, line: NumberedLine) -> bool:
        """Add a line whose number is not above those of its writer, and return whether no earlier line has it."""
        number = event_id.number
        if number < writer.first.number:
            if number < writer.first.number - 1:
                self._add_hole(Hole(event_id.writer, Place(number, line.timestamp, self.segment), writer.first))
            writer.first = Place(number, line.timestamp, self.segment)
            self.evidence.moved.add(line.timestamp, line.timestamp)
            return True

        for hole in self.evidence.holes:
            is_inside = hole.writer == event_id.writer and hole.before.number < number < hole.after.number
            if is_inside and number not in hole.found:
                hole.found.add(number)
                self.evidence.moved.add(line.timestamp, line.timestamp)
                return True

        if not self._is_same_as_earlier(line.event_id):
            self.evidence.repeated.add(line.timestamp, line.timestamp)
        return False

    def _is_same_as_earlier(self, event_id: str) -> bool:
        """Return whether all recent lines with the writer and number of *event_id* are equal, and there are several."""
        self._compared += 1
        if self._compared > _MOST_COMPARED:
            return False

        mark = f'{event_id[_AFTER_TIME]}","timestamp"'.encode()
        found = []
        for block in self._recent:
            at = block.data.find(mark)
            while at >= 0:
                begin = block.data.rfind(b"\n", 0, at) + 1
                found.append(block.data[begin : block.data.find(b"\n", at)])
                at = block.data.find(mark, at + 1)
        return len(found) > 1 and len(set(found)) == 1

    def _add_trail_event(self, writer_id: str, line: NumberedLine) -> None:
        """Add the statement of a trail event. Trail events of other operations state nothing about completeness."""
        evidence = self.evidence
        writer = evidence.writers[writer_id]
        operation = _decoded(line.operation)

        if operation == "opened":
            host = _member(line.metadata, "host")
            writer.host = host if isinstance(host, str) else writer.host
            self._add_predecessor(line)
        elif operation == "closed":
            writer.is_closed = True
            self._add_raised(line)
        elif operation == RETENTION:
            self._add_pruned(line)
        elif operation in _DAMAGE:
            evidence.damage.setdefault(operation, Tally()).add(line.timestamp, line.timestamp)

    def _add_raised(self, line: NumberedLine) -> None:
        """Add the events that a process refused since its last ``closed`` event: it counts those of its lifetime."""
        raised = _member(line.metadata, "raised")
        if not isinstance(raised, int):
            return

        pid = str(_member(line.metadata, "pid"))
        before = self._raised.get(pid, 0)
        self._raised[pid] = raised
        since_then = raised - before if raised >= before else raised
        if since_then > 0:
            self._add_statement(self.evidence.raised, line, since_then)

    def _add_predecessor(self, line: NumberedLine) -> None:
        """Add the line that an ``opened`` event names as the last one before it, unless it was read."""
        named = _member(line.metadata, "previous")
        previous = parse_event_id(named) if isinstance(named, str) else None
        writer = None if previous is None else self.evidence.writers.get(previous.writer)
        if previous is None or (writer is not None and previous.number <= writer.number):
            return

        known = self.evidence.predecessors.get(previous.writer)
        if known is None or known.value < previous.number:
            statement = Statement(line.timestamp, self.segment, previous.number)
            self.evidence.predecessors[previous.writer] = statement

    def _add_pruned(self, line: NumberedLine) -> None:
        names = _member(line.metadata, "segments")
        if not isinstance(names, list):
            return

        statement = Statement(line.timestamp, self.segment, _member(line.metadata, "kept"))
        self.evidence.pruned.update((name, statement) for name in names if isinstance(name, str))

    def _add_statement(self, statements: list[Statement], line: NumberedLine, value: Any) -> None:
        if len(statements) < MOST_KEPT:
            statements.append(Statement(line.timestamp, self.segment, value))


def _decoded(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _member(raw: msgspec.Raw, name: str) -> Any:
    """Return a member of the metadata of a line; None if it has none."""
    metadata = _decoded(raw)
    return metadata.get(name) if isinstance(metadata, dict) else None
