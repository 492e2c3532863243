"""The protocol between an event source and the engine that answers its queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from structlog_audit.events.codec import StoredEvent
from structlog_audit.query.filters import Conditions

Progress = Callable[[int], None]
"""Takes the number of bytes read so far for the current query."""


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
