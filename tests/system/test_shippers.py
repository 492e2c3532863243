"""Real log shippers with the configuration that the command line prints."""

from __future__ import annotations

import collections
import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import process
from servers import stop, wait_until

from structlog_audit import open_trail

pytestmark = pytest.mark.system

EVENTS = 60_000

WRITER = """
import logging, sys, structlog_audit
path, count, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
logger = logging.getLogger("audit")
logger.propagate = False
logger.setLevel("INFO")
target = structlog_audit.AuditFileHandler(path, maxBytes=size)
logger.addHandler(structlog_audit.AuditHandler(target=target, max_events=1_000))
log = structlog_audit.get_audit_logger()
for number in range(count):
    log.info("STORE", user_id=f"u{number % 50}", session_id="s1", entry_ids=[f"e{number}"], number=number, note="x" * 60)
    if number % 1_000 == 0:
        log.info("IMPORT", text="é\\u2028\\x7f\\t\\r\\n\\x00 <134>$1 %msg% \\\\ '\\"`" + "ö" * 60_000)
        log.info("RECALL", entry_ids=[f"entry_{i:06}" for i in range(5_000)])
logging.shutdown()
"""
"""A program that records small events, lines of maximum length, and entry ids that continue in lines of kind `part`."""


@pytest.fixture
def place(tmp_path):
    """Return a folder with a name that every configuration syntax must escape."""
    folder = tmp_path / 'it\'s "$HOME" `x` %m #1 é'
    folder.mkdir()
    return folder


def write(trail, count, size):
    """Record *count* small events, and some large ones, in another process at full speed."""
    subprocess.run([sys.executable, "-c", WRITER, str(trail), str(count), str(size)], check=True, timeout=120)


def printed(name, *words):
    """Return the configuration that the command line prints for the shipper *name*."""
    done = process("shipper", name, *words)
    assert done.code == 0, done.err
    return done.out


def segments(trail):
    """Return the paths of the segments of *trail*."""
    return sorted(trail.parent.glob(f"{trail.name}*"))


def assert_arrived_once(trail, copy, shipper):
    """Wait until all lines arrived, and assert that each arrived once and unchanged."""
    sent = [line for path in segments(trail) for line in path.read_bytes().splitlines(keepends=True)]
    enough = sum(map(len, sent))
    wait_until(lambda: copy.exists() and copy.stat().st_size >= enough, shipper, "the lines")

    # Stopping flushes the shipper, so a duplicated line arrives before the comparison.
    stop(shipper)

    received = copy.read_bytes().splitlines(keepends=True)
    assert collections.Counter(received) == collections.Counter(sent)
    lines = [json.loads(line) for line in received]
    assert {"trail", "part", None} == {line.get("kind") for line in lines}
    assert max(map(len, received)) > 31_000
    assert sum(line["operation"] == "STORE" for line in lines) == EVENTS + 100


def ship(trail, copy, command, ready):
    """Run a shipper on an existing trail while rollovers happen at full speed, and check the lines it wrote."""
    environment = {**os.environ, **command[1]}
    write(trail, 100, 2_000_000)
    with subprocess.Popen(command[0], env=environment) as shipper:
        try:
            wait_until(ready, shipper, "the first line")
            write(trail, EVENTS, 2_000_000)
            assert len(segments(trail)) >= 6
            assert_arrived_once(trail, copy, shipper)
        finally:
            shipper.kill()


def test_rsyslog_ships_every_line_once(place):
    """rsyslog ships every line once and unchanged across rollovers at full speed."""
    trail, copy, work = place / "audit.jsonl", place / "copy" / "shipped", place.parent / "work"
    work.mkdir()
    (work / "audit.conf").write_text(printed("rsyslog", "--trail", trail, "--to", copy))
    main = work / "rsyslog.conf"
    main.write_text(f'global(workDirectory="{work}")\ninclude(file="{work}/audit.conf")\n')
    subprocess.run(["rsyslogd", "-N1", "-f", str(main)], check=True)
    command = ["rsyslogd", "-n", "-f", str(main), "-i", str(work / "pid")]
    ship(trail, copy, (command, {}), copy.exists)


