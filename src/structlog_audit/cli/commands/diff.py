"""``diff``: what changed between two periods, or between two trails."""

from __future__ import annotations

import dataclasses
import datetime as dt
import os
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import (
    Force,
    HtmlFile,
    JsonFile,
    MarkdownFile,
    ReportOption,
    TrailOptions,
    TrailWords,
    reads_trails,
)

if TYPE_CHECKING:
    from structlog_audit.cli.reading import Reading
    from structlog_audit.query.event_source import EventSource
    from structlog_audit.reports import ComparisonReport

EXAMPLES = ("diff logs/audit.jsonl --since 7d",)

_OPTIONS = (
    ("against_start_time, against_end_time", "--against-since, --against-until"),
    ("start_time, end_time", "--since, --until"),
    ("a later start_time", "a later --since"),
    ("another source as against", "another trail as --against"),
)
"""The parameters in error messages of the comparison, and the options that give them."""

_Range = tuple[dt.datetime | None, dt.datetime | None]


@reads_trails(words=TrailWords, without=("every_kind", "operations"))
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
    html: HtmlFile = None,
    markdown: MarkdownFile = None,
    json: JsonFile = None,
    force: Force = False,
    output: ReportOption = "text",
) -> Exit:
    """Show what appeared, vanished or changed since the time before: operations, failures, durations, users.

    A month is compared with the month before, another time range with one of the same length just before. The text is Markdown.
    """
    from structlog_audit.cli.documents import documents
    from structlog_audit.cli.reading import read_trails, report_problems
    from structlog_audit.reports.period import rfc3339_or_none

    options = options.for_document()
    start, end = _range_before(options, against_since, against_until)
    if start is None and end is None and not against and options.since is None and options.month is None:
        raise UsageError("expected --since or --month, --against-since, or --against TRAIL")
    targets = documents({"html": html, "markdown": markdown, "json": json}, output, force=force)
    described = {"against": against, "against_since": rfc3339_or_none(start), "against_until": rfc3339_or_none(end)}
    given = {name: value for name, value in described.items() if value}
    options = dataclasses.replace(options, others=against or (), described=given)
    _require_other(options)

    def write(reading: Reading) -> Exit:
        other = _open_other(options)
        made = _compare(reading, other, (start, end), options.zone)
        if other is not None and other.problems:
            report_problems(other.problems, options.others)
        targets.write(made)
        acceptable = made.completeness.is_acceptable and made.completeness_before.is_acceptable
        return Exit.FINDINGS if options.strict and not acceptable else Exit.DONE

    return read_trails(options, write, quietly=True, judges=True, whole="diff compares all events of its time ranges")


def _compare(reading: Reading, other: EventSource | None, before: _Range, zone: dt.tzinfo | None) -> ComparisonReport:
    """Return the comparison, or raise `UsageError` with the options that make it impossible."""
    from structlog_audit.exceptions import AuditValueError
    from structlog_audit.reports import comparison_report

    conditions = reading.selection.conditions
    try:
        return comparison_report(
            reading.trail,
            start_time=conditions.start_time,
            end_time=conditions.end_time,
            against=other,
            against_start_time=before[0],
            against_end_time=before[1],
            tz=zone,
        )
    except AuditValueError as error:
        text = str(error)
        for parameters, options in _OPTIONS:
            text = text.replace(parameters, options)
        raise UsageError(text) from None


def _range_before(options: TrailOptions, since: str | None, until: str | None) -> _Range:
    """Return the time range to compare with, as far as options name it."""
    from structlog_audit.cli.times import time_range

    return time_range(since, until, None, dt.datetime.now(dt.UTC), options.zone, prefix="--against-")


def _require_other(options: TrailOptions) -> None:
    """Raise `UsageError` if a trail would be compared with itself, or with stdin."""
    if "-" in options.others:
        raise UsageError("--against -: expected the path of a trail or an archive")

    named = {os.path.realpath(path) for path in options.words or options.default_trails}
    for path in options.others:
        if os.path.realpath(path) in named:
            raise UsageError(
                f"--against {path}: expected another trail; --against-since names other times of the same one"
            )


def _open_other(options: TrailOptions) -> EventSource | None:
    """Return the trails to compare with, if any."""
    from structlog_audit.archive.opening import is_archive
    from structlog_audit.cli.reading import open_paths
    from structlog_audit.cli.vaults import open_vault

    if not options.others:
        return None
    engine = options.engine if any(map(is_archive, options.others)) else None
    return open_paths(list(options.others), engine, None, open_vault(options.vault, reveal=False))
