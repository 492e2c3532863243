"""The sections of a report: what it says of each of its members, in words, tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from structlog_audit.reports import formatting as text
from structlog_audit.reports.clauses import SECTIONS
from structlog_audit.reports.document import Block, Column, Document, Figure, Listing, Section, Table

MOST_SHOWN = 20
"""Rows of a table of users or operations in a document, at most; the data have more."""


def document(members: dict[str, Any]) -> Document:
    """The document of the report with these *members*."""
    ids = [name for name in SECTIONS if name != "activity" or members["user_id"] is not None]
    numbers = {name: number for number, name in enumerate(ids, 1)}
    summary, completeness = members["summary"], members["completeness"]
    user_id = members["user_id"]
    return Document(
        title="Audit report" if user_id is None else "Audit report of one user",
        subtitle=_period_name(members["period"], summary),
        facts=[
            *([] if user_id is None else [("User", text.name(user_id))]),
            ("Period", _bounds(members["period"])),
            ("Made", f"{text.second(members['generated_at'])} UTC by {members['software']}"),
            ("Source", members["source"]),
        ],
        complete=completeness["complete"],
        verdict=_verdict(completeness, numbers["completeness"]),
        keys=_keys(members),
        sections=[Section(name, numbers[name], SECTIONS[name], _BLOCKS[name](members, numbers)) for name in ids],
    )


def _period_name(period: dict[str, Any], summary: dict[str, Any]) -> str:
    if period["month"] is not None:
        return text.month_name(period["month"])
    first = period["start"] or summary["first_event"]
    last = period["end"] or summary["last_event"]
    if first is None or last is None:
        return "No events"
    begin, end = text.step("day", first), text.step("day", last)
    return begin if begin == end else f"{begin} to {end}"


def _bounds(period: dict[str, Any]) -> str:
    begin = "the beginning" if period["start"] is None else text.second(period["start"])
    if period["end"] is None:
        return f"from {begin} up to now (UTC)"
    return f"from {begin} up to {text.second(period['end'])} (UTC, the end excluded)"


def _verdict(completeness: dict[str, Any], number: int) -> str:
    if completeness["complete"]:
        return "Complete for the period, as far as its source knows"
    return f"Not complete: {text.count(len(completeness['reasons']), 'reason')} in section {number}"


def _keys(members: dict[str, Any]) -> list[tuple[str, str]]:
    summary = members["summary"]
    return [
        ("events", text.number(summary["total_events"])),
        ("succeeded", text.percent(summary["success_rate"]) if summary["total_events"] else "–"),
        ("users", text.number(summary["users"])),
        ("failures", text.number(members["failures"]["total"])),
        ("deletions", text.number(members["deletions"]["total"])),
        ("exports", text.number(members["exports"]["total"])),
    ]


_TIME = Column("Time (UTC)", "timestamp", "time")
_OPERATION = Column("Operation", "operation", "code")
_USER = Column("User", "user_id", "user")
_STATUS = Column("Status", "status", "status")
_ENTRIES = Column("Entries", "named", "detail")
_MESSAGE = Column("Message", "message", "detail")


def _events(caption: str, columns: tuple[Column, ...], found: dict[str, Any], *, which: str = "newest") -> Table:
    """The table of events in *found*."""
    rows = [{**row, **{name: (say(row), row["event_id"]) for name, say in _DETAILS.items()}} for row in found[which]]
    note = f"The {which} {len(rows)} of {text.number(found['total'])}." if found["total"] > len(rows) else ""
    return Table(caption, columns, rows, note, is_list=True)


_DETAILS: dict[str, Callable[[dict[str, Any]], str | None]] = {
    "message": lambda row: row["error_message"],
    "named": text.entries,
    "said": lambda row: row.get("said"),
}
"""What the last column of a list of events may show, above the event's id."""


def _completeness(members: dict[str, Any], numbers: dict[str, int]) -> list[Block]:
    found = members["completeness"]
    blocks: list[Block] = []
    if found["complete"]:
        blocks.append("The source answers for the whole period, and knows of no event that it lost.")
    else:
        blocks += ["The figures of this report may be too low:", Listing(found["reasons"])]
    if found["gaps"]["total"]:
        columns = (_TIME, Column("Events lost", "lost", "number"), Column("Event", "event_id", "code"))
        blocks.append(_events("Gaps in the trail", columns, found["gaps"]))
    if found["problems"]:
        rows = [{"code": code, "count": count} for code, count in found["problems"].items()]
        found_columns = (Column("Found", "code", "code"), Column("Times", "count", "number"))
        blocks.append(Table("Findings in the files that were read", found_columns, rows))
    if found["counters"]:
        rows = [
            {"name": name, "count": count, "meaning": _COUNTERS.get(name)} for name, count in found["counters"].items()
        ]
        columns = (Column("Counter", "name"), Column("Events", "count", "number"), Column("Meaning", "meaning"))
        blocks.append(Table("Counters of the handler, over its life", columns, rows))
    return blocks


