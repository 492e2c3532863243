"""What watching costs: microseconds per event that rules add, measured round by round against the same handler without any.

    python tests/bench/monitoring.py [--events 20000] [--rounds 9]

The handlers keep events in memory, so that the difference is not lost in the noise of a disk. Each round measures every case,
one after the other, and the difference to the case without rules in the same round; shown are medians, and quartiles.
"""

from __future__ import annotations

import argparse
import gc
import logging
import platform
import statistics
import time
from collections.abc import Callable

from cases import FIELDS, logger_with

import structlog_audit
from structlog_audit.monitoring import DEFAULT_RULES, Rule

COUNTS = [Rule(f"count {number}", more_than=100, within="1h") for number in range(3)]
PER_USER = [Rule(f"count {number}", more_than=100, within="1h", per="user_id") for number in range(3)]
MEANS = [
    Rule("rate", success_rate_below=0.5, within="1h"),
    Rule("average", avg_duration_ms_above=1_000, within="1h"),
    Rule("p95", p95_duration_ms_above=1_000, within="1h"),
]

CASES = {
    "no rules": (None, "STORE"),
    "three rules, none of them about the event": (DEFAULT_RULES, "STORE"),
    "three rules, one of them about the event": (DEFAULT_RULES, "EXPORT"),
    "three counts of every event": (COUNTS, "STORE"),
    "three counts of every event, per user": (PER_USER, "STORE"),
    "a rate, an average, a percentile of every event": (MEANS, "STORE"),
}


def case(number: int, rules: list[Rule] | None, operation: str) -> Callable[[int], None]:
    logger = logger_with(str(number), structlog_audit.AuditHandler(monitor=rules))
    log = structlog_audit.get_audit_logger(logger.name).bind(session_id="session_abc")
    users = [f"user_{number}" for number in range(100)]

    def run(events: int) -> None:
        for number in range(events):
            log.info(operation, user_id=users[number % 100], **FIELDS)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    logging.getLogger("structlog_audit.alerts").addHandler(logging.NullHandler())
    logging.getLogger("structlog_audit.alerts").propagate = False
    print(f"{platform.machine()}, Python {platform.python_version()}")
    runs = {name: case(number, *arguments) for number, (name, arguments) in enumerate(CASES.items())}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds + 1):  # the first warms up
        for name, run in runs.items():
            gc.collect()
            start = time.perf_counter()
            run(args.events)
            taken[name].append((time.perf_counter() - start) / args.events * 1e6)
    base = taken["no rules"][1:]
    print(f"{'no rules':50} {statistics.median(base):6.2f} us/event")
    for name in list(taken)[1:]:
        added = [time - without for time, without in zip(taken[name][1:], base, strict=True)]
        low, middle, high = statistics.quantiles(added, n=4)
        print(f"{name:50} {middle:+6.2f} us/event  ({low:+.2f} to {high:+.2f})")


if __name__ == "__main__":
    main()
