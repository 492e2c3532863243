"""The golden trail: its questions have the same answers from every source."""

import datetime as dt
import gzip
import importlib.util
import io
import json
import math
import shutil
from pathlib import Path

import pytest
from zstandard_of_python import zstd

from structlog_audit import open_trail
from structlog_audit.archive import compact, open_archive
from structlog_audit.events.codec import decode_event, encode_event
from structlog_audit.events.event import Kind, rfc3339
from structlog_audit.recording.file_handler import AuditFileHandler
from structlog_audit.recording.handler import AuditHandler

GOLDEN = Path(__file__).parent / "golden"
QUESTIONS = json.loads((GOLDEN / "questions.json").read_text(encoding="utf-8"))


def name_of(number):
    """Return the name of a question for the test report."""
    question = QUESTIONS[number]
    arguments = {name: value for name, value in question.items() if name not in ("method", "answer")}
    return f"{question['method']} {json.dumps(arguments)}"


def from_json(filters):
    """Return the filters with times as datetimes; nothing else differs from JSON."""
    times = {name: dt.datetime.fromisoformat(filters[name]) for name in ("start_time", "end_time") if name in filters}
    return {**filters, **times}


def answer_of(source, question):
    """Return the answer of *source*, in the form of the table."""
    method = question["method"]
    if method == "get_event":
        event = source.get_event(question["event_id"])
        return event and {k: v for k, v in event.to_dict().items() if v not in (None, [], {})}
    if method == "get_user_statistics":
        return in_json(source.get_user_statistics(question["user_id"]))
    found = getattr(source, method)(**from_json(question["filters"]), **question.get("how", {}))
    return [event.event_id for event in found] if method == "query_events" else in_json(found)


def in_json(found):
    """Return an answer with its times as text."""
    if not isinstance(found, dict):
        return found
    return {name: rfc3339(value) if isinstance(value, dt.datetime) else value for name, value in found.items()}


def same(name, found, expected):
    """Return whether two values of a statistic are equal; percentiles may differ by 1 %."""
    if name.startswith("p") and name.endswith("_duration_ms"):
        return math.isclose(found, expected, rel_tol=0.01)
    return math.isclose(found, expected) if isinstance(expected, float) else found == expected


def handler_of(path):
    """Return a handler with a buffer that was filled from the file."""
    handler = AuditHandler(target=AuditFileHandler(path), warm_start=True)
    assert handler.unreadable == 0
    return handler


def reader_of_segments(path):
    """Return a reader of the trail in segments: gzip, zstd, plain, and the active one."""
    lines = path.read_bytes().splitlines(keepends=True)
    for number, (stop, pack) in enumerate([(9, gzip.compress), (22, zstd.compress), (40, bytes)]):
        segment = path.with_name(f"audit.jsonl.20250115T10310{number}.000000Z")
        segment.write_bytes(pack(b"".join(lines[:stop] if number == 0 else lines[(9, 22)[number - 1] : stop])))
    path.write_bytes(b"".join(lines[40:]))
    return open_trail(path)


def reader_of_a_document(path):
    """Return a reader of the export of all events."""
    document = path.with_name("audit.json")
    assert open_trail(path).export_to_file(document, kind=[None, *Kind]) == 58
    return open_trail(document)


def segments_of(path):
    """Write the trail at *path* as three closed segments, and return it; the active segment has the rest."""
    lines = path.read_bytes().splitlines(keepends=True)
    parts = [lines[:9], lines[9:22], lines[22:40]]
    for number, part in enumerate(parts):
        segment = path.with_name(f"audit.jsonl.20250115T10310{number}.000000Z")
        segment.write_bytes(b"".join(part))
    path.write_bytes(b"".join(lines[40:]))
    return path


def reader_of_an_archive(path, *, promote=()):
    """Return a reader of an archive with all events."""
    segments_of(path)
    path.rename(path.with_name("audit.jsonl.20250115T103200.000000Z"))
    path.with_name("audit.jsonl.20250115T103300.000000Z").write_bytes(b"")
    path.write_bytes(b"")
    assert compact(path, path.parent / "archive", promote=promote).events == 58
    return open_archive(path.parent / "archive")


def reader_of_an_archive_and_the_trail(path):
    """Return a reader of an archive with the first segments, one of which is deleted, and of the live trail."""
    segments_of(path)
    assert compact(path, path.parent / "archive").segments == 2
    path.with_name("audit.jsonl.20250115T103100.000000Z").unlink()
    return open_archive(path.parent / "archive", live=path)


SOURCES = {
    "buffer": handler_of,
    "reader": open_trail,
    "segments": reader_of_segments,
    "document": reader_of_a_document,
    "archive": reader_of_an_archive,
    "archive with promoted columns": lambda path: reader_of_an_archive(path, promote=["source", "user.plan", "forced"]),
    "archive and live trail": reader_of_an_archive_and_the_trail,
    "stream": lambda path: open_trail(io.BytesIO(path.read_bytes())),
}


@pytest.fixture(scope="module", params=SOURCES)
def source(request, tmp_path_factory):
    """A source of the events of the golden trail."""
    path = tmp_path_factory.mktemp("golden") / "audit.jsonl"
    shutil.copy(GOLDEN / "trail.jsonl", path)
    source = SOURCES[request.param](path)
    yield source
    if request.param == "buffer":
        source.close()
    else:
        assert source.problems == {}


@pytest.mark.parametrize("number", range(len(QUESTIONS)), ids=name_of)
def test_golden_question_has_the_expected_answer(source, number):
    """Each question about the golden trail has the answer of the table."""
    question = QUESTIONS[number]
    if "error" in question:
        kind = {"TypeError": TypeError, "ValueError": ValueError}[question["error"]]
        with pytest.raises(kind):
            answer_of(source, question)
        return
    found, expected = answer_of(source, question), question["answer"]
    if question["method"] in ("get_statistics", "get_user_statistics"):
        assert [name for name in expected if not same(name, found[name], expected[name])] == []
    else:
        assert found == expected


def test_golden_table_has_answers_of_every_size():
    """Most questions select some events, several select none, and none selects all by mistake."""
    sizes = [len(question["answer"]) for question in QUESTIONS if question["method"] == "query_events" and "how" in question
             and "answer" in question]  # fmt: skip
    assert sum(size > 0 for size in sizes) >= 40
    assert sum(size == 0 for size in sizes) >= 8
    assert max(sizes) < 53


def test_golden_files_are_those_of_make():
    """The committed files are those that make.py produces."""
    spec = importlib.util.spec_from_file_location("golden_make", GOLDEN / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    trail, questions = make.file_texts()
    assert (GOLDEN / "trail.jsonl").read_bytes() == trail.encode()
    assert (GOLDEN / "questions.json").read_bytes() == questions.encode()


def test_golden_lines_are_canonical():
    """Each line, parts excepted, has the bytes that the library would write for its event."""
    for line in (GOLDEN / "trail.jsonl").read_bytes().splitlines():
        if b'"part_of"' not in line:
            assert encode_event(decode_event(line)) == line
