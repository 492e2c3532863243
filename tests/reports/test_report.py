"""The data of a compliance report: figures equal those of the queries, and known losses are reported."""

import datetime as dt
import json
import os
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reporting import NOON, Events, stored

from structlog_audit import (
    AuditError,
    AuditHandler,
    AuditLogger,
    AuditTypeError,
    AuditValueError,
    EventStatus,
    OperationClasses,
    open_trail,
)
from structlog_audit.events import operation_classes
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import rfc3339
from structlog_audit.reports import compliance_report
from structlog_audit.reports.aggregation import LONGEST, MOST_ENTRIES, NEWEST, NEWEST_OF_USER
from structlog_audit.reports.period import MOST_STEPS, floor, steps

MIDNIGHT = dt.datetime(2025, 2, 1, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)

times = st.one_of(
    st.sampled_from([MIDNIGHT - MICROSECOND, MIDNIGHT, MIDNIGHT + MICROSECOND]),
    st.datetimes(dt.datetime(2024, 12, 25), dt.datetime(2025, 3, 5), timezones=st.just(dt.UTC)),
)
events = st.lists(
    st.builds(
        StoredEvent,
        event_id=st.uuids().map(lambda uuid: f"evt_{uuid.hex}"),
        timestamp=times,
        operation=st.sampled_from(["STORE", "RECALL", "FORGET", "EXPORT", "invoice.closed", "document.delete"]),
        user_id=st.sampled_from([None, "", "ann", "bob", "anonymous", "zoë"]),
        entry_ids=st.lists(st.sampled_from(["e1", "e2", "e3"]), max_size=3),
        status=st.sampled_from(list(EventStatus)),
        error_message=st.none() | st.just("ValueError: no"),
        duration_ms=st.none() | st.floats(0, 1e6),
    ),
    max_size=40,
)
CLASSES = {
    "STORE": "create",
    "RECALL": "read",
    "FORGET": "delete",
    "EXPORT": "export",
    "invoice.closed": "unclassified",
    "document.delete": "delete",
}
bounds = st.none() | times
EMPTY_MONTH = {
    "period": "2025-01",
    "total_events": 0,
    "users": 0,
    "operations": {},
    "user_activity": {},
    "without_user": 0,
}


def data(source, **parameters):
    """Return the data of the report of *source*."""
    return compliance_report(source, **parameters).to_dict()


def in_order(start_time, end_time):
    """Return the bounds, swapped if they are reversed."""
    if start_time is None or end_time is None:
        return start_time, end_time
    return min(start_time, end_time), max(start_time, end_time)


def ids(rows):
    return [row["event_id"] for row in rows]


def as_summary(statistics):
    """Return the statistics of a query in the form of a report's summary."""
    times = {name: statistics[name] and rfc3339(statistics[name]) for name in ("first_event", "last_event")}
    summary = {**statistics, **times, "users": len(statistics["by_user"])}
    return {name: value for name, value in summary.items() if name not in ("by_user", "complete_since")}


