"""The active segment under faults: descriptors, fsync, other writers, rollovers that can't be done."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import json
import logging
import os
import stat
import threading

import pytest
from conftest import lines_in

from structlog_audit import AuditFileHandler, AuditHandler, AuditValueError
from structlog_audit.trail.writing.filesystem import segments_at
from structlog_audit.trail.writing.notices import MAX_NOTICES

EVENT = b'{"event_id":"evt_0197f3a0c1d27d1e9b0c5d8e2f4a6b7c","timestamp":"%s","operation":"STORE"}\n'


def record(handler, count=1):
    for number in range(count):
        handler.handle(logging.makeLogRecord({"msg": "STORE", "levelno": 20, "number": number}))


def handler_on(path, *, on_error="retry", **options):
    return AuditHandler(
        target=AuditFileHandler(path, **options), on_error=on_error, call_later=lambda seconds, function: None
    )


def look_again(handler):
    handler.target._active.check_at = 0.0


def acts_of(handler):
    return [(event.operation.value, event.metadata) for event in handler.iter_events(kind="trail")]


def codes_of(target):
    return [finding.code for finding in target.check()]


# who uses the descriptor


def test_rolling_over_by_hand_never_writes_into_another_file(path):
    """While a thread rolls over, one records and one opens files: no file but the trail's has a line, no event is missing."""
    handler = handler_on(path)
    others = path.parent / "others"
    others.mkdir()
    done = threading.Event()

    def open_files():
        number = 0
        while not done.is_set():
            number += 1
            with open(others / str(number % 20), "a") as file:
                file.write("x")

    def roll_over():
        for _ in range(200):  # more would be spent on looking at the folder of so many segments
            handler.target.doRollover()
        done.set()

    threads = [threading.Thread(target=function) for function in (open_files, roll_over)]
    for thread in threads:
        thread.start()
    events = 0
    while not done.is_set():
        record(handler, 10)
        events += 10
    for thread in threads:
        thread.join()
    assert all(set(file.read_bytes()) <= {ord("x")} for file in others.iterdir())
    assert sum(len(lines_in(segment)) for segment in handler.target.segments()) == events
    assert handler.get_statistics()["recorded"] == events


def test_rolling_over_by_hand_waits_for_its_turn(path, monkeypatch):
    """In the middle of a write of the same thread it does nothing; when the file was closed it is opened first."""
    target = AuditFileHandler(path)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (target.doRollover(), real(fd, data))[1])
    target.write(b"1\n")
    monkeypatch.undo()
    assert target.segments() == [path]
    target.close()
    target.doRollover()
    target.write(b"2\n")
    assert [segment.read_bytes() for segment in target.segments()] == [b"1\n", b"2\n"]


def test_in_a_forked_child_commit_and_file_share_one_lock(path):
    """However often a child's file handler is told of the fork, its lock is the one that the commit took."""
    handler = handler_on(path)
    pid = os.fork()
    if not pid:
        os._exit(handler._commit._lock is not handler.target.write_lock)
    assert os.waitpid(pid, 0)[1] == 0


# fsync


class Disk:
    """Fails fsyncs on demand, those of files or those of folders."""

    def __init__(self, monkeypatch):
        self.failing = lambda fd: False
        self.folders = []
        self._real = os.fsync
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, fd):
        if self.failing(fd):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        if self.is_folder(fd):
            self.folders.append(os.readlink(f"/proc/self/fd/{fd}") if os.path.exists("/proc/self/fd") else "")
        self._real(fd)

    @staticmethod
    def is_folder(fd):
        return stat.S_ISDIR(os.fstat(fd).st_mode)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def wholes(handler):
    """How often each event is in the trail."""
    numbers = [line["metadata"]["number"] for segment in handler.target.segments() for line in lines_in(segment)]
    return [numbers.count(number) for number in sorted(set(numbers))]


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_a_disk_that_goes_on_failing_gets_neither_segments_nor_the_backlog_again(path, disk, on_error):
    """While every fsync fails there is one more segment, an LF for each attempt, and of no event more than one line."""
    handler = handler_on(path, durability="fsync", on_error=on_error)
    record(handler)
    disk.failing = lambda fd: not disk.is_folder(fd)
    for number in range(1, 50):
        with contextlib.suppress(Exception):
            handler.handle(logging.makeLogRecord({"msg": "STORE", "levelno": 20, "number": number}))
    assert len(handler.target.segments()) == 2
    assert wholes(handler) == [1, 1]
    assert set(path.read_bytes()) == {ord("\n")}
    assert path.stat().st_size <= 51
    disk.failing = lambda fd: False
    handler.flush()
    counters = handler.get_statistics()
    assert (counters["recorded"], counters["raised"]) == ((50, 0) if on_error == "retry" else (1, 49))
    assert sum(wholes(handler)) == (51 if on_error == "retry" else 2)
    assert len(handler.target.segments()) == 2


