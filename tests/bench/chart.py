"""The table as a bar chart: one self-contained SVG that follows the reader's light or dark colour scheme.

It is written by hand, because it takes one loop. Charting libraries such as pygal add scripts, support one colour scheme, and
give a screen reader no text.
"""

from __future__ import annotations

from html import escape
from typing import NamedTuple

ROW, TOP, LABEL, BARS, WIDTH = 28, 56, 300, 360, 800
"""Pixels: the height of a row, the space above the rows, and the widths of the labels, the longest bar and the picture."""

STYLE = """
:root { --ground: #ffffff; --text: #1f2328; --faint: #59636e; --ours: #0969da; --other: #818b98; --limit: #9a6700 }
@media (prefers-color-scheme: dark) {
  :root { --ground: #0d1117; --text: #f0f6fc; --faint: #9198a1; --ours: #4493f8; --other: #656c76; --limit: #d29922 }
}
text { font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--text) }
.ground { fill: var(--ground) } .ours { fill: var(--ours) } .other { fill: var(--other) } .limit { fill: var(--limit) }
.head { font-weight: 600 } .faint { fill: var(--faint); font-size: 12px } .label { text-anchor: end }
.mark { stroke: var(--limit); stroke-dasharray: 3 3 }
"""


class Bar(NamedTuple):
    """A row of the chart."""

    name: str
    length: float
    figure: str
    """The text behind the bar."""
    kind: str
    """A class of `STYLE`: ``ours``, ``other`` or ``limit``."""


def chart(bars: list[Bar], title: str, below: str) -> str:
    """Return an SVG document with *bars* and the text *below* them.

    A line marks length 1.
    """
    longest = max(1.0, *(bar.length for bar in bars))
    unit = BARS / longest
    mark = LABEL + unit
    end = TOP + ROW * len(bars)
    height = end + 34
    description = "; ".join(f"{bar.name}: {bar.figure}" for bar in bars)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title desc" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(description)}. {escape(below)}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>',
        f'<text class="head" x="16" y="30">{escape(title)}</text>',
    ]
    for number, bar in enumerate(bars):
        parts += row(bar, TOP + ROW * number, unit)
    parts += [
        f'<path class="mark" d="M{mark:.1f} {TOP - 8}V{end}"/>',
        f'<text class="faint" x="16" y="{end + 20}">{escape(below)}</text></svg>\n',
    ]
    return "\n".join(parts)


def row(bar: Bar, top: float, unit: float) -> list[str]:
    """Return the elements of a row: label, bar and figure.

    Args:
        bar: The row.
        top: The distance of the row from the top of the picture, in pixels.
        unit: The pixels of length 1.
    """
    length = max(1.0, bar.length * unit)
    right = LABEL + length
    base = top + 15
    return [
        f'<text class="label" x="{LABEL - 10}" y="{base}">{escape(bar.name)}</text>',
        f'<rect class="{bar.kind}" x="{LABEL}" y="{top}" width="{length:.1f}" height="{ROW - 8}" rx="3"/>',
        f'<text x="{right + 8:.1f}" y="{base}">{escape(bar.figure)}</text>',
    ]
