"""The file system beneath a trail: torn lines, first events, folders, and refused files."""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import os
import re
import stat

import pytest
from log_records import record_of

from structlog_audit import AuditFileHandler, AuditHandler, AuditValueError
from structlog_audit.trail.writing import filesystem
from structlog_audit.trail.writing.filesystem import (
    create_folders,
    describe_user,
    first_event_time,
    is_mid_line,
    is_owned_by_another,
    open_for_append,
    path_refers_to,
    read_torn_line,
    require_trail_path,
    segments_at,
    sync_folder,
    writable_by_others,
)


@pytest.fixture
def file(tmp_path):
    """Return a function that writes a file and returns its descriptor."""
    opened = []

    def write(data):
        path = tmp_path / f"file{len(opened)}"
        path.write_bytes(data)
        opened.append(os.open(path, os.O_RDWR))
        return opened[-1]

    yield write
    for fd in opened:
        os.close(fd)


@pytest.mark.parametrize(("data", "torn"), [
    (b"", b""),
    (b"whole\n", b""),
    (b"whole\ntorn", b"torn"),
    (b"1\n2\n\ntorn", b"torn"),
    (b"torn", b"torn"),
    (b"\n" + b"x" * 1_048_575, b"x" * 1_048_575),
    (b"y" * 2_000_000, b"y" * 1_048_576),
])  # fmt: skip
def test_torn_line_is_what_follows_the_last_lf(file, data, torn):
    """The torn line is what follows the last LF, at most the last MiB; a file that ends with an LF has none."""
    assert read_torn_line(file(data)) == torn


def test_line_that_is_completed_meanwhile_is_not_torn(file, monkeypatch):
    """A line of another process that is in the middle of its write is waited for."""
    fd = file(b"1\nhalf")
    waits = []

    def sleep(seconds):
        waits.append(seconds)
        if len(waits) == 2:
            os.pwrite(fd, b" a line\n", 6)

    monkeypatch.setattr(filesystem.time, "sleep", sleep)
    assert read_torn_line(fd) == b""
    assert len(waits) == 2
    fd = file(b"1\nhalf")
    assert read_torn_line(fd) == b"half"
    assert len(waits) == 4


def test_quarantine_names_the_place_the_size_and_the_digest_of_the_torn_line(path):
    """The notice of a torn line describes exactly the bytes after the last LF."""
    path.parent.mkdir()
    path.write_bytes(b'{"a":1}\n\xc3\xa9 torn')
    handler = AuditHandler(target=AuditFileHandler(path), call_later=lambda seconds, function: None)
    handler.handle(record_of())
    events = {event.operation.value: event.metadata for event in handler.iter_events(kind="trail")}
    digest = hashlib.sha256("é torn".encode()).hexdigest()
    assert events["quarantine"] == {"segment": "audit.jsonl", "offset": 8, "bytes": 7, "sha256": digest}


@pytest.mark.parametrize(("data", "expected"), [
    (b'{"timestamp":"2025-01-15T10:30:45.123456Z"}\n{"timestamp":"2026-01-15T10:30:45.123456Z"}\n', "2025-01-15T10:30:45"),
    (b'junk\n{"timestamp":"2025-01-15T10:30:45.123456Z"}\n', "2025-01-15T10:30:45"),
    (b'{"timestamp":"2025-99-15T10:30:45.123456Z"}\n', None),
    (b"", None),
    (b"x" * 4_100 + b'{"timestamp":"2025-01-15T10:30:45.123456Z"}\n', None),
])  # fmt: skip
def test_time_of_the_first_event_is_in_the_first_four_kilobytes_or_that_of_the_file(file, data, expected):
    """The first timestamp in the first 4 kB counts, and without one the time of the last change."""
    fd = file(data)
    os.utime(fd, (1_000_000_000, 1_500_000_000))
    changed = dt.datetime(2017, 7, 14, 2, 40, tzinfo=dt.UTC)
    assert first_event_time(fd) == (changed if expected is None else dt.datetime.fromisoformat(f"{expected}+00:00"))


def test_offset_behind_an_lf_or_at_the_beginning_is_not_within_a_line(file):
    """An offset lies within a line unless an LF or nothing precedes it; a closed descriptor tells nothing."""
    fd = file(b"1\n23")
    assert [is_mid_line(fd, offset) for offset in range(5)] == [False, True, False, True, True]
    assert not is_mid_line(99_999, 1)


def test_folders_are_created_for_their_owner_and_named_by_their_parents(tmp_path):
    """Each missing folder is created with mode 0700; the folders with a new entry are returned, the deepest first."""
    folder = tmp_path / "a" / "b" / "c"
    assert create_folders(str(folder)) == [str(parent) for parent in (tmp_path / "a" / "b", tmp_path / "a", tmp_path)]
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
    assert create_folders(str(folder)) == []