def generate_compliance_report(source, month, year):
    """Return the monthly report as on the memory SDK's page, with December fixed, and events without a user apart."""
    end_time = dt.datetime(year + month // 12, month % 12 + 1, 1, tzinfo=dt.UTC)
    events = source.query_events(start_time=dt.datetime(year, month, 1, tzinfo=dt.UTC), end_time=end_time)
    users = {}
    for event in events:
        if event.user_id is not None:
            users.setdefault(event.user_id, []).append(event.operation.value)
    return {
        "period": f"{year}-{month:02d}",
        "total_events": len(events),
        "users": len(users),
        "operations": dict(Counter(event.operation.value for event in events)),
        "user_activity": {
            user_id: {
                "total": len(done),
                "by_class": Counter(CLASSES[name] for name in done),
            }
            for user_id, done in users.items()
        },
        "without_user": sum(event.user_id is None for event in events),
    }


@settings(max_examples=100)
@given(events=events, start_time=bounds, end_time=bounds, user_id=st.sampled_from([None, "ann", "", "nobody"]))
def test_summary_and_operations_equal_the_statistics(events, start_time, end_time, user_id):
    """Summary and operations equal `get_statistics` for all events, ranges and users."""
    start_time, end_time = in_order(start_time, end_time)
    source = Events(events)
    filters = {"start_time": start_time, "end_time": end_time} | ({} if user_id is None else {"user_id": user_id})
    found = data(source, start_time=start_time, end_time=end_time, user_id=user_id)

    assert found["summary"] == as_summary(source.get_statistics(**filters))
    assert {row["operation"] for row in found["operations"]} == {e.operation for e in source.query_events(**filters)}
    for row in found["operations"]:
        statistics = source.get_statistics(operation=row["operation"], **filters)
        shared = row.keys() - {"operation", "class", "timed_events"}
        assert {name: row[name] for name in shared} == {name: statistics[name] for name in shared}


@settings(max_examples=100)
@given(events=events, start_time=bounds, end_time=bounds, user_id=st.sampled_from([None, "ann", "", "nobody"]))
def test_users_and_lists_equal_the_queries(events, start_time, end_time, user_id):
    """Users and lists of events equal `query_events` for all events, ranges and users."""
    start_time, end_time = in_order(start_time, end_time)
    source = Events(events)
    filters = {"start_time": start_time, "end_time": end_time} | ({} if user_id is None else {"user_id": user_id})
    found = data(source, start_time=start_time, end_time=end_time, user_id=user_id)

    for row in found["users"]["most_active"]:
        of_user = source.query_events(**{**filters, "user_id": row["user_id"]})
        assert row["total"] == len(of_user)
        assert row["failures"] == sum(event.status == "FAILURE" for event in of_user)
        assert row["first_activity"] == rfc3339(of_user[-1].timestamp)
        assert row["last_activity"] == rfc3339(of_user[0].timestamp)

    lists = {
        "failures": {"status": "FAILURE"},
        "deletions": {"operation": ["FORGET", "document.delete"]},
        "exports": {"operation": "EXPORT"},
    }
    for name, filter_of_list in lists.items():
        listed = source.query_events(**filters, **filter_of_list)
        assert (found[name]["total"], ids(found[name]["newest"])) == (len(listed), [e.event_id for e in listed])
        assert found[name]["entries"] == sum(len(event.entry_ids) for event in listed)


@settings(max_examples=100)
@given(events=events)
def test_months_equal_the_report_of_the_memory_sdk(events):
    """Each month from the first event to the last has the figures of the memory SDK's page, but activity by class."""
    source = Events(events)
    rows = data(source)["months"]

    expected = []
    if events:
        first, last = (choose(event.timestamp for event in events) for choose in (min, max))
        indexes = range(first.year * 12 + first.month - 1, last.year * 12 + last.month)
        expected = [generate_compliance_report(source, index % 12 + 1, index // 12) for index in indexes]
    assert rows == expected
    for row in rows:
        assert data(source, month=row["period"])["months"] == [row]


@settings(max_examples=100)
@given(events=events, start_time=bounds, end_time=bounds)
def test_each_step_over_time_has_the_events_up_to_the_next(events, start_time, end_time):
    """Each step has the events from its start up to the next step, and none is omitted, for all events and ranges."""
    start_time, end_time = in_order(start_time, end_time)
    source = Events(events)
    found = data(source, start_time=start_time, end_time=end_time)
    rows = found["over_time"]["steps"]
    assert sum(row["total"] for row in rows) == found["summary"]["total_events"]

    starts = [dt.datetime.fromisoformat(row["start"]) for row in rows]
    for row, start, end in zip(rows, starts, [*starts, None][1:], strict=True):
        low = start if start_time is None else max(start, start_time)
        high = min((time for time in (end, end_time) if time is not None), default=None)
        of_step = source.query_events(start_time=low, end_time=high)
        assert row["total"] == len(of_step)
        assert {status: row[status] for status in EventStatus} == {
            status: sum(event.status is status for event in of_step) for status in EventStatus
        }


# --- the period ---------------------------------------------------------------------------------------------------------


def test_month_is_half_open_in_utc():
    """A month contains its first instant but not the first instant of the next; local time is irrelevant."""
    source = Events([stored(at=MIDNIGHT - MICROSECOND, user_id="before"), stored(at=MIDNIGHT, user_id="after")])
    january, february = (data(source, month=f"2025-{month}") for month in ("01", "02"))
    assert list(january["months"][0]["user_activity"]) == ["before"]
    assert list(february["months"][0]["user_activity"]) == ["after"]
    assert january["period"] == {
        "start": "2025-01-01T00:00:00.000000Z",
        "end": "2025-02-01T00:00:00.000000Z",
        "month": "2025-01",
        "time_zone": "UTC",
    }


def test_december_ends_at_the_start_of_january():
    """The month after December is in the next year."""
    assert data(Events([]), month="2024-12")["period"]["end"] == "2025-01-01T00:00:00.000000Z"


def test_naive_time_is_local_time():
    """A bound without a zone is local time, as in every query."""
    local = dt.datetime(2025, 1, 15, 12)
    assert data(Events([]), start_time=local)["period"]["start"] == rfc3339(local.astimezone())


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"month": "2025-13"}, AuditValueError),
        ({"month": "2025-00"}, AuditValueError),
        ({"month": "0000-01"}, AuditValueError),
        ({"month": "9999-12"}, AuditValueError),
        ({"month": "2025-1"}, AuditValueError),
        ({"month": "２０２５-０１"}, AuditValueError),
        ({"month": "yesterday"}, AuditValueError),
        ({"tz": "Europe/Berln"}, AuditValueError),
        ({"tz": 1}, AuditTypeError),
        ({"month": 202501}, AuditTypeError),
        ({"month": "2025-01", "start_time": NOON}, AuditValueError),
        ({"month": "2025-01", "end_time": NOON}, AuditValueError),
        ({"start_time": NOON, "end_time": NOON - MICROSECOND}, AuditValueError),
        ({"start_time": "2025-01-01"}, AuditTypeError),
        ({"user_id": ["ann"]}, AuditTypeError),
        ({"user_id": 1.5}, AuditTypeError),
    ],
)
def test_invalid_parameter_raises_an_error_that_names_it(parameters, error):
    """An invalid month, range or user raises an error, and so does a month together with a time."""
    with pytest.raises(error, match=rf"^{next(iter(parameters))}=.*expected"):
        compliance_report(Events([]), **parameters)


