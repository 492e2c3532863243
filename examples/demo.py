"""Demo: record events with structlog and logging, query and count them, and write files to ./audit-demo."""

import logging.config
import sys
from datetime import datetime, timedelta
from pathlib import Path

from structlog_audit import get_audit_handler, get_audit_logger

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "audit-demo")
trail = folder / "audit.jsonl"

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "handlers": {
            "audit_file": {"class": "structlog_audit.AuditFileHandler", "filename": str(trail)},
            "audit": {"class": "structlog_audit.AuditHandler", "target": "audit_file", "warm_start": True},
        },
        "loggers": {"audit": {"handlers": ["audit"], "level": "INFO", "propagate": False}},
    }
)
audit = get_audit_handler()

# Record events with structlog.
log = get_audit_logger(required=True)
for number in range(40):
    user = log.bind(user_id=f"user_{number % 4}", session_id=f"session_{number // 10}")
    with user.operation("document.create", tags=["demo"]) as op:
        op.entry_ids.append(f"doc_{number}")
    user.info("document.read", entry_ids=[f"doc_{number // 2}"], duration_ms=1.5 * number)
user.error("document.read", error_message="Database connection timeout", duration_ms=5000.0)

# Record an event with logging.
plain = logging.getLogger("audit.billing")
fields = {"user_id": "user_1", "entry_ids": ["doc_1", "doc_2"], "reason": "GDPR request"}
plain.info("document.delete", extra=fields)

hour_ago = datetime.now() - timedelta(hours=1)
print("What did user_1 delete in the last hour?")
for event in audit.query_events(user_id="user_1", operation="document.delete", start_time=hour_ago):
    print(f"  {event.timestamp:%H:%M:%S} {', '.join(event.entry_ids)} ({event.metadata['reason']})")

stats = audit.get_statistics()
print(f"{stats['total_events']} events, {stats['success_rate']:.1%} succeeded, p95 {stats['p95_duration_ms']:.1f} ms")
print("By operation:", {name: count for name, count in stats["by_operation"].items() if count})
print("Most common operation of user_1:", audit.get_user_statistics("user_1")["most_common_operation"])

exported = audit.export_to_file(folder / "export.json")
failures = audit.export_to_file(folder / "failures.csv", status="FAILURE")
print(f"Files in {folder.resolve()}:")
print(f"  {trail.name} (the trail), export.json ({exported} events), failures.csv ({failures} events)")
