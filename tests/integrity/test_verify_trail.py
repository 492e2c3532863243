"""Tests of the stand-alone verifier: the attack table, attack by attack, and what must not alarm."""

import datetime as dt
import gzip
import json
import os
import random
import re
import shutil
import threading

import pytest
from seals import (
    BEGIN,
    ORIGIN,
    POLICY,
    SIGNER,
    Sealer,
    SeedSigner,
    Writer,
    codes,
    lines_of,
    make_trail,
    note_of,
    rolled_path,
    trail_event,
    verified,
    write_lines,
)
from trail_files import PACKS

from structlog_audit.integrity.merkle import leaf_hash
from structlog_audit.integrity.notes import COSIGNATURE, Policy, cosign, parse_note
from structlog_audit.integrity.standalone import verify_trail

SEGMENTS, LINES = 3, 40
SECOND = 1
"""The rolled segment in the middle, by the second in its name."""


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Return the folder of a sealed trail that tests copy."""
    folder = tmp_path_factory.mktemp("sealed")
    make_trail(folder, SEGMENTS, LINES)
    return folder


@pytest.fixture
def trail(template, tmp_path):
    """Return the path of the active segment of a sealed trail."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return tmp_path / "audit.jsonl"


def change(path, edit):
    """Change the list of lines in the file at *path*."""
    lines = lines_of(path)
    edit(lines)
    write_lines(path, lines)


def only(report, code):
    """Return the only finding of *code*."""
    (finding,) = [finding for finding in report.findings if finding.code == code]
    return finding


def line_findings(report):
    return {(finding.code, finding.segment, finding.line) for finding in report.findings if finding.line is not None}


# No attack: no alarm.


def test_sealed_trail_is_intact(trail):
    """A trail as its writer and sealer left it is intact."""
    report = verified(trail)
    assert (codes(report), report.exit_code, report.verdict) == ({}, 0, "INTACT")
    assert (report.size, report.unsealed, report.open_writers) == (SEGMENTS * LINES, 0, 0)
    assert report.origin == ORIGIN


@pytest.mark.parametrize("pack", PACKS)
def test_packed_segments_are_verified_unchanged(trail, pack):
    """Segments that were compressed later, one in several members, are intact."""
    suffix = {"plain": "", "gzip": ".gz", "zstd": ".zst"}[pack]
    for second in range(SEGMENTS - 1):
        path = rolled_path(trail, second)
        data = path.read_bytes()
        path.unlink()
        path.with_name(path.name + suffix).write_bytes(PACKS[pack](data[:1000]) + PACKS[pack](data[1000:]))
    assert codes(verified(trail)) == {}


def test_trail_moved_elsewhere_is_intact(trail, tmp_path):
    """A trail and its seal may be moved to another folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in [*tmp_path.glob("audit.jsonl*")]:
        shutil.move(path, elsewhere)
    assert codes(verified(elsewhere / "audit.jsonl")) == {}


@pytest.mark.parametrize("content", [None, "", "nonsense\n", "0 5 10 100 audit.jsonl\n", "0 0 10 100 audit.jsonl\n"])
def test_lost_or_damaged_hints_are_rebuilt(trail, content):
    """The file ``segments`` is a hint: without it, the runs follow from the lines."""
    path = trail.parent / "audit.jsonl.seal" / "segments"
    path.unlink() if content is None else path.write_text(content)
    assert codes(verified(trail)) == {}


def test_wrong_hints_accuse_no_line(trail):
    """Hints that have the right form and are wrong cost time only."""
    path = trail.parent / "audit.jsonl.seal" / "segments"
    path.write_text(
        f"0 0 50 1 {rolled_path(trail, 0).name}\n1 50 30 1 {rolled_path(trail, 1).name}\n2 80 40 1 audit.jsonl\n"
    )
    assert codes(verified(trail)) == {}


def test_lines_after_the_seal_are_counted_and_not_judged(trail):
    """What is not sealed is not judged, whatever it is; below the maximal age it is not even a finding."""
    with trail.open("ab") as file:
        file.write(b'{"event_id":"evt_junk"}\n\nnot json\nhalf a li')
    report = verified(trail)
    assert (codes(report), report.unsealed) == ({}, 3)
    assert codes(verified(trail, max_age=120)) == {}


def test_rollover_after_the_seal_is_no_alarm(trail):
    """A segment that was rolled over after its name was noted is recognised by its first line."""
    os.rename(trail, rolled_path(trail, 9))
    assert codes(verified(trail)) == {}
    trail.write_bytes(Writer(bits=5).opened())
    report = verified(trail)
    assert (codes(report), report.unsealed) == ({}, 1)


def test_rollover_while_the_files_are_read_is_no_alarm(trail, monkeypatch):
    """The file that was the active segment is read under its new name."""
    find = verify_trail.find_files

    def find_and_roll_over(path):
        files = find(path)
        os.rename(trail, rolled_path(trail, 9))
        trail.write_bytes(b"another line\n")
        return files

    monkeypatch.setattr(verify_trail, "find_files", find_and_roll_over)
    report = verified(trail)
    assert (codes(report), report.unsealed) == ({}, 0)


def test_late_lines_are_a_further_run_of_their_segment(tmp_path):
    """Lines that a writer appended to a rolled segment are sealed later in the tree, and verify in their place."""
    sealer = Sealer(tmp_path / "audit.jsonl")
    one, other = Writer(bits=1), Writer(bits=2)
    sealer.trail.write_bytes(one.opened() + other.opened() + one.event(1))
    sealer.seal()
    os.rename(sealer.trail, rolled_path(sealer.trail, 0))
    sealer.trail.write_bytes(one.event(2))
    sealer.seal()
    with rolled_path(sealer.trail, 0).open("ab") as file:
        file.write(other.event(3))
    sealer.seal()
    with sealer.trail.open("ab") as file:
        file.write(one.closed() + other.closed())
    sealer.seal()

    assert len((sealer.folder / "segments").read_text().splitlines()) == 4
    assert codes(verified(sealer.trail)) == {}
    (sealer.folder / "segments").unlink()
    assert codes(verified(sealer.trail)) == {}

    change(rolled_path(sealer.trail, 0), lambda lines: lines.__setitem__(3, lines[3] + b" "))
    assert line_findings(verified(sealer.trail)) == {("CHANGED", rolled_path(sealer.trail, 0).name, 4)}


def late_lines(tmp_path, sealed, kept):
    """Return the report of a trail whose writer has *sealed* lines, four late ones, *kept* of them there, and one behind."""
    sealer = Sealer(tmp_path / "audit.jsonl")
    writer = Writer(step=0.1)
    lines = [writer.opened(), *[writer.event(number) for number in range(sealed + 3)]]
    sealer.trail.write_bytes(Writer(bits=9).opened() + b"".join(lines[:sealed]))
    sealer.seal()

    os.rename(sealer.trail, rolled_path(sealer.trail, 0))
    sealer.trail.write_bytes(writer.event(9))
    sealer.seal()
    with rolled_path(sealer.trail, 0).open("ab") as file:
        file.write(b"".join(lines[sealed:][kept]))
    return verified(sealer.trail)


@pytest.mark.parametrize("sealed", [0, 1, 5])
def test_late_lines_that_are_not_sealed_yet_are_no_gap(tmp_path, sealed):
    """A writer's lines in a rolled segment are there, though only its later line in the next segment is sealed."""
    report = late_lines(tmp_path, sealed, slice(None))
    assert (codes(report), report.unsealed) == ({}, 4)


@pytest.mark.parametrize("sealed", [0, 1, 5])
@pytest.mark.parametrize("kept", [slice(1, None), slice(-1), slice(None, None, 3)], ids=["first", "last", "middle"])
def test_missing_late_line_is_a_gap(tmp_path, sealed, kept):
    """If one of the lines that are not sealed yet is missing, its number is."""
    assert codes(late_lines(tmp_path, sealed, kept)) == {"GAP": 1}


