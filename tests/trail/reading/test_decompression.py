"""The formats of files: gzip, zstd and export documents as streams of lines, recognised by their first bytes."""

import builtins
import gzip
import io
import json
import random
import sys
import tracemalloc

import pytest
import strategies as s
from hypothesis import given, settings
from hypothesis import strategies as st
from trail_files import PACKS, line_of
from zstandard_of_python import zstd

from structlog_audit import AuditReadError
from structlog_audit.events.codec import decode_event
from structlog_audit.export import WRITERS
from structlog_audit.trail.reading import export_document
from structlog_audit.trail.reading.decompression import SNIFFED_BYTES, unpack

LINES = b"".join(line_of(number, metadata={"n": "x" * (number % 50)}) for number in range(3_000))


class SlowFile:
    """A file that gives a few bytes at a time, as a pipe may."""

    def __init__(self, data, most):
        self.file, self.most = io.BytesIO(data), most

    def read(self, size):
        return self.file.read(min(size, self.most))


def read(data, *, most=100_000, size=1_000):
    """Return the unpacked data, whether the file was plain, and the codes and offsets of the findings."""
    reports = []
    file, is_plain, head = unpack(SlowFile(data, most), "x", lambda *finding: reports.append(finding))
    found = b""
    while piece := file.read(size):
        assert len(piece) <= size
        found += piece
    assert is_plain or found.startswith(head) or head.lstrip()[:1] in (b"{", b"[", b"\xef")
    assert len(head) <= SNIFFED_BYTES
    return found, is_plain, [(code, offset) for code, offset, _ in reports]


@pytest.mark.parametrize("most", [1, 7, 100_000])
@pytest.mark.parametrize("data", [b"", b"\n", b"x", LINES[:2_000], LINES[:9_000]])
@pytest.mark.parametrize("pack", PACKS)
def test_packed_lines_are_unpacked(pack, data, most):
    """Packed lines are unpacked, however many bytes the file gives at a time."""
    found, is_plain, reports = read(PACKS[pack](data), most=most)
    assert found == data
    assert is_plain == (pack == "plain")
    assert reports == []


def in_members(pack):
    """Return the lines packed in several members or frames."""
    pieces = [LINES[begin : begin + 50_000] for begin in range(0, len(LINES), 50_000)]
    return b"".join(map(PACKS[pack], pieces))


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_consecutive_members_are_one_stream(pack):
    """Consecutive gzip members or zstd frames are one stream."""
    assert read(in_members(pack)) == (LINES, False, [])


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_nul_padding_after_packed_data_is_skipped(pack):
    """NUL bytes after packed data, as on a tape, are skipped."""
    assert read(in_members(pack) + b"\0" * 512) == (LINES, False, [])


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_nul_padding_between_members_is_skipped(pack):
    """NUL bytes between members or frames are skipped."""
    assert read(in_members(pack) + b"\0" * 512 + in_members(pack)) == (LINES * 2, False, [])


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_incomplete_header_of_a_member_is_reported(pack):
    """A further member of which only the first bytes are there is reported; all data before it is read."""
    assert read(in_members(pack) + PACKS[pack](LINES)[:3]) == (LINES, False, [("truncated", len(LINES))])


def test_skippable_zstd_frame_is_skipped():
    """A zstd file may begin with a skippable frame."""
    frame = b"\x50\x2a\x4d\x18\x04\x00\x00\x00junk"
    assert read(frame + zstd.compress(LINES)) == (LINES, False, [])


@pytest.mark.parametrize("kept", [0.3, 0.999])
@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_truncated_packed_data_is_read_to_its_end(pack, kept):
    """Data before the end of a truncated file is read, and the truncation is reported."""
    noise = random.Random(1).randbytes(400_000).hex().encode()
    packed = PACKS[pack](noise)
    found, _, reports = read(packed[: int(len(packed) * kept)])
    assert noise.startswith(found)
    assert len(found) >= (kept - 0.2) * len(noise)
    assert reports == [("truncated", len(found))]


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_damaged_packed_data_is_read_up_to_the_damage(pack):
    """Data before the damage is read, and the damage is reported at its offset."""
    noise = random.Random(1).randbytes(400_000).hex().encode()
    packed = bytearray(PACKS[pack](noise))
    packed[len(packed) // 2] ^= 0xFF
    found, _, reports = read(bytes(packed))
    assert [code for code, _ in reports] == ["truncated"]
    assert len(found) == reports[0][1]


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_junk_after_packed_data_is_reported(pack):
    """Bytes after packed data that are neither padding nor packed are reported; the data is read."""
    found, _, reports = read(PACKS[pack](LINES) + b"junk behind it")
    assert found == LINES
    assert reports == [("truncated", len(LINES))]


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_unpacking_is_bounded_in_memory(pack):
    """Data that unpacks to a very large size is never in memory at once."""
    bomb = PACKS[pack](b"x" * 50_000_000)
    file, _, _ = unpack(io.BytesIO(bomb), "x", pytest.fail)
    tracemalloc.start()
    size = 0
    while piece := file.read(65_536):
        size += len(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == 50_000_000
    assert peak < 2_000_000


def test_zstd_without_a_module_names_the_extra(monkeypatch):
    """Without a module that unpacks zstd, the error names the extra to install."""
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] in ("backports", "compression"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(AuditReadError, match=r"'x' is compressed with zstd: pip install 'structlog-audit\[zstd\]'"):
        unpack(io.BytesIO(zstd.compress(LINES)), "x", pytest.fail)
    assert read(gzip.compress(LINES))[0] == LINES


EVENTS = [decode_event(line) for line in LINES.splitlines()[:20]]


def exported(count=20):
    return b"".join(WRITERS["json"]([EVENTS[:count]], EVENTS[0].timestamp))


@pytest.mark.parametrize("most", [1, 100, 100_000])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_exported_document_becomes_lines(count, most):
    """A document that the library exported becomes the lines of its events."""
    found, is_plain, reports = read(exported(count), most=most)
    assert [decode_event(line) for line in found.splitlines()] == EVENTS[:count]
    assert not is_plain
    assert reports == []


DOCUMENT = {"events": [event.to_dict() for event in EVENTS], "total_events": 20, "exported_at": "2025-01-15T11:00:00Z"}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(DOCUMENT),
        json.dumps(DOCUMENT, indent=2),
        json.dumps(DOCUMENT, separators=(",", ":")),
        json.dumps(dict(reversed(DOCUMENT.items())), indent="\t"),
        json.dumps({"exported_at": None, "note": {"events": [1, 2]}, **DOCUMENT}),
        json.dumps(DOCUMENT["events"], indent=2),
        json.dumps([]),
        "\ufeff" + json.dumps(DOCUMENT),
        "\r\n " + json.dumps(DOCUMENT, indent=1).replace("\n", "\r\n"),
    ],
)
@pytest.mark.parametrize("chunk", [16, 65_536])
def test_document_in_any_layout_becomes_lines(text, chunk, monkeypatch):
    """The document of the memory SDK in any order and layout, and a bare array, become lines."""
    monkeypatch.setattr(export_document, "_READ_BYTES", chunk)
    found, _, reports = read(text.encode())
    assert [decode_event(line) for line in found.splitlines()] == (EVENTS if len(text) > 2 else [])
    assert reports == []


