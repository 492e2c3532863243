"""The commands ``compact`` and ``archive``, and archives in place of trails."""

from __future__ import annotations

import json
import shutil

import pytest
from commands import GOLDEN, run
from trail_files import line_of, rolled_name, write_trail

from structlog_audit.cli.exit_codes import Exit


@pytest.fixture
def trail(tmp_path, monkeypatch):
    """A trail with two closed segments in the working folder, of which 58 events are in the first."""
    monkeypatch.chdir(tmp_path)
    write_trail(
        tmp_path / "logs", (100, GOLDEN.read_bytes()), (200, line_of(900)), (300, line_of(901)), active=line_of(902)
    )
    return "logs/audit.jsonl"


def test_compact_reports_segments_events_and_sizes(trail):
    """One line states what was archived and that it is verified; the second run finds nothing."""
    done = run("compact", trail, "--to", "archive", "--promote", "source")
    assert (done.code, done.err) == (Exit.DONE, "")
    assert done.out.startswith("2 segments, 59 events: 15 kB → ")
    assert done.out.endswith(" kB, verified\n")
    assert run("compact", trail, "--to", "archive").out == "nothing new\n"


def test_json_has_what_the_text_says(trail, tmp_path):
    """-o json writes the outcome of compact, and of show and verify of an archive, as one document."""
    done = json.loads(run("compact", trail, "--to", "archive", "-o", "json").out)
    assert (done["segments"], done["events"], done["deleted"], done["problems"]) == (2, 59, [], {})

    shown = json.loads(run("archive", "show", "archive", "-o", "json").out)
    assert (shown["events"], shown["first_day"], shown["pruned_before"]) == (59, "2025-01-15", None)
    assert json.loads(run("archive", "verify", "archive", "-o", "json").out)["findings"] == []

    file, *_ = (tmp_path / "archive").glob("date=*/*.parquet")
    file.unlink()
    damaged = run("archive", "verify", "archive", "-o", "json")
    assert damaged.code == Exit.FINDINGS
    assert json.loads(damaged.out)["findings"][0]["code"] == "missing"


def test_compact_deletes_after_an_age(trail):
    """The number of deleted segments is reported."""
    done = run("compact", trail, "--to", "archive", "--delete-after", "1d")
    assert done.lines[1] == "2 archived segments deleted"


def test_compact_reports_problems(trail, tmp_path):
    """Lines that are not events are counted, and are findings with --strict."""
    (tmp_path / "logs" / rolled_name("audit.jsonl", 150)).write_bytes(line_of(5) + b"junk\n")
    done = run("compact", trail, "--to", "archive", "--strict")
    assert done.code == Exit.FINDINGS
    assert "1 foreign" in done.error_line


@pytest.mark.parametrize(
    "words",
    [
        ["query", "user_id=ann", "-o", "jsonl"],
        ["query", "operation~^[SR]", "status!=SUCCESS", "-o", "jsonl", "--all"],
        ["query", "metadata.source=api", "-n", "3", "-o", "jsonl"],
        ["query", "-r", "-n", "4", "-o", "jsonl", "--since", "2025-01-15T10:30:20Z"],
        ["tail", "-n", "5", "-o", "jsonl"],
        ["stats", "-o", "json"],
        ["stats", "-o", "json", "user_id~^a"],
        ["users", "-o", "jsonl"],
        ["export", "--to", "x.csv", "--force"],
        ["report", "--json", "x.json", "--force"],
    ],
    ids=lambda words: " ".join(words),
)
def test_archive_in_place_of_a_trail_gives_the_same_answer(trail, tmp_path, words):
    """An archive and its live trail answer each command as the files did, also after the segments were deleted."""
    command, *rest = words

    def answer(*paths):
        done = run(command, *paths, *rest)
        table = tmp_path / "x.csv"
        out = done.out
        if command == "stats":
            # The verdict names its source.
            out = {**json.loads(out), "completeness": None}
        return done.code, out, table.read_bytes() if table.exists() else None

    expected = answer(trail)
    assert run("compact", trail, "--to", "archive", "--promote", "source").code == Exit.DONE
    for number in (100, 200):
        (tmp_path / "logs" / rolled_name("audit.jsonl", number)).unlink()
    assert answer("archive", trail) == expected


def test_two_archives_are_refused(trail):
    """The message names both."""
    run("compact", trail, "--to", "archive")
    shutil.copytree("archive", "copy")
    done = run("query", "archive", "copy")
    assert done.code == Exit.USAGE
    assert done.error_line == "expected one archive, got 'archive' and 'copy'"


def test_archive_without_a_log_is_unreadable(trail, tmp_path):
    """Each command of the group says what it expected."""
    for command in (["show"], ["verify"], ["merge"], ["gc"], ["restore", "--to", "x"], ["prune", "--older-than", "1d"]):
        done = run("archive", command[0], "nothing", *command[1:])
        assert done.code == Exit.UNREADABLE
        assert "expected an archive, got no _delta_log" in done.error_line


def test_show_verify_restore_merge_prune_and_gc(trail, tmp_path):
    """The commands of the group report what they did, and verify finds damage."""
    before = (tmp_path / "logs" / rolled_name("audit.jsonl", 100)).read_bytes()
    run("compact", trail, "--to", "archive", "--promote", "source", "--host", "h1")

    shown = run("archive", "show", "archive").lines
    assert shown[0] == "2 segments, 59 events, 2025-01-15 to 2025-01-15 (UTC)"
    assert shown[2:] == [f"  h1:{tmp_path}/logs/audit.jsonl  59 events", "  column md_source  /source"]
    assert run("archive", "verify", "archive").out == "2 segments, 59 events: verified\n"
    assert run("archive", "restore", "archive", "--to", "back").out == "2 segments in back, 15 kB, verified\n"
    assert (tmp_path / "back" / rolled_name("audit.jsonl", 100)).read_bytes() == before

    assert run("archive", "merge", "archive").out == "2 files merged to 1\n"
    assert run("archive", "merge", "archive").out == "nothing to merge\n"
    assert run("archive", "gc", "archive").out == "0 files deleted, 0 bytes\n"
    assert run("archive", "gc", "archive", "--older-than", "0s").out.startswith("2 files deleted, ")
    assert run("archive", "verify", "archive").out == "2 segments, 59 events: verified\n"

    [file] = (tmp_path / "archive").glob("date=*/*.parquet")
    data = file.read_bytes()
    file.unlink()
    damaged = run("archive", "verify", "archive")
    assert damaged.code == Exit.FINDINGS
    assert f"missing: {file.relative_to(tmp_path / 'archive')}" in damaged.err
    file.write_bytes(data)

    assert run("archive", "prune", "archive", "--older-than", "1d").out == "59 events pruned\n"
    shown = run("archive", "show", "archive").lines
    assert shown[0].endswith(" 0 events, –")
    assert "were pruned" in shown[-1]
    assert run("archive", "restore", "archive", "--to", "again").code == Exit.FINDINGS
    assert run("archive", "prune", "archive", "--older-than", "soon").code == Exit.USAGE
