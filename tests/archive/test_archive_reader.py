"""Queries of an archive and its live trails: the answers of the files, whatever was archived or deleted meanwhile."""

from __future__ import annotations

import datetime as dt
import errno
import io
import os
import re
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from archive_cases import METADATA, cases, check_equal, paged, parts_of, written
from archives import EVERYTHING, all_ids, compacted, write_closed
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import examples
from trail_files import append, at, id_of, ids, line_of, roll_over, rolled_name, write_trail

from structlog_audit import (
    AuditReadError,
    AuditTypeError,
    AuditValueError,
    AuditWriteError,
    SubjectVault,
    open_trail,
)
from structlog_audit.archive import compact, open_archive, prune, restore, show, sql_engine, verify
from structlog_audit.archive import reader as reader_module
from structlog_audit.archive.actions import DataFile
from structlog_audit.archive.database import Database, DuckDB, limit_within
from structlog_audit.archive.dialects import DUCKDB
from structlog_audit.archive.sql_engine import SQLEngine, UndecidedError
from structlog_audit.archive.storage import LocalStorage, ObjectStorage
from structlog_audit.events.event import Kind
from structlog_audit.query.field_tests import FieldConditions, FieldTest, Pattern
from structlog_audit.query.filters import conditions, contains
from structlog_audit.trail.reading.discovery import Segment, Trail

LATER = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@settings(max_examples=examples(10))
@given(case=cases(), newest_first=st.booleans(), limit=st.none() | st.integers(1, 4))
def test_archive_gives_the_answers_of_the_files(tmp_path_factory, case, newest_first, limit):
    """For all events, clocks, filters and promoted members: the answers of the files, whether segments are deleted or not."""
    drawn, filters, cuts, promoted = case
    folder = tmp_path_factory.mktemp("case")
    path = written(folder / "logs", drawn, cuts)
    files = open_trail(path)
    compacted(path, folder / "archive", promote=promoted[:1])
    newer = write_trail(folder / "more", (10_000_000, b""), active=b"")
    compacted(newer, folder / "archive", promote=promoted)
    if not (folder / "archive").exists():
        return
    with open_archive(folder / "archive", live=path, host="h1") as source:
        check_equal(source, files, filters, limit, newest_first)
        assert source.problems == {}
    expected = files.query_events(newest_first=False, kind=[None, *Kind])
    compacted(path, folder / "archive", delete_after="0s", now=lambda: LATER)
    with open_archive(folder / "archive", live=path, host="h1") as source:
        found = source.query_events(newest_first=False, kind=[None, *Kind])
        # The deletion is recorded, now.
        assert [event for event in found if event.timestamp.year == 2025] == expected


documents = st.lists(METADATA, min_size=1, max_size=30)


@settings(max_examples=examples(10))
@given(documents=documents, data=st.data())
def test_containment_is_decided_as_by_python(tmp_path_factory, documents, data):
    """For all documents and conditions: SQL leaves out no event, and where it decides alone, it decides as Python."""
    folder = tmp_path_factory.mktemp("documents")
    path = write_closed(
        folder / "logs", b"".join(line_of(n, metadata=document) for n, document in enumerate(documents))
    )
    compacted(path, folder / "archive", promote=data.draw(st.sampled_from([[], ["a"], ["/a/b", "/é"]])))
    with open_archive(folder / "archive") as source:
        stored = list(source.select(EVERYTHING, newest_first=False))
        for _ in range(5):
            wanted = data.draw(st.sampled_from(documents).flatmap(parts_of) | METADATA)
            expected = [event.event_id for event in stored if contains(event.metadata, wanted)]
            assert ids(source.query_events(newest_first=False, metadata=wanted)) == expected
            assert source.count_events(metadata=wanted) == len(expected)


def test_several_trails_are_merged_as_by_the_file_reader(tmp_path):
    """Forwards the order is that of the files; backwards it is the exact reverse, even after a clock was set back."""
    paths = []
    for number, seconds in enumerate([(1, 5, 2, 8), (3, 4, 4, 9), (2, 7, 1, 1)]):
        lines = [line_of(number * 100 + k, second) for k, second in enumerate(seconds)]
        paths.append(write_closed(tmp_path / f"h{number}", b"".join(lines[:2]), b"".join(lines[2:])))
        compacted(paths[-1], tmp_path / "archive", host=f"h{number}")
    expected = [event.event_id for event in open_trail(*paths).select(EVERYTHING, newest_first=False)]
    with open_archive(tmp_path / "archive", live=paths) as source:
        assert all_ids(source) == expected
        assert all_ids(source, newest_first=True) == expected[::-1]


SECONDS = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=3)


