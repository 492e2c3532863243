"""``query``: events on stdout."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.exit_codes import Exit
from structlog_audit.cli.options import Output
from structlog_audit.cli.trail_options import All, As, Lines, Record, Since, Strict, Until, Utc, Words, request_of
from structlog_audit.events.event import AuditEvent
from structlog_audit.query.filters import conditions

if TYPE_CHECKING:
    from structlog_audit.cli.reading import Reading

EXAMPLE = "query logs/audit.jsonl --since 7d user_id=ann status=FAILURE"


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
    from structlog_audit.cli.output import put_events
    from structlog_audit.cli.reading import read

    request = request_of(
        "query", words, since=since, until=until, in_utc=utc, every_kind=every_kind, record=record, strict=strict
    )

    def show(reading: Reading) -> Exit:
        events: Iterator[AuditEvent]
        if reverse:
            found = reading.source.select(conditions(**reading.filters), newest_first=True)
            events = (stored.event() for stored in islice(found, lines))
        elif lines is not None:
            events = iter(reading.newest(lines))
        else:
            events = reading.source.iter_events(**reading.filters)
        count = put_events(events, output, reading.now, in_utc=request.in_utc)
        return Exit.DONE if count else Exit.NO

    return read(request, show)
