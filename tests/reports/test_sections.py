"""The sections of a report: every sentence, and every cell of every table."""

from __future__ import annotations

import datetime as dt
import re

import pytest
from reporting import NOON, Events, stored

from structlog_audit import EventStatus
from structlog_audit.reports import compliance_report
from structlog_audit.reports.clauses import CLAUSES, NOT_SHOWN, SECTIONS
from structlog_audit.reports.document import BulletList, Figure, Table, cell_text
from structlog_audit.reports.sections import MOST_SHOWN, section_blocks

SUCCESS, FAILURE, PARTIAL = EventStatus.SUCCESS, EventStatus.FAILURE, EventStatus.PARTIAL

TITLES = {**SECTIONS, "comparison": "Since the period before"}
"""The titles of the sections in a report on a period that is not a month."""

NUMBERS = {id: number for number, id in enumerate(SECTIONS, 1)}


def blocks_of(id, events, *, source=None, **parameters):
    """Return the blocks of the section *id* in the report of *events*, with tables as texts."""
    report = compliance_report(source or Events(events), **parameters)
    return [as_texts(block) for block in section_blocks(id, report.to_dict(), NUMBERS)]


def as_texts(block):
    """Return a table as its caption, header, rows and note; a figure as its parts; other blocks as they are."""
    if isinstance(block, Table):
        header = [column.title for column in block.columns]
        rows = [[cell_text(column.kind, row[column.name]) for column in block.columns] for row in block.rows]
        return (block.caption, header, rows, block.note)
    if isinstance(block, Figure):
        return (block.name, block.caption, block.text, block.table and as_texts(block.table))
    if isinstance(block, BulletList):
        return list(block.items)
    return block


def event(number, operation="STORE", status=SUCCESS, **members):
    return stored(number, operation=operation, status=status, **members)


def id_of(number):
    return f"evt_{number + 1:032x}"


# --- over time --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("statuses", "last_sentence"), [
    ([SUCCESS, SUCCESS], "All succeeded."),
    ([SUCCESS, PARTIAL], "The highest number of failed or partial events is 1 (15 January 2025, 13:00)."),
    ([FAILURE, SUCCESS], "The highest number of failed or partial events is 1 (15 January 2025, 12:00)."),
    ([FAILURE, FAILURE, PARTIAL], "The highest number of failed or partial events is 2 (15 January 2025, 13:00)."),
    ([FAILURE], "The highest number of failed or partial events is 1 (15 January 2025, 12:00)."),
])  # fmt: skip
def test_all_succeeded_is_said_only_if_no_event_failed_or_was_partial(statuses, last_sentence):
    """Otherwise the sentence names the step with the most failed or partial events."""
    # The first event is at twelve, the others are at one o'clock.
    events = [event(min(number, 1) * 3_600 + number, status=status) for number, status in enumerate(statuses)]
    ((_, _, text, _),) = blocks_of("over_time", events)
    assert text.endswith(last_sentence)
    assert ("All succeeded." in text) == (set(statuses) == {SUCCESS})


def test_events_over_time_name_the_extremes_and_list_the_steps_that_have_events():
    """The description names the busiest and the quietest step; the table has a row for each step with events."""
    events = [event(0), event(1, status=FAILURE), event(3_600), event(3_601), event(3_602, status=PARTIAL)]
    events.append(event(3 * 3_600))
    header = ["Hour", "Events", "SUCCESS", "FAILURE", "PARTIAL"]
    rows = [
        ["15 January 2025, 12:00", "2", "1", "1", "0"],
        ["15 January 2025, 13:00", "3", "2", "0", "1"],
        ["15 January 2025, 15:00", "1", "1", "0", "0"],
    ]
    text = (
        "6 events by hour. The highest number is 3 (15 January 2025, 13:00), the lowest is 0 (15 January 2025, 14:00). "
        "The highest number of failed or partial events is 1 (15 January 2025, 12:00)."
    )
    table = ("Events by hour and status", header, rows, "Rows without events are omitted (1).")
    assert blocks_of("over_time", events) == [("over_time", "Events by hour and status", text, table)]
    assert blocks_of("over_time", events[:2])[0][3][3] == ""
    assert blocks_of("over_time", []) == ["There were no events."]


# --- months -------------------------------------------------------------------------------------------------------------


