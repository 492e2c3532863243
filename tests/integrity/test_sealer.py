"""Tests of `structlog_audit.integrity.sealer`: every line of the files is a leaf, in their order."""

from __future__ import annotations

import gzip
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from seals import (
    ORIGIN,
    POLICY,
    SIGNER,
    Writer,
    codes,
    lines_of,
    other_signer,
    rolled_path,
    trail_event,
    verified,
    write_lines,
)

from structlog_audit import AuditError
from structlog_audit.exceptions import AuditSealError
from structlog_audit.integrity import sealed_state as state_module
from structlog_audit.integrity import sealer as sealer_module
from structlog_audit.integrity.merkle import Tree, leaf_hash
from structlog_audit.integrity.notes import Checkpoint, Note
from structlog_audit.integrity.seal_folder import SealFolder
from structlog_audit.integrity.sealer import CLOSE_SECONDS, Sealer
from structlog_audit.integrity.standalone.verify_trail import SegmentFile, _order_of
from structlog_audit.trail.segment_names import order_of


class Sealing:
    """A sealer of one trail, with its clock, and what it reports."""

    def __init__(self, trail, signer=SIGNER):
        self.trail = trail
        self.now = 0.0
        self.damages = []
        self.folder = SealFolder(str(trail))
        self.sealer = Sealer(
            self.folder,
            str(trail),
            ORIGIN,
            [signer],
            on_damage=lambda *damage: self.damages.append(damage),
            monotonic=lambda: self.now,
            sleep=lambda seconds: None,
        )
        assert self.folder.lock()

    def seal(self):
        """Seal all lines; return the checkpoint."""
        self.now += CLOSE_SECONDS
        while self.sealer.seal():
            pass
        return Checkpoint.parse(self.sealer.checkpoint.text)

    def end(self):
        """Give up the lock, as the end of the process does."""
        self.folder.release()


@pytest.fixture
def trail(tmp_path):
    return tmp_path / "audit.jsonl"


@pytest.fixture
def sealing(trail):
    sealing = Sealing(trail)
    yield sealing
    sealing.end()


def append(path, *lines):
    with path.open("ab") as file:
        file.write(b"".join(lines))


def events(writer, count, first=0):
    return [writer.event(number) for number in range(first, first + count)]


def root_of(lines):
    """Return the root of *lines*, by the definition of the tree."""
    tree = Tree()
    for line in lines:
        tree.append(leaf_hash(line))
    return tree.root()


def roll(trail, second, rename=os.rename):
    rename(trail, rolled_path(trail, second))


def test_every_byte_sequence_that_ends_in_lf_is_a_leaf(trail, sealing):
    """Torn, empty and foreign lines are leaves; what has no LF yet is none."""
    writer = Writer()
    append(trail, writer.opened(), b"\n", b'{"event_id":"evt_\n', b"\xff\x00\r\n", writer.event(0), b"unfinished")
    checkpoint = sealing.seal()
    assert checkpoint == Checkpoint(ORIGIN, 5, root_of(lines_of(trail)))


def test_line_is_sealed_once_it_has_its_end(trail, sealing):
    """A line whose LF comes later becomes a leaf with its beginning."""
    append(trail, b"begin")
    assert sealing.seal().size == 0
    append(trail, b"ning\nnext")
    assert sealing.seal() == Checkpoint(ORIGIN, 1, root_of([b"beginning"]))


@pytest.mark.parametrize("length", [4_095, 4_096, 32_767, 32_768, 100_000])
def test_line_longer_than_a_block_is_one_leaf(trail, sealing, length):
    """A line of any length is one leaf, and the next pass goes on behind it."""
    long = b"x" * length
    append(trail, long, b"\nnext\n")
    sealing.seal()
    append(trail, b"last\n")
    assert sealing.seal() == Checkpoint(ORIGIN, 3, root_of([long, b"next", b"last"]))
    assert sealing.damages == []


