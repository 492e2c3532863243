"""The real logrotate (Debian's package) with the rule of the guide, beside a writer."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from servers import wait_until

from structlog_audit import open_trail

pytestmark = pytest.mark.system

GUIDE = Path(__file__).parent.parent.parent / "examples" / "guide" / "failures.md"
LOGROTATE = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")

WRITER = """
import logging, sys, threading, structlog_audit
logger = logging.getLogger("audit")
logger.propagate = False
logger.setLevel("INFO")
target = structlog_audit.AuditFileHandler(sys.argv[1])
logger.addHandler(structlog_audit.AuditHandler(target=target, on_error="raise"))
stopped = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stopped.set())).start()
count = 0
while not stopped.wait(0.001):
    logger.info("STORE", extra={"number": count})
    count += 1
logging.shutdown()
print(count)
"""
"""A program that records events until its stdin is closed, and prints the number of acknowledged ones."""


@pytest.fixture
def path(tmp_path):
    """The path of a trail in a folder of its own."""
    if LOGROTATE is None:
        pytest.skip("not installed: logrotate")
    (tmp_path / "logs").mkdir(mode=0o700)
    return tmp_path / "logs" / "audit.jsonl"


def rule_of_the_guide(path, **changes):
    """Return the rule that the guide shows, for *path*, with other directives."""
    (rule,) = re.findall(r"```conf\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    for directive, replacement in changes.items():
        rule = re.sub(rf"^ +{directive}\b.*\n", f"    {replacement}\n", rule, flags=re.MULTILINE)
    return rule.replace("/var/log/app/audit.jsonl", f'"{path}"')


def rotate(path, rule):
    """Run logrotate once with *rule*, as if its time had come."""
    config = path.parent.parent / "logrotate.conf"
    config.write_text(rule)
    config.chmod(0o600)
    subprocess.run([LOGROTATE, "-f", "-s", f"{config}.state", config], check=True, timeout=60, capture_output=True)


def lines_in(path):
    """Return the number of lines in the file at *path*."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def record_during_rotations(path, rule, rotations):
    """Record events while logrotate rotates the trail, and return the number of acknowledged events."""
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        for _ in range(rotations):
            wait_until(lambda: lines_in(path) > 100, writer, "events")
            rotate(path, rule)
        wait_until(lambda: lines_in(path) > 100, writer, "events after the rotation")
        output, _ = writer.communicate(timeout=60)
    return int(output)


@pytest.mark.parametrize(
    ("changes", "rotations", "names"),
    [
        ({}, 1, r"-\d{8}"),
        ({"dateext": "dateext\n    dateformat .%Y-%m-%d"}, 1, r"\.\d{4}-\d\d-\d\d"),
        ({"dateext": "nodateext"}, 3, r"\.[123](\.gz)?"),
        ({"dateext": "dateext\n    dateformat -%s"}, 1, r"-\d{10}"),
    ],
)
def test_trail_that_logrotate_rotates_keeps_every_event(path, changes, rotations, names):
    """With the rule of the guide, every acknowledged event is read, in order, and the replaced files are recorded."""
    count = record_during_rotations(path, rule_of_the_guide(path, **changes), rotations)
    reader = open_trail(path)
    assert [event.metadata["number"] for event in reader.iter_events()] == list(range(count))
    assert reader.problems == {}
    assert reader.count_events(kind="trail", operation="replaced") == rotations

    rotated = sorted(other.name.removeprefix(path.name) for other in path.parent.iterdir() if other != path)
    assert len(rotated) == rotations
    assert all(re.fullmatch(names, name) for name in rotated)
    assert open_trail(path.parent).count_events() == count


def test_compressed_file_of_logrotate_is_read(path):
    """The file that logrotate compresses at the next rotation is gzip, and is read."""
    rule = rule_of_the_guide(path, dateext="nodateext")
    count = record_during_rotations(path, rule, 2)
    packed = path.with_name(f"{path.name}.2.gz")
    assert gzip.decompress(packed.read_bytes()).startswith(b'{"event_id"')
    assert open_trail(path).count_events() == count


def test_copytruncate_is_recorded(path):
    """A truncation by copytruncate is recorded in the trail, since events may be lost in it."""
    rule = rule_of_the_guide(path, create="copytruncate", dateext="nodateext")
    count = record_during_rotations(path, rule, 1)
    reader = open_trail(path)
    assert reader.count_events() <= count
    assert reader.count_events(kind="trail", operation="truncated") == 1


def test_file_with_the_date_before_its_extension_is_named_by_the_doctor(path):
    """With `extension`, logrotate gives rotated files a name that is not read with the trail, and the doctor names them."""
    rule = rule_of_the_guide(path, daily="daily\n    extension .jsonl")
    record_during_rotations(path, rule, 1)
    (rotated,) = (other for other in path.parent.iterdir() if other != path)
    done = subprocess.run(
        [sys.executable, "-m", "structlog_audit.cli", "doctor", str(path)], capture_output=True, text=True, check=False
    )
    assert "not-read" in done.stdout
    assert rotated.name in done.stdout
