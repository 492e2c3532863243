"""The cost of recording an event by the kind of its values, relative to the limit and to the usual stack.

    pip install -e '.[bench]'
    python tests/bench/values.py [--events 2000] [--rounds 9] [--short] [NAME...]

Each row is the event of the benchmark with one more value. The limit is a random id, the time, orjson, and one ``write(2)``
with the same values. The usual stack is structlog, python-json-logger with orjson, and a rotating file. All of a round run one
after the other in one process; ratios are medians over the rounds, of CPU time.

The exit code is 1 if a row takes more than 2 times the limit, or if the usual stack takes less than 3.5 times as long.
``--short`` measures few events and only prints: an event that was not recorded, or an exception, makes it fail.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import decimal
import enum
import itertools
import logging
import os
import platform
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

import cases
import msgspec
from example_event import CONTEXT, FIELDS, Call, logger_with, path_of

MOST_LIMITS = 2.0
"""The goal: a row takes at most so many times the limit."""

WARM_UP = 100
"""The events that each row records before it is measured."""

LEAST_STACKS = 3.5
"""The goal: the usual stack takes at least so many times as long."""


class Color(enum.Enum):
    """An Enum of text."""

    RED = "red"


@dataclasses.dataclass
class Address:
    """A record with fields of ordinary types."""

    city: str
    number: int


class Place(msgspec.Struct):
    """The same as a Struct."""

    city: str
    number: int


_numbers = itertools.count()


def in_metadata(value: Any) -> dict[str, Any]:
    """Return the fields of the event with *value* in the metadata, under a name of its own.

    The names of values that msgspec refuses are remembered, so a common name would slow down other rows.
    """
    name = f"value{next(_numbers)}"
    return {**FIELDS, "metadata": {**FIELDS["metadata"], name: value}}  # type: ignore[dict-item]


ID = uuid.UUID("0197f3a0-c1d2-7d1e-9b0c-5d8e00000001")
NOW = dt.datetime(2025, 1, 15, 10, 30, 45, 123456, dt.UTC)
TEXT = "The quick brown fox jumps over the lazy dog, again and again. " * 80

EVENTS: dict[str, dict[str, Any]] = {
    "the benchmark's event": FIELDS,
    "a UUID": in_metadata(ID),
    "a datetime": in_metadata(NOW),
    "a date and a time": in_metadata([NOW.date(), NOW.time()]),
    "a decimal": in_metadata(decimal.Decimal("12.50")),
    "an Enum": in_metadata(Color.RED),
    "a dataclass": in_metadata(Address("Bonn", 7)),
    "a Struct of msgspec": in_metadata(Place("Bonn", 7)),
    "a tuple": in_metadata(("a", 1, "b")),
    "a set": in_metadata({"a"}),
    "an object": in_metadata({"city": "Bonn", "number": 7}),
    "four nested objects": in_metadata({"a": {"b": {"c": {"d": 1}}}}),
    "eight nested objects": in_metadata({"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": 1}}}}}}}}),
    "integer keys": in_metadata({1: "a", 2: "b"}),
    "a name that is taken": {**FIELDS, "source": "web"},
    "a text of 5 kB": in_metadata(TEXT),
    "a text of 20 kB": in_metadata(TEXT * 4),
    "a text beyond ASCII": in_metadata("Straße nach Ōsaka"),
    "a password": in_metadata({"password": "secret"}),
    "a UUID as an entry id": {**FIELDS, "entry_ids": [ID, "entry_2"]},
    "an exception": {**FIELDS, "error_message": ValueError("no such entry")},
}
"""The fields of the event, by row."""


def new_logger(handler: logging.Handler) -> logging.Logger:
    """Return another logger that has *handler* only."""
    return logger_with(f"values{next(_numbers)}", handler)


def limit(fields: dict[str, Any]) -> Call:
    """Return a call that writes a JSON line with a random id and the time."""
    import orjson

    fd = os.open(path_of("limit"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    # Accepting keys of other types makes orjson slower for all keys.
    options = orjson.OPT_APPEND_NEWLINE
    try:
        orjson.dumps(fields, option=options, default=_plain)
    except TypeError:
        options |= orjson.OPT_NON_STR_KEYS

    def call() -> None:
        now = dt.datetime.now(dt.UTC)
        event = {"event_id": uuid.uuid4().hex, "timestamp": now, "operation": "STORE", **CONTEXT, **fields}
        os.write(fd, orjson.dumps(event, option=options, default=_plain))

    return call


def _plain(value: Any) -> Any:
    """Return a value that orjson does not encode itself as one that it does."""
    if isinstance(value, set):
        return list(value)
    return msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else str(value)


def usual_stack(fields: dict[str, Any]) -> Call:
    """Return a call of structlog that writes JSON through `logging` to a rotating file."""
    return cases.usual_stack(f"values{next(_numbers)}", fields)


def ours(fields: dict[str, Any]) -> Call:
    """Return a call of a bound logger."""
    import structlog_audit

    logger = new_logger(structlog_audit.AuditHandler(filename=path_of("values")))
    log = structlog_audit.get_audit_logger(logger.name).bind(**CONTEXT)
    return lambda: log.info("STORE", **fields)


WORKS: dict[str, Callable[[dict[str, Any]], Call]] = {"limit": limit, "ours": ours, "usual": usual_stack}


def cpu_seconds(call: Call, events: int) -> float:
    """Return the CPU seconds of so many calls."""
    start = time.process_time()
    for _ in range(events):
        call()
    return time.process_time() - start


def measure(fields: dict[str, Any], events: int, rounds: int) -> tuple[float, float, float]:
    """Return the microseconds of an event, its ratio to the limit, and that of the usual stack to it."""
    calls = {}
    for name, make in WORKS.items():
        calls[name] = make(fields)
        cpu_seconds(calls[name], WARM_UP)

    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(cpu_seconds(call, events))

    ours_times = times["ours"]
    to_limit = statistics.median(own / least for own, least in zip(ours_times, times["limit"], strict=True))
    by_stack = statistics.median(usual / own for usual, own in zip(times["usual"], ours_times, strict=True))
    return statistics.median(ours_times) / events * 1e6, to_limit, by_stack


def check_recorded(count: int) -> None:
    """Compare the events in the trail with those that were recorded.

    Raises:
        SystemExit: Some are missing.
    """
    import structlog_audit

    found = structlog_audit.open_trail(path_of("values")).count_events() if count else 0
    if found != count:
        raise SystemExit(f"expected {count:,} events in the trail, got {found:,}")


def main() -> int:
    """Measure and print all rows; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of the name of a row (default: all rows)")
    parser.add_argument("--events", type=int, help="default: 2,000, with --short 200")
    parser.add_argument("--rounds", type=int, help="default: 9, with --short 3")
    parser.add_argument("--short", action="store_true", help="few events, and no goals")
    options = parser.parse_args()
    events = options.events or (200 if options.short else 2_000)
    rounds = options.rounds or (3 if options.short else 9)

    print(
        f"Python {platform.python_version()}\n\n| event with | us | x limit | usual stack / ours |\n|---|---|---|---|"
    )
    missed = []
    recorded = 0
    for name, fields in EVENTS.items():
        if options.names and not any(part in name for part in options.names):
            continue

        microseconds, to_limit, by_stack = measure(fields, events, rounds)
        recorded += WARM_UP + events * rounds
        print(f"| {name} | {microseconds:.2f} | {to_limit:.2f} | {by_stack:.2f} |", flush=True)
        if to_limit > MOST_LIMITS or by_stack < LEAST_STACKS:
            missed.append(name)

    check_recorded(recorded)
    if options.short:
        return 0
    print("\nmissed: " + ", ".join(missed) if missed else "\nall goals are met")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
