"""What the commands that read trails have in common."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from structlog_audit.cli.access_record import record_reading
from structlog_audit.cli.conditions import Condition, Sought, sorted_words, sought
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.terminal import progress, say
from structlog_audit.cli.times import time_range
from structlog_audit.cli.trail_options import TrailOptions
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import AuditEvent, rfc3339
from structlog_audit.query.event_source import EventSource
from structlog_audit.query.filters import Conditions
from structlog_audit.trail.reading.opening import open_trail
from structlog_audit.trail.reading.reader import TrailReader


class Sifted(EventSource):
    """The events of a trail that pass the tests of conditions which no filter can ask."""

    def __init__(self, trail: TrailReader, sought: Sought) -> None:
        self._trail = trail
        self._sought = sought

    def select(self, asked: Conditions, *, newest_first: bool, at_most: int | None = None) -> Iterator[StoredEvent]:
        if not self._sought.tests:
            return self._trail.select(asked, newest_first=newest_first, at_most=at_most)
        return filter(self._sought.passes, self._trail.select(asked, newest_first=newest_first))

    @property
    def complete_since(self) -> dt.datetime | None:
        """As of the trail."""
        return self._trail.complete_since

    def _counters(self) -> dict[str, int]:
        return self._trail._counters()


@dataclass(frozen=True, slots=True)
class Reading:
    """A trail that is open, and what is sought in it.

    Attributes:
        options: The options of the command.
        trail: The reader.
        sought: Filters and tests.
        source: What answers with the filters of ``sought``, its tests included.
        now: The time at the beginning.
    """

    options: TrailOptions
    trail: TrailReader
    sought: Sought
    source: Sifted
    now: dt.datetime

    @property
    def filters(self) -> dict[str, Any]:
        """The filters to ask the source with."""
        return self.sought.filters

    def newest(self, count: int) -> list[AuditEvent]:
        """The newest *count* events that are sought, the oldest first."""
        return self.source.query_events(limit=count, **self.filters)[::-1]


def read(options: TrailOptions, act: Callable[[Reading], Exit], *, quietly: bool = False) -> Exit:
    """Open what *options* asks for, *act* on it, and say at the end what was wrong with it; the exit code.

    Args:
        options: The options of the command.
        act: What to do.
        quietly: Whether it writes to stdout only at its end.

    Raises:
        UsageError: The request can't be meant.
        UnreadableError, AuditError, OSError: Something can't be read.
    """
    now = dt.datetime.now(dt.UTC)
    among, found = sorted_words(options.words)
    trails = list(options.trails) or among
    if not trails:
        raise UsageError("which trail? Give the path of its active file, such as logs/audit.jsonl, or - for stdin")
    start, end = time_range(options.since, options.until, now, in_utc=options.utc)
    asked = sought(found, every_kind=options.every_kind, start_time=start, end_time=end)
    if options.record:
        record_reading(trails, options.command, _said(found, start, end))
    streams: list[str | BinaryIO] = [sys.stdin.buffer if trail == "-" else trail for trail in dict.fromkeys(trails)]
    with progress(lambda: trail.size(), quietly=quietly) as told:
        trail = open_trail(*streams, progress=told)
        code = act(Reading(options, trail, asked, Sifted(trail, asked), now))
    sys.stdout.flush()
    if trail.problems:
        say_problems(trail.problems)
        if options.strict:
            return Exit.FINDINGS
    return code


def _said(found: list[Condition], start: dt.datetime | None, end: dt.datetime | None) -> dict[str, Any]:
    bounds = {"since": start, "until": end}
    times = {name: rfc3339(moment) for name, moment in bounds.items() if moment is not None}
    return times | ({"conditions": [str(condition) for condition in found]} if found else {})


def say_problems(problems: Mapping[str, int]) -> None:
    """Say in one line what the reader found wrong."""
    counts = ", ".join(f"{count} {code}" for code, count in sorted(problems.items()))
    say(f"not everything could be read: {counts}; structlog-audit doctor says where")
