"""The active segment under faults: descriptors, fsync, other writers, rollovers that fail."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import json
import os
import stat
import threading

import pytest
from conftest import lines_in
from log_records import record_of

from structlog_audit import AuditFileHandler, AuditHandler, AuditValueError
from structlog_audit._failures import DeliveryError
from structlog_audit.recording.queue_entry import QueueEntry
from structlog_audit.trail.writing import active_segment
from structlog_audit.trail.writing.filesystem import segments_at
from structlog_audit.trail.writing.notices import MAX_NOTICES

EVENT = b'{"event_id":"evt_0197f3a0c1d27d1e9b0c5d8e2f4a6b7c","timestamp":"%s","operation":"STORE"}\n'


def record(handler, count=1):
    for number in range(count):
        handler.handle(record_of(number=number))


def handler_on(path, *, on_error="retry", **options):
    return AuditHandler(
        target=AuditFileHandler(path, **options), on_error=on_error, call_later=lambda seconds, function: None
    )


def check_path_next(handler):
    """Let the next write check the path, as if `PATH_CHECK_SECONDS` had passed."""
    handler.target._active.check_at = 0.0


def trail_events_of(handler):
    return [(event.operation.value, event.metadata) for event in handler.iter_events(kind="trail")]


def codes_of(target):
    return [finding.code for finding in target.check()]


# the descriptor


def test_manual_rollover_never_writes_into_another_file(path):
    """While one thread rolls over, one records and one opens files, no event goes to another file and none is missing."""
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
        # With more segments, most of the time would go into listing the folder.
        for _ in range(200):
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


def test_rollover_within_a_write_of_the_same_thread_does_nothing(path, monkeypatch):
    """A signal handler that rolls over in the middle of a write of its thread changes nothing."""
    target = AuditFileHandler(path)
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (target.doRollover(), real(fd, data))[1])
    target.write(b"1\n")
    monkeypatch.undo()
    assert target.segments() == [path]
    assert path.read_bytes() == b"1\n"


def test_rollover_of_a_closed_file_opens_it_first(path):
    """A closed segment is opened and rolled over, and the next line goes to a new one."""
    target = AuditFileHandler(path)
    target.write(b"1\n")
    target.close()
    target.doRollover()
    target.write(b"2\n")
    assert [segment.read_bytes() for segment in target.segments()] == [b"1\n", b"2\n"]


def test_commit_and_file_share_one_lock_in_a_forked_child(path):
    """Although a child's file handler is reset twice, its lock is the one that the group commit uses."""
    handler = handler_on(path)
    pid = os.fork()
    if not pid:
        os._exit(handler._commit._lock is not handler.target.write_lock)
    assert os.waitpid(pid, 0)[1] == 0


# fsync


class Disk:
    """Lets fsyncs of files or folders fail on demand."""

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


def counts_of(handler):
    """Return how often each event is in the trail, in the order of their numbers."""
    numbers = [line["metadata"]["number"] for segment in handler.target.segments() for line in lines_in(segment)]
    return [numbers.count(number) for number in sorted(set(numbers))]


@pytest.mark.parametrize("on_error", ["retry", "raise"])
def test_a_failing_disk_gets_one_more_segment_and_one_lf_per_attempt(path, disk, on_error):
    """While every fsync fails, there is one new segment, one LF for each attempt, and at most one line of each event."""
    handler = handler_on(path, durability="fsync", on_error=on_error)
    record(handler)
    disk.failing = lambda fd: not disk.is_folder(fd)
    for number in range(1, 50):
        with contextlib.suppress(Exception):
            handler.handle(record_of(number=number))
    assert len(handler.target.segments()) == 2
    assert counts_of(handler) == [1, 1]
    assert set(path.read_bytes()) == {ord("\n")}
    assert path.stat().st_size <= 51
    disk.failing = lambda fd: False
    handler.flush()
    counters = handler.get_statistics()
    assert (counters["recorded"], counters["raised"]) == ((50, 0) if on_error == "retry" else (1, 49))
    assert sum(counts_of(handler)) == (51 if on_error == "retry" else 2)
    assert len(handler.target.segments()) == 2