@settings(max_examples=examples(4))
@given(seconds=SECONDS, limit=st.none() | st.integers(1, 4), size=st.integers(1, 3))
def test_day_that_is_read_in_parts_has_the_same_order(tmp_path_factory, seconds, limit, size):
    """For all clocks of several trails: parts are disjoint, complete and in order, for queries and for pages."""
    folder = tmp_path_factory.mktemp("case")
    paths = []
    for number, times in enumerate(seconds):
        lines = [line_of(number * 100 + k, second, user_id="ub"[k % 2]) for k, second in enumerate(times)]
        parts = b"".join(lines[:3]), b"".join(lines[3:])
        paths.append(write_closed(folder / f"h{number}", *parts, last=90_000 + 2 * number))
        compacted(paths[-1], folder / "archive", host=f"h{number}")
    with pytest.MonkeyPatch.context() as patch, open_archive(folder / "archive", live=paths) as source:
        questions = [{}, {"user_id": "u"}]
        undivided = [ids(source.iter_events(**filters)) for filters in questions]
        patch.setattr(sql_engine, "_SORTED_STEPS", 0)
        patch.setattr(sql_engine, "_BLOCK_ROWS", size)
        for filters, expected in zip(questions, undivided, strict=True):
            for newest_first in (False, True):
                ordered = expected[::-1] if newest_first else expected
                assert ids(source.query_events(limit=limit, newest_first=newest_first, **filters)) == ordered[:limit]
                assert ids(paged(source, limit or 2, newest_first=newest_first, **filters)) == ordered


def test_part_of_a_day_reads_only_its_row_groups():
    """The ranges of numbers in each trail are those of the blocks that a part overlaps."""
    engine = SQLEngine(FakeBlocks([("a", 0, 9, 0, 90, 10), ("b", 0, 9, 50, 140, 10), ("a", 10, 19, 91, 200, 10)]))
    files = [data_file("a", 20), data_file("b", 10)]
    parts = list(engine._parts(files, 0, True, None))
    assert parts == [
        (91, None, {"a": (10, 19), "b": (0, 9)}),
        (50, 91, {"a": (0, 9), "b": (0, 9)}),
        (None, 50, {"a": (0, 9)}),
    ]
    assert list(engine._parts(files, 0, True, 60)) == parts[1:]
    assert list(engine._parts(files, 0, False, 60)) == parts[1::-1]
    assert list(engine._parts(files, 8, False, None)) == [None]


class FakeBlocks:
    """A database that has the places of blocks of rows."""

    dialect = DUCKDB

    def __init__(self, blocks):
        self.blocks = blocks

    def query(self, sql, parameters, tables):
        return iter(self.blocks)


def data_file(trail, rows):
    """Return a data file of a trail."""
    return DataFile(
        path=trail, date="2026-01-01", size=1, rows=rows, trail=trail, numbers=(0, rows - 1), times=(0, 1), order=(0, 1),
        ids=("", ""), sha256="",
    )  # fmt: skip


@pytest.mark.parametrize("moment", ["before the log is read", "after the log is read"])
def test_query_during_a_compaction_misses_nothing_and_repeats_nothing(tmp_path, monkeypatch, moment):
    """Segments that are archived and deleted while the query begins are read once, from the files or from the archive."""
    path = write_closed(tmp_path / "logs", line_of(1), line_of(2), line_of(3))
    compacted(write_closed(tmp_path / "other", line_of(50)), tmp_path / "archive", host="h2")
    source = open_archive(tmp_path / "archive", live=path)
    expected = {id_of(line_of(number)) for number in (1, 2, 3, 50, 90_000, 90_001)}
    ran = []

    class Held(reader_module.HeldTrail):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            if moment == "before the log is read":
                run()

        def beyond(self, *arguments):
            if moment == "after the log is read":
                run()
            return super().beyond(*arguments)

    def run():
        if not ran:
            ran.append(compacted(path, tmp_path / "archive", delete_after="0s", now=lambda: LATER))

    monkeypatch.setattr(reader_module, "HeldTrail", Held)
    for _ in range(2):
        found = [id for id in all_ids(source) if id.startswith("evt_0194")]
        assert len(found) == len(set(found))
        assert set(found) == expected
    assert len(ran[0].deleted) == 3
    assert source.problems == {}


