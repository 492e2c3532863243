"""The content of each section of a report: paragraphs, tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from structlog_audit.reports import formatting
from structlog_audit.reports.aggregation import CLASS_NAMES, PERCENTILES
from structlog_audit.reports.change_tables import GROUPS, READING, change_table, without_changes
from structlog_audit.reports.clauses import SECTIONS
from structlog_audit.reports.document import Block, BulletList, Column, Figure, Table

MOST_SHOWN = 20
"""Maximum rows of a table of users or operations in a document. The data has more."""

_MOST_OPERATIONS_OF_MONTHS = 6
"""Maximum operations with a column of their own in the monthly figures."""

_MOST_USERS_OF_MONTH = 5

_FAILED_EVENTS = "Failed events"
"""The caption of the list whose events all failed."""

_MOST_NAMED = 10
"""Maximum unclassified operations that a sentence names. Their table has more."""

_NO_EVENTS = "There were no events."

_TIME = Column("Time", "timestamp", "time")
_OPERATION = Column("Operation", "operation", "code")
_CLASS = Column("Class", "class")
_USER = Column("User", "user_id", "user")
_STATUS = Column("Status", "status", "status")
_ENTRIES = Column("Entries", "named", "detail")
_MESSAGE = Column("Message", "message", "detail")
_EVENTS = Column("Events", "total_events", "number")
_MONTH = Column("Month", "period", "month")

_DELETIONS = ("deletion", "Deletions")
_EXPORTS = ("export", "Exports")


def section_blocks(id: str, members: dict[str, Any], numbers: dict[str, int]) -> list[Block]:
    """Return the blocks of the section *id*.

    Args:
        id: One of `SECTIONS`.
        members: The data of the report (`Report.to_dict`).
        numbers: The numbers of the sections in the document, by their ids.
    """
    if id == "clauses":
        return _clauses(members, numbers)
    return _BLOCKS[id](members)


def section_title(id: str, members: dict[str, Any]) -> str:
    """Return the title of the section *id*: a period that is not a month has no month before."""
    if id == "comparison" and members["period"]["month"] is None:
        return "Since the period before"
    return SECTIONS[id]


def event_table(caption: str, columns: tuple[Column, ...], listed: dict[str, Any], *, order: str = "newest") -> Table:
    """Return the table of a list of events; *order* names its member with the rows."""
    rows = [_with_details(row) for row in listed[order]]
    total = listed["total"]

    note = ""
    if total > len(rows):
        note = f"The {order} {len(rows)} of {formatting.number(total)}."
    return Table(caption, columns, rows, note, is_list=True)


def _with_details(row: dict[str, Any]) -> dict[str, Any]:
    """Return *row* with the detail columns: each a text and the event's id."""
    event_id = row["event_id"]
    return {
        **row,
        "message": (row["error_message"], event_id),
        "named": (formatting.entry_list(row), event_id),
        "metadata": (row.get("metadata"), event_id),
    }


def _first_rows_note(shown: int, total: int) -> str:
    return f"The first {shown} of {formatting.number(total)}." if total > shown else ""


def _completeness(members: dict[str, Any]) -> list[Block]:
    completeness = members["completeness"]
    blocks: list[Block] = []

    blocks.append(_VERDICTS[completeness["verdict"]])
    if completeness["verdict"] == "complete" and not _is_proved(members):
        blocks.append(_NO_SIGNATURE)
    if completeness["sentences"]:
        blocks.append(BulletList(completeness["sentences"]))

    if completeness["gaps"]["total"]:
        columns = (_TIME, Column("Events lost", "lost", "number"), Column("Event", "event_id", "code"))
        blocks.append(event_table("Gaps in the trail", columns, completeness["gaps"]))
    if completeness["problems"]:
        blocks.append(_problem_table(completeness["problems"]))
    if completeness["counters"]:
        blocks.append(_counter_table(completeness["counters"]))
    return blocks


_VERDICTS = {
    "complete": "Sequence numbers, trail events and counters show that no event of the period is missing.",
    "incomplete": "Events are missing, so the figures in this report are too low:",
    "unknown": "No event is known to be missing, but the evidence does not show that none is:",
}
"""The meanings of the verdicts on completeness."""


_NO_SIGNATURE = (
    "This does not exclude that somebody with write access renumbered the lines: no seal was verified for all of them."
)


def _is_proved(members: dict[str, Any]) -> bool:
    """Return whether the seal of each trail of the source was verified, and shows that nothing was changed."""
    proved = [seal["trail"] for seal in members["integrity"] if seal["verdict"] in ("INTACT", "NOT COVERED")]
    return len(proved) >= max(1, len(members["source"]["segments"]))


