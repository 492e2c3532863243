"""Tables on stdout, and the texts of their cells."""

from __future__ import annotations

import csv
import datetime as dt
import io
import re
import sys
from collections.abc import Iterable
from typing import Literal

from rich.table import Table
from rich.text import Text

from structlog_audit.cli.terminal import clean, put, stdout_console, width

NOTHING = "–"
"""What people see where there is no value."""

_SPACE = re.compile(r"\s")
_UNBOUNDED = 1_000
"""The width of a table in a pipe."""


def make_table(
    head: tuple[str, ...] | None,
    rows: Iterable[tuple[str, ...]],
    *,
    numbers: tuple[int, ...] = (),
    whole: tuple[int, ...] = (),
) -> Table:
    """Return a table of the clean texts *head* and *rows*.

    Args:
        head: The names of the columns; None for a table without a head.
        rows: At least one row if there is no head.
        numbers: Columns that are aligned to the right.
        whole: Columns that are not wrapped where others can be.
    """
    rows = list(rows)
    names = [""] * len(rows[0]) if head is None else head

    table = Table(
        box=None,
        show_header=head is not None,
        header_style="",
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    for number, name in enumerate(names):
        justify: Literal["left", "right"] = "right" if number in numbers else "left"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=number in whole)

    for row in rows:
        table.add_row(*map(Text, row))
    return table


def put_table(table: Table) -> None:
    """Write *table*, with texts that are clean, to stdout."""
    console = stdout_console(width() or _UNBOUNDED)
    with console.capture() as drawn:
        console.print(table)
    for line in drawn.get().splitlines():
        put(line.rstrip() + "\n")


def quoted(text: str) -> str:
    """Return *text*, in quotes if it is empty or contains whitespace."""
    return f'"{text}"' if not text or _SPACE.search(text) else text


def time_text(timestamp: dt.datetime | None, *, zone: dt.tzinfo | None) -> str:
    """Return *timestamp* to the millisecond in *zone*, or in local time if that is None: with the offset, or Z for UTC."""
    if timestamp is None:
        return NOTHING
    text = timestamp.astimezone(zone).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z") if zone is dt.UTC else text


def clean_rows(sheet: str) -> str:
    """Return the CSV text *sheet* for a terminal, with every cell cleaned."""
    # An event may have any number of entries.
    csv.field_size_limit(sys.maxsize)

    cleaned = io.StringIO()
    writer = csv.writer(cleaned, lineterminator="\n")
    for row in csv.reader(io.StringIO(sheet, newline="")):
        writer.writerow([clean(cell) for cell in row])
    return cleaned.getvalue()
