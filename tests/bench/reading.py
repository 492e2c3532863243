"""The cost of reading a trail, of selective queries and of exports.

    pip install -e '.[archive]'
    python tests/bench/reading.py [--events 500000] [--rounds 3] [--short]

The trail covers 25 hours, one segment each, in a temporary folder below $TMPDIR; it is in the page cache. Reading is compared
with a bare loop, which reads a segment at once, splits it, and decodes each line with msgspec into the same members, without
any checks and without joining parts; selective queries also with ``grep`` and other programs (`reading_peers`), and exports
with reading. Times are CPU time, of other programs that of their processes. Ratios are medians over rounds in which both run
one after the other. Memory is the peak of a separate process per query, less that of a query of an empty trail.

The exit code is 1 if a goal is missed; `missed_goals` lists them. ``--short`` measures a small trail once, without memory and
goals: only a wrong answer or an exception makes it fail.
"""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import gzip
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import reading_peers

from structlog_audit import open_trail
from structlog_audit.events.codec import StoredEvent, encode_payload
from structlog_audit.events.event_id import Stamp
from structlog_audit.events.event_lists import lists_of
from structlog_audit.events.payload import Payload
from structlog_audit.export import CHUNK, WRITERS
from structlog_audit.query.filters import ORDINARY
from structlog_audit.reports import compliance_report