def _integrity(members: dict[str, Any]) -> list[Block]:
    if not members["integrity"]:
        return ["Not verified: no key given. Nothing shows whether lines were changed after they were recorded."]

    blocks: list[Block] = []
    columns = (Column("The verdict rests on", "name"), Column("Value", "value"))
    for seal in members["integrity"]:
        blocks.append(formatting.visible(seal["sentence"]))
        if seal["findings"]:
            shown = [formatting.visible(finding) for finding in seal["findings"][:MOST_SHOWN]]
            more = len(seal["findings"]) - len(shown)
            if more:
                shown.append(f"{formatting.number(more)} more")
            blocks.append(BulletList(shown))

        rows = [{"name": name, "value": value} for name, value in seal["evidence"]]
        caption = f"Evidence for {formatting.visible(seal['trail'])}"
        blocks.append(Table(caption, columns, rows, is_list=True))
    return blocks


def _problem_table(problems: dict[str, int]) -> Table:
    columns = (
        Column("Problem", "code", "code"),
        Column("Times", "count", "number"),
    )
    rows = [{"code": code, "count": count} for code, count in problems.items()]
    return Table("Problems in the files", columns, rows)


def _counter_table(counters: dict[str, int]) -> Table:
    columns = (
        Column("Counter", "name"),
        Column("Events", "count", "number"),
        Column("Meaning", "meaning"),
    )
    rows = []
    for name, count in counters.items():
        meaning = _COUNTER_MEANINGS.get(name)
        rows.append({"name": name, "count": count, "meaning": meaning})
    return Table("Counters of the handler over its lifetime", columns, rows)


_COUNTER_MEANINGS = {
    "accepted": "accepted by the handler",
    "recorded": "written by the target",
    "pending": "waiting in memory for the target to recover",
    "raised": "not recorded; the callers received an error",
    "lost": "not recorded because too many events were pending, or because the target refused them",
    "evicted": "removed from the buffer to make room; the trail, if there is one, still has them",
}


def _months(members: dict[str, Any]) -> list[Block]:
    if not members["months"]:
        return [_NO_EVENTS]

    operations = [row["operation"] for row in members["operations"][:_MOST_OPERATIONS_OF_MONTHS]]
    columns = (
        _MONTH,
        _EVENTS,
        Column("Users", "users", "number"),
        *(Column(formatting.display_name(name), _member_of(name), "number") for name in operations),
        Column("Others", "others", "number"),
    )

    rows = []
    for month in members["months"]:
        counts = {_member_of(name): month["operations"].get(name, 0) for name in operations}
        others = month["total_events"] - sum(counts.values())
        rows.append({**month, **counts, "others": others})

    return [Table("Events by month and operation", columns, rows)]


def _member_of(operation: str) -> str:
    """Return the name of a cell for *operation*, which may have the name of another column."""
    return f"operation {operation}"


def _over_time(members: dict[str, Any]) -> list[Block]:
    if not members["summary"]["total_events"]:
        return [_NO_EVENTS]

    unit = members["over_time"]["unit"]
    caption = f"Events by {unit} and status"
    description = _over_time_description(members)
    table = _over_time_table(caption, members)
    return [Figure("over_time", caption, description, table)]


def _over_time_description(members: dict[str, Any]) -> str:
    """Return the sentences below the chart: the total, the extremes, the failures."""
    unit = members["over_time"]["unit"]
    steps = members["over_time"]["steps"]
    total = formatting.count(members["summary"]["total_events"], "event")
    sentences = [f"{total} by {unit}."]

    if len(steps) > 1:
        busiest = max(steps, key=lambda step: step["total"])
        quietest = min(steps, key=lambda step: step["total"])
        highest = _count_in_step(busiest["total"], unit, busiest)
        lowest = _count_in_step(quietest["total"], unit, quietest)
        sentences.append(f"The highest number is {highest}, the lowest is {lowest}.")

    worst = max(steps, key=_unsuccessful)
    if _unsuccessful(worst):
        most = _count_in_step(_unsuccessful(worst), unit, worst)
        sentences.append(f"The highest number of failed or partial events is {most}.")
    elif members["unknown_status"]:
        sentences.append("No event is known to have failed or to be partial.")
    else:
        sentences.append("All succeeded.")
    return " ".join(sentences)


def _count_in_step(count: int, unit: str, step: dict[str, Any]) -> str:
    number = formatting.number(count)
    name = formatting.step_label(unit, step["start"])
    return f"{number} ({name})"


