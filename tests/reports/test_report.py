"""The figures of a compliance report: they are those of the queries, and say what they don't know."""

import datetime as dt
import json
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reporting import NOON, Events, stored

from structlog_audit import AuditError, AuditHandler, AuditLogger, AuditTypeError, AuditValueError, EventStatus
from structlog_audit.events.codec import StoredEvent
from structlog_audit.events.event import rfc3339
from structlog_audit.reports import compliance_report
from structlog_audit.reports.aggregation import LONGEST, MOST_ENTRIES, NEWEST, NEWEST_OF_USER
from structlog_audit.reports.period import MOST_STEPS, floor, steps

MIDNIGHT = dt.datetime(2025, 2, 1, tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)

moments = st.one_of(
    st.sampled_from([MIDNIGHT - MICROSECOND, MIDNIGHT, MIDNIGHT + MICROSECOND]),
    st.datetimes(dt.datetime(2024, 12, 25), dt.datetime(2025, 3, 5)).map(lambda moment: moment.replace(tzinfo=dt.UTC)),
)
events = st.lists(
    st.builds(
        StoredEvent,
        event_id=st.uuids().map(lambda found: f"evt_{found.hex}"),
        timestamp=moments,
        operation=st.sampled_from(["STORE", "RECALL", "FORGET", "EXPORT", "invoice.sent", "delete"]),
        user_id=st.sampled_from([None, "", "ann", "bob", "anonymous", "zoë"]),
        entry_ids=st.lists(st.sampled_from(["e1", "e2", "e3"]), max_size=3),
        status=st.sampled_from(list(EventStatus)),
        error_message=st.none() | st.just("ValueError: no"),
        duration_ms=st.none() | st.floats(0, 1e6),
    ),
    max_size=40,
)
bounds = st.none() | moments


def ids(rows):
    return [row["event_id"] for row in rows]


def of_the_query(found):
    """The statistics of a query in the form of a report's summary."""
    times = {name: found[name] and rfc3339(found[name]) for name in ("first_event", "last_event")}
    summary = {**found, **times, "users": len(found["by_user"])}
    return {name: value for name, value in summary.items() if name not in ("by_user", "complete_since")}


