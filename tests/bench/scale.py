"""How far one process and one host get, flat out: the figures of examples/guide/scale.md.

Processes that write into one trail are told at once to begin. Afterwards the trail is read: every event is in it, once.
The same processes, each with a trail of its own, show what is due to the shared file and what to the CPUs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cases
from child import Child
from spread import Figure

PROCESSES = (1, 2, 4, 8)


def flat_out(paths: list[Path], events: int, max_bytes: int) -> float:
    """Events per second of one process for each of *paths*, together."""
    with ExitStack() as stack:
        children = [stack.enter_context(Child()) for _ in paths]
        for child, path in zip(children, paths, strict=True):
            child.ask(make="trail", of="ours_on", **{"with": [str(path), max_bytes]})
        start = time.perf_counter()
        for child in children:
            child.send(time="trail", calls=events)
        for child in children:
            child.answer()
        return events * len(paths) / (time.perf_counter() - start)


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


def scale(events: int, max_bytes: int = 50_000_000) -> Iterator[Figure]:
    """One process and several, on one trail and on one each; what an event takes; and segments that are small."""
    folder = Path(cases.FOLDER)
    for count in PROCESSES:
        shared = folder / f"shared{count}"
        rate = flat_out([shared] * count, events, max_bytes)
        segments, size = counted(shared, events * count)
        each = size / (events * count)
        own = [folder / f"own{count}.{number}" for number in range(count)]
        apart = flat_out(own, events, max_bytes)
        for path in own:
            counted(path, events)
        if count == 1:
            yield Figure("bytes per event", each, "bytes")
        yield Figure(f"{count} on one trail, flat out", rate, "events/s")
        yield Figure(f"{count} on one trail, flat out", rate * each / 1e6, "MB/s")
        yield Figure(f"{count} on one trail: segments of {max_bytes / 1e6:g} MB", segments, "segments")
        yield Figure(f"{count} on one trail / on one each", rate / apart, "x")
    for small in (max_bytes // 50, max_bytes // 500):
        path = folder / f"small{small}"
        rate = flat_out([path], events, small)
        segments, _ = counted(path, events)
        yield Figure(f"1 process, segments of {small / 1e6:g} MB, flat out", rate, "events/s")
        yield Figure(
            f"1 process, segments of {small / 1e6:g} MB: rollovers", (segments - 1) / (events / rate), "per second"
        )
    yield Figure("CPUs", os.cpu_count() or 0, "CPUs")
