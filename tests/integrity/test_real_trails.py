"""Trails of real processes with chains: several writers, rollovers and kills give no alarm."""

import subprocess
import sys

import pytest
from seals import Sealer, codes, lines_of, verified

WRITER = """
import logging, sys
from structlog_audit import AuditFileHandler, AuditHandler, get_audit_logger
from structlog_audit.integrity.chain_link import ChainedStamp

target = AuditFileHandler(sys.argv[1], maxBytes=40_000)
target.stamp_class = ChainedStamp
handler = AuditHandler(target=target)
logger = logging.getLogger("audit")
logger.propagate = False
logger.setLevel("INFO")
logger.addHandler(handler)
log = get_audit_logger("audit")
for number in range(int(sys.argv[2])):
    log.info("STORE", user_id=f"user_{number}")
    if number == 200:
        print("begun", flush=True)
handler.close()
"""


def start(trail, events):
    command = [sys.executable, "-c", WRITER, str(trail), str(events)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


@pytest.fixture
def trail(tmp_path):
    return tmp_path / "audit.jsonl"


def test_trail_of_four_processes_with_rollovers_is_intact(trail):
    """Four processes write and roll over one trail; sealed, all numbers and chains are right."""
    writers = [start(trail, 400) for _ in range(4)]
    assert [writer.wait() for writer in writers if writer.communicate()] == [0] * 4
    sealer = Sealer(trail)
    sealer.seal()
    report = verified(trail)
    assert (codes(report), report.open_writers) == ({}, 0)
    assert report.size == sum(len(lines_of(path)) for path in trail.parent.glob("audit.jsonl*") if path.is_file())
    assert len((sealer.folder / "segments").read_text().splitlines()) > 3


def test_trail_of_killed_processes_is_intact(trail):
    """Processes that are killed leave writers without an end, and no alarm."""
    killed = [start(trail, 10**9) for _ in range(2)]
    for writer in killed:
        assert writer.stdout.readline() == b"begun\n"
        writer.kill()
        writer.communicate()
    assert start(trail, 300).communicate()[0] == b"begun\n"
    Sealer(trail).seal()
    report = verified(trail)
    assert (codes(report), report.open_writers, report.exit_code) == ({}, 2, 0)