_COUNTERS = {
    "accepted": "came to the handler",
    "recorded": "written by its target",
    "pending": "wait in memory for the target to work again",
    "raised": "not recorded; their callers got an error",
    "lost": "not recorded, because too many were pending",
    "evicted": "left the buffer to make room; they are in the trail, if there is one",
}


def _months(members: dict[str, Any], numbers: dict[str, int]) -> list[Block]:
    operations = list(members["summary"]["by_operation"])[:6]
    rows = []
    for month in members["months"]:
        counts = {name: month["operations"].get(name, 0) for name in operations}
        rows.append({**month, **counts, "others": month["total_events"] - sum(counts.values())})
    columns = (
        Column("Month", "period", "month"),
        Column("Events", "total_events", "number"),
        Column("Users", "users", "number"),
        *(Column(name, name, "number") for name in operations),
        Column("Others", "others", "number"),
    )
    anonymous = "Events without a user count as those of one, called anonymous."
    return [Table("Events by month and operation", columns, rows, anonymous)] if rows else ["There were no events."]


def _over_time(members: dict[str, Any], numbers: dict[str, int]) -> list[Block]:
    found = members["over_time"]
    unit, steps = found["unit"], found["steps"]
    total = members["summary"]["total_events"]
    if not total:
        return ["There were no events."]
    most, least = (choose(steps, key=lambda step: step["total"]) for choose in (max, min))
    said = f"{text.count(total, 'event')} by {unit}. "
    if len(steps) > 1:
        said += f"The most are {text.number(most['total'])} ({text.step(unit, most['start'])}), "
        said += f"the least {text.number(least['total'])} ({text.step(unit, least['start'])}). "
    worst = max(steps, key=_not_succeeded)
    if _not_succeeded(worst):
        count = text.number(_not_succeeded(worst))
        said += f"The most that failed or succeeded in part are {count} ({text.step(unit, worst['start'])})."
    else:
        said += "All succeeded."
    statuses = members["summary"]["by_status"]
    columns = (Column(unit.capitalize(), "name"), Column("Events", "total", "number"),
               *(Column(name, name, "number") for name in statuses))  # fmt: skip
    rows = [{**step, "name": text.step(unit, step["start"])} for step in steps if step["total"]]
    note = f"{len(steps) - len(rows)} without events are left out." if len(steps) > len(rows) else ""
    table = Table(f"Events by {unit} and status", columns, rows, note)
    return [Figure("over_time", f"Events by {unit} and status", said, table)]


def _not_succeeded(step: dict[str, Any]) -> int:
    return int(step["FAILURE"] + step["PARTIAL"])


def _operations(members: dict[str, Any], numbers: dict[str, int]) -> list[Block]:
    found = members["operations"]
    if not found:
        return ["There were no events."]
    rows = [{**row, **row["by_status"], **({} if row["timed_events"] else _UNTIMED)} for row in found[:MOST_SHOWN]]
    columns = (
        _OPERATION,
        Column("Events", "total_events", "number"),
        Column("Succeeded", "success_rate", "rate"),
        Column("Failed", "FAILURE", "number"),
        Column("In part", "PARTIAL", "number"),
        *(Column(f"p{p} (ms)", f"p{p}_duration_ms", "ms") for p in (50, 95, 99)),
    )
    blocks: list[Block] = [Table("Operations, with outcome and duration", columns, rows, _left_out(rows, len(found)))]
    timed = [row for row in found[:MOST_SHOWN] if row["timed_events"]]
    if timed:
        slowest = max(timed, key=lambda row: row["p95_duration_ms"])
        said = "Half of the events of an operation took no longer than p50, 95 % no longer than p95, 99 % no longer than p99. "
        longest = text.milliseconds(slowest["p95_duration_ms"])
        said += f"By p95 the slowest is {text.name(slowest['operation'])}, {longest} ms."
        blocks.append(Figure("durations", "Durations by operation", said))
    return blocks


_UNTIMED: dict[str, Any] = {f"p{percent}_duration_ms": None for percent in (50, 95, 99)}


