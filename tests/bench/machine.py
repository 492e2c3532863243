"""What was measured on: for the head of the table, and for the document."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

DISTRIBUTIONS = (
    "structlog-audit", "structlog", "python-json-logger", "msgspec", "orjson", "axon-sdk", "loguru", "eliot", "picologging",
)  # fmt: skip


def processor() -> str:
    """The model, as Linux or else Python calls it."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    return {
        "processor": processor(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": round(os.getloadavg()[0], 1),
    }


def versions() -> dict[str, str]:
    """Of what is installed of the peers, and of what they and we stand on."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
