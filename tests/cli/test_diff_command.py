"""The command ``diff``."""

from __future__ import annotations

import json

import pytest
from commands import GOLDEN, run
from trail_files import line_of, write_trail

from structlog_audit.cli.exit_codes import Exit

RANGE = ["--since", "2025-01-15T10:30:30Z", "--until", "2025-01-15T10:31:00Z"]


@pytest.fixture
def trail(tmp_path, monkeypatch):
    """A trail with two closed segments in the working folder, and another trail."""
    monkeypatch.chdir(tmp_path)
    write_trail(tmp_path / "logs", (100, GOLDEN.read_bytes()), (200, line_of(900)), active=line_of(902))
    (tmp_path / "other.jsonl").write_bytes(GOLDEN.read_bytes())
    return "logs/audit.jsonl"


def comparison(*words):
    """Return the data that the command shows."""
    done = run("diff", *words, "-o", "json")
    assert done.code == Exit.DONE, done.err
    return json.loads(done.out)


def bounds(side):
    """Return the time range of a side, to the second."""
    return [None if side[name] is None else side[name][:19] for name in ("start", "end")]


def test_text_is_the_document_and_json_its_data(trail):
    """The default is Markdown; both state the same numbers."""
    done = run("diff", trail, *RANGE)
    found = comparison(trail, *RANGE)
    assert done.lines[0].startswith("# Comparison: ")
    assert (found["before"]["total"], found["now"]["total"]) == (29, 24)
    assert "| 29 | 24 | 3 | 2 | 7 | 4 |" in done.lines


def test_range_before_is_of_the_same_length_unless_it_is_given(trail):
    """``--against-since`` and ``--against-until`` name another one."""
    assert bounds(comparison(trail, *RANGE)["before"]) == ["2025-01-15T10:30:00", "2025-01-15T10:30:30"]
    found = comparison(trail, *RANGE, "--against-since", "2025-01-14", "--against-until", "2025-01-15")
    assert bounds(found["before"]) == ["2025-01-14T00:00:00", "2025-01-15T00:00:00"]


def test_month_is_compared_with_the_month_before_in_its_zone(trail):
    """Months begin at midnight of the zone that --tz names, also across a change of the year."""
    found = comparison(trail, "--month", "2025-01", "--tz", "Europe/Berlin")
    assert bounds(found["now"]) == ["2024-12-31T23:00:00", "2025-01-31T23:00:00"]
    assert bounds(found["before"]) == ["2024-11-30T23:00:00", "2024-12-31T23:00:00"]


def test_other_trail_or_archive_is_compared_for_the_same_range(trail):
    """Two equal trails do not differ; the archive of one answers as its files."""
    found = comparison(trail, "--against", "other.jsonl", "--month", "2025-01")
    assert bounds(found["before"]) == bounds(found["now"])
    assert found["before"]["total"] == found["now"]["total"] - 2
    assert run("compact", trail, "--to", "archive").code == Exit.DONE
    archived = comparison("archive", "--against", "other.jsonl", "--until", "2025-01-15T10:30:40Z")
    assert archived["before"]["total"] == archived["now"]["total"]
    assert sum(archived[name]["changes"] for name in ("operations", "failures", "durations", "users")) == 0


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["TRAIL"], Exit.USAGE, "expected --since or --month, --against-since, or --against TRAIL"),
        (["TRAIL", "--until", "1d"], Exit.USAGE, "expected --since or --month"),
        (["TRAIL", "--since", "1d", "status=FAILURE"], Exit.USAGE, "diff compares all events of its time ranges"),
        (["TRAIL", "--since", "1d", "--against", "-"], Exit.USAGE, "--against -: expected the path"),
        (["TRAIL", "--since", "1d", "--against", "missing.jsonl"], Exit.UNREADABLE, "missing.jsonl"),
        (
            ["TRAIL", "--since", "1d", "--against-since", "1h", "--against-until", "2h"],
            Exit.USAGE,
            "--against-since='1h'",
        ),
        (["TRAIL", "--since", "1d", "--against-since", "x"], Exit.USAGE, "--against-since='x': expected a time"),
        (["TRAIL", "--month", "x"], Exit.USAGE, "--month='x'"),
        (["TRAIL", "--month", "2999-01"], Exit.USAGE, "2999-01"),
        (["TRAIL", "--since", "2025-01-15", "--until", "2025-01-15"], Exit.USAGE, "range that is not empty"),
        (["TRAIL", "--since", "2025-01-15", "--until", "2025-01-14"], Exit.USAGE, "must not be later than"),
        (["TRAIL", "--since", "1d", "--against", "./TRAIL"], Exit.USAGE, "expected another trail"),
        (["TRAIL", "--since", "2d", "--against-since", "1d"], Exit.USAGE, "--against-since, --against-until: "),
        (
            ["TRAIL", "--since", "0001-01-02"],
            Exit.USAGE,
            "before it: give a later --since, or another trail as --against",
        ),
        (["TRAIL", "--since", "1d", "--against", "folder"], Exit.UNREADABLE, "folder"),
        (["TRAIL", "--since", "1d", "-o", "csv"], Exit.USAGE, "csv"),
        (["TRAIL", "--since", "1d", "-o", "json", "--html", "x.html"], Exit.USAGE, "--output json cannot be combined"),
        (["TRAIL", "--since", "1d", "--json", "x", "--html", "x"], Exit.USAGE, "only one format can be written to x"),
        (["TRAIL", "--since", "1d", "--html", "other.jsonl"], Exit.USAGE, "other.jsonl already exists"),
        (["TRAIL", "--since", "1d", "--html", "other.jsonl/x.html"], Exit.UNREADABLE, "other.jsonl"),
        (["missing.jsonl", "--since", "1d"], Exit.UNREADABLE, "missing.jsonl"),
        (["--since", "1d"], Exit.USAGE, "expected a trail"),
    ],
)
def test_wrong_usage_is_one_line(trail, tmp_path, words, code, message):
    """The line names the option and what it expected."""
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = run("diff", *(word.replace("TRAIL", trail) for word in words))
    assert (done.code, done.out) == (code, "")
    assert sorted(tmp_path.rglob("*")) == before
    assert message in done.error_line


