"""Queries answered from files: the answers of a buffer, in bounded memory, with all damage counted."""

import datetime as dt
import gzip
import io
import itertools
import json
import logging
import logging.handlers
import os
import tracemalloc
from itertools import pairwise

import loguru
import pytest
import strategies as s
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from pythonjsonlogger.json import JsonFormatter
from pythonjsonlogger.msgspec import MsgspecFormatter
from trail_files import BEGIN, PACKS, append, at, id_of, ids, line_of, retention_event, write_trail

from structlog_audit import (
    AuditError,
    AuditFileHandler,
    AuditHandler,
    AuditJsonFormatter,
    AuditReadError,
    AuditTypeError,
    AuditValueError,
    open_trail,
)
from structlog_audit.buffer.event_buffer import EventBuffer
from structlog_audit.events.codec import decode, encode_payload
from structlog_audit.events.event import Kind
from structlog_audit.events.event_id import Stamp
from structlog_audit.events.payload import Payload
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import microseconds
from structlog_audit.trail.reading import line_blocks
from structlog_audit.trail.reading.discovery import find_trails
from structlog_audit.trail.reading.problems import MAX_EXAMPLES, Problems
from structlog_audit.trail.reading.reader import TrailReader
from structlog_audit.trail.reading.segment_scanner import SegmentScanner
from structlog_audit.trail.reading.time_ranges import SLACK
from structlog_audit.trail.segment_names import rollover_time

ONE, TWO, THREE = line_of(1), line_of(2), line_of(3)


class Buffered(EventSource):
    """The same lines in a buffer, for comparison with the reader."""

    complete_since = None

    def __init__(self, events):
        self.buffer = EventBuffer(10_000)
        for line, timestamp in events:
            self.buffer.append(line, timestamp)

    def select(self, conditions, *, newest_first, at_most=None):
        return self.buffer.select(conditions, newest_first=newest_first)


# --- equal to the buffer -----------------------------------------------------------------------------------------------

USERS, NAMES = ["ann", "bob", "zoë", ""], ["STORE", "RECALL", "delete"]

bodies = st.builds(
    Payload,
    st.sampled_from(NAMES),
    st.none() | st.sampled_from(USERS),
    st.none() | st.sampled_from(["s1", "s2"]),
    st.lists(st.sampled_from(["e1", "e2", "e3"]), max_size=2) | st.just([f"entry_{n}" for n in range(700)]),
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([1, 1.0, True, "x", None, [1], {"c": 2}]), max_size=2)
    | s.metadata,
    st.sampled_from(["SUCCESS", "FAILURE", "PARTIAL"]),
    st.none() | s.texts,
    st.none() | st.sampled_from([0.0, 1.5, 20.0]),
)
# Steps of the clock, in seconds. Its error never exceeds the slack.
steps = st.integers(-300, 900)

any_filters = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.none() | st.sampled_from(USERS) | st.lists(st.none() | st.sampled_from(USERS), max_size=2),
        "session_id": st.none() | st.sampled_from(["s1", "s3"]),
        "operation": st.sampled_from([*NAMES, "store"]),
        "operation_class": st.sampled_from(["create", "delete", None]) | st.just(["read", "unclassified"]),
        "status": st.sampled_from(["SUCCESS", "FAILURE"]),
        "entry_ids": st.sampled_from(["e1", "entry_650", ["e2", "e3"], "e"]),
        "metadata": st.sampled_from([{"a": 1}, {"a": {"c": 2}}, {"b": None}, {}]),
        "start_time": st.integers(-100, 6_000).map(at),
        "end_time": st.integers(6_000, 20_000).map(at),
        "min_duration_ms": st.sampled_from([0, 1.5, 5]),
    },
)


@st.composite
def trails(draw):
    """Draw lines with timestamps, and rollovers with their time and packing."""
    # Timestamps of whole seconds are decoded by another path.
    clock = [BEGIN + dt.timedelta(microseconds=draw(st.sampled_from([0, 123_456])))]
    stamp = Stamp(clock=lambda: microseconds(clock[0]) * 1_000)
    segments, rolled_at, latest = [], BEGIN, BEGIN
    for body in draw(st.lists(st.none() | bodies, max_size=25)):
        if body is None:
            rolled_at = max(clock[0], rolled_at + dt.timedelta(microseconds=1))
            segments.append((rolled_at, draw(st.sampled_from(list(PACKS)))))
            continue
        clock[0] = max(clock[0] + dt.timedelta(seconds=draw(steps)), latest - SLACK)
        latest = max(latest, clock[0])
        line = stamp.line(encode_payload(body, 4_096))
        segments.append((line, stamp.timestamp_us))
    return segments


def written(folder, drawn):
    """Write the drawn trail; return its path and its events."""
    path = folder / "audit.jsonl"
    events, data = [], b""
    for first, second in drawn:
        if isinstance(first, bytes):
            events.append((first, second))
            data += first
        else:
            name = f"audit.jsonl.{first.strftime('%Y%m%dT%H%M%S.%fZ')}"
            (folder / name).write_bytes(PACKS[second](data))
            data = b""
    path.write_bytes(data)
    return path, events


