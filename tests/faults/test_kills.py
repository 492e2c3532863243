"""SIGKILL at any moment, and many processes in one trail."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from trails import ENVIRONMENT, WRITER, Said, Trail, figure, write

pytestmark = pytest.mark.system

LONG = pytest.mark.long


def start(path, *options):
    return subprocess.Popen(
        [sys.executable, WRITER, str(path), *map(str, options)], stdout=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def kill_after(process, lines, moment):
    """Kill *process* so many seconds after its line number *lines*; all that it said."""
    output = [process.stdout.readline() for _ in range(lines)]
    until = time.perf_counter() + moment
    while time.perf_counter() < until:
        pass
    process.kill()
    rest, _ = process.communicate(timeout=30)
    return "".join(output) + rest


@pytest.mark.parametrize("kills", [50, pytest.param(1_000, marks=LONG)])
def test_what_was_acknowledged_survives_any_kill(tmp_path, kills):
    """After so many random SIGKILLs every acknowledged event is there once, and each kill tore one line at most."""
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
    said = Said(output)
    figure("SIGKILL", runs=kills, acknowledged=len(said.acknowledged), torn=len(trail.torn))
    trail.holds(said)
    trail.holds(more)
    assert len(more.acknowledged) == 10
    assert len(trail.torn) <= kills


@pytest.mark.parametrize("kills", [20, pytest.param(300, marks=LONG)])
def test_a_kill_harms_no_other_process(tmp_path, kills):
    """A process that goes on while others are killed beside it in the same trail loses nothing to their torn lines."""
    path = tmp_path / "audit.jsonl"
    chance = random.Random(8)
    survivor = start(path, "--first", 10**9, "--count", 10**6, "--pad", 200, "--max-bytes", 2_000_000)
    os.set_blocking(survivor.stdout.fileno(), False)
    output = heard = ""
    for kill in range(kills):
        victim = start(path, "--first", kill * 100_000, "--count", 50_000, "--max-bytes", 2_000_000, "--pad", 30_000)
        output += kill_after(victim, chance.randint(20, 60), chance.random() * 0.002)
        with contextlib.suppress(TypeError):  # nothing there to read
            heard += survivor.stdout.read() or ""
    os.set_blocking(survivor.stdout.fileno(), True)
    heard += kill_after(survivor, 1, 0)
    trail = Trail(path)
    figure("SIGKILL beside another", runs=kills, torn=len(trail.torn), acknowledged=len(Said(heard).acknowledged))
    trail.holds(Said(heard))
    trail.holds(Said(output))


@pytest.mark.parametrize(("count", "rollovers"), [(2_500, 50), pytest.param(10_000, 200, marks=LONG)])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_many_processes_write_one_trail(tmp_path, method, count, rollovers):
    """Of 8 processes that roll over all the time, however they were started, every event is there once and whole."""
    path = tmp_path / "audit.jsonl"
    size = 8 * count * 180 // (rollovers * 6)
    started = time.perf_counter()
    done, said = write(
        path, "--processes", 8, "--count", count, "--method", method, "--max-bytes", size, timeout=240
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    trail = Trail(path)
    rolled = len(trail.segments) - 1
    figure(f"8 processes, {method}", events=len(trail.ids), rollovers=rolled, torn=len(trail.torn),
           seconds=round(time.perf_counter() - started, 1))  # fmt: skip
    assert len(said.acknowledged) == 8 * count
    assert sorted(trail.numbers) == list(range(8 * count))
    assert trail.torn == []
    assert rolled >= rollovers
    assert len(said.counters) == 8
    trail.holds(said)