def test_a_disk_that_fails_after_an_lf_gets_one_event_per_attempt(path, disk):
    """If only writes longer than an LF fail, each attempt repeats the first event and none of the others."""
    handler = handler_on(path, durability="fsync")
    record(handler)
    disk.failing = lambda fd: not disk.is_folder(fd) and os.pread(fd, 1, os.fstat(fd).st_size - 2) != b"\n"
    for number in range(1, 20):
        handler.handle(record_of(number=number))
    assert [count > 1 for count in counts_of(handler)] == [False, True]
    disk.failing = lambda fd: False
    handler.flush()
    assert handler.get_statistics()["recorded"] == 20
    assert counts_of(handler)[2:] == [1] * 18
    assert len(handler.target.segments()) == 2


def test_a_failed_fsync_without_a_rollover_is_repeated_in_place(path, disk, monkeypatch):
    """If the segment can't be rolled over, its unsynced lines are written to it again, after an LF, by a new descriptor."""
    handler = handler_on(path, durability="fsync")
    record(handler)
    before, left = path.read_bytes(), [1]
    disk.failing = lambda fd: not disk.is_folder(fd) and left and left.pop()
    monkeypatch.setattr(os, "rename", lambda old, new: os.stat("/nonexistent"))
    handler.target.write(b"{}\n")
    assert path.read_bytes() == before + b"{}\n\n{}\n"
    assert {"rollover", "fsync"} <= set(codes_of(handler.target))


@pytest.mark.parametrize(("syncs", "recorded"), [(True, 1), (False, 0)])
def test_lines_of_a_short_write_are_recorded_only_if_they_are_synced(path, disk, monkeypatch, syncs, recorded):
    """Of a write that ends early, the whole lines are recorded if the sync that follows succeeds, and none if it fails."""
    target = AuditFileHandler(path, durability="fsync")
    target.write(b"0\n")
    real, sizes = os.write, [4]

    def full(fd, data):
        if not sizes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[: sizes.pop()])

    monkeypatch.setattr(os, "write", full)
    disk.failing = lambda fd: not syncs
    with pytest.raises(DeliveryError) as caught:
        target.deliver([QueueEntry(b"", 20, "", line=line) for line in (b"1\n", b"234\n", b"5\n")])
    assert caught.value.done == recorded
    assert path.read_bytes() == b"0\n1\n23"


def test_every_created_folder_is_synced_before_an_event_is_recorded(path, disk):
    """With fsync durability, each created folder is synced in its parent."""
    path = path.parent / "a" / "b" / "audit.jsonl"
    handler = handler_on(path, durability="fsync")
    record(handler)
    if disk.folders[0]:
        assert sorted(disk.folders) == sorted(map(str, [*path.parents][:4]))
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in [*path.parents][:3]] == [0o700] * 3


def test_events_are_pending_until_the_folder_is_synced(path, disk):
    """While the disk does not hold the name of a segment, its events are not recorded."""
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
    assert trail_events_of(handler)[-1][0] == "recovery"
    disk.failing = disk.is_folder
    handler.target._pruning.delete([], True)
    assert handler.target.notices.pop()[0] == "retention failed"
    assert not {"truncated", "replaced"} & {operation for operation, _ in trail_events_of(handler)}


@pytest.mark.parametrize("written", [0, 1, 2, 3])
def test_first_event_after_a_failed_fsync_counts_among_those_that_are_recorded(path, disk, monkeypatch, written):
    """While the disk fails, the first event is written alone; the error of a later write counts it, too."""
    target = AuditFileHandler(path, durability="fsync")
    disk.failing = lambda fd: not disk.is_folder(fd)
    with pytest.raises(DeliveryError):
        target.write(b"0\n")
    disk.failing = lambda fd: False

    # The LF that proves the recovery of the disk, the first event, and so many bytes of the others.
    real, room = os.write, [1 + 2 + 2 * written - 2]

    def full(fd, data):
        if not room[0] or not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = real(fd, data[: room[0]])
        room[0] -= count
        return count

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DeliveryError) as caught:
        target.deliver([QueueEntry(b"", 20, "", line=b"%d\n" % number) for number in range(1, 5)])
    assert caught.value.done == written


