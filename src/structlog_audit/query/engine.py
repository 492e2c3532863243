"""The protocol between an event source and the engine that answers its queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from structlog_audit.events.codec import StoredEvent
from structlog_audit.query.filters import Conditions

Progress = Callable[[int], None]
"""Takes the number of bytes read so far for the present question."""


class Engine(Protocol):
    """What finds events in trails. Another engine needs no more than this."""

    def select(self, asked: Conditions, *, newest_first: bool, at_most: int | None) -> Iterator[StoredEvent]:
        """The events that match *asked*; *at_most* so many will be taken."""
        ...
