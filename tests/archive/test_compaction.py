"""Compaction: what it archives, what it leaves, and that an archive gives back the very bytes."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
import socket
import threading
from pathlib import Path

import duckdb
import pytest
from archives import all_ids, compacted, digests, line_with, write_closed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import DANGEROUS, examples
from trail_files import append, at, id_of, line_of, pack_segments, roll_over, rolled_name, write_trail

from structlog_audit import AuditTypeError, AuditValueError, AuditWriteError, open_trail
from structlog_audit.archive import compact, gc, open_archive, restore, show, verify
from structlog_audit.archive import compaction as compaction_module
from structlog_audit.archive import database as database_module
from structlog_audit.events.event import Kind

GOLDEN = Path(__file__).parents[1] / "golden" / "trail.jsonl"
LATER = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)

HOSTILE = {
    "foreign": b"not JSON\n",
    "foreign JSON": b'{"event":"x"}\n',
    "empty line": b"\n\n",
    "not UTF-8": b'{"event_id":"a","timestamp":"2025-01-15T10:30:00Z","operation":"\xff"}\n',
    "NUL": line_with(1, "a\\u0000b").replace(b"\\\\u0000", b"\\u0000"),
    "unsafe characters, raw": line_with(2, DANGEROUS.translate({0: None})),
    "number in another form": line_of(3).replace(b'"status"', b'"duration_ms":1e1,"status"'),
    "integer duration": line_of(4, duration_ms=12),
    "huge integer": line_of(5, metadata={"n": 10**40}),
    "offset": line_of(6).replace(b"Z", b"+02:00"),
    "naive": line_of(6).replace(b"Z", b""),
    "spaces": json.dumps(json.loads(line_of(7))).encode() + b"\n",
    "other order": b'{"operation":"X","timestamp":"2025-01-15T10:30:00.000001Z","event_id":"z"}\n',
    "unknown member": line_of(8).replace(b"}\n", b',"extra":1}\n'),
    "drift": line_of(9, user_id=5),
    "duplicate key": line_of(10).replace(b'"STORE"', b'"STORE","operation":"X"'),
    "BOM": b"\xef\xbb\xbf" + line_of(11),
    "CRLF": line_of(12).replace(b"\n", b"\r\n"),
    "torn": line_of(13)[:-20] + b"\n",
    "orphan part": line_of(14, part_of=line_of(1)),
    "other day": line_of(15, 10_000_000),
    "first year": line_of(16).replace(b"2025-", b"0001-"),
    "last year": line_of(17).replace(b"2025-", b"9999-"),
    "empty texts": line_of(18, user_id="", session_id="", entry_ids=["", "é"], error_message=""),
    "no LF at the end": line_of(20),
    "chain": line_of(21).replace(b"}\n", b',"chain":"' + b"0" * 43 + b'"}\n'),
    "chain and escapes": line_of(22, metadata={"a": "\u202e"}).replace(b"}\n", b',"chain":"' + b"0" * 64 + b'"}\n'),
    "explicit empty": line_of(19).replace(b'"status"', b'"entry_ids":[],"metadata":{},"user_id":null,"status"'),
}


def segments_of(path):
    """Return the digests of the segments beside *path* that compaction takes."""
    last = rolled_name(path.name, 90_000)
    return {name: digest for name, digest in digests(path.parent).items() if name not in (path.name, last)}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_line_is_restored_byte_by_byte(tmp_path, name):
    """Whatever a line is, its segment comes back with the same digest, and its neighbours are found."""
    data = line_of(100) + HOSTILE[name] + line_of(101)
    if name == "no LF at the end":
        data = data[:-1]
    path = write_closed(tmp_path / "logs", data)
    expected = all_ids(open_trail(path))
    compacted(path, tmp_path / "archive")
    with open_archive(tmp_path / "archive", live=path) as archive:
        assert all_ids(archive) == expected
    restore(tmp_path / "archive", tmp_path / "restored")
    assert digests(tmp_path / "restored") == segments_of(path)
    assert verify(tmp_path / "archive").findings == ()


def test_all_hostile_lines_together_read_as_from_the_files(tmp_path):
    """Events of all kinds in one segment are those of the file reader, member by member; so are the problems."""
    lines = list(HOSTILE.values())
    data = b"".join(lines) + GOLDEN.read_bytes() + b"".join(reversed(lines)) + b'{"event_id":"torn end'
    path = write_closed(tmp_path / "logs", data)
    files = open_trail(path)
    expected = list(files.iter_events(kind=[None, *Kind]))
    done = compacted(path, tmp_path / "archive")
    with open_archive(tmp_path / "archive", live=path) as archive:
        assert list(archive.iter_events(kind=[None, *Kind])) == expected
    assert done.problems == files.problems
    restore(tmp_path / "archive", tmp_path / "restored")
    assert digests(tmp_path / "restored") == segments_of(path)


pieces = st.one_of(
    st.sampled_from([*HOSTILE.values(), *GOLDEN.read_bytes().splitlines(keepends=True)]),
    st.binary(max_size=20),
    st.builds(
        line_of, st.integers(0, 50), st.integers(-5, 400_000), user_id=st.text(st.characters(codec="utf-8"), max_size=5)
    ),
)


@settings(max_examples=examples(9), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(pieces, max_size=12),
    more=st.lists(pieces, max_size=4),
    pack=st.sampled_from(["plain", "gzip", "zstd"]),
)
def test_any_bytes_are_restored(tmp_path_factory, pieces, more, pack):
    """For all contents of a segment, late lines included: the same events in the same order, and the same bytes."""
    folder = tmp_path_factory.mktemp("any")
    first = line_of(1_000)
    path = write_closed(folder / "logs", first + b"".join(pieces))
    archive = folder / "archive"
    compacted(path, archive)
    segment = folder / "logs" / rolled_name("audit.jsonl", 100)
    append(segment, b"\n", *more)
    compacted(path, archive)
    expected = segments_of(path)
    events = list(open_trail(path).iter_events(kind=[None, *Kind]))
    if pack != "plain":
        pack_segments(path, pack)
        compacted(path, archive)
    with open_archive(archive, live=path) as source:
        # A line that is repeated, or whose parts come late, is recognized within one run.
        assert {event.event_id for event in source.iter_events(kind=[None, *Kind])} >= {
            event.event_id for event in events
        }
    restore(archive, folder / "restored")
    assert digests(folder / "restored") == expected


def test_second_run_archives_nothing(tmp_path):
    """Compaction is idempotent."""
    path = write_closed(tmp_path / "logs", line_of(1), line_of(2))
    done = compacted(path, tmp_path / "archive")
    assert (done.segments, done.events, done.files, done.bytes_read) == (2, 2, 2, len(line_of(1)) * 2)
    again = compacted(path, tmp_path / "archive")
    assert (again.segments, again.events, again.files, again.bytes_read) == (0, 0, 0, 0)


def test_last_two_segments_are_left(tmp_path):
    """Writers may still append to the active segment, and to the one before it."""
    path = write_closed(tmp_path / "logs", line_of(1))
    compacted(path, tmp_path / "archive")
    with open_archive(tmp_path / "archive") as archive:
        assert all_ids(archive) == [id_of(line_of(1))]


def test_late_lines_are_archived_once_by_the_next_run(tmp_path):
    """A line that a slow writer appends to an archived segment is read at once, and archived later; never twice."""
    path = write_closed(tmp_path / "logs", line_of(1), line_of(2))
    compacted(path, tmp_path / "archive")
    append(tmp_path / "logs" / rolled_name("audit.jsonl", 100), line_of(3))
    expected = {id_of(line_of(number)) for number in (1, 2, 3, 90_000, 90_001)}
    for _ in range(2):
        with open_archive(tmp_path / "archive", live=path) as archive:
            found = all_ids(archive)
        assert (len(found), set(found)) == (5, expected)
        assert compacted(path, tmp_path / "archive").events in (0, 1)


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_segment_compressed_after_it_was_archived_is_not_archived_again(tmp_path, pack):
    """A segment is known by its first line, not by its name."""
    path = write_closed(tmp_path / "logs", line_of(1), line_of(2))
    compacted(path, tmp_path / "archive")
    pack_segments(path, pack)
    for _ in range(2):
        with open_archive(tmp_path / "archive", live=path) as archive:
            assert len(all_ids(archive)) == 4
        assert compacted(path, tmp_path / "archive").events == 0


def test_segment_of_another_host_is_known_by_the_id_of_its_first_event(tmp_path):
    """A trail on a shared volume that two hosts compact is archived once."""
    path = write_closed(tmp_path / "logs", line_of(1), line_of(2))
    compacted(path, tmp_path / "archive", host="h1")
    assert compacted(path, tmp_path / "archive", host="h2").events == 0


def test_segments_of_other_programs_with_equal_first_lines_are_kept_apart(tmp_path):
    """The first line of another program is not unique: two hosts have two segments."""
    first = b'{"event_id":"1","timestamp":"2025-01-15T10:30:00Z","operation":"start"}\n'
    for host in ("h1", "h2"):
        path = write_closed(tmp_path / host, first)
        assert compacted(path, tmp_path / "archive", host=host).events == 1
    assert show(tmp_path / "archive").events == 2


def test_truncated_segment_counts_as_changed_and_stays(tmp_path):
    """A segment that lost bytes after it was archived is a problem, and nothing of it is archived again."""
    path = write_closed(tmp_path / "logs", line_of(1) + line_of(2))
    compacted(path, tmp_path / "archive")
    os.truncate(tmp_path / "logs" / rolled_name("audit.jsonl", 100), len(line_of(1)))
    assert compacted(path, tmp_path / "archive").problems == {"changed": 1}


def test_late_lines_of_a_segment_with_other_bytes_are_not_archived(tmp_path):
    """A copied trail that went its own way has the first line of the other: its bytes are a problem, not late lines."""
    path = write_closed(tmp_path / "logs", line_of(1) + line_of(2))
    compacted(path, tmp_path / "archive")
    copy = write_closed(tmp_path / "copy", line_of(1) + line_of(3) + line_of(4))
    done = compacted(copy, tmp_path / "archive", host="h2")
    assert (done.events, done.problems) == (0, {"changed": 1})
    assert show(tmp_path / "archive").events == 2


def test_row_that_does_not_fit_into_memory_is_a_clear_error(tmp_path, monkeypatch):
    """The error is one of this library, and nothing is committed."""
    path = write_closed(tmp_path / "logs", line_of(1))
    monkeypatch.setattr(database_module.DuckDB.__init__, "__defaults__", ("1MB", None))
    with pytest.raises(AuditWriteError, match=r"Memory.*nothing was committed"):
        compacted(path, tmp_path / "archive")
    assert not (tmp_path / "archive" / "_delta_log").exists()


def test_damaged_compressed_segment_is_left_and_counted(tmp_path):
    """What cannot be read to its end is not archived: reading the file later may give more."""
    path = write_closed(tmp_path / "logs", b"", line_of(2))
    segment = tmp_path / "logs" / rolled_name("audit.jsonl", 100)
    packed = gzip.compress(b"".join(line_of(number) for number in range(500)))
    segment.with_name(segment.name + ".gz").write_bytes(packed[: len(packed) // 2])
    segment.unlink()
    done = compacted(path, tmp_path / "archive")
    assert (done.events, done.problems) == (1, {"truncated": 1})


def test_export_document_and_file_without_json_are_left_and_counted(tmp_path):
    """Neither has lines that identify it."""
    path = write_closed(tmp_path / "logs", b"no line of JSON\n", line_of(2))
    document = tmp_path / "logs" / rolled_name("audit.jsonl", 50)
    open_trail(path).export_to_file(tmp_path / "x.json")
    document.write_bytes((tmp_path / "x.json").read_bytes())
    done = compacted(path, tmp_path / "archive")
    assert (done.events, done.problems) == (1, {"document": 1, "unidentified": 1})


def test_full_disk_commits_nothing_and_keeps_the_segments(tmp_path, monkeypatch):
    """A disk that is full in the middle ends in an error; the next run archives everything."""
    path = write_closed(tmp_path / "logs", line_of(1), line_of(2))
    before = digests(path.parent)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compaction_module, "write_parquet", full)
    with pytest.raises(OSError, match="No space left"):
        compacted(path, tmp_path / "archive")
    monkeypatch.undo()
    assert digests(path.parent) == before
    assert compacted(path, tmp_path / "archive").events == 2


def test_rows_that_differ_from_the_segment_are_not_committed(tmp_path, monkeypatch):
    """Verification compares what is in the Parquet files, not what was meant to be there."""
    path = write_closed(tmp_path / "logs", line_of(1, user_id="ann"))
    original = compaction_module.write_parquet

    def faulty(connection, source, selected, target, parameters):
        original(connection, source, selected.replace("user_id AS user_id", "'eve' AS user_id"), target, parameters)

    monkeypatch.setattr(compaction_module, "write_parquet", faulty)
    with pytest.raises(AuditWriteError, match=r"would not give back its bytes 0 to .*nothing was committed"):
        compacted(path, tmp_path / "archive")
    monkeypatch.undo()
    assert not (tmp_path / "archive" / "_delta_log").exists()
    assert compacted(path, tmp_path / "archive").events == 1


@pytest.mark.parametrize("hosts", [["h1", "h1"], ["h1", "h2", "h3"]])
def test_racing_compactors_archive_each_event_once(tmp_path, hosts):
    """Compactors of one trail, and of several hosts, at once: each event is in the archive once, and no file is missing."""
    paths = {}
    for number, host in enumerate(sorted(set(hosts))):
        datas = [b"".join(line_of(number * 1_000 + segment * 10 + k) for k in range(10)) for segment in range(6)]
        paths[host] = write_closed(tmp_path / host, *datas)
    errors = []

    def work(host):
        try:
            compacted(paths[host], tmp_path / "archive", host=host)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(host,)) for host in hosts for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with open_archive(tmp_path / "archive") as archive:
        found = all_ids(archive)
    assert len(found) == len(set(found)) == 60 * len(paths)
    assert verify(tmp_path / "archive").findings == ()
    assert gc(tmp_path / "archive", older_than=dt.timedelta(0), now=lambda: LATER).files == 0


def compact_and_delete(path, archive, age="1d"):
    return compacted(path, archive, delete_after=age, now=lambda: LATER)


def test_deleted_segments_are_archived_recorded_and_restored(tmp_path):
    """Deletion takes covered segments only, is an event of the trail, and loses no byte."""
    path = write_closed(tmp_path / "logs", line_of(1), line_of(2))
    before = segments_of(path)
    done = compact_and_delete(path, tmp_path / "archive")
    assert set(done.deleted) == set(before)
    assert segments_of(path) == {}
    [event] = open_trail(path).query_events(kind="trail", operation="retention")
    assert set(event.metadata["segments"]) == set(before)
    assert event.metadata["archive"] == str(tmp_path / "archive")

    with open_archive(tmp_path / "archive", live=path) as archive:
        assert archive.count_events() == 4
        assert archive.complete_since is None
    assert open_trail(path).complete_since == at(101)
    restore(tmp_path / "archive", tmp_path / "restored")
    assert digests(tmp_path / "restored") == before


def test_segment_younger_than_the_age_stays(tmp_path):
    """The age counts from the rollover."""
    path = write_closed(tmp_path / "logs", line_of(1))
    done = compacted(path, tmp_path / "archive", delete_after="1h", now=lambda: at(100 + 3_599))
    assert (done.events, done.deleted) == (1, ())


def test_segment_with_other_bytes_than_the_archive_is_not_deleted(tmp_path):
    """A segment is compared before it is deleted, however long ago it was archived."""
    path = write_closed(tmp_path / "logs", line_of(1) + line_of(2, user_id="ann"))
    compacted(path, tmp_path / "archive")
    segment = tmp_path / "logs" / rolled_name("audit.jsonl", 100)
    segment.write_bytes(segment.read_bytes().replace(b'"ann"', b'"eve"'))
    done = compact_and_delete(path, tmp_path / "archive")
    assert (done.deleted, done.problems) == ((), {"changed": 1})
    assert segment.exists()


def test_deletion_that_cannot_be_recorded_deletes_nothing(tmp_path):
    """Without an active file there is no place for the record."""
    path = write_closed(tmp_path / "logs", line_of(1), line_of(2))
    path.unlink()
    before = digests(path.parent)
    with pytest.raises(AuditWriteError, match="expected the active file, in which deletions are recorded"):
        compact_and_delete(path, tmp_path / "archive")
    assert digests(path.parent) == before


def test_promoted_members_have_columns_in_later_files_too(tmp_path):
    """A key that is promoted later gets a column from then on; names differ by more than case."""
    lines = [line_of(n, metadata={"tenant": "x", "Tenant": 5, "http.method": "GET", "a": {"b": "c"}}) for n in range(4)]
    path = write_closed(tmp_path / "logs", lines[0])
    compacted(path, tmp_path / "archive", promote=["tenant"])
    path = write_closed(tmp_path / "logs", *lines[:2])
    compacted(path, tmp_path / "archive", promote=["tenant", "Tenant", "/http.method", "a.b"])
    assert show(tmp_path / "archive").promoted == {
        "md_tenant": "/tenant", "md_tenant_2": "/Tenant", "md_http_method": "/http.method", "md_a_b": "/a/b",
    }  # fmt: skip
    path = write_closed(tmp_path / "logs", *lines[:3])
    compacted(path, tmp_path / "archive")
    with open_archive(tmp_path / "archive") as archive:
        for wanted in ({"tenant": "x"}, {"Tenant": 5}, {"http.method": "GET"}, {"a": {"b": "c"}}):
            assert archive.count_events(metadata=wanted) == 3, wanted
        assert archive.count_events(metadata={"Tenant": "x"}) == 0


def test_default_host_is_that_of_the_system(tmp_path):
    """The trail of an archive is ``host:path``."""
    path = write_closed(tmp_path / "logs", line_of(1))
    compact(path, tmp_path / "archive")
    assert list(show(tmp_path / "archive").trails) == [f"{socket.gethostname()}:{path}"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"promote": "tenant"}, AuditTypeError, "expected a list of names, got str"),
        ({"promote": [5]}, AuditTypeError, "promote=5: expected the name of a member of the metadata, got int"),
        ({"promote": ["a..b"]}, AuditValueError, "expected a member of the metadata, such as tenant"),
        ({"host": ""}, AuditValueError, "host='': expected the name of a host, got an empty text"),
        ({"delete_after": "soon"}, AuditValueError, "delete_after='soon': expected a duration such as 30d"),
        ({"storage_options": {"key": "x"}}, AuditValueError, "expected a URL such as s3://bucket/audit"),
    ],
)
def test_invalid_parameter_is_refused_before_anything_is_written(tmp_path, options, error, message):
    """The message names the parameter and what was expected."""
    path = write_closed(tmp_path / "logs", line_of(1))
    with pytest.raises(error, match=message):
        compact(path, tmp_path / "archive", **options)
    assert not (tmp_path / "archive").exists()


@pytest.mark.parametrize("named", ["logs", "logs/../logs", "link"])
def test_folder_of_the_trail_is_no_archive(tmp_path, named):
    """The folder would name the archive alone from then on, without the live files."""
    path = write_closed(tmp_path / "logs", line_of(1))
    (tmp_path / "link").symlink_to("logs")
    before = digests(path.parent)

    with pytest.raises(AuditValueError, match=r"expected a folder without trails, got that of .*: name a folder in it"):
        compact(path, tmp_path / named)
    assert (digests(path.parent), list(path.parent.glob("_delta_log"))) == (before, [])
    assert compact(path, path.parent / "archive").events == 1


@pytest.mark.parametrize("written", [b'{"a": 2}', b'{"a":2.0e0}', b'{"a":"\\u0078"}'])
def test_metadata_of_a_row_is_canonical(tmp_path, written):
    """Queries compare the text of the metadata: other spellings are in ``line`` only."""
    line = line_of(1, metadata={"a": 1}).replace(b'{"a":1}', written)
    path = write_closed(tmp_path / "logs", line)
    compacted(path, tmp_path / "archive")
    [(metadata, stored)] = duckdb.sql(f"SELECT metadata, line FROM '{tmp_path}/archive/date=*/*.parquet'").fetchall()
    assert metadata == json.dumps(json.loads(written), separators=(",", ":"))
    assert stored == line
    assert verify(tmp_path / "archive").findings == ()


def test_event_with_parts_is_one_row(tmp_path):
    """The lines of an event with parts come back in their order, and its entry ids are found."""
    lines = GOLDEN.read_bytes().splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if b"continued in" in line)
    path = write_closed(tmp_path / "logs", b"".join(lines[start : start + 3]))
    assert compacted(path, tmp_path / "archive").events == 1
    with open_archive(tmp_path / "archive") as archive:
        [event] = archive.query_events(entry_ids="e34")
    assert event.entry_ids == ["e30", "e31", "e32", "e33", "e34"]


def test_progress_reaches_the_size_of_the_trail(tmp_path):
    """The caller of a long run sees how far it is."""
    path = write_closed(tmp_path / "logs", line_of(1), line_of(2))
    steps = []
    compacted(path, tmp_path / "archive", progress=steps.append)
    assert steps == sorted(steps)
    assert steps[-1] == open_trail(path).size()


def test_line_repeated_across_a_rollover_is_archived_once(tmp_path):
    """A writer repeats lines in the next segment after a failed fsync: one event in one run, in the next run, and beside it."""
    first, second = line_of(1) + line_of(2), line_of(2) + line_of(3)
    path = write_trail(tmp_path / "logs", (100, first), (101, second), (102, line_of(3)), active=line_of(4))
    expected = all_ids(open_trail(path))
    compacted(path, tmp_path / "archive")
    with open_archive(tmp_path / "archive", live=path, host="h1") as source:
        assert all_ids(source) == expected
        assert all_ids(source, newest_first=True) == expected[::-1]
        assert source.count_events() == 4
    roll_over(path, 103)
    append(path, line_of(5))
    assert compacted(path, tmp_path / "archive").events == 0
    with open_archive(tmp_path / "archive", live=path, host="h1") as source:
        assert source.count_events() == 5
    assert verify(tmp_path / "archive").findings == ()


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs the names of open files")
def test_committed_files_survive_a_power_failure(tmp_path, monkeypatch):
    """Before a commit gets its name, the disk has the entries of all its files and of their new folders; then its own."""
    entries = {}

    def fsync(fd):
        sync(fd)
        path = os.readlink(f"/proc/self/fd/{fd}")
        if os.path.isdir(path):
            entries[path] = set(os.listdir(path))

    def lost(pattern):
        found = [path for path in (tmp_path / "new" / "archive").glob(pattern) if path.is_file()]
        places = {place for path in found for place in (path, *path.parents) if tmp_path in place.parents}
        return [place for place in places if place.name not in entries.get(str(place.parent), ())]

    def create(source, target):
        if "_delta_log" in target:
            assert lost("date=*/*") == lost("_quarantine/*") == []
        link(source, target)

    sync, link = os.fsync, os.link
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", create)
    path = write_closed(tmp_path / "logs", line_of(1) + b"junk\n")
    compacted(path, tmp_path / "new" / "archive")
    assert len(list((tmp_path / "new" / "archive").glob("*/*"))) == 3
    assert lost("*/*") == []
    restore(tmp_path / "new" / "archive", tmp_path / "new" / "archive" / "restored")
    assert lost("restored/*") == []