def generate_compliance_report(source, month, year):
    """The monthly report as the memory SDK's page has it, right for December too."""
    end_time = dt.datetime(year + month // 12, month % 12 + 1, 1, tzinfo=dt.UTC)
    found = source.query_events(start_time=dt.datetime(year, month, 1, tzinfo=dt.UTC), end_time=end_time)
    users = {}
    for event in found:
        users.setdefault(event.user_id or "anonymous", []).append(event.operation.value)
    return {
        "period": f"{year}-{month:02d}",
        "total_events": len(found),
        "users": len(users),
        "operations": dict(Counter(event.operation.value for event in found)),
        "user_activity": {
            user_id: {
                "total": len(done),
                "stores": done.count("STORE"),
                "recalls": done.count("RECALL"),
                "deletions": done.count("FORGET"),
            }
            for user_id, done in users.items()
        },
    }


@settings(max_examples=100)
@given(events=events, start_time=bounds, end_time=bounds, user_id=st.sampled_from([None, "ann", "", "nobody"]))
def test_the_figures_are_those_of_the_queries(events, start_time, end_time, user_id):
    """Summary, operations, users and lists are what the queries answer, for all events, ranges and users."""
    if start_time is not None and end_time is not None:
        start_time, end_time = sorted((start_time, end_time))
    source = Events(events)
    asked = {"start_time": start_time, "end_time": end_time} | ({} if user_id is None else {"user_id": user_id})
    found = compliance_report(source, start_time=start_time, end_time=end_time, user_id=user_id).to_dict()
    assert found["summary"] == of_the_query(source.get_statistics(**asked))
    assert {row["operation"] for row in found["operations"]} == {e.operation for e in source.query_events(**asked)}
    for row in found["operations"]:
        of_operation = source.get_statistics(operation=row["operation"], **asked)
        shared = row.keys() - {"operation", "timed_events"}
        assert {name: row[name] for name in shared} == {name: of_operation[name] for name in shared}
    for row in found["users"]["most_active"]:
        of_user = source.query_events(**{**asked, "user_id": row["user_id"]})
        assert row["total"] == len(of_user)
        assert row["failures"] == sum(event.status == "FAILURE" for event in of_user)
        assert (row["first_activity"], row["last_activity"]) == (
            rfc3339(of_user[-1].timestamp),
            rfc3339(of_user[0].timestamp),
        )
    for name, of_list in {"failures": {"status": "FAILURE"}, "deletions": {"operation": "FORGET"},
                          "exports": {"operation": "EXPORT"}}.items():  # fmt: skip
        listed = source.query_events(**asked, **of_list)
        assert (found[name]["total"], ids(found[name]["newest"])) == (len(listed), [e.event_id for e in listed])
        assert found[name]["entries"] == sum(len(event.entry_ids) for event in listed)


@settings(max_examples=100)
@given(events=events)
def test_every_month_is_as_the_seed_reports_it(events):
    """Each month from the first event to the last has exactly the figures of the memory SDK's page, for all events."""
    source = Events(events)
    rows = compliance_report(source).to_dict()["months"]
    expected = []
    if events:
        begin, end = (choose(event.timestamp for event in events) for choose in (min, max))
        numbers = range(begin.year * 12 + begin.month - 1, end.year * 12 + end.month)
        expected = [generate_compliance_report(source, number % 12 + 1, number // 12) for number in numbers]
    assert rows == expected
    for row in rows:
        assert compliance_report(source, month=row["period"]).to_dict()["months"] == [row]


@settings(max_examples=100)
@given(events=events, start_time=bounds, end_time=bounds)
def test_events_over_time_are_all_events_each_in_its_step(events, start_time, end_time):
    """Each step has the events from its beginning up to the next, and none is left out, for all events and ranges."""
    if start_time is not None and end_time is not None:
        start_time, end_time = sorted((start_time, end_time))
    source = Events(events)
    found = compliance_report(source, start_time=start_time, end_time=end_time).to_dict()
    rows = found["over_time"]["steps"]
    assert sum(row["total"] for row in rows) == found["summary"]["total_events"]
    begins = [dt.datetime.fromisoformat(row["start"]) for row in rows]
    for row, begin, end in zip(rows, begins, [*begins, None][1:], strict=True):
        low = begin if start_time is None else max(begin, start_time)
        high = min((moment for moment in (end, end_time) if moment is not None), default=None)
        of_step = source.query_events(start_time=low, end_time=high)
        assert row["total"] == len(of_step)
        assert {status: row[status] for status in EventStatus} == {
            status: sum(event.status is status for event in of_step) for status in EventStatus
        }


def test_a_month_is_half_open_in_utc():
    """A month has its first instant, and not the first of the next; local time plays no part."""
    source = Events([stored(at=MIDNIGHT - MICROSECOND, user_id="before"), stored(at=MIDNIGHT, user_id="after")])
    january, february = (compliance_report(source, month=f"2025-{month}").to_dict() for month in ("01", "02"))
    assert list(january["months"][0]["user_activity"]) == ["before"]
    assert list(february["months"][0]["user_activity"]) == ["after"]
    assert january["period"] == {
        "start": "2025-01-01T00:00:00.000000Z",
        "end": "2025-02-01T00:00:00.000000Z",
        "month": "2025-01",
    }


def test_december_ends_where_january_begins():
    """The month after December is in the next year."""
    assert compliance_report(Events([]), month="2024-12").to_dict()["period"]["end"] == "2025-01-01T00:00:00.000000Z"


def test_a_naive_time_is_local_time():
    """A range given without a zone is local, as in every query."""
    local = dt.datetime(2025, 1, 15, 12)
    found = compliance_report(Events([]), start_time=local).to_dict()["period"]
    assert found["start"] == rfc3339(local.astimezone())


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({"month": "2025-13"}, AuditValueError),
        ({"month": "2025-00"}, AuditValueError),
        ({"month": "0000-01"}, AuditValueError),
        ({"month": "9999-12"}, AuditValueError),
        ({"month": "2025-1"}, AuditValueError),
        ({"month": "２０２５-０１"}, AuditValueError),
        ({"month": "2025-01\n"}, AuditValueError),
        ({"month": 202501}, AuditTypeError),
        ({"month": "2025-01", "start_time": NOON}, AuditValueError),
        ({"month": "2025-01", "end_time": NOON}, AuditValueError),
        ({"start_time": NOON, "end_time": NOON - MICROSECOND}, AuditValueError),
        ({"start_time": "2025-01-01"}, AuditTypeError),
        ({"user_id": ["ann"]}, AuditTypeError),
        ({"user_id": 1.5}, AuditTypeError),
    ],
)
def test_what_cannot_be_meant_is_an_error_that_names_the_parameter(asked, error):
    """A wrong month, range or user is refused, and so is a month beside a time."""
    with pytest.raises(error, match=next(iter(asked))):
        compliance_report(Events([]), **asked)


def test_only_what_answers_questions_is_a_source():
    """A list of events is no source, and the error says what is."""
    with pytest.raises(AuditTypeError, match="give an AuditHandler"):
        compliance_report([])


def test_an_empty_trail_has_a_report():
    """Without events there is a report with nothing in it, in every form; a month asked for is there with zeros."""
    report = compliance_report(Events([]))
    found = report.to_dict()
    assert found["summary"]["total_events"] == 0
    assert (found["months"], found["over_time"]["steps"], found["operations"]) == ([], [], [])
    assert "There were no events." in report.to_markdown()
    (month,) = compliance_report(Events([]), month="2025-01").to_dict()["months"]
    assert month == {"period": "2025-01", "total_events": 0, "users": 0, "operations": {}, "user_activity": {}}


def test_a_range_has_every_month_that_has_begun():
    """A range with both ends has its months without events, before the first and between, but none that is yet to come."""
    source = Events([stored(at=dt.datetime(2025, 1, 2, tzinfo=dt.UTC))], now=NOON)
    asked = {"start_time": dt.datetime(2024, 11, 1, tzinfo=dt.UTC), "end_time": dt.datetime(2026, 1, 1, tzinfo=dt.UTC)}
    months = compliance_report(source, **asked).to_dict()["months"]
    assert [month["period"] for month in months] == ["2024-11", "2024-12", "2025-01"]


def test_a_clock_that_was_wrong_once_makes_no_report_of_centuries():
    """Events ages apart give the months with events only, and at most a hundred steps over time."""
    ends = [dt.datetime(1, 1, 1, tzinfo=dt.UTC), NOON, dt.datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=dt.UTC)]
    report = compliance_report(Events([stored(at=moment) for moment in ends]))
    found = report.to_dict()
    assert [month["period"] for month in found["months"]] == ["0001-01", "2025-01", "9999-12"]
    assert found["over_time"]["unit"] == "century"
    assert len(found["over_time"]["steps"]) == MOST_STEPS
    assert sum(step["total"] for step in found["over_time"]["steps"]) == 3
    report.to_html()
    for asked in ({"start_time": ends[0], "end_time": ends[2]}, {"start_time": ends[2]}, {"end_time": ends[0]}):
        compliance_report(Events([stored(at=moment) for moment in ends]), **asked).to_html()