def test_line_beyond_the_limit_is_refused_as_by_the_verifier(trail, sealing, monkeypatch):
    """A line without an end grows up to a limit, and then the trail cannot be sealed."""
    monkeypatch.setattr(sealer_module, "MAX_LINE_BYTES", 65_536)
    append(trail, b"x" * 200_000)
    with pytest.raises(AuditSealError, match="a line of more than 65536 bytes"):
        sealing.seal()


def test_sealed_lines_are_not_read_again(trail, sealing, monkeypatch):
    """After a pass, only the last sealed line and new bytes are read."""
    append(trail, *events(Writer(), 300))
    sealing.seal()
    read = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, at: read.append((count, at)) or pread(fd, count, at))
    size = trail.stat().st_size
    append(trail, b"new\n")
    assert sealing.seal().size == 301
    assert all(at >= size - 4_096 for _, at in read)
    assert sum(count for count, _ in read) <= 4_096 + 4


def test_pass_without_a_change_opens_no_file(trail, sealing, monkeypatch):
    """An idle pass only compares the status of trail and folder."""
    append(trail, b"a\n")
    sealing.seal()
    sealing.seal()

    def refuse(*args, **options):
        raise AssertionError(args)

    for name in ("open", "listdir", "fsync", "rename", "pread"):
        monkeypatch.setattr(os, name, refuse)
    assert sealing.sealer.seal() is False


def test_gil_is_yielded_and_a_pass_ends_within_a_bounded_number_of_lines(trail, monkeypatch):
    """A long trail is sealed in several passes, each with its checkpoint, and yields in between."""
    monkeypatch.setattr(sealer_module, "MOST_LINES", 1_000)
    monkeypatch.setattr(sealer_module, "_BLOCK_BYTES", 2_000)
    append(trail, b"".join(b"%d\n" % number for number in range(3_500)))
    sealing = Sealing(trail)
    slept = []
    sealing.sealer._sleep = slept.append
    sizes = []
    while sealing.sealer.seal():
        sizes.append(Checkpoint.parse(sealing.sealer.checkpoint.text).size)
    sizes.append(sealing.sealer.size)
    assert len(sizes) >= 3
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == 3_500
    assert len(slept) >= 5
    assert verified(trail).exit_code == 0


def test_existing_trail_is_sealed_from_its_first_line_on(trail, sealing):
    """Segments of any age and form are sealed in their order: numbered ones, compressed ones, the active one."""
    writer = Writer()
    zstd = pytest.importorskip("backports.zstd")
    content = [b"".join(events(writer, 30, 30 * number)) for number in range(5)]
    (trail.parent / "audit.jsonl.2.gz").write_bytes(gzip.compress(content[0]))
    (trail.parent / "audit.jsonl.1").write_bytes(content[1])
    Path(f"{rolled_path(trail, 0)}.zst").write_bytes(zstd.compress(content[2]))
    rolled_path(trail, 1).write_bytes(content[3])
    trail.write_bytes(content[4])

    checkpoint = sealing.seal()
    assert checkpoint == Checkpoint(ORIGIN, 150, root_of(b"".join(content).split(b"\n")[:-1]))
    assert codes(verified(trail)) == {}


def test_compressed_segment_that_was_sealed_in_part_is_completed(trail, sealing):
    """If a segment is rolled over and compressed before all of it is sealed, the rest is sealed from the compressed form."""
    lines = events(Writer(), 50)
    append(trail, *lines[:20])
    sealing.seal()
    append(trail, *lines[20:])
    Path(f"{rolled_path(trail, 0)}.gz").write_bytes(gzip.compress(trail.read_bytes()))
    trail.unlink()
    assert sealing.seal() == Checkpoint(ORIGIN, 50, root_of([line[:-1] for line in lines]))
    assert codes(verified(trail)) == {}


def test_late_lines_of_a_rolled_segment_are_a_further_run(trail, sealing):
    """Lines that come to a rolled segment after lines of the next one were sealed are leaves behind those."""
    first, second = Writer(1), Writer(2)
    append(trail, *events(first, 3))
    sealing.seal()
    roll(trail, 0)
    append(trail, *events(first, 2, 3))
    sealing.seal()
    append(rolled_path(trail, 0), *events(second, 2))
    sealing.seal()
    runs = [line.split(" ")[:3] for line in (trail.parent / "audit.jsonl.seal" / "segments").read_text().splitlines()]
    assert runs == [["0", "0", "3"], ["1", "3", "2"], ["0", "5", "2"]]
    assert codes(verified(trail)) == {}


