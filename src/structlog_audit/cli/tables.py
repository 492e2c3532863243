"""Tables on stdout, and the texts of their cells."""

from __future__ import annotations

import csv
import datetime as dt
import io
import sys
from collections.abc import Iterable
from typing import Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from structlog_audit.cli.terminal import clean, has_colours, put, width


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
    table = Table(box=None, show_header=head is not None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    rows = list(rows)

    for number, name in enumerate(head or rows[0]):
        justify: Literal["left", "right"] = "right" if number in numbers else "left"
        table.add_column(name if head else "", justify=justify, overflow="fold", no_wrap=number in whole)

    for row in rows:
        table.add_row(*map(Text, row))
    return table


def put_table(table: Table) -> None:
    """Write *table*, whose texts are clean, to stdout."""
    drawn = io.StringIO()
    system = "standard" if has_colours() else None
    console = Console(
        file=drawn, width=width() or 1_000, color_system=system, force_terminal=system is not None,  # type: ignore[arg-type]
        no_color=system is None, highlight=False, markup=False, emoji=False, legacy_windows=False,
    )  # fmt: skip
    console.print(table)
    put("".join(line.rstrip() + "\n" for line in drawn.getvalue().splitlines()))


def quoted(text: str) -> str:
    """Return *text*, in quotes unless it is a single word."""
    return f'"{text}"' if not text or any(character.isspace() for character in text) else text


def time_text(timestamp: dt.datetime, *, in_utc: bool) -> str:
    """Return *timestamp* to the millisecond, in local time with its offset or in UTC."""
    if in_utc:
        return timestamp.astimezone(dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return timestamp.astimezone().isoformat(timespec="milliseconds")


def clean_rows(sheet: str) -> str:
    """Return the CSV text *sheet* for a terminal, with every cell clean."""
    # An event may have any number of entries.
    csv.field_size_limit(sys.maxsize)

    cleaned = io.StringIO()
    writer = csv.writer(cleaned, lineterminator="\n")
    for row in csv.reader(io.StringIO(sheet, newline="")):
        writer.writerow([clean(cell) for cell in row])
    return cleaned.getvalue()
