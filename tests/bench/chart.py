"""The table as a picture: bars in one self-contained SVG, in the colours of the reader's system.

A template of ours, since it is one loop. Charting libraries (pygal was looked at) bring scripts, know one colour scheme, and
put no text where a screen reader looks.
"""

from __future__ import annotations

from html import escape
from typing import NamedTuple

ROW, TOP, LABEL, BARS, WIDTH = 28, 56, 300, 360, 800
"""Pixels: of a row, above the rows, of the labels, of the longest bar, and in all."""

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
    """A row: what it is, how long, what is written behind it, and its class of `STYLE`."""

    name: str
    length: float
    figure: str
    kind: str


def chart(bars: list[Bar], title: str, below: str) -> str:
    """An SVG document of *bars*; a line marks length 1."""
    unit = BARS / max(1.0, *(bar.length for bar in bars))
    height = TOP + ROW * len(bars) + 34
    said = "; ".join(f"{bar.name}: {bar.figure}" for bar in bars)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title desc" viewBox="0 0 {WIDTH} {height}"'
        f' width="{WIDTH}" height="{height}">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(said)}. {escape(below)}</desc>',
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height}" rx="6"/>',
        f'<text class="head" x="16" y="30">{escape(title)}</text>',
    ]
    for number, bar in enumerate(bars):
        top, length = TOP + ROW * number, max(1.0, bar.length * unit)
        parts += [
            f'<text class="label" x="{LABEL - 10}" y="{top + 15}">{escape(bar.name)}</text>',
            f'<rect class="{bar.kind}" x="{LABEL}" y="{top}" width="{length:.1f}" height="{ROW - 8}" rx="3"/>',
            f'<text x="{LABEL + length + 8:.1f}" y="{top + 15}">{escape(bar.figure)}</text>',
        ]
    at, end = LABEL + unit, TOP + ROW * len(bars)
    parts.append(f'<path class="mark" d="M{at:.1f} {TOP - 8}V{end}"/>')
    parts.append(f'<text class="faint" x="16" y="{end + 20}">{escape(below)}</text></svg>\n')
    return "\n".join(parts)
