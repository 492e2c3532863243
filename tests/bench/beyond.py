"""What is measured beside the table: memory, queries, garbage collection, threads, fsync, and what the import takes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import cases
import example
from child import Child, ChildError
from spread import Figure, ratios


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def seconds(ask: Callable[[], object]) -> float:
    """Of the clock: for what waits."""
    start = time.perf_counter()
    ask()
    return time.perf_counter() - start


def cpu_seconds(ask: Callable[[], object]) -> float:
    """For what does not wait."""
    start = time.process_time()
    ask()
    return time.process_time() - start


def filled(count: int) -> tuple[object, list[Figure]]:
    """An `AuditLogger` that holds *count* distinct events, and what that took.

    Memory is what the system counts, so it is only told where a process's own needs don't show.
    """
    import structlog_audit

    gc.collect()
    before = resident()
    audit = structlog_audit.AuditLogger(max_events=count)
    users, rare = count // 100 | 1, max(1, count // 50)  # an odd number, so that a user does both operations
    for number in range(count):
        audit.record(
            "RECALL" if number % 2 else "STORE",
            f"user_{number % users}" if number % rare else "rare",
            f"session_{number % 997}",
            [f"entry_{number}", f"entry_{number + 1}"],
            {"importance": 0.8, "tags": ["verified"], "source": "api"},
            "SUCCESS",
            None,
            number % 100 + 0.2,
        )
    first = cpu_seconds(lambda: audit.count_events(user_id="nobody"))
    others = cpu_seconds(lambda: audit.count_events(**cases.EVERY_FILTER))
    gc.collect()
    used = (resident() - before) / count
    figures = [
        Figure(f"first question, by user, {count:,} events", first * 1e3, "ms", most=20 if count == 10_000 else None),
        Figure(f"first question by everything else, {count:,} events", others * 1e3, "ms"),
    ]
    if count >= 100_000:
        figures.append(Figure(f"memory with all indexes, {count:,} events", used, "bytes/event", most=500))
    return audit, figures


QUESTIONS: dict[str, Callable[..., object]] = {
    "user + operation": lambda audit: audit.query_events(user_id="user_7", operation="RECALL"),
    "newest 50 of half the events": lambda audit: audit.query_events(operation="RECALL", limit=50),
    "newest 50 of 50": lambda audit: audit.query_events(user_id="rare", limit=50),
    "statistics": lambda audit: audit.get_statistics(),
}


def against_axon(audit: Any, size: int, rounds: int) -> Iterator[Figure]:
    """The selective question, asked of axon's logger with the same events; and what finding and decoding alone takes."""
    try:
        from axon.core.audit import AuditLogger
        from axon.models.audit import EventStatus, OperationType
    except ImportError:
        return
    from structlog_audit.events.codec import decode_event, encode_event

    peer, loop = AuditLogger(max_events=size + 1), asyncio.new_event_loop()
    names = ("user_id", "session_id", "entry_ids", "metadata", "duration_ms")

    async def fill() -> None:
        for event in audit.iter_events():
            members = {name: getattr(event, name) for name in names}
            await peer.log_event(operation=OperationType[event.operation.value], status=EventStatus.SUCCESS, **members)

    def ask() -> list[object]:
        return loop.run_until_complete(peer.get_events(user_id="user_7", operation=OperationType.RECALL))

    loop.run_until_complete(fill())
    question = QUESTIONS["user + operation"]
    lines = [encode_event(event) for event in question(audit)]
    if len(lines) != len(ask()):
        raise SystemExit(f"axon finds {len(ask())} events where ours finds {len(lines)}")
    axons, ours, least = [], [], []
    for _ in range(rounds):
        axons.append(cpu_seconds(ask))
        ours.append(cpu_seconds(lambda: question(audit)))
        decoding = cpu_seconds(lambda: [decode_event(line) for line in lines])
        least.append(decoding + cpu_seconds(lambda: audit.query_events(user_id="nobody", operation="RECALL")))
    bound = f"a question without hits, its {len(lines)} hits decoded: {statistics.median(ratios(axons, least)):,.0f}"
    found = statistics.median(ratios(axons, ours))
    yield Figure(f"user + operation, axon / ours, {size:,} events", found, "x", least=200, bound=bound)


def held(sizes: Sequence[int], rounds: int) -> Iterator[Figure]:
    """Memory and queries with so many events in the buffer, the sizes interleaved, and ratios of largest and smallest."""
    stores = {}
    for size in sizes:
        stores[size], figures = filled(size)
        yield from figures
    taken: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for name, ask in QUESTIONS.items():
            for size, audit in stores.items():
                taken.setdefault((name, size), []).append(cpu_seconds(lambda ask=ask, audit=audit: ask(audit)))
    for (name, size), times in taken.items():
        most = 5 if (name, size) == ("statistics", 100_000) else None
        yield Figure(f"{name}, {size:,} events", statistics.median(times) * 1e3, "ms", most=most)
    if 100_000 in stores:
        yield from against_axon(stores[100_000], 100_000, rounds)
    small, large = min(sizes), max(sizes)
    found = ratios(taken["user + operation", large], taken["user + operation", small])
    yield Figure(f"user + operation, {large:,} / {small:,} events", statistics.median(found), "x", most=2)
    found = ratios(taken["newest 50 of half the events", large], taken["newest 50 of 50", large])
    yield Figure(f"newest 50 of {large // 2:,} hits / of 50 hits", statistics.median(found), "x", most=2)