@settings(max_examples=200)
@given(st.datetimes(timezones=st.just(dt.UTC)), st.datetimes(timezones=st.just(dt.UTC)))
def test_steps_cover_any_two_times(one, other):
    """Steps begin in order, each where the floor of its own time is, cover both ends, and are at most `MOST_STEPS`."""
    first, last = sorted((one, other))
    unit, begins = steps(first, last)
    assert len(begins) <= MOST_STEPS
    assert begins == sorted(set(begins)) == [floor(begin, unit) for begin in begins]
    assert begins[0] == floor(first, unit)
    assert begins[-1] == floor(last, unit)


@pytest.mark.parametrize(
    ("days", "unit", "count"), [(1, "hour", 24), (4, "hour", 96), (5, "day", 5), (31, "day", 31), (365, "week", 53),
                                (800, "month", 27)]
)  # fmt: skip
def test_the_unit_suits_the_time(days, unit, count):
    """A day is shown by the hour, a month by the day, a year by the week, more by the month."""
    first = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
    found, begins = steps(first, first + dt.timedelta(days=days) - MICROSECOND)
    assert (found, len(begins)) == (unit, count)


def test_lists_keep_the_newest_and_count_all():
    """A list has the newest fifty, the newest first, and the total of all; the list of one user's events has more."""
    source = Events([stored(n, status=EventStatus.FAILURE, user_id="ann", entry_ids=["e"]) for n in range(1_000)])
    found = compliance_report(source, user_id="ann").to_dict()
    newest = [event.event_id for event in source.query_events(limit=NEWEST_OF_USER)]
    assert (found["failures"]["total"], found["failures"]["entries"]) == (1_000, 1_000)
    assert ids(found["failures"]["newest"]) == newest[:NEWEST]
    assert ids(found["activity"]["newest"]) == newest
    assert compliance_report(source).to_dict()["activity"] is None


