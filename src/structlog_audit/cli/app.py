"""The command line: its commands, its errors and its version.

A command is a module of `structlog_audit.cli.commands`, listed in `COMMANDS`. Every command runs in `run_guarded`, which
turns an error into one line on stderr and an exit code (`structlog_audit.cli.exit_codes`).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from structlog_audit.cli.exit_codes import ClosedPipe, Exit, UsageError
from structlog_audit.cli.terminal import PROGRAM, clean, put_error
from structlog_audit.exceptions import AuditError

if TYPE_CHECKING:
    from structlog_audit.cli.settings import Settings

COMMANDS = (
    "query",
    "tail",
    "stats",
    "users",
    "export",
    "explore",
    "erase",
    "report",
    "person",
    "diff",
    "monitor",
    "catalogue",
    "compact",
    "archive",
    "keygen",
    "seal",
    "rotate_key",
    "verify",
    "prove",
    "verify_proof",
    "doctor",
    "shipper",
    "import_auditlog",
    "demo",
)
"""The commands in the order of ``--help``. In their names on the command line, an underscore is a hyphen."""


def run_guarded(command: Callable[[], Any]) -> int:
    """Run *command* and return its exit code. An error is written to stderr as one line."""
    try:
        return int(command() or 0)
    except ClosedPipe:
        # Otherwise the interpreter fails when it flushes stdout at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return Exit.CLOSED_PIPE
    except UsageError as error:
        put_error(str(error))
        return Exit.USAGE
    except OSError as error:
        reason = error.strerror or str(error)
        put_error(reason if error.filename is None else f"{error.filename}: {reason}")
        return Exit.UNREADABLE
    except AuditError as error:
        put_error(str(error))
        return Exit.UNREADABLE
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except Exception as error:
        # The usage errors of typer have no public class in every version.
        if not hasattr(error, "format_message"):
            raise
        _put_usage_error(error)
        return Exit.USAGE


def _put_usage_error(error: Any) -> None:
    message = error.format_message()
    if not message.endswith((".", "?")):
        message += "."
    context = getattr(error, "ctx", None)
    path = PROGRAM if context is None else context.command_path
    put_error(f"{message} Try '{path} --help'.")


class Commands(TyperGroup):
    """The group of all commands, each run by `run_guarded`."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and flush stdout where a closed pipe can be detected: typer would exit with 1."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError as error:
            raise ClosedPipe from error
        return code

    def main(self, *args: Any, standalone_mode: bool = True, **options: Any) -> Any:
        """Run the command line, and exit with its code in *standalone_mode*; otherwise return it."""
        run = super().main
        code = run_guarded(lambda: run(*args, **{**options, "standalone_mode": False}))
        if standalone_mode:
            sys.exit(code)
        return code

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands in the order of `COMMANDS`."""
        return list(self.commands)


class _Command(TyperCommand):
    """A command whose errors about a value of the settings name their file."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command, and name the file of the settings in its error."""
        try:
            return super().invoke(ctx)
        except AuditError as error:
            settings: Settings = ctx.find_root().obj
            error.args = (settings.attribute(str(error), _names_of_settings(ctx, settings)),)
            raise


def _names_of_settings(ctx: Any, settings: Settings) -> Iterator[str]:
    """Yield the names of the settings whose values the command was given."""
    for name in ctx.params:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "DEFAULT_MAP":
            yield name

    # Trails among words are no default of a parameter.
    if "words" in ctx.params and not set(settings.trails).intersection(ctx.params["words"] or ()):
        yield "trail"


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _load_settings() -> Settings:
    # Imported by the commands that run: --help must be quick.
    from structlog_audit.cli.settings import load_settings

    return load_settings()


def _show_version(is_requested: bool) -> None:
    if is_requested:
        from structlog_audit import __version__

        typer.echo(f"{PROGRAM} {__version__}")
        path = _load_settings().path
        if path is not None:
            typer.echo(f"settings: {clean(path)}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version, and the file of settings."
        ),
    ] = False,
) -> int:
    """Query the files of an audit trail.

    A trail is named by its active file; its rolled segments are found next to it. A word with an operator is a condition:
    user_id=ann, status!=SUCCESS, operation~^auth, metadata.source=api.
    Several values for one field match any of them.
    """
    name = context.invoked_subcommand
    if name is None:
        typer.echo(context.get_help())
        return Exit.USAGE

    settings = _load_settings()
    command: Any = context.command
    context.obj = settings
    context.default_map = {name: settings.defaults(name, command.commands[name])}
    return Exit.DONE


def _register(name: str) -> None:
    """Add the command *name*: the function, or the group, of that name in the module of that name."""
    module = import_module(f"structlog_audit.cli.commands.{name}")
    # After \b, typer does not wrap the lines.
    lines = [f"  {PROGRAM} {example}" for example in module.EXAMPLES]
    examples = "\n".join(["\b\nExamples:", *lines])
    command = getattr(module, name)
    if isinstance(command, typer.Typer):
        app.add_typer(command, name=name, epilog=examples)
    else:
        app.command(name.replace("_", "-"), cls=_Command, epilog=examples)(command)


for _name in COMMANDS:
    _register(_name)
