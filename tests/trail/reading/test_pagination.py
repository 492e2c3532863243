"""Pages: cursors that stay valid while the trail grows."""

import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trail_files import PACKS, append, at, id_of, ids, line_of, pack_segments, roll_over, write_trail

from structlog_audit import AuditReadError, AuditTypeError, AuditValueError, open_trail
from structlog_audit.trail.reading import line_blocks, pagination
from structlog_audit.trail.reading.discovery import Segment, find_trails
from structlog_audit.trail.reading.pagination import Position

EVENTS = [line_of(number) for number in range(12)]


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_contain_every_event_once(tmp_path, newest_first):
    """The pages contain every event once and in order, and the last one has no cursor."""
    path = write_trail(tmp_path, (3, b"".join(EVENTS[:5])), (6, EVENTS[5]), active=b"".join(EVENTS[6:]))
    reader, cursor, sizes, found = open_trail(path), None, [], []
    while cursor is not None or not sizes:
        page = reader.page(cursor, limit=5, newest_first=newest_first)
        sizes.append(len(page.events))
        found += ids(page.events)
        cursor = page.cursor
    assert found == [id_of(line) for line in (EVENTS[::-1] if newest_first else EVENTS)]
    assert sizes == [5, 5, 2]
    assert reader.page(limit=12, newest_first=newest_first).cursor is None


def test_cursor_is_opaque_and_safe_in_a_url(tmp_path):
    """A cursor is short, has only characters that are safe in a URL, and shows nothing of an event."""
    paths = [write_trail(tmp_path / name, active=b"".join(EVENTS)) for name in "ab"]
    cursor = open_trail(*paths).page(limit=1).cursor
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,150}", cursor)


def test_trail_without_events_has_one_empty_page(tmp_path):
    """A trail without events has one page, which is empty."""
    path = write_trail(tmp_path, (3, b""), active=b"")
    for newest_first in (False, True):
        page = open_trail(path).page(newest_first=newest_first)
        assert (page.events, page.cursor) == ([], None)


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("how", ["gzip", "zstd", "plain"])
def test_cursor_survives_rollover_packing_and_appends(tmp_path, how, newest_first):
    """Between two pages the trail is rolled over, packed and written to, and read by another process: each event once."""
    path = write_trail(tmp_path, (3, b"".join(EVENTS[:5])), active=b"".join(EVENTS[5:]))
    found, cursor, number, done = [], None, 0, False
    while not done:
        page = open_trail(path).page(cursor, limit=1, newest_first=newest_first)
        found += ids(page.events)
        cursor, done = page.cursor, page.cursor is None
        if number < 4:
            roll_over(path, 100 + number)
            pack_segments(path, how)
            append(path, line_of(100 + number))
        number += 1
    new = [line_of(100 + number) for number in range(4)]
    expected = EVENTS[::-1] if newest_first else [*EVENTS, *new]
    assert found == [id_of(line) for line in expected]


def test_newest_first_pages_exclude_later_events(tmp_path):
    """With the newest first, events recorded after the first page are on no later page, also after a rollover."""
    first = write_trail(tmp_path / "a", active=b"".join(EVENTS[:4]) + line_of(59)[:30])
    second = write_trail(tmp_path / "b", active=b"")
    third = write_trail(tmp_path / "c", active=line_of(50)[:-2])
    reader = open_trail(first, second, third)
    page = reader.page(limit=1, newest_first=True)
    found = ids(page.events)
    append(first, line_of(59)[30:], line_of(60))
    append(second, line_of(61))
    append(third, line_of(50)[-2:])
    roll_over(first, 100)
    while page.cursor is not None:
        page = reader.page(page.cursor, limit=1, newest_first=True)
        found += ids(page.events)
    assert found == [id_of(line) for line in EVENTS[3::-1]]
    assert "torn" not in reader.problems


@pytest.mark.parametrize("newest_first", [False, True])
def test_segment_deleted_between_two_pages(tmp_path, newest_first):
    """With the oldest first, the next page begins with the remaining events; with the newest first, nothing is left."""
    path = write_trail(tmp_path, (3, b"".join(EVENTS[:4])), (6, b"".join(EVENTS[4:8])), active=b"".join(EVENTS[8:]))
    reader = open_trail(path)
    page = reader.page(limit=2 if not newest_first else 10, newest_first=newest_first)
    for segment in sorted(tmp_path.iterdir())[1 : 2 if newest_first else 3]:
        segment.unlink()
    page = reader.page(page.cursor, limit=100, newest_first=newest_first)
    assert ids(page.events) == ([] if newest_first else [id_of(line) for line in EVENTS[8:]])
    assert page.cursor is None
    assert reader.problems == ({} if newest_first else {"vanished": 1})


