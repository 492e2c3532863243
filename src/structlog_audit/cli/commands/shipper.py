"""``shipper``: the configuration of a log shipper on stdout.

The text can be saved unchanged: nothing else is written to stdout.
"""

from __future__ import annotations

from typing import Annotated

import typer

from structlog_audit.cli.completion import complete_shippers
from structlog_audit.cli.exit_codes import Exit, UsageError, did_you_mean
from structlog_audit.cli.options import default_trails
from structlog_audit.cli.terminal import put, put_line
from structlog_audit.exceptions import AuditError

EXAMPLES = (
    "shipper rsyslog --trail logs/audit.jsonl",
    "shipper",
)


def shipper(
    context: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Shipper; without it, all are listed.",
            show_default=False,
            autocompletion=complete_shippers,
        ),
    ] = None,
    trail: Annotated[
        str | None, typer.Option("--trail", metavar="PATH", help="Active file of the trail.", show_default=False)
    ] = None,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="FILE", help="File to ship to, if the shipper can write one.", show_default=False),
    ] = None,
) -> Exit:
    """Print the configuration of a log shipper for a trail."""
    from structlog_audit.shippers import SHIPPERS, configuration

    known = ", ".join(SHIPPERS)
    if name is None:
        if trail is not None or to is not None:
            raise UsageError(f"expected the name of a shipper, one of {known}")
        _list()
        return Exit.DONE

    if name not in SHIPPERS:
        raise UsageError(f"unknown shipper {name!r}.{did_you_mean(name, SHIPPERS)} Known shippers: {known}")
    if trail is None and len(defaults := default_trails(context)) == 1:
        (trail,) = defaults
    if trail is None:
        raise UsageError(f"expected the trail that {name} ships, such as --trail logs/audit.jsonl")
    if trail == "-":
        raise UsageError("--trail=-: expected the path of a file, because a shipper does not read stdin")
    try:
        put(configuration(name, trail, to=to))
    except AuditError as error:
        raise UsageError(f"--{error}") from None
    return Exit.DONE


def _list() -> None:
    """Write the names, and whether our tests run the configuration."""
    from structlog_audit.shippers import SHIPPERS

    width = max(map(len, SHIPPERS))
    for name, known in SHIPPERS.items():
        tested = "run by our tests" if known.is_run else "not run by our tests"
        put_line(f"{name:{width}}  {tested}  {known.title}")
