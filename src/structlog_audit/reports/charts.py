"""Charts as inline SVG, drawn by pygal.

Rules:

* Of what pygal makes only shapes and labels are kept: its styles, scripts and tooltips are taken out. How a chart looks is
  said by the style sheet of the document, through pygal's classes, so that it follows light, dark and print.
* Every chart is drawn twice, wide and narrow, with text of the same size; the style sheet shows the one that fits.
* The import hook that pygal installs is for plugins that draw maps. Where there are none it is taken out again: without
  ``find_spec`` it makes Python 3.11 warn at every import of a module that is missing (Kozea/pygal#532).
* A chart is an image to assistive technology; the document has its text and its numbers.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any

import pygal
from markupsafe import Markup
from pygal.etree import etree
from pygal.style import Style

from structlog_audit.reports import formatting as text

if not entry_points(group="pygal.maps"):
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

WIDTHS = {"wide": 720, "narrow": 358}
"""Pixels of the two drawings: a column of text, and a phone (390) without its margins."""

_TICKS = {"wide": 12, "narrow": 5}
"""Labels below a time axis, at most."""

_LONGEST = {"wide": 24, "narrow": 14}
"""Characters of a label beside an axis."""

_FONT_SIZE = 12

FIGURE_SPACE = "\u2007"
"""A space as wide as a digit."""

Rows = Sequence[dict[str, Any]]

Titles = list[list[str]]
"""Of each series of a chart, what its shapes show, in order."""


def over_time(unit: str, steps: Rows, statuses: Sequence[str], *, height: int, width: int, label: str) -> Markup:
    """Bars of the counts of *statuses*, one on top of the other, for each of the *steps*.

    The numbers beside the axis take at least *width* characters: charts below each other have their bars below each other.
    """
    return _both(lambda size: _bars(unit, steps, statuses, size, height, width), label)


def _bars(unit: str, steps: Rows, statuses: Sequence[str], size: str, height: int, width: int) -> tuple[Any, Titles]:
    every = math.ceil(len(steps) / _TICKS[size])
    ticks = whole_ticks(max(sum(step[status] for status in statuses) for step in steps))
    chart = pygal.StackedBar(
        x_labels=["" if number % every else text.tick(unit, step["start"]) for number, step in enumerate(steps)],
        y_labels=ticks,
        range=(0, ticks[-1]),
        height=height,
        **_options(size, lambda value: text.number(value).rjust(width, FIGURE_SPACE)),
    )
    for status in statuses:
        chart.add(status, [step[status] for step in steps])
    names = [text.step(unit, step["start"]) for step in steps]
    titles = [
        [f"{name}: {text.number(step[status])} {status}" for name, step in zip(names, steps, strict=True)]
        for status in statuses
    ]
    return chart, titles


def durations(operations: Rows, *, label: str) -> Markup:
    """Dots of p50, p95 and p99 of each of *operations*, on a logarithmic axis."""
    return _both(lambda size: _dots(operations, size), label)


def _dots(operations: Rows, size: str) -> tuple[Any, Titles]:
    percentiles = {f"p{percent}": [row[f"p{percent}_duration_ms"] for row in operations] for percent in (50, 95, 99)}
    ticks = powers_of_ten(min(percentiles["p50"]), max(percentiles["p99"]))
    names = [text.visible(row["operation"]) for row in operations]
    chart = pygal.HorizontalLine(
        x_labels=[text.shortened(name, _LONGEST[size]) for name in names],
        y_labels=ticks,
        range=(ticks[0], ticks[-1]),
        height=44 + 26 * len(operations),
        logarithmic=True,
        stroke=False,
        dots_size=5,
        show_x_guides=True,
        **_options(size, text.duration),
    )
    for percentile, values in percentiles.items():
        chart.add(percentile, values)
    titles = [
        [f"{name}: {percentile} {text.milliseconds(value)} ms" for name, value in zip(names, values, strict=True)]
        for percentile, values in percentiles.items()
    ]
    return chart, titles


def _options(size: str, formatter: Callable[[Any], str]) -> dict[str, Any]:
    return {
        "width": WIDTHS[size],
        "value_formatter": formatter,
        "style": Style(label_font_size=_FONT_SIZE, major_label_font_size=_FONT_SIZE),
        "js": (),
        "css": (),
        "show_legend": False,
        "explicit_size": False,
        "truncate_label": -1,
        "margin": 4,
        "margin_right": 14,
        "spacing": 6,
    }


def _both(draw: Callable[[str], tuple[Any, Titles]], label: str) -> Markup:
    return Markup("").join(_svg(*draw(size), size, label) for size in WIDTHS)


def _svg(chart: Any, titles: Titles, size: str, label: str) -> Markup:
    """What is kept of *chart*, as an image with a *label*."""
    root = chart.render_tree()
    _remove(root, lambda node: _tag(node) in _LEFT_OUT)
    for group in root.iter():
        series = _SERIES.match(group.attrib.get("class", ""))
        shapes = [] if series is None else [node for node in group.iter() if _tag(node) in ("rect", "circle")]
        for shape, title in zip(shapes, titles[int(series[1])] if series else (), strict=False):
            etree.SubElement(shape, "title").text = title
    _remove(root, _is_unseen)
    for node in root.iter():
        for name, value in node.attrib.items():
            node.attrib[name] = _PRECISE.sub(lambda found: f"{float(found[0]):.1f}", value)
    del root.attrib["id"]
    root.attrib.update({"class": f"chart {size}", "role": "img", "aria-label": label})
    return Markup(etree.tostring(root, encoding="unicode"))


_SERIES = re.compile(r"series serie-(\d+)")
_LEFT_OUT = {"defs", "desc", "title", None}
_PRECISE = re.compile(r"\d+\.\d{2,}")


def _tag(node: Any) -> str | None:
    """The name of an element; comments have none, and lxml's elements, which pygal uses if it finds them, a namespace."""
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else None


def _remove(node: Any, unwanted: Callable[[Any], bool]) -> None:
    """Take what is *unwanted* out of *node*, from the leaves up."""
    for child in list(node):
        _remove(child, unwanted)
        if unwanted(child):
            node.remove(child)


def _is_unseen(node: Any) -> bool:
    """Whether *node* is an empty label, group or bar, the background of a plot, or a guide without its label."""
    what = node.attrib.get("class", "")
    if _tag(node) == "g":
        return not len(node) or (what == "guides" and len(node) == 1)
    if _tag(node) == "rect":
        return what in ("background", "tooltip-box") or float(node.attrib["height"]) == 0
    return _tag(node) == "text" and not node.text


def whole_ticks(most: int) -> list[int]:
    """From zero in equal steps of 1, 2 or 5 times a power of ten to *most* or above: at most five steps."""
    power = 10 ** max(0, len(str(most)) - 2)
    size = next(factor * power for factor in (1, 2, 5, 10, 20, 50) if 5 * factor * power >= most)
    return list(range(0, max(most, 1) + size, size))


def powers_of_ten(least: float, most: float) -> list[float]:
    """The powers of ten from *least* or below to *most* or above, two at least."""
    low = math.floor(math.log10(max(least, 1e-6)))
    high = max(low + 1, math.ceil(math.log10(max(most, 1e-6))))
    return [10.0**power for power in range(low, high + 1)]