def test_segment_deleted_without_being_archived_counts_as_vanished(tmp_path, monkeypatch):
    """Another deletion than that of a compaction is a problem."""
    path = write_closed(tmp_path / "logs", line_of(1), line_of(2))
    compacted(write_closed(tmp_path / "other", line_of(50)), tmp_path / "archive", host="h2")
    source = open_archive(tmp_path / "archive", live=path)
    original = Trail._take_set

    def take_and_delete(self, held):
        segments = original(self, held)
        (tmp_path / "logs" / rolled_name("audit.jsonl", 100)).unlink(missing_ok=True)
        return segments

    monkeypatch.setattr(Trail, "_take_set", take_and_delete)
    assert source.count_events() == 4
    assert source.problems == {"vanished": 1}


@pytest.mark.parametrize(
    ("code", "message"), [(errno.EACCES, None), (errno.EMFILE, "too many segments beyond the archive")]
)
def test_segment_that_the_system_does_not_open_is_counted(tmp_path, monkeypatch, code, message):
    """A refused segment is a problem, as for a reader of files; too many open files are an error with its remedy."""
    path = write_closed(tmp_path / "logs", line_of(1), line_of(2))
    compacted(write_closed(tmp_path / "other", line_of(50)), tmp_path / "archive", host="h2")
    original = Segment.opened

    def refuse(self):
        if self.path.endswith(rolled_name("audit.jsonl", 100)):
            raise OSError(code, os.strerror(code), self.path)
        return original(self)

    monkeypatch.setattr(Segment, "opened", refuse)
    with open_archive(tmp_path / "archive", live=path) as source:
        if message is not None:
            with pytest.raises(AuditReadError, match=message):
                source.count_events()
            return
        assert source.count_events() == 4
        assert source.problems == {"unreadable": 1}


def test_new_events_and_segments_are_found_by_the_next_query(tmp_path):
    """For each query the files and the log are read anew."""
    path = write_closed(tmp_path / "logs", line_of(1))
    compacted(path, tmp_path / "archive")
    with open_archive(tmp_path / "archive", live=path) as source:
        assert source.count_events() == 3
        append(path, line_of(90_002))
        assert source.count_events() == 4
        roll_over(path, 100_000)
        append(path, line_of(100_001))
        compacted(path, tmp_path / "archive")
        assert source.count_events() == 5


@pytest.mark.parametrize("newest_first", [False, True])
def test_cursor_stays_valid_while_its_event_is_archived_and_deleted(tmp_path, newest_first):
    """Pages that are fetched before and after a compaction have every event once."""
    path = write_closed(tmp_path / "logs", b"".join(line_of(n) for n in range(5)))
    compacted(path, tmp_path / "archive")
    append(path, *(line_of(n) for n in range(90_002, 90_006)))
    with open_archive(tmp_path / "archive", live=path) as source:
        expected = source.query_events(newest_first=newest_first)
        found, cursor = [], None
        for step in range(20):
            page = source.page(cursor, limit=2, newest_first=newest_first)
            found += page.events
            cursor = page.cursor
            if cursor is None:
                break
            if step < 3:
                roll_over(path, 100_000 + step)
                append(path, line_of(95_000 + step, kind="trail"))
                compacted(path, tmp_path / "archive", delete_after="0s", now=lambda: LATER)
    assert found == expected


def test_cursor_of_another_order_or_form_is_refused(tmp_path):
    """The errors are those of a file reader."""
    compacted(write_closed(tmp_path / "logs", line_of(1) + line_of(2)), tmp_path / "archive")
    with open_archive(tmp_path / "archive") as source:
        cursor = source.page(limit=1).cursor
        with pytest.raises(AuditValueError, match="expected a cursor of the same order"):
            source.page(cursor, newest_first=True)
        with pytest.raises(AuditValueError, match="expected the cursor of a page, got other text"):
            source.page("é")
        with pytest.raises(AuditTypeError, match="expected the cursor of a page or None, got int"):
            source.page(5)


def test_missing_data_file_is_an_error_that_names_the_archive(tmp_path):
    """A file that is gone is not taken for one without events."""
    compacted(write_closed(tmp_path / "logs", line_of(1)), tmp_path / "archive")
    [file] = (tmp_path / "archive").glob("date=*/*.parquet")
    file.unlink()
    with open_archive(tmp_path / "archive") as source, pytest.raises(AuditReadError, match="archive verify shows"):
        source.query_events()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"PAR1" * 9])
def test_half_written_data_file_is_an_error_for_every_question(tmp_path, damage):
    """A file that was not copied completely is never taken for one with fewer events."""
    compacted(write_closed(tmp_path / "logs", line_of(1), line_of(2)), tmp_path / "archive")
    file = next((tmp_path / "archive").glob("date=*/*.parquet"))
    file.write_bytes(damage(file.read_bytes()))
    questions = ["query_events", "count_events", "get_statistics", "get_statistics_by_user", "completeness", "page"]
    with open_archive(tmp_path / "archive") as source:
        for question in questions:
            with pytest.raises(AuditReadError, match="archive verify shows"):
                getattr(source, question)()


