"""Settings: defaults of options from a file above the working folder."""

from __future__ import annotations

import json
import os

import pytest
from commands import run

from structlog_audit import AuditLogger, SubjectVault
from structlog_audit.cli import settings

PROJECT = '[project]\nname = "x"\n[tool.structlog-audit]\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Record two events in logs/audit.jsonl of the working folder, and return that folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir(mode=0o700)
    with AuditLogger(filename=tmp_path / "logs" / "audit.jsonl") as audit:
        audit.record("settle", "ann")
        audit.record("STORE", "bob")
    return tmp_path


def test_settings_are_defaults_and_options_win(folder):
    """A command takes trail, zone and output from the settings; each is replaced by the option, and --utc replaces tz."""
    (folder / "pyproject.toml").write_text(f'{PROJECT}trail = "logs/audit.jsonl"\ntz = "Asia/Tokyo"\noutput = "json"\n')
    assert json.loads(run("query").out)["total_events"] == 2
    assert json.loads(run("query", "user_id=ann").out)["total_events"] == 1

    text = run("query", "-o", "text").lines[1]
    assert ("+09:00" in text, "Z " in text) == (True, False)
    assert "Z " in run("query", "-o", "text", "--utc").lines[1]
    assert "+00:00" in run("query", "-o", "text", "--tz", "Atlantic/Reykjavik").lines[1]
    assert run("query", "nothing.jsonl").code == 3


def test_output_of_the_settings_is_left_out_where_a_command_lacks_it(folder):
    """A command without the output format keeps its own default."""
    (folder / "pyproject.toml").write_text(f'{PROJECT}trail = "logs/audit.jsonl"\noutput = "csv"\n')
    assert run("users").lines[0].startswith("user_id,")
    assert run("stats").lines[0].split() == ["events", "2"]


def test_paths_are_relative_to_the_file_of_the_settings(folder, monkeypatch):
    """In a folder below, the nearest file above applies, with its paths; --version names it."""
    (folder / "structlog-audit.toml").write_text(
        'trail = ["logs/audit.jsonl"]\noperations = "operations.toml"\noutput = "json"\n'
    )
    (folder / "operations.toml").write_text('[operations]\nsettle = "update"\n')
    (folder / "pyproject.toml").write_text(f'{PROJECT}output = "csv"\n')
    (folder / "below").mkdir()
    (folder / "below" / "pyproject.toml").write_text('[project]\nname = "structlog-audit-user"\n')
    monkeypatch.chdir(folder / "below")
    assert json.loads(run("stats").out)["by_class"]["update"] == 1
    assert run("--version").lines[1] == f"settings: {folder}/structlog-audit.toml"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('trial = "x"', "unknown setting 'trial', expected one of trail, tz, output, "),
        ("trail = 3", "trail=3: expected a text or a list of texts"),
        ("trail = [3]", "trail=3: expected a text"),
        ('trail = "-"', "expected a path, got stdin"),
        ('tz = ""', "tz='': expected a text"),
        ('output = "table"', "output='table': expected one of text, json, jsonl, csv"),
        ("output", "structlog-audit.toml"),
    ],
)
def test_invalid_settings_are_an_error_that_names_the_file(folder, content, reason):
    """An unknown setting, a value of the wrong type and a file that is no TOML are errors before anything is read."""
    (folder / "structlog-audit.toml").write_text(content)
    done = run("query", "logs/audit.jsonl")
    assert (done.code, done.out) == (3, "")
    assert f"{folder}/structlog-audit.toml" in done.error_line
    assert reason in done.error_line


def test_project_without_the_table_is_no_settings(folder):
    """A pyproject.toml without the table has no settings, even if it is not valid, and a deleted folder has none."""
    (folder / "pyproject.toml").write_text("[broken")
    assert run("query", "logs/audit.jsonl").code == 0
    assert run("query").code == 2
    (folder / "gone").mkdir()
    os.chdir(folder / "gone")
    (folder / "gone").rmdir()
    assert run("--version").lines[1:] == []
    assert run("query", folder / "logs" / "audit.jsonl").code == 0


def test_keys_of_the_settings_verify_and_never_sign(folder):
    """`key` is for commands that verify, and for queries with --verified only; a key that signs is named by its option."""
    origin = ("--origin", "audit.example/shop")
    (folder / "audit.vkey").write_text(run("keygen", "audit.pem", *origin).out)
    (folder / "structlog-audit.toml").write_text('trail = "logs/audit.jsonl"\nkey = "audit.vkey"\n')
    assert run("seal", *origin).code == 2
    assert run("seal", "--key", "audit.pem", *origin).code == 0

    assert run("verify").code == 0
    assert "not verified" not in run("stats").out
    assert run("query").code == run("query", "--verified").code == 0
    assert "expected --verified" in run("query", "--key", "audit.vkey").error_line