def test_pages_contain_matching_events_only(tmp_path):
    """Pages contain the events that match, also with a time range."""
    hours = [
        b"".join(line_of(60 * hour + n, 3_600 * hour + 60 * n, user_id=f"u{n % 3}") for n in range(60))
        for hour in range(4)
    ]
    path = write_trail(tmp_path, *((3_600 * (hour + 1), data) for hour, data in enumerate(hours[:3])), active=hours[3])
    reader = open_trail(path)
    filters = {"user_id": "u1", "start_time": at(3_600), "end_time": at(7_200)}
    for newest_first in (False, True):
        found, cursor = [], None
        while True:
            page = reader.page(cursor, limit=7, newest_first=newest_first, **filters)
            found += page.events
            cursor = page.cursor
            if cursor is None:
                break
        assert found == reader.query_events(newest_first=newest_first, **filters)
        assert len(found) == 20


@pytest.mark.parametrize(
    ("cursor", "error"),
    [
        (5, AuditTypeError),
        (b"abc", AuditTypeError),
        ("", AuditValueError),
        ("%", AuditValueError),
        ("é", AuditValueError),
        ("abc", AuditValueError),
        ("AAAA", AuditValueError),
        ("kA", AuditValueError),
    ],
)
def test_value_that_is_not_a_cursor_is_an_error(tmp_path, cursor, error):
    """A value that is not the cursor of a page is an error, not the first page."""
    with pytest.raises(error, match="cursor="):
        open_trail(write_trail(tmp_path, active=EVENTS[0])).page(cursor)


def test_cursor_of_another_order_or_trail_is_an_error(tmp_path):
    """A cursor of the other order, or of other trails, is an error."""
    path, other = (write_trail(tmp_path / name, active=b"".join(EVENTS)) for name in "ab")
    cursor = open_trail(path).page(limit=1).cursor
    for reader, newest_first in ((open_trail(path), True), (open_trail(path, other), False)):
        with pytest.raises(AuditValueError, match="cursor="):
            reader.page(cursor, newest_first=newest_first)


def test_trail_deleted_between_two_pages_is_an_error(tmp_path):
    """A trail that was deleted is an error, not an end."""
    path = write_trail(tmp_path, active=b"".join(EVENTS))
    reader = open_trail(path)
    cursor = reader.page(limit=1).cursor
    path.unlink()
    with pytest.raises(AuditReadError):
        reader.page(cursor)


def test_deleted_segment_is_found_once_for_each_position(tmp_path):
    """The finding names the trail and the offset of the next page, and is counted once however often that is requested."""
    path = write_trail(tmp_path, (3, b"".join(EVENTS[:4])), active=b"".join(EVENTS[4:]))
    reader = open_trail(path)
    cursor = reader.page(limit=2).cursor
    rolled = next(segment for segment in tmp_path.iterdir() if segment != path)
    rolled.unlink()
    for _ in range(3):
        assert ids(reader.page(cursor, limit=2).events) == [id_of(line) for line in EVENTS[4:6]]
    (example,) = reader.examples
    offset = len(EVENTS[0] + EVENTS[1])
    assert tuple(example) == ("vanished", str(path), offset, "deleted between two pages")