@pytest.mark.parametrize("refused", ["pipe_file", "put_file", "cat_file"])
def test_store_without_rights_is_an_error_that_names_the_object(tmp_path, refused):
    """A bucket that may not be written gets nothing, one that may not be read is not empty, and the segments stay."""
    fsspec = pytest.importorskip("fsspec")

    class Refusing(fsspec.get_filesystem_class("memory")):
        protocol = "refusing"
        store = {}  # noqa: RUF012
        pseudo_dirs = [""]  # noqa: RUF012
        refused = ""

    def refuse(self, path, *arguments, **options):
        raise PermissionError("Access Denied")

    fsspec.register_implementation("refusing", Refusing, clobber=True)
    path = write_closed(tmp_path / "logs", line_of(1))
    before = sorted(file.read_bytes() for file in path.parent.iterdir())
    if refused == "cat_file":
        compacted(path, "refusing://archive")
    objects = dict(Refusing.store)
    setattr(Refusing, refused, refuse)
    error, work = (
        (AuditReadError, open_archive) if refused == "cat_file" else (AuditWriteError, partial(compacted, path))
    )
    with pytest.raises(error, match=r"refusing://.*archive.*Access Denied"):
        work("refusing://archive")
    assert [name for name in Refusing.store if name.endswith(".json")] == [
        name for name in objects if name.endswith(".json")
    ]
    assert sorted(file.read_bytes() for file in path.parent.iterdir()) == before


def test_pruned_days_and_lost_segments_limit_completeness(tmp_path):
    """Complete is what neither prune nor an earlier retention took away."""
    lost = line_of(5, kind="trail", metadata={"segments": [rolled_name("audit.jsonl", 50)], "bytes": 1})
    lost = lost.replace(b'"STORE"', b'"retention"')
    path = write_closed(tmp_path / "logs", line_of(1) + lost)
    compacted(path, tmp_path / "archive")
    with open_archive(tmp_path / "archive") as source:
        assert source.complete_since == at(50)
    prune(tmp_path / "archive", "1d", now=lambda: LATER)
    with open_archive(tmp_path / "archive") as source:
        assert source.complete_since == LATER - dt.timedelta(days=1)
        assert source.count_events() == 0


def test_vault_finds_the_archived_events_of_a_person(tmp_path):
    """A clear identity is translated to the token of the vault, as for a reader of files."""
    vault = SubjectVault(tmp_path / "vault", create=True)
    token = vault.subject("ann").token
    path = write_closed(tmp_path / "logs", line_of(1, user_id=token) + line_of(2, user_id="bob"))
    compacted(path, tmp_path / "archive")
    with open_archive(tmp_path / "archive", live=path, vault=vault) as source:
        assert ids(source.query_events(user_id="ann")) == [id_of(line_of(1))]
        assert source.count_events(user_id="ann") == 1
        assert source.get_statistics(user_id="ann")["total_events"] == 1
    vault.close()


def test_follow_yields_archived_and_live_events_once(tmp_path):
    """Without since_now all existing events come first; an archive alone cannot be followed."""
    path = write_closed(tmp_path / "logs", line_of(1))
    compacted(path, tmp_path / "archive")
    with open_archive(tmp_path / "archive", live=path) as source:
        coming = source.follow(since_now=False, stop=lambda: True, wait=pytest.fail)
        assert ids(coming) == [id_of(line_of(number)) for number in (1, 90_000, 90_001)]
        assert list(source.follow(stop=lambda: True, wait=pytest.fail)) == []
    with open_archive(tmp_path / "archive") as source, pytest.raises(AuditReadError, match="name the live trail"):
        source.follow(stop=lambda: True, wait=pytest.fail)


def test_follow_yields_another_event_with_a_known_id(tmp_path):
    """An id that comes again with other content is another event, as in the files; what was seen before comes once."""
    answers = []
    for name in ("archive", "files"):
        path = write_closed(tmp_path / name, line_of(1))
        compacted(path, tmp_path / f"{name}.archive")

        def append(*lines, path=path):
            with path.open("ab") as file:
                file.write(b"".join(lines))
            return True

        with open_archive(tmp_path / f"{name}.archive", live=path) as archive:
            source = archive if name == "archive" else open_trail(path)
            last = line_of(1, user_id="eve")
            coming = source.follow(
                since_now=False, stop=lambda append=append, last=last: append(last), wait=pytest.fail
            )
            append(line_of(2), line_of(1, user_id="bob"))
            answers.append([(event.event_id, event.user_id) for event in coming])

    of_archive, of_files = answers
    assert of_archive == of_files
    assert [user for id, user in of_archive if id == id_of(line_of(1))] == [None, "bob", "eve"]


