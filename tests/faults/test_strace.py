"""A fault at every system call on the trail, with one run per call."""

from __future__ import annotations

import inspect
import json
import os
import re
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from trails import Trail, figure, needs_strace, record_with_new_handler, run, write

from structlog_audit import AuditFileHandler

pytestmark = [pytest.mark.system, needs_strace]

# An event has about 200 bytes: a rollover every two or three events.
COUNT, PER_SEGMENT = 8, 500
DURABILITIES = ["fsync"] if "durability" in inspect.signature(AuditFileHandler).parameters else []
CALLS = [(call, None) for call in ("write", "lseek", "rename", "openat", "flock", "fstat,newfstatat")]
CALLS += [("fsync", durability) for durability in DURABILITIES]
WRITER = ["--count", COUNT, "--max-bytes", PER_SEGMENT]


def strace(log, call, inject, when, *, path=None):
    """Return the strace command prefix that injects the fault *inject* at the *when*-th *call*."""
    only = ["-P", path] if path else []
    calls = call.replace("fstat,newfstatat", "?fstat,?newfstatat")
    fault = f"inject={calls}:{inject}:when={when}"
    return ["strace", "-f", "-qq", "-o", log, "-e", f"trace={calls}", *only, "-e", fault]


def calls_of(tmp_path, call, *options):
    """Return how many times the writer makes *call* on the trail without a fault."""
    path = tmp_path / "counting" / "audit.jsonl"
    log = tmp_path / "strace.log"
    done, _ = write(path, *WRITER, *options, wrapper=strace(log, call, "delay_exit=0", "1", path=path))
    assert done.returncode == 0, done.stderr
    return len(log.read_text().splitlines())


def judge(path, call, inject, when, options, before):
    """Run the writer with one fault, record more events without, check the trail, and return the number of torn lines."""
    path.parent.mkdir()
    if before:
        path.write_bytes(before)
    log = path.parent / "strace.log"
    done, writer_output = write(path, *WRITER, *options, wrapper=strace(log, call, inject, when, path=path))
    killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert killed <= (inject == "signal=KILL")
    assert killed or writer_output.counters or not writer_output.acknowledged, done.stderr
    if writer_output.counters:
        assert writer_output.counters[0]["recorded"] == COUNT, (when, writer_output.counters, done.stderr)
    again = record_with_new_handler(path, first=COUNT, count=3)
    trail = Trail(path)

    # Events that were not synced are written again with the same id.
    trail.holds(writer_output, twice=call == "fsync")
    assert trail.numbers[-3:] == again
    assert trail.numbers == sorted(trail.numbers)
    torn = len(trail.torn) - bool(before)
    assert torn <= killed, trail.torn
    return torn


SWEEP = [(call, durability, inject, before)
    for call, durability in CALLS
    for inject in ("error=EIO", "error=ENOSPC", "signal=KILL")
    for before in (b"", b'{"event_id":"evt_')
    if (inject != "error=ENOSPC" or call in ("write", "fsync")) and (not before or call in ("openat", "write"))
]  # fmt: skip


@pytest.mark.parametrize(("call", "durability", "inject", "before"), SWEEP)
def test_fault_at_any_system_call_loses_no_acknowledged_event(tmp_path, call, durability, inject, before):
    """Whichever call fails or is the last, every acknowledged event is in the trail once, and the next process continues."""
    options = ["--durability", durability] if durability else []
    total = calls_of(tmp_path, call, *options)
    assert total > 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [
            pool.submit(judge, tmp_path / str(when) / "audit.jsonl", call, inject, when, options, before)
            for when in range(1, total + 1)
        ]
    figure(f"strace {call} {inject}", runs=total, torn=sum(run.result() for run in runs))


@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_permanent_disk_failure_accounts_for_every_event(tmp_path, error, on_error):
    """If every write from the n-th on fails, recorded, pending, raised and lost add up to the accepted events."""
    for when in range(1, COUNT + 1):
        path = tmp_path / str(when) / "audit.jsonl"
        done, writer_output = write(
            path, "--count", COUNT, "--on-error", on_error, "--max-pending", 3,
            wrapper=strace(tmp_path / "strace.log", "write", f"error={error}", f"{when}+", path=path),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        counters = writer_output.counters[0]
        left = COUNT - counters["recorded"]
        assert counters["accepted"] == COUNT
        assert counters["recorded"] == len(writer_output.acknowledged) < when
        assert (counters["raised"], len(writer_output.raised)) == ((left, left) if on_error == "raise" else (0, 0))
        assert counters["pending"] == (min(left, 3) if on_error == "retry" else 0)
        assert done.stderr.count(" fails (OSError: [Errno ") == 1
        trail = Trail(path)
        trail.holds(writer_output)
        assert trail.numbers == list(range(COUNT - left))


SLOW = """
import json, logging, sys, threading, time
from structlog_audit import AuditHandler, get_audit_logger
handler = AuditHandler(filename=sys.argv[1])
logger = logging.getLogger("audit")
logger.propagate = False
logger.setLevel("INFO")
logger.addHandler(handler)
log = get_audit_logger()
def write():
    for number in range(10):
        log.info("STORE", entry_ids=[str(number)])
threads = [threading.Thread(target=write) for _ in range(8)]
turns = 0
for thread in threads:
    thread.start()
while any(thread.is_alive() for thread in threads):
    turns += 1
    time.sleep(0.001)
handler.close()
print(json.dumps({"turns": turns, **handler._counters()}))
"""


def test_slow_disk_delays_only_writers_which_share_writes(tmp_path):
    """At 50 ms per write, 8 threads share the writes of 80 events, and a thread that records nothing is not delayed."""
    path = tmp_path / "audit.jsonl"
    log = tmp_path / "strace.log"
    done = run(
        *strace(log, "write", "delay_enter=50000", "1+", path=path), sys.executable, "-c", SLOW, path, timeout=60
    )
    figures = json.loads(done.stdout)
    assert figures["recorded"] == 80

    writes = len(log.read_text().splitlines())
    assert writes < 40
    # It would have a turn between two writes if it waited for them.
    assert figures["turns"] > 2 * writes
    assert len(Trail(path).numbers) == 80


def test_full_stderr_does_not_block_recording(tmp_path):
    """With trail and stderr on the same full disk, every call returns and the events are pending."""
    path, complaints = tmp_path / "audit.jsonl", tmp_path / "stderr"
    code = (
        "import os, sys; from writer import *; sys.stderr = open(sys.argv.pop(), 'w', 1); "
        "sys.argv.append('--count=5'); main()"
    )
    words = strace(tmp_path / "strace.log", "write", "error=ENOSPC", "1+", path=path)
    done = run(*words, "-P", complaints, sys.executable, "-c", code, path, complaints, cwd=Path(__file__).parent)
    counters = re.search(r"counters (.*)", done.stdout)
    assert counters, done.stderr
    assert json.loads(counters[1])["pending"] == 5
