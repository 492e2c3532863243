"""Many processes that share one trail, under real servers and workers."""

from __future__ import annotations

import collections
import os
import pathlib
import subprocess
import sys

import pytest
from servers import free_port, get, stop, trail, wait_until

pytestmark = pytest.mark.system

APP = """
import logging.config, os, structlog_audit
logging.config.dictConfig({
    "version": 1, "disable_existing_loggers": False,
    "handlers": {
        "file": {"class": "structlog_audit.AuditFileHandler", "filename": os.environ["TRAIL"], "maxBytes": 4_000},
        "audit": {"class": "structlog_audit.AuditHandler", "target": "file"},
    },
    "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}},
})
log = structlog_audit.get_audit_logger()
log.info("IMPORTED")

def wsgi(environ, start_response):
    log.info("REQUEST", path=environ["PATH_INFO"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]

async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    await log.ainfo("REQUEST", path=scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""

TASKS = """
import os
from celery import Celery
from celery.signals import setup_logging
import app

setup_logging.connect(lambda **_: None, weak=False)
celery = Celery("tasks", broker="filesystem://")
folder = os.environ["FOLDER"]
celery.conf.broker_transport_options = {
    "data_folder_in": folder, "data_folder_out": folder, "control_folder": os.path.join(folder, "control")
}
celery.conf.worker_prefetch_multiplier = 1

@celery.task(ignore_result=True)
def work(number):
    app.log.info("TASK", number=number)
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return a folder with the application; set the environment of its processes."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "tasks.py").write_text(TASKS)
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue" / "control").mkdir()
    monkeypatch.setenv("TRAIL", str(tmp_path / "audit.jsonl"))
    monkeypatch.setenv("FOLDER", str(tmp_path / "queue"))
    return tmp_path


SERVERS = {
    "gunicorn": ["gunicorn", "--workers", "3", "app:wsgi", "--bind", "127.0.0.1:{port}"],
    "gunicorn --preload": ["gunicorn", "--preload", "--workers", "3", "app:wsgi", "--bind", "127.0.0.1:{port}"],
    "uvicorn": ["uvicorn", "--workers", "3", "app:asgi", "--port", "{port}", "--log-level", "warning"],
}


@pytest.mark.parametrize("server", SERVERS)
def test_server_workers_record_each_request_once(place, server):
    """Three workers record one event per request across many rollovers, and every event id is unique."""
    port = free_port()
    command = [sys.executable, "-m", *(part.format(port=port) for part in SERVERS[server])]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: get(port, "/ready"), process, "the first answer")
        workers = collections.Counter(get(port, f"/{number}") for number in range(300))
    finally:
        stop(process)
    lines = trail(place)
    requests = collections.Counter(line["metadata"]["path"] for line in lines if line["operation"] == "REQUEST")
    assert [requests[f"/{number}"] for number in range(300)] == [1] * 300
    assert len({line["event_id"] for line in lines}) == len(lines)
    assert None not in workers
    opened = {line["metadata"]["pid"] for line in lines if line["operation"] == "opened"}
    assert {int(worker) for worker in workers if worker} <= opened
    assert len(list(place.glob("audit.jsonl*"))) > 5


def test_celery_prefork_processes_record_each_task_once(place):
    """A Celery worker with three forked processes records one event per task in one trail."""
    command = [sys.executable, "-m", "celery", "-A", "tasks", "worker", "--pool", "prefork", "--concurrency", "3"]
    environment = {**os.environ, "C_FORCE_ROOT": "1", "PYTHONPATH": str(place)}
    log = pathlib.Path(place / "worker.log").open("wb")
    process = subprocess.Popen(command, cwd=place, env=environment, stdout=log, stderr=log)
    try:
        sender = "import tasks\nfor number in range(100): tasks.work.delay(number)"
        subprocess.run([sys.executable, "-c", sender], cwd=place, env=environment, check=True, timeout=60)
        wait_until(lambda: sum(line["operation"] == "TASK" for line in trail(place)) >= 100, process, "100 tasks", 120)
    finally:
        stop(process)
        log.close()
    lines = trail(place)
    tasks = collections.Counter(line["metadata"]["number"] for line in lines if line["operation"] == "TASK")
    assert tasks == dict.fromkeys(range(100), 1)
    assert len({line["event_id"] for line in lines}) == len(lines)
