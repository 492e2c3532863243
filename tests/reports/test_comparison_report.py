"""The comparison of two periods or sources: what appeared, vanished or changed, and what may be chance."""

import datetime as dt
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from reporting import NOON, Events, hostile_events, stored

from structlog_audit import AuditTypeError, AuditValueError, EventStatus
from structlog_audit.reports import comparison, comparison_report

FAILURE = EventStatus.FAILURE
HOUR = dt.timedelta(hours=1)
LATER = NOON + 2 * HOUR


def many(first, count, *, failed=0, operation="STORE", **members):
    """Return *count* events one second after the other from *first* on, of which the first *failed* ones are failures."""
    events = []
    for number in range(count):
        status = FAILURE if number < failed else EventStatus.SUCCESS
        events.append(stored(number, first, operation, status=status, **members))
    return events


def both(before, now, **parameters):
    """Return the comparison of the events *before*, from noon on, with those of the hour after: *now*."""
    marks = [stored(0, NOON, "opened", kind="trail")]
    source = Events([*marks, *before, *now], now=LATER)
    return comparison_report(source, start_time=NOON + HOUR, end_time=LATER, **parameters)


def rows(report, name):
    """Return the state and the sentence of each listed difference of the group *name*, by its name."""
    return {row["name"]: (row["state"], row["sentence"]) for row in report.to_dict()[name]["most"]}


def test_operation_and_user_of_one_side_only_appeared_or_vanished():
    """Each is stated with both numbers."""
    report = both(
        many(NOON, 30, operation="RECALL", user_id="ann"), many(NOON + HOUR, 20, operation="EXPORT", user_id="bob")
    )
    assert rows(report, "operations") == {
        "RECALL": ("vanished", "30 before, 0 now: very unlikely to be chance"),
        "EXPORT": ("appeared", "0 before, 20 now: very unlikely to be chance"),
    }
    assert [(name, state) for name, (state, _) in rows(report, "users").items()] == [
        ("ann", "vanished"),
        ("bob", "appeared"),
    ]


def test_failure_rate_that_changed_is_worded_with_its_counts():
    """A rate is stated by counts of both sides."""
    report = both(many(NOON, 100, failed=12), many(NOON + HOUR, 110, failed=40))
    words = "12 of 100 failed before, 40 of 110 now: very unlikely to be chance"
    assert rows(report, "failures") == {"STORE": ("changed", words)}
    assert words in report.to_markdown()
    assert rows(both(many(NOON, 100, failed=12), many(NOON + HOUR, 110, failed=14)), "failures") == {}


def test_count_that_may_be_chance_is_no_change():
    """Small differences are compared but not listed."""
    found = both(many(NOON, 50), many(NOON + HOUR, 60)).to_dict()["operations"]
    assert (found["compared"], found["changes"], found["most"]) == (1, 0, [])


def test_durations_that_changed_are_listed():
    """Slower operations are stated by median and 95th percentile."""
    report = both(many(NOON, 40, duration_ms=10.0), many(NOON + HOUR, 40, duration_ms=50.0))
    ((state, sentence),) = rows(report, "durations").values()
    assert state == "changed"
    assert sentence.endswith(": very unlikely to be chance")
    shape = r"half took at most (10|9.9\d*|10.0\d*) ms before, \S+ ms now, and 95 of 100 at most \S+ and \S+ ms: .*"
    assert re.fullmatch(shape, sentence)
    assert rows(both(many(NOON, 40, duration_ms=10.0), many(NOON + HOUR, 40, duration_ms=10.0)), "durations") == {}


def test_number_of_comparisons_weakens_each():
    """A difference that alone is unlikely is expected among many: the chance is multiplied."""
    one = both(many(NOON, 30), many(NOON + HOUR, 55))
    assert one.to_dict()["operations"]["changes"] == 1
    others = [event for number in range(40) for event in many(NOON, 5, operation=f"op{number}")]
    same = [event for number in range(40) for event in many(NOON + HOUR, 5, operation=f"op{number}")]
    among_many = both([*many(NOON, 30), *others], [*many(NOON + HOUR, 55), *same])
    assert among_many.to_dict()["operations"]["changes"] == 0


def test_counts_are_scaled_to_the_lengths_of_the_periods():
    """Twice as many events in twice the time are no change; equally many are one."""
    parameters = {"against_start_time": NOON, "against_end_time": NOON + HOUR / 2}
    assert both(many(NOON, 100), many(NOON + HOUR, 200), **parameters).to_dict()["operations"]["changes"] == 0
    found = rows(both(many(NOON, 100), many(NOON + HOUR, 100), **parameters), "operations")
    assert found["STORE"][1].startswith("100 before, 100 now, 200 expected: ")