def _left_out(rows: Sequence[Any], total: int) -> str:
    return f"The first {len(rows)} of {text.number(total)}." if total > len(rows) else ""


_ACTIVITY = (
    Column("Total", "total", "number"),
    Column("Stores", "stores", "number"),
    Column("Recalls", "recalls", "number"),
    Column("Deletions", "deletions", "number"),
)


def _users(members: dict[str, Any], numbers: dict[str, int]) -> list[Block]:
    found = members["users"]
    columns = (
        _USER,
        *_ACTIVITY,
        Column("Failures", "failures", "number"),
        Column("Last (UTC)", "last_activity", "time"),
    )
    blocks: list[Block] = []
    without = members["summary"]["without_user"]
    if without:
        blocks.append(f"{text.count(without, 'event')} had no user.")
    rows = found["most_active"][:MOST_SHOWN]
    if rows:
        blocks.append(Table("Most active users", columns, rows, _left_out(rows, found["total"])))
    if found["most_failures"]:
        blocks.append(Table("Users with the most failures", columns, found["most_failures"]))
    if len(members["months"]) > 1:
        rows = [
            {"period": month["period"], "user_id": user_id, **done}
            for month in members["months"]
            for user_id, done in list(month["user_activity"].items())[:_MOST_OF_MONTH]
        ]
        note = f"The {_MOST_OF_MONTH} most active of each month."
        blocks.append(
            Table("User activity by month", (Column("Month", "period", "month"), _USER, *_ACTIVITY), rows, note)
        )
    return blocks or ["There were no events."]


_MOST_OF_MONTH = 5


def _list_of(name: str, caption: str, columns: tuple[Column, ...], none: str) -> Callable[..., list[Block]]:
    def blocks(members: dict[str, Any], numbers: dict[str, int]) -> list[Block]:
        found = members[name]
        if not found["total"]:
            return [none]
        said = f"{text.count(found['total'], 'event')}, naming {text.count(found['entries'], 'entry', 'entries')}."
        return [said, _events(caption, columns, found, which="oldest" if "oldest" in found else "newest")]

    return blocks


def _own_acts(members: dict[str, Any], numbers: dict[str, int]) -> list[Block]:
    found = members["own_acts"]
    if not found["total"]:
        return ["None is known to the source. A trail in a file records its opening and closing, faults and recoveries, "
                "retention, and what was done to its files."]  # fmt: skip
    counts = [f"{text.name(act)} {text.number(count)}" for act, count in found["by_act"].items()]
    columns = (_TIME, Column("Act", "operation", "code"), _STATUS, Column("What it says", "said", "detail"))
    table = _events("Acts of the library on the trail", columns, found)
    return [f"{text.count(found['total'], 'act')}: {text.listed(counts)}.", table]


def _clauses(members: dict[str, Any], numbers: dict[str, int]) -> list[Block]:
    rows = [
        {**row, "sections": [(name, numbers[name], SECTIONS[name]) for name in row["sections"] if name in numbers]}
        for row in members["clauses"]
    ]
    columns = (
        Column("Framework", "framework"),
        Column("Clause", "clause"),
        Column("Asks for", "asks"),
        Column("Served by", "sections", "sections"),
        Column("What it asks for beyond", "beyond"),
    )
    said = "Evidence for these clauses is in the sections named. No report makes anybody compliant."
    return [said, Table("Clauses and sections", columns, rows, is_list=True)]


_BLOCKS: dict[str, Callable[[dict[str, Any], dict[str, int]], list[Block]]] = {
    "completeness": _completeness,
    "months": _months,
    "over_time": _over_time,
    "operations": _operations,
    "users": _users,
    "failures": _list_of("failures", "Failed events", (_TIME, _OPERATION, _USER, _MESSAGE), "Nothing failed."),
    "deletions": _list_of(
        "deletions", "Deletions (FORGET)", (_TIME, _USER, _STATUS, _ENTRIES), "Nothing was deleted under this name."
    ),
    "exports": _list_of("exports", "Exports (EXPORT)", (_TIME, _USER, _STATUS, _ENTRIES), "Nothing was exported."),
    "activity": _list_of(
        "activity", "Events of the user", (_TIME, _OPERATION, _STATUS, _ENTRIES), "There are no events of this user."
    ),
    "open_intents": _list_of(
        "open_intents",
        "Intents without an outcome",
        (_TIME, _OPERATION, _USER, _ENTRIES),
        "Every intent has an outcome.",
    ),
    "own_acts": _own_acts,
    "clauses": _clauses,
    "not_shown": lambda members, numbers: [Listing(members["not_shown"])],
}
