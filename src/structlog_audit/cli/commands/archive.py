"""``archive``: the upkeep of an archive that ``compact`` made."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from structlog_audit.cli.commands.compact import size_text
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import DocumentOption
from structlog_audit.cli.terminal import progress, put_document, put_error, put_line
from structlog_audit.exceptions import AuditValueError
from structlog_audit.query.plurals import counted

EXAMPLES = (
    "archive show archive",
    "archive verify archive -o json",
)

archive = typer.Typer(
    help="Show, verify, restore and maintain an archive.",
    invoke_without_command=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@archive.callback()
def show_help(context: typer.Context) -> Exit:
    """Write the help if there is no command, as the root command does."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        return Exit.USAGE

    return Exit.DONE


Archive = Annotated[str, typer.Argument(metavar="ARCHIVE", help="A folder, or a URL such as s3://….")]
Age = Annotated[str, typer.Option("--older-than", metavar="AGE", help="Age, such as 730d or 12h.")]


@archive.command()
def show(path: Archive, *, output: DocumentOption = "text") -> Exit:
    """Show what an archive holds."""
    from structlog_audit.archive import show as summary_of
    from structlog_audit.cli.tables import NOTHING

    found = summary_of(path)
    if output == "json":
        put_document(msgspec.to_builtins(found))
        return Exit.DONE

    days = NOTHING if found.first_day is None else f"{found.first_day} to {found.last_day} (UTC)"
    put_line(f"{counted(found.segments, 'segment')}, {counted(found.events, 'event')}, {days}")
    put_line(
        f"{size_text(found.bytes_archived)} of lines in {counted(found.files, 'file')} of {size_text(found.bytes_stored)}, "
        f"{counted(found.version + 1, 'commit')}"
    )

    for trail, events in found.trails.items():
        sealed = f", seal of {counted(found.sealed[trail], 'line')}" if trail in found.sealed else ""
        put_line(f"  {trail}  {counted(events, 'event')}{sealed}")

    for column, member in found.promoted.items():
        put_line(f"  column {column}  {member}")

    if found.pruned_before is not None:
        put_line(f"days before {found.pruned_before.date()} were pruned")

    return Exit.DONE


@archive.command()
def verify(path: Archive, *, output: DocumentOption = "text") -> Exit:
    """Check that the archive gives back every segment; exit with 4 if not."""
    from structlog_audit.archive import show as summary_of
    from structlog_audit.archive import verify as verify_archive

    with progress(lambda: summary_of(path).bytes_archived, quietly=True) as advance:
        done = verify_archive(path, progress=advance)
    if output == "json":
        findings = [finding._asdict() for finding in done.findings]
        put_document({**msgspec.to_builtins(done), "findings": findings})
        return Exit.FINDINGS if done.findings else Exit.DONE

    pruned = f", {done.pruned} not checked because days of them were pruned" if done.pruned else ""
    put_line(f"{counted(done.segments, 'segment')}, {counted(done.events, 'event')}: verified{pruned}")

    for finding in done.findings:
        put_error(f"{finding.code}: {finding.path}: {finding.reason}")

    return Exit.FINDINGS if done.findings else Exit.DONE


@archive.command()
def restore(
    path: Archive,
    *,
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="Folder for the segments.")],
) -> Exit:
    """Write the segments back, byte by byte, and their seal."""
    from structlog_audit.archive import restore as restore_segments
    from structlog_audit.archive import show as summary_of
    from structlog_audit.archive.restoration import sealed_lines

    try:
        with progress(lambda: summary_of(path).bytes_archived, quietly=True) as advance:
            done = restore_segments(path, to, progress=advance)
    except AuditValueError as error:
        raise UsageError(str(error)) from None

    put_line(f"{counted(len(done.files), 'segment')} in {to}, {size_text(done.bytes_written)}, verified")

    for folder in done.seals:
        put_line(f"seal of {counted(sealed_lines(folder), 'line')} in {folder}: verify it with --max-age none")

    for name in done.unsealed:
        put_error(f"no seal of {name}: no checkpoint covers restored lines only; verify the archive instead")

    if done.pruned:
        put_error(f"{counted(len(done.pruned), 'segment')} cannot be restored: days were pruned")

    return Exit.FINDINGS if done.pruned else Exit.DONE


@archive.command()
def merge(path: Archive) -> Exit:
    """Merge the files of each trail and day."""
    from structlog_audit.archive import merge as merge_files
    from structlog_audit.archive import show as summary_of

    with progress(lambda: summary_of(path).bytes_stored, quietly=True) as advance:
        done = merge_files(path, progress=advance)
    put_line(f"{counted(done.before, 'file')} merged to {done.after}" if done.before else "nothing to merge")

    return Exit.DONE


@archive.command()
def prune(path: Archive, *, older_than: Age) -> Exit:
    """Drop whole days (UTC) older than an age."""
    from structlog_audit.archive import prune as prune_days
    from structlog_audit.archive.maintenance import parse_age

    try:
        events = prune_days(path, parse_age("--older-than", older_than))
    except AuditValueError as error:
        raise UsageError(str(error)) from None

    put_line(f"{counted(events, 'event')} pruned")

    return Exit.DONE


@archive.command()
def gc(path: Archive, *, older_than: Age = "1d") -> Exit:
    """Delete files that have been out of use for an age."""
    from structlog_audit.archive import gc as collect
    from structlog_audit.archive.maintenance import parse_age

    try:
        done = collect(path, older_than=parse_age("--older-than", older_than))
    except AuditValueError as error:
        raise UsageError(str(error)) from None

    put_line(f"{counted(done.files, 'file')} deleted, {size_text(done.bytes_freed)}")

    return Exit.DONE
