"""Statistics over rounds of measurements: medians, middle halves, confidence intervals, and figures with goals."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple


class Spread(NamedTuple):
    """The median of some values, and the quartiles that bound their middle half."""

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
    """Return the ratio of each round.

    A load that slows down both cases of a round cancels out.
    """
    return [time / other for time, other in zip(times, base, strict=True)]


def confidence_of_median(values: Sequence[float]) -> tuple[float, float]:
    """Return a 95 % confidence interval of the median, for any distribution.

    It is the interval of the sign test: it extends from the value of rank k to the value of rank k from the end, with the
    largest k for which at most k heads in n tosses of a coin have a probability of at most 2.5 %. Rounds are taken to be
    independent. Fewer than 6 values cannot reach 95 %; their interval extends from the smallest to the largest value.
    """
    ordered = sorted(values)
    count = len(ordered)
    probability = 0.0
    rank = 0

    for heads in range(count // 2):
        probability += math.comb(count, heads) / 2**count
        if probability > 0.025:
            break
        rank = heads

    return ordered[rank], ordered[-1 - rank]


class Figure(NamedTuple):
    """One measured number, and its goal if it has one."""

    name: str
    value: float
    unit: str
    most: float | None = None
    """The goal: the value is at most this."""
    least: float | None = None
    """The goal: the value is at least this."""
    bound: str = ""
    """The best value that any implementation could reach, as measured."""

    @property
    def has_goal(self) -> bool:
        return self.most is not None or self.least is not None

    @property
    def is_met(self) -> bool:
        if self.most is not None and self.value > self.most:
            return False
        return self.least is None or self.value >= self.least

    def __str__(self) -> str:
        # Three significant digits, and all digits before the point.
        digits = 2
        if self.value >= 10:
            digits = 1
        if self.value >= 100:
            digits = 0
        text = f"{self.name:72} {self.value:10,.{digits}f} {self.unit}"

        if not self.has_goal:
            return text

        goal = f"at most {self.most:g}" if self.least is None else f"at least {self.least:g}"
        if not self.is_met:
            goal += ": missed"
        if self.bound:
            goal += f"; {self.bound}"
        return f"{text}  (goal: {goal})"

    def document(self) -> dict[str, Any]:
        """Return the members that are set, and ``met`` if there is a goal."""
        members = {key: value for key, value in self._asdict().items() if value not in (None, "")}
        if self.has_goal:
            members["met"] = self.is_met
        return members
