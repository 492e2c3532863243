"""Events recorded while another is being recorded: in signal handlers, finalizers, __str__ and filters."""

from __future__ import annotations

import json

import pytest
from trails import Trail, figure, run_code

pytestmark = pytest.mark.system

SETUP = """
import gc, json, logging, os, signal, sys, threading
from structlog_audit import AuditFileHandler, AuditHandler, get_audit_logger
path = sys.argv[1]
target = AuditFileHandler(path, maxBytes=50_000)
handler = AuditHandler(target=target)
logger = logging.getLogger("audit")
logger.propagate = False
logger.setLevel("INFO")
logger.addHandler(handler)
log = get_audit_logger()
signal.alarm(50)
"""

SIGNALS = (
    SETUP
    + """
inner = depth = late = outer = 0
stopped = False
def arm():
    # A handler that was due when the timer was stopped must not restart it.
    if not stopped:
        signal.setitimer(signal.ITIMER_REAL, 0.00005)
def on_signal(number, frame):
    global inner, depth
    inner += 1
    me = inner
    depth += 1
    # A signal handler may be interrupted as well.
    if depth < 3:
        arm()
    log.info("SIGNAL", entry_ids=[str(-me)])
    depth -= 1
    arm()
signal.signal(signal.SIGALRM, on_signal)
while inner < int(sys.argv[2]):
    stopped = False
    arm()
    for _ in range(50):
        outer += 1
        log.info("STORE", entry_ids=[str(outer)])
    stopped = True
    signal.setitimer(signal.ITIMER_REAL, 0)
    # All calls have returned, so no entry may be left.
    late += bool(handler._commit._inbox)
signal.signal(signal.SIGALRM, signal.SIG_IGN)
handler.flush()
print(json.dumps({"outer": outer, "inner": inner, "late": late, **handler._counters()}))
"""
)


