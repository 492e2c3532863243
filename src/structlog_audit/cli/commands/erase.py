"""``erase``: the end of all erasable values of a person."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import default_trails
from structlog_audit.cli.terminal import put_error, put_line

EXAMPLES = ("erase ada --vault logs/audit.vault logs/audit.jsonl",)


def erase(
    context: typer.Context,
    subject: Annotated[
        str,
        typer.Argument(
            metavar="SUBJECT", help="Identity of the person, as in user_id, or token; - reads it from stdin."
        ),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="TRAIL", help="Trails that record the erasure (active files).", show_default=False),
    ] = None,
    *,
    vault: Annotated[str, typer.Option("--vault", metavar="FILE", help="File with the keys.")],
) -> Exit:
    """Erase a person's key, so that nobody can read the erasable values again."""
    from structlog_audit.cli.access_record import current_user, record_trail_event, require_active_files
    from structlog_audit.redaction.vault import SubjectVault

    identity = sys.stdin.readline().rstrip("\n") if subject == "-" else subject
    if not identity:
        raise UsageError("SUBJECT: expected an identity, got an empty text")

    # Everything that can fail beforehand is checked: an erased key does not come back.
    trails = list(dict.fromkeys(words or default_trails(context)))
    require_active_files("TRAIL", trails)
    store = SubjectVault(vault)

    token = store.erase(identity)
    if token is None:
        put_line(f"no key: the subject is not in {vault}, or was erased before")
    else:
        put_line(f"erased {token} from {vault}")

    # Those of interrupted calls are among them.
    for unrecorded in store.unrecorded():
        if not trails:
            put_error(f"the erasure of {unrecorded} is in no trail yet: repeat the command with TRAIL to record it")
            continue
        for trail in trails:
            record_trail_event(trail, "erased", {**current_user(), "subject": unrecorded})
        store.confirm_recorded(unrecorded)
        put_line(f"recorded the erasure of {unrecorded} in {', '.join(trails)}")
    return Exit.DONE