def test_rolled_segment_is_read_once_more_a_second_after_its_rollover(trail, sealing):
    """Late lines are sealed when the time has come, even if the folder changed for other reasons meanwhile."""
    append(trail, *events(Writer(1), 3))
    sealing.seal()
    roll(trail, 0)
    append(trail, *events(Writer(2), 2))
    sealing.sealer.seal()
    (trail.parent / "other.log").touch()
    sealing.now += CLOSE_SECONDS / 2
    sealing.sealer.seal()

    append(rolled_path(trail, 0), *events(Writer(3), 1))
    sealing.now += CLOSE_SECONDS / 4
    sealing.sealer.seal()
    assert sealing.sealer.size == 5
    sealing.now += CLOSE_SECONDS / 4
    sealing.sealer.seal()
    assert sealing.sealer.size == 6


def test_empty_rolled_segment_is_no_finding(trail, sealing):
    """A rollover without an event leaves an empty segment between sealed ones, which is not foreign."""
    writer = Writer()
    append(trail, *events(writer, 3))
    roll(trail, 0)
    rolled_path(trail, 1).write_bytes(b"")
    append(trail, *events(writer, 3, 3))
    sealing.seal()
    assert codes(verified(trail)) == {}


def test_rotation_of_another_program_renames_all_segments(trail, sealing):
    """logrotate's numbered names change at each rotation; the lines stay what they are."""
    writer = Writer()
    for rotation in range(4):
        append(trail, *events(writer, 3, 3 * rotation))
        sealing.seal()
        for number in range(rotation, 0, -1):
            os.rename(f"{trail}.{number}", f"{trail}.{number + 1}")
        os.rename(trail, f"{trail}.1")
    append(trail, *events(writer, 3, 12))
    assert sealing.seal().size == 15
    assert sealing.damages == []
    assert codes(verified(trail)) == {}


def test_unsealed_rolled_segment_is_not_taken_for_a_deleted_one(trail, sealing):
    """While nothing seals, rolled segments come that no seal knows: they are unsealed, and not a deleted one with changes."""
    writer = Writer()
    for second in range(2):
        append(trail, *events(writer, 3, 3 * second))
        sealing.seal()
        roll(trail, second)
    append(trail, *events(writer, 3, 6))
    sealing.seal()
    rolled_path(trail, 0).unlink()
    roll(trail, 2)
    append(trail, *events(writer, 3, 9))
    roll(trail, 3)
    append(trail, *events(writer, 3, 12))
    report = verified(trail)
    assert (codes(report)["MISSING_SEGMENT"], report.unsealed) == (1, 6)
    assert set(codes(report)) <= {"MISSING_SEGMENT", "GAP"}


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 40)),
        st.tuples(st.just("torn"), st.integers(1, 30)),
        st.tuples(st.just("late"), st.integers(1, 3)),
        st.sampled_from([("roll", 0), ("seal", 0), ("restart", 0), ("pack", 0), ("lose hint", 0)]),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@example(steps=[("write", 1), ("roll", 0), ("seal", 0), ("restart", 0), ("lose hint", 0), ("write", 1)])
