"""``tail``: the newest events on stdout, and the events that follow."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.exit_codes import Exit
from structlog_audit.cli.options import Columns, Follow, OutputOption, TrailOptions, reads_trails

if TYPE_CHECKING:
    from structlog_audit.cli.reading import Reading

EXAMPLES = (
    "tail -n 5 logs/audit.jsonl operation=STORE operation=FORGET",
    "tail logs/audit.jsonl -o jsonl",
)


@reads_trails()
def tail(
    options: TrailOptions,
    *,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, metavar="N", help="Number of events to start with.")
    ] = 10,
    follow: Follow = False,
    output: OutputOption = "text",
    columns: Columns = None,
) -> Exit:
    """Show the newest events, and follow new ones."""
    from structlog_audit.cli.columns import parse_columns
    from structlog_audit.cli.output import put_events
    from structlog_audit.cli.reading import read_trails

    names = parse_columns(columns, output)
    if follow:
        options.require_endless(output)

    def show(reading: Reading) -> Exit:
        newest = reading.newest(lines)
        count = put_events(newest, output, reading.now, zone=options.zone, columns=names)
        if not count and lines:
            reading.explain_absence()
        return Exit.DONE if count else Exit.NO

    def show_and_follow(reading: Reading) -> Exit:
        # Following begins before the newest events are read, so that no event is missed in between.
        coming = reading.follow(since_now=True)

        # stdin has no events before they arrive.
        newest = [] if "-" in options.words else reading.newest(lines)
        known = {event.event_id for event in newest}
        later = (event for event in coming if event.event_id not in known)

        events = chain(newest, later)
        put_events(events, output, reading.now, zone=options.zone, columns=names, first=len(newest))
        return Exit.DONE

    return read_trails(options, show_and_follow if follow else show)