@settings(max_examples=s.examples(60))
@given(
    drawn=trails(),
    filters=any_filters,
    newest_first=st.booleans(),
    limit=st.none() | st.integers(0, 5),
    offset=st.integers(0, 3),
    block=st.sampled_from([200, 1_000, 65_536]),
)
def test_reader_gives_the_answers_of_a_buffer(tmp_path_factory, drawn, filters, newest_first, limit, offset, block):
    """For all events, segments, packings and filters, the answers from files are those of a buffer."""
    path, events = written(tmp_path_factory.mktemp("trail"), drawn)
    buffered = Buffered(events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_blocks, "BLOCK_BYTES", block)
        reader = open_trail(path)
        how = {"newest_first": newest_first, "limit": limit, "offset": offset}
        expected = buffered.query_events(**how, **filters)
        assert reader.query_events(**how, **filters) == expected
        assert reader.count_events(**filters) == buffered.count_events(**filters)
        assert reader.get_statistics(**filters) == buffered.get_statistics(**filters)
        assert list(reader.iter_events(**filters)) == list(buffered.iter_events(**filters))
        for event in expected[:2]:
            assert reader.get_event(event.event_id) == event
        everything = buffered.query_events(newest_first=newest_first, **filters)
        assert paged(reader, limit or 3, newest_first=newest_first, **filters) == everything
        assert list(reader.follow(since_now=False, stop=lambda: True, wait=pytest.fail, **filters)) == list(
            buffered.iter_events(**filters)
        )
        assert reader.problems == {}


def paged(reader, limit, **filters):
    """Return all pages of *limit* events, as one list."""
    found, cursor = [], None
    while True:
        page = reader.page(cursor, limit=limit, **filters)
        found += page.events
        cursor = page.cursor
        if cursor is None:
            return found
        assert len(page.events) == limit


# --- several trails ------------------------------------------------------------------------------------------------------


def test_several_trails_are_merged_by_time(tmp_path):
    """Events of several trails are merged by time, and the order within each trail is kept."""
    first = write_trail(tmp_path / "a", (3, ONE + THREE), active=line_of(5) + line_of(9))
    second = write_trail(tmp_path / "b", (5, TWO), active=line_of(4) + line_of(7, 2.5) + line_of(8), packs=["gzip"])
    third = write_trail(tmp_path / "c", active=b"")
    reader = open_trail(first, second, third)
    expected = [
        id_of(line) for line in (ONE, TWO, THREE, line_of(4), line_of(7, 2.5), line_of(5), line_of(8), line_of(9))
    ]
    assert ids(reader.iter_events()) == expected
    assert ids(reader.query_events()) == expected[::-1]
    assert ids(paged(reader, 2)) == expected
    assert ids(paged(reader, 3, newest_first=True)) == ids(reader.query_events())
    assert open_trail(tmp_path / "?" / "audit.jsonl").count_events() == 8
    assert list(reader.paths) == [str(first), str(second), str(third)]


@st.composite
def trails_of_any_clock(draw):
    """Draw the segments of a trail: lists of lines by several writers, with parts, whose clocks are set back and forth."""
    segments, rolled = [b""], []
    for number in range(draw(st.integers(0, 12))):
        writer = draw(st.integers(0, 2))
        line = line_of(100 * writer + number, draw(st.integers(0, 40)))
        if draw(st.integers(0, 4)) == 0:
            line = line_of(
                100 * writer + number, entry_ids=["e1"], metadata={"_audit": {"entry_ids": "continued in 1 parts"}}
            )
            line += line_of(1_000 + number, part_of=line, entry_ids=["e2"])
        segments[-1] += line
        if draw(st.integers(0, 5)) == 0:
            rolled.append((100 + number, draw(st.sampled_from(list(PACKS)))))
            segments.append(b"")
    return segments, rolled


