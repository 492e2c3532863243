"""How far one process and one host get, flat out: the figures of examples/guide/scale.md.

Processes that write into one trail are told at once to begin. Afterwards the trail is read: every event is in it, once.
The same processes, each with a trail of its own, show what is due to the shared file and what to the CPUs.
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

import beyond
import example
from child import Child, timed
from spread import Figure, ratios

from structlog_audit.trail.segment_names import next_name

PROCESSES = (1, 2, 4, 8)
THREADS = (2, 8, 64)


class Rate(NamedTuple):
    """What processes did together: events per second of the clock, and CPU microseconds per event."""

    events: float
    cpu: float


def flat_out(paths: list[Path], events: int, max_bytes: int) -> Rate:
    """One process for each of *paths*, which may be one and the same, each with so many *events*."""
    with ExitStack() as stack:
        children = [stack.enter_context(Child()) for _ in paths]
        for child, path in zip(children, paths, strict=True):
            child.ask(make="trail", of="ours_on", **{"with": [str(path), max_bytes]})
        start = time.perf_counter()
        for child in children:
            child.send(time="trail", calls=events)
        spent = sum(child.answer() for child in children)
        total = events * len(paths)
        return Rate(total / (time.perf_counter() - start), spent / total * 1e6)


def counted(path: Path, expected: int) -> tuple[int, int]:
    """Segments and bytes of the trail at *path*, which is deleted.

    Raises:
        SystemExit: An event is missing or in it twice.
    """
    ids, size, segments = set(), 0, sorted(path.parent.glob(path.name + "*"))
    for segment in segments:
        with open(segment, "rb") as lines:
            for line in lines:
                size += len(line)
                if b'"operation":"STORE"' in line:
                    ids.add(line[: line.index(b",")])
        segment.unlink()
    if len(ids) != expected:
        raise SystemExit(f"{path}: {len(ids)} events of {expected}")
    return len(segments), size


def processes(count: int, events: int, rounds: int, max_bytes: int) -> Iterator[Figure]:
    """So many processes on one trail, and then on one each, several times."""
    folder, each = Path(example.FOLDER), events // count
    shared, own, size = [], [], 0
    for _ in range(rounds):
        path = folder / "shared"
        shared.append(flat_out([path] * count, each, max_bytes))
        _, size = counted(path, each * count)
        paths = [folder / f"own{number}" for number in range(count)]
        own.append(flat_out(paths, each, max_bytes))
        for path in paths:
            counted(path, each)
    rate = statistics.median(found.events for found in shared)
    if count == 1:
        yield Figure("bytes per event", size / each, "bytes")
    of_each = ratios([found.events for found in shared], [found.events for found in own])
    yield Figure(f"{count} on one trail, flat out", rate, "events/s")
    yield Figure(f"{count} on one trail, flat out", rate * size / (each * count) / 1e6, "MB/s")
    yield Figure(f"{count} on one trail, CPU", statistics.median(found.cpu for found in shared), "us/event")
    yield Figure(f"{count} on one each, CPU", statistics.median(found.cpu for found in own), "us/event")
    yield Figure(f"{count} on one trail / on one each", statistics.median(of_each), "x")


def small_segments(events: int, max_bytes: int) -> Iterator[Figure]:
    """What rollovers cost that follow one another as fast as those of a large host."""
    path = Path(example.FOLDER) / "small"
    rate = flat_out([path], events, max_bytes)
    segments, _ = counted(path, events)
    yield Figure(f"segments of {max_bytes / 1e6:g} MB, flat out", rate.events, "events/s")
    yield Figure(
        f"segments of {max_bytes / 1e6:g} MB, rollovers", (segments - 1) / (events / rate.events), "per second"
    )
    yield Figure(f"segments of {max_bytes / 1e6:g} MB, CPU", rate.cpu, "us/event")


def rollover_among(segments: int) -> Iterator[Figure]:
    """What a rollover costs in a folder of so many segments: it looks for the newest name."""
    import structlog_audit

    folder = Path(example.FOLDER) / f"among{segments}"
    folder.mkdir()
    first = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    for number in range(segments):
        (folder / next_name("audit.jsonl", [], first + dt.timedelta(seconds=number))).touch()
    target, taken = structlog_audit.AuditFileHandler(folder / "audit.jsonl"), []
    for _ in range(5):
        target.write(b"{}\n")
        taken.append(timed(target.doRollover, 1))
    target.close()
    shutil.rmtree(folder)
    yield Figure(f"a rollover among {segments:,} segments, CPU", statistics.median(taken) * 1e3, "ms")


def scale(events: int, rounds: int) -> Iterator[Figure]:
    """One process and several, with so many *events* in all."""
    for count in PROCESSES:
        yield from processes(count, events, rounds, 50_000_000)
    for max_bytes in (1_000_000, 100_000):
        yield from small_segments(events, max_bytes)
    for segments in (100, 10_000, 50_000):
        yield from rollover_among(segments)
    for count in THREADS:
        yield from beyond.threads(events // 5, rounds, count)
