"""The cost of an archive: compaction, sizes, and queries beside SQL that a person writes for the same files.

    pip install -e '.[archive,zstd]'
    python tests/bench/archive.py [--events 200000] [--rounds 5] [--folder KEPT]

The trail has one segment for each of 20 days, and is in the page cache. The hand-written SQL reads the same Parquet files in
another connection to DuckDB, with the same threads and memory limit; it fetches the columns of an event, and makes no event of
them. Times are CPU time of all threads; both sides of a ratio run one after the other in each round, and the ratio is the
median over the rounds. The file reader decodes each line, as it did before it searched them. Memory is the peak of a process of
its own. With ``--folder``, trail and archive are kept for the next run.

The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
from figures import Figure, ratios

from structlog_audit import open_trail
from structlog_audit.archive import open_archive, show
from structlog_audit.archive.actions import Action, CommitInfo, Coverage, DataFile, MetaData, Protocol, Txn
from structlog_audit.archive.database import Database
from structlog_audit.archive.delta_log import DeltaLog
from structlog_audit.archive.storage import LocalStorage
from structlog_audit.events.codec import encode_payload
from structlog_audit.events.event_id import Stamp
from structlog_audit.events.payload import Payload

DAYS = 20
BEGIN = dt.datetime(2026, 10, 4, tzinfo=dt.UTC)
DAY_NS = 86_400_000_000_000
OPERATIONS = (
    "auth.login",
    "auth.logout",
    "document.read",
    "document.update",
    "document.delete",
    "export.csv",
    "STORE",
    "RECALL",
)
USERS = 81_820
COMMITS = 10_000
MEMORY_LIMIT = "256MB"


def payload_of(number: int) -> Payload:
    """Return the payload of event *number*, with numbers that look random but are the same in every run."""
    mixed = number * 2_654_435_761 % 4_294_967_296
    failed = mixed % 100 < 3
    metadata = {
        "tenant": f"t{mixed % 211}",
        "region": ("eu-west", "eu-north", "us-east", "ap-south")[mixed // 7 % 4],
        "request": {"id": f"req-{mixed:08x}", "ip": f"10.{mixed % 256}.{mixed // 256 % 256}.7", "attempt": mixed % 3},
        "tags": ["verified"] if mixed % 5 else [],
    }
    user = mixed % USERS if number % 3 else mixed % 997
    return Payload(
        OPERATIONS[mixed // 11 % 8],
        f"user_{user}",
        f"session_{mixed // 13 % 199_999}",
        [f"doc_{mixed % 1_000_003}"],
        metadata,
        "FAILURE" if failed else "SUCCESS",
        "PermissionError: not allowed" if failed else None,
        mixed % 100_000 / 100,
    )


def write_trail(folder: Path, events: int) -> Path:
    """Write a trail of *events*, evenly over its days, and return the path of its active segment."""
    folder.mkdir(parents=True)
    step = DAYS * DAY_NS // events
    now = int(BEGIN.timestamp()) * 1_000_000_000 + 123_456_789
    stamp = Stamp(lambda: now)
    path = folder / "audit.jsonl"

    def lines(first: int, stop: int) -> Iterator[bytes]:
        nonlocal now
        for number in range(first, stop):
            yield stamp.line(encode_payload(payload_of(number), 32_000))
            now += step

    for day in range(DAYS + 1):
        # Compaction leaves the last two segments: each has one event more.
        first, stop = events * day // DAYS, events * (day + 1) // DAYS
        rolled_at = BEGIN + dt.timedelta(days=day + 1)
        name = f"{path.name}.{rolled_at:%Y%m%dT%H%M%S.%f}Z"
        with (folder / name).open("wb") as file:
            file.writelines(lines(first, stop if day < DAYS else events + 1))
    path.write_bytes(b"".join(lines(events + 1, events + 2)))
    return path


def run_in_process(code: str, *arguments: object) -> dict[str, float]:
    """Run *code* in a process of its own, and return its CPU seconds, and its peak memory in MiB."""
    # ru_maxrss is not used, because it begins with the value of the parent process.
    end = """
used = resource.getrusage(resource.RUSAGE_SELF)
with open("/proc/self/status") as status:
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"seconds": used.ru_utime + used.ru_stime, "peak": peak / 1024}))
"""
    command = [sys.executable, "-c", f"import sys, resource, json\n{code}\n{end}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


COMPACT = """
from structlog_audit.archive import compact
compact(sys.argv[1], sys.argv[2], promote=["tenant", "region"], host="h1")
"""

QUERY = """
from structlog_audit.archive import open_archive
with open_archive(sys.argv[1], memory_limit=sys.argv[2]) as source:
    {query}