SEGMENTS = 25
BEGIN = dt.datetime(2025, 1, 15, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
OPERATIONS = ["STORE", "RECALL", "FORGET", "EXPORT"]
BARE_LOOP = "bare loop of msgspec"
GREP = "grep -cF of a user"
GREP_PACKED = "zcat | grep -cF of a user"
USER = "user_5"

QUERY_JSONL = "query -o jsonl, to /dev/null"

QUERIES: dict[str, str] = {
    "count_events()": "trail.count_events()",
    "get_statistics()": "trail.get_statistics()",
    "get_statistics_by_user()": "trail.get_statistics_by_user()",
    "query_events(limit=100)": "trail.query_events(limit=100)",
    "iter_events(), each once": "for event in trail.iter_events(): pass",
}
# ru_maxrss is not used, because it begins with the value of the parent process.
PEAK = """
from structlog_audit import open_trail
trail = open_trail({path!r})
{query}
with open("/proc/self/status") as status:
    print(next(line.split()[1] for line in status if line.startswith("VmHWM")))
"""
"""The code of a process that runs one query and prints its peak memory in kB."""


def payload_of(number: int) -> Payload:
    """Return the payload of event *number*.

    There are four operations and 997 users; 2 % of the events are failures.
    """
    return Payload(
        OPERATIONS[number % 4],
        f"user_{number % 997}",
        f"session_{number % 9_973}",
        [f"entry_{number}", f"entry_{number + 1}"],
        {"importance": 0.8, "tags": ["verified"], "source": "api"},
        "SUCCESS" if number % 50 else "FAILURE",
        None,
        number % 100 + 0.5,
    )


def write(folder: Path, events: int, segments: int = SEGMENTS) -> Path:
    """Write a trail of *events*, and return the path of its active segment.

    The events are evenly distributed over its hours, one for each of *segments*.
    """
    step = segments * 3_600_000_000_000 // max(events, 1)
    # Timestamps have fractions of a second, as nearly all have; whole seconds are slower to read.
    now = int(BEGIN.timestamp()) * 1_000_000_000 + 123_456_789
    stamp = Stamp(lambda: now)
    path = folder / "audit.jsonl"

    first = 0
    for segment in range(segments):
        rolled_at = BEGIN + (segment + 1) * HOUR
        is_active = segment == segments - 1
        name = path.name if is_active else f"{path.name}.{rolled_at.strftime('%Y%m%dT%H%M%S.%fZ')}"
        end = events * (segment + 1) // segments

        with open(folder / name, "wb") as file:
            for number in range(first, end):
                file.write(stamp.line(encode_payload(payload_of(number), 32_000)))
                now += step
        first = end
    return path


def decode_all(folder: Path) -> int:
    """Decode all lines of the files in *folder*, and return their number."""
    decode = msgspec.json.Decoder(StoredEvent).decode
    count = 0
    for path in sorted(folder.iterdir()):
        for line in path.read_bytes().splitlines():
            decode(line)
            count += 1
    return count


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of *work* in this process and its children."""
    start = _cpu_seconds_so_far()
    work()
    return _cpu_seconds_so_far() - start


def _cpu_seconds_so_far() -> float:
    used = os.times()
    return time.process_time() + used.children_user + used.children_system


def peak(path: Path, query: str) -> int:
    """Return the peak memory in bytes of a process that runs *query* on a trail."""
    code = PEAK.format(path=str(path), query=query)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) * 1_024


def compress(folder: Path, into: Path) -> Path:
    """Copy a trail with gzipped rolled segments, and return its active segment."""
    into.mkdir()
    for path in folder.iterdir():
        data = path.read_bytes()
        if path.suffix == ".jsonl":
            (into / path.name).write_bytes(data)
        else:
            (into / f"{path.name}.gz").write_bytes(gzip.compress(data, 6))
    return into / "audit.jsonl"


def median_ratio(times: list[float], base: list[float]) -> float:
    """Return the median of the ratios of each round."""
    return statistics.median(time / other for time, other in zip(times, base, strict=True))


def measure_times(plain: Path, gzipped: Path, events: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each round, by work."""
    path = plain / "audit.jsonl"
    # This hour is exactly that of one segment; because of the tolerance for clocks, its neighbours are read as well.
    begin = BEGIN + 12 * HOUR
    works: dict[str, Callable[[], object]] = {
        BARE_LOOP: lambda: decode_all(plain),
        "count_events()": lambda: open_trail(path).count_events(),
        "the same, gzip": lambda: open_trail(gzipped).count_events(),
        **peer_works(plain),
        "count_events(user_id=…)": lambda: open_trail(path).count_events(user_id=USER),
        "count_events(user_id=…), no hit": lambda: open_trail(path).count_events(user_id="nobody"),
        "count_events(status=…), 2 % hits": lambda: open_trail(path).count_events(status="FAILURE"),
        "newest 10 of a user": lambda: open_trail(path).query_events(user_id=USER, limit=10),
        GREP_PACKED: lambda: reading_peers.zcat_grep(gzipped.parent, USER),
        "count_events(user_id=…), gzip": lambda: open_trail(gzipped).count_events(user_id=USER),
        "export as jsonl": lambda: open_trail(path).export_to_file(plain.parent / "export.jsonl"),
        "export as json": lambda: open_trail(path).export_to_file(plain.parent / "export.json"),
        "export as csv": lambda: open_trail(path).export_to_file(plain.parent / "export.csv"),
        QUERY_JSONL: lambda: query_as_jsonl(path),
        "iter_events()": lambda: sum(1 for _ in open_trail(path).iter_events()),
        "get_statistics()": lambda: open_trail(path).get_statistics(),
        "get_statistics_by_user()": lambda: open_trail(path).get_statistics_by_user(),
        "compliance_report()": lambda: compliance_report(open_trail(path)),
        "one hour of 25": lambda: open_trail(path).count_events(start_time=begin, end_time=begin + HOUR),
        "query_events(limit=100)": lambda: open_trail(path).query_events(limit=100),
    }
    check_answers(works, events)

    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(cpu_seconds(work))
    return times


def peer_works(folder: Path) -> dict[str, Callable[[], object]]:
    """Return the work of each other program; print why one is left out."""
    works: dict[str, Callable[[], object]] = {}
    for name, count in reading_peers.PEERS.items():
        reason = reading_peers.reason_to_leave_out(name)
        if reason is None:
            works[name] = functools.partial(count, folder, USER)
        else:
            print(f"{name}: left out ({reason})")
    return works


def query_as_jsonl(path: Path) -> int:
    """Write all events as lines, as ``structlog-audit query -o jsonl`` does, and return their number."""
    reader = open_trail(path)
    count = 0
    with open(os.devnull, "wb") as sink:
        for events in lists_of(reader.select(ORDINARY, newest_first=False), CHUNK):
            count += len(events)
            sink.writelines(WRITERS["jsonl"]([events], BEGIN))
            # As the command, which does not keep them while the next ones are decoded.
            del events
    return count


def check_answers(works: dict[str, Callable[[], object]], events: int) -> None:
    """Compare the answers, which also reads everything once before it is measured.

    Raises:
        SystemExit: An answer is wrong.
    """
    of_user = sum(number % 997 == 5 for number in range(events))
    expected = {
        **dict.fromkeys((BARE_LOOP, "count_events()", "the same, gzip", "iter_events()", QUERY_JSONL), events),
        **dict.fromkeys((*reading_peers.PEERS, GREP_PACKED), of_user),
        "count_events(user_id=…)": of_user,
        "count_events(user_id=…), gzip": of_user,
        "count_events(user_id=…), no hit": 0,
        "count_events(status=…), 2 % hits": -(-events // 50),
        "export as jsonl": events,
        "export as json": events,
        "export as csv": events,
    }
    for name, answer in expected.items():
        found = works[name]() if name in works else answer
        if found != answer:
            raise SystemExit(f"{name}: expected {answer:,} events, got {found}")


def measure_peaks(path: Path, gzipped: Path, empty: Path) -> dict[str, int]:
    """Return the peak memory in bytes beyond that of an *empty* trail, by query."""
    count = QUERIES["count_events()"]
    base = peak(empty, count)

    peaks = {}
    for name, query in QUERIES.items():
        peaks[name] = peak(path, query) - base
    peaks["count_events(), gzip"] = peak(gzipped, count) - base
    return peaks


def measure(top: Path, events: int, rounds: int, *, is_short: bool = False) -> int:
    """Measure and print everything in the folder *top*, and return the exit code; if it *is short*, times only."""
    plain, empty = top / "plain", top / "empty"
    plain.mkdir()
    empty.mkdir()
    path = write(plain, events)
    gzipped = compress(plain, top / "gzip")
    megabytes = open_trail(path).size() / 1e6
    print(f"{events:,} events in {SEGMENTS} segments, {megabytes:.0f} MB; Python {platform.python_version()}\n")

    times = measure_times(plain, gzipped, events, rounds)
    print("| work | s | events/s | × bare loop | × reading | × grep |\n|---|---|---|---|---|---|")
    for name, taken in times.items():
        seconds = statistics.median(taken)
        to_bases = [median_ratio(taken, times[base]) for base in (BARE_LOOP, "count_events()", GREP)]
        columns = " | ".join(f"{ratio:.3f}" for ratio in to_bases)
        print(f"| {name} | {seconds:.3f} | {events / seconds:,.0f} | {columns} |")

    if is_short:
        return 0

    peaks = measure_peaks(path, gzipped, write(empty, 0))
    print("\n| query | MB beyond an empty trail |\n|---|---|")
    for name, size in peaks.items():
        print(f"| {name} | {size / 1e6:.1f} |")

    missed = missed_goals(times, peaks)
    print("\nmissed: " + ", ".join(missed) if missed else "\nall goals are met")
    return 1 if missed else 0


def missed_goals(times: dict[str, list[float]], peaks: dict[str, int]) -> list[str]:
    """Return the goals that are missed."""
    goals = {
        "reading ≤ 1.3 × the bare loop": median_ratio(times["count_events()"], times[BARE_LOOP]) <= 1.3,
        "a query with few hits ≤ 3 × grep": median_ratio(times["count_events(user_id=…)"], times[GREP]) <= 3,
        "the same, gzip ≤ 1.5 × zcat | grep": (
            median_ratio(times["count_events(user_id=…), gzip"], times[GREP_PACKED]) <= 1.5
        ),
        "export as json ≤ 1.3 × reading": median_ratio(times["export as json"], times["count_events()"]) <= 1.3,
        "query -o jsonl ≤ 1.5 × reading": median_ratio(times[QUERY_JSONL], times["count_events()"]) <= 1.5,
        "export as csv ≤ 2.5 × reading": median_ratio(times["export as csv"], times["count_events()"]) <= 2.5,
        "statistics ≤ 1.5 × reading": median_ratio(times["get_statistics()"], times["count_events()"]) <= 1.5,
        "users ≤ 1.8 × reading": (median_ratio(times["get_statistics_by_user()"], times["count_events()"]) <= 1.8),
        "one hour ≤ 1/10 of a full scan": median_ratio(times["one hour of 25"], times["count_events()"]) <= 1 / 10,
        "memory ≤ 40 MB": max(peaks.values()) <= 40e6,
    }
    return [text for text, is_met in goals.items() if not is_met]


def main() -> int:
    """Measure and print; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, help="default: 500,000, with --short 20,000")
    parser.add_argument("--rounds", type=int, help="default: 3, with --short 1")
    parser.add_argument("--short", action="store_true", help="a small trail, without memory and goals")
    options = parser.parse_args()
    events = options.events or (20_000 if options.short else 500_000)
    rounds = options.rounds or (1 if options.short else 3)

    with tempfile.TemporaryDirectory(prefix="structlog-audit-bench-") as top:
        return measure(Path(top), events, rounds, is_short=options.short)


if __name__ == "__main__":
    sys.exit(main())
