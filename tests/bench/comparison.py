"""A comparison of two checkouts: whether a change made the path of an event, or reading, slower.

One process per checkout imports its package and runs the same cases. A round runs a case in both processes, one directly after
the other; which one goes first alternates. Both runs of a round therefore meet the same load of the machine, and their ratio
is this checkout / the other one. A process also has a constant bias from the layout of its memory, which more rounds do
not average out, so both processes are restarted several times.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cases
from child import CHECKOUT, Child, ChildError
from figures import Spread, confidence_of_median, ratios

SLOWER = 1.05
"""A case fails if the median of its ratios is above this."""

RESTARTS = 4
"""How many pairs of processes run one after the other."""

Pair = tuple[float, float]
"""CPU seconds of this checkout and of the other one."""


def calls_of(name: str, events: int) -> int:
    """Return the number of calls of a case for so many events, at least one."""
    _, batch = cases.COMPARED[name]
    return max(1, events // batch)


def round_times(children: tuple[Child, Child], name: str, calls: int, first: int) -> Pair:
    """Run one round of a case, and return the CPU seconds of both processes.

    The child number *first* runs first.
    """
    second = 1 - first
    times = {number: children[number].request(time=name, calls=calls) for number in (first, second)}
    return times[0], times[1]


def run_pair(other: Path, names: list[str], events: int, rounds: int, times: dict[str, list[Pair]]) -> None:
    """Start a pair of processes, and add the seconds of each round to *times*.

    A case that one of the checkouts cannot run is removed from *names*.
    """
    with ExitStack() as stack:
        children = stack.enter_context(Child(CHECKOUT)), stack.enter_context(Child(other))

        for name in list(names):
            make, _ = cases.COMPARED[name]
            try:
                for child in children:
                    child.request(make=name, of=make.__name__, **{"with": []})
                # The first round warms up both processes and is not counted.
                round_times(children, name, calls_of(name, events), 0)
            except ChildError as error:
                print(f"{name}: left out ({error})")
                names.remove(name)

        for number in range(rounds):
            for name in names:
                pair = round_times(children, name, calls_of(name, events), number % 2)
                times.setdefault(name, []).append(pair)


def compare(other: Path, names: list[str], events: int, rounds: int) -> list[dict[str, Any]]:
    """Compare this checkout with *other*, and return a document for each case.

    Args:
        other: The root of the other checkout.
        names: Parts of case names; without any, all cases of this library are compared.
        events: Events per round.
        rounds: Rounds in all, rounded up to a multiple of the number of restarts.
    """
    chosen = list(cases.COMPARED)
    if names:
        chosen = [name for name in chosen if any(part in name for part in names)]

    restarts = min(RESTARTS, rounds)
    rounds_each = -(-rounds // restarts)

    times: dict[str, list[Pair]] = {}
    for _ in range(restarts):
        run_pair(other, chosen, events, rounds_each, times)

    return [document_of(name, times[name]) for name in chosen]


def document_of(name: str, pairs: list[Pair]) -> dict[str, Any]:
    """Return the ratios of a case as a document for the JSON file."""
    first, second = zip(*pairs, strict=True)
    found = ratios(first, second)
    spread = Spread.of(found)
    return {
        "name": name,
        "ratio": spread.median,
        "middle_half": [spread.low, spread.high],
        "median_95": list(confidence_of_median(found)),
        "slower": spread.median > SLOWER,
        "seconds": {"this": first, "other": second},
    }


def comparison_text(documents: list[dict[str, Any]]) -> str:
    """Return the table of a comparison, and the number of slower cases."""
    lines = [f"{'this checkout / the other':44} {'median':>7}  {'95 % confidence':>15}  {'middle half':>15}"]
    slower = 0

    for case in documents:
        columns = [
            f"{case['name']:44} {case['ratio']:7.3f}",
            range_text(case["median_95"]),
            range_text(case["middle_half"]),
        ]
        if case["slower"]:
            slower += 1
            columns.append("SLOWER")
        lines.append("  ".join(columns))

    lines.append(f"{slower} of {len(documents)} cases are more than {SLOWER - 1:.0%} slower")
    return "\n".join(lines)


def range_text(bounds: list[float]) -> str:
    """Return both bounds of a ratio with three decimals."""
    low, high = bounds
    return f"{low:.3f} to {high:.3f}"
