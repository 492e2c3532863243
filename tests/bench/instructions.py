"""The instructions per event and stage, which vary less than seconds on a machine with other load.

    apt-get install valgrind
    python tests/bench/instructions.py [STAGE ...]
    python tests/bench/instructions.py --values [NAME ...]

The first command counts the whole path, the entry points and each stage; the second one the event of the benchmark with one
more value (`values.py`), and the limit with the same value.

All stages run in one process under ``valgrind --tool=callgrind``, which writes the count at each call of a function that marks
the beginning and the end of a stage. The kernel's part of a system call is not counted. ``ours`` is the whole path. The stages
below it run separately, and add up to nearly that.

Valgrind slows a process down about fifty times. The clocks are therefore replaced by ones that advance by the normal duration
of an event; otherwise each event would be the first of its millisecond, and the path of the file would be checked more often.
"""

from __future__ import annotations

import functools
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import count, cycle
from pathlib import Path
from typing import Any

WARM_UP, EVENTS = 100, 500
"""The events of a stage before it is counted, and those that are counted."""

NANOSECONDS = 6_000
"""The advance of the clock per reading."""

VALGRIND = ("valgrind", "--tool=callgrind", "--dump-before=os_getpgrp")

mark = os.getpgrp
"""The function at whose calls valgrind writes the count. The interpreter must have symbols, as it has unless it is stripped."""


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


def run_stages(names: list[str]) -> None:
    """Run the stages with *names* in this process, with a mark before and after each of them."""
    # The package binds the clock when it is imported.
    time.time_ns = count(time.time_ns(), NANOSECONDS).__next__
    time.monotonic = count(time.monotonic(), NANOSECONDS / 1e9).__next__

    made = stages()
    for name in names:
        call = made[name]()
        per_call = BATCHED.get(name, 1)
        for _ in range(WARM_UP // per_call):
            call()

        # Without the objects of other stages, which a collection would visit.
        gc.collect()
        gc.freeze()
        mark()
        for _ in range(EVENTS // per_call):
            call()
        mark()


def instructions(names: list[str]) -> dict[str, float]:
    """Return the instructions per event of the stages with *names*."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "counts")
        subprocess.run(
            [*VALGRIND, f"--callgrind-out-file={output}", sys.executable, __file__, "--run", *names],
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONMALLOC": "pymalloc"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )

        # The dump with an even number ends with the mark after a stage.
        counts = {}
        for number, name in enumerate(names, 1):
            dump = Path(f"{output}.{2 * number}").read_text()
            counts[name] = int(dump.rpartition("\ntotals: ")[2]) / EVENTS
    return counts


def print_values(parts: list[str]) -> None:
    """Print a table of the rows of `values.py` whose name contains one of *parts*; of all rows if there are none."""
    import values

    names = [name for name in values.EVENTS if not parts or any(part in name for part in parts)]
    counts = instructions([start + name for name in names for start in (LIMIT, OURS)])

    print("| event with | limit | ours | ours / limit |\n|---|---|---|---|")
    for name in names:
        limit, ours = counts[LIMIT + name], counts[OURS + name]
        print(f"| {name} | {limit:,.0f} | {ours:,.0f} | {ours / limit:.2f} |")


def main() -> None:
    """Run the stages, or start valgrind and print the results."""
    if sys.argv[1:2] == ["--run"]:
        run_stages(sys.argv[2:])
    elif sys.argv[1:2] == ["--values"]:
        print_values(sys.argv[2:])
    else:
        names = sys.argv[1:] or [name for name in stages() if ": " not in name]
        for name, cost in instructions(names).items():
            print(f"{name:16} {cost:9,.0f} instructions/event")


if __name__ == "__main__":
    main()
