"""``report``: the compliance report of a trail."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import (
    Anchors,
    Force,
    HtmlFile,
    JsonFile,
    MarkdownFile,
    ReportOption,
    SealKeys,
    TrailOptions,
    TrailWords,
    reads_trails,
)

if TYPE_CHECKING:
    from structlog_audit.cli.reading import Reading

EXAMPLES = (
    "report logs/audit.jsonl --month 2025-01 --markdown january.md",
    "report logs/audit.jsonl --month last --tz Europe/Berlin --html report.html",
)


@reads_trails(words=TrailWords, without=("every_kind",))
def report(
    options: TrailOptions,
    *,
    user: Annotated[str | None, typer.Option("--user", metavar="USER", help="Report on one user only.")] = None,
    html: HtmlFile = None,
    markdown: MarkdownFile = None,
    json: JsonFile = None,
    key: SealKeys = None,
    anchor: Anchors = None,
    force: Force = False,
    output: ReportOption = "text",
) -> Exit:
    """Write the compliance report of a month or a time range, with times in UTC or in the zone of --tz."""
    from structlog_audit.cli.documents import documents
    from structlog_audit.cli.reading import read_trails
    from structlog_audit.reports import compliance_report

    if user == "":
        raise UsageError("--user: expected a user, got an empty text")
    options = dataclasses.replace(options.for_document(), person=user)
    classes = options.classes()
    targets = documents({"html": html, "markdown": markdown, "json": json}, output, force=force)

    def write(reading: Reading) -> Exit:
        conditions = reading.selection.conditions
        made = compliance_report(
            reading.trail,
            user_id=user,
            start_time=conditions.start_time,
            end_time=conditions.end_time,
            tz=options.zone,
            operations=classes,
            seals=reading.seals(key, anchor),
        )
        targets.write(made)
        return Exit.FINDINGS if options.strict and not made.completeness.is_acceptable else Exit.DONE

    whole = "a report covers all events of its time range, or those of one user with --user"

    return read_trails(options, write, quietly=True, judges=True, whole=whole)
