"""Files that a command writes: an existing file is replaced only with ``--force``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from structlog_audit._validation import require_local
from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.exceptions import AuditValueError


def require_free(path: str, *, force: bool) -> None:
    """Raise `UsageError` if a file exists at *path* and may not be replaced, a folder, or if it is a URL. ``-`` is stdout."""
    try:
        require_local("path", path)
    except AuditValueError as error:
        raise UsageError(str(error)) from None

    if path != "-" and os.path.isdir(path):
        raise UsageError(f"{path}: expected the path of a file, got a folder")
    if path != "-" and not force and os.path.lexists(path):
        raise file_exists(path)


@contextmanager
def refusing_to_replace(path: str) -> Iterator[None]:
    """Report as `UsageError` that a file was created at *path* after `require_free` checked it."""
    try:
        yield
    except FileExistsError:
        raise file_exists(path) from None


def file_exists(path: str) -> UsageError:
    """Return the error for a file that exists already."""
    return UsageError(f"{path} already exists and was not changed: choose another name, or use --force to replace it")