@settings(max_examples=s.examples(40))
@given(
    drawn=st.lists(trails_of_any_clock(), min_size=1, max_size=4),
    limit=st.integers(1, 4),
    block=st.sampled_from([200, 65_536]),
)
def test_newest_first_is_the_exact_reverse(tmp_path_factory, drawn, limit, block):
    """For all trails, writers, parts and steps of clocks, the newest first is the oldest first reversed, in pages, too."""
    folder = tmp_path_factory.mktemp("trails")
    paths = []
    for number, (segments, rolled) in enumerate(drawn):
        rolled_segments = [(second, data) for (second, _), data in zip(rolled, segments, strict=False)]
        packs = [pack for _, pack in rolled]
        paths.append(write_trail(folder / str(number), *rolled_segments, active=segments[-1], packs=packs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_blocks, "BLOCK_BYTES", block)
        reader = open_trail(*paths)
        expected = list(reader.iter_events())
        assert sum(data.count(b"\n") for segments, _ in drawn for data in segments) >= len(expected)
        assert reader.query_events() == expected[::-1]
        assert reader.query_events(limit=limit) == expected[::-1][:limit]
        assert paged(reader, limit) == expected
        assert paged(reader, limit, newest_first=True) == expected[::-1]
        assert reader.problems == {}


# --- findings --------------------------------------------------------------------------------------------------------------


BAD = ONE + b"junk\n" + ONE[:40] + b"\n" + TWO[:-1] + b',"x":1\n' + THREE + THREE[:-5]
FOUND = {"foreign": 1, "torn": 2, "unfinished": 1}
"""The findings in BAD as an active segment."""


def test_finding_is_counted_once(tmp_path):
    """However often and in whatever order a place is read, its findings are counted once."""
    path = write_trail(tmp_path, active=BAD)
    reader = open_trail(path)
    assert reader.problems == {}
    assert ids(reader.query_events(limit=1)) == [id_of(THREE)]
    for _ in range(2):
        assert reader.count_events() == 2
        assert len(reader.query_events(user_id=None)) == 2
        assert reader.get_event("evt_none") is None
        assert reader.problems == FOUND
    reader.page(newest_first=True)
    path.rename(tmp_path / "audit.jsonl.20250115T103100.000000Z")
    path.write_bytes(line_of(4) + b"more junk\n")
    assert reader.count_events() == 3
    assert reader.problems == {**FOUND, "foreign": 2}


def test_filter_does_not_hide_damage(tmp_path):
    """Damage is counted whatever the filters."""
    path = write_trail(tmp_path, active=BAD)
    for filters in ({"user_id": "nobody"}, {"operation": "RECALL"}, {"kind": "gap"}, {"metadata": {"a": 1}}):
        reader = open_trail(path)
        assert reader.count_events(**filters) == 0
        assert reader.problems == FOUND


def test_examples_name_file_offset_and_reason(tmp_path):
    """An example has the file, the offset in the unpacked file and the reason; the number of examples is bounded."""
    path = write_trail(tmp_path, (9, BAD), active=b"".join(b'["%d"]\n' % n for n in range(500)), packs=["gzip"])
    reader = open_trail(path)
    reader.count_events()
    assert reader.problems == {"foreign": 501, "torn": 3}
    first = reader.examples[0]
    assert (first.code, first.offset) == ("foreign", len(ONE))
    assert first.path.endswith("Z")
    assert first.reason
    assert [example.offset for example in reader.examples[:4]] == [
        len(ONE), len(ONE) + 5, len(ONE) + 46, len(BAD) - len(THREE) + 5,
    ]  # fmt: skip
    assert len(reader.examples) == MAX_EXAMPLES


def test_checked_ranges_are_joined():
    """The ranges that were checked are kept in bounded memory, whatever their order."""
    problems = Problems()
    for start in (100, 0, 300, 200, 400):
        assert problems.is_new("x", start)
        problems.mark_checked("x", start, start + 100)
    assert problems._checked["x"] == [(0, 500)]
    assert not problems.is_new("x", 499)
    assert problems.is_new("x", 500)
    assert problems.is_new("y", 0)


def test_unfinished_end_of_an_inactive_segment_is_torn(tmp_path):
    """The beginning of a line is unfinished where a writer may append, and torn elsewhere."""
    path = write_trail(tmp_path, (1, ONE + TWO[:30]), (2, TWO + THREE[:-2]), active=line_of(4) + line_of(5)[:1])
    reader = open_trail(path)
    assert reader.count_events() == 3
    assert reader.problems == {"torn": 1, "unfinished": 2}  # the newest rolled one may still be written to, too
    alone = open_trail(tmp_path / "audit.jsonl.20250115T103002.000000Z")
    assert alone.count_events() == 1
    assert alone.problems == {"torn": 1}


def test_unfinished_line_is_an_event_once_finished(tmp_path):
    """An unfinished line is an event as soon as it is whole."""
    path = write_trail(tmp_path, active=ONE + TWO[:-2])
    reader = open_trail(path)
    assert ids(reader.query_events()) == [id_of(ONE)]
    for end in (TWO[-2:-1], TWO[-1:]):
        append(path, end)
        assert ids(reader.query_events()) == [id_of(TWO), id_of(ONE)]


@pytest.mark.parametrize("before", [b"", ONE, b"\n", line_of(1, metadata={"x": "y" * 5_000})])
@pytest.mark.parametrize("pack", list(PACKS))
def test_last_line_without_lf_is_an_event(tmp_path, before, pack):
    """A last line without LF that is whole JSON is an event: rolled, active or packed, in both directions and in pages."""
    data = before + TWO[:-1]
    for path in (write_trail(tmp_path / "rolled", (9, data), active=b"", packs=[pack]),
                 write_trail(tmp_path / "active", active=PACKS[pack](data))):  # fmt: skip
        reader = open_trail(path)
        expected = [id_of(line) for line in (before, TWO) if len(line) > 1]
        assert ids(reader.iter_events()) == ids(paged(reader, 1)) == expected
        assert ids(reader.query_events()) == ids(paged(reader, 1, newest_first=True)) == expected[::-1]
        assert ids(reader.follow(since_now=False, stop=lambda: True, wait=pytest.fail)) == expected
        assert reader.problems == {}


@pytest.mark.parametrize("seekable", [True, False])
def test_last_line_without_lf_of_a_stream_is_an_event(seekable):
    """A stream whose last line lacks its LF gives the event in it."""
    stream = io.BytesIO(ONE + TWO[:-1])
    stream.seekable = lambda: seekable
    assert ids(open_trail(stream).iter_events()) == [id_of(ONE), id_of(TWO)]


def test_last_line_with_parts_waits_for_them(tmp_path):
    """The last part of an event may lack its LF; an event that lacks a part is not read, whatever its last line lacks."""
    mark = {"_audit": {"entry_ids": "continued in 2 parts"}}
    head = line_of(3, entry_ids=["e1"], metadata=mark)
    parts = [line_of(number, part_of=head, entry_ids=[f"e{number}"]) for number in (4, 5)]
    path = write_trail(tmp_path, active=ONE + head + parts[0][:-1])
    reader = open_trail(path)
    assert ids(reader.iter_events()) == ids(reader.query_events()) == [id_of(ONE)]
    assert reader.problems == {"unfinished": 1}
    append(path, b"\n", parts[1][:-1])
    assert reader.query_events(limit=1)[0].entry_ids == ["e1", "e4", "e5"]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"plain text", {"foreign": 1}),
        (b"[1, 2]", {"foreign": 1}),
        (b'{"Records": [{"eventName": "CreateKeyPair"}]}', {"foreign": 1}),
        (b'{"Records": [{"eventNa', {"torn": 1}),
        (ONE[:-1] + TWO[:-1], {"foreign": 1}),
        (ONE + b'{\n  "a": 1\n}', {"torn": 1, "foreign": 2}),
        (b'{"asctime": "2025-01-15 10:30:45,123", "levelname": "INFO", "message": "STORE"}', {"foreign": 1}),
        (b'{"event": "STORE", "level": "info", "timestamp": "2025-01-15T10:30:45Z"}', {"foreign": 1}),
        (b'{"text": "STORE", "record": {"message": "STORE", "level": {"name": "INFO"}}}', {"foreign": 1}),
    ],
)
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_content_of_other_programs_is_counted(tmp_path, data, found, end):
    """Content that is not an event is counted, in one line or several, with or without an LF at its end."""
    reader = open_trail(write_trail(tmp_path, active=data + end))
    assert reader.count_events() == (1 if data.startswith(ONE) else 0)
    assert reader.problems == found


