"""What recording an event costs: the peers, the limit, and ours, interleaved in one run; and which goals are met.

    pip install -e '.[bench]'
    python tests/bench/run.py [NAME ...]           the table, and what is measured beside it: about 40 s
    python tests/bench/run.py --long               the same with a million events in the buffer: a few minutes
    python tests/bench/run.py --scale              one process and several on one trail, flat out
    python tests/bench/run.py --against CHECKOUT   this checkout / another: exit code 1 if a case is more than 5 % slower

Times of cases and queries are CPU time, user and kernel; rates and what waits go by the clock. Every ratio is taken round by
round against the limit of the same round. So both hold on a machine that has other things to do. A NAME is a part
of the name of a case: only those are measured, and nothing beside the table. Peers that are not installed are left out.
``--json FILE`` writes all that was measured, each round included, and ``--svg FILE`` the table as a picture.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import beyond
import cases
import goals
from chart import Bar, chart
from child import timed
from machine import machine, versions
from paired import against, told
from scale import scale
from spread import Figure, Spread, ratios

LIMIT = goals.LIMIT
SIZES = [10_000, 100_000]
LONG = [*SIZES, 1_000_000]


def measure(names: list[str], events: int, rounds: int) -> dict[str, list[float]]:
    """CPU microseconds per event of each case, round by round."""
    calls = {}
    for name, (make, _) in cases.CASES.items():
        if name == LIMIT or not names or any(part in name for part in names):
            try:
                calls[name] = make()
            except ImportError as error:
                print(f"{name}: left out ({error})")
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            batch = cases.CASES[name][1]
            times = max(1, events // batch)
            taken[name].append(timed(call, times) / (times * batch) * 1e6)
    return taken


def table(taken: dict[str, list[float]]) -> list[dict[str, Any]]:
    """A document of each case: its rounds, their median and middle half, and the ratio to the limit."""
    rows = []
    for name, times in taken.items():
        spread, ratio = Spread.of(times), Spread.of(ratios(times, taken.get(LIMIT, times)))
        rows.append(
            {
                "name": name,
                "us": spread.median,
                "us_middle_half": [spread.low, spread.high],
                "times_limit": ratio.median if LIMIT in taken else None,
                "times_limit_middle_half": [ratio.low, ratio.high] if LIMIT in taken else None,
                "us_of_rounds": times,
            }
        )
    return rows


def told_table(rows: list[dict[str, Any]]) -> Iterable[str]:
    yield f"{'':42} {'us/event':>9}  {'x limit':>7}  {'middle half':>12}"
    for row in rows:
        line = f"{row['name']:42} {row['us']:9.2f}"
        if row["times_limit"] is not None:
            low, high = row["times_limit_middle_half"]
            line += f"  {row['times_limit']:7.2f}  {low:5.2f}–{high:.2f}"
        yield line


def picture(document: dict[str, Any]) -> str:
    """The chart of the table: how many times the limit each case takes."""
    bars = []
    for row in document["cases"]:
        kind = "ours" if row["name"] in cases.OURS else "limit" if row["name"] == LIMIT else "other"
        length = row["times_limit"]
        bars.append(Bar(row["name"], length, f"{length:.2f} × ({row['us']:.1f} µs)", kind))
    title = "CPU time of recording one event, in multiples of the least that Python needs"
    found = document["machine"]
    return chart(
        bars,
        title,
        f"{found['python']}, {found['processor']}, {found['cpus']} CPUs; medians of {document['rounds']} rounds",
    )


def figures(args: argparse.Namespace) -> Iterable[Figure]:
    """What is measured beside the table; nothing if cases were named."""
    if args.scale:
        yield from scale(args.events * 100, args.rounds)
    elif not args.names:
        yield from beyond.held(args.held, args.rounds)
        yield from beyond.collections(max(args.held), args.events * 4, args.rounds)
        yield from beyond.threads(args.events * 4, args.rounds)
        yield from beyond.durable(args.events)
        yield from beyond.import_time(args.rounds)


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Measure what is asked for, print it, and give it as a document."""
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
        document["against"] = against(args.against, args.names, args.events, args.rounds)
        print(told(document["against"]))
        return document
    found: list[Figure] = []
    if not args.scale:
        taken = measure(args.names, args.events, args.rounds)
        document["cases"] = table(taken)
        print(*told_table(document["cases"]), "", sep="\n")
        found += goals.of_cases(taken)
        print(*found, sep="\n")
    for figure in figures(args):
        print(figure, flush=True)
        found.append(figure)
    if any(figure.has_goal for figure in found):
        print(f"\n{goals.verdict(found)}")
    document["figures"] = [figure.document() for figure in found]
    return document


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="parts of the names of cases (default: all)")
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument(
        "--against", type=Path, metavar="CHECKOUT", help="another checkout, to be compared with this one"
    )
    kinds.add_argument("--scale", action="store_true", help="one process and several, flat out")
    kinds.add_argument(
        "--long", dest="held", action="store_const", const=LONG, help="a million events in the buffer, too"
    )
    kinds.add_argument("--held", type=int, nargs="+", metavar="EVENTS", help="so many in the buffer")
    parser.add_argument("--events", type=int, help="of each case in a round (default: 5,000 for the table, else 1,000)")
    parser.add_argument("--rounds", type=int, help="default: 15; 100 with --against, 5 with --scale")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write the table as a picture")
    parser.set_defaults(held=SIZES)
    args = parser.parse_args()
    if args.svg and (args.against or args.scale):
        parser.error("--svg draws the table, which --against and --scale do not measure")
    if args.svg and importlib.util.find_spec("orjson") is None:
        parser.error("--svg draws multiples of the limit, which needs orjson")
    args.events = args.events or (1_000 if args.against or args.scale else 5_000)
    args.rounds = args.rounds or (100 if args.against else 5 if args.scale else 15)
    return args


def main() -> int:
    args = arguments()
    document = measured(args)
    if args.json:
        args.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if args.svg:
        args.svg.write_text(picture(document), encoding="utf-8")
    return int(any(case["slower"] for case in document.get("against", ())))


if __name__ == "__main__":
    raise SystemExit(main())
