"""The instructions per event and stage, which vary less than seconds on a machine with other load.

    apt-get install valgrind
    python tests/bench/instructions.py [STAGE ...]
    python tests/bench/instructions.py --values [NAME ...]

The first command counts the whole path, the entry points and each stage; the second one the event of the benchmark with one
more value (`values.py`), and the limit with the same value.

Each stage runs twice under ``valgrind --tool=cachegrind``, with few and with more events. The difference, divided by the number
of additional events, is the cost of one event in user space; the kernel's part of a system call is not counted. ``ours`` is the
whole path. The stages below it run separately, and add up to nearly that.

Valgrind slows a process down about fifty times. The clocks are therefore replaced by ones that advance by the normal duration
of an event; otherwise each event would be the first of its millisecond, and the path of the file would be checked more often.
"""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count, cycle
from typing import Any

FEW, MORE = 1_000, 3_000
"""The events of the two runs."""

NANOSECONDS = 6_000
"""The advance of the clock per reading."""

VALGRIND = ("valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")


def stages() -> dict[str, Callable[[], Callable[[], object]]]:
    """Return the functions that set a stage up and return a call of it, by name."""
    import cases
    import example_event
    import lower_bounds

    import structlog_audit
    from structlog_audit.buffer.event_buffer import EventBuffer
    from structlog_audit.events.codec import encode_payload
    from structlog_audit.events.conversion import convert
    from structlog_audit.events.event_id import Stamp
    from structlog_audit.events.payload import Payload
    from structlog_audit.recording.group_commit import GroupCommit, QueueEntry
    from structlog_audit.redaction.redactor import DEFAULT_REDACTOR

    fields: dict[str, Any] = {**example_event.CONTEXT, **example_event.FIELDS, "operation": "STORE"}
    body: Payload = convert(fields)
    data = encode_payload(body, 32_000)
    line = Stamp().line(data)

    def nothing(*_: object) -> None:
        pass

    def entry_point() -> Callable[[], object]:
        handler = structlog_audit.AuditHandler()
        handler.record_fields = nothing
        logger = example_event.logger_with("entry_point", handler)
        log = structlog_audit.get_audit_logger(logger.name).bind(**example_event.CONTEXT)
        return lambda: log.info("STORE", **example_event.FIELDS)

    def commit() -> Callable[[], object]:
        queue = GroupCommit(
            nothing, nothing, nothing, stamp=Stamp(), on_error="retry", max_pending=10, call_later=nothing
        )
        return lambda: queue.submit(QueueEntry(data, 20, "audit"))

    def files() -> Callable[[], object]:
        target = structlog_audit.AuditFileHandler(example_event.path_of("files"))
        entry = QueueEntry(data, 20, "audit")
        entry.line = line
        return lambda: target.deliver([entry])

    def buffer() -> Callable[[], object]:
        events = EventBuffer(10_000)
        # The same object twice in a row would count as one event.
        lines = cycle([line, bytes(bytearray(line))])
        return lambda: events.append(next(lines), 1)

    return {
        "limit": lower_bounds.limit,
        "steps": lower_bounds.steps,
        "path": lower_bounds.path,
        "axon": cases.axon,
        "structlog-json": cases.structlog_json,
        "ours": cases.ours_bound,
        "ours-two-more": cases.ours_two_more,
        "ours-extra": cases.ours_stdlib,
        "ours-log-event": cases.ours_log_event,
        "ours-processor": cases.ours_processor,
        "ours-operation": cases.ours_operation,
        "ours-intent": cases.ours_operation_intent,
        "ours-audited": cases.ours_audited,
        "chain-dropped": cases.structlog_dropped,
        "logging-dropped": cases.stdlib_null,
        "entry-point": entry_point,
        "convert": lambda: lambda: convert(fields),
        "encode": lambda: lambda: encode_payload(body, 32_000),
        "encode-redact": lambda: lambda: encode_payload(body, 32_000, DEFAULT_REDACTOR),
        "commit": commit,
        "files": files,
        "buffer": buffer,
        **value_stages(),
    }


LIMIT = "limit: "
"""The beginning of the name of a stage that is the limit with one more value."""

OURS = "ours: "
"""The beginning of the name of a stage that is the whole path with one more value."""


def value_stages() -> dict[str, Callable[[], Callable[[], object]]]:
    """Return the limit and the whole path for each row of `values.py`, by name."""
    import values

    made: dict[str, Callable[[], Callable[[], object]]] = {}
    for name, fields in values.EVENTS.items():
        made[LIMIT + name] = functools.partial(values.limit, fields)
        made[OURS + name] = functools.partial(values.ours, fields)
    return made


BATCHED = {"axon": 100, "ours-log-event": 100, "ours-intent": 2}
"""The stages that record several events per call, with their number."""


def instructions(stage: str, events: int) -> int:
    """Return the instructions of a process that records so many events of *stage*."""
    done = subprocess.run(
        [*VALGRIND, sys.executable, __file__, "--run", stage, str(events)],
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"I\s+refs:\s+([\d,]+)", done.stderr)
    if found is None:
        raise SystemExit(f"valgrind printed no number of instructions:\n{done.stderr}")
    return int(found[1].replace(",", ""))


def run_stage(stage: str, events: int) -> None:
    """Record so many events of *stage* in this process."""
    # The package binds the clock when it is imported.
    time.time_ns = count(time.time_ns(), NANOSECONDS).__next__
    time.monotonic = count(time.monotonic(), NANOSECONDS / 1e9).__next__

    call = stages()[stage]()
    per_call = BATCHED.get(stage, 1)
    for _ in range(events // per_call):
        call()


def per_event(stage: str) -> float:
    """Return the instructions of one event of *stage*."""
    return (instructions(stage, MORE) - instructions(stage, FEW)) / (MORE - FEW)


def print_values(names: list[str]) -> None:
    """Print a table of the rows of `values.py` whose name contains one of *names*; of all rows if there are none."""
    import values

    print("| event with | limit | ours | ours / limit |\n|---|---|---|---|")
    for name in values.EVENTS:
        if names and not any(part in name for part in names):
            continue
        limit, ours = per_event(LIMIT + name), per_event(OURS + name)
        print(f"| {name} | {limit:,.0f} | {ours:,.0f} | {ours / limit:.2f} |", flush=True)


def main() -> None:
    """Run one stage, or start valgrind for each stage and print the results."""
    if sys.argv[1:2] == ["--run"]:
        run_stage(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["--values"]:
        print_values(sys.argv[2:])
    else:
        for stage in sys.argv[1:] or [name for name in stages() if ": " not in name]:
            print(f"{stage:16} {per_event(stage):9,.0f} instructions/event", flush=True)


if __name__ == "__main__":
    main()