def test_many_writers_in_one_trail_are_intact(tmp_path):
    """Lines of several writers in any order, each in its own, are intact."""
    rng = random.Random(1)
    writers = [Writer(bits=number, step=0.1) for number in range(8)]
    trail = tmp_path / "audit.jsonl"
    lines = [writer.opened() for writer in writers]
    lines += [rng.choice(writers).event(number) for number in range(2_000)]
    lines += [writer.closed() for writer in writers]
    trail.write_bytes(b"".join(lines))
    Sealer(trail).seal()
    assert codes(verified(trail)) == {}
    assert verified(trail).open_writers == 0


def test_foreign_lines_are_leaves_like_others(tmp_path):
    """Lines of other programs, empty and torn ones, are sealed and verified; they have neither number nor chain."""
    trail = tmp_path / "audit.jsonl"
    writer = Writer()
    foreign = [
        b"",
        b"text",
        b'{"event_id":"evt_',
        b'{"event_id":"evt_' + b"z" * 32 + b'"}',
        b"\xff\0",
        b'{"event_id":"x"}',
    ]
    lines = (
        [writer.opened()] + [line for text in foreign for line in (text + b"\n", writer.event(1))] + [writer.closed()]
    )
    trail.write_bytes(b"".join(lines))
    Sealer(trail).seal()
    assert codes(verified(trail)) == {}
    change(trail, lambda lines: lines.__setitem__(3, b"Text"))
    assert line_findings(verified(trail)) == {("CHANGED", "audit.jsonl", 4)}


def test_trail_without_chains_is_intact(tmp_path):
    """Lines from before the chain was switched on have numbers only."""
    from structlog_audit.events.event_id import Stamp

    trail = tmp_path / "audit.jsonl"
    old, new = Writer(bits=1, stamp_class=Stamp), Writer(bits=2)
    lines = [
        old.opened(),
        *[old.event(number) for number in range(9)],
        old.closed(),
        new.opened(),
        new.event(1),
        new.closed(),
    ]
    trail.write_bytes(b"".join(lines))
    Sealer(trail).seal()
    assert codes(verified(trail)) == {}


def test_empty_trail_can_be_sealed(tmp_path):
    """A tree without leaves verifies."""
    trail = tmp_path / "audit.jsonl"
    trail.write_bytes(b"")
    Sealer(trail).seal()
    report = verified(trail)
    assert (codes(report), report.size) == ({}, 0)


def test_several_processes_give_the_same_report(trail):
    """The number of processes does not change the report."""
    change(rolled_path(trail, SECOND), lambda lines: lines.__setitem__(11, lines[11][:-1]))
    os.unlink(rolled_path(trail, 0))
    alone, together = verified(trail), verified(trail, jobs=2)
    assert alone.to_json() == together.to_json()
    assert alone.exit_code == 1


# Attacks on sealed lines: each names its line.


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("pack", PACKS)
def test_progress_grows_to_the_size_of_the_files(trail, pack, jobs):
    """Bytes are counted as they are on the disk, compressed or not, in all processes."""
    suffix = {"plain": "", "gzip": ".gz", "zstd": ".zst"}[pack]
    path = rolled_path(trail, 0)
    data = path.read_bytes()
    path.unlink()
    path.with_name(path.name + suffix).write_bytes(PACKS[pack](data))
    steps = []
    assert codes(verified(trail, jobs=jobs, progress=steps.append)) == {}
    assert steps == sorted(steps)
    assert steps[-1] == sum(path.stat().st_size for path in trail.parent.iterdir() if path.is_file())


def edited(line):
    """Return the JSON of *line*, serialised otherwise."""
    return json.dumps(json.loads(line)).encode()


@pytest.mark.parametrize(
    "edit",
    [
        lambda line: line.replace(b"user_", b"User_", 1),
        lambda line: line + b" ",
        lambda line: line[:-1],
        lambda line: b"",
        lambda line: edited(line),
        lambda line: line + b"\r",
        lambda line: b'{"event_id":"evt_0197f3a0c1d27d1e9b0c5d8e00000001"}',
    ],
    ids=["value", "space", "cut", "emptied", "serialised", "crlf", "forged"],
)
@pytest.mark.parametrize("number", [2, 12, 40])
def test_changed_line_is_named(trail, edit, number):
    """A sealed line with other bytes is named, and it alone."""
    path = rolled_path(trail, SECOND)
    change(path, lambda lines: lines.__setitem__(number - 1, edit(lines[number - 1])))
    report = verified(trail)
    finding = only(report, "CHANGED")
    assert (finding.segment, finding.line, report.exit_code) == (path.name, number, 1)
    assert finding.message.startswith(
        f"line {number} of {path.name} was changed after it was sealed (sealed at 2025-01-15T10:31:"
    )
    assert set(codes(report)) <= {"CHANGED", "GAP"}


def test_file_with_crlf_everywhere_is_named_line_by_line(trail):
    """A segment whose line ends were converted has each of its lines named."""
    path = rolled_path(trail, SECOND)
    change(path, lambda lines: lines.__setitem__(slice(None), [line + b"\r" for line in lines]))
    report = verified(trail)
    assert codes(report)["CHANGED"] == LINES


def flips(count, seed=0):
    rng = random.Random(seed)
    return [(rng.randrange(SEGMENTS), rng.random(), rng.randrange(8)) for _ in range(count)]


def assert_flips_are_found(trail, cases):
    paths = [rolled_path(trail, 0), rolled_path(trail, 1), trail]
    for segment, where, bit in cases:
        path = paths[segment]
        original = path.read_bytes()
        data = bytearray(original)
        at = int(where * len(data))
        data[at] ^= 1 << bit
        path.write_bytes(data)

        report = verified(trail)
        line = original.count(b"\n", 0, at) + 1
        named = {finding.line for finding in report.findings if finding.segment == path.name}
        assert report.exit_code == 1, (path, at, bit)
        # A changed LF joins two lines, or a new one cuts a line: then the line is one of the two.
        assert line in named or (line + 1 in named and original[at] == 10), (path, at, bit, report.findings)
        path.write_bytes(original)


def test_bit_flips_are_found_and_their_lines_named(trail):
    """Any bit of any sealed line, LFs included: the line is named."""
    assert_flips_are_found(trail, flips(120))


@pytest.mark.long
def test_2000_bit_flips_are_found_and_their_lines_named(trail):
    """2,000 random bits of sealed lines: each is found, and its line is named."""
    assert_flips_are_found(trail, flips(2_000, seed=1))


@pytest.mark.parametrize("number", [1, 20])
def test_removed_line_is_missing(trail, number):
    """A sealed line that is gone is named, and its number is a gap."""
    path = rolled_path(trail, SECOND)
    change(path, lambda lines: lines.pop(number - 1))
    report = verified(trail)
    assert ("MISSING", path.name, number) in line_findings(report)
    assert codes(report) == {"MISSING": 1, "GAP": 1}


def test_any_number_of_removed_lines_is_missing(tmp_path):
    """A gap that is longer than the lines that are compared with each other accuses none of the lines behind it."""
    sealer = make_trail(tmp_path, segments=1, lines=3_000)
    change(sealer.trail, lambda lines: lines.__delitem__(slice(100, 2_100)))
    report = verified(sealer.trail)
    assert codes(report)["MISSING"] == 2_000
    assert codes(report).keys() <= {"MISSING", "GAP", "CHAIN"}
    assert report.findings[0].line == 101


def test_inserted_and_copied_lines_are_named(trail):
    """A line that was added between sealed ones is named, a copy too."""
    path = rolled_path(trail, SECOND)
    change(path, lambda lines: (lines.insert(5, b"forged"), lines.insert(30, lines[20])))
    report = verified(trail)
    assert {("INSERTED", path.name, 6), ("INSERTED", path.name, 31)} <= line_findings(report)
    assert codes(report) == {"INSERTED": 2, "DOUBLE": 1}


