"""A program that fills and frees the disk of a trail and prints the outcome. It needs a separate mount namespace.

``unshare -Urm python full_disk.py FOLDER on_error max_pending``
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from trails import Trail

from structlog_audit import AuditHandler, AuditWriteError

folder, on_error, max_pending = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], check=True)
path = folder / "logs" / "audit.jsonl"
handler = AuditHandler(
    filename=path, on_error=on_error, max_pending=max_pending, call_later=lambda seconds, function: None
)

# A second handler on the same trail stands for another process.
other = AuditHandler(filename=path, call_later=lambda seconds, function: None)

loggers = {"one": logging.Logger("one"), "other": logging.Logger("other")}
loggers["one"].addHandler(handler)
loggers["other"].addHandler(other)
raised, number = [], 0


def record(count, name="one"):
    global number
    for _ in range(count):
        number += 1
        try:
            loggers[name].info("STORE", extra={"entry_ids": [str(number)], "pad": "x" * (number % 100)})
        except AuditWriteError:
            raised.append(number)


outages = []
for _ in range(3):
    record(3)
    filler = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while True:
            os.write(filler, b"x" * 1_000)
    except OSError:
        os.close(filler)
    record(60)
    before = handler._counters()
    (folder / "filler").unlink()

    # The other handler did not see the outage, and did not write the torn line.
    record(2, "other")
    record(2)
    outages.append((before, handler._counters()))
handler.flush()
trail = Trail(path)
print(json.dumps({
    "outages": outages, "end": handler._counters(), "other": other._counters(), "raised": raised, "submitted": number,
    "numbers": trail.numbers, "gaps": trail.gaps, "torn": len(trail.torn), "ids": trail.ids,
}))  # fmt: skip
