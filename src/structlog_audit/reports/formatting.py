r"""Numbers, times and texts of events as people read them, alike in every form of a report.

**Guarantees**

* Nothing depends on a locale. A time with an offset is shown with it; one without is in UTC, which the text around it states.
* A rate below 100 % never shows as 100.0 %, and a rate above 0 % never shows as 0.0 %.
* In texts of events, characters that are invisible or reorder others become escapes such as ``\u202e``: controls,
  bidirectional controls (CVE-2021-42574), lone surrogates, and combining marks stacked higher than in any script.
"""

from __future__ import annotations

import datetime as dt
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

from structlog_audit.events.characters import (
    BIDIRECTIONAL,
    C0_BUT_LINE_BREAKS,
    DELETE_AND_C1,
    INVISIBLE_FORMATTING,
    LINE_BREAKS,
    SEPARATORS,
    SURROGATES,
    ZERO_WIDTH,
    matching,
    unicode_escape,
)

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
          "December")  # fmt: skip

_HIDDEN = matching(
    C0_BUT_LINE_BREAKS,
    LINE_BREAKS,
    DELETE_AND_C1,
    SEPARATORS,
    BIDIRECTIONAL,
    SURROGATES,
    ZERO_WIDTH,
    INVISIBLE_FORMATTING,
)

LONGEST_NAME = 80
"""Maximum characters of a name in a document. A UUID or an email address fits."""

LONGEST_ENTRY_ID = 48
"""Maximum characters of an entry id in a document. A UUID with a prefix fits."""

_MAX_COMBINING_MARKS = 4
"""Combining marks kept on one character. Vietnamese needs two, Hebrew with cantillation three."""


def visible(text: str) -> str:
    r"""Return *text* with hidden and reordering characters escaped: ``\u202e``."""
    if text.isascii() and text.isprintable():
        return text
    return _HIDDEN.sub(unicode_escape, _limit_combining_marks(text))


def _limit_combining_marks(text: str) -> str:
    """Return *text* without excessive combining marks, and a note of their number."""
    kept = []
    stacked = 0
    omitted = 0

    for character in text:
        stacked = stacked + 1 if unicodedata.combining(character) else 0
        if stacked <= _MAX_COMBINING_MARKS:
            kept.append(character)
        else:
            omitted += 1

    note = f" [{count(omitted, 'combining mark')} omitted]" if omitted else ""

    return "".join(kept) + note


def number(value: int) -> str:
    """Return *value* with thousands separators: ``12,345``."""
    return f"{value:,}"


def count(value: int, singular: str, plural: str = "") -> str:
    """Return *value* with its noun: ``1 event``, ``12,345 events``.

    The default plural adds an s.
    """
    noun = singular if value == 1 else plural or f"{singular}s"
    return f"{value:,} {noun}"


def percent(rate: float) -> str:
    """Return *rate*, between 0 and 1, as a percentage with one decimal."""
    rounded = round(rate * 100, 1)
    if 0 < rate < 1:
        rounded = min(max(rounded, 0.1), 99.9)

    return f"{rounded:.1f} %"


def milliseconds(value: float) -> str:
    """Return *value* with about three digits: ``0.021``, ``45.2``, ``12,345``."""
    if not value:
        return "0"

    if 0 < value < 0.0005:
        return "< 0.001"

    if value < 1:
        decimals = 3
    elif value < 10:
        decimals = 2
    elif value < 100:
        decimals = 1
    else:
        decimals = 0

    return f"{value:,.{decimals}f}"


_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))
"""The units of the length of a period, with their seconds."""


def length(seconds: float) -> str:
    """Return the length of a period with its unit: ``31 days``, ``1.5 hours``, ``30 seconds``."""
    name, size = next((unit for unit in _UNITS if seconds >= unit[1]), ("second", 1))
    value = round(seconds / size, 1)
    text = f"{value:,.1f}".removesuffix(".0")

    return f"{text} {name}" if value == 1 else f"{text} {name}s"


