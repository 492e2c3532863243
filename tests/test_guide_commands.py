"""The shell commands of the guide print the output that the guide shows."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import guide_seal
import guide_trail
import pytest
from commands import environment

GUIDE = Path(__file__).parent.parent / "examples" / "guide"
PAGES = [
    "archive.md",
    "catalogue.md",
    "command-line.md",
    "files-without-python.md",
    "monitoring.md",
    "verify-without-us.md",
]
BLOCK = re.compile(r"(?:<!-- needs: (?P<needs>[\w ]+) -->\n)?^```console\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "\x1e"
"""The separator after the output of each command."""

CONFIG = """\
version: 1
handlers:
  file: {class: structlog_audit.AuditFileHandler, filename: /var/log/app/audit.jsonl, maxBytes: 60000}
  audit: {class: structlog_audit.AuditHandler, target: file}
loggers:
  audit: {handlers: [audit]}
"""


def commands_of(body):
    """Return the commands of a block, each with the output shown for it.

    A here-document belongs to its command.
    """
    found, ending = [], None
    for line in body.splitlines(keepends=True):
        if ending is not None:
            found[-1][0] += line
            ending = None if line == ending else ending
        elif line.startswith("$ "):
            found.append([line[2:], ""])
            here_document = re.search(r"<<'(\w+)'", line)
            ending = f"{here_document[1]}\n" if here_document else None
        else:
            found[-1][1] += line
    return found


def matches(printed, shown):
    """Return whether *printed* equals *shown*.

    ``...`` matches any text within a line, and any number of lines if it is the whole line.
    """
    pattern = ""
    for line in shown.splitlines(keepends=True):
        if line == "...\n":
            pattern += "(?:.*\n)*"
        else:
            pattern += re.escape(line).replace(r"\.\.\.", ".*")
    return re.fullmatch(pattern, printed) is not None


def prepare(folder):
    """Write the files that the commands need, and return the PATH to use.

    They are the trail, a logging configuration and the command ``structlog-audit``.
    """
    guide_trail.write_trail(folder)
    (folder / "logging.yaml").write_text(CONFIG)

    program = folder / "bin" / "structlog-audit"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m structlog_audit.cli "$@"\n')
    program.chmod(0o755)

    return f"{program.parent}:{Path(sys.executable).parent}:{environment()['PATH']}"


def commands_on(page, path):
    """Return the commands of a page, and the tools that are missing on *path*.

    Blocks that need a missing tool are left out.
    """
    text = (GUIDE / page).read_text(encoding="utf-8")
    commands = []
    missing = set()

    for block in BLOCK.finditer(text):
        needed = (block["needs"] or "").split()
        unavailable = [tool for tool in needed if shutil.which(tool, path=path) is None]
        if unavailable:
            missing.update(unavailable)
            continue
        commands += commands_of(block["body"])

    return commands, missing


def run_page(page, folder):
    """Run the commands of a page in one shell, and compare their output.

    Returns:
        The number of commands, and the missing tools.
    """
    path = prepare(folder)
    if page == "verify-without-us.md":
        guide_seal.write_export(folder)
    commands, missing = commands_on(page, path)
    script = "".join(f"{{ {command.rstrip()}\n}} 2>&1\nprintf '\\x1e'\n" for command, _ in commands)

    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment(PATH=path, HOME=str(folder)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    printed = done.stdout.split(MARK)
    assert len(printed) == len(commands) + 1, done.stderr
    for (command, shown), output in zip(commands, printed, strict=False):
        if not matches(output, shown):
            assert output == shown, command
    return len(commands), missing


@pytest.mark.parametrize("name", PAGES)
def test_commands_of_a_page_print_the_shown_output(name, tmp_path):
    """The commands of a page run in order and print the output below each; those that need a missing tool are left out."""
    ran, _ = run_page(name, tmp_path)
    assert ran >= 5


@pytest.mark.system
def test_commands_of_other_tools_run_if_all_tools_are_installed(tmp_path):
    """With jq, DuckDB and SQLite, every command of the page about files without Python runs."""
    _, missing = run_page("files-without-python.md", tmp_path)
    if missing:
        pytest.skip(f"not installed: {', '.join(sorted(missing))}")


def test_every_page_with_a_console_block_is_tested():
    """The tested pages are those that show a shell session."""
    pages = sorted(GUIDE.glob("*.md"))
    assert [page.name for page in pages if "```console" in page.read_text(encoding="utf-8")] == PAGES


def test_three_dots_match_within_a_line_and_alone_any_lines():
    """Three dots match any text within a line, and any number of lines if they are the whole line."""
    assert matches("a x\nb\n", "a ...\nb\n")
    assert matches("a\nx\ny\nb\n", "a\n...\nb\n")
    assert matches("a\nb\n", "a\n...\nb\n")
    assert not matches("a\nb\n", "a ...\nb\n")