@given(steps=STEPS)
def test_any_history_is_sealed_completely_and_found_intact(tmp_path_factory, steps):
    """Whatever the order of writes, rollovers, late lines, compressions and restarts, all lines are leaves, once."""
    folder = tmp_path_factory.mktemp("history")
    trail = folder / "audit.jsonl"
    sealing = Sealing(trail)
    writer = Writer()
    rolled = []
    seconds = iter(range(1_000))
    count = 0
    for step, argument in steps:
        if step == "write":
            append(trail, *events(writer, argument, count))
            count += argument
        elif step == "torn":
            append(trail, b'{"event_id":"evt_0197f3a0c1d27d1e9b0c5d8e00000001"'[:argument], b"\n")
            count += 1
        elif step == "late" and rolled:
            append(rolled[-1], *events(Writer(bits=100 + next(seconds)), argument))
            count += argument
        elif step == "roll" and trail.exists() and trail.stat().st_size:
            rolled.append(rolled_path(trail, next(seconds)))
            os.rename(trail, rolled[-1])
        elif step == "seal":
            sealing.seal()
        elif step == "restart":
            sealing.end()
            sealing = Sealing(trail)
        elif step == "pack" and len(rolled) > 1:
            # A segment is compressed long after its rollover.
            sealing.seal()
            path = rolled.pop(0)
            Path(f"{path}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        elif step == "lose hint":
            (folder / "audit.jsonl.seal" / "segments").unlink(missing_ok=True)

    checkpoint = sealing.seal()
    sealing.end()
    assert checkpoint.size == count
    assert sealing.damages == []
    if count:
        report = verified(trail)
        assert (codes(report), report.size) == ({}, count)


def test_restart_continues_the_tree(trail, sealing):
    """Another process continues where the first one ended, and earlier checkpoints stay heads of the tree."""
    writer = Writer()
    append(trail, *events(writer, 10))
    sealing.seal()
    sealing.end()
    append(trail, *events(writer, 10, 10))
    again = Sealing(trail)
    assert again.seal() == Checkpoint(ORIGIN, 20, root_of(lines_of(trail)))
    again.end()


@pytest.mark.parametrize("bit", range(5))
def test_flipped_bit_of_the_hint_accuses_and_repeats_no_line(trail, sealing, bit):
    """For each byte of the file ``segments``: a restarted sealer reports no damage, and seals the new lines only."""
    writer = Writer()
    for number in range(3):
        if number:
            roll(trail, number)
        append(trail, *events(writer, 10, 10 * number))
        sealing.seal()
    sealing.end()
    folder = trail.parent / "audit.jsonl.seal"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    append(trail, *events(writer, 5, 30))
    expected = root_of(
        [line for path in (rolled_path(trail, 1), rolled_path(trail, 2), trail) for line in lines_of(path)]
    )

    for place in range(len(before["segments"])):
        for name, content in before.items():
            (folder / name).write_bytes(content)
        changed = bytearray(before["segments"])
        changed[place] ^= 1 << bit
        (folder / "segments").write_bytes(changed)

        again = Sealing(trail)
        assert (again.seal(), again.damages) == (Checkpoint(ORIGIN, 35, expected), []), (place, bytes(changed))
        again.end()


def test_wrong_size_in_the_hint_beside_a_deleted_segment_is_counted_again(trail, sealing):
    """Without the lines of all segments the runs cannot be found again, but the bytes of those that exist can."""
    writer = Writer()
    for number in range(3):
        if number:
            roll(trail, number)
        append(trail, *events(writer, 10, 10 * number))
        sealing.seal()
    sealing.end()
    rolled_path(trail, 1).unlink()
    hint = trail.parent / "audit.jsonl.seal" / "segments"
    _, _, count, size, name = hint.read_text().splitlines()[1].split(" ")
    hint.write_text(hint.read_text().replace(f" {count} {size} {name}", f" {count} {int(size) + 1} {name}"))
    append(trail, *events(writer, 5, 30))
    again = Sealing(trail)
    assert (again.seal().size, again.damages) == (35, [])
    again.end()


def test_checkpoint_by_another_key_is_not_continued(trail, sealing):
    """A seal that another key has signed is an error that names the keys, and is not changed."""
    append(trail, b"a\n")
    sealing.seal()
    sealing.end()
    before = (trail.parent / "audit.jsonl.seal" / "checkpoint").read_bytes()
    append(trail, b"b\n")
    other = Sealing(trail, other_signer())
    with pytest.raises(AuditSealError, match="no given key has signed the checkpoint"):
        other.seal()
    assert (trail.parent / "audit.jsonl.seal" / "checkpoint").read_bytes() == before
    other.end()


@pytest.mark.parametrize("damage", ["gone", "cut", "changed"])
def test_lost_stored_hashes_are_made_again_from_the_lines(trail, sealing, damage):
    """If the stored hashes do not give the signed root but the lines do, they are written again."""
    append(trail, *events(Writer(), 600))
    sealing.seal()
    sealing.end()
    path = trail.parent / "audit.jsonl.seal" / "hashes.0"
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:32] if damage == "cut" else data[:-32] + bytes([data[-32] ^ 1]) + data[-31:])
    again = Sealing(trail)
    append(trail, b"more\n")
    assert again.seal().size == 601
    assert path.read_bytes()[: len(data)] == data
    again.end()
    assert codes(verified(trail)) == {}


