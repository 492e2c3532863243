"""The upkeep of an archive: merge, prune, gc, verify and restore."""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import re
import shutil
import stat
import subprocess

import pytest
from archives import all_ids, compacted, digests, write_closed
from commands import PROGRAM, environment
from trail_files import at, line_of, rolled_name

from structlog_audit import AuditReadError, AuditValueError, AuditWriteError
from structlog_audit.archive import compaction as compaction_module
from structlog_audit.archive import gc, merge, open_archive, prune, restore, show, verify
from structlog_audit.archive import maintenance as maintenance_module
from structlog_audit.archive import storage as storage_module
from structlog_audit.archive.opening import opened_log
from structlog_audit.archive.promotion import promoted_columns

DAY = 86_400
LATER = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


@pytest.fixture
def archive(tmp_path):
    """An archive of four segments on two days, one of which has a line that is not an event."""
    datas = [line_of(1), line_of(2) + b"junk\n", line_of(3, DAY), line_of(4, DAY)]
    path = write_closed(tmp_path / "logs", *datas, second=2 * DAY, last=3 * DAY)
    compacted(path, tmp_path / "archive")
    return tmp_path / "archive"


def ids_in(archive):
    with open_archive(archive) as source:
        return all_ids(source)


def test_merged_archive_has_the_same_events_and_segments(archive, tmp_path):
    """Files of one trail and day become one; queries and restored segments are unchanged."""
    before = ids_in(archive)
    assert (merge(archive).before, show(archive).files) == (4, 2)
    assert ids_in(archive) == before
    assert verify(archive).findings == ()
    restore(archive, tmp_path / "restored")
    # A failed restoration leaves no folder.
    restored = digests(tmp_path / "restored") if (tmp_path / "restored").exists() else {}
    assert restored.items() <= digests(tmp_path / "logs").items()


def test_progress_of_a_merge_reaches_the_size_of_the_merged_files(archive):
    """A merge of years takes minutes; the command line shows a bar."""
    size = show(archive).bytes_stored
    calls = []
    merge(archive, progress=calls.append)
    assert calls == sorted(set(calls))
    assert calls[-1] == size


def test_files_with_other_promoted_columns_are_not_merged(archive, tmp_path):
    """A file without a column would have NULL there, and lose events."""
    path = write_closed(
        tmp_path / "more", line_of(50, metadata={"a": "x"}), line_of(51, metadata={"a": "x"}), second=300
    )
    compacted(path, archive, promote=["a"])
    merge(archive)
    with open_archive(archive) as source:
        assert source.count_events(metadata={"a": "x"}) == 2


def test_merge_of_files_that_were_replaced_meanwhile_is_discarded(archive, monkeypatch):
    """Of two merges at once one is committed, and the other leaves no file."""
    ran = []

    def write(*arguments):
        if not ran:
            ran.append(True)
            merge(archive)
        return write_parquet(*arguments)

    write_parquet = maintenance_module.write_parquet
    monkeypatch.setattr(maintenance_module, "write_parquet", write)
    assert merge(archive).after == 0
    assert show(archive).files == 2
    assert gc(archive, older_than="0s", now=lambda: LATER + dt.timedelta(days=999)).files == 4


def test_merged_file_with_other_rows_is_not_committed(archive, monkeypatch):
    """Merging verifies the rows before it replaces their files."""
    write_parquet = maintenance_module.write_parquet

    def faulty(connection, source, selected, target, parameters):
        write_parquet(connection, source, selected.replace("user_id", "'eve' AS user_id"), target, parameters)

    monkeypatch.setattr(maintenance_module, "write_parquet", faulty)
    with pytest.raises(AuditWriteError, match="would not hold the same rows"):
        merge(archive)
    assert show(archive).files == 4


