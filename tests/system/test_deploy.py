"""The files of `examples/deploy`, as far as one machine can run them: the units, the container's conditions, the manifest."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from servers import free_port, get, stop, trail, wait_until

pytestmark = pytest.mark.system

DEPLOY = Path(__file__).parent.parent.parent / "examples" / "deploy"
UNITS = ("shop.service", "shop-audit-seal.service")
ANALYZE = shutil.which("systemd-analyze")

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="not installed: systemd-analyze")

READ_ONLY_ROOT = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro /
shift
exec "$@"
"""


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_unit_has_no_errors(name, tmp_path):
    """systemd knows every setting of the units."""
    unit = re.sub(r"/opt/shop/bin/\S+", sys.executable, (DEPLOY / name).read_text())
    (tmp_path / name).write_text(unit)
    done = subprocess.run([ANALYZE, "verify", tmp_path / name], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_unit_is_hardened(name):
    """systemd's own review rates the exposure of the units as at most 1.5 of 10."""
    command = [ANALYZE, "security", "--offline=true", "--threshold=15", "--no-pager", DEPLOY / name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_manifest_is_valid():
    """Kubernetes knows every member of the manifest."""
    validate = pytest.importorskip("kubernetes_validate", reason="not installed: kubernetes-validate")
    import yaml

    (manifest,) = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    validate.validate(manifest, "1.33", strict=True)


def test_container_installs_extras_that_exist():
    """The image installs extras of this distribution, and the files that it copies exist."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    extras = re.search(r"structlog-audit\[([\w,]+)\]", dockerfile)[1].split(",")
    from importlib import metadata

    assert set(extras) <= set(metadata.metadata("structlog-audit").get_all("Provides-Extra"))
    for name in re.search(r"^COPY (.*) ", dockerfile, re.MULTILINE)[1].split():
        assert (DEPLOY / name).is_file()


@pytest.fixture
def server(tmp_path):
    """gunicorn with the configuration of the page, on a root file system that is read-only but for the trail's folder.

    Yields the process, its port and the first port of the metrics.
    """
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("mount namespaces are not permitted here")
    port, metrics = free_port(), free_port()
    environment = {
        **os.environ,
        "AUDIT_TRAIL": str(tmp_path / "audit.jsonl"),
        "WEB_CONCURRENCY": "2",
        "METRICS_PORT": str(metrics),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "gunicorn", "--config", DEPLOY / "gunicorn.conf.py", "--bind", f"127.0.0.1:{port}"]
    command += ["--worker-tmp-dir", "/dev/shm", "--chdir", DEPLOY, "shop:application"]
    process = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", READ_ONLY_ROOT, "sh", tmp_path, *command], env=environment, cwd="/"
    )
    try:
        wait_until(lambda: get(port, "/health"), process, "the server")
        yield process, port, metrics
    finally:
        process.kill()
        process.wait()


def recorded(port):
    """Return the number of recorded events in the metrics of one worker, or None without a worker at *port*."""
    body = get(port, "/metrics")
    found = body and re.search(r"^structlog_audit_recorded_events_total\{.*\} (\d+)", body, re.MULTILINE)
    return int(found[1]) if found else None


def test_server_records_on_a_read_only_root_with_metrics_of_each_worker(server, tmp_path):
    """Only the trail's folder is written to; the metrics of all workers add up to the requests, each recorded once."""
    process, port, metrics = server
    for number in range(40):
        assert json.loads(get(port, f"/page/{number}"))["page"] == f"/page/{number}"

    def counts_of_workers():
        # A worker takes the next port if another program has the one that it tries.
        found = [recorded(metrics + number) for number in range(4)]
        counts = [count for count in found if count is not None]
        return counts if len(counts) == 2 else None

    counts = wait_until(counts_of_workers, process, "the metrics of two workers")
    stop(process)
    pages = [event for event in trail(tmp_path) if event["operation"] == "page.read"]
    assert len(pages) == 40
    assert sum(counts) >= 40


FULL = """
import resource, signal, sys

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
import shop

print(shop.health()[0])
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
for number in range(20):
    list(shop.application({"PATH_INFO": f"/page/{number}"}, lambda status, headers: None))
print(shop.health()[0], *shop.health()[1])
"""


def test_health_is_503_while_events_cannot_be_written(tmp_path):
    """The health endpoint fails while events are pending, here since a file may not grow."""
    environment = {**os.environ, "AUDIT_TRAIL": str(tmp_path / "audit.jsonl"), "PYTHONPATH": str(DEPLOY)}
    done = subprocess.run([sys.executable, "-c", FULL], env=environment, capture_output=True, text=True, timeout=60)
    before, after = done.stdout.splitlines()
    assert before == "200 OK"
    assert after.startswith("503 Service Unavailable")
    assert "pending" in after.split()
