"""A report as one HTML document.

Rules:

* It asks nothing of anybody: no script, no font, no picture from elsewhere. A content security policy in it says so, and allows
  the one style sheet by its hash. No element has a style of its own.
* Every text is escaped by the template engine or by the serializer of the charts. Texts of events stand in ``<bdi>``, so that
  their direction stays theirs.
* What is on the page is also on paper, but the numbers behind a chart.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from structlog_audit.reports import charts
from structlog_audit.reports.document import Document, Figure, Listing, Table, plain

_STATUSES = ("FAILURE", "PARTIAL", "SUCCESS")
"""From the axis outwards: what went wrong is where bars are easy to compare."""


def html(report: Document, members: dict[str, Any]) -> str:
    """*report*, made of the *members* of a `Report`, as HTML."""
    environment = _environment()
    style = Markup(environment.loader.get_source(environment, "report.css")[0])  # type: ignore[union-attr]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    drawn = {name: draw(members) for name, draw in _CHARTS.items()}
    return environment.get_template("report.html.jinja").render(report=report, style=style, policy=policy, charts=drawn)


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
    environment.globals["plain"] = plain
    kinds = {"text": str, "table": Table, "figure": Figure, "listing": Listing}
    environment.tests.update(
        {f"{name}_block": (lambda block, of=of: isinstance(block, of)) for name, of in kinds.items()}
    )
    return environment


def _over_time(members: dict[str, Any]) -> list[tuple[str, Markup]]:
    """All events, and those that did not succeed on a scale of their own: beside the others they would not be seen."""
    unit, steps = members["over_time"]["unit"], members["over_time"]["steps"]
    drawn: list[tuple[str, Markup]] = []
    width = len(plain("number", charts.whole_ticks(max((step["total"] for step in steps), default=0))[-1]))
    for title, statuses, height in (
        ("All events", _STATUSES, 220),
        ("Failed or in part, enlarged", _STATUSES[:2], 130),
    ):
        if any(step[status] for step in steps for status in statuses):
            label = f"Chart: {title} by {unit}. The text below says what it shows."
            drawn.append((title, charts.over_time(unit, steps, statuses, height=height, width=width, label=label)))
    return drawn


def _durations(members: dict[str, Any]) -> list[tuple[str, Markup]]:
    timed = [row for row in members["operations"] if row["timed_events"]][:MOST_DRAWN]
    if not timed:
        return []
    label = "Chart: p50, p95 and p99 of the durations of operations. The table has the numbers."
    return [("Duration, logarithmic", charts.durations(timed, label=label))]


MOST_DRAWN = 12
"""Operations in the chart of durations, at most."""

_CHARTS = {"over_time": _over_time, "durations": _durations}
