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
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from structlog_audit.cli.exit_codes import ClosedPipe, Exit, UsageError
from structlog_audit.cli.options import AlertOutput, Format, Listing, Output, Severity
from structlog_audit.cli.terminal import PROGRAM, say
from structlog_audit.exceptions import AuditError


def guarded(command: Callable[[], Any]) -> int:
    """The exit code of *command*; an error of it is said in one line on stderr."""
    try:
        return int(command() or 0)
    except ClosedPipe:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # so the interpreter's own flush at its end fails no more
        return Exit.CLOSED_PIPE
    except UsageError as error:
        say(str(error))
        return Exit.USAGE
    except OSError as error:
        what = error.strerror or str(error)
        say(f"{error.filename}: {what}" if error.filename is not None else what)
        return Exit.UNREADABLE
    except AuditError as error:
        say(str(error))
        return Exit.UNREADABLE
    except (KeyboardInterrupt, typer.Abort):
        return Exit.INTERRUPTED
    except Exception as error:
        explain = getattr(error, "format_message", None)  # typer's own, whose class has no public name in every version
        if explain is None:
            raise
        said = explain()
        say(f"{said if said.endswith(('.', '?')) else f'{said}.'} Try '{_path_of(error)} --help'.")
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


def _example(words: str) -> str:
    return f"\b\nExample:\n  {PROGRAM} {words}"  # \b: the lines stay as they are


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="TRAIL|FIELD=value", help="Trails (paths, - for stdin) and conditions.", show_default=False),
]
Trails = Annotated[
    list[str] | None, typer.Argument(metavar="TRAIL", help="Trails (paths, - for stdin).", show_default=False)
]
Since = Annotated[
    str | None,
    typer.Option(
        "--since", "-S", metavar="TIME", help="From this time on: RFC 3339, a date, today, yesterday, 1h, 30m, 7d."
    ),
]
Until = Annotated[str | None, typer.Option("--until", "-U", metavar="TIME", help="Before this time.")]
Lines = Annotated[int | None, typer.Option("--lines", "-n", min=0, metavar="N", help="The newest N only.")]
Utc = Annotated[bool, typer.Option("--utc", help="Times are in UTC, and not local.")]
All = Annotated[bool, typer.Option("--all", "-a", help="The library's own events too (opened, gap, intent ...).")]
Record = Annotated[bool, typer.Option("--record", help="Record in the trail that it is read, by whom and for what.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 4 if not everything could be read.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]
As = Annotated[Output, typer.Option("--output", "-o", help="How to write it.")]


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


def _request(command: str, words: list[str] | None, **asked: Any) -> Any:
    from structlog_audit.cli.reading import Request

    return Request(command, words or [], **asked)


@app.command(epilog=_example("query logs/audit.jsonl --since 7d user_id=ann status=FAILURE"))
def query(
    words: Words = None,
    since: Since = None,
    until: Until = None,
    lines: Lines = None,
    reverse: Annotated[bool, typer.Option("--reverse", "-r", help="The newest first.")] = False,
    output: As = Output.TABLE,
    utc: Utc = False,
    every_kind: All = False,
    record: Record = False,
    strict: Strict = False,
) -> int:
    """Show events, the oldest first."""
    from structlog_audit.cli.commands import query as events

    request = _request(
        "query", words, since=since, until=until, in_utc=utc, every_kind=every_kind, record=record, strict=strict
    )
    return events.query(request, output, lines, reverse=reverse)


@app.command(epilog=_example("tail -n 5 logs/audit.jsonl operation=STORE operation=FORGET"))
def tail(
    words: Words = None,
    since: Since = None,
    until: Until = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, metavar="N", help="How many to begin with.")] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with those that come, across rollovers.")
    ] = False,
    output: As = Output.TABLE,
    utc: Utc = False,
    every_kind: All = False,
    record: Record = False,
    strict: Strict = False,
) -> int:
    """Show the newest events, and follow those that come."""
    from structlog_audit.cli.commands import query as events

    request = _request(
        "tail", words, since=since, until=until, in_utc=utc, every_kind=every_kind, record=record, strict=strict
    )
    return events.tail(request, output, lines, follow=follow)


@app.command(epilog=_example("stats logs/audit.jsonl --since 2025-01-01 --until 2025-02-01"))
def stats(
    words: Words = None,
    since: Since = None,
    until: Until = None,
    output: As = Output.TABLE,
    utc: Utc = False,
    every_kind: All = False,
    record: Record = False,
    strict: Strict = False,
) -> int:
    """Count events by status, operation and user."""
    from structlog_audit.cli.commands import stats as counts

    request = _request(
        "stats", words, since=since, until=until, in_utc=utc, every_kind=every_kind, record=record, strict=strict
    )
    return counts.stats(request, output)


@app.command(epilog=_example("users logs/audit.jsonl -n 20 operation=EXPORT"))
def users(
    words: Words = None,
    since: Since = None,
    until: Until = None,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, metavar="N", help="The N most active only.")
    ] = None,
    output: As = Output.TABLE,
    utc: Utc = False,
    record: Record = False,
    strict: Strict = False,
) -> int:
    """Count the events of each user: last activity, success."""
    from structlog_audit.cli.commands import stats as counts

    request = _request("users", words, since=since, until=until, in_utc=utc, record=record, strict=strict)
    return counts.users(request, output, lines)