def test_months_have_the_most_frequent_operations_and_the_others():
    """The six most frequent operations have columns of their own, and the others are added up."""
    names = [f"op{number}" for number in range(8)]
    events = [event(number, name) for number, name in enumerate(names) for _ in range(8 - number)]
    events += [event(31 * 86_400, "op0", user_id="ann"), event(31 * 86_400, "op7", user_id="bob")]
    header = ["Month", "Events", "Users", *(f"op{number}" for number in range(6)), "Others"]
    rows = [
        ["January 2025", "36", "0", "8", "7", "6", "5", "4", "3", "3"],
        ["February 2025", "2", "2", "1", "0", "0", "0", "0", "0", "1"],
    ]
    assert blocks_of("months", events) == [("Events by month and operation", header, rows, "")]
    assert blocks_of("months", []) == ["There were no events."]


@pytest.mark.parametrize(("users", "number"), [
    ([None, "ann"], "1"), ([None, "anonymous"], "1"), (["anonymous", "ann"], "2"), ([None], "0"), ([""], "1"),
])  # fmt: skip
def test_users_of_a_month_are_those_of_the_summary(users, number):
    """Events without a user are those of no user, as in the key figures, also beside a user of the name anonymous."""
    events = [event(second, user_id=user) for second, user in enumerate(users)]
    ((_, _, ((_, _, shown, *_),), _),) = blocks_of("months", events)
    found = compliance_report(Events(events)).to_dict()
    assert found["months"][0]["user_activity"].keys() == set(users) - {None}
    assert (shown, str(found["summary"]["users"]), str(found["months"][0]["users"])) == (number, number, number)


def test_list_of_deletions_says_how_many_failed_and_that_ids_repeat():
    """Failed deletions deleted nothing, and two events with one entry have two entry ids."""
    events = [event(0, "FORGET", entry_ids=["e1"]), event(1, "FORGET", FAILURE, entry_ids=["e1"])]
    expected = "2 events, of which 1 failed, with 2 entry ids, repeated ones included."
    assert blocks_of("deletions", events)[0] == expected


def test_key_figures_say_how_many_deletions_and_exports_failed():
    """What failed deleted and exported nothing: the figures say so in every form; without failures they are plain numbers."""
    events = [event(0, "FORGET"), event(1, "FORGET", FAILURE), event(2, "EXPORT")]
    report = compliance_report(Events(events))
    found = report.to_dict()
    assert [(found[name]["total"], found[name]["failed"]) for name in ("deletions", "exports")] == [(2, 1), (1, 0)]
    for text in (report.to_markdown(), report.to_html()):
        assert "deletions, 1 failed" in text
        assert "exports, " not in text


# --- operations ---------------------------------------------------------------------------------------------------------


def test_operations_have_their_outcomes_and_durations():
    """Each operation has its counts, its rate and its percentiles, which are empty if it has no durations."""
    events = [
        event(0, "RECALL", duration_ms=1_000.0),
        event(1, "STORE", FAILURE, duration_ms=20.0),
        event(2, "STORE", duration_ms=20.0),
        event(3, "STORE", PARTIAL),
        event(4, "FORGET"),
    ]
    header = ["Operation", "Class", "Events", "Succeeded", "Failed", "Partial", "p50 (ms)", "p95 (ms)", "p99 (ms)"]
    rows = [
        ["STORE", "create", "3", "33.3 %", "1", "1", *["20.1"] * 3],
        ["FORGET", "delete", "1", "100.0 %", "0", "0", "–", "–", "–"],
        ["RECALL", "read", "1", "100.0 %", "0", "0", *["993"] * 3],
    ]
    table, (name, caption, text, chart_table) = blocks_of("operations", events)
    assert table == ("Operations by outcome and duration", header, rows, "")
    assert (name, caption, chart_table) == ("durations", "Durations by operation", None)
    assert text.startswith(
        "Of the events of an operation, 50 % took at most p50, 95 % at most p95 and 99 % at most p99. "
    )
    assert text.endswith("The slowest operation by p95 is RECALL with 993 ms.")
    assert len(blocks_of("operations", [event(0)])) == 1
    assert blocks_of("operations", []) == ["There were no events."]


@pytest.mark.parametrize(("count", "note"), [(20, ""), (21, "The first 20 of 21.")])
def test_tables_of_operations_and_users_have_twenty_rows_and_say_so(count, note):
    """More operations or users than a table shows are counted below it."""
    events = [event(number, f"op{number:02}", user_id=f"u{number:02}") for number in range(count)]
    ((_, _, operations, note_of_operations),) = blocks_of("operations", events)
    ((_, _, users, note_of_users),) = blocks_of("users", events)
    assert [row[0] for row in operations] == [f"op{number:02}" for number in range(MOST_SHOWN)]
    assert [row[0] for row in users] == [f"u{number:02}" for number in range(MOST_SHOWN)]
    assert (note_of_operations, note_of_users) == (note, note)