def readings(path):
    """Return the metadata of each recorded reading of the trail at *path*, without the user of the process."""
    own = ("os_user", "uid", "pid", "sudo_user")
    events = run("query", path, "operation=read", "--all", "-o", "jsonl").events
    return [{name: value for name, value in event["metadata"].items() if name not in own} for event in events]


def test_reading_is_recorded_in_each_trail_once_with_both_ranges(trail):
    """The trail to compare with is read, too; a trail that is named twice is one."""
    done = run(
        "diff", trail, f"./{trail}", *RANGE, "--against", "other.jsonl", "--against-since", "2025-01-14", "--record"
    )
    assert done.code == Exit.DONE
    expected = {
        "command": "diff",
        "since": "2025-01-15T10:30:30.000000Z",
        "until": "2025-01-15T10:31:00.000000Z",
        "against": ["other.jsonl"],
        "against_since": "2025-01-14T00:00:00.000000Z",
    }
    assert readings(trail) == [expected]
    assert readings("other.jsonl") == [expected]


def test_reading_that_cannot_be_recorded_everywhere_is_recorded_nowhere(trail, tmp_path):
    """Nothing is read, and no trail has a record of it."""
    before = (tmp_path / "logs" / "audit.jsonl").read_bytes()
    done = run("diff", trail, *RANGE, "--against", "missing.jsonl", "--record")
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert "--record: expected the active file of each trail, got 'missing.jsonl'" in done.error_line
    assert run("diff", trail, *RANGE, "status=FAILURE", "--record").code == Exit.USAGE
    assert (tmp_path / "logs" / "audit.jsonl").read_bytes() == before


def test_documents_are_written_to_files_in_each_form(trail, tmp_path):
    """As those of ``report``: several at once, and none is replaced without ``--force``."""
    words = ["--html", "d.html", "--json", "d.json", "--markdown", "-"]
    done = run("diff", trail, *RANGE, *words)
    assert done.lines[0].startswith("# Comparison: ")
    assert (tmp_path / "d.html").read_text().startswith("<!DOCTYPE html>")
    assert json.loads((tmp_path / "d.json").read_text())["now"]["total"] == 24
    assert run("diff", trail, *RANGE, "-o", "html").out.startswith("<!DOCTYPE html>")
    (tmp_path / "d.html").write_text("mine")
    (tmp_path / "d.json").unlink()
    assert run("diff", trail, *RANGE, "--json", "d.json", "--html", "d.html").code == Exit.USAGE
    assert (tmp_path / "d.html").read_text() == "mine"
    assert not (tmp_path / "d.json").exists()


def test_strict_exits_with_findings_if_events_are_missing(trail):
    """Missing events of either side look like a change."""
    assert run("diff", trail, *RANGE, "--strict").code == Exit.FINDINGS
