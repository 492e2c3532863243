"""Opening the trails that a command line names, and selecting their events."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import msgspec

from structlog_audit.cli.access_record import record_reading
from structlog_audit.cli.conditions import Selection, build_selection, split_words, wanted_values
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import TrailOptions
from structlog_audit.cli.terminal import progress, put_error, wait_for_reader
from structlog_audit.cli.times import time_range
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.conversion import has_unknown_status
from structlog_audit.events.event import AuditEvent, rfc3339
from structlog_audit.query.absent_values import absent_values
from structlog_audit.query.statistics import statistics, statistics_by_user
from structlog_audit.trail.reading.opening import open_trail
from structlog_audit.trail.reading.reader import TrailReader


@dataclass(frozen=True, slots=True)
class Reading:
    """The selected events of the trails that are open.

    Attributes:
        trail: The reader of the trails.
        selection: The conditions, built once.
        now: The time at the start of the command.
    """

    trail: TrailReader
    selection: Selection
    now: dt.datetime

    def select(self, *, newest_first: bool = False, at_most: int | None = None) -> Iterator[StoredEvent]:
        """Yield the selected events; a caller that takes only the first few states *at_most* how many."""
        conditions = self.selection.conditions
        if not self.selection.tests:
            return self.trail.select(conditions, newest_first=newest_first, at_most=at_most)

        # The tests drop events after the query: it cannot know how many it has to find.
        found = self.trail.select(conditions, newest_first=newest_first)
        return filter(self.selection.passes, found)

    def events(self, *, newest_first: bool = False, at_most: int | None = None) -> Iterator[AuditEvent]:
        """Yield the first *at_most* of the selected events, or all."""
        found = self.select(newest_first=newest_first, at_most=at_most)
        return (stored.event() for stored in islice(found, at_most))

    def newest(self, count: int) -> list[AuditEvent]:
        """Return the newest *count* of the selected events, oldest first."""
        return list(self.events(newest_first=True, at_most=count))[::-1]

    def follow(self, *, since_now: bool) -> Iterator[AuditEvent]:
        """Yield selected events as they are recorded, until the reader of stdout is gone.

        Args:
            since_now: Whether to begin with the events that are recorded after this call, or with the oldest.
        """
        wait = wait_for_reader()
        coming = self.trail.follow_matching(
            self.selection.conditions, since_now=since_now, stop=lambda: False, wait=wait
        )
        return (stored.event() for stored in coming if self.selection.passes(stored))

    def explain_absence(self, wanted: Mapping[str, Iterable[str]] | None = None) -> None:
        """Write a hint to stderr for each value asked for that no event in the time range has. One more pass.

        Args:
            wanted: The values by member; None stands for those of the conditions.
        """
        if wanted is None:
            wanted = wanted_values(self.selection.words)
        if wanted:
            conditions = self.selection.conditions
            names = tuple((name, values) for name, values in conditions.names if name == "kind")
            in_range = msgspec.structs.replace(conditions, names=names)
            events = self.trail.select(in_range, newest_first=False)
            for hint in absent_values(events, wanted):
                put_error(hint)

    def statistics_by_user(self) -> dict[str | None, dict[str, Any]]:
        """Return the statistics of each user among the selected events, as ``get_statistics_by_user`` of a trail."""
        if not self.selection.tests:
            return self.trail._statistics_by_user(self.selection.conditions)
        return statistics_by_user(self.select())

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of the selected events, as ``get_statistics`` of a trail, and ``unknown_status``."""
        unknown_status = 0

        def counted() -> Iterator[StoredEvent]:
            nonlocal unknown_status
            for event in self.select():
                unknown_status += has_unknown_status(event.metadata)
                yield event

        found = statistics(counted())
        return {**found, "unknown_status": unknown_status, "complete_since": self.trail.complete_since}


def read_trails(options: TrailOptions, work: Callable[[Reading], Exit], *, quietly: bool = False) -> Exit:
    """Open the trails that *options* name, call *work*, and report the problems that were found.

    Args:
        options: The options of the command.
        work: The part of the command; it returns the exit code.
        quietly: Whether *work* writes to stdout only at its end.

    Returns:
        The exit code of *work*, or `Exit.FINDINGS` with ``--strict`` and any problem.

    Raises:
        UsageError: An option or a condition is invalid.
        UnreadableError, AuditError, OSError: A trail cannot be read, or the reading cannot be recorded.
    """
    now = dt.datetime.now(dt.UTC)
    named, words = split_words(options.words)
    paths = list(options.trails) or named
    if not paths:
        raise UsageError("expected a trail: the path of its active file, such as logs/audit.jsonl, or - for stdin")

    start, end = time_range(options.since, options.until, now, in_utc=options.utc)
    selection = build_selection(words, every_kind=options.every_kind, start_time=start, end_time=end)

    # The reading is recorded first: if that fails, nothing is read.
    if options.record:
        description = _description(selection)
        record_reading(paths, options.command, description)

    with progress(lambda: trail.size(), quietly=quietly) as advance:
        trail = open_trail(*_streams(paths), progress=advance)
        reading = Reading(trail, selection, now)
        code = work(reading)
    sys.stdout.flush()

    if not trail.problems:
        return code
    report_problems(trail.problems)
    return Exit.FINDINGS if options.strict else code


def _streams(paths: list[str]) -> Iterator[str | BinaryIO]:
    """Yield each of *paths* once, and stdin for ``-``."""
    for path in dict.fromkeys(paths):
        yield sys.stdin.buffer if path == "-" else path


def _description(selection: Selection) -> dict[str, Any]:
    """Return the times and conditions of *selection*, for the record of the reading."""
    description: dict[str, Any] = {}
    start, end = selection.conditions.start_time, selection.conditions.end_time
    if start is not None:
        description["since"] = rfc3339(start)
    if end is not None:
        description["until"] = rfc3339(end)
    if selection.words:
        description["conditions"] = [str(condition) for condition in selection.words]
    return description


def report_problems(problems: Mapping[str, int]) -> None:
    """Write one line to stderr with the number of problems of each code."""
    found = sorted(problems.items())
    counts = ", ".join(f"{count} {code}" for code, count in found)
    put_error(f"not everything could be read: {counts}; run structlog-audit doctor for details")