def test_pruned_days_are_gone_and_stated(archive, tmp_path):
    """Whole days are dropped; segments of which days are missing are neither restored nor damaged."""
    assert prune(archive, dt.timedelta(hours=1), now=lambda: at(DAY)) == 2
    assert len(ids_in(archive)) == 2
    assert show(archive).pruned_before == dt.datetime(2025, 1, 16, tzinfo=dt.UTC)
    done = verify(archive)
    assert (done.segments, done.pruned, done.findings) == (2, 2, ())
    restored = restore(archive, tmp_path / "restored")
    assert (len(restored.files), len(restored.pruned)) == (2, 2)


def test_gc_keeps_files_that_readers_and_compactors_may_use(archive):
    """A replaced file counts from its replacement, an unknown one from its last change; used files always stay."""
    merged_at = dt.datetime.now(dt.UTC)
    merge(archive, now=lambda: merged_at)
    orphan = archive / "date=2025-01-15" / "orphan.parquet"
    orphan.write_bytes(b"x")
    (archive / "_quarantine" / "orphan.jsonl").write_bytes(b"x")
    assert gc(archive, now=lambda: merged_at + dt.timedelta(hours=23)).files == 0
    assert gc(archive, now=lambda: merged_at + dt.timedelta(hours=25)).files == 6
    assert verify(archive).findings == ()


@pytest.mark.parametrize("what", ["data file", "quarantine", "missing quarantine"])
def test_damage_is_found_and_not_restored(archive, tmp_path, what):
    """A byte that changed in any file is found, and never restored as if it were right."""
    pattern = "date=2025-01-15/*.parquet" if what == "data file" else "_quarantine/*"
    for path in archive.glob(pattern):
        data = path.read_bytes()
        if what == "missing quarantine":
            path.unlink()
        else:
            middle = len(data) // 2
            path.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    findings = verify(archive).findings
    assert findings
    assert {finding.code for finding in findings} == {"damaged"}
    # A byte that no segment needs, such as one of an index, does not prevent its restoration.
    with contextlib.suppress(AuditReadError, OSError):
        restore(archive, tmp_path / "restored")
        assert what == "data file"
    # A failed restoration leaves no folder.
    restored = digests(tmp_path / "restored") if (tmp_path / "restored").exists() else {}
    assert restored.items() <= digests(tmp_path / "logs").items()


def test_restore_replaces_no_file_with_other_bytes(archive, tmp_path):
    """An existing file with the same bytes is fine."""
    restore(archive, tmp_path / "restored")
    restore(archive, tmp_path / "restored")
    (tmp_path / "restored" / rolled_name("audit.jsonl", 2 * DAY)).write_bytes(b"mine")
    with pytest.raises(AuditWriteError, match="exists with other bytes: restore to an empty folder"):
        restore(archive, tmp_path / "restored")


def test_trails_are_restored_to_folders_of_their_own(archive, tmp_path):
    """Segments of several hosts may have equal names."""
    compacted(write_closed(tmp_path / "h2", line_of(70), second=2 * DAY, last=3 * DAY + 5), archive, host="h2")
    restored = restore(archive, tmp_path / "restored")
    assert len(set(restored.files)) == 5
    assert len(list((tmp_path / "restored").iterdir())) == 2


def test_numbered_files_are_restored_under_the_times_of_their_events(tmp_path):
    """The number of a file is another after each rollover; its last event names it for good."""
    path = tmp_path / "logs" / "audit.jsonl"
    path.parent.mkdir()
    for number in (3, 2, 1):
        path.with_name(f"audit.jsonl.{number}").write_bytes(line_of(10 - number))
    path.write_bytes(line_of(20))
    done = compacted(path, tmp_path / "archive", delete_after="0s", now=lambda: LATER)
    assert (done.events, done.deleted) == (2, ())
    restore(tmp_path / "archive", tmp_path / "restored")
    assert sorted(digests(tmp_path / "restored")) == [rolled_name("audit.jsonl", 7), rolled_name("audit.jsonl", 8)]


@pytest.mark.parametrize("work", [lambda a: prune(a, "soon"), lambda a: gc(a, older_than="soon")])
def test_invalid_age_is_refused(archive, work):
    """The message names the parameter and an example."""
    with pytest.raises(AuditValueError, match="older_than='soon': expected a duration such as 30d or 12h"):
        work(archive)


