"""axon-sdk 1.0.0b2: ``structlog_audit.AuditLogger`` replaces the audit logger of an unchanged ``MemorySystem``.

Needs: pip install axon-sdk==1.0.0b2
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from axon.core.config import MemoryConfig
from axon.core.memory_system import MemorySystem
from axon.core.policies.persistent import PersistentPolicy
from axon.models.filter import Filter

from structlog_audit import AuditLogger

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
trail = folder / "audit.jsonl"


async def main():
    config = MemoryConfig(persistent=PersistentPolicy(adapter_type="memory"), default_tier="persistent")
    with AuditLogger(filename=trail) as audit_logger:
        async with MemorySystem(config, audit_logger=audit_logger) as memory:
            await memory.store("Alice likes hiking", metadata={"user_id": "alice"}, importance=0.8, tags=["hobby"])
            await memory.store("Mail bob@example.com or call 555-123-4567", metadata={"user_id": "bob"})
            await memory.recall("hiking", filter=Filter(user_id="alice"))
            await memory.export()
            try:
                await memory.store("")
            except ValueError as error:
                print("rejected by axon:", error)

            print("in memory:")
            for event in audit_logger.iter_events():
                print(f"  {event.operation:7}{event.status:8} {event.user_id} {event.error_message or ''}")
            with_pii = audit_logger.query_events(metadata={"pii_detected": True})
            print("with PII:", sorted(with_pii[0].metadata["pii_types"]))
            print("axon's export_audit_log:", len(await memory.export_audit_log(user_id="alice")), "events of alice")

    print(f"in {trail}:")
    for line in trail.read_text().splitlines():
        event = json.loads(line)
        if "kind" not in event:  # the trail events "opened" and "closed" have a kind
            print("  " + event["operation"], event["status"], len(event.get("entry_ids", [])), "entries")


asyncio.run(main())