def test_a_disk_that_takes_an_lf_and_no_event_gets_one_event_again(path, disk):
    """If only more than an LF fails, each attempt writes the first event again, and none of the others."""
    handler = handler_on(path, durability="fsync")
    record(handler)
    disk.failing = lambda fd: not disk.is_folder(fd) and os.pread(fd, 1, os.fstat(fd).st_size - 2) != b"\n"
    for number in range(1, 20):
        handler.handle(logging.makeLogRecord({"msg": "STORE", "levelno": 20, "number": number}))
    assert [count > 1 for count in wholes(handler)] == [False, True]
    disk.failing = lambda fd: False
    handler.flush()
    assert handler.get_statistics()["recorded"] == 20
    assert wholes(handler)[2:] == [1] * 18
    assert len(handler.target.segments()) == 2


def test_where_no_rollover_is_possible_a_failed_fsync_is_made_good_in_place(path, disk, monkeypatch):
    """If the segment can't be left, what was not synced is written again in it, behind an LF, by a new descriptor."""
    handler = handler_on(path, durability="fsync")
    record(handler)
    before, left = path.read_bytes(), [1]
    disk.failing = lambda fd: not disk.is_folder(fd) and left and left.pop()
    monkeypatch.setattr(os, "rename", lambda old, new: os.stat("/nonexistent"))
    handler.target.write(b"{}\n")
    assert path.read_bytes() == before + b"{}\n\n{}\n"
    assert {"rollover", "fsync"} <= set(codes_of(handler.target))


def test_every_folder_that_got_a_name_is_synced_before_anything_is_recorded(path, disk):
    """With fsync durability the folders that were made are in the disk's hands, each in the one above it."""
    path = path.parent / "a" / "b" / "audit.jsonl"
    handler = handler_on(path, durability="fsync")
    record(handler)
    if disk.folders[0]:
        assert sorted(disk.folders) == sorted(map(str, [*path.parents][:4]))
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in [*path.parents][:3]] == [0o700] * 3


def test_a_failed_sync_of_the_folder_is_not_forgotten(path, disk):
    """A name that the disk does not hold keeps events from being recorded, until it does."""
    handler = handler_on(path, durability="fsync")
    record(handler)
    handler.target.doRollover()
    disk.failing = disk.is_folder
    record(handler)
    record(handler)
    assert handler.get_statistics()["pending"] == 2
    disk.failing = lambda fd: False
    record(handler)
    assert (handler.get_statistics()["pending"], handler.get_statistics()["recorded"]) == (0, 4)
    assert acts_of(handler)[-1][0] == "recovery"
    disk.failing = disk.is_folder
    handler.target._pruning.delete([], True)
    assert handler.target.notices.pop()[0] == "retention failed"
    assert not {"truncated", "replaced"} & {act for act, _ in acts_of(handler)}


# other hands on the file


def test_a_truncation_beside_a_busy_writer_is_noticed(path):
    """A file that was truncated between two writes is noticed by the next one, whenever the next look is due."""
    handler = handler_on(path)
    record(handler, 2)
    size = path.stat().st_size
    os.truncate(path, 0)
    record(handler)
    assert ("truncated", {"segment": "audit.jsonl", "bytes_before": size, "bytes_now": 0}) in acts_of(handler)
    record(handler, 2)
    assert [act for act, _ in acts_of(handler)].count("truncated") == 1