"""

PEAKS = {
    "newest 100": "source.query_events(limit=100)",
    "all events, each once": "for event in source.iter_events(): pass",
    "statistics": "source.get_statistics()",
    "statistics by user": "source.get_statistics_by_user()",
    "a member that is not promoted": "source.query_events(metadata={'request': {'id': 'req-00000000'}})",
    "completeness": "source.completeness()",
    "report": "from structlog_audit.reports import compliance_report; compliance_report(source)",
}

COLUMNS = (
    "event_id, epoch_us(timestamp), operation, user_id, session_id, entry_ids, "
    "metadata, status, error_message, duration_ms, kind"
)


class Question(NamedTuple):
    """A query of the library, the SQL that a person writes for it, and the goals."""

    name: str
    ours: Callable[[Any], object]
    sql: str
    most: float
    """The goal: at most this many times the SQL."""
    plus_ms: float = 0.0
    """Milliseconds beyond it that are allowed."""
    least: float | None = None
    """The goal: the file reader takes at least this many times as long."""


def questions(events: int) -> list[Question]:
    """Return the queries that are measured, for a trail of *events*."""
    middle = payload_of(events // 2 + 1)
    user, entry = middle.user_id, (middle.entry_ids or [""])[0]
    tenant, request = middle.metadata["tenant"], middle.metadata["request"]["id"]
    start = BEGIN + dt.timedelta(days=9)
    end = start + dt.timedelta(days=3)
    in_days = f"timestamp >= '{start.isoformat()}' AND timestamp < '{end.isoformat()}'"
    newest = "ORDER BY timestamp DESC LIMIT 100"
    return [
        Question(
            "user, all time",
            lambda source: source.query_events(user_id=user),
            f"SELECT {COLUMNS} FROM T WHERE kind IS NULL AND user_id = '{user}' ORDER BY timestamp DESC",
            1.2,
            least=50,
        ),
        Question(
            "user and operation in 3 days, newest 100",
            lambda source: source.query_events(
                user_id=user, operation=middle.operation, start_time=start, end_time=end, limit=100
            ),
            f"SELECT {COLUMNS} FROM T WHERE kind IS NULL AND user_id = '{user}' AND operation = '{middle.operation}' "
            f"AND {in_days} {newest}",
            1.0,
        ),
        Question(
            "count", lambda source: source.count_events(), "SELECT count(*) FROM T WHERE kind IS NULL", 2.0, least=50
        ),
        Question(
            "entry id",
            lambda source: source.query_events(entry_ids=entry),
            f"SELECT {COLUMNS} FROM T WHERE kind IS NULL AND list_contains(entry_ids, '{entry}')",
            1.3,
        ),
        Question(
            "metadata key, promoted",
            lambda source: source.count_events(metadata={"tenant": tenant}),
            f"SELECT count(*) FROM T WHERE kind IS NULL AND json_extract_string(metadata, '$.tenant') = '{tenant}'",
            0.2,
        ),
        Question(
            "metadata key, not promoted",
            lambda source: source.query_events(metadata={"request": {"id": request}}),
            f"SELECT {COLUMNS} FROM T WHERE kind IS NULL AND json_extract_string(metadata, '$.request.id') = '{request}'",
            1.2,
        ),
        Question(
            "statistics",
            lambda source: source.get_statistics(),
            "SELECT operation, status, user_id, bucket, count(*), sum(duration_ms), min(timestamp), max(timestamp) "
            "FROM (SELECT *, CAST(ceil(ln(greatest(duration_ms, 1e-6)) / 0.0198026) AS INTEGER) AS bucket "
            "FROM T WHERE kind IS NULL) "
            "GROUP BY GROUPING SETS ((operation), (status), (user_id), (bucket), ())",
            1.5,
            plus_ms=100,
        ),
        Question(
            "statistics by user",
            lambda source: source.get_statistics_by_user(),
            "SELECT user_id, operation, count(*), avg(CAST(status = 'SUCCESS' AS INTEGER)), max(timestamp) FROM T "
            "WHERE kind IS NULL GROUP BY user_id, operation",
            1.5,
            plus_ms=100,
        ),
    ]


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU seconds of *work* in this process, all threads."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure_questions(archive: Path, path: Path, events: int, rounds: int) -> list[Figure]:
    """Return the ratios of the library to hand-written SQL, and of the file reader to the library."""
    files = sorted(str(file) for file in archive.glob("date=*/*.parquet"))
    by_hand = duckdb.connect(config={"memory_limit": MEMORY_LIMIT})
    by_hand.execute("SET TimeZone = 'UTC'")
    table = f"read_parquet({files}, hive_partitioning=false)"
    reader = open_trail(path)

    files_ms = cpu_seconds(lambda: reader.count_events()) * 1_000

    figures = []
    with open_archive(archive, memory_limit=MEMORY_LIMIT) as source:
        for question in questions(events):
            sql = question.sql.replace(" T ", f" {table} ")

            def ours(question: Question = question) -> object:
                return question.ours(source)

            def hand(sql: str = sql) -> object:
                return by_hand.cursor().execute(sql).fetchall()

            # The first run of each warms the caches.
            ours(), hand()
            times = [(cpu_seconds(ours), cpu_seconds(hand)) for _ in range(rounds)]
            beyond = [(one - question.plus_ms / 1_000, other) for one, other in times]
            ratio = statistics.median(ratios(*zip(*beyond, strict=True)))
            ms = statistics.median(one for one, _ in times) * 1_000
            by_sql = statistics.median(other for _, other in times) * 1_000
            plus = f" beyond {question.plus_ms:.0f} ms" if question.plus_ms else ""
            bound = f"{ms:.0f} ms, SQL {by_sql:.0f} ms"
            figures.append(
                Figure(f"{question.name}: × hand-written SQL{plus}", ratio, "x", most=question.most, bound=bound)
            )
            if question.least is not None:
                name = f"{question.name}: the file reader / ours"
                figures.append(
                    Figure(name, files_ms / ms, "x", least=question.least, bound=f"reader {files_ms:.0f} ms")
                )
    return figures


def measure_sizes(archive: Path, logs: Path, compaction: dict[str, float], events: int) -> list[Figure]:
    """Return the figures of compaction, and the bytes per event beside those of zstd -3."""
    stored = sum(file.stat().st_size for file in archive.rglob("*") if file.is_file())
    packed = 0
    for segment in sorted(logs.glob("*Z"))[:DAYS]:
        done = subprocess.run(["zstd", "-3", "-c", "-q", str(segment)], stdout=subprocess.PIPE, check=True)
        packed += len(done.stdout)
    rate = events / compaction["seconds"]
    return [
        Figure("bytes per event / those of zstd -3", stored / packed, "x", most=0.9, bound=f"{stored / events:.1f} B"),
        Figure("compaction, verified: events per CPU second", rate, "/s", least=40_000),
        Figure("compaction: peak memory", compaction["peak"], "MiB", most=400),
    ]


def measure_peaks(archive: Path) -> list[Figure]:
    """Return the peak memory of a process for each query."""
    figures = []
    for name, query in PEAKS.items():
        used = run_in_process(QUERY.format(query=query), archive, MEMORY_LIMIT)
        figures.append(
            Figure(f"peak memory: {name}", used["peak"], "MiB", most=300, bound=f"{used['seconds']:.1f} s CPU")
        )
    return figures


def write_commits(folder: Path, commits: int) -> None:
    """Write the log of an archive with *commits*, each of one segment and one file."""
    storage = LocalStorage(str(folder))
    database = Database(storage)
    log = DeltaLog(storage, database.connect)
    now = BEGIN
    for number in range(commits):
        key = f"evt_{number:032x}"
        us = int(BEGIN.timestamp() * 1_000_000) + number
        coverage = Coverage(
            segment=key, trail="h1:/var/log/app/audit.jsonl", name=f"audit.jsonl.{number}", start=0, stop=1, lines=1,
            sha256="0" * 64, first=number, stop_number=number + 1, least=us, high=us,
        )  # fmt: skip
        file = DataFile(
            path=f"date=2026-10-04/{number:012x}.parquet", date="2026-10-04", size=1, rows=1, trail=coverage.trail,
            numbers=(number, number), times=(us, us), order=(us, us), ids=(key, key), sha256="0" * 64,
        )  # fmt: skip
        actions = [Action(commit_info=CommitInfo(audit=coverage)), Action(txn=Txn(key, 1)), file.add(now)]
        if not number:
            metadata = MetaData(id="t", schema_string="{}", configuration={"audit.format": "1"})
            actions = [Action(protocol=Protocol()), Action(meta_data=metadata), *actions]
        log.commit("COMPACT", lambda snapshot, actions=actions: actions, now)
    database.close()


def measure_opening(folder: Path) -> list[Figure]:
    """Return the CPU time to open an archive of many commits, in a process that has imported everything but DuckDB."""
    if not folder.exists():
        write_commits(folder, COMMITS)
    code = """
