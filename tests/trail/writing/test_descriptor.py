"""Descriptors that other code closes: no event is lost, and no other file is written to or closed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import subprocess
import sys

import pytest
from conftest import lines_in
from hypothesis import given
from hypothesis import strategies as st
from log_records import record_of

from structlog_audit import AuditFileHandler, AuditHandler
from structlog_audit.trail.writing import active_segment
from structlog_audit.trail.writing.descriptor import UNKNOWN, is_still_open, set_mark

DURABILITIES = ["os", "fsync"]
POSITIONS = {"start": 0, "end": None}


def handler_on(path, **options):
    """Return a handler that raises if an event is not recorded."""
    return AuditHandler(target=AuditFileHandler(path, **options), on_error="raise")


def record(handler, count=1):
    for _ in range(count):
        handler.handle(record_of())


def reuse(fd, path, flags=os.O_RDWR | os.O_CREAT):
    """Close *fd*, as other code does, and give its number to the file at *path*."""
    opened = os.open(path, flags, 0o600)
    os.dup2(opened, fd)
    if opened != fd:
        os.close(opened)


def operations(handler):
    return [event.operation for event in handler.iter_events(kind="trail")]


@pytest.mark.parametrize("durability", DURABILITIES)
def test_closed_descriptor_is_opened_again_for_the_next_event(path, durability):
    """An event after the descriptor was closed is recorded at once, and a trail event reports it."""
    handler = handler_on(path, durability=durability)
    record(handler)
    os.close(handler.target._active.fd)
    record(handler)
    assert len(lines_in(path)) == handler.get_statistics()["recorded"] == 2
    assert operations(handler) == ["opened", "descriptor lost"]


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("before", [0, 1, 3], ids="{} events before".format)
@pytest.mark.parametrize("mode", ["database", "log", "same flags"])
def test_reused_descriptor_is_neither_written_nor_closed(path, durability, before, mode):
    """The file that got the number of a closed descriptor keeps its content, position and descriptor."""
    handler = handler_on(path, durability=durability)
    record(handler, before)
    flags = {
        "database": os.O_RDWR,
        "log": os.O_WRONLY | os.O_APPEND,
        "same flags": os.O_RDWR | os.O_APPEND | os.O_NONBLOCK,
    }
    fd, other = handler.target._active.fd, path.with_name("app.db")
    other.write_bytes(path.read_bytes())
    content = other.read_bytes()
    reuse(fd, other, flags[mode])
    # The position of a log is often its end: here, the one that this process left in a trail of the same size.
    position = os.lseek(fd, 0, os.SEEK_END)
    record(handler)
    handler.close()
    assert other.read_bytes() == content
    assert os.path.samestat(os.fstat(fd), other.stat())
    assert os.lseek(fd, 0, os.SEEK_CUR) == position
    assert len(lines_in(path)) == before + 1
    os.close(fd)


def test_reused_descriptor_of_a_socket_receives_nothing(path):
    """A socket that got the number of a closed descriptor receives no line."""
    handler = handler_on(path)
    record(handler)
    one, other = socket.socketpair()
    os.dup2(one.fileno(), handler.target._active.fd)
    record(handler)
    other.setblocking(False)
    with pytest.raises(BlockingIOError):
        other.recv(1)
    assert len(lines_in(path)) == 2
    one.close()
    other.close()


def test_reused_descriptor_of_a_reader_of_the_trail_stays_open(path):
    """A descriptor that reads the same file is not taken for the one that writes it."""
    handler = handler_on(path)
    record(handler)
    fd = handler.target._active.fd
    reuse(fd, path, os.O_RDONLY)
    record(handler)
    handler.close()
    assert os.pread(fd, 1, 0) == b"{"
    assert len(lines_in(path)) == 2
    os.close(fd)


def test_two_handlers_on_one_trail_do_not_close_the_descriptor_of_each_other(path):
    """If one handler reopens first and gets the number of the other's descriptor, both go on with one of their own."""
    one, two = handler_on(path), handler_on(path)
    record(one)
    record(two)
    fds = one.target._active.fd, two.target._active.fd
    for fd in fds:
        os.close(fd)
    for handler in (two, one, two):
        record(handler)
    assert one.target._active.fd != two.target._active.fd
    one.close()
    record(two)
    assert operations(two).count("descriptor lost") == 1
    assert len(lines_in(path)) == 6


@pytest.fixture
def standard_input_closed():
    """Descriptor 0 is free, as in a process that was started without a standard input."""
    saved = os.dup(0)
    os.close(0)
    yield
    os.dup2(saved, 0)
    os.close(saved)