def test_packed_document_becomes_lines():
    """A document may be packed."""
    for pack in ("gzip", "zstd"):
        found, _, reports = read(PACKS[pack](exported()))
        assert [decode_event(line) for line in found.splitlines()] == EVENTS
        assert reports == []


def text_of(changes):
    """Return the document with other members."""
    return json.dumps({**DOCUMENT, **changes}).encode()


@pytest.mark.parametrize(
    ("data", "events", "words"),
    [
        (exported()[:2_000], 8, "ends early|Unterminated|invalid JSON"),
        (exported()[:-2], 20, "ends early"),
        (exported()[:14], 0, "ends early"),
        (text_of({"total_events": 25}), 20, "total_events is 25, but there are 20 events"),
        (text_of({"events": 5}), 0, "total_events is 20, but there are 0 events"),
        (b'{"events": [{"a": 1} {"b": 2}]}', 1, "expected ',' or ']', got '{'"),
        (b'{"events": [nonsense]}', 0, "invalid JSON"),
        (b'{"events": [' + b"[" * 100_000, 0, "nested too deeply|invalid JSON"),
        (b'{"events": [{"a": 1}]} x', 1, "expected the end of the document"),
        (b'{"events": [] "total_events": 0}', 0, "expected ',' or '}', got '\"'"),
    ],
)
def test_damaged_document_is_read_up_to_the_damage(data, events, words):
    """Events before the damage are read, and the damage is reported."""
    reports = []
    file, _, _ = unpack(io.BytesIO(data), "x", lambda *finding: reports.append(finding))
    found = b""
    while piece := file.read(10_000):
        found += piece
    assert found.count(b"\n") == events or words.startswith("ends early|")
    ((code, offset, reason),) = reports
    assert (code, offset) == ("truncated", len(found))
    assert any(word in reason for word in words.split("|"))


def test_too_long_value_ends_the_document(monkeypatch):
    """A document ends at a value above the limit, which is not held in memory."""
    monkeypatch.setattr(export_document, "MAX_LINE_BYTES", 10_000)
    monkeypatch.setattr(export_document, "_READ_BYTES", 1_000)
    found, _, reports = read(b'{"events": [{"a": 1}, "' + b"x" * 100_000 + b'"]}')
    assert found == b'{"a": 1}\n'
    assert reports == [("truncated", 9)]


def test_invalid_utf_8_in_a_document_is_kept():
    """Bytes that are not UTF-8 are passed on unchanged, and reported when the line is decoded."""
    assert read(b'{"events": [{"a": "\xff\xfe"}]}')[0] == b'{"a": "\xff\xfe"}\n'


@given(st.lists(s.json_values, max_size=5), st.sampled_from([None, 1, "\t"]), st.integers(1, 50))
@settings(max_examples=100)
def test_items_of_any_content_become_lines(items, indent, most):
    """For all JSON values, the items of a document become lines with the same values."""
    data = json.dumps({"events": items, "total_events": len(items)}, indent=indent, ensure_ascii=False).encode()
    found, _, reports = read(data, most=most)
    assert [json.loads(line) for line in found.split(b"\n")[:-1]] == items
    assert reports == []


@pytest.mark.parametrize(
    "data", [LINES[:100], b"[1]\n[2]\n", b'{"event_id"', b'{"exported":1}\n', b"junk", b" \n", b"{}\n"]
)
def test_lines_are_not_a_document(data):
    """Data that begins like a line, or like neither, is lines."""
    assert read(data) == (data, True, [])


def test_zstd_module_of_python_3_14_is_preferred():
    """The module of the standard library is used where it exists."""
    assert zstd.__name__ == ("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
