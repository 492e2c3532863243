"""``compact``: closed segments of a trail into an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import DocumentOption, Strict
from structlog_audit.cli.terminal import progress, put_document, put_line
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.plurals import counted

if TYPE_CHECKING:
    from structlog_audit.archive.compaction import Compacted

_NOTHING_CLOSED = (
    "nothing to archive yet: the two newest segments stay in the trail, the active file included, since writers may still "
    "append to them"
)

EXAMPLES = ("compact logs/audit.jsonl --to archive --promote tenant",)


def compact(
    trail: Annotated[
        str,
        typer.Argument(
            metavar="TRAIL", help="Active file of the trail, or a folder with trails, not with folders of them."
        ),
    ],
    *,
    to: Annotated[str, typer.Option("--to", metavar="ARCHIVE", help="Archive: a folder, or a URL such as s3://….")],
    promote: Annotated[
        list[str] | None,
        typer.Option("--promote", metavar="KEY", help="Member of the metadata that gets a column; repeatable."),
    ] = None,
    delete_after: Annotated[
        str | None,
        typer.Option(
            "--delete-after", metavar="AGE", help="Delete archived segments that were rolled over so long ago: 30d."
        ),
    ] = None,
    host: Annotated[
        str | None, typer.Option("--host", metavar="NAME", help="Name of this host, if not that of the system.")
    ] = None,
    strict: Strict = False,
    output: DocumentOption = "text",
) -> Exit:
    """Archive closed segments in Parquet, verified byte by byte."""
    from structlog_audit.archive import compact as compact_trail
    from structlog_audit.archive.maintenance import parse_age
    from structlog_audit.cli.reading import report_problems
    from structlog_audit.trail.reading.opening import open_trail

    try:
        age = None if delete_after is None else parse_age("--delete-after", delete_after)
        with progress(lambda: open_trail(trail).size(), quietly=True) as advance:
            done = compact_trail(trail, to, promote=promote or (), delete_after=age, host=host, progress=advance)
    except (AuditTypeError, AuditValueError) as error:
        raise UsageError(str(error)) from None

    if output == "json":
        put_document(msgspec.to_builtins(done))
    else:
        _put(done)

    if not done.problems:
        return Exit.DONE
    report_problems(done.problems, [trail])
    return Exit.FINDINGS if strict else Exit.DONE


def _put(done: Compacted) -> None:
    if done.bytes_read:
        sizes = f"{size_text(done.bytes_read)} → {size_text(done.bytes_written)}"
        put_line(f"{counted(done.segments, 'segment')}, {counted(done.events, 'event')}: {sizes}, verified")
    elif done.closed:
        put_line("nothing new")
    else:
        put_line(_NOTHING_CLOSED)

    if done.deleted:
        put_line(f"{counted(len(done.deleted), 'archived segment')} deleted")


def size_text(size: float) -> str:
    """Return *size* in bytes as people write it: 117 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1_000:
            return f"{size:.3g} {unit}"
        size /= 1_000
    return f"{size:,.3g} TB"
