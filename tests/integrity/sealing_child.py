"""Programs for the system tests of sealing: a sealer that strace stops, and processes that record.

``python sealing_child.py seal TRAIL KEY ORIGIN`` seals three times while it writes lines, with a rollover in between.
``python sealing_child.py record TRAIL KEY ORIGIN END`` records events with integrity on, until the file END exists.
"""

from __future__ import annotations

import logging
import os
import sys
import time

from structlog_audit import AuditFileHandler, AuditHandler
from structlog_audit.integrity.background import BackgroundSealer
from structlog_audit.integrity.chain_link import ChainedStamp
from structlog_audit.integrity.signing import KeyFile


def seal(trail, key, origin):
    """Seal after each part, and print the number of sealed lines."""
    sealer = BackgroundSealer(trail, origin, lambda: [KeyFile(key, origin)])
    stamp = ChainedStamp()
    for part, count in enumerate((3, 254, 2)):
        with open(trail, "ab") as file:
            for number in range(count):
                file.write(stamp.line(b'"operation":"STORE","user_id":"user_%d","status":"SUCCESS"}' % number))
        # A failed pass is repeated after a second at the earliest.
        sealer._retry_at = 0.0
        if not sealer.seal_now():
            sealer._retry_at = 0.0
            sealer.seal_now()
        print(sealer.size, flush=True)
        if part == 1:
            os.rename(trail, f"{trail}.20250115T100000.000000Z")


def record(trail, key, origin, end):
    """Record in bursts until the file *end* exists, and print the number of events."""
    handler = AuditHandler(
        target=AuditFileHandler(trail, maxBytes=50_000, integrity={"origin": origin, "key": key}),
    )
    logger = logging.Logger("audit")
    logger.addHandler(handler)
    number = 0
    while not os.path.exists(end):
        for _ in range(20):
            logger.info("STORE", extra={"user_id": f"user_{number}"})
            number += 1
        time.sleep(0.1)
    handler.close()
    print(number)


if __name__ == "__main__":
    {"seal": seal, "record": record}[sys.argv[1]](*sys.argv[2:])
