"""``keygen``: a private key for the checkpoints of a trail."""

from __future__ import annotations

from typing import Annotated

import typer

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import Origin
from structlog_audit.cli.terminal import put_line
from structlog_audit.exceptions import AuditValueError

EXAMPLES = ("keygen audit.pem --origin audit.example/shop/web1",)


def keygen(
    path: Annotated[str, typer.Argument(metavar="FILE", help="The new key file, which only you can read.")],
    *,
    origin: Origin,
) -> Exit:
    """Make a private key, and print its public half, the verifier key, which auditors need."""
    from structlog_audit.integrity.signing import generate_key

    try:
        key = generate_key(path, origin)
    except AuditValueError as error:
        raise UsageError(f"--origin: {error}") from None
    put_line(str(key))
    return Exit.DONE
