"""``verify-proof``: whether a proof shows that a line is in a trail."""

from __future__ import annotations

from typing import Annotated

import typer

from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.cli.options import VerifierKeys
from structlog_audit.cli.terminal import put_line

EXAMPLES = ("verify-proof event.tlog-proof line.json --key audit.vkey",)


def verify_proof(
    proof: Annotated[str, typer.Argument(metavar="PROOF", help="File with the proof.")],
    line: Annotated[str, typer.Argument(metavar="LINE", help="File that begins with the line.")],
    *,
    key: VerifierKeys,
    statement: Annotated[
        list[str] | None,
        typer.Option(
            "--statement",
            metavar="FILE",
            help="File with 'key' lines of the trail, to accept a key that took the place of a given one.",
        ),
    ] = None,
) -> int:
    """Verify the proof of one line. Exit code: 0 it is in the trail, 1 it is not, 2 the proof cannot be used."""
    from structlog_audit.integrity.standalone import verify_trail

    try:
        policy = verify_trail.load_policies(key)
    except verify_trail.SealError as error:
        raise UsageError(f"--key: {error}") from None
    code, text = verify_trail.verify_proof(proof, line, policy, statement or ())
    put_line(text)
    return code
