"""``report``: the compliance report of a trail."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import Anchors, Force, Operations, SealKeys, TrailOptions, TrailWords, reads_trails
from structlog_audit.cli.output_files import refusing_to_replace, require_free
from structlog_audit.cli.terminal import put
from structlog_audit.export import write_atomically

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
    html: Annotated[str | None, typer.Option("--html", metavar="FILE", help="Write HTML to FILE; - is stdout.")] = None,
    markdown: Annotated[
        str | None, typer.Option("--markdown", metavar="FILE", help="Write Markdown to FILE; the default is stdout.")
    ] = None,
    json: Annotated[str | None, typer.Option("--json", metavar="FILE", help="Write JSON to FILE.")] = None,
    operations: Operations = None,
    key: SealKeys = None,
    anchor: Anchors = None,
    force: Force = False,
) -> Exit:
    """Write the compliance report of a month or a time range, with times in UTC or in the zone of --tz."""
    from structlog_audit.cli.operation_files import load_operations
    from structlog_audit.cli.reading import read_trails
    from structlog_audit.reports import compliance_report

    options = options.for_document()
    classes = load_operations(operations)
    targets = _targets({"html": html, "markdown": markdown, "json": json})
    for path in targets.values():
        require_free(path, force=force)

    def write(reading: Reading) -> Exit:
        if reading.selection.words:
            raise UsageError("a report covers all events of its time range, or of --user: leave out the conditions")
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
        for form, path in targets.items():
            _write(getattr(made, f"to_{form}")(), path, replace=force)
        return Exit.FINDINGS if options.strict and not made.completeness.is_acceptable else Exit.DONE

    return read_trails(options, write, quietly=True, judges=True)


def _targets(given: dict[str, str | None]) -> dict[str, str]:
    """Return the path of each format to write; Markdown to stdout if none is given."""
    targets = {form: path for form, path in given.items() if path is not None} or {"markdown": "-"}
    if list(targets.values()).count("-") > 1:
        raise UsageError("only one format can be written to -: name a file for each of the others")
    return targets


def _write(text: str, path: str, *, replace: bool) -> None:
    if path == "-":
        put(text if text.endswith("\n") else f"{text}\n")
        return
    with refusing_to_replace(path):
        write_atomically(Path(path), [text.encode()], replace=replace)
