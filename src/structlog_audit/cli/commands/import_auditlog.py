"""``import-auditlog``: the log entries of django-auditlog as events of a trail."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from structlog_audit.cli.exit_codes import Exit
from structlog_audit.cli.terminal import put_line
from structlog_audit.loggers.audit_logger import PrivateLogger
from structlog_audit.loggers.bound_logger import AuditBoundLogger
from structlog_audit.trail.reading.opening import open_trail

EXAMPLES = ("import-auditlog auditlog.jsonl logs/audit.jsonl",)


def import_auditlog(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="Output of manage.py dumpdata contenttypes auditlog.LogEntry, as json or jsonl."
        ),
    ],
    trail: Annotated[str, typer.Argument(metavar="TRAIL", help="Trail that gets the events (active file).")],
) -> Exit:
    """Record the log entries of django-auditlog as events, each once."""
    from structlog_audit.cli.auditlog_rows import content_types, event_fields, is_log_entry, rows_in

    models = content_types(rows_in(file))
    left_out: Counter[str] = Counter()
    count = 0

    # Everything is converted before the first event is recorded, so that a row that is not understood changes nothing.
    for row in rows_in(file):
        if is_log_entry(row):
            event_fields(row, models)
            count += 1
        else:
            left_out[row["model"]] += 1

    known = _imported_before(trail)
    recorded = _record(file, trail, models, known)

    put_line(f"{recorded} of {count} log entries are recorded in {trail}, {count - recorded} were there before")
    for model, rows in sorted(left_out.items()):
        are_not = "row of {} is not a log entry" if rows == 1 else "rows of {} are not log entries"
        put_line(f"{rows} {are_not.format(model)}")
    return Exit.DONE


def _imported_before(trail: str) -> set[str]:
    """Return, as JSON, the keys of the log entries that are in the trail already."""
    from structlog_audit.cli.auditlog_rows import SOURCE

    if not Path(trail).exists():
        return set()

    events = open_trail(trail).iter_events(metadata={"imported_from": SOURCE})
    return {json.dumps(event.metadata.get("log_entry")) for event in events}


def _record(file: str, trail: str, models: dict[object, str], known: set[str]) -> int:
    from structlog_audit.cli.access_record import CommandHandler
    from structlog_audit.cli.auditlog_rows import event_fields, is_log_entry, rows_in

    logger = PrivateLogger("structlog_audit.import_auditlog")
    logger.propagate = False
    handler = CommandHandler(filename=trail, on_error="raise")
    logger.addHandler(handler)
    log = AuditBoundLogger(logger, (), {})

    recorded = 0
    try:
        for row in rows_in(file):
            if is_log_entry(row) and json.dumps(row.get("pk")) not in known:
                operation, fields = event_fields(row, models)
                log.info(operation, **fields)
                recorded += 1
    finally:
        logger.removeHandler(handler)
        handler.close()
    return recorded
