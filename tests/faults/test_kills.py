"""SIGKILL at random times, and many processes on one trail."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from trails import ENVIRONMENT, WRITER, Trail, WriterOutput, figure, write

pytestmark = pytest.mark.system

LONG = pytest.mark.long


def start(path, *options):
    """Start the writer and return its process."""
    return subprocess.Popen(
        [sys.executable, WRITER, str(path), *map(str, options)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def kill_after(process, lines, seconds):
    """Kill *process* a number of *seconds* after it printed *lines* lines, and return all of its output."""
    output = [process.stdout.readline() for _ in range(lines)]
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    process.kill()
    rest, _ = process.communicate(timeout=30)
    return "".join(output) + rest


@pytest.mark.parametrize("kills", [50, pytest.param(1_000, marks=LONG)])
def test_acknowledged_events_survive_random_kills(tmp_path, kills):
    """After random SIGKILLs every acknowledged event is in the trail once, with at most one torn line per kill."""
    path = tmp_path / "audit.jsonl"
    chance = random.Random(7)
    output = ""
    for kill in range(kills):
        options = ["--first", kill * 100_000, "--count", 50_000, "--max-bytes", 200_000, "--pad", 20_000]
        victim = start(path, *options, "--threads", chance.choice([1, 1, 3]))
        output += kill_after(victim, chance.randint(1, 40), chance.random() * 0.002)
        assert victim.returncode == -signal.SIGKILL
    _, more = write(path, "--first", kills * 100_000, "--count", 10)
    trail = Trail(path)
    writer_output = WriterOutput(output)
    figure("SIGKILL", runs=kills, acknowledged=len(writer_output.acknowledged), torn=len(trail.torn))
    trail.holds(writer_output)
    trail.holds(more)
    assert len(more.acknowledged) == 10
    assert len(trail.torn) <= kills


@pytest.mark.parametrize("kills", [20, pytest.param(300, marks=LONG)])
def test_kill_does_not_affect_other_processes(tmp_path, kills):
    """A process loses no event to the torn lines of other processes that are killed on the same trail."""
    path = tmp_path / "audit.jsonl"
    chance = random.Random(8)
    survivor = start(path, "--first", 10**9, "--count", 10**6, "--pad", 200, "--max-bytes", 2_000_000)
    os.set_blocking(survivor.stdout.fileno(), False)
    output = survivor_output = ""
    for kill in range(kills):
        victim = start(path, "--first", kill * 100_000, "--count", 50_000, "--max-bytes", 2_000_000, "--pad", 30_000)
        output += kill_after(victim, chance.randint(20, 60), chance.random() * 0.002)
        # read() returns None, which is a TypeError here, when no output is available.
        with contextlib.suppress(TypeError):
            survivor_output += survivor.stdout.read() or ""
    os.set_blocking(survivor.stdout.fileno(), True)
    survivor_output += kill_after(survivor, 1, 0)
    trail = Trail(path)
    figure(
        "SIGKILL beside another",
        runs=kills,
        torn=len(trail.torn),
        acknowledged=len(WriterOutput(survivor_output).acknowledged),
    )
    trail.holds(WriterOutput(survivor_output))
    trail.holds(WriterOutput(output))


@pytest.mark.parametrize(("count", "rollovers"), [(2_500, 50), pytest.param(10_000, 200, marks=LONG)])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_eight_processes_write_each_event_once(tmp_path, method, count, rollovers):
    """Every event of 8 processes that roll over constantly is in the trail once and whole, for each start method."""
    path = tmp_path / "audit.jsonl"
    size = 8 * count * 180 // (rollovers * 6)
    started = time.perf_counter()
    done, writer_output = write(
        path, "--processes", 8, "--count", count, "--method", method, "--max-bytes", size, timeout=240
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    trail = Trail(path)
    rolled = len(trail.segments) - 1
    figure(f"8 processes, {method}", events=len(trail.ids), rollovers=rolled, torn=len(trail.torn),
           seconds=round(time.perf_counter() - started, 1))  # fmt: skip
    assert len(writer_output.acknowledged) == 8 * count
    assert sorted(trail.numbers) == list(range(8 * count))
    assert trail.torn == []
    assert rolled >= rollovers
    assert len(writer_output.counters) == 8
    trail.holds(writer_output)
