"""``stats`` and ``users``: what events amount to."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from structlog_audit.cli.exit_codes import Exit, UsageError
from structlog_audit.cli.options import Output
from structlog_audit.cli.output import clean_rows, quoted, time_text
from structlog_audit.cli.reading import Reading, Request, read
from structlog_audit.cli.terminal import clean, is_terminal, put, put_table, width
from structlog_audit.events.codec import to_json
from structlog_audit.events.event import rfc3339
from structlog_audit.export import safe_cell
from structlog_audit.query.statistics import statistics_by_user

if TYPE_CHECKING:
    from rich.table import Table

_MOST = 10
"""Names that a table of the statistics lists; the JSON has all."""

_ROOM = 60
"""Columns of a terminal from which on a time, which is there to be given back, stays in one piece beside the rest."""


def stats(request: Request, output: Output) -> Exit:
    """Write the statistics of the events that *request* asks for."""
    if output not in (Output.TABLE, Output.JSON):
        raise UsageError(f"--output={output.value!r}: statistics are a table or json")

    def act(reading: Reading) -> Exit:
        found = reading.source.get_statistics(**reading.filters)
        if output == Output.JSON:
            put(msgspec.json.format(to_json(_in_json(found)), indent=2) + "\n")
            return Exit.DONE
        put_table(_overview(found, request.in_utc))
        for head, names in (("OPERATION", "by_operation"), ("USER", "by_user")):
            counted = Counter({name: count for name, count in found[names].items() if count})
            if counted:
                put("\n")
                put_table(_counts(head, counted))
        return Exit.DONE

    return read(request, act, quietly=True)


def _in_json(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: rfc3339(value) if isinstance(value, dt.datetime) else value for name, value in found.items()}


def _overview(found: Mapping[str, Any], in_utc: bool) -> Table:
    times = [_time(found[name], in_utc) for name in ("first_event", "last_event")]
    durations = [f"{name} {found[f'{name}_duration_ms']:.6g}" for name in ("avg", "p50", "p95", "p99")]
    statuses = [f"{status} {count}" for status, count in found["by_status"].items()]
    since = found["complete_since"]
    return made_table(
        None,
        [
            ("events", str(found["total_events"])),
            ("first, last", "  ".join(times)),
            ("succeeded", f"{found['success_rate']:.1%}  ({', '.join(statuses)})"),
            ("milliseconds", "  ".join(durations)),
            ("without a user", str(found["without_user"])),
            ("complete since", "the beginning" if since is None else _time(since, in_utc)),
        ],
    )


def _counts(head: str, counted: Counter[str]) -> Table:
    ranked = counted.most_common()
    rows = [(clean(quoted(name)), str(count)) for name, count in ranked[:_MOST]]
    if ranked[_MOST:]:
        rows.append((f"… {len(ranked) - _MOST} more", str(sum(count for _, count in ranked[_MOST:]))))
    return made_table((head, "EVENTS"), rows, numbers=(1,))


def users(request: Request, output: Output, lines: int | None) -> Exit:
    """Write one line for each user of the events that *request* asks for, the most active first; at most *lines*."""

    def act(reading: Reading) -> Exit:
        found = statistics_by_user(reading.source.iter_events(**reading.filters))
        ranked = sorted(found.items(), key=lambda item: -item[1]["total_operations"])[:lines]
        rows = [{"user_id": user, **_in_json(numbers)} for user, numbers in ranked]
        for chunk in _USERS[output](rows) if output != Output.TABLE else ():
            put(chunk)
        if output == Output.TABLE and ranked:
            put_table(_of_users(ranked, request.in_utc))
        return Exit.DONE

    return read(request, act, quietly=True)


def _of_users(ranked: Iterable[tuple[str | None, Mapping[str, Any]]], in_utc: bool) -> Table:
    head = ("USER", "TOTAL", "LAST ACTIVITY", "MOST COMMON", "SUCCESS")
    rows = [
        (
            "-" if user is None else clean(quoted(user)),
            str(numbers["total_operations"]),
            _time(numbers["last_activity"], in_utc),
            clean(str(numbers["most_common_operation"])),
            f"{numbers['success_rate']:.1%}",
        )
        for user, numbers in ranked
    ]
    has_room = (width() or _ROOM) >= _ROOM
    return made_table(head, rows, numbers=(1, 4), whole=(2,) if has_room else ())


def _document(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield msgspec.json.format(to_json({"users": rows, "total_users": len(rows)}), indent=2) + "\n"


def _lines(rows: list[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        yield to_json(row) + "\n"


def _sheet(rows: list[dict[str, Any]]) -> Iterator[str]:
    import csv
    from io import StringIO

    sheet = StringIO()
    writer = csv.writer(sheet, lineterminator="\r\n")
    columns = ("user_id", "total_operations", "last_activity", "most_common_operation", "success_rate")
    writer.writerow(columns)
    writer.writerows([safe_cell(row[name]) for name in columns] for row in rows)
    yield clean_rows(sheet.getvalue()) if is_terminal() else sheet.getvalue()


_USERS: dict[Output, Callable[[list[dict[str, Any]]], Iterator[str]]] = {
    Output.JSON: _document,
    Output.JSONL: _lines,
    Output.CSV: _sheet,
}


def _time(moment: dt.datetime | None, in_utc: bool) -> str:
    return "-" if moment is None else time_text(moment, in_utc=in_utc)


def made_table(
    head: tuple[str, ...] | None,
    rows: Iterable[tuple[str, ...]],
    *,
    numbers: tuple[int, ...] = (),
    whole: tuple[int, ...] = (),
) -> Table:
    """A table of rich with the clean texts *rows* and *head*.

    The columns *numbers* are aligned to the right, and the columns *whole* are not broken where others can be.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=head is not None, pad_edge=False, padding=(0, 2, 0, 0), header_style="")
    rows = list(rows)
    for number, name in enumerate(head or rows[0]):
        justify: Literal["left", "right"] = "right" if number in numbers else "left"
        table.add_column(name if head else "", justify=justify, overflow="fold", no_wrap=number in whole)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