def _unsuccessful(step: dict[str, Any]) -> int:
    return int(step["FAILURE"] + step["PARTIAL"])


def _over_time_table(caption: str, members: dict[str, Any]) -> Table:
    unit = members["over_time"]["unit"]
    steps = members["over_time"]["steps"]
    columns = (
        Column(unit.capitalize(), "name"),
        Column("Events", "total", "number"),
        *(Column(status, status, "number") for status in members["summary"]["by_status"]),
    )

    shown = [step for step in steps if step["total"]]
    rows = [{**step, "name": formatting.step_label(unit, step["start"])} for step in shown]

    omitted = len(steps) - len(rows)
    note = f"Rows without events are omitted ({formatting.number(omitted)})." if omitted else ""
    return Table(caption, columns, rows, note)


def _comparison(members: dict[str, Any]) -> list[Block]:
    comparison = members["comparison"]
    before = comparison["before"]
    if before is None:
        return list(comparison["reasons"])
    if comparison["reasons"]:
        introduction = f"Not compared with {_period_text(before)}, which the source is not known to have whole:"
        return [introduction, BulletList(comparison["reasons"])]

    now = comparison["now"]
    blocks: list[Block] = [_sides_table(before, now)]
    if before["completeness"]["verdict"] != "complete":
        blocks += [f"{_period_text(before)} lacks events, which looks like a change:"]
        blocks.append(BulletList(before["completeness"]["sentences"]))
    if now["completeness"]["verdict"] == "incomplete":
        blocks.append(f"{_period_text(now)} lacks events as well, see Completeness.")

    groups = {title: comparison[id] for id, (title, _) in GROUPS.items()}
    for title, kind in GROUPS.values():
        if groups[title]["changes"]:
            blocks.append(change_table(f"{title} that differ, the least likely first", groups[title], kind))
    return [*blocks, *without_changes(groups), BulletList(READING)]


def _period_text(period: dict[str, Any]) -> str:
    """Return the bounds of one of two periods, as they stand in a cell."""
    if period["month"] is not None:
        return formatting.month_name(period["month"])

    start = formatting.timestamp(period["start"])
    end = "now" if period["end"] is None else formatting.timestamp(period["end"])
    return f"{start} to {end}"


def _sides_table(before: dict[str, Any], now: dict[str, Any]) -> Table:
    columns = (
        Column(f"Period ({now['time_zone']})", "name"),
        Column("Length", "length", "figure"),
        Column("Events", "total", "number"),
        Column("Failures", "failures", "number"),
        Column("Users", "users", "number"),
    )
    rows = []
    for side in (before, now):
        length = formatting.length(side["seconds"])
        rows.append({**side, "name": _period_text(side), "length": length})

    note = "The length is the time in which events can be: since the first event of the source, and until now."
    return Table("The two periods", columns, rows, note)


def _operations(members: dict[str, Any]) -> list[Block]:
    operations = members["operations"]
    if not operations:
        return [_NO_EVENTS]

    shown = operations[:MOST_SHOWN]
    blocks: list[Block] = [_operation_table(shown, len(operations))]

    timed = [row for row in shown if row["timed_events"]]
    if timed:
        blocks.append(Figure("durations", "Durations by operation", _durations_description(timed)))
    return blocks


def _operation_table(shown: Sequence[dict[str, Any]], total: int) -> Table:
    columns = (
        _OPERATION,
        _CLASS,
        _EVENTS,
        Column("Succeeded", "success_rate", "rate"),
        Column("Failed", "FAILURE", "number"),
        Column("Partial", "PARTIAL", "number"),
        *(Column(f"p{percent} (ms)", f"p{percent}_duration_ms", "ms") for percent in PERCENTILES),
    )

    rows = []
    for row in shown:
        durations = {} if row["timed_events"] else _NO_DURATIONS
        rows.append({**row, **row["by_status"], **durations})

    return Table("Operations by outcome and duration", columns, rows, _first_rows_note(len(rows), total))


_NO_DURATIONS: dict[str, Any] = {f"p{percent}_duration_ms": None for percent in PERCENTILES}
"""Empty cells in place of the zeros of an operation without durations."""


def _durations_description(timed: Sequence[dict[str, Any]]) -> str:
    slowest = max(timed, key=lambda row: row["p95_duration_ms"])
    name = formatting.display_name(slowest["operation"])
    duration = formatting.milliseconds(slowest["p95_duration_ms"])
    return (
        "Of the events of an operation, 50 % took at most p50, 95 % at most p95 and 99 % at most p99. "
        f"The slowest operation by p95 is {name} with {duration} ms."
    )