def test_list_of_events_as_source_raises_an_error():
    """A list of events is refused as the source, and the error lists the valid ones."""
    with pytest.raises(AuditTypeError, match=r"expected an AuditHandler, .* got list"):
        compliance_report([])


@pytest.mark.parametrize("form", ["to_json", "to_markdown", "to_html"])
def test_report_without_events_has_every_form(form):
    """Without events, every form of the report exists."""
    assert getattr(compliance_report(Events([])), form)()


def test_report_without_events_is_empty():
    """Without events, the report has zeros and empty lists."""
    report = compliance_report(Events([]))
    found = report.to_dict()
    assert found["summary"]["total_events"] == 0
    assert (found["months"], found["over_time"]["steps"], found["operations"]) == ([], [], [])
    assert "There were no events." in report.to_markdown()


def test_month_without_events_has_zeros():
    """A requested month without events is in the report, with zeros."""
    assert data(Events([]), month="2025-01")["months"] == [EMPTY_MONTH]


def test_range_includes_every_month_that_has_begun():
    """A bounded range has its months without events, but none in the future."""
    source = Events([stored(at=dt.datetime(2025, 1, 2, tzinfo=dt.UTC))], now=NOON)
    start_time, end_time = (dt.datetime(*month, 1, tzinfo=dt.UTC) for month in ((2024, 11), (2026, 1)))
    months = data(source, start_time=start_time, end_time=end_time)["months"]
    assert [month["period"] for month in months] == ["2024-11", "2024-12", "2025-01"]


FIRST_TIME = dt.datetime(1, 1, 1, tzinfo=dt.UTC)
LAST_TIME = dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC)
AGES_APART = [stored(at=time) for time in (FIRST_TIME, NOON, LAST_TIME)]


def test_events_ages_apart_list_only_months_with_events():
    """Events centuries apart, as from a wrong clock, list only the months with events."""
    found = data(Events(AGES_APART))
    assert [month["period"] for month in found["months"]] == ["0001-01", "2025-01", "9999-12"]


def test_events_ages_apart_have_at_most_a_hundred_steps():
    """Events centuries apart are charted by the century, and none is omitted."""
    over_time = data(Events(AGES_APART))["over_time"]
    assert over_time["unit"] == "century"
    assert len(over_time["steps"]) == MOST_STEPS
    assert sum(step["total"] for step in over_time["steps"]) == 3


@pytest.mark.parametrize(
    "range",
    [{}, {"start_time": FIRST_TIME, "end_time": LAST_TIME}, {"start_time": LAST_TIME}, {"end_time": FIRST_TIME}],
)
def test_range_up_to_the_ends_of_the_calendar_has_charts(range):
    """Charts of ranges that reach an end of the calendar can be drawn."""
    assert compliance_report(Events(AGES_APART), **range).to_html()


@settings(max_examples=200)
@given(st.datetimes(timezones=st.just(dt.UTC)), st.datetimes(timezones=st.just(dt.UTC)))
def test_steps_cover_any_two_times(one, other):
    """Steps are in order, begin at the floor of their time, cover both ends, and are at most `MOST_STEPS`."""
    first, last = sorted((one, other))
    unit, starts = steps(first, last)
    assert len(starts) <= MOST_STEPS
    assert starts == sorted(set(starts)) == [floor(start, unit) for start in starts]
    assert starts[0] == floor(first, unit)
    assert starts[-1] == floor(last, unit)


