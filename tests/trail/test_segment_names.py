"""Tests of `structlog_audit.trail.segment_names`: the names of the files of a trail."""

import datetime as dt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit.trail.segment_names import next_name, rolled_segments, rollover_time

BASE = "audit.jsonl"
MOMENT = dt.datetime(2025, 1, 15, 10, 30, 45, 123456, tzinfo=dt.UTC)

moments = st.datetimes(dt.datetime(1970, 1, 1), dt.datetime(2100, 1, 1)).map(lambda time: time.replace(tzinfo=dt.UTC))


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_rollover_time(suffix):
    """The name of a segment tells the time of its rollover, compressed or not."""
    assert rollover_time(BASE, f"audit.jsonl.20250115T103045.123456Z{suffix}") == MOMENT


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
def test_other_names_are_no_segments(name):
    """A name that is not exactly that of a segment of this trail is none."""
    assert rollover_time(BASE, name) is None
    assert rolled_segments(BASE, [name]) == []


@given(st.lists(moments, max_size=10))
@settings(max_examples=100, deadline=None)
def test_rolled_sorts_by_time(times):
    """For all segments, the oldest comes first, among whatever else lies in the folder."""
    names = [f"{BASE}.{time.strftime('%Y%m%dT%H%M%S.%fZ')}" for time in times]
    assert rolled_segments(BASE, [*names, BASE, "x"]) == sorted(names)


@given(st.lists(moments, min_size=1, max_size=30))
@settings(max_examples=200, deadline=None)
def test_names_increase_whatever_the_clock_does(times):
    """For all clocks, every next name is new and sorts behind all before it."""
    names = []
    for now in times:
        names.append(next_name(BASE, names, now))
    assert names == sorted(set(names))
    assert rolled_segments(BASE, reversed(names)) == names


def test_name_is_the_time_of_the_rollover():
    """Without a newer segment the name is the time; with one, a microsecond more than that."""
    name = next_name(BASE, [BASE, "x"], MOMENT)
    assert name == "audit.jsonl.20250115T103045.123456Z"
    for taken in (name, f"{name}.gz"):
        for now in (MOMENT, MOMENT - dt.timedelta(days=1)):
            assert next_name(BASE, [taken], now) == "audit.jsonl.20250115T103045.123457Z"