def test_stream_is_read_beside_an_archive(tmp_path):
    """Standard input has no segments to leave out."""
    compacted(write_closed(tmp_path / "logs", line_of(1)), tmp_path / "archive")
    with open_archive(tmp_path / "archive", live=io.BytesIO(line_of(2))) as source:
        assert all_ids(source) == [id_of(line_of(1)), id_of(line_of(2))]


@pytest.mark.parametrize("engine", ["sqlite", "", "local[x]", "spark://host", "sc://", "yarn"])
def test_unknown_engine_is_refused(tmp_path, engine):
    """The message lists the engines, before anything is opened."""
    with pytest.raises(AuditValueError, match=rf"engine={re.escape(repr(engine))}: expected 'duckdb', Spark as"):
        open_archive(tmp_path, engine=engine)


def test_engine_of_another_type_is_refused(tmp_path):
    """An engine is a name or a session of Spark."""
    with pytest.raises(AuditTypeError, match="or a SparkSession, got int"):
        open_archive(tmp_path, engine=5)


@pytest.mark.parametrize(
    ("paths", "options", "message"),
    [
        ([["a", "b"]], {}, r"path=\['a', 'b'\]: expected the folder .* several as open_archive\('a', 'b'\), got list"),
        ([5], {}, "path=5: expected the folder .*, got int"),
        (["a"], {"live": 5}, "live=5: expected a path, .*, got int"),
        (["a"], {"host": 5}, "host=5: expected the name of a host, got int"),
        (["a"], {"threads": "x"}, "threads='x': expected an integer of at least 1 .*, got str"),
        (["a"], {"progress": 5}, "progress=5: expected a function .*, got int"),
        (["a"], {"memory_limit": 5}, "memory_limit=5: expected a size such as '256MB'.*, got int"),
        (["a"], {"storage_options": 5}, "storage_options=5: expected a dictionary, got int"),
        (["a"], {"storage_options": {1: 2}}, r"storage_options=\{1: 2\}: expected texts as keys, got 1"),
    ],
)
def test_parameter_of_another_type_is_refused_when_the_archive_is_opened(paths, options, message):
    """The error names the parameter, its value, and what was expected."""
    with pytest.raises(AuditTypeError, match=message):
        open_archive(*paths, **options)


@pytest.mark.parametrize("threads", [0, -1, 1_025, 10**30])
def test_number_of_threads_that_no_machine_has_is_refused_when_the_archive_is_opened(threads):
    """DuckDB would start as many threads, or fail with an error of its own."""
    with pytest.raises(AuditValueError, match=r"threads=.*: expected an integer of at least 1 and at most 1024"):
        open_archive("a", threads=threads)


@pytest.mark.parametrize("limit", ["x", "", "-1", "0%", "200%", "9999999999TB", f"{9 * 10**400}KB"])
def test_memory_limit_that_is_no_size_is_refused_when_the_archive_is_opened(limit):
    """The error does not wait for the first query."""
    with pytest.raises(AuditValueError, match=r"memory_limit=.*: expected a size such as '256MB'"):
        open_archive("a", memory_limit=limit)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda path: compact(path, 5), "to"),
        (lambda path: compact(path, "a", promote=5), "promote"),
        (lambda path: compact(path, "a", host=5), "host"),
        (lambda path: restore("a", 5), "to"),
        (lambda path: restore(5, "a"), "archive"),
        (lambda path: verify(5), "archive"),
        (lambda path: show(5), "archive"),
        (lambda path: prune(5, "1d"), "archive"),
    ],
)
def test_upkeep_refuses_a_parameter_of_another_type(tmp_path, call, name):
    """No function of the archive raises a bare TypeError for what is not a path."""
    path = write_trail(tmp_path, active=line_of(1))
    with pytest.raises(AuditTypeError, match=f"^{name}=5: expected .*, got int$"):
        call(path)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda trail, path: open_archive(path), "path"),
        (lambda trail, path: compact(trail, path), "to"),
        (lambda trail, path: restore(path, "a"), "archive"),
        (lambda trail, path: verify(path), "archive"),
        (lambda trail, path: show(path), "archive"),
        (lambda trail, path: prune(path, "1d"), "archive"),
        (lambda trail, path: SubjectVault(path), "vault"),
    ],
)
def test_path_that_no_file_can_have_is_refused(tmp_path, monkeypatch, call, name):
    """Python's own error would not name a null character; an empty path, of a variable that is not set, is not a folder."""
    monkeypatch.chdir(tmp_path)
    trail = write_trail(tmp_path / "logs", active=line_of(1))

    with pytest.raises(AuditValueError, match=f"^{name}='a.*: expected .*, got a null character in it$"):
        call(trail, "a\0b")
    with pytest.raises(AuditValueError, match=f"^{name}='': expected .*, got an empty path$"):
        call(trail, "")
    assert os.listdir() == ["logs"]


