"""Faults at the system calls of a sealer, and verifications of a trail that many processes write to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from trails import ENVIRONMENT, figure, needs_strace, run

from structlog_audit.integrity.background import BackgroundSealer
from structlog_audit.integrity.merkle import root_at
from structlog_audit.integrity.notes import Note
from structlog_audit.integrity.signing import KeyFile, generate_key
from structlog_audit.integrity.standalone.verify_trail import HashFiles, Policy, verify

pytestmark = pytest.mark.system

ORIGIN = "audit.example/shop/web1"
CHILD = Path(__file__).parents[1] / "integrity" / "sealing_child.py"
CALLS = ("pwrite64", "renameat,renameat2", "fsync", "openat", "flock", "ftruncate", "mkdir", "close")


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "audit.pem"
    generate_key(str(path), ORIGIN)
    return path


def policy_of(key):
    return Policy((KeyFile(str(key), ORIGIN).key,))


def child(trail, key, wrapper=()):
    return run(*wrapper, sys.executable, CHILD, "seal", trail, key, ORIGIN)


def strace(log, calls, fault, when, places):
    """Return the prefix that injects *fault* at the *when*-th of *calls* on the seal folder and the trail."""
    only = [word for place in places for word in ("-P", place)]
    names = ",".join(f"?{call}" for call in calls.split(","))
    return [
        "strace",
        "-f",
        "-qq",
        "-o",
        log,
        "-e",
        f"trace={names}",
        *only,
        "-e",
        f"inject={names}:{fault}:when={when}",
    ]


def places_of(trail):
    folder = Path(f"{trail}.seal")
    files = [folder / name for name in ("checkpoint", "checkpoint.new", "segments", "segments.new")]
    return [trail, trail.parent, folder, *files, folder / "hashes.0", folder / "hashes.1"]


def judge(folder, key, calls, fault, when):
    """Run the child with one fault, seal again without, and check the trail and each checkpoint that was seen."""
    folder.mkdir()
    trail = folder / "audit.jsonl"
    trail.touch()
    done = child(trail, key, strace(folder / "strace.log", calls, fault, when, places_of(trail)))
    killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert killed == (fault == "signal=KILL"), done.stderr

    seen = Path(f"{trail}.seal", "checkpoint")
    earlier = Note.parse(seen.read_bytes()) if seen.exists() else None
    sealer = BackgroundSealer(str(trail), ORIGIN, lambda: [KeyFile(str(key), ORIGIN)])
    assert sealer.seal_now(), sealer.failure
    sealer.release()

    report = verify(str(trail), policy_of(key), max_age=None)
    assert (report.counts, report.unsealed) == ({}, 0), (calls, fault, when, report.to_text())
    if earlier is not None:
        checkpoint, _ = policy_of(key).check(earlier)
        with HashFiles(f"{trail}.seal") as hashes:
            assert root_at(checkpoint.size, hashes.read) == checkpoint.root


@needs_strace
@pytest.mark.parametrize("fault", ["error=EIO", "signal=KILL"])
@pytest.mark.parametrize("calls", CALLS)
def test_fault_at_any_system_call_of_the_sealer_keeps_the_seal_consistent(tmp_path, key, calls, fault):
    """Whichever call fails or is the last: the next sealer continues, nothing is found, and the checkpoint still fits."""
    trail = tmp_path / "counting" / "audit.jsonl"
    trail.parent.mkdir()
    log = tmp_path / "strace.log"
    done = child(trail, key, strace(log, calls, "delay_exit=0", "1", places_of(trail)))
    assert done.returncode == 0, done.stderr
    total = sum("(" in line for line in log.read_text().splitlines())

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [pool.submit(judge, tmp_path / str(when), key, calls, fault, when) for when in range(1, total + 1)]
    for done in runs:
        done.result()
    figure(f"sealer {calls} {fault}", runs=total)


def test_living_trail_of_eight_processes_raises_no_false_alarm(tmp_path, key):
    """In 150 verifications while eight processes record, roll over and seal, nothing is found but what is not sealed yet."""
    trail = tmp_path / "logs" / "audit.jsonl"
    end = tmp_path / "end"
    processes = [
        subprocess.Popen(
            [sys.executable, str(CHILD), "record", str(trail), str(key), ORIGIN, str(end)],
            env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(8)
    ]  # fmt: skip
    while not Path(f"{trail}.seal", "checkpoint").exists():
        time.sleep(0.1)

    alarms = []
    policy = policy_of(key)
    for _ in range(150):
        report = verify(str(trail), policy)
        if report.exit_code:
            alarms.append(report.to_text())
    end.touch()
    outputs = [process.communicate() for process in processes]
    assert [error for _, error in outputs] == [""] * 8
    assert alarms == []
    figure("verifications of a living trail", runs=150, segments=len(list(trail.parent.iterdir())) - 1)

    report = verify(str(trail), policy, max_age=None)
    recorded = sum(int(output) for output, _ in outputs)
    assert report.counts == {}
    assert report.size + report.unsealed >= recorded + 16


@pytest.fixture
def shared_folder():
    """A folder that other users can enter."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a process as another user")
