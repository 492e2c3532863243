"""The probabilities of differences equal published examples, and their words say what they mean."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structlog_audit.reports import significance
from structlog_audit.reports.significance import (
    adjusted,
    chance_of_counts,
    chance_of_durations,
    chance_of_rates,
    in_words,
)

counts = st.integers(0, 60)


@pytest.mark.parametrize(
    ("before", "now", "share", "expected"),
    [(2, 8, 0.5, 112 / 1024), (5, 5, 0.5, 1.0), (3, 0, 0.75, 1 / 64), (0, 10, 0.5, 2 / 1024), (0, 0, 0.5, 1.0)],
)
def test_chance_of_counts_is_that_of_the_binomial_distribution(before, now, share, expected):
    """The sum of the probabilities of all numbers that are at most as likely: 10 tosses with 8 heads have 112/1024."""
    assert chance_of_counts(before, now, share) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("failures", "totals", "expected"),
    [
        ((3, 1), (4, 4), 34 / 70),
        ((1, 11), (12, 12), 290 / math.comb(24, 12)),
        ((10, 10), (10, 10), 1.0),
        ((0, 0), (5, 9), 1.0),
    ],
)
def test_chance_of_rates_is_that_of_fishers_exact_test(failures, totals, expected):
    """The tea tasting of Fisher (1935) has 34/70."""
    assert chance_of_rates(failures, totals) == pytest.approx(expected)


def test_rates_of_the_guide_are_unlikely_to_be_chance():
    """12 of 100 and 40 of 110 differ beyond chance; 12 of 100 and 14 of 110 do not."""
    assert chance_of_rates((12, 40), (100, 110)) < 0.001
    assert chance_of_rates((12, 14), (100, 110)) > 0.5


@given(st.tuples(counts, counts), st.tuples(counts, counts))
def test_chance_does_not_depend_on_the_direction(failures, others):
    """Before and now, failures and successes can be exchanged."""
    totals = (failures[0] + others[0], failures[1] + others[1])
    chance = chance_of_rates(failures, totals)
    assert 0 < chance <= 1
    assert chance_of_rates(failures[::-1], totals[::-1]) == pytest.approx(chance)
    assert chance_of_rates(others, totals) == pytest.approx(chance)
    assert chance_of_counts(*failures, 0.3) == pytest.approx(chance_of_counts(*failures[::-1], 0.7))


@given(st.integers(200, 400), st.integers(200, 400))
def test_normal_distribution_agrees_with_the_exact_test(before, now):
    """Where both can be computed, many events have the same probability either way."""
    exact = chance_of_counts(before, now, 0.5)
    rates = chance_of_rates((before, now), (2_000, 2_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(significance, "MOST_EXACT", 0)
        assert chance_of_counts(before, now, 0.5) == pytest.approx(exact, abs=0.01)
        # Without a correction for continuity, which the exact test amounts to.
        assert chance_of_rates((before, now), (2_000, 2_000)) == pytest.approx(rates, abs=0.05)


def test_millions_of_events_have_a_chance():
    """Large numbers neither overflow nor take long."""
    assert chance_of_counts(10_000_000, 10_000_000, 0.5) == pytest.approx(1.0, abs=0.001)
    assert chance_of_counts(10_000_000, 11_000_000, 0.5) < 1e-9
    assert chance_of_rates((100_000, 110_000), (10**7, 10**7)) < 1e-9
    assert chance_of_rates((3, 30), (10**7, 10**7)) < 0.001


def test_chance_of_durations_is_that_of_mann_and_whitney():
    """Without ties, U of 0 for 10 and 10 has z = -50/sqrt(175); equal histograms have 1."""
    before, now = Counter(range(10)), Counter(range(10, 20))
    expected = math.erfc(50 / math.sqrt(175) / math.sqrt(2))
    assert chance_of_durations(before, now) == pytest.approx(expected)
    assert chance_of_durations(now, before) == pytest.approx(expected)
    assert chance_of_durations(before, before) == pytest.approx(1.0)


def test_equal_durations_are_no_difference():
    """If all durations are one value, the variance is 0."""
    assert chance_of_durations(Counter({7: 20}), Counter({7: 30})) == 1.0


def test_few_durations_have_no_chance():
    """The normal distribution needs some values of each side."""
    assert chance_of_durations(Counter(range(7)), Counter(range(100))) is None
    assert chance_of_durations(Counter(range(100)), Counter(range(7))) is None
    assert in_words(None) == "too few to tell"


def test_adjusted_chances_are_those_of_holm():
    """The smallest is multiplied by the number of tests, the next by one less, and the order stays."""
    assert adjusted([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert adjusted([0.6, 0.7]) == [1.0, 1.0]
    assert adjusted([]) == []


def test_words_follow_the_limits():
    """A limit itself belongs to the weaker words."""
    words = [in_words(chance) for chance in (0.0, 0.001, 0.01, 0.05, 1.0)]
    assert words == [
        "very unlikely to be chance",
        "unlikely to be chance",
        "perhaps chance",
        "may be chance",
        "may be chance",
    ]
