"""Builds the document of a report from its data: the header and the numbered sections."""

from __future__ import annotations

from typing import Any

from structlog_audit.reports import formatting
from structlog_audit.reports.clauses import SECTIONS
from structlog_audit.reports.document import NOTHING, Document, Section
from structlog_audit.reports.sections import section_blocks, section_title


def build_document(members: dict[str, Any]) -> Document:
    """Return the document of the report with these *members* (`Report.to_dict`)."""
    user_id = members["user_id"]
    completeness = members["completeness"]
    ids = [id for id in SECTIONS if id != "activity" or user_id is not None]
    numbers = {id: number for number, id in enumerate(ids, 1)}

    sections = []
    for id in ids:
        blocks = section_blocks(id, members, numbers)
        sections.append(Section(id, numbers[id], section_title(id, members), blocks))

    return Document(
        title="Audit report" if user_id is None else "Audit report for one user",
        subtitle=_period_name(members["period"], members["summary"]),
        facts=_facts(members),
        verdict=completeness["verdict"],
        headline=headline(completeness, numbers["completeness"]),
        keys=_key_figures(members),
        sections=sections,
        zone=members["period"]["time_zone"],
    )


def _period_name(period: dict[str, Any], summary: dict[str, Any]) -> str:
    if period["month"] is not None:
        return formatting.month_name(period["month"])

    first = period["start"] or summary["first_event"]
    last = period["end"] or summary["last_event"]
    if first is None or last is None:
        return "No events"

    first_day = formatting.step_label("day", first)
    last_day = formatting.step_label("day", last)
    return first_day if first_day == last_day else f"{first_day} to {last_day}"


def _facts(members: dict[str, Any]) -> list[tuple[str, str]]:
    user_id = members["user_id"]
    created = formatting.timestamp_with_zone(members["generated_at"])
    facts = [
        ("Period", text_of_bounds(members["period"])),
        ("Created", f"{created} by {members['software']}"),
        *source_facts(members["source"]),
    ]
    if user_id is not None:
        facts.insert(0, ("User", formatting.display_name(user_id)))
    return facts


def text_of_bounds(period: dict[str, Any]) -> str:
    """Return the bounds of *period* in words."""
    start = "the beginning" if period["start"] is None else formatting.timestamp(period["start"])
    if period["end"] is None:
        return f"from {start} to now ({period['time_zone']})"

    end = formatting.timestamp(period["end"])
    return f"from {start} to {end} ({period['time_zone']}, end excluded)"


def source_facts(source: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the files, or else the class of the source, its hosts, and the times of its events."""
    files = [_segment_range(segments) for segments in source["segments"]] or source["paths"]
    facts = [("Files", formatting.visible("; ".join(files)))] if files else [("Source", source["type"])]

    if source["hosts"]:
        facts.append(("Hosts", formatting.visible(formatting.enumeration(source["hosts"]))))

    if source["first_event"] is not None:
        times = formatting.time_range(source["first_event"], source["last_event"])
        facts.append(("Events of the source", times))

    return facts


def _segment_range(segments: dict[str, Any]) -> str:
    number = formatting.count(segments["number"], "segment")
    if segments["number"] < 2:
        return f"{segments['trail']} ({number})"
    return f"{segments['trail']} ({number}: {segments['first']} to {segments['last']})"


def headline(completeness: dict[str, Any], section_number: int) -> str:
    """Return the verdict in a few words, with the section that has its reasons."""
    words: str = completeness["headline"]
    if completeness["verdict"] == "complete":
        return f"{words} for the period, by the evidence of its source"

    reasons = formatting.count(len(completeness["sentences"]), "reason")
    return f"{words} ({reasons} in section {section_number})"


def _key_figures(members: dict[str, Any]) -> list[tuple[str, str]]:
    summary = members["summary"]
    total = summary["total_events"]
    succeeded = formatting.percent(summary["success_rate"]) if total else NOTHING
    unclassified = members["classes"]["unclassified"]
    unknown_status = members["unknown_status"]

    figures = [
        ("events", formatting.number(total)),
        ("succeeded", f"≤ {succeeded}" if unknown_status else succeeded),
        ("users", formatting.number(summary["users"])),
    ]
    for name, unknown in (("failures", unknown_status), ("deletions", unclassified), ("exports", unclassified)):
        count = formatting.number(members[name]["total"])

        # Events that are not understood may be among them.
        figure = f"≥ {count}" if unknown else count
        failed = members[name]["failed"]
        has_failed = failed and name != "failures"
        figures.append((f"{name}, {formatting.number(failed)} failed" if has_failed else name, figure))

    if unclassified:
        figures.append(("not classified", formatting.number(unclassified)))
    if unknown_status:
        figures.append(("status not known", formatting.number(unknown_status)))
    return figures