def test_lost_hashes_of_changed_lines_are_not_made_again(trail, sealing):
    """If neither stored hashes nor lines give the signed root, nothing is sealed, and nothing is changed."""
    append(trail, *events(Writer(), 20))
    sealing.seal()
    sealing.end()
    folder = trail.parent / "audit.jsonl.seal"
    (folder / "hashes.0").unlink()
    write_lines(trail, [b"changed", *lines_of(trail)[1:]])
    checkpoint = (folder / "checkpoint").read_bytes()
    again = Sealing(trail)
    with pytest.raises(AuditSealError, match="neither the stored hashes nor the lines give the signed root"):
        again.seal()
    again.end()
    assert (folder / "checkpoint").read_bytes() == checkpoint
    assert not (folder / "hashes.0").exists()


def test_lost_seal_folder_is_made_again_and_earlier_checkpoints_fit(trail, sealing):
    """A trail whose seal folder was lost is sealed from its first line on; its earlier checkpoint lines still fit."""
    writer = Writer()
    append(trail, *events(writer, 10))
    sealing.seal()
    append(trail, writer.checkpoint(sealing.sealer.checkpoint), *events(writer, 5, 10))
    sealing.seal()
    os.rename(trail.parent / "audit.jsonl.seal", trail.parent / "elsewhere")
    assert not sealing.folder.is_locked
    again = Sealing(trail)
    assert again.seal().size == 16
    again.end()
    assert codes(verified(trail)) == {}


# Damage under a living sealer.


@pytest.mark.parametrize("kind", ["truncated", "emptied", "changed"])
@pytest.mark.parametrize("is_restarted", [False, True])
def test_damaged_segment_is_reported_and_what_is_there_is_sealed(trail, sealing, kind, is_restarted):
    """A sealed part that is shorter or changed is a finding for ever; everything after it is verifiable."""
    writer = Writer()
    append(trail, *events(writer, 10))
    sealing.seal()
    lines = lines_of(trail)
    write_lines(trail, {"truncated": lines[:4], "emptied": [], "changed": [*lines[:9], b"{}"]}[kind])
    if is_restarted:
        sealing.end()
        sealing = Sealing(trail)
    elif kind != "changed":
        sealing.seal()
    append(trail, *events(writer, 10, 10))
    sealing.seal()
    if not (kind == "emptied" and is_restarted):
        assert [name for name, _ in sealing.damages] == ["audit.jsonl"]

    report = verified(trail)
    assert report.exit_code == 1
    assert "MISSING_SEGMENT" in codes(report)

    # A later change is found in the new segment, too.
    write_lines(trail, [*lines_of(trail)[:-1], b"{}"])
    assert "CHANGED" in codes(verified(trail))
    sealing.end()


def test_damage_in_a_rolled_segment_is_reported_and_not_sealed(trail, sealing):
    """A rolled segment that was cut after it was sealed is not sealed once more: it would be out of order."""
    writer = Writer()
    append(trail, *events(writer, 10))
    sealing.seal()
    roll(trail, 0)
    append(trail, *events(writer, 10, 10))
    sealing.seal()
    path = rolled_path(trail, 0)
    write_lines(path, lines_of(path)[:5])
    append(trail, writer.event(20))
    os.utime(trail.parent)
    assert sealing.seal().size == 21
    assert [name for name, _ in sealing.damages] == [path.name]
    assert codes(verified(trail)) == {"TRUNCATED": 1, "GAP": 1} or codes(verified(trail)) == {"TRUNCATED": 1}