@pytest.mark.parametrize(
    ("days", "unit", "count"),
    [
        (1, "hour", 24),
        (4, "hour", 96),
        (5, "day", 5),
        (31, "day", 31),
        (365, "week", 53),
        (800, "month", 27),
    ],
)
def test_unit_of_steps_suits_the_length_of_the_period(days, unit, count):
    """Days are shown by the hour, a month by the day, a year by the week, longer periods by the month."""
    first = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    found, starts = steps(first, first + dt.timedelta(days=days) - MICROSECOND)
    assert (found, len(starts)) == (unit, count)


# --- lists --------------------------------------------------------------------------------------------------------------


def test_lists_keep_the_newest_and_count_all():
    """A list has the newest fifty events, newest first, and counts all; the activity of one user has more events."""
    source = Events([stored(n, status=EventStatus.FAILURE, user_id="ann", entry_ids=["e"]) for n in range(1_000)])
    found = data(source, user_id="ann")
    newest = [event.event_id for event in source.query_events(limit=NEWEST_OF_USER)]
    assert (found["failures"]["total"], found["failures"]["entries"]) == (1_000, 1_000)
    assert ids(found["failures"]["newest"]) == newest[:NEWEST]
    assert ids(found["activity"]["newest"]) == newest


def test_report_of_all_users_has_no_activity_list():
    """Only the report of one user lists all kinds of activity."""
    assert data(Events([stored()]))["activity"] is None


def test_long_texts_are_cut_in_lists():
    """A long message ends with an ellipsis, and many entry ids are cut with their number kept."""
    event = stored(error_message="m" * 9_000, status=EventStatus.FAILURE, entry_ids=[f"e{n}" for n in range(99)])
    (row,) = data(Events([event]))["failures"]["newest"]
    assert (len(row["error_message"]), row["error_message"][-2:]) == (LONGEST, "m…")
    assert (len(row["entry_ids"]), row["entries"]) == (MOST_ENTRIES, 99)


INTENT = stored(0, kind="intent", user_id="ann")


@pytest.mark.parametrize(
    ("events", "parameters", "passes"),
    [
        ([], {}, 2),
        ([stored(user_id="ann")], {"user_id": "ann"}, 3),
        ([], {"user_id": "ann"}, 4),
        ([INTENT], {}, 2),
        ([INTENT], {"month": "2025-01"}, 4),
        ([INTENT], {"end_time": NOON + dt.timedelta(days=1)}, 3),
        ([INTENT, stored(1, user_id="ann")], {"user_id": "ann"}, 4),
    ],
)
def test_report_reads_its_source_once_unless_limited(events, parameters, passes):
    """One pass for the figures, one for the verdict, one for the library's events if for one user, one more if the user has no
    events, one more if outcomes of intents may lie outside the events read, and one for the verdict on the period before.
    """
    source = Events(events)
    compliance_report(source, **parameters)
    assert len(source.selections) == passes


@pytest.mark.parametrize(
    "parameters", [{}, {"month": "2025-01"}, {"user_id": "ann"}, {"month": "2025-01", "user_id": "ann"}]
)
def test_intent_is_closed_by_an_outcome_outside_the_report(parameters):
    """An outcome closes its intent even if it came after the period or from another user."""
    at = MIDNIGHT - dt.timedelta(seconds=1)
    first, second = (stored(n, at=at, kind="intent", user_id="ann", entry_ids=["e"]) for n in (-1, 0))
    outcome = stored(5, at=at, user_id="bob", metadata={"intent_id": first.event_id})
    other = stored(6, at=at, metadata={"intent_id": ["not a string"]})
    found = data(Events([first, second, outcome, other]), **parameters)["open_intents"]
    assert (found["total"], found["entries"], ids(found["oldest"])) == (1, 1, [second.event_id])


def test_intent_before_the_period_is_not_listed():
    """Intents from before the period are not in its report."""
    intent = stored(at=MIDNIGHT - MICROSECOND, kind="intent")
    assert data(Events([intent]), month="2025-02")["open_intents"]["total"] == 0


def test_users_with_most_failures_include_inactive_users():
    """A user with few events, all of them failures, is in the list of failures though not among the most active."""
    busy = [stored(n, user_id=f"u{n % 60}") for n in range(600)]
    mallory = [stored(n, user_id="mallory", status=EventStatus.FAILURE) for n in range(3)]
    users = data(Events([*busy, *mallory]))["users"]
    assert users["total"] == 61
    assert "mallory" not in [row["user_id"] for row in users["most_active"]]
    assert [(row["user_id"], row["failures"]) for row in users["most_failures"]] == [("mallory", 3)]


