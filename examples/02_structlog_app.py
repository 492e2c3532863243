"""An existing structlog application: add ``AuditProcessor``, and every log event with an ``operation`` is recorded."""

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
        # After the processors that add context, before the renderer.
        AuditProcessor("audit"),
        structlog.processors.JSONRenderer(sort_keys=True),
    ],
    logger_factory=structlog.PrintLoggerFactory(),
)

log = structlog.get_logger().bind(user_id="user_123")

# An ordinary log message: not recorded, because it has no operation.
log.info("request started", path="/documents")

log.info("document created", operation="document.create", entry_ids=["doc_1"], source="api")
log.error("document not found", operation="document.read", entry_ids=["doc_9"])

for event in handler.iter_events():
    print(f"recorded: {event.operation} {event.status} {event.user_id} {event.entry_ids} {event.metadata}")
handler.close()
