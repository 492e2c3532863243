"""The log of an archive: exclusive commits, checkpoints, and what is wrong with a log."""

from __future__ import annotations

import datetime as dt
import json
import threading
from contextlib import suppress

import pytest
from archives import compacted, write_closed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trail_files import line_of

from structlog_audit import AuditReadError, AuditWriteError
from structlog_audit.archive import delta_log as delta_log_module
from structlog_audit.archive import open_archive
from structlog_audit.archive.actions import Action, CommitInfo, Coverage, DataFile, MetaData, Protocol, Txn
from structlog_audit.archive.database import Database
from structlog_audit.archive.delta_log import CHECKPOINT_INTERVAL, DeltaLog
from structlog_audit.archive.storage import LocalStorage

NOW = dt.datetime(2025, 1, 15, tzinfo=dt.UTC)


def log_of(folder):
    """Return the log of the archive in *folder*, read anew."""
    storage = LocalStorage(str(folder))
    return DeltaLog(storage, Database(storage).connect)


def first_actions():
    """Return the actions that create an archive."""
    configuration = {"audit.format": "1"}
    return [
        Action(protocol=Protocol()),
        Action(meta_data=MetaData(id="t", schema_string="{}", configuration=configuration)),
    ]


def commit_segment(log, number):
    """Commit the segment *number* with one data file; return whether it was committed."""

    def build(snapshot):
        if snapshot.covered(f"s{number}"):
            return None
        coverage = Coverage(
            segment=f"s{number}", trail="h1:t", name=f"n{number}", start=0, stop=10, lines=1, sha256="", first=number,
            stop_number=number + 1, least=number, high=number,
        )  # fmt: skip
        file = DataFile(
            path=f"date=2025-01-15/{number}.parquet", date="2025-01-15", size=1, rows=1, trail="h1:t", numbers=(number, number),
            times=(number, number), order=(number, number), ids=(f"a{number}", f"a{number}"), promoted=frozenset({"md_x"}),
            sha256="0",
        )  # fmt: skip
        first = first_actions() if snapshot.version < 0 else []
        return [
            *first,
            Action(commit_info=CommitInfo(audit=coverage)),
            Action(txn=Txn(f"s{number}", 10)),
            file.add(NOW),
        ]

    return log.commit("COMPACT", build, NOW)


def state(log):
    """Return everything that a snapshot says."""
    snapshot = log.update()
    return (
        snapshot.version,
        snapshot.files,
        dict(snapshot.segments),
        snapshot.next_number("h1:t"),
        snapshot.high("h1:t"),
    )


def test_log_read_from_a_checkpoint_has_the_state_of_its_commits(tmp_path):
    """A log of more commits than a checkpoint folds is the same, read from the checkpoint and from all commits."""
    log = log_of(tmp_path)
    count = CHECKPOINT_INTERVAL + 20
    committed = [commit_segment(log, number) for number in range(count)]
    assert committed == [True] * count
    folded = state(log_of(tmp_path))
    (tmp_path / "_delta_log" / "_last_checkpoint").unlink()
    assert folded == state(log_of(tmp_path)) == state(log)
    assert folded[0] == count - 1
    assert len(folded[1]) == count


def test_log_with_a_checkpoint_is_read_without_the_folded_commits(tmp_path):
    """The commits before the checkpoint are not opened, so the time to open an archive has a bound."""
    log = log_of(tmp_path)
    for number in range(CHECKPOINT_INTERVAL + 2):
        commit_segment(log, number)
    for number in range(CHECKPOINT_INTERVAL):
        (tmp_path / "_delta_log" / f"{number:020}.json").write_text("not read")
    assert state(log_of(tmp_path)) == state(log)


