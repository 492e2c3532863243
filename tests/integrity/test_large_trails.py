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


# The memory that wait4 reports includes that of the process that started this one.
PROGRAM = """
import re, resource, sys
from pathlib import Path

import verify_trail

code = verify_trail.main(sys.argv[1:])
own = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
sys.stdout.flush()
print(max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""


def verified_with(trail, jobs):
    """Return the exit code, the output and the resident memory of a verification, that of its largest process."""
    options = ["--key", str(SIGNER.key), "--max-age", "none", "--jobs", str(jobs)]
    words = [sys.executable, "-S", "-c", PROGRAM, str(trail), *options]
    environment = {"PYTHONPATH": os.path.dirname(verify_trail.__file__)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    *lines, memory = done.stdout.splitlines()
    return done.returncode, "\n".join(lines), int(memory) * 1_024


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
