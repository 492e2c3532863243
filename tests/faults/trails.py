"""Helpers of the fault tests: run programs under faults, and check the trail they wrote."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from children import without_coverage

import structlog_audit

WRITER = str(Path(__file__).with_name("writer.py"))
SOURCE = str(Path(structlog_audit.__file__).parents[1])
ENVIRONMENT = without_coverage() | {"PYTHONPATH": os.pathsep.join([SOURCE, str(Path(__file__).parents[1])])}


class WriterOutput:
    """The output of a writer: acknowledged ids by number, numbers that raised, and the final counters."""

    def __init__(self, output: str) -> None:
        self.acknowledged: dict[int, str] = {}
        self.raised: set[int] = set()
        self.counters: list[dict[str, int]] = []
        for line in output.splitlines():
            keyword, _, rest = line.partition(" ")
            if keyword == "ack" and len(rest.split()) == 2 and len(rest.split()[1]) == 36:
                self.acknowledged[int(rest.split()[0])] = rest.split()[1]
            elif keyword == "raised":
                self.raised.add(int(rest))
            elif keyword == "counters":
                self.counters.append(json.loads(rest))
        for counters in self.counters:
            account = sum(counters[name] for name in ("recorded", "pending", "raised", "lost"))
            assert counters["accepted"] == account, counters


def run(*command, timeout=120, **options):
    """Run a program to its end and return the completed process; fail after *timeout* seconds."""
    return subprocess.run(
        [str(word) for word in command],
        capture_output=True, text=True, timeout=timeout, env=ENVIRONMENT, check=False, **options,
    )  # fmt: skip


def run_code(code, *arguments, **options):
    """Run Python source text in a new interpreter."""
    return run(sys.executable, "-c", code, *arguments, **options)


def write(path, *options, wrapper=(), timeout=120):
    """Run the writer and return the completed process and its parsed output."""
    done = run(*wrapper, sys.executable, WRITER, path, *options, timeout=timeout)
    return done, WriterOutput(done.stdout)


class Trail:
    """The files of a trail, read without the library."""

    def __init__(self, path: Path) -> None:
        self.segments = [*sorted(path.parent.glob(path.name + ".*")), *([path] if path.exists() else [])]
        self.events: list[dict] = []
        self.torn: list[bytes] = []
        for segment in self.segments:
            *lines, rest = segment.read_bytes().split(b"\n")
            self.torn += [rest] if rest else []
            for line in filter(None, lines):
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.torn.append(line)
        self.ids = [event["event_id"] for event in self.events]
        self.numbers = [int(event["entry_ids"][0]) for event in self.events if "entry_ids" in event]
        self.gaps = [event["metadata"]["lost"] for event in self.events if event.get("kind") == "gap"]

    def holds(self, output: WriterOutput, *, twice: bool = False) -> None:
        """Assert that the trail holds every acknowledged event and no event twice.

        With *twice*, an identical line may be repeated, but no id may have two different lines.
        """
        present = set(self.ids)
        lines = {json.dumps(event) for event in self.events} if twice else self.ids
        assert len(present) == len(lines), "an event is in the trail twice"
        missing = {number: name for number, name in output.acknowledged.items() if name not in present}
        assert not missing, (f"{len(missing)} acknowledged events are missing", missing, self.torn)


def record_with_new_handler(path, *, first, count):
    """Record *count* events in the trail at *path* with a new handler, and return their numbers."""
    handler = structlog_audit.AuditHandler(filename=path)
    logger = logging.Logger("continued")
    logger.addHandler(handler)
    numbers = list(range(first, first + count))
    for number in numbers:
        logger.info("STORE", extra={"entry_ids": [str(number)]})
    assert handler._counters()["recorded"] == count
    handler.close()
    return numbers


def figure(fault, **figures):
    """Append the measured figures to the file that ``FAULT_FIGURES`` names, if it is set."""
    if file := os.environ.get("FAULT_FIGURES"):
        with open(file, "a") as out:
            out.write(json.dumps({"fault": fault, **figures}) + "\n")


@functools.cache
def strace_works() -> bool:
    return bool(shutil.which("strace")) and run("strace", "-f", "-e", "trace=write", "true").returncode == 0


@functools.cache
def unshare_works() -> bool:
    if not shutil.which("unshare"):
        return False
    return run("unshare", "-Urm", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt").returncode == 0


needs_strace = pytest.mark.skipif("not __import__('trails').strace_works()", reason="strace can't trace here")
needs_mount = pytest.mark.skipif("not __import__('trails').unshare_works()", reason="nothing can be mounted here")
