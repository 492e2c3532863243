"""What recording an event costs: the peers, the limit, and ours, interleaved in one run. Prints ratios.

    pip install -e '.[bench]'
    python tests/bench/run.py [--events 5000] [--rounds 7] [NAME ...]

The limit is what any program in Python must at least do: a random id, the time, JSON, one ``write(2)``. Every ratio is
taken round by round against the limit of the same round, so that it holds on a noisy machine. The event is the example of
the memory SDK's audit page, and each has an id of its own. Files lie in a temporary folder on the disk of $TMPDIR.

Below the table: memory and queries at 10,000 and 100,000 events, eight threads, and what the import takes.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import gc
import importlib.metadata
import logging
import logging.handlers
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Coroutine

FOLDER = tempfile.mkdtemp(prefix="structlog-audit-bench-")
CONTEXT = {"user_id": "user_123", "session_id": "session_abc"}
FIELDS = {
    "entry_ids": ["entry_1", "entry_2"],
    "metadata": {"importance": 0.8, "tags": ["verified"], "source": "api"},
    "status": "SUCCESS",
    "duration_ms": 45.2,
}

Call = Callable[[], object]


def file(name: str) -> str:
    return os.path.join(FOLDER, f"{name}.jsonl")


def logger_with(name: str, handler: logging.Handler) -> logging.Logger:
    logger = logging.getLogger(f"bench.{name}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    return logger


def limit() -> Call:
    import orjson

    fd = os.open(file("limit"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def call() -> None:
        now = dt.datetime.now(dt.UTC)
        event = {"event_id": uuid.uuid4().hex, "timestamp": now, "operation": "STORE", **CONTEXT, **FIELDS}
        os.write(fd, orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE))

    return call


def rotating(name: str) -> logging.Handler:
    from pythonjsonlogger.orjson import OrjsonFormatter

    handler = logging.handlers.RotatingFileHandler(file(name), maxBytes=50_000_000, backupCount=5)
    handler.setFormatter(OrjsonFormatter("%(message)s", timestamp=True))
    return handler


def stdlib_json() -> Call:
    logger = logger_with("stdlib", rotating("stdlib"))
    return lambda: logger.info("STORE", extra={"event_id": uuid.uuid4().hex, **CONTEXT, **FIELDS})


def structlog_json() -> Call:
    import structlog

    log = structlog.wrap_logger(
        logger_with("structlog", rotating("structlog")),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.stdlib.render_to_log_kwargs,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    ).bind(**CONTEXT)
    return lambda: log.info("STORE", event_id=uuid.uuid4().hex, **FIELDS)


def loguru_json() -> Call:
    from loguru import logger

    logger.remove()
    logger.add(file("loguru"), serialize=True, rotation="50 MB")
    log = logger.bind(**CONTEXT, **FIELDS)
    return lambda: log.bind(event_id=uuid.uuid4().hex).info("STORE")


def eliot_file() -> Call:
    import eliot

    eliot.to_file(open(file("eliot"), "ab"))
    return lambda: eliot.log_message(message_type="STORE", event_id=uuid.uuid4().hex, **CONTEXT, **FIELDS)


def picologging_orjson() -> Call:
    import orjson
    import picologging

    logger = picologging.getLogger("bench.picologging")
    logger.setLevel(picologging.INFO)
    handler = picologging.FileHandler(file("picologging"))
    handler.setFormatter(picologging.Formatter("%(message)s"))
    logger.addHandler(handler)

    def call() -> None:
        now = dt.datetime.now(dt.UTC)
        event = {"event_id": uuid.uuid4().hex, "timestamp": now, "operation": "STORE", **CONTEXT, **FIELDS}
        logger.info("%s", orjson.dumps(event).decode())

    return call


def axon() -> Call:
    from axon.core.audit import AuditLogger
    from axon.models.audit import EventStatus, OperationType

    peer, loop = AuditLogger(max_events=10_000), asyncio.new_event_loop()
    fields = {key: value for key, value in FIELDS.items() if key != "status"}

    async def many(count: int) -> None:
        for _ in range(count):
            await peer.log_event(operation=OperationType.STORE, status=EventStatus.SUCCESS, **CONTEXT, **fields)

    return lambda: loop.run_until_complete(many(100))


def ours_bound() -> Call:
    import structlog_audit

    logger = logger_with("ours", structlog_audit.AuditHandler(filename=file("ours")))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **FIELDS)


def ours_two_more() -> Call:
    import structlog_audit

    logger = logger_with("ours2", structlog_audit.AuditHandler(filename=file("ours2")))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT, request_id="r-1", region="eu")
    return lambda: log.info("STORE", **FIELDS)


def ours_queried() -> Call:
    import structlog_audit

    handler = structlog_audit.AuditHandler(filename=file("ours3"))
    log = structlog_audit.get_audit_logger(logger_with("ours3", handler).name).bind(**CONTEXT)

    def call() -> None:
        for _ in range(100):
            log.info("STORE", **FIELDS)
        handler.count_events(user_id="nobody")

    return call


def ours_stdlib() -> Call:
    import structlog_audit

    logger = logger_with("ours4", structlog_audit.AuditHandler(filename=file("ours4")))
    return lambda: logger.info("STORE", extra={**CONTEXT, **FIELDS})


def ours_log_event() -> Call:
    import structlog_audit

    audit, loop = structlog_audit.AuditLogger(filename=file("ours5")), asyncio.new_event_loop()

    async def many(count: int) -> None:
        for _ in range(count):
            await audit.log_event("STORE", **CONTEXT, **FIELDS)

    return lambda: loop.run_until_complete(many(100))


CASES: dict[str, tuple[Callable[[], Call], int]] = {
    "limit (uuid4, clock, orjson, one write)": (limit, 1),
    "ours: get_audit_logger().info": (ours_bound, 1),
    "ours: the same, with two extra fields": (ours_two_more, 1),
    "ours: the same, indexes paid every 100": (ours_queried, 100),
    "ours: logging.info(extra=...)": (ours_stdlib, 1),
    "ours: await log_event(...)": (ours_log_event, 100),
    "axon AuditLogger, memory only": (axon, 100),
    "picologging, orjson by hand": (picologging_orjson, 1),
    "eliot": (eliot_file, 1),
    "stdlib, json-logger orjson, rotating": (stdlib_json, 1),
    "structlog, json-logger orjson, rotating": (structlog_json, 1),
    "loguru serialize": (loguru_json, 1),
}
"""The cases, and how many events a call of each records."""


def measure(names: list[str], events: int, rounds: int) -> dict[str, list[float]]:
    """Microseconds per event of each case, round by round."""
    calls = {}
    for name, (make, _) in CASES.items():
        if name.startswith("limit") or not names or any(part in name for part in names):
            try:
                calls[name] = make()
            except ImportError as error:
                print(f"{name}: left out ({error})")
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times = events // CASES[name][1]
            gc.collect()
            start = time.perf_counter()
            for _ in range(times):
                call()
            taken[name].append((time.perf_counter() - start) / (times * CASES[name][1]) * 1e6)
    return taken


def report(taken: dict[str, list[float]]) -> None:
    base = next(iter(taken.values()))
    for name, times in taken.items():
        ratio = statistics.median(t / b for t, b in zip(times, base, strict=True))
        spread = (max(times) - min(times)) / statistics.median(times)
        print(f"{name:42} {statistics.median(times):8.2f} us/event  x{ratio:5.2f} of the limit  (spread {spread:.0%})")


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_and_queries(count: int) -> None:
    """Memory per event with all indexes, and the time of queries, with *count* distinct events in the buffer."""
    import structlog_audit

    gc.collect()
    before = resident()
    audit = structlog_audit.AuditLogger(max_events=count)
    for number in range(count):
        audit.record(
            "RECALL" if number % 2 else "STORE",
            f"user_{number % (count // 100)}",
            f"session_{number % 997}",
            [f"entry_{number}", f"entry_{number + 1}"],
            {"importance": 0.8, "tags": ["verified"], "source": "api"},
            "SUCCESS",
            None,
            number % 100 + 0.2,
        )
    start = time.perf_counter()
    audit.count_events(user_id="nobody")
    first = time.perf_counter() - start
    gc.collect()
    used = (resident() - before) / count

    def best(ask: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            ask()
            times.append(time.perf_counter() - start)
        return min(times)

    selective = best(lambda: audit.query_events(user_id="user_7", operation="RECALL"))
    newest = best(lambda: audit.query_events(operation="RECALL", limit=50))
    counted = best(audit.get_statistics)
    print(
        f"{count:>9,} events: {used:5.0f} bytes/event; index {first * 1e3:7.1f} ms; user+operation {selective * 1e6:6.0f} us;"
        f" newest 50 of half {newest * 1e6:6.0f} us; statistics {counted * 1e3:6.1f} ms"
    )


def eight_threads(count: int = 8, events: int = 20_000) -> None:
    """The share of one thread's throughput that *count* threads keep together: the limit's, and ours."""
    for name in list(CASES)[:2]:
        call = CASES[name][0]()

        def spend(call: Call = call, times: int = events) -> None:
            for _ in range(times):
                call()

        start = time.perf_counter()
        spend()
        alone = time.perf_counter() - start
        workers = [threading.Thread(target=spend, kwargs={"times": events // count}) for _ in range(count)]
        start = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        print(f"{name:42} {count} threads keep {alone / (time.perf_counter() - start):.2f} of one thread's throughput")


def durable(callers: int = 64, events: int = 640) -> None:
    """Events per second on disk (fsync): one awaiting caller after the other, and *callers* at once."""
    import structlog_audit

    target = structlog_audit.AuditFileHandler(file("durable"), durability="fsync")
    audit = structlog_audit.AuditLogger(handler=structlog_audit.AuditHandler(target=target))

    async def one_by_one(count: int) -> None:
        for _ in range(count):
            await audit.log_event("STORE", **CONTEXT, **FIELDS)

    held = 0.0

    async def watch() -> None:
        """How long the event loop was held up, at most."""
        nonlocal held
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            held = max(held, time.perf_counter() - start - 0.001)

    async def at_once() -> None:
        await asyncio.gather(*(one_by_one(events // callers) for _ in range(callers)))

    async def watched() -> None:
        watcher = asyncio.create_task(watch())
        await at_once()
        watcher.cancel()

    def rate(work: Callable[[], Coroutine[None, None, None]], count: int) -> float:
        start = time.perf_counter()
        asyncio.run(work())
        return count / (time.perf_counter() - start)

    alone, together = rate(lambda: one_by_one(200), 200), rate(at_once, events)
    asyncio.run(watched())
    rates = f"{alone:,.0f} events/s by one caller, {together:,.0f} by {callers} at once: x{together / alone:.1f}"
    print(f"fsync: {rates}; the loop was late by {held * 1e3:.1f} ms at worst")


def import_time() -> None:
    """What importing the package adds to importing structlog."""

    def best(code: str) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            times.append(time.perf_counter() - start)
        return min(times)

    alone, both = best("import structlog"), best("import structlog, structlog_audit")
    print(f"import structlog_audit: {(both - alone) * 1e3:.0f} ms over import structlog")


def versions() -> str:
    names = ("structlog", "msgspec", "orjson", "axon", "loguru", "eliot", "picologging")
    found = []
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version({'axon': 'axon-sdk'}.get(name, name))}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"{platform.machine()}, {os.cpu_count()} CPUs, Python {sys.version.split()[0]}, {', '.join(found)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of case names (default: all)")
    parser.add_argument("--events", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print(versions())
    report(measure(args.names, args.events, args.rounds))
    for count in (10_000, 100_000):
        memory_and_queries(count)
    eight_threads()
    durable()
    import_time()


if __name__ == "__main__":
    main()
