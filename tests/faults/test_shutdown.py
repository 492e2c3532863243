"""The end of the interpreter, and clock jumps."""

from __future__ import annotations

import logging

import pytest
from trails import Trail, figure, run_code

from structlog_audit import AuditFileHandler, AuditHandler

pytestmark = pytest.mark.system

SETUP = """
import atexit, logging, os, sys, threading
from structlog_audit import AuditFileHandler, AuditHandler, get_audit_logger
handler = AuditHandler(target=AuditFileHandler(sys.argv[1], maxBytes=100_000))
logger = logging.getLogger("audit")
logger.propagate = False
logger.setLevel("INFO")
logger.addHandler(handler)
log = get_audit_logger()
def hammer():
    number = 100
    while True:
        number += 1
        if log._record(logging.INFO, "STORE", {"entry_ids": [str(number)]}).state == "recorded":
            os.write(1, b"%d\\n" % number)
def daemons(count):
    for _ in range(count):
        threading.Thread(target=hammer, daemon=True).start()
def say(number):
    log.info("STORE", entry_ids=[str(number)])
    os.write(1, b"%d\\n" % number)
class Last:
    def __del__(self):
        say(3)
"""
ENDINGS = {
    "atexit": ("atexit.register(say, 2)\nsay(1)", 0),
    "sys.exit": ("say(1)\nsys.exit(7)", 7),
    "sys.exit in a thread": (
        "t = threading.Thread(target=lambda: (say(1), sys.exit(7)))\nt.start()\nt.join()\nsay(2)",
        0,
    ),
    "an unhandled exception": ("sys.excepthook = lambda *e: say(2)\nsay(1)\nraise ValueError", 1),
    "daemon threads": ("daemons(3)\nwhile handler._counters()['recorded'] < 100: pass", 0),
    "daemon threads and atexit": ("daemons(3)\natexit.register(say, 2)\nsay(1)", 0),
    "daemon threads and __del__": ("daemons(2)\nlast = Last()\nkept = sys\nsys.kept = last\nsay(1)", 0),
    "a thread that goes on": (
        "t = threading.Thread(target=lambda: [say(n) for n in range(10, 60)])\nt.start()\nsay(1)",
        0,
    ),
    "__del__ of a global": ("last = Last()\nsay(1)", 0),
    "a target closed before": ("atexit.register(say, 2)\nlogging.shutdown()\nsay(1)", 0),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_interpreter_exit_neither_hangs_nor_loses_an_event(tmp_path, ending):
    """For every way to exit, all calls that returned are in the trail, and the process ends."""
    code, status = ENDINGS[ending]
    rounds = 10 if "daemon" in ending else 1
    for number in range(rounds):
        path = tmp_path / str(number) / "audit.jsonl"
        # A hang exceeds the limit.
        done = run_code(SETUP + code, path, timeout=60)
        assert done.returncode == status, done.stderr
        trail = Trail(path)
        acknowledged = [int(line) for line in done.stdout.split()]
        assert acknowledged
        assert not set(acknowledged) - set(trail.numbers)
        assert trail.torn == []
    figure(f"the end: {ending}", runs=rounds, lost=0, torn=0)


def test_clock_jumps_do_not_change_the_order(tmp_path):
    """Across clock jumps of an hour and of years, ids increase, segments stay in order, and no segment is overwritten."""
    now = [1_750_000_000_000_000_000]

    def clock():
        now[0] += 1_000
        return now[0]

    import datetime as dt

    path = tmp_path / "audit.jsonl"
    target = AuditFileHandler(path, maxBytes=1_000, clock=lambda: dt.datetime.fromtimestamp(clock() / 1e9, dt.UTC))
    handler = AuditHandler(target=target, clock=clock)
    logger = logging.Logger("clock")
    logger.addHandler(handler)
    hour = 3_600_000_000_000
    number = 0
    for jump in (0, -hour, 10 * 365 * 24 * hour, -20 * 365 * 24 * hour, hour):
        now[0] += jump
        for _ in range(20):
            logger.info("STORE", extra={"entry_ids": [str(number)]})
            number += 1
    trail = Trail(path)
    assert trail.numbers == list(range(100))
    assert all(one < other for one, other in zip(trail.ids, trail.ids[1:], strict=False))
    assert len(trail.segments) > 10
    assert [int(event.entry_ids[0]) for event in handler.iter_events()] == list(range(100))
    handler.close()
