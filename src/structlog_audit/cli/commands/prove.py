"""``prove``: the proof that one event is in a sealed trail."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import SealedPath
from structlog_audit.cli.terminal import put
from structlog_audit.exceptions import AuditValueError
from structlog_audit.export import write_all_atomically

if TYPE_CHECKING:
    from structlog_audit.integrity.notes import Proof

EXAMPLES = ("prove logs/audit.jsonl evt_0197f3a0c1d27d1e9b0c5d8e00000000",)


def prove(
    trail: SealedPath,
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The id of the event.")],
    *,
    line: Annotated[
        str | None,
        typer.Option("--line", metavar="FILE", help="File for the line of the event, which a verifier needs."),
    ] = None,
    cose: Annotated[
        str | None,
        typer.Option("--cose", metavar="FILE", help="File for the proof as a COSE receipt (RFC 9942); needs --key."),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="FILE", help="The private key, for --cose.")] = None,
) -> Exit:
    """Print the proof of one event (C2SP tlog-proof). verify-proof and verify_trail.py --proof verify it."""
    from structlog_audit.archive.opening import is_archive
    from structlog_audit.integrity.proving import prove

    if (cose is None) != (key is None):
        raise UsageError("expected --cose and --key together: a receipt is signed by the key of the trail")
    _require_different(trail=trail, line=line, cose=cose, key=key)
    outputs = {}
    try:
        if is_archive(trail):
            from structlog_audit.archive.proofs import prove_archived

            proven = prove_archived(trail, event_id)
        else:
            proven = prove(trail, event_id)
        if cose is not None and key is not None:
            outputs[cose] = _receipt(proven.proof, event_id, key)
        if line is not None:
            outputs[line] = proven.line + b"\n"
        write_all_atomically(outputs)
    except AuditValueError as error:
        raise UsageError(str(error)) from None
    put(str(proven.proof))
    return Exit.DONE


def _require_different(*, trail: str, **files: str | None) -> None:
    """Check that no output would replace another file of the command."""
    seen = {os.path.realpath(trail): "the trail"}
    for option, path in files.items():
        if path is not None:
            other = seen.setdefault(os.path.realpath(path), f"--{option}")
            if other != f"--{option}":
                raise UsageError(f"--{option} {path}: expected another file than that of {other}")


def _receipt(proof: Proof, event_id: str, key: str) -> bytes:
    from structlog_audit.integrity.cose import receipt
    from structlog_audit.integrity.notes import parse_checkpoint
    from structlog_audit.integrity.signing import KeyFile

    origin = parse_checkpoint(proof.note.text).origin
    return receipt(proof, KeyFile(key, origin), subject=event_id)