def test_texts_of_events_are_cut_in_lists():
    """A long message and many entries are cut, and say so; how many entries there were is kept."""
    event = stored(error_message="m" * 9_000, status=EventStatus.FAILURE, entry_ids=[f"e{n}" for n in range(99)])
    (row,) = compliance_report(Events([event])).to_dict()["failures"]["newest"]
    assert (len(row["error_message"]), row["error_message"][-2:]) == (LONGEST, "m…")
    assert (len(row["entry_ids"]), row["entries"]) == (MOST_ENTRIES, 99)


def test_one_pass_is_enough():
    """A report reads its source once; of one user twice; once more only if an outcome may lie outside of what was read."""
    intent = stored(0, kind="intent", user_id="ann")
    for events, asked, passes in (
        ([], {}, 1),
        ([], {"user_id": "ann"}, 2),
        ([intent], {}, 1),
        ([intent], {"month": "2025-01"}, 2),
        ([intent], {"user_id": "ann"}, 3),
    ):
        source = Events(events)
        compliance_report(source, **asked)
        assert len(source.selections) == passes


def test_an_intent_is_open_until_its_outcome_is_known():
    """An intent is not open if its outcome came later, be it after the period or from another user."""
    at = MIDNIGHT - dt.timedelta(seconds=1)
    first, second = (stored(n, at=at, kind="intent", user_id="ann", entry_ids=["e"]) for n in (-1, 0))
    done = stored(5, at=at, user_id="bob", metadata={"intent_id": first.event_id})
    other = stored(6, at=at, metadata={"intent_id": ["no text"]})
    for asked in ({}, {"month": "2025-01"}, {"user_id": "ann"}, {"month": "2025-01", "user_id": "ann"}):
        found = compliance_report(Events([first, second, done, other]), **asked).to_dict()["open_intents"]
        assert (found["total"], found["entries"], ids(found["oldest"])) == (1, 1, [second.event_id])
    assert compliance_report(Events([first]), month="2025-02").to_dict()["open_intents"]["total"] == 0


def test_users_with_the_most_failures_are_found_among_the_quiet_ones():
    """Somebody who does little but fail is in the list of failures, though not among the most active."""
    busy = [stored(n, user_id=f"u{n % 60}") for n in range(600)]
    mallory = [stored(n, user_id="mallory", status=EventStatus.FAILURE) for n in range(3)]
    users = compliance_report(Events([*busy, *mallory])).to_dict()["users"]
    assert users["total"] == 61
    assert "mallory" not in [row["user_id"] for row in users["most_active"]]
    assert [(row["user_id"], row["failures"]) for row in users["most_failures"]] == [("mallory", 3)]


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"complete_since": NOON}, "What came before 2025-01-15 12:00:00 UTC is not known to the source."),
        ({"counters": {"lost": 3, "pending": 0}}, "Lost in the life of the handler, because its target failed and too many "
                                                  "were pending: 3 events."),
        ({"counters": {"raised": 1}}, "Not recorded in the life of the handler; their callers got an error: 1 event."),
        ({"counters": {"pending": 2}}, "Waiting in memory, and not in the trail yet: 2 events."),
        ({"problems": {"foreign": 2, "bom": 1}}, "Not everything in the files could be read (foreign, 2 times)."),
        ({"events": [stored(kind="gap", metadata={"lost": 7})]}, "Lost, as 1 gap in the trail told: 7 events."),
        ({"events": [stored(kind="trail", operation="truncated")]},
         "The file of the trail was found shorter than it was left (truncated, 1 time)."),
        ({"events": [stored(kind="trail", operation="replaced")]},
         "The file of the trail was found replaced or removed (replaced, 1 time)."),
        ({"events": [stored(kind="trail", operation="quarantine")]},
         "A line was found that a crash had left half written (quarantine, 1 time)."),
    ],
)  # fmt: skip
def test_a_report_that_may_be_incomplete_says_why(known, reason):
    """Each known loss is a reason, the only one, and is in every form of the report."""
    report = compliance_report(Events(**{"events": [], **known}))
    completeness = report.to_dict()["completeness"]
    assert (completeness["complete"], completeness["reasons"]) == (False, [reason])
    for shown in (report.to_markdown(), report.to_html()):
        assert reason in shown
        assert "Not complete: 1 reason in section 1" in shown


