"""Tests of sliding windows against their plain definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from structlog_audit.monitoring.windows import SLICES, CountWindow, MeanWindow

WITHIN = 6_000
STEPS = st.lists(st.integers(0, 2_500), max_size=60)
"""How far the clock moves between events: often several of them, sometimes none, in a window."""


def timestamps_of(steps):
    timestamp, timestamps = 1_000_000, []
    for step in steps:
        timestamp += step
        timestamps.append(timestamp)
    return timestamps


def expected_crossings(is_beyond_before, is_beyond, timestamps, quiet):
    """Return the numbers of the events that cross the bound, by the definition.

    A window not beyond the bound before an event is armed. An armed one that is beyond it after the event reports a crossing.
    """
    crossings, armed, last = [], True, None
    for number, timestamp in enumerate(timestamps):
        armed = armed or not is_beyond_before(number)
        if armed and is_beyond(number) and (last is None or timestamp - last >= quiet):
            crossings.append(number)
            armed, last = False, timestamp
    return crossings


@given(STEPS, st.integers(0, 6), st.sampled_from([0, 1_000, 20_000]))
def test_count_reports_each_crossing_once(steps, bound, quiet):
    """For all events: a crossing is reported once, exactly when more than the bound lie within the length."""
    timestamps = timestamps_of(steps)

    def count(timestamp, until):
        return sum(timestamp - WITHIN <= other <= timestamp for other in timestamps[:until])

    expected = expected_crossings(
        lambda number: count(timestamps[number], number) > bound,
        lambda number: count(timestamps[number], number + 1) > bound,
        timestamps,
        quiet,
    )
    window = CountWindow(WITHIN, quiet, bound)
    assert [number for number, timestamp in enumerate(timestamps) if window.add(timestamp)] == expected


@given(STEPS.flatmap(lambda steps: st.tuples(st.just(steps), st.lists(st.integers(0, 3), min_size=60, max_size=60))))
def test_mean_reports_each_crossing_once(steps_and_values):
    """For all events: the mean covers the newest sixty slices, and a crossing of it is reported once."""
    steps, values = steps_and_values
    timestamps = timestamps_of(steps)
    width = WITHIN // SLICES

    def beyond(number, until):
        here = timestamps[number] // width
        inside = [values[other] for other in range(until) if here - timestamps[other] // width < SLICES]
        return len(inside) >= 3 and sum(inside) / len(inside) > 1.5

    expected = expected_crossings(
        lambda number: beyond(number, number), lambda number: beyond(number, number + 1), timestamps, 0
    )
    window = MeanWindow(WITHIN, 0, 1.5, False, 3)
    assert [number for number, timestamp in enumerate(timestamps) if window.add(timestamp, values[number])] == expected


@given(st.lists(st.integers(-(10**15), 10**15), max_size=200), st.integers(0, 5))
def test_memory_is_bounded_for_every_clock(timestamps, bound):
    """For all clocks: a count keeps at most bound + 1 timestamps, a mean at most sixty slices with exact sums."""
    count, mean = CountWindow(WITHIN, 0, bound), MeanWindow(WITHIN, 0, 1.0, False, 1)
    for number, timestamp in enumerate(timestamps):
        count.add(timestamp)
        mean.add(timestamp, number)
        assert len(count._timestamps) <= bound + 1
        assert len(mean._slices) <= SLICES
        assert mean.size == sum(part[1] for part in mean._slices)
        assert mean._sum == sum(part[2] for part in mean._slices)


def test_clock_step_hides_no_crossing():
    """An event from the far future, or a clock set back, hides no crossing; it may be reported once more."""
    for jump in (10**15, -3_600 * 10**6):
        window = CountWindow(WITHIN, 0, 3)
        crossings = [window.add(timestamp) for timestamp in (0, jump, 10, 20, 30, 40, 50)]
        assert 1 <= crossings.count(True) <= 2
        mean = MeanWindow(WITHIN, 0, 1.0, False, 3)
        crossings = [mean.add(timestamp, 2) for timestamp in (0, jump, *range(10, 2 * WITHIN, 100))]
        assert 1 <= crossings.count(True) <= 2


def test_rate_must_be_below_its_bound():
    """A rate is reported if it is less than the bound and there are enough events."""
    window = MeanWindow(WITHIN, 0, 0.5, True, 4)
    assert [window.add(timestamp, value) for timestamp, value in enumerate((0, 0, 1, 1, 0, 0, 1))] == [
        False,
        False,
        False,
        False,
        True,
        False,
        False,
    ]
    assert window.mean == 3 / 7


def test_quiet_time_delays_a_crossing():
    """A crossing in quiet time is reported by the first event after it, if the bound is still exceeded."""
    window = CountWindow(10, 50, 0)
    assert [window.add(timestamp) for timestamp in (0, 20, 40, 45, 51, 55)] == [True, False, False, False, True, False]
    set_back = CountWindow(10, 50, 0)
    assert [set_back.add(timestamp) for timestamp in (1_000, 900)] == [True, True]


def test_window_is_over_after_length_and_quiet_time():
    """A window is over when its newest event is further back than its length and its quiet time."""
    for window in (CountWindow(600, 0, 3), MeanWindow(600, 0, 1.0, False, 1)):
        assert window.is_over(0)
        window.add(1_000)
        assert not window.is_over(1_600)
        assert window.is_over(1_611)
    quiet = CountWindow(600, 5_000, 3)
    quiet.add(1_000)
    assert not quiet.is_over(6_000)