def test_swapped_lines_are_moved(trail):
    """A line that was moved is named, with the place where it was sealed."""
    path = rolled_path(trail, SECOND)
    change(path, lambda lines: lines.insert(5, lines.pop(6)))
    report = verified(trail)
    finding = only(report, "MOVED")
    assert finding.line == 7
    assert f"line 7 of {path.name} was sealed as line 6 of {path.name}" in finding.message
    assert set(codes(report)) == {"MOVED", "GAP", "DOUBLE"}


def test_line_moved_to_another_segment_is_moved(trail):
    """A line that was moved to another segment is named with both places."""
    source, target = rolled_path(trail, 0), rolled_path(trail, 1)
    line = lines_of(source)[9]
    change(source, lambda lines: lines.pop(9))
    change(target, lambda lines: lines.insert(19, line))
    finding = only(verified(trail), "MOVED")
    assert finding.message.startswith(f"line 20 of {target.name} was sealed as line 10 of {source.name}")


@pytest.mark.parametrize("cut", [1, 7])
def test_cut_end_of_a_segment_is_truncated(trail, cut):
    """A segment that ends before its sealed end is truncated, also in the middle of a line."""
    path = rolled_path(trail, SECOND)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\n", 0, -cut * 150) - 20])
    report = verified(trail)
    finding = only(report, "TRUNCATED")
    assert "before its sealed end; missing lines: " in finding.message
    assert finding.segment == path.name
    assert finding.line == len(lines_of(path)) + 1


def test_cut_end_of_the_active_segment_is_truncated(trail):
    """The newest lines cannot be cut either, once they are sealed."""
    change(trail, lambda lines: lines.pop())
    assert codes(verified(trail)) == {"TRUNCATED": 1}


def test_emptied_active_segment_is_missing(trail):
    """An active segment that was emptied is a missing segment."""
    trail.write_bytes(b"")
    report = verified(trail)
    assert (codes(report), report.exit_code) == ({"MISSING_SEGMENT": 1}, 1)


@pytest.mark.parametrize("second", [0, 1])
@pytest.mark.parametrize("has_hints", [True, False])
def test_removed_segment_is_missing(trail, second, has_hints):
    """A segment that was removed by hand is missing: no retention event names it."""
    rolled_path(trail, second).unlink()
    if not has_hints:
        (trail.parent / "audit.jsonl.seal" / "segments").unlink()
    report = verified(trail)
    finding = only(report, "MISSING_SEGMENT")
    assert f"the lines that were sealed as leaves {second * LINES} to {second * LINES + LINES - 1}" in finding.message
    assert report.exit_code == 1


def test_foreign_segment_between_sealed_ones_is_named(trail):
    """A file that is dated in between, and that was never sealed, is named."""
    path = trail.parent / f"{rolled_path(trail, 0).name[:-8]}.500000Z"
    path = path.with_name(path.name.replace("..", "."))
    path.write_bytes(Writer(bits=9).opened())
    report = verified(trail)
    assert only(report, "FOREIGN_SEGMENT").segment == path.name
    assert report.exit_code == 1


@pytest.mark.parametrize("has_hints", [True, False])
def test_second_copy_of_a_segment_is_found(tmp_path, has_hints):
    """A copy of a segment under another name is found, also if its lines have no numbers."""
    trail = tmp_path / "audit.jsonl"
    sealer = Sealer(trail)
    for second in range(2):
        trail.write_bytes(b"foreign %d\nline\n" % second)
        sealer.seal()
        os.rename(trail, rolled_path(trail, second * 10))
    if not has_hints:
        (sealer.folder / "segments").unlink()
    assert codes(verified(trail)) == {}
    shutil.copy(rolled_path(trail, 0), rolled_path(trail, 5))
    assert verified(trail).exit_code == 1


def test_swapped_segments_are_moved(trail):
    """Two segments that exchanged their names are found, though each of their lines is right."""
    one, other = rolled_path(trail, 0), rolled_path(trail, 1)
    os.rename(one, trail.parent / "third")
    os.rename(other, one)
    os.rename(trail.parent / "third", other)
    report = verified(trail)
    assert report.exit_code == 1
    assert "MOVED" in codes(report)


def test_lines_behind_a_closed_segment_are_unsealed(trail):
    """Lines behind the sealed end of a rolled segment are not covered, and named after the maximal age."""
    path = rolled_path(trail, SECOND)
    with path.open("ab") as file:
        file.write(Writer(bits=9).opened())
    report = verified(trail, max_age=120)
    finding = only(report, "UNSEALED")
    assert (finding.segment, finding.line, report.exit_code) == (path.name, LINES + 1, 3)


def test_second_gzip_member_is_unsealed_and_junk_inserted(trail):
    """A further member behind a packed segment is not covered; other data there is named."""
    path = rolled_path(trail, SECOND)
    data = gzip.compress(path.read_bytes())
    path.unlink()
    packed = path.with_name(f"{path.name}.gz")

    packed.write_bytes(data + gzip.compress(b"forged\n"))
    os.utime(packed, (0, 0))
    report = verified(trail, max_age=120)
    assert only(report, "UNSEALED").line == LINES + 1

    packed.write_bytes(data + b"junk")
    report = verified(trail)
    finding = only(report, "INSERTED")
    assert (finding.segment, finding.line, report.exit_code) == (path.name, LINES + 1, 1)


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_damaged_packed_segment_is_truncated(trail, pack):
    """Packed data that ends early lacks sealed lines."""
    path = rolled_path(trail, SECOND)
    data = PACKS[pack](path.read_bytes())
    path.unlink()
    path.with_name(path.name + {"gzip": ".gz", "zstd": ".zst"}[pack]).write_bytes(data[: len(data) * 2 // 3])
    assert only(verified(trail), "TRUNCATED").segment == path.name


# Attacks before sealing.


def sealed_after(tmp_path, edit):
    """Return the report of a trail that *edit* changed before it was sealed."""
    trail = tmp_path / "audit.jsonl"
    writer = Writer(step=0.3)
    lines = [writer.opened(), *[writer.event(number) for number in range(38)], writer.closed()]
    trail.write_bytes(b"".join(lines))
    change(trail, edit)
    Sealer(trail).seal()
    return verified(trail)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (lambda lines: lines.__setitem__(9, lines[9].replace(b"user_", b"User_")), {"CHAIN": 1}),
        (lambda lines: lines.pop(9), {"GAP": 1}),
        (lambda lines: lines.pop(0), {"GAP": 1}),
        (lambda lines: lines.insert(9, lines.pop(10)), {"GAP": 1, "DOUBLE": 1}),
        (lambda lines: lines.insert(9, lines[5]), {"DOUBLE": 1}),
        (lambda lines: lines.__delitem__(slice(0, 20)), {"GAP": 1}),
    ],
    ids=["change", "remove", "remove first", "swap", "copy", "empty"],
)
def test_change_before_sealing_is_found(tmp_path, edit, expected):
    """What was changed before the seal does not fit the numbers or the chain of its writer."""
    report = sealed_after(tmp_path, edit)
    assert (codes(report), report.exit_code) == (expected, 1)


def test_chain_names_the_line_with_the_link(tmp_path):
    """The finding names the line whose link does not fit."""
    report = sealed_after(tmp_path, lambda lines: lines.__setitem__(9, lines[9].replace(b"user_", b"User_")))
    finding = only(report, "CHAIN")
    assert 10 < finding.line <= 14
    assert f"line {finding.line} of audit.jsonl" in finding.message


def test_gap_names_writer_and_numbers(tmp_path):
    """The finding names the missing numbers and their writer."""
    report = sealed_after(tmp_path, lambda lines: lines.__delitem__(slice(9, 12)))
    finding = only(report, "GAP")
    assert finding.line == 10
    assert "missing before it: the numbers 9 to 11 of the writer 00080000001" in finding.message


