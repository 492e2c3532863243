"""The engine that reads every segment that may match: order, merging, limits and progress."""

from __future__ import annotations

import pytest
from trail_files import at, id_of, line_of, write_trail

from structlog_audit.query.filters import conditions
from structlog_audit.trail.reading.discovery import Segment, find_trails
from structlog_audit.trail.reading.scan_engine import ScanEngine
from structlog_audit.trail.reading.segment_scanner import SegmentScanner

HOUR = 3_600


def engine_of(*paths, progress=None):
    return ScanEngine(find_trails(list(paths)), SegmentScanner(), progress)


def answer(engine, newest_first=False, at_most=None, **filters):
    """Return the ids of the answer of *engine*."""
    found = engine.select(conditions(**filters), newest_first=newest_first, at_most=at_most)
    return [event.event_id for event in found]


LINES = [line_of(number) for number in range(12)]
IDS = [id_of(line) for line in LINES]


@pytest.fixture(params=["plain", "gzip", "zstd"])
def path(request, tmp_path):
    """A trail of two rolled segments, plain or packed, and an active one."""
    segments = [(4, b"".join(LINES[:4])), (8, b"".join(LINES[4:8]))]
    return write_trail(tmp_path, *segments, active=b"".join(LINES[8:]), packs=[request.param] * 2)


def test_segments_are_read_in_the_order_of_the_trail(path):
    """Each direction has the events of all segments, in the order of commit or its reverse."""
    engine = engine_of(path)
    assert answer(engine) == IDS
    assert answer(engine, newest_first=True) == IDS[::-1]


@pytest.mark.parametrize("at_most", [1, 3, 4, 5, 9, 99])
def test_answer_limited_to_some_events_has_the_newest(path, at_most):
    """An answer of which only some events will be read has at least these, the newest first."""
    engine = engine_of(path)
    assert answer(engine, newest_first=True, at_most=at_most)[:at_most] == IDS[::-1][:at_most]
    assert answer(engine, newest_first=False, at_most=at_most)[:at_most] == IDS[:at_most]


def test_packed_segment_keeps_no_more_events_than_will_be_read(tmp_path):
    """Of a segment that can only be read forwards, at most the requested number of events is kept."""
    write_trail(tmp_path, (4, b"".join(LINES[:8])), active=None, packs=["gzip"])
    (segment,) = tmp_path.iterdir()
    engine = engine_of(segment)
    assert answer(engine, newest_first=True, at_most=3) == IDS[7:4:-1]
    assert answer(engine, newest_first=True) == IDS[7::-1]


def test_trails_are_merged_by_time(tmp_path):
    """The events of several trails are in one order of time; the order within each trail is kept."""
    odd = write_trail(tmp_path / "odd", active=b"".join(LINES[1::2]))
    even = write_trail(tmp_path / "even", (6, b"".join(LINES[:6:2])), active=b"".join(LINES[6::2]), packs=["gzip"])
    engine = engine_of(odd, even)
    assert answer(engine) == IDS
    assert answer(engine, newest_first=True) == IDS[::-1]
    assert answer(engine, start_time=at(3), end_time=at(9)) == IDS[3:9]


def test_directions_of_events_with_equal_times_are_the_reverse_of_each_other(tmp_path):
    """Events of three trails with one timestamp have the order of the trails, and its reverse with the newest first."""
    lines = [[line_of(10 * trail + number, 5) for number in range(2)] for trail in range(3)]
    paths = [write_trail(tmp_path / f"t{trail}", active=b"".join(lines[trail])) for trail in range(3)]
    engine = engine_of(*paths)
    expected = [id_of(line) for of_trail in lines for line in of_trail]
    assert answer(engine) == expected
    assert answer(engine, newest_first=True) == expected[::-1]


@pytest.mark.parametrize("newest_first", [False, True])
def test_progress_counts_the_bytes_of_segments_read_and_skipped(path, newest_first):
    """Progress ends with the sizes of all segments, also of those that the time range excludes."""
    sizes = [segment.stat().st_size for segment in path.parent.iterdir()]
    for filters in ({}, {"start_time": at(99 * HOUR)}, {"end_time": at(-99 * HOUR)}):
        progress = []
        answer(engine_of(path, progress=progress.append), newest_first, **filters)
        assert progress[-1] == sum(sizes)
        assert progress == sorted(set(progress))


def test_missing_segment_is_passed_over(path, monkeypatch):
    """A segment that cannot be opened is left out, and the others are answered."""
    scanner = SegmentScanner()
    first = sorted(path.parent.iterdir())[1]
    real = Segment.opened

    def opened(segment):
        if segment.path == str(first):
            raise PermissionError(13, "Permission denied")
        return real(segment)

    monkeypatch.setattr(Segment, "opened", opened)
    engine = ScanEngine(find_trails([path]), scanner)
    assert answer(engine) == IDS[4:]
    assert answer(engine, newest_first=True) == IDS[:3:-1]
    assert scanner.problems.counts == {"unreadable": 1}


@pytest.mark.parametrize("newest_first", [False, True])
def test_packed_segment_may_hold_events_since_the_rollover_before_it(tmp_path, newest_first):
    """A packed segment is read for times before its first event, down to the rollover of the segment before it."""
    late, set_back = line_of(2, 5 * HOUR), line_of(3, 3 * HOUR)
    segments = [(HOUR, line_of(1, 0)), (6 * HOUR, late + set_back)]
    path = write_trail(tmp_path, *segments, active=line_of(4, 7 * HOUR), packs=["gzip", "gzip"])
    found = answer(engine_of(path), newest_first, start_time=at(2 * HOUR), end_time=at(4 * HOUR))
    assert found == [id_of(set_back)]
