"""`open_trail`: the door to what is in the files.

It stands apart so that an application that only writes does not import all that reads.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

from structlog_audit.exceptions import AuditTypeError

if TYPE_CHECKING:
    from structlog_audit.trail.reading.reader import TrailReader


def open_trail(*paths: str | os.PathLike[str] | BinaryIO, progress: Callable[[int], None] | None = None) -> TrailReader:
    """A reader of the trails at *paths*, which answers as a handler does, from files. Several trails are merged by time.

    Args:
        paths: Each one of: the active file of a trail, to which the rolled segments beside it belong; a single segment; a
            pattern, as of `glob`; a folder, which means all trails in it or, where there is none, all export documents;
            an export document; a file that is open for reading bytes, such as ``sys.stdin.buffer``. Files may be packed
            with gzip, or with zstd (the extra ``zstd``).
        progress: Called with the number of bytes read so far for the present question; `TrailReader.size` is their total.

    Raises:
        AuditTypeError: One of *paths* is none of these, or there is none.
        AuditReadError: There is nothing there, or it can't be read.
    """
    if not paths:
        raise AuditTypeError("open_trail() without a path: give the active file of a trail, a folder or a pattern")
    from structlog_audit.trail.reading.reader import TrailReader

    return TrailReader(paths, progress)
