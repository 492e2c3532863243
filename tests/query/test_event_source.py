"""The questions that everything with events answers: order, limits, lookup, statistics, export."""

import datetime as dt
import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import AuditEvent, EventStatus
from structlog_audit.exceptions import AuditTypeError, AuditValueError
from structlog_audit.query.event_source import EventSource
from structlog_audit.recording.handler import AuditHandler

NOON = dt.datetime(2025, 1, 15, 12, tzinfo=dt.UTC)


class ListSource(EventSource):
    """The least that a source is: a list."""

    def __init__(self, events):
        self.events = events

    def select(self, asked, *, newest_first, at_most=None):
        return (event for event in (self.events[::-1] if newest_first else self.events) if asked.matches(event))

    @property
    def complete_since(self):
        return NOON


def stored(number, **members):
    return StoredEvent(f"evt_{number}", NOON + dt.timedelta(seconds=number), "STORE", **members)


@pytest.fixture
def source():
    users = ["ann", "bob", None]
    events = [stored(n, user_id=users[n % 3], duration_ms=float(n)) for n in range(9)]
    return ListSource([*events, stored(9, kind="gap", status=EventStatus.FAILURE)])


def ids(events):
    return [event.event_id for event in events]


@settings(max_examples=100, deadline=None)
@given(
    count=st.integers(0, 10),
    newest_first=st.booleans(),
    limit=st.one_of(st.none(), st.integers(0, 12)),
    offset=st.integers(0, 12),
)
def test_order_limit_and_offset(count, newest_first, limit, offset):
    """An answer is a slice of the matching events in the order asked for, for all orders, limits and offsets."""
    source = ListSource([stored(number) for number in range(count)])
    expected = [f"evt_{number}" for number in range(count)][:: -1 if newest_first else 1][offset:]
    found = source.query_events(newest_first=newest_first, limit=limit, offset=offset)
    assert ids(found) == expected[:limit]


def test_queries_are_newest_first_and_iteration_oldest_first(source):
    """Queries give the newest first unless told otherwise, iteration the oldest; both give `AuditEvent`s."""
    assert ids(source.query_events()) == [f"evt_{n}" for n in range(8, -1, -1)]
    assert ids(source.iter_events()) == [f"evt_{n}" for n in range(9)]
    assert ids(source.query_events(user_id="bob", limit=2)) == ["evt_7", "evt_4"]
    assert {type(event) for event in [*source.query_events(), *source.iter_events()]} == {AuditEvent}


def test_counting(source):
    """Counting counts what a query would find."""
    assert (source.count_events(), source.count_events(user_id=None), source.count_events(kind="gap")) == (9, 3, 1)


def test_an_event_is_got_by_its_id_whatever_its_kind(source):
    """An event is found by its id, also one of the library's own; an unknown id gives None."""
    assert source.get_event("evt_4").user_id == "bob"
    assert source.get_event("evt_9").kind == "gap"
    assert source.get_event("evt_10") is None


METHODS = ["query_events", "iter_events", "count_events", "get_statistics"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("filters", "error"),
    [
        ({"usr_id": "ann"}, AuditTypeError),
        ({"user_id": 1.5}, AuditTypeError),
        ({"status": "DONE"}, AuditValueError),
        ({"start_time": NOON, "end_time": NOON - dt.timedelta(1)}, AuditValueError),
    ],
)
def test_every_method_refuses_what_cannot_be_meant(source, method, filters, error):
    """No method takes a filter that it doesn't know or can't use, and each says so when it is called."""
    with pytest.raises(error):
        getattr(source, method)(**filters)


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ({"limit": -1}, AuditValueError),
        ({"offset": -1}, AuditValueError),
        ({"limit": 1.0}, AuditTypeError),
        ({"offset": None}, AuditTypeError),
        ({"limit": True}, AuditTypeError),
    ],
)
def test_limit_and_offset_are_whole_numbers(source, how, error):
    """A limit or an offset that is negative or no whole number is an error that names it."""
    with pytest.raises(error, match=next(iter(how))):
        source.query_events(**how)


def test_an_id_is_needed(source):
    """Asking for the event None is an error, not any event."""
    with pytest.raises(AuditTypeError):
        source.get_event(None)


def test_statistics_carry_completeness(source):
    """Statistics say from when on they are complete; a source without counters adds none."""
    found = source.get_statistics(user_id="bob")
    assert (found["total_events"], found["avg_duration_ms"], found["complete_since"]) == (3, 4.0, NOON)
    assert "recorded" not in found
    assert source.get_statistics()["total_events"] == 9


def test_user_statistics(source):
    """A user's statistics are over that user's ordinary events; None means those without a user."""
    assert source.get_user_statistics("bob")["last_activity"] == NOON + dt.timedelta(seconds=7)
    assert source.get_user_statistics(None)["total_operations"] == 3
    assert source.get_user_statistics("nobody")["total_operations"] == 0
    for several in (["ann"], ("ann",), {"ann"}, frozenset({"ann"})):
        with pytest.raises(AuditTypeError, match="give one user"):
            source.get_user_statistics(several)


def test_exports_are_the_oldest_first(source, tmp_path):
    """An export has the matching events, the oldest first, and says how many there are."""
    path = tmp_path / "out.jsonl"
    assert source.export_to_file(path, user_id="ann") == 3
    assert [json.loads(line)["event_id"] for line in path.read_text().splitlines()] == ["evt_0", "evt_3", "evt_6"]
    assert source.export_events(source.query_events(limit=2), path, format="json") == 2
    document = json.loads(path.read_text())
    assert [event["event_id"] for event in document["events"]] == ["evt_8", "evt_7"]
    exported_at = dt.datetime.fromisoformat(document["exported_at"])
    assert abs(exported_at - dt.datetime.now(dt.UTC)) < dt.timedelta(hours=1)


def test_an_export_with_a_wrong_filter_writes_nothing(source, tmp_path):
    """A filter that can't be meant is an error before anything is written."""
    with pytest.raises(AuditTypeError):
        source.export_to_file(tmp_path / "out.jsonl", user="ann")
    assert list(tmp_path.iterdir()) == []


def test_an_intent_id_that_is_no_text_closes_no_intent():
    """Any value an application gives as ``intent_id`` leaves the intents as they are."""
    handler = AuditHandler()
    handler.handle(logging.makeLogRecord({"msg": "STORE", "levelno": 20, "intent_id": ["a"]}))
    assert handler.open_intents() == []
