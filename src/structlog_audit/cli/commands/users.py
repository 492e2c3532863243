"""``users``: the figures of each user on stdout."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from structlog_audit.cli.choices import Output
from structlog_audit.cli.exit_codes import Exit
from structlog_audit.cli.options import OutputOption, TrailOptions, reads_trails
from structlog_audit.cli.terminal import clean, is_terminal, put, put_document, width
from structlog_audit.events.codec import to_json
from structlog_audit.events.event import rfc3339

if TYPE_CHECKING:
    import datetime as dt

    from rich.table import Table

    from structlog_audit.cli.reading import Reading

EXAMPLES = (
    "users logs/audit.jsonl -n 20 operation=EXPORT",
    "users logs/audit.jsonl --since yesterday -o csv",
)

_LEAST_FOR_WHOLE_TIMES = 60
"""The columns of a terminal from which on a time is not wrapped, so that it can be copied."""

Row = dict[str, Any]


@reads_trails(without=("every_kind",))
def users(
    options: TrailOptions,
    *,
    lines: Annotated[
        int | None, typer.Option("--lines", "-n", min=0, metavar="N", help="Show only the N most active users.")
    ] = None,
    output: OutputOption = "text",
) -> Exit:
    """Show the total, last activity and success rate of each user."""
    from structlog_audit.cli.reading import read_trails
    from structlog_audit.cli.tables import put_table

    def show(reading: Reading) -> Exit:
        found = reading.statistics_by_user()
        if not found:
            reading.explain_absence()
        by_activity = sorted(found.items(), key=lambda item: -item[1]["total_operations"])
        ranked = by_activity[:lines]

        if output != "text":
            rows = [_row(user, figures) for user, figures in ranked]
            _WRITERS[output](rows)
        elif ranked:
            put_table(_table(ranked, options.zone))
        return Exit.DONE

    return read_trails(options, show, quietly=True)


def _row(user: str | None, figures: Mapping[str, Any]) -> Row:
    return {"user_id": user, **figures, "last_activity": rfc3339(figures["last_activity"])}


def _table(ranked: Iterable[tuple[str | None, Mapping[str, Any]]], zone: dt.tzinfo | None) -> Table:
    from structlog_audit.cli.tables import NOTHING, make_table, quoted, time_text

    head = ("USER", "TOTAL", "LAST ACTIVITY", "MOST COMMON", "SUCCESS")

    rows = []
    for user, figures in ranked:
        name = NOTHING if user is None else quoted(user)
        total = figures["total_operations"]
        time = time_text(figures["last_activity"], zone=zone)
        operation = figures["most_common_operation"]
        success = figures["success_rate"]

        row = (clean(name), str(total), time, clean(str(operation)), f"{success:.1%}")
        rows.append(row)

    columns = width()
    has_room = columns is None or columns >= _LEAST_FOR_WHOLE_TIMES
    return make_table(head, rows, numbers=(1, 4), whole=(2,) if has_room else ())


def _put_json(rows: list[Row]) -> None:
    put_document({"users": rows, "total_users": len(rows)})


def _put_jsonl(rows: list[Row]) -> None:
    for row in rows:
        put(to_json(row) + "\n")


def _put_csv(rows: list[Row]) -> None:
    import csv

    from structlog_audit.cli.tables import clean_rows
    from structlog_audit.formats.spreadsheet import safe_cell

    columns = ("user_id", "total_operations", "last_activity", "most_common_operation", "success_rate")
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([safe_cell(row[name]) for name in columns])
    put(clean_rows(sheet.getvalue()) if is_terminal() else sheet.getvalue())


_WRITERS: dict[Output, Callable[[list[Row]], None]] = {
    "json": _put_json,
    "jsonl": _put_jsonl,
    "csv": _put_csv,
}
