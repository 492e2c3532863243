"""Durations as people write them: ``90s``, ``15m``, ``24h``, ``7d``, ``1h30m``."""

from __future__ import annotations

import datetime as dt
import re

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_PART = re.compile(r"(\d+)([wdhms])")
_DURATION = re.compile(r"(?:\d+[wdhms])+")


def parse_duration(text: str) -> dt.timedelta | None:
    """Return the duration that *text* states in weeks, days, hours, minutes and seconds, or None if it states none.

    Raises:
        OverflowError: The duration exceeds the range of a timedelta.
    """
    if not _DURATION.fullmatch(text):
        return None

    seconds = sum(int(count) * _SECONDS[unit] for count, unit in _PART.findall(text))
    return dt.timedelta(seconds=seconds)


def format_duration(duration: dt.timedelta) -> str:
    """Return *duration* as `parse_duration` reads it, such as ``1h30m``, without fractions of a second."""
    remaining = int(duration.total_seconds())
    text = ""
    for unit in "dhms":
        count, remaining = divmod(remaining, _SECONDS[unit])
        if count:
            text += f"{count}{unit}"
    return text or "0s"
