"""The section of a report on what changed since the period before."""

from __future__ import annotations

import datetime as dt

import pytest
from reporting import NOON, Events, stored
from test_sections import as_texts

from structlog_audit import AuditFileHandler, AuditHandler, AuditLogger, EventStatus, open_trail
from structlog_audit.archive import compact, open_archive
from structlog_audit.reports import comparison_report, compliance_report
from structlog_audit.reports.comparison import GROUPS
from structlog_audit.reports.sections import section_blocks
from structlog_audit.testing import FrozenClock

HOUR = dt.timedelta(hours=1)
LATER = NOON + 2 * HOUR
LONG_AGO = NOON - 24 * HOUR
RANGE = {"start_time": NOON + HOUR, "end_time": LATER}


def hour_of(first, count, *, failed=0, operation="EXPORT", **members):
    """Return *count* events, one second after the other from *first* on; the first *failed* ones are failures."""
    statuses = [EventStatus.FAILURE] * failed + [EventStatus.SUCCESS] * (count - failed)
    return [stored(n, first, operation, status=status, **members) for n, status in enumerate(statuses)]


EVENTS = [
    *hour_of(NOON, 100, failed=12, user_id="ann", duration_ms=10.0),
    *hour_of(NOON + HOUR, 110, failed=40, user_id="ann", duration_ms=30.0),
    *hour_of(NOON + HOUR, 30, operation="FORGET", user_id="bob"),
]


def source(events=EVENTS, **members):
    """Return a source that is known to have both hours whole."""
    return Events(events, **{"now": LATER, "complete_since": LONG_AGO, **members})


def blocks(report):
    """Return the blocks of the section, with tables as texts."""
    return [as_texts(block) for block in section_blocks("comparison", report.to_dict(), {})]


def test_section_has_the_differences_of_the_comparison():
    """The same code compares: the figures equal those of ``comparison_report`` for the same period."""
    found = compliance_report(source(), **RANGE).to_dict()["comparison"]
    expected = comparison_report(source(), **RANGE).to_dict()
    assert found["reasons"] == []
    assert {name: found[name] for name in GROUPS} == {name: expected[name] for name in GROUPS}
    assert (found["before"], found["now"]) == (expected["before"], expected["now"])


def test_section_states_both_periods_and_each_difference_in_words():
    """Tables of the groups with a difference follow the two periods; the others are named in a sentence."""
    periods, operations, failures, durations, users, reading = blocks(compliance_report(source(), **RANGE))
    assert periods[2] == [
        ["2025-01-15 12:00:00 to 2025-01-15 13:00:00", "1 hour", "100", "12", "1"],
        ["2025-01-15 13:00:00 to 2025-01-15 14:00:00", "1 hour", "140", "40", "2"],
    ]
    words = "12 of 100 failed before, 40 of 110 now: very unlikely to be chance"
    assert failures[0] == "Failure rates that differ, the least likely first"
    assert failures[2] == [["EXPORT", "changed", "12.0 %", "36.4 %", words]]
    assert operations[2] == [["FORGET", "appeared", "0", "30", "0 before, 30 now: very unlikely to be chance"]]
    assert durations[2][0][2:4] == ["10.0 ms", "29.8 ms"]
    assert [row[0] for row in users[2]] == ["bob"]
    assert reading[0].startswith("“Very unlikely to be chance”: ")


def test_groups_without_a_difference_are_one_sentence():
    """What did not change takes one line, with the numbers that were compared."""
    events = [*hour_of(NOON, 50, user_id="ann"), *hour_of(NOON + HOUR, 52, user_id="ann")]
    _, sentence, _ = blocks(compliance_report(source(events), **RANGE))
    expected = "operations (1), failure rates (0), durations (0) and users (1)"
    assert sentence == f"No difference that is unlikely to be chance among: {expected}."


@pytest.mark.parametrize("form", ["to_json", "to_markdown", "to_html"])
def test_every_form_has_the_differences(form):
    """JSON, Markdown and HTML state the same sentence."""
    shown = getattr(compliance_report(source(), **RANGE), form)()
    assert "12 of 100 failed before, 40 of 110 now: very unlikely to be chance" in shown


def test_month_is_compared_with_the_month_before():
    """The title says so; another period has no month before."""
    december = dt.datetime(2024, 12, 5, tzinfo=dt.UTC)
    events = [*hour_of(december, 40), *hour_of(NOON, 40)]
    made = compliance_report(source(events, now=NOON.replace(month=2), complete_since=december), month="2025-01")
    assert made.to_dict()["comparison"]["reasons"] == [
        "The buffer has no complete record of events before 2024-12-05 00:00:00.000 UTC."
    ]

    whole = december.replace(month=11)
    made = compliance_report(source(events, now=NOON.replace(month=2), complete_since=whole), month="2025-01")
    assert made.to_dict()["comparison"]["before"]["month"] == "2024-12"
    assert "## 5. Since last month" in made.to_markdown()
    assert "December 2024" in blocks(made)[0][2][0][0]
    assert "## 5. Since the period before" in compliance_report(source(), **RANGE).to_markdown()


