"""Tests of `structlog_audit.events.event_id`: ids and timestamps."""

import datetime as dt
import json
import re

import pytest
from conftest import Interruption
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit.events import event_id as stamp_module
from structlog_audit.events.codec import HEAD_BYTES
from structlog_audit.events.event_id import Stamp, millisecond_of, parse_event_id

# 2025-01-15T10:30:45.123456Z
NOW = 1_736_937_045_123_456_000


def stamped(stamp, times=1):
    """Return the members of the next lines."""
    return [json.loads(stamp.line(b'"operation":"X"}')) for _ in range(times)]


def clock_of(ticks):
    ticks = iter(ticks)
    return lambda: next(ticks)


def test_line_is_head_payload_and_line_feed():
    """A line is the head, the payload and an LF."""
    line = Stamp(lambda: NOW, lambda bits: 0).line(b'"operation":"X"}')
    assert line == (
        b'{"event_id":"evt_01946983fc8370008000000000000000","timestamp":"2025-01-15T10:30:45.123456Z","operation":"X"}\n'
    )
    assert line.index(b'"operation"') == HEAD_BYTES


def test_percent_signs_in_a_payload_stay():
    """Percent signs in a payload have no special role."""
    assert json.loads(Stamp().line(b'"operation":"100% %s %%"}'))["operation"] == "100% %s %%"


def test_parts_name_the_first_line():
    """The lines of an event in parts are in order, and each part names the first."""
    payload = b'"operation":"X"}\n"operation":"Y"}\n"operation":"Z"}'
    first, *parts = map(json.loads, Stamp().line(payload).splitlines())
    assert "part_of" not in first
    assert [part["part_of"] for part in parts] == [first["event_id"]] * 2
    assert first["event_id"] < parts[0]["event_id"] < parts[1]["event_id"]


@given(
    st.lists(st.integers(0, 4 * 10**18) | st.integers(NOW - 5_000_000, NOW + 5_000_000), min_size=1, max_size=50),
    st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_ids_increase_whatever_the_clock_does(ticks, random):
    """For all clocks, back and forth, ids are UUIDv7 and increase strictly, and timestamps are the clock's, 27 wide."""
    stamp = Stamp(clock_of(ticks), random.getrandbits)
    members = stamped(stamp, len(ticks))
    ids = [member["event_id"] for member in members]
    assert ids == sorted(set(ids))
    assert all(re.fullmatch("evt_[0-9a-f]{12}7[0-9a-f]{3}[89ab][0-9a-f]{15}", event_id) for event_id in ids)
    for tick, member in zip(ticks, members, strict=True):
        assert len(member["timestamp"]) == 27
        expected = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=tick // 1_000)
        assert dt.datetime.fromisoformat(member["timestamp"]) == expected
    assert stamp.timestamp_us == ticks[-1] // 1_000


def test_id_contains_the_millisecond():
    """The first 48 bits of an id are the milliseconds since 1970."""
    (member,) = stamped(Stamp(lambda: NOW))
    assert int(member["event_id"][4:16], 16) == NOW // 1_000_000


def test_sequence_numbers_count_up_from_0_whatever_the_clock_does():
    """The sequence numbers of a writer are 0, 1, 2 …, across milliseconds, clock steps and blocks of 256 ids."""
    ticks = [NOW + offset * 1_000_000 for offset in (0, 0, 1, 5, -3, 5_000)] * 200
    stamp = Stamp(clock_of(ticks))
    parts = [parse_event_id(member["event_id"]) for member in stamped(stamp, len(ticks))]
    assert [part.number for part in parts] == list(range(len(ticks)))
    assert len({part.writer for part in parts}) == 1


def test_renew_begins_a_new_writer_at_0():
    """After `renew` the next line has another writer and the sequence number 0, also within a millisecond."""
    stamp = Stamp(lambda: NOW)
    before = [parse_event_id(member["event_id"]) for member in stamped(stamp, 3)]
    stamp.renew()
    after = [parse_event_id(member["event_id"]) for member in stamped(stamp, 2)]
    assert [part.number for part in before + after] == [0, 1, 2, 0, 1]
    assert before[-1].writer != after[0].writer == after[1].writer


def test_sequence_numbers_beyond_32_bits_belong_to_a_new_writer():
    """After the sequence number 2³² - 1 a new writer begins at 0."""
    bits = iter([1, 2])
    stamp = Stamp(lambda: NOW, lambda count: next(bits))
    stamped(stamp)
    stamp._block, stamp._count = (1 << 24) - 1, 255 - 1
    stamp._begin_format(NOW // 1_000)
    last, first = (parse_event_id(member["event_id"]) for member in stamped(stamp, 2))
    assert (last.number, first.number) == (2**32 - 1, 0)
    assert last.writer != first.writer


def test_lines_equal_the_published_vector():
    """Writer, sequence number and timestamp form the line of the published test vector, byte for byte."""
    later = 0x0197F3A0C1D2 * 1_000_000
    stamp = Stamp(clock_of([later, NOW + 4_000]), lambda bits: 0xD1E << 30 | 0x1B0C5D8E)
    stamp.line(b"}")
    assert stamp.line(b'"operation":"STORE","user_id":"user_123","status":"SUCCESS"}') == (
        b'{"event_id":"evt_0197f3a0c1d27d1e9b0c5d8e00000001","timestamp":"2025-01-15T10:30:45.123460Z",'
        b'"operation":"STORE","user_id":"user_123","status":"SUCCESS"}\n'
    )


@pytest.mark.parametrize("text", ["", "evt_1", "x" * 36, "evt_01946983fc8360008000000000000001", None, 5])
def test_other_ids_have_no_parts(text):
    """An id of another form has neither millisecond nor writer."""
    assert parse_event_id(text) is None
    assert millisecond_of(text) is None


def ids_interrupted_at(step, begin):
    """Return milliseconds and ids of lines, one of which an exception ends before its *step*, counted over all."""
    now, given = NOW, []
    stamp = Stamp(lambda: now, lambda bits: 1)
    for _ in range(begin):
        stamp.line(b"}")

    def on_signal():
        raise TimeoutError

    interruption = Interruption(step, on_signal, stamp_module)
    for number in range(20):
        now = NOW + 1_000_000 * (number > 3)
        try:
            with interruption:
                line = stamp.line(b'"operation":"X"}')
        except TimeoutError:
            continue
        given.append((now // 1_000_000, json.loads(line)["event_id"]))
    return given


@pytest.mark.parametrize("begin", [0, 250, 255])
def test_ids_stay_unique_after_an_interruption(begin):
    """Wherever an exception of a signal handler ends a line, no id repeats, and ids contain the time."""
    for step in range(1, 100):
        given = ids_interrupted_at(step, begin)
        ids = [event_id for _, event_id in given]
        assert len(ids) == 19
        assert ids == sorted(set(ids))
        assert all(int(event_id[4:16], 16) == millisecond for millisecond, event_id in given)


def test_id_with_all_random_bits_set_is_valid():
    """With all random bits set, version and variant are right, and the ids still count up."""
    stamp = Stamp(lambda: NOW, lambda bits: 2**bits - 1)
    one, other = (member["event_id"] for member in stamped(stamp, 2))
    assert one == "evt_01946983fc837fffbfffffff00000000"
    assert other == "evt_01946983fc837fffbfffffff00000001"


def test_writers_have_different_ids():
    """Two writers at the same timestamp have different ids."""
    ids = {stamped(Stamp(lambda: NOW))[0]["event_id"] for _ in range(50)}
    assert len(ids) == 50
