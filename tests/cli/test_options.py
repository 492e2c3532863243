"""The options that every command that reads trails has."""

from __future__ import annotations

import inspect
import subprocess
import sys
from importlib import import_module

import pytest

from structlog_audit.cli.app import COMMANDS
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import Force, TrailOptions, reads_trails

OTHERS = (
    "compact",
    "archive",
    "keygen",
    "rotate_key",
    "seal",
    "verify",
    "prove",
    "verify_proof",
    "erase",
    "doctor",
    "shipper",
    "demo",
)
READERS = [name for name in COMMANDS if name not in OTHERS]
WITH_ALL = {"query", "tail", "stats", "export"}


def command_named(name):
    return getattr(import_module(f"structlog_audit.cli.commands.{name}"), name)


@pytest.mark.parametrize("name", READERS)
def test_command_that_reads_trails_has_the_shared_options(name):
    """Every command that reads trails has the shared options, and --all only where kinds can be selected."""
    parameters = inspect.signature(command_named(name)).parameters
    assert list(parameters)[:4] == ["words", "since", "until", "vault"]
    assert list(parameters)[-2:] == ["record", "strict"]
    assert ("every_kind" in parameters) is (name in WITH_ALL)


def test_decorated_command_receives_shared_options_as_one_value():
    """The shared options arrive as `TrailOptions`, those of the command as they are; missing ones have their defaults."""
    received = []

    @reads_trails()
    def example(options: TrailOptions, *, force: Force = False) -> Exit:
        received.append((options, force))
        return Exit.DONE

    assert example(words=["a"], since="1h", strict=True, force=True) == Exit.DONE
    example(words=None)
    given = TrailOptions("example", ["a"], since="1h", strict=True)
    assert received == [(given, True), (TrailOptions("example"), False)]


def test_time_range_with_an_end_cannot_be_followed():
    """--follow is refused with --until, and accepted without it."""
    TrailOptions("tail").require_open_end()
    with pytest.raises(UsageError, match="--follow cannot be combined with --until"):
        TrailOptions("tail", until="1h").require_open_end()


def test_process_of_the_doctor_does_not_import_typer():
    """The values of options are apart from the options, so that loading a configuration does not import typer."""
    code = "import sys, structlog_audit.cli.choices as options; print(options.Severity.ERROR, 'typer' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "error False\n"
