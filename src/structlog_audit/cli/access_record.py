"""Reading a trail, recorded in that trail: who, with which command, asked for what (PCI DSS 10.2.1.3).

It is an own act of kind ``trail``, called ``read``, and goes the way of every event: an `AuditHandler` and an
`AuditFileHandler`, redaction included. It is recorded before anything is read; if it can't be, nothing is read.
"""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Iterable
from typing import Any

from structlog_audit.cli.exit_codes import UnreadableError, UsageError
from structlog_audit.events.event import Kind
from structlog_audit.exceptions import AuditError
from structlog_audit.loggers.audit_logger import PrivateLogger
from structlog_audit.loggers.bound_logger import AuditBoundLogger
from structlog_audit.recording.file_handler import AuditFileHandler
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.trail.segment_names import base_of


def record_reading(trails: Iterable[str], command: str, said: dict[str, Any]) -> None:
    """Record that *command* is about to read *trails*, with what there is to say of it besides.

    Raises:
        UsageError: One of *trails* is no file that could be appended to.
        UnreadableError: It could not be recorded.
    """
    metadata = {"command": command, **reader(), **said}
    for trail in trails:
        if not os.path.isfile(trail) or base_of(os.path.basename(trail)) != os.path.basename(trail):
            raise UsageError(f"--record needs the active file of each trail, and {trail!r} is none")
        try:
            _record(trail, metadata)
        except (AuditError, OSError) as error:
            raise UnreadableError(f"reading {trail!r} can't be recorded, so nothing was read: {error}") from None


def _record(trail: str, metadata: dict[str, Any]) -> None:
    target = AuditFileHandler(trail, maxBytes=0)  # it is the application that says when to roll over
    handler = AuditHandler(1, target=target, on_error="raise")
    logger = PrivateLogger("structlog_audit.cli")
    logger.propagate = False
    logger.addHandler(handler)
    try:
        AuditBoundLogger(logger, (), {})._record(logging.INFO, "read", {"metadata": metadata}, kind=Kind.TRAIL.value)
    finally:
        handler.close()


def reader() -> dict[str, Any]:
    """Who runs this: the name and number of the user, and who became that user by ``sudo``, as far as that says so."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:  # as in containers
        name = str(uid)
    sudo = os.environ.get("SUDO_USER")
    return {"os_user": name, "uid": uid, "pid": os.getpid()} | ({"sudo_user": sudo} if sudo else {})
