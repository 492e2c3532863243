"""Following: what comes, each event once, across rollovers and from many writers."""

import io
import json
import logging
import logging.handlers
import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pythonjsonlogger.json import JsonFormatter
from trail_files import PACKS, at, id_of, ids, line_of, write_trail

from structlog_audit import AuditFileHandler, AuditHandler, AuditLogger, open_trail
from structlog_audit.query.filters import conditions
from structlog_audit.trail.reading import line_blocks as lines
from structlog_audit.trail.reading.follow import LATE, POLL_SECONDS

HEAD = line_of(50, metadata={"_audit": {"entry_ids": "continued in 2 parts"}}, entry_ids=["e1"])
PARTS = [line_of(51, part_of=HEAD, entry_ids=["e2"]), line_of(52, part_of=HEAD, entry_ids=["e3"])]


class Script:
    """Does one act at each wait, and then says that it is enough."""

    def __init__(self, *acts):
        self.acts = list(acts)

    def stop(self):
        return not self.acts

    def wait(self, seconds):
        assert seconds == POLL_SECONDS
        self.acts.pop(0)()


def followed(reader, *acts, **asked):
    """What is given while *acts* happen, one between every two looks."""
    script = Script(*acts)
    return list(reader.follow(stop=script.stop, wait=script.wait, **asked))


def appending(path, *data):
    def act():
        with path.open("ab") as file:
            file.write(b"".join(data))

    return act


def rolling(path, second):
    def act():
        path.rename(path.with_name(f"{path.name}.{at(second).strftime('%Y%m%dT%H%M%S.%fZ')}"))
        path.write_bytes(b"")

    return act


def packing(path, how="gzip"):
    def act():
        for segment in sorted(path.parent.iterdir()):
            if segment.name.endswith("Z"):
                segment.with_name(segment.name + ".x").write_bytes(PACKS[how](segment.read_bytes()))
                segment.with_name(segment.name + ".x").rename(segment.with_name(segment.name + ".gz"))
                segment.unlink()

    return act


def both(*acts):
    def act():
        for one in acts:
            one()

    return act


ONE, TWO, THREE, FOUR = map(line_of, range(1, 5))


def test_what_comes_from_now_on(tmp_path):
    """From now on, or from the beginning; filters apply, and what was there when told to stop is still given."""
    path = write_trail(tmp_path, (0, ONE), active=TWO)
    reader = open_trail(path)
    assert followed(reader) == []
    assert ids(followed(reader, appending(path, THREE))) == [id_of(THREE)]
    assert ids(followed(reader, appending(path, FOUR), since_now=False)) == [
        id_of(line) for line in (ONE, TWO, THREE, FOUR)
    ]
    more = [line_of(9, user_id="ann"), line_of(10, kind="gap"), line_of(11, user_id="bob")]
    assert ids(followed(reader, appending(path, *more), user_id="ann")) == [id_of(more[0])]


def test_events_are_given_as_they_come(tmp_path):
    """An event is given at the look after it came, not at the end."""
    path = write_trail(tmp_path, active=b"")
    looks = []
    given = []

    def wait(seconds):
        looks.append(len(given))
        appending(path, line_of(len(looks)))()

    given.extend(open_trail(path).follow(stop=lambda: len(looks) == 3, wait=wait))
    assert looks == [0, 1, 2]
    assert len(given) == 3


@pytest.mark.parametrize("cut", [1, 40, len(ONE) - 1])
def test_a_line_that_is_half_written_waits(tmp_path, cut):
    """A line is given when its LF is there, and is no finding before."""
    path = write_trail(tmp_path, active=b"")
    reader = open_trail(path)
    found = followed(reader, appending(path, ONE, TWO[:cut]), appending(path, TWO[cut:]))
    assert ids(found) == [id_of(ONE), id_of(TWO)]
    assert reader.problems == {}


@pytest.mark.parametrize("cut", [len(HEAD) + 20, len(HEAD + PARTS[0]), len(HEAD + PARTS[0]) + 20])
def test_an_event_waits_for_its_parts(tmp_path, cut):
    """An event is given when all of its parts are there."""
    path = write_trail(tmp_path, active=ONE)
    data = HEAD + b"".join(PARTS)
    reader = open_trail(path)
    found = followed(reader, appending(path, data[:cut]), appending(path, data[cut:], TWO))
    assert [event.entry_ids for event in found] == [["e1", "e2", "e3"], []]
    assert reader.problems == {}


def test_torn_and_foreign_lines_are_counted_once(tmp_path):
    """What is wrong is counted once, however often the trail is looked at."""
    path = write_trail(tmp_path, active=ONE)
    reader = open_trail(path)
    found = followed(reader, appending(path, b"junk\n", TWO[:40], b"\n", THREE), appending(path, FOUR))
    assert ids(found) == [id_of(THREE), id_of(FOUR)]
    assert reader.problems == {"foreign": 1, "torn": 1}


