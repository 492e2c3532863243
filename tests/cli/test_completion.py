"""The completion of the shell: conditions, their values, columns, formats and names."""

from __future__ import annotations

import contextlib
import os
import pty
import shlex
import shutil
import subprocess

import pytest
from commands import GOLDEN, PROGRAM, environment, process, run
from trail_files import line_of, write_trail

from structlog_audit import AuditLogger
from structlog_audit.cli import completion
from structlog_audit.cli.conditions import FIELDS
from structlog_audit.export import FORMATS
from structlog_audit.shippers import SHIPPERS


def in_bash(*words):
    """Return what bash is offered for the last of *words*, which it has split at each ``=``."""
    line = {"COMP_WORDS": " ".join(["structlog-audit", *words]), "COMP_CWORD": str(len(words))}
    return run(_STRUCTLOG_AUDIT_COMPLETE="complete_bash", **line).out.split()


def in_zsh(line):
    """Return what zsh is offered for the last word of *line*."""
    shown = run(_STRUCTLOG_AUDIT_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=f"structlog-audit {line}").out
    return shown.split('"')[1::2]


@pytest.fixture
def trail(tmp_path, monkeypatch):
    """Record two operations in a trail in the working folder, and return its name."""
    monkeypatch.chdir(tmp_path)
    with AuditLogger(filename=tmp_path / "audit.jsonl") as audit:
        audit.record("document.delete", "ann")
        audit.record("a\x1b[31m$(reboot)", "bob")
    return "audit.jsonl"


def test_fields_of_conditions_are_completed(trail):
    """A word that begins several fields becomes one of them with its sign; after a trail, all fields are offered."""
    assert in_bash("stats", trail, "s") == ["session_id=", "status="]
    assert in_zsh(f"tail {trail} ") == [*(f"{name}=" for name in FIELDS), "metadata."]


def test_only_field_is_offered_with_each_sign_so_that_no_space_follows(trail):
    """A shell adds a space after the only offer. Signs that it would interpret, such as ``>=`` and ``!~``, are not offered."""
    assert in_bash("query", trail, "us") == ["user_id=", "user_id!=", "user_id~"]
    assert in_bash("query", trail, "status") == ["status=", "status!=", "status~"]
    assert in_zsh(f"tail {trail} dur") == ["duration_ms=", "duration_ms!="]


def test_values_are_completed_after_either_sign(trail):
    """A condition with ``!=`` is offered the values of one with ``=``."""
    assert in_bash("query", trail, "status!", "=", "F") == ["FAILURE"]
    assert in_zsh(f"query {trail} operation_class!=del") == ["operation_class!=delete"]
    assert in_zsh(f"query {trail} operation!=doc") == ["operation!=document.delete"]


