"""What a compliance report costs: time, size and memory, from a handler's buffer and from 100,000 different texts.

    pip install -e '.[reports]'
    python tests/bench/report.py [--events 100000] [--rounds 3]

Goals at 100,000 events: each form within 5 s all in all, HTML of at most 1.5 MB.
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
MONTH = 31 * 86_400 * 10**9

MEAN_MS = {"STORE": 40, "RECALL": 8, "FORGET": 25, "EXPORT": 900, "invoice.sent": 120, "login": 60}
OPERATIONS = [*["STORE"] * 40, *["RECALL"] * 100, *["FORGET"] * 5, "EXPORT", *["invoice.sent"] * 12, *["login"] * 20]


def filled(count: int, *, texts: int) -> AuditLogger:
    """A logger with *count* events of January 2025, of so many users, operations and messages as *texts*."""
    chance = random.Random(1)
    moments = sorted(chance.randrange(MONTH) for _ in range(count))
    now = iter(moments)
    audit = AuditLogger(handler=AuditHandler(count, clock=lambda: JANUARY + next(now, MONTH)))
    for number in range(count):
        operation = chance.choice(OPERATIONS) if texts < 1_000 else f"operation {number % texts}"
        failed = chance.random() < 0.015
        audit.record(
            operation,
            f"user_{chance.randrange(texts)}",
            f"session_{number % 997}",
            [f"entry_{number}", f"entry_{number + 1}"],
            {"source": "api"},
            "FAILURE" if failed else "SUCCESS",
            f"TimeoutError: no answer within {number} ms" if failed else None,
            chance.lognormvariate(math.log(MEAN_MS.get(operation, 30)), 0.6),
        )
    return audit


def best(rounds: int, work: Callable[[], object]) -> float:
    """The least seconds that *work* took."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def measure(name: str, audit: AuditLogger, rounds: int) -> None:
    """Print what the report of *audit* costs."""

    def made() -> Report:
        return compliance_report(audit, month="2025-01")

    figures = best(rounds, made)
    report = made()
    print(f"{name}: figures {figures:.2f} s", end="")
    for form in ("dict", "json", "markdown", "html"):
        write = getattr(report, f"to_{form}")
        seconds = best(rounds, write)
        size = len(write().encode()) if form != "dict" else 0
        print(f"; {form} {seconds:.3f} s" + (f", {size / 1e3:,.0f} kB" if size else ""), end="")
    tracemalloc.start()
    made()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"; {peak / 1e6:.1f} MB at most while counting")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{platform.machine()}, Python {sys.version.split()[0]}, {args.events:,} events of one month")
    for name, texts in (("300 users, 6 operations", 300), ("as many users and operations as events", args.events)):
        measure(name, filled(args.events, texts=texts), args.rounds)


if __name__ == "__main__":
    main()