def test_torn_line_without_lf_is_counted_once(tmp_path):
    """A finding in a last line without LF is counted once, also when more is appended to the file."""
    path = write_trail(tmp_path, active=ONE + b"text")
    reader = open_trail(path)
    for end in (b"", b"\n", TWO):
        append(path, end)
        reader.count_events()
        assert reader.problems == {"foreign": 1}
    assert reader.count_events() == 2


@pytest.mark.parametrize("newest_first", [False, True])
def test_deleted_and_refused_segments_are_counted(tmp_path, monkeypatch, newest_first):
    """A segment that is deleted or refused during a query is counted, and the others are read."""
    path = write_trail(tmp_path, (1, ONE), (2, TWO), (3, THREE), active=line_of(4))
    (tmp_path / "audit.jsonl.20250115T103001.000000Z").chmod(0)
    real = open

    def refusing(name, *args, **kwargs):
        if str(name).endswith("103001.000000Z"):
            raise PermissionError(13, "Permission denied", name)
        if str(name).endswith("103003.000000Z") and os.path.exists(name):
            os.unlink(name)
        return real(name, *args, **kwargs)

    reader = open_trail(path)
    monkeypatch.setattr("builtins.open", refusing)
    found = ids(reader.query_events(newest_first=newest_first))
    assert sorted(found) == sorted([id_of(TWO), id_of(line_of(4))])
    assert reader.problems == {"unreadable": 1, "vanished": 1}


def test_system_error_inside_a_segment_is_counted(tmp_path, monkeypatch):
    """A system error inside a segment is counted; the events before it are read."""
    path = write_trail(tmp_path, (9, b"".join(map(line_of, range(10)))), active=line_of(20))
    monkeypatch.setattr(line_blocks, "BLOCK_BYTES", 300)

    class Failing(io.FileIO):
        def read(self, size=-1):
            if self.tell() > 700 and str(self.name).endswith("Z"):
                raise OSError(5, "Input/output error")
            return super().read(size)

    monkeypatch.setattr("builtins.open", lambda name, *args, **kwargs: Failing(name))
    reader = open_trail(path)
    assert 4 <= reader.count_events() <= 8
    assert reader.problems == {"unreadable": 1}


