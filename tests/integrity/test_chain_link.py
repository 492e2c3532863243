"""Tests of `structlog_audit.integrity.chain_link`: the chain of a writer."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import msgspec
import pytest
from conftest import Interruption, fill_disk
from hypothesis import given
from hypothesis import strategies as st
from seals import Writer, trail_event

from structlog_audit import AuditFileHandler, AuditHandler, get_audit_logger, open_trail
from structlog_audit.events import event_id as stamp_module
from structlog_audit.events.codec import MIN_EVENT_BYTES, decode, encode_payload
from structlog_audit.events.event_id import Stamp, parse_event_id
from structlog_audit.events.payload import Payload
from structlog_audit.integrity import chain_link
from structlog_audit.integrity.chain_link import CHAIN_BYTES, ChainedStamp
from structlog_audit.trail.reading.decoder import Line

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())
NOTHING = hashlib.sha256().hexdigest()
NOW = 1_736_937_045_123_456_000
LINK = re.compile(rb',"chain":"([0-9a-f]{64})"\}\n\Z')


def clock_of(ticks):
    ticks = iter(ticks)
    return lambda: next(ticks)


def link_of(line):
    """Return the link in *line*, or None."""
    match = LINK.search(line)
    return None if match is None else match[1].decode()


def check_chains(lines):
    """Check the links of all writers in *lines* by the definition: whole lines since the last link, that one included."""
    spans = {}
    for line in lines:
        writer = line[30:41]
        link = link_of(line)
        if writer not in spans:
            assert link == NOTHING
        elif link is not None:
            assert link == hashlib.sha256(spans[writer]).hexdigest()
        spans[writer] = line if link is not None else spans[writer] + line


def test_lines_equal_the_published_vectors():
    """Three lines, of which the first and the last have a link, equal the vectors, byte for byte."""
    millisecond = 0x0197F3A0C1D2 * 1_000_000
    # The id's milliseconds of the vectors are later than their clock: a stamp that has seen this time keeps it.
    stamp = ChainedStamp(clock_of([NOW, NOW + 4_000, NOW + 876_545_000]), lambda bits: 0xD1E << 30 | 0x1B0C5D8E)
    stamp._id_millisecond = millisecond // 1_000_000
    bodies = [re.sub(rb',"chain":"[0-9a-f]+"', b"", line.encode())[93:] for line in VECTORS["lines"]]
    assert [stamp.line(body).decode() for body in bodies] == [f"{line}\n" for line in VECTORS["lines"]]


@given(
    st.lists(st.tuples(st.integers(0, 3_000), st.booleans()), min_size=1, max_size=60),
    st.integers(0, 2**42 - 1),
)
def test_chain_commits_every_line_whatever_clock_and_renewals_do(steps, bits):
    """For all clocks and renewals, each writer begins with the empty chain, and each link is that of its lines before."""
    ticks = []
    now = NOW
    for number, (milliseconds, _) in enumerate(steps):
        now += milliseconds * 1_000_000 * (-1 if number % 7 == 6 else 1)
        ticks.append(now)
    random_bits = iter(range(bits, bits + 100))
    stamp = ChainedStamp(clock_of(ticks), lambda count: next(random_bits) % 2**42)

    lines = []
    for _, renews in steps:
        if renews:
            stamp.renew()
        lines.append(stamp.line(b'"operation":"X"}'))
    check_chains(lines)


@given(st.lists(st.integers(0, 700), min_size=1, max_size=60))
def test_first_line_of_each_second_has_a_link_and_no_other(gaps):
    """A line has a link if and only if it is a writer's first in its second."""
    ticks, now = [], NOW
    for gap in gaps:
        now += gap * 1_000_000
        ticks.append(now)
    stamp = ChainedStamp(clock_of(ticks))
    seconds = [tick // 10**9 for tick in ticks]
    lines = [stamp.line(b'"operation":"X"}') for _ in ticks]
    first = [number == 0 or seconds[number] != seconds[number - 1] for number in range(len(ticks))]
    assert [link_of(line) is not None for line in lines] == first


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=40))
def test_lines_without_their_links_are_those_of_the_plain_stamp(gaps):
    """Apart from the links, lines are byte for byte those of `Stamp`."""
    ticks, now = [], NOW
    for gap in gaps:
        now += gap * 1_000_000
        ticks.append(now)
    chained = ChainedStamp(clock_of(ticks), lambda bits: 5)
    plain = Stamp(clock_of(ticks), lambda bits: 5)
    for _ in ticks:
        line = chained.line(b'"operation":"X","status":"SUCCESS"}')
        assert LINK.sub(b"}\n", line) == plain.line(b'"operation":"X","status":"SUCCESS"}')
    assert chained.timestamp_us == plain.timestamp_us


