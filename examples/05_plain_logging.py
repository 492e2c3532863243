"""No structlog in the application: ``logging`` with ``extra=``, beside the console that was there before."""

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
log.info("STORE", extra={"user_id": "user_123", "entry_ids": ["invoice_7"], "amount": 99.5})
log.info("invoice %s sent", "7", extra={"operation": "invoice.sent", "user_id": "user_123"})
try:
    raise TimeoutError("the bank does not answer")
except TimeoutError:
    log.exception("PAYMENT", extra={"user_id": "user_456"})

for event in handler.iter_events():
    print(f"audited: {event.operation} {event.status} {event.user_id} {event.metadata} {event.error_message or ''}")
for finding in handler.check():
    print("finding:", finding.code)
handler.close()