@pytest.mark.parametrize("is_written", [True, False])
def test_write_after_an_interrupted_one_is_synced(path, disk, monkeypatch, is_written):
    """A signal handler that raises in the middle of a write does not spare the next one its fsync."""
    target = AuditFileHandler(path, durability="fsync")
    target.write(b"1\n")
    real = os.write

    def interrupted(fd, data):
        if is_written:
            real(fd, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        target.write(b"2\n")
    monkeypatch.setattr(os, "write", real)
    synced = []
    disk.failing = lambda fd: synced.append(disk.is_folder(fd))
    target.write(b"3\n")
    assert False in synced


# other processes


def test_truncation_is_noticed_by_the_check_of_the_path(path):
    """A file that is shorter at the check of the path than after the last write adds a notice with both sizes."""
    handler = handler_on(path)
    record(handler, 2)
    size = path.stat().st_size
    os.truncate(path, 10)
    check_path_next(handler)
    record(handler)
    expected = {"segment": "audit.jsonl", "bytes_before": size, "bytes_now": 10}
    assert [event for event in trail_events_of(handler) if event[0] == "truncated"] == [("truncated", expected)]


@pytest.mark.parametrize("unlinked", [True, False])
def test_replacement_notice_states_the_size_and_whether_the_file_is_gone(path, unlinked):
    """The notice of a replaced file has its size, and whether it was deleted or only moved away."""
    handler = handler_on(path)
    record(handler)
    size = path.stat().st_size
    if unlinked:
        path.unlink()
    else:
        path.rename(path.with_name("elsewhere"))
    check_path_next(handler)
    record(handler)
    expected = {"segment": "audit.jsonl", "bytes_before": size, "unlinked": unlinked}
    assert [event for event in trail_events_of(handler) if event[0] == "replaced"] == [("replaced", expected)]


def test_a_truncation_between_two_writes_is_noticed_by_the_second(path):
    """A file truncated between two writes is noticed by the second one, without waiting for the next check of the path."""
    handler = handler_on(path)
    record(handler, 2)
    size = path.stat().st_size
    os.truncate(path, 0)
    record(handler)
    assert ("truncated", {"segment": "audit.jsonl", "bytes_before": size, "bytes_now": 0}) in trail_events_of(handler)
    record(handler, 2)
    assert [operation for operation, _ in trail_events_of(handler)].count("truncated") == 1


@pytest.mark.parametrize("change", ["retention", "compressed", "moved away"])
def test_a_segment_rolled_over_by_another_writer_is_not_replaced(path, change):
    """An idle writer adds no notice if another writer rolled its segment over, even if the segment is gone by now."""
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
    check_path_next(idle)
    record(idle)
    assert [operation for operation, _ in trail_events_of(idle)] == ["opened"]


def test_only_one_of_many_forked_workers_records_a_torn_line(path):
    """The worker that ends an inherited torn line records it; other notices are recorded by the process that added them."""
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
    operations = [json.loads(line)["operation"] for line in lines[1:] if line]
    assert [operations.count(operation) for operation in ("opened", "quarantine", "truncated")] == [5, 1, 1]


def test_a_segment_that_vanishes_after_the_listing_is_left_out(path, monkeypatch):
    """A segment that another process deletes after the folder was listed disturbs neither opening nor rolling over."""
    real = os.listdir
    gone = "audit.jsonl.20200101T000000.000000Z"
    monkeypatch.setattr(os, "listdir", lambda folder: [*real(folder), gone])
    handler = handler_on(path, maxBytes=500, backupCount=1)
    record(handler, 10)
    assert gone not in [segment.name for segment in handler.target.segments()]
    assert handler.target.failed_rollovers == 0
    assert len(handler.target.segments()) > 2


def test_a_missing_folder_has_no_segments(tmp_path):
    """A trail whose folder does not exist has no segments."""
    assert list(segments_at(str(tmp_path / "gone" / "audit.jsonl"))) == []


# rollovers that fail


def test_a_file_system_without_locks_keeps_the_segment_in_use(path, monkeypatch):
    """If the file can't be locked or unlocked, the segment stays in use, no event is lost, and check() reports the error."""

    def flock(fd, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    handler = handler_on(path, maxBytes=500)
    record(handler, 10)
    assert handler.get_statistics()["recorded"] == 10
    (finding,) = [finding for finding in handler.target.check() if finding.code == "rollover"]
    assert "No locks available" in finding.message


def test_a_lock_held_by_another_process_is_a_finding(path):
    """While another process holds a lock on the file, even a shared one, the segment grows and check() reports it."""
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


def test_a_segment_of_the_year_9999_stops_rollover_but_not_recording(path):
    """If a segment has the last possible name, the active one stays in use, and check() reports the fix."""
    path.parent.mkdir()
    path.with_name("audit.jsonl.99991231T235959.999999Z").write_bytes(b"")
    handler = handler_on(path, maxBytes=500)
    record(handler, 10)
    assert handler.get_statistics()["recorded"] == 10
    (finding,) = [finding for finding in handler.target.check() if finding.code == "rollover"]
    assert "move it away" in finding.message


def test_a_rollover_cut_short_after_the_rename_loses_no_line(path, monkeypatch):
    """If the next segment can't be opened, the next write tries again, and no line is lost."""
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


def test_a_segment_older_than_a_tenth_of_the_maximum_age_is_rolled_over(path):
    """With a maximum age, the next write rolls over a segment whose first event is older than a tenth of it."""
    path.parent.mkdir()
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    for first_event, segments in (("2024-11-27T00:00:00.000000Z", 2), ("2025-12-31T23:30:00.000000Z", 2), ("2036", 3)):
        path.write_bytes(EVENT % first_event.ljust(27, "-").encode())
        # The time of the file counts if its first line has no timestamp.
        os.utime(path, (now.timestamp() + 10**8,) * 2)
        target = AuditFileHandler(path, retention={"max_age_days": 1, "max_bytes": 10**9}, clock=lambda: now)
        target.write(b"{}\n")
        assert len(target.segments()) == segments, first_event
        assert target.path.read_bytes().endswith(b"{}\n")


# notices and findings


def target_with_full_notices(path):
    """Return a handler with two segments due for deletion and no room for another notice."""
    target = AuditFileHandler(path, backupCount=1, clock=lambda: dt.datetime(2030, 1, 1, tzinfo=dt.UTC))
    for number in range(3):
        path.with_name(f"audit.jsonl.2025011{number}T000000.000000Z").write_bytes(b"{}\n")
    for _ in range(MAX_NOTICES):
        target.notices.add("truncated")
    target._pruning.announce_due(0)
    return target


def test_a_notice_without_room_is_counted(path):
    """Without an AuditHandler, notices are kept up to a limit; check() reports the others."""
    target = target_with_full_notices(path)
    assert "unnoticed" in codes_of(target)


def test_segments_whose_notice_had_no_room_are_due_again(path):
    """Segments that could not be announced are announced at the next check."""
    target = target_with_full_notices(path)
    target.notices.clear()
    target._pruning.announce_due(0)
    ((operation, metadata, _),) = target.notices
    assert (operation, len(metadata["segments"])) == ("retention", 2)


def test_a_failed_retention_check_is_noticed_and_the_event_recorded(path, monkeypatch):
    """A folder that can't be listed adds a notice, and the event is recorded nevertheless."""
    handler = handler_on(path, backupCount=1)
    real = os.listdir

    def denied(folder):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "listdir", denied)
    handler.target._active.check_at = handler.target._pruning.check_at = 0.0
    record(handler)
    monkeypatch.setattr(os, "listdir", real)
    assert handler.get_statistics()["recorded"] == 1
    assert trail_events_of(handler)[-1][0] == "retention failed"


@pytest.mark.parametrize(
    ("path", "match"), [("", "got an empty path"), ("a\0b", "expected the path of a file"), (b"", "got an empty path")]
)
def test_an_invalid_path_is_refused_with_its_value(path, match):
    """An empty path and one with a NUL are configuration errors that name the parameter and the value."""
    with pytest.raises(AuditValueError, match=f"filename=.*{match}"):
        AuditFileHandler(path)


def test_check_reports_a_missing_folder(path):
    """check() reports a folder that was deleted, and the next event creates it again."""
    handler = handler_on(path)
    path.unlink()
    path.parent.rmdir()
    assert codes_of(handler.target) == ["unbounded", "folder"]
    record(handler)
    check_path_next(handler)
    record(handler)
    assert path.exists()


@pytest.mark.parametrize(("file", "folder", "found"), [
    (0o600, 0o700, 0), (0o644, 0o755, 0), (0o666, 0o700, 1), (0o620, 0o777, 2), (0o600, 0o1777, 0),
])  # fmt: skip
def test_check_reports_files_that_other_users_can_change(path, file, folder, found):
    """A file, or a folder without the sticky bit, that group or others may write to is a finding."""
    target = AuditFileHandler(path)
    path.chmod(file)
    path.parent.chmod(folder)
    assert codes_of(target).count("permissions") == found


@pytest.mark.parametrize("options", [{}, {"retention": {"max_age_days": 1}}])
def test_failed_rollover_of_a_segment_without_a_limit_is_not_repeated_by_each_write(path, monkeypatch, options):
    """With maxBytes=0, a failed rollover is repeated neither by each write nor by each check of the path."""
    path.parent.mkdir()
    path.write_bytes(EVENT % b"2020-01-01T00:00:00.000000Z")
    attempts = []
    monkeypatch.setattr(os, "rename", lambda old, new: attempts.append(old) or os.stat("/nonexistent"))
    target = AuditFileHandler(path, maxBytes=0, **options)
    target._active._try_roll_over()
    for _ in range(5):
        target._active.check_at = 0.0
        target.write(b"{}\n")
        target.write(b"{}\n")
    assert len(attempts) == target.failed_rollovers == 1


# closing


def test_close_reports_a_file_that_was_just_removed(path):
    """A file that was removed since the last check of the path is reported by a trail event in the next file."""
    handler = handler_on(path)
    record(handler)
    path.unlink()
    record(handler)
    handler.close()
    replaced, closed = (json.loads(line) for line in path.read_bytes().splitlines())
    assert (replaced["operation"], closed["operation"]) == ("replaced", "closed")
    assert replaced["metadata"]["unlinked"] is True


def test_close_after_a_rollover_by_another_writer_reports_nothing(path):
    """A segment that another writer rolled over is not reported at the last check."""
    one, two = handler_on(path), handler_on(path)
    record(one)
    two.target.doRollover()
    one.close()
    assert "replaced" not in [operation for operation, _ in trail_events_of(one)]


def test_close_of_an_unused_handler_creates_no_file(path):
    """Closing a handler without events, whose file was removed, neither creates a file nor reports anything."""
    handler = handler_on(path)
    path.unlink()
    handler.close()
    assert not path.exists()
    assert not handler.target.notices


def test_close_does_not_raise_if_the_path_cannot_be_checked(path, monkeypatch):
    """An error of the last check is kept as an event notice, which the next event of a working file system records."""
    target = AuditFileHandler(path)
    monkeypatch.setattr(active_segment, "path_refers_to", lambda path, fd: os.listdir("/nonexistent"))
    target.close()
    assert [notice.operation for notice in target.notices] == ["check failed"]
    monkeypatch.undo()
    target.handle(record_of())
    assert json.loads(path.read_bytes().splitlines()[-1])["operation"] == "check failed"