@pytest.mark.parametrize("signals", [2_000, pytest.param(50_000, marks=pytest.mark.long)])
def test_recording_in_signal_handlers_loses_no_event(tmp_path, signals):
    """At thousands of signals per second, every event of loop and handler is in the trail once its call has returned."""
    path = tmp_path / "audit.jsonl"
    done = run_code(SIGNALS, path, signals, timeout=300)
    assert done.returncode == 0, (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    trail = Trail(path)
    figure("re-entry from a signal handler", runs=found["inner"], lost=found["lost"], late=found["late"])
    assert sorted(trail.numbers) == sorted([*range(1, found["outer"] + 1), *range(-found["inner"], 0)])
    assert trail.torn == []
    assert len(set(trail.ids)) == len(trail.ids)
    assert trail.ids == sorted(trail.ids)
    assert found["late"] == 0


FIRST = (
    SETUP
    + """
import random
signal.signal(signal.SIGALRM, lambda number, frame: log.info("SIGNAL", entry_ids=["1"]))
ends = []
for _ in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 5e-3), 2e-4)
            log.info("STORE", entry_ids=["2"])
            signal.setitimer(signal.ITIMER_REAL, 0)
            status = 0
        finally:
            os._exit(status)
    ends.append(os.waitpid(child, 0)[1])
print(json.dumps(sorted(set(ends))))
"""
)


@pytest.mark.parametrize("processes", [200, pytest.param(5_000, marks=pytest.mark.long)])
def test_signal_during_the_first_event_of_a_process_is_recorded(tmp_path, processes):
    """An event recorded in the middle of the first event of a process is recorded, and nothing crashes."""
    path = tmp_path / "audit.jsonl"
    done = run_code(FIRST, path, processes, timeout=300)
    assert (done.returncode, done.stdout) == (0, "[0]\n"), (done.returncode, done.stdout, done.stderr)
    assert Trail(path).numbers.count(2) == processes


CLOSING = (
    SETUP
    + """
closes = 0
def on_signal(number, frame):
    global closes
    closes += 1
    [lambda: handler.close(), logging.shutdown, lambda: handler.flush()][closes % 3]()
signal.signal(signal.SIGVTALRM, on_signal)
count = 0
signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005, 0.0005)
while closes < 300:
    count += 1
    log.info("STORE", entry_ids=[str(count)])
signal.setitimer(signal.ITIMER_VIRTUAL, 0)
handler.close()
print(json.dumps({"count": count, "closes": closes, **handler._counters()}))
"""
)


def test_signal_handler_may_close_and_shut_down_logging(tmp_path):
    """Closing handlers in the middle of a write, as SIGTERM handlers do, neither hangs nor loses an event."""
    path = tmp_path / "audit.jsonl"
    done = run_code(CLOSING, path, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    figure("close() in a signal handler", runs=found["closes"], lost=found["lost"])
    assert Trail(path).numbers == list(range(1, found["count"] + 1))
    assert done.stderr == ""


ALONE = (
    SETUP
    + """
logger.removeHandler(handler)
logger.addHandler(target)
inner = outer = 0
def on_signal(number, frame):
    global inner
    inner += 1
    logger.info("SIGNAL", extra={"entry_ids": [str(-inner)]})
signal.signal(signal.SIGVTALRM, on_signal)
signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005, 0.0005)
while inner < 300:
    outer += 1
    logger.info("STORE", extra={"entry_ids": [str(outer)]})
signal.setitimer(signal.ITIMER_VIRTUAL, 0)
print(json.dumps({"outer": outer, "inner": inner}))
"""
)


def test_file_handler_alone_records_in_signal_handlers(tmp_path):
    """Without an AuditHandler, a record emitted in the middle of a write of the file handler is written, without a hang."""
    path = tmp_path / "audit.jsonl"
    done = run_code(ALONE, path, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    trail = Trail(path)
    assert sorted(trail.numbers) == sorted([*range(1, found["outer"] + 1), *range(-found["inner"], 0)])
    assert trail.torn == []


RAISES = (
    SETUP
    + """
import random
class Timeout(BaseException):
    pass
armed = False
def on_signal(number, frame):
    if armed:
        raise Timeout
signal.signal(signal.SIGVTALRM, on_signal)
calls = raised = stuck = returned = 0
while raised < 500:
    calls += 1
    try:
        armed = True
        signal.setitimer(signal.ITIMER_VIRTUAL, random.uniform(1e-6, 5e-4))
        # The tick of the timer may be as coarse as that of the system.
        while True:
            log.info("STORE", entry_ids=[str(calls)])
            returned += 1
    except Timeout:
        armed = False
        raised += 1
        if not raised % 50:
            other = threading.Thread(target=log.info, args=("STORE",), daemon=True)
            other.start()
            other.join(10)
            stuck += other.is_alive()
            returned += not other.is_alive()
signal.setitimer(signal.ITIMER_VIRTUAL, 0)
handler.flush()
print(json.dumps({"stuck": stuck, "returned": returned, "free": handler._commit._lock.acquire(blocking=False)}))
"""
)


def test_signal_handler_that_raises_leaves_no_lock_behind(tmp_path):
    """After an exception at any point of recording, other threads continue, and every call that returned is in the trail."""
    path = tmp_path / "audit.jsonl"
    done = run_code(RAISES, path, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    assert (found["stuck"], found["free"]) == (0, True)
    assert len(Trail(path).events) >= found["returned"]


QUERIES = (
    SETUP
    + """
queries = 0
def on_signal(number, frame):
    global queries
    queries += 1
    handler.count_events(operation="STORE"), handler.get_statistics(), handler.clear()
signal.signal(signal.SIGVTALRM, on_signal)
signal.setitimer(signal.ITIMER_VIRTUAL, 0.001, 0.001)
while queries < 200:
    log.info("STORE")
    handler.count_events(operation="RECALL")
signal.setitimer(signal.ITIMER_VIRTUAL, 0)
print(queries)
"""
)


def test_signal_handler_may_query_during_a_query(tmp_path):
    """A query in a signal handler in the middle of another query returns."""
    done = run_code(QUERIES, tmp_path / "audit.jsonl", timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr)


INSIDE = (
    SETUP
    + """
class Finalized:
    def __del__(self):
        log.info("DEL", entry_ids=["1"])
class Text:
    def __str__(self):
        log.info("STR", entry_ids=["2"])
        return "text"
    __repr__ = __str__
def from_filter(record):
    if record.getMessage() == "OUTER":
        log.info("FILTER", entry_ids=["3"])
    return True
handler.addFilter(from_filter)
deliver = target.deliver
def delivering(entries):
    # This runs in the middle of the commit.
    if entries[0].body and b'"OUTER"' in entries[0].line:
        cycle = [Finalized()]
        cycle.append(cycle)
        del cycle
        gc.collect()
    deliver(entries)
handler._commit._deliver = delivering
for number in range(200):
    log.info("OUTER", value=Text(), entry_ids=["4"])
print(json.dumps({**handler._counters(), "arrived": len(handler._commit._inbox)}))
"""
)


def test_events_of_finalizers_str_and_filters_are_recorded(tmp_path):
    """An event from __del__, __str__ or a filter, in the middle of another event, is recorded like any other."""
    path = tmp_path / "audit.jsonl"
    done = run_code(INSIDE, path, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stderr)
    found = json.loads(done.stdout)
    numbers = Trail(path).numbers
    figure("re-entry from __del__, __str__, a filter", runs=800, lost=800 - len(numbers))
    assert [numbers.count(kind) for kind in (1, 2, 3, 4)] == [200] * 4
    assert found["recorded"] == 800
    assert found["arrived"] == found["pending"] == 0
