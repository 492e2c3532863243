"""Plain ``logging``: pass the fields in ``extra=``. The existing console handler keeps working."""

import logging
import sys
import tempfile
from pathlib import Path

from structlog_audit import AuditHandler

folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="console: %(levelname)s %(name)s %(message)s")
handler = AuditHandler(filename=folder / "audit.jsonl")
logging.getLogger("audit").addHandler(handler)

log = logging.getLogger("audit.billing")
# The message is the operation, unless the field "operation" names it.
log.info("invoice.create", extra={"user_id": "user_123", "entry_ids": ["invoice_7"], "amount": 99.5})
log.info("invoice %s sent", "7", extra={"operation": "invoice.send", "user_id": "user_123"})
try:
    raise TimeoutError("the bank did not respond")
except TimeoutError:
    log.exception("payment.collect", extra={"user_id": "user_456"})

for event in handler.iter_events():
    print(f"recorded: {event.operation} {event.status} {event.user_id} {event.metadata} {event.error_message or ''}")
for finding in handler.check():
    print("finding:", finding.code)
handler.close()
