"""The figures beside the table: memory, queries, garbage collection, threads, fsync, and the time to import."""

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
import example_event
from child import Child, ChildError, cpu_seconds_of
from figures import Figure, ratios


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def wall_seconds(work: Callable[[], object]) -> float:
    """Return the wall-clock seconds of *work*, for work that waits."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of *work*, for work that does not wait."""
    start = time.process_time()
    work()
    return time.process_time() - start


def filled_logger(count: int) -> tuple[Any, list[Figure]]:
    """Return a logger with *count* distinct events, and its first figures.

    Memory is measured as the resident memory of the process, so its figure is left out below 100,000 events, where the
    process's other memory would distort it.
    """
    import structlog_audit

    gc.collect()
    before = resident_bytes()

    audit = structlog_audit.AuditLogger(max_events=count)
    # With an odd number of users, each user has events of both operations.
    users = count // 100 | 1
    rare_every = max(1, count // 50)
    for number in range(count):
        audit.record(
            "RECALL" if number % 2 else "STORE",
            f"user_{number % users}" if number % rare_every else "rare",
            f"session_{number % 997}",
            [f"entry_{number}", f"entry_{number + 1}"],
            {"importance": 0.8, "tags": ["verified"], "source": "api"},
            "SUCCESS",
            None,
            number % 100 + 0.2,
        )

    by_user = cpu_seconds(lambda: audit.count_events(user_id="nobody"))
    by_all = cpu_seconds(lambda: audit.count_events(**cases.EVERY_FILTER))
    gc.collect()
    bytes_per_event = (resident_bytes() - before) / count

    most = 20 if count == 10_000 else None
    figures = [
        Figure(f"first query by user, {count:,} events", by_user * 1e3, "ms", most=most),
        Figure(f"first query by everything else, {count:,} events", by_all * 1e3, "ms"),
    ]
    if count >= 100_000:
        figures.append(Figure(f"memory with all indexes, {count:,} events", bytes_per_event, "bytes/event", most=500))
    return audit, figures


QUERIES: dict[str, Callable[..., Any]] = {
    "user + operation": lambda audit: audit.query_events(user_id="user_7", operation="RECALL"),
    "newest 50 of half the events": lambda audit: audit.query_events(operation="RECALL", limit=50),
    "newest 50 of 50": lambda audit: audit.query_events(user_id="rare", limit=50),
    "statistics": lambda audit: audit.get_statistics(),
}


def peer_query_of(audit: Any, size: int) -> Callable[[], list[object]] | None:
    """Return the selective query against axon's logger, with the same events.

    Return None if axon is not installed.
    """
    try:
        from axon.core.audit import AuditLogger
        from axon.models.audit import EventStatus, OperationType
    except ImportError:
        return None

    peer = AuditLogger(max_events=size + 1)
    loop = asyncio.new_event_loop()
    names = ("user_id", "session_id", "entry_ids", "metadata", "duration_ms")

    async def fill() -> None:
        for event in audit.iter_events():
            members = {name: getattr(event, name) for name in names}
            operation = OperationType[event.operation.value]
            await peer.log_event(operation=operation, status=EventStatus.SUCCESS, **members)

    loop.run_until_complete(fill())
    return lambda: loop.run_until_complete(peer.get_events(user_id="user_7", operation=OperationType.RECALL))


def query_against_axon(audit: Any, size: int, rounds: int) -> Iterator[Figure]:
    """Yield the ratio of the selective query: axon / this library.

    Its bound is the time of an equal query without hits, plus decoding the hits.
    """
    from structlog_audit.events.codec import decode_event, encode_event

    peer_query = peer_query_of(audit, size)
    if peer_query is None:
        return

    query = QUERIES["user + operation"]
    lines = [encode_event(event) for event in query(audit)]
    hits, peer_hits = len(lines), len(peer_query())
    if hits != peer_hits:
        raise SystemExit(f"axon finds {peer_hits} events, this library finds {hits}")

    axon_times = []
    our_times = []
    least_times = []
    for _ in range(rounds):
        axon_times.append(cpu_seconds(peer_query))
        our_times.append(cpu_seconds(lambda: query(audit)))

        decoding = cpu_seconds(lambda: [decode_event(line) for line in lines])
        searching = cpu_seconds(lambda: audit.query_events(user_id="nobody", operation="RECALL"))
        least_times.append(decoding + searching)

    ratio = statistics.median(ratios(axon_times, our_times))
    best = statistics.median(ratios(axon_times, least_times))
    bound = f"a query without hits, plus decoding {hits} hits: {best:,.0f}"
    yield Figure(f"user + operation, axon / ours, {size:,} events", ratio, "x", least=100, bound=bound)


def query_times(loggers: dict[int, Any], rounds: int) -> dict[str, dict[int, list[float]]]:
    """Return the CPU seconds of each round, by query and by number of events."""
    times: dict[str, dict[int, list[float]]] = {}
    for name in QUERIES:
        times[name] = {size: [] for size in loggers}

    for _ in range(rounds):
        for name, query in QUERIES.items():
            for size, audit in loggers.items():
                start = time.process_time()
                query(audit)
                taken = time.process_time() - start
                times[name][size].append(taken)

    return times


def buffer_figures(sizes: Sequence[int], rounds: int) -> Iterator[Figure]:
    """Yield memory and query times by number of events in the buffer.

    Each round runs each query with each size. The goals limit the ratios of the largest to the smallest size, and of many
    to few hits.
    """
    loggers = {}
    for size in sizes:
        loggers[size], figures = filled_logger(size)
        yield from figures

    times = query_times(loggers, rounds)
    for name, by_size in times.items():
        for size, taken in by_size.items():
            milliseconds = statistics.median(taken) * 1e3
            most = 5 if name == "statistics" and size == 100_000 else None
            yield Figure(f"{name}, {size:,} events", milliseconds, "ms", most=most)

    if 100_000 in loggers:
        yield from query_against_axon(loggers[100_000], 100_000, rounds)

    small = min(sizes)
    large = max(sizes)

    # A selective query should not depend on the number of events in the buffer.
    selective = times["user + operation"]
    growth = statistics.median(ratios(selective[large], selective[small]))
    yield Figure(f"user + operation, {large:,} / {small:,} events", growth, "x", most=2)

    # A page should not depend on the number of hits.
    many_hits = times["newest 50 of half the events"][large]
    few_hits = times["newest 50 of 50"][large]
    growth = statistics.median(ratios(many_hits, few_hits))
    yield Figure(f"newest 50 of {large // 2:,} hits / of 50 hits", growth, "x", most=2)


def tail_of(times: Sequence[float]) -> float:
    """Return the 99.9th percentile."""
    *_, tail = statistics.quantiles(times, n=1000, method="inclusive")
    return tail


def garbage_collection(size: int, events: int, rounds: int) -> Iterator[Figure]:
    """Yield the cost that a full buffer adds to calls and to garbage collections.

    A process with an empty buffer and one with a full buffer are measured alternately.
    """
    with Child() as empty, Child() as full:
        # Both processes fill their buffers at the same time.
        empty.send(make="held", of="ours_held", **{"with": [size, 0]})
        full.send(make="held", of="ours_held", **{"with": [size, size]})
        empty.answer()
        full.answer()

        empty_times: list[int] = []
        full_times: list[int] = []
        for _ in range(rounds):
            empty_times += empty.request(each="held", calls=events)
            full_times += full.request(each="held", calls=events)

        empty_collection = statistics.median(empty.request(collect=rounds))
        full_collection = statistics.median(full.request(collect=rounds))

    empty_tail = tail_of(empty_times)
    full_tail = tail_of(full_times)
    added_tail = full_tail - empty_tail
    added_collection = full_collection - empty_collection

    comparison = f"a full buffer of {size:,} against an empty one"
    yield Figure(f"99.9th percentile of a call, empty buffer for {size:,}", empty_tail / 1e3, "us")
    yield Figure(f"… added by {comparison}", added_tail / 1e6, "ms", most=1)
    yield Figure(f"full garbage collection, added by {comparison}", added_collection * 1e3, "ms")


def threads(events: int, rounds: int, count: int = 8) -> Iterator[Figure]:
    """Yield the throughput of *count* threads relative to one.

    It is measured in a new process: switching threads takes longer in one that holds the memory of earlier measurements.
    """
    shares: dict[str, list[float]] = {}
    with Child() as child:
        for name, make in cases.THREADED.items():
            # A case is left out if its peer is not installed.
            with contextlib.suppress(ChildError):
                child.request(make=name, of=make.__name__, **{"with": []})
                shares[name] = []

        for _ in range(rounds):
            for name, taken in shares.items():
                taken.append(child.request(share=name, calls=events, threads=count))

    for name, taken in shares.items():
        yield Figure(f"{count} threads, {name}", statistics.median(taken), "of one thread's throughput")

    if cases.LIMIT_OF_THREADS in shares:
        our_shares = shares[cases.OURS_OF_THREADS]
        limit_shares = shares[cases.LIMIT_OF_THREADS]
        ratio = statistics.median(ratios(our_shares, limit_shares))
        least = 1 if count == 8 else None
        yield Figure(f"{count} threads, the share that ours keeps / that the limit keeps", ratio, "x", least=least)


def integrity(events: int, rounds: int) -> Iterator[Figure]:
    """Yield the CPU time of an event with integrity, relative to one without."""
    calls = {name: (make(), batch) for name, (make, batch) in cases.SEALED.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, (call, batch) in calls.items():
            count = max(1, events // batch)
            times[name].append(cpu_seconds_of(call, count) / (count * batch))

    goals = iter((1.12, 1.2))
    for name, taken in times.items():
        if name != cases.UNSEALED:
            ratio = statistics.median(ratios(taken, times[cases.UNSEALED]))
            yield Figure(f"an event {name} / {cases.UNSEALED}", ratio, "x", most=next(goals))

    # Last, because the thread that seals does not end before the process.
    yield beside_sealer(events, rounds, calls[cases.UNSEALED][0])


def beside_sealer(events: int, rounds: int, unsealed: cases.Call) -> Figure:
    """Return the CPU time of the calling thread for an event beside a sealer, relative to one without integrity."""
    calls = (cases.ours_beside_sealer(), unsealed)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            start = time.thread_time()
            for _ in range(events):
                call()
            taken.append(time.thread_time() - start)

    ratio = statistics.median(ratios(*times))
    return Figure("the caller's thread beside a sealer / without integrity", ratio, "x", most=1.12)


def paced(events: int, rounds: int, rate: int = 500) -> Iterator[Figure]:
    """Yield the 99.99th percentile of an event at *rate* events per second beside a sealer, and what the sealer adds to it."""
    calls = (cases.ours_unsealed("paced"), cases.ours_beside_sealer("paced_beside"))
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            due = time.perf_counter()
            for _ in range(events):
                due += 1 / rate
                time.sleep(max(0, due - time.perf_counter()))
                start = time.perf_counter()
                call()
                taken.append(time.perf_counter() - start)

    without, beside = (statistics.quantiles(taken, n=10_000, method="inclusive")[-1] for taken in times)
    yield Figure(f"99.99th percentile at {rate} events/s, without integrity", without * 1e3, "ms")
    yield Figure("… added beside a sealer", (beside - without) * 1e3, "ms", most=2)


def fsync_figures(events: int, callers: int = 64) -> Iterator[Figure]:
    """Yield the throughput with ``durability="fsync"``.

    One caller at a time is compared with *callers* at once.
    """
    import structlog_audit

    target = structlog_audit.AuditFileHandler(example_event.path_of("durable"), durability="fsync")
    audit = structlog_audit.AuditLogger(handler=structlog_audit.AuditHandler(target=target))
    one_caller = max(1, events // 3)
    per_caller = -(-events // callers)
    worst_delay = 0.0

    async def record(count: int) -> None:
        for _ in range(count):
            await audit.log_event("STORE", **example_event.CONTEXT, **example_event.FIELDS)

    async def record_at_once() -> None:
        await asyncio.gather(*(record(per_caller) for _ in range(callers)))

    async def watch_event_loop() -> None:
        nonlocal worst_delay
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            delay = time.perf_counter() - start - 0.001
            worst_delay = max(worst_delay, delay)

    async def record_watched() -> None:
        watcher = asyncio.create_task(watch_event_loop())
        await record_at_once()
        watcher.cancel()

    def rate_of(work: Coroutine[None, None, None], count: int) -> float:
        return count / wall_seconds(lambda: asyncio.run(work))

    alone = rate_of(record(one_caller), one_caller)
    together = rate_of(record_at_once(), per_caller * callers)
    asyncio.run(record_watched())

    yield Figure("fsync, one caller at a time", alone, "events/s")
    yield Figure(f"fsync, {callers} awaiting callers at once", together, "events/s")
    yield Figure(f"fsync, {callers} callers / one", together / alone, "x", least=10)
    yield Figure("fsync, worst delay of the event loop", worst_delay * 1e3, "ms", most=5)


def child_cpu_seconds(code: str) -> float:
    """Return the CPU seconds of a process that runs *code*.

    Bytecode is cached, as in an installed package.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)

    user = after.ru_utime - before.ru_utime
    system = after.ru_stime - before.ru_stime
    return user + system


def import_time(rounds: int) -> Iterator[Figure]:
    """Yield the time that this package adds to importing structlog.

    It is the median of the differences within a round; the difference of two minima would vary more.
    """
    # This round compiles the bytecode.
    child_cpu_seconds("import structlog, structlog_audit")

    added = []
    for _ in range(rounds):
        alone = child_cpu_seconds("import structlog")
        both = child_cpu_seconds("import structlog, structlog_audit")
        added.append(both - alone)

    yield Figure("import structlog_audit, over import structlog", statistics.median(added) * 1e3, "ms", most=25)
