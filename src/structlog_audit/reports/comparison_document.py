"""The document of a comparison of two periods or trails."""

from __future__ import annotations

from typing import Any

from structlog_audit.reports import formatting
from structlog_audit.reports.change_tables import GROUPS, READING, change_table
from structlog_audit.reports.document import Block, BulletList, Document, Section
from structlog_audit.reports.document_builder import text_of_bounds

_UNKNOWN = (
    "Not known: why something changed, what no event records, and whether lines were altered. No seal is verified here; a "
    "compliance report has its verdict."
)
"""What a comparison cannot know."""

_VERDICTS = ("incomplete", "unknown", "complete")
"""The verdicts, the worst first."""


def build_comparison_document(members: dict[str, Any]) -> Document:
    """Return the document of the comparison with these *members* (`ComparisonReport.to_dict`)."""
    sections = []
    for number, (id, (title, kind)) in enumerate(GROUPS.items(), 1):
        blocks = _changes(members[id], kind)
        sections.append(Section(id, number, title, blocks))

    number = len(GROUPS) + 1
    sections.append(Section("completeness", number, "Completeness", _completeness(members)))

    comparisons = formatting.count(members["comparisons"], "comparison")
    reading: list[Block] = [f"{comparisons} were tested.", BulletList([*READING, _UNKNOWN])]
    sections.append(Section("reading", number + 1, "How to read this", reading))

    verdicts = [members[side]["completeness"]["verdict"] for side in ("before", "now")]
    worst = min(verdicts, key=_VERDICTS.index)
    differences = sum(members[id]["changes"] for id in GROUPS)
    created = formatting.timestamp_with_zone(members["generated_at"])
    return Document(
        title="Comparison",
        subtitle=formatting.count(differences, "difference") if members["comparisons"] else "Nothing to compare",
        facts=[
            ("Before", _side(members["before"])),
            ("Now", _side(members["now"])),
            ("Created", f"{created} by {members['software']}"),
        ],
        verdict=worst,
        headline=_headline(verdicts, number),
        keys=_key_figures(members),
        sections=sections,
        zone=members["now"]["time_zone"],
    )


def _headline(verdicts: list[str], section_number: int) -> str:
    before, now = verdicts
    if before == now == "complete":
        return "Complete on both sides, by the evidence of their sources"

    words = f"{before} on both sides" if before == now else f"{before} before, {now} now"

    return f"{words.capitalize()} (reasons in section {section_number})"


def _side(side: dict[str, Any]) -> str:
    source = "; ".join(side["source"]["paths"]) or side["source"]["type"]
    return f"{formatting.visible(source)}, {text_of_bounds(side)}, {formatting.length(side['seconds'])}"


def _key_figures(members: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"events": "total", "failures": "failures", "users": "users"}
    figures = [(name, side, members[side][key]) for name, key in names.items() for side in ("before", "now")]
    return [(f"{name} {side}", formatting.number(figure)) for name, side, figure in figures]


def _changes(group: dict[str, Any], kind: str) -> list[Block]:
    compared = formatting.number(group["compared"])
    if not group["changes"]:
        return [f"No difference among {compared} that is unlikely to be chance."]

    changes = formatting.number(group["changes"])
    return [f"{changes} of {compared} differ.", change_table("Differences, the least likely first", group, kind)]


def _completeness(members: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = ["Missing events look like a change."]
    for name, side in (("Before", members["before"]), ("Now", members["now"])):
        blocks.append(f"{name}: {side['completeness']['headline']}.")
        if side["completeness"]["sentences"]:
            blocks.append(BulletList(side["completeness"]["sentences"]))
    return blocks
