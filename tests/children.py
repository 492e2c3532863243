"""Environment of the processes that tests start. Those processes import it too, so it imports nothing from the tests."""

from __future__ import annotations

import os
from collections.abc import Mapping


def without_coverage(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return *environment* without the variables of coverage.

    The lock of coverage hangs in a process that forks while threads run, and in one that is interrupted.
    """
    return {name: value for name, value in environment.items() if not name.startswith("COV")}
