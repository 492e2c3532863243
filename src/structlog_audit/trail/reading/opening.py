"""`open_trail`, the entry point for reading trails from files.

It has a module of its own so that an application that only records does not import the code that reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from structlog_audit.exceptions import AuditTypeError

if TYPE_CHECKING:
    from structlog_audit.redaction.vault import SubjectVault
    from structlog_audit.trail.reading.reader import TrailReader


def open_trail(
    *paths: str | os.PathLike[str] | BinaryIO,
    progress: Callable[[int], None] | None = None,
    vault: str | os.PathLike[str] | SubjectVault | None = None,
) -> TrailReader:
    """Return a reader that answers queries from the trails at *paths*, merged by time.

    Args:
        paths: Each one of: the active file of a trail, which includes the rolled segments beside it; a single segment; a
            `glob` pattern; a folder, for all trails in it or, without trails, all export documents; an export document;
            a file that is open for reading bytes, such as ``sys.stdin.buffer``. Files may be compressed with gzip or
            with zstd (extra ``zstd``).
        progress: Called with the number of bytes read so far for the current query; `TrailReader.size` is the total.
        vault: The vault of the application's redactor, or its path. The filters ``user_id``, ``session_id`` and ``entry_ids``
            then find the events of a person by the clear identity. In ``metadata``, use `SubjectVault.token`.

    Raises:
        AuditTypeError: There are no *paths*, or one of them is neither a path nor an open binary file.
        AuditReadError: There is no trail at one of *paths*, or it cannot be read.
        AuditVaultError: The vault cannot be used.
    """
    if not paths:
        raise AuditTypeError("open_trail(): expected the active file of a trail, a folder or a pattern, got no path")

    from structlog_audit.trail.reading.discovery import find_trails
    from structlog_audit.trail.reading.reader import TrailReader
    from structlog_audit.trail.reading.scan_engine import ScanEngine
    from structlog_audit.trail.reading.segment_scanner import SegmentScanner

    scanner = SegmentScanner()
    trails = find_trails(paths, scanner.problems)
    engine = ScanEngine(trails, scanner, progress)
    return TrailReader(trails, engine, scanner, _opened_vault(vault))


def _opened_vault(vault: str | os.PathLike[str] | SubjectVault | None) -> SubjectVault | None:
    from structlog_audit.redaction.vault import SubjectVault

    if vault is None or isinstance(vault, SubjectVault):
        return vault
    return SubjectVault(vault)
