"""``demo``: a small trail, written by the library, and three questions to it."""

from __future__ import annotations

import shlex
import sys
import tempfile
from pathlib import Path

from structlog_audit.cli.commands.query import query
from structlog_audit.cli.commands.stats import users
from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import Output
from structlog_audit.cli.reading import Request
from structlog_audit.cli.terminal import PROGRAM, put_line
from structlog_audit.loggers.audit_logger import PrivateLogger
from structlog_audit.loggers.bound_logger import AuditBoundLogger
from structlog_audit.recording.handler import AuditHandler


def demo(folder: str | None) -> Exit:
    """Write a trail into *folder*, or a temporary one, and ask it."""
    place = Path(tempfile.mkdtemp(prefix="audit-demo-") if folder is None else folder)
    trail = place / "audit.jsonl"
    if trail.exists():
        raise UsageError(f"{trail} is there already, and was left as it is: give another folder")
    _record(trail)
    put_line(f"Six operations of two users are recorded in {trail}, one JSON object per line.")
    name = str(trail)
    _ask(
        "What did ann delete in the last hour?", Request("query", [name, "user_id=ann", "operation=FORGET"], since="1h")
    )
    _ask("What failed, and why?", Request("query", [name, "status!=SUCCESS"]))
    _ask("Who does what?", Request("users", [name]))
    put_line("")
    put_line(f"More: {PROGRAM} --help. Follow what comes: {PROGRAM} tail -f {shlex.quote(name)}")
    return Exit.DONE


def _record(trail: Path) -> None:
    logger = PrivateLogger("structlog_audit.demo")
    logger.propagate = False
    handler = AuditHandler(filename=trail)
    logger.addHandler(handler)
    log = AuditBoundLogger(logger, (), {"source": "demo"})
    ann, bob = log.bind(user_id="ann", session_id="s1"), log.bind(user_id="bob", session_id="s2")
    with ann.operation("STORE", entry_ids=["entry_1", "entry_2"], tags=["verified"]):
        pass
    bob.info("RECALL", entry_ids=["entry_1"], duration_ms=3.5)
    ann.info("FORGET", entry_ids=["entry_2"], reason="asked by its owner", duration_ms=8.25)
    bob.error("EXPORT", error_message="PermissionError: bob may not export", duration_ms=0.5)
    with bob.operation("IMPORT") as op:
        op.entry_ids += ["entry_3", "entry_4"]
        op.partial("one of three entries was no JSON")
    ann.info("RECALL", entry_ids=["entry_1"], duration_ms=2.75)
    logger.removeHandler(handler)
    handler.close()


def _ask(question: str, request: Request) -> None:
    put_line("")
    put_line(question)
    options = [] if request.since is None else ["--since", request.since]
    put_line(f"$ {PROGRAM} {shlex.join([request.command, *request.words, *options])}")
    if request.command == "users":
        users(request, Output.TABLE, None)
    else:
        query(request, Output.TABLE, None, reverse=False)
    sys.stdout.flush()
