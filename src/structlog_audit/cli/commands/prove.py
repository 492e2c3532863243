"""``prove``: the proof that one event is in a sealed trail."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import TrailPath
from structlog_audit.cli.terminal import put
from structlog_audit.exceptions import AuditValueError

EXAMPLE = "prove logs/audit.jsonl evt_0197f3a0c1d27d1e9b0c5d8e00000000"


def prove(
    trail: TrailPath,
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The id of the event.")],
    *,
    line: Annotated[
        str | None,
        typer.Option("--line", metavar="FILE", help="File for the line of the event, which a verifier needs."),
    ] = None,
) -> Exit:
    """Print the proof of one event (C2SP tlog-proof). verify-proof and verify_trail.py --proof verify it."""
    from structlog_audit.integrity.proving import prove

    try:
        proven = prove(trail, event_id)
    except AuditValueError as error:
        raise UsageError(str(error)) from None
    if line is not None:
        Path(line).write_bytes(proven.line + b"\n")
    put(str(proven.proof))
    return Exit.DONE
