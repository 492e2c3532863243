"""What nobody wants to find in a folder: a clear error, or a counted finding and all the rest; nothing takes it all down."""

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

NOBODY = 65_534


@contextmanager
def as_somebody_else():
    """With no more rights than others have: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that others may look into; those of pytest are closed to them."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_folder_that_may_not_be_listed(open_folder):
    """It is an error that names the path, at once and at a later question."""
    path = write_trail(open_folder / "logs", (9, ONE), active=TWO)
    reader = open_trail(path)
    assert reader.count_events() == 2
    path.parent.chmod(0o111)
    try:
        with as_somebody_else():
            for ask in (reader.count_events, lambda: open_trail(path), lambda: open_trail(path.parent)):
                with pytest.raises(AuditReadError, match=r"logs.*cannot be read.*Permission denied"):
                    ask()
    finally:
        path.parent.chmod(0o755)


def test_a_segment_that_may_not_be_read(open_folder):
    """A rolled segment that is refused is counted, and the others are read; an active one that is refused is an error."""
    path = write_trail(open_folder / "logs", (8, ONE), (9, TWO), active=THREE)
    path.parent.chmod(0o755)
    oldest = min(path.parent.glob("*Z"))
    for file in path.parent.iterdir():
        file.chmod(0o644)
    oldest.chmod(0)
    with as_somebody_else():
        reader = open_trail(path)
        assert ids(reader.iter_events()) == [id_of(TWO), id_of(THREE)]
    assert reader.problems == {"unreadable": 1}
    assert reader.examples[0].path == str(oldest)
    path.chmod(0)
    with as_somebody_else(), pytest.raises(AuditReadError, match=r"audit\.jsonl.*cannot be read"):
        reader.count_events()


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n \n"])
@pytest.mark.parametrize("pack", list(PACKS))
def test_a_trail_without_events(tmp_path, data, pack):
    """It answers every question with nothing, and nothing is wrong with it."""
    reader = open_trail(write_trail(tmp_path, (9, data), active=b"", packs=[pack]))
    assert reader.query_events() == list(reader.iter_events()) == reader.page().events == []
    assert reader.get_statistics()["total_events"] == 0
    assert list(reader.follow(since_now=False, stop=lambda: True, wait=pytest.fail)) == []
    assert reader.complete_since is None
    assert reader.problems == {}


def test_lines_of_a_later_version(tmp_path):
    """Members that are not known are passed over, a kind that is not known is no ordinary event, a status is set aside."""
    members = line_of(1).replace(b'"operation"', b'"writer":"w1","seq":7,"later":{"a":[1]},"operation"')
    path = write_trail(tmp_path, active=members + line_of(2, kind="seal") + line_of(3, status="DEFERRED") + line_of(4))
    reader = open_trail(path)
    assert ids(reader.iter_events()) == [id_of(line_of(number)) for number in (1, 3, 4)]
    assert reader.get_event(id_of(line_of(3))).metadata["status"] == "DEFERRED"
    assert reader.problems == {"drift": 1}


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_a_bomb(tmp_path, pack):
    """A small file that unpacks to one endless line is one finding, little memory, and no end to what comes after."""
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
def test_a_truncated_segment_between_others(tmp_path, newest_first):
    """A packed segment that was cut off gives what is whole in it; the segments around it are read."""
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
def test_a_folder_that_goes_away_in_the_middle_of_an_answer(tmp_path, newest_first):
    """What was open is read to its end, each segment that went is counted; the next question is an error."""
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
