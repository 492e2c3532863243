"""The commands, their options and their help.

Rules:

* What a command needs is imported when it runs: ``--help`` stays quick.
* Every command ends in `guarded`, which turns an error into one line on stderr and an exit code (`exits`).
* The example in a command's help is run by the tests.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from structlog_audit.cli.exit_codes import ClosedPipe, Exit, UsageError
from structlog_audit.cli.terminal import PROGRAM, put_error
from structlog_audit.exceptions import AuditError

COMMANDS = (
    "query",
    "tail",
    "stats",
    "users",
    "export",
    "report",
    "monitor",
    "catalogue",
    "doctor",
    "shipper",
    "demo",
)
"""The commands in the order of ``--help``: each is a module of `structlog_audit.cli.commands`."""


def guarded(command: Callable[[], Any]) -> int:
    """The exit code of *command*; an error of it is said in one line on stderr."""
    try:
        return int(command() or 0)
    except ClosedPipe:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so the interpreter's own flush at its end fails no more
        return Exit.CLOSED_PIPE
    except UsageError as error:
        put_error(str(error))
        return Exit.USAGE
    except OSError as error:
        what = error.strerror or str(error)
        put_error(f"{error.filename}: {what}" if error.filename is not None else what)
        return Exit.UNREADABLE
    except AuditError as error:
        put_error(str(error))
        return Exit.UNREADABLE
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except Exception as error:
        explain = getattr(error, "format_message", None)  # typer's own, whose class has no public name in every version
        if explain is None:
            raise
        said = explain()
        put_error(f"{said if said.endswith(('.', '?')) else f'{said}.'} Try '{_path_of(error)} --help'.")
        return Exit.USAGE


def _path_of(error: Exception) -> str:
    context = getattr(error, "ctx", None)
    return PROGRAM if context is None else context.command_path


class Commands(TyperGroup):
    """The commands, guarded."""

    def invoke(self, ctx: Any) -> Any:
        """Run what was asked for, and see that all of it was read: typer would hide a closed pipe behind exit code 1."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise ClosedPipe from error
        return code

    def main(self, *args: Any, standalone_mode: bool = True, **options: Any) -> Any:
        """Run the command; see `guarded`."""
        run = super().main
        code = guarded(lambda: run(*args, **{**options, "standalone_mode": False}))
        if standalone_mode:
            sys.exit(code)
        return code

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of this module."""
        return list(self.commands)


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        from structlog_audit import __version__

        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> int:
    """Ask the files of an audit trail.

    A trail is named by its active file; its rolled segments are found beside it. A word with an operator is a condition:
    user_id=ann, status!=SUCCESS, operation~^auth, metadata.source=api.
    The same field twice means any of them.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return Exit.USAGE
    return Exit.DONE


def _register(name: str) -> None:
    """Add the command *name*: the function of that name in the module of that name."""
    module = import_module(f"structlog_audit.cli.commands.{name}")
    # With \b the lines are not wrapped.
    example = f"\b\nExample:\n  {PROGRAM} {module.EXAMPLE}"
    app.command(name, epilog=example)(getattr(module, name))


for _name in COMMANDS:
    _register(_name)
