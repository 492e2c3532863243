"""Running the command line in tests: in this process, and as a separate process."""

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
OUTPUT_VARIABLES = ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "LINES")


def trail_lines(count: int) -> bytes:
    """Return *count* lines of a trail with distinct event ids."""
    line = GOLDEN.read_bytes().splitlines(keepends=True)[1]
    return b"".join(line[:33] + b"%012x" % number + line[45:] for number in range(count))


class Result:
    """The output and the exit code of a command."""

    def __init__(self, out: str, err: str, code: int) -> None:
        self.out, self.err, self.code = out, err, code

    @property
    def lines(self) -> list[str]:
        """The lines on stdout."""
        return self.out.splitlines()

    @property
    def events(self) -> list[dict[str, Any]]:
        """The lines on stdout as JSON."""
        return [json.loads(line) for line in self.lines]

    @property
    def error_line(self) -> str:
        """The one line on stderr."""
        assert self.err.startswith("structlog-audit: "), self.err
        assert self.err.endswith("\n")
        assert self.err.count("\n") == 1, self.err
        return self.err.removeprefix("structlog-audit: ").removesuffix("\n")


def run(*words: object, input: bytes | None = None, **environment: str) -> Result:
    """Run a command in this process, and return its result."""
    variables = {"TZ": "UTC", "COLUMNS": None, "NO_COLOR": None, **environment}
    done = CliRunner().invoke(
        app, [str(word) for word in words], input=input, env=variables, prog_name="structlog-audit"
    )
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Result(done.stdout, done.stderr, done.exit_code)


def environment(**more: str) -> dict[str, str]:
    """Return the environment of this process without variables that change the output of a command."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OUTPUT_VARIABLES)}
    return {**kept, "TZ": "UTC", **more}


def process(*words: object, **options: Any) -> Result:
    """Run a command as a separate process to its end, and return its result."""
    done = subprocess.run(
        [*PROGRAM, *map(str, words)], capture_output=True, timeout=60, check=False,
        **{"env": environment(), **options},
    )  # fmt: skip
    return Result(done.stdout.decode(), done.stderr.decode(), done.returncode)
