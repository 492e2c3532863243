"""How likely a difference between two periods is by chance alone, in numbers and in words.

Each test returns the probability of a difference at least as large if nothing had changed. Counts of one kind that are few are
tested exactly; beyond `MOST_EXACT`, by the normal distribution, which is as good there.

* Counts: given their sum, the later one is binomial if events are a Poisson process of one rate (Przyborowski and Wilenski,
  1940).
* Failure rates: Fisher's exact test, or the test of two proportions.
* Durations: the test of Mann and Whitney on the buckets of the histograms, with the correction for ties.

`adjusted` corrects for several tests at once (Holm, 1979).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

MOST_EXACT = 1_000
"""Maximum events of which a probability is computed exactly."""

LEAST_DURATIONS = 8
"""Minimum durations of each period for a test."""

LIMIT = 0.05
"""The probability from which on a difference counts as chance."""

_WORDS = ((0.001, "very unlikely to be chance"), (0.01, "unlikely to be chance"), (LIMIT, "perhaps chance"))


def chance_of_counts(before: int, now: int, share: float) -> float:
    """Return the probability of counts as different as *before* and *now*.

    Args:
        before, now: The numbers of events.
        share: The length of the later period as a part of both, between 0 and 1.
    """
    total = before + now
    if total > MOST_EXACT:
        expected = total * share
        error = math.sqrt(expected * (1 - share))

        # Counts are whole numbers: half of one is the correction for continuity.
        deviation = max(0.0, abs(now - expected) - 0.5)
        return _two_sided(deviation / error)

    def log_probability(count: int) -> float:
        of_now = count * math.log(share)
        of_before = (total - count) * math.log1p(-share)
        return _log_choose(total, count) + of_now + of_before

    return _as_unlikely(range(total + 1), now, log_probability)


def chance_of_rates(failures: tuple[int, int], totals: tuple[int, int]) -> float:
    """Return the probability of rates as different as *failures* of *totals*, each before and now."""
    all_failures = sum(failures)
    total = sum(totals)
    successes = total - all_failures
    if not all_failures or not successes or not all(totals):
        return 1.0

    # Whatever is rarer decides how many tables there are.
    rare, count = all_failures, failures[1]
    if successes < all_failures:
        rare, count = successes, totals[1] - failures[1]

    if rare > MOST_EXACT:
        rate = all_failures / total
        variance = rate * (1 - rate)
        error = math.sqrt(variance / totals[0] + variance / totals[1])

        rate_before = failures[0] / totals[0]
        rate_now = failures[1] / totals[1]
        return _two_sided((rate_now - rate_before) / error)

    def log_probability(count: int) -> float:
        of_now = _log_choose(totals[1], count)
        of_before = _log_choose(totals[0], rare - count)
        return of_now + of_before

    least = max(0, rare - totals[0])
    most = min(rare, totals[1])
    possible = range(least, most + 1)
    return _as_unlikely(possible, count, log_probability)


def chance_of_durations(before: Counter[int], now: Counter[int]) -> float | None:
    """Return the probability of durations as different as those of two histograms; None if there are too few."""
    sizes = before.total(), now.total()
    total = sum(sizes)
    if min(sizes) < LEAST_DURATIONS:
        return None

    rank_sum = 0.0
    ties = 0
    ranked = 0
    for bucket in sorted(before.keys() | now.keys()):
        tied = before[bucket] + now[bucket]

        # All durations of a bucket have its middle rank.
        rank = ranked + (tied + 1) / 2
        rank_sum += now[bucket] * rank
        ties += tied**3 - tied
        ranked += tied

    expected = sizes[1] * (total + 1) / 2
    correction = ties / (total * (total - 1))
    variance = sizes[0] * sizes[1] / 12 * (total + 1 - correction)
    if variance <= 0:
        return 1.0

    deviations = (rank_sum - expected) / math.sqrt(variance)
    return _two_sided(deviations)


def adjusted(chances: Sequence[float]) -> list[float]:
    """Return *chances* corrected for their number, in the same order: that of any false one is below the limit."""
    order = sorted(range(len(chances)), key=lambda number: chances[number])
    corrected = [0.0] * len(chances)
    highest = 0.0

    for place, number in enumerate(order):
        remaining = len(chances) - place
        product = min(1.0, chances[number] * remaining)

        # A larger chance never gets a smaller corrected one.
        highest = max(highest, product)
        corrected[number] = highest
    return corrected


def in_words(chance: float | None) -> str:
    """Return what a probability means; None is one that cannot be computed."""
    if chance is None:
        return "too few to tell"

    for limit, words in _WORDS:
        if chance < limit:
            return words
    return "may be chance"


def _as_unlikely(possible: Iterable[int], observed: int, log_probability: Callable[[int], float]) -> float:
    """Return the probability of all *possible* numbers that are at most as likely as the *observed* one."""
    logs = {count: log_probability(count) for count in possible}
    highest = max(logs.values())

    # Equal probabilities differ by rounding.
    limit = logs[observed] + 1e-9
    weights = {count: math.exp(log - highest) for count, log in logs.items()}
    unlikely = math.fsum(weight for count, weight in weights.items() if logs[count] <= limit)
    total = math.fsum(weights.values())
    return min(1.0, unlikely / total)


def _log_choose(total: int, count: int) -> float:
    chosen = math.lgamma(count + 1)
    others = math.lgamma(total - count + 1)
    return math.lgamma(total + 1) - chosen - others


def _two_sided(deviations: float) -> float:
    return math.erfc(abs(deviations) / math.sqrt(2))