def test_period_counts_from_the_first_event_of_the_source_until_now():
    """Time before the first line, and time to come, has no events that could be compared."""
    source = Events([stored(0, NOON + HOUR / 2), stored(0, LATER)], now=LATER + HOUR / 4)
    found = comparison_report(source, start_time=NOON + HOUR, end_time=NOON + 9 * HOUR, against_start_time=NOON)
    assert found.to_dict()["now"]["seconds"] == 1.25 * 3600
    assert found.to_dict()["before"]["seconds"] == 0.5 * 3600
    before = comparison_report(source, start_time=NOON, end_time=NOON + HOUR)
    assert before.to_dict()["before"]["seconds"] == 0
    assert rows(before, "operations") == {"STORE": ("appeared", "0 before, 1 now: too few to tell")}


def test_month_is_compared_with_the_month_before():
    """January follows December; the first month of the calendar has none before it."""
    found = comparison_report(Events([stored(0)]), month="2025-01").to_dict()
    assert (found["now"]["month"], found["before"]["month"]) == ("2025-01", "2024-12")
    with pytest.raises(AuditValueError, match="0001-01: expected a period with as much time before it"):
        comparison_report(Events([]), month="0001-01")


def test_range_is_compared_with_the_time_of_the_same_length_before():
    """An open end is now."""
    found = comparison_report(Events([stored(0)], now=LATER), start_time=NOON + HOUR).to_dict()
    bounds = [found["before"][name] for name in ("start", "end")]
    assert bounds == ["2025-01-15T12:00:00.000000Z", "2025-01-15T13:00:00.000000Z"]


def test_two_sources_are_compared_for_the_same_period():
    """Without a period, each is taken whole; with one, both are limited to it."""
    old, new = Events(many(NOON, 50)), Events(many(NOON, 50, operation="RECALL"))
    report = comparison_report(new, against=old)
    assert {name: state for name, (state, _) in rows(report, "operations").items()} == {
        "STORE": "vanished",
        "RECALL": "appeared",
    }
    limited = comparison_report(new, against=old, end_time=NOON + dt.timedelta(seconds=10)).to_dict()
    assert (limited["before"]["total"], limited["now"]["total"]) == (10, 10)


def test_completeness_of_both_sides_is_stated():
    """Lost events look like a change, so that the verdict on each side is a part of the report."""
    gap = stored(5, NOON, "gap", kind="gap", metadata={"lost": 3})
    report = both([gap], many(NOON + HOUR, 5))
    assert report.completeness_before.verdict == "incomplete"
    assert report.completeness.verdict != "incomplete"
    assert "Before: Incomplete: 3 events missing." in report.to_markdown()


def test_lists_are_bounded_and_say_so(monkeypatch):
    """The least likely differences are listed, and the number of all is stated."""
    monkeypatch.setattr(comparison, "MOST_CHANGES", 1)
    report = both(many(NOON, 40), [*many(NOON + HOUR, 20, operation="A"), *many(NOON + HOUR, 60, operation="B")])
    assert list(rows(report, "operations")) == ["B"]
    assert "The 1 least likely of 3." in report.to_markdown()


@given(st.lists(st.tuples(st.integers(0, 7199), st.sampled_from("ABC"), st.sampled_from([None, "ann"])), max_size=30))
@settings(deadline=None)
def test_every_event_counts_on_one_side(drawn):
    """For all events, the totals are those of the periods, and each operation of one side only is listed."""
    events = [stored(number, operation=operation, user_id=user) for number, operation, user in drawn]
    before = [event.operation for event in events if event.timestamp < NOON + HOUR]
    now = [event.operation for event in events if event.timestamp >= NOON + HOUR]
    report = both(events, [])
    found = report.to_dict()
    assert (found["before"]["total"], found["now"]["total"]) == (len(before), len(now))
    states = {name: state for name, (state, _) in rows(report, "operations").items() if state != "changed"}
    expected = dict.fromkeys(set(now) - set(before), "appeared") | dict.fromkeys(set(before) - set(now), "vanished")
    assert states == expected
    assert json.loads(report.to_json()) == found