needs_setpriv = pytest.mark.skipif(
    shutil.which("setpriv") is None or os.geteuid() != 0, reason="needs root and setpriv to drop capabilities"
)


def run_without_rights(*words):
    """Run the program as a user for whom the rights of files count."""
    dropped = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    command = [*dropped, *PROGRAM, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)


@needs_setpriv
@pytest.mark.parametrize("what", ["file", "folder"])
@pytest.mark.parametrize(
    ("command", "code", "named"),
    [
        (["stats", "ARCHIVE"], 3, "permission denied: give this user the right"),
        (["archive", "verify", "ARCHIVE"], 4, "unreadable: date=2025-01-15"),
        (
            ["archive", "restore", "ARCHIVE", "--to", "ARCHIVE.restored"],
            3,
            "permission denied: give this user the right",
        ),
        (["archive", "merge", "ARCHIVE"], 3, "permission denied: give this user the right"),
    ],
)
def test_data_that_may_not_be_read_is_not_taken_for_missing(archive, command, code, named, what):
    """Of a folder without rights DuckDB finds no files: the error says that the right is missing, and nothing is written."""
    folder = archive / "date=2025-01-15"
    refused = [folder] if what == "folder" else list(folder.iterdir())
    for path in refused:
        path.chmod(0)
    before = sorted(archive.glob("_delta_log/*"))
    done = run_without_rights(*(word.replace("ARCHIVE", str(archive)) for word in command))
    for path in refused:
        path.chmod(0o700)

    assert (done.returncode, named in done.stderr, "No files found" in done.stderr) == (code, True, False), done.stderr
    assert sorted(archive.glob("_delta_log/*")) == before


@needs_setpriv
def test_gc_does_not_pass_over_a_folder_that_may_not_be_read(archive):
    """What may not be listed is not taken for empty."""
    folder = archive / "date=2025-01-15"
    folder.chmod(0)
    done = run_without_rights("archive", "gc", archive)
    folder.chmod(0o700)
    assert (done.returncode, done.stdout) == (3, "")
    assert f"{folder}: permission denied: give this user the right" in done.stderr


@needs_setpriv
@pytest.mark.parametrize("command", [["stats"], ["archive", "show"], ["archive", "gc"]])
def test_log_that_may_not_be_read_is_an_error_with_advice(archive, command):
    """The log of an archive has the same advice as its data files."""
    log = archive / "_delta_log"
    log.chmod(0o600)
    done = run_without_rights(*command, archive)
    log.chmod(0o700)
    assert (done.returncode, done.stdout) == (3, "")
    assert "_last_checkpoint: permission denied: give this user the right" in done.stderr


@pytest.mark.parametrize("below", ["", "deeper/still"])
def test_file_in_place_of_a_folder_is_refused(archive, tmp_path, below):
    """`compact` and `restore` say what they expected, and leave the file alone."""
    file = tmp_path / "file"
    file.write_bytes(b"kept")
    message = rf"expected a folder, got the file '{re.escape(str(file))}': name a folder"
    with pytest.raises(AuditWriteError, match=message):
        compacted(tmp_path / "logs" / "audit.jsonl", file / below)
    with pytest.raises(AuditWriteError, match=message):
        restore(archive, file / below)
    assert file.read_bytes() == b"kept"


@pytest.mark.parametrize(
    ("place", "message"),
    [("archive", "expected a folder for segments, got that of an archive"), ("s3://bucket/x", "got a URL")],
)
def test_place_that_is_no_folder_for_segments_is_refused(archive, tmp_path, monkeypatch, place, message):
    """Segments do not belong into an archive, and a URL would be a folder such as ``s3:`` on this machine."""
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(AuditValueError, match=f"^to='{place}': .*{message}"):
        restore(archive, place)
    assert sorted(tmp_path.rglob("*")) == before