def test_changed_first_link_is_found(tmp_path):
    """The first line of a writer has the link of nothing."""
    report = sealed_after(
        tmp_path, lambda lines: lines.__setitem__(0, lines[0].replace(b'"chain":"e3', b'"chain":"e4'))
    )
    finding = report.findings[0]
    assert (finding.code, finding.line) == ("CHAIN", 1)
    assert "not that of a writer's first line" in finding.message


def test_newest_line_removed_before_sealing_is_a_gap(tmp_path):
    """A line that is removed while its writer goes on is a gap."""
    trail = tmp_path / "audit.jsonl"
    writer = Writer()
    trail.write_bytes(writer.opened() + writer.event(1))
    change(trail, lambda lines: lines.pop())
    with trail.open("ab") as file:
        file.write(writer.event(2))
    Sealer(trail).seal()
    assert codes(verified(trail)) == {"GAP": 1}


# What a writer itself repeats is no alarm.


def sealed_lines(tmp_path, lines):
    trail = tmp_path / "audit.jsonl"
    trail.write_bytes(b"".join(lines))
    Sealer(trail).seal()
    return verified(trail)


@pytest.mark.parametrize("count", [1, 3, 20])
def test_repetition_of_the_last_lines_is_no_alarm(tmp_path, count):
    """After a failed fsync a writer writes its last lines once more; its numbers and chain go on behind them."""
    writer = Writer(step=0.1)
    lines = [writer.opened(), *[writer.event(number) for number in range(30)]]
    lines += lines[-count:]
    lines += [*[writer.event(number) for number in range(30)], writer.closed()]
    assert codes(sealed_lines(tmp_path, lines)) == {}


def test_repetition_in_the_next_segment_is_no_alarm(tmp_path):
    """After a failed fsync the segment is rolled over, and the lines are written once more in the next."""
    trail = tmp_path / "audit.jsonl"
    writer = Writer(step=0.1)
    lines = [writer.opened(), *[writer.event(number) for number in range(30)]]
    rolled_path(trail, 0).write_bytes(b"".join(lines))
    assert codes(sealed_lines(tmp_path, [*lines[-7:], writer.event(1), writer.closed()])) == {}


def test_repetition_that_does_not_reach_the_last_line_is_double(tmp_path):
    """A copy of lines in the middle is not what a writer does."""
    writer = Writer(step=0.1)
    lines = [writer.opened(), *[writer.event(number) for number in range(30)]]
    report = sealed_lines(tmp_path, [*lines, *lines[-9:-5], writer.event(1), writer.closed()])
    assert codes(report) == {"DOUBLE": 1}
    assert only(report, "DOUBLE").line == 32


def test_last_line_repeated_with_other_bytes_is_double(tmp_path):
    """A repetition is byte for byte."""
    writer = Writer(step=0.1)
    lines = [writer.opened(), *[writer.event(number) for number in range(30)]]
    report = sealed_lines(tmp_path, [*lines, lines[-1].replace(b"user_", b"User_"), writer.event(1), writer.closed()])
    assert codes(report) == {"DOUBLE": 1}


@pytest.mark.parametrize("cut", [5, 40, 95, -1])
def test_torn_line_that_is_written_again_is_no_alarm(tmp_path, cut):
    """A line that was written in part, and then as a whole behind an LF, has its number once."""
    writer = Writer(step=0.1)
    lines = [writer.opened(), *[writer.event(number) for number in range(9)]]
    torn = lines[-1][:-1] + b'"\n' if cut == -1 else lines[-1][:cut] + b"\n"
    report = sealed_lines(tmp_path, [*lines[:-1], torn, *[lines[-1], writer.event(1), writer.closed()]])
    assert codes(report) == {}


@pytest.mark.parametrize("cut", [5, 40, 95])
def test_line_behind_the_torn_one_of_another_process_is_no_alarm(tmp_path, cut):
    """The first of several lines that is glued to another's torn line is written once more behind the others."""
    writer, killed = Writer(bits=1, step=0.1), Writer(bits=2, step=0.1)
    lines = [writer.opened(), killed.opened(), killed.event(1)[:cut]]
    batch = [writer.event(number) for number in range(3)]
    report = sealed_lines(tmp_path, [*lines, *batch, batch[0], writer.event(9), writer.closed()])
    assert codes(report) == {}


# Attacks on the seal.


def seal_of(trail):
    return trail.parent / "audit.jsonl.seal"


def rolled_back(trail, tmp_path):
    """Roll trail and seal back to the state after the first segment, and return the newest checkpoint."""
    newest = (seal_of(trail) / "checkpoint").read_text()
    for path in [*tmp_path.glob("audit.jsonl*")]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    make_trail(tmp_path, 1, LINES)
    return newest


def test_consistent_roll_back_needs_an_anchor(trail, tmp_path):
    """A trail and a seal that were both rolled back are intact by themselves; an outside note shows it."""
    newest = rolled_back(trail, tmp_path)
    assert codes(verified(trail)) == {}

    anchor = tmp_path / "anchor.txt"
    anchor.write_text(newest)
    report = verified(trail, anchors=[str(anchor)])
    assert (codes(report), report.exit_code) == ({"ROLLED_BACK": 1}, 1)
    assert "covers 120 lines, the seal only 40" in only(report, "ROLLED_BACK").message


def test_checkpoint_rolled_back_alone_is_shown_by_the_trail(trail):
    """An older genuine checkpoint contradicts the checkpoint lines behind it."""
    first = json.loads(lines_of(rolled_path(trail, SECOND))[0])["metadata"]["note"]
    (seal_of(trail) / "checkpoint").write_text(first)
    report = verified(trail)
    finding = only(report, "ROLLED_BACK")
    assert (finding.segment, finding.line, report.exit_code) == ("audit.jsonl", 1, 1)


def test_checkpoint_that_grows_meanwhile_is_no_roll_back(trail, monkeypatch):
    """In a living trail, checkpoint lines may be newer than the checkpoint that was read first."""
    newest = (seal_of(trail) / "checkpoint").read_text()
    first = json.loads(lines_of(rolled_path(trail, SECOND))[0])["metadata"]["note"]
    read = verify_trail.read_checkpoint
    notes = iter([parse_note(first.encode())])
    monkeypatch.setattr(verify_trail, "read_checkpoint", lambda seal: next(notes, None) or read(seal))
    (seal_of(trail) / "checkpoint").write_text(newest)
    report = verified(trail)
    assert (codes(report), report.size, report.unsealed) == ({}, LINES, 2 * LINES)


def reseal(trail, signer=SIGNER):
    shutil.rmtree(seal_of(trail))
    sealer = Sealer(trail, signer)
    sealer.seal()


def test_rewritten_trail_signed_with_the_stolen_key_is_forked(trail):
    """A trail that was rewritten and sealed again with the same key contradicts its own checkpoint lines."""
    change(rolled_path(trail, 0), lambda lines: lines.__setitem__(3, lines[3].replace(b"user_", b"User_")))
    reseal(trail)
    report = verified(trail)
    assert report.exit_code == 1
    assert codes(report)["FORKED"] == SEGMENTS - 1
    finding = next(finding for finding in report.findings if finding.code == "FORKED")
    assert (finding.segment, finding.line) == (rolled_path(trail, SECOND).name, 1)


