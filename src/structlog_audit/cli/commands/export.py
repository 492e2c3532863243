"""``export``: events in a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from structlog_audit.cli.completion import complete_formats
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import Columns, Force, SealKeys, TrailOptions, Verified, proving_keys, reads_trails
from structlog_audit.cli.output_files import refusing_to_replace, require_free
from structlog_audit.cli.terminal import put_error, put_line
from structlog_audit.exceptions import AuditValueError
from structlog_audit.export import checked_destination, checked_writer
from structlog_audit.export import export as export_to
from structlog_audit.query.plurals import counted

if TYPE_CHECKING:
    from structlog_audit.cli.reading import Reading

EXAMPLES = (
    "export logs/audit.jsonl status=FAILURE --to failures.csv",
    "export logs/audit.jsonl --to events.csv --columns user_id,operation,metadata.source",
)


@reads_trails()
def export(
    options: TrailOptions,
    *,
    to: Annotated[
        str | None, typer.Option("--to", metavar="FILE", help="Output file; its suffix determines the format.")
    ] = None,
    tiles: Annotated[
        str | None,
        typer.Option("--tiles", metavar="FOLDER", help="Instead of events: a sealed trail as a log of C2SP tiles."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="Format, if the suffix does not determine it.",
            autocompletion=complete_formats,
        ),
    ] = None,
    columns: Columns = None,
    cells: Annotated[
        Literal["safe", "text", "raw"],
        typer.Option(
            "--cells", help="Texts of csv: safe from formulas, text (no id becomes a number), or raw (unchanged)."
        ),
    ] = "safe",
    full_text: Annotated[
        bool, typer.Option("--full-text", help="Full-text index in a database (sqlite, .db).")
    ] = False,
    verified: Verified = False,
    key: SealKeys = None,
    force: Force = False,
) -> Exit:
    """Write events to a file, completely or not at all."""
    from structlog_audit.cli.columns import parse_columns
    from structlog_audit.cli.reading import read_trails

    if tiles is not None:
        # A file of operations that cannot be read is an error here, too.
        options.classes()
        return _export_tiles(options.words or options.default_trails, tiles)
    if to is None:
        raise UsageError("expected --to FILE, or --tiles FOLDER for the hashes of a sealed trail")
    if to == "-":
        raise UsageError("--to -: expected a file; to write to stdout, use query with -o json, jsonl or csv")
    names = parse_columns(columns)
    try:
        path, format_name = checked_destination(to, format)
        checked_writer(format_name, names, cells, full_text=full_text)
    except AuditValueError as error:
        raise UsageError(str(error)) from None
    require_free(to, force=force)

    def write(reading: Reading) -> Exit:
        try:
            with refusing_to_replace(to):
                count = export_to(
                    reading.events(),
                    path,
                    format=format_name,
                    columns=names,
                    cells=cells,
                    full_text=full_text,
                    inform=reading.export_information,
                    now=reading.now,
                    replace=force,
                )
        except AuditValueError as error:
            # An event does not fit into the selected columns.
            raise UsageError(f"--{error}") from None
        put_line(f"{counted(count, 'event')} in {to}")
        if not count:
            reading.explain_absence()
        return Exit.DONE

    return read_trails(options, write, quietly=True, verified_by=proving_keys(key, verified=verified))


def _export_tiles(words: Sequence[str], folder: str) -> Exit:
    """Write a sealed trail as the files that a server of tiles has (C2SP tlog-tiles)."""
    from structlog_audit.archive.opening import is_archive
    from structlog_audit.integrity.tiles import MAX_ENTRY_BYTES, export_tiles

    if len(words) != 1:
        raise UsageError("--tiles: expected the active file of one trail, and no conditions")
    if is_archive(words[0]):
        raise UsageError(f"--tiles: expected a trail, got an archive: archive restore {words[0]} makes a trail of it")
    try:
        exported = export_tiles(words[0], folder)
    except AuditValueError as error:
        raise UsageError(f"--tiles {error}") from None

    put_line(f"{counted(exported.files, 'file')} added in {folder}: {counted(exported.lines, 'line')}")
    if exported.left_out:
        reason = (
            f"a line of their 256 is not here, or has more than {MAX_ENTRY_BYTES} bytes; verify tells which are gone"
        )
        put_error(f"lines without an entry: {exported.left_out}: {reason}")
    return Exit.DONE
