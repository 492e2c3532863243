"""What reading a trail costs, beside a bare loop that decodes the same lines; and what a range of time and memory cost.

    pip install -e .
    python tests/bench/reading.py [--events 500000] [--rounds 3]

The trail is one of 25 hours, one segment each, in a temporary folder on the disk of $TMPDIR; it is in the page cache. The bare
loop reads a segment at once, splits it and decodes each line with msgspec into the same members: it checks nothing, and finds
no parts. Ratios are the medians over rounds in which both ran one after the other. Memory is the peak of a process of its own
for each question, less that of one that asked an empty trail.

Ends with 1 if a goal is missed: reading at most 3 times the bare loop, an hour at most a tenth of a full scan, memory at
most 40 MB whatever the number of events.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gzip
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from structlog_audit import open_trail
from structlog_audit.events.codec import StoredEvent, encode_payload
from structlog_audit.events.event_id import Stamp
from structlog_audit.events.payload import Payload

SEGMENTS = 25
BEGIN = dt.datetime(2025, 1, 15, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
OPERATIONS = ["STORE", "RECALL", "FORGET", "EXPORT"]

QUESTIONS: dict[str, str] = {
    "count_events()": "trail.count_events()",
    "get_statistics()": "trail.get_statistics()",
    "query_events(limit=100)": "trail.query_events(limit=100)",
    "iter_events(), each once": "for event in trail.iter_events(): pass",
}
PEAK = """
from structlog_audit import open_trail
trail = open_trail({path!r})
{question}
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""  # not ru_maxrss, which begins with that of the process that started this one


def write(folder: Path, events: int) -> Path:
    """A trail of so many *events*, evenly over its hours; the path of its active segment."""
    step = SEGMENTS * 3_600_000_000_000 // max(events, 1)
    now = [int(BEGIN.timestamp()) * 1_000_000_000 + 123_456_789]  # whole seconds are rare, and slower to read
    stamp = Stamp(lambda: now[0])
    path = folder / "audit.jsonl"
    number = 0
    for segment in range(SEGMENTS):
        is_last = segment == SEGMENTS - 1
        rolled_at = BEGIN + (segment + 1) * HOUR
        name = path.name if is_last else f"{path.name}.{rolled_at.strftime('%Y%m%dT%H%M%S.%fZ')}"
        with open(folder / name, "wb") as file:
            for number in range(number, events * (segment + 1) // SEGMENTS):  # noqa: B020 (goes on where it was)
                body = Payload(
                    OPERATIONS[number % 4],
                    f"user_{number % 997}",
                    f"session_{number % 9_973}",
                    [f"entry_{number}", f"entry_{number + 1}"],
                    {"importance": 0.8, "tags": ["verified"], "source": "api"},
                    "SUCCESS" if number % 50 else "FAILURE",
                    None,
                    number % 100 + 0.5,
                )
                file.write(stamp.line(encode_payload(body, 32_000)))
                now[0] += step
            number += 1
    return path


def bare(folder: Path) -> int:
    """Decode all lines in *folder*, and nothing else; their number."""
    decode = msgspec.json.Decoder(StoredEvent).decode
    count = 0
    for path in sorted(folder.iterdir()):
        for line in path.read_bytes().splitlines():
            decode(line)
            count += 1
    return count


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def peak(path: Path, question: str) -> int:
    """The peak memory in bytes of a process that asks *question* of the trail at *path*."""
    code = PEAK.format(path=str(path), question=question)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) * 1_024


def packed(folder: Path, into: Path) -> Path:
    """The trail in *folder*, with its rolled segments packed with gzip."""
    into.mkdir()
    for path in folder.iterdir():
        data, is_active = path.read_bytes(), path.suffix == ".jsonl"
        (into / (path.name if is_active else path.name + ".gz")).write_bytes(
            data if is_active else gzip.compress(data, 6)
        )
    return into / "audit.jsonl"


def main() -> int:
    """Measure and print; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="structlog-audit-bench-") as top:
        return measured(Path(top), options.events, options.rounds)


def measured(top: Path, events: int, rounds: int) -> int:
    plain, empty = top / "plain", top / "empty"
    plain.mkdir()
    empty.mkdir()
    path = write(plain, events)
    gzipped = packed(plain, top / "gzip")
    size = open_trail(path).size()
    print(f"{events:,} events in {SEGMENTS} segments, {size / 1e6:.0f} MB; Python {platform.python_version()}\n")

    begin = BEGIN + 12 * HOUR  # where a segment does: by the clock's slack, three segments may have events of this hour
    works: dict[str, Callable[[], object]] = {
        "bare loop of msgspec": lambda: bare(plain),
        "count_events()": lambda: open_trail(path).count_events(),
        "the same, gzip": lambda: open_trail(gzipped).count_events(),
        "count_events(user_id=…)": lambda: open_trail(path).count_events(user_id="user_5"),
        "iter_events()": lambda: sum(1 for _ in open_trail(path).iter_events()),
        "get_statistics()": lambda: open_trail(path).get_statistics(),
        "one hour of 25": lambda: open_trail(path).count_events(start_time=begin, end_time=begin + HOUR),
        "query_events(limit=100)": lambda: open_trail(path).query_events(limit=100),
    }
    assert works["bare loop of msgspec"]() == works["count_events()"]() == works["the same, gzip"]() == events
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work))
    print("| what | s | events/s | × bare loop |\n|---|---|---|---|")
    for name, taken in times.items():
        ratio = statistics.median(ours / base for ours, base in zip(taken, times["bare loop of msgspec"], strict=True))
        print(f"| {name} | {statistics.median(taken):.3f} | {events / statistics.median(taken):,.0f} | {ratio:.3f} |")

    nothing = peak(write(empty, 0), QUESTIONS["count_events()"])
    peaks = {name: peak(path, question) - nothing for name, question in QUESTIONS.items()}
    peaks["count_events(), gzip"] = peak(gzipped, QUESTIONS["count_events()"]) - nothing
    print("\n| question | MB beyond an empty trail |\n|---|---|")
    for name, held in peaks.items():
        print(f"| {name} | {held / 1e6:.1f} |")

    def ratio_of(name: str, to: str) -> float:
        return statistics.median(one / other for one, other in zip(times[name], times[to], strict=True))

    missed = [
        text
        for text, is_met in {
            "reading ≤ 3 × the bare loop": ratio_of("count_events()", "bare loop of msgspec") <= 3,
            "one hour ≤ 1/10 of a full scan": ratio_of("one hour of 25", "count_events()") <= 1 / 10,
            "memory ≤ 40 MB": max(peaks.values()) <= 40e6,
        }.items()
        if not is_met
    ]
    print("\nmissed: " + ", ".join(missed) if missed else "\nall goals are met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