def test_file_dated_between_sealed_segments_is_not_sealed(trail, sealing):
    """A rollover never makes a file in front of a sealed one: it stays foreign."""
    writer = Writer()
    append(trail, *events(writer, 3))
    sealing.seal()
    roll(trail, 10)
    append(trail, *events(writer, 3, 3))
    sealing.seal()
    rolled_path(trail, 5).write_bytes(b'{"forged":1}\n')
    assert sealing.seal().size == 6
    assert codes(verified(trail)) == {"FOREIGN_SEGMENT": 1}


def test_segment_removed_by_hand_is_missing_for_ever(trail, sealing):
    """What a sealer does after a segment was removed does not hide that."""
    writer = Writer()
    for second in range(3):
        append(trail, *events(writer, 3, 3 * second))
        sealing.seal()
        roll(trail, second)
    rolled_path(trail, 1).unlink()
    append(trail, *events(writer, 3, 9))
    sealing.seal()
    sealing.end()
    again = Sealing(trail)
    append(trail, *events(writer, 3, 12))
    again.seal()
    again.end()
    assert codes(verified(trail))["MISSING_SEGMENT"] == 1


# The lock and the folder.


def test_one_sealer_at_a_time_has_the_lock(trail, sealing):
    """A second sealer gets the lock only when the first one gives it up."""
    other = SealFolder(str(trail))
    assert not other.lock()
    sealing.end()
    assert other.lock()
    other.release()


def test_folder_is_accessible_to_its_owner_only(trail, sealing):
    """The folder has mode 0700 and its files 0600."""
    append(trail, b"a\n")
    sealing.seal()
    folder = trail.parent / "audit.jsonl.seal"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_folder_that_a_group_may_read_has_files_that_it_may_read(trail):
    """An administrator opens the folder to a group once; new files follow."""
    (trail.parent / "audit.jsonl.seal").mkdir()
    os.chmod(trail.parent / "audit.jsonl.seal", 0o750)
    sealing = Sealing(trail)
    append(trail, b"a\n")
    sealing.seal()
    sealing.end()
    modes = {path.stat().st_mode & 0o777 for path in (trail.parent / "audit.jsonl.seal").iterdir()}
    assert modes == {0o640}


@pytest.mark.parametrize("place", ["a file", "a link"])
def test_seal_folder_that_is_no_folder_is_an_error(trail, tmp_path, place):
    """A file or a link in the place of the folder is an OSError, and nothing is written through it."""
    target = tmp_path / "target"
    target.mkdir()
    path = tmp_path / "audit.jsonl.seal"
    path.write_bytes(b"") if place == "a file" else path.symlink_to(target)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        SealFolder(str(trail)).lock()
    assert list(target.iterdir()) == []


# Faults at each system call, one at a time. tests/faults has the same with strace.

CALLS = ("open", "pwrite", "fsync", "rename", "ftruncate", "stat", "listdir", "pread")


class Killed(BaseException):
    """The process ends here."""


