"""``query`` and ``tail``: events on stdout."""

from __future__ import annotations

import select
import sys
from collections.abc import Callable, Iterator
from io import UnsupportedOperation
from itertools import chain, islice

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import Output
from structlog_audit.cli.output import put_events
from structlog_audit.cli.reading import Reading, Request, read
from structlog_audit.events.event import AuditEvent
from structlog_audit.query.filters import conditions


def query(request: Request, output: Output, lines: int | None, *, reverse: bool) -> Exit:
    """Write the events that *request* asks for: the oldest first, of those the newest *lines*; or *reverse*."""

    def act(reading: Reading) -> Exit:
        if reverse:
            found = reading.source.select(conditions(**reading.filters), newest_first=True)
            events: Iterator[AuditEvent] = (stored.event() for stored in islice(found, lines))
        elif lines is not None:
            events = iter(reading.newest(lines))
        else:
            events = reading.source.iter_events(**reading.filters)
        return _shown(put_events(events, output, reading.now, in_utc=request.in_utc))

    return read(request, act)


def tail(request: Request, output: Output, lines: int, *, follow: bool) -> Exit:
    """Write the newest *lines* events, and with *follow* those that come, for as long as somebody reads."""
    if follow and output == Output.JSON:
        raise UsageError("a document has no end while it is followed: use --output jsonl")
    if follow and request.until is not None:
        raise UsageError("--until ends what --follow goes on with: leave one of them out")

    def act(reading: Reading) -> Exit:
        if not follow:
            return _shown(put_events(reading.newest(lines), output, reading.now, in_utc=request.in_utc))
        coming = reading.trail.follow(since_now=True, stop=lambda: False, wait=wait_for_reader(), **reading.filters)
        last = [] if "-" in request.words else reading.newest(lines)  # of stdin nothing is there before it comes
        known = {event.event_id for event in last}
        new = (event for event in coming if event.event_id not in known and reading.sought.passes(event))
        put_events(chain(last, new), output, reading.now, in_utc=request.in_utc, first=len(last))
        return Exit.DONE

    return read(request, act)


def _shown(count: int) -> Exit:
    return Exit.DONE if count else Exit.NO


def wait_for_reader() -> Callable[[float], None]:
    """What waits so many seconds, unless whoever reads our stdout goes away meanwhile: then it raises `BrokenPipeError`."""
    asked = select.poll()
    try:
        asked.register(sys.stdout.fileno(), 0)  # errors and hang-ups are always told
    except UnsupportedOperation:  # stdout is no file, as in tests
        pass

    def wait(seconds: float) -> None:
        if asked.poll(seconds * 1_000):
            raise BrokenPipeError

    return wait