@app.command(epilog=_example("export logs/audit.jsonl status=FAILURE --to failures.csv"))
def export(
    to: Annotated[str, typer.Option("--to", metavar="FILE", help="The file; its suffix names the format.")],
    words: Words = None,
    since: Since = None,
    until: Until = None,
    format: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="The format, if not that of the suffix.")
    ] = None,
    force: Force = False,
    utc: Utc = False,
    every_kind: All = False,
    record: Record = False,
    strict: Strict = False,
) -> int:
    """Write events to a file, whole or not at all."""
    from structlog_audit.cli.commands import export as files

    request = _request(
        "export", words, since=since, until=until, in_utc=utc, every_kind=every_kind, record=record, strict=strict
    )
    return files.export_events(request, to, format, force=force)


@app.command(epilog=_example("report logs/audit.jsonl --month 2025-01 --markdown january.md"))
def report(
    words: Trails = None,
    month: Annotated[str | None, typer.Option("--month", metavar="YYYY-MM", help="A month in UTC.")] = None,
    since: Since = None,
    until: Until = None,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="About one user only.")] = None,
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write HTML; - for stdout.")] = None,
    markdown: Annotated[
        str | None, typer.Option("--markdown", metavar="FILE", help="Write Markdown (the default, to stdout).")
    ] = None,
    json: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON.")] = None,
    force: Force = False,
    utc: Utc = False,
    record: Record = False,
    strict: Strict = False,
) -> int:
    """Make the compliance report of a month, or of any time."""
    from structlog_audit.cli.commands import export as files

    request = _request("report", words, since=since, until=until, in_utc=utc, record=record, strict=strict)
    return files.report(request, month, user, {"html": html, "markdown": markdown, "json": json}, force=force)


@app.command(epilog=_example("monitor --rules rules.toml logs/audit.jsonl --since 7d"))
def monitor(
    rules: Annotated[str, typer.Option("--rules", metavar="RULES", help="A file of rules: TOML, JSON or YAML.")],
    words: Words = None,
    since: Since = None,
    until: Until = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with the events that come, across rollovers.")
    ] = False,
    output: Annotated[AlertOutput, typer.Option("--output", "-o", help="How to write it.")] = AlertOutput.TEXT,
    utc: Utc = False,
    record: Record = False,
    strict: Strict = False,
) -> int:
    """Show the alerts of rules; exit with 1 if there is one."""
    from structlog_audit.cli.commands import monitor as alerts

    request = _request(
        "monitor", words, since=since, until=until, in_utc=utc, every_kind=True, record=record, strict=strict
    )
    return alerts.monitor(request, rules, output, follow=follow)


@app.command(epilog=_example("catalogue myapp --trail logs/audit.jsonl --since 30d"))
def catalogue(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PACKAGE|FIELD=value", help="Packages, paths of source; conditions.", show_default=False
        ),
    ] = None,
    trail: Annotated[
        list[str] | None,
        typer.Option("--trail", metavar="TRAIL", help="Compare with this trail.", show_default=False),
    ] = None,
    since: Since = None,
    until: Until = None,
    output: Annotated[Listing, typer.Option("--output", "-o", help="How to write it.")] = Listing.MARKDOWN,
    utc: Utc = False,
    record: Record = False,
    strict: Strict = False,
) -> int:
    """List the operations that code declares."""
    from structlog_audit.cli.commands import catalogue as listing

    request = _request(
        "catalogue", words, since=since, until=until, in_utc=utc, record=record, strict=strict, trails=trail or []
    )
    return listing.list_operations(request, output)


@app.command(epilog=_example("doctor logs/audit.jsonl --config logging.json"))
def doctor(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="TRAIL", help="Trails; those of the configuration if none.", show_default=False),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config",
            "-c",
            metavar="CONFIG",
            help="A dictConfig: JSON, YAML or Python file, or module:attribute.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to write it.")] = Format.TEXT,
    fail_on: Annotated[
        Severity, typer.Option("--fail-on", help="Exit with 4 for findings at least as bad.")
    ] = Severity.WARNING,
    ignore: Annotated[
        list[str] | None, typer.Option("--ignore", metavar="CODE", help="Leave these findings out.", show_default=False)
    ] = None,
) -> int:
    """Find what mutes, loses or slows events, and the fix."""
    from structlog_audit.cli.doctor import run_doctor

    return run_doctor(words or [], config or [], output, fail_on, ignore or [])


@app.command(epilog=_example("shipper rsyslog --trail logs/audit.jsonl"))
def shipper(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The shipper; lists them if not given.", show_default=False)
    ] = None,
    trail: Annotated[
        str | None, typer.Option("--trail", metavar="PATH", help="The active file of the trail.", show_default=False)
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="FILE", help="The file to ship to, where a file can be.", show_default=False),
    ] = None,
) -> int:
    """Print the configuration of a log shipper for a trail."""
    from structlog_audit.cli.commands.shipper import shipper as show

    return show(name, trail, to)


@app.command(epilog=_example("demo audit-demo"))
def demo(
    folder: Annotated[
        str | None,
        typer.Argument(metavar="FOLDER", help="Where to; a temporary folder if not given.", show_default=False),
    ] = None,
) -> int:
    """Write a small trail and ask it three questions."""
    from structlog_audit.cli.commands.demo import demo as show

    return show(folder)
