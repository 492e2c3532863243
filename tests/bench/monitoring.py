"""The cost of monitoring: the microseconds per event that rules add to the same handler without rules.

    python tests/bench/monitoring.py [--events 20000] [--rounds 9]

The handlers keep events in memory only, so that the noise of a disk does not hide the difference. Each round measures every
case, and its difference to the case without rules in the same round. The output shows medians and quartiles.
"""

from __future__ import annotations

import argparse
import gc
import logging
import platform
import statistics
import time
from collections.abc import Callable

from example_event import FIELDS, logger_with

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
    "three rules, none of which matches the event": (DEFAULT_RULES, "STORE"),
    "three rules, one of which matches the event": (DEFAULT_RULES, "EXPORT"),
    "three counts of every event": (COUNTS, "STORE"),
    "three counts of every event, per user": (PER_USER, "STORE"),
    "a rate, an average, a percentile of every event": (MEANS, "STORE"),
}


def case(number: int, rules: list[Rule] | None, operation: str) -> Callable[[int], None]:
    """Return a function that records so many events with a handler that has *rules*.

    The events belong to a hundred users.
    """
    logger = logger_with(str(number), structlog_audit.AuditHandler(monitor=rules))
    log = structlog_audit.get_audit_logger(logger.name).bind(session_id="session_abc")
    users = [f"user_{number}" for number in range(100)]

    def run(events: int) -> None:
        for number in range(events):
            log.info(operation, user_id=users[number % 100], **FIELDS)

    return run


def measure(events: int, rounds: int) -> dict[str, list[float]]:
    """Return the microseconds per event of each round, by case."""
    runs = {name: case(number, *arguments) for number, (name, arguments) in enumerate(CASES.items())}
    for run in runs.values():
        run(events)

    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            gc.collect()
            start = time.perf_counter()
            run(events)
            seconds = time.perf_counter() - start
            times[name].append(seconds / events * 1e6)
    return times


def main() -> None:
    """Measure all cases, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()

    # Alerts are not printed.
    alerts = logging.getLogger("structlog_audit.alerts")
    alerts.addHandler(logging.NullHandler())
    alerts.propagate = False

    print(f"{platform.machine()}, Python {platform.python_version()}")
    times = measure(args.events, args.rounds)
    base = times.pop("no rules")
    print(f"{'no rules':50} {statistics.median(base):6.2f} us/event")

    for name, taken in times.items():
        added = [time - without for time, without in zip(taken, base, strict=True)]
        low, middle, high = statistics.quantiles(added, n=4)
        print(f"{name:50} {middle:+6.2f} us/event  ({low:+.2f} to {high:+.2f})")


if __name__ == "__main__":
    main()
