"""The cost of recording an event: this library, its peers and the limit, interleaved in one run; and the performance goals.

    pip install -e '.[bench]'
    python tests/bench/run.py [NAME ...]           the table and the figures beside it: about 40 s
    python tests/bench/run.py --long               the same with a million events in the buffer: a few minutes
    python tests/bench/run.py --scale              the maximum throughput of one and of several processes
    python tests/bench/run.py --integrity          the cost of links and seals of a trail
    python tests/bench/run.py --against CHECKOUT   this checkout / another: exit code 1 if a case is more than 5 % slower

Cases and queries are measured in CPU time, user and kernel; rates, and work that waits, in wall-clock time. Every ratio
is that of two values of the same round. Both make the results independent of other load on the machine. NAME is a part
of a case's name; it restricts the run to these cases, without the other figures. Peers that are not installed are left out.
``--json FILE`` writes all results with every round, and ``--svg FILE`` writes the table as a chart.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cases
import further_figures
import goals
from chart import Bar, chart
from child import cpu_seconds_of
from comparison import compare, comparison_text
from figures import Figure, Spread, ratios
from machine import machine, versions
from scale import scale

LIMIT = goals.LIMIT
SIZES = [10_000, 100_000]
LONG_SIZES = [*SIZES, 1_000_000]
"""The numbers of events in the buffer, without and with ``--long``."""


def prepare(names: list[str]) -> dict[str, cases.Call]:
    """Return the calls of the limit and of the cases that match *names*.

    Cases of missing peers are left out.
    """
    calls = {}
    for name, (make, _) in cases.CASES.items():
        if name != LIMIT and names and not any(part in name for part in names):
            continue
        try:
            calls[name] = make()
        except ImportError as error:
            print(f"{name}: left out ({error})")
    return calls


def measure_cases(names: list[str], events: int, rounds: int) -> dict[str, list[float]]:
    """Return the CPU microseconds per event of each round, by case."""
    calls = prepare(names)
    times: dict[str, list[float]] = {name: [] for name in calls}

    for _ in range(rounds):
        for name, call in calls.items():
            _, batch = cases.CASES[name]
            count = max(1, events // batch)
            seconds = cpu_seconds_of(call, count)
            times[name].append(seconds / (count * batch) * 1e6)

    return times


def rows_of(times: dict[str, list[float]]) -> list[dict[str, Any]]:
    """Return a document of each case: its time, and its ratio to the limit."""
    has_limit = LIMIT in times
    rows = []
    for name, taken in times.items():
        spread = Spread.of(taken)
        ratio = Spread.of(ratios(taken, times[LIMIT])) if has_limit else None
        rows.append(
            {
                "name": name,
                "us": spread.median,
                "us_middle_half": [spread.low, spread.high],
                "times_limit": ratio.median if ratio else None,
                "times_limit_middle_half": [ratio.low, ratio.high] if ratio else None,
                "us_of_rounds": taken,
            }
        )
    return rows


def table_lines(rows: list[dict[str, Any]]) -> Iterable[str]:
    """Yield the lines of the table."""
    yield f"{'':44} {'us/event':>9}  {'x limit':>7}  {'middle half':>12}"
    for row in rows:
        line = f"{row['name']:44} {row['us']:9.2f}"

        ratio = row["times_limit"]
        if ratio is not None:
            low, high = row["times_limit_middle_half"]
            line += f"  {ratio:7.2f}  {low:5.2f}–{high:.2f}"

        yield line


def kind_of(name: str) -> str:
    """Return the style of a case's bar."""
    if name == LIMIT:
        return "limit"
    return "ours" if name in cases.OURS else "other"