def test_application_of_another_user_is_sealed_without_holding_the_key(shared_folder, key):
    """The application, as nobody, can read neither key nor seal; what it changes afterwards is found."""
    folder = shared_folder / "nobody"
    folder.mkdir()
    os.chown(folder, 65_534, 65_534)
    trail = folder / "audit.jsonl"
    code = f"""
import logging, os
from structlog_audit import AuditFileHandler, AuditHandler
from structlog_audit.integrity import background, chain_link, configuration, sealed_ranges
os.setgid(65534); os.setuid(65534)
handler = AuditHandler(target=AuditFileHandler({str(trail)!r}, integrity={{"origin": {ORIGIN!r}}}))
logger = logging.Logger("audit")
logger.addHandler(handler)
for number in range(50):
    logger.info("STORE", extra={{"user_id": f"user_{{number}}"}})
handler.close()
"""
    cli = [sys.executable, "-m", "structlog_audit.cli"]
    sealing = [*cli, "seal", trail, "--key", key, "--origin", ORIGIN]
    assert run(sys.executable, "-c", code).returncode == 0
    watch = subprocess.Popen(
        [str(word) for word in [*sealing, "--watch"]], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    while not Path(f"{trail}.seal", "checkpoint").exists():
        time.sleep(0.05)
    assert run(sys.executable, "-c", code).returncode == 0
    watch.terminate()
    assert watch.communicate()[1] == ""
    assert watch.returncode == 0

    assert trail.stat().st_uid == 65_534
    report = verify(str(trail), policy_of(key), max_age=None)
    assert (report.counts, report.unsealed) == ({}, 0)

    attack = f"""
import os
os.setgid(65534); os.setuid(65534)
for path in ({str(key)!r}, {str(trail) + ".seal/checkpoint"!r}):
    try:
        open(path)
    except PermissionError:
        print("denied")
data = open({str(trail)!r}, "rb").read()
open({str(trail)!r}, "r+b").write(data.replace(b"user_7", b"user_9", 1))
"""
    assert run(sys.executable, "-c", attack).stdout == "denied\ndenied\n"
    report = verify(str(trail), policy_of(key), max_age=None)
    assert report.counts == {"CHANGED": 1}


FORKS = """
import logging, os, sys, threading, warnings
from structlog_audit import AuditFileHandler, AuditHandler, get_audit_logger
warnings.simplefilter("ignore", DeprecationWarning)
path, key, origin, forks = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
handler = AuditHandler(target=AuditFileHandler(path, maxBytes=50_000, integrity={"origin": origin, "key": key}))
logger = logging.getLogger("audit")
logger.propagate = False
logger.setLevel("INFO")
logger.addHandler(handler)
log = get_audit_logger()
stop = threading.Event()
def seal():
    while not stop.is_set():
        log.info("STORE", of="parent")
        handler.target.integrity.seal_now()
thread = threading.Thread(target=seal)
thread.start()
failed = 0
for number in range(forks):
    child = os.fork()
    if not child:
        log.info("STORE", of="child")
        assert not handler.target.integrity.is_sealing
        handler.close()
        os._exit(0)
    failed += os.waitpid(child, 0)[1] != 0
stop.set()
thread.join()
handler.close()
print(failed)
"""


def test_forks_in_the_middle_of_passes_leave_an_intact_trail(tmp_path, key):
    """A child that is forked while its parent seals neither hangs, nor seals, nor takes the lock away."""
    trail = tmp_path / "audit.jsonl"
    done = run(sys.executable, "-c", FORKS, trail, key, ORIGIN, 100)
    assert (done.stdout, done.stderr) == ("0\n", "")
    report = verify(str(trail), policy_of(key), max_age=None)
    assert (report.counts, report.unsealed) == ({}, 0), report.to_text()