# --- classes and statuses ----------------------------------------------------------------------------------------------


DOCUMENTS = [
    stored(0, operation="document.delete", user_id="ann", entry_ids=["d1", "d2"]),
    stored(1, operation="DeleteBucket", user_id="bob"),
    stored(2, operation="invoice.closed", user_id="bob"),
    stored(3, operation="invoice.closed", user_id="ann"),
    stored(4, operation="order.shipped"),
]


def test_deletions_are_the_operations_of_the_class():
    """Deletions are all operations that delete, under any name, and each is listed with its name."""
    deletions = data(Events(DOCUMENTS))["deletions"]
    assert (deletions["total"], deletions["entries"]) == (2, 2)
    assert [row["operation"] for row in deletions["newest"]] == ["DeleteBucket", "document.delete"]


def test_unclassified_operations_are_counted_by_name():
    """The report counts the classified events, and those without a class by their operation."""
    classes = data(Events(DOCUMENTS))["classes"]
    assert (classes["classified"], classes["unclassified"]) == (2, 3)
    assert classes["unclassified_operations"] == {"invoice.closed": 2, "order.shipped": 1}
    assert classes["by_class"]["delete"] == {
        "total_events": 2,
        "operations": 2,
        "by_status": {"SUCCESS": 2, "FAILURE": 0, "PARTIAL": 0},
    }


@pytest.mark.parametrize("form", ["to_markdown", "to_html"])
def test_zero_is_claimed_among_classified_events_only(form):
    """Without an export, the document states among how many events, and names the operations that may be exports."""
    shown = getattr(compliance_report(Events(DOCUMENTS)), form)()
    assert "0 exports among the 2 events whose operation is classified." in shown
    named = "invoice.closed (2) and order.shipped (1)."
    assert shown.count(f"3 events with 2 operations are not classified: {named}") >= 4
    assert "≥ 0" in shown


def test_figures_are_exact_if_every_operation_is_classified():
    """With every operation classified, the headline figures are plain numbers, and the report says so."""
    shown = compliance_report(Events(DOCUMENTS[:2])).to_markdown()
    assert "0 exports among the 2 events whose operation is classified." in shown
    assert "Every operation is classified." in shown
    assert "not classified" not in shown
    assert "≥" not in shown


def test_no_absence_is_claimed_without_events():
    """Without events, no section claims that something did not happen among them."""
    shown = compliance_report(Events([])).to_markdown()
    assert "0 exports" not in shown
    assert "There were no failures" not in shown


@pytest.mark.parametrize(
    "operations", [{"close": "update", "ship": "other"}, OperationClasses({"invoice.close": "export"})]
)
def test_argument_extends_the_classes(operations):
    """Entries that the caller passes classify operations, in any form of their verbs."""
    classes = data(Events(DOCUMENTS), operations=operations)["classes"]
    assert "invoice.closed" not in classes["unclassified_operations"]


def test_registered_classes_count_in_reports(monkeypatch):
    """Entries that the application registered classify the operations of every report."""
    monkeypatch.setattr(operation_classes, "_registered", OperationClasses({"invoice.close": "export"}))
    assert data(Events(DOCUMENTS))["exports"]["total"] == 2


def test_activity_of_users_has_the_classes_of_the_trail():
    """The columns of users are the classes that occur, and no others."""
    report = compliance_report(Events(DOCUMENTS))
    rows = {row["user_id"]: row["by_class"] for row in report.to_dict()["users"]["most_active"]}
    assert rows == {"ann": {"delete": 1, "unclassified": 1}, "bob": {"delete": 1, "unclassified": 1}}
    assert "| User | Total | Delete | Unclassified | Failures |" in report.to_markdown()


def test_months_have_the_operations_of_the_trail():
    """The columns of the monthly figures are the most frequent operations of the events, not names without events."""
    shown = compliance_report(Events(DOCUMENTS[:2])).to_markdown()
    assert "| Month | Events | Users | DeleteBucket | document.delete | Others |" in shown


def test_operation_with_the_name_of_a_column_has_its_own():
    """An operation that is named like another column of the months does not replace that column."""
    shown = compliance_report(Events([stored(0, operation="users"), stored(1, operation="users")])).to_markdown()
    assert "| January 2025 | 2 | 0 | 2 | 0 |" in shown


