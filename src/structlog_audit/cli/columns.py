"""The columns that ``--columns`` names, for tables of events: the same names as in an export."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from structlog_audit.cli.exit_codes import UsageError
from structlog_audit.cli.tables import NOTHING, quoted, time_text
from structlog_audit.cli.terminal import clean
from structlog_audit.events.event import AuditEvent
from structlog_audit.exceptions import AuditValueError
from structlog_audit.query.field_tests import text_of


def parse_columns(text: str | None, output: str = "csv") -> tuple[str, ...] | None:
    """Return the names in *text*, which commas separate; None for None.

    Raises:
        UsageError: A name is unknown or occurs twice, or *output* has no columns. The message has the known ones.
    """
    if text is None:
        return None
    if output not in ("text", "csv"):
        raise UsageError(f"--columns: expected --output text or csv, got {output}, which has no columns")

    # Imported lazily: most command lines name no columns.
    from structlog_audit.formats.spreadsheet import checked_columns

    try:
        return checked_columns([name.strip() for name in text.split(",")])
    except AuditValueError as error:
        raise UsageError(f"--{error}") from None


def cell_reader(name: str, zone: dt.tzinfo | None) -> Callable[[AuditEvent], str]:
    """Return a function that returns the cell of the column *name* for people, clean, with times in *zone*."""
    from structlog_audit.formats.spreadsheet import METADATA, value_at

    if name == "timestamp":
        return lambda event: time_text(event.timestamp, zone=zone)
    if name == "entry_ids":
        return lambda event: clean(",".join(map(quoted, event.entry_ids))) or NOTHING
    if name.startswith(METADATA):
        path = name.removeprefix(METADATA)
        return lambda event: _cell(value_at(event.metadata, path))
    return lambda event: _cell(getattr(event, name))


def _cell(value: object) -> str:
    return NOTHING if value is None or value == {} else clean(quoted(text_of(value)))