@pytest.mark.parametrize("damage", [b"", b"half a Parquet file", b"PAR1"])
def test_damaged_checkpoint_is_replaced_by_the_commits(tmp_path, damage):
    """A checkpoint is only an abbreviation: without it the commits are read."""
    log = log_of(tmp_path)
    for number in range(CHECKPOINT_INTERVAL + 2):
        commit_segment(log, number)
    [checkpoint] = (tmp_path / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(damage)
    assert state(log_of(tmp_path)) == state(log)


def test_failed_checkpoint_leaves_its_commit_and_says_so(tmp_path, monkeypatch):
    """The error after a commit does not state that nothing was committed, and the next writer continues."""
    log = log_of(tmp_path)
    monkeypatch.setattr(delta_log_module, "CHECKPOINT_INTERVAL", 1)
    commit_segment(log, 0)
    with monkeypatch.context() as patch:
        patch.setattr(delta_log_module, "json_lines", lambda *arguments: "read_json('/nowhere/rows')")
        with pytest.raises(AuditWriteError, match="all commits are complete"):
            commit_segment(log, 1)
    other = log_of(tmp_path)
    assert not commit_segment(other, 1)
    assert commit_segment(other, 2)
    assert state(log_of(tmp_path)) == state(other)


def test_commit_is_built_again_after_another_writer_was_first(tmp_path):
    """A writer that knows an old state commits after the newest one, with actions for it."""
    first, second = log_of(tmp_path), log_of(tmp_path)
    second.update()
    commit_segment(first, 0)
    assert commit_segment(second, 1)
    assert not commit_segment(first, 1)
    assert state(log_of(tmp_path))[0] == 1


def test_racing_writers_commit_each_segment_once(tmp_path):
    """Of eight threads that commit the same segments at once, one succeeds for each segment."""
    results = []

    def work():
        log = log_of(tmp_path)
        results.append([commit_segment(log, number) for number in range(10)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [sum(column) for column in zip(*results, strict=True)] == [1] * 10
    assert len(state(log_of(tmp_path))[1]) == 10


def test_commit_whose_answer_was_lost_counts_as_committed(tmp_path):
    """A store that creates the file, but answers that it exists, has committed: its files must not be deleted."""

    class Forgetful(LocalStorage):
        def create(self, path, data):
            super().create(path, data)
            raise FileExistsError(path)

    storage = Forgetful(str(tmp_path))
    assert commit_segment(DeltaLog(storage, Database(storage).connect), 0)


def commits_of(tmp_path, count=3):
    log = log_of(tmp_path)
    for number in range(count):
        commit_segment(log, number)
    return tmp_path / "_delta_log"


def test_missing_commit_is_an_error_that_names_it(tmp_path):
    """A gap among the commits is not taken for their end."""
    folder = commits_of(tmp_path)
    (folder / f"{1:020}.json").unlink()
    with pytest.raises(AuditReadError, match=r"0001\.json: expected a commit, got none although later ones exist"):
        log_of(tmp_path).update()


def test_commits_that_appear_between_two_reads_are_all_read(tmp_path):
    """A commit that is looked for before another writer creates it and its successor is no gap."""
    writer = log_of(tmp_path)
    commit_segment(writer, 0)

    class Interrupted(LocalStorage):
        def read_existing(self, paths):
            early = super().read_existing(paths[:2])
            if len(paths) > 2 and writer.snapshot.version == 0:
                commit_segment(writer, 1)
                commit_segment(writer, 2)
            return early + super().read_existing(paths[2:])

    storage = Interrupted(str(tmp_path))
    assert DeltaLog(storage, Database(storage).connect).update().version == 2


@pytest.mark.parametrize("content", [b"", b'{"commitInfo":{"times', b"\0" * 100])
def test_half_written_commit_is_an_error_that_names_it(tmp_path, content):
    """A commit that was not copied completely is never taken for less than it was."""
    folder = commits_of(tmp_path)
    (folder / f"{2:020}.json").write_bytes(content)
    with pytest.raises(AuditReadError, match=r"0002\.json: expected a commit, got .*copy this file again"):
        log_of(tmp_path).update()


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    """The log of an archive with a checkpoint between its commits, a reader of it, and its state."""
    folder = tmp_path_factory.mktemp("archive")
    log = log_of(folder)
    for number in range(6):
        commit_segment(log, number)
        if number == 2:
            log.write_checkpoint(NOW)

    connect = Database(log.storage).connect
    return folder / "_delta_log", lambda: DeltaLog(log.storage, connect), state(log)


@given(st.data())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_log_with_any_flipped_bit_is_an_error_or_has_its_state(folded, data):
    """In no file of the log a changed byte changes what the archive holds in silence."""
    folder, reader, expected = folded
    path = folder / data.draw(st.sampled_from(sorted(path.name for path in folder.iterdir())))
    content = path.read_bytes()
    place, bit = data.draw(st.integers(0, len(content) - 1)), data.draw(st.integers(0, 7))
    changed = content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]
    path.write_bytes(changed)
    try:
        with suppress(AuditReadError):
            assert state(reader()) == expected
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("number", [1, 2])
def test_commit_of_another_place_is_an_error(tmp_path, number):
    """Each commit names the one before it: a copy of another commit, or of another archive, is not taken for it."""
    folder = commits_of(tmp_path / "one")
    other = commits_of(tmp_path / "two", 4)
    (folder / f"{number:020}.json").write_bytes((other / f"{number + 1:020}.json").read_bytes())
    with pytest.raises(AuditReadError, match=r"got changed data, or a commit of another archive"):
        log_of(tmp_path / "one").update()


def rewrite(folder, change):
    """Change the first commit of a log."""
    path = folder / f"{0:020}.json"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        change(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_archive_of_a_newer_format_is_refused(tmp_path):
    """The message says what to upgrade."""
    folder = commits_of(tmp_path)
    rewrite(folder, lambda line: line.get("metaData", {}).get("configuration", {}).update({"audit.format": "2"}))
    with pytest.raises(AuditReadError, match=r"expected format 1 of an archive, got '2': pip install --upgrade"):
        log_of(tmp_path).update()


def test_table_with_a_newer_protocol_is_refused(tmp_path):
    """Deletion vectors of another program would be ignored otherwise."""
    folder = commits_of(tmp_path)
    rewrite(folder, lambda line: line.get("protocol", {}).update(minReaderVersion=3))
    with pytest.raises(AuditReadError, match=r"expected Delta's protocol 1/2, got 3/"):
        log_of(tmp_path).update()


def test_delta_table_of_another_program_is_refused(tmp_path):
    """Neither read nor extended: the table has no format of an archive."""
    folder = commits_of(tmp_path)
    rewrite(folder, lambda line: line.get("metaData", {}).get("configuration", {}).clear())
    with pytest.raises(AuditReadError, match=r"expected an archive of structlog-audit, got another Delta table"):
        open_archive(tmp_path)
    trail = write_closed(tmp_path / "logs", line_of(1))
    with pytest.raises(AuditReadError, match=r"got another Delta table"):
        compacted(trail, tmp_path)


def test_file_that_another_program_added_is_refused(tmp_path):
    """A file without tags cannot be placed in the order of any trail."""
    commits_of(tmp_path)
    add = {"path": "x.parquet", "partitionValues": {}, "size": 1, "modificationTime": 1, "dataChange": True}
    (tmp_path / "_delta_log" / f"{3:020}.json").write_text(json.dumps({"add": add}) + "\n")
    with pytest.raises(
        AuditReadError, match=r"got one without a digest, of another program or damaged: .* restore the table"
    ):
        log_of(tmp_path).update()


def test_folder_without_a_log_is_no_archive(tmp_path):
    """The message names the command that makes one."""
    with pytest.raises(
        AuditReadError, match=r"expected an archive, got no _delta_log; structlog-audit compact makes one"
    ):
        open_archive(tmp_path)
