"""An application with a structlog chain of its own: one processor more, and what carries an ``operation`` is audited."""

import logging
import sys
import tempfile
from pathlib import Path

import structlog

from structlog_audit import AuditHandler, AuditProcessor

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

handler = AuditHandler(filename=folder / "audit.jsonl")
audit = logging.getLogger("audit")
audit.setLevel(logging.INFO)
audit.propagate = False
audit.addHandler(handler)

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        AuditProcessor("audit"),  # behind what adds context, before what renders
        structlog.processors.JSONRenderer(sort_keys=True),
    ],
    logger_factory=structlog.PrintLoggerFactory(),
)

log = structlog.get_logger().bind(user_id="user_123")
log.info("request started", path="/entries")  # an application's message: not audited
log.info("entry stored", operation="STORE", entry_ids=["entry_1"], source="api")
log.error("entry not found", operation="RECALL", entry_ids=["entry_9"])

for event in handler.iter_events():
    print(f"audited: {event.operation} {event.status} {event.user_id} {event.entry_ids} {event.metadata}")
handler.close()
