"""The record, in a trail, that archived segments of it are deleted."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from structlog_audit.events.event import Kind
from structlog_audit.exceptions import AuditWriteError
from structlog_audit.loggers.audit_logger import PrivateLogger
from structlog_audit.loggers.bound_logger import AuditBoundLogger
from structlog_audit.recording.file_handler import AuditFileHandler
from structlog_audit.recording.handler import AuditHandler
from structlog_audit.trail.reading.segment_scanner import RETENTION
from structlog_audit.trail.writing.filesystem import is_file


def record_deletion(
    trail: str, names: Sequence[str], size: int, archive: str, leaves: Sequence[Sequence[int]] | None
) -> None:
    """Record in *trail* that the segments *names* are about to be deleted, because *archive* has them.

    The event is the one by which retention announces deletions, so that a reader of the files alone knows what is missing.

    Args:
        trail: The path of the active segment.
        names: The names of the segments.
        size: Their bytes.
        archive: The archive.
        leaves: Of a sealed trail, the ranges of leaves that are gone with them, and before.

    Raises:
        AuditWriteError: The trail has no active file, or the event could not be recorded. Nothing was deleted.
    """
    if not is_file(trail):
        raise AuditWriteError(
            f"{trail!r}: expected the active file, in which deletions are recorded; nothing was deleted"
        )

    # Only the application decides when its trail rolls over.
    handler = AuditHandler(1, target=AuditFileHandler(trail, maxBytes=0), on_error="raise")
    logger = PrivateLogger("structlog_audit.archive")
    logger.propagate = False
    logger.addHandler(handler)

    metadata = {"segments": list(names), "bytes": size, "archive": archive}
    if leaves is not None:
        metadata["leaves"] = leaves
    try:
        AuditBoundLogger(logger, (), {})._record(logging.INFO, RETENTION, {"metadata": metadata}, kind=Kind.TRAIL.value)
    finally:
        handler.close()