def collections(size: int, events: int, rounds: int) -> Iterator[Figure]:
    """What a full buffer adds to the slowest calls: a process with an empty and one with a full buffer, by turns."""
    with Child() as empty, Child() as full:
        for child, count in ((empty, 0), (full, size)):
            child.send(make="held", of="ours_held", **{"with": [size, count]})
        taken: dict[Child, list[int]] = {empty: [], full: []}
        for child in taken:
            child.answer()
        for _ in range(rounds):
            for child, times in taken.items():
                times += child.ask(each="held", calls=events)
        tails = [statistics.quantiles(taken[child], n=1000, method="inclusive")[-1] for child in (empty, full)]
        whole = [statistics.median(child.ask(collect=rounds)) for child in (empty, full)]
    what = f"a full buffer of {size:,} against an empty one"
    yield Figure(f"99.9th percentile of a call, empty buffer for {size:,}", tails[0] / 1e3, "us")
    yield Figure(f"… added by {what}", (tails[1] - tails[0]) / 1e6, "ms", most=1)
    yield Figure(f"full garbage collection, added by {what}", (whole[1] - whole[0]) * 1e3, "ms")


def threads(events: int, rounds: int, count: int = 8) -> Iterator[Figure]:
    """The share of one thread's throughput that *count* threads keep together: the limit's, and ours against it.

    In a process of its own: with all that was measured before in its memory, it takes longer to switch threads.
    """
    shares: dict[str, list[float]] = {}
    with Child() as child:
        for name, make in cases.THREADED.items():
            with contextlib.suppress(ChildError):
                child.ask(make=name, of=make.__name__, **{"with": []})
                shares[name] = []
        for _ in range(rounds):
            for name, found in shares.items():
                found.append(child.ask(share=name, calls=events, threads=count))
    for name, found in shares.items():
        yield Figure(f"{count} threads, {name}", statistics.median(found), "of one thread's throughput")
    if cases.LIMIT_OF_THREADS in shares:
        found = ratios(shares[cases.OURS_OF_THREADS], shares[cases.LIMIT_OF_THREADS])
        name = f"{count} threads, the share that ours keeps / that the limit keeps"
        yield Figure(name, statistics.median(found), "x", least=1 if count == 8 else None)


def durable(events: int, callers: int = 64) -> Iterator[Figure]:
    """Events per second on disk (fsync): one awaiting caller after the other, and *callers* at once."""
    import structlog_audit

    target = structlog_audit.AuditFileHandler(example.file("durable"), durability="fsync")
    audit = structlog_audit.AuditLogger(handler=structlog_audit.AuditHandler(target=target))
    late = 0.0
    each = -(-events // callers)

    async def one_by_one(count: int) -> None:
        for _ in range(count):
            await audit.log_event("STORE", **example.CONTEXT, **example.FIELDS)

    async def watch() -> None:
        """How long the event loop was held up, at most."""
        nonlocal late
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            late = max(late, time.perf_counter() - start - 0.001)

    async def at_once() -> None:
        await asyncio.gather(*(one_by_one(each) for _ in range(callers)))

    async def watched() -> None:
        watcher = asyncio.create_task(watch())
        await at_once()
        watcher.cancel()

    def rate(work: Callable[[], Coroutine[None, None, None]], count: int) -> float:
        return count / seconds(lambda: asyncio.run(work()))

    few = max(1, events // 3)
    alone, together = rate(lambda: one_by_one(few), few), rate(at_once, each * callers)
    asyncio.run(watched())
    yield Figure("fsync, one caller after the other", alone, "events/s")
    yield Figure(f"fsync, {callers} awaiting callers at once", together, "events/s")
    yield Figure(f"fsync, {callers} callers / one", together / alone, "x", least=10)
    yield Figure("fsync, the event loop late at worst", late * 1e3, "ms", most=5)


def child_cpu_seconds(code: str) -> float:
    """CPU seconds of a process that runs *code* and may keep its bytecode, as an installed package has it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def import_time(rounds: int) -> Iterator[Figure]:
    """What importing the package adds to importing structlog, round by round: the least of each varies more."""
    codes = ("import structlog", "import structlog, structlog_audit")
    taken = [[child_cpu_seconds(code) for code in codes] for _ in range(rounds + 1)]
    added = statistics.median(both - alone for alone, both in taken[1:])  # the first round compiles
    yield Figure("import structlog_audit, over import structlog", added * 1e3, "ms", most=25)
