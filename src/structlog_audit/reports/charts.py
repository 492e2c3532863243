"""Charts as inline SVG, drawn by pygal.

**Guarantees**

* Only shapes and labels of pygal's drawing are kept; its styles, scripts and tooltips are removed. The style sheet of the
  document styles the charts through pygal's classes, so they follow light mode, dark mode and print.
* Every chart is drawn twice, wide and narrow, with text of the same size. The style sheet shows the one that fits.
* A chart is an image to assistive technology. The document contains its description and its numbers.
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

from structlog_audit.reports import formatting
from structlog_audit.reports.aggregation import PERCENTILES

# pygal installs an import hook for plugins that draw maps. Without such plugins it is removed again: the hook has no
# ``find_spec``, so Python 3.11 warns at every import of a missing module (Kozea/pygal#532).
if not entry_points(group="pygal.maps"):
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

WIDTHS = {"wide": 720, "narrow": 358}
"""Pixels of the two drawings: a column of text, and a phone (390) without its margins."""

_MOST_TICKS = {"wide": 12, "narrow": 5}
"""Maximum labels below a time axis."""

_LONGEST_LABEL = {"wide": 24, "narrow": 14}
"""Maximum characters of a label beside an axis."""

_FONT_SIZE = 12

FIGURE_SPACE = "\u2007"
"""A space as wide as a digit."""

_LEAST_MS = 1e-6
"""The shortest duration on a logarithmic axis, a nanosecond."""

Rows = Sequence[dict[str, Any]]

Titles = list[list[str]]
"""The titles of the shapes of each series of a chart, in order."""


def over_time(unit: str, steps: Rows, statuses: Sequence[str], *, height: int, label_width: int, label: str) -> Markup:
    """Return stacked bars of the counts of *statuses* in each of the *steps*.

    Args:
        unit: The unit of the steps.
        steps: The rows of ``over_time`` in the report.
        statuses: The statuses, from the axis outwards.
        height: The height in pixels.
        label_width: The minimum characters of the numbers beside the axis. An equal width lines up the bars of charts
            that stand below each other.
        label: The text for assistive technology.
    """
    drawings = []
    for size in WIDTHS:
        chart = _bars(unit, steps, statuses, size, height, label_width)
        drawings.append(_svg(chart, _bar_titles(unit, steps, statuses), size, label))
    return Markup("").join(drawings)


def _bars(unit: str, steps: Rows, statuses: Sequence[str], size: str, height: int, label_width: int) -> Any:
    highest = max(sum(step[status] for status in statuses) for step in steps)
    ticks = whole_ticks(highest)

    # Label every n-th step only, so that labels do not overlap.
    interval = math.ceil(len(steps) / _MOST_TICKS[size])
    labels = []
    for index, step in enumerate(steps):
        labels.append("" if index % interval else formatting.tick_label(unit, step["start"]))

    def axis_number(value: int) -> str:
        return formatting.number(value).rjust(label_width, FIGURE_SPACE)

    chart = pygal.StackedBar(
        x_labels=labels,
        y_labels=ticks,
        range=(0, ticks[-1]),
        height=height,
        **_options(size, axis_number),
    )
    for status in statuses:
        chart.add(status, [step[status] for step in steps])
    return chart


def _bar_titles(unit: str, steps: Rows, statuses: Sequence[str]) -> Titles:
    titles = []
    for status in statuses:
        of_status = []
        for step in steps:
            name = formatting.step_label(unit, step["start"])
            count = formatting.number(step[status])
            of_status.append(f"{name}: {count} {status}")
        titles.append(of_status)
    return titles


def durations(operations: Rows, *, label: str) -> Markup:
    """Return dots of p50, p95 and p99 of each of *operations* on a logarithmic axis.

    Args:
        operations: Rows of ``operations`` in the report that have durations.
        label: The text for assistive technology.
    """
    drawings = []
    for size in WIDTHS:
        chart = _dots(operations, size)
        drawings.append(_svg(chart, _dot_titles(operations), size, label))
    return Markup("").join(drawings)


def _dots(operations: Rows, size: str) -> Any:
    percentiles = _percentiles(operations)
    ticks = powers_of_ten(min(percentiles["p50"]), max(percentiles["p99"]))

    labels = []
    for row in operations:
        name = formatting.visible(row["operation"])
        labels.append(formatting.shorten(name, _LONGEST_LABEL[size]))

    chart = pygal.HorizontalLine(
        x_labels=labels,
        y_labels=ticks,
        range=(ticks[0], ticks[-1]),
        height=44 + 26 * len(operations),
        logarithmic=True,
        stroke=False,
        dots_size=5,
        show_x_guides=True,
        **_options(size, formatting.duration_label),
    )
    for percentile, values in percentiles.items():
        chart.add(percentile, values)
    return chart


def _dot_titles(operations: Rows) -> Titles:
    names = [formatting.visible(row["operation"]) for row in operations]
    titles = []
    for percentile, values in _percentiles(operations).items():
        of_percentile = []
        for name, value in zip(names, values, strict=True):
            duration = formatting.milliseconds(value)
            of_percentile.append(f"{name}: {percentile} {duration} ms")
        titles.append(of_percentile)
    return titles


def _percentiles(operations: Rows) -> dict[str, list[float]]:
    """Return the durations of all *operations* by percentile."""
    percentiles = {}
    for percent in PERCENTILES:
        key = f"p{percent}_duration_ms"
        percentiles[f"p{percent}"] = [row[key] for row in operations]
    return percentiles


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


_SERIES = re.compile(r"series serie-(\d+)")
_REMOVED_TAGS = {"defs", "desc", "title", None}
_LONG_DECIMAL = re.compile(r"\d+\.\d{2,}")


def _svg(chart: Any, titles: Titles, size: str, label: str) -> Markup:
    """Return the shapes and labels of *chart* as an image, with titles and a label."""
    root = chart.render_tree()

    # The titles of pygal are removed first, then the shapes get those of the report.
    _remove(root, lambda node: _tag(node) in _REMOVED_TAGS)
    _add_titles(root, titles)
    _remove(root, _is_invisible)
    _shorten_numbers(root)

    del root.attrib["id"]
    root.attrib.update({"class": f"chart {size}", "role": "img", "aria-label": label})
    return Markup(etree.tostring(root, encoding="unicode"))  # noqa: S704 (made by a serializer, which escapes)


def _add_titles(root: Any, titles: Titles) -> None:
    """Give the shapes of every series their titles."""
    for group in root.iter():
        css_class = group.attrib.get("class", "")
        match = _SERIES.match(css_class)
        if match is None:
            continue

        of_series = titles[int(match[1])]
        shapes = [node for node in group.iter() if _tag(node) in ("rect", "circle")]
        for shape, title in zip(shapes, of_series, strict=False):
            element = etree.SubElement(shape, "title")
            element.text = title


def _shorten_numbers(root: Any) -> None:
    """Round coordinates to a tenth of a pixel."""

    def rounded(match: re.Match[str]) -> str:
        value = float(match[0])
        return f"{value:.1f}"

    for node in root.iter():
        for name, value in node.attrib.items():
            node.attrib[name] = _LONG_DECIMAL.sub(rounded, value)


def _tag(node: Any) -> str | None:
    """Return the tag of an element without its namespace, or None for a comment.

    Elements have a namespace if pygal finds lxml, which it then uses.
    """
    return node.tag.rpartition("}")[2] if isinstance(node.tag, str) else None


def _remove(node: Any, unwanted: Callable[[Any], bool]) -> None:
    """Remove the *unwanted* elements below *node*, leaves first."""
    for child in list(node):
        _remove(child, unwanted)
        if unwanted(child):
            node.remove(child)


def _is_invisible(node: Any) -> bool:
    """Return whether *node* is an empty element, a background, or a bare guide."""
    css_class = node.attrib.get("class", "")

    match _tag(node):
        case "g":
            is_bare_guide = css_class == "guides" and len(node) == 1
            return not len(node) or is_bare_guide
        case "rect":
            return css_class in ("background", "tooltip-box") or float(node.attrib["height"]) == 0
        case "text":
            return not node.text
        case _:
            return False


def whole_ticks(highest: int) -> list[int]:
    """Return ticks from zero to *highest* or above.

    There are at most five steps of 1, 2 or 5 times a power of ten.
    """
    digits = len(str(highest))
    power = 10 ** max(0, digits - 2)

    for factor in (1, 2, 5, 10, 20, 50):
        size = factor * power
        if 5 * size >= highest:
            break

    stop = max(highest, 1) + size
    return list(range(0, stop, size))


def powers_of_ten(shortest: float, longest: float) -> list[float]:
    """Return two or more powers of ten that enclose *shortest* and *longest*."""
    shortest = max(shortest, _LEAST_MS)
    longest = max(longest, _LEAST_MS)

    lowest_power = math.floor(math.log10(shortest))
    highest_power = math.ceil(math.log10(longest))
    highest_power = max(highest_power, lowest_power + 1)
    return [10.0**power for power in range(lowest_power, highest_power + 1)]