def chart_of(document: dict[str, Any]) -> str:
    """Return the table as a bar chart in SVG: each case in multiples of the limit."""
    bars = []
    for row in document["cases"]:
        length = row["times_limit"]
        figure = f"{length:.2f} × ({row['us']:.1f} µs)"
        bars.append(Bar(row["name"], length, figure, kind_of(row["name"])))

    title = "CPU time of recording one event, in multiples of the least that Python needs"
    found = document["machine"]
    machine_text = f"{found['python']}, {found['processor']}, {found['cpus']} CPUs"
    return chart(bars, title, f"{machine_text}; medians of {document['rounds']} rounds")


def further(args: argparse.Namespace) -> Iterable[Figure]:
    """Yield the figures beside the table, or those of ``--scale``.

    Yield nothing if cases were named.
    """
    if args.scale:
        yield from scale(args.events * 100, args.rounds)
        return
    if args.integrity:
        yield from further_figures.paced(args.events // 2, args.rounds)
        yield from further_figures.integrity(args.events, args.rounds)
        return
    if args.names:
        return

    yield from further_figures.buffer_figures(args.held, args.rounds)
    yield from further_figures.garbage_collection(max(args.held), args.events * 4, args.rounds)
    yield from further_figures.threads(args.events * 4, args.rounds)
    yield from further_figures.integrity(args.events, args.rounds)
    yield from further_figures.fsync_figures(args.events)
    yield from further_figures.import_time(args.rounds)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Measure and print the selected cases and figures, and return them as a document."""
    document: dict[str, Any] = {
        "taken_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "events": args.events,
        "rounds": args.rounds,
    }
    for part in ("machine", "versions"):
        print(", ".join(f"{name} {value}" for name, value in document[part].items()))
    print(f"{args.rounds} rounds of {args.events} events\n")

    if args.against:
        document["against"] = compare(args.against, args.names, args.events, args.rounds)
        print(comparison_text(document["against"]))
        return document

    found: list[Figure] = []
    if not (args.scale or args.integrity):
        times = measure_cases(args.names, args.events, args.rounds)
        document["cases"] = rows_of(times)
        print(*table_lines(document["cases"]), "", sep="\n")
        found += goals.figures_of_goals(times)
        print(*found, sep="\n")

    for figure in further(args):
        print(figure, flush=True)
        found.append(figure)

    if any(figure.has_goal for figure in found):
        print(f"\n{goals.summary(found)}")
    document["figures"] = [figure.document() for figure in found]
    return document


def arguments() -> argparse.Namespace:
    """Return the options, with defaults that depend on the kind of run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="a part of a case's name (default: all cases)")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare this checkout with another one")
    kinds.add_argument("--scale", action="store_true", help="the maximum throughput of one and of several processes")
    kinds.add_argument("--integrity", action="store_true", help="the cost of links and seals only")
    kinds.add_argument(
        "--long", dest="held", action="store_const", const=LONG_SIZES, help="also with a million events in the buffer"
    )
    kinds.add_argument("--held", type=int, nargs="+", metavar="EVENTS", help="the numbers of events in the buffer")
    parser.add_argument(
        "--events", type=int, help="events per round and case (default: 5,000 for the table, else 1,000)"
    )
    parser.add_argument("--rounds", type=int, help="default: 15; 100 with --against, 5 with --scale")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the table as a chart")
    parser.set_defaults(held=SIZES)
    args = parser.parse_args()

    if args.svg and (args.against or args.scale):
        parser.error("--svg draws the table, which --against and --scale do not measure")
    if args.svg and importlib.util.find_spec("orjson") is None:
        parser.error("--svg draws multiples of the limit, which needs orjson: pip install orjson")

    default_events = 1_000 if args.against or args.scale else 5_000
    default_rounds = 100 if args.against else 5 if args.scale else 15
    args.events = args.events or default_events
    args.rounds = args.rounds or default_rounds
    return args


def main() -> int:
    """Measure, print and write the results; return 1 if a case is slower."""
    args = arguments()
    document = measure(args)
    if args.json:
        args.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if args.svg:
        args.svg.write_text(chart_of(document), encoding="utf-8")
    return int(any(case["slower"] for case in document.get("against", ())))


if __name__ == "__main__":
    raise SystemExit(main())
