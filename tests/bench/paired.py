"""Two checkouts against each other: whether a change made the path of an event slower, seen before it lands.

A process for each checkout imports its own package and runs the same cases, a short round of one and then of the other, the
first of them by turns. So a pair shares the weather of the machine, and the ratio of a pair is this checkout / the other.
A process has a luck of its own (where its memory lies), which rounds don't even out: both are started anew several times.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cases
from child import CHECKOUT, Child, ChildError
from spread import Spread, ratios, sure_of_median

SLOWER = 1.05
"""A case fails if the median of its ratios is above this."""

LIVES = 4
"""How often the processes are started anew."""


def round_times(children: tuple[Child, Child], name: str, calls: int, first: int) -> tuple[float, float]:
    """Seconds of both, where the child number *first* goes first."""
    times = {number: children[number].ask(time=name, calls=calls) for number in (first, 1 - first)}
    return times[0], times[1]


def life(other: Path, names: list[str], events: int, rounds: int, taken: dict[str, list[tuple[float, float]]]) -> None:
    """One life of the two processes: add the seconds of each round to *taken*, or leave a case out for good."""
    with ExitStack() as stack:
        children = stack.enter_context(Child(CHECKOUT)), stack.enter_context(Child(other))
        for name in list(names):
            make, batch = cases.CASES[name]
            calls = max(1, events // batch)
            try:
                for child in children:
                    child.ask(make=name, of=make.__name__, **{"with": []})
                round_times(children, name, calls, 0)  # warms both up
            except ChildError as error:
                print(f"{name}: left out ({error})")
                names.remove(name)
        for number in range(rounds):
            for name in names:
                calls = max(1, events // cases.CASES[name][1])
                taken.setdefault(name, []).append(round_times(children, name, calls, number % 2))


def against(other: Path, names: list[str], events: int, rounds: int) -> list[dict[str, Any]]:
    """The hot-path cases that have one of *names* in theirs, as documents with the ratios of *rounds* or a few more."""
    chosen = [name for name in cases.OURS if not names or any(part in name for part in names)]
    taken: dict[str, list[tuple[float, float]]] = {}
    lives = min(LIVES, rounds)
    for _ in range(lives):
        life(other, chosen, events, -(-rounds // lives), taken)
    documents = []
    for name in chosen:
        this, that = zip(*taken[name], strict=True)
        found = ratios(this, that)
        low, high = sure_of_median(found)
        spread = Spread.of(found)
        documents.append(
            {
                "name": name,
                "ratio": spread.median,
                "middle_half": [spread.low, spread.high],
                "median_95": [low, high],
                "slower": spread.median > SLOWER,
                "seconds": {"this": this, "other": that},
            }
        )
    return documents


def told(documents: list[dict[str, Any]]) -> str:
    """The table, and the verdict."""
    lines = [f"{'this checkout / the other':42} {'median':>7}  {'95 % sure of it':>15}  {'middle half':>15}"]
    for case in documents:
        sure, half = ("{:.3f} to {:.3f}".format(*case[key]) for key in ("median_95", "middle_half"))
        lines.append(f"{case['name']:42} {case['ratio']:7.3f}  {sure}  {half}{'  SLOWER' if case['slower'] else ''}")
    slower = sum(case["slower"] for case in documents)
    lines.append(f"{slower} of {len(documents)} cases are more than {SLOWER - 1:.0%} slower")
    return "\n".join(lines)