@pytest.mark.parametrize("mark", ["not a status", "not a status; redacted: mask"])
def test_events_of_unknown_status_are_counted(mark):
    """Events whose status states neither success nor failure are counted, also if the word is redacted."""
    events = [stored(0), stored(1, metadata={"status": "archived", "_audit": {"status": mark}})]
    report = compliance_report(Events(events))
    assert report.to_dict()["unknown_status"] == 1
    for shown in (report.to_markdown(), report.to_html()):
        assert "0 failures among the 1 event whose status is known." in shown
        assert "1 event with a status that states neither success nor failure" in shown
        assert "All succeeded." not in shown
        assert "≤ 100.0 %" in shown


@pytest.mark.parametrize("metadata", [{}, {"_audit": "text"}, {"_audit": {"status": 5}}, {"_audit": {"user_id": "x"}}])
def test_other_marks_are_no_unknown_status(metadata):
    """Only the mark of the status counts, and the application's own value of that name does not matter."""
    assert data(Events([stored(metadata=metadata)]))["unknown_status"] == 0


# --- completeness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("known", "verdict", "reason"),
    [
        (
            {"complete_since": NOON},
            "unknown",
            "The buffer has no complete record of events before 2025-01-15 12:00:00.000 UTC.",
        ),
        (
            {"counters": {"lost": 3, "pending": 0}},
            "incomplete",
            "3 events lost because the target failed and too many were pending, or because it refused them.",
        ),
        (
            {"counters": {"raised": 1}},
            "incomplete",
            "1 event not recorded because the target failed; the callers received an error.",
        ),
        (
            {"counters": {"pending": 2}},
            "incomplete",
            "2 events pending in memory, not yet in the trail.",
        ),
        (
            {"problems": {"foreign": 2, "bom": 1}},
            "unknown",
            "Reading the source met a problem (foreign, 2 times).",
        ),
        (
            {"events": [stored(kind="gap", metadata={"lost": 7})], "counters": {"lost": 7}},
            "incomplete",
            "7 events lost, as a gap event states at 2025-01-15 12:00:00.000 UTC.",
        ),
        *(
            (
                {"events": [stored(kind="trail", operation=operation)]},
                "unknown",
                f"A trail event reports damage to the file ({operation}, 1 time).",
            )
            for operation in ("truncated", "replaced", "quarantine")
        ),
    ],
)
def test_loss_and_doubt_are_the_only_reason_of_the_verdict(known, verdict, reason):
    """Each known loss makes the report incomplete, each doubt unknown, with one reason in every form of the report."""
    report = compliance_report(Events(**{"events": [], **known}))
    completeness = report.to_dict()["completeness"]
    assert (completeness["verdict"], completeness["sentences"]) == (verdict, [reason])
    for shown in (report.to_markdown(), report.to_html()):
        assert reason.replace("(", "\\(").replace(")", "\\)") in shown or reason in shown
        assert "(1 reason in section 1)" in shown or "\\(1 reason in section 1\\)" in shown


@pytest.mark.parametrize(
    ("known", "parameters"),
    [
        ({}, {}),
        ({"complete_since": NOON}, {"start_time": NOON}),
        ({"counters": {"accepted": 3, "recorded": 3, "pending": 0, "raised": 0, "lost": 0, "evicted": 1}}, {}),
        ({"problems": {"unfinished": 1, "repeated": 2}}, {}),
        ({"events": [stored(kind="trail", operation="opened"), stored(kind="trail", operation="retention")]}, {}),
        ({"events": [stored(kind="gap", metadata={"lost": 7})]}, {"start_time": NOON + dt.timedelta(seconds=1)}),
    ],
)
def test_report_without_known_losses_is_complete(known, parameters):
    """The report is complete if no loss or damage in the period is known and the source covers it from its start."""
    report = compliance_report(Events(**{"events": [], **known}), **parameters)
    assert report.to_dict()["completeness"]["verdict"] == report.completeness.verdict == "complete"
    assert "Complete for the period, by the evidence of its source" in report.to_markdown()


@pytest.mark.parametrize(
    ("events", "parameters", "reason"),
    [
        (
            [stored()],
            {"month": "2024-12"},
            "Nothing shows what came before the first event, 2025-01-15 12:00:00.000 UTC.",
        ),
        ([stored()], {"month": "2025-01"}, "The period is not over: it is 2025-01-15 12:00:00.000 UTC."),
        ([stored()], {"month": "2025-02"}, "The period is not over: it is 2025-01-15 12:00:00.000 UTC."),
        ([], {"start_time": NOON}, "The source has no events, so nothing shows whether any are missing."),
        ([stored()], {"user_id": "nobody"}, "No event of the source has the user nobody: the name may be another one."),
    ],
)
def test_period_or_user_without_evidence_is_unknown(events, parameters, reason):
    """A period before the events or not over, and a user who never occurs, are never complete."""
    report = compliance_report(Events(events), **parameters)
    assert report.completeness.verdict == "unknown"
    assert reason in report.completeness.sentences()


