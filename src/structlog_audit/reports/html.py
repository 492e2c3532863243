"""A report as one HTML document.

**Guarantees**

* The document is self-contained: no scripts, no external fonts or images. Its content security policy enforces that, and
  allows the one style sheet by its hash. No element has a style attribute.
* Every text is escaped, by the template engine or by the serializer of the charts. Texts of events stand in ``<bdi>``, so
  their direction does not affect the text around them.
* Print contains everything on the page, except the numbers behind charts.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from structlog_audit.reports import charts
from structlog_audit.reports.document import BulletList, Document, Figure, Table, cell_text
from structlog_audit.reports.formatting import number

MOST_DRAWN = 12
"""Maximum operations in the chart of durations."""

_STATUSES = ("FAILURE", "PARTIAL", "SUCCESS")
"""The order of the bars from the axis outwards: failures are next to the axis, where bars compare best."""

_BLOCK_TYPES = {"text": str, "table": Table, "figure": Figure, "bullet_list": BulletList}


def render_html(report: Document, members: dict[str, Any]) -> str:
    """Return *report* as HTML, with the charts of its figures, drawn from *members*, the data of the report."""
    environment = _environment()
    template = environment.get_template("report.html.jinja")
    source = environment.loader.get_source(environment, "report.css")[0]  # type: ignore[union-attr]
    style = Markup(source)  # noqa: S704 (a file of this package)

    return template.render(
        report=report,
        style=style,
        policy=_policy(style),
        charts={name: _CHARTS[name](members) for name in _figures(report)},
    )


def _figures(report: Document) -> Iterator[str]:
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Figure):
                yield block.name


def _policy(style: str) -> str:
    """Return the content security policy that allows *style* and nothing else."""
    digest = hashlib.sha256(style.encode()).digest()
    encoded = base64.b64encode(digest).decode()
    return f"default-src 'none'; style-src 'sha256-{encoded}'; base-uri 'none'; form-action 'none'"


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("structlog_audit.reports"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )

    environment.globals["cell_text"] = cell_text
    for name, block_type in _BLOCK_TYPES.items():
        environment.tests[f"{name}_block"] = lambda block, block_type=block_type: isinstance(block, block_type)
    return environment


TitledCharts = list[tuple[str, Markup]]


def _status_charts(members: dict[str, Any]) -> TitledCharts:
    """Return the charts of all events and, enlarged, of unsuccessful events."""
    steps = members["over_time"]["steps"]
    most = max((step["total"] for step in steps), default=0)
    highest_tick = charts.whole_ticks(most)[-1]

    # One width of the axis labels for both charts lines up their bars.
    label_width = len(number(highest_tick))

    drawn: TitledCharts = []
    for title, statuses, height in (
        ("All events", _STATUSES, 220),
        ("Failed or partial events, enlarged", _STATUSES[:2], 130),
    ):
        if any(step[status] for step in steps for status in statuses):
            chart = _status_chart(title, members, statuses, height, label_width)
            drawn.append((title, chart))
    return drawn


def _status_chart(
    title: str, members: dict[str, Any], statuses: tuple[str, ...], height: int, label_width: int
) -> Markup:
    unit = members["over_time"]["unit"]
    steps = members["over_time"]["steps"]
    label = f"Chart: {title} by {unit}. The text below describes it."
    return charts.over_time(unit, steps, statuses, height=height, label_width=label_width, label=label)


def _duration_charts(members: dict[str, Any]) -> TitledCharts:
    timed = [row for row in members["operations"] if row["timed_events"]]
    label = "Chart: p50, p95 and p99 of the durations of operations. The table contains the numbers."
    chart = charts.durations(timed[:MOST_DRAWN], label=label)
    return [("Duration, logarithmic scale", chart)]


_CHARTS: dict[str, Callable[[dict[str, Any]], TitledCharts]] = {
    "over_time": _status_charts,
    "durations": _duration_charts,
}
"""The functions that draw the charts of a figure, by its name."""