@pytest.mark.parametrize(
    ("known", "asked"),
    [
        ({}, {}),
        ({"complete_since": NOON}, {"start_time": NOON}),
        ({"counters": {"accepted": 3, "recorded": 3, "pending": 0, "raised": 0, "lost": 0, "evicted": 1}}, {}),
        ({"problems": {"unfinished": 1, "repeated": 2}}, {}),
        ({"events": [stored(kind="trail", operation="opened"), stored(kind="trail", operation="retention")]}, {}),
        ({"events": [stored(kind="gap", metadata={"lost": 7})]}, {"month": "2024-12"}),
    ],
)
def test_a_report_without_known_losses_is_complete(known, asked):
    """Nothing lost, nothing damaged in the period, and answers from its beginning on: complete, as far as is known."""
    report = compliance_report(Events(**{"events": [], **known}), **asked)
    assert report.to_dict()["completeness"]["complete"]
    assert "Complete for the period, as far as its source knows" in report.to_markdown()


def test_gaps_and_own_acts_are_listed():
    """Gaps are listed with what was lost, own acts with what they say, the newest first; so in the documents."""
    gaps = [stored(n, kind="gap", metadata={"lost": n + 1}) for n in range(2)]
    acts = [
        stored(n, kind="trail", operation=act, metadata={"pid": n}) for n, act in enumerate(["opened", "closed"], 5)
    ]
    report = compliance_report(Events([*gaps, stored(3), *acts]))
    found = report.to_dict()
    assert [gap["lost"] for gap in found["completeness"]["gaps"]["newest"]] == [2, 1]
    assert found["completeness"]["lost"] == 3
    assert [(act["operation"], act["said"]) for act in found["own_acts"]["newest"]] == [
        ("closed", '{"pid":6}'),
        ("opened", '{"pid":5}'),
    ]
    assert found["own_acts"]["by_act"] == {"opened": 1, "closed": 1}
    closed = found["own_acts"]["newest"][0]["event_id"]
    assert f'<bdi>{{&#34;pid&#34;:6}}</bdi><span class="id">{closed}</span>' in report.to_html()
    assert f'| closed | SUCCESS | \\{{"pid":6\\}} · {closed.replace("_", chr(92) + "_")} |' in report.to_markdown()
    assert found["summary"]["total_events"] == 1


def test_one_step_has_no_most_and_no_least():
    """What is said of events over time compares steps only if there are several."""
    one, two = (compliance_report(Events([stored(), stored(seconds)])).to_markdown() for seconds in (1, 3_600))
    assert "2 events by hour. All succeeded." in one
    assert "2 events by hour. The most are 1 (15 January 2025, 12:00), the least 1 " in two


@pytest.mark.parametrize("metadata", [{}, {"lost": "many"}, {"lost": -7}, {"lost": None}, {"lost": 1.5}])
def test_a_gap_that_does_not_say_how_much_is_a_gap(metadata):
    """Whatever a gap holds in place of a number, it takes nothing from what others lost, and the report is not complete."""
    gap = stored(kind="gap", metadata=metadata)
    for others, lost in (([], 0), ([stored(1, kind="gap", metadata={"lost": 3})], 3)):
        found = compliance_report(Events([gap, *others])).to_dict()["completeness"]
        assert (found["lost"], found["gaps"]["total"], found["complete"]) == (lost, 1 + len(others), False)


