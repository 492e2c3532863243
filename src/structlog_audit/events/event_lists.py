"""Answers to queries as lists of events, for callers that handle many at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

from structlog_audit.events.codec import StoredEvent

Stored = TypeVar("Stored", bound=StoredEvent)
AnyEvent = TypeVar("AnyEvent")


class EventList(list[Stored]):
    """Events that a source found together."""

    __slots__ = ()

    def lines(self) -> bytes:
        """Return the events as lines of an export, one each."""
        return StoredEvent.lines(self)


class SelectedEvents(Iterator[StoredEvent]):
    """The events that a query selected: one by one, or by `lists`.

    Args:
        lists: The events in their order, in lists.
    """

    def __init__(self, lists: Iterator[Sequence[StoredEvent]]) -> None:
        self.lists = lists
        """The events that were not taken yet one by one, in lists."""
        self._events = chain.from_iterable(lists)

    def __iter__(self) -> Iterator[StoredEvent]:
        return self._events

    def __next__(self) -> StoredEvent:
        return next(self._events)


def lists_of(events: Iterable[AnyEvent], size: int) -> Iterator[Sequence[AnyEvent]]:
    """Return *events* in lists: as they were selected, or if they come one by one, of this *size*."""
    if isinstance(events, SelectedEvents):
        selected: Iterator[Sequence[Any]] = events.lists
        return selected
    return _chunks(iter(events), size)


def _chunks(remaining: Iterator[AnyEvent], size: int) -> Iterator[Sequence[AnyEvent]]:
    while chunk := list(islice(remaining, size)):
        yield chunk
