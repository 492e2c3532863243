"""The options that several commands share."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from structlog_audit.cli.options import Output

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
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with the events that come, across rollovers.")]
Utc = Annotated[bool, typer.Option("--utc", help="Times are in UTC, and not local.")]
All = Annotated[bool, typer.Option("--all", "-a", help="The library's own events too (opened, gap, intent ...).")]
Record = Annotated[bool, typer.Option("--record", help="Record in the trail that it is read, by whom and for what.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 4 if not everything could be read.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there.")]
As = Annotated[Output, typer.Option("--output", "-o", help="How to write it.")]


def request_of(command: str, words: list[str] | None, **given: Any) -> Any:
    """Return the request of *command* with the options *given*."""
    from structlog_audit.cli.reading import Request

    return Request(command, words or [], **given)
