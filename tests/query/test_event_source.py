"""Tests of `EventSource`: order, limits, lookup, statistics and export of any source."""

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
    """A minimal source: a list of events in the order of commit."""

    def __init__(self, events):
        self.events = events

    def select(self, conditions, *, newest_first, at_most=None):
        events = self.events[::-1] if newest_first else self.events
        return (event for event in events if conditions.matches(event))

    @property
    def complete_since(self):
        return NOON


def stored(number, **members):
    """Return an event, *number* seconds after noon."""
    return StoredEvent(f"evt_{number}", NOON + dt.timedelta(seconds=number), "STORE", **members)


@pytest.fixture
def source():
    """Return a source of nine application events of two users and no user, and a gap."""
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
def test_query_returns_a_slice_in_the_requested_order(count, newest_first, limit, offset):
    """A query returns a slice of the matching events, for all orders, limits and offsets."""
    source = ListSource([stored(number) for number in range(count)])
    expected = [f"evt_{number}" for number in range(count)][:: -1 if newest_first else 1][offset:]
    found = source.query_events(newest_first=newest_first, limit=limit, offset=offset)
    assert ids(found) == expected[:limit]


def test_queries_are_newest_first(source):
    """Queries return the newest events first by default."""
    assert ids(source.query_events()) == [f"evt_{n}" for n in range(8, -1, -1)]
    assert ids(source.query_events(user_id="bob", limit=2)) == ["evt_7", "evt_4"]


def test_iteration_is_oldest_first(source):
    """Iteration yields the oldest events first."""
    assert ids(source.iter_events()) == [f"evt_{n}" for n in range(9)]


def test_queries_and_iteration_give_audit_events(source):
    """Queries and iteration give values of the public type `AuditEvent`."""
    assert {type(event) for event in [*source.query_events(), *source.iter_events()]} == {AuditEvent}


def test_count_equals_the_number_of_matching_events(source):
    """`count_events` returns the number of events that a query would return."""
    assert (source.count_events(), source.count_events(user_id=None), source.count_events(kind="gap")) == (9, 3, 1)


def test_get_event_finds_events_of_every_kind(source):
    """`get_event` finds application events and events of the library by their id."""
    assert source.get_event("evt_4").user_id == "bob"
    assert source.get_event("evt_9").kind == "gap"


def test_get_event_of_an_unknown_id_returns_none(source):
    """`get_event` returns None for an unknown id."""
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
def test_invalid_filter_raises_an_error_at_the_call(source, method, filters, error):
    """Every method refuses unknown filters and invalid values when it is called, not when its result is read."""
    with pytest.raises(error):
        getattr(source, method)(**filters)


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"limit": -1}, AuditValueError),
        ({"offset": -1}, AuditValueError),
        ({"limit": 1.0}, AuditTypeError),
        ({"offset": None}, AuditTypeError),
        ({"limit": True}, AuditTypeError),
    ],
)
def test_invalid_limit_or_offset_raises_an_error_that_names_it(source, parameters, error):
    """A limit or offset that is negative or not an integer raises an error that names it."""
    with pytest.raises(error, match=next(iter(parameters))):
        source.query_events(**parameters)


def test_get_event_of_none_raises_an_error(source):
    """The id None raises an error rather than matching any event."""
    with pytest.raises(AuditTypeError):
        source.get_event(None)


def test_statistics_cover_the_matching_events(source):
    """Statistics cover the application events that match the filters."""
    found = source.get_statistics(user_id="bob")
    assert (found["total_events"], found["avg_duration_ms"]) == (3, 4.0)
    assert source.get_statistics()["total_events"] == 9


def test_statistics_state_the_time_from_which_they_are_complete(source):
    """Statistics contain ``complete_since`` of the source."""
    assert source.get_statistics(user_id="bob")["complete_since"] == NOON


def test_statistics_of_a_source_without_counters_have_none(source):
    """Lifetime counters appear only in the statistics of sources that have them."""
    assert "recorded" not in source.get_statistics(user_id="bob")