def test_rollovers(tmp_path):
    """Events before, between and after rollovers come once, also when several happen between two looks."""
    path = write_trail(tmp_path, active=ONE)
    found = followed(
        open_trail(path),
        both(appending(path, TWO), rolling(path, 10), appending(path, THREE)),
        both(rolling(path, 11), rolling(path, 12), appending(path, FOUR), rolling(path, 13)),
        both(appending(path, line_of(5))),
    )
    assert ids(found) == [id_of(line) for line in (TWO, THREE, FOUR, line_of(5))]


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_segments_that_are_packed_between_two_looks(tmp_path, how):
    """What was not given yet when a segment was rolled over and packed is given, and nothing twice."""
    path = write_trail(tmp_path, (0, line_of(0)), active=ONE)
    found = followed(
        open_trail(path),
        appending(path, TWO),
        both(appending(path, THREE), rolling(path, 10), appending(path, FOUR), rolling(path, 11), packing(path, how)),
        appending(path, line_of(5)),
        packing(path, how),
    )
    assert ids(found) == [id_of(line) for line in (TWO, THREE, FOUR, line_of(5))]


def test_late_writes(tmp_path):
    """What another process writes into a segment that was rolled over already is given."""
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


def test_more_rollovers_than_are_looked_at_again(tmp_path):
    """However many segments there are before, and come between two looks, each event is given once."""
    before = [(number, line_of(number)) for number in range(2 * LATE)]
    path = write_trail(tmp_path, *before, active=b"")
    many = [both(appending(path, line_of(1_000 + n)), rolling(path, 1_000 + n)) for n in range(3 * LATE)]
    found = followed(open_trail(path), both(*many), appending(path, line_of(2_000)))
    assert ids(found) == [id_of(line_of(number)) for number in [*range(1_000, 1_000 + 3 * LATE), 2_000]]
    assert len(followed(open_trail(path), since_now=False)) == 5 * LATE + 1


def test_a_file_that_is_truncated_or_replaced(tmp_path):
    """After a copytruncate, or with another file in its place, following goes on with what is there."""
    path = write_trail(tmp_path, active=ONE + TWO)
    found = followed(
        open_trail(path),
        both(lambda: os.truncate(path, 0), appending(path, THREE)),
        both(path.unlink, appending(path, FOUR)),
    )
    assert ids(found) == [id_of(THREE), id_of(FOUR)]


def test_numbered_files(tmp_path):
    """The rotation of a RotatingFileHandler is followed as well."""
    path = tmp_path / "app.log"
    target = logging.handlers.RotatingFileHandler(path, maxBytes=1_000, backupCount=30)
    target.setFormatter(JsonFormatter("%(levelname)s %(message)s"))
    handler = AuditHandler(target=target)

    def record(count):
        def act():
            for _ in range(count):
                handler.handle(logging.LogRecord("audit", logging.INFO, "", 0, "STORE", (), None))

        return act

    record(5)()
    found = followed(open_trail(path), record(1), record(12), record(0), record(20), record(1))
    assert ids(found) == ids(handler.iter_events())[5:]
    handler.close()


def test_several_trails(tmp_path):
    """What comes in several trails is merged by time, look by look."""
    paths = [write_trail(tmp_path / name, active=line_of(0)) for name in "ab"]
    found = followed(
        open_trail(*paths),
        both(appending(paths[0], TWO), appending(paths[1], ONE, THREE)),
        appending(paths[0], FOUR),
    )
    assert ids(found) == [id_of(line) for line in (ONE, TWO, THREE, FOUR)]


def test_a_stream_is_read_to_its_end(tmp_path):
    """A stream is followed as it comes, line by line, and ends when it ends, unless a file is followed with it."""
    reading, writing = os.pipe()
    os.write(writing, ONE + TWO[:30])
    with open(reading, "rb") as file:
        events = open_trail(file).follow(stop=lambda: False, wait=pytest.fail)
        assert next(events).event_id == id_of(ONE)
        os.write(writing, TWO[30:])
        assert next(events).event_id == id_of(TWO)
        os.write(writing, THREE[:-1])
        os.close(writing)
        assert list(events) == []
    path = write_trail(tmp_path, active=b"")
    found = followed(open_trail(io.BytesIO(ONE), path), appending(path, TWO))
    assert ids(found) == [id_of(ONE), id_of(TWO)]


actions = st.lists(st.sampled_from(["look", "append", "half", "roll", "gzip", "zstd", "junk", "parts"]), max_size=40)


@settings(max_examples=100)
@given(actions=actions, since_now=st.booleans(), block=st.sampled_from([100, 65_536]))
def test_whatever_happens_between_two_looks(tmp_path_factory, actions, since_now, block):
    """For all interleavings of looks with appends, half lines, rollovers and compressions: each event once, in order."""
    path = write_trail(tmp_path_factory.mktemp("trail"), (0, ONE), active=TWO)
    expected = [] if since_now else [id_of(ONE), id_of(TWO)]
    open_line, acts, now = b"", [], []
    for number, action in enumerate(actions, 100):
        line = line_of(number)
        if action == "look":
            acts.append(both(*now))
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
        patch.setattr(lines, "BLOCK_BYTES", block)
        reader = open_trail(path)
        assert ids(followed(reader, *acts, both(*now), since_now=since_now)) == expected
    assert set(reader.problems) <= {"foreign"}


def test_beside_real_writers(tmp_path):
    """Beside several real writers that roll over all the time, each event is given once."""
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
