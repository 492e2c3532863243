"""`AuditFileHandler`: writes, segments, rollovers, durability and configuration."""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import json
import logging
import os
import resource
import signal
import stat
import threading

import pytest
from conftest import fill_disk
from log_records import record_of

from structlog_audit import AuditFileHandler, AuditHandler, AuditJsonFormatter, AuditTypeError, AuditValueError
from structlog_audit._failures import DeliveryError
from structlog_audit.events.event_id import parse_event_id
from structlog_audit.recording import file_handler
from structlog_audit.recording.queue_entry import QueueEntry
from structlog_audit.trail.writing import active_segment
from structlog_audit.trail.writing.active_segment import count_whole_entries
from structlog_audit.trail.writing.notices import Notices


def lines_of(handler):
    return [json.loads(line) for path in handler.segments() for line in path.read_bytes().splitlines()]


def test_events_of_many_threads_are_in_the_segments_once_and_in_order(path):
    """20,000 events of 8 threads in many segments give 20,000 valid lines with increasing ids."""
    target = AuditFileHandler(path, maxBytes=200_000)
    handler = AuditHandler(target=target)
    logger = logging.Logger("threads")
    logger.addHandler(handler)

    def write(thread):
        for number in range(2_500):
            logger.info("STORE", extra={"user_id": f"u{thread}", "entry_ids": [f"{thread}-{number}"]})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [line for line in lines_of(target) if "kind" not in line]
    assert sorted(line["entry_ids"][0] for line in lines) == sorted(f"{t}-{n}" for t in range(8) for n in range(2_500))
    ids = [line["event_id"] for line in lines]
    assert ids == sorted(set(ids))
    assert len(target.segments()) > 10
    assert all(segment.stat().st_size <= 200_000 for segment in target.segments())