def test_trail_deleted_between_two_queries_is_an_error(tmp_path):
    """A trail that was deleted is an error at the next query, not an empty answer."""
    path = write_trail(tmp_path, active=ONE)
    reader = open_trail(path)
    assert reader.count_events() == 1
    path.unlink()
    with pytest.raises(AuditReadError, match="no such trail"):
        reader.count_events()
    with pytest.raises(AuditError):
        reader.size()


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_truncated_packed_segment_is_counted_once(tmp_path, pack):
    """A truncated packed segment gives its whole events in both directions, and is counted once."""
    data = b"".join(map(line_of, range(5_000)))
    path = write_trail(tmp_path, (9, data), active=line_of(9_000), packs=[pack])
    segment = next(file for file in tmp_path.iterdir() if file != path)
    segment.write_bytes(segment.read_bytes()[: segment.stat().st_size // 2])
    reader = open_trail(path)
    found = ids(reader.iter_events())
    assert len(found) > 1_000
    assert found[:-1] == [id_of(line_of(number)) for number in range(len(found) - 1)]
    assert ids(reader.query_events(limit=10)) == found[:-11:-1]
    assert {code: count for code, count in reader.problems.items() if code != "torn"} == {"truncated": 1}


def test_invalid_query_is_an_error_at_once(tmp_path):
    """An invalid query is an error at the call, before anything is read."""
    reader = open_trail(write_trail(tmp_path, active=ONE))
    for method in (reader.iter_events, reader.page, reader.query_events, reader.count_events):
        with pytest.raises(AuditTypeError):
            method(user="ann")
    with pytest.raises(AuditTypeError):
        reader.follow(stop=lambda: True, wait=pytest.fail, user="ann")


def test_open_trail_without_a_path_is_an_error():
    """`open_trail` without a path is an error that names the expected argument."""
    with pytest.raises(AuditTypeError, match=r"expected .* got no path"):
        open_trail()


def test_reader_queries_the_engine_it_was_given(tmp_path):
    """Any engine answers the queries of a reader; pages and following do not need it."""
    path = write_trail(tmp_path, active=ONE + TWO)
    queries = []

    class FixedEngine:
        def select(self, conditions, *, newest_first, at_most):
            queries.append((newest_first, at_most))
            return iter([decode(THREE)])

    reader = TrailReader(find_trails([path]), FixedEngine(), SegmentScanner())
    assert ids(reader.query_events(limit=5)) == [id_of(THREE)]
    assert queries == [(True, 5)]
    assert ids(reader.page().events) == [id_of(ONE), id_of(TWO)]


# --- time ------------------------------------------------------------------------------------------------------------------


HOUR = 3_600


def hourly(folder, count=6, packs=None, step=0.0):
    """Write a trail of hourly segments with sixty events each; in the second, the clock goes back by *step* seconds."""
    segments = []
    for hour in range(count):
        seconds = [hour * HOUR + 60 * minute - (step if hour == 1 and minute >= 30 else 0) for minute in range(60)]
        data = b"".join(line_of(hour * 60 + number, second) for number, second in enumerate(seconds))
        segments.append(((hour + 1) * HOUR, data))
    return write_trail(folder, *segments[:-1], active=segments[-1][1], packs=packs)


def bytes_read(path, **filters):
    """Return the number of bytes decoded for a query, and its answer."""
    reader = open_trail(path)
    found = ids(reader.iter_events(**filters))
    read = sum(stop - start for ranges in reader._scanner.problems._checked.values() for start, stop in ranges)
    return read, found


@pytest.mark.parametrize("packs", [None, ["gzip"] * 5])
def test_segment_outside_the_time_range_is_not_read(tmp_path, packs):
    """Only segments that may hold the requested times are read, according to their names and samples of their events."""
    path = hourly(tmp_path, packs=packs)
    whole, _ = bytes_read(path)
    read, found = bytes_read(path, start_time=at(2.5 * HOUR), end_time=at(2.6 * HOUR))
    assert found == [id_of(line_of(120 + minute, 2 * HOUR + 60 * minute)) for minute in range(30, 36)]
    assert read < 0.2 * whole
    assert bytes_read(path, start_time=at(4.5 * HOUR))[0] < 0.4 * whole
    assert bytes_read(path, end_time=at(HOUR / 2))[0] < 0.2 * whole
    assert bytes_read(path, end_time=at(-HOUR)) == (0, [])
    assert bytes_read(path, start_time=at(99 * HOUR))[1] == []


@pytest.mark.parametrize("seconds", [60, 0.5 * HOUR, 3 * HOUR, 30 * HOUR])
def test_events_are_found_after_a_clock_step_back(tmp_path, seconds):
    """Events are found by their times, also where the clock was set back inside a segment."""
    path = hourly(tmp_path, step=seconds)
    everything = list(open_trail(path).iter_events())
    for begin in range(-31 * HOUR, 7 * HOUR, HOUR // 2):
        time_range = {"start_time": at(begin), "end_time": at(begin + HOUR)}
        expected = [
            event for event in everything if time_range["start_time"] <= event.timestamp < time_range["end_time"]
        ]
        assert list(open_trail(path).iter_events(**time_range)) == expected


def test_segment_without_timestamps_is_read(tmp_path):
    """A segment without readable timestamps is never skipped."""
    junk = b"junk\n" * 10_000
    path = write_trail(tmp_path, (HOUR, junk + ONE + junk), (2 * HOUR, ONE), active=line_of(2, 3 * HOUR))
    assert id_of(ONE) in ids(open_trail(path).iter_events(end_time=at(10)))


def test_block_outside_the_time_range_is_not_decoded(tmp_path, monkeypatch):
    """Only blocks with an event in the requested range are decoded, whatever the clock did."""
    monkeypatch.setattr(line_blocks, "BLOCK_BYTES", 1_000)
    times = [*range(100), 7_000, *range(100, 200)]
    path = write_trail(tmp_path, active=b"".join(line_of(number, second) for number, second in enumerate(times)))
    whole, _ = bytes_read(path)
    for time_range, expected in (((7_000, 7_001), [100]), ((50, 53), [50, 51, 52]), ((199, 300), [200])):
        read, found = bytes_read(path, start_time=at(time_range[0]), end_time=at(time_range[1]))
        assert found == [id_of(line_of(number, times[number])) for number in expected]
        assert read < 0.1 * whole


def test_block_with_a_damaged_line_is_decoded(tmp_path):
    """A damaged line hides no event in the requested range, and is counted."""
    late = json.dumps({"operation": "STORE", "event_id": "evt_late", "timestamp": "2025-01-15T20:00:00Z"}).encode()
    path = write_trail(tmp_path, active=ONE + b"torn\n" + late + b"\n" + TWO)
    reader = open_trail(path)
    start = dt.datetime(2025, 1, 15, 19, tzinfo=dt.UTC)
    assert ids(reader.iter_events(start_time=start)) == ["evt_late"]
    assert reader.problems == {"foreign": 1}


def test_skipped_block_is_read_by_later_queries(tmp_path):
    """A query with a time range hides neither retention events nor damage from later queries."""
    path = write_trail(tmp_path, (40, ONE + retention_event(31, 10, 20)), active=TWO[:-9] + b"\n" + THREE)
    reader = open_trail(path)
    assert reader.count_events(end_time=at(0)) == 0
    assert reader.complete_since == at(20)
    assert reader.count_events() == 2
    assert reader.problems == {"torn": 1}


def test_numbered_file_outside_the_time_range_is_not_read(tmp_path):
    """Files without a time in their names are skipped according to their events."""
    for number in range(1, 5):
        data = b"".join(line_of(number * 60 + n, (5 - number) * HOUR + 60 * n) for n in range(60))
        (tmp_path / f"app.log.{number}").write_bytes(data)
    (tmp_path / "app.log").write_bytes(line_of(1, 5.5 * HOUR))
    read, found = bytes_read(tmp_path / "app.log", start_time=at(2.5 * HOUR), end_time=at(2.5 * HOUR + 61))
    assert len(found) == 2
    assert read == (tmp_path / "app.log.3").stat().st_size


def test_event_is_searched_at_the_time_in_its_id(tmp_path):
    """Only segments of the time in an id are read if the event is there."""
    path = hourly(tmp_path)
    whole, _ = bytes_read(path)
    wanted = id_of(line_of(130, 2 * HOUR + 600))
    reader = open_trail(path)
    assert reader.get_event(wanted).event_id == wanted
    assert (
        sum(stop - start for ranges in reader._scanner.problems._checked.values() for start, stop in ranges)
        < 0.4 * whole
    )


def test_event_with_another_time_than_its_id_is_found(tmp_path):
    """An event with a timestamp other than the time in its id is found in the other segments."""
    line = line_of(130, 2 * HOUR + 600)
    moved = json.dumps({**json.loads(line), "timestamp": at(0).isoformat()}).encode() + b"\n"
    path = write_trail(tmp_path, (HOUR, ONE + moved), active=TWO)
    assert open_trail(path).get_event(id_of(line)).timestamp == at(0)


def test_unknown_id_finds_no_event(tmp_path):
    """An unknown id finds no event, whatever its form; a value that is not an id is an error."""
    path = hourly(tmp_path)
    wanted = id_of(line_of(130, 2 * HOUR + 600))
    for unknown in ("evt_none", "", wanted[:-1], wanted[:-4] + "ffff"):
        assert open_trail(path).get_event(unknown) is None
    with pytest.raises(AuditTypeError):
        open_trail(path).get_event(None)


# --- completeness --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packs", [None, ["gzip", "zstd"]])
@pytest.mark.parametrize("reads_first", [False, True])
def test_completeness_follows_from_retention_events(tmp_path, packs, reads_first):
    """After retention, answers are complete since the rollover of the newest segment that it deleted."""
    path = write_trail(
        tmp_path, (40, retention_event(31, 10, 20)), (50, ONE + retention_event(41, 30, 40)), active=TWO, packs=packs
    )
    reader = open_trail(path)
    if reads_first:
        reader.count_events()
    assert reader.complete_since == at(30)  # the one of 40 is still there
    assert reader.get_statistics()["complete_since"] == at(30)
    assert reader.problems == {}
    path.write_bytes(TWO + retention_event(51, 50))
    assert reader.complete_since == at(30)
    (tmp_path / next(name for name in os.listdir(tmp_path) if "103050" in name)).unlink()
    assert reader.complete_since == at(50)


def test_trail_without_retention_is_complete(tmp_path):
    """A trail without a retention event is complete; several trails are complete since the latest."""
    path = write_trail(tmp_path / "a", (40, ONE), active=TWO)
    other = write_trail(tmp_path / "b", active=retention_event(1, 10))
    assert open_trail(path).complete_since is None
    assert open_trail(path, other).complete_since == at(10)
    assert open_trail(io.BytesIO(retention_event(1, 10))).complete_since is None


@pytest.mark.parametrize("segments", [None, "all", [5], ["other.log", "audit.jsonl.x"]])
def test_malformed_retention_event_is_ignored(tmp_path, segments):
    """A retention event without valid names of segments has no effect."""
    event = line_of(1, metadata={"segments": segments}, kind="trail").replace(b'"STORE"', b'"retention"')
    assert open_trail(write_trail(tmp_path, active=event)).complete_since is None


def test_completeness_after_a_handler_deleted_segments(tmp_path):
    """The reader knows which segments a handler with retention deleted."""
    path, later, seconds = tmp_path / "audit.jsonl", [], itertools.count()
    target = AuditFileHandler(path, maxBytes=2_000, backupCount=2, clock=lambda: at(next(seconds)))
    handler = AuditHandler(target=target, call_later=lambda seconds, function: later.append(function))
    for number in range(60):
        if number == 50:  # as a second after a rollover
            target._active.check_at = target._pruning.check_at = 0.0
        handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, f"op{number}", (), None))
    kept = target.segments()[-3:]
    while later:
        later.pop(0)()
    deleted = [name for event in handler.iter_events(kind="trail") for name in event.metadata.get("segments", [])]
    handler.close()
    reader = open_trail(path)
    assert deleted
    assert reader.complete_since == rollover_time(path.name, max(deleted))
    assert 2 <= reader.count_events() < 60
    assert target.segments()[-3:] == kept
    assert reader.problems == {}


# --- progress, memory, streams -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("filters", [{}, {"start_time": at(4.5 * HOUR)}, {"end_time": at(0)}])
def test_progress_grows_to_the_size(tmp_path, monkeypatch, newest_first, filters):
    """Progress grows, never exceeds the size, and reaches it when all segments were read or skipped."""
    monkeypatch.setattr(line_blocks, "BLOCK_BYTES", 1_000)
    progress = []
    reader = open_trail(hourly(tmp_path, packs=["plain", "gzip", "zstd", "plain", "gzip"]), progress=progress.append)
    for _ in range(2):
        progress.clear()
        reader.query_events(newest_first=newest_first, **filters)
        assert progress
        assert all(earlier < later for earlier, later in pairwise(progress))
        assert progress[-1] == reader.size()


def test_size_counts_stored_bytes(tmp_path):
    """The size is that of the stored files, packed or not."""
    path = write_trail(tmp_path, (1, ONE * 100), active=TWO, packs=["gzip"])
    assert open_trail(path, io.BytesIO(THREE)).size() == sum(file.stat().st_size for file in tmp_path.iterdir())


@pytest.mark.parametrize("pack", PACKS)
@pytest.mark.parametrize("newest_first", [False, True])
def test_memory_of_a_query_is_bounded(tmp_path, pack, newest_first):
    """The memory of a query does not grow with the files, in either direction, packed or not."""
    data = b"".join(line_of(number) for number in range(40_000))
    path = write_trail(tmp_path, (9, data), active=line_of(50_000), packs=[pack])
    reader = open_trail(path)
    tracemalloc.start()
    assert len(reader.query_events(newest_first=newest_first, limit=10, offset=20, status="SUCCESS")) == 10
    assert reader.query_events(newest_first=newest_first, limit=10, status="FAILURE") == []
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3_000_000 < len(data)


def test_unfinished_answer_leaves_no_file_open(tmp_path):
    """An answer that is not taken to its end leaves no file open."""
    path = write_trail(tmp_path, (9, ONE * 3), (10, TWO), active=THREE, packs=["gzip", "plain"])
    reader = open_trail(path)
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else 0
    for method in (reader.iter_events, lambda: reader.follow(since_now=False, stop=lambda: True, wait=pytest.fail)):
        events = method()
        next(events)
        del events
    reader.query_events(limit=1)
    reader.page(limit=1)
    after = len(os.listdir("/proc/self/fd")) if before else 0
    assert after == before


def test_reading_changes_no_file(tmp_path):
    """Reading does not change, create or touch a file of the trail."""
    path = write_trail(tmp_path, (9, BAD), active=BAD, packs=["gzip"])
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in tmp_path.iterdir()}
    folder = tmp_path.stat().st_mtime_ns
    reader = open_trail(path)
    reader.get_statistics()
    reader.open_intents()
    paged(reader, 1)
    list(reader.follow(stop=lambda: True, wait=pytest.fail))
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in tmp_path.iterdir()} == before
    assert tmp_path.stat().st_mtime_ns == folder


