"""The verdict of completeness on trails of many processes: untouched, while they are written to, and after a removal."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections import Counter, defaultdict

import pytest
from trails import ENVIRONMENT, WRITER, figure, write

from structlog_audit import open_trail
from structlog_audit.events.event_id import parse_event_id
from structlog_audit.query.completeness import Cause, Verdict

pytestmark = pytest.mark.system

PROCESSES = 8
REMOVALS = 200


def segments_of(path):
    """Return the segments of a trail, oldest first."""
    return [*sorted(path.parent.glob(path.name + ".*")), path]


def numbers_in(segment):
    """Return the writers and numbers of all lines in a segment, read without the library's readers."""
    ids = [json.loads(line)["event_id"] for line in segment.read_bytes().splitlines()]
    return [(event_id.writer, event_id.number) for event_id in map(parse_event_id, ids)]


def named_in(segment):
    """Return the writers and numbers of the lines that ``opened`` events in a segment name as the last before them."""
    lines = [json.loads(line) for line in segment.read_bytes().splitlines()]
    named = [line["metadata"].get("previous") for line in lines if line.get("kind") == "trail" and "metadata" in line]
    return [(event_id.writer, event_id.number) for event_id in map(parse_event_id, named) if event_id is not None]


def expected_holes(segments, removed):
    """Return, by writer, the number of removed lines of which the other segments show that they were there.

    A later line of the writer shows it, and an ``opened`` event of another process that names the line or a later one.
    """
    known = defaultdict(list)
    for segment in segments:
        if segment != removed:
            for writer, number in [*numbers_in(segment), *named_in(segment)]:
                known[writer].append(number)

    holes = Counter()
    for writer, number in numbers_in(removed):
        if number <= max(known[writer], default=-1):
            holes[writer] += 1
    return holes


def missing_by_writer(verdict):
    """Return, by writer, the number of missing events that sequence numbers and ``opened`` events show."""
    found = Counter()
    for item in verdict.missing:
        assert item.cause in (Cause.NUMBERS, Cause.PREDECESSOR)
        found[item.writer] += item.count
    return found


@pytest.fixture(scope="module")
def busy_trail(tmp_path_factory):
    """Return a trail that eight processes wrote together, with many rollovers."""
    path = tmp_path_factory.mktemp("busy") / "audit.jsonl"
    options = ("--processes", PROCESSES, "--count", 300, "--threads", 2, "--max-bytes", 20_000, "--pad", 200)
    done, _ = write(path, *options)
    assert done.returncode == 0, done.stderr
    return path


def check_removals(path, folder, times, seed):
    """Remove one rolled segment at random, *times* times, and return the verdicts that were wrong."""
    segments = segments_of(path)
    generator = random.Random(seed)
    wrong = []

    for _ in range(times):
        removed = generator.choice(segments[:-1])
        copy = folder / "copy"
        shutil.copytree(path.parent, copy)
        (copy / removed.name).unlink()

        verdict = open_trail(copy / path.name).completeness()
        expected = expected_holes(segments, removed)
        right = Verdict.INCOMPLETE if expected else Verdict.UNKNOWN
        if verdict.verdict != right or missing_by_writer(verdict) != expected:
            wrong.append((removed.name, verdict.verdict, expected))
        shutil.rmtree(copy)
    return wrong


def test_untouched_trail_of_many_processes_has_no_missing_event(busy_trail):
    """A trail of eight processes with rollovers is never incomplete, and complete up to its last line."""
    trail = open_trail(busy_trail)
    verdict = trail.completeness()
    assert len(segments_of(busy_trail)) > 20
    assert not verdict.missing
    assert trail.completeness(end_time=verdict.source.last_event).verdict == Verdict.COMPLETE


def test_removed_segment_is_incomplete_with_writers_and_counts(busy_trail, tmp_path):
    """After the removal of any rolled segment the verdict names each writer, and how many of its events are missing."""
    wrong = check_removals(busy_trail, tmp_path, REMOVALS, seed=1)
    figure("one of the rolled segments removed", runs=REMOVALS, wrong=len(wrong))
    assert wrong == []


def test_trail_is_never_incomplete_while_it_is_written(tmp_path):
    """While eight processes write and roll over, no reading shows a missing event."""
    path = tmp_path / "audit.jsonl"
    options = ("--processes", PROCESSES, "--count", 1_500, "--threads", 2, "--max-bytes", 15_000, "--pad", 200)
    command = [sys.executable, WRITER, path, *options]
    writers = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL, env=ENVIRONMENT)

    verdicts = []
    try:
        while writers.poll() is None:
            if path.exists():
                verdict = open_trail(path).completeness()
                verdicts.append(verdict)
                assert not verdict.missing, str(verdict)
    finally:
        writers.kill()
        writers.wait()

    figure("verdicts while eight processes write", runs=len(verdicts))
    assert len({verdict.source.segments[0].number for verdict in verdicts}) > 3