@pytest.mark.parametrize("form", ["text", "json", "syslog", "mixed", "gzip"])
def test_fork_without_own_checkpoints_needs_an_anchor(tmp_path, form):
    """A trail that was rewritten as a whole is intact by itself; a note in any file shows it."""
    genuine = make_trail(tmp_path, 1, LINES)
    note = (genuine.folder / "checkpoint").read_text()
    writer = Writer(bits=99)
    genuine.trail.write_bytes(
        b"".join([writer.opened(), *[writer.event(number) for number in range(50)], writer.closed()])
    )
    reseal(genuine.trail)
    assert codes(verified(genuine.trail)) == {}

    anchor = tmp_path / "anchor"
    escaped = note.replace("\n", "#012")
    content = {
        "text": note,
        "json": json.dumps({"message": note}) + "\n",
        "syslog": f"<110>1 2025-01-15T10:30:45Z host app - - - {escaped}\n",
        "mixed": f"noise\n\n{ORIGIN}\n{json.dumps([json.dumps(note)], ensure_ascii=False)}\nnoise" * 3,
        "gzip": note,
    }[form].encode()
    anchor.write_bytes(gzip.compress(content) if form == "gzip" else content)
    report = verified(genuine.trail, anchors=[str(anchor)])
    assert (codes(report), report.exit_code) == ({"FORKED": 1 if form != "mixed" else 3}, 1)


def test_same_size_with_another_root_is_forked(tmp_path):
    """Two trees of the same size with different roots are a fork."""
    sealer = make_trail(tmp_path, 1, LINES)
    anchor = tmp_path / "anchor"
    anchor.write_text(str(note_of(LINES, bytes(32))))
    assert codes(verified(sealer.trail, anchors=[str(anchor)])) == {"FORKED": 1}


@pytest.mark.parametrize("signer", [SeedSigner(bytes(32)), SeedSigner(bytes(range(32)), "other.example")])
def test_unknown_key_is_never_intact(trail, signer):
    """A checkpoint by another key, or by the key under another name, is not verified."""
    reseal(trail, signer)
    report = verified(trail)
    assert (codes(report), report.exit_code, report.verdict) == ({"UNKNOWN_KEY": 1}, 2, "NOT VERIFIED")


def test_another_origin_is_an_unknown_key(tmp_path):
    """The right key with another origin is not verified."""
    trail = make_trail(tmp_path, 1, LINES).trail
    shutil.rmtree(seal_of(trail))
    Sealer(trail, origin="audit.example/other").seal()
    assert codes(verified(trail)) == {"UNKNOWN_KEY": 1}


def test_no_key_is_never_intact(trail):
    """Without a key, nothing is verified."""
    assert codes(verified(trail, policy=Policy(()))) == {"UNKNOWN_KEY": 1}


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("\n120\n", "\n119\n", "BAD_SIGNATURE"),
        ("\n120\n", "\n0120\n", "BAD_SIGNATURE"),
        ("\n120\n", "\n120\r\n", "UNREADABLE"),
        ("=\n\n", "=\nextension\n\n", "BAD_SIGNATURE"),
        ("=\n\n", "=\n", "UNREADABLE"),
        ("— ", "- ", "UNREADABLE"),
    ],
)
def test_changed_checkpoint_is_not_verified(trail, old, new, code):
    """A checkpoint with another size, a CR or a further line is refused."""
    path = seal_of(trail) / "checkpoint"
    path.write_text(path.read_text().replace(old, new, 1))
    report = verified(trail)
    assert codes(report) == {code: 1}
    assert report.exit_code in (1, 2)


@pytest.mark.parametrize("path", ["audit.jsonl.seal", "audit.jsonl.seal/checkpoint"])
def test_missing_seal_is_never_intact(trail, path):
    """Without a seal, nothing is verified."""
    target = trail.parent / path
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    report = verified(trail)
    assert (codes(report), report.exit_code) == ({"NO_SEAL": 1}, 2)


def test_oversized_checkpoint_is_unreadable(trail):
    """A checkpoint of any size is read up to a limit only."""
    (seal_of(trail) / "checkpoint").write_bytes(b"x" * 2_000_000)
    assert codes(verified(trail)) == {"UNREADABLE": 1}


def test_missing_trail_is_unreadable(trail):
    """Where no segment is, nothing is verified."""
    for path in trail.parent.glob("audit.jsonl*"):
        if path.is_file():
            path.unlink()
    assert codes(verified(trail)) == {"UNREADABLE": 1}


# Attacks on the stored hashes.


@pytest.fixture(scope="module")
def large_template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    make_trail(folder, 3, 300)
    return folder


@pytest.fixture
def large(large_template, tmp_path):
    """Return a trail of 900 lines, with three full tiles."""
    shutil.copytree(large_template, tmp_path, dirs_exist_ok=True)
    return tmp_path / "audit.jsonl"


def patch(path, at, data):
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


