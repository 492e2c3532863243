"""The command line beside real writers, with missing permissions, and on a full disk."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys

import pytest
from children import without_coverage
from commands import GOLDEN, PROGRAM, environment
from trails import WRITER, WriterOutput

from structlog_audit import AuditLogger

pytestmark = pytest.mark.system


def followed(trail, writers, *options):
    """Run *writers* under a ``tail -f`` that started first; return the printed ids and the output of the writers."""
    command = [*PROGRAM, "tail", "-f", "-o", "jsonl", "-n", "1", str(trail), *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=without_coverage(environment())
    ) as tail:
        try:
            tail.stdout.readline()
            done = subprocess.run(
                [sys.executable, WRITER, *map(str, writers)], capture_output=True, text=True, timeout=300, check=True
            )
            writer_output = WriterOutput(done.stdout)
            ids = [tail.stdout.readline()[13:49] for _ in range(len(writer_output.acknowledged))]
            tail.send_signal(signal.SIGINT)
            rest, errors = tail.communicate(timeout=60)
        finally:
            tail.kill()
    assert (rest, errors, tail.returncode) == ("", "", 130)
    return ids, writer_output


def test_tail_prints_each_event_of_many_writers_once(tmp_path):
    """While four processes write across more than fifty rollovers, tail -f prints each event once."""
    trail = tmp_path / "audit.jsonl"
    with AuditLogger(filename=trail) as logger:
        logger.record("FIRST")
    ids, writer_output = followed(trail, [trail, "--count", 5_000, "--processes", 4, "--max-bytes", 50_000])
    assert len(list(tmp_path.iterdir())) > 50
    assert len(writer_output.acknowledged) == 20_000
    assert sorted(ids) == sorted(writer_output.acknowledged.values())


def test_tail_follows_a_rollover_by_the_first_write_of_new_writers(tmp_path):
    """tail -f follows new writers that roll the segment over with their first write."""
    trail = tmp_path / "audit.jsonl"
    with AuditLogger(filename=trail) as logger:
        logger.record("FIRST")
    os.truncate(trail, trail.stat().st_size)
    ids, writer_output = followed(trail, [trail, "--count", 50, "--processes", 2, "--max-bytes", 300])
    assert sorted(ids) == sorted(writer_output.acknowledged.values())
    assert len(ids) == 100


needs_setpriv = pytest.mark.skipif(
    shutil.which("setpriv") is None or os.geteuid() != 0, reason="needs root and setpriv to drop capabilities"
)


@needs_setpriv
@pytest.mark.parametrize("command", ["query", "tail", "stats", "users", "report", "export", "doctor"])
@pytest.mark.parametrize("what", ["file", "folder"])
def test_unreadable_trail_is_an_error_that_names_it(tmp_path, command, what):
    """A trail or folder without read permission gives one error line that names it, and exit code 3."""
    folder = tmp_path / "logs"
    folder.mkdir()
    trail = folder / "audit.jsonl"
    shutil.copy(GOLDEN, trail)
    (trail if what == "file" else folder).chmod(0)
    options = ["--to", tmp_path / "x.csv"] if command == "export" else []
    dropped = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    done = subprocess.run(
        [*dropped, *PROGRAM, command, trail, *options], capture_output=True, text=True, env=environment(), check=False
    )
    (trail if what == "file" else folder).chmod(0o700)
    if command == "doctor":
        assert (done.returncode, done.stderr) == (4, "")
        assert f"this user cannot read the trail ({folder}" in done.stdout
        return
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("structlog-audit: ")
    assert done.stderr.count("\n") == 1
    assert str(folder) in done.stderr
    assert not (tmp_path / "x.csv").exists()


@needs_setpriv
@pytest.mark.parametrize(
    "words",
    [["seal", "TRAIL", "--key", "KEY", "--origin", "audit.example/a"], ["erase", "ada", "TRAIL", "--vault", "KEY"]],
)
def test_trail_in_a_folder_that_may_not_be_searched_is_not_taken_for_missing(tmp_path, words):
    """A command that needs the active file reports the refusal of the system, as those that only read."""
    folder = tmp_path / "logs"
    folder.mkdir()
    trail = folder / "audit.jsonl"
    shutil.copy(GOLDEN, trail)
    folder.chmod(0)
    names = {"TRAIL": trail, "KEY": tmp_path / "none"}
    dropped = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    command = [*dropped, *PROGRAM, *(names.get(word, word) for word in words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    folder.chmod(0o700)
    assert (done.returncode, done.stderr) == (3, f"structlog-audit: {trail}: Permission denied\n")


@needs_setpriv
def test_query_that_cannot_record_itself_shows_nothing(tmp_path):
    """With --record and a trail that is readable but not writable, the query fails and shows no events."""
    trail = tmp_path / "audit.jsonl"
    shutil.copy(GOLDEN, trail)
    trail.chmod(0o400)
    dropped = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    words = [*dropped, *PROGRAM, "query", trail]
    shown = subprocess.run(words, capture_output=True, text=True, env=environment(), check=False)
    assert len(shown.stdout.splitlines()) == 54
    done = subprocess.run([*words, "--record"], capture_output=True, text=True, env=environment(), check=False)
    assert (done.returncode, done.stdout) == (3, "")
    assert "so nothing was read" in done.stderr


def test_export_to_a_full_disk_leaves_no_partial_file(tmp_path):
    """An export to a full disk fails and leaves neither a partial file nor a temporary one."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        pytest.skip("needs root and unshare to mount a small disk")
    shutil.copy(GOLDEN, tmp_path / "audit.jsonl")
    (tmp_path / "small").mkdir()
    script = (
        f"mount -t tmpfs -o size=8k none {tmp_path}/small && "
        f"{' '.join(PROGRAM)} export {tmp_path}/audit.jsonl --to {tmp_path}/small/x.csv; echo $?; ls -A {tmp_path}/small"
    )
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout == "3\n"
    assert "No space left" in done.stderr
    assert done.stderr.count("\n") == 1