def _classes(members: dict[str, Any]) -> list[Block]:
    if not members["operations"]:
        return [_NO_EVENTS]

    columns = (
        _CLASS,
        _EVENTS,
        Column("Operations", "operations", "number"),
        *(Column(status, status, "number") for status in members["summary"]["by_status"]),
    )
    rows = [{"class": name, **row, **row["by_status"]} for name, row in members["classes"]["by_class"].items()]

    blocks: list[Block] = [
        "The class of an operation follows from the words of its name.",
        Table("Classified operations", columns, rows),
    ]
    unclassified = members["classes"]["unclassified_operations"]
    if not unclassified:
        return [*blocks, "Every operation is classified."]

    shown = [{"operation": name, "total_events": count} for name, count in unclassified.items()][:MOST_SHOWN]
    note = _first_rows_note(len(shown), len(unclassified))
    return [
        *blocks,
        *unclassified_sentences(members),
        Table("Unclassified operations", (_OPERATION, _EVENTS), shown, note),
    ]


def unclassified_sentences(members: dict[str, Any]) -> list[str]:
    """Return the sentence that names the operations without a class, or nothing if there are none."""
    operations = members["classes"]["unclassified_operations"]
    if not operations:
        return []

    named = []
    for name, count in islice(operations.items(), _MOST_NAMED):
        named.append(f"{formatting.display_name(name)} ({formatting.number(count)})")
    if len(operations) > _MOST_NAMED:
        named.append(formatting.count(len(operations) - _MOST_NAMED, "other"))

    events = formatting.count(members["classes"]["unclassified"], "event")
    verb = "is" if members["classes"]["unclassified"] == 1 else "are"
    different = formatting.count(len(operations), "operation")
    return [f"{events} with {different} {verb} not classified: {formatting.enumeration(named)}."]


def _activity_columns(activities: Iterable[dict[str, Any]]) -> tuple[Column, ...]:
    """Return the columns of the classes that occur in *activities*."""
    occurring = {name for activity in activities for name in activity["by_class"]}
    names = [name for name in CLASS_NAMES if name in occurring]
    return (
        Column("Total", "total", "number"),
        *(Column(name.capitalize(), name, "number") for name in names),
    )


