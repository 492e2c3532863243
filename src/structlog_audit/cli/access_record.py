"""Trail events of the command line: the record of reading a trail (PCI DSS 10.2.1.3), and that of an erasure.

They are of kind ``trail``, and are recorded as every event is, redaction included. ``read`` has the user, the command and the
conditions; it is recorded in each trail before anything is shown, and if that fails, nothing is shown. A trail that has
pseudonyms or tokens in place of persons gets no identity in clear.
"""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from structlog_audit.cli.exit_codes import UnreadableError, UsageError
from structlog_audit.events.event import Kind
from structlog_audit.exceptions import AuditError
from structlog_audit.loggers.audit_logger import PrivateLogger
from structlog_audit.loggers.bound_logger import AuditBoundLogger
from structlog_audit.query.absent_values import PSEUDONYM
from structlog_audit.query.filters import conditions
from structlog_audit.recording.file_handler import AuditFileHandler
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.trail.reading.opening import open_trail
from structlog_audit.trail.segment_names import base_of
from structlog_audit.trail.writing.filesystem import is_file

_MOST_SAMPLED = 1_000
"""Maximum events, the newest ones of a trail, among which pseudonyms are looked for."""


def record_reading(trails: Iterable[str], command: str, describe: Callable[[bool], dict[str, Any]]) -> None:
    """Record in each of *trails*, once, that *command* is about to read it.

    Args:
        trails: The paths of the active files.
        command: The name of the command.
        describe: A function that returns further members of the event's metadata, for a trail that hides persons, or not.

    Raises:
        UsageError: One of *trails* is not the active file of a trail.
        UnreadableError: The event could not be recorded.
    """
    by_file = {os.path.realpath(trail): trail for trail in trails}
    require_active_files("--record", by_file.values())

    metadata = {"command": command, **current_user()}
    for trail in by_file.values():
        try:
            record_trail_event(trail, "read", {**metadata, **describe(_hides_persons(trail))})
        except (AuditError, OSError) as error:
            raise UnreadableError(f"cannot record the reading of {trail!r}, so nothing was read: {error}") from None


def _hides_persons(trail: str) -> bool:
    """Return whether the newest events of *trail* have pseudonyms or tokens as users: it must get no identity in clear."""
    newest = open_trail(trail).select(conditions(), newest_first=True, at_most=_MOST_SAMPLED)
    users = (event.user_id for event in islice(newest, _MOST_SAMPLED))
    return any(user is not None and PSEUDONYM.fullmatch(user) for user in users)


def require_active_files(parameter: str, trails: Iterable[str]) -> None:
    """Raise `UsageError`, with the name of the *parameter*, unless each of *trails* is the active file of a trail."""
    for trail in trails:
        name = os.path.basename(trail)
        if not is_file(trail) or base_of(name) != name:
            raise UsageError(f"{parameter}: expected the active file of each trail, got {trail!r}")


class CommandHandler(AuditHandler):
    """A handler whose errors the command writes to stderr itself."""

    def _report_outage(self, error: BaseException | None) -> None:
        """Leave out the report on stderr: the caller gets the error."""


def record_trail_event(trail: str, operation: str, metadata: dict[str, Any]) -> None:
    """Record a trail event in the trail with the active file *trail*.

    Raises:
        AuditError, OSError: It is not recorded.
    """
    # Only the application decides when its trail rolls over.
    target = AuditFileHandler(trail, maxBytes=0)
    handler = CommandHandler(1, target=target, on_error="raise")
    logger = PrivateLogger("structlog_audit.cli")
    logger.propagate = False
    logger.addHandler(handler)

    fields = {"metadata": metadata}
    try:
        AuditBoundLogger(logger, (), {})._record(logging.INFO, operation, fields, kind=Kind.TRAIL.value)
    finally:
        handler.close()


def current_user() -> dict[str, Any]:
    """Return the name and number of the user of this process, and the original user under ``sudo``."""
    uid = os.getuid()
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        # In containers a user often has no name.
        name = str(uid)

    user = {"os_user": name, "uid": uid, "pid": os.getpid()}
    sudo_user = os.environ.get("SUDO_USER")
    if sudo_user:
        user["sudo_user"] = sudo_user
    return user