@pytest.mark.parametrize("pack", PACKS)
def test_only_segments_after_a_deleted_one_are_left(tmp_path, pack):
    """If the segment of a cursor was deleted, the next page begins with the segments rolled over after it."""
    parts = [b"".join(EVENTS[start : start + 3]) for start in range(0, 12, 3)]
    path = write_trail(tmp_path, (3, parts[0]), (6, parts[1]), (9, parts[2]), active=parts[3], packs=[pack] * 3)
    reader = open_trail(path)
    cursor = reader.page(limit=4).cursor
    sorted(tmp_path.iterdir())[2].unlink()
    page = reader.page(cursor, limit=4)
    assert ids(page.events) == [id_of(line) for line in EVENTS[6:10]]
    assert ids(reader.page(page.cursor, limit=4).events) == [id_of(line) for line in EVENTS[10:]]


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_of_several_trails_are_in_one_order(tmp_path, newest_first):
    """Pages of several trails have all events by time; equal times have the order of the trails, or its reverse."""
    lines = [[line_of(100 * trail + number, number) for number in range(4)] for trail in range(3)]
    paths = [write_trail(tmp_path / f"t{trail}", active=b"".join(lines[trail])) for trail in range(3)]
    expected = [id_of(lines[trail][number]) for number in range(4) for trail in range(3)]
    for limit in (1, 2, 5, 12):
        reader, cursor, found, sizes = open_trail(*paths), None, [], []
        while cursor is not None or not found:
            page = reader.page(cursor, limit=limit, newest_first=newest_first)
            found += ids(page.events)
            sizes.append(len(page.events))
            cursor = page.cursor
        assert found == (expected[::-1] if newest_first else expected)
        assert sizes == [limit] * (12 // limit) + [12 % limit] * bool(12 % limit)


def test_stream_has_no_pages():
    """The error for a stream says what to do instead."""
    with pytest.raises(AuditReadError, match="a stream has no pages: save it to a file"):
        open_trail(io.BytesIO(EVENTS[0])).page()


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_pass_over_a_segment_that_cannot_be_opened(tmp_path, monkeypatch, newest_first):
    """A segment that the system refuses is counted, and the pages have the events of all others."""
    path = write_trail(tmp_path, (3, b"".join(EVENTS[:4])), (6, b"".join(EVENTS[4:8])), active=b"".join(EVENTS[8:]))
    refused = sorted(tmp_path.iterdir())[2]
    real = Segment.opened

    def opened(segment):
        if segment.path == str(refused):
            raise PermissionError(13, "Permission denied")
        return real(segment)

    monkeypatch.setattr(Segment, "opened", opened)
    reader = open_trail(path)
    expected = [id_of(line) for line in [*EVENTS[:4], *EVENTS[8:]]]
    assert ids(reader.page(limit=20, newest_first=newest_first).events) == (
        expected[::-1] if newest_first else expected
    )
    assert reader.problems == {"unreadable": 1}


def test_every_offset_survives_in_a_cursor(tmp_path):
    """A cursor of any segment and offset gives its position back, whatever characters it ends with."""
    trails = find_trails([write_trail(tmp_path, active=EVENTS[0])])
    for offset in range(3_000):
        position = Position(f"segment{offset}", offset, at(offset))
        cursor = pagination._encode_cursor(pagination._Cursor(False, [position]))
        assert pagination._decode_cursor(cursor, trails, False) == [position]


actions = st.lists(st.sampled_from(["page", "append", "roll", "gzip", "zstd", "junk"]), max_size=30)


@settings(max_examples=80)
@given(actions=actions, limit=st.integers(1, 4), newest_first=st.booleans(), block=st.sampled_from([100, 65_536]))
def test_any_actions_between_two_pages(tmp_path_factory, actions, limit, newest_first, block):
    """For all sequences of pages, appends, rollovers and compressions: each event that existed comes once and in order."""
    path = write_trail(tmp_path_factory.mktemp("trail"), active=b"".join(EVENTS))
    number, found, cursor, ended = 100, [], None, False
    written = list(EVENTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_blocks, "BLOCK_BYTES", block)
        for action in [*actions, *["page"] * 50]:
            number += 1
            if action == "page" and not ended:
                page = open_trail(path).page(cursor, limit=limit, newest_first=newest_first)
                found += ids(page.events)
                cursor, ended = page.cursor, page.cursor is None
                if not found or cursor is None:
                    continue
            elif action == "append" and not ended:
                append(path, line_of(number))
                if not (newest_first and found):
                    written.append(line_of(number))
            elif action == "junk":
                append(path, b"junk\n\n")
            elif action == "roll":
                roll_over(path, number)
            elif action in PACKS:
                pack_segments(path, action)
    assert ended
    assert found == [id_of(line) for line in (written[::-1] if newest_first else written)]


def test_page_reads_only_its_part_of_the_trail(tmp_path, monkeypatch):
    """A page from the middle of a plain trail reads neither the events before it nor those far behind it."""
    data = b"".join(map(line_of, range(20_000)))
    path = write_trail(tmp_path, active=data)
    reader = open_trail(path)
    for newest_first in (False, True):
        cursor = reader.page(limit=10_000, newest_first=newest_first).cursor
        other = open_trail(path)
        assert len(other.page(cursor, limit=10, newest_first=newest_first).events) == 10
        spans = next(iter(other._scanner.problems._checked.values()))
        assert sum(stop - start for start, stop in spans) < 3 * line_blocks.BLOCK_BYTES


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_of_copied_numbered_files_end(tmp_path, newest_first):
    """Files that begin with the same line are told apart: the pages have all that is in them, and end."""
    lines = [line_of(number) for number in range(3)]
    for copy, name in enumerate(["audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"]):
        (tmp_path / name).write_bytes(b"".join([*lines, line_of(10 + copy)]))
    reader, cursor, found = open_trail(tmp_path / "audit.jsonl"), None, []
    for _ in range(13):
        page = reader.page(cursor, limit=1, newest_first=newest_first)
        found += ids(page.events)
        cursor = page.cursor
        if cursor is None:
            break
    assert cursor is None
    expected = [id_of(line) for copy in range(3) for line in [*lines, line_of(10 + copy)]]
    assert found == (expected[::-1] if newest_first else expected)


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_of_trails_with_the_same_events_end(tmp_path, newest_first):
    """Two trails with the same ids have each event on as many pages as there are trails."""
    paths = [write_trail(tmp_path / name, active=b"".join(EVENTS[:4])) for name in "ab"]
    reader, cursor, found = open_trail(*paths), None, []
    for _ in range(8):
        page = reader.page(cursor, limit=1, newest_first=newest_first)
        found += page.events
        cursor = page.cursor
    assert cursor is None
    assert found == reader.query_events(newest_first=newest_first)
