"""The machine and the versions that were measured, for the head of the table and for the JSON file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

DISTRIBUTIONS = (
    "structlog-audit", "structlog", "python-json-logger", "msgspec", "orjson", "axon-sdk", "loguru", "eliot", "picologging",
)  # fmt: skip


def processor() -> str:
    """Return the model of the processor.

    Its source is ``/proc/cpuinfo``, or else `platform`.
    """
    try:
        with open("/proc/cpuinfo") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Return the hardware, the system, the Python, and the recent load."""
    return {
        "processor": processor(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load": round(os.getloadavg()[0], 1),
    }


def versions() -> dict[str, str]:
    """Return the installed versions of this library, its dependencies and peers."""
    found = {}
    for name in DISTRIBUTIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
