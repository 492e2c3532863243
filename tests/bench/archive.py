"""The cost of an archive: compaction, sizes, and queries beside SQL that a person writes for the same files.

    pip install -e '.[archive]'
    python tests/bench/archive.py [--events 200000] [--rounds 5] [--folder KEPT]

The trail has one segment for each of 20 days, and is in the page cache. The hand-written SQL reads the same Parquet files in
another connection to DuckDB, with the same threads, memory limit and fetched columns, and makes no events of its rows. Times are
CPU time of all threads; both sides of a ratio run one after the other in each round, and the ratio is the median over the
rounds. Memory is the peak of a separate process per query. With ``--folder``, trail and archive stay there and are used again.

The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from structlog_audit import open_trail
from structlog_audit.archive import compact, open_archive, show
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

    def lines(first: int, stop: int) -> bytes:
        nonlocal now
        written = []
        for number in range(first, stop):
            written.append(stamp.line(encode_payload(payload_of(number), 32_000)))
            now += step
        return b"".join(written)

    for day in range(DAYS + 1):
        # Compaction leaves the last two segments: each has one event more.
        first, stop = events * day // DAYS, events * (day + 1) // DAYS
        rolled_at = BEGIN + dt.timedelta(days=day + 1)
        name = f"{path.name}.{rolled_at:%Y%m%dT%H%M%S.%f}Z"
        (folder / name).write_bytes(lines(first, stop if day < DAYS else events + 1))
    path.write_bytes(lines(events + 1, events + 2))
    return path


def compact_in_process(path: Path, archive: Path) -> dict[str, float]:
    """Compact a trail in a process of its own, and return its CPU seconds and peak memory in MiB."""
    code = (
        "import sys, resource, json\n"
        "from structlog_audit.archive import compact\n"
        "compact(sys.argv[1], sys.argv[2], promote=['tenant', 'region'], host='h1')\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print(json.dumps({'seconds': used.ru_utime + used.ru_stime, 'peak': used.ru_maxrss / 1024}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path, archive], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    path = write_trail(folder / "logs", int(sys.argv[2]))
    figures = compact_in_process(path, folder / "archive")
    (folder / "compaction.json").write_text(json.dumps(figures))
    print(figures)
