"""Quickstart: an audit trail by ``logging.config.dictConfig``, in memory and in a file."""

import json
import logging.config
import sys
import tempfile
from pathlib import Path

from structlog_audit import OperationType, get_audit_handler, get_audit_logger

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "audit_file": {"class": "structlog_audit.AuditFileHandler", "filename": str(folder / "audit.jsonl")},
            "audit": {"class": "structlog_audit.AuditHandler", "max_events": 10_000, "target": "audit_file"},
        },
        "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}},
    }
)

log = get_audit_logger(required=True, user_id="user_123")
log.info("STORE", entry_ids=["entry_1"], tags=["verified"], duration_ms=12.5)
log.info(OperationType.RECALL, entry_ids=["entry_1"])
log.error("FORGET", entry_ids=["entry_2"], error_message="no such entry")
try:
    with log.operation("EXPORT", entry_ids=["entry_1"]) as op:
        op.metadata["format"] = "csv"
        raise PermissionError("user_123 may not export")
except PermissionError:
    pass  # recorded, with its duration and its error

handler = get_audit_handler()
for event in handler.query_events(user_id="user_123", newest_first=False):
    print(f"{event.operation:8}{event.status:9}{event.entry_ids} {event.error_message or ''}")
print(f"{handler.count_events(status='FAILURE')} of {handler.count_events()} failed")
lines = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
events = [line for line in lines if "kind" not in line]  # the others are the trail's own, such as its opening
print(f"{len(events)} events in {folder / 'audit.jsonl'}")