# --- users ------------------------------------------------------------------------------------------------------------

ACTIVITY = ["Total", "Create", "Read", "Delete"]


def test_users_are_listed_by_activity_and_by_failures():
    """The most active users come first in one table, those with the most failures in the other, and equals by name."""
    events = [
        *[event(number, user_id="ann") for number in range(3)],
        *[event(number, "RECALL", FAILURE, user_id="bob") for number in (3, 4)],
        event(5, "FORGET", FAILURE, user_id="eve"),
        event(6, user_id="eve"),
        event(7, "RECALL", FAILURE, user_id="dan"),
        event(8),
    ]
    header = ["User", *ACTIVITY, "Failures", "Last"]
    rows = {
        "ann": ["ann", "3", "3", "0", "0", "0", "2025-01-15 12:00:02"],
        "bob": ["bob", "2", "0", "2", "0", "2", "2025-01-15 12:00:04"],
        "eve": ["eve", "2", "1", "0", "1", "1", "2025-01-15 12:00:06"],
        "dan": ["dan", "1", "0", "1", "0", "1", "2025-01-15 12:00:07"],
    }
    assert blocks_of("users", events) == [
        "1 event had no user.",
        ("Most active users", header, [rows[name] for name in ("ann", "bob", "eve", "dan")], ""),
        ("Users with the most failures", header, [rows[name] for name in ("bob", "dan", "eve")], ""),
    ]
    assert blocks_of("users", events[:1])[0][0] == "Most active users"
    assert len(blocks_of("users", events[:1])) == 1
    assert blocks_of("users", []) == ["There were no events."]


def test_most_failures_are_those_of_ten_users():
    """Ten users with the most failures are listed, the highest number first."""
    events = [event(n, status=FAILURE, user_id=f"u{user:02}") for user in range(12) for n in range(1 + user)]
    *_, (caption, _, rows, _) = blocks_of("users", events)
    assert caption == "Users with the most failures"
    assert [(row[0], row[-2]) for row in rows] == [(f"u{user:02}", str(1 + user)) for user in range(11, 1, -1)]


def test_activity_of_months_has_the_five_most_active_users_of_each():
    """A report of several months lists five users of each month, the most active first."""
    january = [event(n, user_id=f"u{user}") for user in range(6) for n in range(1 + user)]
    february = [event(31 * 86_400, "FORGET", user_id="zoe"), event(31 * 86_400 + 1, "RECALL", user_id="amy")]
    *_, table = blocks_of("users", [*january, *february])
    rows = [["January 2025", f"u{user}", str(1 + user), str(1 + user), "0", "0"] for user in (5, 4, 3, 2, 1)]
    rows += [["February 2025", "amy", "1", "0", "1", "0"], ["February 2025", "zoe", "1", "0", "0", "1"]]
    header = ["Month", "User", *ACTIVITY]
    assert table == ("User activity by month", header, rows, "The 5 most active users of each month.")
    assert [block[0] for block in blocks_of("users", january)] == ["Most active users"]


def test_months_without_any_user_have_no_table_of_activity():
    """Events without a user are a number beside the tables of users, and no row of them."""
    assert blocks_of("users", [event(0), event(31 * 86_400)]) == ["2 events had no user."]


# --- lists --------------------------------------------------------------------------------------------------------------


def test_failed_events_are_listed_newest_first_with_their_messages():
    """The list of failures has the time, the operation, the user, and the message with the event's id."""
    events = [
        event(0, "STORE", FAILURE, user_id="ann", error_message="OSError: disk", entry_ids=["e1", "e2"]),
        event(1, "RECALL", PARTIAL, user_id="bob"),
        event(2, "RECALL", FAILURE),
    ]
    rows = [
        ["2025-01-15 12:00:02", "RECALL", "–", id_of(2)],
        ["2025-01-15 12:00:00", "STORE", "ann", f"OSError: disk · {id_of(0)}"],
    ]
    header = ["Time", "Operation", "User", "Message"]
    assert blocks_of("failures", events) == [
        "2 events with 2 entry ids, repeated ones included.",
        ("Failed events", header, rows, ""),
    ]
    assert blocks_of("failures", events[1:2]) == ["There were no failures."]


