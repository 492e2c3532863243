"""Instructions per event, by stage: steadier than seconds on a machine that others use too.

    apt-get install valgrind
    python tests/bench/instructions.py [STAGE ...]

Each stage runs twice under ``valgrind --tool=cachegrind``, with few events and with more; the difference, divided by the
events between, is what one event costs in user space. System calls count as what leads to them. ``ours`` is the whole path;
the stages below it are run by themselves, so they add up to nearly that. Valgrind makes a process some fifty times slower;
so the clock is one that goes on by as much as an event takes without it, or each event would begin a millisecond.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count, cycle
from typing import Any

FEW, MORE = 1_000, 3_000
NANOSECONDS = 6_000
VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")


def stages() -> dict[str, Callable[[], Callable[[], object]]]:
    """What is measured, by name: functions that set a stage up and return a call of it."""
    import cases
    import example
    import least

    import structlog_audit
    from structlog_audit.buffer.event_buffer import EventBuffer
    from structlog_audit.events.codec import encode_payload
    from structlog_audit.events.conversion import convert
    from structlog_audit.events.event_id import Stamp
    from structlog_audit.events.payload import Payload
    from structlog_audit.recording.group_commit import GroupCommit, QueueEntry
    from structlog_audit.redaction.redactor import DEFAULT_REDACTOR

    fields: dict[str, Any] = {**example.CONTEXT, **example.FIELDS, "operation": "STORE"}
    body: Payload = convert(fields)
    data = encode_payload(body, 32_000)
    line = Stamp().line(data)

    def nothing(*_: object) -> None:
        pass

    def door() -> Callable[[], object]:
        handler = structlog_audit.AuditHandler()

        handler.record_fields = nothing
        log = structlog_audit.get_audit_logger(example.logger_with("door", handler).name).bind(**example.CONTEXT)
        return lambda: log.info("STORE", **example.FIELDS)

    def commit() -> Callable[[], object]:
        queue = GroupCommit(
            nothing, nothing, nothing, stamp=Stamp(), on_error="retry", max_pending=10, call_later=nothing
        )
        return lambda: queue.submit(QueueEntry(data, 20, "audit"))

    def files() -> Callable[[], object]:
        target, entry = structlog_audit.AuditFileHandler(example.file("files")), QueueEntry(data, 20, "audit")
        entry.line = line
        return lambda: target.deliver([entry])

    def buffer() -> Callable[[], object]:
        held, lines = (
            EventBuffer(10_000),
            cycle([line, bytes(bytearray(line))]),
        )  # the same one twice in a row is one event
        return lambda: held.append(next(lines), 1)

    return {
        "limit": least.limit,
        "steps": least.steps,
        "path": least.path,
        "axon": cases.axon,
        "structlog-json": cases.structlog_json,
        "ours": cases.ours_bound,
        "ours-two-more": cases.ours_two_more,
        "ours-extra": cases.ours_stdlib,
        "ours-log-event": cases.ours_log_event,
        "door": door,
        "convert": lambda: lambda: convert(fields),
        "encode": lambda: lambda: encode_payload(body, 32_000),
        "encode-redact": lambda: lambda: encode_payload(body, 32_000, DEFAULT_REDACTOR),
        "commit": commit,
        "files": files,
        "buffer": buffer,
    }


BATCHED = {"axon", "ours-log-event"}
"""Those whose call records a hundred events."""


def instructions(stage: str, events: int) -> int:
    """What a process with so many events of *stage* executes."""
    done = subprocess.run(
        [*VALGRIND, sys.executable, __file__, "--run", stage, str(events)],
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if found is None:
        raise SystemExit(f"valgrind said nothing of instructions:\n{done.stderr}")
    return int(found[1].replace(",", ""))


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        time.time_ns = count(time.time_ns(), NANOSECONDS).__next__  # before the package is imported
        stage, events = sys.argv[2], int(sys.argv[3])
        call = stages()[stage]()
        for _ in range(events // (100 if stage in BATCHED else 1)):
            call()
        return
    for stage in sys.argv[1:] or stages():
        cost = (instructions(stage, MORE) - instructions(stage, FEW)) / (MORE - FEW)
        print(f"{stage:16} {cost:9,.0f} instructions/event", flush=True)


if __name__ == "__main__":
    main()
