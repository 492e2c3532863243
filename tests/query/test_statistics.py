"""What a set of events amounts to."""

import datetime as dt
import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import EventStatus, OperationType
from structlog_audit.query.statistics import Histogram, Sum, average, statistics, user_statistics

NOON = dt.datetime(2025, 1, 15, 12, tzinfo=dt.UTC)
DURATIONS = st.floats(min_value=1e-6, max_value=1e12)
EVENTS = st.lists(
    st.builds(
        StoredEvent,
        event_id=st.just("evt_1"),
        timestamp=st.integers(0, 10).map(lambda hours: NOON + dt.timedelta(hours=hours)),
        operation=st.sampled_from(["STORE", "RECALL", "delete", "ünï"]),
        user_id=st.sampled_from([None, "ann", "bob"]),
        status=st.sampled_from(list(EventStatus)),
        duration_ms=st.one_of(st.none(), DURATIONS),
    ),
    max_size=30,
)


def nearest_rank(durations, percent):
    """The exact percentile: the duration of rank ⌈p·n/100⌉, in whole numbers."""
    return sorted(durations)[max(1, -(-percent * len(durations) // 100)) - 1]


def histogram_of(durations):
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    return histogram


@settings(max_examples=100, deadline=None)
@given(durations=st.lists(DURATIONS, min_size=1, max_size=200), percent=st.integers(0, 100))
def test_percentiles_are_right_to_one_percent(durations, percent):
    """A percentile lies within 1 % of the exact one of nearest rank, for all durations."""
    exact = nearest_rank(durations, percent)
    assert math.isclose(histogram_of(durations).percentile(percent), exact, rel_tol=0.01)


@settings(max_examples=200, deadline=None)
@given(durations=st.lists(st.floats(0, 1.7e308), max_size=30))
def test_the_average_is_of_the_exact_sum(durations):
    """The average is that of the correctly rounded sum, added up at once or one by one; a sum beyond all floats has one too."""
    exact = sum(map(Fraction, durations))
    try:
        expected = float(exact) / len(durations) if durations else 0.0
    except OverflowError:
        expected = float(exact / len(durations))
    assert average(durations, len(durations)) == Sum(durations).average(len(durations)) == expected


def test_the_rank_is_exact_for_every_whole_percentage():
    """The rank is ⌈p·n/100⌉ in whole numbers: no rounding of p/100 moves it."""
    for count in (7, 20, 50, 100, 200):
        histogram = histogram_of(1.05**rank for rank in range(1, count + 1))
        for percent in range(1, 101):
            rank = -(-percent * count // 100)
            assert math.isclose(histogram.percentile(percent), 1.05**rank, rel_tol=0.01)


@settings(max_examples=50, deadline=None)
@given(left=st.lists(DURATIONS, max_size=50), right=st.lists(DURATIONS, max_size=50))
def test_histograms_add_up(left, right):
    """Two histograms add up to that of both."""
    assert histogram_of(left).buckets + histogram_of(right).buckets == histogram_of(left + right).buckets


@pytest.mark.parametrize("duration", [0.0, -5.0, 1e-9, 1e-6])
def test_no_duration_counts_as_a_nanosecond(duration):
    """Zero and less count as the least duration there is."""
    assert math.isclose(histogram_of([duration]).percentile(50), 1e-6, rel_tol=0.01)


@pytest.mark.parametrize("duration", [1e300, 1.7e308, 1.79e308, 1.7976931348623157e308])
def test_the_longest_duration_breaks_nothing(duration):
    """Every finite duration has a percentile, the largest number included."""
    assert math.isclose(histogram_of([duration]).percentile(50), duration, rel_tol=0.01)


def test_no_percentile_of_nothing():
    """Without durations every percentile is 0.0."""
    assert [Histogram().percentile(percent) for percent in (0, 50, 100)] == [0.0, 0.0, 0.0]


def test_statistics_of_nothing():
    """Without events the rate is 1.0, durations are 0.0, and every operation and status is counted as zero."""
    assert statistics([]) == {
        "total_events": 0,
        "success_rate": 1.0,
        "avg_duration_ms": 0.0,
        "p50_duration_ms": 0.0,
        "p95_duration_ms": 0.0,
        "p99_duration_ms": 0.0,
        "by_operation": dict.fromkeys(["STORE", "RECALL", "FORGET", "COMPACT", "EXPORT", "IMPORT"], 0),
        "by_status": {"SUCCESS": 0, "FAILURE": 0, "PARTIAL": 0},
        "by_user": {},
        "without_user": 0,
        "first_event": None,
        "last_event": None,
    }


@settings(max_examples=100, deadline=None)
@given(events=EVENTS)
def test_statistics(events):
    """Every number is that of a plain count, for all events."""
    found = statistics(iter(events))
    durations = [event.duration_ms for event in events if event.duration_ms is not None]
    assert found["total_events"] == len(events)
    succeeded = [event for event in events if event.status == "SUCCESS"]
    assert found["success_rate"] == (len(succeeded) / len(events) if events else 1.0)
    assert math.isclose(found["avg_duration_ms"], math.fsum(durations) / len(durations) if durations else 0.0)
    for percent in (50, 95, 99):
        exact = nearest_rank(durations, percent) if durations else 0.0
        assert math.isclose(found[f"p{percent}_duration_ms"], exact, rel_tol=0.01)
    operations = Counter(event.operation for event in events)
    assert found["by_operation"] == {member.value: 0 for member in OperationType} | dict(operations)
    assert found["by_status"] == {name: sum(e.status == name for e in events) for name in EventStatus}
    assert found["by_user"] == dict(Counter(event.user_id for event in events if event.user_id is not None))
    assert found["without_user"] == sum(event.user_id is None for event in events)
    assert found["first_event"] == (events[0].timestamp if events else None)
    assert found["last_event"] == (events[-1].timestamp if events else None)
    assert {type(name) for part in ("by_operation", "by_status", "by_user") for name in found[part]} <= {str}


def test_users_come_the_most_common_first():
    """The counts by user begin with the most active one."""
    events = [StoredEvent("e", NOON, "STORE", user_id=name) for name in "abbcccc"]
    assert list(statistics(events)["by_user"].items()) == [("c", 4), ("b", 2), ("a", 1)]


def test_an_unknown_user():
    """A user without events has 0, None and None."""
    found = user_statistics([])
    assert (found["total_operations"], found["last_activity"], found["most_common_operation"]) == (0, None, None)
    assert (found["success_rate"], found["by_operation"]) == (1.0, {})


@pytest.mark.parametrize(
    ("operations", "most_common"),
    [(["RECALL", "STORE", "STORE"], "STORE"), (["RECALL", "STORE"], "RECALL"), (["delete"], "delete")],
)
def test_the_most_common_operation(operations, most_common):
    """The most common operation is named as in events; of equals the one that came first counts."""
    found = user_statistics(StoredEvent("e", NOON, name) for name in operations)["most_common_operation"]
    assert (found, found.value, found.name) == (most_common, most_common, most_common)


@settings(max_examples=50, deadline=None)
@given(events=EVENTS)
def test_user_statistics(events):
    """Every number of a user's is that of a plain count."""
    found = user_statistics(iter(events))
    assert found["total_operations"] == len(events)
    assert found["last_activity"] == (events[-1].timestamp if events else None)
    assert found["by_operation"] == dict(Counter(event.operation for event in events))
    succeeded = sum(event.status == "SUCCESS" for event in events)
    assert found["success_rate"] == (succeeded / len(events) if events else 1.0)
