"""A sealed trail of a server with many workers: workers that are forked, restarted and replaced, and rollovers."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from servers import free_port, get, stop, wait_until

from structlog_audit.integrity.background import BackgroundSealer
from structlog_audit.integrity.signing import KeyFile, generate_key
from structlog_audit.integrity.standalone.verify_trail import Policy, verify

pytestmark = pytest.mark.system

ORIGIN = "audit.example/shop/web1"
APP = """
import logging, os
from structlog_audit import AuditFileHandler, AuditHandler, get_audit_logger

integrity = {"origin": "audit.example/shop/web1", "key": "audit.pem"}
logger = logging.getLogger("audit")
logger.propagate = False
logger.setLevel("INFO")
logger.addHandler(AuditHandler(target=AuditFileHandler("audit.jsonl", maxBytes=20_000, integrity=integrity)))
log = get_audit_logger()

def wsgi(environ, start_response):
    log.info("REQUEST", path=environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
"""


def test_eight_forked_workers_a_restart_and_rollovers_leave_an_intact_trail(tmp_path):
    """With --preload, workers inherit the handler; a reload replaces all of them; then the server is started again."""
    generate_key(str(tmp_path / "audit.pem"), ORIGIN)
    (tmp_path / "app.py").write_text(APP)
    port = free_port()
    command = [sys.executable, "-m", "gunicorn", "--preload", "--workers", "8", "app:wsgi"]
    for start in range(2):
        log = (tmp_path / "server.log").open("a")
        process = subprocess.Popen([*command, "--bind", f"127.0.0.1:{port}"], cwd=tmp_path, stderr=log)
        try:
            wait_until(lambda: get(port, "/ready"), process, "the first answer")
            with ThreadPoolExecutor(8) as pool:
                workers = set(pool.map(lambda number: get(port, f"/{number}"), range(400)))
            process.send_signal(signal.SIGHUP)
            known = {None, *workers}
            wait_until(lambda known=known: get(port, "/ready") not in known, process, "a new worker")
            [get(port, f"/again/{number}") for number in range(100)]
        finally:
            stop(process)
            log.close()
        assert "Traceback" not in (tmp_path / "server.log").read_text()
        assert len(workers) > 1, start

    # The last workers may have ended at the same time: the next sealer does the rest.
    key = KeyFile(str(tmp_path / "audit.pem"), ORIGIN)
    sealer = BackgroundSealer(str(tmp_path / "audit.jsonl"), ORIGIN, lambda: [key])
    assert sealer.seal_now()
    sealer.release()

    report = verify(str(tmp_path / "audit.jsonl"), Policy((key.key,)), max_age=None)
    assert report.counts == {}, report.to_text()
    assert (report.unsealed, report.size > 1_000) == (0, True)
    assert len(list(tmp_path.glob("audit.jsonl.2*"))) > 5
