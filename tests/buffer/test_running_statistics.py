"""Tests of `structlog_audit.buffer.running_statistics`: statistics that go on while events come and go."""

import datetime as dt

import pytest

from structlog_audit.buffer import running_statistics
from structlog_audit.buffer.running_statistics import DictionaryColumn, RunningStatistics
from structlog_audit.events.codec import StoredEvent
from structlog_audit.query.statistics import bucket_of, statistics

NOON = dt.datetime(2025, 1, 15, 12, tzinfo=dt.UTC)


def event(number, **members):
    """Return the event with this number."""
    members = {"user_id": f"u{number % 3}", "duration_ms": float(number), **members}
    return StoredEvent(f"evt_{number}", NOON + dt.timedelta(seconds=number), "STORE", **members)


@pytest.mark.parametrize("step", [1, 2, 5])
def test_statistics_requested_after_each_step_equal_those_of_the_events_left(step):
    """However few events are evicted between two requests, the statistics are those of the events that are left."""
    events = [event(number, kind="gap" if number % 7 == 0 else None) for number in range(40)]
    running = RunningStatistics()
    for stop in range(step, 41, step):
        first = max(0, stop - 10)
        running.drop_before(first)
        running.extend(running.stop, events[running.stop : stop])
        left = [one for one in events[first:stop] if one.kind is None]
        assert running.statistics(lambda position: events[position].timestamp) == statistics(left)


def test_statistics_begin_at_the_first_event_left_if_more_were_evicted_than_counted():
    """If all counted events and some of the next were evicted, the statistics begin after them."""
    running = RunningStatistics()
    running.extend(0, [event(0), event(1)])
    running.drop_before(5)
    assert (running.start, running.stop) == (5, 5)
    running.extend(5, [event(5)])
    assert running.statistics(lambda position: event(position).timestamp) == statistics([event(5)])


def test_no_duration_is_counted_as_none():
    """The bucket of events without a duration is below that of the shortest one."""
    assert bucket_of(0.0) > running_statistics._UNTIMED


def test_values_without_events_are_forgotten():
    """Once a thousand values, and as many again as are in use, have no events, only those in use are kept, and counted."""
    column = DictionaryColumn()
    column.extend([f"u{number}" for number in range(2_300)])
    column.drop(1_650)
    assert len(column._values) == 2_300 == 1_000 + 2 * 650
    column.drop(1)
    assert column._values == [f"u{number}" for number in range(1_651, 2_300)]
    column.extend(["u1", "u2299"])
    assert column.counts() == {f"u{number}": 1 for number in range(1_651, 2_299)} | {"u2299": 2, "u1": 1}
