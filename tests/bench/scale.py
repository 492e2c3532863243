"""The maximum throughput of one process and of one host: the figures of examples/guide/scale.md.

Several processes that write to one trail start at the same time. Afterwards the trail is read, and must contain every event
once. The same processes with one trail each show how much is due to the shared file, and how much to the CPUs.
"""

from __future__ import annotations

import datetime as dt
import shutil
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import example_event
import further_figures
from child import Child, cpu_seconds_of
from figures import Figure, ratios

from structlog_audit.trail.segment_names import next_name

PROCESSES = (1, 2, 4, 8)
THREADS = (2, 8, 64)


class Rate(NamedTuple):
    """The throughput of several processes together."""

    events: float
    """Events per second of the wall clock."""
    cpu: float
    """CPU microseconds per event."""


def maximum_rate(paths: list[Path], events: int, max_bytes: int) -> Rate:
    """Run one process for each of *paths*, which may be equal, and return their rate.

    Args:
        paths: The active segments of the trails.
        events: Events that each process records.
        max_bytes: The size of a segment.
    """
    total = events * len(paths)

    with ExitStack() as stack:
        children = [stack.enter_context(Child()) for _ in paths]
        for child, path in zip(children, paths, strict=True):
            child.request(make="trail", of="ours_on", **{"with": [str(path), max_bytes]})

        start = time.perf_counter()
        for child in children:
            child.send(time="trail", calls=events)
        cpu_seconds = sum(child.answer() for child in children)
        seconds = time.perf_counter() - start

    return Rate(total / seconds, cpu_seconds / total * 1e6)


def check_and_delete(path: Path, expected: int) -> tuple[int, int]:
    """Check that a trail has each event once, and delete it.

    Returns:
        The number of segments, and their bytes.

    Raises:
        SystemExit: An event is missing or duplicated.
    """
    segments = sorted(path.parent.glob(path.name + "*"))
    ids = []
    size = 0

    for segment in segments:
        with open(segment, "rb") as lines:
            for line in lines:
                size += len(line)
                # Trail events have other operations.
                if b'"operation":"STORE"' in line:
                    ids.append(line[: line.index(b",")])
        segment.unlink()

    distinct = len(set(ids))
    if distinct != expected:
        raise SystemExit(f"{path}: expected {expected} events, found {distinct} different ones")
    if len(ids) != expected:
        raise SystemExit(f"{path}: expected each event once, found {len(ids) - expected} duplicates")
    return len(segments), size


def processes(count: int, events: int, rounds: int, max_bytes: int) -> Iterator[Figure]:
    """Yield the figures of *count* processes on one trail, and on one each.

    Both are measured alternately.
    """
    folder = Path(example_event.FOLDER)
    shared_path = folder / "shared"
    separate_paths = [folder / f"own{number}" for number in range(count)]
    events_each = events // count
    total = events_each * count

    shared: list[Rate] = []
    separate: list[Rate] = []
    size = 0
    for _ in range(rounds):
        shared.append(maximum_rate([shared_path] * count, events_each, max_bytes))
        _, size = check_and_delete(shared_path, total)

        separate.append(maximum_rate(separate_paths, events_each, max_bytes))
        for path in separate_paths:
            check_and_delete(path, events_each)

    bytes_per_event = size / total
    if count == 1:
        yield Figure("bytes per event", bytes_per_event, "bytes")

    rate = statistics.median(found.events for found in shared)
    shared_cpu = statistics.median(found.cpu for found in shared)
    separate_cpu = statistics.median(found.cpu for found in separate)
    share = ratios([found.events for found in shared], [found.events for found in separate])

    yield Figure(f"{count} on one trail, maximum", rate, "events/s")
    yield Figure(f"{count} on one trail, maximum", rate * bytes_per_event / 1e6, "MB/s")
    yield Figure(f"{count} on one trail, CPU", shared_cpu, "us/event")
    yield Figure(f"{count} on one each, CPU", separate_cpu, "us/event")
    yield Figure(f"{count} on one trail / on one each", statistics.median(share), "x")


def small_segments(events: int, max_bytes: int) -> Iterator[Figure]:
    """Yield the cost of rollovers at the rate of a large host.

    Small segments reach it here.
    """
    path = Path(example_event.FOLDER) / "small"
    rate = maximum_rate([path], events, max_bytes)
    segments, _ = check_and_delete(path, events)

    seconds = events / rate.events
    rollovers = segments - 1
    name = f"segments of {max_bytes / 1e6:g} MB"
    yield Figure(f"{name}, maximum", rate.events, "events/s")
    yield Figure(f"{name}, rollovers", rollovers / seconds, "per second")
    yield Figure(f"{name}, CPU", rate.cpu, "us/event")


def rollover_among(segments: int) -> Iterator[Figure]:
    """Yield the cost of a rollover in a folder of so many segments.

    The folder is listed to find the newest name.
    """
    import structlog_audit

    folder = Path(example_event.FOLDER) / f"among{segments}"
    folder.mkdir()
    first = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    for number in range(segments):
        name = next_name("audit.jsonl", [], first + dt.timedelta(seconds=number))
        (folder / name).touch()

    target = structlog_audit.AuditFileHandler(folder / "audit.jsonl")
    times = []
    for _ in range(5):
        target.write(b"{}\n")
        times.append(cpu_seconds_of(target.doRollover, 1))
    target.close()
    shutil.rmtree(folder)

    yield Figure(f"a rollover among {segments:,} segments, CPU", statistics.median(times) * 1e3, "ms")


def scale(events: int, rounds: int) -> Iterator[Figure]:
    """Yield the figures of one process and several, with so many *events* in all."""
    for count in PROCESSES:
        yield from processes(count, events, rounds, 50_000_000)

    for max_bytes in (1_000_000, 100_000):
        yield from small_segments(events, max_bytes)

    for segments in (100, 10_000, 50_000):
        yield from rollover_among(segments)

    for count in THREADS:
        yield from further_figures.threads(events // 5, rounds, count)
