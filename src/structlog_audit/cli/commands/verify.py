"""``verify``: whether a trail is as it was sealed."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.cli.options import DocumentOption, SealedPath, VerifierKeys
from structlog_audit.cli.terminal import progress, put

EXAMPLES = ("verify logs/audit.jsonl --key audit.vkey --anchor shipped.log",)


def verify(
    trail: SealedPath,
    *,
    key: VerifierKeys,
    anchor: Annotated[
        list[str] | None,
        typer.Option("--anchor", metavar="FILE", help="File from outside of the host with checkpoints, in any form."),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="FILE", help="File for the newest verified checkpoint, which may only grow."),
    ] = None,
    max_age: Annotated[
        str, typer.Option("--max-age", metavar="SECONDS", help="Age of findings of exit code 3, or none.")
    ] = "120",
    jobs: Annotated[int, typer.Option("--jobs", min=1, help="Number of processes.")] = 1,
    output: DocumentOption = "text",
) -> int:
    """Verify a trail or an archive against its seal. Exit code: 0 intact, 1 changed, 2 not verified, 3 not covered."""
    from structlog_audit.archive.opening import is_archive
    from structlog_audit.integrity.standalone import verify_trail
    from structlog_audit.trail.reading.opening import open_trail

    try:
        seconds = verify_trail.parse_max_age(max_age)
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        policy = verify_trail.load_policies(key)
    except verify_trail.SealError as error:
        raise UsageError(f"--key: {error}") from None

    options: dict[str, Any] = {"anchors": anchor or (), "state": state, "max_age": seconds}
    if not is_archive(trail):
        with progress(lambda: open_trail(trail).size(), quietly=True) as advance:
            report = verify_trail.verify(trail, policy, jobs=jobs, progress=advance, **options)
        put(report.to_text() if output == "text" else f"{report.to_json()}\n")
        return report.exit_code

    from structlog_audit.archive import show
    from structlog_audit.archive.proofs import verify_archived

    if jobs > 1:
        raise UsageError(f"--jobs {jobs}: expected 1 for an archive: its lines come from one database, in one process")
    with progress(lambda: show(trail).bytes_archived, quietly=True) as advance:
        reports = verify_archived(trail, policy, progress=advance, **options)
    if output == "text":
        put("\n".join(report.to_text() for report in reports))
    else:
        put(f"[{','.join(report.to_json() for report in reports)}]\n")
    return verify_trail.worst_exit_code(report.exit_code for report in reports)