def test_pipe_is_a_trail_that_is_read_once(tmp_path):
    """Standard input, or any other stream, is a trail that can be read once."""
    reading, writing = os.pipe()
    os.write(writing, gzip.compress(ONE + TWO + b"junk\n"))
    os.close(writing)
    with open(reading, "rb") as file:
        reader = open_trail(file)
        assert (reader.size(), reader.complete_since) == (0, None)
        assert ids(reader.query_events(limit=1)) == [id_of(TWO)]
        assert reader.problems == {"foreign": 1}
        with pytest.raises(AuditReadError, match="once"):
            reader.query_events()
        with pytest.raises(AuditReadError, match="pages"):
            reader.page()


def test_open_intents_are_found_across_segments(tmp_path):
    """Intents without an outcome are found, also across segments."""
    intents = [line_of(number, kind="intent") for number in (1, 2)]
    outcome = line_of(3, metadata={"intent_id": id_of(intents[0])})
    path = write_trail(tmp_path, (2, intents[0]), (3, intents[1]), active=outcome, packs=["gzip", "plain"])
    assert ids(open_trail(path).open_intents()) == [id_of(intents[1])]


def test_export_documents_answer_as_their_trail(tmp_path):
    """Export documents give the answers of their trail; those in a folder are merged by time."""
    path = write_trail(tmp_path / "trail", active=b"".join(map(line_of, range(10))))
    reader = open_trail(path)
    (tmp_path / "exports").mkdir()
    for name, start in (("b", 0), ("a", 5)):
        events = reader.query_events(newest_first=False, limit=5, offset=start)
        reader.export_events(events, tmp_path / "exports" / f"{name}.json")
    exports = open_trail(tmp_path / "exports")
    assert list(exports.iter_events()) == list(reader.iter_events())
    assert exports.get_statistics() == reader.get_statistics()
    assert exports.query_events(limit=7) == reader.query_events(limit=7)
    assert paged(exports, 3, newest_first=True) == reader.query_events()
    assert exports.problems == {}


