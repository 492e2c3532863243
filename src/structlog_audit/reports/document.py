"""A report as a document: sections of paragraphs, tables and figures, before anybody decides how they look.

Rules:

* Every form of a report is made of this, so all say the same.
* A cell is a value as it is in the report; the ``kind`` of its column says how it is written (`plain`). Escaping is a matter of
  the form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from structlog_audit.reports import formatting as text


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its title, the kind of its values, and the member of a row that it shows."""

    title: str
    name: str
    kind: str = "text"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of values. ``note`` says what was left out; ``is_list`` that rows are read one by one, not compared."""

    caption: str
    columns: tuple[Column, ...]
    rows: Sequence[dict[str, Any]]
    note: str = ""
    is_list: bool = False


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart by its name, what it shows in words, and its numbers."""

    name: str
    caption: str
    text: str
    table: Table | None = None


@dataclass(frozen=True, slots=True)
class Listing:
    """Short texts, one below the other."""

    items: Sequence[str]


Block = str | Table | Figure | Listing


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
    complete: bool
    verdict: str
    keys: Sequence[tuple[str, str]]
    sections: Sequence[Section]


def plain(kind: str, value: Any) -> str:
    """*value* of this *kind* as text. None, and a detail without anything, is a dash."""
    return NOTHING if value is None else _PLAIN[kind](value) or NOTHING


NOTHING = "–"

_PLAIN: dict[str, Callable[[Any], str]] = {
    "text": text.visible,
    "code": text.name,
    "user": text.name,
    "status": str,
    "number": text.number,
    "rate": text.percent,
    "ms": text.milliseconds,
    "time": text.second,
    "month": text.month_name,
    "detail": lambda value: text.visible(" · ".join(filter(None, value))),
    "sections": lambda value: ", ".join(f"{number} {title}" for _, number, title in value),
}