def duration_label(milliseconds: float) -> str:
    """Return a round duration with its unit, for an axis: ``10 µs``, ``1 s``."""
    for unit, size in (("s", 1e3), ("ms", 1.0), ("µs", 1e-3)):
        if milliseconds >= size * 0.999:
            return f"{milliseconds / size:,.0f} {unit}"

    return f"{milliseconds * 1e6:,.0f} ns"


def timestamp(time: str) -> str:
    """Return *time* (RFC 3339) to the second: ``2025-01-15 10:30:45`` in UTC, otherwise with the offset."""
    offset = _offset(time)
    return f"{time[:10]} {time[11:19]} {offset}" if offset else f"{time[:10]} {time[11:19]}"


def timestamp_with_zone(time: str) -> str:
    """Return *time* as `timestamp` does, also with ``UTC``."""
    return timestamp(time) if _offset(time) else f"{timestamp(time)} UTC"


def time_range(first: str, last: str) -> str:
    """Return the range of two times in words: ``from … to … (UTC)``, or with their offsets."""
    text = f"from {timestamp(first)} to {timestamp(last)}"
    return text if _offset(last) else f"{text} (UTC)"


def _offset(time: str) -> str:
    """Return the offset of *time* (RFC 3339), such as ``+01:00``; nothing for UTC, which is written as Z."""
    return "" if time.endswith("Z") else time[26:]


def month_name(month: str) -> str:
    """Return *month*, such as ``2025-01``, in words: ``January 2025``."""
    year = month[:4]
    month_number = int(month[5:])

    return f"{MONTHS[month_number - 1]} {year}"


def _day(time: dt.datetime) -> str:
    return f"{time.day} {MONTHS[time.month - 1]} {time.year}"


def _short_day(time: dt.datetime) -> str:
    return f"{time.day} {MONTHS[time.month - 1][:3]}"


_STEP_LABELS: dict[str, Callable[[dt.datetime], str]] = {
    "hour": lambda time: f"{_day(time)}, {time:%H:%M}",
    "day": _day,
    "week": lambda time: f"week of {_day(time)}",
    "month": lambda time: f"{MONTHS[time.month - 1]} {time.year}",
    "year": lambda time: str(time.year),
    "decade": lambda time: f"decade from {time.year}",
    "century": lambda time: f"century from {time.year}",
}

_TICK_LABELS: dict[str, Callable[[dt.datetime], str]] = {
    "hour": lambda time: f"{time.hour:02}:00" if time.hour else _short_day(time),
    "day": _short_day,
    "week": _short_day,
    "month": lambda time: f"{MONTHS[time.month - 1][:3]} {time.year}",
    "year": lambda time: str(time.year),
    "decade": lambda time: str(time.year),
    "century": lambda time: str(time.year),
}


def step_label(unit: str, start: str) -> str:
    """Return the step of a time axis that begins at *start* (RFC 3339), in words, an hour with its offset."""
    label = _STEP_LABELS[unit](dt.datetime.fromisoformat(start))
    return f"{label} {_offset(start)}".rstrip() if unit == "hour" else label


def tick_label(unit: str, start: str) -> str:
    """Return the short label of the same step, for an axis."""
    return _TICK_LABELS[unit](dt.datetime.fromisoformat(start))


def entry_list(row: dict[str, Any]) -> str:
    """Return the entry ids in *row*, with the number of those that the row omits."""
    entry_ids = row["entry_ids"]
    omitted = row["entries"] - len(entry_ids)

    names = [display_name(entry_id, LONGEST_ENTRY_ID) for entry_id in entry_ids]
    joined = ", ".join(names)

    return f"{joined} and {number(omitted)} more" if omitted else joined


def enumeration(parts: Sequence[str]) -> str:
    """Return *parts* as in a sentence: ``a, b and c``."""
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def display_name(value: str, limit: int = LONGEST_NAME) -> str:
    """Return a name as people read it: visible, and of limited length.

    Beyond *limit* characters, an ellipsis replaces the middle.
    The empty name shows as ``""`` to distinguish it from an absent name.
    """
    shown = visible(value) or '""'
    if len(shown) <= limit:
        return shown

    return f"{shown[: limit // 2]}…{shown[1 - limit // 2 :]}"


def shorten(text: str, limit: int) -> str:
    """Return at most *limit* characters of *text*; an ellipsis replaces the rest."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
