"""Time ranges of segments and blocks: what is skipped, and what never is."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
from itertools import pairwise

import pytest
from trail_files import at, id_of, ids, line_of, retention_event, write_trail

from structlog_audit import open_trail
from structlog_audit.query.filters import conditions
from structlog_audit.trail.reading.line_blocks import LineBlock
from structlog_audit.trail.reading.time_ranges import (
    SAMPLES,
    SLACK,
    first_timestamps,
    is_block_outside,
    is_range_outside,
    sample_timestamps,
    time_range_of,
)

HOUR = 3_600
MICROSECOND = dt.timedelta(microseconds=1)


@pytest.mark.parametrize(("filters", "is_outside"), [
    ({}, False),
    ({"start_time": at(20) + SLACK}, False),
    ({"start_time": at(20) + SLACK + MICROSECOND}, True),
    ({"end_time": at(10) - SLACK}, False),
    ({"end_time": at(10) - SLACK - MICROSECOND}, True),
    ({"start_time": at(0), "end_time": at(30)}, False),
    ({"start_time": at(10_000), "end_time": at(20_000)}, True),
    ({"start_time": at(-20_000), "end_time": at(-10_000)}, True),
])  # fmt: skip
def test_segment_is_skipped_if_its_range_is_more_than_ten_minutes_away(filters, is_outside):
    """A range from 10 to 20 s is outside of one that begins more than the slack after it, or ends so much before it."""
    assert dt.timedelta(minutes=10) == SLACK
    assert is_range_outside((at(10), at(20)), conditions(**filters)) is is_outside


def test_range_of_a_segment_covers_its_events_and_the_rollovers_around_it():
    """The range goes from the earliest to the latest of all known times, whatever their order."""
    assert time_range_of([at(5), at(3), at(9)]) == (at(3), at(9))
    assert time_range_of([at(5)], None, at(7)) == (at(5), at(7))
    assert time_range_of([at(5)], at(1), None) == (at(1), at(5))
    assert time_range_of([at(5)], at(6), at(2)) == (at(2), at(6))


def block_of(*lines):
    return LineBlock(0, b"".join(lines))


@pytest.mark.parametrize(("filters", "is_outside"), [
    ({}, False),
    ({"start_time": at(11)}, True),
    ({"start_time": at(10)}, False),
    ({"start_time": at(9)}, False),
    ({"end_time": at(9)}, True),
    ({"end_time": at(10)}, False),
    ({"end_time": at(11)}, False),
    ({"start_time": at(11), "end_time": at(12)}, True),
    ({"start_time": at(8), "end_time": at(9)}, True),
    ({"start_time": at(9), "end_time": at(11)}, False),
])  # fmt: skip
def test_block_is_skipped_if_all_of_its_lines_are_outside(filters, is_outside):
    """A block with one event is outside of the ranges that the event is outside of, at the latest of those that end with it."""
    assert is_block_outside(block_of(line_of(1, 10)), conditions(**filters)) is is_outside


@pytest.mark.parametrize(
    "other", [b"torn\n", b"\n", b"{}\n", b'{"timestamp":"2025-01-15T20:00:00Z"}\n', line_of(1, 200)]
)
@pytest.mark.parametrize("is_first", [True, False])
def test_block_with_a_line_that_may_be_inside_is_read(other, is_first):
    """One line that is inside, or of another form than that of the library, keeps the whole block."""
    lines = [other, line_of(2, 10)] if is_first else [line_of(2, 10), other]
    wanted = conditions(start_time=at(100), end_time=at(300))
    assert not is_block_outside(block_of(*lines), wanted)
    assert is_block_outside(block_of(line_of(1, 10), line_of(2, 20), line_of(3, 400)), wanted)


def sampled(data):
    return sample_timestamps(io.BytesIO(data), len(data))


def test_samples_are_the_first_the_last_and_those_between():
    """Of a long segment, the first and the last timestamp are sampled, and one in each sixteenth between."""
    lines = [line_of(number) for number in range(20_000)]
    found = sampled(b"".join(lines))
    assert (found[0], found[-1], len(found)) == (at(0), at(19_999), SAMPLES + 1)
    assert found == sorted(found)
    distances = [(later - earlier).total_seconds() for earlier, later in pairwise(found)]
    assert all(1_240 < distance < 1_260 for distance in distances)


@pytest.mark.parametrize(("lines", "expected"), [
    ([b"", ], []),
    ([b"junk\n", b"more junk\n"], []),
    ([line_of(5)], [at(5), at(5)]),
    ([b"junk\n", line_of(5), line_of(6), b"{}\n", b"torn"], [at(5), at(6)]),
    ([b'{"timestamp":"2025-01-15T10:30:07"}\n', b'{"timestamp":5}\n', line_of(6)], [at(6), at(6)]),
])  # fmt: skip
def test_samples_of_a_short_segment_are_its_readable_ends(lines, expected):
    """Lines without a readable timestamp, or without a zone, are passed over; without any there are no samples."""
    found = sampled(b"".join(lines))
    assert [*found[:1], *found[1:][-1:]] == expected


def test_segment_with_an_unreadable_end_has_no_samples():
    """If the first or the last kilobytes have no readable timestamp, nothing is known of the segment."""
    junk = b"x" * 70_000 + b"\n"
    assert sampled(line_of(1) + junk) == []
    assert sampled(junk + line_of(1)) == []
    found = sampled(line_of(1) + junk + line_of(2))
    assert (found[0], set(found[1:])) == (at(1), {at(2)})


def test_first_timestamp_is_that_of_the_first_readable_line():
    """Of compressed data only the first timestamp is known."""
    assert first_timestamps(b"junk\n" + line_of(5) + line_of(6)) == [at(5)]
    assert first_timestamps(line_of(5)[:-1]) == []
    assert first_timestamps(b"") == []


def test_packed_segment_whose_name_tells_no_time_is_never_skipped(tmp_path):
    """A numbered file that is compressed is read for any range, because only its first event is known without reading it."""
    late = line_of(2, 5 * HOUR)
    (tmp_path / "app.log.1.gz").write_bytes(gzip.compress(line_of(1, 0) + late))
    (tmp_path / "app.log").write_bytes(line_of(3, 9 * HOUR))
    path = tmp_path / "app.log"
    assert ids(open_trail(path).iter_events(start_time=at(4 * HOUR), end_time=at(6 * HOUR))) == [id_of(late)]
    early = line_of(0, -5 * HOUR)
    (tmp_path / "app.log.1.gz").write_bytes(gzip.compress(line_of(1, 0) + early))
    assert ids(open_trail(path).iter_events(end_time=at(-4 * HOUR))) == [id_of(early)]


@pytest.mark.parametrize("kind", [None, "gap", "intent"])
def test_event_named_retention_of_another_kind_says_nothing_of_deleted_segments(tmp_path, kind):
    """Only a trail event tells which segments retention has deleted; an application's event of that name does not."""
    lines = []
    for number in (1, 2):
        event = json.loads(retention_event(number, 10, 20))
        del event["kind"]
        if kind is not None:
            event["kind"] = kind
        lines.append(json.dumps(event, separators=(",", ":")).encode() + b"\n")

    path = write_trail(tmp_path, (40, lines[0]), active=line_of(50) + lines[1])
    reader = open_trail(path)
    assert reader.complete_since is None
    assert reader.count_events(kind=kind, operation="retention") == 2
    assert reader.complete_since is None
    path.write_bytes(retention_event(1, 10, 20))
    assert open_trail(path).complete_since == at(20)
