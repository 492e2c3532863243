"""A report as Markdown, with GitHub's tables.

**Guarantees**

* Texts of events appear literally. Characters that could begin markup, a link, HTML or another cell are escaped: by
  backslashes where every renderer supports them, otherwise by character references.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from structlog_audit.reports.document import BulletList, Column, Document, Figure, Section, Table, cell_text

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
_NUMERIC = {"number", "figure", "rate", "ms"}


def escape_markdown(text: str) -> str:
    """Return *text*, a single line, escaped so that Markdown shows it literally."""
    return _SPECIAL.sub(_escape_character, text)


def _escape_character(match: re.Match[str]) -> str:
    character = match[0]
    if character == ":":
        return "&#58;"
    return _REFERENCES.get(character, f"\\{character}")


def render_markdown(report: Document) -> str:
    """Return *report* as Markdown."""
    return "\n".join(_lines(report)) + "\n"


def _lines(report: Document) -> Iterator[str]:
    yield f"# {escape_markdown(report.title)}: {escape_markdown(report.subtitle)}"

    yield ""
    for name, value in report.facts:
        yield f"- **{escape_markdown(name)}:** {escape_markdown(value)}"
    yield f"- **Completeness:** {escape_markdown(report.headline)}"

    yield ""
    names, values = zip(*report.keys, strict=True)
    yield _row(names)
    yield _row(["---:"] * len(names))
    yield _row(values)

    for section in report.sections:
        yield from _section(section, report.zone)


def _section(section: Section, zone: str) -> Iterator[str]:
    yield ""
    yield f"## {section.number}. {escape_markdown(section.title)}"

    for block in section.blocks:
        yield ""
        if isinstance(block, str):
            yield escape_markdown(block)
        elif isinstance(block, BulletList):
            for item in block.items:
                yield f"- {escape_markdown(item)}"
        elif isinstance(block, Figure):
            yield from _figure(block, zone)
        else:
            yield from _table(block, zone)


def _figure(figure: Figure, zone: str) -> Iterator[str]:
    """Yield the description of *figure* and its numbers in place of the chart."""
    yield escape_markdown(figure.text)
    if figure.table is not None:
        yield ""
        yield from _table(figure.table, zone)


def _table(table: Table, zone: str) -> Iterator[str]:
    yield f"**{escape_markdown(table.caption)}.** {escape_markdown(table.note)}".rstrip()
    yield ""

    yield _row([escape_markdown(column.heading(zone)) for column in table.columns])
    yield _row([_delimiter(column) for column in table.columns])
    for row in table.rows:
        yield _row([_cell(column, row) for column in table.columns])


def _delimiter(column: Column) -> str:
    return "---:" if column.kind in _NUMERIC else "---"


def _cell(column: Column, row: dict[str, object]) -> str:
    value = row[column.name]
    text = cell_text(column.kind, value)
    return escape_markdown(text)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
