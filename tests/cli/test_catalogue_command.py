"""The command ``catalogue``: declared operations as Markdown and JSON, and their comparison with a trail."""

from __future__ import annotations

import json
import shutil

import pytest
from commands import process, run
from markdown_it import MarkdownIt

from structlog_audit import AuditLogger, open_trail
from structlog_audit.catalogue import catalogue, compare
from structlog_audit.reports.formatting import visible

SOURCE = """\
import structlog_audit
log = structlog_audit.get_audit_logger()

@structlog_audit.audited("STORE", user_id="user")
def store(user): ...

def forget(user):
    with log.operation("FORGET", intent=True, user_id=user): ...

def other(what):
    log.info(what)
    log.error("refused")
"""


@pytest.fixture
def app(tmp_path, monkeypatch):
    """Create a module with declarations in the current directory, and a trail that matches it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.py").write_text(SOURCE)
    with AuditLogger(filename=tmp_path / "audit.jsonl") as audit:
        audit.record("STORE", "ann")
        audit.record("STORE")
        audit.record("FORGET", "ann", error_message="no")
    return tmp_path


def tables(text):
    """Return the rendered cells of the Markdown tables in *text*, row by row."""
    rows, row = [], None
    for token in MarkdownIt("gfm-like").parse(text):
        if token.type == "tr_open":
            row = []
        elif token.type == "tr_close":
            rows.append(row)
            row = None
        elif token.type == "inline" and row is not None:
            row.append("".join(child.content for child in token.children))
    return rows


def listed(text, title):
    """Return the list items below the Markdown heading *title*."""
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    return [line.removeprefix("- ") for line in section.splitlines() if line.startswith("- ")]


def test_markdown_lists_each_declaration_as_a_row(app):
    """Each declaration is a row of a table; computed operations have a separate table."""
    done = run("catalogue", "app")
    assert (done.code, done.err) == (0, "")
    assert tables(done.out) == [
        ["Operation", "Location", "Function", "Entry point", "Status", "Fields"],
        ["FORGET", "app.py:8", "forget", "operation, intent", "–", "user_id"],
        ["STORE", "app.py:4", "store", "audited", "–", "user_id"],
        ["refused", "app.py:12", "other", "error", "FAILURE", "–"],
        ["Operation", "Location", "Function", "Entry point", "Status", "Fields"],
        ["what", "app.py, computed at line 11", "other", "info", "SUCCESS", "–"],
    ]
    assert "3 operations declared in 1 file, and 1 place that computes one." in done.out


def test_json_equals_the_python_result(app):
    """-o json writes `Catalogue.to_dict`, with `Comparison.to_dict` as its member ``trail``."""
    declared = catalogue("app")
    assert json.loads(run("catalogue", "app", "-o", "json").out) == declared.to_dict()
    with_trail = json.loads(run("catalogue", "app", "--trail", "audit.jsonl", "-o", "json").out)
    compared = compare(declared, open_trail("audit.jsonl"))
    assert with_trail == {**declared.to_dict(), "trail": compared.to_dict()}
    assert with_trail["trail"]["recorded"] == {"FORGET": 1, "STORE": 2}


def test_trail_lists_the_differences_and_sets_the_exit_code(app):
    """Four lists show the differences. The exit code is 1 if an operation is recorded but not declared, else 0."""
    done = run("catalogue", "app", "--trail", "audit.jsonl")
    assert done.code == 0
    assert listed(done.out, "Recorded but not declared") == []
    assert listed(done.out, "Declared but never recorded") == ["refused"]
    assert listed(done.out, "Never failed") == ["STORE"]
    assert listed(done.out, "Recorded without a user") == ["STORE: 1 event"]
    with AuditLogger(filename=app / "audit.jsonl") as audit:
        audit.record("surprise")
    done = run("catalogue", "app", "--trail", "audit.jsonl")
    assert done.code == 1
    assert listed(done.out, "Recorded but not declared") == ["surprise: 1 event"]
    assert "1 place with a computed operation may have recorded them." in done.out


def test_conditions_times_and_trails_select_the_events(app):
    """Conditions, times and several trails select the compared events, as in other commands."""
    with AuditLogger(filename=app / "other.jsonl") as audit:
        audit.record("surprise", "bob")
    both = ["catalogue", "app", "--trail", "audit.jsonl", "--trail", "other.jsonl"]
    assert run(*both).code == 1
    assert run(*both, "operation!~^sur").code == 0
    assert run(*both, "user_id=bob").code == 1
    assert run(*both, "--until", "yesterday").code == 0
    shutil.copy("other.jsonl", "third.jsonl")
    # The name has the form of a condition, but is the value of --trail.
    shutil.copy("other.jsonl", "user_id=x")
    assert run("catalogue", "app", "--trail", "user_id=x").code == 1
    with open("third.jsonl", "rb") as file:
        assert process("catalogue", "app.py", "--trail", "-", stdin=file).code == 1


def test_unreadable_files_are_reported_and_strict_exits_with_4(app):
    """Invalid files are listed and reported on stderr, and the rest is shown; --strict exits with 4, for a trail too."""
    (app / "package").mkdir()
    (app / "package" / "bad.py").write_text("x = (")
    (app / "package" / "good.py").write_text(SOURCE)
    done = run("catalogue", "package")
    assert done.code == 0
    assert done.error_line == "1 file could not be read: package/bad.py: line 1: '(' was never closed"
    assert ["package/bad.py", "line 1: '(' was never closed"] in tables(done.out)
    assert run("catalogue", "package", "--strict").code == 4
    assert run("catalogue", "package", "--strict", "--trail", "audit.jsonl").code == 4
    assert run("catalogue", "app", "--strict").code == 0
    assert run("catalogue", "app", "--strict", "--trail", "audit.jsonl").code == 0
    with open("audit.jsonl", "ab") as file:
        file.write(b"no event\n")
    assert run("catalogue", "app", "--strict", "--trail", "audit.jsonl").code == 4


def test_record_adds_a_trail_event_that_is_not_compared(app):
    """--record adds an event of kind ``trail`` with the command, which does not count as a recorded operation."""
    done = run("catalogue", "app", "--trail", "audit.jsonl", "--record")
    assert (done.code, listed(done.out, "Recorded but not declared")) == (0, [])
    (read,) = open_trail("audit.jsonl").query_events(kind="trail", operation="read")
    assert read.metadata["command"] == "catalogue"


def test_names_cannot_inject_markdown(app):
    """Names with markup, cell separators, line breaks and control characters are escaped, and stay on one line."""
    hostile = ["a|b", "<b>x</b>", "[x](http://evil)", "`x`", "# x", "line\nend", "\x1b[31m", "\u202egnp.exe", ""]
    (app / "app.py").write_text(
        "import structlog_audit\n" + "".join(f"structlog_audit.audited({x!r})\n" for x in hostile)
    )
    with AuditLogger(filename=app / "audit.jsonl") as audit:
        for name in hostile:
            audit.record(name + "!")
    done = run("catalogue", "app", "--trail", "audit.jsonl")
    assert done.code == 1
    assert {row[0] for row in tables(done.out)[1:]} == {visible(x) or '""' for x in hostile}
    assert "\x1b" not in done.out
    assert len(listed(done.out, "Recorded but not declared")) == len(hostile) + 2
    assert "<b>" not in MarkdownIt("gfm-like").render(done.out)
    assert 'href="http://evil' not in MarkdownIt("gfm-like").render(done.out)


def test_changes_of_tracked_models_have_a_section_of_their_own(app):
    """Operations of tracked models are listed with their events, and do not fail the check; without any, no section is."""
    assert "## Changes of tracked models" not in run("catalogue", "app", "--trail", "audit.jsonl").out
    (app / "app.py").write_text(SOURCE + "from structlog_audit.contrib.django import track\ntrack(Tag)\n")
    with AuditLogger(filename=app / "audit.jsonl") as audit:
        audit.record("shop.tag.create", "ann", metadata={"changes": {}})

    done = run("catalogue", "app", "--trail", "audit.jsonl")

    assert done.code == 0
    assert listed(done.out, "Changes of tracked models") == ["shop.tag.create: 1 event"]
    assert ["Tag", "app.py, computed at line 14", "–", "track", "SUCCESS", "–"] in tables(done.out)
