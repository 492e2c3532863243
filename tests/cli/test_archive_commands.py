"""The commands ``compact`` and ``archive``, and archives in place of trails."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import duckdb
import pytest
from commands import GOLDEN, run
from seals import Writer
from trail_files import line_of, roll_over, rolled_name, write_trail

from structlog_audit import AuditHandler, Redactor
from structlog_audit.archive.proofs import verify_archived_seals
from structlog_audit.cli.exit_codes import Exit

RULES = """
[[rules]]
name = "failures"
status = "FAILURE"
more_than = 1
within = "1h"

[[rules]]
name = "reads"
operation = ["RECALL", "STORE"]
status = ["SUCCESS", "FAILURE"]
more_than = 2
within = "1h"
per = "user_id"
"""


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


def test_compact_of_a_trail_without_closed_segments_states_which_segments_stay(tmp_path, monkeypatch):
    """The active file and the newest rolled segment stay in the trail; the archive comes with the first closed segment."""
    monkeypatch.chdir(tmp_path)
    write_trail(tmp_path / "logs", (100, line_of(1)), active=line_of(2))
    done = run("compact", "logs/audit.jsonl", "--to", "archive")
    assert done.out.startswith(
        "nothing to archive yet: the two newest segments stay in the trail, the active file included"
    )
    assert not (tmp_path / "archive").exists()
    assert "makes one from the closed segments of a trail" in run("archive", "show", "archive").error_line

    write_trail(tmp_path / "logs", (100, line_of(1)), (200, line_of(2)), active=line_of(3))
    assert run("compact", "logs/audit.jsonl", "--to", "archive").out.startswith("1 segment, 1 event: ")
    assert run("archive", "show", "archive").lines[0].startswith("1 segment, 1 event, ")
    assert run("archive", "verify", "archive").out == "1 segment, 1 event: verified\n"
    assert run("archive", "restore", "archive", "--to", "restored").out.startswith("1 segment in restored, ")


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
    assert done.error_line.endswith(f"1 foreign; run structlog-audit doctor {trail} for details")


def test_problems_beside_an_archive_name_the_trail_to_examine(trail, tmp_path):
    """The hint names what ``doctor`` reads: trails, not archives."""
    assert run("compact", trail, "--to", "archive").code == Exit.DONE
    with (tmp_path / trail).open("ab") as file:
        file.write(b"junk\n")
    done = run("query", "archive", trail)
    assert done.error_line.endswith(f"1 foreign; run structlog-audit doctor {trail} for details")


def test_group_without_a_command_writes_its_help(tmp_path, monkeypatch):
    """``archive`` alone writes its help to stdout, with the exit code of the program alone."""
    monkeypatch.chdir(tmp_path)
    done = run("archive")
    assert (done.code, done.err) == (Exit.USAGE, "")
    assert done.out == run("archive", "--help").out


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
        ["monitor", "--rules", "rules.toml"],
        ["monitor", "--rules", "rules.toml", "user_id!=ann"],
    ],
    ids=lambda words: " ".join(words),
)
def test_archive_in_place_of_a_trail_gives_the_same_answer(trail, tmp_path, words):
    """An archive and its live trail answer each command as the files did, also after the segments were deleted."""
    command, *rest = words
    (tmp_path / "rules.toml").write_text(RULES)

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


def test_two_archives_answer_together(trail):
    """What both have comes once."""
    run("compact", trail, "--to", "archive")
    shutil.copytree("archive", "copy")
    expected = run("query", trail, "-o", "jsonl")
    done = run("query", "archive", "copy", trail, "-o", "jsonl")
    assert (done.code, done.out, done.err) == (Exit.DONE, expected.out, "")


def test_archive_without_a_log_is_unreadable(trail, tmp_path):
    """Each command of the group says what it expected, also of a file."""
    for command in (["show"], ["verify"], ["merge"], ["gc"], ["restore", "--to", "x"], ["prune", "--older-than", "1d"]):
        for path in ("nothing", trail):
            done = run("archive", command[0], path, *command[1:])
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


def test_engine_without_an_archive_or_of_no_known_name_is_a_usage_error(trail):
    """Trails are read by this library; the names of engines are listed."""
    assert run("query", trail, "--engine", "duckdb").code == Exit.USAGE
    run("compact", trail, "--to", "archive")
    done = run("query", "archive", "--engine", "sqlite")
    assert done.code == Exit.USAGE
    assert "engine='sqlite': expected 'duckdb', Spark as" in done.error_line
    named = run("query", "archive", "--engine", "duckdb", "-o", "jsonl")
    assert named.out == run("query", "archive", "-o", "jsonl").out


# --- Seals ---

ORIGIN = "audit.example/shop/web1"


@pytest.fixture
def sealed(tmp_path, monkeypatch):
    """The path of a sealed trail of five segments, of which the archive has three."""
    monkeypatch.chdir(tmp_path)
    writer = Writer()
    segments = [b"".join(writer.event(number) for number in range(20)) for _ in range(5)]
    write_trail(tmp_path / "logs", *((100 * (n + 1), data) for n, data in enumerate(segments[:4])), active=segments[4])
    Path("audit.vkey").write_text(run("keygen", "audit.pem", "--origin", ORIGIN).out)
    seal("logs/audit.jsonl")
    assert run("compact", "logs/audit.jsonl", "--to", "archive", "--host", "h1").code == Exit.DONE
    return "logs/audit.jsonl"


def seal(trail):
    assert run("seal", trail, "--key", "audit.pem", "--origin", ORIGIN).code == Exit.DONE


def verify(path, *words):
    return run("verify", path, "--key", "audit.vkey", "--max-age", "none", *words)


def test_verify_of_an_archive_has_the_findings_and_exit_codes_of_a_trail(sealed):
    """0 intact, 1 changed with segment and line, 2 without the key; text and JSON; anchors and states."""
    assert run("archive", "show", "archive").lines[2].endswith("/logs/audit.jsonl  60 events, seal of 100 lines")
    assert verify(sealed).code == 0
    done = verify("archive", "--anchor", f"{sealed}.seal/checkpoint", "--state", "state")
    assert (done.code, done.lines[-1].split()[0]) == (0, "INTACT")
    assert "lines covered by checkpoints outside of the host: 100" in done.lines

    (report,) = json.loads(verify("archive", "-o", "json").out)
    assert (report["origin"], report["size"], report["unarchived"]) == (ORIGIN, 100, 40)
    other = run("keygen", "other.pem", "--origin", ORIGIN).out.strip()
    assert run("verify", "archive", "--key", other).code == 2
    assert verify("archive", "--jobs", "2").code == 2
    assert verify("s3-is-no-archive").code == 2


def test_changed_row_is_exit_code_1(sealed):
    """The bytes of the archive fit its log again: only the seal shows the change."""
    path = next(Path("archive").glob("date=*/*.parquet"))
    changed = "SELECT * REPLACE (CASE WHEN n % 20 = 4 THEN 'eve' ELSE user_id END AS user_id)"
    duckdb.execute(f"COPY ({changed} FROM '{path}') TO 'changed' (FORMAT parquet)")
    Path("changed").replace(path)
    done = verify("archive")
    assert done.code == 1
    assert done.lines[0].startswith("CHANGED  line 5 of audit.jsonl.20250115T1")


def test_statistics_state_the_verdict_on_the_seal_of_an_archive(sealed):
    """The archive is verified by its own seals, beside that of the live trail; a lost file is CHANGED."""
    stated = run("stats", "archive", sealed, "--key", "audit.vkey").out
    assert stated.count("INTACT.") == 2
    for path in Path("archive").glob("date=*/*.parquet"):
        path.unlink()
    (verdict,) = verify_archived_seals("archive", ["audit.vkey"])
    assert (verdict.verdict, verdict.has_losses) == ("CHANGED", True)


def test_proof_of_an_archived_event_verifies(sealed):
    """prove gives the proof of the trail, also as a COSE receipt; verify-proof accepts it; without the event it says so."""
    first = Path(sealed).with_name(rolled_name("audit.jsonl", 100))
    event_id = json.loads(first.read_bytes().splitlines()[2])["event_id"]
    words = [event_id, "--line", "line.json", "--key", "audit.pem", "--cose"]
    expected = run("prove", sealed, *words, "trail.cbor").out
    for path in Path("logs").glob("audit*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    done = run("prove", "archive", *words, "archive.cbor")
    assert (done.code, done.out) == (Exit.DONE, expected)
    assert Path("archive.cbor").read_bytes() == Path("trail.cbor").read_bytes()
    Path("event.tlog-proof").write_text(done.out)
    assert run("verify-proof", "event.tlog-proof", "line.json", "--key", "audit.vkey").code == 0

    unknown = run("prove", "archive", "evt_none")
    assert (unknown.code, unknown.error_line) == (2, "evt_none: no line of the archive begins with this id")


def test_restore_reports_the_seal(sealed):
    """A sealed trail comes back with its seal, if a checkpoint covers archived lines only."""
    writer = Writer()
    path = Path(sealed)
    for second in (400, 401, 402, 403):
        roll_over(path, second)
        path.write_bytes(writer.event(second))
        seal(sealed)
    run("compact", sealed, "--to", "archive", "--host", "h1")
    done = run("archive", "restore", "archive", "--to", "back")
    assert done.lines[1].startswith("seal of ")
    assert verify("back/audit.jsonl").code == verify(sealed).code


def test_erased_person_stays_erased_in_the_archive(tmp_path, monkeypatch):
    """The vault finds and shows persons in an archive while their keys exist; afterwards tokens stay tokens, and intact."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "logs" / "audit.jsonl"
    path.parent.mkdir()
    rules = {"keys": {"email": "erasable"}, "paths": {"user_id": "subject"}}
    redactor = Redactor(**rules, vault="audit.vault")
    for second in (100, 200, 300, 400):
        handler = AuditHandler(redactor=redactor, filename=path)
        handler.record_fields(
            {"operation": "STORE", "user_id": "ada", "email": "ada-C4nary@example.org"}, logging.INFO, "audit"
        )
        handler.close()
        if second < 400:
            path.rename(path.with_name(rolled_name("audit.jsonl", second)))
    redactor.vault.close()
    Path("audit.vkey").write_text(run("keygen", "audit.pem", "--origin", ORIGIN).out)
    seal(path)
    assert run("compact", path, "--to", "archive").code == Exit.DONE

    shown = ["query", "archive", "user_id=ada", "--vault", "audit.vault", "--reveal", "-o", "jsonl"]
    assert [event["metadata"]["email"] for event in run(*shown).events] == ["ada-C4nary@example.org"] * 2
    assert run("erase", "ada", path, "--vault", "audit.vault").code == 0
    assert run(*shown).code == 1
    assert verify("archive").code == 0
    data = b"".join(file.read_bytes() for file in Path("archive").rglob("*") if file.is_file())
    assert b"C4nary" not in data
    assert b'"ada"' not in data
    assert "C4nary" not in run("export", "archive", "--to", "-", "--vault", "audit.vault").out