@pytest.mark.parametrize("leaf", [5, 299, 700, 899])
def test_line_changed_with_its_stored_hash_is_a_bad_seal(large, leaf):
    """A line whose stored hash was changed with it does not give the signed root."""
    path = [rolled_path(large, 0), rolled_path(large, 1), large][leaf // 300]
    lines = lines_of(path)
    lines[leaf % 300] = lines[leaf % 300].replace(b'"pid":7', b'"pid":8').replace(b"user_", b"User_")
    write_lines(path, lines)
    patch(seal_of(large) / "hashes.0", 32 * leaf, leaf_hash(lines[leaf % 300]))
    report = verified(large)
    assert set(codes(report)) - {"CHAIN"} == {"BAD_SEAL"}
    assert report.exit_code == 1
    if leaf < 768:
        finding = only(report, "BAD_SEAL")
        assert finding.leaf == leaf // 256 * 256
        assert finding.message.startswith("between line ")


@pytest.mark.parametrize(("level", "at"), [(0, 0), (0, 500), (0, 880), (1, 0), (1, 2)])
def test_damaged_stored_hash_with_right_lines_is_lost(large, level, at):
    """Stored hashes that are damaged while the lines are right can be made again."""
    patch(seal_of(large) / f"hashes.{level}", 32 * at, bytes(32))
    report = verified(large)
    assert (codes(report), report.exit_code) == ({"HASHES_LOST": 1}, 3)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("size", [None, 0, 33])
def test_missing_stored_hashes_with_right_lines_are_lost(large, level, size):
    """Stored hashes that are gone or cut while the lines are right can be made again."""
    path = seal_of(large) / f"hashes.{level}"
    path.unlink() if size is None else os.truncate(path, size)
    report = verified(large)
    assert (codes(report), report.exit_code) == ({"HASHES_LOST": 1}, 3)


def test_all_hashes_and_hints_gone_with_right_lines_are_lost(large):
    """The checkpoint and the lines are enough to verify all of them."""
    for path in seal_of(large).iterdir():
        if path.name != "checkpoint":
            path.unlink()
    report = verified(large)
    assert (codes(report), report.exit_code) == ({"HASHES_LOST": 1}, 3)


def test_changed_line_with_all_hashes_gone_is_a_bad_seal(large):
    """Without stored hashes a changed line cannot be named, but the root does not fit."""
    (seal_of(large) / "hashes.0").unlink()
    change(large, lambda lines: lines.__setitem__(20, lines[20].replace(b"user_", b"User_")))
    report = verified(large)
    assert report.exit_code == 1
    assert "BAD_SEAL" in codes(report)


def test_damaged_stored_hash_hides_no_inserted_line(large):
    """A stored hash that is lost does not excuse what was found elsewhere."""
    patch(seal_of(large) / "hashes.0", 0, b"\1" * 32)
    change(large, lambda lines: lines.insert(100, b"forged"))
    report = verified(large)
    assert {"HASHES_LOST", "INSERTED"} <= set(codes(report))
    assert report.exit_code == 1


def test_swapped_stored_hashes_are_lost(large):
    """Two stored hashes that were exchanged accuse no line."""
    stored = (seal_of(large) / "hashes.0").read_bytes()
    patch(seal_of(large) / "hashes.0", 32 * 9, stored[32 * 10 : 32 * 11] + stored[32 * 9 : 32 * 10])
    assert codes(verified(large)) == {"HASHES_LOST": 1}


def test_damage_of_the_seal_accuses_no_line(large):
    """Whatever happens to a file of the seal, no line is accused while all are right; only hints may be damaged unnoticed."""
    rng = random.Random(8)
    names = ["checkpoint", "hashes.0", "hashes.1", "segments"]
    for case in range(80):
        name = names[case % 4]
        path = seal_of(large) / name
        original = path.read_bytes()
        data = bytearray(original)
        at = rng.randrange(len(data))
        if case % 3 == 0:
            del data[at:]
        else:
            data[at] ^= 1 << rng.randrange(8)
        path.write_bytes(data)

        report = verified(large)
        assert set(codes(report)) <= {"BAD_SIGNATURE", "UNKNOWN_KEY", "UNREADABLE", "HASHES_LOST"}, (
            name,
            at,
            report.findings,
        )
        assert (report.exit_code == 0) is (name == "segments")
        path.write_bytes(original)


def test_living_trail_gives_no_false_alarm(tmp_path):
    """While lines are written, segments rolled over and seals renewed, every verification finds the trail intact."""
    sealer = Sealer(tmp_path / "audit.jsonl")
    writers = [Writer(bits=number) for number in range(4)]
    sealer.trail.write_bytes(writers[0].opened())
    sealer.seal()

    def live():
        rng = random.Random(3)
        for step in range(150):
            with sealer.trail.open("ab") as file:
                for _ in range(rng.randrange(30)):
                    file.write(rng.choice(writers).event(step))
            if step % 3 == 0:
                note = sealer.seal()
                with sealer.trail.open("ab") as file:
                    file.write(writers[0].checkpoint(note))
            if step % 10 == 9:
                # As a writer does, which opens the next file at once.
                os.rename(sealer.trail, rolled_path(sealer.trail, step))
                sealer.trail.touch()

    thread = threading.Thread(target=live)
    thread.start()
    reports = [verified(sealer.trail)]
    while thread.is_alive():
        reports.append(verified(sealer.trail))
    thread.join()
    sealer.seal()
    reports.append(verified(sealer.trail))
    assert [report.findings for report in reports if report.exit_code] == []
    assert reports[-1].size > reports[0].size


# Retention.


def pruned_trail(tmp_path, leaves, remove=(0,), *, is_event_sealed=True):
    """Seal a trail whose last segment has a retention event that names *leaves*, and remove segments."""
    trail = tmp_path / "audit.jsonl"
    writer = Writer()
    sealer = Sealer(trail)
    for second in range(3):
        first = [writer.opened()] if second == 0 else []
        trail.write_bytes(b"".join([*first, *[writer.event(number) for number in range(20)]]))
        sealer.seal()
        os.rename(trail, rolled_path(trail, second))
    metadata = {"segments": [rolled_path(trail, second).name for second in remove]}
    if leaves is not None:
        metadata["leaves"] = leaves
    trail.write_bytes(writer.line(trail_event("retention", **metadata)) + writer.event(99) + writer.closed())
    if is_event_sealed:
        sealer.seal()
    for second in remove:
        rolled_path(trail, second).unlink()
    return trail


def test_segments_that_retention_named_are_pruned(tmp_path):
    """A segment whose leaves a sealed retention event names is pruned, which is no alarm."""
    trail = pruned_trail(tmp_path, [[0, 41]], remove=(0, 1))
    report = verified(trail)
    assert (codes(report), report.exit_code, report.verdict, report.pruned) == ({"PRUNED": 2}, 0, "INTACT", 41)
    (tmp_path / "audit.jsonl.seal" / "segments").unlink()
    assert verified(trail).exit_code == 0


@pytest.mark.parametrize("leaves", [None, [], [[0, 20]], "all", [[21, 41]], [["0", "41"]]])
def test_segments_whose_leaves_no_retention_event_names_are_missing(tmp_path, leaves):
    """The name of a segment is not enough, because only the hint says which leaves it has."""
    report = verified(pruned_trail(tmp_path, leaves))
    assert (codes(report), report.exit_code) == ({"MISSING_SEGMENT": 1}, 1)


@pytest.mark.parametrize(
    ("max_age", "seconds", "expected"),
    [
        (120.0, 30, {"PRUNED": 2}),
        (120.0, 300, {"MISSING_SEGMENT": 2, "UNSEALED": 1, "GAP": 1}),
        (None, 30, {"MISSING_SEGMENT": 2, "GAP": 1}),
    ],
    ids=["recent", "old", "at rest"],
)
def test_retention_event_that_is_not_sealed_counts_while_it_is_recent(tmp_path, max_age, seconds, expected):
    """Retention deletes as soon as its event is recorded, which may be a moment before the sealer seals it."""
    trail = pruned_trail(tmp_path, [[0, 41]], remove=(0, 1), is_event_sealed=False)
    now = BEGIN + dt.timedelta(seconds=seconds)
    assert codes(verified(trail, max_age=max_age, now=now)) == expected


def test_changed_retention_event_excuses_nothing(tmp_path):
    """A retention event that was changed after sealing does not count."""
    trail = pruned_trail(tmp_path, [[0, 21]], remove=(0, 1))
    change(trail, lambda lines: lines.__setitem__(0, lines[0].replace(b"[0,21]", b"[0,41]")))
    report = verified(trail)
    assert {"CHANGED", "MISSING_SEGMENT"} <= set(codes(report))


def test_retention_event_excuses_only_leaves_before_itself(tmp_path):
    """A retention event cannot name lines that come later."""
    trail = pruned_trail(tmp_path, [[0, 10**9]])
    os.rename(trail, rolled_path(trail, 5))
    assert verified(trail).exit_code == 0
    rolled_path(trail, 5).unlink()
    assert verified(trail).exit_code == 1


def test_punched_holes_below_the_cut_are_no_alarm(tmp_path):
    """The leaves of pruned lines may be punched out of the stored hashes, a tile at a time."""
    trail = tmp_path / "audit.jsonl"
    writer, sealer = Writer(), Sealer(trail)
    trail.write_bytes(writer.opened() + b"".join(writer.event(number) for number in range(599)))
    sealer.seal()
    os.rename(trail, rolled_path(trail, 0))
    trail.write_bytes(writer.line(trail_event("retention", leaves=[[0, 600]])) + writer.closed())
    sealer.seal()
    rolled_path(trail, 0).unlink()
    patch(sealer.folder / "hashes.0", 0, bytes(512 * 32))
    assert codes(verified(trail)) == {"PRUNED": 1}


@pytest.mark.parametrize(
    ("is_dropped", "expected"), [(False, {"PRUNED": 1}), (True, {"PRUNED": 1, "GAP": 1})], ids=["whole", "dropped"]
)
def test_restored_segment_in_front_of_pruned_ones_has_no_gap(tmp_path, is_dropped, expected):
    """The numbers of pruned lines are not missing, even if an older segment is back; others of that writer still are."""
    trail = tmp_path / "audit.jsonl"
    writer, sealer = Writer(), Sealer(trail)
    for second in range(3):
        lines = [writer.opened()] if second == 0 else []
        lines += [writer.event(number) for number in range(20)]
        del lines[10 : 10 + (is_dropped and second == 2)]
        trail.write_bytes(b"".join(lines))
        sealer.seal()
        os.rename(trail, rolled_path(trail, second))
    trail.write_bytes(writer.line(trail_event("retention", leaves=[[0, 41]])) + writer.closed())
    sealer.seal()
    rolled_path(trail, 1).unlink()
    assert codes(verified(trail)) == expected


def test_line_in_a_pruned_range_that_still_exists_is_verified(tmp_path):
    """A segment that retention has named and not deleted yet is verified like any other, its stored hashes too."""
    trail = tmp_path / "audit.jsonl"
    writer, sealer = Writer(), Sealer(trail)
    trail.write_bytes(writer.opened() + b"".join(writer.event(number) for number in range(599)))
    sealer.seal()
    os.rename(trail, rolled_path(trail, 0))
    trail.write_bytes(writer.line(trail_event("retention", leaves=[[0, 600]])) + writer.closed())
    sealer.seal()
    assert codes(verified(trail)) == {}

    lines = lines_of(rolled_path(trail, 0))
    lines[20] = lines[20].replace(b"user_", b"User_")
    write_lines(rolled_path(trail, 0), lines)
    patch(sealer.folder / "hashes.0", 20 * 32, leaf_hash(lines[20]))
    assert "BAD_SEAL" in codes(verified(trail))


def test_old_anchor_of_pruned_lines_is_no_fork(tmp_path):
    """A note whose lines were pruned, and whose stored hashes were punched out, cannot be judged."""
    trail = tmp_path / "audit.jsonl"
    writer, sealer = Writer(), Sealer(trail)
    trail.write_bytes(writer.opened() + b"".join(writer.event(number) for number in range(99)))
    anchor = tmp_path / "anchor"
    anchor.write_text(str(sealer.seal()))
    with trail.open("ab") as file:
        file.write(b"".join(writer.event(number) for number in range(500)))
    sealer.seal()
    os.rename(trail, rolled_path(trail, 0))
    trail.write_bytes(writer.line(trail_event("retention", leaves=[[0, 600]])) + writer.closed())
    sealer.seal()
    rolled_path(trail, 0).unlink()
    assert codes(verified(trail, anchors=[str(anchor)])) == {"PRUNED": 1}
    assert verified(trail, anchors=[str(anchor)]).anchored == 100

    patch(sealer.folder / "hashes.0", 0, bytes(512 * 32))
    report = verified(trail, anchors=[str(anchor)])
    assert (codes(report), report.anchored) == ({"PRUNED": 1}, 0)


# Age.

NOW = BEGIN + dt.timedelta(hours=1)


def test_old_unsealed_lines_are_a_finding(tmp_path):
    """Lines that stay without a seal for longer than the maximal age are not covered."""
    sealer = make_trail(tmp_path, 1, LINES)
    with sealer.trail.open("ab") as file:
        file.write(Writer(bits=7, begin=NOW - dt.timedelta(seconds=300)).opened())
    report = verified(sealer.trail, max_age=120, now=NOW)
    assert (codes(report), report.exit_code, report.verdict) == ({"UNSEALED": 1}, 3, "NOT COVERED")
    assert only(report, "UNSEALED").line == LINES + 1
    assert codes(verified(sealer.trail, max_age=400, now=NOW)) == {}


def test_unsealed_lines_of_the_future_are_a_finding(tmp_path):
    """A timestamp far in the future does not make lines recent."""
    sealer = make_trail(tmp_path, 1, LINES)
    with sealer.trail.open("ab") as file:
        file.write(Writer(bits=7, begin=NOW + dt.timedelta(days=300)).event(1))
    assert codes(verified(sealer.trail, max_age=120, now=NOW)) == {"UNSEALED": 1}


def test_open_trail_without_recent_checkpoints_is_stale(tmp_path):
    """An idle trail whose sealer has stopped has no new checkpoint lines."""
    trail = tmp_path / "audit.jsonl"
    writer, sealer = Writer(), Sealer(trail)
    trail.write_bytes(writer.opened())
    with trail.open("ab") as file:
        file.write(writer.checkpoint(sealer.seal()))
    sealer.seal()
    report = verified(trail, max_age=120, now=NOW)
    assert (codes(report), report.exit_code) == ({"STALE": 1}, 3)
    assert "2025-01-15T10:30:45Z" in only(report, "STALE").message
    assert codes(verified(trail, max_age=120, now=BEGIN + dt.timedelta(seconds=60))) == {}


def test_closed_trail_is_not_stale(trail):
    """A trail whose writers have closed gets no further checkpoints."""
    assert codes(verified(trail, max_age=120, now=NOW + dt.timedelta(days=999))) == {}


def test_old_torn_end_is_a_finding(trail):
    """Bytes without an LF at the end are an event under way, or torn if they are old."""
    with trail.open("ab") as file:
        file.write(b"half a li")
    assert codes(verified(trail, max_age=120)) == {}
    os.utime(trail, (0, 0))
    assert codes(verified(trail, max_age=120)) == {"TORN": 1}


# Anchors and state.

STRANGER = SeedSigner(bytes([9]) * 32, ORIGIN)


def test_anchor_tells_how_much_it_covers(trail, tmp_path):
    """The newest right note outside counts; lines behind it are not anchored once they are old."""
    notes = [json.loads(lines_of(path)[0])["metadata"]["note"] for path in (rolled_path(trail, 1), trail)]
    anchor = tmp_path / "anchor"
    anchor.write_text("".join(notes))
    report = verified(trail, anchors=[str(anchor)])
    assert (codes(report), report.anchored) == ({}, 2 * LINES)
    report = verified(trail, anchors=[str(anchor)], max_age=120, now=NOW)
    assert (codes(report), report.exit_code) == ({"UNANCHORED": 1}, 3)

    anchor.write_text((seal_of(trail) / "checkpoint").read_text())
    assert codes(verified(trail, anchors=[str(anchor)], max_age=120, now=NOW)) == {}


def test_shipped_copy_of_the_trail_is_an_anchor(trail, tmp_path):
    """A copy of the trail that was shipped elsewhere has its checkpoints."""
    copy = tmp_path / "copy.log"
    copy.write_bytes(trail.read_bytes())
    assert verified(trail, anchors=[str(copy)]).anchored == 2 * LINES


def test_notes_across_blocks_of_an_anchor_are_found(trail, tmp_path):
    """A note at any place of a large file is found."""
    note = (seal_of(trail) / "checkpoint").read_text()
    anchor = tmp_path / "anchor"
    for before in range((1 << 20) - len(note.encode()) - 2, 1 << 20, 37):
        anchor.write_text("x" * (before - 1) + "\n" + note + "\n" * 100_000)
        assert verified(trail, anchors=[str(anchor)]).anchored == SEGMENTS * LINES


def test_damaged_state_hides_no_rollback(trail, tmp_path):
    """Whichever byte of the state has changed, a trail that was rolled back is not intact."""
    newest = rolled_back(trail, trail.parent).encode()
    state = tmp_path / "state"
    for at in range(len(newest)):
        content = newest[:at] + bytes([newest[at] ^ 1]) + newest[at + 1 :]
        state.write_bytes(content)
        assert verified(trail, state=str(state)).exit_code in (1, 2)
        assert state.read_bytes() == content


@pytest.mark.parametrize(
    "note",
    [note_of(3, bytes(32), origin="other.example"), note_of(3, bytes(32), STRANGER)],
    ids=["another origin", "another key"],
)
def test_anchor_without_notes_covers_nothing(trail, tmp_path, note):
    """A file without notes of this origin by a given key anchors nothing."""
    anchor = tmp_path / "anchor"
    anchor.write_text(str(note))
    for max_age in (120, None):
        report = verified(trail, anchors=[str(anchor)], max_age=max_age, now=NOW)
        assert (codes(report), report.anchored) == ({"UNANCHORED": 1}, 0)
    assert f"no checkpoint of {ORIGIN}" in report.findings[0].message


@pytest.mark.parametrize("pack", list(PACKS))
def test_compressed_copy_of_the_trail_is_an_anchor(trail, tmp_path, pack):
    """The checkpoints in a copy count whether it is compressed or not."""
    copy = tmp_path / "copy"
    copy.write_bytes(PACKS[pack](trail.read_bytes()))
    assert verified(trail, anchors=[str(copy)]).anchored == 2 * LINES


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_truncated_anchor_is_unreadable(trail, tmp_path, pack):
    """Checkpoints in the part that cannot be read would be missed."""
    copy = tmp_path / "copy"
    copy.write_bytes(PACKS[pack](trail.read_bytes())[:-20])
    assert codes(verified(trail, anchors=[str(copy)])) == {"UNREADABLE": 1}


def test_note_with_a_false_signature_in_an_anchor_is_named(trail, tmp_path):
    """A note that states our key and contradicts the tree has a bad signature, not a fork."""
    false = note_of(LINES, bytes(32))
    false = false._replace(signatures=(false.signatures[0]._replace(data=bytes(64)),))
    anchor = tmp_path / "anchor"
    anchor.write_text(str(false))
    assert codes(verified(trail, anchors=[str(anchor)])) == {"BAD_SIGNATURE": 1}


def test_missing_anchor_is_unreadable(trail, tmp_path):
    """A file that was asked for must be there."""
    report = verified(trail, anchors=[str(tmp_path / "none")])
    assert (codes(report), report.exit_code) == ({"UNREADABLE": 1}, 2)


def test_state_remembers_and_may_only_grow(trail, tmp_path):
    """The state file keeps the newest verified checkpoint, and shows a roll-back at the next time."""
    state = tmp_path / "state"
    newest = (seal_of(trail) / "checkpoint").read_text()
    assert codes(verified(trail, state=str(state))) == {}
    assert state.read_text() == newest
    assert verified(trail, state=str(state)).anchored == SEGMENTS * LINES

    rolled_back(trail, tmp_path)
    report = verified(trail, state=str(state))
    assert codes(report) == {"ROLLED_BACK": 1}
    assert state.read_text() == newest


def test_state_is_not_changed_by_a_trail_that_is_not_intact(trail, tmp_path):
    """Only a verified checkpoint is remembered."""
    state = tmp_path / "state"
    change(trail, lambda lines: lines.pop(3))
    assert verified(trail, state=str(state)).exit_code == 1
    assert not state.exists()


def test_state_that_cannot_be_written_is_unreadable(trail, tmp_path):
    """A state file in a folder that does not exist is an error."""
    report = verified(trail, state=str(tmp_path / "none" / "state"))
    assert codes(report) == {"UNREADABLE": 1}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        bytes(2_000_000),
        str(note_of(3, bytes(32), origin="other.example")).encode(),
        str(note_of(3, bytes(32), STRANGER)).encode(),
        str(note_of(3, bytes(32))).encode().replace(b"A=\n\n", b"B=\n\n"),
    ],
    ids=["empty", "nonsense", "long", "another origin", "another key", "root that is not canonical"],
)
def test_state_without_a_checkpoint_is_not_overwritten(trail, tmp_path, content):
    """A state file that was emptied or damaged, or is of another trail, is not taken for the first verification."""
    state = tmp_path / "state"
    state.write_bytes(content)
    report = verified(trail, state=str(state))
    assert (codes(report), report.exit_code) == ({"UNREADABLE": 1}, 2)
    assert state.read_bytes() == content


