"""What rounds of measurements come to: medians, the middle half, and how sure a median is."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple


class Spread(NamedTuple):
    """The median of some values, and where the middle half of them lies."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) < 2:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


def ratios(times: Sequence[float], base: Sequence[float]) -> list[float]:
    """Round by round: what is slow for both in a round does not count."""
    return [time / other for time, other in zip(times, base, strict=True)]


def sure_of_median(values: Sequence[float]) -> tuple[float, float]:
    """A range that holds the true median with a probability of at least 95 %, whatever the distribution, from 6 rounds on.

    From the smallest value but k to the largest but k, with the largest k for which at most k heads come up in n tosses of a
    coin in at most 2.5 % of cases (the interval of the sign test). It takes the rounds to be independent.
    """
    ordered, below, k = sorted(values), 0.0, 0
    for heads in range(len(ordered) // 2):
        below += math.comb(len(ordered), heads) / 2 ** len(ordered)
        if below > 0.025:
            break
        k = heads
    return ordered[k], ordered[-1 - k]


class Figure(NamedTuple):
    """One measured number, and the most or the least that it is to be, if the library is held to it."""

    name: str
    value: float
    unit: str
    most: float | None = None
    least: float | None = None
    bound: str = ""
    """What was measured of how far anybody could get."""

    @property
    def has_goal(self) -> bool:
        return self.most is not None or self.least is not None

    @property
    def is_met(self) -> bool:
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)

    def __str__(self) -> str:
        digits = 0 if self.value >= 100 else 1 if self.value >= 10 else 2
        goal = ""
        if self.has_goal:
            wanted = f"at most {self.most:g}" if self.least is None else f"at least {self.least:g}"
            goal = f"  (goal: {wanted}{'' if self.is_met else ': missed'}{f'; {self.bound}' if self.bound else ''})"
        return f"{self.name:72} {self.value:10,.{digits}f} {self.unit}{goal}"

    def document(self) -> dict[str, Any]:
        members = {key: value for key, value in self._asdict().items() if value not in (None, "")}
        return {**members, "met": self.is_met} if self.has_goal else members
