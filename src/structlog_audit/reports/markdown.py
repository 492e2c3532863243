"""A report as Markdown, with GitHub's tables.

Rules:

* A text of an event is shown as it is, and does nothing: what could begin markup, a link, HTML or another cell is escaped, by
  backslashes where every renderer knows them, otherwise by character references.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from structlog_audit.reports.document import Column, Document, Figure, Listing, Section, Table, plain

_REFERENCES = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "|": "&#124;",
    "@": "&#64;",
    "~": "&#126;",
    "$": "&#36;",
    "^": "&#94;",
}
_SPECIAL = re.compile(r"[\\`*_{}\[\]#!&<>|@~$^]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_NUMERIC = {"number", "rate", "ms"}


def escape(text: str) -> str:
    """*text*, which has no line ends, so that Markdown shows it as it is."""
    return _SPECIAL.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    return _REFERENCES.get(character) or ("&#58;" if character == ":" else f"\\{character}")


def markdown(report: Document) -> str:
    """*report* as Markdown."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Document) -> Iterator[str]:
    yield f"# {escape(report.title)}: {escape(report.subtitle)}"
    yield ""
    for name, value in report.facts:
        yield f"- **{escape(name)}:** {escape(value)}"
    yield f"- **Completeness:** {escape(report.verdict)}"
    yield ""
    names, values = zip(*report.keys, strict=True)
    yield from _row(names)
    yield from _row(["---:"] * len(names))
    yield from _row(values)
    for section in report.sections:
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    yield ""
    yield f"## {section.number}. {escape(section.title)}"
    for block in section.blocks:
        yield ""
        if isinstance(block, str):
            yield escape(block)
        elif isinstance(block, Listing):
            yield from (f"- {escape(item)}" for item in block.items)
        elif isinstance(block, Figure):
            yield escape(block.text)
            if block.table is not None:
                yield ""
                yield from _table(block.table)
        else:
            yield from _table(block)


def _table(table: Table) -> Iterator[str]:
    yield f"**{escape(table.caption)}.** {escape(table.note)}".rstrip()
    yield ""
    yield from _row([escape(column.title) for column in table.columns])
    yield from _row(["---:" if column.kind in _NUMERIC else "---" for column in table.columns])
    for row in table.rows:
        yield from _row([_cell(column, row) for column in table.columns])


def _cell(column: Column, row: dict[str, object]) -> str:
    return escape(plain(column.kind, row[column.name]))


def _row(cells: Iterable[str]) -> Iterator[str]:
    yield "| " + " | ".join(cells) + " |"
