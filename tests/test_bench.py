"""The benchmark works end to end, with numbers too small to mean anything."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

BENCH = Path(__file__).parent / "bench"
SVG = "{http://www.w3.org/2000/svg}"


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(BENCH / "run.py"), "--events", "10", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def bench(monkeypatch):
    """The modules of the benchmark can be imported."""
    monkeypatch.syspath_prepend(str(BENCH))


def test_the_command_measures_prints_and_writes(tmp_path):
    """One command prints the table and what is beside it, and writes all rounds of it; peers that are missing are left out."""
    document, picture = tmp_path / "figures.json", tmp_path / "figures.svg"
    drawn = ["--svg", str(picture)] if importlib.util.find_spec("orjson") else []
    done = run("--rounds", "1", "--held", "100", "200", "--json", str(document), *drawn)
    assert done.returncode == 0, done.stderr
    found = json.loads(document.read_text())
    names = [case["name"] for case in found["cases"]]
    assert "ours: get_audit_logger().info" in names
    assert all(name in done.stdout for name in names)
    assert all(len(case["us_of_rounds"]) == 1 for case in found["cases"])
    assert all({"name", "unit", "value"} <= set(figure) for figure in found["figures"])
    held = [figure["met"] for figure in found["figures"] if "met" in figure]
    assert f"{sum(held)} of {len(held)} goals are met" in done.stdout
    assert any(figure["name"].startswith("user + operation, 200 / 100") for figure in found["figures"])
    assert found["versions"]["structlog"] in done.stdout
    assert not drawn or picture.read_text().count("×") >= len(names)


def test_a_checkout_is_as_fast_as_itself_within_reason(tmp_path):
    """Two checkouts are compared case by case, and the exit code is that of the verdict."""
    document = tmp_path / "against.json"
    done = run("--rounds", "2", "get_audit_logger", "--against", str(BENCH.parent.parent), "--json", str(document))
    (case,) = json.loads(document.read_text())["against"]
    assert case["name"] == "ours: get_audit_logger().info"
    assert len(case["seconds"]["this"]) == len(case["seconds"]["other"]) == 2
    assert done.returncode == int(case["ratio"] > 1.05) == int(case["slower"])


def test_what_is_no_checkout_is_refused(tmp_path):
    """A folder without the package is no checkout, and is not taken for what happens to be installed."""
    done = run("--against", str(tmp_path))
    assert done.returncode != 0
    assert "no checkout" in done.stderr


def test_the_chart_tells_its_figures_to_everybody(bench):
    """The picture is well-formed and self-contained: a title, a description, each figure as text, both colour schemes."""
    import chart

    text = chart.chart(
        [chart.Bar("a < b", 1.0, "1 ×", "limit"), chart.Bar("c & d", 2.5, "2.5 ×", "ours")], "What", "Where"
    )
    top = ElementTree.fromstring(text)
    assert top.get("role") == "img"
    assert top.find(f"{SVG}title").text == "What"
    assert top.find(f"{SVG}desc").text == "a < b: 1 ×; c & d: 2.5 ×. Where"
    assert {"a < b", "1 ×", "c & d", "2.5 ×"} <= {node.text for node in top.iter(f"{SVG}text")}
    assert "prefers-color-scheme: dark" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("count", [6, 7, 25, 100])
def test_the_range_of_a_median_holds_it_as_often_as_it_says(bench, count):
    """The range misses the true median in at most 5 of 100 samples, and the next narrower one would in more."""
    import spread

    low, high = spread.sure_of_median(range(count))
    assert low + high == count - 1

    def missed(rank):
        """How often at most *rank* of the values are below the median, or above it."""
        return 2 * sum(math.comb(count, below) for below in range(rank + 1)) / 2**count

    assert missed(low) <= 0.05 < missed(low + 1)


def test_goals_are_ratios_to_be_met(bench):
    """A goal is the median ratio of two cases; the verdict counts what is met, and tells of the others how far one gets."""
    import goals

    taken = {goals.OURS: [2, 20, 200], goals.LIMIT: [1, 10, 100], goals.AXON: [4, 40, 400], goals.PATH: [1.5, 15, 150]}
    figures = list(goals.of_cases(taken))
    assert [(figure.name, figure.value, figure.is_met) for figure in figures] == [
        ("ours / axon, which keeps events in memory only", 0.5, True),
        ("ours / the limit", 2, False),
    ]
    first, missed = goals.verdict(figures).splitlines()
    assert first == "1 of 2 goals are met"
    assert missed.endswith("(goal: at most 1.4: missed; in one function 1.50)")


def test_every_goal_is_about_cases_that_are_measured(bench):
    """A case that is called otherwise takes its goal along: none falls silent."""
    import cases
    import goals

    named = {name for goal in goals.GOALS for name in (goal.case, goal.base, goal.path) if name is not None}
    assert named <= set(cases.CASES)


def test_ratios_are_taken_round_by_round(bench):
    """What slows down both of a pair does not change their ratio."""
    import spread

    assert spread.ratios([2, 20, 200], [1, 10, 100]) == [2, 2, 2]
    assert spread.Spread.of([3, 1, 2, 4, 5]) == (3, 2, 4)
    assert spread.Spread.of([7]) == (7, 7, 7)
