"""``query``: events on stdout."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.exit_codes import Exit
from structlog_audit.cli.options import (
    Columns,
    OutputOption,
    SealKeys,
    TrailOptions,
    Verified,
    proving_keys,
    reads_trails,
)

if TYPE_CHECKING:
    from structlog_audit.cli.reading import Reading
    from structlog_audit.events.codec import StoredEvent

EXAMPLES = (
    "query logs/audit.jsonl --since 7d user_id=ann status=FAILURE",
    "query logs/audit.jsonl -n 20 -o csv --columns timestamp,user_id,operation",
)


@reads_trails()
def query(
    options: TrailOptions,
    *,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, metavar="N", help="Show only the newest N events.")
    ] = None,
    reverse: Annotated[bool, typer.Option("--reverse", "-r", help="Show newest first.")] = False,
    reveal: Annotated[
        bool, typer.Option("--reveal", help="Show persons and erasable values in clear; needs --vault.")
    ] = False,
    verified: Verified = False,
    key: SealKeys = None,
    output: OutputOption = "text",
    columns: Columns = None,
) -> Exit:
    """Show events, oldest first."""
    from structlog_audit.cli.columns import parse_columns
    from structlog_audit.cli.output import put_events
    from structlog_audit.cli.reading import read_trails

    names = parse_columns(columns, output)

    def show(reading: Reading) -> Exit:
        events: Iterable[StoredEvent]
        if reverse:
            events = reading.events(newest_first=True, at_most=lines)
        elif lines is not None:
            events = reading.newest(lines)
        else:
            events = reading.events()
        is_stream = "-" in (*options.trails, *options.words)
        count = put_events(events, output, reading.now, zone=options.zone, columns=names, at_once=is_stream)
        if not count and lines != 0:
            reading.explain_absence()
        return Exit.DONE if count else Exit.NO

    return read_trails(options, show, reveal=reveal, verified_by=proving_keys(key, verified=verified))