def test_quorum_of_witnesses_is_an_anchor(trail):
    """With a policy, the checkpoint needs the cosignatures of its quorum."""
    witness = SeedSigner(bytes(32), "witness.example/w", COSIGNATURE)
    policy = Policy((SIGNER.key,), {"w": witness.key}, {}, "w")
    report = verified(trail, policy=policy)
    assert (codes(report), report.exit_code) == ({"UNANCHORED": 1}, 3)

    path = seal_of(trail) / "checkpoint"
    path.write_text(str(cosign(parse_note(path.read_bytes()), witness, 1_700_000_000)))
    report = verified(trail, policy=policy)
    assert (codes(report), report.anchored) == ({}, SEGMENTS * LINES)


def test_overlap_of_two_keys_verifies_with_either(trail):
    """While notes carry the signatures of an old and a new key, either alone verifies."""
    new = SeedSigner(bytes(32))
    path = seal_of(trail) / "checkpoint"
    note = parse_note(path.read_bytes())
    fresh = note_of(SEGMENTS * LINES, verify_trail.Checkpoint.parse(note.text).root, new)
    path.write_text(str(note._replace(signatures=(*note.signatures, *fresh.signatures))))
    for key in (SIGNER.key, new.key):
        assert codes(verified(trail, policy=Policy((key,)))) == {}


