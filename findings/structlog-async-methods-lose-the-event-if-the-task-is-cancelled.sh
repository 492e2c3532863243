#!/usr/bin/env bash
# "await log.ainfo(…)" of structlog writes nothing if the task is cancelled, for example by a timeout, while all threads of the
#   default executor are busy.
#
# A reader would expect: the event is written, since the call was made; structlog has no queue that could drop it.
# Guessed before running: the event is still written when a thread is free.
# Seen on 2026-11-29, Python 3.11.7, structlog 26.1.0: with the threads busy, three handlers log "payment done" and are
#   cancelled by wait_for(); none of the three is ever written, also after the threads are free again, and the handlers get
#   CancelledError only. With a free thread all are written, and with log.info() too. FilteringBoundLogger and BoundLogger are
#   alike.
# What follows: an overloaded service, whose threads wait for a database or for DNS, loses the events of the requests that time
#   out or whose clients leave, of all requests those to be explained later, and counts none. Use the methods without "a" for
#   audit.
# The reason: the event waits as a job of the executor, and asyncio cancels a job that has not begun, together with its future.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv" || exit 2
"$work/venv/bin/pip" install -q --disable-pip-version-check structlog==26.1.0 || exit 2
"$work/venv/bin/python" - <<'PY'
import asyncio
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import structlog

print("Python", sys.version.split()[0], "structlog", version("structlog"))
lines = []


class Keep(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())


logging.basicConfig(level="INFO", handlers=[Keep()])
WRAPPERS = [structlog.make_filtering_bound_logger(logging.INFO), structlog.stdlib.BoundLogger]


async def handler(log, asynchronous, number):
    """Log as a handler of a request does, after the payment was made."""
    if asynchronous:
        await log.ainfo("payment done", number=number)
    else:
        log.info("payment done", number=number)
        await asyncio.sleep(0)


async def serve(log, asynchronous, busy):
    """Run three handlers with a timeout, while the only thread of the executor is busy or not; return the number of lines."""
    lines.clear()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    release = threading.Event()
    if not busy:
        release.set()
    slow = loop.run_in_executor(None, release.wait)
    requests = [asyncio.create_task(handler(log, asynchronous, number)) for number in range(3)]
    if busy:
        _, pending = await asyncio.wait(requests, timeout=0.2)
        for request in pending:
            request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    release.set()
    await slow
    await loop.shutdown_default_executor()
    return len(lines)


seen = []
for wrapper in WRAPPERS:
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        wrapper_class=wrapper,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    log = structlog.get_logger("audit")
    for method, busy in (("ainfo", True), ("ainfo", False), ("info", True)):
        written = asyncio.run(serve(log, method == "ainfo", busy))
        seen.append(written)
        print(f"{wrapper.__name__}.{method}(), threads {'busy' if busy else 'free'}: {written} of 3 events are written")

print("as seen before" if seen == [0, 3, 3] * 2 else "CHANGED")
sys.exit(seen != [0, 3, 3] * 2)
PY
