"""Following: new events, each once, across rollovers and from several writers."""

import io
import json
import logging
import logging.handlers
import os
import threading
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pythonjsonlogger.json import JsonFormatter
from trail_files import PACKS, append, id_of, ids, line_of, pack_segments, roll_over, write_trail

from structlog_audit import AuditFileHandler, AuditHandler, AuditLogger, open_trail
from structlog_audit.query.filters import conditions
from structlog_audit.trail.reading import line_blocks
from structlog_audit.trail.reading.follow import LATE_SEGMENTS, POLL_SECONDS

HEAD = line_of(50, metadata={"_audit": {"entry_ids": "continued in 2 parts"}}, entry_ids=["e1"])
PARTS = [line_of(51, part_of=HEAD, entry_ids=["e2"]), line_of(52, part_of=HEAD, entry_ids=["e3"])]


class Script:
    """Calls one action at each wait, and then stops."""

    def __init__(self, *actions):
        self.actions = list(actions)

    def stop(self):
        return not self.actions

    def wait(self, seconds):
        assert seconds == POLL_SECONDS
        self.actions.pop(0)()


def followed(reader, *actions, **filters):
    """Return the events that are yielded while one of *actions* is called between two polls."""
    script = Script(*actions)
    return list(reader.follow(stop=script.stop, wait=script.wait, **filters))


def appending(path, *data):
    """Return the action of appending *data* to the file at *path*."""
    return partial(append, path, *data)


def rolling(path, second):
    """Return the action of rolling the trail at *path* over."""
    return partial(roll_over, path, second)


def packing(path, pack="gzip"):
    """Return the action of packing the rolled segments of the trail at *path*."""
    return partial(pack_segments, path, pack)


def both(*actions):
    """Return the action of calling all *actions*."""

    def action():
        for one in actions:
            one()

    return action


ONE, TWO, THREE, FOUR = map(line_of, range(1, 5))


def test_follow_since_now_yields_later_events_only(tmp_path):
    """By default only events recorded after the call are yielded, including those recorded before the last poll."""
    path = write_trail(tmp_path, (0, ONE), active=TWO)
    reader = open_trail(path)
    assert followed(reader) == []
    assert ids(followed(reader, appending(path, THREE))) == [id_of(THREE)]


def test_follow_from_the_beginning_yields_all_events(tmp_path):
    """With ``since_now=False`` the existing events come first."""
    path = write_trail(tmp_path, (0, ONE), active=TWO + THREE)
    found = followed(open_trail(path), appending(path, FOUR), since_now=False)
    assert ids(found) == [id_of(line) for line in (ONE, TWO, THREE, FOUR)]


def test_follow_yields_matching_events_only(tmp_path):
    """The filters apply to new events."""
    path = write_trail(tmp_path, (0, ONE), active=TWO)
    more = [line_of(9, user_id="ann"), line_of(10, kind="gap"), line_of(11, user_id="bob")]
    assert ids(followed(open_trail(path), appending(path, *more), user_id="ann")) == [id_of(more[0])]


def test_event_is_yielded_at_the_next_poll(tmp_path):
    """An event is yielded at the poll after it was recorded, not at the end."""
    path = write_trail(tmp_path, active=b"")
    yielded = []
    counts = []

    def wait(seconds):
        counts.append(len(yielded))
        appending(path, line_of(len(counts)))()

    yielded.extend(open_trail(path).follow(stop=lambda: len(counts) == 3, wait=wait))
    assert counts == [0, 1, 2]
    assert len(yielded) == 3


@pytest.mark.parametrize("cut", [1, 40, len(ONE) - 1])
def test_half_written_line_waits_for_its_lf(tmp_path, cut):
    """A line is yielded when its LF is there, and is not a finding before."""
    path = write_trail(tmp_path, active=b"")
    reader = open_trail(path)
    found = followed(reader, appending(path, ONE, TWO[:cut]), appending(path, TWO[cut:]))
    assert ids(found) == [id_of(ONE), id_of(TWO)]
    assert reader.problems == {}


@pytest.mark.parametrize("cut", [len(HEAD) + 20, len(HEAD + PARTS[0]), len(HEAD + PARTS[0]) + 20])
def test_event_waits_for_its_parts(tmp_path, cut):
    """An event is yielded when all of its parts are there."""
    path = write_trail(tmp_path, active=ONE)
    data = HEAD + b"".join(PARTS)
    reader = open_trail(path)
    found = followed(reader, appending(path, data[:cut]), appending(path, data[cut:], TWO))
    assert [event.entry_ids for event in found] == [["e1", "e2", "e3"], []]
    assert reader.problems == {}


