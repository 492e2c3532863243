"""``rotate-key``: another key for a sealed trail."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from structlog_audit.cli.commands.seal import load_keys
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import Origin, TrailPath
from structlog_audit.cli.terminal import put_line

EXAMPLES = ("rotate-key logs/audit.jsonl --key audit-2.pem --previous-key audit.pem --origin audit.example/shop/web1",)


def rotate_key(
    trail: TrailPath,
    *,
    key: Annotated[
        str, typer.Option("--key", metavar="FILE", help="The new private key; a file that does not exist is made.")
    ],
    previous_key: Annotated[str, typer.Option("--previous-key", metavar="FILE", help="The key so far.")],
    origin: Origin,
) -> Exit:
    """Begin the overlap of two keys, and print the new verifier key, which auditors need.

    Then seal with both keys, and with the new one only when auditors have it: that ends the old one.
    """
    from structlog_audit.integrity.rotation import rotate_key, rotate_to_new_key

    (previous,) = load_keys(previous_key, None, origin)
    if not os.path.isdir(f"{os.path.abspath(trail)}.seal"):
        raise UsageError(f"{trail!r}: expected the active file of a sealed trail")
    if not os.path.lexists(key):
        put_line(str(rotate_to_new_key(trail, key, previous)))
        return Exit.DONE

    (signer,) = load_keys(key, None, origin)
    rotate_key(trail, signer, previous)
    put_line(str(signer.key))
    return Exit.DONE
