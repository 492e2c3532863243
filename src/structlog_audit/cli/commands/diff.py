"""``diff``: what changed between two periods, or between two trails."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import DocumentOption, TrailOptions, TrailWords, reads_trails
from structlog_audit.cli.terminal import put

if TYPE_CHECKING:
    from structlog_audit.cli.reading import Reading
    from structlog_audit.query.event_source import EventSource

EXAMPLES = ("diff logs/audit.jsonl --since 7d",)

_Range = tuple[dt.datetime | None, dt.datetime | None]


@reads_trails(words=TrailWords, without=("every_kind",))
def diff(
    options: TrailOptions,
    *,
    against: Annotated[
        list[str] | None,
        typer.Option("--against", metavar="TRAIL", help="Compare with this trail or archive, for the same time range."),
    ] = None,
    against_since: Annotated[
        str | None, typer.Option("--against-since", metavar="TIME", help="Start of the time range to compare with.")
    ] = None,
    against_until: Annotated[
        str | None, typer.Option("--against-until", metavar="TIME", help="End of the time range to compare with.")
    ] = None,
    output: DocumentOption = "text",
) -> Exit:
    """Show what appeared, vanished or changed since the time before: operations, failures, durations, users.

    A month is compared with the month before, another time range with one of the same length just before. The text is Markdown.
    """
    from structlog_audit.cli.reading import read_trails, report_problems
    from structlog_audit.reports import comparison_report

    options = options.for_document()
    start, end = _range_before(options, against_since, against_until)
    if start is None and end is None and not against and options.since is None and options.month is None:
        raise UsageError("expected --since or --month, --against-since, or --against TRAIL")
    other = _open_other(options, against)

    def write(reading: Reading) -> Exit:
        if reading.selection.words:
            raise UsageError("diff compares all events of its time ranges: leave out the conditions")
        conditions = reading.selection.conditions
        made = comparison_report(
            reading.trail,
            start_time=conditions.start_time,
            end_time=conditions.end_time,
            against=other,
            against_start_time=start,
            against_end_time=end,
            tz=options.zone,
        )
        if other is not None and other.problems:
            report_problems(other.problems)
        put(made.to_json() + "\n" if output == "json" else made.to_markdown())
        acceptable = made.completeness.is_acceptable and made.completeness_before.is_acceptable
        return Exit.FINDINGS if options.strict and not acceptable else Exit.DONE

    return read_trails(options, write, quietly=True, judges=True)


def _range_before(options: TrailOptions, since: str | None, until: str | None) -> _Range:
    """Return the time range to compare with, as far as options name it."""
    from structlog_audit.cli.times import time_range

    return time_range(since, until, None, dt.datetime.now(dt.UTC), options.zone, prefix="--against-")


def _open_other(options: TrailOptions, paths: list[str] | None) -> EventSource | None:
    """Return the trails to compare with, if any."""
    from structlog_audit.cli.reading import open_paths
    from structlog_audit.cli.vaults import open_vault

    if not paths:
        return None
    if "-" in paths:
        raise UsageError("--against -: expected the path of a trail or an archive")
    return open_paths(paths, options.engine, None, open_vault(options.vault, reveal=False))
