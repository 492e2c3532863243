"""The event that the benchmark records, and where to: the example of the memory SDK's audit page, each with an id of its own.

Files lie in a temporary folder on the disk of $TMPDIR, which is gone when the process ends.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import tempfile
from collections.abc import Callable

FOLDER = tempfile.mkdtemp(prefix="structlog-audit-bench-")
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
CONTEXT = {"user_id": "user_123", "session_id": "session_abc"}
FIELDS = {
    "entry_ids": ["entry_1", "entry_2"],
    "metadata": {"importance": 0.8, "tags": ["verified"], "source": "api"},
    "status": "SUCCESS",
    "duration_ms": 45.2,
}

Call = Callable[[], object]


def file(name: str) -> str:
    return os.path.join(FOLDER, f"{name}.jsonl")


def logger_with(name: str, handler: logging.Handler) -> logging.Logger:
    logger = logging.getLogger(f"bench.{name}")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    return logger