def test_failures_are_followed_by_the_number_of_events_of_unknown_status():
    """With or without failures, the section says how many events may have failed, and why they are not listed."""
    unknown = event(1, metadata={"_audit": {"status": "not a status"}})
    sentence = (
        "1 event with a status that states neither success nor failure: without an error and below the level of failures, "
        "such an event is listed as SUCCESS."
    )
    assert blocks_of("failures", [event(0), unknown]) == [
        "0 failures among the 1 event whose status is known.",
        sentence,
    ]

    counted, (caption, _, rows, _), found = blocks_of("failures", [event(0, status=FAILURE), unknown])
    assert (counted, caption, found) == ("1 event with 0 entry ids.", "Failed events", sentence)
    assert [row[0] for row in rows] == ["2025-01-15 12:00:00"]


@pytest.mark.parametrize(
    ("count", "note"), [(50, ""), (51, "The newest 50 of 51."), (1_050, "The newest 50 of 1,050.")]
)
def test_list_has_fifty_events_and_says_how_many_there_are(count, note):
    """A list of more than fifty events says that it has the newest of so many."""
    _, (_, _, rows, found) = blocks_of("failures", [event(number, status=FAILURE) for number in range(count)])
    assert (len(rows), found) == (50, note)


def test_activity_of_one_user_is_listed():
    """The report of one user has all events of this user, newest first."""
    events = [event(0, user_id="ann", entry_ids=["e1"]), event(1, "RECALL", FAILURE, user_id="ann"), event(2)]
    rows = [
        ["2025-01-15 12:00:01", "RECALL", "FAILURE", id_of(1)],
        ["2025-01-15 12:00:00", "STORE", "SUCCESS", f"e1 · {id_of(0)}"],
    ]
    header = ["Time", "Operation", "Status", "Entries"]
    listed = ("Events of the user", header, rows, "")
    assert blocks_of("activity", events, user_id="ann") == ["2 events, of which 1 failed, with 1 entry id.", listed]
    assert blocks_of("activity", events, user_id="bob")[0] == "No event has this user."


def test_intents_without_an_outcome_are_listed_oldest_first():
    """The list of open intents begins with the oldest, and says so if it is cut."""
    events = [event(number, kind="intent", user_id="ann", entry_ids=[f"e{number}"]) for number in range(51)]
    summary, (caption, header, rows, note) = blocks_of("open_intents", events)
    assert summary == "51 events with 51 entry ids, repeated ones included."
    assert (caption, header) == ("Intents without an outcome", ["Time", "Operation", "User", "Entries"])
    assert rows[:2] == [[f"2025-01-15 12:00:0{n}", "STORE", "ann", f"e{n} · {id_of(n)}"] for n in (0, 1)]
    assert (len(rows), note) == (50, "The oldest 50 of 51.")
    closed = event(60, metadata={"intent_id": id_of(0)})
    assert blocks_of("open_intents", [events[0], closed]) == ["Every intent has an outcome."]


def test_trail_events_are_counted_and_listed():
    """Trail events are counted by operation, the most frequent first, and listed newest first with their metadata."""
    operations = ["opened", "fault", "fault", "closed"]
    events = [event(n, name, kind="trail", metadata={"pid": n}) for n, name in enumerate(operations)]
    header = ["Time", "Event", "Status", "Details"]
    rows = [[f"2025-01-15 12:00:0{n}", operations[n], "SUCCESS", f'{{"pid":{n}}} · {id_of(n)}'] for n in (3, 2, 1, 0)]
    table = ("Trail events, recorded by the library", header, rows, "")
    assert blocks_of("trail_events", events) == ["4 trail events: fault 2, opened 1 and closed 1.", table]
    (none,) = blocks_of("trail_events", [event(0)])
    assert none.startswith("The source has no trail events.")


# --- classes ----------------------------------------------------------------------------------------------------------

CLASSIFIED = [
    event(0, "FORGET", user_id="ann", entry_ids=["e1"]),
    event(1, "EXPORT", FAILURE, user_id="bob"),
    event(2, "invoice.delete"),
]
UNKNOWN = [event(3, "frobnicate"), event(4, "frobnicate")]