def test_clauses_name_sections_that_there_are():
    """Every clause is served by members of the report, says what it asks for beyond, and the frameworks are all there."""
    found = compliance_report(Events([]), user_id="ann").to_dict()
    for clause in found["clauses"]:
        assert clause["asks"]
        assert clause["beyond"]
        assert clause["sections"]
        assert set(clause["sections"]) <= found.keys()
    assert {clause["framework"] for clause in found["clauses"]} == {"GDPR", "HIPAA", "SOC 2", "ISO 27001", "PCI DSS"}
    assert found["not_shown"]


def test_json_is_the_dictionary_and_neither_can_be_changed():
    """JSON says what the dictionary says, in ASCII controls escaped; changing the dictionary changes no report."""
    source = Events([stored(n, user_id=f"u{n}\u2028\u202e", duration_ms=0.1) for n in range(12_000)])
    report = compliance_report(source)
    text = report.to_json()
    assert json.loads(text) == report.to_dict()
    assert not {"\u2028", "\u202e"} & set(text)
    report.to_dict()["summary"]["total_events"] = -1
    assert report.to_dict()["summary"]["total_events"] == 12_000
    assert repr(compliance_report(source, month="2025-01")) == "<Report of 2025-01>"


def test_handler_and_logger_are_sources(tmp_path):
    """A report can be made of an `AuditHandler` and of an `AuditLogger`, with their counters and their clock."""
    with AuditLogger(filename=tmp_path / "audit.jsonl") as audit:
        audit.record("STORE", "ann", entry_ids=["e1"], duration_ms=3.0)
        audit.record("FORGET", "ann", error_message="no")
        for source in (audit, audit.handler):
            found = compliance_report(source).to_dict()
            asked = source.get_statistics()
            counters = found["completeness"]["counters"]
            assert found["summary"] == of_the_query({name: asked[name] for name in asked if name not in counters})
            assert counters == {name: asked[name] for name in counters}
            assert found["completeness"]["counters"]["recorded"] == 2
            assert found["source"] == type(source).__name__
            assert found["own_acts"]["by_act"] == {"opened": 1}


def test_a_user_is_found_by_the_clear_name_behind_a_pseudonym():
    """With a redactor that makes pseudonyms a report is asked for by the clear name, as every query; others stay hidden."""
    audit = AuditLogger(redactor={"keys": {"user_id": "pseudonym"}, "secret": "s" * 32})
    audit.record("STORE", "ann")
    audit.record("STORE", "bob")
    report = compliance_report(audit, user_id="ann")
    assert report.to_dict()["summary"]["total_events"] == 1
    assert "bob" not in report.to_json()


def test_lines_that_a_warm_start_could_not_read_are_a_problem(tmp_path):
    """What a handler could not read of its files when it started is among the problems of the report."""
    path = tmp_path / "audit.jsonl"
    path.write_text("no event\n")
    handler = AuditHandler(filename=path, warm_start=True)
    audit = AuditLogger(handler=handler)
    assert handler.problems == audit.problems == {"unreadable": 1}
    assert compliance_report(audit).to_dict()["completeness"]["problems"] == {"unreadable": 1}
    handler.close()


@pytest.mark.parametrize("missing", ["jinja2", "pygal"])
def test_a_missing_extra_is_an_error_that_says_what_to_install(monkeypatch, missing):
    """Without jinja2 or pygal there is no HTML, and the error says how to get it; every other form works."""
    for name in ("html", "charts"):
        monkeypatch.delitem(sys.modules, f"structlog_audit.reports.{name}", raising=False)
        monkeypatch.delattr(f"structlog_audit.reports.{name}", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    report = compliance_report(Events([stored()]))
    assert report.to_dict() == json.loads(report.to_json())
    assert report.to_markdown()
    with pytest.raises(AuditError, match=rf"to_html needs {missing}.*: pip install 'structlog-audit\[reports\]'"):
        report.to_html()
