"""Changes to the active segment and its folder while a process writes."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from trails import Trail, figure, run_code

from structlog_audit import AuditFileHandler, AuditHandler
from structlog_audit.trail.writing.filesystem import describe_user

pytestmark = pytest.mark.system


@pytest.fixture
def recorder(tmp_path):
    """Return a function that records numbered events, with its handler and path as attributes."""
    path = tmp_path / "logs" / "audit.jsonl"
    handler = AuditHandler(target=AuditFileHandler(path, maxBytes=2_000), call_later=lambda seconds, function: None)
    logger = logging.Logger("paths")
    logger.addHandler(handler)
    numbers = iter(range(10_000))

    def record(count):
        for _ in range(count):
            logger.info("STORE", extra={"entry_ids": [str(next(numbers))]})

    record.handler, record.path = handler, path
    yield record
    handler.close()


def next_check(handler):
    """Make the handler check the path at its next write, as it does every 50 ms."""
    handler.target._active.check_at = 0.0


def unlink(path):
    path.unlink()


def rename(path):
    path.rename(path.with_name("taken-away"))


def truncate(path):
    os.truncate(path, 0)


def replace(path):
    path.with_name("new").write_bytes(b"")
    path.with_name("new").replace(path)


@pytest.mark.parametrize("change", [unlink, rename, truncate, replace])
def test_events_after_the_file_was_changed_are_in_the_trail(recorder, change):
    """After the file is unlinked, renamed, truncated or replaced, all events from the next check on are in the trail."""
    record, path = recorder, recorder.path
    record(5)
    change(path)
    next_check(record.handler)
    record(20)
    assert [number for number in Trail(path).numbers if number >= 5] == list(range(5, 25))
    counters = record.handler._counters()
    assert (counters["recorded"], counters["pending"]) == (25, 0)
    assert b"\0" not in path.read_bytes()


def test_path_is_checked_again_within_the_interval(recorder):
    """After a check, the next is due 50 ms later: while a process writes, an unlinked file exists again after that time."""
    next_check(recorder.handler)
    recorder(1)
    assert 0 < recorder.handler.target._active.check_at <= time.monotonic() + 0.05


def symlink(path):
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.timeout(10)
@pytest.mark.parametrize("create", [symlink, os.mkfifo, os.mkdir])
def test_link_fifo_or_folder_at_the_path_is_refused_without_a_hang(recorder, create, capsys):
    """Nothing is written through a link or into a FIFO; the events are pending until the path is free again."""
    record, path = recorder, recorder.path
    record(3)
    kept = path.read_bytes()
    path.rename(path.with_name("kept"))
    create(path)
    next_check(record.handler)
    record(3)
    assert record.handler._counters()["pending"] == 3
    assert not path.with_name("elsewhere").exists()
    assert path.with_name("kept").read_bytes() == kept
    path.rmdir() if path.is_dir() else path.unlink()
    record(1)
    assert record.handler._counters()["pending"] == 0
    assert Trail(path).numbers == [3, 4, 5, 6]
    assert capsys.readouterr().err.count("fails") == 1


REVOKED = """
# _strptime is imported now: after the change of user it may not be readable.
import _strptime, json, logging, os, sys
from structlog_audit import AuditFileHandler, AuditHandler
path, change = sys.argv[1:]
folder = os.path.dirname(path)
os.mkdir(folder, 0o700)
os.chown(folder, 65534, 65534)
os.setgroups([]); os.setgid(65534); os.setuid(65534)
target = AuditFileHandler(path, maxBytes=2_000)
handler = AuditHandler(target=target, call_later=lambda seconds, function: None)
logger = logging.Logger("revoked")
logger.addHandler(handler)
numbers = iter(range(1000))
def record(count):
    for _ in range(count):
        logger.info("STORE", extra={"entry_ids": [str(next(numbers))]})
record(3)
os.chmod(*{"file": (path, 0), "folder r-x": (folder, 0o500), "folder ---": (folder, 0)}[change])
# The next write checks the path, as it does every 50 ms.
target._active.check_at = 0.0
record(30)
during = {**handler._counters(), "failed_rollovers": target.failed_rollovers}
refused = [finding.message for finding in handler.check() if finding.code == "access"]
os.chmod(folder, 0o700)
if os.path.exists(path):
    os.chmod(path, 0o600)
target._active.check_at = 0.0
record(30)
print(json.dumps([during, handler._counters(), [finding.code for finding in handler.check()], refused]))
"""


@pytest.fixture
def open_folder():
    """A folder that every user can reach. Those of pytest are closed again by each run of it."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("change", ["file", "folder r-x", "folder ---"])
def test_revoked_permission_loses_no_event(open_folder, change):
    """Writing continues in the open file; a rollover that is not permitted keeps the segment, is counted, and foreseen."""
    path = open_folder / "logs" / "audit.jsonl"
    done = run_code(REVOKED, path, change)
    assert done.returncode == 0, done.stderr
    during, after, findings, refused = json.loads(done.stdout)
    figure(f"permission revoked: {change}", runs=1, lost=after["lost"], pending=during["pending"],
           failed_rollovers=during["failed_rollovers"])  # fmt: skip
    assert (during["recorded"], during["pending"]) == (33, 0)
    assert (during["failed_rollovers"] > 0) == (change != "file")
    assert ("rollover" in findings) == (change != "file")

    # The file is replaced by a new one at the next rollover.
    user, mode = describe_user(65534), {"file": "", "folder r-x": "0500", "folder ---": "0000"}[change]
    place = f"user {user} may not write to {path.parent}, which belongs to user {user} and has mode {mode}"
    assert refused == ([f"{place}: events or rollovers may fail"] if mode else [])
    assert "access" not in findings
    assert (after["recorded"], after["pending"]) == (63, 0)
    assert Trail(path).numbers == list(range(63))
