"""Tests of `structlog_audit.events.event_lists`."""

import datetime as dt

import pytest

from structlog_audit.events.codec import StoredEvent, encode_event
from structlog_audit.events.event_lists import EventList, SelectedEvents, lists_of

EVENTS = [StoredEvent(f"evt_{number}", dt.datetime(2025, 1, 15, tzinfo=dt.UTC), "STORE") for number in range(5)]


def selected():
    """Return five events as a query selects them: in two lists."""
    return SelectedEvents(iter([EventList(EVENTS[:2]), EventList(EVENTS[2:])]))


def test_selected_events_come_one_by_one():
    """Selected events are an iterator of events, by a loop and by `next`."""
    assert list(selected()) == EVENTS
    events = selected()
    assert [next(events), *events] == EVENTS


def test_selected_events_keep_their_lists():
    """The lists of selected events are those in which they were found, whatever the size that is wanted."""
    assert list(lists_of(selected(), 1)) == [EVENTS[:2], EVENTS[2:]]


@pytest.mark.parametrize("size", [1, 2, 5, 9])
def test_other_events_come_in_lists_of_the_size(size):
    """Events that come one by one are put into lists of the given size, and the rest into a last one."""
    found = list(lists_of(iter(EVENTS), size))
    assert [event for events in found for event in events] == EVENTS
    assert all(len(events) == size for events in found[:-1])
    assert 0 < len(found[-1]) <= size


def test_lines_of_a_list_are_those_of_its_events():
    """A list of events encodes to the line of each event."""
    assert EventList(EVENTS).lines() == b"".join(encode_event(stored.event()) + b"\n" for stored in EVENTS)
