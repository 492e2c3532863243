"""The main job: record through structlog and logging, ask, count, and leave files in ./audit-demo to look at."""

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

# Events from structlog …
log = get_audit_logger(required=True)
for number in range(40):
    user = log.bind(user_id=f"user_{number % 4}", session_id=f"session_{number // 10}")
    with user.operation("STORE", tags=["demo"]) as op:
        op.entry_ids.append(f"entry_{number}")
    user.info("RECALL", entry_ids=[f"entry_{number // 2}"], duration_ms=1.5 * number)
user.error("RECALL", error_message="Database connection timeout", duration_ms=5000.0)

# … and from logging.
plain = logging.getLogger("audit.billing")
plain.info("FORGET", extra={"user_id": "user_1", "entry_ids": ["entry_1", "entry_2"], "reason": "GDPR request"})

hour_ago = datetime.now() - timedelta(hours=1)
print("What did user_1 delete in the last hour?")
for event in audit.query_events(user_id="user_1", operation="FORGET", start_time=hour_ago):
    print(f"  {event.timestamp:%H:%M:%S} {', '.join(event.entry_ids)} ({event.metadata['reason']})")

stats = audit.get_statistics()
print(f"{stats['total_events']} events, {stats['success_rate']:.1%} succeeded, p95 {stats['p95_duration_ms']:.1f} ms")
print("By operation:", {name: count for name, count in stats["by_operation"].items() if count})
print("user_1 mostly does", audit.get_user_statistics("user_1")["most_common_operation"])

exported = audit.export_to_file(folder / "export.json")
failures = audit.export_to_file(folder / "failures.csv", status="FAILURE")
print(f"Left in {folder.resolve()}:")
print(f"  {trail.name} (the trail), export.json ({exported} events), failures.csv ({failures} events)")
