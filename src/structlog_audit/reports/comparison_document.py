"""The document of a comparison of two periods or trails."""

from __future__ import annotations

from typing import Any

from structlog_audit.reports import formatting
from structlog_audit.reports.document import Block, BulletList, Column, Document, Section, Table
from structlog_audit.reports.document_builder import text_of_bounds

_TITLES = {
    "operations": "Operations",
    "failures": "Failure rates",
    "durations": "Durations",
    "users": "Users",
}
"""The titles of the sections with changes, in order."""

_KINDS = {"operations": "number", "failures": "rate", "durations": "ms", "users": "number"}

_READING = (
    "“Very unlikely to be chance”: without a change, fewer than 1 of 1,000 such reports would show any such difference; "
    "“unlikely”: fewer than 1 of 100; “perhaps chance”: fewer than 1 of 20. The number of comparisons is taken into account.",
    "“Expected” is the earlier number, scaled to the length of the later period.",
    "The tests assume that events are independent. Those of one batch, retry or attack are not, and show as a change.",
    "An unlikely difference has a cause, which may be harmless: a release, a holiday, another clock. It may also be too small "
    "to matter.",
    "What is not listed may have changed as well: few events show great changes only.",
)

_VERDICTS = ("incomplete", "unknown", "complete")
"""The verdicts, the worst first."""


def build_comparison_document(members: dict[str, Any]) -> Document:
    """Return the document of the comparison with these *members* (`ComparisonReport.to_dict`)."""
    sections = []
    for number, (id, title) in enumerate(_TITLES.items(), 1):
        blocks = _changes(members[id], _KINDS[id])
        sections.append(Section(id, number, title, blocks))

    number = len(_TITLES) + 1
    sections.append(Section("completeness", number, "Completeness", _completeness(members)))

    comparisons = formatting.count(members["comparisons"], "comparison")
    reading: list[Block] = [f"{comparisons} were tested.", BulletList(_READING)]
    sections.append(Section("reading", number + 1, "How to read this", reading))

    verdicts = [members[side]["completeness"]["verdict"] for side in ("before", "now")]
    worst = min(verdicts, key=_VERDICTS.index)
    differences = sum(members[id]["changes"] for id in _TITLES)
    created = formatting.timestamp_with_zone(members["generated_at"])
    return Document(
        title="Comparison",
        subtitle=formatting.count(differences, "difference"),
        facts=[
            ("Before", _side(members["before"])),
            ("Now", _side(members["now"])),
            ("Created", f"{created} by {members['software']}"),
        ],
        verdict=worst,
        headline=f"{worst}, see section {number}",
        keys=_key_figures(members),
        sections=sections,
        zone=members["now"]["time_zone"],
    )


def _side(side: dict[str, Any]) -> str:
    source = "; ".join(side["source"]["paths"]) or side["source"]["type"]
    days = formatting.milliseconds(side["seconds"] / 86_400)
    return f"{formatting.visible(source)}, {text_of_bounds(side)}, {days} days"


def _key_figures(members: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"events": "total", "failures": "failures", "users": "users"}
    figures = [(name, side, members[side][key]) for name, key in names.items() for side in ("before", "now")]
    return [(f"{name} {side}", formatting.number(figure)) for name, side, figure in figures]


def _changes(group: dict[str, Any], kind: str) -> list[Block]:
    compared = formatting.number(group["compared"])
    if not group["changes"]:
        return [f"No difference among {compared} that is unlikely to be chance."]

    # A rate in a table of operations is drawn as a bar of its counts, which these rows lack.
    rows = [{**row, "was": _text(kind, row["before"]), "is": _text(kind, row["now"])} for row in group["most"]]
    columns = (
        Column("Name", "name", "user"),
        Column("Change", "state"),
        Column("Before", "was"),
        Column("Now", "is"),
        Column("In words", "sentence"),
    )
    changes = formatting.number(group["changes"])
    note = f"The {len(rows)} least likely of {changes}." if group["changes"] > len(rows) else ""
    return [f"{changes} of {compared} differ.", Table("Differences, the least likely first", columns, rows, note)]


def _text(kind: str, value: float) -> str:
    if kind == "rate":
        return formatting.percent(value)
    return f"{formatting.milliseconds(value)} ms" if kind == "ms" else formatting.number(int(value))


def _completeness(members: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = ["Missing events look like a change."]
    for name, side in (("Before", members["before"]), ("Now", members["now"])):
        blocks.append(f"{name}: {side['completeness']['headline']}.")
        if side["completeness"]["sentences"]:
            blocks.append(BulletList(side["completeness"]["sentences"]))
    return blocks