def test_closed_has_a_link_in_the_middle_of_a_second():
    """The event ``closed`` has a link; an application's event of that name has none."""
    writer = Writer(step=0.001)
    lines = [
        writer.opened(),
        writer.event(1),
        writer.line(b'"operation":"closed","status":"SUCCESS"}'),
        writer.closed(),
    ]
    assert [link_of(line) is not None for line in lines] == [True, False, False, True]
    check_chains(lines)


def test_parts_of_an_event_are_lines_of_the_chain():
    """Each part of a long event is a line of its writer; the event decodes as before."""
    body = encode_payload(Payload("X", entry_ids=[f"{number:0100d}" for number in range(100)]), MIN_EVENT_BYTES)
    stamp = ChainedStamp()
    event = stamp.line(body)
    assert event.count(b"\n") > 2
    lines = [*event.splitlines(keepends=True), stamp.line(trail_event("closed"))]
    check_chains(lines)
    assert len(decode(event).entry_ids) == 100


def test_longest_line_with_a_link_stays_within_the_limit():
    """A truncated event with a link and the reference of a part has at most ``max_event_bytes``."""
    body = encode_payload(Payload("X", entry_ids=[f"{number:0100d}" for number in range(200)]), MIN_EVENT_BYTES)
    lines = Writer(step=2).line(body).splitlines(keepends=True)
    assert all(link_of(line) for line in lines)
    assert max(map(len, lines)) <= MIN_EVENT_BYTES


def test_open_line_and_sibling_begin_writers_of_their_own():
    """A line whose payload follows later, and a sibling, have a link of their own, and break no chain."""
    stamp = ChainedStamp()
    before = [stamp.line(b'"operation":"X"}') for _ in range(3)]
    head, end = stamp.open_line()
    after = stamp.line(b'"operation":"X"}')
    other = stamp.sibling().line(b'"operation":"X"}')
    check_chains([*before, head + b'"operation":"gap"' + end, after, other])
    assert len({line[30:41] for line in (before[0], head, after, other)}) == 4


def test_link_has_the_stated_length():
    """`CHAIN_BYTES` is what a link adds."""
    chained, plain = ChainedStamp(), Stamp()
    assert len(chained.line(b'"operation":"X"}')) - len(plain.line(b'"operation":"X"}')) == CHAIN_BYTES


def test_line_with_a_link_is_canonical():
    """A link leaves a line in the form that is decoded a block at a time, and is not a part of the event."""
    line = Writer().event(1)
    event = msgspec.json.decode(line, type=Line)
    assert msgspec.json.encode(event) + b"\n" == line
    assert event.chain == link_of(line)
    assert event.event().metadata == {}


@pytest.mark.parametrize("modules", [(stamp_module,), (chain_link,), (stamp_module, chain_link)])
def test_chains_stay_right_after_an_interruption(modules):
    """Wherever an exception of a signal handler ends a line, the chains are right: the group commit renews the stamp."""

    def on_signal():
        raise TimeoutError

    for due in range(1, 60):
        ticks = (NOW + number * 300_000_000 for number in range(1_000))
        random_bits = iter(range(1_000))
        stamp = ChainedStamp(lambda ticks=ticks: next(ticks), lambda bits, random_bits=random_bits: next(random_bits))
        lines = []
        interruption = Interruption(due, on_signal, *modules)
        for _ in range(12):
            try:
                with interruption:
                    line = stamp.line(b'"operation":"X"}')
            except TimeoutError:
                stamp.renew()
                continue
            lines.append(line)
        check_chains(lines)
        assert len(lines) >= 11