@pytest.mark.parametrize(("others", "sentences"), [
    ([], []), (UNKNOWN, ["2 events with 1 operation are not classified: frobnicate (2)."]),
])  # fmt: skip
def test_deletions_and_exports_are_listed_with_what_is_not_classified(others, sentences):
    """Deletions and exports are listed newest first, under any name; operations that might be some are named below."""
    header = ["Time", "Operation", "User", "Status", "Entries"]
    deletions = [
        ["2025-01-15 12:00:02", "invoice.delete", "–", "SUCCESS", id_of(2)],
        ["2025-01-15 12:00:00", "FORGET", "ann", "SUCCESS", f"e1 · {id_of(0)}"],
    ]
    exports = [["2025-01-15 12:00:01", "EXPORT", "bob", "FAILURE", id_of(1)]]
    events = [*CLASSIFIED, *others]
    listed = ("Deletions", header, deletions, "")
    assert blocks_of("deletions", events) == ["2 events with 1 entry id.", listed, *sentences]
    assert blocks_of("exports", events) == [
        "1 event, of which 1 failed, with 0 entry ids.",
        ("Exports", header, exports, ""),
        *sentences,
    ]


def test_absence_of_deletions_and_exports_is_claimed_for_classified_events_only():
    """The sentence has the number of events whose operation is known to be another one."""
    assert blocks_of("deletions", [event(0)]) == ["0 deletions among the 1 event whose operation is classified."]
    events = [event(0), event(1, "EXPORT"), *UNKNOWN]
    assert blocks_of("deletions", events)[0] == "0 deletions among the 2 events whose operation is classified."
    assert blocks_of("exports", [event(0)]) == ["0 exports among the 1 event whose operation is classified."]


def test_classes_have_their_events_operations_and_outcomes():
    """Each class has its number of events and of operations and the outcomes; operations without one have a table."""
    introduction, (_, header, rows, _), sentence, table = blocks_of("classes", [*CLASSIFIED, *UNKNOWN])
    assert introduction == "The class of an operation follows from the words of its name."
    assert header == ["Class", "Events", "Operations", "SUCCESS", "FAILURE", "PARTIAL"]
    assert [row for row in rows if row[1] != "0"] == [
        ["delete", "2", "2", "2", "0", "0"],
        ["export", "1", "1", "0", "1", "0"],
    ]
    assert sentence == "2 events with 1 operation are not classified: frobnicate (2)."
    assert table == ("Unclassified operations", ["Operation", "Events"], [["frobnicate", "2"]], "")
    assert blocks_of("classes", CLASSIFIED)[2:] == ["Every operation is classified."]
    assert blocks_of("classes", []) == ["There were no events."]


# --- completeness -------------------------------------------------------------------------------------------------------


def test_completeness_of_a_complete_report_is_two_sentences():
    """Without a known loss there is neither a list nor a table, and a sentence says what was not verified."""
    assert blocks_of("completeness", [event(0)]) == [
        "Sequence numbers, trail events and counters show that no event of the period is missing.",
        "This does not exclude that somebody with write access renumbered the lines: no seal was verified for all of them.",
    ]


def test_completeness_lists_reasons_gaps_problems_and_counters():
    """Every reason is listed, and gaps, problems and counters have tables of their own."""
    gaps = [event(n, "gap", FAILURE, kind="gap", metadata={"lost": 3 + n}) for n in range(2)]
    counters = {"accepted": 9, "recorded": 2, "pending": 0, "lost": 7, "evicted": 4, "raised": 0, "other": 1}
    source = Events(gaps, complete_since=NOON, counters=counters, problems={"torn": 1, "bom": 2})
    introduction, reasons, gap_table, problem_table, counter_table = blocks_of("completeness", [], source=source)
    assert introduction == "Events are missing, so the figures in this report are too low:"
    assert reasons == [
        "3 events lost, as a gap event states at 2025-01-15 12:00:00.000 UTC.",
        "4 events lost, as a gap event states at 2025-01-15 12:00:01.000 UTC.",
        "The buffer has no complete record of events before 2025-01-15 12:00:00.000 UTC.",
        "Reading the source met a problem (torn, 1 time).",
    ]
    rows = [["2025-01-15 12:00:01", "4", id_of(1)], ["2025-01-15 12:00:00", "3", id_of(0)]]
    assert gap_table == ("Gaps in the trail", ["Time", "Events lost", "Event"], rows, "")
    assert problem_table == ("Problems in the files", ["Problem", "Times"], [["torn", "1"], ["bom", "2"]], "")
    caption, header, rows, note = counter_table
    assert (caption, header, note) == (
        "Counters of the handler over its lifetime",
        ["Counter", "Events", "Meaning"],
        "",
    )
    assert rows == [
        ["accepted", "9", "accepted by the handler"],
        ["recorded", "2", "written by the target"],
        ["pending", "0", "waiting in memory for the target to recover"],
        ["lost", "7", "not recorded because too many events were pending, or because the target refused them"],
        ["evicted", "4", "removed from the buffer to make room; the trail, if there is one, still has them"],
        ["raised", "0", "not recorded; the callers received an error"],
        ["other", "1", "–"],
    ]


