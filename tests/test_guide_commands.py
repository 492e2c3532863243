"""The shell commands of the guide print the output that the guide shows."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import guide_trail
import pytest
from commands import environment

GUIDE = Path(__file__).parent.parent / "examples" / "guide"
PAGES = ["catalogue.md", "command-line.md", "files-without-python.md", "monitoring.md"]
BLOCK = re.compile(r"(?:<!-- needs: (?P<needs>[\w ]+) -->\n)?^```console\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "\x1e"

CONFIG = """\
version: 1
handlers:
  file: {class: structlog_audit.AuditFileHandler, filename: /var/log/app/audit.jsonl, maxBytes: 60000}
  audit: {class: structlog_audit.AuditHandler, target: file}
loggers:
  audit: {handlers: [audit]}
"""


def commands_of(body):
    """The commands of a block, with what each shows; a here-document belongs to its command."""
    found, ending = [], None
    for line in body.splitlines(keepends=True):
        if ending is not None:
            found[-1][0] += line
            ending = None if line == ending else ending
        elif line.startswith("$ "):
            found.append([line[2:], ""])
            here = re.search(r"<<'(\w+)'", line)
            ending = f"{here[1]}\n" if here else None
        else:
            found[-1][1] += line
    return found


def matches(printed, shown):
    """Whether *printed* is what is *shown*: ``...`` stands for anything in a line, and by itself for any lines."""
    lines = shown.splitlines(keepends=True)
    patterns = ["(?:.*\n)*" if line == "...\n" else re.escape(line).replace(r"\.\.\.", ".*") for line in lines]
    return re.fullmatch("".join(patterns), printed) is not None


def run_page(name, folder, *, only=()):
    """Run the commands of a page in one shell, but blocks that need what is not there; those that need *only* what is asked."""
    guide_trail.made(folder)
    (folder / "logging.yaml").write_text(CONFIG)
    (folder / "bin").mkdir()
    (folder / "bin" / "structlog-audit").write_text(f'#!/bin/sh\nexec {sys.executable} -m structlog_audit.cli "$@"\n')
    (folder / "bin" / "structlog-audit").chmod(0o755)
    path = f"{folder / 'bin'}:{Path(sys.executable).parent}:{environment()['PATH']}"
    commands, left_out = [], set()
    for block in BLOCK.finditer((GUIDE / name).read_text(encoding="utf-8")):
        needs = (block["needs"] or "").split()
        missing = [tool for tool in needs if shutil.which(tool, path=path) is None]
        left_out |= set(missing)
        if not missing and (not only or not needs or set(needs) & set(only)):
            commands += commands_of(block["body"])
    script = "".join(f"{{ {command.rstrip()}\n}} 2>&1\nprintf '\\x1e'\n" for command, _ in commands)
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment(PATH=path, HOME=str(folder)), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    printed = done.stdout.split(MARK)
    assert len(printed) == len(commands) + 1, done.stderr
    for (command, shown), output in zip(commands, printed, strict=False):
        if not matches(output, shown):
            assert output == shown, command
    return len(commands), left_out


@pytest.mark.parametrize("name", PAGES)
def test_the_commands_of_a_page_print_what_it_shows(name, tmp_path):
    """The commands of a page run in order and print what stands below each; those of tools that are not there are left out."""
    ran, _ = run_page(name, tmp_path)
    assert ran >= 5


@pytest.mark.system
def test_no_command_of_the_guide_is_left_out(tmp_path):
    """Where jq, DuckDB and SQLite are installed, every command of the page runs."""
    _, left_out = run_page("files-without-python.md", tmp_path)
    if left_out:
        pytest.skip(f"not installed: {', '.join(sorted(left_out))}")


def test_the_pages_are_those_with_commands():
    """Every page of the guide that shows a session in a shell is tested."""
    assert [path.name for path in sorted(GUIDE.glob("*.md")) if "```console" in path.read_text()] == PAGES


def test_three_dots():
    """Three dots in a line stand for the rest of it, alone in a line for any number of lines."""
    assert matches("a x\nb\n", "a ...\nb\n")
    assert matches("a\nx\ny\nb\n", "a\n...\nb\n")
    assert matches("a\nb\n", "a\n...\nb\n")
    assert not matches("a\nb\n", "a ...\nb\n")
