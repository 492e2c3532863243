"""Tests of the statistics of events: counts, rates, averages and percentiles."""

import datetime as dt
import math
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import EventStatus, OperationType
from structlog_audit.query.statistics import Histogram, Sum, average, statistics, statistics_by_user, user_statistics

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
    """Return the exact percentile: the duration of rank ⌈p·n/100⌉, in integer arithmetic."""
    return sorted(durations)[max(1, -(-percent * len(durations) // 100)) - 1]


def histogram_of(durations):
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    return histogram


@settings(max_examples=100, deadline=None)
@given(durations=st.lists(DURATIONS, min_size=1, max_size=200), percent=st.integers(0, 100))
def test_percentiles_have_an_error_of_at_most_one_percent(durations, percent):
    """A percentile is within 1 % of the exact one of nearest rank, for all durations."""
    exact = nearest_rank(durations, percent)
    assert math.isclose(histogram_of(durations).percentile(percent), exact, rel_tol=0.01)


@settings(max_examples=200, deadline=None)
@given(durations=st.lists(st.floats(0, 1.7e308), max_size=30))
def test_average_is_that_of_the_exact_sum(durations):
    """The average is that of the correctly rounded sum, in one call or one by one, even if the sum exceeds all floats."""
    exact = sum(map(Fraction, durations))
    try:
        expected = float(exact) / len(durations) if durations else 0.0
    except OverflowError:
        expected = float(exact / len(durations))
    assert average(durations, len(durations)) == Sum(durations).average(len(durations)) == expected


def test_rank_is_exact_for_every_whole_percentage():
    """The rank is ⌈p·n/100⌉ in integer arithmetic: rounding of p/100 does not shift it."""
    for count in (7, 20, 50, 100, 200):
        histogram = histogram_of(1.05**rank for rank in range(1, count + 1))
        for percent in range(1, 101):
            rank = -(-percent * count // 100)
            assert math.isclose(histogram.percentile(percent), 1.05**rank, rel_tol=0.01)


@settings(max_examples=50, deadline=None)
@given(left=st.lists(DURATIONS, max_size=50), right=st.lists(DURATIONS, max_size=50))
def test_sum_of_histograms_is_the_histogram_of_both(left, right):
    """The sum of two histograms is the histogram of the durations of both."""
    assert histogram_of(left).buckets + histogram_of(right).buckets == histogram_of(left + right).buckets


@pytest.mark.parametrize("duration", [0.0, -5.0, 1e-9, 1e-6])
def test_zero_and_negative_durations_count_as_a_nanosecond(duration):
    """Zero and negative durations count as the shortest duration, a nanosecond."""
    assert math.isclose(histogram_of([duration]).percentile(50), 1e-6, rel_tol=0.01)


@pytest.mark.parametrize("duration", [1e300, 1.7e308, 1.79e308, 1.7976931348623157e308])
def test_longest_finite_durations_have_percentiles(duration):
    """Every finite duration has a percentile, up to the largest float."""
    assert math.isclose(histogram_of([duration]).percentile(50), duration, rel_tol=0.01)


def test_percentiles_without_durations_are_zero():
    """Without durations, every percentile is 0.0."""
    assert [Histogram().percentile(percent) for percent in (0, 50, 100)] == [0.0, 0.0, 0.0]


def test_statistics_without_events_have_defaults():
    """Without events, the rate is 1.0, durations are 0.0, and all six operations and statuses count zero."""
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
def test_statistics_of_durations_equal_plain_calculations(events):
    """Average and percentiles equal plain calculations, for all events."""
    found = statistics(iter(events))
    durations = [event.duration_ms for event in events if event.duration_ms is not None]
    assert math.isclose(found["avg_duration_ms"], math.fsum(durations) / len(durations) if durations else 0.0)
    for percent in (50, 95, 99):
        exact = nearest_rank(durations, percent) if durations else 0.0
        assert math.isclose(found[f"p{percent}_duration_ms"], exact, rel_tol=0.01)


@settings(max_examples=100, deadline=None)
@given(events=EVENTS)
def test_counts_equal_plain_counts(events):
    """Totals, rates and counts by operation, status and user equal plain counts, for all events."""
    found = statistics(iter(events))
    assert found["total_events"] == len(events)
    succeeded = [event for event in events if event.status == "SUCCESS"]
    assert found["success_rate"] == (len(succeeded) / len(events) if events else 1.0)
    operations = Counter(event.operation for event in events)
    assert found["by_operation"] == {member.value: 0 for member in OperationType} | dict(operations)
    assert found["by_status"] == {name: sum(e.status == name for e in events) for name in EventStatus}
    assert found["by_user"] == dict(Counter(event.user_id for event in events if event.user_id is not None))
    assert found["without_user"] == sum(event.user_id is None for event in events)


@given(events=EVENTS)
def test_first_and_last_event_are_those_of_the_commit_order(events):
    """The first and last times are those of the first and last event, for all events."""
    found = statistics(iter(events))
    assert found["first_event"] == (events[0].timestamp if events else None)
    assert found["last_event"] == (events[-1].timestamp if events else None)


@given(events=EVENTS)
def test_names_in_counts_are_plain_strings(events):
    """The keys of all counts are of the type str itself."""
    found = statistics(iter(events))
    assert {type(name) for part in ("by_operation", "by_status", "by_user") for name in found[part]} <= {str}


def test_counts_by_user_begin_with_the_most_active():
    """The counts by user are ordered by activity, highest first."""
    events = [StoredEvent("e", NOON, "STORE", user_id=name) for name in "abbcccc"]
    assert list(statistics(events)["by_user"].items()) == [("c", 4), ("b", 2), ("a", 1)]


def test_statistics_of_an_unknown_user_have_defaults():
    """A user without events has zero operations, no last activity and a success rate of 1.0."""
    found = user_statistics([])
    assert (found["total_operations"], found["last_activity"], found["most_common_operation"]) == (0, None, None)
    assert (found["success_rate"], found["by_operation"]) == (1.0, {})


@pytest.mark.parametrize(
    ("operations", "most_common"),
    [(["RECALL", "STORE", "STORE"], "STORE"), (["RECALL", "STORE"], "RECALL"), (["delete"], "delete")],
)
def test_most_common_operation_is_the_first_of_equally_common(operations, most_common):
    """The most common operation has the type that events have; among equals, the one that occurred first counts."""
    found = user_statistics(StoredEvent("e", NOON, name) for name in operations)["most_common_operation"]
    assert (found, found.value, found.name) == (most_common, most_common, most_common)


@settings(max_examples=50, deadline=None)
@given(events=EVENTS)
def test_user_statistics_equal_plain_counts(events):
    """Every number in the statistics of a user equals a plain count, for all events."""
    found = user_statistics(iter(events))
    assert found["total_operations"] == len(events)
    assert found["last_activity"] == (events[-1].timestamp if events else None)
    assert found["by_operation"] == dict(Counter(event.operation for event in events))
    succeeded = sum(event.status == "SUCCESS" for event in events)
    assert found["success_rate"] == (succeeded / len(events) if events else 1.0)


@settings(max_examples=50, deadline=None)
@given(events=EVENTS, times=st.integers(0, 9))
def test_statistics_of_many_events_equal_a_plain_count(events, times):
    """The counts of any number of events are those of a plain loop over them."""
    many = events * times
    found = statistics(iter(many))
    operations = Counter(event.operation for event in many)
    durations = [event.duration_ms for event in many if event.duration_ms is not None]
    assert found["total_events"] == len(many)
    assert {name: count for name, count in found["by_operation"].items() if count} == operations
    assert found["by_status"] == {member.value: sum(e.status is member for e in many) for member in EventStatus}
    assert found["by_user"] == Counter(event.user_id for event in many if event.user_id is not None)
    assert found["without_user"] == sum(event.user_id is None for event in many)
    assert found["avg_duration_ms"] == Sum(durations).average(len(durations))
    assert found["p50_duration_ms"] == histogram_of(durations).percentile(50)
    assert (found["first_event"], found["last_event"]) == (
        (many[0].timestamp, many[-1].timestamp) if many else (None, None)
    )


@settings(max_examples=50, deadline=None)
@given(events=EVENTS)
def test_statistics_by_user_are_those_of_each_user(events):
    """The statistics by user are those of the events of each user, in the order of their first events."""
    users = dict.fromkeys(event.user_id for event in events)
    expected = {user: user_statistics(event for event in events if event.user_id == user) for user in users}
    found = statistics_by_user(events)
    assert found == expected
    assert list(found) == list(users)


def test_operations_are_counted_by_their_names():
    """One of the six operations in another case, as another program may have written it, counts as that operation."""
    events = [StoredEvent(f"evt_{number}", NOON, name) for number, name in enumerate(["store", "STORE", "x"])]
    assert statistics(events)["by_operation"]["STORE"] == 2
    found = user_statistics(events)
    assert found["by_operation"] == {"STORE": 2, "x": 1}
    assert found["most_common_operation"] is OperationType.STORE
