"""Notices of a file handler that wait to be recorded as trail events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

Notice = tuple[str, dict[str, Any], Callable[[bool], None] | None]
"""An act, what there is to say of it, and what to do then, given whether it is recorded."""


MAX_NOTICES = 100


class Notices(deque[Notice]):
    """What a file handler noticed and nobody has recorded yet; bounded, since there may be nobody who does."""

    dropped = 0
    """Notices for which there was no room."""

    def add(self, act: str, then: Callable[[bool], None] | None = None, **said: Any) -> bool:
        """Keep a notice; whether there was room for it."""
        if len(self) >= MAX_NOTICES:
            self.dropped += 1
            return False
        self.append((act, said, then))
        return True