def test_reused_descriptor_zero_receives_nothing(path, standard_input_closed):
    """A trail with descriptor 0 notices as every other that the number belongs to another file."""
    handler = handler_on(path)
    record(handler)
    assert handler.target._active.fd == 0
    reuse(0, path.with_name("other"))
    record(handler)
    assert path.with_name("other").read_bytes() == b""
    assert len(lines_in(path)) == 2
    handler.close()


@pytest.mark.parametrize("durability", DURABILITIES)
@pytest.mark.parametrize("how", ["closed", "reused"])
def test_close_of_a_lost_descriptor_does_not_raise(path, durability, how):
    """close() and shutdown of a handler whose descriptor is closed or reused neither raise nor close another file."""
    target = AuditFileHandler(path, durability=durability)
    target.write(b"{}\n")
    fd, other = target._active.fd, path.with_name("other")
    os.close(fd) if how == "closed" else reuse(fd, other)
    target.close()
    target.close()
    if how == "reused":
        os.close(fd)


@pytest.mark.parametrize("how", ["closed", "reused"])
def test_manual_rollover_of_a_lost_descriptor_rolls_over_the_trail(path, how):
    """doRollover() rolls over the file at the path, and locks or changes no file that got the number."""
    target = AuditFileHandler(path)
    target.write(b"1\n")
    fd, other = target._active.fd, path.with_name("other")
    os.close(fd) if how == "closed" else reuse(fd, other)
    target.doRollover()
    target.write(b"2\n")
    assert [segment.read_bytes() for segment in target.segments()] == [b"1\n", b"2\n"]
    if how == "reused":
        assert other.stat().st_mode & 0o777 == 0o600
        os.close(fd)


@pytest.mark.parametrize("call", ["write", "after write", "fsync"])
@pytest.mark.parametrize("how", ["closed", "reused"])
def test_descriptor_lost_during_a_write_records_the_event(path, monkeypatch, call, how):
    """If another thread closes the descriptor between two system calls, the event is written again before it is recorded."""
    handler = handler_on(path, durability="fsync")
    record(handler)
    fd, other, due = handler.target._active.fd, path.with_name("other"), [1]
    module_write, module_fsync = os.write, os.fsync

    def lose():
        if due:
            due.pop()
            os.close(fd) if how == "closed" else reuse(fd, other)

    def write(number, data):
        if call == "write":
            lose()
        written = module_write(number, data)
        if call == "after write":
            lose()
        return written

    def fsync(number):
        if call == "fsync":
            lose()
        module_fsync(number)

    monkeypatch.setattr(os, "write", write)
    monkeypatch.setattr(os, "fsync", fsync)
    record(handler)
    monkeypatch.undo()
    assert {line["event_id"] for line in lines_in(path)} == {event.event_id for event in handler.iter_events()}
    assert handler.target._active.failed_syncs == 0
    handler.close()
    if how == "reused":
        os.close(fd)


def test_reused_descriptor_of_a_race_keeps_its_position(path, monkeypatch):
    """If the number is reused just before the write, the position of the other file is where the write left it."""
    handler = handler_on(path)
    record(handler)
    fd, other, real, due = handler.target._active.fd, path.with_name("other"), os.write, [1]

    def write(number, data):
        if due:
            due.pop()
            reuse(fd, other)
        return real(number, data)

    monkeypatch.setattr(os, "write", write)
    record(handler)
    monkeypatch.undo()
    assert os.lseek(fd, 0, os.SEEK_CUR) == other.stat().st_size
    assert len(lines_in(path)) == 2
    os.close(fd)


def test_event_is_recorded_only_after_an_fsync_of_its_own_file(path, monkeypatch):
    """If the number is reused just before the fsync, which then syncs another file, the event is written and synced again."""
    handler = handler_on(path, durability="fsync")
    record(handler)
    fd, real, due, synced = handler.target._active.fd, os.fsync, [1], []

    def fsync(number):
        if due:
            due.pop()
            reuse(fd, path.with_name("other"))
        synced.append(os.fstat(number).st_ino)
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    record(handler)
    monkeypatch.undo()
    assert path.stat().st_ino in synced[1:]
    os.close(fd)


def test_lines_written_to_a_reused_descriptor_do_not_count_as_recorded(path, monkeypatch):
    """If the number is reused just before the write and again just before its repetition, the event is not recorded."""
    handler = AuditHandler(target=AuditFileHandler(path), call_later=lambda seconds, function: None)
    record(handler)
    active, real = handler.target._active, os.write

    def write(fd, data):
        reuse(active.fd, path.with_name("other"))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    record(handler)
    assert handler.get_statistics()["pending"] == 1
    monkeypatch.undo()
    handler.flush()
    assert len(lines_in(path)) == handler.get_statistics()["recorded"] == 2