import structlog_audit.archive.opening as opening
import structlog_audit.archive.reader, structlog_audit.trail.reading.opening, fsspec
before = resource.getrusage(resource.RUSAGE_SELF)
with opening.open_archive(sys.argv[1]) as source:
    after = resource.getrusage(resource.RUSAGE_SELF)
spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
print(json.dumps({"ms": spent * 1000})); sys.exit()
"""
    found = sorted(run_in_process(code, folder)["ms"] for _ in range(5))
    name = f"opening an archive of {COMMITS:,} commits, DuckDB's import included"
    return [Figure(name, found[2], "ms", most=150)]


def main() -> int:
    """Measure and print; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(prefix="structlog-audit-bench-") as scratch:
        folder = options.folder or Path(scratch)
        logs, archive, kept = folder / "logs", folder / "archive", folder / "compaction.json"
        path = logs / "audit.jsonl" if logs.exists() else write_trail(logs, options.events)
        if not kept.exists():
            kept.write_text(json.dumps(run_in_process(COMPACT, path, archive)))
        compaction: dict[str, float] = json.loads(kept.read_text())
        events = show(archive).events

        print(
            f"{events:,} events, {DAYS} segments, {show(archive).bytes_archived / 1e6:.0f} MB; DuckDB {duckdb.__version__}\n"
        )
        figures = measure_sizes(archive, logs, compaction, events)
        figures += measure_questions(archive, path, events, options.rounds)
        figures += measure_peaks(archive)
        figures += measure_opening(folder / "commits")

    for figure in figures:
        print(figure)
    missed = [figure for figure in figures if not figure.is_met]
    print(f"\n{len(figures) - len(missed)} of {len(figures)} goals met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