@pytest.mark.parametrize("name", ["a[1]", "a*b", "a?b"])
def test_url_that_is_a_pattern_is_refused_and_a_folder_is_not(tmp_path, name):
    """In an object store the name would find other objects; a folder may be called so."""
    trail = write_closed(tmp_path / "logs", line_of(1))

    with pytest.raises(AuditValueError, match=r"expected a URL without .*, which are patterns in object stores"):
        compact(trail, f"memory://{name}")
    assert compact(trail, tmp_path / name).events == 1
    with open_archive(tmp_path / name) as source:
        assert source.count_events() == 1


def test_archives_share_a_database_but_for_two_file_systems_of_a_class():
    """The database knows a file system by its protocol: of two hosts it would read the files of the first."""
    one, same, other = (ObjectStorage(f"memory://{name}", {}) for name in ("a", "b", "c"))
    other.filesystem = type(one.filesystem)(skip_instance_cache=True)
    database = DuckDB()
    assert [database.reserve(storage) for storage in (one, same, other, LocalStorage("d"))] == [True, True, False, True]


def test_spark_without_its_package_is_refused(tmp_path, monkeypatch):
    """The message names the extra."""
    compacted(write_closed(tmp_path / "logs", line_of(1)), tmp_path / "archive")
    monkeypatch.setitem(sys.modules, "pyspark", None)
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    with pytest.raises(AuditReadError, match=r"pip install 'structlog-audit\[spark\]'"):
        open_archive(tmp_path / "archive", engine="sc://127.0.0.1:1")


def test_reading_leaves_no_file_open_and_writes_nothing(tmp_path):
    """A query that is given up, too, closes its files."""
    path = write_closed(tmp_path / "logs", line_of(1), line_of(2))
    compacted(path, tmp_path / "archive")
    before = sorted(file for file in tmp_path.rglob("*"))
    with open_archive(tmp_path / "archive", live=path) as source:
        opened = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
        next(source.select(conditions(), newest_first=False))
        source.count_events()
        assert (len(os.listdir("/proc/self/fd")) if opened else 0) == opened
    assert sorted(file for file in tmp_path.rglob("*")) == before


def test_progress_over_several_archives_is_that_of_all_of_them(tmp_path):
    """The bytes of the second archive are added to those of the first: one bar, up to the size of all."""
    archives = []
    for name in ("a", "b"):
        lines = [line_of(number, number * 86_400) for number in range(3)]
        data = [line.replace(b"80000001", b"8000000" + name.encode()) for line in lines]
        path = write_closed(tmp_path / name, *data, second=3 * 86_400, last=3 * 86_400)
        compacted(path, tmp_path / f"archive-{name}")
        archives.append(tmp_path / f"archive-{name}")

    done = []
    with open_archive(*archives, progress=done.append) as source:
        assert len(source.query_events()) == 6
        assert done == sorted(done)
        assert done[-1] == source.size()


def test_segment_without_events_between_archived_ones_changes_no_order(tmp_path):
    """It is not archived, but there is nothing in it that could come in another place."""
    lines = [line_of(1), b"no event\n", line_of(2), line_of(3, 1)]
    path = write_closed(tmp_path / "logs", *lines)
    compacted(path, tmp_path / "archive")
    assert show(tmp_path / "archive").segments == 3
    with open_archive(tmp_path / "archive", live=path, host="h1") as source:
        for newest_first in (False, True):
            files = all_ids(open_trail(path), newest_first=newest_first)
            assert all_ids(source, newest_first=newest_first) == files
        assert source.problems == open_trail_problems(path)


def open_trail_problems(path):
    """Return the problems that a reader of the files counts."""
    files = open_trail(path)
    all_ids(files)
    all_ids(files)
    return files.problems


def test_archive_of_the_default_host_is_read_with_its_trail(tmp_path):
    """The trail of this host is recognized by host and path even after all of its archived segments were deleted."""
    path = write_closed(tmp_path / "logs", line_of(1, 1_000_000))
    compact(path, tmp_path / "archive", delete_after="0s", now=lambda: LATER)
    with open_archive(tmp_path / "archive", live=path) as source:
        first = id_of(line_of(1, 1_000_000))
        assert all_ids(source)[0] == first
        assert all_ids(source, newest_first=True)[-1] == first


def ask_count(source, **filters):
    return source.count_events(**filters)


