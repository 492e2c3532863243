"""``catalogue``: the operations that code declares, and how a trail agrees with them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.choices import DocumentOutput
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import DocumentOption, TrailOptions, reads_trails
from structlog_audit.cli.terminal import put, put_error

if TYPE_CHECKING:
    from structlog_audit.catalogue import Catalogue, Comparison
    from structlog_audit.cli.reading import Reading

EXAMPLES = ("catalogue myapp --trail logs/audit.jsonl --since 30d",)

PackageWords = Annotated[
    list[str] | None,
    typer.Argument(metavar="PACKAGE|FIELD=value", help="Packages, source paths and conditions.", show_default=False),
]


@reads_trails(words=PackageWords, without=("every_kind",))
def catalogue(
    options: TrailOptions,
    *,
    trail: Annotated[
        list[str] | None,
        typer.Option("--trail", metavar="TRAIL", help="Compare with this trail.", show_default=False),
    ] = None,
    output: DocumentOption = "text",
) -> Exit:
    """List the operations that code declares."""
    from structlog_audit.catalogue import catalogue as catalogue_of
    from structlog_audit.catalogue import compare_events
    from structlog_audit.cli.conditions import split_words
    from structlog_audit.cli.reading import read_trails

    packages, conditions = split_words(options.words)
    options = replace(options, trails=trail or ())
    if not packages:
        raise UsageError("expected a package: its name, or the path of its source")
    if not options.trails and (conditions or options.since or options.until or options.record):
        raise UsageError("conditions, times and --record apply to a trail: name it with --trail")

    declared = catalogue_of(*packages)
    is_incomplete = options.strict and declared.unread
    if not options.trails:
        _put(declared, None, output)
        return Exit.FINDINGS if is_incomplete else Exit.DONE

    def show(reading: Reading) -> Exit:
        comparison = compare_events(declared, (stored.event() for stored in reading.events()))
        _put(declared, comparison, output)
        if is_incomplete:
            return Exit.FINDINGS
        return Exit.DONE if comparison.is_declared else Exit.NO

    return read_trails(options, show, quietly=True)


def _put(declared: Catalogue, comparison: Comparison | None, output: DocumentOutput) -> None:
    from structlog_audit.cli.catalogue_markdown import catalogue_lines, comparison_lines
    from structlog_audit.reports.formatting import count

    if output == "json":
        document = declared.to_dict()
        if comparison is not None:
            document["trail"] = comparison.to_dict()
        put(json.dumps(document, indent=2) + "\n")
    else:
        lines = list(catalogue_lines(declared))
        if comparison is not None:
            lines += comparison_lines(comparison)
        put("\n".join(lines) + "\n")

    if declared.unread:
        examples = "; ".join(f"{unread.file}: {unread.reason}" for unread in declared.unread[:3])
        put_error(f"{count(len(declared.unread), 'file')} could not be read: {examples}")