def test_user_with_events_in_another_period_is_known(tmp_path):
    """A user without events in the period, who occurs elsewhere, is no doubt."""
    events = [stored(0, user_id="ann"), stored(60, user_id="bob"), stored(120)]
    report = compliance_report(Events(events), user_id="ann", start_time=NOON + dt.timedelta(seconds=30))
    assert report.completeness.verdict == "complete"


def test_report_of_files_names_them_with_hosts_and_segments(tmp_path):
    """A report of a trail names its files, segments, hosts, and the times of the events in them."""
    path = tmp_path / "audit.jsonl"
    with AuditLogger(filename=path) as audit:
        audit.record("STORE", "ann")
    report = compliance_report(open_trail(path))
    source = report.to_dict()["source"]
    assert source["segments"] == [{"trail": str(path), "number": 1, "first": path.name, "last": path.name}]
    assert source["hosts"] == [os.uname().nodename]
    for shown in (report.to_markdown(), report.to_html()):
        assert "Hosts" in shown
        assert "Events of the source" in shown


def test_gaps_are_listed_with_their_losses():
    """Gaps are listed newest first, with the number of lost events in each."""
    gaps = [stored(n, kind="gap", metadata={"lost": n + 1}) for n in range(2)]
    completeness = data(Events(gaps))["completeness"]
    assert [gap["lost"] for gap in completeness["gaps"]["newest"]] == [2, 1]
    assert completeness["lost"] == 3


@pytest.fixture
def report_of_trail_events():
    """Return the report of a gap, an application event and two trail events."""
    trail_events = [
        stored(n, kind="trail", operation=name, metadata={"pid": n}) for n, name in enumerate(["opened", "closed"], 5)
    ]
    return compliance_report(Events([stored(0, kind="gap"), stored(3), *trail_events]))


def test_trail_events_are_listed_with_their_metadata(report_of_trail_events):
    """Trail events are listed newest first with their metadata, and counted by operation."""
    listed = report_of_trail_events.to_dict()["trail_events"]
    assert [(row["operation"], row["metadata"]) for row in listed["newest"]] == [
        ("closed", '{"pid":6}'),
        ("opened", '{"pid":5}'),
    ]
    assert listed["by_operation"] == {"opened": 1, "closed": 1}


def test_documents_show_the_metadata_of_trail_events(report_of_trail_events):
    """HTML and Markdown show the escaped metadata of a trail event together with its id."""
    closed = report_of_trail_events.to_dict()["trail_events"]["newest"][0]["event_id"]
    html = f'<bdi>{{&#34;pid&#34;:6}}</bdi><span class="id">{closed}</span>'
    markdown = f'| closed | SUCCESS | \\{{"pid":6\\}} · {closed.replace("_", chr(92) + "_")} |'
    assert html in report_of_trail_events.to_html()
    assert markdown in report_of_trail_events.to_markdown()


def test_totals_exclude_gaps_and_trail_events(report_of_trail_events):
    """Only application events count in the summary."""
    assert report_of_trail_events.to_dict()["summary"]["total_events"] == 1


def test_description_over_time_compares_steps_only_if_several():
    """The sentences on events over time name the highest and lowest step only if there are several steps."""
    one, two = (compliance_report(Events([stored(), stored(seconds)])).to_markdown() for seconds in (1, 3_600))
    assert "2 events by hour. All succeeded." in one
    assert "2 events by hour. The highest number is 1 (15 January 2025, 12:00), the lowest is 1 " in two


@pytest.mark.parametrize("metadata", [{}, {"lost": "many"}, {"lost": -7}, {"lost": None}, {"lost": 1.5}])
def test_gap_without_a_valid_number_still_counts_as_a_gap(metadata):
    """A gap without a valid number of lost events makes the report incomplete and leaves other losses unchanged."""
    gap = stored(kind="gap", metadata=metadata)
    for others, lost in (([], 0), ([stored(1, kind="gap", metadata={"lost": 3})], 3)):
        found = data(Events([gap, *others]))["completeness"]
        assert (found["lost"], found["gaps"]["total"], found["verdict"]) == (lost, 1 + len(others), "incomplete")


# --- clauses, forms and sources -----------------------------------------------------------------------------------------


