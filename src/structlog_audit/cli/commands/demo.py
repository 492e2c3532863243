"""``demo``: a small trail, and three queries of it."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from structlog_audit.cli.commands.query import query
from structlog_audit.cli.commands.users import users
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.terminal import PROGRAM, put_line
from structlog_audit.loggers.audit_logger import PrivateLogger
from structlog_audit.loggers.bound_logger import AuditBoundLogger
from structlog_audit.recording.handler import AuditHandler

EXAMPLES = ("demo audit-demo",)


def demo(
    folder: Annotated[
        str | None,
        typer.Argument(metavar="FOLDER", help="Folder of the trail; by default a temporary one.", show_default=False),
    ] = None,
) -> Exit:
    """Write a small trail and run three queries on it."""
    place = Path(tempfile.mkdtemp(prefix="audit-demo-") if folder is None else folder)
    trail = place / "audit.jsonl"
    if trail.exists():
        raise UsageError(f"{trail} already exists and was not changed: choose another folder")

    is_ours = folder is None or not place.exists()
    try:
        _record(trail)
    except BaseException:
        trail.unlink(missing_ok=True)
        with suppress(OSError):
            if is_ours:
                place.rmdir()
        raise
    name = str(trail)
    put_line(f"Six operations of two users are recorded in {name}, one JSON object per line.")
    _show("What did ann delete in the last hour?", query, name, "user_id=ann", "operation=FORGET", since="1h")
    _show("What failed, and why?", query, name, "status!=SUCCESS")
    _show("Who does what?", users, name)
    put_line("")
    put_line(f"More: {PROGRAM} --help. Follow new events: {PROGRAM} tail -f {shlex.quote(name)}")
    return Exit.DONE


def _record(trail: Path) -> None:
    logger = PrivateLogger("structlog_audit.demo")
    logger.propagate = False
    handler = AuditHandler(filename=trail, on_error="raise")
    logger.addHandler(handler)
    try:
        _record_operations(logger)
    finally:
        logger.removeHandler(handler)
        handler.close()


def _record_operations(logger: PrivateLogger) -> None:
    log = AuditBoundLogger(logger, (), {"source": "demo"})
    ann = log.bind(user_id="ann", session_id="s1")
    bob = log.bind(user_id="bob", session_id="s2")

    with ann.operation("STORE", entry_ids=["entry_1", "entry_2"], tags=["verified"]):
        pass
    bob.info("RECALL", entry_ids=["entry_1"], duration_ms=3.5)
    ann.info("FORGET", entry_ids=["entry_2"], reason="requested by its owner", duration_ms=8.25)
    bob.error("EXPORT", error_message="PermissionError: bob may not export", duration_ms=0.5)
    with bob.operation("IMPORT") as op:
        op.entry_ids += ["entry_3", "entry_4"]
        op.partial("one of three entries was no JSON")
    ann.info("RECALL", entry_ids=["entry_1"], duration_ms=2.75)


def _show(question: str, command: Callable[..., int], *words: str, **options: str) -> None:
    """Write *question*, the command line that answers it, and the answer."""
    arguments = [command.__name__, *words]
    for name, value in options.items():
        arguments += [f"--{name}", value]

    put_line("")
    put_line(question)
    put_line(f"$ {PROGRAM} {shlex.join(arguments)}")
    command(words=list(words), **options)
    sys.stdout.flush()