@pytest.mark.parametrize(("since", "verdict"), [
    (NOON, "complete"),
    (NOON - dt.timedelta(microseconds=1), "complete"),
    (NOON + dt.timedelta(microseconds=1), "unknown"),
])  # fmt: skip
def test_report_is_complete_if_its_source_is_from_the_start_of_the_period(since, verdict):
    """A source that is complete from the first instant of the period on, or from before it, is complete for it."""
    report = compliance_report(Events([], complete_since=since), start_time=NOON)
    assert report.to_dict()["completeness"]["verdict"] == verdict


LOSSES = [
    "torn",
    "foreign",
    "drift",
    "duplicate_key",
    "orphan_part",
    "missing_part",
    "too_long",
    "truncated",
    "vanished",
]


@pytest.mark.parametrize("code", LOSSES)
def test_report_of_damaged_files_is_not_complete(code):
    """A problem that may hide an event leaves the completeness of the report unknown, and is the only reason."""
    report = compliance_report(Events([event(0)], problems={code: 1, "unfinished": 1}))
    completeness = report.to_dict()["completeness"]
    assert completeness["verdict"] == "unknown"
    assert completeness["sentences"] == [f"Reading the source met a problem ({code}, 1 time)."]


# --- clauses ------------------------------------------------------------------------------------------------------------


def test_clauses_name_the_numbers_of_the_sections_in_the_document():
    """Each clause refers to those of its sections that the document has, by number and title."""
    introduction, (caption, header, rows, note) = blocks_of("clauses", [])
    assert introduction.startswith("The sections named contain evidence for these clauses.")
    assert (caption, note) == ("Clauses and sections", "")
    assert header == ["Framework", "Clause", "Requirement", "Evidence", "Not covered"]
    expected = [
        [
            clause.framework,
            clause.clause,
            clause.requirement,
            ", ".join(f"{NUMBERS[id]} {TITLES[id]}" for id in clause.sections),
            clause.not_covered,
        ]
        for clause in CLAUSES
    ]
    assert [[cell.replace("–", "") for cell in row] for row in rows] == [
        [cell.replace("–", "") for cell in row] for row in expected
    ]
    report = compliance_report(Events([]))
    _, table = section_blocks("clauses", report.to_dict(), {"completeness": 1})
    assert {reference for row in table.rows for reference in row["sections"]} == {
        ("completeness", 1, SECTIONS["completeness"])
    }


def test_clauses_are_cited_by_their_frameworks_and_numbers():
    """The report cites these clauses, each with its requirement, its sections, and what they do not cover."""
    cited = {}
    for clause in CLAUSES:
        cited.setdefault(clause.framework, []).append(clause.clause)
        assert set(clause.sections) <= set(SECTIONS)
        assert clause.requirement
        assert clause.not_covered.endswith(".")

    assert cited == {
        "GDPR": ["Art. 5(1)(c)", "Art. 5(1)(e)", "Art. 5(1)(f), 32", "Art. 15", "Art. 17"],
        "HIPAA": ["§ 164.312(b)", "§ 164.312(c)(1)"],
        "SOC 2": ["CC7.2"],
        "ISO 27001": ["A.8.15"],
        "PCI DSS": [
            *("10.2.1.3, 10.2.1.6", "10.2.1.4, 10.2.1.5", "10.2.2"),
            *("10.3.2, 10.3.4", "10.5.1", "10.7.2"),
        ],
    }


def test_no_text_of_every_report_denies_a_verified_seal():
    """Limits and clauses hold with and without a seal; the clause about changes to the trail cites the verdicts on it."""
    texts = [*NOT_SHOWN, *(clause.not_covered for clause in CLAUSES)]
    assert [text for text in texts if re.search("nothing was verified|not verify", text)] == []
    [protected] = [clause for clause in CLAUSES if clause.clause == "10.3.2, 10.3.4"]
    assert "integrity" in protected.sections


def test_limits_of_the_report_are_listed():
    """The last section lists what the report does not show."""
    report = compliance_report(Events([]))
    assert blocks_of("not_shown", []) == [report.to_dict()["not_shown"]] != [[]]
