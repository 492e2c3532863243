"""``query``: events on stdout."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.exit_codes import Exit
from structlog_audit.cli.options import Output
from structlog_audit.cli.trail_options import OutputOption, TrailOptions, reads_trails
from structlog_audit.events.event import AuditEvent
from structlog_audit.query.filters import conditions

if TYPE_CHECKING:
    from structlog_audit.cli.reading import Reading

EXAMPLE = "query logs/audit.jsonl --since 7d user_id=ann status=FAILURE"


@reads_trails()
def query(
    options: TrailOptions,
    *,
    lines: Annotated[int | None, typer.Option("--lines", "-n", min=0, metavar="N", help="The newest N only.")] = None,
    reverse: Annotated[bool, typer.Option("--reverse", "-r", help="The newest first.")] = False,
    output: OutputOption = Output.TABLE,
) -> Exit:
    """Show events, the oldest first."""
    from structlog_audit.cli.output import put_events
    from structlog_audit.cli.reading import read

    def show(reading: Reading) -> Exit:
        events: Iterator[AuditEvent]
        if reverse:
            found = reading.source.select(conditions(**reading.filters), newest_first=True)
            events = (stored.event() for stored in islice(found, lines))
        elif lines is not None:
            events = iter(reading.newest(lines))
        else:
            events = reading.source.iter_events(**reading.filters)
        count = put_events(events, output, reading.now, in_utc=options.utc)
        return Exit.DONE if count else Exit.NO

    return read(options, show)
