"""Tests of `structlog_audit.trail.segment_names`: the names of the files of a trail."""

import datetime as dt
import errno

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit.trail.segment_names import (
    ACTIVE,
    base_of,
    is_numbered,
    next_name,
    order_of,
    rolled_segments,
    rollover_time,
)

BASE = "audit.jsonl"
TIME = dt.datetime(2025, 1, 15, 10, 30, 45, 123456, tzinfo=dt.UTC)

times = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2100, 1, 1)).map(lambda time: time.replace(tzinfo=dt.UTC))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_rollover_time_is_part_of_the_name_of_a_segment(suffix):
    """The name of a rolled segment contains its rollover time, compressed or not."""
    assert rollover_time(BASE, f"audit.jsonl.20250115T103045.123456Z{suffix}") == TIME


@pytest.mark.parametrize(
    "name",
    [
        "audit.jsonl",
        "audit.jsonl.1",
        "audit.jsonl.20251315T103045.123456Z",
        "audit.jsonl.20250115T103045.123456",
        "audit.jsonl.20250115T103045.123456Z.tmp",
        "audit.jsonl.20250115T103045.123456Z.gz.gz",
        "other.jsonl.20250115T103045.123456Z",
        "audit.jsonl2.20250115T103045.123456Z",
        ".audit.jsonl.20250115T103045.123456Z",
        "",
    ],
)
def test_names_of_other_files_are_not_segments(name):
    """A name that differs from that of a rolled segment of this trail has no rollover time and is left out."""
    assert rollover_time(BASE, name) is None
    assert rolled_segments(BASE, [name]) == []


@given(st.lists(times, max_size=10))
@settings(max_examples=100, deadline=None)
def test_rolled_segments_are_sorted_by_time(times):
    """For all segments, the oldest comes first, and other files in the folder are left out."""
    names = [f"{BASE}.{time.strftime('%Y%m%dT%H%M%S.%fZ')}" for time in times]
    assert rolled_segments(BASE, [*names, BASE, "x"]) == sorted(names)


@given(st.lists(times, min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_next_names_increase_for_any_clock(times):
    """For all sequences of clock times, each next name is new and sorts after all earlier ones."""
    names = []
    for now in times:
        names.append(next_name(BASE, names, now))
    assert names == sorted(set(names))
    assert rolled_segments(BASE, reversed(names)) == names


def test_next_name_is_the_time_of_the_rollover():
    """Without a newer segment, the name is the time of the rollover."""
    assert next_name(BASE, [BASE, "x"], TIME) == "audit.jsonl.20250115T103045.123456Z"


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("now", [TIME, TIME - dt.timedelta(days=1)])
def test_next_name_adds_a_microsecond_to_a_newer_segment(now, suffix):
    """If a segment is as new as the rollover or newer, the name is its time plus one microsecond."""
    taken = f"audit.jsonl.20250115T103045.123456Z{suffix}"
    assert next_name(BASE, [taken], now) == "audit.jsonl.20250115T103045.123457Z"


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    "dated",
    [
        ["-20250115", "-20250116"],
        ["-2025011509", "-2025011510"],
        ["-1736937000", "-1736937001"],
        [".2025-01-15", ".2025-01-15_10", ".2025-01-15_10-30", ".2025-01-15_10-30-01", ".2025-02-01"],
        [".9", ".1", "-20250115", ".20260115T103045.123456Z", ""],
    ],
)
def test_files_of_other_programs_are_segments_in_their_order(dated, suffix):
    """Names of logrotate's dateext and of the handlers of the standard library belong to the trail and sort by time."""
    names = [BASE + name + (suffix if name else "") for name in dated]
    assert sorted(names[1:] + names[:1], key=lambda name: order_of(BASE, name)) == names
    assert {base_of(name) for name in names} == {BASE}


@pytest.mark.parametrize("name", ["-20251315", "-2025", "-20250115.bak", "-20250115.jsonl", "-2025011", ".backup", "~"])
def test_similar_names_are_not_files_of_the_trail(name):
    """A name that only resembles a date is not a segment."""
    assert order_of(BASE, BASE + name) is None


def test_file_of_another_program_has_no_rollover_time():
    """The date in a name of another program is not the time of a rollover: retention leaves the file alone."""
    assert rollover_time(BASE, f"{BASE}-20250115") is None


@pytest.mark.parametrize(("name", "expected"), [
    ("", False),
    (".0", True),
    (".1", True),
    (".999.gz", True),
    ("-20250115", False),
    (".20250115T103045.123456Z", False),
])  # fmt: skip
def test_numbered_files_are_those_whose_names_change(name, expected):
    """A file with a number changes its name at each rollover; a dated one and the active one do not."""
    assert is_numbered(order_of(BASE, BASE + name)) is expected


def test_active_segment_has_a_place_of_its_own():
    """The active segment comes last, and its name is that of the trail."""
    assert order_of(BASE, BASE) == ACTIVE
    assert base_of(BASE) == BASE


@pytest.mark.parametrize("name", ["x", "x.1", "udit.jsonl.1", "-20250115", "b.jsonl.20250115T103045.123456Z"])
def test_file_with_another_base_has_no_place(name):
    """A file whose name does not begin with that of the trail does not belong to it."""
    assert order_of(BASE, name) is None
    assert rollover_time(BASE, name) is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (".7", (0, -7)),
        (".007.zst", (0, -7)),
        (".2025-01-15", (0, 20_250_115_000_000)),
        ("-2025011510", (0, 20_250_115_100_000)),
        (".2025-01-15_10-30-01", (0, 20_250_115_103_001)),
        (".20250115T103045.123456Z.gz", (1, TIME)),
    ],
)
def test_place_is_the_number_or_the_time_in_the_name(name, place):
    """Files of other programs come before those of this library, and sort by their number or date."""
    assert order_of(BASE, BASE + name) == place


def test_segment_of_the_end_of_time_leaves_no_name():
    """After the last possible name, the rollover fails with the reason."""
    last = f"{BASE}.99991231T235959.999999Z"
    with pytest.raises(OSError, match="9999") as caught:
        next_name(BASE, [last], TIME)
    assert caught.value.errno == errno.EOVERFLOW
