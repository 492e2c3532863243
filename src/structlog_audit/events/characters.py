"""Characters that break lines or deceive readers, for everything that writes text of events.

The constants are parts of a character class of `re`. A writer joins those that its output must not contain:
``matching(DELETE_AND_C1, SEPARATORS, BIDIRECTIONAL)``.

Sources: Unicode Standard §23, CVE-2021-42574 (bidirectional controls), RFC 8259 §7 (JSON escapes C0 controls itself).
"""

from __future__ import annotations

import re
from typing import Final

C0_BUT_LINE_BREAKS: Final = "\x00-\x09\x0b\x0c\x0e-\x1f"
"""C0 controls but LF and CR, for formats with escapes of their own for those two."""

LINE_BREAKS: Final = "\n\r"

DELETE_AND_C1: Final = "\x7f-\x9f"
"""DEL and the C1 controls. U+0085 (NEL) ends a line for many readers, U+009B begins a terminal sequence."""

SEPARATORS: Final = "\u2028\u2029"
"""Line separator and paragraph separator."""

BIDIRECTIONAL: Final = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
"""Marks, embeddings, overrides and isolates: they change the displayed order of other characters."""

SURROGATES: Final = "\ud800-\udfff"
"""Lone surrogates, which UTF-8 cannot encode."""

ZERO_WIDTH: Final = "\u200b\u2060\ufeff"
"""Zero width space, word joiner, byte order mark."""

JOINERS: Final = "\u200c\u200d"
"""Zero width joiner and non-joiner. Some scripts and emoji need them, so output for people keeps them."""

INVISIBLE_FORMATTING: Final = "\xad\u180e\u2061-\u2065\u206a-\u206f\U000e0000-\U000e007f"
"""Soft hyphen, Mongolian vowel separator, invisible operators, deprecated format characters, tags."""


def matching(*classes: str) -> re.Pattern[str]:
    """Return a pattern that matches one character of any of *classes*."""
    return re.compile(f"[{''.join(classes)}]")


def unicode_escape(found: re.Match[str]) -> str:
    r"""Return the escape of the matched character.

    ``\u202e``, or ``\U000e0041`` beyond U+FFFF.
    """
    code = ord(found[0])
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
