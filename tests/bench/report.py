"""The cost of a compliance report: time, size and memory, for few and for 100,000 different users and messages.

    pip install -e '.[reports]'
    python tests/bench/report.py [--events 100000] [--rounds 3]

Goals at 100,000 events: at most 5 s in all for each format, and at most 1.5 MB of HTML.
"""

from __future__ import annotations

import argparse
import math
import platform
import random
import sys
import time
import tracemalloc
from collections.abc import Callable

from structlog_audit import AuditHandler, AuditLogger
from structlog_audit.reports import Report, compliance_report

JANUARY = 1_735_689_600_000_000_000
"""The beginning of January 2025, in nanoseconds since 1970."""

MONTH = 31 * 86_400 * 10**9
"""Its duration in nanoseconds."""

MEAN_MS = {"STORE": 40, "RECALL": 8, "FORGET": 25, "EXPORT": 900, "invoice.sent": 120, "login": 60}
"""Typical durations of the operations."""

OPERATIONS = [*["STORE"] * 40, *["RECALL"] * 100, *["FORGET"] * 5, "EXPORT", *["invoice.sent"] * 12, *["login"] * 20]
"""The operations in proportion to their frequency."""


def filled_logger(count: int, *, texts: int) -> AuditLogger:
    """Return a logger with *count* events of January 2025.

    Args:
        count: The number of events.
        texts: The number of different users; from 1,000 on, that of different operations as well.
    """
    random_source = random.Random(1)
    timestamps = iter(sorted(random_source.randrange(MONTH) for _ in range(count)))
    audit = AuditLogger(handler=AuditHandler(count, clock=lambda: JANUARY + next(timestamps, MONTH)))

    for number in range(count):
        operation = random_source.choice(OPERATIONS) if texts < 1_000 else f"operation {number % texts}"
        failed = random_source.random() < 0.015
        audit.record(
            operation,
            f"user_{random_source.randrange(texts)}",
            f"session_{number % 997}",
            [f"entry_{number}", f"entry_{number + 1}"],
            {"source": "api"},
            "FAILURE" if failed else "SUCCESS",
            f"TimeoutError: no answer within {number} ms" if failed else None,
            random_source.lognormvariate(math.log(MEAN_MS.get(operation, 30)), 0.6),
        )
    return audit


def least_seconds(rounds: int, work: Callable[[], object]) -> float:
    """Return the least wall-clock seconds of *work*."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(name: str, audit: AuditLogger, rounds: int) -> None:
    """Print the cost of the report of *audit*.

    It has the time of the figures, time and size of each format, and the memory while counting.
    """

    def make_report() -> Report:
        return compliance_report(audit, month="2025-01")

    print(f"{name}: figures {least_seconds(rounds, make_report):.2f} s", end="")

    report = make_report()
    print(f"; dict {least_seconds(rounds, report.to_dict):.3f} s", end="")
    for format in ("json", "markdown", "html"):
        write = getattr(report, f"to_{format}")
        size = len(write().encode())
        print(f"; {format} {least_seconds(rounds, write):.3f} s, {size / 1e3:,.0f} kB", end="")

    tracemalloc.start()
    make_report()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"; peak memory while counting {peak / 1e6:.1f} MB")


def main() -> None:
    """Measure a report with few different texts and one with as many as events."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{platform.machine()}, Python {sys.version.split()[0]}, {args.events:,} events of one month")

    few = filled_logger(args.events, texts=300)
    measure("300 users, 6 operations", few, args.rounds)

    many = filled_logger(args.events, texts=args.events)
    measure("as many users and operations as events", many, args.rounds)


if __name__ == "__main__":
    main()
