"""Quickstart: configure an audit trail in memory and in a file with ``logging.config.dictConfig``."""

import json
import logging.config
import sys
import tempfile
from pathlib import Path

from structlog_audit import get_audit_handler, get_audit_logger

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
log.info("user.login", address="203.0.113.7")
log.info("document.create", entry_ids=["doc_1"], tags=["verified"], duration_ms=12.5)
log.error("document.delete", entry_ids=["doc_2"], error_message="no such document")

# The block records its duration and, because it raises, its error.
try:
    with log.operation("report.export", entry_ids=["report_1"]) as op:
        op.metadata["format"] = "csv"
        raise PermissionError("user_123 may not export")
except PermissionError:
    pass

handler = get_audit_handler()
for event in handler.query_events(user_id="user_123", newest_first=False):
    print(f"{event.operation:16}{event.status:8} {event.entry_ids} {event.error_message or ''}")
print(f"{handler.count_events(status='FAILURE')} of {handler.count_events()} failed")

# Lines with a kind are the library's own, such as the one that records the opening of the trail.
lines = [json.loads(line) for line in (folder / "audit.jsonl").read_text().splitlines()]
events = [line for line in lines if "kind" not in line]
print(f"{len(events)} events in {folder / 'audit.jsonl'}")