def test_folder_that_another_process_creates_meanwhile_is_used(tmp_path, monkeypatch):
    """A folder that exists by now is no error."""
    real = os.mkdir

    def mkdir(path, mode):
        real(path, mode)
        real(path, mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    create_folders(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()


def test_file_is_created_for_its_owner_and_appended_to(tmp_path):
    """The file is made with mode 0600, and each write goes to its end, whatever the position."""
    path = str(tmp_path / "audit.jsonl")
    fd, status = open_for_append(path)
    os.write(fd, b"1\n")
    os.lseek(fd, 0, os.SEEK_SET)
    os.write(fd, b"2\n")
    os.close(fd)
    assert (stat.S_IMODE(status.st_mode), status.st_size) == (0o600, 0)
    fd, status = open_for_append(path)
    os.close(fd)
    assert status.st_size == 4
    assert (tmp_path / "audit.jsonl").read_bytes() == b"1\n2\n"


@pytest.mark.parametrize(("make", "kind"), [
    (os.mkdir, "a folder"),
    (os.mkfifo, "a special file"),
    (lambda path: os.symlink("elsewhere", path), "a symbolic link"),
])  # fmt: skip
def test_path_that_is_not_a_regular_file_is_named_by_its_kind(tmp_path, make, kind):
    """The error names the parameter, the path and the kind of file that is there."""
    path = str(tmp_path / "there")
    make(path)
    message = f"filename={path!r}: expected the path of a regular file, got {kind}"
    with pytest.raises(AuditValueError, match=f"^{re.escape(message)}$"):
        require_trail_path("filename", path)


def test_fifo_that_is_opened_is_refused_and_closed(tmp_path):
    """A FIFO with a reader is refused with the path and the fix, and its descriptor is closed."""
    path = str(tmp_path / "fifo")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    before = set(os.listdir("/dev/fd"))
    with pytest.raises(PermissionError) as caught:
        open_for_append(path)
    assert (caught.value.errno, caught.value.filename) == (errno.EPERM, path)
    assert "not a regular file: move it away" in str(caught.value)
    assert set(os.listdir("/dev/fd")) == before
    os.close(reader)


def test_path_refers_to_the_file_that_is_there(tmp_path, file):
    """A path refers to an open file if that file is there itself, and not if it is a link to it, another file or nothing."""
    fd = file(b"x")
    path = tmp_path / "file0"
    assert path_refers_to(str(path), fd)
    (tmp_path / "link").symlink_to(path)
    assert not path_refers_to(str(tmp_path / "link"), fd)
    path.rename(tmp_path / "moved")
    assert not path_refers_to(str(path), fd)
    path.write_bytes(b"x")
    assert not path_refers_to(str(path), fd)


def test_path_in_a_folder_that_cannot_be_searched_is_taken_for_the_same(tmp_path, file, monkeypatch):
    """If the path can't be checked for lack of a permission, the open file stays in use."""
    fd = file(b"x")

    def denied(*args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "stat", denied)
    assert path_refers_to(str(tmp_path / "file0"), fd)


def test_segments_are_listed_oldest_first_and_the_active_one_last(tmp_path):
    """The segments of a trail have their order and their status; files of other trails and missing ones are left out."""
    base = "audit.jsonl"
    names = [f"{base}.20250102T000000.000000Z", f"{base}.20250101T000000.000000Z", base, "other.jsonl", f"{base}.x"]
    for size, name in enumerate(names):
        (tmp_path / name).write_bytes(b"x" * size)
    found = [(path.name, status.st_size) for path, status in segments_at(str(tmp_path / base))]
    assert found == [(names[1], 1), (names[0], 0), (base, 2)]
    (tmp_path / base).unlink()
    assert [path.name for path, _ in segments_at(str(tmp_path / base))] == [names[1], names[0]]


def test_segment_that_cannot_be_accessed_is_an_error(tmp_path, monkeypatch):
    """An error other than that of a missing file goes to the caller."""
    (tmp_path / "audit.jsonl").write_bytes(b"")

    def denied(self):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(filesystem.Path, "stat", denied)
    with pytest.raises(OSError, match="Input/output error"):
        list(segments_at(str(tmp_path / "audit.jsonl")))


def test_places_that_others_can_change_have_their_modes(path):
    """The file and its folder are listed with their modes, the folder only without the sticky bit."""
    path.parent.mkdir()
    path.write_bytes(b"")
    path.chmod(0o660)
    path.parent.chmod(0o702)
    assert list(writable_by_others(str(path))) == [(str(path), 0o660), (str(path.parent), 0o702)]
    path.chmod(0o644)
    path.parent.chmod(0o1777)
    assert list(writable_by_others(str(path))) == []
    assert list(writable_by_others(str(path.parent / "missing" / "x"))) == []


@pytest.mark.parametrize(("owner", "is_foreign"), [(0, False), (os.geteuid(), False), (3_999_999_999, True)])
def test_file_in_a_folder_that_cannot_be_checked_must_belong_to_this_user(tmp_path, owner, is_foreign):
    """If neither the owner of the folder nor that of a new file is known, only this user and root may own the file."""
    status = list(tmp_path.stat())
    status[stat.ST_UID] = owner
    assert is_owned_by_another(str(tmp_path / "missing" / "file"), os.stat_result(status)) is is_foreign


def test_missing_folder_needs_no_sync_and_an_existing_one_is_synced(tmp_path, monkeypatch):
    """A folder is opened, synced and closed; one that is missing is ignored."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    before = set(os.listdir("/dev/fd"))
    sync_folder(tmp_path / "missing")
    sync_folder(tmp_path)
    assert synced == [tmp_path.stat().st_ino]
    assert set(os.listdir("/dev/fd")) == before


def test_user_is_described_by_id_and_name():
    """A user without a name is described by the id alone."""
    assert describe_user(0) == "0 (root)"
    assert describe_user(3_999_999_999) == "3999999999"
