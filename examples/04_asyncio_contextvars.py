"""asyncio: bind the user to structlog's contextvars once per task, and every event of the task has it."""

import asyncio
import logging
import sys
import tempfile
from pathlib import Path

from structlog.contextvars import bind_contextvars, bound_contextvars

from structlog_audit import AuditHandler, audited, get_audit_logger

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

handler = AuditHandler(filename=folder / "audit.jsonl")
audit = logging.getLogger("audit")
audit.setLevel(logging.INFO)
audit.propagate = False
audit.addHandler(handler)
log = get_audit_logger("audit")


@audited("document.read", entry_ids="document_id")
async def read(document_id):
    await asyncio.sleep(0)
    return f"text of {document_id}"


async def request(number):
    # Each task has its own context, so these values are visible to this task only.
    bind_contextvars(user_id=f"user_{number % 3}", session_id=f"session_{number}")

    async with log.operation("document.create") as op:
        await asyncio.sleep(0)
        op.entry_ids.append(f"doc_{number}")
    with bound_contextvars(reason="review"):
        await read(f"doc_{number}")


async def main():
    await asyncio.gather(*(request(number) for number in range(30)))


asyncio.run(main())
print("by operation:", {name: n for name, n in handler.get_statistics()["by_operation"].items() if n})
print("by user:", dict(sorted(handler.get_statistics()["by_user"].items())))
mixed_up = [e for e in handler.iter_events() if e.entry_ids[0].split("_")[1] != e.session_id.split("_")[1]]
print("events with another task's session:", len(mixed_up))
print("reads with a reason:", handler.count_events(metadata={"reason": "review"}))
handler.close()
