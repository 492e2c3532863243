"""What the cases are held to: ratios of two of them, round by round, and how far the path in one function gets."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from spread import Figure, ratios

LIMIT = "limit (uuid4, clock, orjson, one write)"
PATH, PATH_TWO_MORE = "the path of ours, in one function", "the same, with two extra fields"
OURS, OURS_TWO_MORE = "ours: get_audit_logger().info", "ours: the same, with two extra fields"
AXON = "axon AuditLogger, memory only"
JSON = "structlog, json-logger orjson, rotating"


class Goal(NamedTuple):
    """A ratio of two cases that is to be at most or at least so much."""

    name: str
    case: str
    base: str
    most: float | None = None
    least: float | None = None
    path: str | None = None
    """The case that shows how far the path in one function gets, in the place of ours."""


GOALS = (
    Goal("ours / axon, which keeps events in memory only", OURS, AXON, most=1.0, path=PATH),
    Goal("ours, without redaction / the limit", "ours: the same, without redaction", LIMIT, most=1.4),
    Goal("ours / the limit", OURS, LIMIT, most=1.4, path=PATH),
    Goal("structlog, json-logger, rotating / ours", JSON, OURS, least=6, path=PATH),
    Goal("ours, with two extra fields / axon", OURS_TWO_MORE, AXON, most=1.2, path=PATH_TWO_MORE),
    Goal("ours, asked by user every 1,000 / axon", "ours: the same, asked by user every 1,000", AXON, most=1.4),
    Goal("ours, asked by all every 1,000 / axon", "ours: the same, asked by all every 1,000", AXON, most=1.4),
)


def of_cases(taken: Mapping[str, Sequence[float]]) -> Iterator[Figure]:
    """The goals whose cases are among those *taken*: microseconds of each round."""
    for goal in GOALS:
        if goal.case in taken and goal.base in taken:
            found, bound = statistics.median(ratios(taken[goal.case], taken[goal.base])), ""
            if goal.path in taken:
                case, base = (goal.path if name in (OURS, OURS_TWO_MORE) else name for name in (goal.case, goal.base))
                bound = f"in one function {statistics.median(ratios(taken[case], taken[base])):.2f}"
            yield Figure(goal.name, found, "x", most=goal.most, least=goal.least, bound=bound)


def verdict(figures: Sequence[Figure]) -> str:
    """How many of the goals among *figures* are met, and which are not."""
    held = [figure for figure in figures if figure.has_goal]
    missed = [str(figure) for figure in held if not figure.is_met]
    return "\n".join([f"{len(held) - len(missed)} of {len(held)} goals are met", *missed])