def test_hostile_texts_stay_texts():
    """No name of an operation or a user becomes markup."""
    report = comparison_report(Events(hostile_events()), against=Events([]))
    tokens = MarkdownIt("commonmark").enable("table").enable("strikethrough").parse(report.to_markdown())
    inline = {child.type for token in tokens for child in token.children or ()}
    assert not {"html_block", "fence", "code_block"} & {token.type for token in tokens}
    assert inline <= {"text", "text_special", "strong_open", "strong_close", "softbreak"}


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        (
            {},
            AuditValueError,
            "the beginning to now: expected a period with as much time before it: "
            "give a later start_time, or another source as against",
        ),
        ({"start_time": NOON, "end_time": NOON}, AuditValueError, "expected a period with as much time before it"),
        ({"start_time": LATER}, AuditValueError, "expected a period with as much time before it"),
        (
            {"start_time": LATER, "against": Events([])},
            AuditValueError,
            "expected a period that is not empty, and has begun",
        ),
        (
            {"month": "2024-12", "against_start_time": NOON, "against_end_time": NOON},
            AuditValueError,
            "against_start_time, against_end_time: 2025-01-15T12:00:00.000000Z to 2025-01-15T12:00:00.000000Z: expected",
        ),
        (
            {"month": "2025-01", "against_start_time": NOON},
            AuditValueError,
            "2025-01-15T12:00:00.000000Z to now: expected a period that does not overlap 2025-01",
        ),
        (
            {"month": "2024-12", "against_end_time": NOON},
            AuditValueError,
            "the beginning to 2025-01-15T12:00:00.000000Z: expected a period that does not overlap 2024-12",
        ),
        (
            {"against_start_time": NOON},
            AuditValueError,
            "2025-01-15T12:00:00.000000Z to now: expected a period that does not overlap the beginning to now",
        ),
        ({"against": "old.jsonl"}, AuditTypeError, "against='old.jsonl': expected an AuditHandler"),
        (
            {"month": "2025-01", "against_start_time": NOON.date()},
            AuditTypeError,
            "got date; a date, a timedelta or a text belongs to against_since=",
        ),
        (
            {"month": "2025-01", "against_since": "2025-01-02", "against_until": "2025-01-01"},
            AuditValueError,
            "expected against_since not to be later than against_until",
        ),
        ({"month": "2025-01", "start_time": NOON}, AuditValueError, "expected either a month or a start_time"),
        ({"start_time": dt.datetime(1, 1, 2, tzinfo=dt.UTC)}, AuditValueError, "as much time before it"),
    ],
)
def test_wrong_parameter_is_an_error_that_names_it(parameters, error, message):
    """What cannot be compared is an error."""
    with pytest.raises(error) as caught:
        comparison_report(Events([]), **parameters)
    assert message in str(caught.value)


def test_source_must_be_a_source_of_events():
    """A path is no source: it is to be opened first."""
    with pytest.raises(AuditTypeError, match=r"source='audit\.jsonl': expected an AuditHandler"):
        comparison_report("audit.jsonl", month="2025-01")


def test_headline_names_the_side_of_each_verdict():
    """A comparison is complete on both sides, or says which side has which verdict."""
    gap = stored(0, NOON, "gap", kind="gap", metadata={"lost": 3})
    for before, now, words in (
        ([], [], "Complete on both sides, by the evidence of their sources"),
        ([gap], [], "Incomplete before, complete now (reasons in section 5)"),
    ):
        shown = both([*before, *many(NOON, 5)], [*now, *many(NOON + HOUR, 5)]).to_markdown()
        assert f"**Completeness:** {words}" in shown


def test_events_without_a_user_are_named_below_the_differences_of_users():
    """The mark for a missing value is explained where it stands for the events without a user, and only there."""
    words = "– stands for the events without a user."
    assert words in both(many(NOON, 30), many(NOON + HOUR, 90)).to_markdown()
    assert words not in both(many(NOON, 30, user_id="ann"), many(NOON + HOUR, 90, user_id="ann")).to_markdown()


@pytest.mark.parametrize("users", [[None, ""], ["", None]])
def test_events_without_a_user_come_before_those_of_an_empty_name(users):
    """Of equally likely differences, the order does not depend on that of the events."""
    now = [event for user in users for event in many(NOON + HOUR, 30, user_id=user)]
    assert list(rows(both([], now), "users")) == [None, ""]


def test_document_states_what_it_cannot_know_and_where_nothing_is_compared():
    """A reader must not take unverified lines for proof, nor two empty periods for equal ones."""
    made = comparison_report(Events([]), against=Events([]))
    assert made.to_markdown().startswith("# Comparison: Nothing to compare\n")
    assert (
        "Not known: why something changed, what no event records, and whether lines were altered." in made.to_markdown()
    )
    assert both(many(NOON, 5), many(NOON + HOUR, 5)).to_markdown().startswith("# Comparison: 0 differences\n")


def test_expected_number_is_whole_unless_it_is_small():
    """It is stated where the periods differ in length, with a decimal below ten."""
    parameters = {"against_start_time": NOON, "against_end_time": NOON + HOUR / 4}
    few = both(many(NOON, 1), many(NOON + HOUR, 60), **parameters)
    assert rows(few, "operations")["STORE"][1] == "1 before, 60 now, 4 expected: very unlikely to be chance"
    parameters["against_end_time"] = NOON + HOUR / 1.6
    some = both(many(NOON, 3), many(NOON + HOUR, 60), **parameters)
    assert rows(some, "operations")["STORE"][1].startswith("3 before, 60 now, 4.8 expected: ")
    same = both(many(NOON, 3), many(NOON + HOUR, 60))
    assert rows(same, "operations")["STORE"][1].startswith("3 before, 60 now: ")