def ask_statistics(source, **filters):
    return source.get_statistics(**filters)


def ask_statistics_by_user(source, **filters):
    return source.get_statistics_by_user(**filters)


def ask_events(source, **filters):
    return ids(source.query_events(**filters))


def ask_pages(source, **filters):
    first = source.page(limit=2, **filters)
    return ids(first.events), ids(source.page(first.cursor, limit=2, **filters).events)


ASKED = [ask_count, ask_statistics, ask_statistics_by_user, ask_events, ask_pages]


def fail_queries(monkeypatch, is_failing):
    """Let the queries with SQL that *is_failing* end as those of a database that cannot parse the metadata of a row.

    Return how often each was made.
    """
    made = Counter()
    query = Database.query

    def queried(self, sql, parameters, tables):
        made[sql] += 1
        if is_failing(sql):
            raise UndecidedError("metadata nobody can parse")
        yield from query(self, sql, parameters, tables)

    monkeypatch.setattr(Database, "query", queried)
    return made


def archive_of_documents(folder):
    lines = [line_of(n, user_id=f"u{n % 2}", metadata={"a": "x" if n < 5 else "y", "n": n}) for n in range(8)]
    compacted(write_closed(folder / "logs", b"".join(lines)), folder / "archive")
    return folder / "archive"


@pytest.mark.parametrize("ask", ASKED)
def test_query_that_fails_before_its_first_row_is_decided_by_python(tmp_path, monkeypatch, ask):
    """The answer is that of a database that reads the metadata; it is asked to parse them once."""
    archive = archive_of_documents(tmp_path)
    with open_archive(archive) as source:
        expected = ask(source, metadata={"a": "x"})
    made = fail_queries(monkeypatch, lambda sql: "json_" in sql)
    with open_archive(archive) as source:
        assert ask(source, metadata={"a": "x"}) == expected
        assert sum(count for sql, count in made.items() if "json_" in sql) == 1
        assert ask(source, metadata={"a": "x"}) == expected
        assert sum(count for sql, count in made.items() if "json_" in sql) == 1


def test_failing_search_of_distinct_values_is_decided_by_python(tmp_path, monkeypatch):
    """A pattern is searched in values that the database must parse, too."""
    archive = archive_of_documents(tmp_path)
    pattern = FieldConditions.of(conditions(), FieldTest("metadata.a", (Pattern(re.compile("^x")),)))
    fail_queries(monkeypatch, lambda sql: "json_" in sql)
    with open_archive(archive) as source:
        assert source._count(pattern) == 5
        assert len(list(source.select(pattern, newest_first=False))) == 5


@pytest.mark.parametrize("ask", ASKED)
def test_query_that_always_fails_is_an_error(tmp_path, monkeypatch, ask):
    """A query without JSON is not repeated for ever, whatever the database says."""
    archive = archive_of_documents(tmp_path)
    fail_queries(monkeypatch, lambda sql: True)
    with open_archive(archive) as source, pytest.raises(AuditReadError, match="metadata nobody can parse"):
        ask(source, metadata={"a": "x"})


def test_other_query_under_way_keeps_its_rows(tmp_path, monkeypatch):
    """A query that turned to Python changes no answer of one that began before it."""
    archive = archive_of_documents(tmp_path)
    with open_archive(archive) as source:
        expected = ids(source.iter_events(metadata={"a": "x"}))
        begun = source.iter_events(metadata={"a": "x"})
        first = next(begun)
        fail_queries(monkeypatch, lambda sql: "json_" in sql)
        assert source.count_events(metadata={"a": "x"}) == 5
        assert [first.event_id, *ids(begun)] == expected


@pytest.mark.parametrize("ask", ASKED)
def test_relative_bounds_count_from_the_clock_of_the_reader(tmp_path, monkeypatch, ask):
    """``since=`` and ``until=`` are the same bounds for all methods."""
    archive = archive_of_documents(tmp_path)
    monkeypatch.setattr(reader_module.ArchiveReader, "_now", lambda self: at(10))
    with open_archive(archive) as source:
        assert ask(source, since="8s", until="4s") == ask(source, start_time=at(2), end_time=at(6))
        assert ask(source, since="8s", until="4s") != ask(source)


@pytest.mark.parametrize("ask", ASKED)
def test_missing_extra_is_an_error_with_its_remedy(tmp_path, monkeypatch, ask):
    """Every method says what to install."""
    archive = archive_of_documents(tmp_path)
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with (
        pytest.raises(AuditReadError, match=r"pip install 'structlog-audit\[archive\]'"),
        open_archive(archive) as source,
    ):
        ask(source)


