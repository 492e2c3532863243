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
        (["ann", "missing.jsonl"], Exit.UNREADABLE, "missing.jsonl"),
        (["ann", "folder"], Exit.UNREADABLE, "folder"),
        (["", "TRAIL"], Exit.USAGE, "USER: expected an identity, got an empty text"),
        (["ann", "TRAIL", "--since", "2025-01-15", "--until", "2025-01-14"], Exit.USAGE, "must not be later than"),
        (["ann", "TRAIL", "--since", "2025-01-15", "--until", "2025-01-15"], Exit.USAGE, "range that is not empty"),
        (["ann", "TRAIL", "-o", "csv"], Exit.USAGE, "csv"),
        (["ann", "TRAIL", "-o", "html", "--json", "x.json"], Exit.USAGE, "--output html cannot be combined"),
        (["ann", "TRAIL", "--html", "short.key"], Exit.USAGE, "short.key already exists"),
        (["ann", "TRAIL", "--html", "-", "--json", "-"], Exit.USAGE, "only one format can be written to -"),
        (["ann", "TRAIL", "--member", ""], Exit.USAGE, "--member: expected a member of the metadata"),
        (["ann", "TRAIL", "-n", "-1"], Exit.USAGE, "--lines"),
        (["TRAIL"], Exit.USAGE, "expected a trail"),
    ],
)
def test_wrong_usage_is_one_line(trail, tmp_path, words, code, message):
    """The line names the option and what it expected."""
    (tmp_path / "short.key").write_text("short")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = run("person", *(trail if word == "TRAIL" else word for word in words))
    assert (done.code, done.out) == (code, "")
    assert message in done.error_line
    assert sorted(tmp_path.rglob("*")) == before


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


def pseudonymous_trail(tmp_path):
    """Return the path of a trail whose users are pseudonyms, and the file with its key."""
    redactor = Redactor(paths={"user_id": "pseudonym"}, secret=SECRET, key_version="2025")
    handler = AuditHandler(redactor=redactor, filename=tmp_path / "hidden.jsonl")
    handler.record_fields({"operation": "STORE", "user_id": "ann"}, 20, "audit")
    handler.close()
    (tmp_path / "key").write_text(SECRET)
    return str(tmp_path / "hidden.jsonl"), f"2025={tmp_path / 'key'}", redactor.pseudonym("ann")


def recorded_conditions(path):
    """Return the conditions of each recorded reading of the trail at *path*."""
    events = run("query", path, "operation=read", "--all", "-o", "jsonl").events
    return [event["metadata"]["conditions"] for event in events]


def test_record_of_the_reading_states_the_pseudonyms_of_the_given_keys(tmp_path, trail):
    """The person is found in the record of later requests as in the events."""
    hidden, secret, pseudonym = pseudonymous_trail(tmp_path)
    report("ann", hidden, "--secret", secret, "--record")
    assert recorded_conditions(hidden) == [[f"user_id={pseudonym}"]]
    assert report("ann", hidden, "--secret", secret)["library"]["total"] == 1


def test_trail_of_pseudonyms_gets_no_clear_name_in_the_record(tmp_path, trail):
    """Each trail gets the record that its own events suit: without the key, the person has no name in a trail of pseudonyms."""
    hidden, _, pseudonym = pseudonymous_trail(tmp_path)
    for words in (["person", "ann", trail, hidden], ["report", trail, hidden, "--user", "ann"]):
        assert run(*words, "--record").code == Exit.DONE
    run("query", trail, hidden, "user_id=ann", "session_id=s1", f"user_id={pseudonym}", "operation=ann", "--record")
    queried = ["user_id=ann", "session_id=s1", f"user_id={pseudonym}", "operation=ann"]
    assert recorded_conditions(trail) == [["user_id=ann"], ["user_id=ann"], queried]
    masked = ["user_id=[redacted]", "session_id=[redacted]", f"user_id={pseudonym}", "operation=ann"]
    assert recorded_conditions(hidden) == [["user_id=[redacted]"], ["user_id=[redacted]"], masked]


def test_documents_are_written_to_files_in_each_form(trail, tmp_path):
    """HTML is a document to hand out; several forms are written at once, readable by the user only."""
    done = run("person", "ann", trail, "--html", "ann.html", "--json", "ann.json")
    assert (done.code, done.out) == (Exit.DONE, "")
    assert "<h1><bdi>ann</bdi></h1>" in (tmp_path / "ann.html").read_text()
    assert json.loads((tmp_path / "ann.json").read_text())["by_person"]["total"] == 13
    assert (tmp_path / "ann.html").stat().st_mode & 0o777 == 0o600
    assert run("person", "ann", trail, "-o", "html").out.startswith("<!DOCTYPE html>")


def test_unknown_person_gets_a_document_with_a_hint(trail):
    """That a trail has nothing is an answer to a request; the nearest names show a misspelling."""
    done = run("person", "Ann", trail)
    assert done.code == Exit.DONE
    assert "No event has user\\_id 'Ann'; near: 'ann' (13)." in done.out


def test_strict_exits_with_findings_for_an_incomplete_trail(trail):
    """A document that lacks events must not pass for the whole."""
    assert run("person", "ann", trail, "--strict").code == Exit.FINDINGS


@pytest.mark.parametrize("words", [[], ["ann"], ["user_id=ann"]])
def test_trail_before_the_person_is_an_error_with_the_order(trail, words):
    """An existing file in place of the person, without a trail behind it, is answered with the order of the words."""
    done = run("person", trail, *words)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert done.error_line.endswith(f"as in person USER TRAIL, got the file {trail!r} first")


def test_person_of_the_name_of_a_file_is_a_person(trail, tmp_path):
    """A file of that name in the working folder changes nothing where a trail follows, or the settings name one."""
    (tmp_path / "ann").touch()
    assert report("ann", trail)["person"]["identity"] == "ann"
    assert report("ann", "logs/audit.json*")["person"]["identity"] == "ann"
    (tmp_path / "structlog-audit.toml").write_text(f'trail = "{trail}"\n')
    assert report("ann")["person"]["identity"] == "ann"


def test_command_line_without_a_person_is_an_error():
    """The line says which words the command takes."""
    done = run("person", "-n", 3)
    assert done.code == 2
    assert done.error_line == "expected a person and trails, as in person USER TRAIL"


def test_any_number_of_events_is_accepted(trail):
    """A number beyond all memory means all events."""
    assert run("person", "ann", trail, "-n", 10**20).code == Exit.DONE
