"""Discovery of trails by path, folder and pattern, and the set of their files while writers roll over."""

import datetime as dt
import gzip
import io
import os
import threading

import pytest
from trail_files import at, line_of, write_trail

from structlog_audit import AuditReadError, AuditTypeError, open_trail
from structlog_audit.recording.file_handler import AuditFileHandler
from structlog_audit.trail.reading import discovery
from structlog_audit.trail.reading.discovery import StreamTrail, find_trails
from structlog_audit.trail.segment_names import base_of, next_name, order_of

STAMPS = ["20250115T103000.000000Z", "20250115T104000.000000Z", "20250115T105000.000000Z"]


def touch(folder, *names):
    """Create files that contain their names."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(name.encode() + b"\n")


def names_of(*paths):
    """Return the names of the segments of each trail at *paths*."""
    found = []
    for trail in find_trails(paths):
        with trail.segments() as segments:
            found.append([os.path.basename(segment.path) for segment in segments])
    return found


def contents_of(trail):
    """Return the content of each segment of *trail*."""
    found = []
    with trail.segments() as segments:
        for segment in segments:
            with segment.opened() as file:
                found.append(file.read())
    return found


@pytest.mark.parametrize(
    ("name", "base", "order"),
    [
        ("audit.jsonl", "audit.jsonl", (2, 0)),
        (f"audit.jsonl.{STAMPS[0]}", "audit.jsonl", (1, dt.datetime(2025, 1, 15, 10, 30, tzinfo=dt.UTC))),
        (f"audit.jsonl.{STAMPS[0]}.gz", "audit.jsonl", (1, dt.datetime(2025, 1, 15, 10, 30, tzinfo=dt.UTC))),
        ("app.log.3", "app.log", (0, -3)),
        ("app.log.3.zst", "app.log", (0, -3)),
        ("app.log.2025", "app.log.2025", (2, 0)),
        ("audit_2025_01_15_103045.json", "audit_2025_01_15_103045.json", (2, 0)),
    ],
)
def test_name_determines_trail_and_order(name, base, order):
    """A name determines the trail that a file belongs to, and its order in it."""
    assert base_of(name) == base
    assert order_of(base, name) == order


@pytest.mark.parametrize("name", ["audit.jsonl.bak", "audit.jsonl.20251315T103000.000000Z", "audit.jsonl.1.bz2", "x"])
def test_similar_name_is_not_a_segment(name):
    """A name that only resembles that of a segment has no order in the trail."""
    assert order_of("audit.jsonl", name) is None


def test_orders_sort_as_their_segments():
    """Numbered files come first, the highest first, then those named by their rollover, then the active one."""
    names = ["a.2", "a", f"a.{STAMPS[1]}.gz", "a.10", f"a.{STAMPS[0]}", "a.1"]
    ordered = sorted(names, key=lambda name: order_of("a", name))
    assert ordered == ["a.10", "a.2", "a.1", f"a.{STAMPS[0]}", f"a.{STAMPS[1]}.gz", "a"]


FILES = [
    "audit.jsonl",
    *(f"audit.jsonl.{stamp}" for stamp in STAMPS),
    "app.log",
    "app.log.1",
    "app.log.2.gz",
    "export.json",
    "notes.txt",
    ".audit.jsonl.swp",
    f"old.{STAMPS[0]}",
]
AUDIT, APP = [*FILES[1:4], "audit.jsonl"], ["app.log.2.gz", "app.log.1", "app.log"]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["audit.jsonl"], [AUDIT]),
        (["app.log"], [APP]),
        ([FILES[2]], [[FILES[2]]]),
        (["app.log.1"], [["app.log.1"]]),
        ([f"old.{STAMPS[0]}"], [[f"old.{STAMPS[0]}"]]),
        (["old"], [[f"old.{STAMPS[0]}"]]),
        (["export.json"], [["export.json"]]),
        (["notes.txt"], [["notes.txt"]]),
        ([""], [APP, AUDIT, [f"old.{STAMPS[0]}"]]),
        (["*.jsonl"], [AUDIT]),
        (["audit.jsonl*"], [AUDIT]),
        (["audit.jsonl.2*"], [AUDIT[:3]]),
        (["a*"], [APP, AUDIT]),
        (["app.log.?"], [["app.log.1"]]),
        (["app.log.*"], [["app.log.2.gz", "app.log.1"]]),
        (["audit.jsonl", "app.log"], [AUDIT, APP]),
        (["audit.jsonl", "audit.jsonl", "*.jsonl", ""], [AUDIT, APP, [f"old.{STAMPS[0]}"]]),
        ([FILES[2], "audit.jsonl"], [AUDIT]),
        (["audit.jsonl", FILES[2]], [AUDIT]),
        ([FILES[3], FILES[1]], [[FILES[1], FILES[3]]]),
    ],
)
def test_path_selects_its_segments(tmp_path, paths, expected):
    """A path is an active file with its segments, one segment, a pattern, or a folder; nothing is selected twice."""
    touch(tmp_path, *FILES)
    assert names_of(*(tmp_path / path for path in paths)) == expected


@pytest.mark.parametrize("name", ["copy of audit.jsonl", "audit (1).jsonl", "audit-old.jsonl", "audit.jsonl.copy.log"])
@pytest.mark.parametrize("source", ["audit.jsonl", f"audit.jsonl.{STAMPS[0]}"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_copy_beside_a_trail_is_counted_and_not_read(tmp_path, name, source, pack):
    """A copy of a trail or of a segment beside it, by whatever name, is not a trail of its own, and is counted."""
    path = write_trail(tmp_path, (0, line_of(1)), active=line_of(2))
    copied = (tmp_path / ("audit.jsonl.20250115T103000.000000Z" if "Z" in source else source)).read_bytes()
    (tmp_path / name).write_bytes(pack(copied))
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "audit.jsonl").write_bytes(copied)
    (tmp_path / "audit.jsonl.bak").write_bytes(copied)
    for paths in ([tmp_path], [path, tmp_path / name]):
        reader = open_trail(*paths)
        assert reader.count_events() == 2
        assert reader.problems == {"copy": 1}
        assert reader.examples[0].path == str(tmp_path / name)
    assert open_trail(tmp_path / name).count_events() == 1


def test_other_trail_and_trails_without_events_are_not_copies(tmp_path):
    """Trails with other events, empty ones, and files that are not events at all, are not copies."""
    for name, data in {"a": line_of(1), "b": line_of(2), "c": b"", "d": b"", "e": b"text\n", "f": b"text\n"}.items():
        (tmp_path / f"{name}.jsonl").write_bytes(data)
    reader = open_trail(tmp_path)
    assert (reader.count_events(), len(reader.paths)) == (2, 6)
    assert "copy" not in reader.problems


def test_same_events_in_two_folders_are_two_trails(tmp_path):
    """Trails in different folders are different trails, also if one began as a copy of the other."""
    for name in ("a", "b"):
        write_trail(tmp_path / name, active=line_of(1))
    assert open_trail(tmp_path / "a", tmp_path / "b").count_events() == 2


def test_path_may_be_relative_text_or_bytes(tmp_path, monkeypatch):
    """A path may be relative, and text, bytes or a path object."""
    touch(tmp_path, *FILES)
    monkeypatch.chdir(tmp_path)
    assert names_of("audit.jsonl") == names_of(b"audit.jsonl") == names_of("./audit.jsonl") == [AUDIT]
    assert names_of("audit.jsonl", tmp_path / "audit.jsonl") == [AUDIT]


def test_folder_without_trail_selects_export_documents(tmp_path):
    """A folder without a trail stands for the export documents in it."""
    touch(tmp_path, "audit_2.json", "audit_1.json", "notes.txt")
    assert names_of(tmp_path) == [["audit_1.json"], ["audit_2.json"]]


@pytest.mark.parametrize("path", ["nothing.jsonl", "no/such/folder.jsonl", "*.nothing", "empty", "audit.jsonl/x"])
def test_path_without_trail_is_an_error(tmp_path, path):
    """A path without a trail is an error that names the expected kinds of paths."""
    touch(tmp_path, "audit.jsonl")
    touch(tmp_path / "empty", "notes.txt")
    with pytest.raises(AuditReadError, match="expected"):
        find_trails([tmp_path / path])


@pytest.mark.parametrize("path", [5, None, ["a"], io.StringIO, io.StringIO("text")])
def test_wrong_type_of_path_is_an_error(path):
    """A value that is neither a path nor an open binary file is an error that names it."""
    with pytest.raises(AuditTypeError, match="path="):
        find_trails([path])


def test_refused_folder_or_file_is_an_error(tmp_path, monkeypatch):
    """A folder or a file that the system refuses to read is an error that names it."""
    touch(tmp_path, "audit.jsonl")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", "here")

    trail = find_trails([tmp_path / "audit.jsonl"])[0]
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", refuse)
        with pytest.raises(AuditReadError, match=r"cannot be read.*Permission denied"):
            find_trails([tmp_path / "audit.jsonl"])
        with pytest.raises(AuditReadError, match=r"audit\.jsonl.*cannot be read"), trail.segments():
            pass
    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", refuse)
        with pytest.raises(AuditReadError, match="cannot be read"):
            find_trails([tmp_path / "audit.jsonl"])


def test_deleted_trail_is_an_error(tmp_path):
    """A trail that was deleted is an error, also when its folder was deleted with it."""
    touch(tmp_path / "logs", "audit.jsonl")
    trail = find_trails([tmp_path / "logs" / "audit.jsonl"])[0]
    (tmp_path / "logs" / "audit.jsonl").unlink()
    with pytest.raises(AuditReadError, match="no such trail"), trail.segments():
        pass
    (tmp_path / "logs").rmdir()
    with pytest.raises(AuditReadError, match="cannot be read"), trail.segments():
        pass


def test_symbolic_links_are_followed(tmp_path):
    """Reading follows symbolic links to files and to folders."""
    touch(tmp_path / "data", *FILES)
    (tmp_path / "logs").symlink_to(tmp_path / "data")
    (tmp_path / "one.jsonl").symlink_to(tmp_path / "data" / "audit.jsonl")
    assert names_of(tmp_path / "logs" / "audit.jsonl") == [AUDIT]
    assert contents_of(find_trails([tmp_path / "one.jsonl"])[0]) == [b"audit.jsonl\n"]


def test_seekable_stream_is_read_from_its_position_each_time():
    """A seekable stream is read from the position that it had at first, any number of times."""
    file = io.BytesIO(b"abc")
    file.seek(1)
    (stream,) = find_trails([file])
    assert contents_of(stream) == contents_of(stream) == [b"bc"]


def test_pipe_is_read_only_once():
    """A stream that is not seekable is read once; another attempt is an error that states so."""
    reading, writing = os.pipe()
    os.write(writing, b"abc")
    os.close(writing)
    with open(reading, "rb") as pipe:
        (stream,) = find_trails([pipe])
        assert contents_of(stream) == [b"abc"]
        with pytest.raises(AuditReadError, match="only once"), stream.segments():
            pass


def test_named_pipe_is_read_once(tmp_path):
    """A path that is not a regular file, such as that of a process substitution, is read once."""
    os.mkfifo(tmp_path / "pipe")
    (stream,) = find_trails([tmp_path / "pipe"])
    assert isinstance(stream, StreamTrail)
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"abc",))
    writer.start()
    assert contents_of(stream) == [b"abc"]
    writer.join()
    (tmp_path / "pipe").unlink()
    missing = StreamTrail(str(tmp_path / "pipe"))
    with pytest.raises(AuditReadError, match="cannot be read"), missing.segments():
        pass


# --- the set of files while it changes ---------------------------------------------------------------------------------


class Interference:
    """Calls *action* before the *when*-th system call of the reader, and before all later ones if *ever*."""

    CALLS = ("stat", "listdir")

    def __init__(self, monkeypatch, when, action, *, ever=False):
        self.calls, self.when, self.action, self.ever, self.busy = 0, when, action, ever, False
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self.wrapped(getattr(os, name)))
        monkeypatch.setattr(discovery, "open_file", self.wrapped(discovery.open_file))

    def wrapped(self, function):
        def call(*args, **kwargs):
            if not self.busy:
                self.busy = True
                if self.calls == self.when or (self.ever and self.calls >= self.when):
                    self.action()
                self.calls += 1
                self.busy = False
            return function(*args, **kwargs)

        return call


def roll_over(path):
    """Roll the trail at *path* over, as its writer does, and write the next event."""
    now = at(3_600)
    os.rename(path, path.with_name(next_name(path.name, os.listdir(path.parent), now)))
    path.write_bytes(b"after\n")


@pytest.mark.parametrize("rollovers", [1, 2, 3])
@pytest.mark.parametrize("when", range(24))
def test_rollover_while_the_set_is_taken(tmp_path, monkeypatch, when, rollovers):
    """Whenever the trail is rolled over, each existing segment is in the set once and in order."""
    path = write_trail(tmp_path / "logs", (0, b"1\n"), (60, b"2\n"), active=b"3\n")
    (trail,) = find_trails([path])

    def action():
        for _ in range(rollovers):
            roll_over(path)

    Interference(monkeypatch, when, action)
    found = contents_of(trail)
    assert found[:3] == [b"1\n", b"2\n", b"3\n"]
    assert set(found[3:]) <= {b"after\n"}


def test_rollover_at_every_step_of_the_reader(tmp_path, monkeypatch):
    """A trail that is rolled over at every step of the reader is read up to its previous end."""
    path = write_trail(tmp_path / "logs", (0, b"1\n"), active=b"2\n")
    (trail,) = find_trails([path])
    Interference(monkeypatch, 0, lambda: roll_over(path), ever=True)
    assert contents_of(trail)[:2] == [b"1\n", b"2\n"]


def test_active_file_that_always_changes_is_an_error(tmp_path, monkeypatch):
    """An active file that is another one at each check is an error, not a wrong answer."""
    path = write_trail(tmp_path / "logs", (0, b"1\n"), active=b"2\n")
    (trail,) = find_trails([path])
    other = path.with_name("other")

    def action():
        other.write_bytes(b"3\n")
        other.rename(path)

    Interference(monkeypatch, 0, action, ever=True)
    with pytest.raises(AuditReadError, match="again and again"):
        contents_of(trail)


@pytest.mark.parametrize("when", range(16))
def test_compression_while_the_set_is_taken(tmp_path, monkeypatch, when):
    """Whenever a segment is compressed, it is in the set once, and whole."""
    path = write_trail(tmp_path / "logs", (0, b"1\n"), (60, b"2\n"), active=b"3\n")
    (trail,) = find_trails([path])
    segment = path.with_name(next(name for name in sorted(os.listdir(path.parent)) if name != path.name))

    def action():
        segment.with_name(segment.name + ".gz").write_bytes(gzip.compress(segment.read_bytes(), mtime=0))
        segment.unlink()

    Interference(monkeypatch, when, action)
    found = contents_of(trail)
    assert found in ([gzip.compress(b"1\n", mtime=0), b"2\n", b"3\n"], [b"1\n", b"2\n", b"3\n"])


def test_listing_that_misses_a_renamed_file(tmp_path, monkeypatch):
    """A listing during a compression may lack both names of a segment; the segment is in the set once."""
    path = write_trail(tmp_path / "logs", (0, b"1\n"), active=b"2\n")
    (trail,) = find_trails([path])
    segment = next(file for file in path.parent.iterdir() if file != path)
    listdir = os.listdir

    def torn(folder):
        names = listdir(folder)
        if segment.exists():
            segment.rename(segment.with_name(segment.name + ".gz"))
            names.remove(segment.name)
        return names

    monkeypatch.setattr(os, "listdir", torn)
    assert contents_of(trail) == [b"1\n", b"2\n"]


def test_plain_file_is_preferred_to_the_packed_one(tmp_path):
    """While a segment exists plain and packed, the plain file is read: the other may be incomplete."""
    path = write_trail(tmp_path / "logs", (0, b"1\n"), active=b"2\n")
    (trail,) = find_trails([path])
    segment = next(iter(sorted(path.parent.iterdir(), key=lambda file: -len(file.name))))
    for suffix in (".gz", ".zst"):
        segment.with_name(segment.name + suffix).write_bytes(b"half of it")
    assert contents_of(trail) == [b"1\n", b"2\n"]


def test_segment_that_changes_before_it_is_opened(tmp_path):
    """A segment that was packed or unpacked since the set was taken is found; a deleted one is not."""
    path = write_trail(
        tmp_path / "logs", (0, b"1\n"), (60, b"2\n"), (120, b"3\n"), active=b"4\n", packs=["gzip", "plain", "plain"]
    )
    (trail,) = find_trails([path])
    with trail.segments() as segments:
        first, second, third = (path.parent / os.path.basename(segment.path) for segment in segments[:3])
        first.rename(first.with_name(first.name + ".zst"))
        second.rename(second.with_name(second.name + ".gz"))
        third.unlink()
        with segments[1].opened() as file:
            assert file.read() == b"2\n"
        with segments[0].opened() as file:
            assert gzip.decompress(file.read()) == b"1\n"
        with pytest.raises(FileNotFoundError), segments[2].opened():
            pass


def rotate(path, count):
    """Rotate as `logging.handlers.RotatingFileHandler` does, one step at a time."""
    for number in range(count - 1, 0, -1):
        if path.with_name(f"{path.name}.{number}").exists():
            yield os.rename(f"{path}.{number}", f"{path}.{number + 1}")
    yield os.rename(path, f"{path}.1")
    yield path.write_bytes(b"after\n")


@pytest.mark.parametrize("steps", range(1, 9))
@pytest.mark.parametrize("when", range(0, 40, 3))
def test_rotation_while_the_set_is_taken(tmp_path, monkeypatch, when, steps):
    """Whenever numbered files are renamed, also during a rotation, each is in the set once and in order."""
    path = tmp_path / "app.log"
    path.write_bytes(b"4\n")
    for number in (1, 2, 3):
        path.with_name(f"app.log.{number}").write_bytes(b"%d\n" % (4 - number))
    (trail,) = find_trails([path])
    stepping = (step for _ in range(2) for step in rotate(path, 9))

    def action():
        for _ in range(steps):
            next(stepping, None)

    Interference(monkeypatch, when, action)
    found = contents_of(trail)
    assert found[:4] == [b"1\n", b"2\n", b"3\n", b"4\n"]
    assert set(found[4:]) <= {b"after\n"}


@pytest.mark.parametrize("when", range(0, 20, 2))
def test_numbered_file_dropped_while_the_set_is_taken(tmp_path, monkeypatch, when):
    """A file that a rotation drops is read in its order if it was opened before."""
    path = tmp_path / "app.log"
    path.write_bytes(b"3\n")
    for number in (1, 2):
        path.with_name(f"app.log.{number}").write_bytes(b"%d\n" % (3 - number))
    (trail,) = find_trails([path])

    def action():
        os.rename(f"{path}.1", f"{path}.2")
        os.rename(path, f"{path}.1")
        path.write_bytes(b"after\n")

    Interference(monkeypatch, when, action)
    found = contents_of(trail)
    assert [data for data in found if data != b"after\n"] in ([b"1\n", b"2\n", b"3\n"], [b"2\n", b"3\n"])


def test_real_writer_that_rolls_over_while_sets_are_taken(tmp_path):
    """Beside a real writer, every set is a beginning of the trail, without gaps and repetitions."""
    path = tmp_path / "logs" / "audit.jsonl"
    handler = AuditFileHandler(path, maxBytes=300)
    handler.write(line_of(0))
    (trail,) = find_trails([path])
    done = threading.Event()

    def write():
        for number in range(1, 1_500):
            handler.write(line_of(number))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    lines = [line_of(number) for number in range(1_500)]
    sets = 0
    while not done.is_set() or sets == 0:
        data = b"".join(contents_of(trail)).splitlines(keepends=True)
        assert data == lines[: len(data)]
        sets += 1
    writer.join()
    assert b"".join(contents_of(trail)) == b"".join(lines)
    handler.close()