def test_period_before_that_may_lack_events_is_not_compared():
    """Missing events look like a change: where the verdict is unknown, the section states its reasons instead."""
    made = compliance_report(source(complete_since=NOON + HOUR / 2), **RANGE)
    reasons = ["The buffer has no complete record of events before 2025-01-15 12:30:00.000 UTC."]
    found = made.to_dict()["comparison"]
    assert found["reasons"] == reasons
    assert {found[name] for name in ("now", *GROUPS)} == {None}
    period = "2025-01-15 12:00:00 to 2025-01-15 13:00:00"
    assert blocks(made) == [f"Not compared with {period}, which the source is not known to have whole:", reasons]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"end_time": LATER},
        {"start_time": LATER, "end_time": LATER},
        {"month": "0001-01"},
        {"start_time": LATER + HOUR},
    ],
)
def test_report_without_a_period_before_says_so(parameters):
    """Neither the whole trail, nor an empty period, nor the first month of the calendar has one."""
    made = compliance_report(source(), **parameters)
    (reason,) = made.to_dict()["comparison"]["reasons"]
    assert reason.startswith("No period before: ")
    assert blocks(made) == [reason]


def test_source_that_began_later_is_not_compared():
    """Without a single moment in which events could be, nothing is likely or unlikely."""
    events = hour_of(NOON + HOUR, 40)
    made = compliance_report(source(events), **RANGE)
    assert made.to_dict()["comparison"]["reasons"] == [
        "The source has no event from before the end of the period before."
    ]


def test_period_before_with_known_losses_is_compared_and_lists_them():
    """The verdict is known: the reader sees which differences may come from the losses."""
    gap = stored(500, NOON, "gap", kind="gap", metadata={"lost": 3})
    made = compliance_report(source([*EVENTS, gap]), **RANGE)
    assert made.to_dict()["comparison"]["before"]["completeness"]["verdict"] == "incomplete"
    _, sentence, losses, *_ = blocks(made)
    assert sentence == "2025-01-15 12:00:00 to 2025-01-15 13:00:00 lacks events, which looks like a change:"
    assert losses == ["3 events lost, as a gap event states at 2025-01-15 12:08:20.000 UTC."]


def test_losses_of_the_period_itself_are_named_in_the_section():
    """The completeness of the report has them, and the section refers to it."""
    gap = stored(500, NOON + HOUR, "gap", kind="gap", metadata={"lost": 3})
    made = compliance_report(source([*EVENTS, gap]), **RANGE)
    assert blocks(made)[1] == "2025-01-15 13:00:00 to 2025-01-15 14:00:00 lacks events as well, see Completeness."


def test_report_on_one_user_is_compared_with_the_same_user():
    """The events of others do not count on either side."""
    found = compliance_report(source(), user_id="bob", **RANGE).to_dict()["comparison"]
    assert (found["before"]["total"], found["now"]["total"]) == (0, 30)
    assert [row["name"] for row in found["users"]["most"]] == ["bob"]


def test_comparison_leaves_the_figures_of_the_report_unchanged():
    """An operation of the period before is not an operation of the report."""
    events = [*hour_of(NOON, 30, operation="RECALL"), *hour_of(NOON + HOUR, 30)]
    found = compliance_report(source(events), **RANGE).to_dict()
    assert [row["operation"] for row in found["operations"]] == ["EXPORT"]
    assert found["comparison"]["operations"]["changes"] == 2


def comparison_of(reader):
    """Return the comparison in the report of January, without the names of the files."""
    found = compliance_report(reader, month="2025-01").to_dict()["comparison"]
    for side in ("before", "now"):
        del found[side]["source"]
    return found


def test_archive_gives_the_same_section_as_its_trail(tmp_path):
    """The rows of an archive have the evidence of the lines, and the section is made of either."""
    trail = tmp_path / "audit.jsonl"
    clock = FrozenClock("2024-11-30T12:00:00Z")
    target = AuditFileHandler(trail, clock=clock.now)
    handler = AuditHandler(target=target, clock=clock)
    audit = AuditLogger(handler=handler)
    for day, operation in (
        ("2024-11-30", "STORE"),
        ("2024-12-10", "STORE"),
        ("2025-01-10", "RECALL"),
        ("2025-02-10", "x"),
    ):
        clock.move_to(f"{day}T12:00:00Z")
        for _ in range(20):
            clock.advance(seconds=1)
            audit.record(operation, "ann")
        target.doRollover()
    handler.close()

    expected = comparison_of(open_trail(trail))
    assert [row["state"] for row in expected["operations"]["most"]] == ["appeared", "vanished"]
    archive = tmp_path / "archive"
    compact(trail, archive, delete_after=dt.timedelta(0))
    assert len(list(tmp_path.glob("audit.jsonl*"))) < 4
    assert comparison_of(open_archive(archive, live=[trail])) == expected