def chained_trail(path, **options):
    target = AuditFileHandler(path)
    target.stamp_class = ChainedStamp
    return AuditHandler(target=target, **options)


@pytest.fixture
def record(tmp_path):
    """Return functions that record events in a chained trail, and the lines of the trail."""
    import logging

    logger = logging.getLogger("chained")
    logger.setLevel("INFO")
    logger.propagate = False

    def begin(**options):
        handler = chained_trail(tmp_path / "audit.jsonl", **options)
        logger.addHandler(handler)
        return handler, get_audit_logger("chained")

    yield begin
    for handler in logger.handlers[:]:
        handler.close()
        logger.removeHandler(handler)


def trail_lines(tmp_path):
    return (tmp_path / "audit.jsonl").read_bytes().splitlines(keepends=True)


def test_target_chooses_the_stamp_of_its_trail(tmp_path, record):
    """A file handler's ``stamp_class`` makes the lines: with links, and readable as before."""
    handler, log = record()
    for number in range(20):
        log.info("STORE", user_id=f"u{number}")
    handler.close()

    lines = trail_lines(tmp_path)
    check_chains(lines)
    assert link_of(lines[0]) == NOTHING
    assert link_of(lines[-1]) is not None
    assert open_trail(tmp_path / "audit.jsonl").count_events() == 20
    assert not open_trail(tmp_path / "audit.jsonl").problems


def test_chains_are_right_after_an_outage_with_lost_events(tmp_path, record, monkeypatch):
    """After an outage, pending events continue the chain, the gap event is a writer of its own, and a new writer follows."""
    handler, log = record(max_pending=3)
    log.info("STORE", user_id="before")
    with monkeypatch.context() as patch:
        fill_disk(patch)
        for number in range(8):
            log.info("STORE", user_id=f"u{number}")
    for number in range(3):
        log.info("STORE", user_id=f"after{number}")
    handler.close()

    lines = trail_lines(tmp_path)
    check_chains(lines)
    (gap,) = [line for line in lines if b'"kind":"gap"' in line]
    assert parse_event_id(json.loads(gap)["event_id"]).number == 0
    assert link_of(gap) == NOTHING
    assert json.loads(gap)["metadata"]["lost"] > 0

    numbers = {}
    for line in lines:
        parts = parse_event_id(json.loads(line)["event_id"])
        assert parts.number == numbers.get(parts.writer, 0)
        numbers[parts.writer] = parts.number + 1


def test_chains_are_right_after_raised_events(tmp_path, record, monkeypatch):
    """Events that were raised used sequence numbers: a new writer with a new chain follows."""
    handler, log = record(on_error="raise")
    log.info("STORE", user_id="before")
    with monkeypatch.context() as patch:
        fill_disk(patch)
        with pytest.raises(Exception, match="not recorded"):
            log.info("STORE", user_id="raised")
    log.info("STORE", user_id="after")
    handler.on_error = "retry"
    handler.close()
    check_chains(trail_lines(tmp_path))


def test_shell_recomputes_a_link(tmp_path):
    """The documented command line gives the link of a line: grep for the writer, and sha256sum."""
    writer = Writer(bits=0xD1E << 30 | 0x1B0C5D8E, step=0.4)
    other = Writer(bits=7, step=0.4)
    lines = [line for number in range(4) for line in (writer.event(number), other.event(number))]
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(lines))
    own = [line for line in lines if line[30:41] == b"d1e9b0c5d8e"]
    linked = [number for number, line in enumerate(own) if link_of(line)]
    first, second = linked[:2]

    command = f"grep -h '^.\\{{30\\}}d1e9b0c5d8e' {path} | sed -n '{first + 1},{second}p' | sha256sum"
    done = subprocess.run(["sh", "-c", command], capture_output=True, check=True)
    assert done.stdout.split()[0].decode() == link_of(own[second])
