"""Warm start: the newest events of a trail, each once, and since when they are complete."""

import datetime as dt
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trail_files import PACKS, at, id_of, line_of, retention_event, write_trail

from structlog_audit import AuditFileHandler, AuditHandler, AuditReadError
from structlog_audit.query.filters import microseconds
from structlog_audit.trail.reading import decoder
from structlog_audit.trail.reading.discovery import Segment
from structlog_audit.trail.reading.warm_start import newest_events

ONE, TWO, THREE = line_of(1), line_of(2), line_of(3)
HEAD = line_of(1, metadata={"_audit": {"entry_ids": "continued in 1 parts"}})
PART = line_of(2, part_of=HEAD, entry_ids=["e2"])

packs = pytest.mark.parametrize("pack", list(PACKS))


def timestamp(second):
    """Return the microseconds since 1970, as the buffer stores times."""
    return microseconds(at(second))


def lines_of(newest):
    """Return the lines of the events."""
    return [lines for lines, _ in newest.events]


@packs
def test_newest_events_come_from_the_last_segments(tmp_path, pack):
    """The newest events come oldest first; segments before the necessary ones are not read."""
    segments = [(10, b"never read\n" + line_of(0)), (20, HEAD + PART + TWO)]
    path = write_trail(tmp_path, *segments, active=THREE, packs=[pack, pack])
    assert newest_events(path, 2) == ([(TWO, timestamp(2)), (THREE, timestamp(3))], timestamp(1), 0)
    path.unlink()
    assert newest_events(path, 2).events[0] == (HEAD + PART, timestamp(1))


@packs
def test_all_events_fit(tmp_path, pack):
    """When all events fit, none is missing; lines that are not events are counted and skipped."""
    segments = [(10, ONE + b"\x00\xff\n" + b'{"event_id":1}\n' + TWO), (20, b"")]
    path = write_trail(tmp_path, *segments, active=THREE + line_of(4)[:20], packs=[pack, "plain"])
    newest = newest_events(path, 10)
    assert (lines_of(newest), newest.missing_until, newest.unreadable) == ([ONE, TWO, THREE], None, 2)


def test_empty_trail_has_no_newest_events(tmp_path):
    """Empty files have no events, and none are missing."""
    assert newest_events(write_trail(tmp_path, (1, b""), active=b""), 5) == ([], None, 0)


def test_newest_events_without_a_trail_are_an_error(tmp_path):
    """Without a trail, `newest_events` raises an error."""
    with pytest.raises(AuditReadError):
        newest_events(tmp_path / "none.jsonl", 5)


def test_handler_without_a_trail_starts_complete(tmp_path):
    """A handler without an existing trail starts with complete answers."""
    assert AuditHandler(filename=tmp_path / "new" / "audit.jsonl", warm_start=True).complete_since is None


@packs
def test_latest_timestamp_left_out_counts(tmp_path, pack):
    """After a clock step the latest timestamp that was left out counts, not the last one."""
    data = b"".join(line_of(number, second) for number, second in enumerate([50, 10, 20, 30]))
    assert newest_events(write_trail(tmp_path, (60, data), active=None, packs=[pack]), 1).missing_until == timestamp(50)


@packs
def test_last_event_with_an_id_counts(tmp_path, pack):
    """Of several events with one id the last counts; the others are not unreadable."""
    again = line_of(1, user_id="ann")
    assert id_of(again) == id_of(ONE)
    path = write_trail(tmp_path, (10, line_of(0) + ONE + TWO), active=again + THREE + THREE, packs=[pack])
    newest = newest_events(path, 3)
    assert (lines_of(newest), newest.missing_until, newest.unreadable) == ([TWO, again, THREE], timestamp(0), 0)


@packs
def test_last_event_with_an_id_counts_inside_a_segment(tmp_path, pack):
    """Of several events with one id in the same segment the last counts."""
    again = line_of(1, user_id="ann")
    path = write_trail(tmp_path, (10, line_of(0) + ONE + TWO + again), active=None, packs=[pack])
    assert lines_of(newest_events(path, 3)) == [line_of(0), TWO, again]