def test_damage_is_counted_once_over_several_polls(tmp_path):
    """Damage is counted once, whatever the number of polls."""
    path = write_trail(tmp_path, active=ONE)
    reader = open_trail(path)
    found = followed(reader, appending(path, b"junk\n", TWO[:40], b"\n", THREE), appending(path, FOUR))
    assert ids(found) == [id_of(THREE), id_of(FOUR)]
    assert reader.problems == {"foreign": 1, "torn": 1}


def test_events_around_rollovers_come_once(tmp_path):
    """Events before, between and after rollovers come once, also with several rollovers between two polls."""
    path = write_trail(tmp_path, active=ONE)
    found = followed(
        open_trail(path),
        both(appending(path, TWO), rolling(path, 10), appending(path, THREE)),
        both(rolling(path, 11), rolling(path, 12), appending(path, FOUR), rolling(path, 13)),
        both(appending(path, line_of(5))),
    )
    assert ids(found) == [id_of(line) for line in (TWO, THREE, FOUR, line_of(5))]


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_segment_packed_between_two_polls(tmp_path, how):
    """Events of a segment that was rolled over and packed before a poll are yielded, each once."""
    path = write_trail(tmp_path, (0, line_of(0)), active=ONE)
    found = followed(
        open_trail(path),
        appending(path, TWO),
        both(appending(path, THREE), rolling(path, 10), appending(path, FOUR), rolling(path, 11), packing(path, how)),
        appending(path, line_of(5)),
        packing(path, how),
    )
    assert ids(found) == [id_of(line) for line in (TWO, THREE, FOUR, line_of(5))]


def test_late_line_in_a_rolled_segment_is_yielded(tmp_path):
    """A line that another process writes into a segment after its rollover is yielded."""
    path = write_trail(tmp_path, active=ONE)
    late = [path.open("ab", buffering=0)]

    def roll(second):
        return both(rolling(path, second), lambda: late.append(path.open("ab", buffering=0)))

    found = followed(
        open_trail(path),
        roll(10),
        lambda: late[0].write(TWO),
        both(appending(path, THREE), roll(11)),
        lambda: late[1].write(FOUR),
        lambda: late[0].write(line_of(5)),
    )
    for file in late:
        file.close()
    assert sorted(ids(found)) == [id_of(line) for line in (TWO, THREE, FOUR, line_of(5))]


def test_more_rollovers_than_late_segments(tmp_path):
    """Whatever the number of segments before and between two polls, each event is yielded once."""
    before = [(number, line_of(number)) for number in range(2 * LATE_SEGMENTS)]
    path = write_trail(tmp_path, *before, active=b"")
    many = [both(appending(path, line_of(1_000 + n)), rolling(path, 1_000 + n)) for n in range(3 * LATE_SEGMENTS)]
    found = followed(open_trail(path), both(*many), appending(path, line_of(2_000)))
    assert ids(found) == [id_of(line_of(number)) for number in [*range(1_000, 1_000 + 3 * LATE_SEGMENTS), 2_000]]
    assert len(followed(open_trail(path), since_now=False)) == 5 * LATE_SEGMENTS + 1


def test_truncated_or_replaced_file_is_followed(tmp_path):
    """After a copytruncate, or with another file in its place, following continues with the present content."""
    path = write_trail(tmp_path, active=ONE + TWO)
    found = followed(
        open_trail(path),
        both(lambda: os.truncate(path, 0), appending(path, THREE)),
        both(path.unlink, appending(path, FOUR)),
    )
    assert ids(found) == [id_of(THREE), id_of(FOUR)]


def test_rotated_numbered_files_are_followed(tmp_path):
    """The rotation of a RotatingFileHandler is followed as well."""
    path = tmp_path / "app.log"
    target = logging.handlers.RotatingFileHandler(path, maxBytes=1_000, backupCount=30)
    target.setFormatter(JsonFormatter("%(levelname)s %(message)s"))
    handler = AuditHandler(target=target)

    def record(count):
        def action():
            for _ in range(count):
                handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, "STORE", (), None))

        return action

    record(5)()
    found = followed(open_trail(path), record(1), record(12), record(0), record(20), record(1))
    assert ids(found) == ids(handler.iter_events())[5:]
    handler.close()


def test_several_trails_are_merged_poll_by_poll(tmp_path):
    """New events of several trails are merged by time within each poll."""
    paths = [write_trail(tmp_path / name, active=line_of(0)) for name in "ab"]
    found = followed(
        open_trail(*paths),
        both(appending(paths[0], TWO), appending(paths[1], ONE, THREE)),
        appending(paths[0], FOUR),
    )
    assert ids(found) == [id_of(line) for line in (ONE, TWO, THREE, FOUR)]


