"""Events from files: parts, empty and torn lines, and the newest of several segments."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit.codec import decode
from structlog_audit.reader import newest_events, stored_lines

BEGIN = 1_736_937_000_000_000  # 2025-01-15T10:30:00Z


def line_of(number, part_of=None, second=None, entry="e"):
    time = f"2025-01-15T10:30:{number % 60 if second is None else second:02d}.000000Z"
    members = {"event_id": f"evt_{number:032x}", "timestamp": time}
    if part_of is not None:
        members |= {"part_of": f"evt_{part_of:032x}"}
    members |= {"operation": "STORE", "entry_ids": [f"{entry}{number}"]}
    members |= {"kind": "part"} if part_of is not None else {"status": "SUCCESS"}
    return json.dumps(members, separators=(",", ":")).encode() + b"\n"


def file_of(folder, data, name="audit.jsonl"):
    path = folder / name
    path.write_bytes(data)
    return path


ONE, TWO, THREE = line_of(1), line_of(2), line_of(3)
PART, LAST_PART = line_of(2, part_of=1), line_of(3, part_of=1)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", []),
        (ONE, [ONE]),
        (ONE + TWO, [ONE, TWO]),
        (b"\n" + ONE + b"\n\n" + TWO + b"\n", [ONE, TWO]),
        (ONE + TWO[:-1], [ONE]),
        (ONE + TWO[:50], [ONE]),
        (ONE[:-1], []),
        (ONE + PART, [ONE + PART]),
        (ONE + PART + LAST_PART + line_of(4), [ONE + PART + LAST_PART, line_of(4)]),
        (ONE + PART + LAST_PART[:-1], [ONE + PART]),
        (ONE + b"\n" + PART, [ONE + PART]),
        (b"not json\n" + ONE, [b"not json\n", ONE]),
        (ONE[:60] + b"\n" + ONE, [ONE[:60] + b"\n", ONE]),
    ],
)
def test_stored_lines(tmp_path, data, expected):
    """Lines come whole and with their parts; empty lines and a last line without LF are left out."""
    assert list(stored_lines(file_of(tmp_path, data))) == expected


def test_an_event_in_parts_is_decoded_as_one(tmp_path):
    """The entry ids of the parts are those of the event."""
    (lines,) = stored_lines(file_of(tmp_path, ONE + PART + LAST_PART))
    assert decode(lines).entry_ids == ["e1", "e2", "e3"]


def test_the_newest_of_several_segments(tmp_path):
    """The newest events come from the last segments, the oldest first; older segments are not read when it is enough."""
    old = file_of(tmp_path, b"never read\n" + line_of(0), "old")
    middle = file_of(tmp_path, ONE + TWO, "middle")
    active = file_of(tmp_path, THREE, "active")
    events, left_out, unreadable = newest_events([old, middle, active], 2)
    assert events == [(TWO, BEGIN + 2_000_000), (THREE, BEGIN + 3_000_000)]
    assert left_out == BEGIN + 1_000_000
    assert unreadable == 0


def test_all_there_is(tmp_path):
    """When all fit, nothing is left out; what is no event is counted and skipped."""
    old = file_of(tmp_path, ONE + b"\x00\xff\n" + b'{"event_id":1}\n' + TWO, "old")
    active = file_of(tmp_path, THREE + b"half of a l", "active")
    events, left_out, unreadable = newest_events([old, active], 10)
    assert [line for line, _ in events] == [ONE, TWO, THREE]
    assert left_out is None
    assert unreadable == 2


@pytest.mark.parametrize("segments", [0, 1, 2])
def test_nothing_there(tmp_path, segments):
    """Without segments, or with empty ones, there are no events and nothing is missing."""
    assert newest_events([file_of(tmp_path, b"", str(n)) for n in range(segments)], 5) == ([], None, 0)


def test_the_latest_moment_left_out_counts(tmp_path):
    """After a clock step the latest moment that was left out counts, not the last one."""
    seconds = [50, 10, 20, 30]
    path = file_of(tmp_path, b"".join(line_of(number, second=second) for number, second in enumerate(seconds)))
    _, left_out, _ = newest_events([path], 1)
    assert left_out == BEGIN + 50_000_000


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 6), max_size=4), count=st.integers(1, 12), parts=st.sets(st.integers(0, 20)))
def test_the_newest_are_the_end_of_all(tmp_path_factory, sizes, count, parts):
    """However events lie in segments, and whichever have parts: the newest are the end of all of them."""
    folder = tmp_path_factory.mktemp("segments")
    everything, segments = [], []
    for index, size in enumerate(sizes):
        own = []
        for _ in range(size):
            number = len(everything)
            own.append(line_of(number) + (line_of(100 + number, part_of=number) if number in parts else b""))
            everything.append(own[-1])
        segments.append(file_of(folder, b"\n".join([b"", *own]), str(index)))
    events, left_out, unreadable = newest_events(segments, count)
    assert [line for line, _ in events] == everything[-count:]
    assert (left_out is not None) == (len(everything) > count)
    assert unreadable == 0