def test_new_archive_and_restored_segments_are_their_owners_alone(tmp_path):
    """So are the trails. A folder that exists keeps its mode: who made it decides who may enter."""
    path = write_closed(tmp_path / "logs", line_of(1))
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o755)
    compacted(path, tmp_path / "new" / "archive")
    compacted(path, tmp_path / "shared")
    (restored,) = restore(tmp_path / "shared", tmp_path / "restored").files

    modes = [stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in ("new", "new/archive", "shared", restored)]
    assert modes == [0o700, 0o700, 0o755, 0o600]


def test_full_disk_names_the_file_of_the_archive(archive, monkeypatch):
    """A failed write does not name its file: the trail, the scratch folder and the archive may be on disks of their own."""

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage_module, "_write", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/archive/_delta_log/0*4\.json'"):
        prune(archive, "1d")


def test_days_that_were_archived_after_they_were_pruned_are_whole(archive, tmp_path):
    """Only the log of an archive knows that a day was pruned; what came later is verified and restored as other days."""
    prune(archive, dt.timedelta(hours=1), now=lambda: at(DAY))
    path = write_closed(tmp_path / "h2", line_of(70) + line_of(71, DAY), second=2 * DAY, last=3 * DAY)
    compacted(path, archive, host="h2")

    done = verify(archive)
    assert (done.segments, done.events, done.pruned, done.findings) == (3, 4, 2, ())
    restored = restore(archive, tmp_path / "restored")
    assert (len(restored.files), len(restored.pruned)) == (3, 2)


@pytest.mark.parametrize("name", ["../outside", "/outside", "..", "a/b"])
def test_name_that_leads_out_of_the_folder_is_not_restored(tmp_path, monkeypatch, name):
    """The names of segments come from the log of an archive, which may be of somebody else."""
    monkeypatch.setattr(compaction_module, "plain_name", lambda path: name)
    compacted(write_closed(tmp_path / "logs", line_of(1)), tmp_path / "archive")
    with pytest.raises(AuditReadError, match="expected the name of a segment in the log"):
        restore(tmp_path / "archive", tmp_path / "restored")
    assert {path.name for path in tmp_path.iterdir()} <= {"logs", "archive", "restored"}


@pytest.mark.parametrize("columns", ['{"md_x, secret":["x"]}', '{"md_X":["x"]}', '["md_x"]', "{"])
def test_promoted_columns_with_other_names_are_refused(columns):
    """The names become SQL: those of an archive of somebody else must have the form that the library gives them."""
    with pytest.raises(AuditReadError, match=r"audit\.promoted"):
        promoted_columns({"audit.promoted": columns})


@pytest.mark.parametrize("what", ["missing", "damaged"])
def test_completeness_is_not_judged_by_a_damaged_quarantine(archive, what):
    """The lines in it are evidence: without them, or with others, there is an error that names the cause, and no verdict."""
    (path,) = archive.glob("_quarantine/*")
    path.unlink() if what == "missing" else path.write_bytes(path.read_bytes().replace(b'"data":"', b'"data":"AAAA'))
    with open_archive(archive) as source, pytest.raises(AuditReadError, match=r"cannot be read|are damaged"):
        source.completeness()


@pytest.mark.parametrize(("what", "number"), [("missing", 0), ("missing", 1), ("damaged", 1)])
def test_lost_commit_before_a_checkpoint_is_found(archive, what, number):
    """Readers do not need it, until the checkpoint is lost."""
    with opened_log(archive, None) as (log, _):
        log.write_checkpoint(LATER)
    path = archive / "_delta_log" / f"{number:020}.json"
    path.unlink() if what == "missing" else path.write_bytes(path.read_bytes().replace(b"COMPACT", b"compact"))
    before = ids_in(archive)
    assert len(before) == 4
    ((code, place, reason),) = verify(archive).findings
    assert place == "_delta_log"
    assert code in ("damaged", "missing")
    assert f"{number:020}.json" in reason or reason == "the commit 0"
