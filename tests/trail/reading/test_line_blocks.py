"""Whole lines from bytes: in blocks of whole events, the same in both directions."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trail_files import id_of, line_of

from structlog_audit.trail.reading import line_blocks
from structlog_audit.trail.reading.line_blocks import LineBlock, promised_parts, read_backwards, read_forwards

ONE, TWO = line_of(1), line_of(2)
HEAD = line_of(3, metadata={"_audit": {"entry_ids": "continued in 2 parts"}})
PART, LAST_PART = line_of(4, part_of=HEAD), line_of(5, part_of=HEAD)


class Calls(list):
    """The calls of a callback, in order."""

    def __call__(self, *arguments):
        self.append(arguments)


def read(data, *, is_open=False, stop=None, start=0):
    """Return the lines read forwards, the findings and the rest, after checking that reading backwards gives the same."""
    reports, rest = Calls(), Calls()
    file = io.BytesIO(data)
    file.seek(start)
    blocks = list(read_forwards(file, start, stop, reports, rest, is_open=is_open))
    against, rest_against = Calls(), Calls()
    stop = len(data) if stop is None else stop
    blocks_against = list(read_backwards(io.BytesIO(data), start, stop, against, rest_against, is_open=is_open))
    for block in [*blocks, *blocks_against]:
        assert data[block.start : block.stop] == block.data
    found = [line for block in blocks for line in block.lines()]
    assert [line for block in reversed(blocks_against) for line in block.lines()] == found
    assert rest_against == rest
    assert sorted(against) == sorted(reports)
    return found, reports, rest


@pytest.mark.parametrize(
    ("data", "expected", "left"),
    [
        (b"", [], 0),
        (b"\n", [b""], 0),
        (ONE, [ONE], 0),
        (ONE + TWO, [ONE, TWO], 0),
        (ONE + b"\n\n" + TWO, [ONE, b"", b"", TWO], 0),
        (ONE + TWO[:-1], [ONE], len(TWO) - 1),
        (ONE[:-1], [], len(ONE) - 1),
        (ONE + b"x", [ONE], 1),
        (HEAD + PART + LAST_PART + ONE, [HEAD, PART, LAST_PART, ONE], 0),
    ],
)
@pytest.mark.parametrize("is_open", [False, True])
def test_only_bytes_before_the_last_lf_are_lines(data, expected, left, is_open):
    """Only bytes that end in LF are lines, whether or not the file is open; the bytes after the last LF are reported."""
    found, reports, rest = read(data, is_open=is_open)
    assert found == [line.rstrip(b"\n") for line in expected]
    assert rest == ([(len(data) - left, left)] if left else [])
    assert reports == []


@pytest.mark.parametrize(
    ("data", "waits"),
    [
        (HEAD + PART, HEAD + PART),
        (HEAD + PART[:30], HEAD + PART[:30]),
        (HEAD + PART + LAST_PART[:-1], HEAD + PART + LAST_PART[:-1]),
        (HEAD + PART + LAST_PART, b""),
        (HEAD, b""),  # as in an export, where an event is one line
    ],
)
def test_open_file_holds_back_an_event_with_missing_parts(data, waits):
    """While a file is open to writers, an event of which only some parts are there is held back."""
    found, _, rest = read(ONE + data, is_open=True)
    assert b"".join(line + b"\n" for line in found) == (ONE + data)[: len(ONE + data) - len(waits)]
    assert rest == ([(len(ONE + data) - len(waits), len(waits))] if waits else [])
    found, _, _ = read(ONE + data, is_open=False)
    assert len(found) == (ONE + data).count(b"\n")


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        (HEAD, 2),
        (ONE, 0),
        (b'{"metadata":{"_audit":{"entry_ids":"cut: 3 ids; continued in 12 parts"}}}', 12),
        (b'{"metadata": {"_audit": {"entry_ids": "continued in 2 parts"}}}', 2),
        (b'{"metadata":{"note":"continued in 2 parts"}}', 0),
        (b'{"entry_ids":["continued in 2 parts"]}', 0),
        (b'{"metadata":{"entry_ids":"continued in 2 parts"}}', 0),
        (b'{"metadata":{"_audit":{"entry_ids":"continued in 1 parts"},"x":{"entry_ids":"continued in 2 parts"}}}', 1),
        (b'{"metadata":{"x":{"_audit":{"entry_ids":"continued in 2 parts"}}}}', 0),
    ],
)
def test_only_the_mark_of_entry_ids_promises_parts(line, parts):
    """Parts are promised by the mark of an event's entry ids, and not by similar text elsewhere."""
    assert promised_parts(line) == parts


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        (PART, True),
        (b'{"kind": "part", "part_of": "evt_1"}', True),
        (b'{"part_of": "evt_1", "kind"', True),
        (b'{"operation":"STORE","metadata":{"part_of":"evt_1"}}', False),
        (b'{"metadata":{"part_of":null,"kind":"part"}}', False),
        (b'{"part_of":null}', False),
    ],
)
def test_only_the_own_member_makes_a_line_a_part(line, is_one):
    """A member of the metadata with the same name does not; a line that is no JSON may be one."""
    assert line_blocks.is_part(line) is is_one


def test_event_with_a_part_of_in_its_metadata_is_whole():
    """An application may call a member of its metadata *part_of*, and let users write what looks like a promise."""
    own = line_of(6, metadata={"part_of": id_of(HEAD), "entry_ids": "continued in 2 parts"})
    for data in (own, own + own, HEAD + PART + LAST_PART + own):
        found, _, rest = read(data, is_open=True)
        assert (len(found), rest) == (data.count(b"\n"), [])


