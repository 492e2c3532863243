"""The memory of verifying a trail of ten million lines."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from seals import ORIGIN, SIGNER, Writer, rolled_path

from structlog_audit.integrity.seal_folder import SealFolder
from structlog_audit.integrity.sealer import Sealer
from structlog_audit.integrity.standalone import verify_trail

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_800)]

LINES = 10_000_000
SEGMENTS = 20
MOST_BYTES = 40 << 20


def make_large_trail(trail, lines):
    """Write and seal a trail of this many lines of one writer, a block at a time."""
    writer = Writer(step=0.000_01)
    folder = SealFolder(str(trail))
    assert folder.lock()
    sealer = Sealer(folder, str(trail), ORIGIN, [SIGNER], sleep=lambda seconds: None)

    each = lines // SEGMENTS
    for segment in range(SEGMENTS):
        with trail.open("wb") as file:
            file.write(writer.opened() if segment == 0 else writer.event(0))
            for number in range(each - 2):
                file.write(writer.event(number))
            file.write(writer.closed() if segment == SEGMENTS - 1 else writer.event(0))
        while sealer.seal():
            pass
        if segment < SEGMENTS - 1:
            os.rename(trail, rolled_path(trail, segment))
    folder.release()


def verified_with(trail, jobs):
    """Return the exit code, the output and the resident memory of a verification, that of its largest process."""
    words = [sys.executable, "-I", "-S", verify_trail.__file__, str(trail), "--key", str(SIGNER.key)]
    with subprocess.Popen([*words, "--max-age", "none", "--jobs", str(jobs)], stdout=subprocess.PIPE) as process:
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, output.decode(), usage.ru_maxrss * 1_024


def test_memory_of_verifying_ten_million_lines_is_bounded(tmp_path):
    """One and two processes need at most 40 MiB each, and find the trail intact."""
    trail = tmp_path / "audit.jsonl"
    make_large_trail(trail, LINES)
    try:
        for jobs in (1, 2):
            code, output, memory = verified_with(trail, jobs)
            assert (code, f"sealed lines: {LINES};" in output) == (0, True), output
            assert memory <= MOST_BYTES, f"{memory >> 20} MiB with {jobs} processes"
    finally:
        shutil.rmtree(tmp_path)
