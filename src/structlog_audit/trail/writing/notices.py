"""Event notices: facts about the files of a trail that wait to be recorded as trail events."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any, NamedTuple

MAX_NOTICES = 100
"""The number of notices that are kept until they are recorded."""


class Notice(NamedTuple):
    """A trail event to record, and the step that follows.

    Attributes:
        operation: The operation of the trail event.
        metadata: Its metadata.
        on_recorded: Called afterwards with whether the trail event was recorded; None if no step follows.
    """

    operation: str
    metadata: dict[str, Any]
    on_recorded: Callable[[bool], None] | None = None


class Notices(deque[Notice]):
    """The notices of one file handler that are not recorded yet, oldest first, bounded by `MAX_NOTICES`."""

    dropped = 0
    """The number of notices that were not kept because the queue was full."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        """The number of notices so far, by operation, including those that were not kept."""

    def add(self, operation: str, on_recorded: Callable[[bool], None] | None = None, /, **metadata: Any) -> bool:
        """Append a notice and return True, or count it as dropped and return False if the queue is full."""
        self.counts[operation] += 1
        if len(self) >= MAX_NOTICES:
            self.dropped += 1
            return False

        self.append(Notice(operation, metadata, on_recorded))
        return True