# --- files of other handlers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "formatter",
    [
        JsonFormatter("%(levelname)s %(name)s %(message)s"),
        JsonFormatter("%(message)s", static_fields={"service": "api"}),
        MsgspecFormatter("%(levelname)s %(message)s"),
        AuditJsonFormatter(static_fields={"service": "api"}),
        AuditJsonFormatter(),
    ],
)
def test_files_of_a_rotating_file_handler_are_read(tmp_path, formatter):
    """Files that a RotatingFileHandler with a JSON formatter wrote are read, with numbered names and extra members."""
    path = tmp_path / "app.log"
    target = logging.handlers.RotatingFileHandler(path, maxBytes=2_000, backupCount=50)
    target.setFormatter(formatter)
    handler = AuditHandler(target=target)
    for number in range(30):
        record = logging.LogRecord("audit", logging.INFO, "", 0, "STORE", (), None)
        extra = {"user_id": "zoë" if number % 2 else None, "tags": ["a", number], "entry_ids": [f"e{number}"]}
        record.__dict__.update(extra)
        handler.handle(record)
    record = logging.LogRecord("audit", logging.INFO, "", 0, "FORGET", (), None)
    record.__dict__["entry_ids"] = [f"entry_{number}" for number in range(5_000)]
    handler.handle(record)
    handler.flush()
    assert (tmp_path / "app.log.3").exists()
    reader = open_trail(path)
    events = list(reader.iter_events())
    expected = list(handler.iter_events())
    assert ids(events) == ids(expected)
    assert ids(reader.query_events(user_id="zoë", limit=3)) == ids(handler.query_events(user_id="zoë", limit=3))
    for event, other in zip(events, expected, strict=True):
        members = {**event.to_dict(), "metadata": other.metadata}
        assert members == other.to_dict()
        assert event.metadata.items() >= other.metadata.items()

    # Members that only the formatter adds are metadata here.
    has_others = any(set(event.metadata) > set(other.metadata) for event, other in zip(events, expected, strict=True))
    assert set(reader.problems) == ({"drift"} if has_others else set())
    handler.close()