def syslog_ng():
    """Return the command and environment of syslog-ng, installed or unpacked by .ci/unpack-syslog-ng."""
    root = os.environ.get("SYSLOG_NG_ROOT")
    if root is None:
        return ["syslog-ng"], {}
    libraries = [path for path in Path(root).glob("usr/lib/*") if path.is_dir()]
    libraries += [path for path in Path(root).glob("lib/*") if path.is_dir()]
    modules = next(Path(root).glob("usr/lib/syslog-ng/*/libaffile.so")).parent
    found = {"LD_LIBRARY_PATH": ":".join(map(str, libraries))}
    return [f"{root}/usr/sbin/syslog-ng", f"--module-path={modules}"], found


def test_syslog_ng_ships_every_line_once(place):
    """syslog-ng ships every line once and unchanged across rollovers at full speed."""
    trail, copy, work = place / "audit.jsonl", place / "copy" / "shipped", place.parent / "work"
    work.mkdir()
    (work / "audit.conf").write_text(printed("syslog-ng", "--trail", trail, "--to", copy))
    main = work / "syslog-ng.conf"
    main.write_text(f'@version: 3.38\n@include "{work}/audit.conf"\n')
    words, environment = syslog_ng()
    words += ["-F", "--no-caps", "--stderr", "-f", str(main)]
    words += [f"--{name}={work / name}" for name in ("persist-file", "pidfile", "control")]
    ship(trail, copy, (words, environment), copy.exists)


def lnav_of(trail, place, monkeypatch):
    """Return a function that lets lnav answer a query about *trail* with the printed format."""
    formats = place.parent / "formats" / "audit"
    formats.mkdir(parents=True)
    (formats / "structlog_audit.json").write_text(printed("lnav", "--trail", trail))
    monkeypatch.setenv("HOME", str(place.parent))

    def run_sql(query):
        words = [
            "lnav",
            "-n",
            "-I",
            str(place.parent),
            "-c",
            f";{query}",
            "-c",
            ":write-csv-to -",
            *map(str, segments(trail)),
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        assert not done.stderr
        return done.stdout.splitlines()[1:]

    return run_sql


def test_lnav_shows_the_time_of_each_line(place, monkeypatch):
    """lnav with the printed format shows the time of a line that is older than the line before it."""
    trail = place / "audit.jsonl"
    times = [f"2025-01-15T10:00:0{second}" for second in (5, 1, 3, 6)]
    lines = [
        f'{{"event_id":"evt_{number:032x}","timestamp":"{time}.000000Z","operation":"STORE","status":"SUCCESS"}}\n'
        for number, time in enumerate(times)
    ]
    trail.write_text("".join(lines))
    run_sql = lnav_of(trail, place, monkeypatch)
    found = run_sql("SELECT log_time FROM structlog_audit ORDER BY event_id")
    assert [time[:19].replace(" ", "T") for time in found] == times


def test_lnav_answers_sql_over_all_segments(place, monkeypatch):
    """lnav with the printed format reads active, rolled and compressed segments as one table with all fields."""
    trail = place / "audit.jsonl"
    write(trail, 3_000, 300_000)
    oldest, *others = segments(trail)[1:]
    with oldest.open("rb") as plain, gzip.open(f"{oldest}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    oldest.unlink()
    assert others
    run_sql = lnav_of(trail, place, monkeypatch)
    events = open_trail(trail)
    assert run_sql(
        "SELECT count(*), count(DISTINCT event_id) FROM structlog_audit WHERE kind IS NULL AND operation = 'STORE'"
    ) == ["3000,3000"]
    assert run_sql(
        "SELECT operation, user_id, session_id, status, log_level, json_extract(entry_ids, '$[0]'),"
        " json_extract(metadata, '$.number')"
        " FROM structlog_audit WHERE user_id = 'u7' ORDER BY event_id LIMIT 2"
    ) == ["STORE,u7,s1,SUCCESS,info,e7,7", "STORE,u7,s1,SUCCESS,info,e57,57"]
    assert run_sql("SELECT operation FROM structlog_audit WHERE kind = 'trail' ORDER BY event_id") == [
        "opened",
        "closed",
    ]
    assert events.count_events(operation="STORE") == 3_000
