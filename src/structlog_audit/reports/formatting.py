"""What people read: numbers, times and texts of events, the same in every document.

Rules:

* Nothing here depends on a locale. Times are UTC.
* A rate below 100 % is never shown as 100.0 %, and one above 0 % never as 0.0 %.
* Of texts of events, characters that are not to be seen, or that change the order of others, are shown as escapes: controls,
  bidirectional controls (CVE-2021-42574), invisible ones, lone surrogates, and marks stacked higher than any script does.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip

_HIDDEN = re.compile(
    "[\0-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff"
    "\U000e0000-\U000e007f]"
)

LONGEST_NAME = 80
"""Characters of a name in a document, at most: a UUID or an address is not cut."""

LONGEST_ENTRY = 48
"""Characters of the id of an entry in a document, at most: a UUID with a prefix is not cut."""

_HIGHEST = 4
"""Combining marks on one character, at most: Vietnamese has two, Hebrew with cantillation three."""


def visible(text: str) -> str:
    r"""*text* with what is not to be seen as escapes, such as ``\u202e``."""
    if text.isascii() and text.isprintable():
        return text
    return _HIDDEN.sub(_escape, _unstacked(text))


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def _unstacked(text: str) -> str:
    """*text* without the combining marks that stand above or below `_HIGHEST` others; how many there were is said."""
    kept, marks, left_out = [], 0, 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        if marks <= _HIGHEST:
            kept.append(character)
        else:
            left_out += 1
    return "".join(kept) + (f" [{left_out} combining marks left out]" if left_out else "")


def number(value: int) -> str:
    """*value* with separators: ``12,345``."""
    return f"{value:,}"


def count(value: int, one: str, many: str = "") -> str:
    """*value* and what it counts: ``1 event``, ``12,345 events``."""
    return f"{value:,} {one if value == 1 else many or one + 's'}"


def percent(rate: float) -> str:
    """*rate*, 0 to 1, in per cent with one digit."""
    shown = round(rate * 100, 1)
    if 0 < rate < 1:
        shown = min(max(shown, 0.1), 99.9)
    return f"{shown:.1f} %"


def milliseconds(value: float) -> str:
    """*value* with about three digits, without the unit: ``0.021``, ``45.2``, ``12,345``."""
    if 0 < value < 0.0005:
        return "< 0.001"
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}" if value else "0"


def duration(milliseconds: float) -> str:
    """A round duration with its unit, for an axis: ``10 µs``, ``1 s``."""
    for unit, size in (("s", 1e3), ("ms", 1.0), ("µs", 1e-3)):
        if milliseconds >= size * 0.999:
            return f"{milliseconds / size:,.0f} {unit}"
    return f"{milliseconds * 1e6:,.0f} ns"


def second(time: str) -> str:
    """*time* (RFC 3339, UTC) to the second: ``2025-01-15 10:30:45``."""
    return f"{time[:10]} {time[11:19]}"


def month_name(month: str) -> str:
    """*month*, such as ``2025-01``, in words: ``January 2025``."""
    return f"{MONTHS[int(month[5:]) - 1]} {month[:4]}"


def _day(moment: dt.datetime) -> str:
    return f"{moment.day} {MONTHS[moment.month - 1]} {moment.year}"


_STEPS: dict[str, tuple[Callable[[dt.datetime], str], Callable[[dt.datetime], str]]] = {
    "hour": (lambda t: f"{_day(t)}, {t.hour:02}:00", lambda t: f"{t.hour:02}:00" if t.hour else _short_day(t)),
    "day": (_day, lambda t: _short_day(t)),
    "week": (lambda t: f"week of {_day(t)}", lambda t: _short_day(t)),
    "month": (lambda t: f"{MONTHS[t.month - 1]} {t.year}", lambda t: f"{MONTHS[t.month - 1][:3]} {t.year}"),
    "year": (lambda t: str(t.year), lambda t: str(t.year)),
    "decade": (lambda t: f"decade from {t.year}", lambda t: str(t.year)),
    "century": (lambda t: f"century from {t.year}", lambda t: str(t.year)),
}


def _short_day(moment: dt.datetime) -> str:
    return f"{moment.day} {MONTHS[moment.month - 1][:3]}"


def step(unit: str, start: str) -> str:
    """The step of a time axis that begins at *start* (RFC 3339), in words."""
    return _STEPS[unit][0](dt.datetime.fromisoformat(start))


def tick(unit: str, start: str) -> str:
    """The same as a label of an axis."""
    return _STEPS[unit][1](dt.datetime.fromisoformat(start))


def entries(row: dict[str, Any]) -> str:
    """The entries that the event of *row* names, as far as the row has them."""
    more = row["entries"] - len(row["entry_ids"])
    named = ", ".join(name(entry_id, LONGEST_ENTRY) for entry_id in row["entry_ids"])
    return f"{named} and {number(more)} more" if more else named


def listed(parts: Sequence[str]) -> str:
    """*parts* as in a sentence: ``a, b and c``."""
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)


def name(value: str, most: int = LONGEST_NAME) -> str:
    """*value*, which names somebody or something, visibly, and cut in the middle to at most *most* characters.

    The empty name is shown as quotes: it is another than none.
    """
    shown = visible(value) or '""'
    return shown if len(shown) <= most else f"{shown[: most // 2]}…{shown[1 - most // 2 :]}"


def shortened(text: str, most: int) -> str:
    """*text*, of at most *most* characters; what was left out is an ellipsis."""
    return text if len(text) <= most else text[: most - 1] + "…"