def pieces():
    """Draw events with and without parts, empty lines, and junk."""
    filler = st.integers(0, 120).map(lambda size: b"z" * size)
    single = filler.map(lambda z: b'{"e":"' + z + b'"}\n')

    def with_parts(drawn):
        count, z = drawn
        head = b'{"metadata":{"_audit":{"entry_ids":"continued in %d parts"}},"z":"%b"}\n' % (count, z)
        return head + b"".join(b'{"part_of":"%d","z":"%b"}\n' % (number, z) for number in range(count))

    return st.one_of(single, st.just(b"\n"), filler, st.tuples(st.integers(1, 3), filler).map(with_parts))


@settings(max_examples=400)
@given(
    data=st.lists(pieces(), max_size=30).map(b"".join),
    cut=st.integers(0, 40),
    block=st.sampled_from([7, 16, 64, 100]),
    is_open=st.booleans(),
    has_stop=st.booleans(),
)
def test_blocks_of_any_size_hold_all_lines_in_both_directions(data, cut, block, is_open, has_stop):
    """For all files and block sizes, both directions give all whole lines, and no block separates an event from its parts."""
    data = data[: len(data) - cut]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_blocks, "BLOCK_BYTES", block)
        found, reports, rest = read(data, is_open=is_open, stop=len(data) if has_stop else None)
        blocks = list(read_forwards(io.BytesIO(data), 0, None, Calls(), Calls(), is_open=is_open))
    if not is_open:
        assert found == data.split(b"\n")[:-1]
    assert sum(len(line) + 1 for line in found) + sum(size for _, size in rest) == len(data)
    assert reports == []
    assert not any(line_blocks.is_part(later.lines()[0]) for later in blocks[1:])


@pytest.mark.parametrize("long", [1_001, 1_500, 5_000])
@pytest.mark.parametrize("before", [b"", ONE])
@pytest.mark.parametrize("after", [b"", TWO, TWO * 40])
def test_too_long_line_is_left_out(monkeypatch, before, after, long):
    """A line above the limit is reported and left out; the lines around it are read."""
    monkeypatch.setattr(line_blocks, "BLOCK_BYTES", 64)
    monkeypatch.setattr(line_blocks, "MAX_LINE_BYTES", 1_000)
    monkeypatch.setattr(line_blocks, "MAX_EVENT_BYTES", 2_000)
    bomb = b"x" * long + b"\n"
    data = before + bomb + after
    found, reports, rest = read(data)
    assert b"".join(line + b"\n" for line in found) == before + after
    assert reports == [("too_long", len(before), f"a line of {long + 1} bytes")]
    assert rest == []
    _, reports, rest = read(before + b"x" * long)
    assert (reports, rest) == ([], [(len(before), long)])


def test_endless_line_is_not_held_in_memory(monkeypatch):
    """A line of any length ("gzip bomb") is never in memory as a whole."""
    monkeypatch.setattr(line_blocks, "MAX_LINE_BYTES", 100_000)
    monkeypatch.setattr(line_blocks, "MAX_EVENT_BYTES", 100_000)
    largest = 0

    class Endless:
        left = 2_000

        def read(self, size):
            nonlocal largest
            largest = max(largest, size)
            self.left -= 1
            return b"x" * size if self.left > 0 else b""

    rest = Calls()
    assert list(read_forwards(Endless(), 0, None, Calls(), rest, is_open=False)) == []
    assert largest <= 2 * 100_000
    assert rest[0][1] > 1_900 * line_blocks.BLOCK_BYTES


def test_too_long_event_comes_in_several_blocks(monkeypatch):
    """An event above the limit comes in several blocks, so that memory stays bounded."""
    monkeypatch.setattr(line_blocks, "BLOCK_BYTES", 64)
    monkeypatch.setattr(line_blocks, "MAX_LINE_BYTES", 300)
    monkeypatch.setattr(line_blocks, "MAX_EVENT_BYTES", 1_000)
    data = ONE + HEAD + PART * 50 + TWO
    blocks = list(read_forwards(io.BytesIO(data), 0, None, Calls(), Calls(), is_open=False))
    assert b"".join(block.data for block in blocks) == data
    assert max(len(block.data) for block in blocks) < 3_000
    against = list(read_backwards(io.BytesIO(data), 0, len(data), Calls(), Calls(), is_open=False))
    assert sorted(line for block in against for line in block.lines()) == sorted(data.split(b"\n")[:-1])


def test_file_that_became_shorter_is_truncated():
    """A file that ends before its previous size is reported as truncated."""
    reports = Calls()
    list(read_forwards(io.BytesIO(ONE), 0, len(ONE) + 10, reports, Calls(), is_open=True))
    assert reports == [("truncated", len(ONE), f"the file became shorter than {len(ONE) + 10} bytes")]
    reports.clear()
    assert list(read_backwards(io.BytesIO(b""), 0, 10, reports, Calls(), is_open=True)) == []


def test_block_has_its_end_and_its_lines():
    """A block has the offset of its end, and its lines without their LFs."""
    assert LineBlock(10, b"a\n\nb\n").stop == 15
    assert LineBlock(10, b"a\n\nb\n").lines() == [b"a", b"", b"b"]
