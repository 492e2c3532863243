"""Segments that another process deletes while they are being listed."""

from __future__ import annotations

import subprocess
import sys

import pytest
from trails import ENVIRONMENT, figure

from structlog_audit import AuditFileHandler, AuditHandler

pytestmark = pytest.mark.system

ROLLING = """
import logging, sys
from structlog_audit import AuditFileHandler, AuditHandler
from structlog_audit.trail.writing import pruning, retention
# Without the grace period, segments vanish all the time.
pruning.GRACE_SECONDS = retention.GRACE_SECONDS = 0.0
handler = AuditHandler(target=AuditFileHandler(sys.argv[1], maxBytes=600, backupCount=20))
logger = logging.Logger("rolling")
logger.addHandler(handler)
for number in range(10_000_000):
    handler.target._active.check_at = 0.0
    logger.info("STORE")
    if number == 100:
        print("go", flush=True)
"""


def test_segments_deleted_by_another_process_cause_no_error(tmp_path):
    """While one process rolls over and deletes segments, another opens the trail and applies retention without an error."""
    path = tmp_path / "audit.jsonl"
    other = subprocess.Popen([sys.executable, "-c", ROLLING, str(path)], stdout=subprocess.PIPE, env=ENVIRONMENT)
    try:
        assert other.stdout.readline() == b"go\n"
        seen = set()
        for _ in range(300):
            target = AuditFileHandler(path, maxBytes=10**9, backupCount=20)
            AuditHandler(target=target)
            seen.update(target.segments())
            target.doRollover()
            target.close()
            assert target.failed_rollovers == 0
            assert {act for act, _, _ in target.notices} <= {"retention", "quarantine"}
        figure("opening beside rollover and retention", runs=300, vanished=sum(not path.exists() for path in seen))
        assert any(not path.exists() for path in seen)
    finally:
        other.kill()
        other.communicate()
