"""Tests of `structlog_audit.buffer.index`: which runs are read, and how filters are combined."""

import datetime as dt
import json

import pytest

from structlog_audit.buffer import index as index_module
from structlog_audit.buffer.event_buffer import EventBuffer
from structlog_audit.buffer.index import Index, Run
from structlog_audit.query.filters import conditions

BEGIN = 1_700_000_000_000_000
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def line_of(number, **members):
    """Return the line of the event with this number, a second after the one before it."""
    timestamp = EPOCH + dt.timedelta(microseconds=BEGIN + number * 1_000_000)
    head = {"event_id": f"evt_{number:032x}", "timestamp": timestamp.isoformat(timespec="microseconds")[:26] + "Z"}
    line = {**head, "operation": "STORE", "status": "SUCCESS", **members}
    return json.dumps(line, separators=(",", ":")).encode() + b"\n"


def numbers(buffer, newest_first=False, **filters):
    found = buffer.select(conditions(**filters), newest_first=newest_first)
    return [int(event.event_id[4:], 16) for event in found]


def buffer_of(count, members_of, max_events=10_000):
    """Return a buffer with *count* events, whose members *members_of* returns by number."""
    buffer = EventBuffer(max_events)
    for number in range(count):
        buffer.append(line_of(number, **members_of(number)), BEGIN + number * 1_000_000)
    return buffer


def members_by_share(number):
    """Return a user that one event in 200 has, a session of one in 20, and two entries of one in 10 each."""
    return {
        "user_id": "rare" if number % 200 == 0 else "usual",
        "session_id": "some" if number % 20 == 0 else "other",
        "entry_ids": [f"e{number % 10}", f"e{(number + 3) % 10}"],
    }


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("filters", [
    {"user_id": "rare", "session_id": "some"},
    {"user_id": "rare", "session_id": "other"},
    {"user_id": ["rare", "absent"], "session_id": ["some", "other"]},
    {"user_id": "rare", "entry_ids": "e0"},
    {"user_id": "rare", "entry_ids": ["e0", "e3"]},
    {"session_id": "some", "entry_ids": ["e0", "e5"], "operation": "STORE"},
    {"user_id": "usual", "session_id": "some", "entry_ids": "e0"},
])  # fmt: skip
def test_rare_and_common_values_together_select_the_events_that_match_all(filters, newest_first):
    """However many events have the value of each filter, the answer has the events that match all of them, in order."""
    count = 2_000
    buffer = buffer_of(count, members_by_share)
    wanted = conditions(**filters)
    everything = buffer.select(conditions(), newest_first=newest_first)
    expected = [int(event.event_id[4:], 16) for event in everything if wanted.matches(event)]
    assert numbers(buffer, newest_first, **filters) == expected


def test_common_filter_is_searched_for_the_positions_of_a_rare_one():
    """Where a search is cheaper than reading all postings, it finds the positions that both filters select."""
    buffer = buffer_of(2_000, members_by_share)
    assert numbers(buffer, user_id="rare", entry_ids=["e0", "e3"]) == list(range(0, 2_000, 200))
    (run,) = buffer._index._runs
    slices = run.find("entry_ids", [index_module._key("e0")])
    assert run.positions_among("entry_ids", slices, [0, 1, 7, 10, 1_999]) == [0, 7, 10]
    slices = run.find("entry_ids", [index_module._key("e9"), index_module._key("e0")])
    assert run.positions_among("entry_ids", slices, [0, 1, 7, 9, 1_996, 1_999]) == [0, 7, 9, 1_996, 1_999]


@pytest.mark.parametrize(("low", "high", "overlaps"), [
    (None, None, True), (20, None, True), (21, None, False), (None, 10, False), (None, 11, True), (5, 15, True),
    (15, 16, True), (0, 9, False), (30, 40, False),
])  # fmt: skip
def test_run_overlaps_the_ranges_that_one_of_its_events_may_be_in(low, high, overlaps):
    """A run from 10 to 20 may have an event in a half-open range that begins by 20 and ends after 10."""
    assert Run(0, 2, 10, 20, {}).overlaps(low, high) is overlaps


def test_runs_of_a_merged_run_give_it_their_range():
    """A merged run has the first position and the last, the earliest time and the latest, whatever their order."""
    merged = Run.merged([Run(0, 3, 50, 90, {}), Run(3, 5, 10, 20, {}), Run(5, 9, 60, 70, {})])
    assert (merged.start, merged.stop, merged.earliest_us, merged.latest_us) == (0, 9, 10, 90)


@pytest.mark.parametrize(("max_events", "max_run"), [(10, 4_096), (32_768, 4_096), (80_000, 10_000), (2**30, 2**24)])
def test_run_has_at_most_an_eighth_of_the_buffer(max_events, max_run):
    """The limit of a run is an eighth of the buffer, but at least 4,096 events and at most what its bits distinguish."""
    index = Index(max_events)
    assert index.max_run == max_run
    assert index.capacity_at(0) == max_run
    assert index.capacity_at(index_module.MAX_RUN - 5) == 5
    assert index.capacity_at(index_module.MAX_RUN) == max_run


def test_query_by_time_reads_the_runs_of_that_time_only():
    """A run without an event in the time range gives no candidates."""
    buffer = EventBuffer(1_000)
    for number in range(30):
        buffer.append(line_of(number), BEGIN + number * 1_000_000)
        if number % 10 == 9:
            numbers(buffer)

    def second(number):
        return EPOCH + dt.timedelta(microseconds=BEGIN + number * 1_000_000)

    wanted = conditions(start_time=second(12), end_time=second(15))
    assert [list(run) for run in buffer._index.candidates(wanted, newest_first=False)] == [list(range(10, 20))]
    assert numbers(buffer, start_time=second(12), end_time=second(15)) == [12, 13, 14]


def test_filter_that_no_event_matches_gives_no_candidates():
    """If one of the filters matches no event of a run, no event of it is decoded."""
    buffer = buffer_of(100, members_by_share)
    for filters in ({"user_id": "absent"}, {"user_id": "rare", "session_id": "absent"}):
        assert numbers(buffer, **filters) == []
        assert list(buffer._index.candidates(conditions(**filters), newest_first=False)) == []


def test_candidates_of_two_filters_are_far_fewer_than_the_events():
    """Only events that the index finds by every filter are decoded."""
    buffer = buffer_of(2_000, members_by_share)
    wanted = conditions(user_id="rare", session_id="some")
    numbers(buffer, user_id="rare", session_id="some")
    assert [list(run) for run in buffer._index.candidates(wanted, newest_first=False)] == [list(range(0, 2_000, 200))]


def test_application_events_are_not_indexed_by_their_lack_of_a_kind():
    """Only events of the library have postings for their kind."""
    buffer = buffer_of(100, lambda number: {"kind": "gap"} if number % 10 == 0 else {})
    assert numbers(buffer, kind="gap") == list(range(0, 100, 10))
    assert [len(run.postings["kind"]) for run in buffer._index._runs] == [10]
