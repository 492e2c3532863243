"""The protocol between an event source and the engine that answers its queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from structlog_audit.events.codec import StoredEvent
from structlog_audit.query.filters import Conditions

Progress = Callable[[int], None]
"""Takes the number of bytes read so far for the current query."""


class SharedProgress:
    """The bytes read of several sources for one query, as one number.

    Args:
        progress: Called with the number of bytes of all sources.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._done: list[int] = []

    def part(self) -> Progress:
        """Return the function that takes the bytes read of one source."""
        number = len(self._done)
        self._done.append(0)

        def advance(done: int) -> None:
            self._done[number] = done
            self._progress(sum(self._done))

        return advance


class Engine(Protocol):
    """Finds events in the trails it was made for."""

    def select(self, conditions: Conditions, *, newest_first: bool, at_most: int | None) -> Iterator[StoredEvent]:
        """Yield the events that match *conditions*, in the order of commit or its reverse.

        The caller takes at most *at_most* events; None means all of them.
        """
        ...

    def count(self, conditions: Conditions) -> int:
        """Return the number of events that match *conditions*."""
        ...
