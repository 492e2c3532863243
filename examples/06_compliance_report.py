"""Compute a monthly compliance report and check for excessive deletions, using only queries."""

import asyncio
import json
import logging
import sys
from collections import Counter
from datetime import datetime, timedelta

from memory_system import MemorySystem

from structlog_audit import AuditLogger, OperationType

logger = logging.getLogger("security")
audit_logger = AuditLogger(max_events=10_000)


def generate_compliance_report(month, year):
    start_time = datetime(year, month, 1)
    # The month after December is January of the next year.
    end_time = datetime(year + month // 12, month % 12 + 1, 1)
    events = audit_logger.query_events(start_time=start_time, end_time=end_time)
    users = {}
    for event in events:
        users.setdefault(event.user_id or "anonymous", Counter())[event.operation.value] += 1
    names = {"stores": "STORE", "recalls": "RECALL", "deletions": "FORGET"}
    return {
        "period": f"{year}-{month:02d}",
        # False if the buffer has evicted events.
        "complete": audit_logger.complete_since is None,
        "total_events": len(events),
        "users": len(users),
        "operations": Counter(event.operation.value for event in events),
        "user_activity": {
            user_id: {"total": done.total(), **{name: done[operation] for name, operation in names.items()}}
            for user_id, done in users.items()
        },
    }


def monitor_security(limit=100):
    hour_ago = datetime.now() - timedelta(hours=1)
    deletions = audit_logger.count_events(operation=OperationType.FORGET, start_time=hour_ago)
    if deletions > limit:
        logger.warning("Excessive deletions: %d in last hour", deletions)


async def main():
    memory = MemorySystem(audit_logger=audit_logger)
    for number in range(120):
        entry_id = await memory.store(f"note {number}", user_id="user_123")
        await memory.forget(entry_id, user_id="user_123" if number % 4 else None)
    monitor_security()
    print(json.dumps(generate_compliance_report(datetime.now().month, datetime.now().year), indent=2))
    print("December:", generate_compliance_report(12, 2024)["period"])


logging.basicConfig(stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s")
asyncio.run(main())