@pytest.mark.parametrize("change", ["retention", "compressed", "moved away"])
def test_a_segment_that_another_writer_rolled_over_was_not_replaced(path, change):
    """An idle writer whose segment was rolled over, and is gone by now, has nothing to notice."""
    idle, busy = handler_on(path), handler_on(path)
    record(idle)
    record(busy)
    busy.target.doRollover()
    (rolled,) = [segment for segment in busy.target.segments() if segment != path]
    assert stat.S_IMODE(rolled.stat().st_mode) == 0o400
    if change == "retention":
        busy.target._pruning.delete([rolled], True)
    elif change == "compressed":
        rolled.with_name(rolled.name + ".gz").write_bytes(b"")
        rolled.unlink()
    else:
        rolled.rename(path.parent.parent / "archive")
    look_again(idle)
    record(idle)
    assert [act for act, _ in acts_of(idle)] == ["opened"]


def test_of_many_forked_workers_one_records_a_torn_line(path):
    """A torn line that was there before the fork is recorded once, by whoever ends it; other notices by who had them."""
    path.parent.mkdir()
    path.write_bytes(b'{"event_id":"torn')
    handler = handler_on(path)
    handler.target.notices.add("truncated")
    for _ in range(4):
        pid = os.fork()
        if not pid:
            record(handler)
            os._exit(0)
        os.waitpid(pid, 0)
    record(handler)
    lines = path.read_bytes().splitlines()
    assert lines[0] == b'{"event_id":"torn'
    acts = [json.loads(line)["operation"] for line in lines[1:] if line]
    assert [acts.count(act) for act in ("opened", "quarantine", "truncated")] == [5, 1, 1]


def test_a_segment_that_vanishes_while_it_is_looked_at_is_left_out(path, monkeypatch):
    """Another process deletes segments: neither opening, nor rolling over, nor a warm start minds."""
    real = os.listdir
    gone = "audit.jsonl.20200101T000000.000000Z"
    monkeypatch.setattr(os, "listdir", lambda folder: [*real(folder), gone])
    handler = handler_on(path, maxBytes=500, backupCount=1)
    record(handler, 10)
    assert gone not in [segment.name for segment in handler.target.segments()]
    assert handler.target.failed_rollovers == 0
    assert len(handler.target.segments()) > 2


def test_no_folder_means_no_segments(tmp_path):
    """A trail whose folder is gone has no segments."""
    assert list(segments_at(str(tmp_path / "gone" / "audit.jsonl"))) == []


# rollovers that can't be done


def test_a_file_system_without_locks_costs_no_event(path, monkeypatch):
    """If no lock is to be had, not even to be given up, the segment goes on; check() says why."""

    def flock(fd, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    handler = handler_on(path, maxBytes=500)
    record(handler, 10)
    assert handler.get_statistics()["recorded"] == 10
    (finding,) = [finding for finding in handler.target.check() if finding.code == "rollover"]
    assert "No locks available" in finding.message


def test_a_lock_that_is_never_given_up_is_a_finding(path):
    """While somebody keeps a lock on the file, a shared one too, it grows, and check() says so."""
    handler = handler_on(path, maxBytes=500)
    record(handler)
    with open(path) as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        record(handler, 10)
        assert handler.target.segments() == [path]
        assert "postponed" in codes_of(handler.target)
    record(handler)
    assert len(handler.target.segments()) == 2
    assert "postponed" not in codes_of(handler.target)


def test_a_planted_name_of_the_last_moment_ends_rollover_and_not_recording(path):
    """A segment of the year 9999 leaves no name for the next: the segment goes on, and check() says what to do."""
    path.parent.mkdir()
    path.with_name("audit.jsonl.99991231T235959.999999Z").write_bytes(b"")
    handler = handler_on(path, maxBytes=500)
    record(handler, 10)
    assert handler.get_statistics()["recorded"] == 10
    (finding,) = [finding for finding in handler.target.check() if finding.code == "rollover"]
    assert "move it away" in finding.message


def test_if_the_next_segment_cannot_be_opened_lines_go_into_the_one_that_was_renamed(path, monkeypatch):
    """A rollover that is cut short after the rename loses nothing, and the next write tries again."""
    target = AuditFileHandler(path)
    target.write(b"1\n")
    real, left = os.open, [1]

    def full(name, *rest):
        if left and os.fspath(name) == str(path):
            left.pop()
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(name, *rest)

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="Too many open files"):
        target.doRollover()
    target.write(b"2\n")
    assert [segment.read_bytes() for segment in target.segments()] == [b"1\n", b"2\n"]
    assert list(target.notices) == []


