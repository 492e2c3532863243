"""A report as a document: sections of paragraphs, tables and figures, independent of the output format.

**Guarantees**

* Every output format renders this document, so all formats have the same content.
* A cell holds the value as in the report's data; the ``kind`` of its column selects the text form (`cell_text`). Escaping
  is left to the output format.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from structlog_audit.reports import formatting


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, the name of the member in rows, and the kind of values."""

    title: str
    name: str
    kind: str = "text"

    def heading(self, zone: str) -> str:
        """Return the title; that of times with the name of their *zone*."""
        return f"{self.title} ({zone})" if self.kind == "time" else self.title


@dataclass(frozen=True, slots=True)
class Table:
    """A table of values.

    ``note`` describes omitted rows. ``is_list`` marks rows to be read one by one rather than compared.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[dict[str, Any]]
    note: str = ""
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart by its name, with a description in words and a table of its numbers."""

    name: str
    caption: str
    text: str
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class BulletList:
    """A list of short texts."""

    items: Sequence[str]


Block = str | Table | Figure | BulletList


@dataclass(frozen=True, slots=True)
class Section:
    """A numbered section."""

    id: str
    number: int
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Document:
    """A report as a document."""

    title: str
    subtitle: str
    facts: Sequence[tuple[str, str]]
    verdict: str
    """``complete``, ``incomplete`` or ``unknown``."""
    headline: str
    """The verdict in a few words."""
    keys: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    zone: str
    """The name of the zone of all times."""


NOTHING = "–"
"""The text of a cell without a value."""


def cell_text(kind: str, value: Any) -> str:
    """Return a value of a column of this *kind* as text, or a dash for no value."""
    if value is None:
        return NOTHING
    return _CELL_TEXTS[kind](value) or NOTHING


def _detail_text(parts: Sequence[str | None]) -> str:
    return formatting.visible(" · ".join(filter(None, parts)))


def _section_references(sections: Sequence[tuple[str, int, str]]) -> str:
    references = [f"{number} {title}" for _, number, title in sections]
    return ", ".join(references)


_CELL_TEXTS: dict[str, Callable[[Any], str]] = {
    "text": formatting.visible,
    "code": formatting.display_name,
    "user": formatting.display_name,
    "status": str,
    "number": formatting.number,
    "figure": str,
    "rate": formatting.percent,
    "ms": formatting.milliseconds,
    "time": formatting.timestamp,
    "month": formatting.month_name,
    "detail": _detail_text,
    "sections": _section_references,
}