# Bounds and reports.


def test_number_of_kept_findings_is_bounded(tmp_path):
    """Of each code a bounded number of findings is kept; the others are counted."""
    trail = make_trail(tmp_path, 1, 3_000).trail
    change(trail, lambda lines: lines.__setitem__(slice(0, 2_000), [line + b" " for line in lines[:2_000]]))
    report = verified(trail)
    assert codes(report)["CHANGED"] == 2_000
    assert len([finding for finding in report.findings if finding.code == "CHANGED"]) == verify_trail.MOST_FINDINGS
    assert "CHANGED  1000 more\n" in report.to_text()


def test_report_text_has_no_characters_that_deceive_a_terminal(tmp_path):
    """Names of files are escaped in the report."""
    trail = tmp_path / "audit\x1b[2J.jsonl"
    trail.write_bytes(b"line\n")
    Sealer(trail).seal()
    change(trail, lambda lines: lines.__setitem__(0, b"other"))
    text = verified(trail).to_text()
    assert "\x1b" not in text
    assert "line 1 of audit\\x1b[2J.jsonl was changed" in text


def test_report_as_json_has_all_members(trail):
    """The JSON document has verdict, exit code and findings with their places."""
    change(trail, lambda lines: lines.__setitem__(3, b"other"))
    document = json.loads(verified(trail).to_json())
    assert document["verdict"] == "CHANGED"
    assert document["exit_code"] == 1
    finding = document["findings"][0]
    assert set(finding) == {"code", "message", "segment", "line", "leaf"}
    assert (finding["code"], finding["segment"], finding["line"], finding["leaf"]) == ("CHANGED", "audit.jsonl", 4, 83)


@pytest.mark.parametrize("name", ["audit.jsonl", "audit.jsonl.20250115T100030.000000Z", "audit.jsonl.seal/checkpoint"])
def test_pipe_in_the_place_of_a_file_is_unreadable(trail, name):
    """A pipe does not block the verification."""
    path = trail.parent / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    report = verified(trail)
    assert "UNREADABLE" in codes(report)
    assert "not a regular file" in report.findings[0].message


def test_very_long_line_is_unreadable(trail, monkeypatch):
    """The memory stays bounded: a line without an end is refused."""
    monkeypatch.setattr(verify_trail, "MAX_LINE_BYTES", 1_000_000)
    with trail.open("ab") as file:
        file.write(b"x" * 2_000_000)
    report = verified(trail)
    assert codes(report) == {"UNREADABLE": 1}
    assert re.search("has a line of more than", report.findings[0].message)


def test_segment_that_vanishes_is_tried_again(trail, monkeypatch):
    """A segment that is gone when it is opened begins the verification anew."""
    find = verify_trail.find_files
    missing = verify_trail.SegmentFile(str(rolled_path(trail, 30)), (1, "20250115T100030.000000Z"))
    lists = iter([[missing]])
    monkeypatch.setattr(verify_trail, "find_files", lambda path: [*next(lists, []), *find(path)])
    assert codes(verified(trail)) == {}
    monkeypatch.setattr(verify_trail, "find_files", lambda path: [missing, *find(path)])
    assert codes(verified(trail)) == {"UNREADABLE": 1}


def test_segment_with_zstd_needs_a_module(trail, monkeypatch):
    """Without a module for zstd, the error names the remedy."""
    import sys

    path = rolled_path(trail, SECOND)
    path.with_name(f"{path.name}.zst").write_bytes(PACKS["zstd"](path.read_bytes()))
    path.unlink()
    monkeypatch.setitem(sys.modules, "compression", None)
    monkeypatch.setitem(sys.modules, "backports", None)
    report = verified(trail)
    assert codes(report) == {"UNREADABLE": 1}
    assert "backports.zstd" in report.findings[0].message


def test_policy_is_the_one_of_the_seal():
    """The helper's policy trusts the key of the vectors."""
    assert POLICY.logs == (SIGNER.key,)