class Fault:
    """Makes the *due*-th system call fail; *is_kill* ends the process there, after half of a write."""

    def __init__(self, due, is_kill):
        self.due, self.is_kill, self.count = due, is_kill, 0

    def wrap(self, name, call):
        def wrapped(*args, **options):
            self.count += 1
            if self.count != self.due:
                return call(*args, **options)
            if name == "pwrite":
                fd, data, at = args
                call(fd, data[: len(data) // 2], at)
            if self.is_kill:
                raise Killed
            raise OSError(5, "Input/output error")

        return wrapped

    def install(self, monkeypatch):
        for name in CALLS:
            monkeypatch.setattr(os, name, self.wrap(name, getattr(os, name)))


def history(trail, sealing, notes):
    """Seal a trail with a rollover and late lines; keep each checkpoint that a reader can see in *notes*."""
    writer = Writer()
    for count in (3, 254, 2):
        append(trail, *events(writer, count))
        try:
            sealing.seal()
        except (OSError, AuditError):
            sealing.seal()
        # Without `os.open`: the reader has no fault.
        notes.append(Note.parse(Path(f"{trail}.seal", "checkpoint").read_bytes()))
        if count == 254:
            roll(trail, 0)
    return 3 + 254 + 2


def run_history(folder, due, is_kill, monkeypatch):
    """Run `history` with a fault at the *due*-th call; return the trail, the notes, the fault and the number of lines.

    That is None if the process was killed.
    """
    folder.mkdir()
    trail = folder / "audit.jsonl"
    fault = Fault(due, is_kill)
    notes, size = [], None
    sealing = Sealing(trail)
    with monkeypatch.context() as patches:
        fault.install(patches)
        with suppress(Killed):
            size = history(trail, sealing, notes)
    sealing.end()
    return trail, notes, fault, size


@pytest.mark.parametrize("is_kill", [False, True])
def test_fault_at_any_system_call_keeps_every_earlier_checkpoint(tmp_path, monkeypatch, is_kill):
    """After an error or a kill at any call, the next pass or process goes on, and all earlier checkpoints still fit."""
    _, _, without_fault, _ = run_history(tmp_path / "counting", 0, is_kill, monkeypatch)
    assert without_fault.count > 50

    for due in range(1, without_fault.count + 1):
        trail, notes, _, size = run_history(tmp_path / str(due), due, is_kill, monkeypatch)
        again = Sealing(trail)
        sealed = again.seal()
        again.end()
        assert size is None or sealed.size == size

        report = verified(trail)
        assert (codes(report), report.unsealed) == ({}, 0), due
        with again.folder.hashes() as hashes:
            for note in notes:
                checkpoint, _ = POLICY.check(note)
                assert sealed_root(hashes, checkpoint.size) == checkpoint.root


def sealed_root(hashes, size):
    tree = Tree()
    tree.extend(hashes.read(0, 0, size))
    return tree.root()


@pytest.mark.parametrize(
    "names",
    [["audit.jsonl-20261127", "audit.jsonl-20261128"], ["audit.jsonl.2026-11-27", "audit.jsonl.2026-11-28_10-30"]],
)
def test_dated_segments_of_other_programs_are_sealed(trail, sealing, names):
    """What a reader takes for a segment is sealed, too: logrotate's ``dateext``, and the rotation of the standard library."""
    writer = Writer()
    append(trail, *events(writer, 5))
    os.rename(trail, trail.with_name(names[0]))
    append(trail, *events(writer, 5, 5))
    sealing.seal()
    os.rename(trail, trail.with_name(names[1]))
    append(trail, *events(writer, 5, 10))
    assert sealing.seal().size == 15
    sealing.end()
    assert codes(verified(trail)) == {}

    write_lines(
        trail.with_name(names[0]), [line.replace(b"STORE", b"ERASE") for line in lines_of(trail.with_name(names[0]))]
    )
    assert codes(verified(trail)) == {"CHANGED": 5}
    trail.with_name(names[0]).unlink()
    assert codes(verified(trail)) == {"MISSING_SEGMENT": 1, "GAP": 1}


@given(st.lists(st.sampled_from(
    ["-20261128", ".20261128", ".2026-11-28", "_2026-11-28_10-30", ".1", ".12", ".1234", ".2026112810",
     ".20251231T235959.999999Z",
     ".20251331T235959.999999Z", ".old", "", "-2026-13-01", ".20251231T235959.999999Z.gz", "-20261129.gz", ".2.zst"]
), unique=True))  # fmt: skip
def test_segments_of_the_seal_are_those_of_the_reader(suffixes):
    """The stand-alone verifier must not import the library, and has the same names in the same order."""
    names = [f"audit.jsonl{suffix}" for suffix in suffixes if suffix]
    ours = {name: order_of("audit.jsonl", name) for name in names}
    theirs = {name: _order_of("audit.jsonl", name) for name in names}
    assert {name for name in names if ours[name]} == {name for name in names if theirs[name]}
    found = [name for name in names if ours[name]]
    assert sorted(found, key=ours.get) == sorted(found, key=theirs.get)


@pytest.fixture
def rolled_often(trail, sealing, monkeypatch):
    """A trail of 30 segments, of which retention has deleted 20; the limit of runs is 10."""
    monkeypatch.setattr(state_module, "MOST_RUNS", 10)
    monkeypatch.setattr(state_module, "_LEFT_RUNS", 2)
    writer = Writer(step=0.01)
    for second in range(30):
        append(trail, *events(writer, 20))
        sealing.seal()
        roll(trail, second)
    for second in range(20):
        rolled_path(trail, second).unlink()
    append(trail, writer.line(trail_event("retention", leaves=[[0, 400]])))
    sealing.seal()
    yield trail
    sealing.end()


def hints(trail):
    return Path(f"{trail}.seal/segments").read_text().splitlines()


def test_runs_of_deleted_segments_are_joined(rolled_often, sealing):
    """The hint does not grow with each rollover for ever; the newest deleted segments and all others keep their runs."""
    lines = hints(rolled_often)
    assert len(lines) == 1 + 2 + 10 + 1
    assert lines[0].split()[:3] == ["17", "0", "360"]
    report = verified(rolled_often)
    assert (set(codes(report)), report.pruned) == ({"PRUNED"}, 400)


def test_joined_runs_are_continued_after_a_restart(rolled_often, sealing):
    """What was joined is read back, and sealing goes on behind it."""
    sealing.end()
    append(rolled_often, Writer(bits=5).event(0))
    again = Sealing(rolled_often)
    assert again.seal().size == 602
    again.end()
    assert hints(rolled_often)[0].split()[:3] == ["17", "0", "360"]
    assert set(codes(verified(rolled_often))) == {"PRUNED"}


def test_deleted_segment_that_comes_back_is_verified_and_not_sealed_again(rolled_often, sealing):
    """A deleted segment from a backup is recognised by its lines, also if its run was joined with others."""
    writer = Writer(step=0.01)
    lines = [events(writer, 20) for _ in range(6)][5]
    rolled_path(rolled_often, 5).write_bytes(b"".join(lines))
    assert sealing.seal().size == 601
    # The numbers of the deleted lines behind it are no gap.
    report = verified(rolled_often)
    assert (set(codes(report)), report.pruned) == ({"PRUNED"}, 380)

    lines[9] = lines[9].replace(b"STORE", b"ERASE")
    rolled_path(rolled_often, 5).write_bytes(b"".join(lines))
    assert verified(rolled_often).exit_code == 1
    assert "PRUNED" in codes(verified(rolled_often))


def test_segment_removed_by_hand_among_joined_ones_is_missing(trail, sealing, monkeypatch):
    """Joining hides no loss: the joined lines are missing as a whole, as no retention event names all of them."""
    monkeypatch.setattr(state_module, "MOST_RUNS", 5)
    monkeypatch.setattr(state_module, "_LEFT_RUNS", 1)
    writer = Writer()
    for second in range(8):
        append(trail, *events(writer, 5))
        sealing.seal()
        roll(trail, second)
    for second in range(5):
        rolled_path(trail, second).unlink()
    append(trail, writer.line(trail_event("retention", leaves=[[0, 10], [15, 25]])))
    sealing.seal()
    assert codes(verified(trail))["MISSING_SEGMENT"] == 1


def test_segment_that_vanishes_while_the_state_is_restored_is_no_failure(trail, sealing, monkeypatch):
    """Retention of another process may delete a segment between the listing and its first line: the next listing counts."""
    trail.write_bytes(Writer().event(0))
    sealing.seal()
    sealing.sealer.forget()

    list_files = sealer_module._list_files
    missing = SegmentFile(str(rolled_path(trail, 30)), (1, "20250115T100030.000000Z"))
    lists = iter([[missing]])
    monkeypatch.setattr(sealer_module, "_list_files", lambda path: [*next(lists, []), *list_files(path)])
    assert sealing.seal().size == 1

    sealing.sealer.forget()
    monkeypatch.setattr(sealer_module, "_list_files", lambda path: [missing])
    with pytest.raises(AuditSealError, match="deleted or renamed while it was read"):
        sealing.seal()