def test_other_commands_take_the_trail_and_the_files(folder):
    """doctor, shipper, erase and monitor take what they need; a trail that is named or configured replaces the default."""
    (folder / "rules.toml").write_text('[[rules]]\nname = "many"\nmore_than = 0\nwithin = "1h"\n')
    (folder / "config.json").write_text('{"version": 1}')
    SubjectVault(folder / "audit.vault", create=True).close()
    content = 'trail = "logs/audit.jsonl"\nrules = "rules.toml"\nvault = "audit.vault"\n'
    (folder / "structlog-audit.toml").write_text(content)
    assert run("doctor").lines[-1].endswith("examined logs/audit.jsonl")
    assert run("doctor", "-c", "config.json").lines[-1].endswith("examined config.json")
    assert f"{folder}/logs/audit.jsonl" in run("shipper", "vector").out
    assert run("shipper").lines[0].startswith("rsyslog")
    assert "no key" in run("erase", "ann").out
    assert run("monitor").code == 1


def test_setting_of_a_single_trail_needs_one(folder):
    """A command that takes one trail has no default if the settings name several."""
    (folder / "structlog-audit.toml").write_text('trail = ["logs/audit.jsonl", "logs/other.jsonl"]\n')
    done = run("verify", "--key", "x")
    assert done.code == 2
    assert "TRAIL" in done.error_line


def test_completion_takes_the_operations_of_the_trail_of_the_settings(folder):
    """Without a trail on the line, operations come from the trail of the settings; invalid settings are no error there."""
    words = {
        "COMP_WORDS": "structlog-audit query operation = se",
        "COMP_CWORD": "4",
        "_STRUCTLOG_AUDIT_COMPLETE": "complete_bash",
    }
    (folder / "structlog-audit.toml").write_text('trail = "logs/audit.jsonl"\n')
    assert run(**words).out.split() == ["settle"]
    (folder / "structlog-audit.toml").write_text("trail")
    assert run(**words).out.split() == []


def test_absolute_paths_addresses_and_keys_stay_as_they_are(folder):
    """Only relative paths are joined to the folder of the file: no URL, and no key that is not a file."""
    (folder / "structlog-audit.toml").write_text('trail = ["/a/b.jsonl", "s3://b/c", "../d.jsonl"]\nkey = "a+1+b"\n')
    found = settings.load_settings()
    assert found.trails == ("/a/b.jsonl", "s3://b/c", "../d.jsonl")
    assert found.values == {"key": ["a+1+b"]}


def test_output_of_the_settings_does_not_conflict_with_files_of_a_report(folder):
    """The setting is for stdout; files that are named replace it."""
    (folder / "pyproject.toml").write_text(f'{PROJECT}trail = "logs/audit.jsonl"\noutput = "json"\n')
    assert json.loads(run("report").out)["user_id"] is None
    done = run("report", "--markdown", "r.md")
    assert (done.code, done.out) == (0, "")
    assert (folder / "r.md").read_text().startswith("# Audit report")


@pytest.mark.parametrize(
    ("content", "command", "reason"),
    [
        ('tz = "Berlin"', ("query", "logs/audit.jsonl"), "tz='Berlin': expected the name of a time zone"),
        ('key = "x.vkey"', ("verify", "logs/audit.jsonl"), "key: expected a verifier key"),
        ('trail = "no.jsonl"', ("query",), "path='no.jsonl': expected"),
        ('trail = "no.jsonl"', ("compact", "--to", "x"), "path='no.jsonl': expected"),
        ('vault = "no.vault"', ("query", "logs/audit.jsonl"), "vault '"),
        ('operations = "no.toml"', ("query", "logs/audit.jsonl"), "'no.toml': No such file"),
        ('output = "json"', ("query", "logs/audit.jsonl", "--columns", "kind"), "--columns: expected --output text"),
        ('output = "json"', ("tail", "-f", "logs/audit.jsonl"), "--follow cannot write a document"),
    ],
)
def test_error_about_a_value_of_the_settings_names_the_file(folder, content, command, reason):
    """The line begins with the file of the settings, and names no option that was not given."""
    (folder / "structlog-audit.toml").write_text(content)
    done = run(*command)
    assert done.out == ""
    assert done.error_line.startswith(f"'{folder}/structlog-audit.toml': {reason}")


def test_error_about_a_value_of_the_command_line_names_its_option(folder):
    """Where the command line replaces the setting, the file is not named, even for the same value."""
    (folder / "structlog-audit.toml").write_text('trail = "no.jsonl"\ntz = "Berlin"\nkey = "x.vkey"\n')
    assert run("query", "logs/audit.jsonl", "--tz", "Berlin").error_line.startswith("--tz='Berlin': ")
    assert run("verify", "--key", "y.vkey").error_line.startswith("--key: ")
    assert run("query", "no.jsonl", "--utc").error_line.startswith("path='no.jsonl': ")
    assert run("query", "other.jsonl", "--utc").error_line.startswith("path='other.jsonl': ")
