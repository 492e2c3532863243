"""The event that the benchmark records, and the folder for its files.

The event is the example of the memory SDK's audit page. Files lie in a temporary folder below ``$TMPDIR``, which is deleted
when the process ends.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Callable

FOLDER = tempfile.mkdtemp(prefix="structlog-audit-bench-")


@atexit.register
def remove_folder() -> None:
    """Close all handlers, whose last lines would create the folder again, and remove it."""
    logging.shutdown()
    shutil.rmtree(FOLDER, ignore_errors=True)


CONTEXT = {"user_id": "user_123", "session_id": "session_abc"}
"""The fields that a logger is bound to."""

FIELDS = {
    "entry_ids": ["entry_1", "entry_2"],
    "metadata": {"importance": 0.8, "tags": ["verified"], "source": "api"},
    "status": "SUCCESS",
    "duration_ms": 45.2,
}
"""The fields that each call passes."""

Call = Callable[[], object]


def path_of(name: str) -> str:
    """Return the path of the file *name* in the temporary folder."""
    return os.path.join(FOLDER, f"{name}.jsonl")


def logger_with(name: str, handler: logging.Handler) -> logging.Logger:
    """Return a logger that has *handler* only, accepts INFO, and does not propagate."""
    logger = logging.getLogger(f"bench.{name}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    return logger