def test_files_and_folders_are_accessible_to_their_owner_only(path):
    """Files are created with mode 0600 and folders with 0700, whatever the umask."""
    before = os.umask(0)
    try:
        AuditFileHandler(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(("make", "what"), [
    (lambda path: path.mkdir(), "a folder"),
    (lambda path: path.symlink_to("elsewhere"), "a symbolic link"),
    (os.mkfifo, "a special file"),
])  # fmt: skip
def test_a_path_that_is_not_a_regular_file_is_refused(tmp_path, make, what):
    """The error for a folder, a link or a FIFO names the parameter, the path and the kind of file."""
    path = tmp_path / "trail"
    make(path)
    with pytest.raises(AuditValueError, match=rf"filename='.*trail': .*got {what}"):
        AuditFileHandler(path)


@pytest.mark.parametrize(("arguments", "error", "match"), [
    ({"filename": 7}, AuditTypeError, "filename=7"),
    ({"filename": "s3://bucket/audit.jsonl"}, AuditValueError, "expected a path on this machine, got a URL"),
    ({"filename": "x", "maxByte": 4}, AuditTypeError, "'maxByte' of AuditFileHandler: expected one of filename"),
    ({"filename": "x", "maxBytes": -1}, AuditValueError, "maxBytes=-1"),
    ({"filename": "x", "maxBytes": "10 MB"}, AuditTypeError, "maxBytes='10 MB'"),
    ({"filename": "x", "backupCount": -3}, AuditValueError, "backupCount=-3"),
    ({"filename": "x", "retention": {"max_age": 3}}, AuditTypeError, "max_age_days, max_bytes"),
    ({"filename": "x", "retention": {"max_age_days": "1y"}}, AuditTypeError, "max_age_days='1y'"),
    ({"filename": "x", "retention": {"max_age_days": -1}}, AuditValueError, "max_age_days=-1"),
    ({"filename": "x", "retention": {"max_age_days": 1, "min_age_days": 2}}, AuditValueError, "min_age_days=2"),
    ({"filename": "x", "retention": {"max_bytes": 1.5}}, AuditTypeError, "max_bytes=1.5"),
])  # fmt: skip
def test_the_error_for_an_invalid_parameter_names_it(arguments, error, match):
    """The error for an invalid parameter names it, with its value."""
    with pytest.raises(error, match=match):
        AuditFileHandler(**arguments)


def test_segments_are_named_by_their_rollover_and_not_overwritten(path):
    """The name is the time of the rollover, or that of the newest segment plus a microsecond; no file is overwritten."""
    now = dt.datetime(2025, 1, 15, 10, 30, 45, 123456, dt.UTC)
    path.parent.mkdir()
    there = path.with_name("audit.jsonl.20250115T103045.123456Z")
    there.write_bytes(b"precious\n")
    target = AuditFileHandler(path, maxBytes=20, clock=lambda: now)
    for number in range(3):
        target.write(b'{"number":%d,"and":"more"}\n' % number)
    assert [segment.name for segment in target.segments()] == [
        "audit.jsonl.20250115T103045.123456Z",
        "audit.jsonl.20250115T103045.123457Z",
        "audit.jsonl.20250115T103045.123458Z",
        "audit.jsonl",
    ]
    assert there.read_bytes() == b"precious\n"


def test_the_size_of_a_segment_is_counted_in_bytes(path):
    """A segment never exceeds maxBytes bytes, whatever the number of characters."""
    target = AuditFileHandler(path, maxBytes=100)
    for _ in range(4):
        target.write(("ä" * 20 + "\n").encode())
    assert [segment.stat().st_size for segment in target.segments()] == [82, 82]


def test_a_segment_without_a_limit_is_not_rolled_over(path):
    """With maxBytes=0 a segment is never rolled over, as in the standard library."""
    target = AuditFileHandler(path, maxBytes=0)
    for _ in range(10):
        target.write(b"x" * 1000 + b"\n")
    assert target.segments() == [path]
    assert target.shouldRollover(logging.makeLogRecord({})) == 0


def test_a_torn_line_is_ended_before_the_next_line(path):
    """A file that does not end with an LF, as after a crash, gets one before the next line."""
    path.parent.mkdir()
    path.write_bytes(b'{"half":')
    AuditFileHandler(path).write(b"{}\n")
    assert path.read_bytes() == b'{"half":\n{}\n'


def test_a_file_that_was_deleted_is_created_again(path):
    """A file that was deleted while open is created again after the next check of the path."""
    target = AuditFileHandler(path)
    path.unlink()
    target._active.check_at = 0.0
    target.write(b"{}\n")
    assert path.read_bytes() == b"{}\n"


def test_a_failed_rollover_keeps_the_segment_in_use(path):
    """Without the permission to rename, the segment grows, no line is lost, and check() reports it."""
    target = AuditFileHandler(path, maxBytes=10, clock=lambda: (_ for _ in ()).throw(PermissionError(13, "no")))
    target.write(b"x" * 9 + b"\n")
    target.write(b"y" * 9 + b"\n")
    assert path.read_bytes() == b"x" * 9 + b"\n" + b"y" * 9 + b"\n"
    assert [finding.code for finding in target.check()] == ["rollover", "unbounded"]


def test_a_rollover_by_another_process_does_not_block_a_write(path):
    """While another process holds the lock, lines are appended to the segment."""
    target = AuditFileHandler(path, maxBytes=10)
    target.write(b"x" * 9 + b"\n")
    with open(path) as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        target.write(b"y" * 9 + b"\n")
    assert target.segments() == [path]
    target.write(b"z" * 9 + b"\n")
    assert len(target.segments()) == 2


def test_two_writers_roll_over_once(path):
    """A writer whose segment was rolled over by another one continues in the new segment, and no line is lost."""
    one, two = AuditFileHandler(path, maxBytes=30), AuditFileHandler(path, maxBytes=30)
    for number in range(20):
        (one, two)[number % 2].write(b"%019d\n" % number)
    numbers = [int(line) for segment in one.segments() for line in segment.read_bytes().splitlines()]
    assert sorted(numbers) == list(range(20))


def test_the_error_of_a_failed_write_has_the_number_of_entries(path, monkeypatch):
    """On a full device the error has the number of recorded entries, and its cause is the OSError."""
    target = AuditFileHandler(path)
    fill_disk(monkeypatch)
    with pytest.raises(DeliveryError) as caught:
        target.write(b"{}\n")
    assert caught.value.done == 0
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize(("written", "whole"), [(0, 0), (2, 0), (3, 1), (5, 1), (6, 2), (9, 3)])
def test_an_entry_counts_when_its_last_byte_is_written(written, whole):
    """An entry is recorded when the last byte of its lines is written."""
    entries = [QueueEntry(b"", logging.INFO, "", line=line) for line in (b"ab\n", b"cd\n", b"ef\n")]
    assert count_whole_entries(entries, written) == whole


def test_a_handler_attached_to_a_logger_directly_writes_events(path):
    """Without an AuditHandler, the handler converts records itself."""
    target = AuditFileHandler(path)
    logger = logging.Logger("alone")
    logger.addHandler(target)
    logger.error("FORGET", extra={"user_id": "u1"})
    (line,) = lines_of(target)
    assert (line["operation"], line["user_id"], line["status"]) == ("FORGET", "u1", "FAILURE")


def test_a_handler_attached_to_a_logger_directly_reports_failures(path, capsys, monkeypatch):
    """An event that can't be written is counted, and the first is reported on stderr without its content."""
    target = AuditFileHandler(path)
    fill_disk(monkeypatch)
    logger = logging.Logger("alone")
    logger.addHandler(target)
    logger.info("secret")
    logger.info("secret")
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "No space left" in error
    assert "secret" not in error
    assert ("unwritten", "2 events could not be written") in [(found.code, found.message) for found in target.check()]


def test_another_formatter_is_refused(path):
    """A trail has one format: only an AuditJsonFormatter without options is accepted."""
    target = AuditFileHandler(path)
    for formatter in (logging.Formatter(), AuditJsonFormatter(prefix="x"), None):
        with pytest.raises(AuditTypeError, match="one format"):
            target.setFormatter(formatter)
    target.setFormatter(AuditJsonFormatter())


def test_a_closed_handler_opens_the_file_again_for_the_next_line(path):
    """Closing releases the descriptor; a closed handler that is still attached continues to write."""
    target = AuditFileHandler(path)
    target.write(b"1\n")
    target.close()
    assert target._active.fd == -1
    target.flush()
    target.write(b"2\n")
    assert path.read_bytes() == b"1\n2\n"


def test_a_path_that_became_a_link_is_not_followed(path):
    """If the path becomes a symbolic link, no line is written through it."""
    target = AuditFileHandler(path)
    elsewhere = path.with_name("elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    target._active.check_at = 0.0
    with pytest.raises(DeliveryError):
        target.write(b"{}\n")


def test_a_path_that_became_a_fifo_does_not_hang(path):
    """If the path becomes a FIFO, a write fails at once, and the error names the fix."""
    target = AuditFileHandler(path)
    path.unlink()
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    target._active.check_at = 0.0
    with pytest.raises(DeliveryError) as caught:
        target.write(b"{}\n")
    os.close(reader)
    assert "move it away" in str(caught.value.__cause__)


def test_retries_leave_no_empty_lines(path):
    """A torn line gets one LF, however often the next line is retried; a write cut after a whole line gets none."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    target = AuditFileHandler(path)
    try:
        for limit in (105, 107, 108, 200):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
            try:
                target.write(b"x" * 99 + b"\n" + b"y" * 59 + b"\n" if limit == 105 else b"z" * 59 + b"\n")
            except DeliveryError:
                continue
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    lines = path.read_bytes().split(b"\n")
    assert lines == [b"x" * 99, b"y" * 5, b"z", b"z" * 59, b""]


def test_an_interrupted_short_write_is_found_by_the_next_write(path, monkeypatch):
    """If a signal handler raises just after a short write, the next line continues it and is written again."""
    target, real, cut = AuditFileHandler(path), os.write, [True, True]
    target.write(b"z\n")

    def write(fd, data):
        if len(cut) == 2:
            cut.pop()
            return real(fd, data[:5])
        if cut:
            cut.pop()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data)

    def interrupted(data, written):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", write)
    kept, target._active._count_recorded_bytes = target._active._count_recorded_bytes, interrupted
    with pytest.raises(KeyboardInterrupt):
        target.write(b"x" * 19 + b"\n")
    target._active._count_recorded_bytes = kept
    target.write(b"y" * 9 + b"\n")
    assert path.read_bytes() == b"z\n" + b"xxxxx" + b"y" * 9 + b"\n" + b"y" * 9 + b"\n"


def failing_fsync(monkeypatch, times):
    """Let the next *times* fsyncs of a file fail, and return the list of inodes that fsync is called for."""
    real, synced, left = os.fsync, [], [times]

    def fsync(fd):
        if stat.S_ISREG(os.fstat(fd).st_mode):
            synced.append(os.fstat(fd).st_ino)
            if left[0]:
                left[0] -= 1
                raise OSError(5, "Input/output error")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return synced


def test_fsync_durability_syncs_every_write_and_the_folder(path, monkeypatch):
    """With durability="fsync" each write is synced before it returns, and so is the folder of a new file."""
    folders = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (folders.append(stat.S_ISDIR(os.fstat(fd).st_mode)), real(fd)))
    path.parent.mkdir()
    target = AuditFileHandler(path, 20, durability="fsync")
    target.write(b"x" * 14 + b"\n")
    target.write(b"y" * 14 + b"\n")
    assert folders == [True, False, True, False]


def test_a_failed_fsync_is_not_repeated_on_the_same_file(path, monkeypatch):
    """After a failed fsync, its lines are written to a new segment, after an LF that was synced."""
    target = AuditFileHandler(path, durability="fsync")
    target.write(b"one\n")
    synced = failing_fsync(monkeypatch, 1)
    target.write(b"two\n")
    assert [segment.read_bytes() for segment in target.segments()] == [b"one\ntwo\n", b"\ntwo\n"]
    assert synced == [synced[0], synced[1], synced[1]]
    assert synced[0] != synced[1]
    assert [finding.code for finding in target.check()] == ["fsync", "unbounded"]


def test_a_write_fails_if_the_new_segment_cannot_be_synced_either(path, monkeypatch):
    """If the fsync of the new segment fails too, nothing is recorded, and the next attempt uses that segment."""
    target = AuditFileHandler(path, durability="fsync")
    failing_fsync(monkeypatch, 2)
    with pytest.raises(DeliveryError) as caught:
        target.write(b"one\n")
    assert caught.value.done == 0
    target.write(b"one\n")
    assert [segment.read_bytes() for segment in target.segments()] == [b"one\n", b"\n\none\n"]


def test_an_unknown_durability_is_refused(path):
    """The error for an unknown durability names the possible ones."""
    with pytest.raises(AuditValueError, match="durability='disk': expected one of 'os', 'fsync'"):
        AuditFileHandler(path, durability="disk")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(path):
    """A file of another user is refused at the start, and when it is opened again later."""
    target = AuditFileHandler(path)
    os.chown(path, 12_345, -1)
    with pytest.raises(AuditValueError, match="belongs to user 12345"):
        AuditFileHandler(path)
    target.close()
    with pytest.raises(DeliveryError):
        target.write(b"{}\n")


# without an AuditHandler in front


def logger_on(target):
    """Return a logger that *target* is attached to directly."""
    logger = logging.Logger("alone")
    logger.addHandler(target)
    return logger


def operations_of(target, kind="trail"):
    return [line["operation"] for line in lines_of(target) if line.get("kind") == kind]


def test_handler_alone_records_notices_as_trail_events(path):
    """Without an AuditHandler, a torn line and a truncation are recorded as trail events after the next event."""
    path.parent.mkdir()
    path.write_bytes(b'"torn')
    target = AuditFileHandler(path)
    logger = logger_on(target)
    logger.info("STORE")
    assert operations_in_file(path)[-1] == "quarantine"
    os.truncate(path, 0)
    logger.info("STORE")
    assert operations_of(target) == ["truncated"]
    assert target.notices == Notices()


def operations_in_file(path):
    return [json.loads(line)["operation"] for line in path.read_bytes().splitlines()[1:]]


def test_handler_alone_deletes_segments_by_retention(path):
    """Without an AuditHandler, retention announces segments in the trail and then deletes them."""
    path.parent.mkdir()
    for day in range(3):
        path.with_name(f"audit.jsonl.2025011{day}T000000.000000Z").write_bytes(b"{}\n")
    target = AuditFileHandler(path, backupCount=1)
    deleted = threading.Event()
    real = target._pruning.delete
    target._pruning.delete = lambda *arguments: (real(*arguments), deleted.set())
    target.notices.clear()
    target._pruning._announced.clear()
    target._pruning.announce_due(0)
    logger_on(target).info("STORE")
    assert deleted.wait(30)
    assert len(target.segments()) == 2
    assert operations_of(target) == ["retention"]


def test_handler_alone_keeps_segments_whose_deletion_it_could_not_record(path, monkeypatch):
    """Segments are deleted only after the trail event that names them was written."""
    path.parent.mkdir()
    path.with_name("audit.jsonl.20250110T000000.000000Z").write_bytes(b"{}\n")
    calls = []
    monkeypatch.setattr(file_handler, "call_later", lambda seconds, work: calls.append(work))
    target = AuditFileHandler(path, retention={"max_segments": 0})
    fill_disk(monkeypatch)
    logger_on(target).info("STORE")
    calls.pop()()
    assert len(target.segments()) == 2


def test_handler_alone_reports_a_removed_file_once_on_stderr(path, capsys):
    """Without an AuditHandler, close() reports a removed file on stderr, once, and check() has the number."""
    target = AuditFileHandler(path)
    logger = logger_on(target)
    for _ in range(2):
        logger.info("secret")
        path.unlink()
        target.close()
        assert not path.exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "replaced" in error
    assert "secret" not in error
    (finding,) = [finding for finding in target.check() if finding.code == "damaged"]
    assert "2 times" in finding.message


def test_handler_in_front_leaves_stderr_to_the_trail_events(path, capsys):
    """With an AuditHandler in front, a removed file is reported by a trail event and not on stderr."""
    handler = AuditHandler(filename=path)
    handler.handle(record_of())
    path.unlink()
    handler.close()
    assert capsys.readouterr().err == ""


def test_check_reports_descriptors_that_other_code_closed(path):
    """check() has the number of descriptors that other code closed."""
    target = AuditFileHandler(path)
    os.close(target._active.fd)
    target.write(b"{}\n")
    assert "descriptor" in [finding.code for finding in target.check()]


@pytest.mark.parametrize("end", ["flush", "close"])
def test_event_of_a_signal_handler_during_another_write_is_written_at_the_end(path, monkeypatch, end):
    """An event that a signal handler logs directly in the middle of a write of an AuditHandler is not left behind."""
    target = AuditFileHandler(path)
    handler, real, due = AuditHandler(target=target), os.write, [1]

    def write(fd, data):
        if due:
            due.pop()
            target.handle(record_of("INNER"))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    handler.handle(record_of("OUTER"))
    assert "waiting" in [finding.code for finding in target.check()]
    getattr(handler, end)()
    assert "INNER" in [line["operation"] for line in lines_of(target)]
    assert "waiting" not in [finding.code for finding in target.check()]


def test_trail_event_that_is_written_again_leaves_no_gap(path, monkeypatch):
    """A notice whose write failed is recorded with the id of a new writer, so that no sequence number is missing."""
    handler = AuditFileHandler(path)
    handler.notices.add("removed")
    deliver = handler._active.deliver

    def fail_once(entries):
        monkeypatch.setattr(handler._active, "deliver", deliver)
        raise DeliveryError(0) from OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(handler._active, "deliver", fail_once)
    handler._record_notices()
    handler.handle(record_of())
    handler.close()

    numbers = {}
    for line in path.read_bytes().splitlines():
        event_id = parse_event_id(json.loads(line)["event_id"])
        numbers.setdefault(event_id.writer, []).append(event_id.number)
    assert all(found == list(range(len(found))) for found in numbers.values())
    assert b'"removed"' in path.read_bytes()


def test_failed_check_before_a_close_is_noticed_with_its_error(path, monkeypatch):
    """If the path cannot be checked, the notice has the error of the system."""

    def denied(*arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    target = AuditFileHandler(path)
    monkeypatch.setattr(active_segment, "path_refers_to", denied)
    target.check_path()
    assert [(notice.operation, notice.metadata) for notice in target.notices] == [
        ("check failed", {"error": "OSError: [Errno 5] Input/output error"})
    ]
