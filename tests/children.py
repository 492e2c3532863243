"""What processes that tests start are given. Imported by such processes too, so it imports nothing of the tests."""

from __future__ import annotations

import os
from collections.abc import Mapping


def unmeasured(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """*environment* without coverage, whose lock hangs in a process that forks beside threads or is interrupted."""
    return {name: value for name, value in environment.items() if not name.startswith("COV")}