def _activity_row(activity: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of an activity: its members, and the count of each class."""
    return {**dict.fromkeys(CLASS_NAMES, 0), **activity["by_class"], **activity}


def _users(members: dict[str, Any]) -> list[Block]:
    users = members["users"]
    without_user = members["summary"]["without_user"]
    listed = [*users["most_active"][:MOST_SHOWN], *users["most_failures"]]
    columns = (
        _USER,
        *_activity_columns(listed),
        Column("Failures", "failures", "number"),
        Column("Last", "last_activity", "time"),
    )
    blocks: list[Block] = []

    if without_user:
        blocks.append(f"{formatting.count(without_user, 'event')} had no user.")
    if users["most_active"]:
        rows = [_activity_row(row) for row in users["most_active"][:MOST_SHOWN]]
        note = _first_rows_note(len(rows), users["total"])
        blocks.append(Table("Most active users", columns, rows, note))
    if users["most_failures"]:
        rows = [_activity_row(row) for row in users["most_failures"]]
        blocks.append(Table("Users with the most failures", columns, rows))
    if users["total"] and len(members["months"]) > 1:
        blocks.append(_monthly_activity_table(members["months"]))
    return blocks or [_NO_EVENTS]


def _monthly_activity_table(months: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for month in months:
        most_active = list(month["user_activity"].items())[:_MOST_USERS_OF_MONTH]
        for user_id, activity in most_active:
            rows.append({"period": month["period"], "user_id": user_id, **activity})

    columns = (_MONTH, _USER, *_activity_columns(rows))
    rows = [_activity_row(row) for row in rows]
    note = f"The {_MOST_USERS_OF_MONTH} most active users of each month."
    return Table("User activity by month", columns, rows, note)


def _failures(members: dict[str, Any]) -> list[Block]:
    columns = (_TIME, _OPERATION, _USER, _MESSAGE)
    total = members["summary"]["total_events"]
    unknown = members["unknown_status"]
    if not total:
        return [_NO_EVENTS]
    if not unknown:
        return _event_blocks(members["failures"], _FAILED_EVENTS, columns, "There were no failures.")

    understood = formatting.count(total - unknown, "event")
    none_found = f"0 failures among the {understood} whose status is known."
    return [
        *_event_blocks(members["failures"], _FAILED_EVENTS, columns, none_found),
        f"{formatting.count(unknown, 'event')} with a status that states neither success nor failure: without an error "
        "and below the level of failures, such an event is listed as SUCCESS.",
    ]


def _class_blocks(members: dict[str, Any], id: str, names: tuple[str, str]) -> list[Block]:
    """Return the events of one class, and the unknown facts about it.

    Args:
        members: The data of the report.
        id: The member with the events.
        names: The noun for one of them, and the caption.
    """
    if not members["summary"]["total_events"]:
        return [_NO_EVENTS]

    noun, caption = names
    classified = formatting.count(members["classes"]["classified"], "event")
    none_found = f"{formatting.count(0, noun)} among the {classified} whose operation is classified."

    columns = (_TIME, _OPERATION, _USER, _STATUS, _ENTRIES)
    return [
        *_event_blocks(members[id], caption, columns, none_found),
        *unclassified_sentences(members),
    ]


def _deletions(members: dict[str, Any]) -> list[Block]:
    return _class_blocks(members, "deletions", _DELETIONS)


def _exports(members: dict[str, Any]) -> list[Block]:
    return _class_blocks(members, "exports", _EXPORTS)


def _activity(members: dict[str, Any]) -> list[Block]:
    columns = (_TIME, _OPERATION, _STATUS, _ENTRIES)
    blocks = _event_blocks(members["activity"], "Events of the user", columns, "No event has this user.")
    return [*blocks, *(f"{hint[:1].upper()}{hint[1:]}." for hint in members["activity"]["hints"])]


def _open_intents(members: dict[str, Any]) -> list[Block]:
    columns = (_TIME, _OPERATION, _USER, _ENTRIES)
    intents = members["open_intents"]
    return _event_blocks(intents, "Intents without an outcome", columns, "Every intent has an outcome.", order="oldest")


def _event_blocks(
    listed: dict[str, Any], caption: str, columns: tuple[Column, ...], empty: str, *, order: str = "newest"
) -> list[Block]:
    """Return the totals and table of a list of events, or *empty* without events."""
    if not listed["total"]:
        return [empty]

    events = formatting.count(listed["total"], "event")
    entry_ids = formatting.count(listed["entries"], "entry id")
    failed = listed.get("failed")
    failures = f", of which {formatting.number(failed)} failed," if failed and caption != _FAILED_EVENTS else ""
    repeated = ", repeated ones included" if listed["entries"] > 1 else ""

    return [f"{events}{failures} with {entry_ids}{repeated}.", event_table(caption, columns, listed, order=order)]


def _trail_events(members: dict[str, Any]) -> list[Block]:
    trail_events = members["trail_events"]
    if not trail_events["total"]:
        return [
            "The source has no trail events. A trail in a file records its opening and closing, faults and recoveries, "
            "retention, and access to its files."
        ]

    total = formatting.count(trail_events["total"], "trail event")
    counts = []
    for operation, count in trail_events["by_operation"].items():
        counts.append(f"{formatting.display_name(operation)} {formatting.number(count)}")

    columns = (_TIME, Column("Event", "operation", "code"), _STATUS, Column("Details", "metadata", "detail"))
    table = event_table("Trail events, recorded by the library", columns, trail_events)
    return [f"{total}: {formatting.enumeration(counts)}.", table]


def _clauses(members: dict[str, Any], numbers: dict[str, int]) -> list[Block]:
    rows = []
    for clause in members["clauses"]:
        ids = [id for id in clause["sections"] if id in numbers]
        references = [(id, numbers[id], section_title(id, members)) for id in ids]
        rows.append({**clause, "sections": references})

    columns = (
        Column("Framework", "framework"),
        Column("Clause", "clause"),
        Column("Requirement", "requirement"),
        Column("Evidence", "sections", "sections"),
        Column("Not covered", "not_covered"),
    )
    introduction = (
        "The sections named contain evidence for these clauses. A report alone does not establish compliance."
    )
    return [introduction, *unclassified_sentences(members), Table("Clauses and sections", columns, rows, is_list=True)]


def _not_shown(members: dict[str, Any]) -> list[Block]:
    return [BulletList(members["not_shown"])]


_BLOCKS: dict[str, Callable[[dict[str, Any]], list[Block]]] = {
    "completeness": _completeness,
    "integrity": _integrity,
    "months": _months,
    "over_time": _over_time,
    "comparison": _comparison,
    "operations": _operations,
    "classes": _classes,
    "users": _users,
    "failures": _failures,
    "deletions": _deletions,
    "exports": _exports,
    "activity": _activity,
    "open_intents": _open_intents,
    "trail_events": _trail_events,
    "not_shown": _not_shown,
}
