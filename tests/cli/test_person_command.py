"""The command ``person``."""

from __future__ import annotations

import json

import pytest
from commands import GOLDEN, run
from trail_files import line_of, rolled_name, write_trail

from structlog_audit import AuditHandler, Redactor, SubjectVault
from structlog_audit.cli.exit_codes import Exit

SECRET = "a secret of the year 2025"


@pytest.fixture
def trail(tmp_path, monkeypatch):
    """A trail with two closed segments in the working folder."""
    monkeypatch.chdir(tmp_path)
    write_trail(tmp_path / "logs", (100, GOLDEN.read_bytes()), (200, line_of(900)), active=line_of(902))
    return "logs/audit.jsonl"


def report(*words, **options):
    """Return the data that the command shows."""
    done = run("person", *words, "-o", "json", **options)
    assert done.code == Exit.DONE, done.err
    return json.loads(done.out)


def test_text_is_the_document_and_json_its_data(trail):
    """The default is Markdown; both state the same numbers."""
    done = run("person", "ann", trail)
    total = report("ann", trail)["by_person"]["total"]
    assert (done.code, done.err) == (Exit.DONE, "")
    assert done.lines[0] == "# Report on one person: ann"
    assert total == len(run("query", trail, "user_id=ann", "-o", "jsonl").events) == 13
    assert f"{total} events from 2025-01-15 10:30:01 to 2025-01-15 10:30:59 (UTC)" in done.out


def test_time_range_and_lines_limit_the_report(trail):
    """The shared time options and ``-n`` work as in every command."""
    range_words = ["--since", "2025-01-15T10:30:20Z", "--until", "2025-01-15T10:30:41Z"]
    found = report("ann", trail, *range_words, "-n", "1")
    assert (found["by_person"]["total"], len(found["by_person"]["newest"])) == (5, 1)
    assert found["period"] == {
        "start": "2025-01-15T10:30:20.000000Z",
        "end": "2025-01-15T10:30:41.000000Z",
        "month": None,
        "time_zone": "UTC",
    }


def test_archive_in_place_of_a_trail_gives_the_same_report(trail, tmp_path):
    """The rows of an archive name the person as the lines did."""

    def answer(*paths):
        found = report("ann", *paths, "--member", "source")
        for member in ("completeness", "source", "generated_at"):
            del found[member]
        return found

    expected = answer(trail)
    assert run("compact", trail, "--to", "archive").code == Exit.DONE
    # The newest closed segment stays in the trail.
    (tmp_path / "logs" / rolled_name("audit.jsonl", 100)).unlink()
    assert report("ann", trail)["by_person"]["total"] == 0
    assert answer("archive", trail) == expected


def test_identity_from_stdin_is_in_no_shell_history(trail):
    """``-`` in place of the identity reads it; an empty one is an error."""
    assert report("-", trail, input=b"ann\n")["person"]["identity"] == "ann"
    assert run("person", "-", trail, input=b"").error_line == "USER: expected an identity, got an empty text"
    assert run("person", "-", "-", input=b"ann\n").code == Exit.USAGE


def test_pseudonyms_are_searched_with_the_secret_of_each_version(tmp_path):
    """``--secret`` names a version and its file; a line break at its end is no part of the key."""
    redactor = Redactor(paths={"user_id": "pseudonym"}, secret=SECRET, key_version="2025")
    handler = AuditHandler(redactor=redactor, filename=tmp_path / "audit.jsonl")
    handler.record_fields({"operation": "STORE", "user_id": "ann"}, 20, "audit")
    handler.close()
    key = tmp_path / "key"
    key.write_text(SECRET + "\n")
    trail = tmp_path / "audit.jsonl"

    assert report("ann", trail)["unsearched"] == {"pseudonym of key 2025": 1}
    found = report("ann", trail, "--secret", f"2025={key}")
    assert (found["by_person"]["total"], found["unsearched"]) == (1, {})


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["ann"], Exit.USAGE, "expected a trail"),
        (["ann", "status=FAILURE"], Exit.USAGE, "expected a trail"),
        (["ann", "TRAIL", "status=FAILURE"], Exit.USAGE, "person covers all events of its time range"),
        (["ann", "TRAIL", "--secret", "2025"], Exit.USAGE, "expected VERSION=FILE"),
        (["ann", "TRAIL", "--secret", "2025=missing.key"], Exit.UNREADABLE, "missing.key: No such file"),
        (["ann", "TRAIL", "--secret", "2025=short.key"], Exit.USAGE, "expected at least 16 bytes"),
        (["ann", "TRAIL", "--anchor", "x"], Exit.USAGE, "--anchor: expected --key as well"),
        (["ann", "TRAIL", "--vault", "missing.vault"], Exit.UNREADABLE, "got no file"),
    ],
)
def test_wrong_usage_is_one_line(trail, tmp_path, words, code, message):
    """The line names the option and what it expected."""
    (tmp_path / "short.key").write_text("short")
    done = run("person", *(trail if word == "TRAIL" else word for word in words))
    assert (done.code, done.out) == (code, "")
    assert message in done.error_line


def test_record_of_the_reading_states_the_person_by_their_token(tmp_path):
    """The record outlives an erasure: with a vault it has the token."""
    vault = tmp_path / "audit.vault"
    trail = tmp_path / "audit.jsonl"
    handler = AuditHandler(redactor=Redactor(paths={"user_id": "subject"}, vault=vault), filename=trail)
    handler.record_fields({"operation": "STORE", "user_id": "ann"}, 20, "audit")
    handler.close()

    found = report("ann", trail, "--vault", vault, "--record")
    (read,) = run("query", trail, "operation=read", "--all", "-o", "jsonl").events
    token = SubjectVault(vault).token("ann")
    assert (read["metadata"]["command"], read["metadata"]["conditions"]) == ("person", [f"user_id={token}"])
    assert found["by_person"]["total"] == found["library"]["total"] == 1


def test_strict_exits_with_findings_for_an_incomplete_trail(trail):
    """A document that lacks events must not pass for the whole."""
    assert run("person", "ann", trail, "--strict").code == Exit.FINDINGS
