"""A fault at every system call that changes the vault, with one run per call."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor

import pytest
from children import without_coverage
from trails import figure, needs_strace

from structlog_audit import SubjectVault

pytestmark = [pytest.mark.system, needs_strace]

PERSONS = [f"C4nary-{number}" for number in range(4)]
ERASED = PERSONS[1]

PROGRAM = """
    import sys
    from structlog_audit import AuditHandler, AuditVaultError, Redactor

    folder, erased, *persons = sys.argv[1:]
    try:
        redactor = Redactor(keys={"email": "erasable"}, paths={"user_id": "subject"}, vault=f"{folder}/audit.vault")
    except AuditVaultError as error:
        sys.exit(f"start: {error}")
    handler = AuditHandler(redactor=redactor, filename=f"{folder}/audit.jsonl")
    for person in persons:
        handler.record_fields({"operation": "STORE", "user_id": person, "email": f"{person}@mail"}, 20, "audit")
        print("recorded", flush=True)
    try:
        handler.erase_subject(erased)
        print("erased", flush=True)
    except AuditVaultError as error:
        sys.exit(f"erase: {error}")
"""


def run_with_fault(folder, calls, inject, when):
    """Run the program in *folder* with the fault *inject* at the *when*-th of *calls*, and return it when it has ended."""
    folder.mkdir()
    fault = f"inject={calls}:{inject}:when={when}"
    command = [
        "strace",
        "-f",
        "-qq",
        "-o",
        str(folder.parent / f"{folder.name}.log"),
        "-e",
        f"trace={calls}",
        "-e",
        fault,
    ]
    command += [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder), ERASED, *PERSONS]
    return subprocess.run(command, capture_output=True, text=True, env=without_coverage(), check=False)


def judge(folder, calls, inject, when):
    """Run the program with one fault, and check that nothing was lost and that the erasure can be completed."""
    done = run_with_fault(folder, calls, inject, when)
    is_killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert is_killed <= (inject == "signal=KILL")
    assert is_killed or done.returncode == 0 or done.stderr.startswith(("start: ", "erase: ", "structlog-audit: ")), (
        done.stderr
    )

    trail = folder / "audit.jsonl"
    events = [json.loads(line) for line in trail.read_bytes().splitlines()] if trail.exists() else []
    stored = [event for event in events if event["operation"] == "STORE"]
    assert done.stdout.count("recorded") <= len(stored) <= len(PERSONS)
    assert not any("C4nary" in json.dumps(event) for event in events)

    # Every token has its key, or its erasure is known.
    vault = SubjectVault(folder / "audit.vault", create=True)
    known_erasures = {
        *vault.unrecorded(),
        *(event["metadata"]["subject"] for event in events if event["operation"] == "erased"),
    }
    tokens = {event["user_id"] for event in stored} - {"[redacted]"}
    assert all(token in known_erasures or vault.known_subject(token) for token in tokens)

    # The erasure is complete at the latest after it was repeated.
    if "erased" not in done.stdout:
        vault.erase(ERASED)
    vault.close()
    assert not any(ERASED.encode() in file.read_bytes() for file in folder.iterdir())


CALLS = ["pwrite64", "fdatasync,fsync", "ftruncate", "link", "unlink"]


@pytest.mark.parametrize("inject", ["error=EIO", "error=ENOSPC", "signal=KILL"])
@pytest.mark.parametrize("calls", CALLS)
def test_fault_at_any_system_call_loses_neither_key_nor_erasure(tmp_path, calls, inject):
    """Whichever call fails or is the last, recorded tokens have keys, and an erasure can be completed."""
    counted = run_with_fault(tmp_path / "counted", calls, "delay_exit=0", "1")
    assert counted.returncode == 0, counted.stderr
    total = len((tmp_path / "counted.log").read_text().splitlines())
    assert total > 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [pool.submit(judge, tmp_path / str(when), calls, inject, when) for when in range(1, total + 1)]
    for run in runs:
        run.result()
    figure(f"vault: strace {calls} {inject}", runs=total)


def test_key_is_on_the_disk_before_its_line_is_written(tmp_path):
    """Between the write of a new key and that of the first line with its token, the log of SQLite is synced."""
    done = run_with_fault(tmp_path / "run", "pwrite64,write,fdatasync,fsync", "delay_exit=0", "65535")
    assert done.returncode == 0, done.stderr
    calls = [line.split(maxsplit=1)[1] for line in (tmp_path / "run.log").read_text().splitlines()]
    lines = [number for number, call in enumerate(calls) if call.startswith("write(") and "event_id" in call]
    assert len(lines) >= len(PERSONS)
    for number in lines[: len(PERSONS)]:
        before = [call.partition("(")[0] for call in calls[:number] if not call.startswith("write(")]
        assert before[-1] in ("fdatasync", "fsync")