@pytest.mark.parametrize("error", [FileNotFoundError(2, "gone"), PermissionError(13, "refused")])
def test_deleted_or_refused_segment_is_missing(tmp_path, monkeypatch, error):
    """A segment that was deleted or refused before it is read is not an error; answers are complete since its rollover."""
    path = write_trail(tmp_path, (10, ONE), (20, TWO), (30, b""), active=THREE)
    opened = Segment.opened

    def refusing(segment):
        if segment.rolled_at == at(20):
            raise error
        return opened(segment)

    monkeypatch.setattr(Segment, "opened", refusing)
    newest = newest_events(path, 10)
    assert (lines_of(newest), newest.missing_until, newest.unreadable) == ([ONE, THREE], timestamp(20), 0)


def test_truncated_segment_is_missing(tmp_path):
    """The events of a truncated packed segment are read, and answers are complete since its rollover."""
    data = b"".join(map(line_of, range(2_000)))
    path = write_trail(tmp_path, (9_000, data), (9_001, b""), active=line_of(9_002))
    rolled = min(tmp_path.glob("*Z"))
    rolled.with_name(rolled.name + ".gz").write_bytes(gzip.compress(data)[:-2_000])
    rolled.unlink()
    newest = newest_events(path, 10_000)
    assert 100 < len(newest.events) < 2_000
    assert newest.missing_until == timestamp(9_000)


@packs
def test_segment_deleted_by_retention_is_missing(tmp_path, pack):
    """Segments that retention deleted are missing; one that was compressed since is not."""
    path = write_trail(tmp_path, (20, ONE), (30, TWO), active=retention_event(900, 10, 20) + THREE, packs=[pack, pack])
    assert newest_events(path, 10).missing_until == timestamp(10)
    next(name for name in tmp_path.iterdir() if "103020" in name.name).unlink()
    assert newest_events(path, 10).missing_until == timestamp(20)
    handler = AuditHandler(target=AuditFileHandler(path), warm_start=True)
    assert (handler.complete_since - at(20)).total_seconds() == 1e-6


@packs
def test_lines_of_the_library_are_decoded_once(tmp_path, monkeypatch, pack):
    """The lines of a block of this library's events are those in the file: no event is decoded a second time."""

    def refuse(*arguments):
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoder, "decode", refuse)
    one, two, later, three = line_of(1, 1.5), line_of(2, 2.5), line_of(4, 4.5, kind="intent"), line_of(3, 3.5)
    path = write_trail(tmp_path, (10, one + two), active=later + three, packs=[pack])
    assert lines_of(newest_events(path, 10)) == [one, two, later, three]


def test_time_with_another_offset_is_in_utc(tmp_path):
    """An event whose line has a time of another zone is in UTC in the buffer, too."""
    line = TWO.replace(b'Z"', b'+02:00"', 1)
    handler = AuditHandler(target=AuditFileHandler(write_trail(tmp_path, active=ONE + line)), warm_start=True)
    (event,) = handler.query_events(event_id=id_of(TWO))
    assert event.timestamp.tzinfo is dt.UTC


def test_non_canonical_line_is_found_by_its_id(tmp_path):
    """The buffer finds an event by its id, however its line was written."""
    line = json.dumps(json.loads(ONE)).encode() + b"\n"
    handler = AuditHandler(target=AuditFileHandler(write_trail(tmp_path, active=line + TWO)), warm_start=True)
    assert handler.get_event(id_of(ONE)).timestamp == at(1)
    assert handler.count_events(event_id=id_of(TWO)) == 1


@settings(max_examples=60)
@given(
    sizes=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(list(PACKS))), max_size=4),
    count=st.integers(1, 12),
    parts=st.sets(st.integers(0, 20)),
)
def test_newest_events_are_the_end_of_all_events(tmp_path_factory, sizes, count, parts):
    """For all segments, packed or not, and events with parts: the newest events are the end of all events."""
    everything, segments = [], []
    for index, (size, _) in enumerate(sizes):
        own = []
        for _ in range(size):
            number = len(everything)
            head = line_of(number, metadata={"_audit": {"entry_ids": "continued in 1 parts"}})
            own.append(head + line_of(100 + number, part_of=head) if number in parts else line_of(number))
            everything.append(own[-1])
        segments.append((1_000 + index, b"\n".join([b"", *own])))
    folder = tmp_path_factory.mktemp("segments")
    path = write_trail(folder, *segments, active=b"", packs=[pack for _, pack in sizes])
    newest = newest_events(path, count)
    assert lines_of(newest) == everything[-count:]
    assert (newest.missing_until is not None) == (len(everything) > count)
    assert newest.unreadable == 0