def test_clauses_refer_to_existing_sections():
    """Every clause has a requirement, an uncovered part, and sections that are members of the report."""
    found = data(Events([]), user_id="ann")
    for clause in found["clauses"]:
        assert clause["requirement"]
        assert clause["not_covered"]
        assert clause["sections"]
        assert set(clause["sections"]) <= found.keys()
    assert found["not_shown"]


def test_clauses_cover_five_frameworks():
    """The clauses are those of GDPR, HIPAA, SOC 2, ISO 27001 and PCI DSS."""
    frameworks = {clause["framework"] for clause in data(Events([]))["clauses"]}
    assert frameworks == {"GDPR", "HIPAA", "SOC 2", "ISO 27001", "PCI DSS"}


def test_json_equals_the_dictionary_without_raw_controls():
    """The JSON text has the content of the dictionary, with control characters escaped."""
    source = Events([stored(n, user_id=f"u{n}\u2028\u202e", duration_ms=0.1) for n in range(12_000)])
    report = compliance_report(source)
    text = report.to_json()
    assert json.loads(text) == report.to_dict()
    assert not {"\u2028", "\u202e"} & set(text)


def test_changing_the_dictionary_leaves_the_report_unchanged():
    """`to_dict` returns a copy."""
    report = compliance_report(Events([stored()]))
    report.to_dict()["summary"]["total_events"] = -1
    assert report.to_dict()["summary"]["total_events"] == 1


def test_repr_names_the_month():
    """The repr of a report is short and names its period."""
    assert repr(compliance_report(Events([]), month="2025-01")) == "<Report of 2025-01>"


@pytest.mark.parametrize("source_of", [lambda audit: audit, lambda audit: audit.handler], ids=["logger", "handler"])
def test_handler_and_logger_are_sources(tmp_path, source_of):
    """A report of an `AuditHandler` or an `AuditLogger` has their statistics, counters and trail events."""
    with AuditLogger(filename=tmp_path / "audit.jsonl") as audit:
        audit.record("STORE", "ann", entry_ids=["e1"], duration_ms=3.0)
        audit.record("FORGET", "ann", error_message="no")
        source = source_of(audit)
        found = data(source)
        statistics = source.get_statistics()

    counters = found["completeness"]["counters"]
    assert found["summary"] == as_summary({name: statistics[name] for name in statistics if name not in counters})
    assert counters == {name: statistics[name] for name in counters}
    assert counters["recorded"] == 2
    assert (found["source"]["type"], found["source"]["paths"]) == (
        type(source).__name__,
        [str(tmp_path / "audit.jsonl")],
    )
    assert found["trail_events"]["by_operation"] == {"opened": 1}


def test_pseudonymized_user_is_found_by_the_clear_name():
    """With pseudonyms, a report is requested by the clear name, as every query, and other users stay hidden."""
    audit = AuditLogger(redactor={"keys": {"user_id": "pseudonym"}, "secret": "s" * 32})
    audit.record("STORE", "ann")
    audit.record("STORE", "bob")
    report = compliance_report(audit, user_id="ann")
    assert report.to_dict()["summary"]["total_events"] == 1
    assert "bob" not in report.to_json()


def test_unreadable_lines_of_a_warm_start_are_problems(tmp_path):
    """Lines that a handler could not read at its start are among the problems of the report."""
    path = tmp_path / "audit.jsonl"
    path.write_text("not an event\n")
    handler = AuditHandler(filename=path, warm_start=True)
    audit = AuditLogger(handler=handler)
    assert handler.problems == audit.problems == {"unreadable": 1}
    assert data(audit)["completeness"]["problems"] == {"unreadable": 1}
    handler.close()


@pytest.fixture(params=["jinja2", "pygal"])
def missing_module(monkeypatch, request):
    """Make one module of the extra unavailable, and return its name."""
    for name in ("html", "charts"):
        monkeypatch.delitem(sys.modules, f"structlog_audit.reports.{name}", raising=False)
        monkeypatch.delattr(f"structlog_audit.reports.{name}", raising=False)
    monkeypatch.setitem(sys.modules, request.param, None)
    return request.param


def test_html_without_the_extra_raises_an_error_with_the_fix(missing_module):
    """Without jinja2 or pygal, `to_html` raises an error that names the extra to install."""
    report = compliance_report(Events([stored()]))
    with pytest.raises(
        AuditError, match=rf"^a report in HTML needs {missing_module}.*: pip install 'structlog-audit\[reports\]'"
    ):
        report.to_html()


@pytest.mark.usefixtures("missing_module")
def test_json_and_markdown_need_no_extra():
    """Every form except HTML works without jinja2 and pygal."""
    report = compliance_report(Events([stored()]))
    assert report.to_dict() == json.loads(report.to_json())
    assert report.to_markdown()