def test_user_statistics_cover_the_events_of_that_user(source):
    """Statistics of a user cover the user's application events; None is for events without a user."""
    assert source.get_user_statistics("bob")["last_activity"] == NOON + dt.timedelta(seconds=7)
    assert source.get_user_statistics(None)["total_operations"] == 3
    assert source.get_user_statistics("nobody")["total_operations"] == 0


@pytest.mark.parametrize("several", [["ann"], ("ann",), {"ann"}, frozenset({"ann"})])
def test_user_statistics_of_several_users_raise_an_error(source, several):
    """Statistics of a user refuse a collection, even of one user."""
    with pytest.raises(AuditTypeError, match="expected one user"):
        source.get_user_statistics(several)


def test_export_to_file_writes_the_oldest_first(source, tmp_path):
    """An export has the matching events, oldest first, and returns their number."""
    path = tmp_path / "out.jsonl"
    assert source.export_to_file(path, user_id="ann") == 3
    assert [json.loads(line)["event_id"] for line in path.read_text().splitlines()] == ["evt_0", "evt_3", "evt_6"]


def test_export_events_keeps_the_order_of_the_events(source, tmp_path):
    """An export of given events has them in their order, and the time of the export."""
    path = tmp_path / "out.jsonl"
    assert source.export_events(source.query_events(limit=2), path, format="json") == 2
    document = json.loads(path.read_text())
    assert [event["event_id"] for event in document["events"]] == ["evt_8", "evt_7"]
    exported_at = dt.datetime.fromisoformat(document["exported_at"])
    assert abs(exported_at - dt.datetime.now(dt.UTC)) < dt.timedelta(hours=1)


def test_export_with_an_unknown_filter_writes_nothing(source, tmp_path):
    """An unknown filter raises an error before anything is written."""
    with pytest.raises(AuditTypeError):
        source.export_to_file(tmp_path / "out.jsonl", user="ann")
    assert list(tmp_path.iterdir()) == []


def test_get_event_reads_one_event():
    """A source is told that only one event will be read, so that it can stop there."""
    requests = []

    class Recording(ListSource):
        def select(self, conditions, *, newest_first, at_most=None):
            requests.append((newest_first, at_most))
            return super().select(conditions, newest_first=newest_first)

    source = Recording([stored(0), stored(1)])
    assert source.get_event("evt_1").event_id == "evt_1"
    source.query_events(limit=3, offset=2)
    source.query_events()
    assert requests == [(True, 1), (True, 5), (True, None)]


def test_statistics_know_the_first_and_the_last_event(source):
    """The first and the last event are those of the order of commit."""
    found = source.get_statistics(user_id="bob")
    assert (found["first_event"], found["last_event"]) == (stored(1).timestamp, stored(7).timestamp)


def test_open_intents_are_those_without_an_outcome_oldest_first():
    """An application event closes the intent that it names; an event of the library, or one that names none, closes nothing."""
    intents = [stored(number, kind="intent") for number in range(4)]
    outcome = stored(4, metadata={"intent_id": "evt_1"})
    others = [
        stored(5, metadata={"intent_id": 2}),
        stored(6, metadata={"intent_id": "evt_99"}),
        stored(7, metadata={"evt_2": "intent_id"}),
        stored(8, metadata={"intent_id": "evt_3"}, kind="trail"),
    ]
    assert ids(ListSource([*intents, outcome, *others]).open_intents()) == ["evt_0", "evt_2", "evt_3"]
    assert ListSource([outcome, *others]).open_intents() == []


def test_intent_id_that_is_not_a_string_is_ignored():
    """An application event with a list as ``intent_id`` leaves the open intents unchanged."""
    handler = AuditHandler()
    handler.handle(logging.makeLogRecord({"msg": "STORE", "levelno": 20, "intent_id": ["a"]}))
    assert handler.open_intents() == []


def test_statistics_by_user_take_filters(source):
    """The statistics by user are those of the events that match the filters."""
    found = source.get_statistics_by_user(user_id=["ann", None], min_duration_ms=3)
    assert {user: figures["total_operations"] for user, figures in found.items()} == {"ann": 2, None: 2}
    assert found["ann"]["last_activity"] == NOON + dt.timedelta(seconds=6)