@pytest.mark.parametrize("durability", DURABILITIES)
def test_file_system_without_large_positions_compares_device_and_inode(path, monkeypatch, durability):
    """Where no position of 1 TB is possible, a reused descriptor is found by device, inode and flags."""

    def refuse(fd):
        return 0

    monkeypatch.setattr(active_segment, "set_mark", refuse)
    handler = handler_on(path, durability=durability)
    record(handler, 3)
    fd, other = handler.target._active.fd, path.with_name("other")
    reuse(fd, other)
    record(handler)
    handler.close()
    assert other.read_bytes() == b""
    assert len(lines_in(path)) == 4
    assert operations(handler).count("descriptor lost") == 1
    os.close(fd)


def test_mark_is_zero_where_the_position_is_refused(monkeypatch):
    """A file system that refuses the position leaves the descriptor without a mark."""

    def lseek(fd, offset, whence):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "lseek", lseek)
    assert set_mark(0) == 0


@given(st.integers(0, 2**41))
def test_a_descriptor_at_another_position_is_another_one(position):
    """Only the exact position identifies a descriptor."""
    with open(os.devnull) as reader, open(__file__) as file:
        opened = os.fstat(reader.fileno())
        os.lseek(file.fileno(), position, os.SEEK_SET)
        assert is_still_open(file.fileno(), position, opened)
        assert not is_still_open(file.fileno(), position + 1, opened)
        assert not is_still_open(file.fileno(), UNKNOWN, opened)
        assert not is_still_open(-1, position, opened)


def test_descriptor_is_not_leaked_by_an_interrupted_write(path, monkeypatch):
    """If a signal handler raises between the write and the mark, the descriptor stays in use."""
    target = AuditFileHandler(path)
    target.write(b"1\n")
    fd, real = target._active.fd, os.write

    def write(number, data):
        real(number, data)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "write", write)
    with contextlib.suppress(KeyboardInterrupt):
        target.write(b"2\n")
    monkeypatch.undo()
    target.write(b"3\n")
    assert target._active.fd == fd
    assert list(target.notices) == []
    assert path.read_bytes() == b"1\n2\n3\n"


def test_descriptor_is_not_leaked_by_a_short_write(path, monkeypatch):
    """After a short write and its error, the same descriptor is used, and closed in the end."""
    target = AuditFileHandler(path)
    fd, real, calls = target._active.fd, os.write, []

    def write(number, data):
        calls.append(number)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(number, data[:1])

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(Exception, match="failed after 0"):
        target.write(b"12\n")
    monkeypatch.undo()
    target.write(b"3\n")
    assert target._active.fd == fd
    target.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        fcntl.fcntl(fd, fcntl.F_GETFD)


def test_trail_replaced_while_the_descriptor_was_lost_is_reported(path):
    """If the file was replaced, too, before the next event, a trail event reports that."""
    handler = handler_on(path)
    record(handler)
    replacement = path.with_name("new")
    replacement.write_bytes(b"")
    os.close(handler.target._active.fd)
    replacement.rename(path)
    record(handler)
    assert operations(handler) == ["opened", "descriptor lost", "replaced"]


def test_failed_close_is_reported_and_not_raised(path, monkeypatch):
    """An error of close(2), with which NFS reports lost data, becomes an event notice."""
    target = AuditFileHandler(path)
    fd, real = target._active.fd, os.close

    def close(number):
        real(number)
        if number == fd:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "close", close)
    target.close()
    assert [notice.operation for notice in target.notices] == ["close failed"]


DAEMON = """
import logging, os, sys
from structlog_audit import AuditFileHandler, AuditHandler, get_audit_logger
handler = AuditHandler(target=AuditFileHandler(sys.argv[1], durability=sys.argv[2]), on_error="raise")
logger = logging.getLogger("audit")
logger.setLevel("INFO")
logger.propagate = False
logger.addHandler(handler)
log = get_audit_logger()
log.info("one")
os.closerange(3, 64)
db = os.open(sys.argv[1] + ".db", os.O_RDWR | os.O_CREAT)
log.info("two")
os.close(db)
log.info("three")
handler.close()
"""


@pytest.mark.parametrize("durability", DURABILITIES)
def test_process_that_closes_all_descriptors_loses_no_event(path, durability):
    """A daemoniser that closes all descriptors and opens a database loses no event and keeps its database."""
    done = subprocess.run([sys.executable, "-c", DAEMON, path, durability], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["operation"] for line in lines_in(path)] == ["one", "two", "three"]
    assert path.with_name("audit.jsonl.db").read_bytes() == b""
