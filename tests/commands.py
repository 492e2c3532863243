"""Helpers that run the command line in tests: in this process, or in a new one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from structlog_audit.cli.app import app

PROGRAM = [sys.executable, "-m", "structlog_audit.cli"]
GOLDEN = Path(__file__).parent / "golden" / "trail.jsonl"
NOT_OURS = ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "LINES")


def many(count: int) -> bytes:
    """Return *count* lines of a trail, each with a different id."""
    line = GOLDEN.read_bytes().splitlines(keepends=True)[1]
    return b"".join(line[:33] + b"%012x" % number + line[45:] for number in range(count))


class Result:
    """The output and the exit code of a command."""

    def __init__(self, out: str, err: str, code: int) -> None:
        self.out, self.err, self.code = out, err, code

    @property
    def lines(self) -> list[str]:
        """The lines of stdout."""
        return self.out.splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines of stdout, decoded from JSON."""
        return [json.loads(line) for line in self.lines]

    @property
    def said(self) -> str:
        """The only line of stderr, without the name of the program."""
        assert self.err.startswith("structlog-audit: "), self.err
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("structlog-audit: ").removesuffix("\n")


def run(*words: object, input: bytes | None = None, **environment: str) -> Result:
    """Run a command in this process, and return its result."""
    set_to = {"TZ": "UTC", "COLUMNS": None, "NO_COLOR": None, **environment}
    done = CliRunner().invoke(app, [str(word) for word in words], input=input, env=set_to, prog_name="structlog-audit")
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Result(done.stdout, done.stderr, done.exit_code)


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment with *more*.

    Variables that change the output of commands are left out.
    """
    ours = {name: value for name, value in os.environ.items() if not name.startswith(NOT_OURS)}
    return {**ours, "TZ": "UTC", **more}


def process(*words: object, **options: Any) -> Result:
    """Run a command in a new process, wait for it, and return its result."""
    done = subprocess.run(
        [*PROGRAM, *map(str, words)], capture_output=True, timeout=60, check=False,
        **{"env": environment(), **options},
    )  # fmt: skip
    return Result(done.stdout.decode(), done.stderr.decode(), done.returncode)
