"""The document of a report on one person: for the person (GDPR art. 15), and for whoever erases (art. 17)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from structlog_audit.reports import formatting, person_data
from structlog_audit.reports.document import Block, BulletList, Column, Document, Section, Table
from structlog_audit.reports.document_builder import headline, source_facts, text_of_bounds
from structlog_audit.reports.sections import event_table, section_blocks

_TITLES = {
    "person": "The person",
    "by_person": "Events by the person",
    "about": "Events of others about the person",
    "on_created": "What others did to entries that the person created",
    "library": "Erasures, and recorded readings that asked for the person",
    "erasure": "What an erasure removes, and what it does not",
    "completeness": "Completeness",
    "integrity": "Integrity",
    "unknown": "What this report cannot know",
}
"""The titles of the sections, in order."""

_LIMITS = (
    "Text: a name in an error message, or in a member of the metadata that was not named, is not found, nor one that is only "
    "a part of a value, such as of a session id.",
    "Other trails, other handlers of the application, its database, backups, and copies that left this machine.",
    "Events before the first and after the last line that was read, and segments that were deleted: see Completeness.",
    "Earlier tokens of a person who was erased: they lead to nobody. The trail events of erasures name them.",
    "Whether two persons share the identity, or one person has several: ask for each.",
    "Purposes, recipients and retention periods (art. 15(1)), which a trail does not record.",
)

_TIME = Column("Time", "timestamp", "time")
_OPERATION = Column("Operation", "operation", "code")
_USER = Column("User", "user_id", "user")
_STATUS = Column("Status", "status", "status")
_ENTRIES = Column("Entries", "named", "detail")
_METADATA = Column("Metadata", "content", "detail")
_WHY = Column("Why", "why", "code")
_EVENTS = Column("Events", "total", "number")
_TIMES = (
    _EVENTS,
    Column("Failures", "failures", "number"),
    Column("First", "first", "time"),
    Column("Last", "last", "time"),
)


def build_person_document(members: dict[str, Any]) -> Document:
    """Return the document of the report with these *members* (`PersonReport.to_dict`)."""
    completeness = members["completeness"]
    numbers = {id: number for number, id in enumerate(_TITLES, 1)}
    sections = [Section(id, number, _TITLES[id], _BLOCKS[id](members)) for id, number in numbers.items()]

    period = text_of_bounds(members["period"])
    created = formatting.timestamp_with_zone(members["generated_at"])
    return Document(
        title="Report on one person",
        subtitle=formatting.display_name(members["person"]["identity"]),
        facts=[
            ("Period", period),
            ("Created", f"{created} by {members['software']}"),
            *source_facts(members["source"]),
        ],
        verdict=completeness["verdict"],
        headline=headline(completeness, numbers["completeness"]),
        keys=_key_figures(members),
        sections=sections,
        zone=members["period"]["time_zone"],
    )


def _key_figures(members: dict[str, Any]) -> list[tuple[str, str]]:
    figures = {
        "by the person": members["by_person"]["total"],
        "about the person": members["about"]["total"],
        "on their entries": members["on_created"]["total"],
        "sessions": members["sessions"]["total"],
        "encrypted values": members["erasure"]["encrypted_values"],
    }
    return [(name, formatting.number(figure)) for name, figure in figures.items()]


def _person(members: dict[str, Any]) -> list[Block]:
    person = members["person"]
    searched = ["user_id", "session_id", "entry_ids", *(f"metadata.{member}" for member in person["members"])]
    places = formatting.enumeration([formatting.display_name(place) for place in searched])
    columns = (Column("Name", "name", "user"), Column("Source", "source"))
    return [
        f"These names were searched in {places}.",
        Table("Names of the person", columns, person["names"], is_list=True),
    ]


def _by_person(members: dict[str, Any]) -> list[Block]:
    group = members["by_person"]
    hints: list[Block] = [f"{hint[:1].upper()}{hint[1:]}." for hint in members["hints"]]
    if not group["total"]:
        blocks: list[Block] = ["No event has this user.", *hints]
    else:
        blocks = [_span(group), _operations(group)]

    for id, noun in (("sessions", "Session"), ("addresses", "Address")):
        if members[id]["total"]:
            blocks.append(_followed(noun, members[id]))
    if group["total"]:
        blocks.append(_newest(group, (_TIME, _OPERATION, _STATUS, _ENTRIES, _METADATA)))

    if members["open_intents"]["total"]:
        columns = (_TIME, _OPERATION, _ENTRIES)
        blocks.append(event_table("Intents without an outcome", columns, members["open_intents"], order="oldest"))
    return blocks


def _about(members: dict[str, Any]) -> list[Block]:
    group = members["about"]
    if not group["total"]:
        return ["No event of another user names the person in the places searched, or has one of their sessions."]

    reasons = [{"reason": reason, "total": total} for reason, total in group["by_reason"].items()]
    return [
        _span(group),
        "They may contain data of others, whose rights a copy must not affect (art. 15(4)).",
        Table("Why they are about the person", (Column("Reason", "reason", "code"), _EVENTS), reasons),
        _operations(group),
        _users(group),
        _newest(group, (_TIME, _OPERATION, _USER, _WHY, _ENTRIES, _METADATA)),
    ]


def _on_created(members: dict[str, Any]) -> list[Block]:
    group, created = members["on_created"], members["created"]
    blocks: list[Block] = [
        f"The person created {formatting.count(created['total'], 'entry', 'entries')} in the period. Events of others "
        "with one of these, or with one that the person created before, follow. An entry counts as created by an "
        "operation of the class create that did not fail."
    ]
    if members["unclassified"]:
        events = formatting.count(members["unclassified"], "event")
        blocks.append(
            f"{events} by the person have entries and an operation without a class: they may have created some."
        )
    if not group["total"]:
        return [*blocks, "Nobody else did anything to them."]
    return [
        *blocks,
        _span(group),
        _operations(group),
        _users(group),
        _newest(group, (_TIME, _OPERATION, _USER, _STATUS, _ENTRIES)),
    ]


def _library(members: dict[str, Any]) -> list[Block]:
    group = members["library"]
    if not group["total"]:
        return ["No trail event names the person. A reading is recorded only with --record."]
    return [_newest(group, (_TIME, _OPERATION, _METADATA))]


def _erasure(members: dict[str, Any]) -> list[Block]:
    scope = members["erasure"]
    values = formatting.count(scope["encrypted_values"], "value")
    events = formatting.count(scope["encrypted_events"], "event")
    blocks: list[Block] = [
        f"structlog-audit erase deletes the person's key from the vault. {_KEY_STATES[scope['has_key']]} "
        f"{values} in {events} can then never be read again. Lines stay, so that their proof stays valid: times, "
        "operations and entry ids remain, and so does all that follows here."
    ]
    if scope["names"]:
        columns = (Column("Place", "place", "code"), Column("Name", "name"), _IN_EVENTS)
        blocks.append(Table("Names of the person that remain", columns, scope["names"], _NAMES_NOTE))
    if scope["readable_members"]:
        of_members = (Column("Member of the metadata", "member", "code"), _IN_EVENTS)
        note = "Not encrypted as a whole; which of them are personal data, the application knows."
        blocks.append(Table("Members that remain readable", of_members, scope["readable_members"], note))
    if scope["readable_messages"]:
        messages = formatting.count(scope["readable_messages"], "error message")
        blocks.append(f"{messages} can be read and may name the person.")
    return blocks


_IN_EVENTS = Column("Events", "events", "number")
_NAMES_NOTE = (
    "An identity stays readable. A token leads to nobody after the erasure. A pseudonym leads to the person for whoever has "
    "its key."
)

_KEY_STATES = {
    None: "No vault was given, so it is not known whether there is one.",
    True: "The vault has it.",
    False: "The vault has no key of the person: none was made, or it was erased.",
}
"""Whether the vault has the key of the person."""


def _unknown(members: dict[str, Any]) -> list[Block]:
    items = list(_LIMITS)
    for source, count in members["unsearched"].items():
        events = formatting.count(count, "event")
        items.append(f"Whether the person is in {events} with a {formatting.visible(source)}: its key was not given.")

    for id, noun in (("sessions", "sessions"), ("created", "entries"), ("addresses", "addresses")):
        omitted = members[id]["not_followed"]
        if omitted:
            events = formatting.count(omitted, "event")
            most = formatting.number(person_data.MOST_FOLLOWED)
            items.append(f"What others did with {noun} beyond the first {most} of the person: {events} not followed.")
    return [BulletList(items)]


def _span(group: dict[str, Any]) -> str:
    times = formatting.time_range(group["first"], group["last"])
    events = formatting.count(group["total"], "event")
    failed = formatting.number(group["failures"])

    return f"{events} {times}, of which {failed} failed."


def _operations(group: dict[str, Any]) -> Table:
    return Table("By operation", (_OPERATION, Column("Class", "class"), *_TIMES), group["by_operation"])


def _users(group: dict[str, Any]) -> Table:
    note = _most_note(len(group["by_user"]), group["users"])
    return Table("By user", (_USER, _EVENTS), group["by_user"], note)


def _followed(noun: str, followed: dict[str, Any]) -> Table:
    note = _most_note(len(followed["most"]), followed["total"])
    return Table(f"By {noun.lower()}", (Column(noun, "value", "code"), *_TIMES), followed["most"], note)


def _most_note(shown: int, total: int) -> str:
    return f"The {shown} with the most events, of {formatting.number(total)}." if total > shown else ""


def _newest(group: dict[str, Any], columns: tuple[Column, ...]) -> Table:
    rows = []
    for row in group["newest"]:
        content = None if row["metadata"] is None else (row["metadata"], None)
        rows.append({**row, "why": ", ".join(row["reasons"]), "content": content})
    return event_table("Events, the newest first", columns, {"total": group["total"], "newest": rows})


def _section(id: str) -> Callable[[dict[str, Any]], list[Block]]:
    """Return the function that makes the section *id* as in a compliance report."""
    return lambda members: section_blocks(id, members, {})


_BLOCKS: dict[str, Callable[[dict[str, Any]], list[Block]]] = {
    "person": _person,
    "by_person": _by_person,
    "about": _about,
    "on_created": _on_created,
    "library": _library,
    "erasure": _erasure,
    "completeness": _section("completeness"),
    "integrity": _section("integrity"),
    "unknown": _unknown,
}
