"""A disk that is actually full, and a file that cannot grow."""

from __future__ import annotations

import json
import logging
import resource
import signal
import sys
from pathlib import Path

import pytest
from trails import Trail, figure, needs_mount, run

from structlog_audit import AuditFileHandler, AuditHandler, AuditWriteError

pytestmark = pytest.mark.system

OUTAGES = 3


@needs_mount
@pytest.mark.parametrize("max_pending", [1_000, 20, 0])
def test_full_disk_loses_exactly_the_events_counted_in_gaps(tmp_path, max_pending):
    """Pending events are written when space returns, gaps count every lost event, and none is lost to a torn line."""
    done = run(
        "unshare", "-Urm", sys.executable, Path(__file__).with_name("full_disk.py"), tmp_path, "retry", max_pending
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    figure(f"ENOSPC retry {max_pending}", runs=OUTAGES, lost=found["end"]["lost"], gaps=sum(found["gaps"]),
           torn=found["torn"])  # fmt: skip
    assert all(before["pending"] <= max_pending for before, _ in found["outages"])
    assert found["end"]["pending"] == found["end"]["raised"] == 0
    assert found["other"]["recorded"] == 2 * OUTAGES
    assert sum(found["gaps"]) == found["end"]["lost"]
    assert (found["end"]["lost"] > 0) == (max_pending < 1_000)
    assert len(found["numbers"]) == len(set(found["numbers"])) == found["submitted"] - found["end"]["lost"]

    # Per outage: the torn line, and the line of the other handler that was appended to it.
    assert found["torn"] <= 2 * OUTAGES


@needs_mount
def test_full_disk_raises_for_exactly_the_events_not_stored(tmp_path):
    """With on_error="raise", a call raises if and only if its event is not in the trail."""
    done = run("unshare", "-Urm", sys.executable, Path(__file__).with_name("full_disk.py"), tmp_path, "raise", 0)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    figure("ENOSPC raise", runs=OUTAGES, raised=len(found["raised"]), torn=found["torn"])
    assert found["raised"]
    assert found["other"]["recorded"] == 2 * OUTAGES
    assert sorted(found["numbers"] + found["raised"]) == list(range(1, found["submitted"] + 1))
    assert found["end"]["raised"] == len(found["raised"])


@pytest.fixture
def limit():
    """Return a function that limits the file size of this process; SIGXFSZ is ignored."""
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size if size else resource.RLIM_INFINITY, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))
    signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_line_cut_at_any_byte_is_not_an_event(tmp_path, limit, on_error):
    """A write cut off at any byte (EFBIG) leaves its event in the trail once, or not at all if the call raised."""
    size = None
    cut = 0
    while size is None or cut <= size:
        path = tmp_path / f"{cut}.jsonl"
        handler = AuditHandler(filename=path, on_error=on_error, call_later=lambda seconds, function: None)
        logger = logging.Logger("limited")
        logger.addHandler(handler)
        logger.info("STORE", extra={"entry_ids": ["0"]})

        # The size of one event, with its line feed.
        size = len(path.read_bytes().splitlines()[-1]) + 1

        limit(path.stat().st_size + cut)
        raised = set()
        try:
            logger.info("STORE", extra={"entry_ids": ["1"]})
        except AuditWriteError:
            raised.add(1)
        finally:
            limit(None)
        logger.info("STORE", extra={"entry_ids": ["2"]})
        trail = Trail(path)
        assert trail.numbers == [number for number in range(3) if number not in raised], (cut, size)
        assert bool(raised) == (on_error == "raise" and cut < size)
        assert len(trail.torn) <= 1
        handler.close()
        cut += 1
    figure(f"EFBIG {on_error}", runs=cut, lost=0)


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_pending_events_are_recorded_as_space_becomes_available(tmp_path, limit, durability):
    """Each time some bytes are freed, the events that fit are recorded, none of them twice, at either durability."""
    path = tmp_path / "audit.jsonl"
    target = AuditFileHandler(path, durability=durability)
    handler = AuditHandler(target=target, call_later=lambda seconds, function: None)
    logger = logging.Logger("slices")
    logger.addHandler(handler)
    logger.info("STORE", extra={"entry_ids": ["0"]})
    limit(path.stat().st_size)
    for number in range(1, 200):
        logger.info("STORE", extra={"entry_ids": [str(number)]})
    slices = 0
    while handler._counters()["pending"]:
        before = handler._counters()["recorded"]
        slices += 1
        limit(path.stat().st_size + 2_000)
        handler.flush()
        assert handler._counters()["recorded"] > before + 5
    limit(None)
    trail = Trail(path)
    assert slices > 10
    assert trail.numbers == list(range(200))
    assert len(trail.torn) <= slices
    figure(f"EFBIG by slices, {durability}", runs=slices, lost=0, torn=len(trail.torn))


EXPORT_TO_FULL_DISK = """
mount -t tmpfs -o size=128k tmpfs "$1" || exit 99
echo mine > "$1/audit.db"
"$2" -m structlog_audit.cli export "$3" --to "$1/audit.db" --force --full-text
code=$?
ls -A "$1"
cat "$1/audit.db"
exit $code
"""


@needs_mount
def test_full_disk_during_the_export_of_a_database_keeps_the_previous_one(tmp_path):
    """The command says that the disk is full, and neither changes the previous database nor leaves a part of the new one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    path = tmp_path / "audit.jsonl"
    handler = AuditHandler(filename=path)
    logger = logging.Logger("export")
    logger.addHandler(handler)
    for number in range(2_000):
        logger.info("STORE", extra={"entry_ids": [str(number)]})
    handler.close()

    done = run("unshare", "-Urm", "sh", "-c", EXPORT_TO_FULL_DISK, "sh", disk, sys.executable, path)
    assert (done.returncode, done.stdout) == (3, "audit.db\nmine\n")
    assert "SQLite: database or disk is full" in done.stderr
