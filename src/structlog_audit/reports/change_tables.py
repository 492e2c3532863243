"""The tables of differences between two periods, as in a comparison and in a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from structlog_audit.reports import formatting
from structlog_audit.reports.document import NOTHING, Column, Table

READING = (
    "“Very unlikely to be chance”: without a change, fewer than 1 of 1,000 such reports would show any such difference; "
    "“unlikely”: fewer than 1 of 100; “perhaps chance”: fewer than 1 of 20. The number of comparisons is taken into account.",
    "“Expected” is the earlier number, scaled to the length of the later period.",
    "The tests assume that events are independent. Those of one batch, retry or attack are not, and show as a change.",
    "An unlikely difference has a cause, which may be harmless: a release, a holiday, another clock. It may also be too small "
    "to matter.",
    "What is not listed may have changed as well: few events show great changes only.",
)
"""What the words of a comparison mean."""

GROUPS = {
    "operations": ("Operations", "number"),
    "failures": ("Failure rates", "rate"),
    "durations": ("Durations", "ms"),
    "users": ("Users", "number"),
}
"""The titles of the groups of differences, in order, and the kinds of their values."""

_COLUMNS = (
    Column("Name", "name", "user"),
    Column("Change", "state"),
    Column("Before", "was", "figure"),
    Column("Now", "is", "figure"),
    Column("In words", "sentence"),
)


def change_table(caption: str, group: dict[str, Any], kind: str) -> Table:
    """Return the table of the differences of a *group*, whose values are of this *kind*."""
    # A rate in a table of operations is drawn as a bar of its counts, which these rows lack.
    rows = [{**row, "was": _text(kind, row["before"]), "is": _text(kind, row["now"])} for row in group["most"]]
    changes = formatting.number(group["changes"])
    notes = [f"The {len(rows)} least likely of {changes}."] if group["changes"] > len(rows) else []
    if any(row["name"] is None for row in rows):
        notes.append(f"{NOTHING} stands for the events without a user.")

    return Table(caption, _COLUMNS, rows, " ".join(notes), is_list=True)


def _text(kind: str, value: float) -> str:
    if kind == "rate":
        return formatting.percent(value)
    return f"{formatting.milliseconds(value)} ms" if kind == "ms" else formatting.number(int(value))


def without_changes(groups: dict[str, dict[str, Any]]) -> Sequence[str]:
    """Return the sentence about the *groups* without a difference, by their titles; nothing if there are none."""
    unchanged = [f"{title.lower()} ({group['compared']:,})" for title, group in groups.items() if not group["changes"]]
    if not unchanged:
        return []
    return [f"No difference that is unlikely to be chance among: {formatting.enumeration(unchanged)}."]
