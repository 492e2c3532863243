"""Rows and counts of a report's data, compared as a whole."""

from __future__ import annotations

from reporting import Events, stored

from structlog_audit import EventStatus
from structlog_audit.reports import compliance_report


def test_row_of_a_list_has_the_members_of_its_event():
    """A row has each member, texts cut to 500 characters, at most ten entry ids, and the number of all of them."""
    event = stored(
        0,
        operation="o" * 600,
        user_id="u" * 501,
        session_id="s1",
        entry_ids=["e" * 501, *(f"e{number}" for number in range(11))],
        status=EventStatus.FAILURE,
        error_message="m" * 500,
        duration_ms=1.5,
        metadata={"not": "in the row"},
    )
    (row,) = compliance_report(Events([event])).to_dict()["failures"]["newest"]
    assert row == {
        "event_id": event.event_id,
        "timestamp": "2025-01-15T12:00:00.000000Z",
        "operation": "o" * 499 + "…",
        "user_id": "u" * 499 + "…",
        "session_id": "s1",
        "status": "FAILURE",
        "duration_ms": 1.5,
        "error_message": "m" * 500,
        "entry_ids": ["e" * 499 + "…", *(f"e{number}" for number in range(9))],
        "entries": 12,
    }


def test_row_of_an_event_with_little_has_none_for_the_rest():
    """A member that the event lacks is None in its row."""
    (row,) = compliance_report(Events([stored(0, status=EventStatus.FAILURE)])).to_dict()["failures"]["newest"]
    assert [row[name] for name in ("user_id", "session_id", "error_message", "duration_ms")] == [None] * 4
    assert (row["entry_ids"], row["entries"]) == ([], 0)


def test_lists_have_at_most_fifty_events_and_that_of_one_user_two_hundred():
    """The lists have the newest events, and count all of them."""
    events = [stored(number, user_id="ann", status=EventStatus.FAILURE) for number in range(201)]
    found = compliance_report(Events(events), user_id="ann").to_dict()
    for name, most in (("failures", 50), ("activity", 200)):
        newest = [event.event_id for event in events[::-1][:most]]
        assert [row["event_id"] for row in found[name]["newest"]] == newest
        assert found[name]["total"] == 201