def test_lines_of_other_loggers_are_foreign(tmp_path):
    """Lines of other loggers in the same file are foreign."""
    path = tmp_path / "app.log"
    path.write_bytes(b'{"message": "started", "levelname": "INFO"}\n' + ONE)
    reader = open_trail(path)
    assert reader.count_events() == 1
    assert reader.problems == {"foreign": 1}


def write_with_json_formatter(path):
    handler = logging.FileHandler(path)
    handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(message)s"))
    handler.handle(logging.LogRecord("app", logging.ERROR, "", 0, "document.delete", (), None))
    handler.close()


def write_with_structlog(path):
    with path.open("w") as file:
        processors = [structlog.processors.TimeStamper(fmt="iso"), structlog.processors.JSONRenderer()]
        structlog.wrap_logger(structlog.PrintLogger(file), processors=processors).error(
            "document.delete", user_id="ann"
        )


def write_with_loguru(path):
    sink = loguru.logger.add(path, serialize=True, filter=lambda record: record["extra"].get("path") == path)
    loguru.logger.bind(path=path).error("document.delete")
    loguru.logger.remove(sink)


@pytest.mark.parametrize("write", [write_with_json_formatter, write_with_structlog, write_with_loguru])
def test_records_of_other_libraries_are_counted(tmp_path, write):
    """A line of another logging library is not an event, and is counted: a reader never drops it in silence."""
    path = tmp_path / "app.log"
    write(path)
    reader = open_trail(path)
    assert reader.count_events() == 0
    assert reader.problems == {"foreign": 1}


def test_events_of_the_library_need_a_kind_filter(tmp_path):
    """Trail events and intents are left out unless a filter selects their kind."""
    path = write_trail(tmp_path, active=ONE + line_of(2, kind="gap") + line_of(3, kind="trail"))
    reader = open_trail(path)
    assert (reader.count_events(), reader.count_events(kind="gap"), reader.count_events(kind=[None, *Kind])) == (
        1,
        1,
        3,
    )


@pytest.mark.parametrize("limit", [0, -1])
def test_page_limit_below_one_is_an_error(tmp_path, limit):
    """A page must have room for at least one event."""
    with pytest.raises(AuditValueError, match="limit"):
        open_trail(write_trail(tmp_path, active=ONE)).page(limit=limit)