def test_a_segment_that_was_begun_long_ago_ends_with_the_next_write(path):
    """With a bound on age no segment holds events of more than a tenth of it, so that the oldest go in time."""
    path.parent.mkdir()
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for begun, segments in (("2024-11-27T00:00:00.000000Z", 2), ("2025-12-31T23:30:00.000000Z", 2), ("2036", 3)):
        path.write_bytes(EVENT % begun.ljust(27, "-").encode())
        os.utime(path, (now.timestamp() + 10**8,) * 2)  # what counts if there is no time in the first line
        target = AuditFileHandler(path, retention={"max_age_days": 1, "max_bytes": 10**9}, clock=lambda: now)
        target.write(b"{}\n")
        assert len(target.segments()) == segments, begun
        assert target.path.read_bytes().endswith(b"{}\n")


# what is found, and said


def test_a_notice_that_found_no_room_is_counted_and_its_segments_are_due_again(path):
    """Without an AuditHandler notices are kept up to a bound; what is not kept is counted, and no segment is forgotten."""
    target = AuditFileHandler(path, backupCount=1, clock=lambda: dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    for number in range(3):
        path.with_name(f"audit.jsonl.2025011{number}T000000.000000Z").write_bytes(b"{}\n")
    for _ in range(MAX_NOTICES):
        target.notices.add("truncated")
    target._pruning.announce_due(0)
    assert "unnoticed" in codes_of(target)
    target.notices.clear()
    target._pruning.announce_due(0)
    ((act, said, _),) = target.notices
    assert (act, len(said["segments"])) == ("retention", 2)


def test_a_folder_that_can_not_be_listed_keeps_no_event_from_being_written(path, monkeypatch):
    """A look for what may go that fails is noticed, and nothing else."""
    handler = handler_on(path, backupCount=1)
    real = os.listdir

    def denied(folder):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "listdir", denied)
    handler.target._active.check_at = handler.target._pruning.check_at = 0.0
    record(handler)
    monkeypatch.setattr(os, "listdir", real)
    assert handler.get_statistics()["recorded"] == 1
    assert acts_of(handler)[-1][0] == "retention failed"


@pytest.mark.parametrize(
    ("path", "match"), [("", "got an empty path"), ("a\0b", "expected the path of a file"), (b"", "got an empty path")]
)
def test_what_is_no_path_is_an_error_that_names_it(path, match):
    """An empty path and one with a NUL are errors of ours."""
    with pytest.raises(AuditValueError, match=f"filename=.*{match}"):
        AuditFileHandler(path)


def test_check_bears_a_folder_that_is_gone(path):
    """check() says that the folder is gone; the next event makes it again."""
    handler = handler_on(path)
    path.unlink()
    path.parent.rmdir()
    assert codes_of(handler.target) == ["unbounded", "folder"]
    record(handler)
    look_again(handler)
    record(handler)
    assert path.exists()


@pytest.mark.parametrize(("file", "folder", "found"), [
    (0o600, 0o700, 0), (0o644, 0o755, 0), (0o666, 0o700, 1), (0o620, 0o777, 2), (0o600, 0o1777, 0),
])  # fmt: skip
def test_check_tells_what_others_could_change(path, file, folder, found):
    """A file, or a folder without the sticky bit, that group or others may write to is a finding."""
    target = AuditFileHandler(path)
    path.chmod(file)
    path.parent.chmod(folder)
    assert codes_of(target).count("permissions") == found