BASH = """
source completion.sh
PS1='$ '
bind 'set enable-bracketed-paste off'
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="not installed: bash")
def test_bash_adds_no_space_to_a_field(trail, tmp_path):
    """In an interactive bash, Tab completes a field, and the value that is typed next belongs to it."""
    script = process(env=environment(_STRUCTLOG_AUDIT_COMPLETE="source_bash")).out
    (tmp_path / "completion.sh").write_text(script)
    (tmp_path / "structlog-audit").write_text(f'#!/bin/sh\nexec {shlex.join(PROGRAM)} "$@"\n')
    (tmp_path / "structlog-audit").chmod(0o755)
    (tmp_path / "rc").write_text(BASH)

    main, other = pty.openpty()
    variables = environment(PATH=f"{tmp_path}:{os.environ['PATH']}", TERM="dumb")
    shell = subprocess.Popen(
        ["bash", "--noprofile", "--rcfile", "rc", "-i"], stdin=other, stdout=other, stderr=other, env=variables
    )
    os.close(other)
    os.write(main, f"structlog-audit query {trail} stat\t=SUCCESS > /dev/null && echo 'all 'found; exit\n".encode())
    shown = b""
    with contextlib.suppress(OSError):
        while data := os.read(main, 65_536):
            shown += data
    os.close(main)
    shell.wait(30)
    assert b"\nall found" in shown


def test_word_that_may_be_a_path_is_left_to_the_shell(trail):
    """Nothing is offered for the first word, and for one that no field begins with, so that the shell completes paths."""
    assert in_bash("query", "") == in_bash("query", "logs/") == []


@pytest.mark.parametrize("before", [["status"], ["audit.jsonl", "status"]])
def test_values_follow_the_sign_in_each_shell(trail, before):
    """bash replaces the word after the sign and gets the value; zsh replaces the whole condition and gets that."""
    assert in_bash("query", *before, "=", "F") == ["FAILURE"]
    assert in_bash("query", *before, "=") == ["SUCCESS", "FAILURE", "PARTIAL"]
    assert in_zsh(f"query {' '.join(before)}=F") == ["status=FAILURE"]


def test_kinds_and_fields_without_known_values(trail):
    """Kinds are offered; a field whose values are not known has none, and so has a word that is no field."""
    assert in_bash("query", trail, "kind", "=", "tr") == ["trail"]
    assert in_bash("query", trail, "operation_class", "=", "un") == ["unclassified"]
    assert in_bash("query", trail, "user_id", "=") == in_bash("query", "=") == in_bash("query", "x", "=", "y") == []


def test_operations_come_from_the_trail_on_the_line(trail):
    """Operations in the trail are offered beside the known ones, but none that a shell or a terminal interprets."""
    assert in_bash("query", trail, "operation", "=", "d") == ["document.delete"]
    found = in_bash("query", trail, "operation", "=")
    assert {"STORE", "document.delete"} < set(found)
    assert not any("reboot" in name for name in found)
    assert in_bash("query", "operation", "=", "d") == []


def test_operations_come_from_the_newest_segment_with_any(tmp_path, monkeypatch):
    """Of an empty active segment, the newest rolled one is read, and no older one."""
    monkeypatch.chdir(tmp_path)
    segments = [(100, line_of(1).replace(b"STORE", b"older")), (200, line_of(2).replace(b"STORE", b"newer"))]
    write_trail(tmp_path, *segments, active=b"")
    assert b"newer" in segments[1][1]
    found = in_bash("query", "audit.jsonl", "operation", "=")
    assert "newer" in found
    assert "older" not in found


def test_reading_of_operations_is_bounded(trail, tmp_path, monkeypatch):
    """Only the end of a long segment is read, and nothing of what is not a regular file."""
    monkeypatch.setattr(completion, "_TAIL_BYTES", 1_000)
    with open(trail, "ab") as file:
        file.write(b" " * 1_000)
    os.mkfifo(tmp_path / "pipe")
    for name in (trail, "pipe", ".", "nothing"):
        assert in_bash("query", name, "operation", "=", "d") == []


def test_shippers_formats_outputs_and_columns_are_completed(trail):
    """Names of shippers, formats of exports and outputs, and the last of the columns are completed."""
    assert in_bash("shipper", "") == list(SHIPPERS)
    assert in_bash("export", trail, "--format", "") == list(FORMATS)
    assert in_bash("stats", trail, "-o", "") == ["text", "json"]
    assert in_bash("query", trail, "--columns", "user_id,op") == ["user_id,operation"]
    assert "user_id,user_id" not in in_bash("query", trail, "--columns", "user_id,")


def test_completion_runs_as_a_process(tmp_path):
    """The command that the script of bash calls prints one offer a line."""
    shutil.copy(GOLDEN, tmp_path / "audit.jsonl")
    words = {"COMP_WORDS": "structlog-audit query audit.jsonl status = F", "COMP_CWORD": "5"}
    done = process(env=environment(_STRUCTLOG_AUDIT_COMPLETE="complete_bash", **words), cwd=tmp_path)
    assert done.out == "FAILURE\n"
