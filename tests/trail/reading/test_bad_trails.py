"""Damaged and unreadable trails: a clear error, or a counted finding and all other events."""

import gzip
import os
import shutil
import tempfile
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import pytest
from trail_files import PACKS, id_of, ids, line_of, write_trail

from structlog_audit import AuditReadError, open_trail
from structlog_audit.query.filters import conditions
from structlog_audit.trail.reading import line_blocks

ONE, TWO, THREE = line_of(1), line_of(2), line_of(3)

UNPRIVILEGED_USER = 65_534


@contextmanager
def as_unprivileged_user():
    """Drop the rights of root, which may read everything, for the duration of a ``with`` block."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(UNPRIVILEGED_USER)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def public_folder():
    """A folder that other users may enter, unlike the temporary folders of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_folder_without_permission_is_an_error(public_folder):
    """A folder that cannot be listed is an error that names the path, at once and at a later query."""
    path = write_trail(public_folder / "logs", (9, ONE), active=TWO)
    reader = open_trail(path)
    assert reader.count_events() == 2
    path.parent.chmod(0o111)
    try:
        with as_unprivileged_user():
            for query in (reader.count_events, lambda: open_trail(path), lambda: open_trail(path.parent)):
                with pytest.raises(AuditReadError, match=r"logs.*cannot be read.*Permission denied"):
                    query()
    finally:
        path.parent.chmod(0o755)


def test_segment_without_permission_is_counted(public_folder):
    """A rolled segment that cannot be read is counted, and the others are read; for the active segment it is an error."""
    path = write_trail(public_folder / "logs", (8, ONE), (9, TWO), active=THREE)
    path.parent.chmod(0o755)
    oldest = min(path.parent.glob("*Z"))
    for file in path.parent.iterdir():
        file.chmod(0o644)
    oldest.chmod(0)
    with as_unprivileged_user():
        reader = open_trail(path)
        assert ids(reader.iter_events()) == [id_of(TWO), id_of(THREE)]
    assert reader.problems == {"unreadable": 1}
    assert reader.examples[0].path == str(oldest)
    path.chmod(0)
    with as_unprivileged_user(), pytest.raises(AuditReadError, match=r"audit\.jsonl.*cannot be read"):
        reader.count_events()


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n \n"])
@pytest.mark.parametrize("pack", list(PACKS))
def test_trail_without_events_gives_empty_answers(tmp_path, data, pack):
    """A trail without events gives empty answers and has no findings."""
    reader = open_trail(write_trail(tmp_path, (9, data), active=b"", packs=[pack]))
    assert reader.query_events() == list(reader.iter_events()) == reader.page().events == []
    assert reader.get_statistics()["total_events"] == 0
    assert list(reader.follow(since_now=False, stop=lambda: True, wait=pytest.fail)) == []
    assert reader.complete_since is None
    assert reader.problems == {}


def test_lines_of_a_later_version_are_read(tmp_path):
    """Unknown members, an unknown kind and an unknown status are moved to the metadata, and counted."""
    members = line_of(1).replace(b'"operation"', b'"writer":"w1","seq":7,"later":{"a":[1]},"operation"')
    path = write_trail(tmp_path, active=members + line_of(2, kind="seal") + line_of(3, status="DEFERRED") + line_of(4))
    reader = open_trail(path)
    assert ids(reader.iter_events()) == [id_of(line_of(number)) for number in (1, 2, 3, 4)]
    assert reader.get_event(id_of(line_of(1))).metadata == {"writer": "w1", "seq": 7, "later": {"a": [1]}}
    assert reader.get_event(id_of(line_of(2))).metadata == {"kind": "seal"}
    assert reader.get_event(id_of(line_of(3))).metadata["status"] == "DEFERRED"
    assert reader.problems == {"drift": 3}


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_endless_packed_line_is_one_finding(tmp_path, pack):
    """A small file that unpacks to one endless line is one finding; memory stays bounded, and later lines are read."""
    bomb = PACKS[pack](ONE + b'{"event_id":"' + b"x" * 40_000_000 + b"\n" + TWO)
    path = write_trail(tmp_path, (9, bomb), active=THREE)
    assert len(bomb) < 200_000
    reader = open_trail(path)
    tracemalloc.start()
    try:
        assert ids(reader.query_events(newest_first=False)) == [id_of(ONE), id_of(TWO), id_of(THREE)]
        assert tracemalloc.get_traced_memory()[1] < 4 * line_blocks.MAX_LINE_BYTES
    finally:
        tracemalloc.stop()
    assert reader.problems == {"too_long": 1}


@pytest.mark.parametrize("newest_first", [True, False])
def test_truncated_segment_keeps_its_whole_events(tmp_path, newest_first):
    """A truncated packed segment gives its whole events, and the segments around it are read."""
    numbers = range(10, 1_000)
    path = write_trail(tmp_path, (9, ONE), (2_000, b""), active=line_of(3_000))
    segment = max(tmp_path.glob("*Z"))
    segment.write_bytes(gzip.compress(b"".join(map(line_of, numbers)))[:-500])
    reader = open_trail(path)
    found = ids(reader.query_events(newest_first=newest_first))
    whole = [id_of(line_of(number)) for number in numbers]
    expected = [id_of(ONE), *whole[: len(found) - 2], id_of(line_of(3_000))]
    assert 10 < len(found) < len(whole)
    assert found == (expected[::-1] if newest_first else expected)
    assert reader.problems["truncated"] == 1
    assert reader.problems.keys() <= {"truncated", "torn"}


@pytest.mark.parametrize("newest_first", [True, False])
def test_folder_deleted_during_a_query(tmp_path, newest_first):
    """An open segment is read to its end and each deleted one is counted; the next query is an error."""
    path = write_trail(tmp_path / "logs", (8, ONE), (9, TWO), active=THREE)
    reader = open_trail(path)
    found = reader.select(conditions(), newest_first=newest_first)
    first = next(found)
    shutil.rmtree(path.parent)
    rest = [event.event_id for event in found]
    assert [first.event_id, *rest] == ([id_of(THREE)] if newest_first else [id_of(ONE), id_of(THREE)])
    assert reader.problems == {"vanished": 2 if newest_first else 1}
    with pytest.raises(AuditReadError, match=r"logs.*cannot be read"):
        reader.count_events()
    with pytest.raises(AuditReadError):
        open_trail(path)
