"""The benchmark runs from end to end, with numbers too small for meaningful results."""

from __future__ import annotations

import html
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
    """Run the benchmark with ten events per round."""
    return subprocess.run(
        [sys.executable, str(BENCH / "run.py"), "--events", "10", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def bench(monkeypatch):
    """Make the modules of the benchmark importable."""
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.fixture(scope="module")
def small_run(tmp_path_factory):
    """One run of everything: the process, the JSON document, the picture or None."""
    folder = tmp_path_factory.mktemp("bench")
    document = folder / "figures.json"
    picture = folder / "figures.svg"
    options = ["--rounds", "1", "--held", "100", "200", "--json", str(document)]
    # The picture shows multiples of the limit, which is measured with orjson.
    if importlib.util.find_spec("orjson"):
        options += ["--svg", str(picture)]

    done = run(*options)

    assert done.returncode == 0, done.stderr
    svg = picture.read_text() if picture.exists() else None
    return done, json.loads(document.read_text()), svg


def test_run_prints_table_and_writes_each_round(small_run):
    """The table has a row for each case, the document every round of it; missing peers are left out."""
    done, document, _ = small_run
    names = [case["name"] for case in document["cases"]]
    assert "ours: get_audit_logger().info" in names
    for name in names:
        assert name in done.stdout
    for case in document["cases"]:
        assert len(case["us_of_rounds"]) == 1


def test_run_writes_figures_and_prints_number_of_goals_met(small_run):
    """Each figure has a name, a unit and a value, and those with a goal are counted."""
    done, document, _ = small_run
    figures = document["figures"]
    for figure in figures:
        assert {"name", "unit", "value"} <= set(figure)

    met = [figure["met"] for figure in figures if "met" in figure]
    assert f"{sum(met)} of {len(met)} goals are met" in done.stdout

    names = [figure["name"] for figure in figures]
    assert "user + operation, 200 / 100 events" in names


def test_run_prints_versions(small_run):
    """The head of the table names the measured versions."""
    done, document, _ = small_run
    assert document["versions"]["structlog"] in done.stdout


def test_run_draws_a_bar_for_each_case(small_run):
    """The picture has a figure for each case, if the limit can be measured."""
    _, document, picture = small_run
    assert picture is None or picture.count("×") >= len(document["cases"])


def test_exit_code_of_comparison_follows_ratio(tmp_path):
    """Two checkouts are compared case by case; the exit code is 1 if and only if a case is more than 5 % slower."""
    checkout = BENCH.parent.parent
    document = tmp_path / "against.json"

    done = run("--rounds", "2", "get_audit_logger", "--against", str(checkout), "--json", str(document))

    (case,) = json.loads(document.read_text())["against"]
    assert case["name"] == "ours: get_audit_logger().info"

    seconds = case["seconds"]
    assert len(seconds["this"]) == len(seconds["other"]) == 2

    is_slower = case["ratio"] > 1.05
    assert case["slower"] == is_slower
    assert done.returncode == int(is_slower)


def test_comparison_includes_reading(tmp_path):
    """Two checkouts are compared in reading, too: each case of it is measured in both."""
    document = tmp_path / "against.json"
    run("--rounds", "2", "reading:", "--against", str(BENCH.parent.parent), "--json", str(document))

    found = json.loads(document.read_text())["against"]
    names = {case["name"] for case in found}
    assert {"reading: all events", "reading: the events of a user", "reading: statistics"} <= names
    assert all(len(case["seconds"]["this"]) == len(case["seconds"]["other"]) == 2 for case in found)


@pytest.mark.parametrize("script", ["values.py", "reading.py"])
def test_short_form_prints_ratios_and_does_not_judge_them(script):
    """The short form of a benchmark prints its table and succeeds, however slow the machine is."""
    if script == "values.py":
        pytest.importorskip("orjson", reason="not installed: orjson, the encoder of the limit (the extra bench)")
    done = subprocess.run(
        [sys.executable, str(BENCH / script), "--short", "--events", "500", "--rounds", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert "missed" not in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith("|")]) > 10


def test_wrong_answer_ends_the_benchmark_of_reading(bench):
    """An answer that differs from the events that were written is an error, whatever the times."""
    import reading

    with pytest.raises(SystemExit, match=r"count_events\(\): expected 10 events, got 9"):
        reading.check_answers({"count_events()": lambda: 9}, 10)


def test_peer_that_is_not_installed_is_left_out_with_a_reason(bench, monkeypatch):
    """A peer whose program or module is missing has no row, and the reason is printed."""
    import reading_peers

    monkeypatch.setattr(reading_peers.shutil, "which", lambda name: None)
    monkeypatch.setattr(reading_peers.importlib.util, "find_spec", lambda name: None)
    reasons = {name: reading_peers.reason_to_leave_out(name) for name in reading_peers.PEERS}
    assert reasons["jq"] == "jq is not installed"
    assert reasons["DuckDB read_text"] == "the module duckdb is not installed"
    assert reasons["msgspec, one member"] is None


def test_comparison_refuses_a_folder_without_the_package(tmp_path):
    """A folder without the package is refused; the installed package is not measured in its place."""
    done = run("--against", str(tmp_path))
    assert done.returncode != 0
    assert "not a checkout" in done.stderr


@pytest.fixture
def chart_text(bench):
    """A chart of two bars."""
    import chart

    bars = [chart.Bar("a < b", 1.0, "1 ×", "limit"), chart.Bar("c & d", 2.5, "2.5 ×", "ours")]
    return chart.chart(bars, "Title", "Below")


def test_chart_has_title_description_and_text_for_screen_readers(chart_text):
    """The chart is well-formed; its title, its description and the text of each bar are readable without sight."""
    top = ElementTree.fromstring(chart_text)
    shown = {node.text for node in top.iter(f"{SVG}text")}

    assert top.get("role") == "img"
    assert top.find(f"{SVG}title").text == "Title"
    assert top.find(f"{SVG}desc").text == "a < b: 1 ×; c & d: 2.5 ×. Below"
    assert {"a < b", "1 ×", "c & d", "2.5 ×"} <= shown


def test_chart_is_self_contained_and_supports_dark_mode(chart_text):
    """The chart loads nothing and has a colour scheme for dark mode."""
    assert "prefers-color-scheme: dark" in chart_text
    assert "http" not in chart_text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("count", [6, 7, 25, 100])
def test_confidence_interval_of_median_is_narrowest_with_95_percent(bench, count):
    """The interval misses the true median in at most 5 % of samples, and the next narrower one in more."""
    import figures

    low, high = figures.confidence_of_median(range(count))
    assert low + high == count - 1

    def probability_of_miss(rank):
        """Return the probability that the rank misses the median.

        That is: at most *rank* of the values are below the median, or above it.
        """
        samples = sum(math.comb(count, below) for below in range(rank + 1))
        return 2 * samples / 2**count

    assert probability_of_miss(low) <= 0.05 < probability_of_miss(low + 1)


GOAL_TIMES = {"OURS": [2, 20, 200], "LIMIT": [1, 10, 100], "AXON": [4, 40, 400], "PATH": [1.5, 15, 150]}


@pytest.fixture
def goal_figures(bench):
    """The figures of the goals for four cases with constant ratios."""
    import goals

    times = {getattr(goals, name): taken for name, taken in GOAL_TIMES.items()}
    return list(goals.figures_of_goals(times))


def test_goal_is_the_median_ratio_of_two_cases(goal_figures):
    """A goal is computed if both of its cases were measured."""
    assert [(figure.name, figure.value, figure.is_met) for figure in goal_figures] == [
        ("ours / axon, which keeps events in memory only", 0.5, True),
        ("ours / the limit", 2, False),
    ]


def test_summary_of_goals_gives_the_bound_of_each_missed_one(goal_figures):
    """The summary counts the goals that are met, and states the best possible ratio of the others."""
    import goals

    first, missed = goals.summary(goal_figures).splitlines()
    assert first == "1 of 2 goals are met"
    assert missed.endswith("(goal: at most 1.4: missed; in one function 1.50)")


def test_every_goal_refers_to_measured_cases(bench):
    """A renamed case cannot silently remove its goal."""
    import cases
    import goals

    for goal in goals.GOALS:
        assert goal.case in cases.CASES
        assert goal.base in cases.CASES
        assert goal.path is None or goal.path in cases.CASES


def test_ratios_are_computed_round_by_round(bench):
    """A load that slows down both cases of a round does not change their ratio."""
    import figures

    assert figures.ratios([2, 20, 200], [1, 10, 100]) == [2, 2, 2]


def test_spread_is_median_and_quartiles(bench):
    """The spread of values is their median and quartiles; that of one value is the value."""
    import figures

    assert figures.Spread.of([3, 1, 2, 4, 5]) == (3, 2, 4)
    assert figures.Spread.of([7]) == (7, 7, 7)


@pytest.mark.parametrize("page", ["examples/guide/benchmarks.md", ".github/benchmark.svg"])
def test_guide_and_chart_quote_the_labels_of_all_cases(bench, page):
    """The page about benchmarks and its chart have a row for each case, with the label that the command prints."""
    import cases

    text = html.unescape((BENCH.parent.parent / page).read_text(encoding="utf-8"))
    missing = [name for name in cases.CASES if name not in text]
    assert not missing
