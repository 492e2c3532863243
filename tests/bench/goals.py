"""The performance goals that are ratios of two cases, and the bound that the path in one function sets to each."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from figures import Figure, ratios

LIMIT = "limit (uuid4, clock, orjson, one write)"
PATH = "the path of ours, in one function"
PATH_TWO_MORE = "the same, with two extra fields"
OURS = "ours: get_audit_logger().info"
OURS_TWO_MORE = "ours: the same, with two extra fields"
OURS_UNREDACTED = "ours: the same, without redaction"
OURS_PROCESSOR = "ours: AuditProcessor in an app's chain"
OURS_EXTRA = "ours: logging.info(extra=...)"
OURS_LOG_EVENT = "ours: await log_event(...)"
OURS_OPERATION = "ours: with log.operation(...)"
OURS_QUERIED_BY_USER = "ours: the same, queried by user every 1,000"
OURS_QUERIED_BY_ALL = "ours: the same, queried by all every 1,000"
AXON = "axon AuditLogger, memory only"
JSON = "structlog, json-logger orjson, rotating"

WITH_PATH = (OURS, OURS_TWO_MORE)
"""The library's cases that have a counterpart in one function."""


class Goal(NamedTuple):
    """A bound on the ratio of two cases."""

    name: str
    case: str
    base: str
    most: float | None = None
    least: float | None = None
    path: str | None = None
    """The case of the path in one function: in the place of the library's case, it gives the best possible ratio."""


GOALS = (
    Goal("ours / axon, which keeps events in memory only", OURS, AXON, most=1.0, path=PATH),
    Goal("ours, without redaction / the limit", OURS_UNREDACTED, LIMIT, most=1.4),
    Goal("ours / the limit", OURS, LIMIT, most=1.4, path=PATH),
    Goal("structlog, json-logger, rotating / ours", JSON, OURS, least=6, path=PATH),
    Goal("ours, with two extra fields / axon", OURS_TWO_MORE, AXON, most=1.2, path=PATH_TWO_MORE),
    Goal("ours, AuditProcessor in an app's chain / the limit", OURS_PROCESSOR, LIMIT, most=2.0),
    Goal("ours, logging.info(extra=...) / the limit", OURS_EXTRA, LIMIT, most=2.6),
    Goal("ours, await log_event(...) / the limit", OURS_LOG_EVENT, LIMIT, most=1.6),
    Goal("ours, with log.operation(...) / the limit", OURS_OPERATION, LIMIT, most=1.7),
    Goal("ours, queried by user every 1,000 / axon", OURS_QUERIED_BY_USER, AXON, most=1.4),
    Goal("ours, queried by all every 1,000 / axon", OURS_QUERIED_BY_ALL, AXON, most=1.4),
)


def figures_of_goals(times: Mapping[str, Sequence[float]]) -> Iterator[Figure]:
    """Yield the figure of each goal, if both of its cases were measured.

    Args:
        times: The microseconds per event of each round, by case.
    """
    for goal in GOALS:
        if goal.case not in times or goal.base not in times:
            continue

        bound = ""
        if goal.path in times:
            # Either the case or the base belongs to this library; the other one stays.
            case = goal.path if goal.case in WITH_PATH else goal.case
            base = goal.path if goal.base in WITH_PATH else goal.base
            best = statistics.median(ratios(times[case], times[base]))
            bound = f"in one function {best:.2f}"

        ratio = statistics.median(ratios(times[goal.case], times[goal.base]))
        yield Figure(goal.name, ratio, "x", most=goal.most, least=goal.least, bound=bound)


def summary(figures: Sequence[Figure]) -> str:
    """Return the number of goals met, and a line for each that is missed."""
    with_goal = [figure for figure in figures if figure.has_goal]
    missed = [str(figure) for figure in with_goal if not figure.is_met]

    count = len(with_goal)
    head = f"{count - len(missed)} of {count} goals are met"
    return "\n".join([head, *missed])