def test_stream_is_followed_to_its_end():
    """A stream is followed line by line and ends at its end."""
    reading, writing = os.pipe()
    os.write(writing, ONE + TWO[:30])
    with open(reading, "rb") as file:
        events = open_trail(file).follow(stop=lambda: False, wait=pytest.fail)
        assert next(events).event_id == id_of(ONE)
        os.write(writing, TWO[30:])
        assert next(events).event_id == id_of(TWO)
        os.write(writing, THREE[:-1])
        os.close(writing)
        assert ids(events) == [id_of(THREE)]


def test_stream_of_one_line_without_lf_is_followed():
    """The only line of a stream is an event without its LF, too."""
    assert ids(open_trail(io.BytesIO(ONE[:-1])).follow(stop=lambda: False, wait=pytest.fail)) == [id_of(ONE)]


def test_end_of_a_stream_does_not_end_a_followed_file(tmp_path):
    """Where a file is followed with a stream, following continues after the end of the stream."""
    path = write_trail(tmp_path, active=b"")
    found = followed(open_trail(io.BytesIO(ONE), path), appending(path, TWO))
    assert ids(found) == [id_of(ONE), id_of(TWO)]


actions = st.lists(st.sampled_from(["poll", "append", "half", "roll", "gzip", "zstd", "junk", "parts"]), max_size=40)


@settings(max_examples=100)
@given(actions=actions, since_now=st.booleans(), block=st.sampled_from([100, 65_536]))
def test_any_actions_between_two_polls(tmp_path_factory, actions, since_now, block):
    """For all sequences of polls, appends, half lines, rollovers and compressions: each event once, in order."""
    path = write_trail(tmp_path_factory.mktemp("trail"), (0, ONE), active=TWO)
    expected = [] if since_now else [id_of(ONE), id_of(TWO)]
    open_line, steps, now = b"", [], []
    for number, action in enumerate(actions, 100):
        line = line_of(number)
        if action == "poll":
            steps.append(both(*now))
            now = []
        elif action == "append" or (action == "half" and open_line):
            now.append(appending(path, open_line, line))
            expected.append(id_of(line))
            open_line = b""
        elif action == "half":
            open_line = line[50:]
            expected.append(id_of(line))
            now.append(appending(path, line[:50]))
        elif action == "junk" and not open_line:
            now.append(appending(path, b"junk\n\n"))
        elif action == "parts" and not open_line:
            head = line_of(number, metadata={"_audit": {"entry_ids": "continued in 1 parts"}})
            now.append(appending(path, head, line_of(10_000 + number, part_of=head)))
            expected.append(id_of(head))
        elif action == "roll" and not open_line:
            now.append(rolling(path, number))
        elif action in PACKS:
            now.append(packing(path, action))
    now.append(appending(path, open_line))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_blocks, "BLOCK_BYTES", block)
        reader = open_trail(path)
        assert ids(followed(reader, *steps, both(*now), since_now=since_now)) == expected
    assert set(reader.problems) <= {"foreign"}


def test_follow_beside_real_writers(tmp_path):
    """Beside several real writers that roll over constantly, each event is yielded once."""
    path = tmp_path / "audit.jsonl"
    handlers = [AuditHandler(target=AuditFileHandler(path, maxBytes=3_000)) for _ in range(3)]
    done = []

    def write(handler, number):
        for count in range(400):
            record = logging.LogRecord("audit", logging.INFO, "", 0, "STORE", (), None)
            record.__dict__["entry_ids"] = [f"{number}/{count}"]
            handler.handle(record)
        done.append(number)

    threads = [threading.Thread(target=write, args=drawn) for drawn in zip(handlers, range(3), strict=True)]
    events = open_trail(path).follow(stop=lambda: len(done) == 3, wait=lambda seconds: None)
    for thread in threads:
        thread.start()
    found = [event.entry_ids[0] for event in events]
    for thread in threads:
        thread.join()
    for handler in handlers:
        handler.close()
    assert sorted(found) == sorted(f"{number}/{count}" for number in range(3) for count in range(400))
    assert len(os.listdir(tmp_path)) > 20
    assert json.loads(path.read_bytes().splitlines()[-1])["operation"] == "closed"


def test_follow_matching_takes_ready_made_conditions(tmp_path):
    """Following with ready-made conditions yields the stored events that following with the same filters yields."""
    with AuditLogger(filename=tmp_path / "audit.jsonl") as logger:
        logger.record("STORE", "ann")
        logger.record("STORE", "bob")
    reader = open_trail(tmp_path / "audit.jsonl")
    options = {"since_now": False, "stop": lambda: True, "wait": pytest.fail}
    stored = reader.follow_matching(conditions(user_id="ann"), **options)
    assert [each.event() for each in stored] == list(reader.follow(user_id="ann", **options)) != []