@pytest.mark.parametrize(
    ("memory", "limit"),
    [("256MB", "176000KB"), ("1 GiB", "993742KB"), ("100MB", "50000KB"), ("500000000B", "420000KB"), ("1.5gb", "1420000KB"),
     ("80%", "80%")],
)  # fmt: skip
def test_limit_of_duckdb_leaves_memory_for_rows_under_way(memory, limit):
    """DuckDB counts neither its buffers of files nor the rows of an answer; a limit of another form is DuckDB's."""
    assert limit_within(memory) == limit


def test_database_prints_nothing_on_standard_output(tmp_path):
    """DuckDB takes ``python -c`` for a session with a person, and prints how far long queries are between the answers."""
    program = f"""
from structlog_audit.archive.database import Database, limit_within
from structlog_audit.archive.storage import LocalStorage
database = Database(LocalStorage({str(tmp_path)!r}))
setting = "SELECT current_setting('enable_progress_bar')"
print(list(database.rows(setting)), database.connect().execute(setting).fetchall())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[(False,)] [(False,)]\n"


def limited_pages(source, limit, most, **filters):
    """Return the events of at most *most* pages, which must be all."""
    found, cursor = [], None
    for _ in range(most):
        page = source.page(cursor, limit=limit, **filters)
        found += page.events
        cursor = page.cursor
        if cursor is None:
            return found
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("hosts", [("h1", "h1"), ("h1", "h2")])
@pytest.mark.parametrize("live", [False, True])
def test_pages_of_trails_with_the_same_events_end(tmp_path, newest_first, hosts, live):
    """A cursor names the trail of its event: several trails with the same ids have each event once for each of them."""
    lines = [line_of(n) for n in range(4)]
    paths = [write_closed(tmp_path / name, b"".join(lines)) for name in "ab"]
    # The same first event in both would be one segment in an archive.
    segments = [next(path.parent.glob("*T103140*")) for path in paths]
    segments[1].write_bytes(b"".join([line_of(7, 0), *lines]))
    for path, host in zip(paths, hosts, strict=True):
        compacted(path, tmp_path / "archive", host=host)
    with open_archive(tmp_path / "archive", live=paths if live else (), host="h1") as source:
        expected = source.query_events(newest_first=newest_first)
        assert len(expected) > len({event.event_id for event in expected})
        assert limited_pages(source, 1, 20, newest_first=newest_first) == expected


@pytest.mark.parametrize("newest_first", [False, True])
def test_pages_end_where_a_live_trail_repeats_ids(tmp_path, newest_first):
    """Events of one live trail that have the same id and differ are told apart."""
    path = write_closed(tmp_path / "logs", line_of(1))
    compacted(path, tmp_path / "archive")
    append(path, *(line_of(n, 90_002, user_id=user) for user in ("ann", "bob", "eve") for n in (1, 2)))
    with open_archive(tmp_path / "archive", live=path, host="h1") as source:
        expected = source.query_events(newest_first=newest_first, user_id=["ann", "eve"])
        assert len(expected) == 4
        assert limited_pages(source, 1, 5, newest_first=newest_first, user_id=["ann", "eve"]) == expected


@settings(max_examples=examples(8))
@given(seconds=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=5), min_size=2, max_size=3))
def test_several_trails_with_any_clocks_come_as_from_the_files(tmp_path_factory, seconds):
    """Without filters files and archive have one order, by the latest time of each trail so far, and its exact reverse."""
    folder = tmp_path_factory.mktemp("trails")
    lines = [[line_of(100 * t + n, second) for n, second in enumerate(of_trail)] for t, of_trail in enumerate(seconds)]
    paths = [
        write_closed(folder / f"t{t}", b"".join(of_trail), last=90_000 + 2 * t) for t, of_trail in enumerate(lines)
    ]
    for path in paths:
        compacted(path, folder / "archive")
    expected = all_ids(open_trail(*paths))[: sum(map(len, lines))]
    with open_archive(folder / "archive") as source:
        assert all_ids(source) == expected
        assert all_ids(source, newest_first=True) == expected[::-1]


def test_query_beyond_the_memory_says_which_limit_to_raise(tmp_path):
    """An error for want of memory is not taken for damage."""
    compacted(write_closed(tmp_path / "logs", line_of(1)), tmp_path / "archive")
    with open_archive(tmp_path / "archive", threads=1) as source:
        [archive] = source._archives
        sql = "SELECT list(i || 'x' || i) FROM range(100_000_000) t(i)"
        archive.database.connect().execute("SET memory_limit = '20MB'")
        with pytest.raises(AuditReadError, match=r"raise memory_limit of open_archive"):
            list(archive.database.rows(sql))
