"""Forks at random times while threads record."""

from __future__ import annotations

import pytest
from trails import Trail, figure, run_code

pytestmark = pytest.mark.system

FORKS = """
import logging, os, sys, threading, warnings
from structlog_audit import AuditFileHandler, AuditHandler, get_audit_logger
warnings.simplefilter("ignore", DeprecationWarning)
path, forks = sys.argv[1], int(sys.argv[2])
handler = AuditHandler(target=AuditFileHandler(path, maxBytes=20_000))
logger = logging.getLogger("audit")
logger.propagate = False
logger.setLevel("INFO")
logger.addHandler(handler)
log = get_audit_logger()
stop = threading.Event()
def write():
    while not stop.is_set():
        log.info("STORE", of="parent")
        handler.count_events(operation="RECALL")
threads = [threading.Thread(target=write) for _ in range(3)]
for thread in threads:
    thread.start()
failed = 0
for number in range(forks):
    child = os.fork()
    if not child:
        assert handler._counters()["recorded"] == 0 == len(handler)
        for entry in range(3):
            log.info("STORE", entry_ids=[str(number * 3 + entry)])
        assert handler.count_events(operation="STORE") == 3
        handler.flush()
        os._exit(0)
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
for thread in threads:
    thread.join()
handler.close()
print(failed, handler._counters()["recorded"])
"""


@pytest.mark.parametrize("forks", [150, pytest.param(3_000, marks=pytest.mark.long)])
def test_child_forked_under_threads_is_an_independent_writer(tmp_path, forks):
    """A forked child does not hang on a lock or repeat an id, and no event of parent or child is missing."""
    path = tmp_path / "audit.jsonl"
    done = run_code(FORKS, path, forks, timeout=60 + forks // 10)
    failed, recorded = map(int, done.stdout.split())
    assert done.stderr == ""
    trail = Trail(path)
    figure("fork under threads", runs=forks, lost=0, torn=len(trail.torn), events=len(trail.ids))
    assert failed == 0
    assert trail.torn == []
    assert len(set(trail.ids)) == len(trail.ids)
    assert sorted(trail.numbers) == list(range(3 * forks))
    assert sum(event.get("metadata", {}).get("of") == "parent" for event in trail.events) == recorded
